/*
 * notice.c - logs a call that has been waiting for a long time, and what it is waiting for, while it waits. Calls that
 * may wait only record when they began. One timer per client checks them; when one is older than the notice time, the
 * client asks the controller once what this session is waiting for. The controller answers with what it has not yet
 * told this session, so nothing is remembered here. A put may have been looking for a unit until then and start to
 * wait at the controller a moment later: if the answer is empty, the client asks again after the same time, a few
 * times. A training loop may well wait in every step: a wait that does not look wrong is logged once a minute.
 */
#include "client/runtime.h"

#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "config_keys.h"

#define NOTICE_AGAIN_MS 60000u
#define NOTICE_ASKS     3u
/* How long to wait for the controller's answer. */
#define NOTICE_CALL_NS UINT64_C(5000000000)

static void notice_due(uv_timer_t *timer);

void tqi_client_notice_init(tqi_client_runtime *rt, const char *config)
{
    double seconds = rt->client->options.notice;
    json_t *root = seconds != 0 ? NULL : json_loads(config, 0, NULL);
    const json_t *value = json_object_get(json_object_get(root, "client"), "wait_notice");

    if (seconds == 0) {
        seconds = json_is_number(value) ? json_number_value(value) : TQI_CONFIG_CLIENT_WAIT_NOTICE_DEFAULT;
    }
    json_decref(root);
    rt->notice_ms = seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds * 1000) : 0;
}

void tqi_client_notice_start(tqi_client_runtime *rt)
{
    rt->noticing = true;
    uv_timer_start(&rt->notice_timer, notice_due, rt->notice_ms, 0);
}

static void notice_log(tqi_client_runtime *rt, const Tq__WaitInfo *info)
{
    bool put = strcmp(info->kind, "put") == 0;
    uint64_t now = uv_now(&rt->loop);
    uint64_t *next = put ? &rt->next_put_notice : &rt->next_claim_notice;
    double age = (double)info->age_ms / 1000.0;
    char fields[128];
    tqi_text list = tqi_text_begin(fields, sizeof(fields));

    if (!info->suspect && now < *next) {
        return;
    }
    *next = now + NOTICE_AGAIN_MS;
    if (put && !info->owner[0]) {
        tqi_log(TQI_WARN, "client", "a put has waited %.1f s for a storage unit: %s", age, info->missing);
        return;
    }
    if (put) {
        tqi_log(TQI_WARN, "client", "a put has waited %.1f s for room in storage unit '%s': %s", age, info->owner,
                info->missing);
        return;
    }
    tqi_text_add_names(&list, info->field, info->n_field);
    tqi_log(TQI_WARN, "client",
            "a claim of %llu sample%s of partition '%s' by task '%s' with fields %s has waited "
            "%.1f s: %llu ready; %s",
            (unsigned long long)info->wanted, tqi_text_s(info->wanted), info->partition, info->task, fields, age,
            (unsigned long long)info->ready, info->missing);
}

/* Nothing is known of what waits. */
static void notice_again(tqi_client_runtime *rt)
{
    for (tqi_client_task *task = rt->tasks; task != NULL; task = task->next) {
        if (task->asks > 0 && task->asks < NOTICE_ASKS && !task->waits_since) {
            tqi_client_notice_watch(task);
        }
    }
}

static void notice_answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_client_runtime *rt = arg;
    const Tq__SystemStatusReply *reply = (const Tq__SystemStatusReply *)answer->reply;

    (void)call;
    if (answer->status != TQ_OK) {
        return; /* if the controller is unreachable, another log line says so */
    }
    for (size_t i = 0; i < reply->n_wait; i++) {
        notice_log(rt, reply->wait[i]);
    }
    if (reply->n_wait == 0) {
        notice_again(rt);
    }
}

static void notice_ask(tqi_client_runtime *rt)
{
    Tq__SystemStatus message = TQ__SYSTEM_STATUS__INIT;
    tqi_net_call_args args = {
        .kind = TQI_SYSTEM_STATUS,
        .message = &message.base,
        .deadline = tqi_now() + NOTICE_CALL_NS,
        .done = notice_answered,
        .arg = rt,
    };
    tqi_net_call *call;

    message.mine = true;
    /* The call began here slightly before the wait there. */
    message.older_ms = rt->notice_ms / 2;
    if (!rt->stopping && rt->controller != NULL) {
        tqi_net_call_start(rt->controller, &args, &call, NULL);
    }
}

static void notice_due(uv_timer_t *timer)
{
    tqi_client_runtime *rt = timer->data;
    uint64_t now = uv_now(&rt->loop);
    uint64_t next = UINT64_MAX;
    bool due = false;

    for (tqi_client_task *task = rt->tasks; task != NULL; task = task->next) {
        if (task->waits_since && now - task->waits_since >= rt->notice_ms) {
            task->waits_since = 0;
            task->asks++;
            due = true;
        } else if (task->waits_since && task->waits_since < next) {
            next = task->waits_since;
        }
    }
    if (due) {
        notice_ask(rt);
    }
    rt->noticing = next != UINT64_MAX;
    if (rt->noticing) {
        uv_timer_start(timer, notice_due, next + rt->notice_ms - now, 0);
    }
}
