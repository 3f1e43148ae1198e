/*
 * writers.c - writers that may still be writing into a block whose end was announced. For a block that was never
 * published, a dead notice says whether its writer is known to have finished. If not (the controller lost the writer's
 * session), the memory may be reused only once nobody can write to it any more:
 *   - a writer without a mapping writes through this unit, which refuses it once the block is freed;
 *   - a writer with a mapping cannot write once its process has exited (seen through a pidfd; an end-of-file proves
 *     nothing, because a forked child may keep the socket open).
 *   - a live writer says when it has finished: for all of its blocks in its Bye, and for those of a session that the
 *     controller has ended when it learns of that (UNIT_FINISH). Its session here may have been lost as well: the
 *     next one has the same id, and speaks for the process of the former one.
 * Blocks of all other writers wait in the writer's list. A session's pins are kept as long, because a process that may
 * write may also read.
 */
#include "unit/writers.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/pointer.h"
#include "base/text.h"
#include "unit/memory.h"
#include "unit/sift.h"
#include "unit/tombs.h"
#include "unit/unit_state.h"
#include "unit/wait.h"

int tqi_unit_writer_open(tqi_unit *unit, tqi_net_session *session)
{
    tqi_unit_writer *writer = calloc(1, sizeof(*writer));

    if (writer == NULL) {
        return TQ_ENOMEM;
    }
    writer->number = ++unit->next_writer;
    writer->unit = unit;
    writer->session = session;
    memcpy(writer->client, tqi_net_session_id(session), sizeof(writer->client));
    if (!TQI_HASH_ADD(unit->writers, number, writer)) {
        free(writer);
        return TQ_ENOMEM;
    }
    tqi_net_session_set_user(session, writer);
    return TQ_OK;
}

/* The grant, if it is among those proven last. */
static const tqi_unit_granted *writer_find_granted(const tqi_unit_writer *writer, const Tq__Grant *grant)
{
    for (unsigned i = 0; i < TQI_UNIT_GRANTED_MAX; i++) {
        const tqi_unit_granted *known = &writer->granted[i];
        if (known->count == grant->count && known->first == grant->first && known->count > 0) {
            return known;
        }
    }
    return NULL;
}

bool tqi_unit_writer_granted(tqi_unit_writer *writer, const Tq__Grant *grant)
{
    const tqi_unit *unit = writer->unit;
    const tqi_unit_granted *known = writer_find_granted(writer, grant);

    if (known != NULL && grant->proof.len == TQI_NET_GRANT &&
        memcmp(known->proof, grant->proof.data, TQI_NET_GRANT) == 0) {
        return true;
    }
    if (writer->session == NULL || grant->count == 0 ||
        !tqi_net_grant_holds(unit->key, unit->name, unit->incarnation, tqi_net_session_id(writer->session),
                             grant->first, grant->count, grant->proof.data, grant->proof.len)) {
        return false;
    }
    tqi_unit_granted *next = &writer->granted[writer->n_granted++ % TQI_UNIT_GRANTED_MAX];
    *next = (tqi_unit_granted){.first = grant->first, .count = grant->count};
    memcpy(next->proof, grant->proof.data, TQI_NET_GRANT);
    return true;
}

static void writer_free(tqi_unit_writer *writer)
{
    if (writer->process != NULL) {
        tqi_net_process_off_exit(writer->process, &writer->exit);
        tqi_net_process_unref(writer->process);
    }
    free(writer->deferred);
    free(writer);
}

/* Forgets a writer whose session has ended; its deferred blocks have been freed before. */
static void writer_forget(tqi_unit_writer *writer)
{
    tqi_unit_writer_unpin(writer);
    if (writer->left) {
        DL_DELETE(writer->unit->left, writer);
    }
    HASH_DEL(writer->unit->writers, writer);
    writer_free(writer);
}

/* The word of a block whose writer is alive but has finished with it: the number of a writer that never existed. */
#define WRITER_FINISHED (UINT64_C(1) << 63)

/* A block's word at the store: twice its writer's number, plus 1 if it was sifted; 0: the block is the unit's own. */
static uint64_t writer_mark(const tqi_unit *unit, uint64_t id)
{
    return (uint64_t)(uintptr_t)tqi_store_user(unit->store, id);
}

void tqi_unit_writer_add(tqi_unit_writer *writer, uint64_t id)
{
    tqi_store_set_user(writer->unit->store, id, (void *)(uintptr_t)(writer->number * 2));
    writer->reserved++;
}

