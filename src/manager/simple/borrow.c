/*
 * borrow.c - readers borrow the memory of blocks: their unit pins it, and it is mapped privately here. A pin keeps a
 * block's memory, a borrow is the reader's mapping. The ranges of a read are divided into parts, one per (unit,
 * incarnation). A part is one request: the unit is asked to keep the blocks' memory from being reused (and says
 * whether they exist), and each range gets its own mapping. With a single mapping for all, a page that the reader
 * wrote to would keep its old bytes after the unit has reused it. A shared range is not pinned: its reader gets the
 * link's existing mapping, reference-counted, and checks the slot itself. If anything fails, the range is left without
 * data, and its reader copies it: that path finds out what is wrong. A pin whose request failed may have been made
 * anyway; it is ended at once, and its number is never reused, so this cannot hit another pin.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "manager/simple/simple.h"

/* A unit that does not answer for this long has ended the session. */
#define BORROW_UNPIN_S 60.0

/* What was borrowed: blocks that the unit keeps pinned, or its mapping as a whole. */
typedef struct tqi_simple_borrowed {
    tqi_simple_link *link;
    uint64_t number;             /* of the pin */
    tqi_simple_mapping *mapping; /* counted; NULL: blocks under a pin */
    struct tqi_simple_borrowed *prev, *next;
} tqi_simple_borrowed;

typedef struct borrow_op borrow_op;

/* The ranges of one unit. */
typedef struct borrow_part {
    tqi_simple_pending wait; /* first: waits are known by it */
    borrow_op *op;
    const char *owner;
    uint64_t incarnation;
    tqi_simple_link *unit;
    tqi_simple_mapping *mapping;
    tqi_simple_borrowed *borrowed;
    size_t n_pinned; /* ranges of it to be pinned */
    size_t n_shared;
} borrow_part;

struct borrow_op {
    tqi_simple *simple;
    tqi_manager_borrow_job *job;
    size_t *part_of; /* per range */
    borrow_part *parts;
    size_t n_parts;
    size_t left; /* parts that have not ended */
};

/* --- ends ----------------------------------------------------------------- */

static void borrow_unpinned(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer;
    (void)arg;
}

/* Tells the unit; if that fails, the unit finds out when this process exits. */
static void borrow_unpin(tqi_simple_borrowed *borrowed)
{
    Tq__UnitUnpin message;
    tqi_net_channel *channel = NULL;
    tq_error err = {0};

    if (tqi_simple_link_channel(borrowed->link, &channel, &err) != TQ_OK) {
        return;
    }
    tq__unit_unpin__init(&message);
    message.pin = &borrowed->number;
    message.n_pin = 1;
    tqi_net_call_args args = {
        .kind = TQI_UNIT_UNPIN,
        .message = &message.base,
        .deadline = tqi_deadline(BORROW_UNPIN_S),
        .done = borrow_unpinned,
    };
    tqi_net_call_start(channel, &args, NULL, &err);
}

void tqi_simple_give_back(void *state, void *handle)
{
    tqi_simple *simple = state;
    tqi_simple_borrowed *borrowed = handle;

    if (borrowed->mapping != NULL) {
        tqi_simple_mapping_unref(borrowed->mapping);
    } else {
        borrow_unpin(borrowed);
    }
    DL_DELETE(simple->borrowed, borrowed);
    free(borrowed);
}

void tqi_simple_borrow_fini(tqi_simple *simple)
{
    while (simple->borrowed != NULL) {
        tqi_simple_borrowed *borrowed = simple->borrowed;
        DL_DELETE(simple->borrowed, borrowed);
        if (borrowed->mapping != NULL) {
            tqi_simple_mapping_unref(borrowed->mapping);
        }
        free(borrowed);
    }
}

static void borrow_finish(borrow_op *op)
{
    tqi_manager_borrow_job *job = op->job;

    free(op->parts);
    free(op->part_of);
    free(op);
    job->done(job);
}

static void borrow_part_end(borrow_part *part)
{
    borrow_op *op = part->op;

    if (part->mapping != NULL) {
        tqi_simple_mapping_unref(part->mapping);
        part->mapping = NULL;
    }
    if (--op->left == 0) {
        borrow_finish(op);
    }
}

/* --- steps ---------------------------------------------------------------- */

