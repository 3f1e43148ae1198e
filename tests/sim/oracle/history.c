/*
 * history.c - see history.h.
 */
#include "oracle/history_state.h"

#include "oracle/witness.h"

#include <string.h>
#include <time.h>

#define HISTORY_CHUNK (64u << 10)

const char *const history_call_names[HISTORY_CALLS] = {
    "put",       "reserve",         "claim",    "resolve",  "get",    "get_by_key",  "clear",     "reset",
    "list_keys", "list_partitions", "consumed", "produced", "notify", "begin_clear", "end_clear", "save",
    "load",
};

history_state history_now;

#ifdef SIM_NATIVE
#include <pthread.h>
static pthread_mutex_t history_mutex = PTHREAD_MUTEX_INITIALIZER;
static void history_enter(void)
{
    pthread_mutex_lock(&history_mutex);
}
static void history_leave(void)
{
    pthread_mutex_unlock(&history_mutex);
}
#else
/* One thread, and no other fiber runs in here. */
static void history_enter(void)
{
}
static void history_leave(void)
{
}
#endif

/* --- memory ----------------------------------------------------------------- */

struct history_chunk {
    struct history_chunk *next;
    size_t used, size;
    max_align_t bytes[];
};

static void *history_take(size_t size)
{
    struct history_chunk *chunk = history_now.chunks;
    void *memory;

    size = (size + 15) & ~(size_t)15;
    if (chunk == NULL || chunk->size - chunk->used < size) {
        const size_t room = size > HISTORY_CHUNK ? size : HISTORY_CHUNK;

        chunk = sim_alloc(sizeof(*chunk) + room);
        chunk->size = room;
        chunk->next = history_now.chunks;
        history_now.chunks = chunk;
    }
    memory = (uint8_t *)chunk->bytes + chunk->used;
    chunk->used += size;
    return memory;
}

void *history_memory(size_t size)
{
    void *memory;

    history_enter();
    memory = history_take(size);
    history_leave();
    return memory;
}

/* --- texts ------------------------------------------------------------------- */

static uint64_t history_hash(const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (; *text != '\0'; text++) {
        hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    }
    return hash ^ (hash >> 29);
}

static void history_texts_grow(void)
{
    const size_t size = history_now.texts_size == 0 ? 256 : history_now.texts_size * 2;
    const char **texts = sim_alloc(size * sizeof(*texts));

    for (size_t i = 0; i < history_now.texts_size; i++) {
        if (history_now.texts[i] != NULL) {
            size_t at = history_hash(history_now.texts[i]) & (size - 1);

            while (texts[at] != NULL) {
                at = (at + 1) & (size - 1);
            }
            texts[at] = history_now.texts[i];
        }
    }
    sim_free(history_now.texts);
    history_now.texts = texts;
    history_now.texts_size = size;
}

const char *history_text(const char *text)
{
    size_t at;
    char *copy;

    if (text == NULL) {
        return NULL;
    }
    history_enter();
    if (history_now.n_texts * 2 >= history_now.texts_size) {
        history_texts_grow();
    }
    for (at = history_hash(text) & (history_now.texts_size - 1); history_now.texts[at] != NULL;
         at = (at + 1) & (history_now.texts_size - 1)) {
        if (strcmp(history_now.texts[at], text) == 0) {
            goto done;
        }
    }
    copy = history_take(strlen(text) + 1);
    memcpy(copy, text, strlen(text));
    history_now.texts[at] = copy;
    history_now.n_texts++;
done:
    text = history_now.texts[at];
    history_leave();
    return text;
}

const char **history_texts(const char *const *texts, size_t n)
{
    const char **copies = history_memory((n + 1) * sizeof(*copies));

    for (size_t i = 0; i < n; i++) {
        copies[i] = history_text(texts[i]);
    }
    return copies;
}

/* --- ops and events ---------------------------------------------------------- */

void history_start(uint64_t seed)
{
    memset(&history_now, 0, sizeof(history_now));
    history_now.seed = seed;
    history_now.calm_time = SIM_NEVER;
    for (int fault = 0; fault < SIM_FAULTS; fault++) {
        history_now.may[fault] = sim_may((sim_fault)fault);
    }
}

bool history_may(sim_fault fault)
{
    return history_now.may[fault];
}

