/*
 * store.c - see store.h: the requests of the store's clients, and their fate.
 *
 * A call copies what it sends into a request, which an event executes and another one answers. The calling fiber
 * sleeps until the answer or its deadline. A request belongs to its caller and to its pending events; the share of a
 * caller whose process has ended is dropped when the store next looks.
 */
#include "store.h"

#include <string.h>
#include <time.h>

#include "sim.h"
#include "store_map.h"

#include <tq/kv.h>

/* How long a request, and its answer, is on its way. */
#define STORE_TRIP_MIN (20 * SIM_US)
#define STORE_TRIP_MAX (2 * SIM_MS)
#define STORE_SLOW_MIN (10 * SIM_MS)
#define STORE_SLOW_MAX (8 * SIM_S)
/* Everything is executed within this part of the write deadline: the clocks of processes differ by a fifth. */
#define STORE_PROMISE_PERCENT 60
/* When a client takes a connection for lost, at the latest. */
#define STORE_LOST_MAX  (5 * SIM_S)
#define STORE_LIST_STEP 64u

typedef enum store_kind {
    STORE_PUT = 1,
    STORE_GET,
    STORE_REMOVE,
    STORE_KEEPALIVE
} store_kind;

typedef struct store_item {
    char key[TQ_KV_KEY_MAX + 1];
    store_value *value; /* to put, or found */
    bool missing;
} store_item;

typedef struct store_request {
    struct store_request *prev, *next;
    store_kind kind;
    sim_fiber *fiber;
    uint64_t pid;
    bool called;     /* the caller refers to it */
    unsigned events; /* that refer to it */
    bool answered;
    bool unanswered; /* the answer is lost */
    bool late;       /* what is executed from now on comes when the caller has gone on */
    int code;
    uint64_t due;     /* all of it is executed before this */
    uint64_t expires; /* of a keepalive */
    size_t at, end;   /* items to execute next */
    size_t n;
    store_item *items;
    void *listed; /* freed with the request: its caller may be killed */
} store_request;

static struct {
    sim_chance chance;
    store_options options;
    uint64_t promise;
    store_request *requests;
} store;

/* --- requests ------------------------------------------------------------------ */

static void store_request_free(store_request *request)
{
    for (size_t i = 0; i < request->n; i++) {
        store_value_unref(request->items[i].value);
    }
    if (request->prev != NULL) {
        request->prev->next = request->next;
    } else {
        store.requests = request->next;
    }
    if (request->next != NULL) {
        request->next->prev = request->prev;
    }
    sim_fiber_unref(request->fiber);
    sim_free(request->items);
    sim_free(request->listed);
    sim_free(request);
}

static void store_request_settle(store_request *request)
{
    if (!request->called && request->events == 0) {
        store_request_free(request);
    }
}

/* Drops the shares of callers whose process has ended. */
static void store_reap(void)
{
    store_request *request = store.requests, *next;

    for (; request != NULL; request = next) {
        next = request->next;
        if (request->called && sim_process_of(request->pid) == NULL) {
            request->called = false;
            store_request_settle(request);
        }
    }
}

static store_request *store_request_make(store_kind kind, size_t n)
{
    store_request *request = sim_alloc(sizeof(*request));

    store_reap();
    request->kind = kind;
    request->n = n;
    request->items = sim_alloc((n + 1) * sizeof(*request->items));
    request->fiber = sim_fiber_ref(sim_running);
    request->pid = sim_self->pid;
    request->called = true;
    request->next = store.requests;
    if (store.requests != NULL) {
        store.requests->prev = request;
    }
    store.requests = request;
    return request;
}

static void store_key(store_item *item, const char *key)
{
    size_t size = strlen(key);

    sim_check(size > 0 && size <= TQ_KV_KEY_MAX, "keys of a store are short", "a key of %zu bytes", size);
    memcpy(item->key, key, size + 1);
}

/* --- what the store does ---------------------------------------------------------- */

static int store_put_one(const store_request *request, const store_item *item)
{
    const store_entry *entry = store_map_find(item->key);
    uint64_t size = item->value->size, room = store.options.capacity;

    if (entry != NULL) {
        sim_check(entry->value->size == size && memcmp(entry->value->data, item->value->data, size) == 0,
                  "no key is written with two different values", "key %s of %llu bytes", item->key,
                  (unsigned long long)size);
        return TQ_OK;
    }
    if (!request->late && ((room > 0 && store_map_bytes() + size > room) || sim_happens(SIM_KV_FULL))) {
        sim_mark("store had no room");
        return TQ_EFULL;
    }
    store_map_add(item->key, item->value)->late = request->late;
    if (request->late) {
        sim_mark("value came late");
    }
    return TQ_OK;
}

