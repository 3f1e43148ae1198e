/*
 * steps_blocks.c - requests about blocks and their owners: grants, notices of what is dead, moves.
 */
#include "stateful.h"

#include <tq/types.h>

#include <string.h>

static bool owner_served(const sf *f, int owner)
{
    bool served = owner == 0;

    for (int i = 0; i < SF_CLIENTS; i++) {
        served = served || f->client[i].serves[owner];
    }
    return served;
}

/* An owner that the client serves; -1: none yet, and it registers one. */
static int owner_of(sf *f, sf_client *client)
{
    int first = 1 + (int)sf_pick(f, SF_OWNERS - 1);

    for (int i = 0; i < SF_OWNERS - 1; i++) {
        int owner = 1 + (first - 1 + i) % (SF_OWNERS - 1);
        if (client->serves[owner]) {
            return owner;
        }
    }
    sf_step_register_owner(f, client);
    return -1;
}

void sf_step_register_owner(sf *f, sf_client *client)
{
    Tq__RegisterOwner *message = sf_message(f, &tq__register_owner__descriptor);
    int owner = 1 + (int)sf_pick(f, SF_OWNERS - 1);
    sf_owner *known = &f->owner[owner];
    bool fresh = !known->incarnation || sf_once_in(f, 16);

    message->name = sf_text(f, "%s", sf_owner_name(owner));
    message->incarnation = fresh ? 1000 + f->steps : known->incarnation;
    message->manager = sf_text(f, "fuzz%d", owner);
    message->info.data = (uint8_t *)sf_text(f, "info");
    message->info.len = sf_pick(f, 5);
    message->shared = owner == 3;
    message->mortal = owner == 2;
    if (owner == 1) {
        memset(known->key, 'k', TQI_NET_GRANT_KEY);
        message->key.data = known->key;
        message->key.len = TQI_NET_GRANT_KEY;
    }
    sf_send(f, client, TQI_REGISTER_OWNER, message, 0);
}

void sf_step_grant_blocks(sf *f, sf_client *client)
{
    Tq__GrantBlocks *message = sf_message(f, &tq__grant_blocks__descriptor);
    int owner = (int)sf_pick(f, SF_OWNERS);

    if (!owner_served(f, owner)) {
        sf_step_register_owner(f, client);
        return;
    }
    message->owner = sf_text(f, "%s", sf_owner_name(owner));
    message->count = sf_once_in(f, 32) ? TQ_GRANT_MAX : 1 + sf_pick(f, 24);
    if (sf_pick(f, 2)) {
        message->incarnation = f->owner[owner].incarnation;
    }
    sf_send(f, client, TQI_GRANT_BLOCKS, message, owner == 0 ? SF_CLEAN : 0);
}

sf_grant *sf_grant_of(sf *f, sf_client *client, int owner)
{
    for (unsigned i = 0; i < SF_GRANTS && i < client->n_grant; i++) {
        sf_grant *grant = &client->grant[i];
        if (grant->owner == owner && grant->next < grant->count) {
            return grant;
        }
    }
    if (!owner_served(f, owner)) {
        sf_step_register_owner(f, client);
        return NULL;
    }
    Tq__GrantBlocks *message = sf_message(f, &tq__grant_blocks__descriptor);
    message->owner = sf_text(f, "%s", sf_owner_name(owner));
    message->count = 1 + sf_pick(f, 24);
    sf_send(f, client, TQI_GRANT_BLOCKS, message, owner == 0 ? SF_CLEAN : 0);
    return NULL;
}

/* Ids of a grant, or of blocks that were reserved. */
void sf_step_abandon_blocks(sf *f, sf_client *client)
{
    Tq__AbandonBlocks *message = sf_message(f, &tq__abandon_blocks__descriptor);
    uint32_t n = 1 + sf_pick(f, 3);

    message->id = sf_alloc(f, n * sizeof(uint64_t));
    message->writing = sf_pick(f, 2);
    bool reserved = sf_pick(f, 2);
    if (reserved) {
        for (unsigned b = 0; b < SF_BLOCKS && b < client->n_block && message->n_id < n; b++) {
            if (client->block[b].id) {
                message->id[message->n_id++] = client->block[b].id;
                client->block[b].id = 0;
            }
        }
    } else {
        sf_grant *grant = sf_grant_of(f, client, (int)sf_pick(f, SF_OWNERS));
        while (grant != NULL && message->n_id < n && grant->next < grant->count) {
            message->id[message->n_id++] = grant->first + grant->next++;
        }
    }
    if (message->n_id) {
        sf_send(f, client, TQI_ABANDON_BLOCKS, message, reserved ? SF_CLEAN : 0);
    }
}