void history_grace(uint64_t ms)
{
    history_now.grace_ms = ms;
}

void history_end(void)
{
    while (history_now.chunks != NULL) {
        struct history_chunk *chunk = history_now.chunks;

        history_now.chunks = chunk->next;
        sim_free(chunk);
    }
    sim_free(history_now.texts);
    sim_free(history_now.ops);
    sim_free(history_now.events);
    memset(&history_now, 0, sizeof(history_now));
}

uint64_t history_local_time(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SIM_S + (uint64_t)now.tv_nsec;
}

static uint64_t history_stopped(void)
{
    return sim_self != NULL ? sim_self->stopped_for : 0;
}

history_op *history_invoke(history_call call, uint32_t client, uint32_t life, uint32_t thread)
{
    const uint64_t local = history_local_time();
    history_op *op;

    history_enter();
    if (history_now.n_ops == history_now.ops_size) {
        history_now.ops_size = history_now.ops_size == 0 ? 256 : history_now.ops_size * 2;
        history_now.ops = sim_realloc(history_now.ops, history_now.ops_size * sizeof(*history_now.ops));
    }
    op = history_take(sizeof(*op));
    history_now.ops[history_now.n_ops++] = op;
    op->number = history_now.n_ops;
    history_now.loads |= call == HISTORY_LOAD;
    op->call = call;
    op->client = client;
    op->life = life;
    op->thread = thread;
    op->pid = sim_self != NULL ? sim_self->pid : 0;
    op->invoked = sim_time();
    op->local_invoked = local;
    op->stopped_invoked = history_stopped();
    op->commits_invoked = witness_count();
    op->sequence_invoked = ++history_now.sequence;
    op->calm_invoked = history_now.calm_time != SIM_NEVER;
    history_leave();
    sim_trace("invoke", op->number, (uint64_t)call);
    return op;
}

void history_ended(history_op *op, history_status status, int rc, const char *message)
{
    const uint64_t local = history_local_time();

    history_enter();
    op->status = status;
    op->code = rc;
    if (message != NULL && message[0] != '\0') {
        op->message = history_take(strlen(message) + 1);
        memcpy(op->message, message, strlen(message));
    }
    op->ended = sim_time();
    op->local_ended = local;
    op->stopped_ended = history_stopped();
    op->commits_ended = witness_count();
    op->sequence_ended = ++history_now.sequence;
    history_leave();
    sim_trace("ended", op->number, (uint64_t)(uint32_t)rc);
}

history_op *history_op_of(uint64_t number)
{
    history_op *op = NULL;

    history_enter();
    if (number >= 1 && number <= history_now.n_ops) {
        op = history_now.ops[number - 1];
    }
    history_leave();
    return op;
}

uint64_t history_ops(void)
{
    return history_now.n_ops;
}

bool history_has_loads(void)
{
    return history_now.loads;
}

static history_event *history_event_add(const char *what)
{
    history_event *event;

    if (history_now.n_events == history_now.events_size) {
        history_now.events_size = history_now.events_size == 0 ? 64 : history_now.events_size * 2;
        history_now.events = sim_realloc(history_now.events, history_now.events_size * sizeof(*event));
    }
    event = &history_now.events[history_now.n_events++];
    memset(event, 0, sizeof(*event));
    event->sequence = ++history_now.sequence;
    event->time = sim_time();
    event->what = what;
    return event;
}

void history_note(const char *what, const char *name)
{
    const char *text = history_text(name);

    history_enter();
    history_event_add(what)->name = text;
    history_leave();
}

void history_client(const char *what, uint32_t client, uint32_t life, const char *kind, uint64_t epoch, bool drains)
{
    const char *text = history_text(kind);
    history_event *event;

    history_enter();
    event = history_event_add(what);
    event->name = text;
    event->client = client;
    event->life = life;
    event->epoch = epoch;
    event->drains = drains;
    history_leave();
}

void history_calm(void)
{
    history_enter();
    (void)history_event_add("calm");
    history_now.calm_time = sim_time();
    history_leave();
}

uint64_t history_calm_time(void)
{
    return history_now.calm_time;
}

const history_event *history_events(size_t *n)
{
    *n = history_now.n_events;
    return history_now.events;
}
