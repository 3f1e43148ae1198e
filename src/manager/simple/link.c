/*
 * link.c - the manager's side of one unit: its channel, its mapped memory, its leased block ids.
 *
 * Mapping.  A unit on this machine is asked for its memory once per session there: a new session is a new writer to the
 * unit, which gives memory back only when it knows that its writers cannot write.  A unit that refuses, or that is elsewhere
 * (where.c), is written and read over the socket; the reason is logged.  A client that only reads needs no connection once
 * the memory is mapped: if many clients crowd a unit, it is closed.
 *
 * Ids.  They are topped up before they run out, so that a put seldom waits for a lease.  The first lease is small, because
 * the controller reserves memory for every id's end, and most of many thousand clients put little; each later lease doubles,
 * up to 256.  Ids are void when the unit, the controller or our session there has changed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "manager/simple/simple.h"

/* Ids of the first lease. */
#define LINK_FIRST_LEASE 16u
/* For a unit to hear of finished blocks. */
#define LINK_FINISH_SECONDS 60.0

void tqi_wait_end(tqi_wait **row, const tq_error *err)
{
    tqi_wait *list = *row;

    *row = NULL; /* a callback may wait again, in a new list */
    while (list != NULL) {
        tqi_wait *wait = list;
        DL_DELETE(list, wait);
        wait->fn(wait, err);
    }
}

bool tqi_wait_leave(tqi_wait **row, tqi_wait *wait)
{
    tqi_wait *at;

    DL_FOREACH (*row, at) {
        if (at == wait) {
            DL_DELETE(*row, wait);
            return true;
        }
    }
    return false;
}

/* ---------------------------------------------------------------------------------------- channel */

static void link_opened(tqi_channel *channel, uint64_t epoch, bool fresh, void *arg)
{
    tqi_link *link = arg;

    (void)channel;
    (void)epoch;
    link->silent = false;
    if (fresh) {
        tqi_link_unmap(link);
    }
}

int tqi_link_channel(tqi_link *link, tqi_channel **out, tq_error *err)
{
    if (link->channel == NULL) {
        tq_error why = {0};
        int code = tqi_channel_get_server(link->simple->connector, link->endpoint, link->server,
                                          &link->channel, &why);
        if (code != TQ_OK) {
            link->channel = NULL;
            return tqi_error_set(err, code, "storage unit '%s': %s", link->name, why.message);
        }
        tqi_channel_set_parkable(link->channel);
        tqi_channel_set_wanted(link->channel, link->incarnation != 0);
        tqi_channel_on_open(link->channel, link_opened, link);
    }
    *out = link->channel;
    return TQ_OK;
}

static void link_drop_channel(tqi_link *link)
{
    if (link->channel != NULL) {
        tqi_channel_on_open(link->channel, NULL, link);
        tqi_channel_rele(link->channel);
        link->channel = NULL;
    }
}

/* ---------------------------------------------------------------------------------------- life */

int tqi_link_update(tqi_link *link, const tq_owner_info *info)
{
    if (info == NULL || info->incarnation != link->incarnation) {
        tqi_link_unmap(link);
        tqi_link_drop_ids(link);
    }
    if (info == NULL) {
        link->incarnation = 0;
        link->present = false;
        if (link->channel != NULL) {
            tqi_channel_set_wanted(link->channel, false); /* it may never come back */
        }
        tqi_link_settle(link);
        return TQ_OK;
    }
    if (link->info == NULL ||
        (info->info != NULL && (info->info_size != link->info_size ||
                                memcmp(info->info, link->info, info->info_size) != 0))) {
        if (tqi_link_set_info(link, info->info, info->info_size) != TQ_OK) {
            return TQ_ENOMEM;
        }
        tqi_link_unmap(link);
        link_drop_channel(link);
    }
    if (link->channel != NULL) {
        tqi_channel_set_wanted(link->channel, true);
    }
    link->incarnation = info->incarnation;
    link->capacity = info->capacity_bytes;
    link->used = info->used_bytes;
    link->present = info->present;
    tqi_link_settle(link);
    return TQ_OK;
}