/* Maps the ranges of a part whose blocks are pinned; returns whether there are any. */
static bool borrow_map(borrow_part *part, const Tq__UnitPinReply *reply)
{
    borrow_op *op = part->op;
    size_t place = 0, gone = 0;
    bool any = false;

    for (size_t i = 0; i < op->job->n; i++) {
        tqi_manager_borrow_range *range = &op->job->ranges[i];
        uint64_t begin;
        if (&op->parts[op->part_of[i]] != part || range->shared) {
            continue;
        }
        if (gone < reply->n_gone && reply->gone[gone] == place++) {
            gone++;
            continue;
        }
        tqi_simple_locate(range->block, &begin);
        range->data = tqi_store_map_borrow(&part->mapping->map, begin + range->offset, range->size, &range->map,
                                           &range->map_size);
        any = any || range->data != NULL;
    }
    return any;
}

/* Locates the shared ranges of a part, if their blocks still exist. */
static bool borrow_find_shared(borrow_part *part)
{
    borrow_op *op = part->op;
    const tqi_store_map *map = &part->mapping->map;
    bool any = false;

    for (size_t i = 0; i < op->job->n; i++) {
        tqi_manager_borrow_range *range = &op->job->ranges[i];
        uint64_t begin;
        if (!range->shared || &op->parts[op->part_of[i]] != part) {
            continue;
        }
        uint32_t slot = tqi_simple_locate(range->block, &begin);
        range->word = tqi_store_map_look(map, range->block->id, slot, begin + range->offset, range->size, &range->data);
        any = any || range->data != NULL;
    }
    return any;
}

/* Exposes the shared ranges of a part; their reader holds the mapping. */
static void borrow_share(borrow_part *part)
{
    tqi_manager_borrow_job *job = part->op->job;
    tqi_simple_borrowed *borrowed = calloc(1, sizeof(*borrowed));

    if (borrowed == NULL || !borrow_find_shared(part)) {
        free(borrowed);
        return;
    }
    borrowed->link = part->unit;
    borrowed->mapping = part->mapping;
    borrowed->mapping->refs++;
    DL_APPEND(part->op->simple->borrowed, borrowed);
    job->handles[job->n_handles++] = borrowed;
}

static void borrow_pinned(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    borrow_part *part = arg;
    tqi_manager_borrow_job *job = part->op->job;

    (void)call;
    if (answer->status == TQ_OK && borrow_map(part, (const Tq__UnitPinReply *)answer->reply)) {
        job->handles[job->n_handles++] = part->borrowed;
    } else {
        tqi_simple_give_back(part->op->simple, part->borrowed);
    }
    part->borrowed = NULL;
    borrow_part_end(part);
}

static int borrow_pin(borrow_part *part, tqi_net_channel *channel, tq_error *err)
{
    borrow_op *op = part->op;
    Tq__UnitPin message;
    uint64_t *ids = malloc(part->n_pinned * sizeof(*ids));
    uint32_t *slots = malloc(part->n_pinned * sizeof(*slots));
    int rc = TQ_ENOMEM;

    part->borrowed = calloc(1, sizeof(*part->borrowed));
    if (ids == NULL || slots == NULL || part->borrowed == NULL) {
        goto out;
    }
    tq__unit_pin__init(&message);
    for (size_t i = 0; i < op->job->n; i++) {
        uint64_t begin;
        if (&op->parts[op->part_of[i]] == part && !op->job->ranges[i].shared) {
            slots[message.n_slot++] = tqi_simple_locate(op->job->ranges[i].block, &begin);
            ids[message.n_id++] = op->job->ranges[i].block->id;
        }
    }
    part->borrowed->link = part->unit;
    part->borrowed->number = ++op->simple->last_pin;
    message.pin = part->borrowed->number;
    message.id = ids;
    message.slot = slots;
    message.incarnation = part->incarnation;
    tqi_net_call_args args = {
        .kind = TQI_UNIT_PIN,
        .message = &message.base,
        .deadline = tqi_simple_try(0, 0, op->job->deadline_ns),
        .done = borrow_pinned,
        .arg = part,
    };
    DL_APPEND(op->simple->borrowed, part->borrowed);
    rc = tqi_net_call_start(channel, &args, NULL, err);
    if (rc != TQ_OK) {
        DL_DELETE(op->simple->borrowed, part->borrowed);
    }

out:
    free(ids);
    free(slots);
    if (rc != TQ_OK) {
        free(part->borrowed);
        part->borrowed = NULL;
    }
    return rc;
}

