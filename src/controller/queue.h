/*
 * queue.h - the claims that wait at one view, organised so that a change costs nothing for claims it cannot serve. A
 * change can serve a claim in three ways. First, there are now as many ready samples as it needs: the claims of a
 * family (sampler.h) have a list of their own (fit.h), which gives the oldest claim that needs no more than there is;
 * if that one fails, its family is skipped until the view has gained samples. Second, a pick was cached for it: claims
 * are found by the slot that they read. Third, its sampler keeps its own answers: such a claim is tried again when a
 * sampler of that kind has picked. The last two are hints. Among all claims that may be served, the oldest is tried
 * first.
 */
#ifndef TQI_CONTROLLER_QUEUE_H
#define TQI_CONTROLLER_QUEUE_H

#include "base/fit.h"
#include "base/heap.h"
#include "controller/controller.h"
#include "sampler/sampler.h"
#include "table/table.h"

typedef struct tqi_ctl_claim_queue tqi_ctl_claim_queue;
typedef struct tqi_ctl_claim_family tqi_ctl_claim_family;
typedef struct tqi_ctl_claim_slot tqi_ctl_claim_slot;

/* Embedded in a waiting claim. */
typedef struct tqi_ctl_claim_place {
    uint64_t number; /* of arrival */
    tqi_ctl_claim_queue *queue;
    tqi_ctl_claim_family *family; /* NULL: it is not to be tried again */
    tqi_ctl_claim_slot *slot;     /* NULL: it reads none */
    bool keeps;                   /* its sampler keeps answers of its own */
    tqi_fit_node fit;
    tqi_heap_node hint;
    struct tqi_ctl_claim_place *prev, *next;           /* of the queue, by arrival */
    struct tqi_ctl_claim_place *slot_prev, *slot_next; /* of the slot, by arrival */
    struct tqi_ctl_claim_place *kept_prev, *kept_next; /* of those whose samplers keep */
} tqi_ctl_claim_place;

/* Adds a claim as the youngest one to the view's queue, which the first claim creates. TQ_OK or TQ_ENOMEM. */
int tqi_ctl_claim_queue_add(tqi_table_view *view, tqi_ctl_claim_place *place, uint64_t number,
                            const tq_sampler *sampler, const tq_pick_request *request, tq_error *err);
/* The claim was served, or has failed: it stays in the queue but is not tried again. */
void tqi_ctl_claim_queue_served(tqi_ctl_claim_place *place);
/* Removes it from the view's queue, which is freed with the last claim. */
void tqi_ctl_claim_queue_remove(tqi_table_view *view, tqi_ctl_claim_place *place);
/* The first claim in the view's queue; NULL: none is waiting. */
tqi_ctl_claim_place *tqi_ctl_claim_queue_first(const tqi_table_view *view);
/* Moves the queue to another view, with other cached picks. */
void tqi_ctl_claim_queue_move(tqi_table_view *from, tqi_table_view *to);

/* The view has gained samples, or may have: every claim may be tried again. keeps: number of picks so far by samplers
 * that keep their own answers. */
void tqi_ctl_claim_queue_gained(tqi_table_view *view, uint64_t keeps);
/* The oldest claim that may be served; NULL: none. It is returned again until it was served or has failed. */
tqi_ctl_claim_place *tqi_ctl_claim_queue_next(tqi_table_view *view);
/* It was tried and waits on. */
void tqi_ctl_claim_queue_failed(tqi_ctl_claim_place *place);
/* A claim was served from the view, so samples have left it. keeps: by a sampler that keeps its own answers. */
void tqi_ctl_claim_queue_changed(tqi_table_view *view, bool keeps);
/* A pick was kept in the slot. */
void tqi_ctl_claim_queue_filled(tqi_table_view *view, const char *slot);

#endif
