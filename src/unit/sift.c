/*
 * sift.c - frees blocks that no table knows and whose writers are gone (see unit_state.h). A round walks the slots in
 * steps, asks the controller about the blocks whose writer has ended, and frees those it does not know. Those it knows
 * are published, granted or dead: a notice comes when they end. A block is asked about once, so a round costs the
 * controller as many ids as were left behind since the previous one.
 */
#include "unit/sift.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "unit/memory.h"
#include "unit/unit_state.h"
#include "unit/wait.h"
#include "unit/writers.h"

/* How long ended writers are gathered; how many slots are examined in one step. */
#define SIFT_PAUSE_MS 200u
#define SIFT_SLOTS    65536u
/* After an error. */
#define SIFT_RETRY_MS 1000u

static void sift_step(uv_timer_t *timer);

static void sift_arm(tqi_unit *unit, uint64_t ms)
{
    if (!unit->closing) {
        uv_timer_start(&unit->sift.timer, sift_step, ms, 0);
    }
}

static void sift_answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit *unit = arg;
    tqi_unit_sift *sift = &unit->sift;
    const Tq__UnknownBlocksReply *reply = (const Tq__UnknownBlocksReply *)answer->reply;
    size_t freed = 0;

    (void)call;
    sift->asking = NULL;
    if (unit->closing) {
        return;
    }
    if (answer->status != TQ_OK || sift->asked_as != unit->incarnation) {
        /* Another round asks again; nothing is left of another incarnation. */
        sift->going = false;
        sift->wanted = true;
        sift_arm(unit, SIFT_RETRY_MS);
        return;
    }
    for (size_t i = 0; i < sift->n; i++) {
        tqi_unit_writer_sifted(unit, sift->ids[i]);
    }
    for (size_t i = 0; i < reply->n_id; i++) {
        if (tqi_store_has(unit->store, reply->id[i]) && tqi_unit_dead(unit, reply->id[i], false) == TQ_OK) {
            freed++;
        }
    }
    if (freed > 0) {
        sift->freed += freed;
        tqi_log(TQI_WARN, "unit", "%s: %zu block%s of writers that are gone %s known to no table", unit->name, freed,
                tqi_text_s(freed), freed == 1 ? "was" : "were");
        tqi_unit_changed(unit);
        tqi_unit_wake(unit);
    }
    sift_arm(unit, 0);
}

/* Asks about the gathered ids; false if that must be retried. */
static bool sift_ask(tqi_unit *unit)
{
    tqi_unit_sift *sift = &unit->sift;
    Tq__UnknownBlocks message;
    tq_error err = {0};

    tq__unknown_blocks__init(&message);
    message.owner = unit->name;
    message.incarnation = unit->incarnation;
    message.id = sift->ids;
    message.n_id = sift->n;
    tqi_net_call_args args = {
        .kind = TQI_UNKNOWN_BLOCKS,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = sift_answered,
        .arg = unit,
    };
    sift->asked_as = unit->incarnation;
    if (tqi_net_call_start(unit->controller, &args, &sift->asking, &err) != TQ_OK) {
        tqi_log(TQI_WARN, "unit", "%s: cannot ask about blocks: %s", unit->name, err.message);
        sift->asking = NULL;
        return false;
    }
    return true;
}

static void sift_step(uv_timer_t *timer)
{
    tqi_unit *unit = timer->data;
    tqi_unit_sift *sift = &unit->sift;

    if (sift->asking != NULL || unit->closing || !unit->registered) {
        return; /* the answer, or registering, continues it */
    }
    if (!sift->going) {
        sift->going = true;
        sift->wanted = false;
        sift->next = 0;
    }
    uint32_t end = tqi_store_slots_used(unit->store);
    sift->next = sift->next < end ? sift->next : end; /* the store may be another one now */
    uint32_t stop = end - sift->next > SIFT_SLOTS ? sift->next + SIFT_SLOTS : end;
    sift->n = 0;
    while (sift->next < stop && sift->n < TQI_UNIT_SIFT_MAX) {
        uint64_t id = tqi_store_slot_id(unit->store, sift->next++);
        if (id != 0 && tqi_unit_writer_left_behind(unit, id)) {
            sift->ids[sift->n++] = id;
        }
    }
    if (sift->n > 0) {
        if (!sift_ask(unit)) {
            sift->going = false;
            sift->wanted = true;
            sift_arm(unit, SIFT_RETRY_MS);
        }
        return;
    }
    sift->going = sift->next < end;
    if (sift->going || sift->wanted) {
        sift_arm(unit, sift->going ? 0 : SIFT_PAUSE_MS);
    }
}

void tqi_unit_sift_want(tqi_unit *unit)
{
    unit->sift.wanted = true;
    tqi_unit_sift_go(unit);
}

void tqi_unit_sift_go(tqi_unit *unit)
{
    tqi_unit_sift *sift = &unit->sift;

    if ((sift->wanted || sift->going) && sift->asking == NULL && !uv_is_active((uv_handle_t *)&sift->timer)) {
        sift_arm(unit, SIFT_PAUSE_MS);
    }
}