static void store_remove_one(store_item *item)
{
    store_entry *entry = store_map_find(item->key);

    item->missing = entry == NULL;
    if (entry != NULL) {
        if (entry->late) {
            sim_mark("late value swept");
        }
        store_map_drop(entry);
    }
}

static void store_keep_one(const store_request *request, const store_item *item)
{
    store_entry *entry = store_map_find(item->key);
    store_value *value;

    if (entry == NULL) {
        value = store_value_make(1);
        value->data[0] = '1';
        entry = store_map_add(item->key, value);
        store_value_unref(value);
    }
    entry->expires = request->expires;
}

static int store_execute_one(const store_request *request, store_item *item)
{
    const store_entry *entry;

    switch (request->kind) {
    case STORE_PUT:
        return store_put_one(request, item);
    case STORE_REMOVE:
        store_remove_one(item);
        return TQ_OK;
    case STORE_KEEPALIVE:
        store_keep_one(request, item);
        return TQ_OK;
    case STORE_GET:
        break;
    }
    entry = store_map_find(item->key);
    item->missing = entry == NULL;
    item->value = entry != NULL ? store_value_ref(entry->value) : NULL;
    return TQ_OK;
}

static void store_evict(void)
{
    store_entry *entry = store_map_any(&sim_fault_chance);

    if (entry != NULL) {
        sim_mark("store evicted a value");
        sim_trace("kv evict", entry->place, entry->value->size);
        store_map_evict(entry);
    }
}

static uint64_t store_trip(void)
{
    uint64_t longest = store.promise / 4 < STORE_SLOW_MAX ? store.promise / 4 : STORE_SLOW_MAX;

    return sim_happens(SIM_KV_SLOW) ? sim_between(&sim_fault_chance, STORE_SLOW_MIN, longest)
                                    : sim_between(&store.chance, STORE_TRIP_MIN, STORE_TRIP_MAX);
}

static void store_on_answer(void *arg)
{
    store_request *request = arg;

    request->events--;
    request->answered = true;
    if (request->called) {
        sim_wake(request->fiber);
    }
    store_request_settle(request);
}

static void store_execute(store_request *request)
{
    bool killed = sim_process_of(request->pid) == NULL;
    size_t end = request->end;

    if (killed) {
        sim_mark("store executed a request of a killed client");
        request->late = true;
        if (sim_one_in(&store.chance, 2)) { /* not all of it had been sent */
            end = request->at + sim_below(&store.chance, end - request->at + 1);
        }
    }
    while (request->at < end && request->code == TQ_OK) {
        request->code = store_execute_one(request, &request->items[request->at]);
        request->at += request->code == TQ_OK;
    }
    sim_trace("kv", (uint64_t)request->kind << 32 | request->at, (uint64_t)(uint32_t)request->code);
}

static void store_on_execute(void *arg)
{
    store_request *request = arg;

    request->events--;
    store_execute(request);
    if (sim_happens(SIM_KV_EVICT)) {
        store_evict();
    }
    if (!request->unanswered) {
        request->events++;
        sim_at(sim_time() + store_trip(), store_on_answer, request);
    } else if (request->end < request->n && request->code == TQ_OK) {
        request->late = true; /* the rest comes late */
        request->end = request->n;
        request->events++;
        sim_at(sim_between(&sim_fault_chance, sim_time(), request->due), store_on_execute, request);
    }
    store_request_settle(request);
}

/* --- calls ------------------------------------------------------------------------- */

static uint64_t store_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now); /* of the process */
    return (uint64_t)now.tv_sec * SIM_S + (uint64_t)now.tv_nsec;
}

static int store_fail(tq_error *err, int rc, const char *message)
{
    if (err != NULL) {
        err->code = rc;
        strcpy(err->message, message);
    }
    return rc;
}

/* When that much time will have passed by the clock of the process. */
static uint64_t store_until(uint64_t now, uint64_t ns)
{
    const double rate = 1 + (double)sim_self->clock_rate / 1e6;

    return (double)ns / rate < 1e18 ? now + (uint64_t)((double)ns / rate) + 1 : SIM_NEVER;
}

