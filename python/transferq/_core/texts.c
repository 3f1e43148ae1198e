/*
 * texts.c - columns of long texts and bytes: each row is created with a single copy, without the GIL.
 *
 * An ASCII str has the same bytes as its UTF-8. So a row is first created as ASCII, and its bytes are checked while
 * they are copied; a row that turns out not to be ASCII is dropped and decoded in the ordinary way (unpack.c).
 *
 * If there is much to copy, and a processor is idle, a second thread takes some of the rows. The caller never waits
 * for it to start, but goes on as long as there are rows. On a busy machine there is no second thread, because it
 * might be preempted in the middle of a row, and the caller would have to wait for it.
 *
 * Rows left in the store are also copied out of it in this way, only once (tq_data_look). They may be overwritten
 * meanwhile, so each is copied in one look; the copy is dropped if the look fails.
 */
#include "core.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For shorter rows this is not worth it. */
#define TEXTS_LONG 4096u
/* Columns with at least this many bytes are copied without the GIL, and by two threads. */
#define TEXTS_LEAST ((size_t)128 << 10)
#define TEXTS_TWO   ((size_t)4 << 20)
/* Bytes that a thread takes at a time, and bytes after which it checks whether they were ASCII. */
#define TEXTS_TAKE  ((size_t)128 << 10)
#define TEXTS_PIECE ((size_t)1 << 10)

/* A row; `to` is the memory of the new object, which has room for the bytes. */
typedef struct texts_row {
    const uint8_t *from; /* of a row in memory */
    unsigned head;       /* of a row in the store: size of the head before its bytes */
    uint8_t *to;
    size_t size;
    Py_ssize_t row;
    bool text, ascii;
} texts_row;

/* Shared by the threads; freed by the last of them. */
typedef struct texts_job {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    size_t next, busy; /* under the lock: the first row not yet taken, threads that copy */
    unsigned users;    /* under the lock */
    bool gone;         /* under the lock: a look failed */
    tq_data *left;     /* NULL: the rows are in memory */
    size_t column;
    size_t n;
    texts_row rows[];
} texts_job;

/* Sixteen bytes at any address. */
typedef uint64_t texts_wide __attribute__((vector_size(16), aligned(1), may_alias));

/* Copies the bytes in one pass; returns whether all are ASCII. Stops early if not. */
static bool texts_copy_ascii(uint8_t *to, const uint8_t *from, size_t size)
{
    size_t at = 0;
    uint8_t rest = 0;

    while (size - at >= TEXTS_PIECE) {
        texts_wide bits = {0};
        for (size_t end = at + TEXTS_PIECE; at < end; at += 4 * sizeof(texts_wide)) {
            const texts_wide *in = (const texts_wide *)(const void *)(from + at);
            texts_wide *out = (texts_wide *)(void *)(to + at);
            texts_wide a = in[0], b = in[1], c = in[2], d = in[3];
            out[0] = a;
            out[1] = b;
            out[2] = c;
            out[3] = d;
            bits |= (a | b) | (c | d);
        }
        if ((bits[0] | bits[1]) & UINT64_C(0x8080808080808080)) {
            return false;
        }
    }
    for (; at < size; at++) {
        to[at] = from[at];
        rest |= from[at];
    }
    return rest < 0x80;
}

static void texts_copy(texts_row *row, const uint8_t *from)
{
    if (row->text) {
        row->ascii = texts_copy_ascii(row->to, from, row->size);
    } else {
        memcpy(row->to, from, row->size);
    }
}

static void texts_look(void *arg, size_t place, const void *bytes, size_t size)
{
    texts_row *row = arg;

    (void)place;
    (void)size;
    texts_copy(row, (const uint8_t *)bytes + row->head);
}

/* Copies a row; false: it is no longer there. */
static bool texts_copy_row(const texts_job *job, texts_row *row)
{
    if (job->left == NULL) {
        texts_copy(row, row->from);
        return true;
    }
    return tq_data_look(job->left, job->column, (size_t)row->row, 1, texts_look, row) == TQ_OK;
}

/* Copies rows until none is left, or one is no longer there. */
static void texts_work(texts_job *job)
{
    pthread_mutex_lock(&job->lock);
    while (job->next < job->n && !job->gone) {
        size_t first = job->next, bytes = 0;
        while (job->next < job->n && bytes < TEXTS_TAKE) {
            bytes += job->rows[job->next++].size;
        }
        size_t end = job->next;
        job->busy++;
        bool there = true;
        pthread_mutex_unlock(&job->lock);
        for (size_t i = first; i < end && there; i++) {
            there = texts_copy_row(job, &job->rows[i]);
        }
        pthread_mutex_lock(&job->lock);
        job->gone = job->gone || !there;
        job->busy--;
    }
    pthread_cond_signal(&job->ended);
    pthread_mutex_unlock(&job->lock);
}

static void texts_leave(texts_job *job)
{
    pthread_mutex_lock(&job->lock);
    bool last = --job->users == 0;
    pthread_mutex_unlock(&job->lock);
    if (last) {
        pthread_cond_destroy(&job->ended);
        pthread_mutex_destroy(&job->lock);
        free(job);
    }
}

static void *texts_helper(void *arg)
{
    texts_work(arg);
    texts_leave(arg);
    return NULL;
}