void sf_step_report_owner(sf *f, sf_client *client)
{
    static const char *const counters[] = {"capacity_bytes", "used_bytes",   "waiting_puts",
                                           "rss_bytes",      "put_requests", "something"};
    Tq__ReportOwner *message = sf_message(f, &tq__report_owner__descriptor);
    int owner = owner_of(f, client);
    size_t n = sf_pick(f, 7);

    if (owner < 0) {
        return;
    }
    message->name = sf_text(f, "%s", sf_owner_name(owner));
    message->counter = sf_alloc(f, n * sizeof(char *) + 1);
    message->value = sf_alloc(f, n * sizeof(uint64_t) + 1);
    message->n_counter = message->n_value = n;
    for (size_t i = 0; i < n; i++) {
        message->counter[i] = sf_text(f, "%s", counters[i]);
        message->value[i] = sf_pick(f, 256);
    }
    if (sf_pick(f, 2)) {
        Tq__WaitInfo *wait = sf_message(f, &tq__wait_info__descriptor);
        Tq__PinInfo *pin = sf_message(f, &tq__pin_info__descriptor);
        wait->kind = sf_text(f, "put");
        wait->number = sf_pick(f, 8);
        wait->session.data = f->client[sf_pick(f, SF_CLIENTS)].session;
        wait->session.len = TQI_NET_SESSION_ID;
        pin->client = sf_text(f, "reader");
        pin->pins = sf_pick(f, 9);
        message->wait = sf_alloc(f, sizeof(wait));
        message->wait[message->n_wait++] = wait;
        message->pin = sf_alloc(f, sizeof(pin));
        message->pin[message->n_pin++] = pin;
    }
    sf_send(f, client, TQI_REPORT_OWNER, message, 0);
}

void sf_step_collect_dead(sf *f, sf_client *client)
{
    Tq__CollectDead *message = sf_message(f, &tq__collect_dead__descriptor);
    int owner = owner_of(f, client);

    if (owner < 0) {
        return;
    }
    message->owner = sf_text(f, "%s", sf_owner_name(owner));
    if (sf_pick(f, 4)) {
        message->done = f->owner[owner].notice;
        message->named = f->owner[owner].named;
    }
    message->sparse = sf_pick(f, 2);
    sf_send(f, client, TQI_COLLECT_DEAD, message, SF_WAITS);
}

void sf_step_list_owners(sf *f, sf_client *client)
{
    Tq__ListOwners *message = sf_message(f, &tq__list_owners__descriptor);
    uint32_t which = sf_pick(f, 4);

    if (which > 0) {
        message->manager = sf_text(f, "fuzz%u", sf_pick(f, 4));
    }
    message->wait = which > 2;
    message->timeout_ms = which > 2 ? sf_pick(f, 3) * 100 : 0;
    message->brief = sf_pick(f, 2);
    if (sf_pick(f, 2)) {
        message->since = f->list_version;
        message->epoch = f->list_epoch;
    }
    if (sf_once_in(f, 4)) {
        message->name = sf_alloc(f, sizeof(char *));
        message->name[message->n_name++] = sf_text(f, "%s", sf_owner_name((int)sf_pick(f, SF_OWNERS)));
    }
    sf_send(f, client, TQI_LIST_OWNERS, message, message->wait ? SF_WAITS : SF_MUST);
}

static sf_placed *some_placed(sf *f, int owner)
{
    unsigned have = f->n_placed < SF_PLACED ? f->n_placed : SF_PLACED;
    uint32_t at = have ? sf_pick(f, have) : 0;

    for (unsigned i = 0; i < have; i++) {
        sf_placed *placed = &f->placed[(at + i) % have];
        if (owner < 0 || placed->owner == owner) {
            return placed;
        }
    }
    return NULL;
}

void sf_step_report_lost(sf *f, sf_client *client)
{
    Tq__ReportLost *message = sf_message(f, &tq__report_lost__descriptor);
    uint32_t n = sf_pick(f, 4);

    message->id = sf_alloc(f, (n + 1) * sizeof(uint64_t));
    for (uint32_t i = 0; i < n; i++) {
        const sf_placed *placed = some_placed(f, -1);
        message->id[message->n_id++] = placed != NULL ? placed->id : f->number[sf_pick(f, SF_NUMBERS)];
    }
    sf_send(f, client, TQI_REPORT_LOST, message, SF_MUST);
}

