/*
 * plugins.c [LIBRARY] - storage managers by type: those of the library, one from a plug-in, one of the program's own
 * (a key-value store that is an array in memory, so it is of use within this process only).
 */
#include <pthread.h>
#include <string.h>
#include <tq/kv.h>
#include <tq/manager.h>

#include "example.h"

#define SLOTS 64

static struct {
    pthread_mutex_t lock;
    struct {
        char key[TQ_KV_KEY_MAX + 1];
        void *bytes;
    } slots[SLOTS];
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The slot of a key, or with "" a free one; called with the lock held. */
static int find_slot(const char *key)
{
    for (int i = 0; i < SLOTS; i++) {
        if (strcmp(memory.slots[i].key, key) == 0) {
            return i;
        }
    }
    return -1;
}

static int memory_open(void *state, const struct tq_kv_client *client, const char *config, tq_error *err)
{
    (void)state;
    (void)client;
    (void)config;
    (void)err;
    return TQ_OK;
}

static void memory_close(void *state)
{
    (void)state;
}

static const char *memory_name(void *state)
{
    (void)state;
    return "memory";
}

static int memory_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    int rc = TQ_OK;

    (void)state;
    (void)deadline_ns;
    pthread_mutex_lock(&memory.lock);
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        int slot = find_slot("");
        char *bytes = slot < 0 ? NULL : malloc(values[i].size);

        if (bytes == NULL) {
            rc = err->code = TQ_EFULL;
            snprintf(err->message, sizeof(err->message), "the %d slots are taken", SLOTS);
            break;
        }
        memory.slots[slot].bytes = bytes;
        snprintf(memory.slots[slot].key, sizeof(memory.slots[slot].key), "%s", values[i].key);
        for (size_t s = 0; s < values[i].n_slices; s++) {
            memcpy(bytes, values[i].slices[s].data, values[i].slices[s].size);
            bytes += values[i].slices[s].size;
        }
    }
    pthread_mutex_unlock(&memory.lock);
    return rc;
}

static int memory_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    (void)state;
    (void)deadline_ns;
    (void)err;
    pthread_mutex_lock(&memory.lock);
    for (size_t i = 0; i < n; i++) {
        int slot = find_slot(reads[i].key);

        reads[i].missing = slot < 0;
        if (slot >= 0) {
            memcpy(reads[i].dest, (const char *)memory.slots[slot].bytes + reads[i].offset, reads[i].size);
        }
    }
    pthread_mutex_unlock(&memory.lock);
    return TQ_OK;
}

static int memory_remove(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err)
{
    (void)state;
    (void)deadline_ns;
    (void)err;
    pthread_mutex_lock(&memory.lock);
    for (size_t i = 0; i < n; i++) {
        int slot = find_slot(keys[i].key);

        keys[i].missing = slot < 0;
        if (slot >= 0) {
            free(memory.slots[slot].bytes);
            memory.slots[slot].key[0] = 0;
        }
    }
    pthread_mutex_unlock(&memory.lock);
    return TQ_OK;
}

static const tq_kv_client memory_client = {
    .abi = TQ_KV_ABI,
    .type = "ExampleMemory",
    .partial = true,
    .open = memory_open,
    .close = memory_close,
    .name = memory_name,
    .put = memory_put,
    .get = memory_get,
    .remove = memory_remove,
};

static void register_store(void)
{
    tq_error err;

    must(tq_kv_register(&memory_client, &err), &err);
}

/* The library's manager under another name: a program may change some of its functions. */
static void register_manager(void)
{
    static tq_storage_manager mine;
    const tq_storage_manager *found;
    tq_error err;

    must(tq_manager_find("SimpleStorage", &found, &err), &err);
    mine = *found;
    mine.type = "MyStorage";
    must(tq_manager_register(&mine, &err), &err);
}

static void load(const char *library)
{
    tq_error err;

    must(tq_manager_load(library, &err), &err);
}

static tq_client *open_with_store(const char *type)
{
    tq_client_options options = tq_client_options_init();
    tq_client *client;
    tq_error err;

    options.manager = type;
    must(tq_client_open(&options, &client, &err), &err);
    return client;
}

int main(int argc, char **argv)
{
    const float numbers[2] = {1, 2};
    tq_client *client;
    tq_op *op;

    if (argc > 1) {
        load(argv[1]);
    }
    register_manager();
    register_store();
    client = open_with_store("ExampleMemory");
    op = tq_op_alloc(client, NULL, NULL);
    put_numbers(op, "plugins", numbers, 2);
    done(op, tq_get(op, tq_op_meta(op), NULL, 0, NULL));
    printf("read %.0f\n", ((const float *)tq_data_find_column(tq_op_data(op), "x")->data)[1]);
    done(op, tq_clear_partition(op, "plugins"));
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
