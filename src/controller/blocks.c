/*
 * blocks.c - requests about blocks: grant, abandon, collect, report lost ones, list their live bytes, move. Dead
 * blocks of an owner go to its collector: the one session that serves it or, for a shared owner, the first session
 * that asked, until it ends. A notice is resent until it is confirmed, so a lost answer does no harm.
 */
#include <stdlib.h>

#include <utlist.h>

#include "base/buf.h"
#include "base/error.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/owners.h"
#include "controller/reply.h"
#include "controller/session.h"
#include "controller/wake.h"

/* Most ranges, sparse blocks and doubted blocks in one notice. */
#define COLLECT_MAX         4096u
#define COLLECT_SPARSE_MAX  256u
#define COLLECT_DOUBTED_MAX 4096u

struct tqi_ctl_collect {
    tqi_net_waiter base; /* first: waits are known by it */
    tqi_ctl_owner *owner;
    tqi_ctl_session *session;
    bool sparse; /* also waits for sparse blocks */
    tqi_ctl_collect *prev, *next;
};

/* --- grant, abandon ------------------------------------------------------- */

int tqi_ctl_on_grant_blocks(tqi_controller *ctl, tqi_net_request *request, const Tq__GrantBlocks *msg, tq_error *err)
{
    Tq__GrantBlocksReply reply = TQ__GRANT_BLOCKS_REPLY__INIT;
    uint64_t first = 0;
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->owner);

    if (owner == NULL || owner->servers == NULL) {
        return tqi_error_set(err, TQ_EUNREACHABLE, "owner '%s' is %s", msg->owner, owner != NULL ? "gone" : "unknown");
    }
    uint64_t incarnation = tqi_table_owner_incarnation(owner->table_owner);
    if (msg->incarnation && msg->incarnation != incarnation) {
        return tqi_error_set(err, TQ_ESTALE, "owner '%s' is another run of it now", msg->owner);
    }
    if (msg->count < 1 || msg->count > TQ_GRANT_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "grant of %u blocks under owner '%s', 1 to %d are possible",
                             (unsigned)msg->count, msg->owner, TQ_GRANT_MAX);
    }
    int rc = tqi_table_grant(ctl->table, tqi_ctl_session_number(request), owner->table_owner, msg->count, &first, err);
    if (rc) {
        return rc;
    }
    uint8_t grant[TQI_NET_GRANT];
    if (owner->keyed) {
        rc = tqi_net_grant_make(owner->key, owner->name, incarnation,
                                tqi_net_session_id(tqi_net_request_session(request)), first, msg->count, grant);
        if (rc) {
            /* The ids belong to the session, and end with it. */
            return tqi_error_set(err, rc, "a grant under owner '%s' cannot be proven", msg->owner);
        }
        reply.grant = (ProtobufCBinaryData){sizeof(grant), grant};
    }
    reply.first = first;
    reply.count = msg->count;
    reply.incarnation = incarnation;
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}

int tqi_ctl_on_unknown_blocks(tqi_controller *ctl, tqi_net_request *request, const Tq__UnknownBlocks *msg, tq_error *err)
{
    Tq__UnknownBlocksReply reply = TQ__UNKNOWN_BLOCKS_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->owner);

    if (owner == NULL || !tqi_ctl_owner_serves(owner, tqi_ctl_session_of(request)) ||
        tqi_table_owner_incarnation(owner->table_owner) != msg->incarnation) {
        return tqi_error_set(err, TQ_ESTALE, "owner '%s' is not served by this session", msg->owner);
    }
    if (msg->n_id > TQI_TABLE_UNKNOWN_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "owner '%s' asks for %zu blocks, at most %u at once", msg->owner,
                             msg->n_id, TQI_TABLE_UNKNOWN_MAX);
    }
    reply.id = tqi_ctl_conv_alloc(&conv, msg->n_id, sizeof(*reply.id), err);
    int rc = reply.id != NULL ? TQ_OK : TQ_ENOMEM;
    if (rc == TQ_OK) {
        if (msg->n_id) { /* none have no array either */
            memcpy(reply.id, msg->id, msg->n_id * sizeof(*reply.id));
        }
        reply.n_id = tqi_table_owner_unknown(owner->table_owner, reply.id, msg->n_id);
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_region_fini(&conv);
    return rc;
}

int tqi_ctl_on_abandon_blocks(tqi_controller *ctl, tqi_net_request *request, const Tq__AbandonBlocks *msg, tq_error *err)
{
    int rc = tqi_table_abandon(ctl->table, tqi_ctl_session_number(request), msg->id, msg->n_id, !msg->writing, err);

    if (rc) {
        return rc;
    }
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}

/* --- collect -------------------------------------------------------------- */

