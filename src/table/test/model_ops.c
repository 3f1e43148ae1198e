/*
 * model_ops.c - random operations other than publishing, on the table and on its model.
 */
#include "table/test/model_run.h"
#include "table/test/testkit_snapshot.h"

static void op_clear(run *r)
{
    int partition = (int)rnd(r, M_PARTITIONS);
    uint32_t indexes[6], incarnations[6];
    const char *keys[3];
    uint32_t cleared;
    uint32_t want = 0;

    switch (rnd(r, 8)) {
    case 0:
        for (uint32_t i = 0; i < r->m.n_places; i++) {
            want += r->m.samples[i].partition == partition;
        }
        assert_int_equal(tqi_table_clear_partition(r->table, model_partitions[partition], &cleared, &r->err), TQ_OK);
        model_clear_partition(&r->m, partition);
        break;
    case 1:
    case 2:
        for (int i = 0; i < 3; i++) {
            int key = (int)rnd(r, M_KEYS);
            int place = model_find_key(&r->m, partition, key);
            keys[i] = model_keys[key];
            if (place >= 0) {
                model_clear(&r->m, (uint32_t)place);
                want++;
            }
        }
        assert_int_equal(tqi_table_clear_keys(r->table, model_partitions[partition], keys, 3, &cleared, &r->err), TQ_OK);
        break;
    default:
        for (int i = 0; i < 6; i++) {
            uint32_t place = rnd(r, M_PLACES);
            const model_sample *sample = &r->m.samples[place];
            indexes[i] = model_index(&r->m, place);
            incarnations[i] = rnd(r, 4) ? sample->incarnation : rnd(r, 3);
            if (sample->partition == partition && (incarnations[i] == 0 || incarnations[i] == sample->incarnation)) {
                model_clear(&r->m, place);
                want++;
            }
        }
        assert_int_equal(
            tqi_table_clear_indexes(r->table, model_partitions[partition], indexes, incarnations, 6, &cleared, &r->err),
            TQ_OK);
    }
    assert_int_equal(cleared, want);
}

/* Begins or ends a two-phase clear. */
static void op_clearing(run *r)
{
    int clear = (int)rnd(r, M_CLEARS);
    int partition = (int)rnd(r, M_PARTITIONS);
    uint32_t indexes[6], incarnations[6];
    tqi_table_clear ask = {
        .partition = model_partitions[partition],
        .indexes = indexes,
        .incarnations = incarnations,
        .n = 6,
        .all = rnd(r, 8) == 0,
    };

    if (r->clearings[clear] != NULL) {
        tqi_table_clearing_end(r->table, r->clearings[clear]);
        r->clearings[clear] = NULL;
        model_release_held(&r->m, clear);
        return;
    }
    r->m.holding = clear;
    for (int i = 0; i < 6; i++) {
        uint32_t place = rnd(r, M_PLACES);
        const model_sample *sample = &r->m.samples[place];
        indexes[i] = model_index(&r->m, place);
        incarnations[i] = rnd(r, 4) ? sample->incarnation : rnd(r, 3);
        if (!ask.all && sample->partition == partition &&
            (incarnations[i] == 0 || incarnations[i] == sample->incarnation)) {
            model_clear(&r->m, place);
        }
    }
    if (ask.all) {
        model_clear_partition(&r->m, partition);
    }
    r->m.holding = -1;
    assert_int_equal(tqi_table_clearing_begin(r->table, &ask, &r->clearings[clear], &r->err), TQ_OK);
    assert_int_equal(tqi_table_clearing_samples(r->clearings[clear]), r->m.n_held[clear]);
}

