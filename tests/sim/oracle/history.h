/*
 * history.h - what clients saw: every op with its arguments, when it was invoked, how it ended, and what it returned.
 *
 * All of it lies in the simulator's memory until history_end, so it survives the processes. An op that has no end when
 * its process dies stays HISTORY_RUNNING. history.md describes the file that history_write makes of it.
 */
#ifndef TQ_SIM_HISTORY_H
#define TQ_SIM_HISTORY_H

#include "../sim.h"

#include <tq/tq.h>

typedef enum history_call {
    HISTORY_PUT,
    HISTORY_RESERVE,
    HISTORY_CLAIM,
    HISTORY_RESOLVE,
    HISTORY_GET,
    HISTORY_GET_BY_KEY,
    HISTORY_CLEAR,
    HISTORY_RESET,
    HISTORY_LIST_KEYS,
    HISTORY_LIST_PARTITIONS,
    HISTORY_CONSUMED,
    HISTORY_PRODUCED,
    HISTORY_NOTIFY,
    HISTORY_BEGIN_CLEAR,
    HISTORY_END_CLEAR,
    HISTORY_SAVE,
    HISTORY_LOAD,
    HISTORY_CALLS
} history_call;
extern const char *const history_call_names[HISTORY_CALLS];

typedef enum history_status {
    HISTORY_RUNNING,
    HISTORY_OK,
    HISTORY_FAIL,   /* it has had no effect */
    HISTORY_UNKNOWN /* it had its effect, will have it, or never has it */
} history_status;

typedef struct history_row {
    uint32_t index;
    uint32_t incarnation;
    const char *key; /* NULL: none, or not asked for */
} history_row;

/* How a call names its samples. */
typedef enum history_by {
    HISTORY_BY_NEW,
    HISTORY_BY_ROWS, /* a meta, or indexes of any incarnation (0) */
    HISTORY_BY_KEYS,
    HISTORY_BY_ALL
} history_by;

/* A cell as it was read; all its bytes agree with this. */
typedef struct history_value {
    uint64_t writer;   /* number of the op that put it; 0: the cell is too short to tell */
    uint32_t position; /* of the row in that op */
    uint32_t length;   /* in bytes */
    uint32_t head;     /* its first bytes, when it is too short to tell: cell.h */
    bool gone;         /* the row had been left in the store, where it is no more; nothing was read */
} history_value;

typedef struct history_op {
    uint64_t number;
    history_call call;
    history_status status;
    int code;
    uint32_t client, life, thread;
    uint64_t pid;
    uint64_t invoked, ended;                   /* sim_time; ended 0: not yet */
    uint64_t local_invoked, local_ended;       /* clock of the process, in ns */
    uint64_t stopped_invoked, stopped_ended;   /* how long the process had been stopped in all, in ns of sim_time */
    uint64_t local_waited;                     /* when the workload began to wait for it; 0: it never did */
    uint64_t commits_invoked, commits_ended;   /* witness_count */
    uint64_t sequence_invoked, sequence_ended; /* order in the file */
    double timeout;                            /* as given to tq_op_set_timeout */
    double seconds;                            /* the one that applied; negative: none */
    bool calm_invoked;                         /* faults were over */
    bool checked;                              /* by the oracle */
    bool cancelled;
    bool freed;             /* while it was in flight: its result, if there was one, is unknown */
    uint64_t epoch_invoked; /* of the controller, as its client knew it */
    uint64_t epoch;         /* of the result, else as its client knew it when the op ended */
    char *message;          /* of the error */

    /* arguments */
    const char *partition; /* NULL: none */
    const char *task;      /* NULL: none, or all */
    history_by by;
    history_row *rows; /* BY_ROWS, BY_KEYS */
    uint32_t n;        /* samples; of a claim: the batch size */
    const char **fields;
    uint32_t n_fields;
    bool all_fields;     /* of a get they are those of its meta */
    uint32_t *lengths;   /* of a put: n_fields x n, bytes of each cell (cell.h) */
    uint8_t *types;      /* of a put: n_fields, which of the types the field's cells have (load/field.h) */
    const char **groups; /* NULL: none */
    uint32_t tags;       /* how many, without "op" */
    bool tagged;         /* it has the tag "op" with its number */
    bool must_exist, lenient, poll, force, flag;
    bool asks_tags;               /* claim, resolve: keys, groups and tags are asked for */
    bool asks_others;             /* put: tq_put_args.other_fields */
    bool fail_when_full;          /* put */
    const char *sampler, *config; /* of a claim; NULL: none */
    uint64_t from;                /* the op that made the meta that is used; 0: made by hand */
    const char *path;             /* save, load */
    bool padded;                  /* get: see load/read.c */

    /* results */
    history_row *results;
    uint32_t n_results;
    const char **result_fields; /* of ready, values, flags */
    uint32_t n_result_fields;
    uint8_t *ready;           /* n_result_fields x n_results; NULL: none. Also flags of consumed, produced */
    history_value *values;    /* n_result_fields x n_results; NULL: none */
    uint64_t *tag_ops;        /* the tag "op" of each of the results, 0: it has none; NULL: not asked for */
    const char **groups_read; /* of each of the results; NULL: not asked for */
    const char **names;
    uint32_t n_names;
    bool known;
    uint64_t count; /* also: id of a claim */
} history_op;

/* A line of the file that is no op. */
typedef struct history_event {
    uint64_t sequence, time;
    const char *what; /* "open", "close", "died", "calm"; else a note; a literal */
    const char *name; /* of the note; of the kind */
    uint32_t client, life;
    uint64_t epoch;
    bool drains;
} history_event;

/* Per seed, once its faults are drawn. */
void history_start(uint64_t seed);
/* Whether the seed had the fault in its safety phase. */
bool history_may(sim_fault fault);
void history_end(void);
/* For how long a session outlives its connections, in the file: a claim may go back only after that. */
void history_grace(uint64_t ms);

/* A new op of the running process, with its number, status HISTORY_RUNNING and the time of now; it is in the history
 * from now on. */
history_op *history_invoke(history_call call, uint32_t client, uint32_t life, uint32_t thread);
/* The clock of the running process, in ns. */
uint64_t history_local_time(void);
/* It has ended, now. The results are in the op already. */
void history_ended(history_op *op, history_status status, int rc, const char *message);
/* The op of that number; NULL: there is none. */
history_op *history_op_of(uint64_t number);
/* Ops have the numbers 1 to this. */
uint64_t history_ops(void);
/* Whether a checkpoint was ever loaded: samples of former ops may then have other indexes. */
bool history_has_loads(void);

void history_note(const char *what, const char *name);
void history_client(const char *what, uint32_t client, uint32_t life, const char *kind, uint64_t epoch, bool drains);
/* Faults are over, from now on. */
void history_calm(void);
/* When that was; SIM_NEVER: not yet. */
uint64_t history_calm_time(void);
/* All of them, in order. */
const history_event *history_events(size_t *n);

/* Memory that lasts until history_end; zeroed. */
void *history_memory(size_t size);
/* The same text as one that lasts; the same pointer for the same text. NULL stays NULL. */
const char *history_text(const char *text);
const char **history_texts(const char *const *texts, size_t n);

/* The whole history as lines of JSON; `found` is the finding, or NULL. */
void history_write(void (*put)(void *arg, const char *text, size_t size), void *arg, const char *found);

#endif
