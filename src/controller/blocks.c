/*
 * blocks.c - requests about blocks: lease, abandon, collect, report of lost ones, move.
 *
 * Dead blocks of an owner go to its collector: the one session that serves it, or, for a shared owner, the first
 * session that asked, until it ends.  A notice is sent again until it is done, so an answer that nobody got does no
 * harm.
 */
#include <stdlib.h>

#include "controller/internal.h"

/* Most ranges in one notice. */
#define COLLECT_MAX 4096u

struct tqi_ctl_collect {
    tqi_ctl_wait base; /* first: waits are known by it */
    tqi_ctl_owner *owner;
    tqi_ctl_session *session;
    tqi_ctl_collect *prev, *next;
};

/* ------------------------------------------------------------------------------------------------ lease, abandon */

int tqi_ctl_on_lease_blocks(tqi_controller *ctl, tqi_request *request, const Tq__LeaseBlocks *msg,
                            tq_error *err)
{
    Tq__LeaseBlocksReply reply = TQ__LEASE_BLOCKS_REPLY__INIT;
    uint64_t first = 0;
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->owner);
    if (!owner || !owner->servers) {
        return tqi_error_set(err, TQ_EUNREACHABLE, "owner '%s' is %s", msg->owner,
                             owner ? "gone" : "unknown");
    }
    uint64_t incarnation = tqi_owner_incarnation(owner->meta);
    if (msg->incarnation && msg->incarnation != incarnation) {
        return tqi_error_set(err, TQ_ESTALE, "owner '%s' is another run of it now", msg->owner);
    }
    if (msg->count < 1 || msg->count > 256) {
        return tqi_error_set(err, TQ_EINVAL,
                             "lease of %u blocks under owner '%s', 1 to 256 are possible",
                             (unsigned)msg->count, msg->owner);
    }
    int rc = tqi_meta_lease(ctl->meta, tqi_ctl_session_number(request), owner->meta, msg->count,
                            &first, err);
    if (rc) {
        return rc;
    }
    reply.first = first;
    reply.count = msg->count;
    reply.incarnation = incarnation;
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}

int tqi_ctl_on_abandon_blocks(tqi_controller *ctl, tqi_request *request,
                              const Tq__AbandonBlocks *msg, tq_error *err)
{
    int rc = tqi_meta_abandon(ctl->meta, tqi_ctl_session_number(request), msg->id, msg->n_id,
                              !msg->writing, err);
    if (rc) {
        return rc;
    }
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}

/* ------------------------------------------------------------------------------------------------ collect */

static bool collect_pending(tqi_ctl_owner *owner)
{
    tqi_dead dead;
    uint64_t notice = 0;
    return tqi_owner_dead(owner->meta, &dead, 1, &notice) > 0;
}

