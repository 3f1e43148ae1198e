/*
 * get.c - reads: placements -> ranges -> manager -> columns.
 *
 *   [RESOLVE by keys, get_found] -> get_try -> plan -> [borrow, get_borrowed] -> [fill, get_filled] -> read, get_got
 *     get_try, a placement is missing:        RESOLVE, get_resolved -> get_try
 *     get_got, all bytes are there:           get_done
 *     get_got, a block is gone:               RESOLVE, get_resolved -> get_try
 *     get_try, the same block is named again: [owners, get_owners] -> get_fail, and the block is reported
 *
 * (request or step, and the callback that follows it; each may also fail.)
 *
 * A meta's placements are hints. If one is missing, or the manager says that a block is gone, the client asks the
 * controller where the samples are now. If it names the same block again, the data is lost: the read fails and names
 * samples and fields, and the block is reported, unless its owner is away. Otherwise the samples were moved or
 * overwritten meanwhile and are read from their new place; that may happen any number of times before the deadline.
 *
 * The destination belongs to the task, or to the caller, who is notified when nothing writes to it any more. A read
 * that is cancelled while the manager is writing completes at once; its task keeps the memory until the manager has
 * finished.
 */
#include "client/get/get.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/pointer.h"
#include "base/sized.h"
#include "client/args.h"

/* Filling this many bytes takes the loop about as long as a hop to another thread and back. */
#define GET_FILL_INLINE (UINT64_C(256) << 10)

static void get_try(tqi_client_get *get);

static void get_fini(tqi_client_task *task)
{
    tqi_client_get *get = (tqi_client_get *)task;

    tq_meta_unref(get->meta);
    tq_meta_unref(get->found);
    tq_data_unref(get->data);
    tqi_region_fini(&get->gone_names);
    free(get->ranges);
    free(get->blocks);
    free(get->gone);
    free(get->borrow.ranges);
    free(get->borrow_column);
    if (get->release != NULL) {
        get->release(get->release_arg);
    }
}

static void get_fail(tqi_client_get *get, const tq_error *err)
{
    tqi_client_task_finish(&get->task, err);
}

static void get_done(tqi_client_get *get)
{
    if (get->task.op != NULL) {
        get->task.op->data = get->data;
        get->task.op->meta = get->found;
        get->data = NULL;
        get->found = NULL;
    }
    tqi_client_task_finish(&get->task, NULL);
}

/* --- resolve -------------------------------------------------------------- */

/* Checks that the answer is about the same samples and has all fields. */
static int get_check(const tqi_client_get *get, const tq_meta *meta, tq_error *err)
{
    if (meta == NULL || meta->n != get->meta->n ||
        (meta->n > 0 && memcmp(meta->indexes, get->meta->indexes, meta->n * sizeof(*meta->indexes)))) {
        return tqi_error_set(err, TQ_EPROTO, "the controller resolved other samples than were asked for");
    }
    for (size_t f = 0; f < get->n_fields; f++) {
        if (tqi_client_meta_find(meta, get->fields[f]) < 0) {
            return tqi_error_set(err, TQ_EPROTO, "the controller did not resolve field '%s'", get->fields[f]);
        }
    }
    return TQ_OK;
}

static void get_resolved(tqi_client_task *task, tqi_net_answer *answer)
{
    tqi_client_get *get = (tqi_client_get *)task;
    const Tq__ResolveReply *reply = (const Tq__ResolveReply *)answer->reply;
    tq_meta *meta = NULL;
    tq_error err = {0};
    int rc;

    if (answer->status != TQ_OK) {
        get_fail(get, answer->error);
        return;
    }
    if (task->canceled) {
        tqi_error_set(&err, TQ_ECANCELED, "cancelled");
        get_fail(get, &err);
        return;
    }
    rc = reply->batch != NULL ? tqi_client_meta_decode(reply->batch, NULL, 0, false, &meta, &err)
                              : tqi_error_set(&err, TQ_EPROTO, "the controller's answer has no batch");
    rc = rc ? rc : get_check(get, meta, &err);
    if (rc != TQ_OK || meta == NULL) {
        tq_meta_unref(meta);
        get_fail(get, &err);
        return;
    }
    tq_meta_unref(get->meta);
    get->meta = meta;
    get_try(get);
}

