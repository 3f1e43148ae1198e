/*
 * model.c - what replies have revealed: ids, samples, blocks, parts of snapshots. Later requests are built from it. It
 * may be outdated if others have changed something since; requests built from that are refused, as in reality.
 */
#include "stateful.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

uint8_t sf_byte(uint64_t id, uint64_t at)
{
    return (uint8_t)(id * 31 + at);
}

void sf_number(sf *f, uint64_t number)
{
    f->number[f->n_number++ % SF_NUMBERS] = number;
}

const char *sf_owner_name(int owner)
{
    static const char *const names[SF_OWNERS] = {SF_UNIT, "own-1", "own-2", "shared-3"};

    return names[owner];
}

static int model_owner(const char *name)
{
    for (int i = 0; i < SF_OWNERS; i++) {
        if (strcmp(sf_owner_name(i), name) == 0) {
            return i;
        }
    }
    return -1;
}

static int model_partition(const char *name)
{
    return name[0] == 'p' && name[1] >= '0' && name[1] <= '9' && !name[2] ? name[1] - '0' : -1;
}

sf_placed *sf_placed_find(sf *f, uint64_t id)
{
    for (unsigned i = 0; i < SF_PLACED && i < f->n_placed; i++) {
        if (f->placed[i].id == id) {
            return &f->placed[i];
        }
    }
    return NULL;
}

void sf_saved_drop(sf_saved *saved)
{
    for (uint32_t i = 0; i < saved->n; i++) {
        free(saved->part[i].data);
    }
    memset(saved, 0, sizeof(*saved));
}

void sf_forget(sf *f, sf_client *client, bool unit)
{
    (void)f;
    if (unit) {
        client->mapped = false;
        client->n_block = client->n_pin = 0;
        return;
    }
    memset(client->serves, 0, sizeof(client->serves));
    client->n_grant = client->n_claim = client->n_clearing = 0;
    client->snapshot = client->restore = 0;
    client->saving = NULL;
    if (client->live != NULL) {
        tq__compact_live_reply__free_unpacked(client->live, NULL);
        client->live = NULL;
    }
}

void sf_learn_remover(sf *f, const char *name)
{
    for (unsigned i = 0; i < f->n_remover; i++) {
        if (strcmp(f->remover[i], name) == 0) {
            return;
        }
    }
    sf_must(f->n_remover < SF_REMOVERS, "room for removers");
    f->remover[f->n_remover] = sf_keep(name);
    sf_must(f->remover[f->n_remover++] != NULL, "memory");
}

/* --- batches -------------------------------------------------------------- */

/* Samples, and blocks with their places, of a reply's batch. */
static void learn_batch(sf *f, const Tq__Batch *batch)
{
    int partition = batch != NULL ? model_partition(batch->partition) : -1;

    if (partition < 0) {
        return;
    }
    for (size_t i = 0; i < batch->n_index && i < 8; i++) {
        f->sample[f->n_sample++ % SF_SAMPLES] =
            (sf_sample){partition, batch->index[i], i < batch->n_incarnation ? batch->incarnation[i] : 0};
    }
    for (size_t i = 0; i < batch->n_block; i++) {
        const Tq__Block *block = batch->block[i];
        uint64_t offset;
        int owner = block->owner < batch->n_owner ? model_owner(batch->owner[block->owner]->name) : -1;
        if (owner < 0 || sf_placed_find(f, block->id) != NULL) {
            continue;
        }
        sf_placed *placed = &f->placed[f->n_placed++ % SF_PLACED];
        *placed = (sf_placed){.id = block->id, .size = block->size, .owner = owner, .live = true};
        if (block->locator.len == TQI_STORE_LOCATOR) {
            placed->slot = tqi_store_locator_read(block->locator.data, &offset);
        }
        sf_number(f, block->id);
    }
}

/* Published data is where its writer put it. */
static void learn_publish(sf *f, sf_client *client, const Tq__Publish *asked, const Tq__PublishReply *reply)
{
    learn_batch(f, reply->batch);
    learn_batch(f, asked->batch);
    for (size_t i = 0; asked->batch != NULL && i < asked->batch->n_block; i++) {
        sf_placed *placed = sf_placed_find(f, asked->batch->block[i]->id);
        for (unsigned b = 0; placed != NULL && b < SF_BLOCKS && b < client->n_block; b++) {
            if (client->block[b].id == placed->id) {
                placed->written = client->block[b].written;
                placed->slot = client->block[b].slot;
            }
        }
    }
    if (reply->replaced != NULL) {
        client->clearing[client->n_clearing++ % SF_MANY] = reply->replaced->id;
    }
}

