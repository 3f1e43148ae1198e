/*
 * claim.c - claims: taken at once, or waiting in the list of their view until a change serves them.
 *
 * A view belongs to one task and field set of a partition. Its waiters are served in order of arrival; one that asks
 * for more than is ready neither holds up those behind it nor is tried (queue.h). A served claim belongs to its client
 * once the reply is acknowledged; until then, its samples go back if the session ends.
 */
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/pointer.h"
#include "base/text.h"
#include "controller/claims.h"
#include "controller/controller.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/meter.h"
#include "controller/queue.h"
#include "controller/reply.h"
#include "controller/session.h"
#include "controller/wake.h"

/* What must happen once the client has received the reply, or never will. */
typedef struct claim_receipt {
    tqi_controller *ctl;
    uint64_t session;
    uint64_t claim;
} claim_receipt;

typedef struct claim_wait {
    tqi_net_waiter base;  /* first: waits are known by it */
    tqi_ctl_meter_op *op; /* where its failure is counted; NULL: nowhere */
    const Tq__Claim *msg; /* lives until the request ends */
    const tq_sampler *sampler;
    tq_pick_request pick; /* prepared; strings are the message's */
    tqi_table_view *view; /* held */
    uint64_t since;       /* when it arrived, for the metrics */
    tqi_ctl_meter_name *meter;
    tqi_table_result result;
    bool filled;               /* its pick was cached for others, or for itself */
    claim_receipt *receipt;    /* made before anything is taken */
    tqi_ctl_claim_place place; /* in the queue of the view */
    tqi_ctl_session *session;
    tqi_ctl_waiting_claim waiter; /* in the list of the session */
} claim_wait;

static void claim_settled(bool acked, void *arg)
{
    claim_receipt *receipt = arg;
    tqi_controller *ctl = receipt->ctl;

    if (acked) {
        tqi_table_claim_settle(ctl->table, receipt->claim);
    } else {
        tqi_table_claim_release(ctl->table, receipt->session, receipt->claim);
    }
    free(receipt);
    ctl->wake(ctl);
}

