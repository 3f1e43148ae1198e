/*
 * marks_wraps.c - marks of events inside the product: functions that are called exactly then, or that say so by what
 * they return, wrapped when the program is linked (wrap_marks.txt).
 */
#include "client/get/get.h"
#include "client/put/put.h"
#include "client/runtime.h"
#include "controller/controller_state.h"
#include "controller/owners.h"
#include "controller/queue.h"
#include "controller/snapshots.h"
#include "manager/kv/kv.h"
#include "manager/simple/put.h"
#include "net/calling.h"
#include "net/serving.h"
#include "sim.h"
#include "unit/compact.h"
#include "unit/memory.h"
#include "unit/tombs.h"
#include "unit/unit_state.h"
#include "unit/wait.h"
#include "unit/writers.h"

/* A function without a result that is a mark by itself. */
#define MARKS_CALL(name, mark, parameters, arguments) \
    void __real_##name parameters;                    \
    void __wrap_##name parameters;                    \
    void __wrap_##name parameters                     \
    {                                                 \
        sim_mark(mark);                               \
        __real_##name arguments;                      \
    }

/* One that is a mark if a condition holds before it runs. */
#define MARKS_CALL_IF(name, condition, mark, parameters, arguments) \
    void __real_##name parameters;                                  \
    void __wrap_##name parameters;                                  \
    void __wrap_##name parameters                                   \
    {                                                               \
        if (condition) {                                            \
            sim_mark(mark);                                         \
        }                                                           \
        __real_##name arguments;                                    \
    }

/* One that is a mark if it returns that. */
#define MARKS_RESULT(type, name, condition, mark, parameters, arguments) \
    type __real_##name parameters;                                       \
    type __wrap_##name parameters;                                       \
    type __wrap_##name parameters                                        \
    {                                                                    \
        type result = __real_##name arguments;                           \
                                                                         \
        if (condition) {                                                 \
            sim_mark(mark);                                              \
        }                                                                \
        return result;                                                   \
    }

/* --- sessions and connections ------------------------------------------------------- */

void __real_tqi_net_session_attach(tqi_net_session *session, tqi_net_peer *peer);
void __wrap_tqi_net_session_attach(tqi_net_session *session, tqi_net_peer *peer);
void __wrap_tqi_net_session_attach(tqi_net_session *session, tqi_net_peer *peer)
{
    if (session->peer != NULL) {
        sim_mark("client back before its connection was seen to end");
    } else if (session->deadline != 0) {
        sim_mark("session resumed");
    }
    __real_tqi_net_session_attach(session, peer);
}

static bool marks_any_sent(const tqi_net_channel *channel)
{
    for (const tqi_net_call *call = channel->calls; call != NULL; call = call->hh.next) {
        if (call->method->keep && call->tx->touched) {
            return true;
        }
    }
    return false;
}

void __real_tqi_net_call_stale(tqi_net_channel *channel, bool another);
void __wrap_tqi_net_call_stale(tqi_net_channel *channel, bool another);
void __wrap_tqi_net_call_stale(tqi_net_channel *channel, bool another)
{
    if (another) {
        sim_mark("another server answers at the address");
    } else if (marks_any_sent(channel)) {
        sim_mark("requests ended with their session");
    }
    __real_tqi_net_call_stale(channel, another);
}

MARKS_CALL(tqi_net_request_repeat, "kept reply answered again", (tqi_net_request * request), (request))
MARKS_CALL_IF(tqi_net_session_ack_but, n > 0, "waiting requests named in an acknowledgement",
              (tqi_net_session * session, uint64_t below, const uint64_t *waiting, size_t n),
              (session, below, waiting, n))
MARKS_CALL_IF(tqi_net_call_resend, marks_any_sent(channel), "request sent again after a reconnect",
              (tqi_net_channel * channel), (channel))
MARKS_CALL_IF(tqi_net_channel_reset_rx, channel->rx_call != NULL && channel->rx_reply != NULL,
              "connection lost in the middle of a reply", (tqi_net_channel * channel), (channel))
MARKS_CALL(tqi_net_conn_drop_payload, "call ended in the middle of its payload", (tqi_net_conn * conn), (conn))
MARKS_CALL(tqi_net_conn_unsend, "request withdrawn before it was sent", (tqi_net_conn * conn, tqi_net_out_frame *tx),
           (conn, tx))
MARKS_CALL(tqi_net_channel_refused, "connection refused", (tqi_net_channel * channel, int errnum), (channel, errnum))
MARKS_CALL_IF(tqi_net_channel_back, channel->gone.code != TQ_OK || channel->failing_since != 0, "server is back",
              (tqi_net_channel * channel), (channel))
MARKS_RESULT(bool, tqi_net_channel_give_up, result, "server given up", (tqi_net_channel * channel), (channel))
MARKS_CALL(tqi_net_channel_goodbye, "server said goodbye", (tqi_net_channel * channel), (channel))
MARKS_CALL(tqi_net_channel_park, "connection given back to a crowded server", (tqi_net_channel * channel), (channel))