/* --- the controller's ----------------------------------------------------- */

static void learn_grant(sf *f, sf_client *client, const Tq__GrantBlocks *asked, const Tq__GrantBlocksReply *reply)
{
    int owner = model_owner(asked->owner);

    if (owner < 0 || reply->count == 0) {
        return;
    }
    sf_grant *grant = &client->grant[client->n_grant++ % SF_GRANTS];
    *grant = (sf_grant){
        .first = reply->first,
        .count = reply->count,
        .owner = owner,
        .incarnation = reply->incarnation,
        .granted = reply->grant.len == TQI_NET_GRANT,
    };
    if (grant->granted) {
        memcpy(grant->grant, reply->grant.data, TQI_NET_GRANT);
    }
    f->owner[owner].incarnation = reply->incarnation;
    sf_number(f, reply->first);
}

static void learn_begun(sf *f, sf_client *client, const Tq__BeginClearReply *reply)
{
    for (size_t i = 0; i < reply->n_clearing; i++) {
        const Tq__Clearing *clearing = reply->clearing[i];
        Tq__Batch *batch = tq__batch__unpack(NULL, clearing->batch.len, clearing->batch.data);
        if (batch == NULL) {
            sf_fault(f, "what is to be removed is malformed");
        }
        tq__batch__free_unpacked(batch, NULL);
        client->clearing[client->n_clearing++ % SF_MANY] = clearing->id;
        sf_number(f, clearing->id);
    }
}

static void learn_part(sf *f, sf_client *client, const Tq__SnapshotRead *asked, const Tq__SnapshotReadReply *reply)
{
    if (asked->keep || asked->id != client->snapshot) {
        return;
    }
    Tq__SnapshotPart *part = tq__snapshot_part__unpack(NULL, reply->part.len, reply->part.data);
    if (part == NULL) {
        sf_fault(f, "a part of a snapshot is malformed");
    }
    tq__snapshot_part__free_unpacked(part, NULL);
    sf_saved *saved = client->saving;
    if (saved == NULL || asked->part != saved->n || saved->n == SF_PARTS || saved->whole) {
        return;
    }
    saved->part[saved->n].len = reply->part.len;
    saved->part[saved->n].data = malloc(reply->part.len + 1);
    sf_must(saved->part[saved->n].data != NULL, "memory");
    memcpy(saved->part[saved->n++].data, reply->part.data, reply->part.len);
    client->snapshot_next = saved->n;
    saved->whole = saved->n == client->snapshot_parts;
}

static void learn_snapshot(sf *f, sf_client *client, const Tq__SnapshotReply *reply)
{
    client->snapshot = reply->id;
    client->snapshot_parts = reply->parts;
    client->snapshot_next = 0;
    client->saving = &f->saved[f->n_saved++ % SF_SAVED];
    for (int i = 0; i < SF_CLIENTS; i++) {
        sf_client *other = &f->client[i];
        if (other != client && other->saving == client->saving) {
            other->saving = NULL;
        }
        if (other->restore && client->saving - f->saved == other->restoring) {
            other->restoring = -1; /* its parts are gone */
        }
    }
    sf_saved_drop(client->saving);
    client->saving->epoch = reply->epoch;
    sf_number(f, reply->id);
}

static void learn_live(sf *f, sf_client *client, const Tq__CompactLive *asked, const Tq__CompactLiveReply *reply)
{
    size_t size = tq__compact_live_reply__get_packed_size(reply);
    uint8_t *bytes = malloc(size + 1);

    (void)f;
    sf_must(bytes != NULL, "memory");
    tq__compact_live_reply__pack(reply, bytes);
    if (client->live != NULL) {
        tq__compact_live_reply__free_unpacked(client->live, NULL);
    }
    client->live = tq__compact_live_reply__unpack(NULL, size, bytes);
    free(bytes);
    for (size_t i = 0; i < SF_MANY && i < asked->n_id; i++) {
        client->live_id[i] = asked->id[i];
    }
}

