/*
 * dir_store.c - a complete storage manager in one file: every block is a file in a directory that all clients share.
 *
 * It is the example of "write a backend" and is built only against the public headers:
 *
 *     cc -std=gnu11 -shared -fPIC -Iinclude -o dir_store.so examples/storage/dir_store.c
 *
 * A client loads it with tq_manager_load("dir_store.so") and chooses it by its type, "DirStore", with the config
 * {"path": "/some/directory"}.
 *
 * What a manager must do is little. put: grant an id per block, write the bytes, answer with the blocks and with
 * extents that say where each column's rows lie. get: copy byte ranges of blocks to their destinations. This one has
 * no process of its own, so it also names a shared owner, and one client at a time removes the files of dead blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tq/manager.h>

/* The state that the client allocates for us, zeroed. */
typedef struct dir_state {
    tq_manager_host *host;
    char path[1024];
    char owner[256]; /* the same for all clients of the directory */
} dir_state;

/* One put, get or remove in the thread pool. */
typedef struct dir_job {
    dir_state *state;
    tq_put_job *put;
    tq_get_job *get;
    tq_block block; /* of the put: a batch is one block */
    uint32_t *gone; /* of the get */
    uint32_t n_gone;
    uint64_t *ids; /* of the remove */
    size_t n_ids;
    uint64_t incarnation;
    void (*removed)(const tq_error *err, void *arg);
    void *arg;
    tq_error err;
} dir_job;

static int dir_error(tq_error *err, int rc, const char *what, const char *name)
{
    err->code = rc;
    snprintf(err->message, sizeof(err->message), "DirStore: %s %s: %s", what, name, strerror(errno));
    return rc;
}

/* No block is ever written twice: its file's name has the controller's epoch and its id. */
static void dir_file(const dir_state *state, uint64_t epoch, uint64_t id, char *out, size_t size)
{
    snprintf(out, size, "%s/%016llx-%016llx", state->path, (unsigned long long)epoch, (unsigned long long)id);
}

/* ---- put: grant on the loop, write on a thread of the pool, finish on the loop ---- */

static void dir_put_work(void *arg)
{
    dir_job *job = arg;
    char file[1200];
    off_t at = 0;

    dir_file(job->state, job->block.owner_incarnation, job->block.id, file, sizeof(file));
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (uint32_t c = 0; fd >= 0 && c < job->put->n_columns; c++) {
        const tq_put_column *column = &job->put->columns[c];
        for (size_t s = 0; s < column->n_slices; s++) {
            for (size_t done = 0; done < column->slices[s].size;) {
                ssize_t n = pwrite(fd, (const char *)column->slices[s].data + done, column->slices[s].size - done, at);
                if (n < 0 && errno == EINTR) {
                    continue;
                }
                if (n <= 0) {
                    dir_error(&job->err, TQ_EIO, "writing", file);
                    goto out;
                }
                done += (size_t)n;
                at += n;
            }
        }
    }
out:
    if (fd < 0 || close(fd) != 0) {
        dir_error(&job->err, TQ_EIO, "writing", file);
    }
}

static void dir_put_done(void *arg)
{
    dir_job *job = arg;
    tq_manager_host *host = job->state->host;
    tq_extent *extents = calloc(job->put->n_columns, sizeof(*extents));
    uint64_t at = 0;

    if (extents == NULL && job->err.code == TQ_OK) {
        job->err.code = TQ_ENOMEM;
    }
    if (job->err.code != TQ_OK) {
        host->abandon(host, &job->block.id, 1, true); /* it will come back to us as dead, and be removed */
        host->put_finish(host, job->put, &job->err, NULL, 0, NULL, 0);
    } else {
        for (uint32_t c = 0; c < job->put->n_columns; c++) {
            extents[c] = (tq_extent){.column = c, .rows = job->put->columns[c].rows, .offset = at};
            at += job->put->columns[c].size;
        }
        host->put_finish(host, job->put, NULL, &job->block, 1, extents, job->put->n_columns);
    }
    free(extents);
    free(job);
}

