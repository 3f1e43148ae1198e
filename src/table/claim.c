/*
 * claim.c - taking samples for a task, settling and releasing claims, and resetting consumption. A claim's record
 * lives from the take until its answer is acknowledged (settle) or its samples go back (release). A release gives back
 * only samples that still belong to the claim: not those cleared since (incarnation), not after a reset (generation),
 * and not those of a cached pick, which another caller may still be given.
 */
#include "table/claim.h"

#include <utlist.h>

#include "base/error.h"
#include "base/hash.h"
#include "table/block.h"
#include "table/result.h"
#include "table/sample.h"

static tqi_table_claim *claim_find(const tqi_table *table, uint64_t id)
{
    tqi_table_claim *claim;

    HASH_FIND(hh, table->claims, &id, sizeof(id), claim);
    return claim;
}

void tqi_t_claim_free(tqi_table *table, tqi_table_claim *claim)
{
    HASH_DEL(table->claims, claim);
    DL_DELETE2(claim->session->claims, claim, session_prev, session_next);
    if (claim->task != NULL) {
        DL_DELETE2(claim->task->claims, claim, task_prev, task_next);
    }
    free(claim);
}

/* Makes the record of those samples among `consumed` that the task has not consumed before; does not consume them yet. */
static int claim_make(tqi_table_view *view, const uint32_t *consumed, uint32_t n, uint64_t session_id,
                      tqi_table_claim **out, tq_error *err)
{
    tqi_table_task *task = view->key.task;
    tqi_table *table = task->partition->table;
    tqi_table_session *session;
    tqi_table_claim *claim;
    int rc = tqi_t_session_get(table, session_id, &session, err);

    if (rc != TQ_OK) {
        return rc;
    }
    claim = calloc(1, sizeof(*claim) + 2 * (size_t)n * sizeof(uint32_t));
    if (claim == NULL) {
        return tqi_error_nomem(err, "claim");
    }
    claim->incarnations = claim->indexes + n;
    for (uint32_t i = 0; i < n; i++) {
        const tqi_table_sample *sample = tqi_t_member(task->partition, consumed[i], 0);
        if (sample == NULL) {
            free(claim);
            return tqi_error_set(err, TQ_ECLEARED, "sample %u is not in partition '%s'", consumed[i],
                                 task->partition->name);
        }
        if (!roaring_bitmap_contains(task->consumed, consumed[i])) {
            claim->indexes[claim->n] = consumed[i];
            claim->incarnations[claim->n++] = sample->incarnation;
        }
    }
    claim->id = table->next_claim;
    claim->session = session;
    claim->task = task;
    claim->generation = task->generation;
    if (!TQI_HASH_ADD(table->claims, id, claim)) {
        free(claim);
        return tqi_error_nomem(err, "claim");
    }
    table->next_claim = table->next_claim == UINT64_MAX ? 1 : table->next_claim + 1;
    DL_APPEND2(session->claims, claim, session_prev, session_next);
    DL_APPEND2(task->claims, claim, task_prev, task_next);
    *out = claim;
    return TQ_OK;
}

static int claim_describe(tqi_table_view *view, const uint32_t *chosen, uint32_t n, bool with_tags,
                          tqi_table_result *result, tq_error *err)
{
    const tqi_table_set *set = view->key.set;
    tqi_table_row *rows = calloc(n > 0 ? n : 1, sizeof(*rows));
    int rc = TQ_OK;

    if (rows == NULL) {
        return tqi_error_nomem(err, "claim");
    }
    for (uint32_t i = 0; i < n; i++) {
        const tqi_table_sample *sample = tqi_t_member(set->partition, chosen[i], 0);
        if (sample == NULL) {
            rc = tqi_error_set(err, TQ_ECLEARED, "sample %u is not in partition '%s'", chosen[i], set->partition->name);
            goto done;
        }
        rows[i] = tqi_t_row_of(chosen[i], sample);
    }
    rc = tqi_t_describe_samples(set->partition, rows, n, with_tags, with_tags, result, err);
    if (rc == TQ_OK) {
        rc = tqi_t_describe_fields(set->partition, rows, n, set->fields, set->n_fields, result, err);
    }

done:
    free(rows);
    return rc;
}

int tqi_table_view_take(tqi_table_view *view, const uint32_t *chosen, uint32_t n_chosen, const uint32_t *consumed,
                        uint32_t n_consumed, uint64_t session, bool with_tags, tqi_table_result *result, tq_error *err)
{
    tqi_table_claim *claim = NULL;
    int rc = claim_describe(view, chosen, n_chosen, with_tags, result, err);

    if (rc == TQ_OK && n_consumed > 0) {
        rc = claim_make(view, consumed, n_consumed, session, &claim, err);
    }
    if (rc != TQ_OK) {
        tqi_table_result_fini(result);
        return rc;
    }
    for (uint32_t i = 0; claim != NULL && i < claim->n; i++) {
        tqi_t_task_consume(claim->task, claim->indexes[i]);
    }
    result->claim = claim != NULL ? claim->id : 0;
    return TQ_OK;
}