int tqi_link_make(tqi_simple *simple, const tq_owner_info *info, tqi_link **out)
{
    tqi_link *link = calloc(1, sizeof(*link));

    if (link == NULL) {
        return TQ_ENOMEM;
    }
    link->simple = simple;
    link->incarnation = info->incarnation;
    link->name = strdup(info->name);
    if (link->name == NULL || tqi_link_update(link, info) != TQ_OK) {
        tqi_link_free(link);
        return TQ_ENOMEM;
    }
    *out = link;
    return TQ_OK;
}

/* The channel is not released here: it was closed before, with the connector. */
void tqi_link_free(tqi_link *link)
{
    tqi_link_unmap(link);
    link->present = false;
    tqi_link_settle(link);
    free(link->ids);
    free(link->info);
    free(link->endpoint);
    free(link->name);
    free(link);
}

/* ---------------------------------------------------------------------------------------- mapping */

void tqi_mapping_rele(tqi_mapping *mapping)
{
    if (--mapping->refs == 0) {
        DL_DELETE(mapping->simple->mappings, mapping);
        tqi_store_map_fini(&mapping->map);
        free(mapping);
    }
}

void tqi_link_unmap(tqi_link *link)
{
    if (link->mapping != NULL) {
        tqi_mapping_rele(link->mapping);
        link->mapping = NULL;
    }
    if (link->map_state != TQI_MAP_ASKED) {
        link->map_state = TQI_MAP_NONE;
    }
    tqi_link_settle(link);
}

static int link_map_take(tqi_link *link, tqi_answer *answer, tq_error *err)
{
    const Tq__UnitMapReply *reply = (const Tq__UnitMapReply *)answer->reply;

    if (answer->n_fds != 2) {
        return tqi_error_set(err, TQ_EPROTO, "%d descriptors instead of 2", answer->n_fds);
    }
    tqi_mapping *mapping = calloc(1, sizeof(*mapping));
    if (mapping == NULL) {
        return tqi_error_nomem(err, "a mapping");
    }
    int code = tqi_store_map_init(&mapping->map, answer->fds[0], answer->fds[1], reply->arena_bytes,
                                  reply->slots, err);
    if (code != TQ_OK) {
        free(mapping);
        return code;
    }
    mapping->simple = link->simple;
    mapping->incarnation = reply->incarnation;
    mapping->refs = 1;
    DL_APPEND(link->simple->mappings, mapping);
    link->mapping = mapping;
    return TQ_OK;
}

static void link_mapped(tqi_call *call, tqi_answer *answer, void *arg)
{
    tqi_link *link = arg;
    tq_error err = {0};

    (void)call;
    if (answer->status == TQ_EUNREACHABLE || answer->status == TQ_ETIMEDOUT ||
        answer->status == TQ_ECLOSED || answer->status == TQ_EENDED ||
        answer->status == TQ_ECANCELED || answer->status == TQ_ESTALE) {
        link->map_state = TQI_MAP_NONE;
        tqi_wait_end(&link->map_waits, answer->error);
        return;
    }
    tqi_simple_took(link->simple, link->map_asked_at);
    if (answer->status != TQ_OK) {
        /* The channel may be gone: the unit was listed at another address meanwhile. */
        const char *failure = link->channel == NULL || tqi_channel_local(link->channel)
                                  ? ""
                                  : tqi_channel_unix_failure(link->channel);
        tqi_error_set(&err, answer->status, "%s", failure[0] ? failure : answer->error->message);
    } else {
        link_map_take(link, answer, &err);
    }
    link->map_state = err.code != TQ_OK ? TQI_MAP_REFUSED : TQI_MAP_READY;
    tqi_link_settle(link);
    tqi_link_say(link, err.code != TQ_OK ? err.message : NULL);
    tqi_wait_end(&link->map_waits, NULL);
    if (link->map_state == TQI_MAP_READY && tqi_connector_crowded(link->simple->connector) &&
        !tqi_put_at(link) && link->simple->shown == NULL) {
        tqi_channel_park(link->channel);
    }
}

