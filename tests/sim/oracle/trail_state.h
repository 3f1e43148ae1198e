/*
 * trail_state.h - the tables of the trail, for trail.c and trail_commits.c.
 */
#ifndef TQ_SIM_TRAIL_STATE_H
#define TQ_SIM_TRAIL_STATE_H

#include "oracle/trail.h"

#define TRAIL_BUCKETS 4096

typedef struct trail_state {
    const witness_commit *commits;
    size_t n;               /* of commits */
    uint64_t epoch;         /* of the questions */
    uint64_t done;          /* commits that were read */
    const history_op **ops; /* of each commit, by number; NULL: none */
    uint64_t ops_size;
    uint64_t *firsts; /* of each op, by number: its first commit */
    uint64_t firsts_size;
    trail_partition *partitions; /* newest first */
    trail_sample *indexes[TRAIL_BUCKETS];
    trail_sample *keys[TRAIL_BUCKETS];
} trail_state;

extern trail_state trail;

/* Room for one more element in an array of history memory. */
void *trail_grow(void *old, uint32_t n, uint32_t *size, size_t each);
size_t trail_bucket(uint64_t a, uint64_t b);
size_t trail_key_bucket(const char *key);
trail_partition *trail_partition_get(uint64_t epoch, const char *name);
trail_sample *trail_find(const trail_partition *partition, uint32_t index, uint32_t incarnation, uint64_t c);
trail_sample *trail_find_key(const trail_partition *partition, const char *key, uint64_t c);

#endif