static void op_view(run *r)
{
    held_view *held = &r->views[rnd(r, MODEL_VIEWS)];
    const char *fields[M_FIELDS + 1];
    size_t n = 0;

    if (held->view != NULL) {
        tqi_table_view_unref(held->view);
    }
    memset(held, 0, sizeof(*held));
    if (rnd(r, 4) == 0) {
        return;
    }
    held->partition = (int)rnd(r, M_PARTITIONS);
    held->task = (int)rnd(r, M_TASKS);
    held->fields = 1 + rnd(r, (1u << M_FIELDS) - 1);
    for (int f = M_FIELDS - 1; f >= 0; f--) {
        if ((held->fields >> f & 1) != 0) {
            fields[n++] = model_fields[f];
        }
    }
    fields[n++] = fields[0];
    assert_int_equal(tqi_table_view_get(r->table, model_partitions[held->partition], fields, n, model_tasks[held->task],
                                        &held->view, &r->err),
                     TQ_OK);
    tqi_table_view_set_user(held->view, held);
    for (uint32_t i = 0; i < M_PLACES; i++) {
        held->was[i] = model_avail(r, held, i);
    }
}

static void op_claim(run *r)
{
    held_view *held = &r->views[rnd(r, MODEL_VIEWS)];
    model_claim *claim = &r->m.claims[rnd(r, M_CLAIMS)];
    uint32_t chosen[M_ROWS];
    const uint32_t *list;
    tqi_table_result result = {0};
    uint32_t n;

    if (claim->id != 0 || held->view == NULL || tqi_table_view_ready(held->view) == 0) {
        return;
    }
    n = tqi_table_view_list_first(held->view, 1 + rnd(r, M_ROWS), &list, &r->err);
    memcpy(chosen, list, n * sizeof(*chosen));
    *claim = (model_claim){.session = (int)rnd(r, M_SESSIONS), .partition = held->partition, .task = held->task, .n = n};
    claim->generation = r->m.partitions[held->partition].generation[held->task];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t place = model_place(&r->m, chosen[i]);
        model_sample *sample = &r->m.samples[place];
        assert_int_equal(sample->partition, held->partition);
        assert_true(model_ready(&r->m, place, held->fields));
        assert_false(sample->consumed[held->task]);
        sample->consumed[held->task] = true;
        claim->places[i] = place;
        claim->incarnations[i] = sample->incarnation;
    }
    assert_int_equal(tqi_table_view_take(held->view, chosen, n, chosen, n, (uint64_t)claim->session, rnd(r, 2) != 0,
                                         &result, &r->err),
                     TQ_OK);
    assert_int_equal(result.batch.n, n);
    claim->id = result.claim;
    assert_true(claim->id != 0);
    tqi_table_result_fini(&result);
}

static void op_claim_end(run *r)
{
    model_claim *claim = &r->m.claims[rnd(r, M_CLAIMS)];

    if (claim->id == 0) {
        return;
    }
    if (rnd(r, 2)) {
        tqi_table_claim_settle(r->table, claim->id);
        claim->id = 0;
    } else {
        /* Another session must not affect it. */
        tqi_table_claim_release(r->table, (uint64_t)claim->session + M_SESSIONS, claim->id);
        tqi_table_claim_release(r->table, (uint64_t)claim->session, claim->id);
        model_release(&r->m, claim);
    }
}

static void op_reset(run *r)
{
    int partition = (int)rnd(r, M_PARTITIONS);
    int task = (int)rnd(r, M_TASKS + 1);

    assert_int_equal(tqi_table_reset_consumption(r->table, model_partitions[partition],
                                                 task < M_TASKS ? model_tasks[task] : NULL, &r->err),
                     TQ_OK);
    for (int t = 0; t < M_TASKS; t++) {
        if (task == t || task == M_TASKS) {
            model_reset(&r->m, partition, t);
        }
    }
}

/* The samples that must be reported as lost. */
typedef struct loss {
    run *r;
    bool expected[M_PLACES];
    uint32_t left;
} loss;

