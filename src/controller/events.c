/*
 * events.c - recent events: a ring of numbered events, with readers that wait for the next one. Numbers start at 1 and
 * never skip, so a reader that is slower than the ring can tell from the numbers that it missed some.
 */
#include "controller/events.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pointer.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/handlers.h"
#include "controller/meter.h"
#include "controller/reply.h"
#include "controller/wake.h"

/* One allocation: the indexes and the strings follow the struct. */
struct tqi_ctl_event {
    uint64_t seq;
    int64_t time_us;
    uint64_t bytes;
    const char *kind; /* static */
    const char *session;
    const char *partition;
    const char *task;
    uint32_t samples;
    uint32_t n_indexes;
    uint32_t size; /* of it all */
    uint32_t indexes[];
};

struct tqi_ctl_event_wait {
    tqi_net_waiter base; /* first: waits are known by it */
    uint64_t since;
    uint32_t limit;
    tqi_ctl_event_wait *prev, *next;
};

int tqi_ctl_events_init(tqi_ctl_events *events, uint32_t capacity, tq_error *err)
{
    events->capacity = capacity;
    events->first = 1;
    events->slots = calloc(capacity, sizeof(tqi_ctl_event *));
    return events->slots != NULL ? TQ_OK : tqi_error_nomem(err, "events");
}

void tqi_ctl_events_fini(tqi_ctl_events *events)
{
    for (uint32_t i = 0; events->slots != NULL && i < events->capacity; i++) {
        free(events->slots[i]);
    }
    free(events->slots);
    events->slots = NULL;
}

/* --- writing -------------------------------------------------------------- */

/* Copies a string to *at and moves on. */
static const char *event_text(char **at, const char *text)
{
    const char *out = *at;
    size_t size = strlen(text != NULL ? text : "") + 1;

    memcpy(*at, text != NULL ? text : "", size);
    *at += size;
    return out;
}

static tqi_ctl_event *event_make(const tqi_ctl_happened *what)
{
    size_t n = what->n_indexes < TQI_CTL_LOST_MAX ? what->n_indexes : TQI_CTL_LOST_MAX;
    size_t text = strlen(what->session != NULL ? what->session : "") +
                  strlen(what->partition != NULL ? what->partition : "") +
                  strlen(what->task != NULL ? what->task : "") + 3;
    tqi_ctl_event *event = malloc(sizeof(*event) + n * sizeof(uint32_t) + text);

    if (event != NULL) {
        char *at = (char *)(event->indexes + n);
        event->time_us = tqi_wall_us();
        event->bytes = what->bytes;
        event->kind = what->kind;
        event->session = event_text(&at, what->session);
        event->partition = event_text(&at, what->partition);
        event->task = event_text(&at, what->task);
        event->samples = what->samples;
        event->n_indexes = (uint32_t)n;
        event->size = (uint32_t)(sizeof(*event) + n * sizeof(uint32_t) + text);
        if (n) {
            memcpy(event->indexes, what->indexes, n * sizeof(uint32_t));
        }
    }
    return event;
}

/* Drops the event in a slot; false if there is none. */
static bool event_drop(tqi_ctl_events *events, tqi_ctl_event **slot)
{
    if (*slot == NULL) {
        return false;
    }
    events->bytes -= (*slot)->size;
    free(*slot);
    *slot = NULL;
    return true;
}

void tqi_ctl_event_add(tqi_controller *ctl, const tqi_ctl_happened *what)
{
    tqi_ctl_events *events = &ctl->events;
    tqi_ctl_event *event = event_make(what);

    tqi_ctl_meter_event(ctl->meter, what);
    tqi_ctl_event **slot = &events->slots[++events->last % events->capacity];
    event_drop(events, slot);
    *slot = event;
    if (events->last > events->capacity && events->first < events->last - events->capacity + 1) {
        events->first = events->last - events->capacity + 1;
    }
    if (event != NULL) {
        event->seq = events->last;
        events->bytes += event->size;
        /* Long names and lists of samples must not make the ring large. */
        while (events->bytes > tqi_limits.event_bytes && events->first < events->last) {
            if (event_drop(events, &events->slots[events->first++ % events->capacity])) {
                tqi_limit_reached(TQI_LIMIT_event_bytes);
            }
        }
    } else {
        tqi_log(TQI_WARN, "controller", "no memory for event %llu (%s)", (unsigned long long)events->last, what->kind);
    }
}

/* --- reading -------------------------------------------------------------- */

