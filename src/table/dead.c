/*
 * dead.c - what an owner learns of its blocks: a queue of dead ids and a list of sparse blocks, both redelivered until
 * confirmed.
 *
 * Nodes come from one pool. Every live block and every unpublished id has a node reserved from its grant on, so that
 * the death of a block cannot fail. A node's notice number only rises along the queue, and "done" covers whole nodes.
 * Only ids that die in one operation share a node: so a node that was handed out, or is older than a freeze, does not
 * grow, and the same operations make the same notices whenever they are requested. A block that may still be written
 * after its owner has freed it is kept: its node moves from the queue to the owner's late ones, in order of time, and
 * returns to the queue when that time has passed, as if it had just died. That needs no memory either.
 * limits.late_ranges bounds the number of late nodes of all owners.
 *
 * An owner is notified once of a block that has become sparse, and again when half of the rest is gone, so a block that
 * its owner cannot move costs nothing.
 */
#include <utlist.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/limits.h"
#include "table/block.h"

int tqi_t_dead_reserve(tqi_table *table, uint32_t n, tq_error *err)
{
    while (table->n_dead_free < table->dead_reserved + n) {
        tqi_table_dead_node *page;

        if (tqi_grow(&table->dead_pages, &table->dead_pages_capacity, table->n_dead_pages + 1,
                     sizeof(tqi_table_dead_node *)) != TQ_OK) {
            return tqi_error_nomem(err, "dead blocks");
        }
        page = calloc(TQI_T_DEAD_PAGE, sizeof(*page));
        if (page == NULL) {
            return tqi_error_nomem(err, "dead blocks");
        }
        table->dead_pages[table->n_dead_pages++] = page;
        for (uint32_t i = 0; i < TQI_T_DEAD_PAGE; i++) {
            LL_PREPEND(table->dead_free, &page[i]);
        }
        table->n_dead_free += TQI_T_DEAD_PAGE;
    }
    table->dead_reserved += n;
    return TQ_OK;
}

static void dead_give_back(tqi_table *table, tqi_table_dead_node *node)
{
    LL_PREPEND(table->dead_free, node);
    table->n_dead_free++;
}

/* Removes the oldest node from the queue. */
static tqi_table_dead_node *dead_take(tqi_table_owner *owner)
{
    tqi_table_dead_node *node = owner->dead_head;

    owner->dead_head = node->next;
    owner->dead_tail = owner->dead_head != NULL ? owner->dead_tail : NULL;
    owner->table->n_dead--;
    return node;
}

/* The same for the oldest of the late nodes. */
static tqi_table_dead_node *late_take(tqi_table_owner *owner)
{
    tqi_table_dead_node *node = owner->late_head;

    owner->late_head = node->next;
    owner->late_tail = owner->late_head != NULL ? owner->late_tail : NULL;
    owner->table->n_late--;
    return node;
}

static void late_add(tqi_table_owner *owner, tqi_table_dead_node *node, uint64_t due)
{
    node->next = NULL;
    node->due = due;
    if (owner->late_tail != NULL) {
        owner->late_tail->next = node;
    } else {
        owner->late_head = node;
    }
    owner->late_tail = node;
    owner->table->n_late++;
}

/* There is something to report to the owner. */
static void dead_wake_owner(tqi_table_owner *owner)
{
    if (!owner->woken) {
        owner->woken = true;
        DL_APPEND2(owner->table->woken, owner, woken_prev, woken_next);
    }
}

/* A node of the queue, the newest. */
static void dead_append(tqi_table_owner *owner, tqi_table_dead_node *node)
{
    tqi_table *table = owner->table;

    node->next = NULL;
    node->notice = ++owner->last_notice;
    node->number = ++table->last_dead;
    node->operation = table->operation;
    table->n_dead++;
    if (owner->dead_tail != NULL) {
        owner->dead_tail->next = node;
    } else {
        owner->dead_head = node;
        dead_wake_owner(owner);
    }
    owner->dead_tail = node;
}