/* Sleeps until the answer, the deadline, or `lost`, when the connection breaks. */
static int store_wait(store_request *request, uint64_t deadline, uint64_t lost, tq_error *err)
{
    while (!request->answered) {
        uint64_t now = store_now(), at = sim_time();
        if (now >= deadline) {
            return store_fail(err, TQ_ETIMEDOUT, "the store did not answer");
        }
        if (at >= lost) {
            return store_fail(err, TQ_EUNREACHABLE, "the connection to the store was lost");
        }
        uint64_t until = store_until(at, deadline - now);
        sim_sleep(until < lost ? until : lost);
    }
    return request->code == TQ_EFULL ? store_fail(err, TQ_EFULL, "the store has no room") : request->code;
}

/* Sends the request and waits. The caller reads the items, and then calls store_leave. */
static int store_call(store_request *request, uint64_t deadline, tq_error *err)
{
    uint64_t now = sim_time(), lost = SIM_NEVER;
    bool changes = request->kind == STORE_PUT || request->kind == STORE_REMOVE;

    request->due = now + store.promise;
    request->end = request->n;
    if (changes && sim_happens(SIM_KV_LATE)) {
        sim_mark("store did not answer");
        request->unanswered = true;
        request->end = sim_below(&sim_fault_chance, request->n + 1);
        if (deadline == UINT64_MAX || sim_one_in(&sim_fault_chance, 2)) {
            lost = now + sim_below(&sim_fault_chance, STORE_LOST_MAX);
        }
    }
    request->events++;
    sim_at(now + store_trip(), store_on_execute, request);
    return store_wait(request, deadline, lost, err);
}

static int store_leave(store_request *request, int rc)
{
    request->called = false;
    store_request_settle(request);
    return rc;
}

static int store_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    store_request *request = store_request_make(STORE_PUT, n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        store_value *value = request->items[i].value = store_value_make(values[i].size);
        uint64_t at = 0;
        sim_check(values[i].size > 0, "values have bytes", "key %s has none", values[i].key);
        store_key(&request->items[i], values[i].key);
        for (size_t s = 0; s < values[i].n_slices; s++) {
            sim_check(at + values[i].slices[s].size <= value->size, "slices make up the value", "key %s", values[i].key);
            memcpy(value->data + at, values[i].slices[s].data, values[i].slices[s].size);
            at += values[i].slices[s].size;
        }
        sim_check(at == value->size, "slices make up the value", "key %s", values[i].key);
    }
    return store_leave(request, store_call(request, deadline_ns, err));
}

static int store_put_small(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    for (size_t i = 0; i < n; i++) {
        sim_check(values[i].size <= STORE_SMALL_MAX, "values keep to value_max", "key %s has %llu bytes", values[i].key,
                  (unsigned long long)values[i].size);
    }
    return store_put(state, values, n, deadline_ns, err);
}

static void store_read(tq_kv_read *read, const store_item *item)
{
    const store_value *value = item->value;

    read->missing = item->missing;
    if (!item->missing) {
        sim_check(value->size == read->value_size && read->offset <= value->size &&
                      read->size <= value->size - read->offset,
                  "reads lie in the value", "key %s of %llu bytes, taken for %llu: %llu from %llu", read->key,
                  (unsigned long long)value->size, (unsigned long long)read->value_size, (unsigned long long)read->size,
                  (unsigned long long)read->offset);
        memcpy(read->dest, value->data + read->offset, read->size);
    }
}

static int store_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    store_request *request = store_request_make(STORE_GET, n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        store_key(&request->items[i], reads[i].key);
    }
    int rc = store_call(request, deadline_ns, err);
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        store_read(&reads[i], &request->items[i]);
    }
    return store_leave(request, rc);
}

static int store_get_small(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    for (size_t i = 0; i < n; i++) {
        sim_check(reads[i].offset == 0 && reads[i].size == reads[i].value_size, "values are read whole", "key %s",
                  reads[i].key);
    }
    return store_get(state, reads, n, deadline_ns, err);
}

static int store_remove(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err)
{
    store_request *request = store_request_make(STORE_REMOVE, n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        store_key(&request->items[i], keys[i].key);
    }
    int rc = store_call(request, deadline_ns, err);
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        keys[i].missing = request->items[i].missing;
    }
    return store_leave(request, rc);
}

static int store_keepalive(void *state, const char *key, double seconds, uint64_t deadline_ns, tq_error *err)
{
    store_request *request = store_request_make(STORE_KEEPALIVE, 1);

    (void)state;
    store_key(&request->items[0], key);
    request->expires = sim_time() + (uint64_t)(seconds * 1e9);
    return store_leave(request, store_call(request, deadline_ns, err));
}

