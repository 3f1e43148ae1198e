/*
 * link.c - the manager's side of one unit: its channel, its mapped memory, its granted block ids.
 *
 * Mapping. A unit on this machine is asked for its memory once per session there: a new session is a new writer to the
 * unit, which gives memory back only when it knows that its writers cannot write. A unit that refuses, or that is
 * elsewhere (where.c), is written and read over the socket; the reason is logged. A client that only reads needs no
 * connection once the memory is mapped: if many clients crowd a unit, it is closed.
 *
 * Ids. They are topped up before they run out, so that a put seldom waits for a grant. The first grant is small,
 * because the controller reserves memory for every id's end, and most of many thousand clients put little; each later
 * grant doubles, up to 256. Ids are void when the unit, the controller or our session there has changed.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/pointer.h"
#include "manager/simple/put.h"

/* Ids of the first grant. */
#define LINK_FIRST_GRANT 16u
/* For a unit to hear of finished blocks. */
#define LINK_FINISH_SECONDS 60.0

/* --- channel -------------------------------------------------------------- */

static void link_opened(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg)
{
    tqi_simple_link *link = arg;

    (void)channel;
    (void)epoch;
    link->silent = false;
    if (fresh) {
        tqi_simple_link_unmap(link);
    }
}

int tqi_simple_link_channel(tqi_simple_link *link, tqi_net_channel **out, tq_error *err)
{
    if (link->channel == NULL) {
        tq_error why = {0};
        int rc = tqi_net_channel_get_server(link->simple->connector, link->endpoint, link->server, &link->channel, &why);
        if (rc != TQ_OK) {
            link->channel = NULL;
            return tqi_error_set(err, rc, "storage unit '%s': %s", link->name, why.message);
        }
        tqi_net_channel_set_parkable(link->channel);
        tqi_net_channel_set_wanted(link->channel, link->incarnation != 0);
        rc = tqi_net_channel_on_open(link->channel, link_opened, link, err);
        if (rc != TQ_OK) {
            tqi_net_channel_unref(link->channel);
            link->channel = NULL;
            return rc;
        }
    }
    *out = link->channel;
    return TQ_OK;
}

static void link_drop_channel(tqi_simple_link *link)
{
    if (link->channel != NULL) {
        tqi_net_channel_off_open(link->channel, link);
        tqi_net_channel_unref(link->channel);
        link->channel = NULL;
    }
}

/* --- what the link knows ----------------------------------------------------- */

/* Puts it into the set where it belongs; called whenever that may have changed. */
static void link_settle(tqi_simple_link *link)
{
    tqi_simple *simple = link->simple;
    tqi_simple_links *set = NULL;

    if (link->present && link->incarnation != 0) {
        set = tqi_simple_link_near(link) ? &simple->near : &simple->far;
    }
    if (set == link->set) {
        return;
    }
    if (link->set != NULL) {
        tqi_simple_link *last = link->set->items[--link->set->n];
        link->set->items[link->place] = last;
        last->place = link->place;
    }
    link->set = set;
    if (set != NULL) {
        link->place = set->n;
        set->items[set->n++] = link;
    }
}

uint64_t tqi_simple_link_used(const tqi_simple_link *link)
{
    return link->grown_in == link->simple->taken && link->grown > link->used ? link->grown : link->used;
}

void tqi_simple_link_grow(tqi_simple_link *link, uint64_t used)
{
    link->grown = used;
    link->grown_in = link->simple->taken;
}

/* --- life ----------------------------------------------------------------- */

int tqi_simple_link_update(tqi_simple_link *link, const tq_owner_info *info)
{
    if (info == NULL || info->incarnation != link->incarnation) {
        tqi_simple_link_unmap(link);
        tqi_simple_link_drop_ids(link);
    }
    if (info == NULL) {
        link->incarnation = 0;
        link->present = false;
        if (link->channel != NULL) {
            tqi_net_channel_set_wanted(link->channel, false); /* it may never come back */
        }
        link_settle(link);
        return TQ_OK;
    }
    if (link->info == NULL || (info->info != NULL && (info->info_size != link->info_size ||
                                                      memcmp(info->info, link->info, info->info_size) != 0))) {
        if (tqi_simple_link_set_info(link, info->info, info->info_size) != TQ_OK) {
            return TQ_ENOMEM;
        }
        tqi_simple_link_unmap(link);
        link_drop_channel(link);
    }
    if (link->channel != NULL) {
        tqi_net_channel_set_wanted(link->channel, true);
    }
    link->incarnation = info->incarnation;
    link->capacity = info->capacity_bytes;
    link->used = info->used_bytes;
    link->present = info->present;
    link_settle(link);
    return TQ_OK;
}

