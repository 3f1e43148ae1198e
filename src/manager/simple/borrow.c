/*
 * borrow.c - reading blocks in place: pinned at their unit, then mapped privately. The ranges of a read are divided
 * into parts, one per (unit, incarnation). A part is one request: the unit is asked to keep the blocks' memory from
 * being reused (and says whether they exist), and each range gets its own mapping. With a single mapping for all, a
 * page that the reader wrote to would keep its old bytes after the unit has reused it. A shared range is not pinned:
 * its reader gets the link's existing mapping, reference-counted, and checks the slot itself. If anything fails, the
 * range is left without data, and its reader copies it: that path finds out what is wrong. A pin whose request failed
 * may have been made anyway; it is ended at once, and its number is never reused, so this cannot hit another pin.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "manager/simple/simple.h"

/* A unit that does not answer for this long has ended the session. */
#define VIEW_UNPIN_S 60.0

/* A pin at a unit, or its mapping. */
typedef struct tqi_simple_borrowed {
    tqi_simple_link *link;
    uint64_t number;
    tqi_simple_mapping *mapping; /* counted; NULL: a pin */
    struct tqi_simple_borrowed *prev, *next;
} tqi_simple_borrowed;

typedef struct view_op view_op;

/* The ranges of one unit. */
typedef struct view_part {
    tqi_simple_waiter wait; /* first: waits are known by it */
    view_op *op;
    const char *owner;
    uint64_t incarnation;
    tqi_simple_link *unit;
    tqi_simple_mapping *mapping;
    tqi_simple_borrowed *shown;
    size_t n_pinned; /* ranges of it to be pinned */
    size_t n_shared;
} view_part;

struct view_op {
    tqi_simple *simple;
    tqi_manager_borrow_job *job;
    size_t *part_of; /* per range */
    view_part *parts;
    size_t n_parts;
    size_t left; /* parts that have not ended */
};

/* --- ends ----------------------------------------------------------------- */

static void view_unpinned(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer;
    (void)arg;
}

/* Tells the unit; if that fails, the unit finds out when this process exits. */
static void view_unpin(tqi_simple_borrowed *shown)
{
    Tq__UnitUnpin message;
    tqi_net_channel *channel = NULL;
    tq_error err = {0};

    if (tqi_simple_link_channel(shown->link, &channel, &err) != TQ_OK) {
        return;
    }
    tq__unit_unpin__init(&message);
    message.pin = &shown->number;
    message.n_pin = 1;
    tqi_net_call_args args = {
        .kind = TQI_UNIT_UNPIN,
        .message = &message.base,
        .deadline = tqi_deadline(VIEW_UNPIN_S),
        .done = view_unpinned,
    };
    tqi_net_call_start(channel, &args, NULL, &err);
}

void tqi_simple_return(void *state, void *pin)
{
    tqi_simple *simple = state;
    tqi_simple_borrowed *shown = pin;

    if (shown->mapping != NULL) {
        tqi_simple_mapping_unref(shown->mapping);
    } else {
        view_unpin(shown);
    }
    DL_DELETE(simple->shown, shown);
    free(shown);
}

void tqi_simple_borrow_fini(tqi_simple *simple)
{
    while (simple->shown != NULL) {
        tqi_simple_borrowed *shown = simple->shown;
        DL_DELETE(simple->shown, shown);
        if (shown->mapping != NULL) {
            tqi_simple_mapping_unref(shown->mapping);
        }
        free(shown);
    }
}

static void view_finish(view_op *op)
{
    tqi_manager_borrow_job *job = op->job;

    free(op->parts);
    free(op->part_of);
    free(op);
    job->done(job);
}

static void view_part_end(view_part *part)
{
    view_op *op = part->op;

    if (part->mapping != NULL) {
        tqi_simple_mapping_unref(part->mapping);
        part->mapping = NULL;
    }
    if (--op->left == 0) {
        view_finish(op);
    }
}

/* --- steps ---------------------------------------------------------------- */