/* Sends a batch as the reply of a claim; on an error nothing was sent. */
static int claim_reply(tqi_controller *ctl, tqi_net_request *request, const tqi_table_result *result,
                       claim_receipt **receipt, tq_error *err)
{
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    Tq__Batch batch;
    Tq__ClaimReply reply = TQ__CLAIM_REPLY__INIT;
    int rc = tqi_ctl_conv_batch_out(&conv, &result->batch, tqi_table_epoch(ctl->table), &batch, err);

    if (rc == TQ_OK) {
        reply.batch = &batch;
        reply.claim = result->claim;
        rc = tqi_ctl_check_reply(&reply.base, "claim", result->batch.n, err);
    }
    if (rc == TQ_OK) {
        if (receipt != NULL && result->claim) {
            (*receipt)->ctl = ctl;
            (*receipt)->session = tqi_ctl_session_number(request);
            (*receipt)->claim = result->claim;
            tqi_net_request_on_settled(request, claim_settled, *receipt);
            *receipt = NULL;
        }
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_region_fini(&conv);
    return rc;
}

static void claim_event(tqi_controller *ctl, tqi_net_request *request, const Tq__Claim *msg,
                        const tqi_table_result *result)
{
    const tqi_ctl_happened event = {
        .kind = "claim",
        .session = tqi_ctl_session_name(request),
        .partition = msg->partition,
        .task = msg->task,
        .samples = (uint32_t)result->batch.n,
        .bytes = result->bytes,
    };

    tqi_ctl_event_add(ctl, &event);
}

static void claim_cached(const char *slot, void *arg)
{
    claim_wait *wait = arg;

    wait->filled = true;
    tqi_ctl_claim_queue_filled(wait->view, slot);
}

/* Tries to take the samples of a claim: TQ_OK with wait->result filled, TQ_EAGAIN, or another error. */
static int claim_take(tqi_controller *ctl, tqi_net_request *request, claim_wait *wait, tq_error *err)
{
    tqi_sampler_told told = {.cached = claim_cached, .arg = wait};

    if (wait->sampler->kept != NULL && tqi_table_view_ready(wait->view) > 0) {
        ctl->keeps++; /* it may pick, and then keep */
    }
    int rc = tqi_sampler_claim(wait->sampler, wait->view, &wait->pick, tqi_ctl_session_number(request), wait->msg->tags,
                               &wait->result, &told, err);
    if (rc == TQ_OK) {
        claim_event(ctl, request, wait->msg, &wait->result);
        tqi_ctl_meter_claimed(ctl->meter, wait->msg->task, wait->since);
    }
    return rc;
}

/* --- waiting -------------------------------------------------------------- */

static void claim_free(claim_wait *wait)
{
    if (wait != NULL) {
        if (wait->view != NULL) {
            tqi_table_view_unref(wait->view);
        }
        tqi_sampler_release(&wait->pick);
        tqi_table_result_fini(&wait->result);
        free(wait->receipt);
        free(wait);
    }
}

static void claim_leave(tqi_net_waiter *base)
{
    claim_wait *wait = (claim_wait *)base;

    tqi_ctl_claim_queue_remove(wait->view, &wait->place);
    DL_DELETE(wait->session->waiters, &wait->waiter);
    tqi_ctl_of(base->waiters)->waiting--;
    if (wait->meter != NULL) {
        wait->meter->waiting--;
    }
}

static void claim_answer(tqi_net_waiter *base)
{
    claim_wait *wait = (claim_wait *)base;
    tq_error err = {0};

    if (claim_reply(tqi_ctl_of(base->waiters), base->request, &wait->result, &wait->receipt, &err) != TQ_OK) {
        tqi_table_claim_release(tqi_ctl_of(base->waiters)->table, tqi_ctl_session_number(base->request),
                                wait->result.claim);
        tqi_net_request_fail(base->request, &err);
    }
}

static void claim_describe(const tqi_net_waiter *base, tq_error *err)
{
    const claim_wait *wait = (const claim_wait *)base;
    char fields[128];
    tqi_text list = tqi_text_begin(fields, sizeof(fields));
    char missing[TQI_CTL_SHORTAGE];
    char up[32];

    tqi_text_add_names(&list, wait->msg->field, wait->msg->n_field);
    tqi_ctl_shortage(wait->view, wait->sampler, &wait->pick, missing, sizeof(missing));
    tqi_error_set(err, TQ_ETIMEDOUT,
                  "claim of %u sample%s of partition '%.128s' by task '%.64s' with fields %s: %u ready after "
                  "%llu ms; %s; asked the system at %s, which has been up for %s",
                  (unsigned)wait->pick.batch_size, tqi_text_s(wait->pick.batch_size), wait->msg->partition,
                  wait->msg->task, fields, (unsigned)tqi_table_view_ready(wait->view),
                  (unsigned long long)wait->msg->timeout_ms, missing,
                  tqi_controller_endpoint(tqi_ctl_of(base->waiters)), tqi_ctl_uptime(tqi_ctl_of(base->waiters), up));
}

int tqi_ctl_claim_info(const tqi_ctl_waiting_claim *waiter, tqi_region *conv, Tq__WaitInfo *out, tq_error *err)
{
    const claim_wait *wait = TQI_CONTAINER(waiter, claim_wait, waiter);
    char *missing = tqi_ctl_conv_alloc(conv, TQI_CTL_SHORTAGE, 1, err);

    if (missing == NULL) {
        return TQ_ENOMEM;
    }
    out->suspect = tqi_ctl_shortage(wait->view, wait->sampler, &wait->pick, missing, TQI_CTL_SHORTAGE);
    out->missing = missing;
    out->task = wait->msg->task;
    out->partition = wait->msg->partition;
    out->field = wait->msg->field;
    out->n_field = wait->msg->n_field;
    out->wanted = wait->pick.batch_size;
    out->ready = tqi_table_view_ready(wait->view);
    out->age_ms = (tqi_now() - waiter->since) / 1000000u;
    out->number = waiter->number;
    return TQ_OK;
}

static void claim_failed(const tqi_net_waiter *base, const tq_error *err)
{
    tqi_ctl_meter_failed(((const claim_wait *)base)->op, err->code);
}

static void claim_dispose(tqi_net_waiter *base)
{
    claim_free((claim_wait *)base);
}

static const tqi_net_waiter_type claim_wait_type = {
    .leave = claim_leave,
    .answer = claim_answer,
    .describe = claim_describe,
    .failed = claim_failed,
    .dispose = claim_dispose,
};

/* Marks a waiter ready if it can be served or has failed; false if it keeps waiting. */
static bool claim_try(claim_wait *wait)
{
    tq_error err = {0};
    int rc = claim_take(tqi_ctl_of(wait->base.waiters), wait->base.request, wait, &err);

    if (rc == TQ_EAGAIN) {
        return false;
    }
    if (rc != TQ_OK) {
        wait->base.failure = malloc(sizeof(err));
        if (wait->base.failure == NULL) {
            /* No memory to carry the error: it is tried again at the next change, or times out. */
            tqi_log(TQI_WARN, "controller", "a claim failed without memory to say so: %s", err.message);
            return false;
        }
        *wait->base.failure = err;
    }
    tqi_net_waiter_ready(&wait->base);
    return true;
}

static claim_wait *claim_of(tqi_ctl_claim_place *place)
{
    return place != NULL ? TQI_CONTAINER(place, claim_wait, place) : NULL;
}

/* Serves the waiters that can be served now, oldest first. */
static void claims_serve(tqi_table_view *view)
{
    claim_wait *wait = NULL;

    while ((wait = claim_of(tqi_ctl_claim_queue_next(view))) != NULL) {
        if (claim_try(wait)) {
            tqi_ctl_claim_queue_served(&wait->place);
            tqi_ctl_claim_queue_changed(view, wait->sampler->kept != NULL);
        } else {
            tqi_ctl_claim_queue_failed(&wait->place);
        }
    }
}

void tqi_ctl_claims_gather(tqi_table_view *view)
{
    const claim_wait *first = claim_of(tqi_ctl_claim_queue_first(view));

    if (first != NULL) {
        tqi_ctl_claim_queue_gained(view, tqi_ctl_of(first->base.waiters)->keeps);
        claims_serve(view);
    }
}

void tqi_ctl_claims_move(tqi_table_view *from, tqi_table_view *to, void *unused)
{
    tqi_ctl_claim_place *place = NULL;

    (void)unused;
    DL_FOREACH (tqi_ctl_claim_queue_first(from), place) {
        claim_of(place)->view = to;
    }
    tqi_ctl_claim_queue_move(from, to);
}

/* --- handlers ------------------------------------------------------------- */

static int claim_check(const Tq__Claim *msg, tq_error *err)
{
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    for (size_t i = 0; i < msg->n_field && rc == TQ_OK; i++) {
        rc = tqi_check_name("field", msg->field[i], TQ_NAME_MAX, err);
    }
    if (rc || msg->mode == TQ__CLAIM_MODE__FORCE_FETCH) {
        return rc; /* takes everything: task, size and sampler do not apply */
    }
    if (msg->mode != TQ__CLAIM_MODE__FETCH) {
        return tqi_error_set(err, TQ_EINVAL, "unknown claim mode %d", (int)msg->mode);
    }
    rc = tqi_check_name("task", msg->task, TQ_NAME_MAX, err);
    if (rc) {
        return rc;
    }
    if (msg->n_field == 0) {
        return tqi_error_set(err, TQ_EINVAL, "claim of partition '%s' by task '%s' names no field", msg->partition,
                             msg->task);
    }
    if (msg->batch_size <= 0 || msg->batch_size > UINT32_MAX) {
        return tqi_error_set(err, TQ_ESIZE,
                             "claim of %lld samples of partition '%s' by task '%s': the size must "
                             "be positive and below 2^32",
                             (long long)msg->batch_size, msg->partition, msg->task);
    }
    return TQ_OK;
}

/* Every sample with the fields it has, consumed or not; nothing is marked. */
static int claim_force(tqi_controller *ctl, tqi_net_request *request, const Tq__Claim *msg, tq_error *err)
{
    tqi_table_result result = {0};
    tqi_table_resolve_args resolve = {
        .partition = msg->partition,
        .fields = (const char *const *)msg->field,
        .n_fields = msg->n_field,
        .lenient = true,
        .tags = msg->tags,
    };
    int rc = tqi_table_resolve(ctl->table, &resolve, &result, err);

    if (rc == TQ_OK) {
        rc = claim_reply(ctl, request, &result, NULL, err);
    }
    tqi_table_result_fini(&result);
    return rc;
}

/* Makes a waiter that holds its view and everything that a later success needs. */
static int claim_prepare(tqi_controller *ctl, const Tq__Claim *msg, claim_wait **out, tq_error *err)
{
    claim_wait *wait = calloc(1, sizeof(*wait));

    if (wait == NULL) {
        tqi_error_nomem(err, "a claim");
        return TQ_ENOMEM;
    }
    wait->msg = msg;
    wait->since = tqi_ctl_meter_now(ctl->meter);
    wait->pick = (tq_pick_request){
        .batch_size = (uint32_t)msg->batch_size,
        .partition = msg->partition,
        .task = msg->task,
        .config = msg->config[0] ? msg->config : "{}",
    };
    int rc = tqi_sampler_find(msg->sampler[0] ? msg->sampler : ctl->sampler, &wait->sampler, err);
    if (rc == TQ_OK) {
        rc = tqi_sampler_prepare(wait->sampler, &wait->pick, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_table_view_get(ctl->table, msg->partition, (const char *const *)msg->field, msg->n_field, msg->task,
                                &wait->view, err);
    }
    if (rc == TQ_OK) {
        wait->receipt = calloc(1, sizeof(*wait->receipt));
        rc = wait->receipt != NULL ? TQ_OK : tqi_error_nomem(err, "a claim");
    }
    if (rc) {
        claim_free(wait);
        return rc;
    }
    *out = wait;
    return TQ_OK;
}

/* Parks a claim that could not be served at once. */
static int claim_enqueue(tqi_controller *ctl, tqi_net_request *request, claim_wait *wait, tq_error *err)
{
    const Tq__Claim *msg = wait->msg;
    int rc = tqi_ctl_claim_queue_add(wait->view, &wait->place, ctl->last_wait + 1, wait->sampler, &wait->pick, err);

    if (rc) {
        claim_free(wait);
        return rc;
    }
    tqi_ctl_claim_queue_failed(&wait->place);
    wait->session = tqi_ctl_session_of(request);
    wait->waiter = (tqi_ctl_waiting_claim){.number = ++ctl->last_wait, .since = tqi_now()};
    DL_APPEND(wait->session->waiters, &wait->waiter);
    ctl->waiting++;
    wait->meter = tqi_ctl_meter_task(ctl->meter, msg->task);
    if (wait->meter != NULL) {
        wait->meter->waiting++;
    }
    wait->op = tqi_ctl_meter_op_of(ctl->meter, TQI_CLAIM, &msg->base);
    tqi_net_waiter_add(&ctl->waiters, &wait->base, &claim_wait_type, request, msg->timeout_ms);
    return TQ_OK;
}

int tqi_ctl_on_claim(tqi_controller *ctl, tqi_net_request *request, const Tq__Claim *msg, tq_error *err)
{
    claim_wait *wait = NULL;
    int rc = claim_check(msg, err);

    if (rc) {
        return rc;
    }
    if (msg->mode == TQ__CLAIM_MODE__FORCE_FETCH) {
        return claim_force(ctl, request, msg, err);
    }
    rc = claim_prepare(ctl, msg, &wait, err);
    if (rc) {
        return rc;
    }
    rc = claim_take(ctl, request, wait, err);
    if (rc == TQ_EAGAIN && !msg->poll && !ctl->polling) {
        return claim_enqueue(ctl, request, wait, err);
    }
    if (rc == TQ_OK) {
        rc = claim_reply(ctl, request, &wait->result, &wait->receipt, err);
        if (rc) {
            tqi_table_claim_release(ctl->table, tqi_ctl_session_number(request), wait->result.claim);
        } else if (wait->filled) {
            claims_serve(wait->view);
        }
    }
    claim_free(wait);
    return rc;
}

int tqi_ctl_on_release(tqi_controller *ctl, tqi_net_request *request, const Tq__Release *msg, tq_error *err)
{
    (void)err;
    tqi_table_claim_release(ctl->table, tqi_ctl_session_number(request), msg->claim);
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}