/* Answers with what is dead; on an error nothing was sent. */
static int collect_reply(tqi_request *request, tqi_ctl_owner *owner, tq_error *err)
{
    Tq__CollectReply reply = TQ__COLLECT_REPLY__INIT;
    tqi_conv conv = {0};
    tqi_dead *dead = tqi_conv_alloc(&conv, COLLECT_MAX, sizeof(*dead), err);
    size_t n = dead ? tqi_owner_dead(owner->meta, dead, COLLECT_MAX, &reply.notice) : 0;
    uint8_t *done = tqi_conv_alloc(&conv, n, 1, err);
    reply.first = tqi_conv_alloc(&conv, n, sizeof(*reply.first), err);
    reply.count = tqi_conv_alloc(&conv, n, sizeof(*reply.count), err);
    int rc = dead && done && reply.first && reply.count ? TQ_OK : TQ_ENOMEM;
    if (rc == TQ_OK) {
        for (size_t i = 0; i < n; i++) {
            reply.first[i] = dead[i].first;
            reply.count[i] = dead[i].count;
            done[i] = dead[i].writer_done;
        }
        reply.n_first = reply.n_count = n;
        reply.writer_done = tqi_conv_bytes(done, n);
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_conv_fini(&conv);
    return rc;
}

static void collect_leave(tqi_ctl_wait *base)
{
    tqi_ctl_collect *collect = (tqi_ctl_collect *)base;
    DL_DELETE(collect->owner->collects, collect);
}

static void collect_answer(tqi_ctl_wait *base)
{
    tq_error err = {0};
    if (collect_reply(base->request, ((tqi_ctl_collect *)base)->owner, &err) != TQ_OK) {
        tqi_request_fail(base->request, &err);
    }
}

static void collect_describe(const tqi_ctl_wait *base, tq_error *err)
{
    const tqi_ctl_collect *collect = (const tqi_ctl_collect *)base;
    tqi_error_set(err, TQ_ETIMEDOUT, "no dead blocks of owner '%s'", collect->owner->name);
}

static const tqi_ctl_wait_type collect_wait_type = {
    .leave = collect_leave, .answer = collect_answer, .describe = collect_describe};

void tqi_ctl_collect_gather(tqi_ctl_owner *owner)
{
    tqi_ctl_collect *collect = NULL;
    if (!owner->collector && owner->collects) {
        owner->collector = owner->collects->session;
    }
    if (!owner->collects || !collect_pending(owner)) {
        return;
    }
    DL_FOREACH (owner->collects, collect) {
        if (collect->session == owner->collector) {
            tqi_ctl_wait_ready(&collect->base);
        }
    }
}

void tqi_ctl_collect_drop(tqi_ctl_owner *owner, const tqi_ctl_session *session)
{
    tqi_ctl_collect *collect = NULL;
    tqi_ctl_collect *next = NULL;
    tq_error err = {0};
    tqi_error_set(&err, TQ_ESTALE, "owner '%s' is not served by this session any more",
                  owner->name);
    DL_FOREACH_SAFE (owner->collects, collect, next) {
        if (!session || collect->session == session) {
            tqi_ctl_wait_fail(&collect->base, &err);
        }
    }
}

int tqi_ctl_on_collect(tqi_controller *ctl, tqi_request *request, const Tq__Collect *msg,
                       tq_error *err)
{
    tqi_ctl_session *session = tqi_ctl_session_of(request);
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->owner);
    if (!owner || !tqi_ctl_owner_serves(owner, session)) {
        return tqi_error_set(err, TQ_ESTALE, "owner '%s' is not served by this session",
                             msg->owner);
    }
    if (!owner->collector) {
        owner->collector = session;
    }
    if (owner->collector == session) {
        if (msg->done) {
            tqi_owner_done(owner->meta, msg->done);
        }
        if (collect_pending(owner)) {
            return collect_reply(request, owner, err);
        }
    }
    tqi_ctl_collect *collect = calloc(1, sizeof(*collect));
    if (!collect) {
        return tqi_error_nomem(err, "a waiting collect");
    }
    collect->owner = owner;
    collect->session = session;
    DL_APPEND(owner->collects, collect);
    tqi_ctl_wait_park(ctl, &collect->base, &collect_wait_type, request, 0);
    return TQ_OK;
}

/* ------------------------------------------------------------------------------------------------ lost, move */

void tqi_ctl_lost(const char *partition, const uint32_t *indexes, size_t n, void *loser)
{
    const tqi_ctl_loser *who = loser;
    tqi_ctl_event_add(who->ctl, &(tqi_ctl_happened){.kind = "lost",
                                                    .session = who->name,
                                                    .partition = partition,
                                                    .samples = (uint32_t)n,
                                                    .indexes = indexes,
                                                    .n_indexes = n});
}

int tqi_ctl_on_report_lost(tqi_controller *ctl, tqi_request *request, const Tq__ReportLost *msg,
                           tq_error *err)
{
    tqi_ctl_loser loser = {.ctl = ctl, .name = tqi_ctl_session_name(request)};
    int rc = tqi_meta_blocks_lost(ctl->meta, msg->id, msg->n_id, tqi_ctl_lost, &loser, err);
    if (rc) {
        return rc;
    }
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}

int tqi_ctl_on_move(tqi_controller *ctl, tqi_request *request, const Tq__Move *msg, tq_error *err)
{
    tqi_batch_block to = {0};
    if (!msg->owner || !msg->to) {
        return tqi_error_set(err, TQ_EINVAL, "move of block %llu: its %s is missing",
                             (unsigned long long)msg->from, msg->to ? "owner" : "new block");
    }
    int rc = tqi_conv_block_in(msg->to, msg->owner, &to, err);
    rc = rc ? rc
            : tqi_meta_move(ctl->meta, tqi_ctl_session_number(request), msg->from, &to, msg->shift,
                            err);
    if (rc) {
        return rc;
    }
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}
