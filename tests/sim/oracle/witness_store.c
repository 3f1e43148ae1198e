/*
 * witness_store.c - owners and their blocks: grants, deaths and their notices, losses, moves.
 */
#include "oracle/ledger.h"

#include "oracle/guard.h"

#include <utlist.h>

#include "base/limits.h"
#include "table/records.h"

/* --- what is lost ---------------------------------------------------------------------- */

/* Counts and passes on what the table reports. */
typedef struct lost_report {
    ledger *l;
    tqi_table_lost_fn fn;
    void *arg;
    uint32_t n;
} lost_report;

static void lost_told(const char *partition_name, const uint32_t *indexes, size_t n, void *arg)
{
    lost_report *report = arg;
    const ledger_partition *partition = ledger_partition_find(report->l, partition_name);

    for (size_t i = 0; i < n; i++) {
        ledger_sample *sample = ledger_member(report->l, partition, indexes[i], 0);
        sim_check(sample != NULL && !sample->marked, "table",
                  "sample %u of partition '%s' is reported as lost, but is not there, or was reported before",
                  indexes[i], partition_name);
        sample->marked = true;
    }
    report->n += (uint32_t)n;
    if (report->fn != NULL) {
        report->fn(partition_name, indexes, n, report->arg);
    }
}

/* Cells in blocks with `move` are lost. */
static uint32_t lost_partition(ledger *l, ledger_partition *partition)
{
    const ledger_cell lost = {.state = LEDGER_LOST};
    uint32_t n = ledger_list(l, partition), hits = 0;
    witness_sample *samples = ledger_keep(n * sizeof(*samples));

    for (uint32_t i = 0; i < n; i++) {
        ledger_sample *sample = &l->samples[l->scratch[i]];
        bool hit = false;
        for (uint32_t f = 0; f < sample->n_cells; f++) {
            if (sample->cells[f].state == LEDGER_STORED && l->blocks[sample->cells[f].block].move != 0) {
                ledger_cell_set(l, sample, f, &lost);
                hit = true;
            }
        }
        if (hit) {
            samples[hits++] = ledger_named(l, sample);
        }
        sim_check(!sample->marked || hit, "table", "sample %u of partition '%s' is reported as lost, but has all it had",
                  ledger_index(l, l->scratch[i]), partition->name);
        sample->marked = false;
    }
    if (hits > 0) {
        witness_commit *commit = witness_add(l, WITNESS_LOST, &l->handled);
        commit->partition = partition->name;
        commit->samples = samples;
        commit->n = hits;
    }
    return hits;
}

/* All blocks with `move` are lost: their cells, then the rest of them. */
static void lost_apply(ledger *l, const lost_report *report)
{
    uint32_t hits = 0;

    for (uint32_t i = 0; i < l->n_partitions; i++) {
        if (l->partitions[i]->exists) {
            hits += lost_partition(l, l->partitions[i]);
        }
    }
    sim_check(report == NULL || report->n == hits || sim_may(SIM_OOM), "none lost",
              "%u samples lost cells, but %u were reported", hits, report != NULL ? report->n : 0);
}

static void lost_owner(ledger *l, ledger_owner *owner, const lost_report *report)
{
    uint32_t at = (uint32_t)(owner - l->owners);

    sim_trace("owner lost", at, owner->incarnation);
    owner->dropping = true;
    for (uint32_t i = 0; i < l->n_blocks; i++) {
        l->blocks[i].move = l->blocks[i].state == LEDGER_LIVE && l->blocks[i].owner == at;
    }
    lost_apply(l, report);
    for (uint32_t i = 0; i < l->n_blocks; i++) {
        if (l->blocks[i].state != LEDGER_FREE && l->blocks[i].owner == at) {
            ledger_block_free(l, i);
        }
    }
    owner->name = NULL;
}

/* --- owners ------------------------------------------------------------------------------ */

WITNESS_WRAP(int, tqi_table_owner_register, tqi_table *table, const char *name, uint64_t incarnation,
             tqi_table_owner **out, tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_owner_register(table, name, incarnation, out, err);

    if (l == NULL) {
        return rc;
    }
    ledger_owner *old = ledger_owner_named(l, name);
    if (rc == TQ_OK && (old == NULL || old->incarnation != incarnation)) {
        if (old != NULL) {
            lost_owner(l, old, NULL);
        }
        ledger_owner_add(l, *out, name, incarnation);
    } else if (rc == TQ_OK) {
        sim_check(old->record == *out, "table", "owner '%s' is registered a second time", name);
    }
    witness_leave(l);
    witness_checked(l, rc != TQ_OK);
    return rc;
}

