/*
 * ledger_blocks.c - the naive model of a table: owners and their blocks.
 */
#include "oracle/ledger.h"

#include "oracle/guard.h"

ledger_owner *ledger_owner_find(const ledger *l, const tqi_table_owner *record)
{
    for (uint32_t i = 0; i < l->n_owners; i++) {
        if (l->owners[i].name != NULL && l->owners[i].record == record) {
            return &l->owners[i];
        }
    }
    return NULL;
}

ledger_owner *ledger_owner_named(const ledger *l, const char *name)
{
    name = ledger_name(name);
    for (uint32_t i = 0; i < l->n_owners; i++) {
        if (name != NULL && l->owners[i].name == name) {
            return &l->owners[i];
        }
    }
    return NULL;
}

/* A place is used again only after its blocks have gone. */
ledger_owner *ledger_owner_add(ledger *l, const tqi_table_owner *record, const char *name, uint64_t incarnation)
{
    uint32_t i = 0;

    while (i < l->n_owners && l->owners[i].name != NULL) {
        i++;
    }
    if (i == l->n_owners) {
        LEDGER_GROW(l->owners, l->owners_capacity, i + 1);
        l->n_owners++;
    }
    l->owners[i] = (ledger_owner){
        .name = ledger_name(name),
        .incarnation = incarnation,
        .record = record,
        .before = l->last_granted,
    };
    return &l->owners[i];
}

uint32_t ledger_block_find(const ledger *l, uint64_t id)
{
    return ledger_map_get(&l->block_map, id);
}

uint32_t ledger_block_new(ledger *l, uint64_t id)
{
    uint32_t place = l->n_free_blocks > 0 ? l->free_blocks[--l->n_free_blocks] : l->n_blocks;

    if (place == l->n_blocks) {
        LEDGER_GROW(l->blocks, l->blocks_capacity, place + 1);
        l->n_blocks++;
    }
    l->blocks[place] = (ledger_block){.state = LEDGER_GRANTED, .id = id};
    ledger_map_set(&l->block_map, id, place + 1);
    return place;
}

void ledger_block_free(ledger *l, uint32_t place)
{
    ledger_block *block = &l->blocks[place];

    l->owners[block->owner].dead -= block->state == LEDGER_DEAD;
    l->owners[block->owner].late -= block->state == LEDGER_LATE;
    ledger_map_drop(&l->block_map, block->id);
    block->state = LEDGER_FREE;
    LEDGER_GROW(l->free_blocks, l->free_blocks_capacity, l->n_free_blocks + 1);
    l->free_blocks[l->n_free_blocks++] = place;
}

void ledger_block_die(ledger *l, uint32_t place, bool writer_done)
{
    ledger_block *block = &l->blocks[place];
    ledger_owner *owner = &l->owners[block->owner];

    if (block->state == LEDGER_LIVE) {
        owner->blocks--;
        owner->bytes -= block->size;
    }
    if (owner->dropping) {
        ledger_block_free(l, place);
        return;
    }
    owner->late -= block->state == LEDGER_LATE;
    owner->dead += block->state != LEDGER_DEAD;
    block->state = LEDGER_DEAD;
    block->writer_done = writer_done;
    block->told = false;
    block->died = l->operation;
    block->partition = NULL;
}

void ledger_block_live(ledger *l, uint32_t place, const tqi_table_batch_block *from, ledger_partition *partition)
{
    ledger_block *block = &l->blocks[place];

    block->state = LEDGER_LIVE;
    block->size = from->size;
    block->live = 1;
    block->live_bytes = 0;
    block->locator_size = (uint32_t)from->locator_size;
    block->locator = ledger_hash(from->locator, from->locator_size);
    block->partition = partition;
    l->owners[block->owner].blocks++;
    l->owners[block->owner].bytes += from->size;
    guard_published(from);
}

void ledger_block_unref(ledger *l, uint32_t place)
{
    if (--l->blocks[place].live == 0) {
        ledger_block_die(l, place, true);
    }
}

int64_t ledger_block_granted(const ledger *l, uint64_t session, const tqi_table_batch_block *block)
{
    uint32_t found = ledger_block_find(l, block->id);

    if (found == 0 || l->blocks[found - 1].state != LEDGER_GRANTED || l->blocks[found - 1].session != session) {
        return -1;
    }
    const ledger_owner *owner = &l->owners[l->blocks[found - 1].owner];
    return owner->name == ledger_name(block->owner) && owner->incarnation == block->owner_incarnation
               ? (int64_t)found - 1
               : -1;
}
