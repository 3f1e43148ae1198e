/*
 * two_phase_clear.c - two-phase clears, for storage managers whose data the controller cannot report dead block by
 * block. When a clear begins, its samples are described (with the notes that their manager gave) and removed from the
 * table, but their indexes are held. The session that began it removes the data and ends the clear. If that session
 * ends first, or says that it could not remove everything, the clear is handed to the next session that begins a clear
 * for the same remover, which removes the data again. When cells of such a manager are published again, elsewhere, the
 * replaced data becomes a begun clear without indexes.
 */
#include "controller/two_phase_clear.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/error.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/reply.h"
#include "controller/session.h"
#include "sampler/sampler.h"
#include "wire/frame.h"

/* Upper bound for the bytes of a reply other than descriptions, per description. */
#define CLEARING_OVERHEAD 64u

struct tqi_ctl_clearing {
    uint64_t id;
    char *remover;
    const tqi_ctl_session *session; /* that removes the data; NULL: none */
    tqi_table_clearing *held;       /* NULL: no indexes */
    uint8_t *batch;                 /* a packed Batch */
    size_t size;
    tqi_ctl_clearing *prev, *next;
};

static void clearing_free(tqi_ctl_clearing *clearing)
{
    if (clearing != NULL) {
        free(clearing->remover);
        free(clearing->batch);
        free(clearing);
    }
}

static void clearing_end(tqi_controller *ctl, tqi_ctl_clearing *clearing)
{
    if (clearing->held != NULL) {
        tqi_table_clearing_end(ctl->table, clearing->held);
    }
    DL_DELETE(ctl->clearings, clearing);
    clearing_free(clearing);
}

void tqi_ctl_clearings_leave(tqi_controller *ctl, const tqi_ctl_session *session)
{
    tqi_ctl_clearing *clearing = NULL;

    DL_FOREACH (ctl->clearings, clearing) {
        if (clearing->session == session) {
            clearing->session = NULL;
        }
    }
}

void tqi_ctl_clearings_free(tqi_controller *ctl)
{
    while (ctl->clearings != NULL) {
        clearing_end(ctl, ctl->clearings);
    }
}

int tqi_ctl_check_clear(const Tq__Clear *msg, tq_error *err)
{
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    rc = rc ? rc : tqi_ctl_conv_check_count("incarnation", msg->n_incarnation, msg->n_index, err);
    if (rc == TQ_OK && (msg->all ? 1 : 0) + (msg->n_key ? 1 : 0) + (msg->n_index ? 1 : 0) > 1) {
        return tqi_error_set(err, TQ_EINVAL, "clear of partition '%s': name all, keys or indexes, one of them",
                             msg->partition);
    }
    return rc;
}

/* --- describing ----------------------------------------------------------- */

/* Keeps the description of a clear, packed; *large says whether it failed because that exceeds `max` bytes. */
static int clearing_pack(tqi_controller *ctl, const tqi_table_batch *batch, const char *remover, size_t max,
                         bool *large, tqi_ctl_clearing **out, tq_error *err)
{
    tqi_ctl_clearing *clearing = calloc(1, sizeof(*clearing));
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    Tq__Batch message;

    if (clearing == NULL) {
        return tqi_error_nomem(err, "a clear");
    }
    int rc = tqi_ctl_conv_batch_out(&conv, batch, tqi_table_epoch(ctl->table), &message, err);
    if (rc == TQ_OK) {
        clearing->size = tq__batch__get_packed_size(&message);
        *large = clearing->size > max;
        if (*large) {
            rc = tqi_error_set(err, TQ_EINVAL, "clear of %zu samples of partition '%s': too many at once", batch->n,
                               batch->partition);
        }
    }
    if (rc == TQ_OK) {
        clearing->remover = strdup(remover);
        clearing->batch = malloc(clearing->size + 1);
        rc = clearing->remover != NULL && clearing->batch != NULL ? TQ_OK : tqi_error_nomem(err, "a clear");
    }
    if (rc == TQ_OK) {
        tq__batch__pack(&message, clearing->batch);
        clearing->prev = clearing; /* a list of one */
        *out = clearing;
    } else {
        clearing_free(clearing);
    }
    tqi_region_fini(&conv);
    return rc;
}

