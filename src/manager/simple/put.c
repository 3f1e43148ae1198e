/*
 * put.c - writes a batch to a unit: choose, map, take ids, reserve, copy or stream, finish.
 *
 * Units are tried in the order of put_choose.c, each without waiting, and if all are full, the put waits at the one
 * with the most room until there is room elsewhere. If a unit does not answer, the put moves on to the next one after
 * a short while; its ids are abandoned, because the request may still be executed (the unit then refuses them, or
 * frees them on their dead notice). If the ids were granted for a different run of the unit or the controller
 * (TQ_ESTALE), the list is updated and everything starts over, a few times. A put that is cancelled stops if it is
 * waiting; once its bytes are in transit, it runs to completion.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/pointer.h"
#include "manager/simple/put.h"

#define PUT_RESTARTS    3u
#define PUT_ROUNDS      6u                  /* after which the time per unit stops growing */
#define PUT_FRESH_NS    UINT64_C(100000000) /* a list is as good as new */
#define PUT_TRY_NS      UINT64_C(400000000)
#define PUT_TRY_ANSWERS 4u /* or as long as this many answers take */
/* The unit answers a wait this much before the call gives up. */
#define PUT_SLACK_MS 100u

static void put_choose(tqi_simple_put_op *op);
static void put_go(tqi_simple_put_op *op);
static void put_try(tqi_simple_put_op *op);

void tqi_simple_put_free(tqi_simple_put_op *op)
{
    DL_DELETE(op->simple->puts, op);
    if (op->mapping != NULL) {
        tqi_simple_mapping_unref(op->mapping);
    }
    free(op->pieces);
    free(op->units);
    free(op->sizes);
    free(op->ids);
    free(op->offsets);
    free(op->slots);
    free(op->starts);
    free(op->block_of);
    free(op->order);
    free(op->grants.grants);
    free(op);
}

void tqi_simple_put_abandon(tqi_simple_put_op *op, uint32_t n)
{
    tq_manager_host *host = op->simple->host;

    if (tqi_simple_ids_known(op->simple, &op->from)) {
        host->abandon(host, op->ids, n, true);
    } else {
        tqi_simple_link_finish(op->unit, op->ids, n, false);
    }
}

/* Ids to which a put at that unit may be writing, or is about to; returns how many. */
static size_t put_busy(const tqi_simple_link *link, uint64_t *ids)
{
    const tqi_simple_put_op *op;
    size_t n = 0;

    DL_FOREACH (link->simple->puts, op) {
        for (uint32_t i = 0; op->unit == link && i < op->n_blocks + op->extra; i++, n++) {
            if (ids != NULL) {
                ids[n] = op->ids[i];
            }
        }
    }
    return n;
}

void tqi_simple_puts_new_session(tqi_simple *simple)
{
    for (tqi_simple_link *link = simple->links; link != NULL; link = link->hh.next) {
        link->n_stock = 0;
        if (link->channel == NULL) {
            continue; /* nothing was reserved there */
        }
        uint64_t *busy = malloc(put_busy(link, NULL) * sizeof(*busy) + 1);
        if (busy == NULL) {
            tqi_log(TQI_WARN, "client", "storage unit '%s' keeps blocks of puts until this process ends: out of memory",
                    link->name);
            continue;
        }
        size_t n = put_busy(link, busy);
        tqi_simple_link_finish(link, busy, n, true);
        free(busy);
    }
}

void tqi_simple_put_fail(tqi_simple_put_op *op, const tq_error *err)
{
    tq_manager_host *host = op->simple->host;
    tq_put_job *job = op->job;

    tqi_simple_put_free(op);
    host->put_finish(host, job, err, NULL, 0, NULL, 0);
}

static void put_end_cancelled(tqi_simple_put_op *op)
{
    tq_error err = {0};

    tqi_error_set(&err, TQ_ECANCELED, "the put was cancelled before its bytes were stored");
    tqi_simple_put_fail(op, &err);
}

/* --- choosing ------------------------------------------------------------- */

