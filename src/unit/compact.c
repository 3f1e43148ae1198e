/*
 * compact.c - compaction: copies the live bytes of sparse blocks (blocks that are largely dead) to new blocks, so that
 * the old ones can be freed.
 *
 * The controller names such blocks (join.c puts them into the queue). For a few of them at a time the unit
 *
 *   1. asks which of their bytes are live, and where they go in the new blocks;
 *   2. reserves the new blocks, under ids granted like any writer's, and copies on the thread pool;
 *   3. tells the controller, which relinks the cells that still exist to the new blocks, all at once.
 *
 * The old block is then dead, like one that was cleared: it is freed on its notice, pins and readers keep it like any
 * other, and a reader with old placements asks the controller for new ones. Cells that are cleared or overwritten
 * meanwhile stay so, because only cells that still point to the old block are relinked. If anything fails, the old
 * blocks stay as they are and are tried again later. A new block is never freed here once it was offered to the
 * controller, which alone knows whether it accepted it; the ids are abandoned, and a notice comes if it did not. Ids
 * die with the session to which they were granted: work in progress then starts over.
 *
 * States of a batch, by the function that begins each:
 *
 *   compact_timer -> [GRANT_BLOCKS: compact_granted] -> compact_ask -> [COMPACT_LIVE: compact_answered] ->
 *   compact_plan
 *     -> compact_start_copy -> [thread pool: compact_copied] -> compact_tell -> [COMPACT_MOVE: compact_moved]
 *     -> compact_end
 *
 * In brackets is what the batch waits for, and the function that goes on then; ids that are left over need no
 * GRANT_BLOCKS. Every state may also end the batch: compact_put_back returns its blocks to the queue, compact_undo
 * frees the new blocks that the controller has not been offered, compact_abandon gives up their ids.
 *
 * After each batch the unit pauses for a multiple of the time the batch took, and a larger multiple of the controller
 * time it used. Copies take at most half of the remaining room, unless puts are waiting for room: then there is no
 * pause either, except after a batch that moved nothing. Blocks that are pinned by readers stay where they are,
 * because a move would not free their memory; so the last tenth, which is for columns, is only borrowed. These pinned
 * blocks, and blocks that do not fit, wait until room is freed or a pin ends.
 */
#include "unit/compact.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "unit/memory.h"
#include "unit/report.h"
#include "unit/unit_state.h"
#include "unit/wait.h"

/* Most blocks in a batch, and most bytes unless it is a single block. */
#define COMPACT_BLOCKS 64u
#define COMPACT_BYTES  (UINT64_C(16) << 20)
/* Pause before a batch, as a multiple of the previous batch's duration, and of the controller time it used (the
 * controller is one loop that serves everyone). While puts wait, it equals the controller time, if anything was moved. */
#define COMPACT_PAUSE     3u
#define COMPACT_PAUSE_ASK 20u
/* The longest pause; the controller may have been unreachable. */
#define COMPACT_PAUSE_MAX_MS 2000u
/* Pause after an error. */
#define COMPACT_RETRY_MS 1000u
/* A block that would shrink by less than this stays. */
#define COMPACT_GAIN 1024u

typedef struct compact_copy {
    const uint8_t *from;
    uint8_t *to;
    uint64_t size;
} compact_copy;

struct tqi_unit_compacting {
    tqi_unit *unit;
    tqi_unit_store *held;
    uint64_t grant; /* which its ids are from */
    uint64_t since;
    uint64_t sent;  /* when the controller was asked last */
    uint64_t asked; /* how long it took for its answers */
    bool moved;
    uint64_t room; /* bytes that new blocks may still take */
    uv_work_t work;
    size_t n;
    uint64_t from[COMPACT_BLOCKS];
    tqi_store_place to[COMPACT_BLOCKS];
    uint32_t pieces[COMPACT_BLOCKS];
    /* The pieces of all blocks. */
    size_t n_pieces;
    uint64_t *begin, *bytes, *place;
    compact_copy *copies;
};

/* --- batches -------------------------------------------------------------- */

static void compact_free(tqi_unit_compacting *batch)
{
    tqi_unit_store_unref(batch->held);
    free(batch->begin);
    free(batch->copies);
    free(batch);
}

