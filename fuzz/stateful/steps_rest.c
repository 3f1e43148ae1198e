/*
 * steps_rest.c - requests for people, and those of checkpoints.
 */
#include "stateful.h"

#include <string.h>

/* --- for people ----------------------------------------------------------- */

void sf_step_system_status(sf *f, sf_client *client)
{
    Tq__SystemStatus *message = sf_message(f, &tq__system_status__descriptor);

    message->mine = sf_pick(f, 2);
    message->older_ms = sf_pick(f, 3);
    sf_send(f, client, TQI_SYSTEM_STATUS, message, SF_MUST);
}

void sf_step_system_config(sf *f, sf_client *client)
{
    sf_send(f, client, TQI_SYSTEM_CONFIG, sf_message(f, &tq__system_config__descriptor), SF_MUST);
}

void sf_step_events(sf *f, sf_client *client)
{
    Tq__Events *message = sf_message(f, &tq__events__descriptor);
    uint32_t which = sf_pick(f, 4);

    message->since = which ? f->event : 0;
    message->limit = sf_pick(f, 3) * 5;
    message->wait = which > 2;
    message->timeout_ms = sf_pick(f, 2) * 80;
    sf_send(f, client, TQI_EVENTS, message, message->wait ? SF_WAITS : SF_MUST);
}

/* --- snapshots ------------------------------------------------------------ */

void sf_step_snapshot(sf *f, sf_client *client)
{
    Tq__Snapshot *message = sf_message(f, &tq__snapshot__descriptor);

    if (client->snapshot && sf_pick(f, 8)) {
        sf_step_snapshot_close(f, client);
        return;
    }
    if (sf_pick(f, 4) == 0) {
        message->partition = sf_partition_name(f);
    }
    sf_send(f, client, TQI_SNAPSHOT, message, 0);
}

/* Mostly reads what is left and closes it: as long as one is open, nothing is moved and no dead blocks are reported. */
void sf_step_snapshot_read(sf *f, sf_client *client)
{
    uint64_t id = client->snapshot;

    if (!id) {
        sf_step_snapshot(f, client);
        id = client->snapshot;
    }
    uint32_t most = client->snapshot_parts + 1;
    for (uint32_t i = 0; i < most && id && client->snapshot == id; i++) {
        Tq__SnapshotRead *message = sf_message(f, &tq__snapshot_read__descriptor);
        message->id = id;
        message->part = client->snapshot_next;
        message->keep = client->snapshot_next >= client->snapshot_parts || sf_once_in(f, 16);
        sf_send(f, client, TQI_SNAPSHOT_READ, message, SF_CLEAN);
    }
    if (client->snapshot && sf_pick(f, 8)) {
        sf_step_snapshot_close(f, client);
    }
}

void sf_step_snapshot_close(sf *f, sf_client *client)
{
    Tq__SnapshotClose *message = sf_message(f, &tq__snapshot_close__descriptor);

    message->id = client->snapshot;
    sf_send(f, client, TQI_SNAPSHOT_CLOSE, message, SF_MUST);
}

/* --- restores ------------------------------------------------------------- */

static int saved_some(sf *f)
{
    uint32_t first = sf_pick(f, SF_SAVED);

    for (uint32_t i = 0; i < SF_SAVED; i++) {
        if (f->saved[(first + i) % SF_SAVED].whole) {
            return (int)((first + i) % SF_SAVED);
        }
    }
    return -1;
}

static void *part_alloc(void *f, size_t size)
{
    return sf_alloc(f, size);
}

/* The arena is emptied as a whole. */
static void part_free(void *f, void *memory)
{
    (void)f;
    (void)memory;
}

/* A part with something in it spoiled, in the arena. */
static void part_spoil(sf *f, ProtobufCBinaryData *bytes)
{
    ProtobufCAllocator arena = {part_alloc, part_free, f};
    Tq__SnapshotPart *part = tq__snapshot_part__unpack(&arena, bytes->len, bytes->data);

    if (part == NULL) {
        return;
    }
    sf_mutate_message(f, &part->base);
    bytes->len = tq__snapshot_part__get_packed_size(part);
    bytes->data = sf_alloc(f, bytes->len + 1);
    tq__snapshot_part__pack(part, bytes->data);
}

void sf_step_restore_part(sf *f, sf_client *client)
{
    Tq__RestorePart *message = sf_message(f, &tq__restore_part__descriptor);

    if (!client->restore) {
        client->restoring = saved_some(f);
        client->restore_next = 0;
    }
    const sf_saved *saved = client->restoring >= 0 ? &f->saved[client->restoring] : NULL;
    if (saved == NULL || !saved->whole) {
        if (client->restore && sf_pick(f, 2)) {
            sf_step_restore_drop(f, client);
        } else {
            sf_step_snapshot_read(f, client);
        }
        return;
    }
    message->id = client->restore;
    message->total = sf_pick(f, 2) * 4096;
    message->ask = !client->restore && sf_once_in(f, 8);
    if (client->restore_next < saved->n) {
        message->part = saved->part[client->restore_next];
    } else if (client->restore) {
        sf_step_restore_commit(f, client);
        return;
    }
    if (sf_pick(f, 256) < f->rate) {
        f->clean = false;
        part_spoil(f, &message->part);
    }
    sf_send(f, client, TQI_RESTORE_PART, message, 0);
}

/* Sends the parts that are missing before, mostly. */
void sf_step_restore_commit(sf *f, sf_client *client)
{
    Tq__RestoreCommit *message = sf_message(f, &tq__restore_commit__descriptor);
    const sf_saved *saved;

    if (!client->restore) {
        sf_step_restore_part(f, client);
    }
    for (int i = 0; i < SF_PARTS && client->restore && !sf_once_in(f, 32); i++) {
        if (client->restoring >= 0 && client->restore_next >= f->saved[client->restoring].n) {
            break;
        }
        sf_step_restore_part(f, client);
    }
    if (!client->restore || client->restoring < 0) {
        return;
    }
    saved = &f->saved[client->restoring];
    message->id = client->restore;
    message->partial = sf_pick(f, 4) > 0;
    message->relink = sf_pick(f, 16) > 0;
    message->epoch = sf_pick(f, 8) ? saved->epoch : 1;
    bool all = client->restore_next == saved->n && message->relink;
    sf_send(f, client, TQI_RESTORE_COMMIT, message, all ? SF_CLEAN : 0);
    client->restore = 0;
    client->restore_next = 0;
}

void sf_step_restore_drop(sf *f, sf_client *client)
{
    Tq__RestoreDrop *message = sf_message(f, &tq__restore_drop__descriptor);

    message->id = client->restore;
    sf_send(f, client, TQI_RESTORE_DROP, message, SF_MUST);
    client->restore = 0;
    client->restore_next = 0;
}
