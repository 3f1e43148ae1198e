/*
 * witness_claim.c - claims: taking samples, settling and releasing claims, cached picks, resetting consumption, and
 * clearing samples.
 */
#include "oracle/ledger.h"

#include "table/records.h"

/* --- taking ------------------------------------------------------------------------- */

static bool take_ready(const ledger_partition *partition, const tqi_table_set *set, const ledger_sample *sample)
{
    for (uint32_t f = 0; f < set->n_fields; f++) {
        int64_t field = ledger_field_find(partition, set->fields[f]->name);
        if (field < 0 || !ledger_produced(ledger_cell_of(sample, (uint32_t)field))) {
            return false;
        }
    }
    return true;
}

/* A sample is handed out when it is ready and was not consumed; or again, to those who share a pick of the task. */
static uint32_t take_chosen(const ledger *l, const tqi_table_view *view, const ledger_partition *partition,
                            const ledger_task *task, const uint32_t *chosen, uint32_t n, witness_sample *out,
                            uint64_t *ordinals)
{
    uint32_t again = 0;

    for (uint32_t i = 0; i < n; i++) {
        const ledger_sample *sample = ledger_member(l, partition, chosen[i], 0);
        sim_check(sample != NULL, "table", "a claim took sample %u, which is not in partition '%s'", chosen[i],
                  partition->name);
        out[i] = ledger_named(l, sample);
        ordinals[i] = sample->ordinal - l->options.first_ordinal;
        bool consumed = ledger_consumed(task, ledger_place(l, sample));
        bool picked = ledger_is_picked(task, out[i]);
        sim_check(picked || take_ready(partition, view->key.set, sample), "no sample twice",
                  "task '%s' of partition '%s' took sample %u, which is %s", task->name, partition->name, chosen[i],
                  consumed ? "consumed" : "not ready");
        again += consumed;
    }
    return again;
}

static void take_consumed(ledger *l, const tqi_table_view *view, const ledger_partition *partition, ledger_task *task,
                          const uint32_t *consumed, uint32_t n, witness_sample *out)
{
    for (uint32_t i = 0; i < n; i++) {
        const ledger_sample *sample = ledger_member(l, partition, consumed[i], 0);
        sim_check(sample != NULL && !ledger_consumed(task, ledger_place(l, sample)), "no sample twice",
                  "task '%s' of partition '%s' consumed sample %u a second time", task->name, partition->name,
                  consumed[i]);
        sim_check(take_ready(partition, view->key.set, sample), "table",
                  "task '%s' of partition '%s' consumed sample %u, which is not ready", task->name, partition->name,
                  consumed[i]);
        ledger_consume(task, ledger_place(l, sample), true);
        out[i] = ledger_named(l, sample);
    }
}

static void take_claim(ledger *l, ledger_partition *partition, const ledger_task *task, uint64_t session, uint64_t id,
                       const witness_sample *consumed, uint32_t n)
{
    sim_check((id != 0) == (n > 0) && (id == 0 || id == l->next_claim), "table",
              "a claim of %u samples has the number %llu, the next one is %llu", n, (unsigned long long)id,
              (unsigned long long)l->next_claim);
    if (id == 0) {
        return;
    }
    uint32_t place = 0;
    while (place < l->n_claims && l->claims[place].id != 0) {
        place++;
    }
    LEDGER_GROW(l->claims, l->claims_capacity, place + 1);
    l->n_claims = place == l->n_claims ? place + 1 : l->n_claims;
    l->claims[place] = (ledger_claim){
        .id = id,
        .session = session,
        .request = l->asked.number,
        .partition = partition,
        .task = task->name,
        .n = n,
        .samples = sim_alloc(n * sizeof(*consumed)),
    };
    memcpy(l->claims[place].samples, consumed, n * sizeof(*consumed));
    ledger_map_set(&l->claim_map, id, place + 1);
    l->next_claim = l->next_claim == UINT64_MAX ? 1 : l->next_claim + 1;
}

