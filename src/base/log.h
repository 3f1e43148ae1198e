/*
 * log.h - one log for library and daemons: level, time, component, text on stderr or a callback.
 *
 * Thread-safe. The level comes from TQ_LOG (error, warn, info, debug; default warn in a library, info in tqd).
 */
#ifndef TQI_BASE_LOG_H
#define TQI_BASE_LOG_H

typedef enum tqi_log_level {
    TQI_ERROR = 0,
    TQI_WARN,
    TQI_INFO,
    TQI_DEBUG
} tqi_log_level;

void tqi_log_set_level(tqi_log_level level);
/* "error", "warn", "info", "debug"; -1 for another word. */
int tqi_log_parse_level(const char *word);
/* Sets where lines go; NULL restores stderr. The text has no trailing newline. */
typedef void (*tqi_log_fn)(tqi_log_level level, const char *component, const char *text, void *arg);
void tqi_log_set_sink(tqi_log_fn fn, void *arg);
void tqi_log(tqi_log_level level, const char *component, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
