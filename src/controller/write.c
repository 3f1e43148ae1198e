/*
 * write.c - requests that change samples: publish, reserve, clear, reset of consumption.
 *
 * Each is one call to the table, which is all or nothing. A refused publish kills its blocks at once: their writer has
 * finished with them and will not name them again.
 */
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/pointer.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/meter.h"
#include "controller/reply.h"
#include "controller/two_phase_clear.h"
#include "sampler/sampler.h"

static void write_event(tqi_controller *ctl, tqi_net_request *request, const char *kind, const char *partition,
                        const char *task, size_t samples, uint64_t bytes)
{
    const tqi_ctl_happened event = {
        .kind = kind,
        .session = tqi_ctl_session_name(request),
        .partition = partition,
        .task = task,
        .samples = (uint32_t)samples,
        .bytes = bytes,
    };

    tqi_ctl_event_add(ctl, &event);
}

/* --- publish -------------------------------------------------------------- */

/* Blocks of a refused publish die if they were granted to the session and it has not published them; all others are
 * left alone. */
static void publish_abandon(tqi_controller *ctl, tqi_net_request *request, const Tq__Batch *batch)
{
    uint64_t session = tqi_ctl_session_number(request);

    for (size_t i = 0; i < batch->n_block; i++) {
        uint64_t id = batch->block[i]->id;
        tq_error ignored = {0};
        /* One by one, because the table accepts or refuses a list as a whole; ids of other sessions must not be
         * touched. */
        if (tqi_table_abandon(ctl->table, session, &id, 1, true, &ignored) == TQ_ENOMEM) {
            tqi_log(TQI_WARN, "controller", "block %llu of a refused publish is kept until its session ends",
                    (unsigned long long)id);
        }
    }
}

/* How the samples are named, and how many there are. */
static int publish_naming(const Tq__Publish *msg, tqi_table_naming *naming, size_t *n, tq_error *err)
{
    const Tq__Batch *batch = msg->batch;

    if (batch->n_index && msg->samples) {
        return tqi_error_set(err, TQ_EINVAL, "publish names samples by index and asks for %u new ones",
                             (unsigned)msg->samples);
    }
    if (batch->n_index) {
        *naming = TQI_TABLE_BY_INDEX;
        *n = batch->n_index;
    } else if (msg->samples) {
        *naming = TQI_TABLE_NEW;
        *n = msg->samples;
    } else {
        *naming = TQI_TABLE_BY_KEY;
        *n = batch->n_key;
        for (size_t i = 0; i < batch->n_key; i++) {
            int rc = tqi_check_name("key", batch->key[i], TQ_KEY_MAX, err);
            if (rc) {
                return rc;
            }
        }
    }
    if (*n == 0) {
        return tqi_error_set(err, TQ_EINVAL, "publish in partition '%s' names no samples", batch->partition);
    }
    if (*n > TQI_CTL_SAMPLES_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "publish of %zu samples in partition '%s', at most %u are possible", *n,
                             batch->partition, TQI_CTL_SAMPLES_MAX);
    }
    return TQ_OK;
}

/* The reply to a publish or reserve. It, and the memory that it is sent from, are allocated before the table changes,
 * so that work that was done is never answered with an error. */
typedef struct write_answer {
    tqi_controller *ctl;
    tqi_net_request *request;
    const char *what;
    tqi_table_result result;
    tqi_region conv;
    Tq__Batch batch;
    Tq__PublishReply publish;
    Tq__ReserveReply reserve;
    ProtobufCMessage *message; /* one of these two */
} write_answer;

static void write_answer_init(write_answer *answer, tqi_controller *ctl, tqi_net_request *request, const char *what)
{
    *answer = (write_answer){.ctl = ctl, .request = request, .what = what, .conv = {.next = TQI_CTL_CONV_FIRST}};
    tq__publish_reply__init(&answer->publish);
    tq__reserve_reply__init(&answer->reserve);
}

static void write_answer_fini(write_answer *answer)
{
    tqi_region_fini(&answer->conv);
    tqi_table_result_fini(&answer->result);
}

