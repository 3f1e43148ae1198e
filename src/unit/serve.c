/*
 * serve.c - requests of readers and writers: map, write, read, stat. (Reserve is in wait.c.)
 *
 * Bytes of a write go straight from the socket into the arena, bytes of a read straight from the arena into the
 * socket. During the transfer the blocks are held: a block that is freed meanwhile is no longer found, but its memory
 * is not reused.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "unit/memory.h"
#include "unit/report.h"
#include "unit/unit_state.h"
#include "unit/wait.h"
#include "unit/writers.h"

/* Blocks of one store that are held for a request. */
typedef struct serve_held {
    tqi_unit_store *held;
    size_t n;
    uint64_t ids[];
} serve_held;

static serve_held *serve_hold_make(tqi_unit *unit, size_t max)
{
    serve_held *hold = malloc(sizeof(*hold) + max * sizeof(hold->ids[0]));

    if (hold != NULL) {
        hold->held = unit->held;
        hold->held->refs++;
        hold->n = 0;
    }
    return hold;
}

static void serve_hold_add(serve_held *hold, uint64_t id)
{
    tqi_store_ref(hold->held->store, id);
    hold->ids[hold->n++] = id;
}

static void serve_hold_end(void *arg)
{
    serve_held *hold = arg;

    for (size_t i = 0; i < hold->n; i++) {
        tqi_store_unref(hold->held->store, hold->ids[i]);
    }
    tqi_unit_store_unref(hold->held);
    free(hold);
}

/* The same, when the memory may make room for a waiting request. */
static void serve_sent(void *arg)
{
    serve_held *hold = arg;
    tqi_unit *unit = hold->held->unit;

    serve_hold_end(hold);
    tqi_unit_wake(unit);
}

/* --- map ------------------------------------------------------------------ */

static void serve_mapped(void *arg)
{
    tqi_unit_store_unref(arg);
}

static void serve_map(tqi_unit *unit, tqi_net_request *request)
{
    Tq__UnitMapReply reply = TQ__UNIT_MAP_REPLY__INIT;
    tqi_net_session *session = tqi_net_request_session(request);
    tqi_unit_writer *writer = session != NULL ? tqi_net_session_user(session) : NULL;
    tq_error err = {0};

    if (tqi_store_unshared(unit->store) != NULL) {
        tqi_error_set(&err, TQ_EUNSUPPORTED, "its system does not let unit '%s' share memory: %s", unit->name,
                      tqi_store_unshared(unit->store));
    } else if (!tqi_net_session_local(session)) {
        tqi_error_set(&err, TQ_EUNSUPPORTED, "unit '%s' does not share memory with this process: %s", unit->name,
                      tqi_net_session_remote(session));
    } else {
        tqi_unit_writer_map(writer, &err);
    }
    if (err.code != TQ_OK) {
        tqi_net_request_fail(request, &err);
        return;
    }
    reply.incarnation = unit->incarnation;
    reply.arena_bytes = tqi_store_capacity(unit->store);
    reply.slots = tqi_store_slots(unit->store);
    int fds[2] = {tqi_store_arena_fd(unit->store), tqi_store_slots_fd(unit->store)};
    unit->held->refs++; /* that they stay open until they are sent */
    tqi_net_request_reply_fds(request, &reply.base, fds, 2, serve_mapped, unit->held);
}

/* --- write ---------------------------------------------------------------- */

/* Checks the blocks of a write, which must be the session's own: only they are not yet published. */
static int serve_write_check(tqi_unit *unit, const tqi_net_request *request, const Tq__UnitWrite *message, tq_error *err)
{
    tqi_net_session *session = tqi_net_request_session(request);

    if (message->n_id == 0 || message->n_id != message->n_slot || message->n_id != message->n_size) {
        return tqi_error_set(err, TQ_EINVAL, "write of %zu ids, %zu slots, %zu sizes", message->n_id, message->n_slot,
                             message->n_size);
    }
    if (message->incarnation != 0 && message->incarnation != unit->incarnation) {
        return tqi_error_set(err, TQ_ESTALE, "unit '%s' is another run of it now", unit->name);
    }
    for (size_t i = 0; i < message->n_id; i++) {
        uint64_t size;
        unsigned long long id = message->id[i];
        if (tqi_store_find(unit->store, id, message->slot[i], &size) == NULL) {
            return tqi_error_set(err, TQ_ESTALE, "unit '%s' has no block %llu any more", unit->name, id);
        }
        tqi_unit_writer *writer = tqi_unit_writer_of(unit, id);
        if (writer == NULL || writer->session == NULL || writer->session != session) {
            return tqi_error_set(err, TQ_ESTALE, "block %llu was reserved by another session", id);
        }
        if (size != message->size[i]) {
            return tqi_error_set(err, TQ_EINVAL, "block %llu has %llu bytes, %llu are written", id,
                                 (unsigned long long)size, (unsigned long long)message->size[i]);
        }
    }
    return TQ_OK;
}