static void get_resolve(tqi_client_get *get)
{
    Tq__Resolve message;
    tq_error err = {0};

    tq__resolve__init(&message);
    get->resolved = true;
    message.partition = tqi_unconst(get->meta->partition);
    message.index = get->meta->indexes;
    message.n_index = get->meta->n;
    message.incarnation = get->meta->incarnations;
    message.n_incarnation = get->meta->n;
    message.field = tqi_unconst(get->fields);
    message.n_field = get->n_fields;
    message.epoch = get->meta->epoch;
    if (tqi_client_task_call(&get->task, TQI_RESOLVE, &message.base, get_resolved, &err) != TQ_OK) {
        get_fail(get, &err);
    }
}

/* --- blocks that are gone ------------------------------------------------- */

static bool get_present(const tq_block *block, const tq_owner_info *owners, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(owners[i].name, block->owner) == 0) {
            return owners[i].present && owners[i].incarnation == block->owner_incarnation;
        }
    }
    return false;
}

static void get_owners(const tq_error *listed, const tq_owner_info *owners, size_t n, void *arg)
{
    tqi_client_get *get = arg;
    uint64_t *ids = tqi_region_array(&get->task.region, get->n_gone, sizeof(*ids));
    size_t n_ids = 0;
    tq_error err = {0};

    get->in_owners = false;
    for (size_t g = 0; ids != NULL && listed == NULL && g < get->n_gone; g++) {
        if (get_present(&get->gone[g], owners, n)) {
            ids[n_ids++] = get->gone[g].id;
        }
    }
    if (n_ids > 0 && !get->task.rt->stopping) {
        tqi_client_report_lost(get->task.rt, ids, n_ids);
    }
    tqi_client_get_still_gone(get, &err);
    get_fail(get, &err);
}

/* Asks for the owners of the gone blocks; each only once if its blocks are adjacent. */
static void get_ask_owners(tqi_client_get *get)
{
    const char **names = tqi_region_array(&get->task.region, get->n_gone, sizeof(*names));
    size_t n = 0;
    tq_error err = {0};

    if (names == NULL) {
        tqi_error_nomem(&err, "a read");
        get_fail(get, &err);
        return;
    }
    for (size_t g = 0; g < get->n_gone; g++) {
        if (n == 0 || strcmp(names[n - 1], get->gone[g].owner) != 0) {
            names[n++] = get->gone[g].owner;
        }
    }
    get->in_owners = true;
    tqi_client_owners(get->task.rt, names, n, get->task.deadline, get_owners, get);
}

