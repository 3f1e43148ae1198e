/*
 * backend_probe.h - an external store of a storage backend: checks that it can be reached before the system reports
 * that it is serving, and removes the system's data from it when the system ends.
 */
#ifndef TQI_DAEMON_BACKEND_PROBE_H
#define TQI_DAEMON_BACKEND_PROBE_H

#include "controller/controller.h"
#include "daemon/config.h"

#include <uv.h>

/* Starts the check. `checked` is called once from the loop, with err NULL if nothing is wrong as far as can be seen
 * from here: backends for Python clients only, and those of plug-ins, are first tried by a client. *out says whether a
 * check was started; if not, `checked` is not called. */
int tqd_backend_probe_check(uv_loop_t *loop, const tqd_config *config, void (*checked)(const tq_error *err, void *arg),
                            void *arg, bool *out, tq_error *err);

/* Whether only clients can remove the system's data, because the library cannot list the store itself. */
bool tqd_backend_probe_needs_clients(const tqd_config *config);

/* The controller's epoch has ended, and it knew of `stored`: removes that data on a thread of the loop's pool, and
 * logs what stays. Does nothing if the data is in storage units. */
void tqd_backend_probe_end(uv_loop_t *loop, const tqd_config *config, uint64_t epoch, tqi_controller_stored stored);

#endif
