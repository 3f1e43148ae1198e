/*
 * daemon.h - runs a daemon inside your own process: the same as the program tqd, for processes that bring their own
 * samplers. In libtqd, which shares nothing with a libtq in the same process: it does not know the storage managers and
 * the log sink that the process gave to libtq.
 */
#ifndef TQ_DAEMON_H
#define TQ_DAEMON_H

#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a process adds to the daemon it runs. */
typedef struct tq_daemon_hooks {
    size_t size; /**< sizeof(tq_daemon_hooks). */
    /** Called when the configuration names a sampler that this process does not know: registers it
     * (tq_sampler_register), or reports why it cannot. Called once, before anything is started. May be NULL. */
    int (*sampler)(const char *name, void *user, tq_error *err);
    void *user; /**< Handed to the function. */
} tq_daemon_hooks;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_daemon_hooks);

/**
 * Runs a daemon with tqd's command line (see tqd --help; argv[0] is ignored) on the calling thread, until SIGTERM,
 * SIGINT or the exit of its parent (--parent-pid). Returns the program's exit status: 0 if it shut down because it was
 * asked to. A wrong option, --help and --version exit the process, as they do in tqd.
 *
 * At most one daemon runs in a process at a time. It handles SIGTERM and SIGINT, ignores SIGPIPE and raises the limit
 * on open files. `hooks` may be NULL. With hooks the process runs code that may block: if the daemon has not shut
 * down ten seconds after its parent exited, everything it created is removed and the process is killed.
 */
TQ_API int tq_daemon_run(int argc, char **argv, const tq_daemon_hooks *hooks);

#ifdef __cplusplus
}
#endif
#endif