static int get_keep_gone(tqi_client_get *get, const uint32_t *gone, uint32_t n, tq_error *err)
{
    tq_block *blocks = realloc(get->gone, n * sizeof(*blocks));

    if (blocks == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    get->gone = blocks;
    get->n_gone = 0;
    for (uint32_t g = 0; g < n; g++) {
        if (gone[g] >= get->read.job.n_blocks) {
            return tqi_error_set(err, TQ_EINTERNAL, "storage manager %s: block %u of %u is gone",
                                 get->task.rt->manager->type, gone[g], get->read.job.n_blocks);
        }
        blocks[g] = get->read.job.blocks[gone[g]];
        blocks[g].owner = tqi_region_string(&get->gone_names, blocks[g].owner);
        if (blocks[g].owner == NULL) {
            return tqi_error_nomem(err, "a read");
        }
        get->n_gone++;
    }
    return TQ_OK;
}

/* --- read ----------------------------------------------------------------- */

/* All bytes are in place, or the manager names blocks that it did not find. */
static void get_got(tqi_client_task *task, const tq_error *err, const uint32_t *gone, uint32_t n_gone)
{
    tqi_client_get *get = (tqi_client_get *)task;
    tq_error bad = {0};

    get->in_manager = false;
    if (get->task.op == NULL) {
        tqi_client_task_free(&get->task); /* cancelled: nobody waits for it */
    } else if (err != NULL && err->code != TQ_OK) {
        get_fail(get, err);
    } else if (n_gone == 0) {
        get_done(get);
    } else if (get_keep_gone(get, gone, n_gone, &bad) != TQ_OK) {
        get_fail(get, &bad);
    } else if (tqi_now() >= get->task.deadline) {
        tqi_error_set(&bad, TQ_ETIMEDOUT, "the deadline passed while what is read was moved or overwritten");
        get_fail(get, &bad);
    } else {
        get_resolve(get);
    }
}

static void get_read(tqi_client_get *get)
{
    if (get->n_ranges == 0) {
        get_done(get);
        return;
    }
    get->read.task = &get->task;
    get->read.got = get_got;
    get->in_manager = true;
    get->task.rt->manager->get(get->task.rt->manager_state, &get->read.job);
}

static void get_fill(void *arg)
{
    tqi_client_get_fill(arg);
}

static void get_filled(void *arg)
{
    tqi_client_get *get = arg;

    get->in_manager = false;
    if (get->task.op == NULL) {
        tqi_client_task_free(&get->task); /* cancelled: nobody waits for it */
    } else {
        get_read(get);
    }
}

/* Fills the gaps between padded rows (off the loop thread if there are many bytes), then reads. */
static void get_fill_and_read(tqi_client_get *get)
{
    tq_manager_host *host = &get->task.rt->host;

    if (get->gaps >= GET_FILL_INLINE) {
        get->in_manager = true;
        if (host->work(host, get_fill, get_filled, get) == TQ_OK) {
            return;
        }
        get->in_manager = false;
    }
    if (get->gaps > 0) {
        tqi_client_get_fill(get);
    }
    get_read(get);
}

/* The copies are planned. */
static void get_copy(tqi_client_get *get)
{
    tq_error err = {0};

    if (tqi_client_get_plan_end(get, &err) != TQ_OK ||
        (get->n_ranges > 0 && tqi_client_runtime_check_manager(get->task.rt, "read", &err) != TQ_OK)) {
        get_fail(get, &err);
    } else {
        get_fill_and_read(get);
    }
}

/* The manager has mapped what it can. */
static void get_borrowed(tqi_client_get *get)
{
    tq_error err = {0};

    get->in_manager = false;
    if (get->task.op == NULL) {
        tqi_client_task_free(&get->task); /* cancelled: nobody waits for it */
    } else if (get->task.rt->stopping) {
        get_fail(get, &get->task.rt->error);
    } else if (tqi_client_get_copy_instead(get, &err) != TQ_OK) {
        get_fail(get, &err);
    } else {
        get_copy(get);
    }
}

/* Reads what the meta says, or finds out more first. Nothing is read from a system that has ended, although its memory
 * may still be mapped here: the controller is asked, and that fails. */
static void get_try(tqi_client_get *get)
{
    tqi_client_runtime *rt = get->task.rt;
    tq_error err = {0};

    if (rt->client->ended.code != TQ_OK && !get->resolved) {
        get_resolve(get);
        return;
    }
    if (tqi_client_get_missing(get, get->resolved ? &err : NULL)) {
        if (get->resolved) {
            get_fail(get, &err);
        } else {
            get_resolve(get);
        }
        return;
    }
    if (get->n_gone > 0 && tqi_client_get_still_gone(get, &err)) {
        get_ask_owners(get);
        return;
    }
    if (tqi_client_get_plan(get, &err) != TQ_OK) {
        get_fail(get, &err);
        return;
    }
    get->in_manager = true;
    if (!tqi_client_get_borrow(get, get_borrowed)) {
        get->in_manager = false;
        get_copy(get);
    }
}

/* --- by keys -------------------------------------------------------------- */

static bool get_is_common(const tqi_client_cells *cells, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!cells->ready[i]) {
            return false;
        }
    }
    return n > 0;
}

