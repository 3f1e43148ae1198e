/*
 * owner.c - owners of storage: their records, what they hold, and what is lost with them.
 */
#include <stdlib.h>

#include <utlist.h>

#include "base/error.h"
#include "base/hash.h"
#include "table/block.h"

tqi_table_owner *tqi_table_owner_find(tqi_table *table, const char *name)
{
    tqi_table_owner *owner = NULL;

    if (name != NULL) {
        HASH_FIND(hh, table->owners, name, strlen(name), owner);
    }
    return owner;
}

int tqi_table_owner_register(tqi_table *table, const char *name, uint64_t incarnation, tqi_table_owner **out,
                             tq_error *err)
{
    tqi_table_owner *old, *owner;
    size_t size;
    int rc = tqi_check_size("owner", name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    old = tqi_table_owner_find(table, name);
    if (old != NULL && old->incarnation == incarnation) {
        *out = old;
        return TQ_OK;
    }
    size = strlen(name);
    owner = calloc(1, sizeof(*owner) + size + 1);
    if (owner == NULL) {
        return tqi_error_nomem(err, "owner");
    }
    owner->table = table;
    owner->incarnation = incarnation;
    owner->first_block = table->next_block;
    memcpy(owner->name, name, size);
    /* Added before the old one goes, so that a failure leaves that one in place; it can be found by name only
     * afterwards. */
    if (!TQI_HASH_ADD_KEYPTR(table->owners, owner->name, size, owner)) {
        free(owner);
        return tqi_error_nomem(err, "owner");
    }
    if (old != NULL) {
        tqi_table_owner_lost(table, old, NULL, NULL);
    }
    *out = owner;
    return TQ_OK;
}

void tqi_table_owner_set_outlives(tqi_table_owner *owner)
{
    owner->outlives = true;
}

uint64_t tqi_table_owner_incarnation(const tqi_table_owner *owner)
{
    return owner->incarnation;
}

uint64_t tqi_table_owner_blocks(const tqi_table_owner *owner)
{
    return owner->blocks;
}

uint64_t tqi_table_owner_bytes(const tqi_table_owner *owner)
{
    return owner->bytes;
}

void tqi_table_owner_set_user(tqi_table_owner *owner, void *user)
{
    owner->user = user;
}

void *tqi_table_owner_user(const tqi_table_owner *owner)
{
    return owner->user;
}

static int owner_compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Ids, ascending, with a mark for those that are known. */
typedef struct owner_ids {
    const uint64_t *ids;
    uint64_t *known; /* bits */
    size_t n;
} owner_ids;

/* Marks those of [first, first + count) whose bit in `but` (NULL: none has one) is not set. */
static void owner_mark(owner_ids *set, uint64_t first, uint64_t count, const uint64_t *but)
{
    size_t low = 0, high = set->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (set->ids[middle] < first) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < set->n && set->ids[low] - first < count; low++) {
        uint64_t place = set->ids[low] - first;
        if (but == NULL || (but[place / 64] >> (place % 64) & 1) == 0) {
            set->known[low / 64] |= UINT64_C(1) << (low % 64);
        }
    }
}

size_t tqi_table_owner_unknown(tqi_table_owner *owner, uint64_t *ids, size_t n)
{
    uint64_t known[TQI_TABLE_UNKNOWN_MAX / 64] = {0};
    owner_ids set = {.ids = ids, .known = known, .n = n};
    const tqi_table_range *range;
    const tqi_table_dead_node *node;
    size_t left = 0;

    qsort(ids, n, sizeof(*ids), owner_compare_ids);
    DL_FOREACH (owner->ranges, range) {
        owner_mark(&set, range->first, range->count, range->used);
    }
    for (node = owner->dead_head; node != NULL; node = node->next) {
        owner_mark(&set, node->first, node->count, NULL);
    }
    for (size_t i = 0; i < n; i++) {
        if ((known[i / 64] >> (i % 64) & 1) == 0 && tqi_table_block_owner(owner->table, ids[i]) != owner) {
            ids[left++] = ids[i];
        }
    }
    return left;
}

static void owner_stamp_blocks(tqi_table *table, const tqi_table_owner *owner, uint64_t stamp)
{
    for (size_t page = 0; page < table->n_block_pages; page++) {
        for (uint32_t i = 0; i < TQI_T_BLOCK_PAGE; i++) {
            tqi_table_block *block = &table->block_pages[page][i];
            if (block->owner == owner) {
                block->stamp = stamp;
            }
        }
    }
}

void tqi_table_owner_lost(tqi_table *table, tqi_table_owner *owner, tqi_table_lost_fn lost, void *arg)
{
    tqi_table_partition *partition;

    owner->dropping = true;
    if (owner->blocks > 0) {
        uint64_t stamp = ++table->stamp;
        owner_stamp_blocks(table, owner, stamp);
        for (partition = table->existing; partition != NULL; partition = partition->next) {
            tqi_t_lose_stamped(partition, stamp, lost, arg);
        }
    }
    while (owner->ranges != NULL) {
        tqi_t_range_free(table, owner->ranges);
    }
    tqi_t_dead_drop(owner);
    HASH_DEL(table->owners, owner);
    free(owner);
}
