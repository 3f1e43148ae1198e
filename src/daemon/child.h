/*
 * child.h - a program that the daemon starts as its child: the daemon waits until it serves, and it ends with the
 * daemon. The child is killed with SIGKILL when the daemon dies for any reason. Its output is drained continuously, so
 * it never blocks; the tail is kept for error messages. It is stopped with SIGTERM, and with SIGKILL if that takes too
 * long.
 */
#ifndef TQI_DAEMON_CHILD_H
#define TQI_DAEMON_CHILD_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tq/errors.h>
#include <uv.h>

#define TQD_BACKEND_ARGS 24

typedef struct tqd_child tqd_child;

typedef struct tqd_child_options {
    const char *what;                        /* in messages: "the Redis server" */
    const char *program;                     /* its path */
    const char *const *argv;                 /* ends with NULL */
    const char *input;                       /* its standard input, short; NULL: none */
    const char *ready_line;                  /* it is serving once it writes this; or NULL, and: */
    const struct sockaddr_storage *ready_at; /* it is serving once it accepts connections here */
    uint64_t timeout_ms;                     /* until it must serve */
    /* Called once from the loop: it is serving (err is NULL), or never will. */
    void (*ready)(const tq_error *err, void *arg);
    /* Called once when it has exited: after a stop, or by itself, then with a text that says how. Frees the child. */
    void (*ended)(const char *how, void *arg);
    void *arg;
} tqd_child_options;

/* Finds a program next to this one, else on the PATH. False if it is in neither. */
bool tqd_backend_kind_find(const char *name, char out[PATH_MAX]);
/* Starts it. Strings are used during the call only, but `what` and `ready_line` until it has ended. */
int tqd_child_start(uv_loop_t *loop, const tqd_child_options *options, tqd_child **out, tq_error *err);
/* Stops it; `ended` will be called, and `ready` no longer. */
void tqd_child_stop(tqd_child *child);
int tqd_child_pid(const tqd_child *child);

#endif