/* Adds the id to the newest node if it is adjacent. */
static bool dead_merge(tqi_table_owner *owner, uint64_t id, bool writer_done)
{
    tqi_table_dead_node *tail = owner->dead_tail;

    if (tail == NULL || tail->operation != owner->table->operation || tail->writer_done != writer_done ||
        tail->count == UINT32_MAX) {
        return false;
    }
    if (id == tail->first + tail->count && id != 0) {
        tail->count++;
        return true;
    }
    if (id + 1 == tail->first && id != 0) {
        tail->first = id;
        tail->count++;
        return true;
    }
    return false;
}

void tqi_t_dead_push(tqi_table_owner *owner, uint64_t id, bool writer_done)
{
    tqi_table *table = owner->table;
    tqi_table_dead_node *node;

    table->dead_reserved--;
    if (owner->dropping || dead_merge(owner, id, writer_done)) {
        return;
    }
    node = table->dead_free;
    table->dead_free = node->next;
    table->n_dead_free--;
    *node = (tqi_table_dead_node){.first = id, .count = 1, .writer_done = writer_done};
    dead_append(owner, node);
}

void tqi_t_dead_drop(tqi_table_owner *owner)
{
    while (owner->dead_head != NULL) {
        dead_give_back(owner->table, dead_take(owner));
    }
    while (owner->late_head != NULL) {
        dead_give_back(owner->table, late_take(owner));
    }
    if (owner->woken) {
        DL_DELETE2(owner->table->woken, owner, woken_prev, woken_next);
        owner->woken = false;
    }
}

void tqi_t_dead_fini(tqi_table *table)
{
    tqi_table_freeze *freeze;

    while ((freeze = table->freezes) != NULL) {
        DL_DELETE(table->freezes, freeze);
        free(freeze);
    }
    for (size_t i = 0; i < table->n_dead_pages; i++) {
        free(table->dead_pages[i]);
    }
    free(table->dead_pages);
}

size_t tqi_table_owner_dead(tqi_table_owner *owner, tqi_table_dead *out, size_t max, uint64_t *notice)
{
    const tqi_table_dead_node *node;
    size_t n = 0;

    *notice = 0;
    for (node = owner->dead_head; node != NULL && n < max; node = node->next) {
        if (owner->table->freezes != NULL && node->number > owner->table->freezes->since) {
            break;
        }
        out[n++] = (tqi_table_dead){node->first, node->count, node->writer_done};
        *notice = node->notice;
    }
    if (*notice > owner->delivered) {
        owner->delivered = *notice;
    }
    return n;
}

/* The oldest late node becomes dead once more, and now for good. */
static void late_die(tqi_table_owner *owner)
{
    tqi_table_dead_node *node = late_take(owner);

    node->writer_done = true;
    dead_append(owner, node);
}

void tqi_table_owner_done(tqi_table_owner *owner, uint64_t notice, uint64_t due)
{
    tqi_table *table = owner->table;

    /* Only ids that were handed out can have been freed. */
    notice = notice < owner->delivered ? notice : owner->delivered;
    while (owner->dead_head != NULL && owner->dead_head->notice <= notice) {
        tqi_table_dead_node *node = dead_take(owner);
        if (due == 0 || node->writer_done) {
            dead_give_back(table, node);
        } else {
            late_add(owner, node, due);
        }
    }
    if (table->n_late > tqi_limits.late_ranges) {
        tqi_limit_reached(TQI_LIMIT_late_ranges);
        table->operation++;
    }
    while (table->n_late > tqi_limits.late_ranges && owner->late_head != NULL) {
        late_die(owner);
    }
}

uint64_t tqi_table_owner_late(const tqi_table_owner *owner)
{
    return owner->late_head != NULL ? owner->late_head->due : UINT64_MAX;
}

void tqi_table_owner_late_die(tqi_table_owner *owner, uint64_t now)
{
    owner->table->operation++;
    while (owner->late_head != NULL && owner->late_head->due <= now) {
        late_die(owner);
    }
}

bool tqi_table_owner_has_dead(const tqi_table_owner *owner)
{
    return owner->dead_head != NULL || owner->late_head != NULL;
}

/* --- sparse blocks -------------------------------------------------------- */