static void put_begin(tqi_simple_put_op *op)
{
    tq_error err = {0};

    op->fullest = NULL;
    if (tqi_simple_put_choose(op, &err) != TQ_OK) {
        tqi_simple_put_fail(op, &err);
        return;
    }
    if (op->simple->near.n + op->simple->far.n == 0) {
        tqi_error_set(&err, TQ_EUNREACHABLE,
                      "no storage unit serves this system now: start one (tqd storage --join), or "
                      "see tq status for those that are gone");
        tqi_simple_put_fail(op, op->why.code != TQ_OK ? &op->why : &err);
        return;
    }
    op->last = false;
    put_go(op);
}

static void put_listed(void *arg, const tq_error *err)
{
    tqi_simple_put_op *op = arg;

    if (err != NULL) {
        tq_error copy = *err;
        tqi_simple_put_fail(op, &copy);
        return;
    }
    put_begin(op);
}

static void put_choose(tqi_simple_put_op *op)
{
    tqi_simple *simple = op->simple;

    if (simple->near.n + simple->far.n == 0) {
        tqi_simple_list(simple, true, op->job->deadline_ns, put_listed, op);
        return;
    }
    tqi_simple_refresh(simple);
    put_begin(op);
}

/* --- trying --------------------------------------------------------------- */

/* Starts over with an up-to-date list. */
static void put_restart(tqi_simple_put_op *op, const tq_error *why)
{
    op->why = *why;
    tqi_simple_stock_drop(op->unit);
    tqi_simple_link_drop_ids(op->unit);
    tqi_simple_link_unmap(op->unit);
    if (op->restarts++ >= PUT_RESTARTS) {
        tqi_simple_put_fail(op, why);
        return;
    }
    tqi_simple_list(op->simple, true, op->job->deadline_ns, put_listed, op);
}

/* Waits at the unit with the most room, or at the best one if none has reported its room; without `wait_when_full`, a
 * full store ends the put. */
static void put_last(tqi_simple_put_op *op)
{
    bool full = op->fullest != NULL;

    if (!full && op->why.code == TQ_EUNREACHABLE && op->restarts < PUT_RESTARTS && tqi_now() < op->job->deadline_ns) {
        /* None of them is present. After a restart of the controller they come back one by one, so the list waits for
         * one. */
        op->restarts++;
        tqi_simple_list(op->simple, true, op->job->deadline_ns, put_listed, op);
        return;
    }
    if (!full && op->why.code == TQ_ETIMEDOUT && tqi_now() < op->job->deadline_ns) {
        /* A unit that is stopped or cut off keeps its place in the list until the controller gives it up. Another one
         * may have joined meanwhile, so the list is asked again, and each round gives the units more time than the
         * last. */
        op->rounds++;
        tqi_simple_list(op->simple, true, op->job->deadline_ns, put_listed, op);
        return;
    }
    if (op->last || (full && !op->job->wait_when_full) || tqi_now() >= op->job->deadline_ns) {
        tq_error why = op->why;
        tqi_simple_put_fail(op, &why);
        return;
    }
    op->last = true;
    op->at = 0;
    op->units[0] = full ? op->fullest : op->units[0];
    op->n_units = 1;
    put_try(op);
}

/* None of the first ones has taken it. */
static void put_rest(tqi_simple_put_op *op)
{
    tq_error err = {0};

    if (tqi_simple_put_choose_rest(op, &err) != TQ_OK) {
        tqi_simple_put_fail(op, &err);
    } else if (op->n_units == 0) {
        put_choose(op); /* all have gone meanwhile */
    } else {
        put_go(op);
    }
}

/* If the list did not arrive, there may still be other units to try. */
static void put_rest_listed(void *arg, const tq_error *err)
{
    tqi_simple_put_op *op = arg;

    if (err != NULL && err->code == TQ_ECLOSED) {
        tq_error copy = *err;
        tqi_simple_put_fail(op, &copy);
        return;
    }
    put_rest(op);
}

/* Continues with the next unit, or with what remains if there is none. */
static void put_go(tqi_simple_put_op *op)
{
    tqi_simple *simple = op->simple;

    if (op->at < op->n_units) {
        put_try(op);
    } else if (op->all || op->last) {
        put_last(op);
    } else if (op->n_units < simple->near.n + simple->far.n && tqi_now() - simple->listed_at > PUT_FRESH_NS) {
        tqi_simple_list(simple, false, tqi_simple_try(0, 0, op->job->deadline_ns), put_rest_listed, op);
    } else {
        put_rest(op);
    }
}