/* --- the controller ------------------------------------------------------------------- */

void __real_tqi_ctl_owners_leave(tqi_controller *ctl, tqi_ctl_session *session, bool gone);
void __wrap_tqi_ctl_owners_leave(tqi_controller *ctl, tqi_ctl_session *session, bool gone);
void __wrap_tqi_ctl_owners_leave(tqi_controller *ctl, tqi_ctl_session *session, bool gone)
{
    sim_mark(gone ? "session ended with its process" : "session lost after its grace");
    __real_tqi_ctl_owners_leave(ctl, session, gone);
}

void __real_tqi_ctl_snapshots_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void __wrap_tqi_ctl_snapshots_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void __wrap_tqi_ctl_snapshots_leave(tqi_controller *ctl, const tqi_ctl_session *session)
{
    const void *first = ctl->snapshots;

    __real_tqi_ctl_snapshots_leave(ctl, session);
    if (ctl->snapshots != first) {
        sim_mark("checkpoint interrupted");
    }
}

void __real_tqi_ctl_restores_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void __wrap_tqi_ctl_restores_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void __wrap_tqi_ctl_restores_leave(tqi_controller *ctl, const tqi_ctl_session *session)
{
    const void *first = ctl->restores;

    __real_tqi_ctl_restores_leave(ctl, session);
    if (ctl->restores != first) {
        sim_mark("load interrupted");
    }
}

MARKS_CALL(tqi_ctl_claim_queue_served, "claim served from the waiting list", (tqi_ctl_claim_place * place), (place))
MARKS_CALL(tqi_ctl_list_lost, "owner lost after its timeout", (tqi_controller * ctl, tqi_ctl_owner *owner), (ctl, owner))
MARKS_CALL(tqi_ctl_collects_drop, "collector ended while it waited",
           (tqi_ctl_owner * owner, const tqi_ctl_session *session), (owner, session))
MARKS_CALL(tqi_ctl_claims_move, "claims moved to a loaded partition",
           (tqi_table_view * from, tqi_table_view *to, void *unused), (from, to, unused))
MARKS_CALL(tqi_ctl_late_due, "late blocks removed again", (tqi_net_timed * timed), (timed))
MARKS_RESULT(const uint32_t *, tqi_table_view_cache_get, result != NULL, "cached pick handed out",
             (const tqi_table_view *view, const char *slot, uint32_t *n), (view, slot, n))

/* --- units ------------------------------------------------------------------------------ */

void __real_tqi_unit_writer_end(tqi_unit_writer *writer, bool finished);
void __wrap_tqi_unit_writer_end(tqi_unit_writer *writer, bool finished);
void __wrap_tqi_unit_writer_end(tqi_unit_writer *writer, bool finished)
{
    if (!finished && writer->mapped && writer->reserved > 0 && !writer->unit->closing) {
        sim_mark("writer left behind");
    }
    if (!finished && writer->mapped && writer->pins != NULL && !writer->unit->closing) {
        sim_mark("pins left behind");
    }
    __real_tqi_unit_writer_end(writer, finished);
}

int __real_tqi_unit_dead(tqi_unit *unit, uint64_t id, bool writer_done);
int __wrap_tqi_unit_dead(tqi_unit *unit, uint64_t id, bool writer_done);
int __wrap_tqi_unit_dead(tqi_unit *unit, uint64_t id, bool writer_done)
{
    const tqi_unit_writer *writer = !writer_done && tqi_store_has(unit->store, id) ? tqi_unit_writer_of(unit, id) : NULL;

    if (writer != NULL && writer->mapped) {
        sim_mark("writer deferred");
    }
    if (unit->sift.going && !writer_done && tqi_store_has(unit->store, id) && tqi_unit_writer_left_behind(unit, id)) {
        sim_mark("blocks known to no table");
    }
    return __real_tqi_unit_dead(unit, id, writer_done);
}

void __real_tqi_unit_writer_finish(tqi_unit_writer *writer, uint64_t *ids, size_t n, bool others);
void __wrap_tqi_unit_writer_finish(tqi_unit_writer *writer, uint64_t *ids, size_t n, bool others);
void __wrap_tqi_unit_writer_finish(tqi_unit_writer *writer, uint64_t *ids, size_t n, bool others)
{
    if (tqi_unit_writer_former(writer, NULL) != NULL) {
        sim_mark("writer finished after its session was lost");
    }
    __real_tqi_unit_writer_finish(writer, ids, n, others);
}

MARKS_RESULT(tqi_unit_writer *, tqi_unit_writer_former, result != NULL, "pin ended by the next session",
             (const tqi_unit_writer *writer, const tqi_unit_writer *after), (writer, after))
MARKS_CALL(tqi_unit_tombs_add, "tomb", (tqi_unit_tombs * tombs, uint64_t first, uint64_t count), (tombs, first, count))
MARKS_CALL_IF(tqi_unit_tombs_clear, tombs->n > 0, "tombs dropped", (tqi_unit_tombs * tombs), (tombs))
MARKS_RESULT(bool, tqi_unit_tombs_has, result, "reserve met a tomb", (const tqi_unit_tombs *tombs, uint64_t id),
             (tombs, id))