/* Ends a batch; blocks that it has not moved stay as they are. */
static void compact_end(tqi_unit_compacting *batch, bool failed)
{
    tqi_unit *unit = batch->unit;
    tqi_unit_compact *compact = &unit->compact;
    uint64_t now = tqi_now();
    uint64_t took = (now - batch->since) * COMPACT_PAUSE + batch->asked * COMPACT_PAUSE_ASK;
    uint64_t ms = took / 1000000 + TQI_UNIT_COMPACT_PAUSE_MS;

    ms = ms < COMPACT_PAUSE_MAX_MS ? ms : COMPACT_PAUSE_MAX_MS;
    compact->not_before = now + (failed ? COMPACT_RETRY_MS : ms) * 1000000;
    compact->urged_before = batch->moved ? now + batch->asked : compact->not_before;
    compact->now = NULL;
    compact_free(batch);
    tqi_unit_compact_arm(unit);
}

/* Whether the blocks of the batch are still held. */
static bool compact_valid(const tqi_unit_compacting *batch)
{
    return batch->held == batch->unit->held && !batch->unit->closing;
}

/* Whether its ids are still the unit's. */
static bool compact_grants(const tqi_unit_compacting *batch)
{
    return batch->grant == batch->unit->compact.grant;
}

/* Puts all of them back into the queue, for later. */
static void compact_put_back(tqi_unit_compacting *batch)
{
    if (compact_valid(batch)) {
        batch->unit->compact.full = 0;
        tqi_unit_compact_append(batch->unit, batch->from, batch->n);
    }
}

static bool compact_call(tqi_unit_compacting *batch, uint16_t kind, const ProtobufCMessage *message,
                         void (*done)(tqi_net_call *call, tqi_net_answer *answer, void *arg))
{
    tqi_unit *unit = batch->unit;
    tqi_net_call *call = NULL;
    tq_error err = {0};
    tqi_net_call_args args = {.kind = kind, .message = message, .deadline = TQI_NEVER, .done = done, .arg = batch};

    batch->sent = tqi_now();
    if (tqi_net_call_start(unit->controller, &args, &call, &err) != TQ_OK) {
        tqi_log(TQI_WARN, "unit", "%s: cannot move blocks: %s", unit->name, err.message);
        return false;
    }
    return true;
}

static void compact_heard(tqi_unit_compacting *batch)
{
    batch->asked += tqi_now() - batch->sent;
}

/* --- 3: moved ------------------------------------------------------------- */

static void compact_abandon(tqi_unit_compacting *batch);

static void compact_abandon_again(uv_timer_t *timer)
{
    const tqi_unit *unit = timer->data;

    compact_abandon(unit->compact.now);
}

/* There was no memory to abandon the new blocks, which nobody else will ever free: tries again, and moves nothing else
 * until then. */
static void compact_abandon_later(tqi_unit_compacting *batch)
{
    uv_timer_start(&batch->unit->compact.timer, compact_abandon_again, COMPACT_RETRY_MS, 0);
}

static void compact_abandoned(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit_compacting *batch = arg;

    (void)call;
    if (answer->status == TQ_ENOMEM && compact_valid(batch)) {
        compact_abandon_later(batch);
    } else {
        compact_end(batch, true);
    }
}

/* The controller sends a notice for the blocks it did not accept, even if the session has ended. */
static void compact_abandon(tqi_unit_compacting *batch)
{
    Tq__AbandonBlocks message;
    uint64_t ids[COMPACT_BLOCKS];

    tq__abandon_blocks__init(&message);
    for (size_t i = 0; i < batch->n; i++) {
        ids[i] = batch->to[i].id;
    }
    message.id = ids;
    message.n_id = batch->n;
    if (batch->n == 0 || !compact_valid(batch) || !compact_grants(batch)) {
        compact_end(batch, true); /* there are none, or they have ended with the session */
    } else if (!compact_call(batch, TQI_ABANDON_BLOCKS, &message.base, compact_abandoned)) {
        compact_abandon_later(batch);
    }
}

void tqi_unit_compact_close(tqi_unit *unit)
{
    if (unit->compact.now != NULL) {
        compact_free(unit->compact.now);
        unit->compact.now = NULL;
    }
}

