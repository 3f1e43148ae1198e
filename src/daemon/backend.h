/*
 * backend.h - the store of a storage backend that somebody else runs: whether it is there, before the system says that it
 * serves, and what of the system is in it when that ends.
 */
#ifndef TQD_BACKEND_H
#define TQD_BACKEND_H

#include "controller/controller.h"
#include "daemon/config.h"

#include <uv.h>

/* Looks.  `checked` is called once from the loop, with err NULL when nothing is wrong as far as can be seen from here: what
 * is for clients in Python only, and what a plug-in brings, is seen by the first client.  *out tells whether it looks; else
 * `checked` is not called. */
int tqd_backend_check(uv_loop_t *loop, const tqd_config *config,
                      void (*checked)(const tq_error *err, void *arg), void *arg, bool *out,
                      tq_error *err);

/* Whether only clients can remove what the system has stored: its store is none that the library itself can go through. */
bool tqd_backend_needs_clients(const tqd_config *config);

/* The controller's epoch is over, and it knew of `stored`: removes that, on a thread of the loop's pool, and logs what
 * stays.  Does nothing where the data lies in storage units. */
void tqd_backend_end(uv_loop_t *loop, const tqd_config *config, uint64_t epoch,
                     tqi_controller_stored stored);

#endif
