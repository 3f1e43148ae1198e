/*
 * waiting.c - the list of waiting requests, for people: claims of every session, puts as their units have reported
 * them, and puts for which there is no unit.
 */
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "controller/claims.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/events.h"
#include "controller/owners.h"
#include "controller/reply.h"
#include "controller/session.h"

#define WAITING_MAX 1000u

/* What is being made. */
typedef struct waiting_list {
    tqi_controller *ctl;
    tqi_region *conv;
    Tq__WaitInfo **waits;
    size_t n, max;
    tqi_net_session *only; /* NULL: of all sessions */
    uint64_t older_ms;     /* for one session: waits at least this long of which it has had no notice */
    uint64_t now;
    uint64_t last; /* for one session: number of the last claim in the list */
    size_t puts;
    int rc;
    tq_error *err;
} waiting_list;

/* Adds an entry, filled in with its client's details. */
static Tq__WaitInfo *waiting_next(waiting_list *list, const char *kind, const char *client, uint64_t pid,
                                  const char *host)
{
    Tq__WaitInfo *info = tqi_ctl_conv_alloc(list->conv, 1, sizeof(*info), list->err);

    if (info == NULL) {
        list->rc = TQ_ENOMEM;
        return NULL;
    }
    tq__wait_info__init(info);
    info->kind = tqi_ctl_conv_text(kind);
    info->client = tqi_ctl_conv_text(client);
    info->pid = pid;
    info->host = tqi_ctl_conv_text(host);
    list->waits[list->n++] = info;
    return info;
}

static void waiting_claims(tqi_net_session *net, void *arg)
{
    waiting_list *list = arg;
    tqi_ctl_session *session = tqi_net_session_user(net);
    tqi_ctl_waiting_claim *waiter = NULL;

    if (session == NULL) {
        return;
    }
    DL_FOREACH (session->waiters, waiter) {
        if (list->n == list->max || list->rc) {
            return;
        }
        if (list->only != NULL) {
            if (waiter->number <= session->last_wait) {
                continue;
            }
            if ((list->now - waiter->since) / 1000000u < list->older_ms) {
                return; /* those after it are younger */
            }
        }
        Tq__WaitInfo *info =
            waiting_next(list, "claim", tqi_net_session_name(net), tqi_net_session_pid(net), tqi_net_session_host(net));
        if (info != NULL) {
            list->last = waiter->number;
            list->rc = tqi_ctl_claim_info(waiter, list->conv, info, list->err);
        }
    }
}

static uint64_t waiting_age(const waiting_list *list, const tqi_ctl_owner *owner, size_t i)
{
    return owner->told->wait[i]->age_ms + (list->now - owner->told_at) / 1000000u;
}

/* Whether a put belongs in the list. */
static bool waiting_wants(const waiting_list *list, const tqi_ctl_owner *owner, size_t i)
{
    const Tq__WaitInfo *info = owner->told->wait[i];

    if (list->only == NULL) {
        return true;
    }
    return info->session.len == TQI_NET_SESSION_ID &&
           memcmp(info->session.data, tqi_net_session_id(list->only), TQI_NET_SESSION_ID) == 0 &&
           waiting_age(list, owner, i) >= list->older_ms && !(owner->passed_on >> i & 1);
}

/* Puts that wait at the units. */
static void waiting_puts(waiting_list *list)
{
    for (tqi_ctl_owner *owner = list->ctl->owners; owner != NULL; owner = owner->hh.next) {
        const Tq__ReportOwner *told = owner->servers != NULL ? owner->told : NULL;
        for (size_t i = 0; told != NULL && i < told->n_wait && list->n < list->max && !list->rc; i++) {
            const Tq__WaitInfo *from = told->wait[i];
            Tq__WaitInfo *info = NULL;
            if (waiting_wants(list, owner, i)) {
                info = waiting_next(list, "put", from->client, from->pid, from->host);
            }
            if (info != NULL) {
                list->puts++;
                info->owner = owner->name;
                info->wanted = from->wanted;
                info->ready = from->ready;
                info->age_ms = waiting_age(list, owner, i);
                info->missing = from->missing;
                info->suspect = from->suspect;
                info->number = from->number;
            }
        }
    }
}