int tqi_link_map(tqi_link *link, uint64_t deadline, tqi_wait *wait, tq_error *err)
{
    Tq__UnitMap message;
    tqi_channel *channel = NULL;

    if (!link->local) {
        tqi_link_say(link, NULL);
    }
    if (!link->local || link->map_state == TQI_MAP_READY || link->map_state == TQI_MAP_REFUSED) {
        return TQ_OK;
    }
    if (link->map_state == TQI_MAP_NONE) {
        int code = tqi_link_channel(link, &channel, err);
        if (code != TQ_OK) {
            return code;
        }
        tq__unit_map__init(&message);
        tqi_call_args args = {
            .kind = TQI_UNIT_MAP,
            .message = &message.base,
            .deadline = deadline,
            .done = link_mapped,
            .arg = link,
        };
        code = tqi_call_start(channel, &args, NULL, err);
        if (code != TQ_OK) {
            return code;
        }
        link->map_state = TQI_MAP_ASKED;
        link->map_asked_at = tqi_now();
    }
    DL_APPEND(link->map_waits, wait);
    return TQ_EAGAIN;
}

/* ---------------------------------------------------------------------------------------- ids */

bool tqi_ids_known(const tqi_simple *simple, const tqi_ids_from *from)
{
    return from->epoch == simple->host->epoch && from->session == simple->session;
}

static void link_finished(tqi_call *call, tqi_answer *answer, void *arg)
{
    (void)call;
    (void)answer; /* a unit that does not learn of it, or has lost our session, waits until this
                   process exits */
    (void)arg;
}

void tqi_link_finish(tqi_link *link, const uint64_t *ids, size_t n, bool others)
{
    Tq__UnitFinish message;
    tq_error err;

    if (link->channel == NULL) {
        return; /* nothing was reserved there */
    }
    tq__unit_finish__init(&message);
    message.id = (uint64_t *)(uintptr_t)ids;
    message.n_id = n;
    message.others = others;
    tqi_call_args args = {
        .kind = TQI_UNIT_FINISH,
        .message = &message.base,
        .deadline = tqi_deadline(LINK_FINISH_SECONDS),
        .done = link_finished,
        .arg = link,
    };
    if (tqi_call_start(link->channel, &args, NULL, &err) != TQ_OK) {
        tqi_log(TQI_WARN, "client",
                "storage unit '%s' keeps blocks of a put until this process ends: %s", link->name,
                err.message);
    }
}

void tqi_link_drop_ids(tqi_link *link)
{
    uint64_t *ids = malloc(link->ids_total * sizeof(*ids) + 1);
    size_t n = 0;

    /* If out of memory, they are given back when the session ends. */
    for (size_t i = 0; i < link->n_ids && ids != NULL; i++) {
        for (uint32_t k = 0; k < link->ids[i].count; k++) {
            ids[n++] = link->ids[i].first + k;
        }
    }
    if (n > 0 && tqi_ids_known(link->simple, &link->ids_from)) {
        link->simple->host->abandon(link->simple->host, ids, n, true);
    }
    free(ids);
    link->n_ids = 0;
    link->ids_total = 0;
}

static int link_add_ids(tqi_link *link, uint64_t first, uint32_t count, const tqi_lease *lease)
{
    tqi_id_range *last = link->n_ids > 0 ? &link->ids[link->n_ids - 1] : NULL;

    if (last != NULL && last->first + last->count == first && last->lease.first == lease->first) {
        last->count += count;
    } else {
        if (tqi_grow(&link->ids, &link->ids_capacity, link->n_ids + 1, sizeof(*link->ids)) !=
            TQ_OK) {
            return TQ_ENOMEM;
        }
        link->ids[link->n_ids++] = (tqi_id_range){.first = first, .count = count, .lease = *lease};
    }
    link->ids_total += count;
    return TQ_OK;
}

void tqi_link_put_back(tqi_link *link, const uint64_t *ids, size_t n, const tqi_leases *leases,
                       const tqi_ids_from *from)
{
    tq_manager_host *host = link->simple->host;
    size_t at = 0;

    if (!tqi_ids_known(link->simple, from)) {
        return;
    }
    if (!tqi_ids_known(link->simple, &link->ids_from) ||
        from->incarnation != link->ids_from.incarnation) {
        host->abandon(host, ids, n, true);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        while (at < leases->n && ids[i] - leases->leases[at].first >= leases->leases[at].count) {
            at++;
        }
        if (at == leases->n || link_add_ids(link, ids[i], 1, &leases->leases[at]) != TQ_OK) {
            host->abandon(host, ids + i, n - i, true);
            return;
        }
    }
}