static void loss_report(const char *partition, const uint32_t *indexes, size_t n, void *arg)
{
    loss *l = arg;

    for (size_t i = 0; i < n; i++) {
        uint32_t place = model_place(&l->r->m, indexes[i]);
        assert_true(l->expected[place]);
        assert_string_equal(partition, model_partitions[l->r->m.samples[place].partition]);
        l->expected[place] = false;
        l->left--;
    }
}

static void loss_expect(loss *l, uint64_t block)
{
    for (uint32_t i = 0; i < M_PLACES; i++) {
        for (int f = 0; f < M_FIELDS; f++) {
            const model_cell *cell = &l->r->m.samples[i].cells[f];
            if (cell->state == CELL_STORED && cell->block == block && !l->expected[i]) {
                l->expected[i] = true;
                l->left++;
            }
        }
    }
}

static void op_lose(run *r)
{
    loss l = {.r = r};
    uint64_t ids[4];
    size_t n = 0;
    int owner = (int)rnd(r, M_OWNERS);
    bool whole = rnd(r, 8) == 0;

    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        const model_block *block = &r->m.blocks[b];
        if (block->state == BLOCK_LIVE && ((whole && block->owner == owner) || (!whole && rnd(r, 8) == 0 && n < 4))) {
            loss_expect(&l, block->id);
            ids[n < 4 ? n : 3] = block->id;
            n += n < 4;
        }
    }
    if (whole) {
        tqi_table_owner_lost(r->table, r->owners[owner], loss_report, &l);
        model_lose_owner(&r->m, owner);
        r->m.owner_incarnation[owner]++;
        assert_null(tqi_table_owner_find(r->table, model_owners[owner]));
        assert_int_equal(tqi_table_owner_register(r->table, model_owners[owner], r->m.owner_incarnation[owner],
                                                  &r->owners[owner], &r->err),
                         TQ_OK);
    } else {
        assert_int_equal(tqi_table_blocks_lost(r->table, ids, n, loss_report, &l, &r->err), TQ_OK);
        for (size_t i = 0; i < n; i++) {
            model_lose_block(&r->m, ids[i]);
        }
    }
    model_settle(&r->m);
    assert_int_equal(l.left, 0);
}

static model_block *rnd_block(run *r, model_block_state state)
{
    uint32_t start = rnd(r, M_BLOCKS);

    for (uint32_t i = 0; i < M_BLOCKS; i++) {
        model_block *block = &r->m.blocks[(start + i) % M_BLOCKS];
        if (block->state == state) {
            return block;
        }
    }
    return NULL;
}

/* What the table says of a block's live cells: ascending, apart from each other, and just what is needed. */
static void live_check(const run *r, const model_block *from, const tqi_table_live *live)
{
    uint64_t end = 0, bytes = 0;

    assert_int_equal(live->n, 1);
    assert_int_equal(live->counts[0], live->n_stretches);
    for (size_t i = 0; i < live->n_stretches; i++) {
        const tqi_table_stretch *stretch = &live->stretches[i];
        assert_true(i == 0 || stretch->begin >= end);
        assert_true(stretch->bytes <= live->sizes[0] && stretch->place <= live->sizes[0] - stretch->bytes);
        end = stretch->begin + stretch->bytes;
        bytes += stretch->bytes;
    }
    assert_true(end <= from->size && bytes <= live->sizes[0]);
    assert_true(live->n_stretches > 0 || live->sizes[0] == 0);
    (void)r;
}

/* Where a cell at the offset is after the move; false: where it was. */
static bool move_place(const tqi_table_live *live, uint64_t *offset)
{
    for (size_t i = live->n_stretches; i-- > 0;) {
        const tqi_table_stretch *stretch = &live->stretches[i];
        if (stretch->begin <= *offset) {
            if (*offset > stretch->begin + stretch->bytes) {
                return false;
            }
            *offset = *offset - stretch->begin + stretch->place;
            return true;
        }
    }
    return false;
}

