/*
 * witness_publish.c - publishes and reservations: what they did is done in the ledger, from their batch alone.
 */
#include "oracle/ledger.h"

/* --- why it may be refused ------------------------------------------------------------ */

static bool refused_cleared(const ledger *l, const ledger_partition *partition, const tqi_table_batch *batch)
{
    for (size_t i = 0; batch->indexes != NULL && i < batch->n; i++) {
        if (ledger_member(l, partition, batch->indexes[i], batch->incarnations != NULL ? batch->incarnations[i] : 0) ==
            NULL) {
            return true;
        }
    }
    return false;
}

/* Whether a key is there (or is not), or is named twice. */
static bool refused_key(const ledger *l, const ledger_partition *partition, const tqi_table_batch *batch, bool there)
{
    for (size_t i = 0; batch->keys != NULL && i < batch->n; i++) {
        const char *key = ledger_name(batch->keys[i]);
        if (key == NULL) {
            continue;
        }
        if ((partition != NULL && ledger_key_find(l, partition, key) != NULL) == there) {
            return true;
        }
        for (size_t k = 0; there && k < i; k++) {
            if (ledger_name(batch->keys[k]) == key) {
                return true;
            }
        }
    }
    return false;
}

static bool refused_stale(const ledger *l, const tqi_table_batch *batch)
{
    for (size_t i = 0; i < batch->n_blocks; i++) {
        const uint64_t id = batch->blocks[i].id;
        const ledger_owner *owner = ledger_owner_named(l, batch->blocks[i].owner);
        if (owner == NULL || owner->incarnation != batch->blocks[i].owner_incarnation) {
            return true;
        }
        /* The same run of a unit that was taken for lost: what it had been granted is gone. */
        if (ledger_block_find(l, id) == 0 && (int64_t)(id - owner->before) <= 0) {
            return true;
        }
    }
    return false;
}

static void publish_refused(const ledger *l, const tqi_table_publish_args *publish, int rc)
{
    const tqi_table_batch *batch = publish->batch;
    const ledger_partition *partition = ledger_partition_find(l, batch->partition);
    bool legal = true;

    if (rc == TQ_ECLEARED) {
        legal = refused_cleared(l, partition, batch);
    } else if (rc == TQ_EEXIST || rc == TQ_EKEY) {
        legal = refused_key(l, partition, batch, rc == TQ_EEXIST);
    } else if (rc == TQ_ESTALE) {
        legal = refused_stale(l, batch);
    }
    sim_check(legal, "table", "a publish to partition '%s' was refused with %d, for which there is no reason",
              batch->partition, rc);
}

/* --- what it did ------------------------------------------------------------------------- */

static ledger_sample *publish_sample(ledger *l, const tqi_table_publish_args *publish, ledger_partition *partition,
                                     size_t i, uint32_t *made)
{
    const tqi_table_batch *batch = publish->batch;
    const char *key = batch->keys != NULL ? ledger_name(batch->keys[i]) : NULL;
    ledger_sample *sample = NULL;

    if (publish->naming == TQI_TABLE_BY_INDEX) {
        sample =
            ledger_member(l, partition, batch->indexes[i], batch->incarnations != NULL ? batch->incarnations[i] : 0);
        sim_check(sample != NULL, "table", "a publish wrote to sample %u of partition '%s', which is not there",
                  batch->indexes[i], partition->name);
        return sample;
    }
    sample = key != NULL ? ledger_key_find(l, partition, key) : NULL;
    sim_check(sample == NULL || publish->naming == TQI_TABLE_BY_KEY, "table", "a publish made key '%s' a second time",
              key);
    if (sample == NULL) {
        sim_check(publish->naming == TQI_TABLE_NEW || (publish->create && key != NULL), "table",
                  "a publish made key '%s', which it was not to make", key);
        sample = ledger_join(l, partition);
        sample->marked = true;
        if (key != NULL) {
            ledger_key_add(l, sample, key);
        }
        ++*made;
    }
    return sample;
}