int tqi_simple_link_make(tqi_simple *simple, const tq_owner_info *info, tqi_simple_link **out)
{
    tqi_simple_link *link = calloc(1, sizeof(*link));

    if (link == NULL) {
        return TQ_ENOMEM;
    }
    link->simple = simple;
    link->incarnation = info->incarnation;
    link->name = strdup(info->name);
    if (link->name == NULL || tqi_simple_link_update(link, info) != TQ_OK) {
        tqi_simple_link_free(link);
        return TQ_ENOMEM;
    }
    *out = link;
    return TQ_OK;
}

/* The channel is not released here: it was closed before, with the connector. */
void tqi_simple_link_free(tqi_simple_link *link)
{
    tqi_simple_link_unmap(link);
    link->present = false;
    link_settle(link);
    free(link->ids);
    free(link->info);
    free(link->endpoint);
    free(link->name);
    free(link);
}

/* --- mapping -------------------------------------------------------------- */

void tqi_simple_mapping_unref(tqi_simple_mapping *mapping)
{
    if (--mapping->refs == 0) {
        DL_DELETE(mapping->simple->mappings, mapping);
        tqi_store_map_fini(&mapping->map);
        free(mapping);
    }
}

void tqi_simple_link_unmap(tqi_simple_link *link)
{
    if (link->mapping != NULL) {
        tqi_simple_mapping_unref(link->mapping);
        link->mapping = NULL;
    }
    if (link->map_state != TQI_SIMPLE_MAP_ASKED) {
        link->map_state = TQI_SIMPLE_MAP_NONE;
    }
    link_settle(link);
}

static int link_map_take(tqi_simple_link *link, tqi_net_answer *answer, tq_error *err)
{
    const Tq__UnitMapReply *reply = (const Tq__UnitMapReply *)answer->reply;

    if (answer->n_fds != 2) {
        return tqi_error_set(err, TQ_EPROTO, "%d descriptors instead of 2", answer->n_fds);
    }
    tqi_simple_mapping *mapping = calloc(1, sizeof(*mapping));
    if (mapping == NULL) {
        return tqi_error_nomem(err, "a mapping");
    }
    int rc = tqi_store_map_init(&mapping->map, answer->fds[0], answer->fds[1], reply->arena_bytes, reply->slots, err);
    if (rc != TQ_OK) {
        free(mapping);
        return rc;
    }
    mapping->simple = link->simple;
    mapping->incarnation = reply->incarnation;
    mapping->refs = 1;
    DL_APPEND(link->simple->mappings, mapping);
    link->mapping = mapping;
    return TQ_OK;
}

static void link_mapped(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_simple_link *link = arg;
    tq_error err = {0};

    (void)call;
    if (answer->status == TQ_EUNREACHABLE || answer->status == TQ_ETIMEDOUT || answer->status == TQ_ECLOSED ||
        answer->status == TQ_EENDED || answer->status == TQ_ECANCELED || answer->status == TQ_ESTALE) {
        link->map_state = TQI_SIMPLE_MAP_NONE;
        tqi_simple_wait_end(&link->map_waits, answer->error);
        return;
    }
    tqi_simple_took(link->simple, link->map_asked_at);
    if (answer->status != TQ_OK) {
        /* The channel may be gone: the unit was listed at another address meanwhile. */
        const char *failure = link->channel == NULL || tqi_net_channel_local(link->channel)
                                  ? ""
                                  : tqi_net_channel_unix_failure(link->channel);
        tqi_error_set(&err, answer->status, "%s", failure[0] ? failure : answer->error->message);
    } else {
        link_map_take(link, answer, &err);
    }
    link->map_state = err.code != TQ_OK ? TQI_SIMPLE_MAP_REFUSED : TQI_SIMPLE_MAP_READY;
    link_settle(link);
    tqi_simple_link_say(link, err.code != TQ_OK ? err.message : NULL);
    tqi_simple_wait_end(&link->map_waits, NULL);
    if (link->map_state == TQI_SIMPLE_MAP_READY && tqi_net_connector_crowded(link->simple->connector) &&
        !tqi_simple_put_at(link) && link->simple->borrowed == NULL) {
        tqi_net_channel_park(link->channel);
    }
}