/* Whether there are currently fewer runnable threads than processors. */
static bool texts_spare(void)
{
    char text[128]; /* "0.20 0.18 0.12 1/80 11206\n": three averages, runnable threads, all threads */
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0) {
        close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    char *slash = strchr(text, '/');
    char *blank = slash != NULL ? memrchr(text, ' ', (size_t)(slash - text)) : NULL;
    return blank != NULL && strtol(blank, NULL, 10) < sysconf(_SC_NPROCESSORS_ONLN);
}

/* Starts another thread for the job, if possible. */
static void texts_help(texts_job *job)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, old;

    if (pthread_attr_init(&attributes)) {
        return;
    }
    job->users++;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the program's own threads */
    if (pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) ||
        pthread_create(&thread, &attributes, texts_helper, job)) {
        job->users--;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
}

/* Copies all rows; without the GIL. */
static void texts_run(texts_job *job, size_t bytes)
{
    if (bytes >= TEXTS_TWO && texts_spare()) {
        texts_help(job);
    }
    texts_work(job);
    pthread_mutex_lock(&job->lock);
    while (job->busy > 0) {
        pthread_cond_wait(&job->ended, &job->lock);
    }
    pthread_mutex_unlock(&job->lock);
}

/* Whether a row is one long text, or bytes; and where its bytes are. */
static bool texts_is_long(const uint8_t *at, size_t size, texts_row *out)
{
    uint8_t type = size > TEXTS_LONG ? at[0] : 0;
    unsigned head = type == 0xda || type == 0xc5 ? 3 : type == 0xdb || type == 0xc6 ? 5 : 0;
    size_t length = 0;

    for (unsigned i = 1; i < head; i++) {
        length = length << 8 | at[i];
    }
    *out = (texts_row){.from = at + head, .head = head, .size = length, .text = type >= 0xda};
    return head > 0 && length == size - head;
}

/* Finds the long rows of a column, at most n; returns their bytes. */
static size_t texts_find(const uint8_t *base, size_t size, const uint64_t *bounds, Py_ssize_t n, texts_job *job)
{
    size_t bytes = 0;

    for (Py_ssize_t i = 0; i < n; i++) {
        texts_row *row = &job->rows[job->n];
        if (bounds[i] <= bounds[i + 1] && bounds[i + 1] <= size &&
            texts_is_long(base + bounds[i], (size_t)(bounds[i + 1] - bounds[i]), row)) {
            row->row = i;
            bytes += row->size;
            job->n++;
        }
    }
    return bytes;
}

/* Creates the objects, without their bytes. */
static int texts_make(texts_job *job, PyObject *list)
{
    for (size_t i = 0; i < job->n; i++) {
        texts_row *row = &job->rows[i];
        core_pace_step(4);
        PyObject *made = row->text ? PyUnicode_New((Py_ssize_t)row->size, 127)
                                   : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)row->size);
        if (made == NULL) {
            return -1;
        }
        PyList_SET_ITEM(list, row->row, made);
        row->to = row->text ? PyUnicode_1BYTE_DATA(made) : (uint8_t *)PyBytes_AS_STRING(made);
    }
    return 0;
}

static texts_job *texts_begin(Py_ssize_t n)
{
    texts_job *job = malloc(sizeof(*job) + (size_t)n * sizeof(*job->rows));

    if (job == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *job = (texts_job){.users = 1};
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->ended, NULL);
    return job;
}

/* Creates the rows that were found; 1: they are no longer there. */
static int texts_end(texts_job *job, size_t bytes, PyObject *list)
{
    int rc = texts_make(job, list);

    if (rc == 0 && job->n > 0) {
        Py_BEGIN_ALLOW_THREADS
        texts_run(job, bytes);
        Py_END_ALLOW_THREADS
        rc = job->gone;
    }
    for (size_t i = 0; rc == 0 && i < job->n; i++) {
        if (job->rows[i].text && !job->rows[i].ascii) {
            Py_DECREF(PyList_GET_ITEM(list, job->rows[i].row));
            PyList_SET_ITEM(list, job->rows[i].row, NULL);
        }
    }
    texts_leave(job);
    return rc;
}

int core_texts(const uint8_t *base, size_t size, const uint64_t *bounds, Py_ssize_t n, PyObject *list)
{
    texts_row first;

    if (n < 1 || size < TEXTS_LEAST || bounds[0] > bounds[1] || bounds[1] > size ||
        !texts_is_long(base + bounds[0], (size_t)(bounds[1] - bounds[0]), &first)) {
        return 0;
    }
    texts_job *job = texts_begin(n);
    return job != NULL ? texts_end(job, texts_find(base, size, bounds, n, job), list) : -1;
}

static void texts_look_head(void *arg, size_t place, const void *bytes, size_t size)
{
    texts_job *job = arg;
    texts_row *row = &job->rows[job->n];

    if (texts_is_long(bytes, size, row)) {
        row->row = (Py_ssize_t)place;
        job->n++;
    }
}

int core_texts_left(tq_data *data, size_t column, PyObject *list)
{
    Py_ssize_t n = PyList_GET_SIZE(list);
    texts_job *job = texts_begin(n);
    size_t bytes = 0;

    if (job == NULL) {
        return -1;
    }
    job->left = data;
    job->column = column;
    if (tq_data_look(data, column, 0, (size_t)n, texts_look_head, job) != TQ_OK) {
        texts_leave(job);
        return 1;
    }
    for (size_t i = 0; i < job->n; i++) {
        bytes += job->rows[i].size;
    }
    return texts_end(job, bytes, list);
}
