/*
 * get.c - reads ranges from units: from mapped memory, or over the socket straight into place. The ranges are divided
 * into parts, one per (unit, incarnation); ranges that are adjacent in both block and destination become one piece.
 * Each part ends with its bytes in place and some blocks marked gone, or with an error; the job ends when all parts
 * have ended, because until then the destinations may still be written.
 *
 * A block is gone when its unit says so, when its slot does not hold it (any more), or when the controller's list has
 * no such unit, or another incarnation of it. A unit that does not answer is asked repeatedly until the deadline, with
 * an update of the list and a pause in between.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "manager/simple/simple.h"

typedef struct get_op get_op;

/* What is read from one unit. */
typedef struct get_part {
    tqi_simple_pending wait; /* first: waits are known by it */
    get_op *op;
    const char *owner; /* of the job's blocks */
    uint64_t incarnation;
    tqi_simple_link *unit;
    tqi_simple_mapping *mapping;
    size_t first, n; /* its pieces */
    uint64_t bytes;
    unsigned tries;
    unsigned remaps;
    unsigned calls; /* over the socket, in flight */
    bool looked;    /* in the list, since the last error */
    tq_error why;   /* of this try */
} get_part;

struct get_op {
    tqi_simple *simple;
    tq_get_job *job;
    tqi_simple_piece *pieces; /* grouped by part */
    size_t n_pieces;
    get_part *parts;
    uint32_t n_parts;
    uint32_t *part_of; /* per block */
    uint32_t left;     /* parts that have not ended */
    tq_error err;      /* of the first that failed */
};

/* One request of a part. */
typedef struct get_call {
    get_part *part;
    size_t first, n;
} get_call;

static void get_part_try(get_part *part);

/* --- ends ----------------------------------------------------------------- */

static void get_free(get_op *op)
{
    free(op->pieces);
    free(op->parts);
    free(op->part_of);
    free(op);
}

static void get_fail(get_op *op, const tq_error *err)
{
    tq_manager_host *host = op->simple->host;
    tq_get_job *job = op->job;

    get_free(op);
    host->get_finish(host, job, err, NULL, 0);
}

static void get_finish(get_op *op)
{
    tq_manager_host *host = op->simple->host;
    tq_get_job *job = op->job;
    tq_error err = op->err;
    uint32_t n_gone = 0;
    uint32_t *gone = NULL;
    uint8_t *marks = NULL;

    if (err.code != TQ_OK) {
        get_fail(op, &err);
        return;
    }
    gone = malloc((job->n_blocks + 1) * sizeof(*gone));
    marks = calloc(job->n_blocks + 1, 1);
    if (gone == NULL || marks == NULL) {
        free(gone);
        free(marks);
        tqi_error_nomem(&err, "a get");
        get_fail(op, &err);
        return;
    }
    for (size_t i = 0; i < op->n_pieces; i++) {
        if (atomic_load_explicit(&op->pieces[i].gone, memory_order_relaxed)) {
            marks[op->pieces[i].block] = 1;
        }
    }
    for (uint32_t i = 0; i < job->n_blocks; i++) {
        if (marks[i]) {
            gone[n_gone++] = i;
        }
    }
    free(marks);
    get_free(op);
    host->get_finish(host, job, NULL, gone, n_gone);
    free(gone);
}

/* A part has ended; err NULL: well. */
static void get_part_end(get_part *part, const tq_error *err)
{
    get_op *op = part->op;

    if (part->mapping != NULL) {
        tqi_simple_mapping_unref(part->mapping);
        part->mapping = NULL;
    }
    if (err != NULL && op->err.code == TQ_OK) {
        op->err = *err;
    }
    if (--op->left == 0) {
        get_finish(op);
    }
}

static void get_part_gone(get_part *part)
{
    for (size_t i = part->first; i < part->first + part->n; i++) {
        atomic_store_explicit(&part->op->pieces[i].gone, true, memory_order_relaxed);
    }
    get_part_end(part, NULL);
}

/* --- tries ---------------------------------------------------------------- */

static void get_part_look(get_part *part);

static void get_part_failed(get_part *part, const tq_error *err)
{
    tq_error why = *err;

    if (err->code != TQ_EUNREACHABLE && err->code != TQ_ETIMEDOUT && err->code != TQ_ESTALE) {
        get_part_end(part, &why);
        return;
    }
    /* Whatever the reason, the unit could not be asked, and that is the error the reader gets. */
    tqi_error_set(&part->why, err->code == TQ_ETIMEDOUT ? TQ_ETIMEDOUT : TQ_EUNREACHABLE, "storage unit '%s': %s",
                  part->owner, err->message);
    if (part->unit != NULL && err->code != TQ_ESTALE) {
        part->unit->silent = true;
    }
    get_part_look(part);
}

