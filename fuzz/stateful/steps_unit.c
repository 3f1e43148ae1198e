/*
 * steps_unit.c - requests to the storage unit.
 */
#include "stateful.h"

#include <string.h>

void sf_step_unit_map(sf *f, sf_client *client)
{
    sf_send(f, client, TQI_UNIT_MAP, sf_message(f, &tq__unit_map__descriptor), SF_MUST);
}

/* Sizes are such that the unit is full now and then. */
static uint64_t reserve_size(sf *f)
{
    switch (sf_pick(f, 16)) {
    case 0:
        return 0;
    case 1:
        return 60000 + sf_pick(f, 60000);
    case 2:
    case 3:
        return 4096 + sf_pick(f, 8192);
    default:
        return 64 + sf_pick(f, 1500);
    }
}

void sf_step_unit_reserve(sf *f, sf_client *client)
{
    Tq__UnitReserve *message = sf_message(f, &tq__unit_reserve__descriptor);
    Tq__Grant *proof = sf_message(f, &tq__grant__descriptor);
    sf_grant *grant = sf_grant_of(f, client, 0);
    uint32_t n = 1 + sf_pick(f, 3);

    if (grant == NULL) {
        return;
    }
    message->id = sf_alloc(f, n * sizeof(uint64_t));
    message->size = sf_alloc(f, n * sizeof(uint64_t));
    for (uint32_t i = 0; i < n && grant->next < grant->count; i++) {
        message->id[message->n_id++] = grant->first + grant->next++;
        message->size[message->n_size++] = reserve_size(f);
    }
    proof->first = grant->first;
    proof->count = grant->count;
    proof->proof.data = grant->grant;
    proof->proof.len = grant->granted ? TQI_NET_GRANT : 0;
    message->grant = sf_alloc(f, sizeof(proof));
    message->grant[message->n_grant++] = proof;
    message->adds_samples = sf_pick(f, 2);
    message->wait = sf_pick(f, 2);
    message->timeout_ms = sf_pick(f, 4) * 50;
    message->incarnation = sf_pick(f, 2) ? grant->incarnation : 0;
    sf_send(f, client, TQI_UNIT_RESERVE, message, message->wait ? SF_WAITS : 0);
}

/* The newest reserved block; NULL: there is none, and one is requested. */
sf_block *sf_block_of(sf *f, sf_client *client, bool written)
{
    unsigned have = client->n_block < SF_BLOCKS ? client->n_block : SF_BLOCKS;

    for (unsigned i = 1; i <= have; i++) {
        sf_block *block = &client->block[(client->n_block - i) % SF_BLOCKS];
        if (block->id && block->written == written) {
            return block;
        }
    }
    if (written) {
        sf_step_unit_write(f, client);
    } else {
        sf_step_unit_reserve(f, client);
    }
    return NULL;
}

void sf_step_unit_write(sf *f, sf_client *client)
{
    Tq__UnitWrite *message = sf_message(f, &tq__unit_write__descriptor);
    sf_block *first = sf_block_of(f, client, false);
    size_t size = 0, at = 0;

    if (first == NULL) {
        return;
    }
    message->id = sf_alloc(f, 3 * sizeof(uint64_t));
    message->size = sf_alloc(f, 3 * sizeof(uint64_t));
    message->slot = sf_alloc(f, 3 * sizeof(uint32_t));
    uint32_t most = 1 + sf_pick(f, 3);
    for (unsigned b = 0; b < SF_BLOCKS && b < client->n_block && message->n_id < most; b++) {
        const sf_block *block = b == 0 ? first : &client->block[b];
        if (!block->id || (b > 0 && (block == first || block->written))) {
            continue;
        }
        message->id[message->n_id++] = block->id;
        message->size[message->n_size++] = block->size;
        message->slot[message->n_slot++] = block->slot;
        size += block->size;
    }
    uint8_t *payload = sf_alloc(f, size + 1);
    for (size_t i = 0; i < message->n_id; i++) {
        for (uint64_t k = 0; k < message->size[i]; k++) {
            payload[at++] = sf_byte(message->id[i], k);
        }
    }
    message->incarnation = sf_pick(f, 2) ? first->incarnation : 0;
    /* Spoiled, it may write one block's bytes into another. */
    uint64_t before = sf_counts[TQI_UNIT_WRITE].mutated;
    sf_send_payload(f, client, TQI_UNIT_WRITE, message, payload, size, SF_CLEAN);
    if (sf_counts[TQI_UNIT_WRITE].mutated == before) {
        return;
    }
    for (unsigned b = 0; b < SF_BLOCKS; b++) {
        client->block[b].written = false;
    }
    for (unsigned i = 0; i < SF_PLACED; i++) {
        f->placed[i].written = false;
    }
}