static void compact_moved(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit_compacting *batch = arg;
    tqi_unit *unit = batch->unit;

    (void)call;
    compact_heard(batch);
    if (answer->status == TQ_OK) {
        for (size_t i = 0; i < batch->n; i++) {
            unit->compact.moved_bytes += batch->to[i].size;
        }
        unit->compact.moved += batch->n;
        batch->moved = true;
        tqi_unit_reportable(unit);
        compact_end(batch, false);
        return;
    }
    if (compact_valid(batch)) {
        tqi_log(TQI_WARN, "unit", "%s: moving blocks failed: %s", unit->name, answer->error->message);
    }
    /* If they were moved after all, they will not exist the next time. */
    compact_put_back(batch);
    compact_abandon(batch);
}

/* Nothing has been sent to the controller yet. */
static void compact_undo(tqi_unit_compacting *batch)
{
    tqi_unit *unit = batch->unit;

    for (size_t i = 0; i < batch->n; i++) {
        tqi_store_free_block(batch->held->store, batch->to[i].id);
    }
    compact_put_back(batch);
    tqi_unit_changed(unit);
    tqi_unit_wake(unit);
}

static void compact_tell(tqi_unit_compacting *batch)
{
    uint8_t locators[COMPACT_BLOCKS][TQI_STORE_LOCATOR];
    Tq__Block blocks[COMPACT_BLOCKS], *list[COMPACT_BLOCKS];
    Tq__Owner owner;
    Tq__CompactMove message;

    tq__compact_move__init(&message);
    tq__owner__init(&owner);
    owner.name = batch->unit->name;
    owner.incarnation = batch->unit->incarnation;
    for (size_t i = 0; i < batch->n; i++) {
        tqi_store_locator_make(locators[i], batch->to[i].slot, batch->to[i].offset);
        tq__block__init(&blocks[i]);
        blocks[i].id = batch->to[i].id;
        blocks[i].size = batch->to[i].size;
        blocks[i].locator.data = locators[i];
        blocks[i].locator.len = TQI_STORE_LOCATOR;
        list[i] = &blocks[i];
    }
    message.owner = &owner;
    message.from = batch->from;
    message.to = list;
    message.pieces = batch->pieces;
    message.begin = batch->begin;
    message.bytes = batch->bytes;
    message.place = batch->place;
    message.n_from = message.n_to = message.n_pieces = batch->n;
    message.n_begin = message.n_bytes = message.n_place = batch->n_pieces;
    if (!compact_call(batch, TQI_COMPACT_MOVE, &message.base, compact_moved)) {
        compact_undo(batch);
        compact_abandon(batch);
    }
}

/* --- 2: copies ------------------------------------------------------------ */

static void compact_work(uv_work_t *work)
{
    const tqi_unit_compacting *batch = work->data;

    for (size_t i = 0; i < batch->n_pieces; i++) {
        memcpy(batch->copies[i].to, batch->copies[i].from, batch->copies[i].size);
    }
}

static void compact_hold(const tqi_unit_compacting *batch, void (*hold)(tqi_store *store, uint64_t id))
{
    for (size_t i = 0; i < batch->n; i++) {
        hold(batch->held->store, batch->from[i]);
        hold(batch->held->store, batch->to[i].id);
    }
}

static void compact_copied(uv_work_t *work, int status)
{
    tqi_unit_compacting *batch = work->data;
    tqi_unit *unit = batch->unit;

    (void)status;
    compact_hold(batch, tqi_store_unref);
    if (!compact_valid(batch)) {
        compact_end(batch, false);
    } else if (!compact_grants(batch)) {
        compact_undo(batch);
        compact_end(batch, false);
    } else {
        tqi_unit_wake(unit); /* old blocks may have died meanwhile */
        compact_tell(batch);
    }
    tqi_unit_close_step(unit);
}

static void compact_start_copy(tqi_unit_compacting *batch)
{
    tqi_unit *unit = batch->unit;

    tqi_unit_changed(unit);
    compact_hold(batch, tqi_store_ref);
    batch->work.data = batch;
    unit->open++;
    if (uv_queue_work(unit->loop, &batch->work, compact_work, compact_copied) != 0) {
        unit->open--;
        compact_hold(batch, tqi_store_unref);
        compact_undo(batch);
        compact_abandon(batch);
    }
}