static void get_part_paused(tqi_simple_pending *wait, const tq_error *err)
{
    get_part *part = (get_part *)wait;

    if (err != NULL) {
        get_part_end(part, err);
    } else {
        get_part_try(part);
    }
}

static void get_part_looked(void *arg, const tq_error *err)
{
    get_part *part = arg;

    if (err != NULL && part->why.code == TQ_OK) {
        tq_error copy = *err;
        get_part_end(part, &copy);
        return;
    }
    part->unit = tqi_simple_find(part->op->simple, part->owner);
    if (err == NULL && (part->unit == NULL || part->unit->incarnation != part->incarnation)) {
        get_part_gone(part);
        return;
    }
    if (part->why.code != TQ_OK && tqi_now() >= part->op->job->deadline_ns) {
        tq_error why = part->why;
        get_part_end(part, &why);
        return;
    }
    if (part->unit == NULL) {
        tq_error why = part->why;
        get_part_end(part, &why);
        return;
    }
    if (part->why.code == TQ_OK) {
        get_part_try(part); /* the unit was unknown until now */
        return;
    }
    part->wait.fn = get_part_paused;
    tqi_simple_pause(part->op->simple, part->tries++, part->op->job->deadline_ns, &part->wait);
}

/* Asks the controller what happened to the unit, then continues. */
static void get_part_look(get_part *part)
{
    uint64_t deadline = tqi_simple_try(0, 0, part->op->job->deadline_ns);
    uint64_t soon = tqi_now() + 50000000u;

    /* If no time is left: a moment for the answer that may turn an error into "gone". */
    deadline = deadline < soon ? soon : deadline;
    tqi_simple_list(part->op->simple, false, deadline, get_part_looked, part);
}

/* Deadline of this try: the last one leaves some time to update the list. */
static uint64_t get_part_deadline(const get_part *part)
{
    uint64_t end = part->op->job->deadline_ns, now = tqi_now();
    uint64_t slack = end > now ? (end - now) / 8 : 0;

    if (end != TQI_NEVER) {
        end -= slack < 500000000u ? slack : 500000000u;
    }
    return tqi_simple_try(part->tries, part->bytes, end);
}

static void get_part_waited(tqi_simple_pending *wait, const tq_error *err)
{
    get_part *part = (get_part *)wait;

    if (err != NULL) {
        get_part_failed(part, err);
    } else {
        get_part_try(part);
    }
}

/* --- stream --------------------------------------------------------------- */

static int get_sink(const ProtobufCMessage *base, uint64_t size, struct iovec *iov, int max, int *count, void *arg)
{
    const Tq__UnitReadReply *reply = (const Tq__UnitReadReply *)base;
    const get_call *made = arg;
    const tqi_simple_piece *pieces = made->part->op->pieces + made->first;
    size_t gone = 0;
    uint64_t sum = 0;
    int n = 0;

    for (size_t i = 0; i < made->n; i++) {
        if (gone < reply->n_gone && reply->gone[gone] == i) {
            gone++;
            continue;
        }
        if (n == max) {
            return TQ_EPROTO;
        }
        iov[n].iov_base = pieces[i].dest;
        iov[n++].iov_len = pieces[i].size;
        sum += pieces[i].size;
    }
    *count = n;
    return gone == reply->n_gone && sum == size ? TQ_OK : TQ_EPROTO;
}

static void get_read_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    get_call made = *(get_call *)arg;
    get_part *part = made.part;
    const Tq__UnitReadReply *reply = (const Tq__UnitReadReply *)answer->reply;

    (void)call;
    free(arg);
    if (answer->status != TQ_OK) {
        if (part->why.code == TQ_OK) {
            part->why = *answer->error;
        }
    } else {
        uint64_t bytes = 0;
        for (size_t i = 0; i < made.n; i++) {
            bytes += part->op->pieces[made.first + i].size;
        }
        for (size_t i = 0; i < reply->n_gone && reply->gone[i] < made.n; i++) {
            tqi_simple_piece *piece = &part->op->pieces[made.first + reply->gone[i]];
            bytes -= piece->size;
            atomic_store_explicit(&piece->gone, true, memory_order_relaxed);
        }
        if (bytes != answer->payload && part->why.code == TQ_OK) {
            tqi_error_set(&part->why, TQ_EPROTO, "storage unit '%s' sent %llu bytes, %llu are missing", part->owner,
                          (unsigned long long)answer->payload, (unsigned long long)(bytes - answer->payload));
        }
    }
    if (--part->calls > 0) {
        return;
    }
    tq_error why = part->why;
    if (why.code == TQ_OK) {
        part->unit->silent = false;
        get_part_end(part, NULL);
    } else {
        part->why.code = TQ_OK;
        get_part_failed(part, &why);
    }
}