/* Blocks of the unit that were published. */
static size_t unit_placed(sf *f, const sf_placed **out, size_t max)
{
    unsigned have = f->n_placed < SF_PLACED ? f->n_placed : SF_PLACED;
    size_t n = 0;
    uint32_t from = have ? sf_pick(f, have) : 0;

    for (unsigned i = 0; i < have && n < max; i++) {
        const sf_placed *placed = &f->placed[(from + i) % have];
        if (placed->owner == 0) {
            out[n++] = placed;
        }
    }
    return n;
}

void sf_step_unit_read(sf *f, sf_client *client)
{
    Tq__UnitRead *message = sf_message(f, &tq__unit_read__descriptor);
    const sf_placed *placed[4];
    size_t n = unit_placed(f, placed, 1 + sf_pick(f, 4));

    if (n == 0) {
        sf_step_publish(f, client);
        return;
    }
    message->id = sf_alloc(f, n * sizeof(uint64_t));
    message->slot = sf_alloc(f, n * sizeof(uint32_t));
    message->offset = sf_alloc(f, n * sizeof(uint64_t));
    message->size = sf_alloc(f, n * sizeof(uint64_t));
    for (size_t i = 0; i < n; i++) {
        message->id[i] = placed[i]->id;
        message->slot[i] = placed[i]->slot;
        message->offset[i] = placed[i]->size ? sf_pick(f, 64) % placed[i]->size : 0;
        message->size[i] = placed[i]->size - message->offset[i];
        message->size[i] -= sf_pick(f, 2) ? message->size[i] / 2 : 0;
    }
    message->n_id = message->n_slot = message->n_offset = message->n_size = n;
    message->incarnation = sf_pick(f, 2) ? f->owner[0].incarnation : 0;
    sf_send(f, client, TQI_UNIT_READ, message, 0);
}

void sf_step_unit_stat(sf *f, sf_client *client)
{
    sf_send(f, client, TQI_UNIT_STAT, sf_message(f, &tq__unit_stat__descriptor), SF_MUST);
}

void sf_step_unit_pin(sf *f, sf_client *client)
{
    Tq__UnitPin *message = sf_message(f, &tq__unit_pin__descriptor);
    const sf_placed *placed[3];

    if (!client->mapped) {
        sf_step_unit_map(f, client);
        return;
    }
    size_t n = unit_placed(f, placed, 1 + sf_pick(f, 3));
    if (n == 0) {
        sf_step_publish(f, client);
        return;
    }
    message->id = sf_alloc(f, n * sizeof(uint64_t));
    message->slot = sf_alloc(f, n * sizeof(uint32_t));
    for (size_t i = 0; i < n; i++) {
        message->id[message->n_id++] = placed[i]->id;
        message->slot[message->n_slot++] = placed[i]->slot;
    }
    message->pin = ++client->last_pin;
    message->incarnation = sf_pick(f, 2) ? f->owner[0].incarnation : 0;
    sf_send(f, client, TQI_UNIT_PIN, message, SF_CLEAN);
}

void sf_step_unit_unpin(sf *f, sf_client *client)
{
    Tq__UnitUnpin *message = sf_message(f, &tq__unit_unpin__descriptor);
    uint32_t n = 1 + sf_pick(f, 3);

    message->pin = sf_alloc(f, n * sizeof(uint64_t));
    while (message->n_pin < n && client->n_pin > 0) {
        message->pin[message->n_pin++] = client->pin[--client->n_pin % SF_MANY];
    }
    sf_send(f, client, TQI_UNIT_UNPIN, message, SF_MUST);
}

void sf_step_unit_finish(sf *f, sf_client *client)
{
    Tq__UnitFinish *message = sf_message(f, &tq__unit_finish__descriptor);
    uint32_t n = sf_pick(f, 3);

    message->id = sf_alloc(f, (n + 1) * sizeof(uint64_t));
    for (unsigned b = 0; b < SF_BLOCKS && b < client->n_block && message->n_id < n; b++) {
        if (client->block[b].id) {
            message->id[message->n_id++] = client->block[b].id;
        }
    }
    message->others = sf_once_in(f, 4);
    sf_send(f, client, TQI_UNIT_FINISH, message, SF_MUST);
    /* It may not write to them any more. */
    for (unsigned b = 0; b < SF_BLOCKS; b++) {
        bool named = false;
        for (size_t i = 0; i < message->n_id; i++) {
            named = named || message->id[i] == client->block[b].id;
        }
        if (named != (bool)message->others) {
            client->block[b].id = 0;
        }
    }
}
