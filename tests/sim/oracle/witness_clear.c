/*
 * witness_clear.c - clears, in one phase and in two.
 */
#include "oracle/ledger.h"

#include "table/records.h"

static void clear_record(ledger *l, witness_kind kind, const char *partition, bool whole)
{
    witness_commit *commit = witness_add(l, kind, &l->handled);

    commit->partition = ledger_name(partition);
    commit->whole = whole;
    witness_gone(l, commit);
}

static void clear_indexes(ledger *l, const char *partition_name, const uint32_t *indexes, const uint32_t *incarnations,
                          size_t n)
{
    const ledger_partition *partition = ledger_partition_find(l, partition_name);

    for (size_t i = 0; partition != NULL && i < n; i++) {
        ledger_sample *sample = ledger_member(l, partition, indexes[i], incarnations != NULL ? incarnations[i] : 0);
        if (sample != NULL) {
            ledger_clear_sample(l, sample);
        }
    }
}

static void clear_all(ledger *l, const char *partition_name)
{
    ledger_partition *partition = ledger_partition_find(l, partition_name);

    if (partition != NULL) {
        ledger_clear_partition(l, partition);
    }
}

static void clear_done(ledger *l, const char *partition, uint32_t cleared, bool whole)
{
    sim_check(cleared == l->n_gone, "table", "a clear of partition '%s' cleared %u samples, not %u", partition, cleared,
              l->n_gone);
    clear_record(l, WITNESS_CLEAR, partition, whole);
}

WITNESS_WRAP(int, tqi_table_clear_indexes, tqi_table *table, const char *partition, const uint32_t *indexes,
             const uint32_t *incarnations, size_t n, uint32_t *cleared, tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_clear_indexes(table, partition, indexes, incarnations, n, cleared, err);

    if (l != NULL) {
        if (rc == TQ_OK) {
            clear_indexes(l, partition, indexes, incarnations, n);
            clear_done(l, partition, *cleared, false);
        }
        witness_leave(l);
        witness_checked(l, rc != TQ_OK);
    }
    return rc;
}

WITNESS_WRAP(int, tqi_table_clear_keys, tqi_table *table, const char *partition_name, const char *const *keys, size_t n,
             uint32_t *cleared, tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_clear_keys(table, partition_name, keys, n, cleared, err);

    if (l == NULL) {
        return rc;
    }
    if (rc == TQ_OK) {
        const ledger_partition *partition = ledger_partition_find(l, partition_name);
        for (size_t i = 0; partition != NULL && i < n; i++) {
            const char *key = ledger_name(keys[i]);
            ledger_sample *sample = key != NULL ? ledger_key_find(l, partition, key) : NULL;
            if (sample != NULL) {
                ledger_clear_sample(l, sample);
            }
        }
        clear_done(l, partition_name, *cleared, false);
    }
    witness_leave(l);
    witness_checked(l, rc != TQ_OK);
    return rc;
}

WITNESS_WRAP(int, tqi_table_clear_partition, tqi_table *table, const char *partition, uint32_t *cleared, tq_error *err)
{
    ledger *l = witness_enter(table);
    const char *name = l != NULL ? ledger_name(partition) : NULL; /* the text may end with the partition */
    int rc = __real_tqi_table_clear_partition(table, partition, cleared, err);

    if (l != NULL) {
        if (rc == TQ_OK) {
            clear_all(l, name);
            clear_done(l, name, *cleared, true);
        }
        witness_leave(l);
        witness_checked(l, rc != TQ_OK);
    }
    return rc;
}

WITNESS_WRAP(int, tqi_table_clearing_begin, tqi_table *table, const tqi_table_clear *clear, tqi_table_clearing **out,
             tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_clearing_begin(table, clear, out, err);

    if (l == NULL) {
        return rc;
    }
    if (rc == TQ_OK) {
        LEDGER_GROW(l->clearings, l->clearings_capacity, l->n_clearings + 1);
        l->clearing = &l->clearings[l->n_clearings++];
        *l->clearing = (ledger_clearing){.record = *out};
        if (clear->all) {
            clear_all(l, clear->partition);
        } else {
            clear_indexes(l, clear->partition, clear->indexes, clear->incarnations, clear->n);
        }
        sim_check(l->clearing->n == (*out)->n, "table", "a clear of partition '%s' holds %u indexes, not %u",
                  clear->partition, (*out)->n, l->clearing->n);
        l->clearing = NULL;
        clear_record(l, WITNESS_CLEAR_BEGIN, clear->partition, clear->all);
    }
    witness_leave(l);
    witness_checked(l, rc != TQ_OK);
    return rc;
}

WITNESS_WRAP(void, tqi_table_clearing_end, tqi_table *table, tqi_table_clearing *clearing)
{
    ledger *l = witness_enter(table);
    uint32_t k = 0;

    __real_tqi_table_clearing_end(table, clearing);
    if (l == NULL) {
        return;
    }
    while (k < l->n_clearings && l->clearings[k].record != clearing) {
        k++;
    }
    sim_check(k < l->n_clearings, "table", "a clear ended that had not begun");
    for (uint32_t i = 0; i < l->clearings[k].n; i++) {
        l->samples[l->clearings[k].places[i]].held = false;
        ledger_place_free(l, l->clearings[k].places[i]);
    }
    sim_free(l->clearings[k].places);
    l->clearings[k] = l->clearings[--l->n_clearings];
    witness_add(l, WITNESS_CLEAR_END, &l->handled);
    witness_leave(l);
    witness_checked(l, false);
}