/* --- 1: what is live ------------------------------------------------------ */

/* All free room while puts wait, else half of it. */
static uint64_t compact_room(const tqi_unit *unit)
{
    uint64_t left = tqi_store_capacity(unit->store) - tqi_store_used(unit->store);

    return tqi_unit_waited_for(unit) ? left : left / 2;
}

/* Reserves room for a new block, under a granted id. TQ_EFULL: there is none now. */
static int compact_reserve(tqi_unit_compacting *batch, uint64_t size, tqi_store_place *place)
{
    tqi_unit *unit = batch->unit;
    tqi_unit_compact *compact = &unit->compact;
    tq_error err;

    if (compact->n_ids == 0 || size > batch->room) {
        return TQ_EFULL;
    }
    *place = (tqi_store_place){.id = compact->first_id, .size = size};
    int rc = tqi_store_reserve(unit->store, place, 1, false, &err);
    if (rc != TQ_EFULL) {
        compact->first_id++; /* nor is one that was refused tried again */
        compact->n_ids--;
    }
    if (rc == TQ_OK) {
        batch->room -= size;
    }
    return rc;
}

/* Plans the pieces of one block as copies; false if they are not inside it. */
static bool compact_pieces(tqi_unit_compacting *batch, const Tq__CompactLiveReply *reply, size_t at, uint32_t n,
                           const uint8_t *from, uint64_t size, uint64_t fresh)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = reply->begin[at + i], bytes = reply->bytes[at + i];
        uint64_t place = reply->place[at + i];
        size_t to = batch->n_pieces + i;
        if (begin > size || bytes > size - begin || place > fresh || bytes > fresh - place) {
            return false;
        }
        batch->begin[to] = begin;
        batch->bytes[to] = bytes;
        batch->place[to] = place;
        batch->copies[to] = (compact_copy){.from = from + begin, .size = bytes};
    }
    return true;
}

/* Plans one block of the answer, whose pieces start at `at`. */
static void compact_plan_block(tqi_unit_compacting *batch, const Tq__CompactLiveReply *reply, size_t i, size_t at)
{
    tqi_unit *unit = batch->unit;
    uint64_t id = batch->from[i], fresh = reply->size[i], size;
    uint32_t n = reply->pieces[i];
    const uint8_t *from = tqi_store_block(unit->store, id, &size);
    tqi_store_place *to = &batch->to[batch->n];

    if (from == NULL || n == 0 || fresh > size || size - fresh < COMPACT_GAIN ||
        !compact_pieces(batch, reply, at, n, from, size, fresh)) {
        return;
    }
    if (tqi_store_pinned(unit->store, id) || compact_reserve(batch, fresh, to) != TQ_OK) {
        tqi_unit_compact_refuse(unit, id);
        return;
    }
    uint8_t *base = tqi_store_find(unit->store, to->id, to->slot, NULL);
    for (size_t k = 0; k < n; k++) {
        compact_copy *copy = &batch->copies[batch->n_pieces + k];
        copy->to = base + batch->place[batch->n_pieces + k];
    }
    batch->from[batch->n] = id;
    batch->pieces[batch->n++] = n;
    batch->n_pieces += n;
    unit->compact.full = 0;
}

/* Reserves new blocks and plans the copies; TQ_EPROTO if the answer makes no sense. */
static int compact_plan(tqi_unit_compacting *batch, const Tq__CompactLiveReply *reply)
{
    size_t asked = batch->n, at = 0, n = reply->n_begin;

    if (reply->n_size != reply->n_pieces || reply->n_size > asked || reply->n_size == 0 || reply->n_bytes != n ||
        reply->n_place != n) {
        return TQ_EPROTO;
    }
    batch->begin = calloc(3 * n + 1, sizeof(uint64_t));
    batch->copies = calloc(n + 1, sizeof(*batch->copies));
    if (batch->begin == NULL || batch->copies == NULL) {
        return TQ_ENOMEM;
    }
    batch->bytes = batch->begin + n;
    batch->place = batch->bytes + n;
    tqi_unit_compact_prepend(batch->unit, batch->from + reply->n_size, asked - reply->n_size);
    batch->room = compact_room(batch->unit);
    batch->n = 0;
    for (size_t i = 0; i < reply->n_size && reply->pieces[i] <= n - at; i++) {
        compact_plan_block(batch, reply, i, at);
        at += reply->pieces[i];
    }
    return TQ_OK;
}

