/*
 * writers.c - who may still be writing into a block whose end was announced.
 *
 * A dead notice says of a block that was never published whether its writer is known to have finished.  When it is not
 * (the controller lost sight of the writer's session), the memory may be given to others only when nobody can write to
 * it any more:
 *   - a writer without a mapping writes through this unit, which refuses it once the block is freed;
 *   - a writer with a mapping that is gone with its process (a pidfd tells; an end-of-file proves nothing, for a forked
 *     child may keep the socket) writes no more.
 * Blocks of all others wait in their writer's list.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "unit/internal.h"

int tqi_writer_open(tqi_unit *unit, tqi_session *session)
{
    tqi_writer *writer = calloc(1, sizeof(*writer));

    if (writer == NULL) {
        return TQ_ENOMEM;
    }
    writer->number = ++unit->next_writer;
    writer->unit = unit;
    writer->session = session;
    writer->pidfd = -1;
    HASH_ADD(hh, unit->writers, number, sizeof(writer->number), writer);
    if (writer->hh.tbl == NULL) {
        free(writer);
        return TQ_ENOMEM;
    }
    tqi_session_set_user(session, writer);
    return TQ_OK;
}

static void writer_free(tqi_writer *writer)
{
    if (writer->pidfd >= 0) {
        close(writer->pidfd);
    }
    free(writer->deferred);
    free(writer);
}

static void writer_poll_closed(uv_handle_t *handle)
{
    tqi_writer *writer = handle->data;
    tqi_unit *unit = writer->unit;

    writer_free(writer);
    tqi_unit_close_step(unit);
}

/* Forgets a writer whose session has ended; its deferred blocks are freed before. */
static void writer_forget(tqi_writer *writer)
{
    HASH_DEL(writer->unit->writers, writer);
    if (writer->polling) {
        writer->polling = false;
        uv_close((uv_handle_t *)&writer->poll, writer_poll_closed);
    } else {
        writer_free(writer);
    }
}

tqi_writer *tqi_writer_of(tqi_unit *unit, uint64_t id)
{
    uint64_t number = (uint64_t)(uintptr_t)tqi_store_user(unit->store, id);
    tqi_writer *writer = NULL;

    if (number != 0) {
        HASH_FIND(hh, unit->writers, &number, sizeof(number), writer);
    }
    return writer;
}

void tqi_writer_free_block(tqi_unit *unit, uint64_t id)
{
    tqi_writer *writer = tqi_writer_of(unit, id);

    if (!tqi_store_free_block(unit->store, id) || writer == NULL) {
        return;
    }
    writer->reserved--;
    if (writer->session == NULL && writer->reserved == 0) {
        writer_forget(writer);
    }
}

int tqi_writer_defer(tqi_writer *writer, uint64_t id)
{
    int code = tqi_grow(&writer->deferred, &writer->deferred_capacity, writer->n_deferred + 1,
                        sizeof(*writer->deferred));

    if (code == TQ_OK) {
        writer->deferred[writer->n_deferred++] = id;
    }
    return code;
}

/* Nothing writes for this writer any more: frees what waited for that, and the writer. */
static void writer_finished(tqi_writer *writer)
{
    tqi_unit *unit = writer->unit;
    uint64_t *ids = writer->deferred;
    size_t n = writer->n_deferred;

    writer->deferred = NULL;
    writer->n_deferred = 0;
    writer_forget(writer);
    for (size_t i = 0; i < n; i++) {
        tqi_writer_free_block(unit, ids[i]);
    }
    free(ids);
    if (n > 0) {
        tqi_log(TQI_INFO, "unit", "%s: %zu blocks of a writer that is gone are free", unit->name,
                n);
        tqi_unit_changed(unit);
        tqi_unit_wake(unit);
    }
}

static void writer_exited(uv_poll_t *poll, int status, int events)
{
    tqi_writer *writer = poll->data;

    (void)events;
    if (status < 0) {
        /* The watch failed, which says nothing about the process. */
        tqi_log(TQI_ERROR, "unit", "%s: a writer's end cannot be watched; its blocks stay: %s",
                writer->unit->name, uv_strerror(status));
        uv_poll_stop(poll);
        return;
    }
    writer_finished(writer);
}

void tqi_writer_end(tqi_writer *writer, bool dead)
{
    tqi_unit *unit = writer->unit;

    writer->session = NULL;
    if (dead || !writer->mapped || writer->reserved == 0 || unit->closing) {
        writer_finished(writer);
        return;
    }
    /* The session said goodbye or was lost, but its process may be there, in the middle of a copy. */
    if (uv_poll_init(unit->loop, &writer->poll, writer->pidfd) != 0) {
        tqi_log(TQI_ERROR, "unit", "%s: a writer's end cannot be watched; its blocks stay",
                unit->name);
        return;
    }
    writer->poll.data = writer;
    writer->polling = true;
    unit->open++;
    if (uv_poll_start(&writer->poll, UV_READABLE, writer_exited) != 0) {
        tqi_log(TQI_ERROR, "unit", "%s: a writer's end cannot be watched; its blocks stay",
                unit->name);
    }
}

int tqi_writer_map(tqi_writer *writer, tq_error *err)
{
    if (writer->mapped) {
        return TQ_OK;
    }
    int pidfd = tqi_session_pidfd(writer->session);
    if (pidfd < 0) {
        return tqi_error_set(err, TQ_EUNSUPPORTED,
                             "unit '%s' cannot watch the process of session '%s'",
                             writer->unit->name, tqi_session_name(writer->session));
    }
    /* A copy: the writer may outlive its session. */
    writer->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
    if (writer->pidfd < 0) {
        return tqi_error_set(err, TQ_EUNSUPPORTED,
                             "no descriptor for the process of session '%s': %s",
                             tqi_session_name(writer->session), strerror(errno));
    }
    writer->mapped = true;
    return TQ_OK;
}

void tqi_writers_forget(tqi_unit *unit)
{
    tqi_writer *writer, *next;

    HASH_ITER (hh, unit->writers, writer, next) {
        writer->reserved = 0;
        writer->n_deferred = 0;
        if (writer->session == NULL) {
            writer_forget(writer);
        }
    }
}

void tqi_writers_close(tqi_unit *unit)
{
    tqi_writer *writer, *next;

    HASH_ITER (hh, unit->writers, writer, next) {
        if (writer->session == NULL) {
            writer_forget(writer);
        }
    }
}