WITNESS_WRAP(void, tqi_table_owner_lost, tqi_table *table, tqi_table_owner *owner, tqi_table_lost_fn lost, void *arg)
{
    ledger *l = witness_enter(table);
    lost_report report = {.l = l, .fn = lost, .arg = arg};

    __real_tqi_table_owner_lost(table, owner, l != NULL ? lost_told : lost, l != NULL ? &report : arg);
    if (l != NULL) {
        ledger_owner *found = ledger_owner_find(l, owner);
        sim_check(found != NULL, "table", "an owner was lost that is not known");
        lost_owner(l, found, &report);
        witness_leave(l);
        witness_checked(l, true);
    }
}

WITNESS_WRAP(void, tqi_table_owner_set_outlives, tqi_table_owner *owner)
{
    ledger *l = witness_enter(owner->table);

    __real_tqi_table_owner_set_outlives(owner);
    if (l != NULL) {
        ledger_owner_find(l, owner)->outlives = true;
        witness_leave(l);
    }
}

WITNESS_WRAP(int, tqi_table_blocks_lost, tqi_table *table, const uint64_t *ids, size_t n, tqi_table_lost_fn lost,
             void *arg, tq_error *err)
{
    ledger *l = witness_enter(table);
    lost_report report = {.l = l, .fn = lost, .arg = arg};
    int rc = __real_tqi_table_blocks_lost(table, ids, n, l != NULL ? lost_told : lost, l != NULL ? &report : arg, err);

    if (l == NULL) {
        return rc;
    }
    for (uint32_t i = 0; i < l->n_blocks; i++) {
        l->blocks[i].move = 0;
    }
    for (size_t i = 0; rc == TQ_OK && i < n; i++) {
        uint32_t found = ledger_block_find(l, ids[i]);
        if (found != 0) {
            l->blocks[found - 1].move = l->blocks[found - 1].state == LEDGER_LIVE;
        }
    }
    lost_apply(l, &report);
    witness_leave(l);
    witness_checked(l, true);
    return rc;
}

/* --- grants ---------------------------------------------------------------------------------- */

WITNESS_WRAP(int, tqi_table_grant, tqi_table *table, uint64_t session, tqi_table_owner *owner, uint32_t count,
             uint64_t *first, tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_grant(table, session, owner, count, first, err);

    if (l == NULL) {
        return rc;
    }
    if (rc == TQ_OK) {
        sim_trace("granted", *first, (uint64_t)count << 32 | session);
        l->last_granted = *first + count - 1;
    }
    for (uint32_t i = 0; rc == TQ_OK && i < count; i++) {
        sim_check(*first + i != 0 && ledger_block_find(l, *first + i) == 0, "table", "block %llu was granted twice",
                  (unsigned long long)*first + i);
        uint32_t place = ledger_block_new(l, *first + i);
        l->blocks[place].session = session;
        l->blocks[place].owner = (uint32_t)(ledger_owner_find(l, owner) - l->owners);
    }
    witness_leave(l);
    return rc;
}

WITNESS_WRAP(int, tqi_table_abandon, tqi_table *table, uint64_t session, const uint64_t *ids, size_t n,
             bool writer_done, tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_abandon(table, session, ids, n, writer_done, err);

    if (l == NULL) {
        return rc;
    }
    for (size_t i = 0; rc == TQ_OK && i < n; i++) {
        uint32_t found = ledger_block_find(l, ids[i]);
        sim_check(found != 0 && l->blocks[found - 1].state == LEDGER_GRANTED && l->blocks[found - 1].session == session,
                  "table", "session %llu abandoned block %llu, which it may not", (unsigned long long)session,
                  (unsigned long long)ids[i]);
        sim_trace("abandoned", ids[i], session);
        ledger_block_die(l, found - 1, writer_done);
    }
    witness_leave(l);
    witness_checked(l, rc != TQ_OK);
    return rc;
}

/* --- notices to owners ------------------------------------------------------------------------ */

