/*
 * backend.h - whether the store of a storage backend that somebody else runs is there, before the system says that it
 * serves.
 */
#ifndef TQD_BACKEND_H
#define TQD_BACKEND_H

#include "daemon/config.h"

#include <uv.h>

/* Looks.  `checked` is called once from the loop, with err NULL when nothing is wrong as far as can be seen from here: what
 * is for clients in Python only, and what a plug-in brings, is seen by the first client.  *out tells whether it looks; else
 * `checked` is not called. */
int tqd_backend_check(uv_loop_t *loop, const tqd_config *config,
                      void (*checked)(const tq_error *err, void *arg), void *arg, bool *out,
                      tq_error *err);

#endif