static void put_next(tqi_simple_put_op *op)
{
    op->at++;
    put_go(op);
}

/* Decides what a failed step at a unit means for the put. */
void tqi_simple_put_failed_at(tqi_simple_put_op *op, const tq_error *err)
{
    tq_error why = *err;

    if (op->cancelled) {
        put_end_cancelled(op);
        return;
    }
    switch (err->code) {
    case TQ_EFULL:
        op->why = why;
        tqi_simple_put_note_full(op, op->unit);
        if (tqi_simple_put_possible(op, op->unit) &&
            (op->fullest == NULL || tqi_simple_put_free_bytes(op->unit) > tqi_simple_put_free_bytes(op->fullest))) {
            op->fullest = op->unit;
        }
        put_next(op);
        return;
    case TQ_EUNREACHABLE:
    case TQ_ETIMEDOUT:
        op->unit->silent = true;
        if (op->last && op->why.code == TQ_EFULL) {
            /* It waited there for room. Without this unit nobody knows that the storage is full. */
            op->last = false;
            op->fullest = NULL;
            op->why.code = TQ_OK;
        }
        if (op->why.code != TQ_EFULL) {
            tqi_error_set(&op->why, err->code, "storage unit '%s': %s", op->unit->name, err->message);
        }
        op->simple->listed_at = 0; /* the list may have news */
        put_next(op);
        return;
    case TQ_ESTALE:
        put_restart(op, &why);
        return;
    default:
        tqi_simple_put_fail(op, &why);
    }
}

static void put_waited(tqi_simple_pending *wait, const tq_error *err)
{
    tqi_simple_put_op *op = (tqi_simple_put_op *)wait;

    if (err != NULL) {
        tqi_simple_put_failed_at(op, err);
    } else if (op->cancelled) {
        put_end_cancelled(op);
    } else {
        put_try(op);
    }
}

/* Another unit is tried soon, because a put must make progress within a second of a unit's death, and asking for
 * memory and for room takes two requests. A unit that is merely slow only loses this put. If all answers take long, as
 * they do with thousands of clients, no other unit would be faster, and asking two would make it worse. */
static uint64_t put_deadline(const tqi_simple_put_op *op)
{
    uint64_t usual = PUT_TRY_ANSWERS * op->simple->answer_ns;
    uint64_t time = PUT_TRY_NS << (op->rounds < PUT_ROUNDS ? op->rounds : PUT_ROUNDS);
    uint64_t end = tqi_now() + (usual > time ? usual : time);

    return op->last || end > op->job->deadline_ns ? op->job->deadline_ns : end;
}

/* There is no room for more than the put itself: tries the same unit once more, for the put alone. */
static void put_without_stock(tqi_simple_put_op *op)
{
    op->extra = 0;
    op->no_stock = true;
    put_try(op);
}

static void put_reserved(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_simple_put_op *op = arg;
    const Tq__UnitReserveReply *reply = (const Tq__UnitReserveReply *)answer->reply;
    uint32_t n = op->n_blocks + op->extra;
    tq_error err = {0};

    (void)call;
    op->reserving = NULL;
    bool leaves = tqi_simple_put_wait_end(op);
    op->unit->stocking = op->unit->stocking && op->extra == 0;
    if (answer->status == TQ_OK && !op->last) {
        tqi_simple_took(op->simple, op->asked_at);
    }
    if (answer->status == TQ_EFULL) {
        tqi_simple_link_put_back(op->unit, op->ids, n, &op->grants, &op->from); /* surely not used */
    } else if (answer->status != TQ_OK) {
        tqi_simple_put_abandon(op, n);
    }
    if (answer->status == TQ_EFULL && op->extra > 0 && !op->cancelled) {
        put_without_stock(op);
        return;
    }
    if (answer->status == TQ_ECANCELED && leaves && !op->cancelled) {
        put_begin(op);
        return;
    }
    if (answer->status != TQ_OK) {
        op->extra = 0;
        tqi_simple_put_failed_at(op, answer->error);
        return;
    }
    op->unit->silent = false;
    if (reply->n_offset != n || reply->n_slot != n) {
        tqi_simple_put_abandon(op, n);
        tqi_error_set(&err, TQ_EPROTO, "storage unit '%s' reserved %zu blocks, asked were %u", op->unit->name,
                      reply->n_offset, n);
        tqi_simple_put_fail(op, &err);
        return;
    }
    memcpy(op->offsets, reply->offset, n * sizeof(*op->offsets));
    memcpy(op->slots, reply->slot, n * sizeof(*op->slots));
    if (op->extra > 0) {
        tqi_simple_stock_fill(op);
    }
    if (op->cancelled) {
        tqi_simple_put_abandon(op, op->n_blocks);
        put_end_cancelled(op);
        return;
    }
    tqi_simple_put_write(op);
}

