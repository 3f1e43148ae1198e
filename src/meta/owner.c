/*
 * owner.c - owners of storage: who they are, what they hold, and what is lost with them.
 */
#include "meta/internal.h"

tqi_owner *tqi_owner_find(tqi_meta *meta, const char *name)
{
    tqi_owner *owner = NULL;

    if (name != NULL) {
        HASH_FIND(hh, meta->owners, name, strlen(name), owner);
    }
    return owner;
}

int tqi_owner_register(tqi_meta *meta, const char *name, uint64_t incarnation, tqi_owner **out,
                       tq_error *err)
{
    bool hash_failed = false;
    tqi_owner *old, *owner;
    size_t size;
    int rc = tqi_check_name("owner", name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    old = tqi_owner_find(meta, name);
    if (old != NULL && old->incarnation == incarnation) {
        *out = old;
        return TQ_OK;
    }
    size = strlen(name);
    owner = calloc(1, sizeof(*owner) + size + 1);
    if (owner == NULL) {
        return tqi_error_nomem(err, "owner");
    }
    owner->meta = meta;
    owner->incarnation = incarnation;
    memcpy(owner->name, name, size);
    /* Added before the old one goes, so that a failure leaves that one; finding by name is only done after. */
    HASH_ADD_KEYPTR(hh, meta->owners, owner->name, size, owner);
    if (hash_failed) {
        free(owner);
        return tqi_error_nomem(err, "owner");
    }
    if (old != NULL) {
        tqi_owner_lost(meta, old, NULL, NULL);
    }
    *out = owner;
    return TQ_OK;
}

void tqi_owner_set_outlives(tqi_owner *owner)
{
    owner->outlives = true;
}

uint64_t tqi_owner_incarnation(const tqi_owner *owner)
{
    return owner->incarnation;
}

uint64_t tqi_owner_blocks(const tqi_owner *owner)
{
    return owner->blocks;
}

uint64_t tqi_owner_bytes(const tqi_owner *owner)
{
    return owner->bytes;
}

void tqi_owner_set_user(tqi_owner *owner, void *user)
{
    owner->user = user;
}

void *tqi_owner_user(const tqi_owner *owner)
{
    return owner->user;
}

static void owner_stamp_blocks(tqi_meta *meta, const tqi_owner *owner, uint64_t stamp)
{
    for (size_t page = 0; page < meta->n_block_pages; page++) {
        for (uint32_t i = 0; i < TQI_M_BLOCK_PAGE; i++) {
            tqi_block *block = &meta->block_pages[page][i];
            if (block->owner == owner) {
                block->stamp = stamp;
            }
        }
    }
}

void tqi_owner_lost(tqi_meta *meta, tqi_owner *owner, tqi_lost_fn lost, void *arg)
{
    tqi_partition *partition;

    owner->dropping = true;
    if (owner->blocks > 0) {
        uint64_t stamp = ++meta->stamp;
        owner_stamp_blocks(meta, owner, stamp);
        for (partition = meta->existing; partition != NULL; partition = partition->next) {
            tqi_m_lose_stamped(partition, stamp, lost, arg);
        }
    }
    while (owner->ranges != NULL) {
        tqi_m_range_free(meta, owner->ranges);
    }
    tqi_m_dead_drop(owner);
    HASH_DEL(meta->owners, owner);
    free(owner);
}