bool tqi_unit_writer_left_behind(tqi_unit *unit, uint64_t id)
{
    uint64_t mark = writer_mark(unit, id);
    const tqi_unit_writer *writer = mark != 0 && mark % 2 == 0 ? tqi_unit_writer_of(unit, id) : NULL;

    return mark != 0 && mark % 2 == 0 && (writer == NULL || writer->session == NULL);
}

void tqi_unit_writer_sifted(tqi_unit *unit, uint64_t id)
{
    uint64_t mark = writer_mark(unit, id);

    if (mark != 0) {
        tqi_store_set_user(unit->store, id, (void *)(uintptr_t)(mark | 1));
    }
}

tqi_unit_writer *tqi_unit_writer_of(tqi_unit *unit, uint64_t id)
{
    uint64_t number = writer_mark(unit, id) / 2;
    tqi_unit_writer *writer = NULL;

    if (number != 0) {
        HASH_FIND(hh, unit->writers, &number, sizeof(number), writer);
    }
    return writer;
}

/* Frees a block at the store; idempotent. */
static void writer_free_block(tqi_unit *unit, uint64_t id)
{
    tqi_unit_writer *writer = tqi_unit_writer_of(unit, id);

    if (!tqi_store_free_block(unit->store, id) || writer == NULL) {
        return;
    }
    writer->reserved--;
    tqi_unit_writer_settle(writer);
}

void tqi_unit_writer_settle(tqi_unit_writer *writer)
{
    if (writer->session == NULL && writer->reserved == 0 && writer->pins == NULL) {
        writer_forget(writer);
    }
}

tqi_unit_writer *tqi_unit_writer_former(const tqi_unit_writer *writer, const tqi_unit_writer *after)
{
    tqi_unit_writer *former = after != NULL ? after->next : writer->unit->left;

    for (; former != NULL; former = former->next) {
        if (memcmp(former->client, writer->client, sizeof(writer->client)) == 0 && writer->session != NULL &&
            former->process == tqi_net_session_process(writer->session)) {
            break;
        }
    }
    return former;
}

/* Block `id` is dead, but its writer may still write: frees it once it cannot any more. TQ_OK or TQ_ENOMEM. */
static int writer_defer(tqi_unit_writer *writer, uint64_t id)
{
    int rc = tqi_grow(&writer->deferred, &writer->deferred_capacity, writer->n_deferred + 1, sizeof(*writer->deferred));

    if (rc == TQ_OK) {
        writer->deferred[writer->n_deferred++] = id;
    }
    return rc;
}

/* Nothing writes for this writer any more: frees the blocks that waited for that, and the writer. */
static void writer_finished(tqi_unit_writer *writer)
{
    tqi_unit *unit = writer->unit;
    uint64_t *ids = writer->deferred;
    size_t n = writer->n_deferred;

    writer->deferred = NULL;
    writer->n_deferred = 0;
    bool unpinned = tqi_unit_writer_unpin(writer);
    writer_forget(writer);
    for (size_t i = 0; i < n; i++) {
        writer_free_block(unit, ids[i]);
    }
    free(ids);
    if (n > 0) {
        tqi_log(TQI_INFO, "unit", "%s: %zu block%s of a writer that is gone %s free", unit->name, n, tqi_text_s(n),
                n == 1 ? "is" : "are");
    }
    if (n > 0 || unpinned) {
        tqi_unit_changed(unit);
        tqi_unit_wake(unit);
    }
}

static void writer_exited(tqi_net_exit *exit, const char *failed)
{
    tqi_unit_writer *writer = TQI_CONTAINER(exit, tqi_unit_writer, exit);

    if (failed != NULL) {
        /* The watch failed, which does not mean that the process has exited. */
        tqi_log(TQI_ERROR, "unit", "%s: a writer's end cannot be watched; its blocks stay: %s", writer->unit->name,
                failed);
        return;
    }
    writer_finished(writer);
}

typedef struct writer_finish {
    tqi_unit_writer *writer;
    const uint64_t *ids; /* sorted */
    size_t n;
    bool others;
} writer_finish;

static int writer_order(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;

    return a < b ? -1 : a > b;
}

/* A block without a writer waits for none; the controller is asked whether it knows the block. */
static void writer_finish_block(uint64_t id, void *user, void *arg)
{
    const writer_finish *finish = arg;
    tqi_unit_writer *writer = finish->writer;

    if ((uint64_t)(uintptr_t)user / 2 != writer->number) {
        return;
    }
    bool named = finish->n > 0 && bsearch(&id, finish->ids, finish->n, sizeof(id), writer_order) != NULL;
    if (named != finish->others) {
        tqi_store_set_user(writer->unit->store, id, (void *)(uintptr_t)WRITER_FINISHED);
        writer->reserved--;
    }
}