/* Maps the ranges of a part whose blocks are pinned; returns whether there are any. */
static bool view_map(view_part *part, const Tq__UnitPinReply *reply)
{
    view_op *op = part->op;
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
static bool view_find_shared(view_part *part)
{
    view_op *op = part->op;
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
static void view_share(view_part *part)
{
    tqi_manager_borrow_job *job = part->op->job;
    tqi_simple_borrowed *shown = calloc(1, sizeof(*shown));

    if (shown == NULL || !view_find_shared(part)) {
        free(shown);
        return;
    }
    shown->link = part->unit;
    shown->mapping = part->mapping;
    shown->mapping->refs++;
    DL_APPEND(part->op->simple->shown, shown);
    job->pins[job->n_pins++] = shown;
}

static void view_pinned(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    view_part *part = arg;
    tqi_manager_borrow_job *job = part->op->job;

    (void)call;
    if (answer->status == TQ_OK && view_map(part, (const Tq__UnitPinReply *)answer->reply)) {
        job->pins[job->n_pins++] = part->shown;
    } else {
        tqi_simple_return(part->op->simple, part->shown);
    }
    part->shown = NULL;
    view_part_end(part);
}

static int view_pin(view_part *part, tqi_net_channel *channel, tq_error *err)
{
    view_op *op = part->op;
    Tq__UnitPin message;
    uint64_t *ids = malloc(part->n_pinned * sizeof(*ids));
    uint32_t *slots = malloc(part->n_pinned * sizeof(*slots));
    int code = TQ_ENOMEM;

    part->shown = calloc(1, sizeof(*part->shown));
    if (ids == NULL || slots == NULL || part->shown == NULL) {
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
    part->shown->link = part->unit;
    part->shown->number = ++op->simple->last_pin;
    message.pin = part->shown->number;
    message.id = ids;
    message.slot = slots;
    message.incarnation = part->incarnation;
    tqi_net_call_args args = {
        .kind = TQI_UNIT_PIN,
        .message = &message.base,
        .deadline = tqi_simple_try(0, 0, op->job->deadline_ns),
        .done = view_pinned,
        .arg = part,
    };
    DL_APPEND(op->simple->shown, part->shown);
    code = tqi_net_call_start(channel, &args, NULL, err);
    if (code != TQ_OK) {
        DL_DELETE(op->simple->shown, part->shown);
    }

out:
    free(ids);
    free(slots);
    if (code != TQ_OK) {
        free(part->shown);
        part->shown = NULL;
    }
    return code;
}

static void view_try(view_part *part);

static void view_waited(tqi_simple_waiter *wait, const tq_error *err)
{
    view_part *part = (view_part *)wait;

    if (err != NULL) {
        view_part_end(part);
    } else {
        view_try(part);
    }
}

static void view_try(view_part *part)
{
    tqi_simple_link *unit = part->unit;
    tqi_net_channel *channel = NULL;
    tq_error err = {0};

    part->wait.fn = view_waited;
    int code = tqi_simple_link_map(unit, tqi_simple_try(0, 0, part->op->job->deadline_ns), &part->wait, &err);
    if (code == TQ_EAGAIN) {
        return;
    }
    if (code == TQ_OK && unit->mapping != NULL && unit->mapping->incarnation == part->incarnation) {
        part->mapping = unit->mapping;
        part->mapping->refs++;
        if (part->n_shared > 0) {
            view_share(part);
        }
        code = part->n_pinned > 0 ? tqi_simple_link_channel(unit, &channel, &err) : TQ_EINVAL;
        if (code == TQ_OK && view_pin(part, channel, &err) == TQ_OK) {
            return;
        }
    }
    view_part_end(part);
}

static void view_find(view_part *part)
{
    part->unit = tqi_simple_find(part->op->simple, part->owner);
    if (part->unit != NULL && part->unit->incarnation == part->incarnation && tqi_simple_link_near(part->unit)) {
        view_try(part);
    } else {
        view_part_end(part);
    }
}

/* A new client knows no units before it asks. */
static void view_listed(void *arg, const tq_error *err)
{
    view_part *part = arg;

    if (err != NULL) {
        view_part_end(part);
    } else {
        view_find(part);
    }
}

/* --- start ---------------------------------------------------------------- */

static size_t view_part_of(view_op *op, const tqi_manager_borrow_range *range)
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
static bool view_sound(const tqi_manager_borrow_range *range)
{
    return range->block->locator_size == TQI_SIMPLE_LOCATOR && range->size > 0 && range->offset <= range->block->size &&
           range->size <= range->block->size - range->offset;
}

void tqi_simple_borrow(void *state, tqi_manager_borrow_job *job)
{
    tqi_simple *simple = state;
    view_op *op = calloc(1, sizeof(*op));
    bool sound = true;

    for (size_t i = 0; i < job->n; i++) {
        sound = sound && view_sound(&job->ranges[i]);
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
        op->part_of[i] = view_part_of(op, &job->ranges[i]);
    }
    op->left = op->n_parts + 1; /* this function's, so that parts that end at once do not end the job */
    for (size_t i = 0; i < op->n_parts; i++) {
        view_part *part = &op->parts[i];
        if (tqi_simple_find(simple, part->owner) != NULL) {
            view_find(part);
        } else {
            tqi_simple_list(simple, false, tqi_simple_try(0, 0, job->deadline_ns), view_listed, part);
        }
    }
    if (--op->left == 0) {
        view_finish(op);
    }
}