static void borrow_try(borrow_part *part);

static void borrow_waited(tqi_simple_pending *wait, const tq_error *err)
{
    borrow_part *part = (borrow_part *)wait;

    if (err != NULL) {
        borrow_part_end(part);
    } else {
        borrow_try(part);
    }
}

static void borrow_try(borrow_part *part)
{
    tqi_simple_link *unit = part->unit;
    tqi_net_channel *channel = NULL;
    tq_error err = {0};

    part->wait.fn = borrow_waited;
    int rc = tqi_simple_link_map(unit, tqi_simple_try(0, 0, part->op->job->deadline_ns), &part->wait, &err);
    if (rc == TQ_EAGAIN) {
        return;
    }
    if (rc == TQ_OK && unit->mapping != NULL && unit->mapping->incarnation == part->incarnation) {
        part->mapping = unit->mapping;
        part->mapping->refs++;
        if (part->n_shared > 0) {
            borrow_share(part);
        }
        rc = part->n_pinned > 0 ? tqi_simple_link_channel(unit, &channel, &err) : TQ_EINVAL;
        if (rc == TQ_OK && borrow_pin(part, channel, &err) == TQ_OK) {
            return;
        }
    }
    borrow_part_end(part);
}

static void borrow_find(borrow_part *part)
{
    part->unit = tqi_simple_find(part->op->simple, part->owner);
    if (part->unit != NULL && part->unit->incarnation == part->incarnation && tqi_simple_link_near(part->unit)) {
        borrow_try(part);
    } else {
        borrow_part_end(part);
    }
}

/* A new client knows no units before it asks. */
static void borrow_listed(void *arg, const tq_error *err)
{
    borrow_part *part = arg;

    if (err != NULL) {
        borrow_part_end(part);
    } else {
        borrow_find(part);
    }
}

/* --- start ---------------------------------------------------------------- */

static size_t borrow_part_of(borrow_op *op, const tqi_manager_borrow_range *range)
{
    const tq_block *block = range->block;
    size_t i = 0;

    while (i < op->n_parts &&
           (op->parts[i].incarnation != block->owner_incarnation || strcmp(op->parts[i].owner, block->owner) != 0)) {
        i++;
    }
    if (i == op->n_parts) {
        op->parts[i].op = op;
        op->parts[i].owner = block->owner;
        op->parts[i].incarnation = block->owner_incarnation;
        op->n_parts++;
    }
    op->parts[i].n_shared += range->shared;
    op->parts[i].n_pinned += !range->shared;
    return i;
}

/* Whether the range lies inside its block, as far as can be checked here. */
static bool borrow_sound(const tqi_manager_borrow_range *range)
{
    return range->block->locator_size == TQI_SIMPLE_LOCATOR && range->size > 0 && range->offset <= range->block->size &&
           range->size <= range->block->size - range->offset;
}

void tqi_simple_borrow(void *state, tqi_manager_borrow_job *job)
{
    tqi_simple *simple = state;
    borrow_op *op = calloc(1, sizeof(*op));
    bool sound = true;

    for (size_t i = 0; i < job->n; i++) {
        sound = sound && borrow_sound(&job->ranges[i]);
    }
    if (op == NULL || !sound || (op->parts = calloc(job->n + 1, sizeof(*op->parts))) == NULL ||
        (op->part_of = calloc(job->n + 1, sizeof(*op->part_of))) == NULL) {
        if (op != NULL) {
            free(op->parts);
        }
        free(op);
        job->done(job);
        return;
    }
    op->simple = simple;
    op->job = job;
    for (size_t i = 0; i < job->n; i++) {
        op->part_of[i] = borrow_part_of(op, &job->ranges[i]);
    }
    op->left = op->n_parts + 1; /* this function's, so that parts that end at once do not end the job */
    for (size_t i = 0; i < op->n_parts; i++) {
        borrow_part *part = &op->parts[i];
        if (tqi_simple_find(simple, part->owner) != NULL) {
            borrow_find(part);
        } else {
            tqi_simple_list(simple, false, tqi_simple_try(0, 0, job->deadline_ns), borrow_listed, part);
        }
    }
    if (--op->left == 0) {
        borrow_finish(op);
    }
}