/* Whether a block was freed. */
static bool writer_finish_blocks(tqi_unit_writer *writer, const uint64_t *ids, size_t n, bool others)
{
    writer_finish finish = {writer, ids, n, others};
    tqi_unit *unit = writer->unit;
    size_t kept = 0;

    if (others) {
        tqi_store_each(unit->store, writer_finish_block, &finish);
    }
    for (size_t i = 0; i < n && !others; i++) {
        writer_finish_block(ids[i], tqi_store_user(unit->store, ids[i]), &finish);
    }
    for (size_t i = 0; i < writer->n_deferred; i++) {
        uint64_t id = writer->deferred[i];
        if (tqi_unit_writer_of(unit, id) == writer) {
            writer->deferred[kept++] = id;
        } else {
            writer_free_block(unit, id);
        }
    }
    bool freed = kept < writer->n_deferred;
    writer->n_deferred = kept;
    return freed;
}

void tqi_unit_writer_finish(tqi_unit_writer *writer, uint64_t *ids, size_t n, bool others)
{
    tqi_unit *unit = writer->unit;

    if (n > 1) {
        qsort(ids, n, sizeof(*ids), writer_order);
    }
    bool freed = writer_finish_blocks(writer, ids, n, others);
    tqi_unit_writer *former = tqi_unit_writer_former(writer, NULL);
    while (former != NULL) {
        tqi_unit_writer *next = tqi_unit_writer_former(writer, former);
        freed = writer_finish_blocks(former, ids, n, others) || freed;
        tqi_unit_writer_settle(former);
        former = next;
    }
    tqi_unit_sift_want(unit);
    if (freed) {
        tqi_unit_changed(unit);
        tqi_unit_wake(unit);
    }
}

void tqi_unit_writer_end(tqi_unit_writer *writer, bool finished)
{
    writer->session = NULL;
    if (writer->reserved > 0) {
        tqi_unit_sift_want(writer->unit);
    }
    bool idle = writer->reserved == 0 && writer->pins == NULL;
    if (finished || !writer->mapped || idle || writer->unit->closing) {
        writer_finished(writer);
        return;
    }
    /* The session was lost, or did not say that it has finished: its process may still be in the middle of a copy. */
    writer->left = true;
    DL_APPEND(writer->unit->left, writer);
    writer->exit.fn = writer_exited;
    tqi_net_process_on_exit(writer->process, &writer->exit);
}

int tqi_unit_writer_map(tqi_unit_writer *writer, tq_error *err)
{
    if (writer->mapped) {
        return TQ_OK;
    }
    tqi_net_process *process = tqi_net_session_process(writer->session);
    if (process == NULL) {
        return tqi_error_set(err, TQ_EUNSUPPORTED, "unit '%s' cannot watch the process of session '%s'",
                             writer->unit->name, tqi_net_session_name(writer->session));
    }
    /* The writer may outlive its session. */
    writer->process = tqi_net_process_ref(process);
    writer->pid = tqi_net_session_pid(writer->session);
    writer->mapped = true;
    return TQ_OK;
}

void tqi_unit_writers_forget(tqi_unit *unit)
{
    tqi_unit_writer *writer, *next;

    HASH_ITER (hh, unit->writers, writer, next) {
        writer->reserved = 0;
        writer->n_deferred = 0;
        memset(writer->granted, 0, sizeof(writer->granted));
        /* Pins hold the memory of the store in which they were made. */
        if (writer->session == NULL && writer->pins == NULL) {
            writer_forget(writer);
        }
    }
}

void tqi_unit_writers_close(tqi_unit *unit)
{
    tqi_unit_writer *writer, *next;

    HASH_ITER (hh, unit->writers, writer, next) {
        if (writer->session == NULL) {
            writer_forget(writer);
        }
    }
}

/* --- dead blocks ---------------------------------------------------------- */

int tqi_unit_dead(tqi_unit *unit, uint64_t id, bool writer_done)
{
    if (!tqi_store_has(unit->store, id)) {
        tqi_unit_tombs_add(&unit->tombs, id, 1);
        return TQ_OK;
    }
    tqi_unit_writer *writer = writer_done ? NULL : tqi_unit_writer_of(unit, id);
    if (writer != NULL && writer->mapped) {
        return writer_defer(writer, id);
    }
    writer_free_block(unit, id);
    return TQ_OK;
}
