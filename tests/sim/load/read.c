/*
 * read.c - what was read, compared byte by byte with what its writer put.
 *
 * Whether a value is the one that had to be seen at that time is decided later, when the order of the commits is known
 * (oracle/check_values.c). Here it only has to be what some put wrote into that row and field: whole, and in its place.
 */
#include "load/call.h"

#include "load/cell.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define READ_INVARIANT "data"

/* A row as it was read. */
typedef struct read_row {
    const history_op *op; /* the read */
    uint32_t i;
    const history_row *sample;
    const load_field *field;
    tq_kind kind;
    tq_dtype dtype;
    uint32_t ndim;
    const uint64_t *dims;
    const uint8_t *cell;
    size_t length;
} read_row;

/* Whether the put's row at that position may be the sample. */
static bool read_may_be(const history_op *put, uint32_t position, const history_row *sample)
{
    if (history_has_loads()) {
        return true;
    }
    if (put->by == HISTORY_BY_KEYS && sample->key != NULL && strcmp(put->rows[position].key, sample->key) != 0) {
        return false;
    }
    if (put->by == HISTORY_BY_ROWS &&
        (put->rows[position].index != sample->index ||
         (sample->incarnation != 0 && put->rows[position].incarnation != sample->incarnation))) {
        return false;
    }
    if (put->status == HISTORY_OK &&
        (put->results[position].index != sample->index ||
         (sample->incarnation != 0 && put->results[position].incarnation != sample->incarnation))) {
        return false;
    }
    return true;
}

static uint64_t read_row_id(const history_op *put, uint32_t position)
{
    switch (put->by) {
    case HISTORY_BY_KEYS:
        return cell_row_key(put->rows[position].key);
    case HISTORY_BY_ROWS:
        return cell_row_sample(put->rows[position].index, put->rows[position].incarnation);
    default:
        return cell_row_new(position);
    }
}

static bool read_shape_is(const read_row *row, const history_op *put, uint32_t f, uint32_t length)
{
    const load_type *type = &row->field->types[put->types[f]];
    uint64_t dims[2] = {0, 0};
    const uint32_t ndim = load_row_shape(row->field, type, length, dims);

    return row->kind == type->kind && row->dtype.code == type->dtype.code && row->dtype.bits == type->dtype.bits &&
           row->ndim == ndim && memcmp(row->dims, dims, ndim * sizeof(*dims)) == 0;
}

/* Whether the row is what that put wrote at one of its positions; the value is then filled in. */
static bool read_is_of(const read_row *row, const history_op *put, history_value *value)
{
    cell_id id = {.writer = put->number, .field = cell_hash(row->field->name)};
    uint32_t f = 0;

    if (put->lengths == NULL || put->partition == NULL || put->partition != row->op->partition) {
        return false;
    }
    while (f < put->n_fields && strcmp(put->fields[f], row->field->name) != 0) {
        f++;
    }
    if (f == put->n_fields) {
        return false;
    }
    id.partition = cell_hash(put->partition);
    for (uint32_t position = 0; position < put->n; position++) {
        const uint32_t length = put->lengths[(size_t)f * put->n + position];

        id.row = read_row_id(put, position);
        if (length == row->length && read_may_be(put, position, row->sample) && cell_is(row->cell, length, &id) &&
            read_shape_is(row, put, f, length)) {
            value->position = position;
            return true;
        }
    }
    return false;
}

/* Ends the run: says what the cell is, as far as its bytes show. */
static _Noreturn void read_wrong(const read_row *row, cell_seen seen, const cell_id *id)
{
    const char *what = "no put wrote these bytes into that row";

    if (seen == CELL_BROKEN) {
        what = "torn: the bytes are not those of the cell that they say they are";
    } else if (seen == CELL_ALL && id->partition != cell_hash(row->op->partition)) {
        what = "a cell of another partition";
    } else if (seen == CELL_ALL && id->field != cell_hash(row->field->name)) {
        what = "a cell of another field";
    } else if (seen == CELL_ALL) {
        what = "a cell of another row";
    }
    sim_found(READ_INVARIANT,
              "op %" PRIu64
              " (%s) read field '%s' of sample %u.%u (%s) of partition '%s': %zu bytes, %u dims, %s; they say: op "
              "%" PRIu64 ", row %#" PRIx64,
              row->op->number, history_call_names[row->op->call], row->field->name, row->sample->index,
              row->sample->incarnation, row->sample->key != NULL ? row->sample->key : "no key", row->op->partition,
              row->length, row->ndim, what, id->writer, id->row);
}

static void read_check_row(const read_row *row, history_value *value)
{
    cell_id id;
    const cell_seen seen = cell_read(row->cell, row->length, &id);

    value->length = (uint32_t)row->length;
    if (seen != CELL_NOTHING) {
        const history_op *put = history_op_of(id.writer);

        if (seen == CELL_BROKEN || put == NULL || !read_is_of(row, put, value)) {
            read_wrong(row, seen, &id);
        }
        value->writer = id.writer;
        return;
    }
    if (row->length > 0) {
        memcpy(&value->head, row->cell, row->length);
    }
    for (uint64_t number = history_ops(); number > 0; number--) {
        if (read_is_of(row, history_op_of(number), value)) {
            return;
        }
    }
    read_wrong(row, seen, &id);
}

/* --- columns ------------------------------------------------------------------- */

/* A row that was left in the store: it may be gone while it is looked at. */
typedef struct read_look {
    const uint8_t *bytes; /* a copy */
    size_t size;
} read_look;