static bool collect_pending(tqi_ctl_owner *owner, bool sparse)
{
    tqi_table_dead dead;
    uint64_t notice = 0;

    return owner->n_doubted > 0 || tqi_table_owner_dead(owner->table_owner, &dead, 1, &notice) > 0 ||
           (sparse && tqi_table_owner_has_sparse(owner->table_owner));
}

/* Answers with the dead and the sparse blocks; on an error nothing was sent. */
static int collect_reply(tqi_net_request *request, tqi_ctl_owner *owner, bool sparse, tq_error *err)
{
    Tq__CollectDeadReply reply = TQ__COLLECT_DEAD_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    tqi_table_dead *dead = tqi_ctl_conv_alloc(&conv, COLLECT_MAX, sizeof(*dead), err);
    size_t n = dead != NULL ? tqi_table_owner_dead(owner->table_owner, dead, COLLECT_MAX, &reply.notice) : 0;
    uint8_t *done = tqi_ctl_conv_alloc(&conv, n, 1, err);

    reply.first = tqi_ctl_conv_alloc(&conv, n, sizeof(*reply.first), err);
    reply.count = tqi_ctl_conv_alloc(&conv, n, sizeof(*reply.count), err);
    size_t n_sparse = sparse ? COLLECT_SPARSE_MAX : 0;
    reply.sparse = tqi_ctl_conv_alloc(&conv, n_sparse, sizeof(*reply.sparse), err);
    int rc = dead != NULL && done != NULL && reply.first != NULL && reply.count != NULL && reply.sparse != NULL
                 ? TQ_OK
                 : TQ_ENOMEM;
    if (rc == TQ_OK) {
        if (sparse) {
            reply.n_sparse = tqi_table_owner_sparse(owner->table_owner, reply.sparse, n_sparse, &reply.named);
        }
        for (size_t i = 0; i < n; i++) {
            reply.first[i] = dead[i].first;
            reply.count[i] = dead[i].count;
            done[i] = dead[i].writer_done;
        }
        reply.n_first = reply.n_count = n;
        reply.writer_done = tqi_ctl_conv_bytes(done, n);
        reply.doubted = owner->doubted;
        reply.n_doubted = owner->n_doubted;
        tqi_ctl_reply(request, &reply.base);
        owner->n_doubted = 0; /* if it gets lost, a reader will report it again */
    }
    tqi_region_fini(&conv);
    return rc;
}

static void collect_leave(tqi_net_waiter *base)
{
    tqi_ctl_collect *collect = (tqi_ctl_collect *)base;

    DL_DELETE(collect->owner->collects, collect);
}

static void collect_answer(tqi_net_waiter *base)
{
    const tqi_ctl_collect *collect = (const tqi_ctl_collect *)base;
    tq_error err = {0};

    if (collect_reply(base->request, collect->owner, collect->sparse, &err) != TQ_OK) {
        tqi_net_request_fail(base->request, &err);
    }
}

static void collect_describe(const tqi_net_waiter *base, tq_error *err)
{
    const tqi_ctl_collect *collect = (const tqi_ctl_collect *)base;

    tqi_error_set(err, TQ_ETIMEDOUT, "no dead blocks of owner '%s'", collect->owner->name);
}

static const tqi_net_waiter_type collect_wait_type = {
    .leave = collect_leave,
    .answer = collect_answer,
    .describe = collect_describe,
};

void tqi_ctl_collects_gather(tqi_ctl_owner *owner)
{
    tqi_ctl_collect *collect = NULL;

    if (owner->collector == NULL && owner->collects != NULL) {
        owner->collector = owner->collects->session;
    }
    DL_FOREACH (owner->collects, collect) {
        if (collect->session == owner->collector && collect_pending(owner, collect->sparse)) {
            tqi_net_waiter_ready(&collect->base);
        }
    }
}

void tqi_ctl_collects_drop(tqi_ctl_owner *owner, const tqi_ctl_session *session)
{
    tqi_ctl_collect *collect = NULL;
    tqi_ctl_collect *next = NULL;
    tq_error err = {0};

    tqi_error_set(&err, TQ_ESTALE, "owner '%s' is not served by this session any more", owner->name);
    DL_FOREACH_SAFE (owner->collects, collect, next) {
        if (session == NULL || collect->session == session) {
            tqi_net_waiter_fail(&collect->base, &err);
        }
    }
}

