/*
 * core.h - shared declarations of transferq._core, the CPython extension over the public C API of libtq.
 *
 * One type per handle: Client, Op, Meta, Data, and Queue (completed operations of one event loop); a Buffer exposes
 * memory of a Meta or Data to NumPy and torch without a copy. Every handle has one destructor, every error goes
 * through one translator (core_raise), and live objects are counted so that tests can check that none leaks.
 *
 * Threads. All Python objects are used with the GIL held. Two functions run without it, on a thread of libtq: the
 * callback of an operation (op.c), which uses only the fields of core_op that are marked so, under core_lock; and the
 * sink of the library's log (log.c), which uses no Python object.
 */
#ifndef CORE_H
#define CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <tq/tq.h>

/* --- module --------------------------------------------------------------- */

#define CORE_ONE(code, value, py, pybase, text) +1
enum {
    CORE_N_ERRORS = 0 TQ_ERRORS(CORE_ONE)
};

/* Counted objects, in the order of core_live_names (module.c). */
enum core_kind {
    CORE_CLIENT,
    CORE_OP,
    CORE_META,
    CORE_DATA,
    CORE_BUFFER,
    CORE_QUEUE,
    CORE_LEFT,
    CORE_N_KINDS
};

/* State of the module. */
typedef struct core_state {
    PyObject *error;                 /* TransferQueueError */
    PyObject *not_found;             /* StorageKeyNotFoundError */
    PyObject *errors[CORE_N_ERRORS]; /* errors[-code - 1] */
    PyTypeObject *client, *op, *meta, *data, *buffer, *queue, *left;
    PyTypeObject *data_column, *meta_field; /* named tuples */
    PyObject *name_done, *name_set_result, *name_set_exception;
} core_state;

/* state.c: the state, from an instance of one of the module's types (none of which can be subclassed). */
core_state *core_state_of(PyObject *self);
/* Counts an object that was created (+1) or freed (-1). */
void core_count(enum core_kind kind, int change);
long core_counted(enum core_kind kind);

/* errors.c */
int core_errors_init(PyObject *module, core_state *state);
/* Sets the exception for an error. Returns NULL. */
PyObject *core_raise(core_state *state, const tq_error *err);

/* convert.c */
/* A tuple of integers. */
PyObject *core_shape(const uint64_t *shape, uint32_t ndim);
/* UTF-8 as str, even if invalid; None for NULL. */
PyObject *core_text(const char *text);
/* Kind and dtype of each row, as bytes of 32-bit numbers (kind << 16 | bits << 8 | code); None: all rows agree. */
PyObject *core_types(const tq_type *types, size_t n);
/* The notes of a storage manager that keys by index, as a list of bytes. */
PyObject *core_notes(const tq_slice *notes, size_t rows);

/* --- arena ---------------------------------------------------------------- */

/* Memory that is freed as a whole. A zeroed struct is an empty arena. */
typedef struct core_arena {
    struct core_chunk *chunks;
    PyObject **held; /* references dropped with it */
    size_t n_held, cap_held;
    Py_buffer **views; /* buffers released with it */
    size_t n_views, cap_views;
} core_arena;

/* `n` items of `size` bytes, zeroed. NULL with MemoryError set. */
void *core_arena_alloc(core_arena *arena, size_t n, size_t size);
/* Keeps a reference until the arena is freed. */
int core_arena_hold(core_arena *arena, PyObject *object);
/* Views a contiguous buffer until the arena is freed. NULL with an exception set. */
const Py_buffer *core_arena_view(core_arena *arena, PyObject *object);
/* With the GIL held. */
void core_arena_free(core_arena *arena);

/* Convert arguments to plain C, in an arena. None becomes NULL and 0. On failure -1 with an exception set. */
int core_strings(core_arena *arena, PyObject *object, const char *what, bool optional_items, const char *const **out,
                 size_t *n);
/* A string without a zero byte, or NULL for None. */
int core_string(PyObject *object, const char *what, const char **out);
/* Unsigned integers, from a buffer with this item size or a sequence of ints. */
int core_u32s(core_arena *arena, PyObject *object, const char *what, const uint32_t **out, size_t *n);
int core_u64s(core_arena *arena, PyObject *object, const char *what, const uint64_t **out, size_t *n);

/* --- objects -------------------------------------------------------------- */

typedef struct core_client {
    PyObject_HEAD
    tq_client *client; /* NULL when closed */
} core_client;

