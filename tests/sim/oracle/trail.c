/*
 * trail.c - see trail.h.
 */
#include "oracle/trail_state.h"

#include <string.h>

trail_state trail;

/* --- small tables ----------------------------------------------------------------- */

void *trail_grow(void *old, uint32_t n, uint32_t *size, size_t each)
{
    void *now = old;

    if (n == *size) {
        *size = n == 0 ? 4 : n * 2;
        now = history_memory(*size * each);
        if (n > 0) {
            memcpy(now, old, n * each);
        }
    }
    return now;
}

size_t trail_bucket(uint64_t a, uint64_t b)
{
    const uint64_t hash = (a * UINT64_C(0x9e3779b97f4a7c15)) ^ (b * UINT64_C(0xc2b2ae3d27d4eb4f));

    return (hash >> 32) % TRAIL_BUCKETS;
}

size_t trail_key_bucket(const char *key)
{
    uint64_t hash = 0;

    for (; *key != '\0'; key++) {
        hash = hash * 131 + (uint8_t)*key;
    }
    return trail_bucket(hash, 0);
}

trail_partition *trail_partition_get(uint64_t epoch, const char *name)
{
    trail_partition *partition;

    for (partition = trail.partitions; partition != NULL; partition = partition->next) {
        if (partition->epoch == epoch && strcmp(partition->name, name) == 0) {
            return partition;
        }
    }
    partition = history_memory(sizeof(*partition));
    *partition = (trail_partition){.name = history_text(name), .epoch = epoch, .next = trail.partitions};
    trail.partitions = partition;
    return partition;
}

void trail_set_epoch(uint64_t epoch)
{
    trail.epoch = epoch;
}

uint64_t trail_epoch(void)
{
    return trail.epoch;
}

const trail_partition *trail_partition_of(const char *name)
{
    for (const trail_partition *partition = trail.partitions; partition != NULL; partition = partition->next) {
        if (partition->epoch == trail.epoch && strcmp(partition->name, name) == 0) {
            return partition;
        }
    }
    return NULL;
}

trail_sample *trail_find(const trail_partition *partition, uint32_t index, uint32_t incarnation, uint64_t c)
{
    trail_sample *sample = trail.indexes[trail_bucket(index, partition->epoch)];

    for (; sample != NULL; sample = sample->next_index) {
        if (sample->index == index && sample->partition == partition &&
            (incarnation != 0 ? sample->incarnation == incarnation : trail_alive(sample, c))) {
            return sample;
        }
    }
    return NULL;
}

const trail_sample *trail_sample_of(const char *partition, uint32_t index, uint32_t incarnation, uint64_t c)
{
    const trail_partition *in = trail_partition_of(partition);

    return in != NULL ? trail_find(in, index, incarnation, c) : NULL;
}

trail_sample *trail_find_key(const trail_partition *partition, const char *key, uint64_t c)
{
    trail_sample *sample = trail.keys[trail_key_bucket(key)];

    for (; sample != NULL; sample = sample->next_key) {
        if (sample->partition == partition && strcmp(sample->key, key) == 0 && trail_alive(sample, c)) {
            return sample;
        }
    }
    return NULL;
}

const trail_sample *trail_key_at(const char *partition, const char *key, uint64_t c)
{
    const trail_partition *in = trail_partition_of(partition);

    return in != NULL ? trail_find_key(in, key, c) : NULL;
}

/* --- questions ----------------------------------------------------------------------- */

const witness_commit *trail_commit_at(uint64_t number)
{
    return &trail.commits[number - 1];
}

uint64_t trail_count(void)
{
    return trail.done;
}

const witness_commit *trail_commit_of(const history_op *op)
{
    return op->number < trail.firsts_size && trail.firsts[op->number] != 0 ? trail_commit_at(trail.firsts[op->number])
                                                                           : NULL;
}

const history_op *trail_op_of(const witness_commit *commit)
{
    return trail.ops[commit->number];
}

void trail_match(const history_op *op, const witness_commit *commit)
{
    trail.ops[commit->number] = op;
    if (trail.firsts[op->number] == 0) {
        trail.firsts[op->number] = commit->number;
    }
}

const trail_cell *trail_cell_of(const trail_sample *sample, const char *field)
{
    for (uint32_t i = 0; i < sample->n_cells; i++) {
        if (strcmp(sample->cells[i].field, field) == 0) {
            return &sample->cells[i];
        }
    }
    return NULL;
}

const trail_write *trail_write_at(const trail_cell *cell, uint64_t c)
{
    const trail_write *last = NULL;

    for (uint32_t i = 0; cell != NULL && i < cell->n && cell->writes[i].commit <= c; i++) {
        last = &cell->writes[i];
    }
    return last;
}

bool trail_lost(const trail_sample *sample, const trail_write *write, uint64_t c)
{
    for (uint32_t i = 0; i < sample->n_losses; i++) {
        if (sample->losses[i] >= write->commit && sample->losses[i] <= c) { /* equal: it was restored as lost */
            return true;
        }
    }
    return false;
}

bool trail_used(const trail_sample *sample, const char *task, uint64_t c)
{
    for (uint32_t i = 0; i < sample->n_uses; i++) {
        const trail_use *use = &sample->uses[i];

        if (use->taken <= c && use->freed > c && strcmp(use->task, task) == 0) {
            return true;
        }
    }
    return false;
}
