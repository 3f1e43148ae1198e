/*
 * log.c - the library's lines on their way to Python's logging: a bounded list, from the threads that log to the one
 * that hands them on (_impl/log.py).
 *
 * A line is logged on any thread, perhaps on the loop's, perhaps by one that holds the GIL, perhaps with locks of the
 * library held. So the sink never takes the GIL: it appends a copy of the line, under a lock that is never held for
 * longer than that. A handler that blocks delays only the thread that hands lines on; lines beyond LOG_MOST are dropped
 * and counted.
 */
#include "core.h"

#include <time.h>

/* Most lines that wait to be handed on. */
#define LOG_MOST 1000

typedef struct log_line {
    struct log_line *next;
    double time; /* seconds since 1970 */
    int level;
    char part[24];
    char text[];
} log_line;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t log_changed = PTHREAD_COND_INITIALIZER;
/* under log_lock */
static log_line *log_first, **log_end = &log_first;
static unsigned log_waiting, log_dropped;
static bool log_on;

static double log_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void log_take(tq_log_level level, const char *part, const char *text, void *arg)
{
    size_t size = strlen(text) + 1;
    log_line *line = malloc(sizeof(*line) + size);

    (void)arg;
    if (line != NULL) {
        line->next = NULL;
        line->time = log_now();
        line->level = (int)level;
        snprintf(line->part, sizeof(line->part), "%s", part);
        memcpy(line->text, text, size);
    }
    pthread_mutex_lock(&log_lock);
    if (line != NULL && log_waiting < LOG_MOST) {
        *log_end = line;
        log_end = &line->next;
        log_waiting++;
        line = NULL;
    } else {
        log_dropped++;
    }
    pthread_cond_signal(&log_changed);
    pthread_mutex_unlock(&log_lock);
    free(line);
}

/* Empties the list; the caller frees the lines. */
static log_line *log_drain(unsigned *dropped)
{
    log_line *lines = log_first;

    *dropped = log_dropped;
    log_first = NULL;
    log_end = &log_first;
    log_waiting = log_dropped = 0;
    return lines;
}

static void log_free(log_line *lines)
{
    while (lines != NULL) {
        log_line *next = lines->next;
        free(lines);
        lines = next;
    }
}

static void log_fork_prepare(void)
{
    pthread_mutex_lock(&log_lock);
}

static void log_fork_parent(void)
{
    pthread_mutex_unlock(&log_lock);
}

/* The lines that wait are the parent's to hand on, and so is the thread that would do it. */
static void log_fork_child(void)
{
    unsigned dropped;

    log_free(log_drain(&dropped));
    log_on = false;
    pthread_cond_init(&log_changed, NULL);
    pthread_mutex_unlock(&log_lock);
}

int core_log_init(void)
{
    static bool done;

    if (!done && pthread_atfork(log_fork_prepare, log_fork_parent, log_fork_child)) {
        PyErr_NoMemory();
        return -1;
    }
    done = true;
    return 0;
}

/* Setting a sink waits for lines that are being written. Such a write to stderr may wait for a Python thread, which
 * reads the other end of a pipe: without the GIL. */
PyObject *core_log_start(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&log_lock);
    log_on = true;
    pthread_mutex_unlock(&log_lock);
    tq_log_set_sink(log_take, NULL);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyObject *core_log_stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS
    tq_log_set_sink(NULL, NULL);
    pthread_mutex_lock(&log_lock);
    log_on = false;
    pthread_cond_broadcast(&log_changed);
    pthread_mutex_unlock(&log_lock);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyObject *core_log_wait(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    log_line *lines;
    unsigned dropped;

    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&log_lock);
    while (log_on && log_first == NULL && !log_dropped) {
        pthread_cond_wait(&log_changed, &log_lock);
    }
    lines = log_drain(&dropped);
    pthread_mutex_unlock(&log_lock);
    Py_END_ALLOW_THREADS
    if (lines == NULL && !dropped) {
        Py_RETURN_NONE; /* stopped */
    }
    PyObject *list = PyList_New(0);
    for (log_line *line = lines; list != NULL && line != NULL; line = line->next) {
        /* The N takes over the reference, even if it is NULL. */
        PyObject *item = Py_BuildValue("(diNN)", line->time, line->level, core_text(line->part), core_text(line->text));
        if (item == NULL || PyList_Append(list, item)) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    log_free(lines);
    return list != NULL ? Py_BuildValue("(NI)", list, dropped) : NULL;
}