static void take_check(const ledger *l, const tqi_table_view *view, const ledger_partition *partition,
                       const uint32_t *chosen, uint32_t n, bool with_tags, const tqi_table_batch *reply)
{
    const ledger_said said = {.what = "claim", .keys = with_tags, .tags = with_tags, .cells = true};

    sim_check(reply->n == n && reply->n_fields == view->key.set->n_fields, "table",
              "a claim of %u samples and %u fields gave %zu and %zu", n, view->key.set->n_fields, reply->n,
              reply->n_fields);
    for (uint32_t i = 0; i < n; i++) {
        sim_check(reply->indexes[i] == chosen[i], "table", "a claim of sample %u gave %u", chosen[i], reply->indexes[i]);
    }
    for (uint32_t f = 0; f < view->key.set->n_fields; f++) {
        sim_check(strcmp(reply->fields[f].name, view->key.set->fields[f]->name) == 0, "table",
                  "a claim of field '%s' gave '%s'", view->key.set->fields[f]->name, reply->fields[f].name);
    }
    ledger_check_batch(l, partition, reply, &said);
}

WITNESS_WRAP(int, tqi_table_view_take, tqi_table_view *view, const uint32_t *chosen, uint32_t n_chosen,
             const uint32_t *consumed, uint32_t n_consumed, uint64_t session, bool with_tags, tqi_table_result *result,
             tq_error *err)
{
    const tqi_table_set *set = view->key.set;
    ledger *l = witness_enter(set->partition->table);
    int rc = __real_tqi_table_view_take(view, chosen, n_chosen, consumed, n_consumed, session, with_tags, result, err);

    if (l == NULL) {
        return rc;
    }
    if (rc == TQ_OK) {
        ledger_partition *partition = ledger_partition_get(l, set->partition->name);
        ledger_task *task = ledger_task_get(partition, view->key.task->name);
        witness_sample *given = ledger_keep(n_chosen * sizeof(*given));
        witness_sample *eaten = ledger_keep(n_consumed * sizeof(*eaten));
        uint64_t *ordinals = ledger_keep(n_chosen * sizeof(*ordinals));
        const char **fields = ledger_keep(set->n_fields * sizeof(*fields));
        uint32_t again = take_chosen(l, view, partition, task, chosen, n_chosen, given, ordinals);
        take_consumed(l, view, partition, task, consumed, n_consumed, eaten);
        take_claim(l, partition, task, session, result->claim, eaten, n_consumed);
        take_check(l, view, partition, chosen, n_chosen, with_tags, &result->batch);
        for (uint32_t f = 0; f < set->n_fields; f++) {
            fields[f] = ledger_name(set->fields[f]->name);
        }
        witness_commit *commit = witness_add(l, WITNESS_TAKE, &l->asked);
        commit->partition = partition->name;
        commit->task = task->name;
        commit->claim = result->claim;
        commit->samples = given;
        commit->n = n_chosen;
        commit->consumed = eaten;
        commit->n_consumed = n_consumed;
        commit->ordinals = ordinals;
        commit->again = again;
        commit->fields = fields;
        commit->n_fields = set->n_fields;
    }
    witness_leave(l);
    witness_checked(l, rc != TQ_OK);
    return rc;
}

WITNESS_WRAP(int, tqi_table_view_cache_set, tqi_table_view *view, const char *slot, const uint32_t *indexes, uint32_t n,
             tq_error *err)
{
    ledger *l = witness_enter(view->key.set->partition->table);
    int rc = __real_tqi_table_view_cache_set(view, slot, indexes, n, err);

    if (l == NULL) {
        return rc;
    }
    if (rc == TQ_OK) {
        ledger_partition *partition = ledger_partition_get(l, view->key.set->partition->name);
        witness_sample *samples = sim_alloc(n * sizeof(*samples) + 1);
        for (uint32_t i = 0; i < n; i++) {
            const ledger_sample *sample = ledger_member(l, partition, indexes[i], 0);
            sim_check(sample != NULL, "table", "a pick has sample %u, which is not in partition '%s'", indexes[i],
                      partition->name);
            samples[i] = ledger_named(l, sample);
        }
        ledger_pick_set(ledger_task_get(partition, view->key.task->name), slot, samples, n);
        sim_free(samples);
    }
    witness_leave(l);
    return rc;
}

/* --- the end of claims ------------------------------------------------------------------ */

static void claim_drop(ledger *l, ledger_claim *claim)
{
    ledger_map_drop(&l->claim_map, claim->id);
    sim_free(claim->samples);
    *claim = (ledger_claim){0};
}