static void clearing_out(const tqi_ctl_clearing *clearing, bool begun, Tq__Clearing *out)
{
    tq__clearing__init(out);
    out->id = clearing->id;
    out->begun = begun;
    out->batch = tqi_ctl_conv_bytes(clearing->batch, clearing->size);
}

/* Whether the batch has cells of a manager that keys by index. */
static bool clearing_has_cells(const tqi_table_batch *batch)
{
    for (size_t f = 0; f < batch->n_fields; f++) {
        for (size_t r = 0; r < batch->fields[f].n_runs; r++) {
            if (batch->fields[f].runs[r].block == TQI_BLOCK_OPAQUE) {
                return true;
            }
        }
    }
    return false;
}

/* Describes the cells of samples, in several pieces if one would be too large. */
static int replaced_describe(tqi_controller *ctl, const tqi_table_resolve_args *all, const char *remover,
                             tqi_ctl_clearing **out, tq_error *err)
{
    size_t count = all->n;
    int rc = TQ_OK;

    for (size_t start = 0; start < all->n && rc == TQ_OK;) {
        tqi_table_result result = {0};
        tqi_ctl_clearing *piece = NULL;
        tqi_table_resolve_args some = *all;
        bool large = false;
        some.indexes += start;
        some.n = count < all->n - start ? count : all->n - start;
        size_t max = some.n > 1 ? ctl->replaced_max : TQI_FRAME_BODY_MAX - CLEARING_OVERHEAD;
        rc = tqi_table_resolve(ctl->table, &some, &result, err);
        if (rc == TQ_OK && clearing_has_cells(&result.batch)) {
            rc = clearing_pack(ctl, &result.batch, remover, max, &large, &piece, err);
        }
        tqi_table_result_fini(&result);
        if (large && some.n > 1) {
            count = (some.n + 1) / 2;
            rc = TQ_OK;
            continue;
        }
        if (piece != NULL) {
            DL_APPEND(*out, piece);
        }
        start += some.n;
    }
    return rc;
}

int tqi_ctl_clearing_replaced(tqi_controller *ctl, const Tq__Publish *msg, tqi_ctl_clearing **out,
                              Tq__Clearing *message, tq_error *err)
{
    const Tq__Batch *batch = msg->batch;

    *out = NULL;
    int rc = tqi_check_name("remover", msg->remover, TQ_NAME_MAX, err);
    if (rc == TQ_OK && batch->n_index == 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "publish with a remover names no samples by index");
    }
    const char **fields = rc ? NULL : calloc(batch->n_field + 1, sizeof(*fields));
    if (rc || fields == NULL) {
        return rc ? rc : tqi_error_nomem(err, "a publish");
    }
    for (size_t f = 0; f < batch->n_field; f++) {
        fields[f] = batch->field[f]->name;
    }
    const tqi_table_resolve_args resolve = {
        .partition = batch->partition,
        .indexes = batch->index,
        .n = batch->n_index,
        .fields = fields,
        .n_fields = batch->n_field,
        .lenient = true,
        .skip_cleared = true,
    };
    if (batch->n_field) { /* none would be all of them */
        rc = replaced_describe(ctl, &resolve, msg->remover, out, err);
    }
    if (rc) {
        tqi_ctl_clearing_drop(*out);
        *out = NULL;
    } else if (*out) {
        clearing_out(*out, true, message);
    }
    free(fields);
    return rc;
}

void tqi_ctl_clearing_drop(tqi_ctl_clearing *clearing)
{
    while (clearing != NULL) {
        tqi_ctl_clearing *first = clearing;
        DL_DELETE(clearing, first);
        clearing_free(first);
    }
}

