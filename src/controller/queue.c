/*
 * queue.c - see queue.h.
 */
#include "controller/queue.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/pointer.h"

struct tqi_ctl_claim_family {
    tqi_fit fit;
    uint64_t failed; /* the queue's `gained` or `changed` when it last failed */
    uint32_t below;  /* at that time, claims that need this many or more could not be served */
    bool grows;
    UT_hash_handle hh;
    size_t key_size;
    char key[];
};

struct tqi_ctl_claim_slot {
    tqi_ctl_claim_place *claims;
    UT_hash_handle hh;
    char name[];
};

struct tqi_ctl_claim_queue {
    tqi_ctl_claim_place *claims;
    tqi_ctl_claim_family *families;
    tqi_ctl_claim_slot *slots;
    tqi_ctl_claim_place *kept;
    tqi_heap hints;   /* by number */
    uint64_t gained;  /* how often the view has got more samples */
    uint64_t changed; /* and how often it has got more or fewer */
    uint64_t keeps;   /* picks of samplers that keep, at the last gain */
    bool again;       /* one of these samplers has picked since its claims were hinted */
};

/* --- families ------------------------------------------------------------- */

/* What distinguishes families: sampler, two numbers, config. */
static int queue_family_key(const tqi_sampler_family *family, tqi_buf *key)
{
    tqi_buf_fini(key);
    if (tqi_buf_append(key, &family->sampler, sizeof(family->sampler)) != TQ_OK ||
        tqi_buf_append(key, &family->group, sizeof(family->group)) != TQ_OK ||
        tqi_buf_append(key, &family->batch_size, sizeof(family->batch_size)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    return tqi_buf_append(key, family->config, strlen(family->config));
}

static void queue_family_gc(tqi_ctl_claim_queue *queue, tqi_ctl_claim_family *family)
{
    if (family->fit.count == 0) {
        HASH_DEL(queue->families, family);
        tqi_fit_fini(&family->fit);
        free(family);
    }
}

static int queue_family_get(tqi_ctl_claim_queue *queue, const tq_sampler *sampler, const tq_pick_request *request,
                            tqi_ctl_claim_family **out)
{
    tqi_sampler_family of = tqi_sampler_family_of(sampler, request);
    tqi_ctl_claim_family *family = NULL;
    tqi_buf key = {0};
    int rc = queue_family_key(&of, &key);

    if (rc != TQ_OK) {
        goto done;
    }
    HASH_FIND(hh, queue->families, key.data, key.size, family);
    if (family == NULL) {
        family = calloc(1, sizeof(*family) + key.size);
        if (family == NULL) {
            rc = TQ_ENOMEM;
            goto done;
        }
        memcpy(family->key, key.data, key.size);
        family->key_size = key.size;
        family->grows = of.grows;
        if (!TQI_HASH_ADD_KEYPTR(queue->families, family->key, family->key_size, family)) {
            free(family);
            rc = TQ_ENOMEM;
            goto done;
        }
    }
    *out = family;

done:
    tqi_buf_fini(&key);
    return rc;
}

/* Most samples that a claim of the family may need to be worth a try. */
static uint32_t queue_family_room(const tqi_ctl_claim_queue *queue, const tqi_ctl_claim_family *family, uint32_t ready)
{
    if (family->failed == (family->grows ? queue->gained : queue->changed) && family->below <= ready) {
        return family->below - 1;
    }
    return ready;
}

/* --- slots ---------------------------------------------------------------- */

static void queue_slot_gc(tqi_ctl_claim_queue *queue, tqi_ctl_claim_slot *slot)
{
    if (slot->claims == NULL) {
        HASH_DEL(queue->slots, slot);
        free(slot);
    }
}

static int queue_slot_get(tqi_ctl_claim_queue *queue, const char *name, tqi_ctl_claim_slot **out)
{
    size_t size = strlen(name);
    tqi_ctl_claim_slot *slot = NULL;

    HASH_FIND(hh, queue->slots, name, size, slot);
    if (slot == NULL) {
        slot = calloc(1, sizeof(*slot) + size + 1);
        if (slot == NULL) {
            return TQ_ENOMEM;
        }
        memcpy(slot->name, name, size + 1);
        if (!TQI_HASH_ADD_KEYPTR(queue->slots, slot->name, size, slot)) {
            free(slot);
            return TQ_ENOMEM;
        }
    }
    *out = slot;
    return TQ_OK;
}

static void queue_hint(tqi_ctl_claim_queue *queue, tqi_ctl_claim_place *place)
{
    if (!tqi_heap_has(&place->hint)) {
        tqi_heap_add(&queue->hints, &place->hint, place->number);
    }
}

static void queue_hint_slot(tqi_ctl_claim_queue *queue, const tqi_ctl_claim_slot *slot)
{
    tqi_ctl_claim_place *place = NULL;

    DL_FOREACH2 (slot->claims, place, slot_next) {
        queue_hint(queue, place);
    }
}

static void queue_hint_kept(tqi_ctl_claim_queue *queue)
{
    tqi_ctl_claim_place *place = NULL;

    DL_FOREACH2 (queue->kept, place, kept_next) {
        queue_hint(queue, place);
    }
}

/* --- in and out ----------------------------------------------------------- */

static void queue_gc(tqi_table_view *view, tqi_ctl_claim_queue *queue)
{
    if (queue->claims == NULL) {
        free(queue);
        tqi_table_view_set_user(view, NULL);
    }
}

int tqi_ctl_claim_queue_add(tqi_table_view *view, tqi_ctl_claim_place *place, uint64_t number,
                            const tq_sampler *sampler, const tq_pick_request *request, tq_error *err)
{
    char name[TQ_NAME_MAX + 1];
    tqi_ctl_claim_queue *queue = tqi_table_view_user(view);
    tqi_ctl_claim_family *family = NULL;
    tqi_ctl_claim_slot *slot = NULL;
    uint32_t need = sampler->need(request);
    int rc = tqi_sampler_slot(sampler, request, name, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (queue == NULL) {
        queue = calloc(1, sizeof(*queue));
        if (queue == NULL) {
            return tqi_error_nomem(err, "a waiting claim");
        }
        /* No family has failed yet: its `failed` is 0. */
        queue->gained = 1;
        queue->changed = 1;
        tqi_table_view_set_user(view, queue);
    }
    rc = name[0] != '\0' ? queue_slot_get(queue, name, &slot) : TQ_OK;
    if (rc == TQ_OK) {
        rc = queue_family_get(queue, sampler, request, &family);
    }
    if (rc == TQ_OK) {
        /* Nobody is served from an empty view, and no view is large enough to reach the bound. */
        need = need == 0 ? 1 : need;
        rc = tqi_fit_add(&family->fit, &place->fit, need < UINT32_MAX ? need : UINT32_MAX - 1);
    }
    if (rc != TQ_OK) {
        if (family != NULL) {
            queue_family_gc(queue, family);
        }
        if (slot != NULL) {
            queue_slot_gc(queue, slot);
        }
        queue_gc(view, queue);
        return tqi_error_nomem(err, "a waiting claim");
    }
    place->number = number;
    place->queue = queue;
    place->family = family;
    place->slot = slot;
    place->keeps = sampler->kept != NULL;
    DL_APPEND(queue->claims, place);
    if (slot != NULL) {
        DL_APPEND2(slot->claims, place, slot_prev, slot_next);
    }
    if (place->keeps) {
        DL_APPEND2(queue->kept, place, kept_prev, kept_next);
    }
    return TQ_OK;
}

void tqi_ctl_claim_queue_served(tqi_ctl_claim_place *place)
{
    tqi_ctl_claim_queue *queue = place->queue;

    if (place->family == NULL) {
        return;
    }
    tqi_fit_remove(&place->family->fit, &place->fit);
    queue_family_gc(queue, place->family);
    place->family = NULL;
    tqi_heap_remove(&queue->hints, &place->hint);
    if (place->slot != NULL) {
        DL_DELETE2(place->slot->claims, place, slot_prev, slot_next);
        queue_slot_gc(queue, place->slot);
        place->slot = NULL;
    }
    if (place->keeps) {
        DL_DELETE2(queue->kept, place, kept_prev, kept_next);
    }
}

void tqi_ctl_claim_queue_remove(tqi_table_view *view, tqi_ctl_claim_place *place)
{
    tqi_ctl_claim_queue_served(place);
    DL_DELETE(place->queue->claims, place);
    queue_gc(view, place->queue);
    place->queue = NULL;
}

tqi_ctl_claim_place *tqi_ctl_claim_queue_first(const tqi_table_view *view)
{
    const tqi_ctl_claim_queue *queue = tqi_table_view_user(view);

    return queue != NULL ? queue->claims : NULL;
}

void tqi_ctl_claim_queue_move(tqi_table_view *from, tqi_table_view *to)
{
    tqi_ctl_claim_queue *queue = tqi_table_view_user(from);

    tqi_table_view_set_user(from, NULL);
    tqi_table_view_set_user(to, queue);
    for (tqi_ctl_claim_slot *slot = queue != NULL ? queue->slots : NULL; slot != NULL; slot = slot->hh.next) {
        queue_hint_slot(queue, slot);
    }
}

/* --- changes -------------------------------------------------------------- */

void tqi_ctl_claim_queue_gained(tqi_table_view *view, uint64_t keeps)
{
    tqi_ctl_claim_queue *queue = tqi_table_view_user(view);

    if (queue == NULL) {
        return;
    }
    queue->gained++;
    queue->changed++;
    if (queue->keeps != keeps) {
        queue->keeps = keeps;
        queue->again = true;
    }
}

static tqi_ctl_claim_place *queue_oldest(const tqi_ctl_claim_queue *queue, uint32_t ready)
{
    const tqi_ctl_claim_family *family = NULL;
    tqi_ctl_claim_place *oldest = TQI_HEAP_ENTRY(queue->hints.top, tqi_ctl_claim_place, hint);

    for (family = queue->families; family != NULL; family = family->hh.next) {
        tqi_fit_node *node = tqi_fit_first(&family->fit, queue_family_room(queue, family, ready));
        if (node != NULL) {
            tqi_ctl_claim_place *place = TQI_CONTAINER(node, tqi_ctl_claim_place, fit);
            oldest = oldest == NULL || place->number < oldest->number ? place : oldest;
        }
    }
    return oldest;
}

tqi_ctl_claim_place *tqi_ctl_claim_queue_next(tqi_table_view *view)
{
    tqi_ctl_claim_queue *queue = tqi_table_view_user(view);
    tqi_ctl_claim_place *oldest = NULL;

    if (queue != NULL) {
        oldest = queue_oldest(queue, tqi_table_view_ready(view));
        if (oldest == NULL && queue->again) {
            queue->again = false;
            queue_hint_kept(queue);
            oldest = queue_oldest(queue, tqi_table_view_ready(view));
        }
    }
    return oldest;
}

void tqi_ctl_claim_queue_failed(tqi_ctl_claim_place *place)
{
    tqi_ctl_claim_queue *queue = place->queue;
    tqi_ctl_claim_family *family = place->family;

    tqi_heap_remove(&queue->hints, &place->hint);
    uint64_t now = family->grows ? queue->gained : queue->changed;
    if (family->failed != now || family->below > place->fit.need) {
        family->below = place->fit.need;
    }
    family->failed = now;
}

void tqi_ctl_claim_queue_changed(tqi_table_view *view, bool keeps)
{
    tqi_ctl_claim_queue *queue = tqi_table_view_user(view);

    if (queue != NULL) {
        queue->changed++;
        queue->again = queue->again || keeps;
    }
}

void tqi_ctl_claim_queue_filled(tqi_table_view *view, const char *name)
{
    tqi_ctl_claim_queue *queue = tqi_table_view_user(view);
    const tqi_ctl_claim_slot *slot = NULL;

    if (queue != NULL) {
        HASH_FIND(hh, queue->slots, name, strlen(name), slot);
        if (slot != NULL) {
            queue_hint_slot(queue, slot);
        }
    }
}