/* Asks for pieces [first, first + n) of all. */
static int get_read(get_part *part, tqi_net_channel *channel, size_t first, size_t n, uint64_t deadline, tq_error *err)
{
    const tqi_simple_piece *pieces = part->op->pieces + first;
    const tq_block *blocks = part->op->job->blocks;
    Tq__UnitRead message;
    get_call *made = malloc(sizeof(*made));
    uint64_t *numbers = malloc(3 * n * sizeof(*numbers));
    uint32_t *slots = malloc(n * sizeof(*slots));
    int rc;

    if (made == NULL || numbers == NULL || slots == NULL) {
        rc = tqi_error_nomem(err, "a get");
        goto out;
    }
    *made = (get_call){.part = part, .first = first, .n = n};
    for (size_t i = 0; i < n; i++) {
        uint64_t begin;
        tqi_simple_locate(&blocks[pieces[i].block], &begin);
        numbers[i] = pieces[i].id;
        numbers[n + i] = pieces[i].offset - begin;
        numbers[2 * n + i] = pieces[i].size;
        slots[i] = pieces[i].slot;
    }
    tq__unit_read__init(&message);
    message.id = numbers;
    message.n_id = n;
    message.offset = numbers + n;
    message.n_offset = n;
    message.size = numbers + 2 * n;
    message.n_size = n;
    message.slot = slots;
    message.n_slot = n;
    message.incarnation = part->incarnation;
    tqi_net_call_args args = {
        .kind = TQI_UNIT_READ,
        .message = &message.base,
        .deadline = deadline,
        .done = get_read_done,
        .sink = get_sink,
        .arg = made,
    };
    rc = tqi_net_call_start(channel, &args, NULL, err);
    if (rc == TQ_OK) {
        made = NULL;
    }

out:
    free(made);
    free(numbers);
    free(slots);
    return rc;
}

static void get_part_stream(get_part *part)
{
    uint64_t deadline = get_part_deadline(part);
    tqi_net_channel *channel = NULL;
    tq_error err = {0};

    part->why.code = TQ_OK;
    part->calls = 1; /* this function's: answers come later, never from within */
    int rc = tqi_simple_link_channel(part->unit, &channel, &err);
    for (size_t at = 0; at < part->n && rc == TQ_OK; at += TQI_SIMPLE_PIECES) {
        size_t n = part->n - at < TQI_SIMPLE_PIECES ? part->n - at : TQI_SIMPLE_PIECES;
        rc = get_read(part, channel, part->first + at, n, deadline, &err);
        part->calls += rc == TQ_OK ? 1 : 0;
    }
    part->calls--;
    if (rc != TQ_OK) {
        if (part->calls == 0) {
            get_part_failed(part, &err);
        } else {
            part->why = err; /* when those that were started have ended */
        }
    }
}

/* --- mapped --------------------------------------------------------------- */

static void get_part_copied(void *arg)
{
    get_part_end(arg, NULL);
}

static void get_part_try(get_part *part)
{
    tqi_simple_link *unit = part->unit;
    tq_error err = {0};

    part->wait.fn = get_part_waited;
    int rc = tqi_simple_link_map(unit, get_part_deadline(part), &part->wait, &err);
    if (rc == TQ_EAGAIN) {
        return;
    }
    if (rc != TQ_OK) {
        get_part_failed(part, &err);
        return;
    }
    if (unit->mapping != NULL && unit->mapping->incarnation != part->incarnation) {
        tqi_simple_link_unmap(unit);
        if (part->remaps++ == 0) {
            get_part_try(part);
        } else {
            tqi_error_set(&err, TQ_ESTALE, "it is another run of it now");
            get_part_failed(part, &err);
        }
        return;
    }
    if (unit->mapping == NULL) {
        get_part_stream(part);
        return;
    }
    part->mapping = unit->mapping;
    part->mapping->refs++;
    tqi_simple_copy(part->op->simple->host, &part->mapping->map, false, part->op->pieces + part->first, part->n,
                    get_part_copied, part);
}

/* --- start ---------------------------------------------------------------- */

/* The part that a block belongs to, made for its first block. */
static uint32_t get_part_of(get_op *op, const tq_block *block)
{
    uint32_t i;

    for (i = 0; i < op->n_parts; i++) {
        if (op->parts[i].incarnation == block->owner_incarnation && strcmp(op->parts[i].owner, block->owner) == 0) {
            return i;
        }
    }
    op->parts[i].op = op;
    op->parts[i].owner = block->owner;
    op->parts[i].incarnation = block->owner_incarnation;
    op->n_parts++;
    return i;
}

