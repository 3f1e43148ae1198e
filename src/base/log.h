/*
 * log.h - one log for library and daemons: level, time, component, text on stderr or to the sink of <tq/log.h>.
 *
 * Thread-safe. The level comes from TQ_LOG (error, warn, info, debug; default warn in a library, info in tqd).
 */
#ifndef TQI_BASE_LOG_H
#define TQI_BASE_LOG_H

#include <tq/log.h>

/* Short names, for the many lines that are logged. */
#define TQI_ERROR TQ_LOG_ERROR
#define TQI_WARN  TQ_LOG_WARN
#define TQI_INFO  TQ_LOG_INFO
#define TQI_DEBUG TQ_LOG_DEBUG

/* "error", "warn", "info", "debug"; -1 for another word. */
int tqi_log_parse_level(const char *word);
void tqi_log(tq_log_level level, const char *component, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
