/*
 * files.c - see files.h: files with sums, and the manifest.
 */
#include "client/checkpoint/files.h"
#include "client/checkpoint/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/buf.h"
#include "base/error.h"

#define CKPT_REMEDY       "load another checkpoint, or save this one again"
#define CKPT_VERSION      2 /* 2: rows of a field may differ in kind and dtype */
#define CKPT_MANIFEST     "MANIFEST"
#define CKPT_MANIFEST_MAX 4096u
#define CKPT_METADATA     "metadata.json"
#define CKPT_METADATA_MAX (64u << 20)
#define CKPT_STATE        "state.bin"
#define CKPT_DATA         "data.bin"

/* --- sums ----------------------------------------------------------------- */

static void ckpt_hex(XXH128_hash_t hash, char out[33])
{
    XXH128_canonical_t bytes;

    XXH128_canonicalFromHash(&bytes, hash);
    for (size_t i = 0; i < sizeof(bytes.digest); i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", bytes.digest[i]);
    }
}

static int ckpt_errno(tq_error *err, const char *what, const char *name)
{
    int rc = errno;

    return tqi_error_set(err, TQ_EIO, "checkpoint: %s %s: %s", what, name, strerror(rc));
}

/* Takes ownership of the descriptor, even on failure. */
static int ckpt_file_init(tqi_client_ckpt_file *file, const char *name, int fd, tq_error *err)
{
    file->name = name;
    file->hash = XXH3_createState();
    if (file->hash == NULL) {
        close(fd);
        return tqi_error_nomem(err, "a checkpoint");
    }
    file->fd = fd;
    XXH3_128bits_reset(file->hash);
    return TQ_OK;
}

static void ckpt_file_fini(tqi_client_ckpt_file *file)
{
    if (file->hash != NULL) {
        XXH3_freeState(file->hash);
        file->hash = NULL;
        if (file->fd >= 0) {
            close(file->fd);
        }
        file->fd = -1;
    }
}

/* --- writing -------------------------------------------------------------- */

static int ckpt_create(tqi_client_ckpt_file *file, int dir, const char *name, tq_error *err)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0) {
        return ckpt_errno(err, "creating", name);
    }
    return ckpt_file_init(file, name, fd, err);
}