WITNESS_WRAP(size_t, tqi_table_owner_dead, tqi_table_owner *owner, tqi_table_dead *out, size_t max, uint64_t *notice)
{
    ledger *l = witness_enter(owner->table);
    size_t n = __real_tqi_table_owner_dead(owner, out, max, notice);

    for (size_t i = 0; l != NULL && i < n; i++) {
        for (uint64_t id = out[i].first; id - out[i].first < out[i].count; id++) {
            uint32_t found = ledger_block_find(l, id);
            ledger_block *block = found != 0 ? &l->blocks[found - 1] : NULL;
            sim_check(block != NULL && block->state == LEDGER_DEAD && l->owners[block->owner].record == owner &&
                          block->writer_done == out[i].writer_done,
                      "table", "owner '%s' is told that block %llu is dead, which has state %d", owner->name,
                      (unsigned long long)id, block != NULL ? (int)block->state : -1);
            sim_check(l->n_freezes == 0 || block->died <= l->freezes[0].since, "table",
                      "owner '%s' is told that block %llu is dead, which an open checkpoint needs", owner->name,
                      (unsigned long long)id);
            if (!block->told) {
                sim_trace("told dead", id, *notice);
            }
            block->told = true;
        }
    }
    if (l != NULL) {
        witness_leave(l);
    }
    return n;
}

/* Late blocks that the table has put among the dead ones, because there were too many. */
static void dead_again(ledger *l)
{
    for (const tqi_table_owner *owner = l->table->owners; owner != NULL; owner = owner->hh.next) {
        for (const tqi_table_dead_node *node = owner->dead_head; node != NULL; node = node->next) {
            for (uint64_t id = node->first; id - node->first < node->count; id++) {
                uint32_t found = ledger_block_find(l, id);
                if (found != 0 && l->blocks[found - 1].state == LEDGER_LATE) {
                    ledger_block_die(l, found - 1, true);
                }
            }
        }
    }
}

static void dead_done(ledger *l, const tqi_table_owner *owner, uint64_t id, uint64_t due)
{
    uint32_t found = ledger_block_find(l, id);
    ledger_block *block = found != 0 ? &l->blocks[found - 1] : NULL;

    sim_check(block != NULL && block->state == LEDGER_DEAD && block->told, "table",
              "owner '%s' has freed block %llu, of which it was not told", owner->name, (unsigned long long)id);
    sim_trace("done with", id, due);
    if (due == 0 || block->writer_done) {
        ledger_block_free(l, found - 1);
        return;
    }
    block->state = LEDGER_LATE;
    block->due = due;
    l->owners[block->owner].dead--;
    l->owners[block->owner].late++;
}

WITNESS_WRAP(void, tqi_table_owner_done, tqi_table_owner *owner, uint64_t notice, uint64_t due)
{
    ledger *l = witness_enter(owner->table);
    const tqi_table_dead_node *node = owner->dead_head;
    uint64_t upto = notice < owner->delivered ? notice : owner->delivered;

    for (; l != NULL && node != NULL && node->notice <= upto; node = node->next) {
        for (uint64_t id = node->first; id - node->first < node->count; id++) {
            dead_done(l, owner, id, due);
        }
    }
    __real_tqi_table_owner_done(owner, notice, due);
    if (l != NULL) {
        if (l->table->n_late >= tqi_limits.late_ranges) {
            dead_again(l);
        }
        witness_leave(l);
        witness_checked(l, false);
    }
}

WITNESS_WRAP(void, tqi_table_owner_late_die, tqi_table_owner *owner, uint64_t now)
{
    ledger *l = witness_enter(owner->table);

    __real_tqi_table_owner_late_die(owner, now);
    if (l == NULL) {
        return;
    }
    const ledger_owner *found = ledger_owner_find(l, owner);
    for (uint32_t i = 0; found->late > 0 && i < l->n_blocks; i++) {
        ledger_block *block = &l->blocks[i];
        if (block->state == LEDGER_LATE && &l->owners[block->owner] == found && block->due <= now) {
            ledger_block_die(l, i, true);
        }
    }
    witness_leave(l);
    witness_checked(l, false);
}

/* What an owner drops because nobody knows it must not be a block that somebody writes, reads or will hear of. */
WITNESS_WRAP(size_t, tqi_table_owner_unknown, tqi_table_owner *owner, uint64_t *ids, size_t n)
{
    ledger *l = witness_look(owner->table);
    size_t left = __real_tqi_table_owner_unknown(owner, ids, n);

    for (size_t i = 0; l != NULL && i < left; i++) {
        uint32_t found = ledger_block_find(l, ids[i]);
        const ledger_block *block = found != 0 ? &l->blocks[found - 1] : NULL;
        sim_check(block == NULL || block->state == LEDGER_LATE || l->owners[block->owner].record != owner, "table",
                  "owner '%s' is told that nobody knows block %llu, which has state %d", owner->name,
                  (unsigned long long)ids[i], block != NULL ? (int)block->state : -1);
    }
    return left;
}