static void compact_answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit_compacting *batch = arg;
    int rc = answer->status;

    (void)call;
    compact_heard(batch);
    if (!compact_valid(batch)) {
        compact_end(batch, false);
        return;
    }
    if (rc == TQ_OK && !compact_grants(batch)) {
        batch->since = tqi_now(); /* before there was no connection */
        batch->asked = 0;
        compact_put_back(batch);
        compact_end(batch, false);
        return;
    }
    if (rc == TQ_OK) {
        rc = compact_plan(batch, (const Tq__CompactLiveReply *)answer->reply);
    }
    if (rc != TQ_OK) {
        compact_put_back(batch);
        compact_end(batch, true);
    } else if (batch->n == 0) {
        compact_end(batch, false);
    } else {
        compact_start_copy(batch);
    }
}

static void compact_ask(tqi_unit_compacting *batch)
{
    tqi_unit *unit = batch->unit;
    tqi_unit_compact *compact = &unit->compact;
    size_t most = compact->n_ids < COMPACT_BLOCKS ? compact->n_ids : COMPACT_BLOCKS;
    uint64_t sum = 0, size;
    size_t taken = 0, n = compact->n; /* not those that are refused here */
    Tq__CompactLive message;

    batch->grant = compact->grant;
    for (; taken < n && batch->n < most; taken++) {
        uint64_t id = compact->queue[taken];
        if (tqi_store_block(unit->store, id, &size) == NULL) {
            continue;
        }
        if (tqi_store_pinned(unit->store, id)) {
            tqi_unit_compact_refuse(unit, id);
            continue;
        }
        sum += size;
        if (batch->n > 0 && sum > COMPACT_BYTES) {
            break;
        }
        batch->from[batch->n++] = id;
    }
    compact->n -= taken;
    if (compact->n > 0) {
        memmove(compact->queue, compact->queue + taken, compact->n * sizeof(uint64_t));
    }
    if (batch->n == 0) {
        compact_end(batch, false);
        return;
    }
    tq__compact_live__init(&message);
    message.id = batch->from;
    message.n_id = batch->n;
    if (!compact_call(batch, TQI_COMPACT_LIVE, &message.base, compact_answered)) {
        compact_put_back(batch);
        compact_end(batch, true);
    }
}

static void compact_granted(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit_compacting *batch = arg;
    tqi_unit *unit = batch->unit;

    (void)call;
    if (!compact_valid(batch) || answer->status != TQ_OK) {
        compact_end(batch, true);
        return;
    }
    const Tq__GrantBlocksReply *reply = (const Tq__GrantBlocksReply *)answer->reply;
    unit->compact.first_id = reply->first;
    unit->compact.n_ids = reply->count;
    compact_ask(batch);
}

void tqi_unit_compact_timer(uv_timer_t *timer)
{
    tqi_unit *unit = timer->data;
    Tq__GrantBlocks message;

    if (unit->compact.now != NULL || !unit->registered || unit->compact.n == 0) {
        return;
    }
    tqi_unit_compacting *batch = calloc(1, sizeof(*batch));
    if (batch == NULL) {
        uv_timer_start(timer, tqi_unit_compact_timer, COMPACT_RETRY_MS, 0);
        return;
    }
    batch->unit = unit;
    batch->held = unit->held;
    batch->held->refs++;
    batch->since = tqi_now();
    unit->compact.now = batch;
    if (unit->compact.n_ids > 0) {
        compact_ask(batch);
        return;
    }
    tq__grant_blocks__init(&message);
    message.owner = unit->name;
    message.incarnation = unit->incarnation;
    message.count = TQ_GRANT_MAX;
    if (!compact_call(batch, TQI_GRANT_BLOCKS, &message.base, compact_granted)) {
        compact_end(batch, true);
    }
}