int tqi_ctl_on_collect_dead(tqi_controller *ctl, tqi_net_request *request, const Tq__CollectDead *msg, tq_error *err)
{
    tqi_ctl_session *session = tqi_ctl_session_of(request);
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->owner);

    if (owner == NULL || !tqi_ctl_owner_serves(owner, session)) {
        return tqi_error_set(err, TQ_ESTALE, "owner '%s' is not served by this session", msg->owner);
    }
    if (owner->collector == NULL) {
        owner->collector = session;
    }
    if (owner->collector == session) {
        if (msg->done) {
            tqi_ctl_late_done(ctl, owner, msg->done);
        }
        if (msg->sparse) {
            tqi_table_owner_sparse_done(owner->table_owner, msg->named);
        }
        if (collect_pending(owner, msg->sparse)) {
            return collect_reply(request, owner, msg->sparse, err);
        }
    }
    tqi_ctl_collect *collect = calloc(1, sizeof(*collect));
    if (collect == NULL) {
        return tqi_error_nomem(err, "a waiting collect");
    }
    collect->owner = owner;
    collect->session = session;
    collect->sparse = msg->sparse;
    DL_APPEND(owner->collects, collect);
    tqi_net_waiter_add(&ctl->waiters, &collect->base, &collect_wait_type, request, 0);
    return TQ_OK;
}

/* --- lost ----------------------------------------------------------------- */

void tqi_ctl_lost(const char *partition, const uint32_t *indexes, size_t n, void *loser)
{
    const tqi_ctl_loser *who = loser;
    const tqi_ctl_happened event = {
        .kind = "lost",
        .session = who->name,
        .partition = partition,
        .samples = (uint32_t)n,
        .indexes = indexes,
        .n_indexes = n,
    };

    tqi_ctl_event_add(who->ctl, &event);
}

/* Asks the owner whether it has the block. Does nothing if that has already been asked or cannot be remembered: a
 * reader that still misses the block reports it again. The list is sorted, because it is searched once for every
 * reported block. */
