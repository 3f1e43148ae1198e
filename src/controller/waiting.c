/*
 * waiting.c - the list of what waits, for people: claims of every session, and puts as their units have reported them.
 */
#include <string.h>

#include "controller/internal.h"

#define WAITING_MAX 1000u

/* What is being made. */
typedef struct waiting_list {
    tqi_controller *ctl;
    tqi_conv *conv;
    Tq__WaitInfo **waits;
    size_t n, max;
    int rc;
    tq_error *err;
} waiting_list;

/* Another one, filled with what it has of its client. */
static Tq__WaitInfo *waiting_next(waiting_list *list, const char *kind, const char *client,
                                  uint64_t pid, const char *host)
{
    Tq__WaitInfo *info = tqi_conv_alloc(list->conv, 1, sizeof(*info), list->err);
    if (!info) {
        list->rc = TQ_ENOMEM;
        return NULL;
    }
    tq__wait_info__init(info);
    info->kind = tqi_conv_text(kind);
    info->client = tqi_conv_text(client);
    info->pid = pid;
    info->host = tqi_conv_text(host);
    list->waits[list->n++] = info;
    return info;
}

static void waiting_claims(tqi_session *net, void *arg)
{
    waiting_list *list = arg;
    tqi_ctl_session *session = tqi_session_user(net);
    tqi_ctl_parked *parked = NULL;
    if (!session) {
        return;
    }
    DL_FOREACH (session->parked, parked) {
        if (list->n == list->max || list->rc) {
            return;
        }
        Tq__WaitInfo *info = waiting_next(list, "claim", tqi_session_name(net),
                                          tqi_session_pid(net), tqi_session_host(net));
        if (info) {
            list->rc = tqi_ctl_claim_info(parked, list->conv, info, list->err);
        }
    }
}

/* Puts that wait at the units; of one session only when it is given. */
static void waiting_puts(waiting_list *list, const tqi_session *only)
{
    uint64_t now = tqi_now();
    for (const tqi_ctl_owner *owner = list->ctl->owners; owner; owner = owner->hh.next) {
        const Tq__ReportOwner *told = owner->servers ? owner->told : NULL;
        for (size_t i = 0; told && i < told->n_wait && list->n < list->max && !list->rc; i++) {
            const Tq__WaitInfo *from = told->wait[i];
            if (only && (from->session.len != TQI_SESSION_ID ||
                         memcmp(from->session.data, tqi_session_id(only), TQI_SESSION_ID) != 0)) {
                continue;
            }
            Tq__WaitInfo *info = waiting_next(list, "put", from->client, from->pid, from->host);
            if (info) {
                info->owner = owner->name;
                info->wanted = from->wanted;
                info->ready = from->ready;
                info->age_ms = from->age_ms + (now - owner->told_at) / 1000000u;
                info->missing = from->missing;
                info->suspect = from->suspect;
                info->number = from->number;
            }
        }
    }
}

static size_t waiting_count_puts(const tqi_controller *ctl)
{
    size_t n = 0;
    for (const tqi_ctl_owner *owner = ctl->owners; owner; owner = owner->hh.next) {
        n += owner->told ? owner->told->n_wait : 0;
    }
    return n;
}

int tqi_ctl_waiting(tqi_controller *ctl, tqi_conv *conv, tqi_session *only, Tq__WaitInfo ***out,
                    size_t *n, tq_error *err)
{
    waiting_list list = {.ctl = ctl, .conv = conv, .err = err};
    list.max = ctl->waiting + waiting_count_puts(ctl);
    list.max = list.max < WAITING_MAX ? list.max : WAITING_MAX;
    list.waits = tqi_conv_pointers(conv, list.max, err);
    if (!list.waits) {
        return TQ_ENOMEM;
    }
    if (only) {
        waiting_claims(only, &list);
    } else {
        tqi_server_each_session(ctl->server, waiting_claims, &list);
    }
    waiting_puts(&list, only);
    *out = list.waits;
    *n = list.n;
    return list.rc;
}

/* The client has asked what it waits for, as it does when that takes long: an event for each, once. */
static void waiting_event(tqi_controller *ctl, tqi_ctl_session *session, const Tq__WaitInfo *info)
{
    bool put = info->kind[0] == 'p';
    uint64_t *last = put ? &tqi_ctl_owner_find(ctl, info->owner)->last_wait : &session->last_wait;
    if (info->number <= *last) {
        return;
    }
    *last = info->number;
    tqi_ctl_event_add(ctl, &(tqi_ctl_happened){.kind = "wait",
                                               .session = info->client,
                                               .partition = put ? info->owner : info->partition,
                                               .task = info->task,
                                               .samples = put ? 0 : (uint32_t)info->wanted,
                                               .bytes = put ? info->wanted : 0});
}

int tqi_ctl_waiting_mine(tqi_controller *ctl, tqi_request *request, tq_error *err)
{
    Tq__SystemStatusReply reply;
    tqi_ctl_session *session = tqi_ctl_session_of(request);
    tqi_conv conv = {0};
    tq__system_status_reply__init(&reply);
    int rc =
        tqi_ctl_waiting(ctl, &conv, tqi_request_session(request), &reply.wait, &reply.n_wait, err);
    if (rc == TQ_OK) {
        reply.epoch = tqi_meta_epoch(ctl->meta);
        reply.waiting = (uint32_t)reply.n_wait;
        for (size_t i = 0; i < reply.n_wait; i++) {
            waiting_event(ctl, session, reply.wait[i]);
        }
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_conv_fini(&conv);
    return rc;
}
