/*
 * witness_read.c - what the table answers to those who read it, checked against the ledger.
 */
#include "oracle/ledger.h"

#include "table/records.h"

/* Which samples an answer must name, in that order. */
static void resolve_samples(ledger *l, const ledger_partition *partition, const tqi_table_resolve_args *ask,
                            const tqi_table_batch *reply)
{
    size_t at = 0;

    if (ask->keys == NULL && ask->indexes == NULL) {
        uint32_t n = ledger_list(l, partition);
        for (uint32_t i = 0; i < n && at < reply->n; i++) {
            at += reply->indexes[at] == ledger_index(l, l->scratch[i]);
        }
        sim_check(reply->n == n && at == n, "table", "partition '%s' has %u samples, but %zu are said", partition->name,
                  n, reply->n);
        return;
    }
    for (size_t i = 0; i < ask->n; i++) {
        const char *key = ask->keys != NULL ? ledger_name(ask->keys[i]) : NULL;
        const ledger_sample *sample =
            ask->keys == NULL
                ? ledger_member(l, partition, ask->indexes[i], ask->incarnations != NULL ? ask->incarnations[i] : 0)
            : key != NULL ? ledger_key_find(l, partition, key)
                          : NULL;
        if (sample == NULL) {
            sim_check(ask->keys != NULL ? ask->lenient : ask->skip_cleared, "table",
                      "a sample of partition '%s' is said to be there, which was cleared or never was", partition->name);
            continue;
        }
        sim_check(at < reply->n && reply->indexes[at] == ledger_named(l, sample).index, "table",
                  "partition '%s': sample %u is missing from an answer", partition->name, ledger_named(l, sample).index);
        at++;
    }
    sim_check(at == reply->n, "table", "partition '%s': an answer has %zu samples, not %zu", partition->name, reply->n,
              at);
}

static void resolve_fields(const ledger_partition *partition, const tqi_table_resolve_args *ask,
                           const tqi_table_batch *reply)
{
    size_t n = 0;

    for (uint32_t f = 0; ask->n_fields == 0 && f < partition->n_fields; f++) {
        n += partition->fields[f].produced + partition->fields[f].lost > 0;
    }
    for (size_t f = 0; f < ask->n_fields; f++) {
        bool known = ledger_field_find(partition, ask->fields[f]) >= 0;
        sim_check(known || ask->lenient, "table", "field '%s' of partition '%s' is said to be there", ask->fields[f],
                  partition->name);
        n += known;
    }
    sim_check(reply->n_fields == n, "table", "partition '%s': an answer has %zu fields, not %zu", partition->name,
              reply->n_fields, n);
}

WITNESS_WRAP(int, tqi_table_resolve, tqi_table *table, const tqi_table_resolve_args *ask, tqi_table_result *result,
             tq_error *err)
{
    ledger *l = witness_look(table);
    int rc = __real_tqi_table_resolve(table, ask, result, err);
    const ledger_partition *partition = l != NULL ? ledger_partition_find(l, ask->partition) : NULL;
    const ledger_said said = {.what = "resolve", .keys = true, .tags = ask->tags, .cells = true};

    if (l == NULL) {
        return rc;
    }
    sim_check(rc != TQ_EPARTITION || partition == NULL, "table", "partition '%s' is said to be unknown", ask->partition);
    if (rc == TQ_OK && partition != NULL) {
        resolve_samples(l, partition, ask, &result->batch);
        resolve_fields(partition, ask, &result->batch);
        ledger_check_batch(l, partition, &result->batch, &said);
    } else if (rc == TQ_OK) {
        sim_check(result->batch.n == 0 && ask->lenient, "table", "partition '%s' is said to have %zu samples",
                  ask->partition, result->batch.n);
    }
    return rc;
}

/* A snapshot must be what the table has at that moment. */
WITNESS_WRAP(int, tqi_table_snapshot_rows, tqi_table_partition *record, uint64_t *next, size_t max,
             tqi_table_snap_rows *out, tqi_table_result *result, tq_error *err)
{
    ledger *l = witness_look(record->table);
    int rc = __real_tqi_table_snapshot_rows(record, next, max, out, result, err);

    if (l == NULL || rc != TQ_OK || out->batch.n == 0) {
        return rc;
    }
    const ledger_partition *partition = ledger_partition_find(l, record->name);
    const ledger_said said = {
        .what = "snapshot",
        .first_ordinal = l->options.first_ordinal,
        .keys = true,
        .tags = true,
        .cells = true,
    };
    sim_check(partition != NULL, "table", "a snapshot has partition '%s', which is not there", record->name);
    ledger_check_batch(l, partition, &out->batch, &said);
    size_t t = 0;
    for (const tqi_table_task *task = record->tasks; task != NULL; task = task->hh.next, t++) {
        const ledger_task *known = ledger_task_find(partition, task->name);
        for (size_t i = 0; i < out->batch.n; i++) {
            uint32_t place = out->batch.indexes[i] - l->options.first_index;
            sim_check((out->consumed[t * out->batch.n + i] != 0) == ledger_consumed(known, place), "table",
                      "a snapshot is wrong about sample %u and task '%s'", out->batch.indexes[i], task->name);
        }
    }
    return rc;
}

WITNESS_WRAP(int, tqi_table_consumption, tqi_table *table, const char *partition_name, const char *task_name,
             bool *known, uint32_t **index, uint8_t **consumed, size_t *n, tq_error *err)
{
    ledger *l = witness_look(table);
    int rc = __real_tqi_table_consumption(table, partition_name, task_name, known, index, consumed, n, err);

    if (l == NULL || rc != TQ_OK) {
        return rc;
    }
    const ledger_partition *partition = ledger_partition_find(l, partition_name);
    sim_check((partition != NULL) == *known && *n == (partition != NULL ? partition->samples : 0), "table",
              "consumption of partition '%s' names %zu samples", partition_name, *n);
    const ledger_task *task = partition != NULL ? ledger_task_find(partition, task_name) : NULL;
    for (size_t i = 0; i < *n; i++) {
        const ledger_sample *sample = ledger_member(l, partition, (*index)[i], 0);
        sim_check(sample != NULL && ledger_consumed(task, ledger_place(l, sample)) == ((*consumed)[i] != 0), "table",
                  "consumption of partition '%s' is wrong about sample %u", partition_name, (*index)[i]);
    }
    return rc;
}

WITNESS_WRAP(int, tqi_table_production, tqi_table *table, const char *partition_name, const char *const *fields,
             size_t n_fields, bool *known, uint32_t **index, uint8_t **produced, size_t *n, tq_error *err)
{
    ledger *l = witness_look(table);
    int rc = __real_tqi_table_production(table, partition_name, fields, n_fields, known, index, produced, n, err);

    if (l == NULL || rc != TQ_OK) {
        return rc;
    }
    const ledger_partition *partition = ledger_partition_find(l, partition_name);
    sim_check((partition != NULL) == *known && *n == (partition != NULL ? partition->samples : 0), "table",
              "production of partition '%s' names %zu samples", partition_name, *n);
    for (size_t i = 0; i < *n * n_fields; i++) {
        const ledger_sample *sample = ledger_member(l, partition, (*index)[i / n_fields], 0);
        int64_t field = ledger_field_find(partition, fields[i % n_fields]);
        bool there = sample != NULL && field >= 0 && ledger_produced(ledger_cell_of(sample, (uint32_t)field));
        sim_check(sample != NULL && there == ((*produced)[i] != 0), "table",
                  "production of partition '%s' is wrong about sample %u", partition_name, (*index)[i / n_fields]);
    }
    return rc;
}
