/*
 * first_store.c - a plug-in that was built with version 1 of kv.h: its table has no keepalive and no list, and the
 * memory after the table must not be touched. The store is a list in memory.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <tq/kv.h>

/* As version 1 declared it. */
typedef struct first_client {
    uint32_t abi;
    const char *type;
    size_t state_size;
    bool partial;
    uint64_t value_max;
    int (*open)(void *state, const struct tq_kv_client *client, const char *config, tq_error *err);
    void (*close)(void *state);
    const char *(*name)(void *state);
    int (*put)(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err);
    int (*get)(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err);
    int (*remove)(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err);
    void (*forked)(void *state);
} first_client;

typedef struct first_value {
    struct first_value *next;
    char key[64];
    uint8_t bytes[];
} first_value;

static pthread_mutex_t first_lock = PTHREAD_MUTEX_INITIALIZER;
static first_value *first_values;
static const first_client *first_table;

/* Where the link to a key's value is, or the last one; with the lock held. */
static first_value **first_find(const char *key)
{
    first_value **at = &first_values;

    while (*at && strcmp((*at)->key, key) != 0) {
        at = &(*at)->next;
    }
    return at;
}

static int first_open(void *state, const struct tq_kv_client *client, const char *config, tq_error *err)
{
    (void)state;
    (void)config;
    (void)err;
    /* The table itself, not a copy of it: it may lie inside something larger. */
    return (const void *)client == first_table ? TQ_OK : TQ_EINVAL;
}

static void first_close(void *state)
{
    (void)state;
}

static const char *first_name(void *state)
{
    (void)state;
    return "first";
}

static int first_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    (void)state;
    (void)deadline_ns;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        first_value *made = malloc(sizeof(*made) + values[i].size);
        uint8_t *to = made != NULL ? made->bytes : NULL;
        if (made == NULL) {
            return TQ_ENOMEM;
        }
        memcpy(made->key, values[i].key, strlen(values[i].key) + 1);
        for (size_t s = 0; s < values[i].n_slices; s++) {
            memcpy(to, values[i].slices[s].data, values[i].slices[s].size);
            to += values[i].slices[s].size;
        }
        pthread_mutex_lock(&first_lock);
        made->next = first_values;
        first_values = made;
        pthread_mutex_unlock(&first_lock);
    }
    return TQ_OK;
}

static int first_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    (void)state;
    (void)deadline_ns;
    (void)err;
    pthread_mutex_lock(&first_lock);
    for (size_t i = 0; i < n; i++) {
        const first_value *found = *first_find(reads[i].key);
        reads[i].missing = found == NULL;
        if (found != NULL) {
            memcpy(reads[i].dest, found->bytes + reads[i].offset, reads[i].size);
        }
    }
    pthread_mutex_unlock(&first_lock);
    return TQ_OK;
}

static int first_remove(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err)
{
    (void)state;
    (void)deadline_ns;
    (void)err;
    pthread_mutex_lock(&first_lock);
    for (size_t i = 0; i < n; i++) {
        first_value **at = first_find(keys[i].key);
        first_value *found = *at;
        keys[i].missing = found == NULL;
        if (found != NULL) {
            *at = found->next;
            free(found);
        }
    }
    pthread_mutex_unlock(&first_lock);
    return TQ_OK;
}

/* The table ends where the memory of the process ends, so that reading on crashes. */
static const first_client *first_make(void)
{
    static const first_client table = {
        .abi = 1,
        .type = "FirstStore",
        .partial = true,
        .open = first_open,
        .close = first_close,
        .name = first_name,
        .put = first_put,
        .get = first_get,
        .remove = first_remove,
    };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE) != 0) {
        return NULL;
    }
    return memcpy(pages + page - sizeof(table), &table, sizeof(table));
}

TQ_API const tq_kv_client *tq_kv_client_plugin(uint32_t abi);

/* Older than the library, it does not know the version that it is asked for first. */
const tq_kv_client *tq_kv_client_plugin(uint32_t abi)
{
    if (abi != 1) {
        return NULL;
    }
    first_table = first_table != NULL ? first_table : first_make();
    return (const tq_kv_client *)(const void *)first_table;
}
