/*
 * dead.c - queues of dead block ids, one per owner, delivered until they are done.
 *
 * Nodes come from one pool.  Every live block and every unpublished id has one node reserved, from its lease on, so that
 * the death of a block cannot fail.  A node's notice number only rises along the queue, and "done" covers whole nodes.  Only
 * ids that die in one operation share a node: so a node that was handed out, or is older than a hold, does not grow, and
 * the same operations make the same notices whenever they are asked for.
 */
#include "meta/internal.h"

int tqi_m_dead_reserve(tqi_meta *meta, uint32_t n, tq_error *err)
{
    while (meta->n_dead_free < meta->dead_reserved + n) {
        tqi_dead_node *page;

        if (tqi_grow(&meta->dead_pages, &meta->dead_pages_capacity, meta->n_dead_pages + 1,
                     sizeof(tqi_dead_node *)) != TQ_OK) {
            return tqi_error_nomem(err, "dead blocks");
        }
        page = calloc(TQI_M_DEAD_PAGE, sizeof(*page));
        if (page == NULL) {
            return tqi_error_nomem(err, "dead blocks");
        }
        meta->dead_pages[meta->n_dead_pages++] = page;
        for (uint32_t i = 0; i < TQI_M_DEAD_PAGE; i++) {
            LL_PREPEND(meta->dead_free, &page[i]);
        }
        meta->n_dead_free += TQI_M_DEAD_PAGE;
    }
    meta->dead_reserved += n;
    return TQ_OK;
}

static void dead_give_back(tqi_meta *meta, tqi_dead_node *node)
{
    LL_PREPEND(meta->dead_free, node);
    meta->n_dead_free++;
    meta->n_dead--;
}

/* Adds the id to the newest node if it is next to it. */
static bool dead_merge(tqi_owner *owner, uint64_t id, bool writer_done)
{
    tqi_dead_node *tail = owner->dead_tail;

    if (tail == NULL || tail->operation != owner->meta->operation ||
        tail->writer_done != writer_done || tail->count == UINT32_MAX) {
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

void tqi_m_dead_push(tqi_owner *owner, uint64_t id, bool writer_done)
{
    tqi_meta *meta = owner->meta;
    tqi_dead_node *node;

    meta->dead_reserved--;
    if (owner->dropping || dead_merge(owner, id, writer_done)) {
        return;
    }
    node = meta->dead_free;
    meta->dead_free = node->next;
    meta->n_dead_free--;
    meta->n_dead++;
    *node = (tqi_dead_node){
        .first = id,
        .count = 1,
        .writer_done = writer_done,
        .notice = ++owner->last_notice,
        .number = ++meta->last_dead,
        .operation = meta->operation,
    };
    if (owner->dead_tail != NULL) {
        owner->dead_tail->next = node;
    } else {
        owner->dead_head = node;
        tqi_m_owner_wake(owner);
    }
    owner->dead_tail = node;
}

void tqi_m_owner_wake(tqi_owner *owner)
{
    if (!owner->woken) {
        owner->woken = true;
        DL_APPEND2(owner->meta->woken, owner, woken_prev, woken_next);
    }
}

void tqi_m_dead_drop(tqi_owner *owner)
{
    tqi_dead_node *node;

    while ((node = owner->dead_head) != NULL) {
        owner->dead_head = node->next;
        dead_give_back(owner->meta, node);
    }
    owner->dead_tail = NULL;
    if (owner->woken) {
        DL_DELETE2(owner->meta->woken, owner, woken_prev, woken_next);
        owner->woken = false;
    }
}

void tqi_m_dead_fini(tqi_meta *meta)
{
    tqi_hold *hold;

    while ((hold = meta->holds) != NULL) {
        DL_DELETE(meta->holds, hold);
        free(hold);
    }
    for (size_t i = 0; i < meta->n_dead_pages; i++) {
        free(meta->dead_pages[i]);
    }
    free(meta->dead_pages);
}

size_t tqi_owner_dead(tqi_owner *owner, tqi_dead *out, size_t max, uint64_t *notice)
{
    const tqi_dead_node *node;
    size_t n = 0;

    *notice = 0;
    for (node = owner->dead_head; node != NULL && n < max; node = node->next) {
        if (owner->meta->holds != NULL && node->number > owner->meta->holds->since) {
            break;
        }
        out[n++] = (tqi_dead){node->first, node->count, node->writer_done};
        *notice = node->notice;
    }
    if (*notice > owner->delivered) {
        owner->delivered = *notice;
    }
    return n;
}

void tqi_owner_done(tqi_owner *owner, uint64_t notice)
{
    tqi_dead_node *node;

    /* Only what was handed out can have been freed. */
    notice = notice < owner->delivered ? notice : owner->delivered;
    while ((node = owner->dead_head) != NULL && node->notice <= notice) {
        owner->dead_head = node->next;
        dead_give_back(owner->meta, node);
    }
    if (owner->dead_head == NULL) {
        owner->dead_tail = NULL;
    }
}

int tqi_hold_open(tqi_meta *meta, tqi_hold **out, tq_error *err)
{
    tqi_hold *hold = calloc(1, sizeof(*hold));

    if (hold == NULL) {
        return tqi_error_nomem(err, "snapshot");
    }
    hold->since = meta->last_dead;
    DL_APPEND(meta->holds, hold);
    *out = hold;
    return TQ_OK;
}

void tqi_hold_close(tqi_meta *meta, tqi_hold *hold)
{
    tqi_owner *owner;

    if (hold == NULL) {
        return;
    }
    DL_DELETE(meta->holds, hold);
    free(hold);
    for (owner = meta->owners; owner != NULL; owner = owner->hh.next) {
        if (owner->dead_head != NULL || tqi_owner_has_thin(owner)) {
            tqi_m_owner_wake(owner);
        }
    }
}

tqi_owner *tqi_meta_next_dead(tqi_meta *meta)
{
    tqi_owner *owner = meta->woken;

    if (owner != NULL) {
        DL_DELETE2(meta->woken, owner, woken_prev, woken_next);
        owner->woken = false;
    }
    return owner;
}
