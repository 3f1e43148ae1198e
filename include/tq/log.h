/*
 * log.h - the library's log: lines about what a person should know, such as a lost connection.
 *
 * By default lines go to stderr, and only errors and warnings are written. The environment variable TQ_LOG (error,
 * warn, info, debug) sets another level.
 */
#ifndef TQ_LOG_H
#define TQ_LOG_H

#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How urgent a line is. */
typedef enum tq_log_level {
    TQ_LOG_ERROR = 0, /**< Something failed, and only this line says so. */
    TQ_LOG_WARN = 1,  /**< Something went wrong, and the library goes on. */
    TQ_LOG_INFO = 2,  /**< The course of events. */
    TQ_LOG_DEBUG = 3  /**< For whoever searches for a fault. */
} tq_log_level;

/**
 * Takes one line: the part of the library that it comes from ("net", "client", "kv", ...), and its text, which is UTF-8
 * without a line break. Both are valid during the call only.
 *
 * It is called on whatever thread logs the line (of the program or of the library), on several threads at a time, and
 * perhaps with locks of the library held. So it must not call the library, fork, or wait for a thread that is inside
 * the library; while it runs, that thread does nothing else.
 */
typedef void (*tq_log_fn)(tq_log_level level, const char *part, const char *text, void *arg);

/** Sends the lines of this process to `fn` from now on; NULL: to stderr. When it returns, the former function is not
 * running and is not called any more. Do not call it from the function, nor with a lock that the former function takes.
 * Thread-safe. */
TQ_API void tq_log_set_sink(tq_log_fn fn, void *arg);

/** Drops lines that are less urgent than `level` from now on, whatever TQ_LOG says. Thread-safe. */
TQ_API void tq_log_set_level(tq_log_level level);

#ifdef __cplusplus
}
#endif
#endif