static void op_move(run *r)
{
    model_block *from = rnd_block(r, BLOCK_LIVE);
    model_block *to = rnd_block(r, BLOCK_GRANTED);
    tqi_table_live live;

    if (from == NULL || to == NULL) {
        return;
    }
    assert_int_equal(tqi_table_compact_live(r->table, &from->id, 1, &live, &r->err), TQ_OK);
    live_check(r, from, &live);
    /* Now and then the whole block as it is, or into one that is too small. */
    uint64_t shift = rnd(r, 64);
    uint64_t short_of = rnd(r, 8) == 0 && live.sizes[0] > 0 ? 1 : 0;
    if (rnd(r, 2)) {
        live.n_stretches = 1;
        live.stretches[0] = (tqi_table_stretch){0, from->size, shift};
        live.sizes[0] = from->size + shift;
    }
    tqi_table_move move = {
        .from = from->id,
        .to =
            {
                .id = to->id,
                .size = live.sizes[0] - short_of,
                .owner = model_owners[to->owner],
                .owner_incarnation = r->m.owner_incarnation[to->owner],
            },
        .stretches = live.stretches,
        .n = live.n_stretches,
    };
    int rc = tqi_table_compact_move(r->table, (uint64_t)to->session, &move, 1, &r->err);
    assert_int_equal(rc, short_of ? TQ_EINVAL : TQ_OK);
    if (rc == TQ_OK) {
        to->state = BLOCK_LIVE;
        to->size = move.to.size;
    }
    for (uint32_t i = 0; i < M_PLACES && rc == TQ_OK; i++) {
        for (int f = 0; f < M_FIELDS; f++) {
            model_cell *cell = &r->m.samples[i].cells[f];
            if (cell->state == CELL_STORED && cell->block == from->id) {
                assert_true(move_place(&live, &cell->offset));
                cell->block = to->id;
                cell->slot = (uint32_t)(to - r->m.blocks);
            }
        }
    }
    tqi_table_live_fini(&live);
    model_settle(&r->m);
}

static void op_abandon(run *r)
{
    model_block *block = rnd_block(r, BLOCK_GRANTED);
    const model_block *wrong = rnd_block(r, BLOCK_LIVE);
    bool done = rnd(r, 2) != 0;

    if (block == NULL) {
        return;
    }
    uint64_t ids[] = {block->id, wrong != NULL ? wrong->id : block->id};
    assert_int_equal(tqi_table_abandon(r->table, (uint64_t)block->session, ids, 2, done, &r->err), TQ_EINVAL);
    assert_int_equal(tqi_table_abandon(r->table, (uint64_t)block->session, ids, 1, done, &r->err), TQ_OK);
    block->state = BLOCK_DEAD;
    block->writer_done = done;
}

static void op_session_end(run *r)
{
    int session = (int)rnd(r, M_SESSIONS);
    bool dead = rnd(r, 2) != 0;

    tqi_table_session_end(r->table, (uint64_t)session, dead);
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        if (r->m.blocks[b].state == BLOCK_GRANTED && r->m.blocks[b].session == session) {
            r->m.blocks[b].state = BLOCK_DEAD;
            r->m.blocks[b].writer_done = dead;
        }
    }
    for (int c = 0; c < M_CLAIMS; c++) {
        if (r->m.claims[c].id != 0 && r->m.claims[c].session == session) {
            model_release(&r->m, &r->m.claims[c]);
        }
    }
}

/* Time passes: late blocks are dead again. */
static void pass_time(run *r, int owner)
{
    uint64_t first = UINT64_MAX;

    r->now += rnd(r, 4);
    tqi_table_owner_late_die(r->owners[owner], r->now);
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        model_block *block = &r->m.blocks[b];
        if (block->state != BLOCK_LATE || block->owner != owner) {
            continue;
        }
        if (block->due <= r->now) {
            block->state = BLOCK_DEAD;
            block->writer_done = true;
        } else if (block->due < first) {
            first = block->due;
        }
    }
    assert_true(tqi_table_owner_late(r->owners[owner]) == first);
}