WITNESS_WRAP(int, tqi_table_freeze_open, tqi_table *table, tqi_table_freeze **out, tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_freeze_open(table, out, err);

    if (l != NULL) {
        if (rc == TQ_OK) {
            LEDGER_GROW(l->freezes, l->freezes_capacity, l->n_freezes + 1);
            l->freezes[l->n_freezes++] = (ledger_freeze){*out, l->operation};
        }
        witness_leave(l);
    }
    return rc;
}

WITNESS_WRAP(void, tqi_table_freeze_close, tqi_table *table, tqi_table_freeze *freeze)
{
    ledger *l = witness_enter(table);

    __real_tqi_table_freeze_close(table, freeze);
    if (l != NULL) {
        for (uint32_t i = 0, kept = 0, n = l->n_freezes; i < n; i++) {
            if (l->freezes[i].record == freeze) {
                l->n_freezes--;
            } else {
                l->freezes[kept++] = l->freezes[i];
            }
        }
        witness_leave(l);
    }
}

/* --- moves -------------------------------------------------------------------------------------- */

/* Where the cell goes; false: it stays. */
static bool move_place(const tqi_table_move *move, const ledger_cell *cell, uint64_t *offset)
{
    for (size_t i = move->n; i-- > 0;) {
        const tqi_table_stretch *stretch = &move->stretches[i];
        if (stretch->begin <= cell->offset) {
            uint64_t into = cell->offset - stretch->begin;
            *offset = into + stretch->place;
            return into <= stretch->bytes && ledger_cell_bytes(cell) <= stretch->bytes - into;
        }
    }
    return false;
}

static guard_cell move_cell(const ledger *l, const ledger_cell *cell)
{
    const ledger_block *block = &l->blocks[cell->block];
    const ledger_owner *owner = &l->owners[block->owner];

    return (guard_cell){owner->name, owner->incarnation, block->id, cell->offset, ledger_cell_bytes(cell)};
}

static void move_compare(const ledger *l, const ledger_cell *old, const ledger_cell *new)
{
    guard_cell from = move_cell(l, old), to = move_cell(l, new);

    guard_moved(&from, &to);
}

static void move_sample(ledger *l, ledger_sample *sample, const tqi_table_move *moves)
{
    for (uint32_t f = 0; f < sample->n_cells; f++) {
        ledger_cell cell = sample->cells[f];
        uint32_t move = cell.state == LEDGER_STORED ? l->blocks[cell.block].move : 0;
        if (move != 0 && move_place(&moves[move - 1], &sample->cells[f], &cell.offset)) {
            cell.block = l->block_places[move - 1];
            sim_check(cell.block != UINT32_MAX, "table", "a cell was moved from a block that is not there");
            move_compare(l, &sample->cells[f], &cell);
            ledger_cell_set(l, sample, f, &cell);
        }
    }
}

static void move_apply(ledger *l, uint64_t session, const tqi_table_move *moves, size_t n)
{
    LEDGER_GROW(l->block_places, l->block_places_capacity, n);
    for (uint32_t i = 0; i < l->n_blocks; i++) {
        l->blocks[i].move = 0;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t from = ledger_block_find(l, moves[i].from);
        int64_t to = ledger_block_granted(l, session, &moves[i].to);
        sim_check(to >= 0, "table", "block %llu was moved to %llu, but session %llu may not do that",
                  (unsigned long long)moves[i].from, (unsigned long long)moves[i].to.id, (unsigned long long)session);
        l->block_places[i] = (uint32_t)to;
        if (from != 0 && l->blocks[from - 1].state == LEDGER_LIVE) {
            l->blocks[from - 1].move = (uint32_t)i + 1;
            ledger_block_live(l, (uint32_t)to, &moves[i].to, l->blocks[from - 1].partition);
        } else {
            ledger_block_die(l, (uint32_t)to, true);
            l->block_places[i] = UINT32_MAX;
        }
    }
    for (uint32_t p = 0; p < l->n_partitions; p++) {
        uint32_t members = l->partitions[p]->exists ? ledger_list(l, l->partitions[p]) : 0;
        for (uint32_t i = 0; i < members; i++) {
            move_sample(l, &l->samples[l->scratch[i]], moves);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (l->block_places[i] != UINT32_MAX) {
            ledger_block_unref(l, l->block_places[i]);
        }
    }
    witness_add(l, WITNESS_MOVE, &l->handled);
}

WITNESS_WRAP(int, tqi_table_compact_move, tqi_table *table, uint64_t session, const tqi_table_move *moves, size_t n,
             tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_compact_move(table, session, moves, n, err);

    if (l != NULL) {
        if (rc == TQ_OK) {
            move_apply(l, session, moves, n);
        }
        witness_leave(l);
        witness_checked(l, true);
    }
    return rc;
}