static void read_on_look(void *arg, size_t row, const void *bytes, size_t size)
{
    read_look *look = arg;
    uint8_t *copy = sim_alloc(size + 1);

    (void)row;
    memcpy(copy, bytes, size);
    look->bytes = copy;
    look->size = size;
}

static const uint64_t *read_dims(const tq_data_column *column, uint32_t i)
{
    const uint64_t *dims = column->dims;

    for (uint32_t k = 0; k < i; k++) {
        dims += column->ndims[k];
    }
    return dims;
}

static size_t read_bytes(const tq_data_column *column, uint32_t i, const tq_type *type, const uint64_t *dims)
{
    size_t bytes = type->dtype.bits / 8;

    for (uint32_t d = 0; d < column->ndims[i]; d++) {
        bytes *= dims[d];
    }
    return bytes;
}

/* Everything between the rows of a padded column is zero. */
static void read_check_gap(const read_row *row, const tq_data_column *column, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)column->data + column->offsets[row->i];
    const uint64_t room = column->offsets[row->i + 1] - column->offsets[row->i];

    for (size_t at = size; at < room; at++) {
        sim_check(bytes[at] == 0, READ_INVARIANT,
                  "op %" PRIu64 " read field '%s' padded: after row %u of %zu bytes, byte %zu of %" PRIu64
                  " is not zero",
                  row->op->number, row->field->name, row->i, size, at, room);
    }
}

/* The i-th row of column c; false: it was left in the store and is gone. */
static bool read_row_find(read_row *row, const tq_data *data, size_t c, read_look *look)
{
    const tq_data_column *column = tq_data_column_at(data, c);
    const tq_type usual = {.kind = (uint8_t)column->kind, .dtype = column->dtype};
    const tq_type *type = column->types != NULL ? &column->types[row->i] : &usual;
    const uint8_t *bytes;
    size_t size;

    row->kind = (tq_kind)type->kind;
    row->dtype = type->dtype;
    row->ndim = column->ndims[row->i];
    row->dims = read_dims(column, row->i);
    size = read_bytes(column, row->i, type, row->dims);
    bytes = column->left || column->opaque != NULL ? NULL : (const uint8_t *)column->data + column->offsets[row->i];
    if (column->opaque != NULL) {
        const tq_slice *note = &column->opaque[row->i];

        sim_check(note->size == LOAD_NOTE_HEAD + size, READ_INVARIANT,
                  "op %" PRIu64 ": the note of row %u of field '%s' has %zu bytes, not %zu", row->op->number, row->i,
                  row->field->name, note->size, LOAD_NOTE_HEAD + size);
        bytes = (const uint8_t *)note->data + LOAD_NOTE_HEAD;
    } else if (column->left) {
        const int rc = tq_data_look(data, c, row->i, 1, read_on_look, look);

        sim_check(rc == TQ_OK || rc == TQ_ELOST, "legal programs get legal errors", "tq_data_look: %s",
                  tq_error_name(rc));
        if (rc == TQ_ELOST) {
            sim_mark("left rows gone");
            return false;
        }
        bytes = look->bytes;
        sim_check(look->size == size, READ_INVARIANT, "op %" PRIu64 ": row %u of field '%s' has %zu bytes, not %zu",
                  row->op->number, row->i, row->field->name, look->size, size);
    } else if (column->padded) {
        read_check_gap(row, column, size);
    }
    sim_check(load_row_cell(row->kind, bytes, size, &row->cell, &row->length), READ_INVARIANT,
              "op %" PRIu64 " read field '%s' of sample %u.%u: row %u of %zu bytes is no value as it was put",
              row->op->number, row->field->name, row->sample->index, row->sample->incarnation, row->i, size);
    return true;
}

static void read_check_column(history_op *op, const tq_data *data, size_t c, bool again)
{
    const tq_data_column *column = tq_data_column_at(data, c);

    for (uint32_t i = 0; i < op->n_results; i++) {
        read_row row = {.op = op, .i = i, .sample = &op->results[i], .field = load_field_of(column->name)};
        history_value *value = &op->values[c * op->n_results + i];
        history_value now = {.writer = 0};
        read_look look = {.bytes = NULL};

        sim_check(row.field != NULL, READ_INVARIANT, "op %" PRIu64 " read a field '%s' that nobody put", op->number,
                  column->name);
        if (read_row_find(&row, data, c, &look)) {
            read_check_row(&row, &now);
            sim_check(!again || (now.writer == value->writer && now.length == value->length), READ_INVARIANT,
                      "data that op %" PRIu64 " read and that was held changed: field '%s', row %u, was written by op "
                      "%" PRIu64 ", is by op %" PRIu64,
                      op->number, column->name, i, value->writer, now.writer);
            *value = now;
        } else if (!again) {
            value->gone = true;
        }
        sim_free((void *)(uintptr_t)look.bytes);
    }
}

void load_read_check(history_op *op, const tq_data *data, bool again)
{
    const size_t columns = tq_data_column_count(data);

    sim_check(tq_data_row_count(data) == op->n_results, READ_INVARIANT,
              "op %" PRIu64 " read %zu rows, %u were asked for", op->number, tq_data_row_count(data), op->n_results);
    if (!again) {
        op->n_result_fields = (uint32_t)columns;
        op->result_fields = history_memory((columns + 1) * sizeof(*op->result_fields));
        op->values = history_memory((columns * op->n_results + 1) * sizeof(*op->values));
        for (size_t c = 0; c < columns; c++) {
            op->result_fields[c] = history_text(tq_data_column_at(data, c)->name);
        }
    }
    for (size_t c = 0; c < columns; c++) {
        read_check_column(op, data, c, again);
    }
}