/* Keys arrive in batches, each after a trip. Between two of them the store changes. */
static int store_list(void *state, const char *prefix, bool (*each)(const char *key, void *arg), void *arg,
                      uint64_t deadline_ns, tq_error *err)
{
    store_request *request = store_request_make(STORE_GET, 0);
    bool goes_on = true;
    size_t n;

    (void)state;
    int rc = store_call(request, deadline_ns, err);
    char(*keys)[TQ_KV_KEY_MAX + 1] = store_map_list(prefix, &n);
    request->listed = keys; /* freed with the request if the process is killed meanwhile */
    for (size_t i = 0; i < n && rc == TQ_OK && goes_on; i++) {
        goes_on = each(keys[i], arg);
        if (goes_on && i % STORE_LIST_STEP == STORE_LIST_STEP - 1) {
            sim_pass(store_trip());
            goes_on = each(NULL, arg);
            rc = store_now() >= deadline_ns ? store_fail(err, TQ_ETIMEDOUT, "the store did not answer") : TQ_OK;
        }
    }
    return store_leave(request, rc);
}

/* --- tables ------------------------------------------------------------------------ */

static int store_open(void *state, const tq_kv_client *client, const char *config, tq_error *err)
{
    store_request *request = store_request_make(STORE_GET, 0);

    (void)state;
    (void)client;
    (void)config;
    return store_leave(request, store_call(request, store_now() + STORE_LOST_MAX, err));
}

static void store_close(void *state)
{
    (void)state;
    sim_pass(sim_between(&store.chance, STORE_TRIP_MIN, STORE_TRIP_MAX));
}

static const char *store_name(void *state)
{
    (void)state;
    return "sim-store";
}

static const tq_kv_client store_whole = {
    .abi = TQ_KV_ABI,
    .type = STORE_WHOLE,
    .state_size = 1,
    .partial = true,
    .open = store_open,
    .close = store_close,
    .name = store_name,
    .put = store_put,
    .get = store_get,
    .remove = store_remove,
};

static const tq_kv_client store_small = {
    .abi = TQ_KV_ABI,
    .type = STORE_SMALL,
    .state_size = 1,
    .value_max = STORE_SMALL_MAX,
    .open = store_open,
    .close = store_close,
    .name = store_name,
    .put = store_put_small,
    .get = store_get_small,
    .remove = store_remove,
};

static const tq_kv_client store_swept = {
    .abi = TQ_KV_ABI,
    .type = STORE_SWEPT,
    .state_size = 1,
    .partial = true,
    .open = store_open,
    .close = store_close,
    .name = store_name,
    .put = store_put,
    .get = store_get,
    .remove = store_remove,
    .keepalive = store_keepalive,
    .list = store_list,
};

int store_register(void)
{
    const tq_kv_client *const tables[] = {&store_whole, &store_small, &store_swept};
    tq_error err = {0};
    int rc = TQ_OK;

    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && rc == TQ_OK; i++) {
        rc = tq_kv_register(tables[i], &err);
    }
    sim_check(rc == TQ_OK || rc == TQ_ENOMEM, "a KV client can be registered", "%s", err.message);
    return rc;
}

/* --- per seed, and at rest ----------------------------------------------------------- */

void store_start(uint64_t seed, const store_options *options)
{
    sim_chance_init(&store.chance, seed, "store");
    store.options = *options;
    if (store.options.write_deadline == 0) {
        store.options.write_deadline = 60 * SIM_S;
    }
    store.promise = store.options.write_deadline / 100 * STORE_PROMISE_PERCENT;
}

void store_end(void)
{
    while (store.requests != NULL) {
        store_request_free(store.requests);
    }
    store_map_clear();
}

size_t store_values(uint64_t epoch)
{
    const store_entry *one;
    uint64_t bytes;

    return store_map_count(epoch, &bytes, &one);
}

uint64_t store_bytes(uint64_t epoch)
{
    const store_entry *one;
    uint64_t bytes;

    store_map_count(epoch, &bytes, &one);
    return bytes;
}

const char *store_any_key(uint64_t epoch)
{
    const store_entry *one;
    uint64_t bytes;

    return store_map_count(epoch, &bytes, &one) > 0 ? one->key : "";
}

size_t store_pending(void)
{
    size_t n = 0;

    for (const store_request *request = store.requests; request != NULL; request = request->next) {
        n += request->events > 0 && request->at < request->end;
    }
    return n;
}
