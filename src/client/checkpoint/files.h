/*
 * files.h - checkpoints on disk: a directory that is written next to its final place and moved there when
 * complete.
 *
 *   state.bin      the table: parts of a snapshot, each with its length in front
 *   data.bin       bytes of the blocks, end to end, in the order in which the state names them first
 *   metadata.json  what users read: storage_saved, user_metadata
 *   MANIFEST       sizes and XXH3 sums of the files, and of itself
 *
 * The functions block: they run in the thread pool.
 */
#ifndef TQI_CLIENT_CHECKPOINT_FILES_H
#define TQI_CLIENT_CHECKPOINT_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tq/errors.h>

struct XXH3_state_s;

/* What the manifest says besides the list of files. */
typedef struct tqi_client_ckpt_about {
    uint64_t epoch; /* of the controller */
    bool partial;   /* one partition */
    bool data;      /* the blocks are in it */
    uint64_t parts;
    uint64_t samples;
} tqi_client_ckpt_about;

/* A file that is written or read sequentially. */
typedef struct tqi_client_ckpt_file {
    const char *name;
    int fd;        /* -1: none */
    uint64_t size; /* so far */
    uint64_t want; /* reading: the manifest says */
    char sum[33];  /* reading: as in the manifest */
    struct XXH3_state_s *hash;
} tqi_client_ckpt_file;

/* Zero-initialise. */
typedef struct tqi_client_ckpt_out {
    char *path; /* without a slash at its end */
    char *temp; /* NULL: none */
    int dir;    /* of temp, locked while it is being written */
    tqi_client_ckpt_file state;
    tqi_client_ckpt_file data;
} tqi_client_ckpt_out;

/* Makes the directory next to `path`, and its parents. TQ_EEXIST if `path` is a directory but not a checkpoint. */
int tqi_client_ckpt_out_open(tqi_client_ckpt_out *out, const char *path, bool data, tq_error *err);
int tqi_client_ckpt_write(tqi_client_ckpt_file *file, const void *bytes, size_t size, tq_error *err);
int tqi_client_ckpt_write_part(tqi_client_ckpt_file *file, const void *bytes, size_t size, tq_error *err);
/* Syncs everything to disk, then moves it into place. A former checkpoint stays intact until then. */
int tqi_client_ckpt_out_commit(tqi_client_ckpt_out *out, const tqi_client_ckpt_about *about, const char *metadata,
                               tq_error *err);
/* Removes what was not committed, and frees it. */
void tqi_client_ckpt_out_fini(tqi_client_ckpt_out *out);

/* Zero-initialise. */
typedef struct tqi_client_ckpt_in {
    tqi_client_ckpt_about about;
    tqi_client_ckpt_file data;
    char *metadata; /* the file */
    uint8_t *state; /* the file, checked */
    size_t state_size;
    size_t state_at; /* where the next part begins */
} tqi_client_ckpt_in;

/* Opens a checkpoint and checks all of it except the data: TQ_ECHECKPOINT says what is wrong. */
int tqi_client_ckpt_in_open(tqi_client_ckpt_in *in, const char *path, tq_error *err);
/* Reads the next part of the state; false after the last one. */
bool tqi_client_ckpt_next_part(tqi_client_ckpt_in *in, const uint8_t **bytes, size_t *size);
void tqi_client_ckpt_first_part(tqi_client_ckpt_in *in);
/* Reads the next bytes of a file: TQ_ECHECKPOINT if there are fewer. */
int tqi_client_ckpt_read(tqi_client_ckpt_file *file, void *bytes, size_t size, tq_error *err);
/* Called when the file was read completely: checks that it is what was written. */
int tqi_client_ckpt_check(const tqi_client_ckpt_file *file, const char *path, tq_error *err);
void tqi_client_ckpt_in_fini(tqi_client_ckpt_in *in);

#endif