static void event_message(const tqi_ctl_event *event, Tq__Event *out)
{
    tq__event__init(out);
    out->seq = event->seq;
    out->time_us = event->time_us;
    out->kind = tqi_ctl_conv_text(event->kind);
    out->session = tqi_ctl_conv_text(event->session);
    out->partition = tqi_ctl_conv_text(event->partition);
    out->task = tqi_ctl_conv_text(event->task);
    out->samples = event->samples;
    out->bytes = event->bytes;
    out->index = tqi_unconst(event->indexes);
    out->n_index = event->n_indexes;
}

/* Answers with the events after `since`; on an error nothing was sent. */
static int events_reply(tqi_controller *ctl, tqi_net_request *request, uint64_t since, uint32_t limit, tq_error *err)
{
    const tqi_ctl_events *events = &ctl->events;
    Tq__EventsReply reply = TQ__EVENTS_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    uint64_t oldest = events->last > events->capacity ? events->last - events->capacity : 0;

    oldest = events->first > oldest + 1 ? events->first - 1 : oldest;
    uint64_t seq = since > oldest ? since : oldest;
    uint64_t left = events->last > seq ? events->last - seq : 0;
    size_t n = limit && limit < left ? limit : (size_t)left;
    Tq__Event *items = tqi_ctl_conv_alloc(&conv, n, sizeof(*items), err);
    reply.event = tqi_ctl_conv_pointers(&conv, n, err);
    if (items == NULL || reply.event == NULL) {
        tqi_region_fini(&conv);
        return TQ_ENOMEM;
    }
    size_t bytes = 0;
    while (n-- > 0 && bytes < TQI_CTL_EVENTS_PAGE) {
        const tqi_ctl_event *event = events->slots[++seq % events->capacity];
        if (event != NULL) {
            bytes += event->size;
            event_message(event, &items[reply.n_event]);
            reply.event[reply.n_event] = &items[reply.n_event];
            reply.n_event++;
        }
    }
    reply.next = seq;
    reply.epoch = tqi_table_epoch(ctl->table);
    tqi_ctl_reply(request, &reply.base);
    tqi_region_fini(&conv);
    return TQ_OK;
}

static void events_leave(tqi_net_waiter *base)
{
    tqi_ctl_event_wait *wait = (tqi_ctl_event_wait *)base;

    DL_DELETE(tqi_ctl_of(base->waiters)->events.waits, wait);
}

static void events_answer(tqi_net_waiter *base)
{
    const tqi_ctl_event_wait *wait = (const tqi_ctl_event_wait *)base;
    tq_error err = {0};

    if (events_reply(tqi_ctl_of(base->waiters), base->request, wait->since, wait->limit, &err) != TQ_OK) {
        tqi_net_request_fail(base->request, &err);
    }
}

static void events_describe(const tqi_net_waiter *base, tq_error *err)
{
    const tqi_ctl_event_wait *wait = (const tqi_ctl_event_wait *)base;

    tqi_error_set(err, TQ_ETIMEDOUT, "no event after number %llu", (unsigned long long)wait->since);
}

static const tqi_net_waiter_type events_wait_type = {
    .leave = events_leave,
    .answer = events_answer,
    .describe = events_describe,
};

void tqi_ctl_events_gather(tqi_controller *ctl)
{
    tqi_ctl_event_wait *wait = NULL;

    DL_FOREACH (ctl->events.waits, wait) {
        if (ctl->events.last > wait->since) {
            tqi_net_waiter_ready(&wait->base);
        }
    }
}

int tqi_ctl_on_events(tqi_controller *ctl, tqi_net_request *request, const Tq__Events *msg, tq_error *err)
{
    /* A number from an earlier run of the controller stands for the start of this run; if its run is not known, a
     * number that is too large stands for the next event. */
    bool other = msg->epoch && msg->epoch != tqi_table_epoch(ctl->table);
    uint64_t since = other ? 0 : msg->since < ctl->events.last ? msg->since : ctl->events.last;

    if (!msg->wait || since < ctl->events.last) {
        return events_reply(ctl, request, since, msg->limit, err);
    }
    tqi_ctl_event_wait *wait = calloc(1, sizeof(*wait));
    if (wait == NULL) {
        return tqi_error_nomem(err, "a waiting reader of events");
    }
    wait->since = since;
    wait->limit = msg->limit;
    DL_APPEND(ctl->events.waits, wait);
    tqi_net_waiter_add(&ctl->waiters, &wait->base, &events_wait_type, request, msg->timeout_ms);
    return TQ_OK;
}
