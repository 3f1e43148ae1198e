/*
 * error.h - filling tq_error.
 */
#ifndef TQI_BASE_ERROR_H
#define TQI_BASE_ERROR_H

#include <stddef.h>
#include <tq/errors.h>

/* Sets code and message and returns the code, so that `return tqi_error_set(...)` reads well. err may be NULL. */
int tqi_error_set(tq_error *err, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* TQ_EINVAL: an argument is NULL that must be given. Inline, so that the analyzer sees that it is never TQ_OK. */
static inline int tqi_error_null(tq_error *err, const char *what)
{
    (void)tqi_error_set(err, TQ_EINVAL, "%s is NULL", what);
    return TQ_EINVAL;
}

/* Out of memory, with what was wanted. */
int tqi_error_nomem(tq_error *err, const char *what);

/* TQ_EIO from errno: "what: strerror". */
int tqi_error_errno(tq_error *err, int errnum, const char *what);

/* Checks a partition, field, task, ... name: TQ_ENAME if it is empty, longer than `max` bytes, not UTF-8, or contains a
 * control character, which could be a command to the terminal that lists it, or forge a log line. `what` is
 * "partition". */
int tqi_check_name(const char *what, const char *name, size_t max, tq_error *err);
/* The same for names with any bytes, which are shown escaped: those of tags, and of owners, which are made from paths. */
int tqi_check_size(const char *what, const char *name, size_t max, tq_error *err);

#endif