static void lost_doubt(tqi_ctl_owner *owner, uint64_t id)
{
    size_t low = 0, high = owner->n_doubted;

    if (owner->n_doubted >= COLLECT_DOUBTED_MAX) {
        return;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (owner->doubted[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if ((low < owner->n_doubted && owner->doubted[low] == id) ||
        tqi_grow(&owner->doubted, &owner->doubted_capacity, owner->n_doubted + 1, sizeof(*owner->doubted)) != TQ_OK) {
        return;
    }
    memmove(&owner->doubted[low + 1], &owner->doubted[low], (owner->n_doubted - low) * sizeof(*owner->doubted));
    owner->doubted[low] = id;
    owner->n_doubted++;
    tqi_ctl_collects_gather(owner);
}

/* A session that serves the owner is believed; any other may be wrong, or lie, so the owner is asked. Everybody serves
 * a shared owner: its store has no server process of ours, and whoever may report there may also remove. */
int tqi_ctl_on_report_lost(tqi_controller *ctl, tqi_net_request *request, const Tq__ReportLost *msg, tq_error *err)
{
    tqi_ctl_loser loser = {.ctl = ctl, .name = tqi_ctl_session_name(request)};
    tqi_ctl_session *session = tqi_ctl_session_of(request);
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    size_t n = 0;

    if (msg->n_id > TQI_REPORT_LOST_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "%zu blocks are reported as lost, at most %u may be at once", msg->n_id,
                             TQI_REPORT_LOST_MAX);
    }
    uint64_t *believed = tqi_ctl_conv_alloc(&conv, msg->n_id, sizeof(*believed), err);
    int rc = believed != NULL ? TQ_OK : TQ_ENOMEM;
    for (size_t i = 0; rc == TQ_OK && i < msg->n_id; i++) {
        tqi_table_owner *found = tqi_table_block_owner(ctl->table, msg->id[i]);
        tqi_ctl_owner *owner = found != NULL ? tqi_table_owner_user(found) : NULL;
        if (owner != NULL && (owner->shared || tqi_ctl_owner_serves(owner, session))) {
            believed[n++] = msg->id[i];
        } else if (owner != NULL) {
            lost_doubt(owner, msg->id[i]);
        }
    }
    rc = rc ? rc : tqi_table_blocks_lost(ctl->table, believed, n, tqi_ctl_lost, &loser, err);
    if (rc == TQ_OK) {
        tqi_ctl_reply_empty(request);
    }
    tqi_region_fini(&conv);
    return rc;
}

/* --- moves ---------------------------------------------------------------- */

/* The answer's stretches as columns. */
static int live_out(tqi_region *conv, const tqi_table_live *live, Tq__CompactLiveReply *reply, tq_error *err)
{
    size_t n = live->n_stretches;

    reply->begin = tqi_ctl_conv_alloc(conv, n, sizeof(*reply->begin), err);
    reply->bytes = tqi_ctl_conv_alloc(conv, n, sizeof(*reply->bytes), err);
    reply->place = tqi_ctl_conv_alloc(conv, n, sizeof(*reply->place), err);
    if (reply->begin == NULL || reply->bytes == NULL || reply->place == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        reply->begin[i] = live->stretches[i].begin;
        reply->bytes[i] = live->stretches[i].bytes;
        reply->place[i] = live->stretches[i].place;
    }
    reply->size = live->sizes;
    reply->pieces = live->counts;
    reply->n_size = reply->n_pieces = live->n;
    reply->n_begin = reply->n_bytes = reply->n_place = n;
    return TQ_OK;
}

int tqi_ctl_on_compact_live(tqi_controller *ctl, tqi_net_request *request, const Tq__CompactLive *msg, tq_error *err)
{
    Tq__CompactLiveReply reply = TQ__COMPACT_LIVE_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    tqi_table_live live = {0};
    int rc = tqi_table_compact_live(ctl->table, msg->id, msg->n_id, &live, err);

    rc = rc ? rc : live_out(&conv, &live, &reply, err);
    if (rc == TQ_OK) {
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_table_live_fini(&live);
    tqi_region_fini(&conv);
    return rc;
}

/* The moves of a request. */
static int moves_in(tqi_region *conv, const Tq__CompactMove *msg, tqi_table_move **out, tq_error *err)
{
    size_t n = msg->n_from, at = 0;
    int rc = tqi_ctl_conv_check_count("new block", msg->n_to, n, err);

    rc = rc ? rc : tqi_ctl_conv_check_count("number of pieces", msg->n_pieces, n, err);
    rc = rc ? rc : tqi_ctl_conv_check_count("size of a piece", msg->n_bytes, msg->n_begin, err);
    rc = rc ? rc : tqi_ctl_conv_check_count("place of a piece", msg->n_place, msg->n_begin, err);
    if (rc == TQ_OK && (msg->owner == NULL || n != msg->n_to || n != msg->n_pieces || msg->n_begin != msg->n_bytes ||
                        msg->n_begin != msg->n_place)) {
        rc = tqi_error_set(err, TQ_EINVAL, "move of %zu blocks: %s", n,
                           msg->owner != NULL ? "new blocks or pieces are missing" : "the owner is missing");
    }
    tqi_table_move *moves = rc ? NULL : tqi_ctl_conv_alloc(conv, n, sizeof(*moves), err);
    tqi_table_stretch *all = rc ? NULL : tqi_ctl_conv_alloc(conv, msg->n_begin, sizeof(*all), err);
    if (moves == NULL || all == NULL) {
        return rc ? rc : TQ_ENOMEM;
    }
    for (size_t i = 0; i < msg->n_begin; i++) {
        all[i] = (tqi_table_stretch){msg->begin[i], msg->bytes[i], msg->place[i]};
    }
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        if (msg->pieces[i] > msg->n_begin - at) {
            return tqi_error_set(err, TQ_EINVAL, "move of block %llu: pieces are missing",
                                 (unsigned long long)msg->from[i]);
        }
        moves[i] = (tqi_table_move){.from = msg->from[i], .stretches = all + at, .n = msg->pieces[i]};
        at += msg->pieces[i];
        rc = tqi_ctl_conv_block_in(msg->to[i], msg->owner, &moves[i].to, err);
    }
    *out = moves;
    return rc;
}

/* Blocks are moved by a session that serves their owner, and stay with that owner. */
static int moves_allowed(tqi_controller *ctl, tqi_net_request *request, const Tq__CompactMove *msg, tq_error *err)
{
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->owner->name);

    if (owner == NULL || !tqi_ctl_owner_serves(owner, tqi_ctl_session_of(request))) {
        return tqi_error_set(err, TQ_ESTALE, "owner '%s' is not served by this session", msg->owner->name);
    }
    for (size_t i = 0; i < msg->n_from; i++) {
        tqi_table_owner *from = tqi_table_block_owner(ctl->table, msg->from[i]);
        if (from != NULL && from != owner->table_owner) {
            return tqi_error_set(err, TQ_EINVAL, "move of block %llu: it is not of owner '%s'",
                                 (unsigned long long)msg->from[i], msg->owner->name);
        }
    }
    return TQ_OK;
}

int tqi_ctl_on_compact_move(tqi_controller *ctl, tqi_net_request *request, const Tq__CompactMove *msg, tq_error *err)
{
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    tqi_table_move *moves = NULL;
    int rc = moves_in(&conv, msg, &moves, err);

    rc = rc ? rc : moves_allowed(ctl, request, msg, err);
    rc = rc ? rc : tqi_table_compact_move(ctl->table, tqi_ctl_session_number(request), moves, msg->n_from, err);
    if (rc == TQ_OK) {
        tqi_ctl_reply_empty(request);
    }
    tqi_region_fini(&conv);
    return rc;
}