static void dir_put_granted(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg)
{
    dir_job *job = arg;
    tq_manager_host *host = job->state->host;

    if (err != NULL) {
        host->put_finish(host, job->put, err, NULL, 0, NULL, 0);
        free(job);
        return;
    }
    job->block.id = first;
    job->block.owner = job->state->owner;
    job->block.owner_incarnation = incarnation;
    if (host->work(host, dir_put_work, dir_put_done, job) != TQ_OK) {
        job->err.code = TQ_ENOMEM;
        dir_put_done(job);
    }
}

static void dir_put(void *state, tq_put_job *put)
{
    dir_state *dir = state;
    dir_job *job = calloc(1, sizeof(*job));

    if (job == NULL) {
        tq_error err = {.code = TQ_ENOMEM, .message = "DirStore: a put"};
        dir->host->put_finish(dir->host, put, &err, NULL, 0, NULL, 0);
        return;
    }
    job->state = dir;
    job->put = put;
    for (uint32_t c = 0; c < put->n_columns; c++) {
        job->block.size += put->columns[c].size;
    }
    dir->host->grant(dir->host, dir->owner, 1, put->deadline_ns, dir_put_granted, job);
}

/* ---- get: ranges are ordered by block, so each file is opened once ---- */

static void dir_get_work(void *arg)
{
    dir_job *job = arg;
    uint32_t opened = UINT32_MAX;
    int fd = -1;
    char file[1200] = "";

    for (uint32_t r = 0; r < job->get->n_ranges && job->err.code == TQ_OK; r++) {
        const tq_get_range *range = &job->get->ranges[r];
        const tq_block *block = &job->get->blocks[range->block];
        if (range->block != opened) {
            if (fd >= 0) {
                close(fd);
            }
            opened = range->block;
            dir_file(job->state, block->owner_incarnation, block->id, file, sizeof(file));
            fd = open(file, O_RDONLY | O_CLOEXEC);
            if (fd < 0 && errno == ENOENT) {
                job->gone[job->n_gone++] = opened; /* cleared or lost: the controller knows more */
            } else if (fd < 0) {
                dir_error(&job->err, TQ_EIO, "opening", file);
            }
        }
        for (uint64_t done = 0; fd >= 0 && done < range->size;) {
            ssize_t n = pread(fd, (char *)range->dest + done, range->size - done, (off_t)(range->offset + done));
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                dir_error(&job->err, TQ_EIO, "reading", file);
                break;
            }
            done += (uint64_t)n;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void dir_get_done(void *arg)
{
    dir_job *job = arg;
    tq_manager_host *host = job->state->host;

    host->get_finish(host, job->get, job->err.code != TQ_OK ? &job->err : NULL, job->gone, job->n_gone);
    free(job->gone);
    free(job);
}

static void dir_get(void *state, tq_get_job *get)
{
    dir_state *dir = state;
    dir_job *job = calloc(1, sizeof(*job));
    uint32_t *gone = calloc(get->n_blocks + 1, sizeof(*gone));
    tq_error err = {.code = TQ_ENOMEM, .message = "DirStore: a get"};

    if (job != NULL && gone != NULL) {
        job->state = dir;
        job->get = get;
        job->gone = gone;
        if (dir->host->work(dir->host, dir_get_work, dir_get_done, job) == TQ_OK) {
            return;
        }
    }
    free(job);
    free(gone);
    dir->host->get_finish(dir->host, get, &err, NULL, 0);
}

/* ---- dead blocks: any client of the directory may be asked, and asked again ---- */

static const char *dir_owner(void *state, uint64_t *incarnation)
{
    dir_state *dir = state;

    /* Block ids start over with every epoch of the controller, so each epoch is treated as a separate store; the files
     * of earlier epochs are left to the owner of the directory. */
    *incarnation = dir->host->epoch;
    return dir->owner;
}

static void dir_remove_work(void *arg)
{
    dir_job *job = arg;
    char file[1200];

    for (size_t i = 0; i < job->n_ids; i++) {
        dir_file(job->state, job->incarnation, job->ids[i], file, sizeof(file));
        if (unlink(file) != 0 && errno != ENOENT) {
            dir_error(&job->err, TQ_EIO, "removing", file);
        }
    }
}

static void dir_remove_done(void *arg)
{
    dir_job *job = arg;

    job->removed(job->err.code != TQ_OK ? &job->err : NULL, job->arg);
    free(job->ids);
    free(job);
}

static void dir_remove(void *state, uint64_t incarnation, const uint64_t *ids, size_t n,
                       void (*done)(const tq_error *err, void *arg), void *arg)
{
    dir_state *dir = state;
    dir_job *job = calloc(1, sizeof(*job));
    uint64_t *copy = calloc(n + 1, sizeof(*copy));
    tq_error err = {.code = TQ_ENOMEM, .message = "DirStore: a remove"};

    if (job != NULL && copy != NULL) {
        memcpy(copy, ids, n * sizeof(*ids));
        *job = (dir_job){.state = dir, .incarnation = incarnation, .ids = copy, .n_ids = n, .removed = done, .arg = arg};
        if (dir->host->work(dir->host, dir_remove_work, dir_remove_done, job) == TQ_OK) {
            return;
        }
    }
    free(job);
    free(copy);
    done(&err, arg);
}

/* ---- open and close ---- */

/* The value of "path" in a flat JSON object; a real backend would use a JSON library. */
static int dir_config(dir_state *dir, const char *config)
{
    const char *at = strstr(config, "\"path\"");
    size_t n = 0;

    at = at != NULL ? strchr(at + 6, ':') : NULL;
    at = at != NULL ? strchr(at, '"') : NULL;
    for (at = at != NULL ? at + 1 : ""; *at != 0 && *at != '"' && n + 1 < sizeof(dir->path); at++) {
        at += at[0] == '\\' && at[1] != 0;
        dir->path[n++] = *at;
    }
    return n > 0 && *at == '"' ? TQ_OK : TQ_ECONFIG;
}

static void dir_open(void *state, tq_manager_host *host, const char *config,
                     void (*opened)(const tq_error *err, void *arg), void *arg)
{
    dir_state *dir = state;
    tq_error err = {0};

    dir->host = host;
    if (dir_config(dir, config) != TQ_OK) {
        err.code = TQ_ECONFIG;
        snprintf(err.message, sizeof(err.message), "DirStore: config has no \"path\": %.300s", config);
    } else if (mkdir(dir->path, 0700) != 0 && errno != EEXIST) {
        dir_error(&err, TQ_EIO, "making", dir->path);
    } else {
        /* Names of owners are at most 255 bytes: the end of a path is more telling than its beginning. */
        size_t n = strlen(dir->path);
        snprintf(dir->owner, sizeof(dir->owner), "dir:%s", dir->path + (n > 240 ? n - 240 : 0));
    }
    opened(err.code != TQ_OK ? &err : NULL, arg);
}

static void dir_close(void *state, void (*closed)(void *arg), void *arg)
{
    (void)state;
    closed(arg);
}

/* ---- what the library exports ---- */

static const tq_storage_manager dir_manager = {
    .abi = TQ_MANAGER_ABI,
    .type = "DirStore",
    .state_size = sizeof(dir_state),
    .open = dir_open,
    .close = dir_close,
    .put = dir_put,
    .get = dir_get,
    .owner = dir_owner,
    .remove = dir_remove,
};

TQ_API const tq_storage_manager *tq_storage_manager_plugin(uint32_t abi);

const tq_storage_manager *tq_storage_manager_plugin(uint32_t abi)
{
    return abi == TQ_MANAGER_ABI ? &dir_manager : NULL;
}
