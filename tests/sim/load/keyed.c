/*
 * keyed.c - a storage manager like those in Python: it keeps values itself, each under a name of its own, and tells the
 * controller what it has (tq_notify); the note of a cell is the name of its value. What is replaced or cleared is
 * handed out in two phases (tq_begin_clear, tq_end_clear): first the samples go, then this manager removes the values,
 * then their indexes may be used again.
 *
 * The rules that are checked: a cell that exists has its value on the shelf, however many clients are killed in the
 * middle of a clear; and in the end, every value that its client knows to be stored has been removed.
 */
#include "load/keyed.h"

#include <stdlib.h>
#include <string.h>

#include "load/steps.h"
#include "oracle/history.h"
#include "shelf.h"

#define KEYED_REMOVER "shelf"
#define KEYED_ROWS    6
#define KEYED_FIELDS  4

static const char *const keyed_fields[KEYED_FIELDS] = {"prompt", "reward", "text", "tiny"};

typedef struct keyed {
    load_call *call;
    sim_chance *chance;
    const char *partition;
    load_meta meta;
} keyed;

bool load_keyed_owns(const char *partition)
{
    return strncmp(partition, "keyed-", 6) == 0;
}

/* --- notes ----------------------------------------------------------------------------- */

static bool keyed_name(const tq_slice *note, shelf_name *out)
{
    if (note->size < LOAD_NOTE_HEAD) {
        return false;
    }
    memcpy(out, note->data, LOAD_NOTE_HEAD);
    return true;
}

static uint16_t keyed_field(const char *name)
{
    uint16_t f = 0;

    while (f < KEYED_FIELDS && strcmp(keyed_fields[f], name) != 0) {
        f++;
    }
    return f;
}

/* Bytes of the i-th row of a put's field. */
static size_t keyed_row_size(const history_op *op, uint32_t f, uint32_t i)
{
    const load_field *field = load_field_of(op->fields[f]);
    const load_type *type = &field->types[op->types[f]];
    uint64_t dims[2] = {0, 0};
    uint32_t length = op->lengths[(size_t)f * op->n + i];

    return type->kind == TQ_VALUE && load_row_shape(field, type, length, dims) == 1 ? dims[0] : length;
}

/* The notes of a put's columns: one array of slices per column, in one piece of memory with their bytes. */
typedef struct keyed_notes {
    tq_slice *slices;
    const tq_slice **columns;
    uint8_t *bytes;
} keyed_notes;

static void keyed_notes_make(keyed_notes *out, const load_call *call)
{
    const history_op *op = call->record;
    size_t total = 0, at = 0;

    for (uint32_t f = 0; f < op->n_fields; f++) {
        for (uint32_t i = 0; i < op->n; i++) {
            total += keyed_row_size(op, f, i) + LOAD_NOTE_HEAD;
        }
    }
    out->bytes = load_memory(total + 1);
    out->slices = load_memory((size_t)op->n * op->n_fields * sizeof(*out->slices) + 1);
    out->columns = load_memory((op->n_fields + 1) * sizeof(*out->columns));
    for (uint32_t f = 0; f < op->n_fields; f++) {
        const uint8_t *row = call->columns[f].bytes;
        out->columns[f] = out->slices + (size_t)f * op->n;
        for (uint32_t i = 0; i < op->n; i++) {
            shelf_name name = {.op = (uint32_t)op->number, .row = (uint16_t)i, .field = keyed_field(op->fields[f])};
            size_t size = keyed_row_size(op, f, i);
            memcpy(out->bytes + at, &name, LOAD_NOTE_HEAD);
            memcpy(out->bytes + at + LOAD_NOTE_HEAD, row, size);
            out->slices[(size_t)f * op->n + i] = (tq_slice){.data = out->bytes + at, .size = LOAD_NOTE_HEAD + size};
            at += LOAD_NOTE_HEAD + size;
            row += size;
        }
    }
}

/* The tag "op" of all samples, in msgpack, by which the oracle knows the commit. */
static void keyed_tag_make(tq_tag *out, const history_op *op)
{
    uint8_t *values = load_memory((size_t)op->n * 9 + 1);
    uint32_t *sizes = load_memory(((size_t)op->n + 1) * sizeof(*sizes));

    for (uint32_t i = 0; i < op->n; i++) {
        sizes[i] = 9;
        values[(size_t)i * 9] = 0xcf;
        for (uint32_t k = 0; k < 8; k++) {
            values[(size_t)i * 9 + 1 + k] = (uint8_t)(op->number >> (56 - 8 * k));
        }
    }
    *out = (tq_tag){.name = "op", .values = values, .sizes = sizes};
}