/* Puts that wait for a unit. */
static void waiting_units(waiting_list *list)
{
    uint64_t now = tqi_now();
    tqi_ctl_owner_wait *wait = NULL;

    DL_FOREACH (list->ctl->owner_waits, wait) {
        tqi_net_session *net = tqi_net_request_session(wait->base.request);
        uint64_t age_ms = (now - wait->since) / 1000000u;
        bool mine = net == list->only && age_ms >= list->older_ms && !wait->passed_on;
        if (net == NULL || wait->base.ready || (list->only != NULL && !mine)) {
            continue;
        }
        if (list->n == list->max || list->rc) {
            return;
        }
        char *missing = tqi_ctl_conv_alloc(list->conv, TQ_ERROR_MESSAGE_MAX, 1, list->err);
        Tq__WaitInfo *info = missing != NULL ? waiting_next(list, "put", tqi_net_session_name(net),
                                                            tqi_net_session_pid(net), tqi_net_session_host(net))
                                             : NULL;
        if (info == NULL) {
            list->rc = TQ_ENOMEM;
            return;
        }
        tqi_ctl_owners_missing(wait, missing, TQ_ERROR_MESSAGE_MAX);
        info->missing = missing;
        info->age_ms = age_ms;
        info->suspect = true; /* it continues only when somebody starts one */
        info->number = wait->number;
        wait->passed_on = wait->passed_on || list->only != NULL;
    }
}

static size_t waiting_count_puts(const tqi_controller *ctl)
{
    const tqi_ctl_owner_wait *wait = NULL;
    size_t n = 0;

    DL_FOREACH (ctl->owner_waits, wait) {
        n++;
    }
    for (const tqi_ctl_owner *owner = ctl->owners; owner != NULL; owner = owner->hh.next) {
        n += owner->told != NULL ? owner->told->n_wait : 0;
    }
    return n;
}

static int waiting_fill(waiting_list *list)
{
    list->now = tqi_now();
    list->max = list->ctl->waiting + waiting_count_puts(list->ctl);
    list->max = list->max < WAITING_MAX ? list->max : WAITING_MAX;
    list->waits = tqi_ctl_conv_pointers(list->conv, list->max, list->err);
    if (list->waits == NULL) {
        return TQ_ENOMEM;
    }
    if (list->only != NULL) {
        waiting_claims(list->only, list);
    } else {
        tqi_net_server_each_session(list->ctl->server, waiting_claims, list);
    }
    waiting_puts(list);
    waiting_units(list);
    return list->rc;
}

int tqi_ctl_waiting(tqi_controller *ctl, tqi_region *conv, Tq__WaitInfo ***out, size_t *n, tq_error *err)
{
    waiting_list list = {.ctl = ctl, .conv = conv, .err = err};
    int rc = waiting_fill(&list);

    *out = list.waits;
    *n = list.n;
    return rc;
}

/* The answer has been made: its client is not told of these again. */
static void waiting_told(const waiting_list *list)
{
    tqi_ctl_session *session = tqi_net_session_user(list->only);
    size_t left = list->puts;

    if (session != NULL && list->last) {
        session->last_wait = list->last;
    }
    for (tqi_ctl_owner *owner = list->ctl->owners; owner != NULL && left > 0; owner = owner->hh.next) {
        const Tq__ReportOwner *told = owner->servers != NULL ? owner->told : NULL;
        for (size_t i = 0; told != NULL && i < told->n_wait && left > 0; i++) {
            if (waiting_wants(list, owner, i)) {
                owner->passed_on |= UINT64_C(1) << i;
                left--;
            }
        }
    }
}

static void waiting_event(tqi_controller *ctl, const Tq__WaitInfo *info)
{
    bool put = strcmp(info->kind, "put") == 0;
    const tqi_ctl_happened event = {
        .kind = "wait",
        .session = info->client,
        .partition = put ? info->owner : info->partition,
        .task = info->task,
        .samples = put ? 0 : (uint32_t)info->wanted,
        .bytes = put ? info->wanted : 0,
    };

    tqi_ctl_event_add(ctl, &event);
}

int tqi_ctl_waiting_mine(tqi_controller *ctl, tqi_net_request *request, const Tq__SystemStatus *msg, tq_error *err)
{
    Tq__SystemStatusReply reply;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    waiting_list list = {
        .ctl = ctl,
        .conv = &conv,
        .only = tqi_net_request_session(request),
        .older_ms = msg->older_ms,
        .err = err,
    };
    int rc = waiting_fill(&list);

    if (rc == TQ_OK) {
        tq__system_status_reply__init(&reply);
        reply.epoch = tqi_table_epoch(ctl->table);
        reply.wait = list.waits;
        reply.n_wait = list.n;
        if (tqi_ctl_reply(request, &reply.base)) {
            waiting_told(&list);
            /* A client asks for this when it has waited for a long time. */
            for (size_t i = 0; i < list.n; i++) {
                waiting_event(ctl, list.waits[i]);
            }
        }
    }
    tqi_region_fini(&conv);
    return rc;
}
