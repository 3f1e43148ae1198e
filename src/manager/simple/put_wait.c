/*
 * put_wait.c - a put that waits for room at one unit, and what it learns of the others. All units were full when it
 * began to wait. Room may be made at another one first, and perhaps never at its own, so while it waits the list is
 * kept up to date, and a put leaves its queue if there is room for it elsewhere: at once if the list reports a changed
 * unit. Not every change is reported, so older figures are trusted, too, but less and less often: if they are wrong,
 * the put loses its place for nothing.
 */
#include "base/clock.h"
#include "manager/simple/put.h"

/* The longest of all pauses. */
#define WAIT_PAUSE 6u
/* Interval between two uses of older figures: the first one, and how often it doubles. */
#define WAIT_BELIEVE_NS UINT64_C(1000000000)
#define WAIT_DOUBLE     6u

static void wait_look(tqi_simple_pending *wait, const tq_error *err)
{
    tqi_simple_put_op *op = (tqi_simple_put_op *)wait;

    if (err == NULL) { /* otherwise the client is closed, which ends the reserve as well */
        tqi_simple_refresh(op->simple);
        tqi_simple_put_wait_begin(op);
    }
}

void tqi_simple_put_wait_begin(tqi_simple_put_op *op)
{
    op->waits = true;
    op->wait.fn = wait_look;
    tqi_simple_pause(op->simple, WAIT_PAUSE, TQI_NEVER, &op->wait);
}

bool tqi_simple_put_wait_end(tqi_simple_put_op *op)
{
    bool leaves = op->leaves;

    if (op->waits) {
        tqi_simple_wait_leave(&op->wait);
    }
    op->waits = false;
    op->leaves = false;
    return leaves;
}

static bool wait_stays(const tqi_simple_put_op *op)
{
    return op->waits && !op->leaves && !op->cancelled;
}

static void wait_leave(tqi_simple_put_op *op)
{
    op->leaves = true;
    tqi_net_call_cancel(op->reserving);
}

/* Those that wait elsewhere and fit there go there. */
static void wait_told(tqi_simple *simple, const tqi_simple_link *link)
{
    uint64_t taken = 0; /* of its room, by puts that were sent there before */
    tqi_simple_put_op *op;

    if (link->set == NULL || link->silent || link->capacity == 0) {
        return;
    }
    DL_FOREACH (simple->puts, op) {
        if (wait_stays(op) && op->unit != link && tqi_simple_put_fits(op, link, taken)) {
            taken += op->total;
            wait_leave(op);
        }
    }
}

void tqi_simple_puts_listed(tqi_simple *simple, const tqi_manager_owner_changes *changes)
{
    uint64_t now = tqi_now();
    tqi_simple_put_op *op;

    for (size_t i = 0; i < changes->n && simple->puts != NULL; i++) {
        const tqi_simple_link *link = tqi_simple_find(simple, changes->owners[i].name);
        if (link != NULL) {
            wait_told(simple, link);
        }
    }
    DL_FOREACH (simple->puts, op) {
        if (wait_stays(op) && now >= op->believes_at && tqi_simple_put_elsewhere(op)) {
            op->believes_at = now + (WAIT_BELIEVE_NS << op->believed);
            op->believed += op->believed < WAIT_DOUBLE;
            wait_leave(op);
        }
    }
}