MARKS_CALL(tqi_unit_writers_forget, "unit renewed", (tqi_unit * unit), (unit))
MARKS_CALL_IF(tqi_unit_compact_forget, unit->compact.now != NULL, "unit renewed in the middle of a move",
              (tqi_unit * unit), (unit))
MARKS_CALL_IF(tqi_unit_compact_forget_ids, unit->compact.now != NULL, "move lost with its session", (tqi_unit * unit),
              (unit))
MARKS_CALL(tqi_unit_compact_refuse, "move refused", (tqi_unit * unit, uint64_t id), (unit, id))
MARKS_CALL_IF(tqi_unit_compact_append, n > 0, "move tried again later",
              (tqi_unit * unit, const uint64_t *ids, size_t n), (unit, ids, n))
MARKS_CALL_IF(tqi_unit_compact_urge, unit->compact.n > 0, "put hurried a move", (tqi_unit * unit), (unit))
MARKS_RESULT(bool, tqi_unit_writer_granted, !result, "proof of a grant refused",
             (tqi_unit_writer * writer, const Tq__Grant *grant), (writer, grant))

/* --- clients ------------------------------------------------------------------------------ */

/* A job that the manager is asked to do a second time. */
static void marks_of_put(const tq_put_job *job)
{
    const tqi_client_put_job *write = (const tqi_client_put_job *)job;
    const tqi_client_put *put = (const tqi_client_put *)(const void *)write->task;

    if (write->task != NULL && &put->write == write && put->tries > 0) {
        sim_mark("put written again under new ids");
    }
}

void __real_tqi_simple_put(void *state, tq_put_job *job);
void __wrap_tqi_simple_put(void *state, tq_put_job *job);
void __wrap_tqi_simple_put(void *state, tq_put_job *job)
{
    marks_of_put(job);
    __real_tqi_simple_put(state, job);
}

void __real_tqi_kv_put_start(void *state, tq_put_job *job);
void __wrap_tqi_kv_put_start(void *state, tq_put_job *job);
void __wrap_tqi_kv_put_start(void *state, tq_put_job *job)
{
    marks_of_put(job);
    __real_tqi_kv_put_start(state, job);
}

bool __real_tqi_client_get_still_gone(const tqi_client_get *get, tq_error *err);
bool __wrap_tqi_client_get_still_gone(const tqi_client_get *get, tq_error *err);
bool __wrap_tqi_client_get_still_gone(const tqi_client_get *get, tq_error *err)
{
    bool gone = __real_tqi_client_get_still_gone(get, err);

    sim_mark(gone ? "read reported lost blocks" : "read of blocks that had moved");
    return gone;
}

MARKS_CALL_IF(tqi_client_abandon, n > 0, "put gave up what it had written",
              (tqi_client_runtime * rt, const uint64_t *ids, size_t n, bool done), (rt, ids, n, done))
MARKS_CALL_IF(tqi_simple_put_wait_begin, true, "put waited for room", (tqi_simple_put_op * op), (op))
MARKS_RESULT(bool, tqi_simple_put_elsewhere, result, "put went elsewhere", (tqi_simple_put_op * op), (op))
MARKS_RESULT(bool, tqi_simple_stock_take, result, "put took blocks reserved ahead", (tqi_simple_put_op * op), (op))
MARKS_CALL_IF(tqi_simple_stock_drop, link->n_stock > 0, "blocks reserved ahead given back", (tqi_simple_link * link),
              (link))
MARKS_CALL_IF(tqi_simple_link_unmap, link->mapping != NULL, "mapping of a unit given up", (tqi_simple_link * link),
              (link))
MARKS_CALL(tqi_simple_link_finish, "unit told that a writer has finished",
           (tqi_simple_link * link, const uint64_t *ids, size_t n, bool others), (link, ids, n, others))
/* Whether a column that was to be read in place could not. */
static bool marks_not_borrowed(const tqi_client_get *get)
{
    for (size_t i = 0; i < get->borrow.n; i++) {
        if (get->borrow.ranges[i].data == NULL && get->data->columns[get->borrow_column[i]].data == NULL) {
            return true;
        }
    }
    return false;
}

int __real_tqi_client_get_copy_instead(tqi_client_get *get, tq_error *err);
int __wrap_tqi_client_get_copy_instead(tqi_client_get *get, tq_error *err);
int __wrap_tqi_client_get_copy_instead(tqi_client_get *get, tq_error *err)
{
    if (marks_not_borrowed(get)) {
        sim_mark("borrow became a copy");
    }
    return __real_tqi_client_get_copy_instead(get, err);
}

MARKS_CALL(tqi_client_collector_rejoin, "collector registered again", (tqi_client_runtime * rt), (rt))
MARKS_CALL_IF(tqi_kv_put_retry, kv->full != NULL, "put waited for room in a store", (tqi_kv * kv), (kv))