void tqi_table_claim_settle(tqi_table *table, uint64_t id)
{
    tqi_table_claim *claim = claim_find(table, id);

    if (claim != NULL) {
        tqi_t_claim_free(table, claim);
    }
}

/* Whether a cached pick of the task holds the sample. */
static bool claim_cached(const tqi_table_task *task, uint32_t index, uint32_t incarnation)
{
    const tqi_table_cached_pick *pick;

    for (pick = task->cached_picks; pick != NULL; pick = pick->hh.next) {
        for (uint32_t i = 0; i < pick->n; i++) {
            if (pick->indexes[i] == index && pick->incarnations[i] == incarnation) {
                return true;
            }
        }
    }
    return false;
}

void tqi_table_claim_release(tqi_table *table, uint64_t session, uint64_t id)
{
    tqi_table_claim *claim = claim_find(table, id);

    if (claim == NULL || claim->session->id != session) {
        return;
    }
    if (claim->task != NULL && claim->generation == claim->task->generation) {
        for (uint32_t i = 0; i < claim->n; i++) {
            uint32_t index = claim->indexes[i];
            uint32_t incarnation = claim->incarnations[i];
            if (tqi_t_member(claim->task->partition, index, incarnation) != NULL &&
                !claim_cached(claim->task, index, incarnation)) {
                tqi_t_task_free_sample(claim->task, index);
            }
        }
    }
    tqi_t_claim_free(table, claim);
}

/* --- cached picks --------------------------------------------------------- */

static tqi_table_cached_pick *cached_pick_find(const tqi_table_task *task, const char *name)
{
    tqi_table_cached_pick *pick;

    HASH_FIND(hh, task->cached_picks, name, strlen(name), pick);
    return pick;
}

const uint32_t *tqi_table_view_cache_get(const tqi_table_view *view, const char *name, uint32_t *n)
{
    const tqi_table_task *task = view->key.task;
    const tqi_table_cached_pick *pick = cached_pick_find(task, name);

    *n = 0;
    if (pick == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < pick->n; i++) {
        if (tqi_t_member(task->partition, pick->indexes[i], pick->incarnations[i]) == NULL) {
            return NULL;
        }
    }
    *n = pick->n;
    return pick->indexes;
}

int tqi_t_cached_pick_make(tqi_table_task *task, const char *name, uint32_t n, tqi_table_cached_pick **out,
                           tq_error *err)
{
    tqi_table_cached_pick *old = cached_pick_find(task, name);
    size_t size = strlen(name);
    size_t at = (size + 1 + 3) & ~(size_t)3; /* the numbers are aligned */
    tqi_table_cached_pick *pick =
        calloc(1, offsetof(tqi_table_cached_pick, name) + at + 4 + 2 * (size_t)n * sizeof(uint32_t));

    if (pick == NULL) {
        return tqi_error_nomem(err, "cached pick");
    }
    memcpy(pick->name, name, size);
    at = (offsetof(tqi_table_cached_pick, name) + at + 3) & ~(size_t)3;
    pick->indexes = (uint32_t *)(void *)((char *)pick + at);
    pick->incarnations = pick->indexes + n;
    pick->n = n;
    if (!TQI_HASH_ADD_KEYPTR(task->cached_picks, pick->name, size, pick)) {
        free(pick);
        return tqi_error_nomem(err, "cached pick");
    }
    if (old != NULL) {
        tqi_t_cached_pick_free(task, old);
    }
    *out = pick;
    return TQ_OK;
}

int tqi_table_view_cache_set(tqi_table_view *view, const char *name, const uint32_t *indexes, uint32_t n, tq_error *err)
{
    tqi_table_task *task = view->key.task;
    tqi_table_cached_pick *pick;
    int rc = tqi_check_size("cache slot", name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (n == 0) {
        pick = cached_pick_find(task, name);
        if (pick != NULL) {
            tqi_t_cached_pick_free(task, pick);
        }
        return TQ_OK;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (tqi_t_member(task->partition, indexes[i], 0) == NULL) {
            return tqi_error_set(err, TQ_ECLEARED, "sample %u is not in partition '%s'", indexes[i],
                                 task->partition->name);
        }
    }
    rc = tqi_t_cached_pick_make(task, name, n, &pick, err);
    for (uint32_t i = 0; rc == TQ_OK && i < n; i++) {
        pick->indexes[i] = indexes[i];
        pick->incarnations[i] = tqi_t_sample(task->partition->table, indexes[i])->incarnation;
    }
    return rc;
}

/* --- reset ---------------------------------------------------------------- */

int tqi_table_reset_consumption(tqi_table *table, const char *partition_name, const char *task_name, tq_error *err)
{
    tqi_table_partition *partition;
    tqi_table_task *task;
    int rc = tqi_check_name("partition", partition_name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    partition = tqi_table_find_partition(table, partition_name);
    if (partition == NULL) {
        return TQ_OK;
    }
    if (task_name == NULL || task_name[0] == '\0') {
        for (task = partition->tasks; task != NULL; task = task->hh.next) {
            tqi_t_task_reset(task);
        }
        return TQ_OK;
    }
    task = tqi_t_task_find(partition, task_name);
    if (task != NULL) {
        tqi_t_task_reset(task);
    }
    return TQ_OK;
}
