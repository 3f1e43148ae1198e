/*
 * daemon.h - a daemon inside a process of one's own: the same as the program tqd, for those who bring samplers along.
 */
#ifndef TQ_DAEMON_H
#define TQ_DAEMON_H

#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a process adds to the daemon that it runs. */
typedef struct tq_daemon_hooks {
    /** The configuration names a sampler that this process does not know: registers it (tq_sampler_register), or says why
     * there is none.  Called once, before anything is started.  May be NULL. */
    int (*sampler)(const char *name, void *user, tq_error *err);
    void *user; /**< Handed to the function. */
} tq_daemon_hooks;

/**
 * Runs a daemon with the command line of tqd (see tqd --help; argv[0] is not looked at) on the calling thread, until
 * SIGTERM, SIGINT or the end of its owner (--owner-pid).  Returns the exit status of the program: 0 when it ended as it was
 * asked to.  A wrong option, --help and --version end the process, as they do in tqd.
 *
 * At most one runs in a process at a time.  It takes SIGTERM and SIGINT over, ignores SIGPIPE and raises the limit of open
 * files.  `hooks` may be NULL; with hooks the process runs code that may block, so when its owner has ended and the daemon
 * has not ended ten seconds later, everything it made is removed and the process is ended.
 */
TQ_API int tq_daemon_run(int argc, char **argv, const tq_daemon_hooks *hooks);

#ifdef __cplusplus
}
#endif
#endif
