/*
 * put_write.c - writes the bytes of a batch into reserved room: copies them into mapped memory, or streams them.
 */
#include <stdlib.h>

#include "base/pointer.h"
#include "manager/simple/put.h"

static const uint8_t put_zeros[TQI_SIMPLE_ALIGN];

static void put_done(tqi_simple_put_op *op)
{
    tq_manager_host *host = op->simple->host;
    tq_put_job *job = op->job;
    tq_block *blocks = calloc(op->n_blocks, sizeof(*blocks));
    tq_extent *extents = calloc(job->n_columns, sizeof(*extents));
    tq_error err;

    if (!tqi_simple_ids_known(op->simple, &op->from)) {
        free(blocks);
        free(extents);
        tqi_simple_put_abandon(op, op->n_blocks);
        tqi_error_set(&err, TQ_ESTALE, "the session that granted the blocks of a put has ended");
        tqi_simple_put_failed_at(op, &err);
        return;
    }
    if (blocks == NULL || extents == NULL) {
        tqi_simple_put_abandon(op, op->n_blocks);
        free(blocks);
        free(extents);
        tqi_error_nomem(&err, "the blocks of a put");
        tqi_simple_put_fail(op, &err);
        return;
    }
    for (uint32_t i = 0; i < op->n_blocks; i++) {
        blocks[i].id = op->ids[i];
        blocks[i].size = op->sizes[i];
        blocks[i].owner = op->unit->name;
        blocks[i].owner_incarnation = op->from.incarnation;
        tqi_store_locator_make(blocks[i].locator, op->slots[i], op->offsets[i]);
        blocks[i].locator_size = TQI_SIMPLE_LOCATOR;
    }
    for (uint32_t i = 0; i < job->n_columns; i++) {
        extents[i].column = i;
        extents[i].rows = job->columns[i].rows;
        extents[i].block = tqi_simple_put_block_of(op, i);
        extents[i].offset = op->starts[i];
    }
    tqi_simple_link_grow(op->unit, tqi_simple_link_used(op->unit) + op->total);
    uint32_t n_blocks = op->n_blocks;
    tqi_simple_put_free(op);
    host->put_finish(host, job, NULL, blocks, n_blocks, extents, job->n_columns);
    free(blocks);
    free(extents);
}

static void put_copied(void *arg)
{
    tqi_simple_put_op *op = arg;

    /* The bytes are ordered before the publish, which goes through a socket after this thread has seen the copies
     * finish. */
    put_done(op);
}

static void put_copy(tqi_simple_put_op *op)
{
    const tq_put_job *job = op->job;
    size_t n = 0;
    tq_error err;

    for (uint32_t i = 0; i < op->n_blocks; i++) {
        if (op->offsets[i] > op->mapping->map.arena_bytes ||
            op->sizes[i] > op->mapping->map.arena_bytes - op->offsets[i]) {
            tqi_simple_put_abandon(op, op->n_blocks);
            tqi_error_set(&err, TQ_EPROTO, "storage unit '%s' reserved bytes outside of its memory", op->unit->name);
            tqi_simple_put_fail(op, &err);
            return;
        }
    }
    for (uint32_t i = 0; i < job->n_columns; i++) {
        const tq_put_column *column = &job->columns[i];
        uint8_t *dest = op->mapping->map.arena + op->offsets[tqi_simple_put_block_of(op, i)] + op->starts[i];
        for (size_t k = 0; k < column->n_slices; k++) {
            if (column->slices[k].size > 0) {
                op->pieces[n].dest = dest;
                op->pieces[n].from = column->slices[k].data;
                op->pieces[n].size = column->slices[k].size;
                dest += column->slices[k].size;
                n++;
            }
        }
    }
    op->n_pieces = n;
    tqi_simple_copy(op->simple->host, &op->mapping->map, true, op->pieces, n, put_copied, op);
}

static void put_stream(tqi_simple_put_op *op);

static void put_streamed(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_simple_put_op *op = arg;

    (void)call;
    if (answer->status != TQ_OK) {
        tqi_simple_put_abandon(op, op->n_blocks);
        tqi_simple_put_failed_at(op, answer->error);
    } else if (op->written < op->n_blocks) {
        put_stream(op);
    } else {
        put_done(op);
    }
}

