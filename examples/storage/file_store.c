/*
 * file_store.c - a storage backend in C: every value is a file in a directory that all workers share.
 *
 *     cc -std=gnu11 -shared -fPIC $(pkg-config --cflags tq) -o file_store.so file_store.c
 *
 *     transferq.init({"backend": {"storage_backend": "FileStore",
 *                           "FileStore": {"library": "/opt/file_store.so", "path": "/mnt/shared/tq"}}})
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tq/kv.h>

typedef struct file_store {
    char path[200];
} file_store;

static int file_error(tq_error *err, const char *what, const char *name)
{
    err->code = errno == ENOSPC || errno == EDQUOT ? TQ_EFULL : TQ_EIO;
    snprintf(err->message, sizeof(err->message), "FileStore: %s %s: %s", what, name, strerror(errno));
    return err->code;
}

/* Keys are letters, digits, '/' and '.'. */
static void file_name(const file_store *store, const char *key, char out[300])
{
    size_t n = (size_t)snprintf(out, 300, "%s/", store->path);

    snprintf(out + n, 300 - n, "%s", key);
    for (char *at = out + n; *at != 0; at++) {
        *at = *at == '/' ? '-' : *at;
    }
}

static int file_open(void *state, const tq_kv_client *client, const char *config, tq_error *err)
{
    file_store *store = state;
    const char *path = strstr(config, "\"path\"");

    (void)client; /* a real backend would read its config with a JSON library */
    if (path == NULL || sscanf(path + 6, " : \"%199[^\"]\"", store->path) != 1) {
        err->code = TQ_ECONFIG;
        strcpy(err->message, "FileStore.path: expected a directory");
        return TQ_ECONFIG;
    }
    return mkdir(store->path, 0700) == 0 || errno == EEXIST ? TQ_OK : file_error(err, "making", store->path);
}

static void file_close(void *state)
{
    (void)state;
}

static const char *file_store_name(void *state)
{
    return ((file_store *)state)->path;
}

static int file_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    char name[300];

    (void)deadline_ns;
    for (size_t i = 0; i < n; i++) {
        file_name(state, values[i].key, name);
        FILE *file = fopen(name, "we");
        bool ok = file != NULL;
        for (size_t s = 0; ok && s < values[i].n_slices; s++) {
            ok = fwrite(values[i].slices[s].data, 1, values[i].slices[s].size, file) == values[i].slices[s].size;
        }
        if ((file != NULL && fclose(file) != 0) || !ok) {
            return file_error(err, "writing", name);
        }
    }
    return TQ_OK;
}

static int file_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    char name[300];

    (void)deadline_ns;
    for (size_t i = 0; i < n; i++) {
        file_name(state, reads[i].key, name);
        FILE *file = fopen(name, "re");
        reads[i].missing = file == NULL && errno == ENOENT;
        bool ok = file != NULL && fseek(file, (long)reads[i].offset, SEEK_SET) == 0 &&
                  fread(reads[i].dest, 1, reads[i].size, file) == reads[i].size;
        if (file != NULL) {
            fclose(file);
        }
        if (!ok && !reads[i].missing) {
            return file_error(err, "reading", name);
        }
    }
    return TQ_OK;
}

static int file_remove(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err)
{
    char name[300];

    (void)deadline_ns;
    for (size_t i = 0; i < n; i++) {
        file_name(state, keys[i].key, name);
        keys[i].missing = unlink(name) != 0 && errno == ENOENT;
        if (!keys[i].missing && access(name, F_OK) == 0) {
            return file_error(err, "removing", name);
        }
    }
    return TQ_OK;
}

static const tq_kv_client file_client = {
    .abi = TQ_KV_ABI,
    .type = "FileStore",
    .state_size = sizeof(file_store),
    .partial = true,
    .open = file_open,
    .close = file_close,
    .name = file_store_name,
    .put = file_put,
    .get = file_get,
    .remove = file_remove,
};

TQ_API const tq_kv_client *tq_kv_client_plugin(uint32_t abi);

const tq_kv_client *tq_kv_client_plugin(uint32_t abi)
{
    return abi == TQ_KV_ABI ? &file_client : NULL;
}