typedef struct core_meta {
    PyObject_HEAD
    tq_meta *meta;
} core_meta;

typedef struct core_data {
    PyObject_HEAD
    tq_data *data;
} core_data;

/* The result type of an operation. */
typedef enum core_result {
    CORE_NOTHING,
    CORE_GIVES_META,
    CORE_GIVES_META_NAMES, /* (Meta, list of names) */
    CORE_GIVES_META_COUNT, /* (Meta, int) */
    CORE_GIVES_META_DATA,  /* (Meta, Data or None) */
    CORE_GIVES_DATA,
    CORE_GIVES_COUNT,
    CORE_GIVES_PROGRESS,
    CORE_GIVES_NAMES,
    CORE_GIVES_STATUS,
    CORE_GIVES_EVENTS,
    CORE_GIVES_CHECKPOINT,
    CORE_GIVES_CLEARINGS
} core_result;

struct core_queue;

/* An operation. From start to completion it owns a reference to itself (core_op_begin, core_reap). */
typedef struct core_op {
    PyObject_HEAD
    tq_op *op;
    PyObject *client;
    core_result gives;
    core_arena args;  /* the call's arguments, until it completes */
    PyObject *future; /* asyncio future to resolve on completion */
    pid_t pid;        /* of the process that started it */
    /* under core_lock, and touched by the callback */
    struct core_queue *queue; /* a reference; NULL: nobody is notified */
    struct core_op *next;
    bool done;
} core_op;

/* Completed operations of one event loop. */
typedef struct core_queue {
    PyObject_HEAD
    pid_t pid;
    /* under core_lock */
    int fd; /* eventfd that the loop watches; -1: closed */
    core_op *first, *last;
} core_queue;

/* Guards everything that the callback uses. While it is held, only system calls that do not block are made. */
extern pthread_mutex_t core_lock;
int core_fork_init(void);

/* client.c */
PyTypeObject *core_client_type(PyObject *module);
/* calls.c: the methods that start operations. */
extern PyMethodDef core_client_calls[];
/* put.c */
PyObject *core_client_put(core_client *self, PyObject *args, PyObject *kwargs);
PyObject *core_client_notify(core_client *self, PyObject *args, PyObject *kwargs);
/* get.c */
PyObject *core_client_get(core_client *self, PyObject *args, PyObject *kwargs);
PyObject *core_client_get_keys(core_client *self, PyObject *args, PyObject *kwargs);
/* The meta in an argument, kept alive by the operation; NULL with an exception set. */
tq_meta *core_call_meta(core_op *op, PyObject *object);
/* Drops memory lent to reads that have finished with it. */
void core_get_reap(void);

/* op.c */
PyTypeObject *core_op_type(PyObject *module);
/* A new operation of the client, not started; NULL with an exception set. */
core_op *core_op_new(core_client *client, core_result gives, double timeout);
/* Called before and after the C call that starts the operation, the latter with its result. finish returns the
 * operation to Python or raises the error; it always takes over the reference. */
void core_op_begin(core_op *op);
PyObject *core_op_finish(core_op *op, int rc);
/* Result of a completed operation, or its error as an exception. */
PyObject *core_op_result(core_op *op);
/* Frees the resources of completed operations that nobody waits for. */
void core_reap(void);
/* Appends to the list of such operations; with core_lock held. */
void core_leave(core_op *op);
/* Drops the arguments that a completed operation kept, and its reference to itself. */
void core_op_settle(core_op *op);

/* queue.c */
PyTypeObject *core_queue_type(PyObject *module);
/* Appends a completed operation and wakes the loop; with core_lock held. False: the queue is closed. */
bool core_queue_push(core_queue *queue, core_op *op);

/* meta.c */
PyTypeObject *core_meta_type(PyObject *module);
PyObject *core_meta_wrap(core_state *state, const tq_meta *meta); /* holds its own reference */

/* data.c */
PyTypeObject *core_data_type(PyObject *module);
PyObject *core_data_wrap(core_state *state, const tq_data *data);

/* buffer.c: `n` items of a format ("B", "I", "Q") at `memory`, which is kept alive by `owner`. */
PyTypeObject *core_buffer_type(PyObject *module);
PyObject *core_buffer_make(core_state *state, PyObject *owner, const void *memory, size_t n, char format, bool writable);