int tqi_client_ckpt_write(tqi_client_ckpt_file *file, const void *bytes, size_t size, tq_error *err)
{
    const uint8_t *at = bytes;
    size_t left = size;

    if (size > 0) {
        XXH3_128bits_update(file->hash, bytes, size);
    }
    while (left > 0) {
        ssize_t n = write(file->fd, at, left);
        if (n < 0 && errno != EINTR) {
            return ckpt_errno(err, "writing", file->name);
        }
        at += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    file->size += size;
    return TQ_OK;
}

int tqi_client_ckpt_write_part(tqi_client_ckpt_file *file, const void *bytes, size_t size, tq_error *err)
{
    uint8_t length[4] = {(uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), (uint8_t)(size >> 24)};
    int rc = tqi_client_ckpt_write(file, length, sizeof(length), err);

    return rc ? rc : tqi_client_ckpt_write(file, bytes, size, err);
}

int tqi_client_ckpt_out_open(tqi_client_ckpt_out *out, const char *path, bool data, tq_error *err)
{
    int rc = tqi_client_ckpt_dir_make(out, path, err);

    rc = rc ? rc : ckpt_create(&out->state, out->dir, CKPT_STATE, err);
    return rc || !data ? rc : ckpt_create(&out->data, out->dir, CKPT_DATA, err);
}

static int ckpt_sync(const tqi_client_ckpt_file *file, tq_error *err)
{
    return fsync(file->fd) == 0 ? TQ_OK : ckpt_errno(err, "syncing", file->name);
}

static int ckpt_manifest_file(tqi_buf *text, const tqi_client_ckpt_file *file)
{
    char sum[33];

    if (file->hash == NULL) {
        return TQ_OK;
    }
    ckpt_hex(XXH3_128bits_digest(file->hash), sum);
    return tqi_buf_printf(text, "file %s %" PRIu64 " %s\n", file->name, file->size, sum);
}

static int ckpt_manifest(const tqi_client_ckpt_out *out, const tqi_client_ckpt_about *about,
                         const tqi_client_ckpt_file *metadata, tqi_buf *text, tq_error *err)
{
    char sum[33];
    int rc = tqi_buf_printf(text,
                            "tq-checkpoint %d\nepoch %" PRIu64 "\npartial %d\nparts %" PRIu64 "\nsamples %" PRIu64 "\n",
                            CKPT_VERSION, about->epoch, about->partial, about->parts, about->samples);

    rc = rc ? rc : ckpt_manifest_file(text, &out->state);
    rc = rc ? rc : ckpt_manifest_file(text, &out->data);
    rc = rc ? rc : ckpt_manifest_file(text, metadata);
    if (rc == TQ_OK) {
        ckpt_hex(XXH3_128bits(text->data, text->size), sum);
        rc = tqi_buf_printf(text, "end %s\n", sum);
    }
    return rc == TQ_OK ? TQ_OK : tqi_error_nomem(err, "a checkpoint");
}

static int ckpt_put_file(const tqi_client_ckpt_out *out, tqi_client_ckpt_file *file, const char *name,
                         const void *bytes, size_t size, tq_error *err)
{
    int rc = ckpt_create(file, out->dir, name, err);

    rc = rc ? rc : tqi_client_ckpt_write(file, bytes, size, err);
    return rc ? rc : ckpt_sync(file, err);
}

int tqi_client_ckpt_out_commit(tqi_client_ckpt_out *out, const tqi_client_ckpt_about *about, const char *metadata,
                               tq_error *err)
{
    tqi_client_ckpt_file about_file = {0};
    tqi_client_ckpt_file manifest_file = {0};
    tqi_buf text = {0};
    int rc = ckpt_put_file(out, &about_file, CKPT_METADATA, metadata, strlen(metadata), err);

    rc = rc ? rc : ckpt_sync(&out->state, err);
    rc = rc || out->data.hash == NULL ? rc : ckpt_sync(&out->data, err);
    rc = rc ? rc : ckpt_manifest(out, about, &about_file, &text, err);
    rc = rc ? rc : ckpt_put_file(out, &manifest_file, CKPT_MANIFEST, text.data, text.size, err);
    rc = rc ? rc : tqi_client_ckpt_dir_place(out, err);
    ckpt_file_fini(&about_file);
    ckpt_file_fini(&manifest_file);
    tqi_buf_fini(&text);
    return rc;
}

void tqi_client_ckpt_out_fini(tqi_client_ckpt_out *out)
{
    ckpt_file_fini(&out->state);
    ckpt_file_fini(&out->data);
    tqi_client_ckpt_dir_drop(out);
}

/* --- reading -------------------------------------------------------------- */

static int ckpt_bad(tq_error *err, const char *path, const char *name, const char *what)
{
    return tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint %s: %s: %s; " CKPT_REMEDY, path, name, what);
}

int tqi_client_ckpt_read(tqi_client_ckpt_file *file, void *bytes, size_t size, tq_error *err)
{
    uint8_t *at = bytes;
    size_t left = size;

    while (left > 0) {
        ssize_t n = read(file->fd, at, left);
        if (n < 0 && errno != EINTR) {
            return ckpt_errno(err, "reading", file->name);
        }
        if (n == 0) {
            return tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint: %s ends early", file->name);
        }
        at += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    if (size > 0) {
        XXH3_128bits_update(file->hash, bytes, size);
    }
    file->size += size;
    return TQ_OK;
}

int tqi_client_ckpt_check(const tqi_client_ckpt_file *file, const char *path, tq_error *err)
{
    char sum[33];

    ckpt_hex(XXH3_128bits_digest(file->hash), sum);
    if (file->size != file->want || strcmp(sum, file->sum) != 0) {
        return tqi_error_set(err, TQ_ECHECKPOINT,
                             "checkpoint %s: %s was altered: its sum is %s, the manifest says "
                             "%s; " CKPT_REMEDY,
                             path, file->name, sum, file->sum);
    }
    return TQ_OK;
}

/* Describes what lies where a file should be: anything may have been copied or put there. */
static const char *ckpt_kind(mode_t mode)
{
    return S_ISDIR(mode)    ? "it is a directory, not a file"
           : S_ISFIFO(mode) ? "it is a FIFO, not a file"
           : S_ISSOCK(mode) ? "it is a socket, not a file"
                            : "it is a device, not a file";
}

/* Opens what must be a regular file, without blocking: opening a FIFO would wait for its writer. */
static int ckpt_open(const char *path, int dir, const char *name, int *fd_out, struct stat *st, tq_error *err)
{
    int rc = TQ_OK;
    int fd = openat(dir, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0) {
        return errno == ENOENT  ? ckpt_bad(err, path, name, "it is missing")
               : errno == ELOOP ? ckpt_bad(err, path, name, "its symbolic links lead in a circle")
               : errno == ENXIO ? ckpt_bad(err, path, name, "it is no file")
                                : ckpt_errno(err, "opening", name);
    }
    if (fstat(fd, st) != 0) {
        rc = ckpt_errno(err, "looking at", name);
    } else if (!S_ISREG(st->st_mode)) {
        rc = ckpt_bad(err, path, name, ckpt_kind(st->st_mode));
    }
    if (rc) {
        close(fd);
        return rc;
    }
    *fd_out = fd;
    return TQ_OK;
}

/* Opens a file of the checkpoint; its size must be what the manifest says. */
static int ckpt_open_file(const char *path, int dir, const char *name, tqi_client_ckpt_file *file, tq_error *err)
{
    struct stat st = {0};
    int fd = -1;
    int rc = ckpt_open(path, dir, name, &fd, &st, err);

    if (rc) {
        return rc;
    }
    if (ckpt_file_init(file, name, fd, err) != TQ_OK) {
        return TQ_ENOMEM;
    }
    if ((uint64_t)st.st_size != file->want) {
        return tqi_error_set(err, TQ_ECHECKPOINT,
                             "checkpoint %s: %s has %" PRIu64 " bytes, the manifest says %" PRIu64 "; " CKPT_REMEDY,
                             path, name, (uint64_t)st.st_size, file->want);
    }
    return TQ_OK;
}

/* Reads a small file completely and adds a terminating 0. */
static int ckpt_slurp(const char *path, int dir, const char *name, size_t max, char **out, size_t *size, tq_error *err)
{
    struct stat st = {0};
    ssize_t n = -1;
    int fd = -1;
    int rc = ckpt_open(path, dir, name, &fd, &st, err);

    if (rc) {
        return rc;
    }
    if ((uint64_t)st.st_size > max) {
        rc = ckpt_bad(err, path, name, "it is too large");
    } else if ((*out = malloc((size_t)st.st_size + 1)) == NULL) {
        rc = tqi_error_nomem(err, "a checkpoint");
    } else if ((n = pread(fd, *out, (size_t)st.st_size, 0)) != st.st_size) {
        rc = ckpt_errno(err, "reading", name);
    } else {
        (*out)[n] = 0;
        *size = (size_t)n;
    }
    close(fd);
    return rc;
}

/* Parses `word` and the number after it; advances the position past them and the white space that follows. */
static bool ckpt_number(const char **at, const char *word, uint64_t *out)
{
    size_t size = strlen(word);
    char *end = NULL;

    if (strncmp(*at, word, size) != 0 || (*at)[size] < '0' || (*at)[size] > '9') {
        return false;
    }
    errno = 0;
    *out = strtoull(*at + size, &end, 10);
    if (errno != 0 || (*end != ' ' && *end != '\n')) {
        return false;
    }
    *at = end + 1;
    return true;
}

/* Parses the expected size and sum of a file from its line. */
static bool ckpt_line(const char *text, const char *name, tqi_client_ckpt_file *file)
{
    char start[64];
    const char *at;

    (void)snprintf(start, sizeof(start), "\nfile %s ", name);
    at = strstr(text, start);
    if (at == NULL || !ckpt_number(&at, start, &file->want) || strlen(at) < sizeof(file->sum) ||
        at[sizeof(file->sum) - 1] != '\n') {
        return false;
    }
    memcpy(file->sum, at, sizeof(file->sum) - 1);
    file->sum[sizeof(file->sum) - 1] = 0;
    return true;
}

/* Whether the text ends with its own sum. */
static bool ckpt_sealed(const char *text, size_t size)
{
    const size_t tail = strlen("end ") + 32 + 1;
    char sum[33];
    char end[64];

    if (size <= tail || strlen(text) != size) {
        return false;
    }
    ckpt_hex(XXH3_128bits(text, size - tail), sum);
    (void)snprintf(end, sizeof(end), "end %s\n", sum);
    return strcmp(text + size - tail, end) == 0;
}

static int ckpt_parse_manifest(tqi_client_ckpt_in *in, const char *path, const char *text, tqi_client_ckpt_file *state,
                               tqi_client_ckpt_file *metadata, tq_error *err)
{
    const char *at = text;
    uint64_t version = 0;
    uint64_t partial = 0;

    if (!ckpt_number(&at, "tq-checkpoint ", &version)) {
        return ckpt_bad(err, path, CKPT_MANIFEST, "it is not one");
    }
    if (version < 1 || version > CKPT_VERSION) {
        return tqi_error_set(err, TQ_EVERSION, "checkpoint %s is of version %" PRIu64 ", this library reads version %d",
                             path, version, CKPT_VERSION);
    }
    if (!ckpt_number(&at, "epoch ", &in->about.epoch) || !ckpt_number(&at, "partial ", &partial) ||
        !ckpt_number(&at, "parts ", &in->about.parts) || !ckpt_number(&at, "samples ", &in->about.samples) ||
        !ckpt_line(text, CKPT_STATE, state) || !ckpt_line(text, CKPT_METADATA, metadata)) {
        return ckpt_bad(err, path, CKPT_MANIFEST, "it does not name all files");
    }
    in->about.partial = partial != 0;
    in->about.data = ckpt_line(text, CKPT_DATA, &in->data);
    return TQ_OK;
}

static int ckpt_read_manifest(tqi_client_ckpt_in *in, const char *path, int dir, tqi_client_ckpt_file *state,
                              tqi_client_ckpt_file *metadata, tq_error *err)
{
    char *text = NULL;
    size_t size = 0;
    int rc = ckpt_slurp(path, dir, CKPT_MANIFEST, CKPT_MANIFEST_MAX, &text, &size, err);

    if (rc == TQ_OK && text != NULL) {
        rc = ckpt_sealed(text, size) ? ckpt_parse_manifest(in, path, text, state, metadata, err)
                                     : ckpt_bad(err, path, CKPT_MANIFEST, "it was altered");
    }
    free(text);
    return rc;
}

/* Reads a file completely, checks its sum and adds a terminating 0. */
static int ckpt_take(const char *path, int dir, const char *name, tqi_client_ckpt_file *file, uint8_t **out,
                     tq_error *err)
{
    int rc = ckpt_open_file(path, dir, name, file, err);
    uint8_t *bytes = rc ? NULL : malloc(file->want + 1);

    if (bytes != NULL) {
        bytes[file->want] = 0;
        rc = tqi_client_ckpt_read(file, bytes, file->want, err);
        rc = rc ? rc : tqi_client_ckpt_check(file, path, err);
    } else if (!rc) {
        rc = tqi_error_nomem(err, "a checkpoint");
    }
    ckpt_file_fini(file);
    *out = bytes; /* freed with the checkpoint, even after an error */
    return rc;
}

int tqi_client_ckpt_in_open(tqi_client_ckpt_in *in, const char *path, tq_error *err)
{
    tqi_client_ckpt_file state = {0};
    tqi_client_ckpt_file metadata = {0};
    int dir = -1;
    int rc = tqi_client_ckpt_dir_open(path, &dir, err);

    rc = rc ? rc : ckpt_read_manifest(in, path, dir, &state, &metadata, err);
    if (rc == TQ_OK && metadata.want > CKPT_METADATA_MAX) {
        rc = ckpt_bad(err, path, CKPT_METADATA, "it is too large");
    }
    rc = rc ? rc : ckpt_take(path, dir, CKPT_METADATA, &metadata, (uint8_t **)&in->metadata, err);
    rc = rc ? rc : ckpt_take(path, dir, CKPT_STATE, &state, &in->state, err);
    in->state_size = rc ? 0 : state.want;
    if (rc == TQ_OK && in->about.data) {
        rc = ckpt_open_file(path, dir, CKPT_DATA, &in->data, err);
    }
    if (dir >= 0) {
        close(dir);
    }
    return rc;
}

bool tqi_client_ckpt_next_part(tqi_client_ckpt_in *in, const uint8_t **bytes, size_t *size)
{
    const uint8_t *at = in->state + in->state_at;
    size_t left = in->state_size - in->state_at;

    if (left < 4) {
        return false;
    }
    *size = at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
    if (*size > left - 4) {
        return false;
    }
    *bytes = at + 4;
    in->state_at += 4 + *size;
    return true;
}

void tqi_client_ckpt_first_part(tqi_client_ckpt_in *in)
{
    in->state_at = 0;
}

void tqi_client_ckpt_in_fini(tqi_client_ckpt_in *in)
{
    ckpt_file_fini(&in->data);
    free(in->metadata);
    free(in->state);
    in->metadata = NULL;
    in->state = NULL;
    in->state_size = 0;
}