static void publish_group(const ledger *l, ledger_sample *sample, const char *group)
{
    if (group == NULL || sample->group == group) {
        return;
    }
    sim_check(sample->marked && sample->group == NULL, "table", "sample %u got a second group '%s' beside '%s'",
              ledger_named(l, sample).index, group, sample->group);
    sample->group = group;
}

/* Samples, in l->scratch; returns how many are new. */
static uint32_t publish_samples(ledger *l, const tqi_table_publish_args *publish, ledger_partition *partition)
{
    const tqi_table_batch *batch = publish->batch;
    uint32_t made = 0;

    LEDGER_GROW(l->scratch, l->scratch_capacity, batch->n);
    for (size_t i = 0; i < batch->n; i++) {
        ledger_sample *sample = publish_sample(l, publish, partition, i, &made);
        l->scratch[i] = ledger_place(l, sample);
        publish_group(l, sample, batch->groups != NULL ? ledger_name(batch->groups[i]) : NULL);
    }
    for (size_t i = 0; i < batch->n; i++) {
        l->samples[l->scratch[i]].marked = false;
    }
    return made;
}

static void publish_tags(ledger *l, const tqi_table_batch *batch)
{
    for (size_t t = 0; t < batch->n_tags; t++) {
        const tqi_table_batch_tag *tag = &batch->tags[t];
        size_t at = 0;
        for (size_t i = 0; i < batch->n; i++) {
            if (tag->sizes[i] > 0) {
                ledger_tag_set(&l->samples[l->scratch[i]], tag->name, tag->values + at, tag->sizes[i]);
                at += tag->sizes[i];
            }
        }
    }
}

static void publish_blocks(ledger *l, const tqi_table_publish_args *publish, ledger_partition *partition)
{
    const tqi_table_batch *batch = publish->batch;

    LEDGER_GROW(l->block_places, l->block_places_capacity, batch->n_blocks);
    for (size_t b = 0; b < batch->n_blocks; b++) {
        int64_t place = ledger_block_granted(l, publish->session, &batch->blocks[b]);
        sim_check(place >= 0, "table", "block %llu of owner '%s' was published, but session %llu may not do that",
                  (unsigned long long)batch->blocks[b].id, batch->blocks[b].owner, (unsigned long long)publish->session);
        ledger_block_live(l, (uint32_t)place, &batch->blocks[b], partition);
        l->block_places[b] = (uint32_t)place;
    }
}

/* Returns whether any cell was written. */
static bool publish_field(ledger *l, const tqi_table_batch *batch, const tqi_table_batch_field *in,
                          ledger_partition *partition)
{
    ledger_walk walk = {.batch = batch, .field = in};
    uint32_t field = ledger_field_get(partition, in->name);
    bool any = false;

    for (size_t i = 0; i < batch->n; i++) {
        ledger_cell cell;
        ledger_walk_next(&walk, &cell);
        if (cell.state == LEDGER_NONE) {
            continue;
        }
        sim_check(ledger_produced(&cell), "table", "field '%s': a lost cell was published", in->name);
        if (cell.state == LEDGER_STORED) {
            uint64_t size = batch->blocks[cell.block].size, bytes = ledger_cell_bytes(&cell);
            sim_check(cell.offset <= size && bytes <= size - cell.offset, "table",
                      "field '%s': a cell was published that ends behind its block", in->name);
            cell.block = l->block_places[cell.block];
        }
        ledger_cell_set(l, &l->samples[l->scratch[i]], field, &cell);
        any = true;
    }
    sim_check(walk.left == 0 && walk.run == in->n_runs, "table",
              "field '%s' was published with other rows than samples", in->name);
    return any;
}