/* The grants in the form of the message: few, except for a put of hundreds of columns. */
#define PUT_GRANTS 4u
typedef struct put_grants {
    Tq__Grant few[PUT_GRANTS], *few_list[PUT_GRANTS];
    Tq__Grant *grants, **list;
} put_grants;

static int put_grants_make(const tqi_simple_put_op *op, put_grants *made)
{
    size_t n = op->grants.n;

    made->grants = n > PUT_GRANTS ? calloc(n, sizeof(*made->grants)) : made->few;
    made->list = n > PUT_GRANTS ? calloc(n, sizeof(Tq__Grant *)) : made->few_list;
    if (made->grants == NULL || made->list == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        const tqi_simple_grant *grant = &op->grants.grants[i];
        tq__grant__init(&made->grants[i]);
        made->grants[i].first = grant->first;
        made->grants[i].count = grant->count;
        made->grants[i].proof.data = tqi_unconst(grant->proof);
        made->grants[i].proof.len = TQI_NET_GRANT;
        made->list[i] = &made->grants[i];
    }
    return TQ_OK;
}

static void put_grants_fini(put_grants *made)
{
    if (made->grants != made->few) {
        free(made->grants);
        free(made->list);
    }
}

static int put_reserve(tqi_simple_put_op *op, tqi_net_channel *channel, tq_error *err)
{
    Tq__UnitReserve message;
    put_grants grants;
    uint64_t deadline = put_deadline(op);

    tq__unit_reserve__init(&message);
    message.id = op->ids;
    message.n_id = op->n_blocks + op->extra;
    message.size = op->sizes;
    message.n_size = op->n_blocks + op->extra;
    /* What is reserved ahead may be for new samples, and is not worth waiting for. */
    message.adds_samples = op->job->adds_samples || op->extra > 0;
    message.incarnation = op->from.incarnation;
    int rc = put_grants_make(op, &grants);
    message.grant = grants.list;
    message.n_grant = op->grants.n;
    message.wait = op->last && op->job->wait_when_full && op->extra == 0;
    if (message.wait && deadline != TQI_NEVER) {
        uint64_t now = tqi_now();
        uint64_t ms = deadline > now ? (deadline - now) / 1000000 : 0;
        /* An eighth of a short time, so that the unit's answer, which says how full it is, comes in time. */
        uint64_t slack = ms / 8 < PUT_SLACK_MS ? ms / 8 : PUT_SLACK_MS;
        message.timeout_ms = ms - slack > 0 ? ms - slack : 1;
    }
    tqi_net_call_args args = {
        .kind = TQI_UNIT_RESERVE,
        .message = &message.base,
        .deadline = deadline,
        .done = put_reserved,
        .arg = op,
    };
    rc = rc != TQ_OK ? tqi_error_nomem(err, "the grants of a put")
                     : tqi_net_call_start(channel, &args, &op->reserving, err);
    put_grants_fini(&grants);
    if (rc == TQ_OK && message.wait) {
        tqi_simple_put_wait_begin(op);
    }
    op->asked_at = tqi_now();
    return rc;
}