uint64_t tqi_ctl_clearing_begun(tqi_controller *ctl, tqi_net_request *request, tqi_ctl_clearing *clearing)
{
    const tqi_ctl_session *session = tqi_ctl_session_of(request);
    uint64_t first = ctl->last_clearing + 1;

    while (clearing != NULL) {
        tqi_ctl_clearing *piece = clearing;
        DL_DELETE(clearing, piece);
        piece->id = ++ctl->last_clearing;
        piece->session = session; /* NULL for those that are to be asked for */
        session = NULL;
        DL_APPEND(ctl->clearings, piece);
    }
    return first;
}

/* --- begin ---------------------------------------------------------------- */

/* The samples to be cleared: those that exist. */
static int begin_describe(tqi_controller *ctl, const Tq__Clear *msg, const char *remover, tqi_table_result *result,
                          tqi_ctl_clearing **out, tq_error *err)
{
    const tqi_table_resolve_args resolve = {
        .partition = msg->partition,
        .keys = msg->n_key ? (const char *const *)msg->key : NULL,
        .indexes = msg->n_index ? msg->index : NULL,
        .incarnations = msg->n_incarnation ? msg->incarnation : NULL,
        .n = msg->n_key ? msg->n_key : msg->n_index,
        .lenient = true,
        .skip_cleared = true,
    };
    bool large = false;

    if (!msg->all && !msg->n_key && !msg->n_index) {
        return TQ_OK;
    }
    int rc = tqi_table_resolve(ctl->table, &resolve, result, err);
    if (rc == TQ_OK && result->batch.n) {
        rc = clearing_pack(ctl, &result->batch, remover, TQI_FRAME_BODY_MAX - CLEARING_OVERHEAD, &large, out, err);
    }
    return rc;
}

/* The abandoned clears, whose data nobody is removing: as many as fit into the reply beside `own`. */
static int begin_reply(tqi_controller *ctl, const char *remover, const tqi_ctl_clearing *own, tqi_region *conv,
                       tqi_ctl_clearing ***taken, size_t *n, tq_error *err)
{
    tqi_ctl_clearing *clearing = NULL;
    size_t count = 0;
    size_t bytes = own != NULL ? own->size + CLEARING_OVERHEAD : 0;

    DL_COUNT(ctl->clearings, clearing, count);
    *n = 0;
    *taken = tqi_ctl_conv_pointers(conv, count, err);
    if (*taken == NULL) {
        return TQ_ENOMEM;
    }
    DL_FOREACH (ctl->clearings, clearing) {
        if (clearing->session == NULL && strcmp(clearing->remover, remover) == 0 &&
            bytes + clearing->size + CLEARING_OVERHEAD <= TQI_FRAME_BODY_MAX) {
            bytes += clearing->size + CLEARING_OVERHEAD;
            (*taken)[(*n)++] = clearing;
        }
    }
    return TQ_OK;
}

/* Removes the samples from the table. `own` NULL: there are none, but the partition may exist. */
static int begin_apply(tqi_controller *ctl, tqi_net_request *request, const Tq__Clear *msg,
                       const tqi_table_batch *batch, tqi_ctl_clearing *own, tq_error *err)
{
    const tqi_table_clear clear = {
        .partition = msg->partition,
        .indexes = batch->indexes,
        .incarnations = batch->incarnations,
        .n = batch->n,
        .all = msg->all,
    };
    uint32_t cleared = 0;
    int rc = TQ_OK;

    if (own != NULL) {
        rc = tqi_table_clearing_begin(ctl->table, &clear, &own->held, err);
        cleared = rc ? 0 : tqi_table_clearing_samples(own->held);
    } else if (msg->all) {
        rc = tqi_table_clear_partition(ctl->table, msg->partition, &cleared, err);
    }
    if (rc == TQ_OK && msg->all) {
        tqi_sampler_forget(msg->partition);
    }
    if (rc == TQ_OK && (own != NULL || msg->all)) {
        const tqi_ctl_happened event = {
            .kind = "clear",
            .session = tqi_ctl_session_name(request),
            .partition = msg->partition,
            .samples = cleared,
        };

        tqi_ctl_event_add(ctl, &event);
    }
    return rc;
}