static void learn_collect(sf *f, const Tq__CollectDead *asked, const Tq__CollectDeadReply *reply)
{
    int owner = model_owner(asked->owner);

    if (reply->n_first != reply->n_count || reply->n_first != reply->writer_done.len) {
        sf_fault(f, "a notice of dead blocks has %zu ids, %zu counts and %zu marks", reply->n_first, reply->n_count,
                 reply->writer_done.len);
    }
    if (owner >= 0) {
        f->owner[owner].notice = reply->notice;
        f->owner[owner].named = reply->n_sparse ? reply->named : f->owner[owner].named;
    }
}

static void learn_registered(sf *f, sf_client *client, const Tq__RegisterOwner *asked,
                             const Tq__RegisterOwnerReply *reply)
{
    int owner = model_owner(asked->name);

    if (owner < 0) {
        return;
    }
    for (int i = 0; i < SF_CLIENTS && owner != 3; i++) {
        f->client[i].serves[owner] = false;
    }
    client->serves[owner] = true;
    f->owner[owner].incarnation = asked->incarnation;
    if (reply->fresh) {
        f->owner[owner].notice = f->owner[owner].named = 0;
    }
}

/* --- the unit's ----------------------------------------------------------- */

static void learn_reserved(sf *f, sf_client *client, const Tq__UnitReserve *asked, const Tq__UnitReserveReply *reply)
{
    if (reply->n_slot != asked->n_id || reply->n_offset != asked->n_id) {
        sf_fault(f, "a reserve of %zu blocks is answered with %zu slots", asked->n_id, reply->n_slot);
    }
    for (size_t i = 0; i < asked->n_id; i++) {
        client->block[client->n_block++ % SF_BLOCKS] = (sf_block){
            .id = asked->id[i],
            .size = asked->size[i],
            .slot = reply->slot[i],
            .incarnation = f->owner[0].incarnation,
        };
        sf_number(f, reply->slot[i]);
    }
}

static void learn_written(sf_client *client, const Tq__UnitWrite *asked, bool mutated)
{
    for (unsigned b = 0; b < SF_BLOCKS && b < client->n_block; b++) {
        for (size_t i = 0; i < asked->n_id && !mutated; i++) {
            if (client->block[b].id == asked->id[i]) {
                client->block[b].written = true;
            }
        }
    }
}

/* Blocks that were written have the bytes that were written. */
static void learn_read(sf *f, const Tq__UnitRead *asked, const Tq__UnitReadReply *reply, const uint8_t *payload,
                       size_t size, bool mutated)
{
    size_t gone = 0, at = 0;

    for (size_t i = 0; i < asked->n_id && !mutated; i++) {
        const sf_placed *placed = sf_placed_find(f, asked->id[i]);
        if (gone < reply->n_gone && reply->gone[gone] == i) {
            gone++;
            continue;
        }
        for (uint64_t b = 0; b < asked->size[i] && placed != NULL && placed->written; b++) {
            if (at + b >= size || payload[at + b] != sf_byte(placed->id, asked->offset[i] + b)) {
                sf_fault(f, "block %llu does not have at %llu what was written", (unsigned long long)placed->id,
                         (unsigned long long)asked->offset[i] + (unsigned long long)b);
            }
        }
        at += asked->size[i];
    }
    if (!mutated && (at != size || gone != reply->n_gone)) {
        sf_fault(f, "a read of %zu bytes is answered with %zu", at, size);
    }
}

/* --- all ------------------------------------------------------------------ */

static void learn_unit(sf *f, sf_client *client, const sf_pending *pending, const ProtobufCMessage *asked,
                       const ProtobufCMessage *reply, const uint8_t *payload, size_t size)
{
    switch (pending->kind) {
    case TQI_UNIT_MAP:
        client->mapped = true;
        break;
    case TQI_UNIT_RESERVE:
        learn_reserved(f, client, (const Tq__UnitReserve *)asked, (const Tq__UnitReserveReply *)reply);
        break;
    case TQI_UNIT_WRITE:
        learn_written(client, (const Tq__UnitWrite *)asked, pending->mutated);
        break;
    case TQI_UNIT_READ:
        learn_read(f, (const Tq__UnitRead *)asked, (const Tq__UnitReadReply *)reply, payload, size, pending->mutated);
        break;
    case TQI_UNIT_PIN:
        client->pin[client->n_pin++ % SF_MANY] = ((const Tq__UnitPin *)asked)->pin;
        break;
    default:
        break;
    }
}