static void keyed_notes_free(keyed_notes *notes, const tq_tag *tag)
{
    free((void *)(uintptr_t)tag->values);
    free((void *)(uintptr_t)tag->sizes);
    free(notes->bytes);
    free(notes->slices);
    free(notes->columns);
}

/* --- clears ------------------------------------------------------------------------------ */

/* Removes the values that a clear describes. */
static void keyed_remove(const tq_meta *meta)
{
    for (size_t f = 0; f < tq_meta_field_count(meta); f++) {
        const tq_slice *notes = tq_meta_notes(meta, f);
        for (size_t i = 0; notes != NULL && i < tq_meta_sample_count(meta); i++) {
            shelf_name name;
            if (keyed_name(&notes[i], &name)) {
                shelf_remove(name);
            }
        }
    }
}

static int keyed_end(load_call *call, const char *partition, uint64_t id, bool removed)
{
    history_op *op = load_begin(call, HISTORY_END_CLEAR, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    op->from = id;
    op->flag = removed;
    return load_started(call, tq_end_clear(call->op, id, removed));
}

/* Carries out the clears that the last call has handed out. */
static void keyed_finish(keyed *now)
{
    size_t n;
    const tq_clearing *const *clearings = tq_op_clearings(now->call->op, &n);
    load_meta *metas = load_memory((n + 1) * sizeof(*metas));
    uint64_t *ids = load_memory((n + 1) * sizeof(*ids));

    for (size_t i = 0; i < n; i++) {
        metas[i] = (load_meta){.meta = tq_meta_ref(clearings[i]->meta)};
        ids[i] = clearings[i]->id;
        if (!clearings[i]->begun) {
            sim_mark("two-phase clear taken over");
        }
    }
    for (size_t i = 0; i < n; i++) {
        bool removed = !sim_one_in(now->chance, 8) || sim_is_calm();
        if (removed) {
            load_pause(now->chance, SIM_MS);
            keyed_remove(metas[i].meta);
        } else {
            sim_mark("two-phase clear not removed");
        }
        load_finish(now->call, keyed_end(now->call, now->partition, ids[i], removed));
        load_meta_drop(&metas[i]);
    }
    free(metas);
    free(ids);
}

/* meta, or keys, or all of it; with none of them only what others have left. */
static int keyed_begin(load_call *call, const char *partition, const load_meta *meta, bool all)
{
    history_op *op = load_begin(call, HISTORY_BEGIN_CLEAR, partition);
    tq_begin_clear_args args = tq_begin_clear_args_init();

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    args.remover = KEYED_REMOVER;
    if (meta != NULL) {
        load_put_record(op, &(load_put_args){.meta = meta});
        op->tagged = false;
        args.meta = meta->meta;
    } else if (all) {
        op->by = HISTORY_BY_ALL;
        args.partition = partition;
    }
    return load_started(call, tq_begin_clear(call->op, &args));
}

static void keyed_clear(keyed *now)
{
    const bool all = sim_one_in(now->chance, 12), none = !all && sim_one_in(now->chance, 6);
    const load_meta *meta = all || none || now->meta.meta == NULL ? NULL : &now->meta;

    if (load_finish(now->call, keyed_begin(now->call, now->partition, meta, all)) == TQ_OK) {
        keyed_finish(now);
    }
    load_meta_drop(&now->meta);
}

/* --- puts ---------------------------------------------------------------------------------- */

/* Whether a notify that ended so may be published. */
static bool keyed_is_unsure(const load_call *call)
{
    return call->record->status == HISTORY_UNKNOWN;
}

static void keyed_undo(shelf_name from, uint32_t rows, const char *const *fields, uint32_t n_fields)
{
    for (uint32_t f = 0; f < n_fields; f++) {
        for (uint32_t i = 0; i < rows; i++) {
            shelf_remove((shelf_name){.op = from.op, .row = (uint16_t)i, .field = keyed_field(fields[f])});
        }
    }
}

/* Puts values on the shelf, then publishes them with their names. */
static void keyed_put(keyed *now)
{
    const char *fields[KEYED_FIELDS];
    load_put_args put = {.meta = &now->meta, .fields = fields, .size = LOAD_SMALL};
    tq_put_args args = tq_put_args_init();
    keyed_notes notes;
    history_op *op;
    tq_tag tag;
    int rc;

    put.n_fields =
        load_draw_names(now->chance, keyed_fields, KEYED_FIELDS, (uint32_t)sim_between(now->chance, 1, 3), fields);
    op = load_begin(now->call, HISTORY_NOTIFY, now->partition);
    if (op == NULL) {
        return;
    }
    load_put_record(op, &put);
    load_columns_make(now->call, &put);
    keyed_notes_make(&notes, now->call);
    keyed_tag_make(&tag, op);
    for (size_t i = 0; i < (size_t)op->n * op->n_fields; i++) {
        shelf_name name;
        if (keyed_name(&notes.slices[i], &name)) {
            shelf_put(name);
        }
    }
    load_pause(now->chance, SIM_MS);
    args.meta = now->meta.meta;
    args.columns = now->call->column_args;
    args.n_columns = put.n_fields;
    args.tags = &tag;
    args.n_tags = 1;
    args.remover = KEYED_REMOVER;
    rc = load_started(now->call, tq_notify(now->call->op, &args, notes.columns));
    keyed_notes_free(&notes, &tag);
    if (load_finish(now->call, rc) == TQ_OK) {
        keyed_finish(now);
    } else if (!keyed_is_unsure(now->call)) {
        keyed_undo((shelf_name){.op = (uint32_t)op->number}, op->n, fields, put.n_fields);
    }
}

/* Samples to put into: new ones, or some that exist. */
static void keyed_find(keyed *now)
{
    load_resolve_args resolve = {.partition = now->partition, .tags = sim_one_in(now->chance, 2)};
    load_meta all = {.meta = NULL};
    int rc;

    if (sim_one_in(now->chance, 2)) {
        rc = load_reserve(now->call, now->partition, (uint32_t)sim_between(now->chance, 1, KEYED_ROWS), NULL, NULL);
        if (load_finish(now->call, rc) == TQ_OK) {
            load_meta_take(now->call, &now->meta);
        }
        return;
    }
    if (load_finish(now->call, load_resolve(now->call, &resolve)) == TQ_OK) {
        load_meta_take(now->call, &all);
    }
    if (all.meta != NULL && load_meta_count(&all) > 0) {
        uint32_t n = load_meta_count(&all), first = (uint32_t)sim_below(now->chance, n);
        uint32_t most = n - first < KEYED_ROWS ? n - first : KEYED_ROWS;
        load_meta_part(&all, first, (uint32_t)sim_between(now->chance, 1, most), &now->meta);
    }
    load_meta_drop(&all);
}

/* --- reads ------------------------------------------------------------------------------------ */

/* A cell whose value was not on the shelf: it must be gone, or replaced, by now. */
static void keyed_check_missing(keyed *now, shelf_name missing, uint32_t index, uint32_t incarnation, const char *field)
{
    load_resolve_args resolve = {
        .partition = now->partition,
        .indexes = &index,
        .n = 1,
        .fields = &field,
        .n_fields = 1,
        .lenient = true,
    };
    const tq_meta *meta;
    const tq_slice *notes;
    shelf_name name;

    now->call->timeout = 0;
    if (load_finish(now->call, load_resolve(now->call, &resolve)) != TQ_OK || history_has_loads()) {
        return;
    }
    meta = tq_op_meta(now->call->op);
    if (tq_meta_sample_count(meta) == 1 && tq_meta_field_count(meta) == 1 &&
        tq_meta_incarnations(meta)[0] == incarnation) {
        notes = tq_meta_notes(meta, 0);
        sim_check(notes == NULL || !keyed_name(&notes[0], &name) || memcmp(&name, &missing, LOAD_NOTE_HEAD) != 0,
                  "two-phase clears", "field '%s' of sample %u.%u exists, and its value (op %u, row %u) was removed",
                  field, index, incarnation, name.op, name.row);
    }
}

/* Reads the notes, and looks for the values. */
static void keyed_read(keyed *now)
{
    load_get_args get = {.fields = NULL};
    shelf_name missing = {.op = 0}, name;
    uint32_t index = 0, incarnation = 0;
    const char *field = NULL;

    if (tq_meta_field_count(now->meta.meta) == 0 ||
        load_finish(now->call, load_get(now->call, &now->meta, &get)) != TQ_OK) {
        return;
    }
    for (size_t c = 0; c < tq_data_column_count(now->call->data) && missing.op == 0; c++) {
        const tq_data_column *column = tq_data_column_at(now->call->data, c);
        for (uint32_t i = 0; column->opaque != NULL && i < load_meta_count(&now->meta); i++) {
            if (keyed_name(&column->opaque[i], &name) && !shelf_has(name)) {
                missing = name;
                index = tq_meta_indexes(now->meta.meta)[i];
                incarnation = tq_meta_incarnations(now->meta.meta)[i];
                field = history_text(column->name);
            }
        }
    }
    if (missing.op != 0) {
        sim_mark("value was removed while it was read");
        keyed_check_missing(now, missing, index, incarnation, field);
    }
}

static void keyed_claim(keyed *now)
{
    load_claim_args claim = {.partition = now->partition, .task = "keyed", .fields = keyed_fields, .n_fields = 1};

    claim.fields = &keyed_fields[sim_below(now->chance, KEYED_FIELDS)];
    claim.batch = (uint32_t)sim_between(now->chance, 1, 4);
    now->call->timeout = load_draw_wait(now->chance);
    if (load_finish(now->call, load_claim(now->call, &claim)) == TQ_OK) {
        now->call->timeout = 0;
        load_meta_take(now->call, &now->meta);
        keyed_read(now);
    }
}

/* --- the workload ------------------------------------------------------------------------------ */

static void keyed_step(keyed *now)
{
    now->partition = now->meta.meta != NULL
                         ? history_text(tq_meta_partition(now->meta.meta))
                         : load_partition(now->call->client, (uint32_t)sim_below(now->chance, 3) == 0);
    switch (sim_below(now->chance, 12)) {
    case 0:
    case 1:
        keyed_clear(now);
        break;
    case 2:
    case 3:
        keyed_claim(now);
        break;
    case 4:
    case 5:
        if (now->meta.meta != NULL) {
            keyed_read(now);
        }
        break;
    case 6:
        load_look_around(now->call, now->partition, "keyed");
        break;
    default:
        if (now->meta.meta == NULL || sim_one_in(now->chance, 3)) {
            keyed_find(now);
        }
        if (now->meta.meta != NULL) {
            keyed_put(now);
        }
        break;
    }
}

static void keyed_thread(load_thread *thread)
{
    load_call call;
    keyed now = {.call = &call, .chance = &thread->chance};

    load_call_init(&call, thread->client, thread->number, &thread->chance);
    while (load_next(&call)) {
        keyed_step(&now);
    }
    load_meta_drop(&now.meta);
    load_call_fini(&call);
}

static void keyed_run(load_client *self)
{
    load_threads(self, (uint32_t)sim_between(&self->chance, 1, 3), keyed_thread);
}

const load_kind load_keyed = {.name = "keyed", .run = keyed_run};

/* --- the drain ----------------------------------------------------------------------------------- */

static void keyed_check_left(shelf_name name, void *arg)
{
    const uint64_t *epoch = arg;
    const history_op *put = history_op_of(name.op);

    /* A controller that was restarted knows nothing of what was put before. */
    sim_check(put == NULL || put->status == HISTORY_UNKNOWN || put->status == HISTORY_RUNNING || put->epoch != *epoch,
              "two-phase clears", "all is cleared, and the value of op %u, row %u, field '%s' is still on the shelf",
              name.op, name.row, keyed_fields[name.field]);
}

void load_keyed_drain(load_call *call, const char *partition)
{
    keyed now = {.call = call, .chance = call->chance, .partition = partition};

    if (load_finish(call, keyed_begin(call, partition, NULL, true)) == TQ_OK) {
        keyed_finish(&now);
    }
}

void load_keyed_check(load_call *call)
{
    keyed now = {.call = call, .chance = call->chance, .partition = "keyed-0"};
    uint64_t epoch = tq_client_epoch(call->client->client);
    size_t n = 1;

    /* What others have begun and left, in all partitions; an answer holds as much as fits. */
    while (n > 0 && load_finish(call, keyed_begin(call, now.partition, NULL, false)) == TQ_OK) {
        (void)tq_op_clearings(call->op, &n);
        keyed_finish(&now);
    }
    if (!history_has_loads()) { /* a checkpoint brings back cells whose values were removed */
        shelf_each(keyed_check_left, &epoch);
    }
}