static int write_accept(const tqi_table_result *result, void *arg, tq_error *err)
{
    write_answer *answer = arg;

    answer->publish.batch = answer->reserve.batch = &answer->batch;
    int rc =
        tqi_ctl_conv_batch_out(&answer->conv, &result->batch, tqi_table_epoch(answer->ctl->table), &answer->batch, err);
    answer->publish.other_field = tqi_unconst(result->other_fields);
    answer->publish.n_other_field = result->n_other_fields;
    return rc ? rc : tqi_ctl_prepare_reply(answer->request, answer->message, answer->what, result->batch.n, err);
}

static int publish_apply(tqi_controller *ctl, tqi_net_request *request, const Tq__Publish *msg, write_answer *answer,
                         tq_error *err)
{
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    tqi_table_batch batch = {0};
    tqi_table_publish_args publish = {
        .batch = &batch,
        .create = msg->create,
        .other_fields = msg->other_fields,
        .session = tqi_ctl_session_number(request),
        .accept = write_accept,
        .accept_arg = answer,
    };
    size_t n = 0;
    int rc = tqi_check_name("partition", msg->batch->partition, TQ_NAME_MAX, err);

    rc = rc ? rc : publish_naming(msg, &publish.naming, &n, err);
    rc = rc ? rc : tqi_ctl_conv_batch_in(&conv, msg->batch, n, &batch, err);
    rc = rc ? rc : tqi_table_publish(ctl->table, &publish, &answer->result, err);
    if (rc == TQ_OK) {
        tqi_ctl_meter_published(ctl->meter, &batch);
    }
    tqi_region_fini(&conv);
    return rc;
}

static uint64_t publish_bytes(const Tq__Batch *batch)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < batch->n_block; i++) {
        bytes += batch->block[i]->size;
    }
    return bytes;
}

int tqi_ctl_on_publish(tqi_controller *ctl, tqi_net_request *request, const Tq__Publish *msg, tq_error *err)
{
    write_answer answer;
    tqi_ctl_clearing *replaced = NULL;
    Tq__Clearing clearing;

    if (msg->batch == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "publish without a batch");
    }
    /* Block ids of another epoch mean nothing here: such a publish is refused without touching them. */
    int rc = tqi_ctl_check_epoch(ctl, msg->batch->epoch, "metadata of the publish", err);
    if (rc) {
        return rc;
    }
    write_answer_init(&answer, ctl, request, "publish");
    answer.message = &answer.publish.base;
    rc = msg->remover[0] ? tqi_ctl_clearing_replaced(ctl, msg, &replaced, &clearing, err) : TQ_OK;
    if (replaced != NULL) {
        clearing.id = UINT64_MAX; /* placeholder for the one set below, at least as long */
        answer.publish.replaced = &clearing;
    }
    rc = rc ? rc : publish_apply(ctl, request, msg, &answer, err);
    if (rc) {
        tqi_ctl_clearing_drop(replaced);
        publish_abandon(ctl, request, msg->batch);
    } else {
        write_event(ctl, request, "put", msg->batch->partition, NULL, answer.result.batch.n, publish_bytes(msg->batch));
        if (replaced != NULL) {
            clearing.id = tqi_ctl_clearing_begun(ctl, request, replaced);
        }
        tqi_ctl_reply(request, answer.message);
    }
    write_answer_fini(&answer);
    return rc;
}

/* --- reserve -------------------------------------------------------------- */

static int reserve_check(const Tq__Reserve *msg, size_t *n, tq_error *err)
{
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    if (rc) {
        return rc;
    }
    if ((msg->n_key != 0) == (msg->samples != 0)) {
        return tqi_error_set(err, TQ_EINVAL, "reserve in partition '%s': %zu keys and %u new samples", msg->partition,
                             msg->n_key, (unsigned)msg->samples);
    }
    *n = msg->n_key ? msg->n_key : msg->samples;
    if (*n > TQI_CTL_SAMPLES_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "reserve of %zu samples in partition '%s', at most %u are possible", *n,
                             msg->partition, TQI_CTL_SAMPLES_MAX);
    }
    for (size_t i = 0; i < msg->n_key && rc == TQ_OK; i++) {
        rc = tqi_check_name("key", msg->key[i], TQ_KEY_MAX, err);
    }
    return rc ? rc : tqi_ctl_conv_check_count("group", msg->n_group, *n, err);
}