static void link_leased(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg)
{
    tqi_query *query = arg;
    tqi_simple *simple = query->simple;
    tqi_link *link = query->link;
    tq_error failed = {0};

    if (!tqi_query_end(query)) {
        free(query);
        return;
    }
    link->leasing = false;
    if (err == NULL) {
        tqi_simple_took(simple, query->asked_at);
        if (!tqi_ids_known(simple, &link->ids_from) || link->ids_from.incarnation != incarnation) {
            tqi_link_drop_ids(link);
            link->ids_from = (tqi_ids_from){.incarnation = incarnation,
                                            .epoch = simple->host->epoch,
                                            .session = simple->session};
        }
        const tqi_manager_internal *internal = simple->host->internal;
        tqi_lease lease = {.first = first, .count = query->count};
        if (internal->grant_size == TQI_GRANT) {
            memcpy(lease.proof, internal->grant, TQI_GRANT);
        }
        if (link_add_ids(link, first, query->count, &lease) != TQ_OK) {
            tqi_error_nomem(&failed, "block ids");
            err = &failed;
        }
    }
    free(query);
    tqi_wait_end(&link->lease_waits, err);
}

/* Leases ids, `want` at least. */
static void link_lease(tqi_link *link, size_t want, uint64_t deadline)
{
    tqi_query *query = tqi_query_make(link->simple);
    tq_error err;

    if (query == NULL) {
        tqi_error_nomem(&err, "a lease");
        tqi_wait_end(&link->lease_waits, &err);
        return;
    }
    query->link = link;
    query->count = link->last_lease == 0                 ? LINK_FIRST_LEASE
                   : link->last_lease < TQ_LEASE_MAX / 2 ? 2 * link->last_lease
                                                         : TQ_LEASE_MAX;
    if (query->count < want) {
        query->count = want < TQ_LEASE_MAX ? (uint32_t)want : TQ_LEASE_MAX;
    }
    link->last_lease = query->count;
    link->leasing = true;
    link->simple->host->lease(link->simple->host, link->name, query->count, deadline, link_leased,
                              query);
}

/* Room for the leases of the next n ids, each of which may come from a different lease. */
static int link_reserve_leases(const tqi_link *link, size_t n, tqi_leases *leases)
{
    size_t most = 0;

    for (uint64_t got = 0; got < n && most < link->n_ids; most++) {
        got += link->ids[most].count;
    }
    leases->n = 0;
    return tqi_grow(&leases->leases, &leases->capacity, most, sizeof(*leases->leases));
}

int tqi_link_take(tqi_link *link, uint64_t *ids, size_t n, tqi_leases *leases, tqi_ids_from *from,
                  uint64_t deadline, tqi_wait *wait)
{
    if (link->ids_total > 0 && !tqi_ids_known(link->simple, &link->ids_from)) {
        tqi_link_drop_ids(link);
    }
    if (link->ids_total < n) {
        DL_APPEND(link->lease_waits, wait);
        if (!link->leasing) {
            link_lease(link, n - link->ids_total, deadline);
        }
        return TQ_EAGAIN;
    }
    size_t got = 0, range = 0;
    if (link_reserve_leases(link, n, leases) != TQ_OK) {
        return TQ_ENOMEM;
    }
    while (got < n) {
        tqi_id_range *first = &link->ids[range];
        leases->leases[leases->n++] = first->lease;
        while (got < n && first->count > 0) {
            ids[got++] = first->first++;
            first->count--;
        }
        range += first->count == 0;
    }
    link->n_ids -= range;
    memmove(link->ids, link->ids + range, link->n_ids * sizeof(*link->ids));
    link->ids_total -= n;
    *from = link->ids_from;
    if (link->ids_total < link->last_lease / 4 && !link->leasing) {
        link_lease(link, 0, tqi_simple_try(2, 0, TQI_NEVER));
    }
    return TQ_OK;
}