void sf_step_compact_live(sf *f, sf_client *client)
{
    Tq__CompactLive *message = sf_message(f, &tq__compact_live__descriptor);
    int owner = sf_pick(f, 8) ? 1 + (int)sf_pick(f, SF_OWNERS - 1) : 0;
    uint32_t n = 1 + sf_pick(f, 3);

    message->id = sf_alloc(f, n * sizeof(uint64_t));
    for (int i = 1; i < SF_OWNERS && owner; i++) {
        owner = client->serves[i] ? i : owner;
    }
    for (uint32_t i = 0; i < n; i++) {
        const sf_placed *placed = some_placed(f, owner);
        bool known = placed == NULL;
        for (size_t k = 0; k < message->n_id && placed != NULL; k++) {
            known = known || message->id[k] == placed->id;
        }
        if (!known) {
            message->id[message->n_id++] = placed->id;
        }
    }
    client->live_owner = owner;
    if (message->n_id) {
        sf_send(f, client, TQI_COMPACT_LIVE, message, 0);
    }
}

/* What was reported is void when the client connects with another session. */
static void *kept(sf *f, const void *items, size_t n, size_t size)
{
    void *copy = sf_alloc(f, n * size + 1);

    if (n) {
        memcpy(copy, items, n * size);
    }
    return copy;
}

/* Bytes reported as live go to new ids. */
void sf_step_compact_move(sf *f, sf_client *client)
{
    Tq__CompactMove *message = sf_message(f, &tq__compact_move__descriptor);
    Tq__CompactLiveReply *live = client->live;
    int owner = owner_of(f, client);

    if (owner < 0) {
        return;
    }
    if (live == NULL || live->n_size == 0 || client->live_owner != owner) {
        sf_step_compact_live(f, client);
        return;
    }
    size_t n = live->n_size < SF_MANY ? live->n_size : SF_MANY, pieces = 0;
    Tq__Owner *named = sf_message(f, &tq__owner__descriptor);
    named->name = sf_text(f, "%s", sf_owner_name(owner));
    named->incarnation = f->owner[owner].incarnation;
    message->owner = named;
    message->from = kept(f, client->live_id, n, sizeof(uint64_t));
    message->to = sf_alloc(f, n * sizeof(*message->to));
    message->pieces = kept(f, live->pieces, n, sizeof(uint32_t));
    for (size_t i = 0; i < n; i++) {
        sf_grant *grant = sf_grant_of(f, client, owner);
        if (grant == NULL) {
            return;
        }
        Tq__Block *block = sf_message(f, &tq__block__descriptor);
        block->id = grant->first + grant->next++;
        block->size = live->size[i];
        message->to[message->n_to++] = block;
        pieces += live->pieces[i];
    }
    message->n_from = message->n_pieces = n;
    pieces = pieces < live->n_begin ? pieces : live->n_begin;
    message->begin = kept(f, live->begin, pieces, sizeof(uint64_t));
    message->bytes = kept(f, live->bytes, pieces, sizeof(uint64_t));
    message->place = kept(f, live->place, pieces, sizeof(uint64_t));
    message->n_begin = message->n_bytes = message->n_place = pieces;
    sf_send(f, client, TQI_COMPACT_MOVE, message, 0);
    if (client->live != NULL && sf_pick(f, 2)) {
        client->live->n_size = 0;
    }
}

void sf_step_unknown_blocks(sf *f, sf_client *client)
{
    Tq__UnknownBlocks *message = sf_message(f, &tq__unknown_blocks__descriptor);
    int owner = owner_of(f, client);
    uint32_t n = sf_pick(f, 6);

    if (owner < 0) {
        return;
    }
    message->owner = sf_text(f, "%s", sf_owner_name(owner));
    message->incarnation = f->owner[owner].incarnation;
    message->id = sf_alloc(f, (n + 1) * sizeof(uint64_t));
    for (uint32_t i = 0; i < n; i++) {
        const sf_placed *placed = some_placed(f, sf_pick(f, 2) ? owner : -1);
        message->id[message->n_id++] = placed != NULL ? placed->id : f->number[sf_pick(f, SF_NUMBERS)];
    }
    sf_send(f, client, TQI_UNKNOWN_BLOCKS, message, 0);
}