int tqi_ctl_on_reserve(tqi_controller *ctl, tqi_net_request *request, const Tq__Reserve *msg, tq_error *err)
{
    write_answer answer;
    size_t n = 0;
    int rc = reserve_check(msg, &n, err);

    if (rc) {
        return rc;
    }
    const tqi_table_batch batch = {
        .partition = msg->partition,
        .n = n,
        .keys = msg->n_key ? (const char *const *)msg->key : NULL,
        .groups = msg->n_group ? (const char *const *)msg->group : NULL,
    };
    const tqi_table_publish_args publish = {
        .batch = &batch,
        .naming = msg->n_key ? TQI_TABLE_BY_KEY : TQI_TABLE_NEW,
        .create = true,
        .accept = write_accept,
        .accept_arg = &answer,
    };
    write_answer_init(&answer, ctl, request, "reserve");
    answer.message = &answer.reserve.base;
    rc = tqi_table_publish(ctl->table, &publish, &answer.result, err);
    if (rc == TQ_OK) {
        write_event(ctl, request, "reserve", msg->partition, NULL, answer.result.batch.n, 0);
        tqi_ctl_reply(request, answer.message);
    }
    write_answer_fini(&answer);
    return rc;
}

/* --- clear, reset --------------------------------------------------------- */

static int clear_apply(tqi_controller *ctl, const Tq__Clear *msg, uint32_t *cleared, tq_error *err)
{
    uint32_t by_key = 0;
    uint32_t by_index = 0;
    int rc = TQ_OK;

    if (msg->all) {
        rc = tqi_table_clear_partition(ctl->table, msg->partition, cleared, err);
        if (rc == TQ_OK) {
            tqi_sampler_forget(msg->partition);
        }
        return rc;
    }
    if (msg->n_key) {
        rc = tqi_table_clear_keys(ctl->table, msg->partition, (const char *const *)msg->key, msg->n_key, &by_key, err);
    } else if (msg->n_index) {
        rc = tqi_table_clear_indexes(ctl->table, msg->partition, msg->index,
                                     msg->n_incarnation ? msg->incarnation : NULL, msg->n_index, &by_index, err);
    }
    *cleared = by_key + by_index;
    return rc;
}

int tqi_ctl_on_clear(tqi_controller *ctl, tqi_net_request *request, const Tq__Clear *msg, tq_error *err)
{
    Tq__ClearReply reply = TQ__CLEAR_REPLY__INIT;
    uint32_t cleared = 0;
    int rc = tqi_ctl_check_clear(msg, err);

    if (rc) {
        return rc;
    }
    /* Metadata of another epoch names nothing that exists here. */
    if (msg->epoch == 0 || msg->epoch == tqi_table_epoch(ctl->table)) {
        rc = clear_apply(ctl, msg, &cleared, err);
        if (rc) {
            return rc;
        }
    }
    if (cleared || msg->all) {
        write_event(ctl, request, "clear", msg->partition, NULL, cleared, 0);
    }
    reply.samples = cleared;
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}

int tqi_ctl_on_reset_consumption(tqi_controller *ctl, tqi_net_request *request, const Tq__ResetConsumption *msg,
                                 tq_error *err)
{
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    if (rc == TQ_OK && msg->task[0]) {
        rc = tqi_check_name("task", msg->task, TQ_NAME_MAX, err);
    }
    rc = rc ? rc : tqi_table_reset_consumption(ctl->table, msg->partition, msg->task, err);
    if (rc) {
        return rc;
    }
    write_event(ctl, request, "reset", msg->partition, msg->task, 0, 0);
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}