static bool sparse_is(const tqi_table_block *block)
{
    return block->live_bytes <= block->sparse_from && block->size > TQI_T_SPARSE_MIN &&
           block->live <= TQI_T_SPARSE_CELLS;
}

void tqi_t_sparse_check(tqi_table *table, tqi_table_block *block, uint32_t handle)
{
    tqi_table_owner *owner = block->owner;

    if (block->listed || owner->dropping || !sparse_is(block)) {
        return;
    }
    block->sparse_prev = owner->sparse_last;
    block->sparse_next = 0;
    if (owner->sparse_last != 0) {
        tqi_t_block(table, owner->sparse_last)->sparse_next = handle;
    } else {
        owner->sparse_first = handle;
    }
    owner->sparse_last = handle;
    block->listed = true;
    dead_wake_owner(owner);
}

void tqi_t_sparse_drop(tqi_table *table, tqi_table_block *block)
{
    tqi_table_owner *owner = block->owner;

    if (block->sparse_prev != 0) {
        tqi_t_block(table, block->sparse_prev)->sparse_next = block->sparse_next;
    } else {
        owner->sparse_first = block->sparse_next;
    }
    if (block->sparse_next != 0) {
        tqi_t_block(table, block->sparse_next)->sparse_prev = block->sparse_prev;
    } else {
        owner->sparse_last = block->sparse_prev;
    }
    block->listed = false;
    block->named = false;
}

bool tqi_table_owner_has_sparse(const tqi_table_owner *owner)
{
    /* While a freeze is open the old blocks are kept, so a move would only take room. */
    return owner->table->freezes == NULL && owner->sparse_first != 0;
}

size_t tqi_table_owner_sparse(tqi_table_owner *owner, uint64_t *ids, size_t max, uint64_t *number)
{
    uint32_t handle = tqi_table_owner_has_sparse(owner) ? owner->sparse_first : 0;
    size_t n = 0;

    while (n < max && handle != 0) {
        tqi_table_block *block = tqi_t_block(owner->table, handle);
        handle = block->sparse_next;
        if (sparse_is(block)) {
            block->named = true;
            ids[n++] = block->id;
        } else {
            /* It has got cells again, by a restore. */
            tqi_t_sparse_drop(owner->table, block);
        }
    }
    *number = n > 0 ? ++owner->named : 0;
    return n;
}

void tqi_table_owner_sparse_done(tqi_table_owner *owner, uint64_t number)
{
    if (number != owner->named) {
        return; /* the answer got lost */
    }
    while (owner->sparse_first != 0) {
        tqi_table_block *block = tqi_t_block(owner->table, owner->sparse_first);
        if (!block->named) {
            break;
        }
        tqi_t_sparse_drop(owner->table, block);
        block->told += block->told < 63;
        block->sparse_from = tqi_t_sparse_from(block);
    }
}

/* --- freezes and wakes ---------------------------------------------------- */

int tqi_table_freeze_open(tqi_table *table, tqi_table_freeze **out, tq_error *err)
{
    tqi_table_freeze *freeze = calloc(1, sizeof(*freeze));

    if (freeze == NULL) {
        return tqi_error_nomem(err, "snapshot");
    }
    freeze->since = table->last_dead;
    DL_APPEND(table->freezes, freeze);
    *out = freeze;
    return TQ_OK;
}

void tqi_table_freeze_close(tqi_table *table, tqi_table_freeze *freeze)
{
    tqi_table_owner *owner;

    if (freeze == NULL) {
        return;
    }
    DL_DELETE(table->freezes, freeze);
    free(freeze);
    for (owner = table->owners; owner != NULL; owner = owner->hh.next) {
        if (owner->dead_head != NULL || tqi_table_owner_has_sparse(owner)) {
            dead_wake_owner(owner);
        }
    }
}

tqi_table_owner *tqi_table_next_dead(tqi_table *table)
{
    tqi_table_owner *owner = table->woken;

    if (owner != NULL) {
        DL_DELETE2(table->woken, owner, woken_prev, woken_next);
        owner->woken = false;
    }
    return owner;
}