/* The payload must be the blocks' bytes and nothing else. */
static int serve_write_size(const Tq__UnitWrite *message, uint64_t payload, tq_error *err)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < message->n_size; i++) {
        sum += message->size[i];
    }
    if (sum != payload) {
        return tqi_error_set(err, TQ_EINVAL, "write of %llu bytes with a payload of %llu", (unsigned long long)sum,
                             (unsigned long long)payload);
    }
    return TQ_OK;
}

static int serve_sink(tqi_net_request *request, const ProtobufCMessage *base, uint64_t size, struct iovec *iov, int max,
                      int *count, void *ctx, tq_error *err)
{
    tqi_unit *unit = ctx;
    const Tq__UnitWrite *message = (const Tq__UnitWrite *)base;

    if (tqi_net_request_kind(request) != TQI_UNIT_WRITE) {
        return tqi_error_set(err, TQ_EINVAL, "a payload where none belongs");
    }
    if (message->n_id > (size_t)max) {
        return tqi_error_set(err, TQ_EINVAL, "write of %zu blocks, at most %d are possible", message->n_id, max);
    }
    int rc = serve_write_check(unit, request, message, err);
    if (rc == TQ_OK) {
        rc = serve_write_size(message, size, err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    serve_held *hold = serve_hold_make(unit, message->n_id);
    if (hold == NULL) {
        return tqi_error_nomem(err, "a write");
    }
    *count = 0;
    for (size_t i = 0; i < message->n_id; i++) {
        uint8_t *at = tqi_store_find(unit->store, message->id[i], message->slot[i], NULL);
        serve_hold_add(hold, message->id[i]);
        if (message->size[i] > 0) {
            iov[*count].iov_base = at;
            iov[*count].iov_len = message->size[i];
            (*count)++;
        }
    }
    tqi_net_request_set_user(request, hold);
    return TQ_OK;
}

static void serve_sink_failed(tqi_net_request *request, void *ctx)
{
    serve_held *hold = tqi_net_request_user(request);

    (void)ctx;
    if (hold != NULL) {
        tqi_net_request_set_user(request, NULL);
        serve_sent(hold);
    }
}

static void serve_write(tqi_unit *unit, tqi_net_request *request, const Tq__UnitWrite *message)
{
    Tq__Empty reply = TQ__EMPTY__INIT;
    serve_held *hold = tqi_net_request_user(request);
    tq_error err = {0};

    /* The blocks may have ended while the bytes arrived: then the writer gets an error. */
    serve_write_check(unit, request, message, &err);
    if (hold != NULL) {
        tqi_net_request_set_user(request, NULL);
        serve_sent(hold);
    } else if (err.code == TQ_OK) {
        serve_write_size(message, 0, &err);
    }
    if (err.code != TQ_OK) {
        tqi_net_request_fail(request, &err);
    } else {
        tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
    }
}

static void serve_finish(tqi_net_request *request, const Tq__UnitFinish *message)
{
    Tq__Empty reply = TQ__EMPTY__INIT;
    tqi_net_session *session = tqi_net_request_session(request);

    if (session != NULL) {
        tqi_unit_writer_finish(tqi_net_session_user(session), message->id, message->n_id, message->others);
    }
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
}

/* --- read ----------------------------------------------------------------- */

static int serve_read_check(const Tq__UnitRead *message, tq_error *err)
{
    if (message->n_id == 0 || message->n_id != message->n_slot || message->n_id != message->n_offset ||
        message->n_id != message->n_size) {
        return tqi_error_set(err, TQ_EINVAL, "read of %zu ids, %zu slots, %zu offsets, %zu sizes", message->n_id,
                             message->n_slot, message->n_offset, message->n_size);
    }
    return TQ_OK;
}

/* One range: a piece of the arena, merged with the previous one if they are adjacent; or gone. */
static int serve_read_range(tqi_unit *unit, const Tq__UnitRead *message, size_t i, serve_held *hold, struct iovec *iov,
                            int *count, bool *gone, tq_error *err)
{
    uint64_t size;
    uint8_t *at = NULL;

    if (message->incarnation == 0 || message->incarnation == unit->incarnation) {
        at = tqi_store_find(unit->store, message->id[i], message->slot[i], &size);
    }
    *gone = at == NULL;
    if (*gone) {
        return TQ_OK;
    }
    if (message->offset[i] > size || message->size[i] > size - message->offset[i]) {
        return tqi_error_set(err, TQ_EINVAL, "read of %llu bytes from byte %llu of block %llu, which has %llu",
                             (unsigned long long)message->size[i], (unsigned long long)message->offset[i],
                             (unsigned long long)message->id[i], (unsigned long long)size);
    }
    if (hold->n == 0 || hold->ids[hold->n - 1] != message->id[i]) {
        serve_hold_add(hold, message->id[i]);
    }
    at += message->offset[i];
    struct iovec *last = *count > 0 ? &iov[*count - 1] : NULL;
    if (message->size[i] == 0) {
        return TQ_OK;
    }
    if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == at) {
        last->iov_len += message->size[i];
    } else {
        iov[*count].iov_base = at;
        iov[*count].iov_len = message->size[i];
        (*count)++;
    }
    return TQ_OK;
}

static void serve_read(tqi_unit *unit, tqi_net_request *request, const Tq__UnitRead *message)
{
    Tq__UnitReadReply reply = TQ__UNIT_READ_REPLY__INIT;
    serve_held *hold = NULL;
    struct iovec *iov = NULL;
    uint32_t *gone = NULL;
    int count = 0;
    tq_error err = {0};

    if (serve_read_check(message, &err) != TQ_OK) {
        goto fail;
    }
    hold = serve_hold_make(unit, message->n_id);
    iov = malloc(message->n_id * sizeof(*iov));
    gone = malloc(message->n_id * sizeof(*gone));
    if (hold == NULL || iov == NULL || gone == NULL) {
        tqi_error_nomem(&err, "a read");
        goto fail;
    }
    reply.gone = gone;
    for (size_t i = 0; i < message->n_id; i++) {
        bool is_gone;
        if (serve_read_range(unit, message, i, hold, iov, &count, &is_gone, &err) != TQ_OK) {
            goto fail;
        }
        if (is_gone) {
            gone[reply.n_gone++] = (uint32_t)i;
        }
    }
    tqi_net_request_reply(request, &reply.base, iov, count, serve_sent, hold);
    free(iov);
    free(gone);
    return;

fail:
    if (hold != NULL) {
        serve_hold_end(hold);
    }
    free(iov);
    free(gone);
    tqi_net_request_fail(request, &err);
}

static void serve_stat(tqi_unit *unit, tqi_net_request *request)
{
    Tq__UnitStatReply reply = TQ__UNIT_STAT_REPLY__INIT;

    reply.capacity = tqi_store_capacity(unit->store);
    reply.used = tqi_store_used(unit->store);
    reply.blocks = tqi_store_blocks(unit->store);
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
}

/* --- dispatch ------------------------------------------------------------- */

static bool serve_serves(uint16_t kind, void *ctx)
{
    (void)ctx;
    switch (kind) {
#define SERVE_KIND(number, NAME, name, Message, reply, Reply, mode) case TQI_##NAME:
        TQI_METHODS_UNIT(SERVE_KIND)
#undef SERVE_KIND
        return true;
    default:
        return false;
    }
}

static void serve_handle(tqi_net_request *request, const ProtobufCMessage *message, void *ctx)
{
    tqi_unit *unit = ctx;
    uint64_t since = tqi_now();
    tq_error err;

    switch (tqi_net_request_kind(request)) {
    case TQI_UNIT_MAP:
        serve_map(unit, request);
        return;
    case TQI_UNIT_RESERVE:
        tqi_unit_reserve(unit, request, (const Tq__UnitReserve *)message);
        tqi_unit_count(unit, TQI_UNIT_PUT, since);
        return;
    case TQI_UNIT_WRITE:
        serve_write(unit, request, (const Tq__UnitWrite *)message);
        return;
    case TQI_UNIT_READ:
        serve_read(unit, request, (const Tq__UnitRead *)message);
        tqi_unit_count(unit, TQI_UNIT_GET, since);
        return;
    case TQI_UNIT_STAT:
        serve_stat(unit, request);
        return;
    case TQI_UNIT_PIN:
        tqi_unit_pin(unit, request, (const Tq__UnitPin *)message);
        return;
    case TQI_UNIT_UNPIN:
        tqi_unit_unpin(unit, request, (const Tq__UnitUnpin *)message);
        return;
    case TQI_UNIT_FINISH:
        serve_finish(request, (const Tq__UnitFinish *)message);
        return;
    default:
        tqi_error_set(&err, TQ_EUNSUPPORTED, "request %u", tqi_net_request_kind(request));
        tqi_net_request_fail(request, &err);
    }
}

static int serve_session_open(tqi_net_session *session, void *ctx)
{
    return tqi_unit_writer_open(ctx, session);
}

static void serve_session_end(tqi_net_session *session, bool dead, void *ctx)
{
    tqi_unit_writer *writer = tqi_net_session_user(session);

    (void)ctx;
    tqi_net_session_set_user(session, NULL);
    bool unpinned = tqi_net_session_left(session) && tqi_unit_writer_unpin(writer);
    tqi_unit *unit = writer->unit;
    tqi_unit_writer_end(writer, dead || tqi_net_session_finished(session));
    if (unpinned) {
        tqi_unit_changed(unit);
        tqi_unit_wake(unit);
    }
}

/* A writer outlives its session while its process may write; readers hold nothing between their requests except pins. */
static bool serve_parkable(const tqi_net_session *session, void *ctx)
{
    const tqi_unit_writer *writer = tqi_net_session_user(session);

    (void)ctx;
    return writer->pins == NULL;
}

const tqi_net_service tqi_unit_service = {
    .name = "unit",
    .session_open = serve_session_open,
    .session_end = serve_session_end,
    .serves = serve_serves,
    .handle = serve_handle,
    .sink = serve_sink,
    .sink_failed = serve_sink_failed,
    .parkable = serve_parkable,
};