/* Builds the whole reply before anything is done; values known only afterwards are filled in with their largest value. */
static void begin_fill(Tq__BeginClearReply *reply, Tq__Clearing *items, const tqi_ctl_clearing *own,
                       tqi_ctl_clearing *const *taken, size_t n)
{
    if (own != NULL) {
        reply->samples = UINT32_MAX;
        clearing_out(own, true, &items[0]);
        items[0].id = UINT64_MAX;
        reply->clearing[reply->n_clearing++] = &items[0];
    }
    for (size_t i = 0; i < n; i++) {
        Tq__Clearing *item = &items[reply->n_clearing];
        clearing_out(taken[i], false, item);
        reply->clearing[reply->n_clearing++] = item;
    }
}

int tqi_ctl_on_begin_clear(tqi_controller *ctl, tqi_net_request *request, const Tq__BeginClear *msg, tq_error *err)
{
    Tq__BeginClearReply reply = TQ__BEGIN_CLEAR_REPLY__INIT;
    Tq__Clearing *items = NULL;
    tqi_ctl_clearing *own = NULL;
    tqi_ctl_clearing **taken = NULL;
    tqi_table_result result = {0};
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    size_t n = 0;
    /* Metadata of another epoch names nothing that exists here. */
    bool clears = msg->clear != NULL && (msg->clear->epoch == 0 || msg->clear->epoch == tqi_table_epoch(ctl->table));
    int rc = tqi_check_name("remover", msg->remover, TQ_NAME_MAX, err);

    rc = rc || msg->clear == NULL ? rc : tqi_ctl_check_clear(msg->clear, err);
    rc = rc || !clears ? rc : begin_describe(ctl, msg->clear, msg->remover, &result, &own, err);
    rc = rc ? rc : begin_reply(ctl, msg->remover, own, &conv, &taken, &n, err);
    if (rc == TQ_OK) {
        items = tqi_ctl_conv_alloc(&conv, n + 1, sizeof(*items), err);
        reply.clearing = tqi_ctl_conv_pointers(&conv, n + 1, err);
        rc = items != NULL && reply.clearing != NULL ? TQ_OK : TQ_ENOMEM;
    }
    if (rc == TQ_OK) {
        begin_fill(&reply, items, own, taken, n);
        rc = tqi_ctl_prepare_reply(request, &reply.base, "clear", result.batch.n, err);
    }
    rc = rc || !clears ? rc : begin_apply(ctl, request, msg->clear, &result.batch, own, err);
    if (rc) {
        clearing_free(own);
        goto out;
    }
    if (own != NULL) {
        reply.samples = tqi_table_clearing_samples(own->held);
        tqi_ctl_clearing_begun(ctl, request, own);
        items[0].id = own->id;
    }
    for (size_t i = 0; i < n; i++) {
        taken[i]->session = tqi_ctl_session_of(request);
    }
    tqi_ctl_reply(request, &reply.base);
out:
    tqi_region_fini(&conv);
    tqi_table_result_fini(&result);
    return rc;
}

/* --- end ------------------------------------------------------------------ */

int tqi_ctl_on_end_clear(tqi_controller *ctl, tqi_net_request *request, const Tq__EndClear *msg, tq_error *err)
{
    tqi_ctl_clearing *clearing = NULL;

    DL_SEARCH_SCALAR(ctl->clearings, clearing, id, msg->id);
    if (clearing == NULL || clearing->session != tqi_ctl_session_of(request)) {
        /* Not the program's fault: its session may have been lost since, and the clear is then another one's. */
        return tqi_error_set(err, TQ_ESTALE,
                             "clear %llu is not this session's: it has ended, or the session that began it has, and "
                             "what is left is handed to whoever clears next",
                             (unsigned long long)msg->id);
    }
    if (msg->removed) {
        clearing_end(ctl, clearing);
    } else {
        clearing->session = NULL;
    }
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}