static void op_collect(run *r)
{
    int owner = (int)rnd(r, M_OWNERS);
    uint64_t due = rnd(r, 2) ? r->now + 10 : 0;
    tqi_table_dead first[64], again[64];
    uint64_t notice, later;

    pass_time(r, owner);
    size_t n = tqi_table_owner_dead(r->owners[owner], first, 1 + rnd(r, 63), &notice);
    size_t more = tqi_table_owner_dead(r->owners[owner], again, 64, &later);

    assert_true(more >= n);
    for (size_t i = 0; i < n; i++) {
        assert_true(first[i].first == again[i].first && first[i].count == again[i].count &&
                    first[i].writer_done == again[i].writer_done);
    }
    assert_true((notice == 0) == (n == 0));
    if (rnd(r, 3) == 0) {
        return; /* redelivered later */
    }
    for (size_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < first[i].count; k++) {
            model_block *block = model_block_find(&r->m, first[i].first + k);
            assert_non_null(block);
            assert_int_equal(block->state, BLOCK_DEAD);
            assert_int_equal(block->owner, owner);
            assert_int_equal(block->writer_done, first[i].writer_done);
            block->state = due == 0 || block->writer_done ? BLOCK_FREE : BLOCK_LATE;
            block->due = due;
        }
    }
    tqi_table_owner_done(r->owners[owner], notice, due);
}

/* The view that replaces another is looked up by the old one. */
static void restored_view(tqi_table_view *from, tqi_table_view *to, void *arg)
{
    run *r = arg;

    for (int v = 0; v < MODEL_VIEWS; v++) {
        if (r->views[v].view == from) {
            r->views[v].view = to;
            r->views[v].touched = true;
        }
    }
    tqi_table_view_set_user(to, tqi_table_view_user(from));
}

/* The whole table, or one partition, is put back into itself: nothing changes but incarnations, and claims and views
 * that nobody holds end. */
static void op_restore(run *r)
{
    int only = rnd(r, 2) ? (int)rnd(r, M_PARTITIONS) : -1;
    table t = {.table = r->table};
    tqi_table_restore_state ask = {.partial = only >= 0, .relink = true, .moved = restored_view, .arg = r};
    tqi_table_restored done;
    uint64_t lost = 0;
    kit_snapshot *snap = calloc(1, sizeof(*snap));

    assert_non_null(snap);
    kit_take_pieces(&t, only >= 0 ? model_partitions[only] : NULL, 1 + rnd(r, 40), snap);
    ask.partitions = snap->heads;
    ask.n = snap->n;
    assert_int_equal(tqi_table_restore(r->table, &ask, &done, &r->err), TQ_OK);
    for (uint32_t i = 0; i < M_PLACES; i++) {
        for (int f = 0; f < M_FIELDS; f++) {
            lost += r->m.samples[i].cells[f].state == CELL_LOST && (only < 0 || r->m.samples[i].partition == only);
        }
    }
    assert_int_equal(done.lost, lost);
    kit_free(snap);
    free(snap);
    model_restore(&r->m, only);
}

void op_other(run *r, uint32_t which)
{
    if (rnd(r, 64) == 0) {
        op_restore(r);
    } else if (which < 6) {
        op_clearing(r);
    } else if (which < 18) {
        op_clear(r);
    } else if (which < 24) {
        op_view(r);
    } else if (which < 36) {
        op_claim(r);
    } else if (which < 44) {
        op_claim_end(r);
    } else if (which < 45) {
        op_reset(r);
    } else if (which < 47) {
        op_lose(r);
    } else if (which < 50) {
        op_move(r);
    } else if (which < 51) {
        op_abandon(r);
    } else if (which < 52) {
        op_session_end(r);
    } else {
        op_collect(r);
    }
}