/* From now on, the fields are those requested ones that all samples have. */
static int get_choose(tqi_client_get *get, tq_error *err)
{
    tqi_region *region = &get->task.region;
    const tq_meta *meta = get->meta;
    size_t most = get->fields != NULL ? get->n_fields : meta->n_fields;
    const char **chosen = tqi_region_array(region, most, sizeof(*chosen));
    size_t n = 0;

    for (size_t f = 0; chosen != NULL && f < most; f++) {
        ptrdiff_t place = get->fields != NULL ? tqi_client_meta_find(meta, get->fields[f]) : (ptrdiff_t)f;
        if (place < 0 || !get_is_common(&meta->fields[place], meta->n)) {
            continue;
        }
        chosen[n] = tqi_region_string(region, meta->fields[place].pub.name);
        if (chosen[n++] == NULL) {
            return tqi_error_nomem(err, "a read");
        }
    }
    get->fields = chosen;
    get->n_fields = n;
    return chosen != NULL ? TQ_OK : tqi_error_nomem(err, "a read");
}

static void get_found(tqi_client_task *task, tqi_net_answer *answer)
{
    tqi_client_get *get = (tqi_client_get *)task;
    const Tq__ResolveReply *reply = (const Tq__ResolveReply *)answer->reply;
    tq_error err = {0};
    int rc;

    if (answer->status != TQ_OK) {
        get_fail(get, answer->error);
        return;
    }
    if (task->canceled) {
        tqi_error_set(&err, TQ_ECANCELED, "cancelled");
        get_fail(get, &err);
        return;
    }
    rc = reply->batch != NULL ? tqi_client_meta_decode(reply->batch, NULL, 0, false, &get->meta, &err)
                              : tqi_error_set(&err, TQ_EPROTO, "the controller's answer has no batch");
    if (rc == TQ_OK) {
        get->found = tq_meta_ref(get->meta);
        rc = get_choose(get, &err);
    }
    if (rc != TQ_OK) {
        get_fail(get, &err);
    } else if (get->n_fields == 0) {
        get_done(get);
    } else {
        get_try(get);
    }
}