static void learn_checkpoint(sf *f, sf_client *client, uint16_t kind, const ProtobufCMessage *asked,
                             const ProtobufCMessage *reply)
{
    switch (kind) {
    case TQI_SNAPSHOT:
        learn_snapshot(f, client, (const Tq__SnapshotReply *)reply);
        break;
    case TQI_SNAPSHOT_READ:
        learn_part(f, client, (const Tq__SnapshotRead *)asked, (const Tq__SnapshotReadReply *)reply);
        break;
    case TQI_SNAPSHOT_CLOSE:
        if (((const Tq__SnapshotClose *)asked)->id == client->snapshot) {
            client->snapshot = 0;
            client->saving = NULL;
        }
        break;
    case TQI_RESTORE_PART:
        if (!((const Tq__RestorePart *)asked)->ask) {
            client->restore = ((const Tq__RestorePartReply *)reply)->id;
            client->restore_next++;
        }
        break;
    default:
        break;
    }
}

static void learn_controller(sf *f, sf_client *client, uint16_t kind, const ProtobufCMessage *asked,
                             const ProtobufCMessage *reply)
{
    switch (kind) {
    case TQI_PUBLISH:
        learn_publish(f, client, (const Tq__Publish *)asked, (const Tq__PublishReply *)reply);
        break;
    case TQI_RESERVE:
        learn_batch(f, ((const Tq__ReserveReply *)reply)->batch);
        break;
    case TQI_CLAIM:
        learn_batch(f, ((const Tq__ClaimReply *)reply)->batch);
        client->claim[client->n_claim++ % SF_MANY] = ((const Tq__ClaimReply *)reply)->claim;
        break;
    case TQI_RESOLVE:
        learn_batch(f, ((const Tq__ResolveReply *)reply)->batch);
        break;
    case TQI_GRANT_BLOCKS:
        learn_grant(f, client, (const Tq__GrantBlocks *)asked, (const Tq__GrantBlocksReply *)reply);
        break;
    case TQI_REGISTER_OWNER:
        learn_registered(f, client, (const Tq__RegisterOwner *)asked, (const Tq__RegisterOwnerReply *)reply);
        break;
    case TQI_COLLECT_DEAD:
        learn_collect(f, (const Tq__CollectDead *)asked, (const Tq__CollectDeadReply *)reply);
        break;
    case TQI_COMPACT_LIVE:
        learn_live(f, client, (const Tq__CompactLive *)asked, (const Tq__CompactLiveReply *)reply);
        break;
    case TQI_BEGIN_CLEAR:
        learn_begun(f, client, (const Tq__BeginClearReply *)reply);
        break;
    case TQI_LIST_KEYS:
        f->mark = ((const Tq__ListKeysReply *)reply)->mark;
        break;
    case TQI_LIST_OWNERS:
        f->list_version = ((const Tq__ListOwnersReply *)reply)->version;
        f->list_epoch = ((const Tq__ListOwnersReply *)reply)->epoch;
        break;
    case TQI_EVENTS:
        f->event = ((const Tq__EventsReply *)reply)->next;
        break;
    default:
        learn_checkpoint(f, client, kind, asked, reply);
        break;
    }
}

void sf_learn(sf *f, sf_client *client, const sf_pending *pending, const ProtobufCMessage *reply,
              const uint8_t *payload, size_t size)
{
    const tqi_method *method = tqi_method_find(pending->kind);

    if (pending->again) {
        return;
    }
    ProtobufCMessage *asked = protobuf_c_message_unpack(method->request, NULL, pending->size, pending->body);
    if (asked == NULL) {
        sf_fault(f, "a malformed %s is answered", method->name);
    }
    if (pending->kind >= TQI_UNIT_MAP) {
        learn_unit(f, client, pending, asked, reply, payload, size);
    } else {
        learn_controller(f, client, pending->kind, asked, reply);
    }
    protobuf_c_message_free_unpacked(asked, NULL);
}
