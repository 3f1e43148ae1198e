/*
 * log.c - one line per message, on stderr or to a callback.
 *
 * The level is atomic, so that a suppressed message costs one load. A sink is called with a lock held for reading: when
 * tq_log_set_sink returns, the former sink is no longer running, and yet two threads may be in the sink at a time. One
 * of them may wait for a lock that the other one's caller holds (Python's, say), so they must not exclude each other.
 */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

static const char *const log_words[] = {"error", "warn", "info", "debug"};

static pthread_once_t log_once = PTHREAD_ONCE_INIT;
static pthread_rwlock_t log_lock = PTHREAD_RWLOCK_INITIALIZER;
static atomic_int log_level = TQI_WARN;
static tq_log_fn log_sink;
static void *log_sink_arg;

/* Another thread may have been in the sink when the process forked. */
static void log_forked(void)
{
    pthread_rwlock_init(&log_lock, NULL);
}

static void log_init(void)
{
    pthread_atfork(NULL, NULL, log_forked);
    const char *word = getenv("TQ_LOG");
    int level = word != NULL ? tqi_log_parse_level(word) : -1;
    if (level >= 0) {
        atomic_store(&log_level, level);
    }
}

int tqi_log_parse_level(const char *word)
{
    for (int i = 0; i < (int)(sizeof(log_words) / sizeof(*log_words)); i++) {
        if (strcmp(word, log_words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

void tq_log_set_level(tq_log_level level)
{
    pthread_once(&log_once, log_init);
    atomic_store(&log_level, (int)level);
}

void tq_log_set_sink(tq_log_fn fn, void *arg)
{
    pthread_once(&log_once, log_init);
    pthread_rwlock_wrlock(&log_lock);
    log_sink = fn;
    log_sink_arg = arg;
    pthread_rwlock_unlock(&log_lock);
}

static void log_stderr(tq_log_level level, const char *component, const char *text)
{
    char line[1200];
    int64_t us = tqi_wall_us();
    time_t seconds = (time_t)(us / 1000000);
    struct tm tm;

    gmtime_r(&seconds, &tm);
    int n = snprintf(line, sizeof(line), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ %s %s: %s\n", tm.tm_year + 1900,
                     tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(us / 1000 % 1000),
                     log_words[level], component, text);
    if (n >= (int)sizeof(line)) {
        n = sizeof(line) - 1;
        line[n - 1] = '\n';
    }
    /* One write, so that lines of several processes do not mix; there is nobody to report a failure to. */
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
}

void tqi_log(tq_log_level level, const char *component, const char *format, ...)
{
    pthread_once(&log_once, log_init);
    if ((int)level > atomic_load_explicit(&log_level, memory_order_relaxed)) {
        return;
    }
    char text[1024];
    char plain[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    /* Names and reasons come from others: a line break in one could forge a line. */
    tqi_text_escape(plain, sizeof(plain), text);
    pthread_rwlock_rdlock(&log_lock);
    if (log_sink != NULL) {
        log_sink(level, component, plain, log_sink_arg);
    } else {
        log_stderr(level, component, plain);
    }
    pthread_rwlock_unlock(&log_lock);
}