/* tuples.c: the types of the named tuples that describe columns. */
PyTypeObject *core_data_column_type(PyObject *module);
PyTypeObject *core_meta_field_type(PyObject *module);
/* A named tuple of `n` items, whose references it takes over in any case; NULL if an item is NULL. */
PyObject *core_tuple(PyTypeObject *type, PyObject *const *items, size_t n);

/* log.c: the library's lines on their way to Python's logging. */
int core_log_init(void);
PyObject *core_log_start(PyObject *module, PyObject *ignored);
PyObject *core_log_stop(PyObject *module, PyObject *ignored);
PyObject *core_log_wait(PyObject *module, PyObject *ignored);

/* left.c: Left, a column of values that a read left in the store. */
PyTypeObject *core_left_type(PyObject *module);
PyObject *core_left_make(core_state *state, tq_data *data, size_t column);
/* Its values; None if they are no longer there. */
PyObject *core_left_rows(PyObject *left, PyObject *build, PyObject *decode);

/* jagged.c: jagged_rows(ndims, dims, ragged dim) -> offsets, least, greatest, shape; or None. */
PyObject *core_jagged_rows(PyObject *module, PyObject *args);

/* sampler.c: balance(weights, k, equal) -> part of each. */
PyObject *core_balance(PyObject *module, PyObject *args);

/* Memory inside a value is put without a copy, and stored aligned, if it has at least this many bytes. */
#define CORE_LARGE 4096u
#define CORE_ALIGN 64u
/* From this size on, the reader gets a view of the memory of the read; smaller pieces are copied out of it. */
#define CORE_VIEW 16384u
/* The extension type of large memory (encoding.py: BUFFER). */
#define CORE_BUFFER 11

/* pack_rows.c: pack_rows(rows, convert, keep), weigh(value, limit). */
PyObject *core_pack_rows(PyObject *module, PyObject *args);
PyObject *core_weigh(PyObject *module, PyObject *args);

/* pace.c: pace() makes the calling thread one that periodically releases the GIL. */
PyObject *core_pace(PyObject *module, PyObject *ignored);
/* pause() releases the GIL in such a thread. */
PyObject *core_pause(PyObject *module, PyObject *ignored);
/* Call every few values with the GIL held; it may release the GIL briefly. */
void core_pace_step(size_t steps);
/* memcpy; releases the GIL for CORE_COPY_ALONE bytes or more. */
#define CORE_COPY_ALONE ((size_t)64 << 10)
void core_copy(void *to, const void *from, size_t size);

/* texts.c: stores those rows of a column that are long texts or bytes in a list of n; the others stay NULL. */
int core_texts(const uint8_t *base, size_t size, const uint64_t *bounds, Py_ssize_t n, PyObject *list);
/* The same for a column left in the store. 1: it is no longer there, and the list's content is useless. */
int core_texts_left(tq_data *data, size_t column, PyObject *list);

/* stamp.c: stamp(member, values, untrack) -> copies of a NonTensorData, each with one of the values. */
PyObject *core_stamp(PyObject *module, PyObject *args);

/* unpack.c: the rows in a buffer, as a list; `bounds` is a buffer of 64-bit offsets. */
PyObject *core_unpack_rows(PyObject *object, PyObject *bounds, PyObject *build, PyObject *decode);
/* Decodes one value of `size` bytes; unknown encodings go to `decode` as a memoryview. `build` as in unpack_rows, but
 * memory is always a bytearray; NULL: no extension type is decoded. */
PyObject *core_unpack(const uint8_t *data, size_t size, PyObject *build, PyObject *decode);

/* kv.c: kv_register(type, make, value_max): clients of a key-value store written in Python. */
PyObject *core_kv_register(PyObject *module, PyObject *args);
PyObject *core_kv_wait(PyObject *module, PyObject *ignored);

/* maps.c */
PyObject *core_copy_maps(PyObject *module, PyObject *args);

/* report.c: results converted to plain Python objects. */
PyObject *core_progress(core_state *state, const tq_progress *progress);
PyObject *core_names(const char *const *names, size_t n);
PyObject *core_status(const tq_system_status *status);
PyObject *core_events(const tq_event *const *events, size_t n, uint64_t next);
PyObject *core_checkpoint(const tq_checkpoint *checkpoint);
PyObject *core_clearings(core_state *state, const tq_clearing *const *clearings, size_t n);

#endif