int tqi_simple_link_map(tqi_simple_link *link, uint64_t deadline, tqi_simple_pending *wait, tq_error *err)
{
    Tq__UnitMap message;
    tqi_net_channel *channel = NULL;

    if (!link->local) {
        tqi_simple_link_say(link, NULL);
    }
    if (!link->local || link->map_state == TQI_SIMPLE_MAP_READY || link->map_state == TQI_SIMPLE_MAP_REFUSED) {
        return TQ_OK;
    }
    if (link->map_state == TQI_SIMPLE_MAP_NONE) {
        int rc = tqi_simple_link_channel(link, &channel, err);
        if (rc != TQ_OK) {
            return rc;
        }
        tq__unit_map__init(&message);
        tqi_net_call_args args = {
            .kind = TQI_UNIT_MAP,
            .message = &message.base,
            .deadline = deadline,
            .done = link_mapped,
            .arg = link,
        };
        rc = tqi_net_call_start(channel, &args, NULL, err);
        if (rc != TQ_OK) {
            return rc;
        }
        link->map_state = TQI_SIMPLE_MAP_ASKED;
        link->map_asked_at = tqi_now();
    }
    tqi_simple_wait_in(link->simple, &link->map_waits, "its memory was mapped", deadline, wait);
    return TQ_EAGAIN;
}

/* --- ids ------------------------------------------------------------------ */

bool tqi_simple_ids_known(const tqi_simple *simple, const tqi_simple_ids_from *from)
{
    return from->epoch == simple->host->epoch && from->session == simple->session;
}

static void link_finished(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    /* a unit that does not learn of it, or has lost our session, waits until this process exits */
    (void)answer;
    (void)arg;
}

void tqi_simple_link_finish(tqi_simple_link *link, const uint64_t *ids, size_t n, bool others)
{
    Tq__UnitFinish message;
    tq_error err;

    if (link->channel == NULL) {
        return; /* nothing was reserved there */
    }
    tq__unit_finish__init(&message);
    message.id = tqi_unconst(ids);
    message.n_id = n;
    message.others = others;
    tqi_net_call_args args = {
        .kind = TQI_UNIT_FINISH,
        .message = &message.base,
        .deadline = tqi_deadline(LINK_FINISH_SECONDS),
        .done = link_finished,
        .arg = link,
    };
    if (tqi_net_call_start(link->channel, &args, NULL, &err) != TQ_OK) {
        tqi_log(TQI_WARN, "client", "storage unit '%s' keeps blocks of a put until this process ends: %s", link->name,
                err.message);
    }
}

void tqi_simple_link_drop_ids(tqi_simple_link *link)
{
    uint64_t *ids = malloc(link->ids_total * sizeof(*ids) + 1);
    size_t n = 0;

    /* If out of memory, they are given back when the session ends. */
    for (size_t i = 0; i < link->n_ids && ids != NULL; i++) {
        for (uint32_t k = 0; k < link->ids[i].count; k++) {
            ids[n++] = link->ids[i].first + k;
        }
    }
    if (n > 0 && tqi_simple_ids_known(link->simple, &link->ids_from)) {
        link->simple->host->abandon(link->simple->host, ids, n, true);
    }
    free(ids);
    link->n_ids = 0;
    link->ids_total = 0;
}

static int link_add_ids(tqi_simple_link *link, uint64_t first, uint32_t count, const tqi_simple_grant *grant)
{
    tqi_simple_id_range *last = link->n_ids > 0 ? &link->ids[link->n_ids - 1] : NULL;

    if (last != NULL && last->first + last->count == first && last->grant.first == grant->first) {
        last->count += count;
    } else {
        if (tqi_grow(&link->ids, &link->ids_capacity, link->n_ids + 1, sizeof(*link->ids)) != TQ_OK) {
            return TQ_ENOMEM;
        }
        link->ids[link->n_ids++] = (tqi_simple_id_range){.first = first, .count = count, .grant = *grant};
    }
    link->ids_total += count;
    return TQ_OK;
}