/* An unsigned integer of msgpack; 0: it is none. */
static uint64_t publish_integer(const uint8_t *value, uint32_t size)
{
    uint64_t number = 0;

    if (size == 1 && value[0] < 0x80) {
        return value[0];
    }
    if (size < 2 || value[0] < 0xcc || value[0] > 0xcf || size != 1u + (1u << (value[0] - 0xcc))) {
        return 0;
    }
    for (uint32_t i = 1; i < size; i++) {
        number = number << 8 | value[i];
    }
    return number;
}

static uint64_t publish_op(const tqi_table_batch *batch)
{
    for (size_t t = 0; t < batch->n_tags && batch->n > 0; t++) {
        if (strcmp(batch->tags[t].name, "op") == 0) {
            return publish_integer(batch->tags[t].values, batch->tags[t].sizes[0]);
        }
    }
    return 0;
}

static void publish_record(ledger *l, const tqi_table_publish_args *publish, const ledger_partition *partition,
                           uint32_t made, const char **fields, uint32_t n_fields)
{
    const tqi_table_batch *batch = publish->batch;
    bool reserve = batch->n_fields == 0 && batch->n_tags == 0 && batch->n_blocks == 0;
    witness_commit *commit = witness_add(l, reserve ? WITNESS_RESERVE : WITNESS_PUBLISH, &l->handled);
    witness_sample *samples = ledger_keep(batch->n * sizeof(*samples));
    const char **keys = NULL;

    for (size_t i = 0; i < batch->n; i++) {
        const ledger_sample *sample = &l->samples[l->scratch[i]];
        samples[i] = ledger_named(l, sample);
        if (sample->key != NULL) {
            keys = keys != NULL ? keys : ledger_keep(batch->n * sizeof(*keys));
            keys[i] = sample->key;
        }
    }
    commit->partition = partition->name;
    commit->samples = samples;
    commit->n = (uint32_t)batch->n;
    commit->made = made;
    commit->keys = keys;
    commit->fields = fields;
    commit->n_fields = n_fields;
    commit->op = publish_op(batch);
}

static void publish_apply(ledger *l, const tqi_table_publish_args *publish, const tqi_table_batch *reply)
{
    const tqi_table_batch *batch = publish->batch;
    ledger_partition *partition = ledger_partition_get(l, batch->partition);
    const char **fields = ledger_keep(batch->n_fields * sizeof(*fields));
    const ledger_said said = {.what = "publish", .keys = true, .tags = true};
    uint32_t n_fields = 0;

    if (batch->n == 0 && batch->n_blocks == 0) {
        return;
    }
    ledger_born(l, partition);
    uint32_t made = publish_samples(l, publish, partition);
    publish_tags(l, batch);
    publish_blocks(l, publish, partition);
    for (size_t f = 0; f < batch->n_fields; f++) {
        if (publish_field(l, batch, &batch->fields[f], partition)) {
            fields[n_fields++] = ledger_name(batch->fields[f].name);
        }
    }
    for (size_t b = 0; b < batch->n_blocks; b++) {
        ledger_block_unref(l, l->block_places[b]);
    }
    publish_record(l, publish, partition, made, fields, n_fields);
    sim_check(reply->n == batch->n, "table", "a publish of %zu samples gave %zu", batch->n, reply->n);
    ledger_check_batch(l, partition, reply, &said);
    for (size_t i = 0; i < batch->n; i++) {
        sim_check(reply->indexes[i] == ledger_index(l, l->scratch[i]), "table",
                  "a publish to partition '%s' gave sample %u, not %u", partition->name, reply->indexes[i],
                  ledger_index(l, l->scratch[i]));
    }
}

WITNESS_WRAP(int, tqi_table_publish, tqi_table *table, const tqi_table_publish_args *publish, tqi_table_result *result,
             tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_publish(table, publish, result, err);

    if (l != NULL) {
        if (rc == TQ_OK) {
            publish_apply(l, publish, &result->batch);
        } else {
            publish_refused(l, publish, rc);
        }
        witness_leave(l);
        witness_checked(l, rc != TQ_OK);
    }
    return rc;
}