/* A commit that ends a claim, of the request that is handled if that is of the same session. */
static witness_commit *claim_commit(ledger *l, witness_kind kind, const ledger_claim *claim)
{
    ledger_request request = {.session = claim->session};

    if (l->handled.session == claim->session) {
        request = l->handled;
    }
    witness_commit *commit = witness_add(l, kind, &request);
    commit->partition = claim->partition->name;
    commit->task = claim->task;
    commit->claim = claim->id;
    sim_trace(kind == WITNESS_SETTLE ? "claim settled" : "claim given back", claim->id, claim->session);
    return commit;
}

static void claim_release(ledger *l, ledger_claim *claim, bool at_end)
{
    ledger_task *task = ledger_task_find(claim->partition, claim->task);
    witness_sample *back = ledger_keep(claim->n * sizeof(*back));
    uint32_t n = 0;

    for (uint32_t i = 0; !claim->gone && i < claim->n; i++) {
        const ledger_sample *sample =
            ledger_member(l, claim->partition, claim->samples[i].index, claim->samples[i].incarnation);
        if (sample != NULL && !ledger_is_picked(task, claim->samples[i])) {
            ledger_consume(task, ledger_place(l, sample), false);
            back[n++] = claim->samples[i];
        }
    }
    witness_commit *commit = claim_commit(l, WITNESS_RELEASE, claim);
    commit->samples = back;
    commit->n = n;
    commit->at_end = at_end;
    claim_drop(l, claim);
}

WITNESS_WRAP(void, tqi_table_claim_settle, tqi_table *table, uint64_t id)
{
    ledger *l = witness_enter(table);

    __real_tqi_table_claim_settle(table, id);
    if (l != NULL) {
        uint32_t found = ledger_map_get(&l->claim_map, id);
        if (found != 0) {
            claim_commit(l, WITNESS_SETTLE, &l->claims[found - 1]);
            claim_drop(l, &l->claims[found - 1]);
        }
        witness_leave(l);
        witness_checked(l, false);
    }
}

WITNESS_WRAP(void, tqi_table_claim_release, tqi_table *table, uint64_t session, uint64_t id)
{
    ledger *l = witness_enter(table);

    __real_tqi_table_claim_release(table, session, id);
    if (l != NULL) {
        uint32_t found = ledger_map_get(&l->claim_map, id);
        if (found != 0 && l->claims[found - 1].session == session) {
            claim_release(l, &l->claims[found - 1], false);
        }
        witness_leave(l);
        witness_checked(l, false);
    }
}

WITNESS_WRAP(void, tqi_table_session_end, tqi_table *table, uint64_t session, bool dead)
{
    ledger *l = witness_enter(table);
    const ledger_request request = {.session = session};

    __real_tqi_table_session_end(table, session, dead);
    if (l == NULL) {
        return;
    }
    for (uint32_t i = 0; i < l->n_claims; i++) {
        if (l->claims[i].id != 0 && l->claims[i].session == session) {
            claim_release(l, &l->claims[i], true);
        }
    }
    for (uint32_t i = 0; i < l->n_blocks; i++) {
        if (l->blocks[i].state == LEDGER_GRANTED && l->blocks[i].session == session) {
            ledger_block_die(l, i, dead && !l->owners[l->blocks[i].owner].outlives);
        }
    }
    sim_trace("session ends", session, dead);
    witness_add(l, WITNESS_SESSION_END, &request);
    witness_leave(l);
    witness_checked(l, false);
}

WITNESS_WRAP(int, tqi_table_reset_consumption, tqi_table *table, const char *partition_name, const char *task_name,
             tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_reset_consumption(table, partition_name, task_name, err);

    if (l == NULL) {
        return rc;
    }
    if (rc == TQ_OK) {
        ledger_partition *partition = ledger_partition_find(l, partition_name);
        const char *task = ledger_name(task_name);
        for (uint32_t t = 0; partition != NULL && t < partition->n_tasks; t++) {
            if (task == NULL || partition->tasks[t].name == task) {
                ledger_task_reset(l, partition, &partition->tasks[t]);
            }
        }
        witness_commit *commit = witness_add(l, WITNESS_RESET, &l->handled);
        commit->partition = ledger_name(partition_name);
        commit->task = task != NULL ? task : "";
    }
    witness_leave(l);
    witness_checked(l, rc != TQ_OK);
    return rc;
}