void tqi_simple_link_put_back(tqi_simple_link *link, const uint64_t *ids, size_t n, const tqi_simple_grants *grants,
                              const tqi_simple_ids_from *from)
{
    tq_manager_host *host = link->simple->host;
    size_t at = 0;

    if (!tqi_simple_ids_known(link->simple, from)) {
        return;
    }
    if (!tqi_simple_ids_known(link->simple, &link->ids_from) || from->incarnation != link->ids_from.incarnation) {
        host->abandon(host, ids, n, true);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        while (at < grants->n && ids[i] - grants->grants[at].first >= grants->grants[at].count) {
            at++;
        }
        if (at == grants->n || link_add_ids(link, ids[i], 1, &grants->grants[at]) != TQ_OK) {
            host->abandon(host, ids + i, n - i, true);
            return;
        }
    }
}

static void link_granted(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg)
{
    tqi_simple_query *query = arg;
    tqi_simple *simple = query->simple;
    tqi_simple_link *link = query->link;
    tq_error failed = {0};

    if (!tqi_simple_query_end(query)) {
        free(query);
        return;
    }
    link->granting = false;
    if (err == NULL) {
        tqi_simple_took(simple, query->asked_at);
        if (!tqi_simple_ids_known(simple, &link->ids_from) || link->ids_from.incarnation != incarnation) {
            tqi_simple_link_drop_ids(link);
            link->ids_from = (tqi_simple_ids_from){
                .incarnation = incarnation,
                .epoch = simple->host->epoch,
                .session = simple->session,
            };
        }
        const tqi_manager_internal *internal = simple->host->internal;
        tqi_simple_grant grant = {.first = first, .count = query->count};
        if (internal->grant_size == TQI_NET_GRANT) {
            memcpy(grant.proof, internal->grant, TQI_NET_GRANT);
        }
        if (link_add_ids(link, first, query->count, &grant) != TQ_OK) {
            tqi_error_nomem(&failed, "block ids");
            err = &failed;
        }
    }
    free(query);
    tqi_simple_wait_end(&link->grant_waits, err);
}

/* Asks for a grant of `want` ids at least. */
static void link_grant(tqi_simple_link *link, size_t want, uint64_t deadline)
{
    tqi_simple_query *query = tqi_simple_query_make(link->simple);
    tq_error err;

    if (query == NULL) {
        tqi_error_nomem(&err, "a grant");
        tqi_simple_wait_end(&link->grant_waits, &err);
        return;
    }
    query->link = link;
    query->count = link->last_grant == 0                 ? LINK_FIRST_GRANT
                   : link->last_grant < TQ_GRANT_MAX / 2 ? 2 * link->last_grant
                                                         : TQ_GRANT_MAX;
    if (query->count < want) {
        query->count = want < TQ_GRANT_MAX ? (uint32_t)want : TQ_GRANT_MAX;
    }
    link->last_grant = query->count;
    link->granting = true;
    link->simple->host->grant(link->simple->host, link->name, query->count, deadline, link_granted, query);
}

/* Room for the grants of the next n ids, each of which may have its own. */
static int link_reserve_grants(const tqi_simple_link *link, size_t n, tqi_simple_grants *grants)
{
    size_t most = 0;

    for (uint64_t got = 0; got < n && most < link->n_ids; most++) {
        got += link->ids[most].count;
    }
    grants->n = 0;
    return tqi_grow(&grants->grants, &grants->capacity, most, sizeof(*grants->grants));
}

int tqi_simple_link_take(tqi_simple_link *link, uint64_t *ids, size_t n, tqi_simple_grants *grants,
                         tqi_simple_ids_from *from, uint64_t deadline, tqi_simple_pending *wait)
{
    if (link->ids_total > 0 && !tqi_simple_ids_known(link->simple, &link->ids_from)) {
        tqi_simple_link_drop_ids(link);
    }
    if (link->ids_total < n) {
        tqi_simple_wait_in(link->simple, &link->grant_waits, "the controller granted block ids", deadline, wait);
        if (!link->granting) {
            link_grant(link, n - link->ids_total, deadline);
        }
        return TQ_EAGAIN;
    }
    size_t got = 0, range = 0;
    if (link_reserve_grants(link, n, grants) != TQ_OK) {
        return TQ_ENOMEM;
    }
    while (got < n) {
        tqi_simple_id_range *first = &link->ids[range];
        grants->grants[grants->n++] = first->grant;
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
    if (link->ids_total < link->last_grant / 4 && !link->granting) {
        link_grant(link, 0, tqi_simple_try(2, 0, TQI_NEVER));
    }
    return TQ_OK;
}