/* The bytes of blocks [from, to) end to end, with what lies between the columns of a block. */
static int put_gather(tqi_simple_put_op *op, uint32_t from, uint32_t to, struct iovec **out, int *count)
{
    const tq_put_job *job = op->job;
    struct iovec *iov = NULL;
    size_t n = 0;
    uint64_t end = 0;

    for (uint32_t i = 0; i < job->n_columns; i++) {
        n += job->columns[i].n_slices + 1;
    }
    iov = malloc((n + 1) * sizeof(*iov));
    if (iov == NULL || tqi_simple_put_order(op) != TQ_OK) {
        free(iov);
        return TQ_ENOMEM;
    }
    n = 0;
    for (uint32_t k = 0; k < job->n_columns; k++) {
        uint32_t i = op->order != NULL ? op->order[k] : k;
        const tq_put_column *column = &job->columns[i];
        uint32_t block = tqi_simple_put_block_of(op, i);
        if (block < from || block >= to) {
            continue;
        }
        if (op->starts[i] > end) { /* not of the first one in its block */
            iov[n].iov_base = tqi_unconst(put_zeros);
            iov[n++].iov_len = op->starts[i] - end;
        }
        for (size_t s = 0; s < column->n_slices; s++) {
            if (column->slices[s].size > 0) {
                iov[n].iov_base = tqi_unconst(column->slices[s].data);
                iov[n++].iov_len = column->slices[s].size;
            }
        }
        end = op->starts[i] + column->size;
    }
    *out = iov;
    *count = (int)n;
    return TQ_OK;
}

static void put_stream(tqi_simple_put_op *op)
{
    Tq__UnitWrite message;
    uint32_t from = op->written;
    uint32_t to = op->n_blocks - from > TQI_SIMPLE_PIECES ? from + TQI_SIMPLE_PIECES : op->n_blocks;
    struct iovec *iov = NULL;
    tqi_net_channel *channel = NULL;
    int count = 0;
    tq_error err = {0};

    int rc = put_gather(op, from, to, &iov, &count) == TQ_OK ? TQ_OK : tqi_error_nomem(&err, "a put");

    if (rc == TQ_OK) {
        rc = tqi_simple_link_channel(op->unit, &channel, &err);
    }
    if (rc == TQ_OK) {
        tq__unit_write__init(&message);
        message.id = op->ids + from;
        message.n_id = to - from;
        message.slot = op->slots + from;
        message.n_slot = to - from;
        message.size = op->sizes + from;
        message.n_size = to - from;
        message.incarnation = op->from.incarnation;
        tqi_net_call_args args = {
            .kind = TQI_UNIT_WRITE,
            .message = &message.base,
            .payload = iov,
            .n_payload = count,
            .deadline = op->job->deadline_ns,
            .done = put_streamed,
            .arg = op,
        };
        rc = tqi_net_call_start(channel, &args, NULL, &err);
    }
    free(iov);
    op->written = to;
    if (rc != TQ_OK) {
        tqi_simple_put_abandon(op, op->n_blocks);
        tqi_simple_put_failed_at(op, &err);
    }
}

void tqi_simple_put_write(tqi_simple_put_op *op)
{
    const tq_put_job *job = op->job;
    tqi_simple_mapping *mapping = op->unit->mapping;
    size_t n = 0;

    op->written = 0;
    if (mapping == NULL || mapping->incarnation != op->from.incarnation) {
        put_stream(op);
        return;
    }
    for (uint32_t i = 0; i < job->n_columns; i++) {
        n += job->columns[i].n_slices;
    }
    free(op->pieces);
    op->pieces = calloc(n + 1, sizeof(*op->pieces));
    if (op->pieces == NULL) {
        /* Not over the stream instead: room that was reserved ahead is larger than what is written into it. */
        tqi_simple_put_abandon(op, op->n_blocks);
        tqi_simple_put_fail(op, &(tq_error){.code = TQ_ENOMEM, .message = "out of memory for a put"});
        return;
    }
    if (op->mapping != NULL) {
        tqi_simple_mapping_unref(op->mapping);
    }
    op->mapping = mapping;
    mapping->refs++;
    put_copy(op);
}