static int get_prepare_keys(tqi_client_get *get, const tq_get_by_key_args *args, tq_error *err)
{
    tqi_region *region = &get->task.region;
    char **fields = NULL;
    int rc;

    get->zero_copy = args->zero_copy;
    get->leave_values = args->leave_values;
    get->keys = tqi_region_array(region, 1, sizeof(*get->keys));
    if (get->keys == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    tq__resolve__init(get->keys);
    get->keys->lenient = true;
    rc = tqi_client_copy_name(region, "partition", args->partition, &get->keys->partition, err);
    rc = rc ? rc : tqi_client_copy_keys(region, args->keys, args->n, &get->keys->key, &get->keys->n_key, err);
    if (rc == TQ_OK && args->fields != NULL) {
        rc = tqi_client_copy_fields(region, args->fields, args->n_fields, &fields, &get->n_fields, err);
        get->fields = tqi_unconst(fields);
    }
    if (rc == TQ_OK && args->n == 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': no keys to read", args->partition);
    }
    return rc;
}

/* --- start ---------------------------------------------------------------- */

static void get_begin(tqi_client_task *task)
{
    tqi_client_get *get = (tqi_client_get *)task;
    tq_error err = {0};

    if (get->keys == NULL) {
        get_try(get);
    } else if (tqi_client_task_call(task, TQI_RESOLVE, &get->keys->base, get_found, &err) != TQ_OK) {
        get_fail(get, &err);
    }
}

static void get_cancel(tqi_client_task *task)
{
    tqi_client_get *get = (tqi_client_get *)task;
    tq_error err = {0};

    if (task->call != NULL) {
        tqi_net_call_cancel(task->call);
    } else if (get->in_manager || get->in_owners) {
        tqi_error_set(&err, TQ_ECANCELED, "cancelled");
        tqi_client_task_end(task, &err);
    }
}

static const tqi_client_task_type get_type = {
    .size = sizeof(tqi_client_get),
    .begin = get_begin,
    .cancel = get_cancel,
    .fini = get_fini,
};

static int get_prepare(tqi_client_get *get, const tq_meta *meta, const char *const *fields, size_t n_fields,
                       tq_error *err)
{
    tqi_region *region = &get->task.region;
    char **names;
    int rc;

    if (meta == NULL) {
        return tqi_error_null(err, "meta to read");
    }
    get->meta = tq_meta_ref(meta);
    if (fields == NULL) {
        get->n_fields = meta->n_fields;
        get->fields = tqi_region_array(region, meta->n_fields, sizeof(*get->fields));
        for (size_t f = 0; get->fields != NULL && f < meta->n_fields; f++) {
            get->fields[f] = tqi_region_string(region, meta->fields[f].pub.name);
            if (get->fields[f] == NULL) {
                return tqi_error_nomem(err, "a read");
            }
        }
        return get->fields != NULL ? TQ_OK : tqi_error_nomem(err, "a read");
    }
    rc = tqi_client_copy_fields(region, fields, n_fields, &names, &get->n_fields, err);
    get->fields = tqi_unconst(names);
    for (size_t f = 0; f < get->n_fields && rc == TQ_OK; f++) {
        if (tqi_client_meta_find(meta, get->fields[f]) < 0) {
            rc = tqi_error_set(err, TQ_EFIELD, "field '%s' is not in the metadata of partition '%s'", get->fields[f],
                               meta->partition);
        }
    }
    return rc;
}

TQI_SIZED_ENDS_WITH(tq_get_by_key_args, n_fields);

int tq_get_by_key(tq_op *op, const tq_get_by_key_args *given)
{
    tq_get_by_key_args args;
    tq_error err = {0};
    int rc;
    tqi_client_get *get = (tqi_client_get *)tqi_client_task_make(op, &get_type, &rc);

    if (get == NULL) {
        return rc;
    }
    rc = TQI_SIZED_ARGS("tq_get_by_key", tq_get_by_key_args, given, &args, &err);
    rc = rc ? rc : get_prepare_keys(get, &args, &err);
    return tqi_client_task_submit(op, &get->task, rc, &err);
}

TQI_SIZED_ENDS_WITH(tq_get_options, release_arg);

int tq_get(tq_op *op, const tq_meta *meta, const char *const *fields, size_t n_fields, const tq_get_options *given)
{
    tq_get_options options = {.size = sizeof(options)};
    tq_error err = {0};
    int sized = given != NULL ? tqi_sized_copy("tq_get_options", given, &options, sizeof(options), &err) : TQ_OK;
    int rc;
    tqi_client_get *get = (tqi_client_get *)tqi_client_task_make(op, &get_type, &rc);

    if (get == NULL) {
        if (options.release != NULL) {
            options.release(options.release_arg);
        }
        return rc;
    }
    get->release = options.release; /* from now on with the task */
    get->release_arg = options.release_arg;
    get->zero_copy = options.zero_copy;
    get->leave_values = options.leave_values;
    rc = sized ? sized : get_prepare(get, meta, fields, n_fields, &err);
    if (rc == TQ_OK && options.n_fields > 0) {
        rc = tqi_client_get_layouts(get, &options, &err);
    }
    return tqi_client_task_submit(op, &get->task, rc, &err);
}