/* Grants ids for the put, and for what it reserves ahead. */
static int put_take(tqi_simple_put_op *op)
{
    tqi_simple_link *unit = op->unit;
    uint32_t extra = tqi_simple_stock_want(op);

    op->extra = 0;
    unit->stocking = unit->stocking && extra == 0;
    uint64_t deadline = /* the controller's */
        op->last ? op->job->deadline_ns : tqi_simple_try(0, 0, op->job->deadline_ns);
    int rc = tqi_simple_link_take(unit, op->ids, op->n_blocks + extra, &op->grants, &op->from, deadline, &op->wait);
    /* With TQ_EAGAIN the put may be over already, and freed: there was no memory to ask for a grant. */
    if (rc == TQ_OK && extra > 0) {
        op->extra = extra;
        unit->stocking = true;
    }
    return rc;
}

/* Gives back what put_take took and nobody used. */
static void put_give_back(tqi_simple_put_op *op)
{
    tqi_simple_link_put_back(op->unit, op->ids, op->n_blocks + op->extra, &op->grants, &op->from);
    op->unit->stocking = op->unit->stocking && op->extra == 0;
    op->extra = 0;
}

/* One step at a unit: requests whatever is missing; put_waited comes back here. */
static void put_try(tqi_simple_put_op *op)
{
    tqi_simple_link *unit = op->units[op->at];
    tqi_net_channel *channel = NULL;
    tq_error err = {0};

    op->unit = unit;
    op->wait.fn = put_waited;
    int rc = tqi_simple_link_channel(unit, &channel, &err);
    if (rc == TQ_OK) {
        rc = tqi_simple_link_map(unit, put_deadline(op), &op->wait, &err);
    }
    if (rc == TQ_OK && tqi_simple_stock_take(op)) {
        tqi_simple_put_write(op);
        return;
    }
    if (rc == TQ_OK) {
        rc = put_take(op);
        if (rc == TQ_ENOMEM) {
            tqi_error_nomem(&err, "block ids");
        }
    }
    if (rc == TQ_EAGAIN) {
        return;
    }
    if (rc == TQ_OK && unit->mapping != NULL && unit->mapping->incarnation != op->from.incarnation) {
        /* The ids are from a different run of the unit than our mapping: requests the newer one. */
        put_give_back(op);
        tqi_simple_link_unmap(unit);
        if (op->remaps++ < PUT_RESTARTS) {
            put_try(op);
            return;
        }
        tqi_error_set(&err, TQ_ESTALE, "storage unit '%s' is another run of it now", unit->name);
        tqi_simple_put_failed_at(op, &err);
        return;
    }
    if (rc == TQ_OK) {
        rc = put_reserve(op, channel, &err);
        if (rc != TQ_OK) {
            put_give_back(op);
        }
    }
    if (rc != TQ_OK) {
        tqi_simple_put_failed_at(op, &err);
    }
}

/* --- start ---------------------------------------------------------------- */

void tqi_simple_put(void *state, tq_put_job *job)
{
    tqi_simple *simple = state;
    tqi_simple_put_op *op = calloc(1, sizeof(*op));
    tq_error err = {0};

    if (op == NULL) {
        tqi_error_nomem(&err, "a put");
        simple->host->put_finish(simple->host, job, &err, NULL, 0, NULL, 0);
        return;
    }
    op->simple = simple;
    op->job = job;
    DL_APPEND(simple->puts, op);
    if (tqi_simple_put_layout(op, &err) != TQ_OK) {
        tqi_simple_put_fail(op, &err);
        return;
    }
    put_choose(op);
}

void tqi_simple_cancel(void *state, tq_put_job *job)
{
    tqi_simple *simple = state;
    tqi_simple_put_op *op = NULL;

    DL_SEARCH_SCALAR(simple->puts, op, job, job);
    if (op == NULL) {
        return; /* it has ended */
    }
    op->cancelled = true; /* where it cannot be stopped now, it is when the step it is at ends with an error */
    if (op->reserving != NULL) {
        tqi_net_call_cancel(op->reserving);
    } else if (tqi_simple_query_leave(simple, op) || tqi_simple_wait_leave(&op->wait)) {
        put_end_cancelled(op);
    }
}