uint32_t tqi_simple_locate(const tq_block *block, uint64_t *begin)
{
    return tqi_store_locator_read(block->locator, begin);
}

/* Fills a piece from a range, or adds the range to the piece before; the locator is what put made. */
static void get_add(get_op *op, const tq_get_range *range, size_t at)
{
    const tq_block *block = &op->job->blocks[range->block];
    tqi_simple_piece *piece = &op->pieces[at];
    uint64_t begin;

    piece->slot = tqi_simple_locate(block, &begin);
    piece->id = block->id;
    piece->block = range->block;
    piece->offset = begin + range->offset;
    piece->size = range->size;
    piece->dest = range->dest;
}

/* Whether a range continues where the previous one ended, in the block and in the destination. */
static bool get_joins(const tq_get_range *before, const tq_get_range *range)
{
    return before->block == range->block && before->offset + before->size == range->offset &&
           (uint8_t *)before->dest + before->size == range->dest;
}

static int get_check(const tq_get_job *job, tq_error *err)
{
    for (uint32_t i = 0; i < job->n_ranges; i++) {
        const tq_get_range *range = &job->ranges[i];
        if (range->block >= job->n_blocks) {
            return tqi_error_set(err, TQ_EINVAL, "range %u of block %u, there are %u", i, range->block, job->n_blocks);
        }
        const tq_block *block = &job->blocks[range->block];
        if (block->locator_size != TQI_SIMPLE_LOCATOR || range->offset > block->size ||
            range->size > block->size - range->offset) {
            return tqi_error_set(err, TQ_EINVAL,
                                 "%llu bytes from byte %llu of block %llu, which has %llu and a locator of %u bytes",
                                 (unsigned long long)range->size, (unsigned long long)range->offset,
                                 (unsigned long long)block->id, (unsigned long long)block->size, block->locator_size);
        }
    }
    return TQ_OK;
}

/* Cuts the job into parts and pieces. */
static int get_plan(get_op *op, tq_error *err)
{
    const tq_get_job *job = op->job;
    size_t *at = NULL;

    if (get_check(job, err) != TQ_OK) {
        return err->code;
    }
    op->part_of = calloc(job->n_blocks + 1, sizeof(*op->part_of));
    op->parts = calloc(job->n_blocks + 1, sizeof(*op->parts));
    op->pieces = calloc(job->n_ranges + 1, sizeof(*op->pieces));
    at = calloc(job->n_blocks + 1, sizeof(*at));
    if (op->part_of == NULL || op->parts == NULL || op->pieces == NULL || at == NULL) {
        free(at);
        return tqi_error_nomem(err, "a get");
    }
    for (uint32_t i = 0; i < job->n_blocks; i++) {
        op->part_of[i] = get_part_of(op, &job->blocks[i]);
    }
    for (uint32_t i = 0; i < job->n_ranges; i++) {
        get_part *part = &op->parts[op->part_of[job->ranges[i].block]];
        part->n += i == 0 || !get_joins(&job->ranges[i - 1], &job->ranges[i]);
        part->bytes += job->ranges[i].size;
    }
    for (uint32_t i = 0; i < op->n_parts; i++) {
        op->parts[i].first = op->n_pieces;
        at[i] = op->n_pieces;
        op->n_pieces += op->parts[i].n;
    }
    for (uint32_t i = 0; i < job->n_ranges; i++) {
        uint32_t part = op->part_of[job->ranges[i].block];
        if (i > 0 && get_joins(&job->ranges[i - 1], &job->ranges[i])) {
            op->pieces[at[part] - 1].size += job->ranges[i].size;
        } else {
            get_add(op, &job->ranges[i], at[part]++);
        }
    }
    free(at);
    return TQ_OK;
}

void tqi_simple_get(void *state, tq_get_job *job)
{
    tqi_simple *simple = state;
    get_op *op = calloc(1, sizeof(*op));
    tq_error err = {0};

    if (op == NULL) {
        tqi_error_nomem(&err, "a get");
        simple->host->get_finish(simple->host, job, &err, NULL, 0);
        return;
    }
    op->simple = simple;
    op->job = job;
    if (get_plan(op, &err) != TQ_OK) {
        get_fail(op, &err);
        return;
    }
    op->left = 1; /* this function's, so that parts that end at once do not end the job */
    for (uint32_t i = 0; i < op->n_parts; i++) {
        get_part *part = &op->parts[i];
        if (part->n == 0) {
            continue;
        }
        op->left++;
        part->unit = tqi_simple_find(simple, part->owner);
        if (part->unit != NULL && part->unit->incarnation == part->incarnation) {
            get_part_try(part);
        } else {
            get_part_look(part);
        }
    }
    if (--op->left == 0) {
        get_finish(op);
    }
}
