/*
 * args.c - checks the arguments of a put on the caller's thread and builds the publish message and the manager's
 * job. Everything except the bytes of the columns is copied into the put's region.
 */
#include "client/args.h"
#include "base/name_table.h"
#include "client/meta/meta.h"
#include "client/put/put.h"

#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "base/type.h"

static int put_nomem(tq_error *err)
{
    return tqi_error_nomem(err, "a put");
}

/* --- which samples -------------------------------------------------------- */

static int put_by_meta(tqi_client_put *put, const tq_put_args *args, tq_error *err)
{
    const tq_meta *meta = args->meta;
    tqi_region *region = &put->task.region;
    Tq__Batch *batch = &put->batch;

    if (args->keys != NULL || args->groups != NULL) {
        return tqi_error_set(err, TQ_EINVAL, "samples are given by metadata, so no keys or groups may be given");
    }
    if (args->partition != NULL && strcmp(args->partition, meta->partition) != 0) {
        return tqi_error_set(err, TQ_EINVAL, "partition '%s' is given with metadata of partition '%s'", args->partition,
                             meta->partition);
    }
    if (args->n != 0 && args->n != meta->n) {
        return tqi_error_set(err, TQ_EROWS, "%zu sample%s given with metadata of %zu", args->n,
                             args->n == 1 ? " is" : "s are", meta->n);
    }
    put->n = meta->n;
    batch->epoch = meta->epoch;
    batch->index = tqi_region_copy(region, meta->indexes, meta->n, sizeof(*meta->indexes));
    batch->incarnation = tqi_region_copy(region, meta->incarnations, meta->n, sizeof(*meta->incarnations));
    batch->n_index = meta->n;
    batch->n_incarnation = meta->n;
    return batch->index != NULL && batch->incarnation != NULL ? TQ_OK : put_nomem(err);
}

static int put_samples(tqi_client_put *put, const tq_put_args *args, tq_error *err)
{
    tqi_region *region = &put->task.region;
    Tq__Batch *batch = &put->batch;
    const char *partition = args->partition;
    int rc;

    put->n = args->n;
    rc = tqi_client_check_array("columns", args->columns, args->n_columns, err);
    rc = rc ? rc : tqi_client_check_array("tags", args->tags, args->n_tags, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (args->meta != NULL) {
        partition = args->meta->partition;
        rc = put_by_meta(put, args, err);
    } else if (args->keys != NULL) {
        put->keyed = true;
        put->publish.create = !args->must_exist;
        rc = tqi_client_copy_keys(region, args->keys, args->n, &batch->key, &batch->n_key, err);
    } else {
        put->n = args->n == 0 && args->n_columns > 0 ? args->columns[0].rows : args->n;
        rc = TQ_OK;
    }
    rc = rc ? rc : tqi_client_copy_name(region, "partition", partition, &batch->partition, err);
    rc = rc ? rc : tqi_client_check_samples(put->n, err);
    if (rc == TQ_OK && put->n == 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': no samples to put", partition);
    }
    if (rc == TQ_OK && args->meta == NULL) {
        rc = tqi_client_copy_groups(region, args->groups, put->n, &batch->group, &batch->n_group, err);
    }
    put->publish.samples = args->meta != NULL || args->keys != NULL ? 0 : (uint32_t)put->n;
    return rc;
}

/* --- columns -------------------------------------------------------------- */

/* Kind and dtype of one row, or of all; *dtype is the stored dtype, also for a value. */
static int put_check_type(const tq_column *column, uint32_t kind, tq_dtype *dtype, tq_error *err)
{
    if (kind != TQ_TENSOR && kind != TQ_VALUE) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': unknown kind %d", column->name, (int)kind);
    }
    if (kind == TQ_VALUE && dtype->bits == 0) {
        *dtype = (tq_dtype){TQ_UINT, 8};
    }
    if (kind == TQ_VALUE && (dtype->code != TQ_UINT || dtype->bits != 8)) {
        return tqi_error_set(err, TQ_EDTYPE, "field '%s': values have dtype code %d of 8 bits, given %u of %u",
                             column->name, TQ_UINT, dtype->code, dtype->bits);
    }
    if (!tqi_client_dtype_known(*dtype)) {
        return tqi_error_set(err, TQ_EDTYPE, "field '%s': unknown dtype, code %u of %u bits", column->name, dtype->code,
                             dtype->bits);
    }
    return TQ_OK;
}

static int put_check_column(const tqi_client_put *put, const tq_column *column, tq_error *err)
{
    int rc = column->name != NULL ? tqi_check_name("field", column->name, TQ_NAME_MAX, err)
                                  : tqi_error_null(err, "name of a column");

    if (rc != TQ_OK) {
        return rc;
    }
    if (column->rows != put->n) {
        return tqi_error_set(err, TQ_EROWS, "field '%s': expected %zu row%s, given %zu", column->name, put->n,
                             tqi_text_s(put->n), column->rows);
    }
    if (column->ndim > TQ_NDIM_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %u dimensions, at most %d are possible", column->name,
                             column->ndim, TQ_NDIM_MAX);
    }
    if (column->types != NULL && column->dims == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': rows with types of their own, without dims of their own",
                             column->name);
    }
    if (column->ragged_dim > TQ_NDIM_MAX && column->ragged_dim != TQ_RAGGED_MANY) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': dim %u cannot be ragged, rows have %d at most", column->name,
                             column->ragged_dim, TQ_NDIM_MAX);
    }
    if ((column->ndims != NULL && column->dims == NULL) ||
        (column->ndim > 0 && column->dims == NULL && column->shape == NULL)) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': dimensions without their sizes", column->name);
    }
    return TQ_OK;
}

static uint32_t put_ndim(const tq_column *column, size_t row)
{
    return column->ndims != NULL ? column->ndims[row] : column->ndim;
}

/* Whether all rows of a column with dims per row have one shape. */
static bool put_is_uniform(const tq_column *column)
{
    uint32_t ndim = put_ndim(column, 0);
    const uint64_t *dims = column->dims;

    for (size_t i = 0; i < column->rows; i++) {
        if (put_ndim(column, i) != ndim || memcmp(dims, column->dims, ndim * sizeof(*dims)) != 0) {
            return false;
        }
        dims += ndim;
    }
    return true;
}

static int put_too_large(const tq_column *column, tq_error *err)
{
    return tqi_error_set(err, TQ_EINVAL, "field '%s': its shapes say more bytes than there can be", column->name);
}

static int put_uniform(tqi_client_put *put, const tq_column *column, const uint64_t *shape, uint32_t ndim,
                       Tq__Field *field, tq_put_column *out, tq_error *err)
{
    tqi_region *region = &put->task.region;
    tq_dtype dtype = tqi_type_dtype(field->dtype);

    if (!tqi_client_row_size(dtype, shape, ndim, &out->row_size) ||
        __builtin_mul_overflow(out->row_size, put->n, &out->size)) {
        return put_too_large(column, err);
    }
    field->n_shape = ndim;
    field->shape = tqi_region_copy(region, shape, ndim, sizeof(*shape));
    return field->shape != NULL ? TQ_OK : put_nomem(err);
}

static int put_ragged_shapes(tqi_client_put *put, const tq_column *column, Tq__Field *field, tq_error *err)
{
    tqi_region *region = &put->task.region;
    size_t total = 0;

    for (size_t i = 0; i < put->n; i++) {
        if (put_ndim(column, i) > TQ_NDIM_MAX) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': row %zu has %u dimensions, at most %d are possible",
                                 column->name, i, put_ndim(column, i), TQ_NDIM_MAX);
        }
        total += put_ndim(column, i);
    }
    field->ragged = true;
    field->n_ndims = column->ndims != NULL ? put->n : 1;
    field->ndims = tqi_region_copy(region, column->ndims != NULL ? column->ndims : &column->ndim, field->n_ndims,
                                   sizeof(*column->ndims));
    field->n_dims = total;
    field->dims = tqi_region_copy(region, column->dims, total, sizeof(*column->dims));
    return field->ndims != NULL && field->dims != NULL ? TQ_OK : put_nomem(err);
}

static uint32_t put_type(const Tq__Field *field, size_t row)
{
    return field->n_type > 0 ? field->type[field->row_type[row]]
                             : tqi_type_pack(field->kind, tqi_type_dtype(field->dtype));
}

static int put_ragged(tqi_client_put *put, const tq_column *column, Tq__Field *field, tq_put_column *out, tq_error *err)
{
    uint64_t *sizes = tqi_region_array(&put->task.region, put->n, sizeof(*sizes));
    const uint64_t *dims = column->dims;
    int rc = sizes != NULL ? put_ragged_shapes(put, column, field, err) : put_nomem(err);

    for (size_t i = 0; sizes != NULL && i < put->n && rc == TQ_OK; i++) {
        uint32_t type = put_type(field, i);
        if (tqi_type_kind(type) == TQ_VALUE && put_ndim(column, i) != 1) {
            rc = tqi_error_set(err, TQ_EINVAL, "field '%s': row %zu is a value, which has one dim", column->name, i);
        } else if (!tqi_client_row_size(tqi_type_dtype(type), dims, put_ndim(column, i), &sizes[i]) ||
                   __builtin_add_overflow(out->size, sizes[i], &out->size)) {
            rc = put_too_large(column, err);
        }
        dims += put_ndim(column, i);
    }
    out->row_sizes = sizes;
    return rc;
}

/* A value's only dim is the size of its encoding: always given per row. */
static int put_value(tqi_client_put *put, const tq_column *column, Tq__Field *field, tq_put_column *out, tq_error *err)
{
    tq_column rows = *column;
    uint64_t *dims;

    if (column->types != NULL) { /* all of them values */
        return put_ragged(put, column, field, out, err);
    }
    if (column->ndims != NULL || column->ndim != 1) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': values have one dimension, given %s %u", column->name,
                             column->ndims != NULL ? "several, first" : "", put_ndim(column, 0));
    }
    if (column->dims == NULL) {
        dims = tqi_region_array(&put->task.region, put->n, sizeof(*dims));
        if (dims == NULL) {
            return put_nomem(err);
        }
        for (size_t i = 0; i < put->n; i++) {
            dims[i] = column->shape[0];
        }
        rows.dims = dims;
    }
    return put_ragged(put, &rows, field, out, err);
}

static int put_shape(tqi_client_put *put, const tq_column *column, Tq__Field *field, tq_put_column *out, tq_error *err)
{
    if (field->n_type > 0) {
        return put_ragged(put, column, field, out, err);
    }
    if (field->kind == TQ_VALUE) {
        return put_value(put, column, field, out, err);
    }
    if (column->dims == NULL) {
        return put_uniform(put, column, column->shape, column->ndim, field, out, err);
    }
    if (put_ndim(column, 0) <= TQ_NDIM_MAX && put_is_uniform(column)) {
        return put_uniform(put, column, column->dims, put_ndim(column, 0), field, out, err);
    }
    return put_ragged(put, column, field, out, err);
}

static int put_bytes(const tq_column *column, tq_put_column *out, tq_error *err)
{
    uint64_t given = 0;

    if (column->slices == NULL && column->n_slices > 0) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': slices is NULL, expected %zu of them", column->name,
                             column->n_slices);
    }
    for (size_t i = 0; i < column->n_slices; i++) {
        if (column->slices[i].data == NULL && column->slices[i].size > 0) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': slice %zu has no address", column->name, i);
        }
        given += column->slices[i].size;
    }
    if (given != out->size) {
        return tqi_error_set(err, TQ_EROWS, "field '%s': expected %llu bytes for %zu rows, given %llu", column->name,
                             (unsigned long long)out->size, column->rows, (unsigned long long)given);
    }
    out->slices = column->slices;
    out->n_slices = column->n_slices;
    return TQ_OK;
}

static int put_opaque(tqi_client_put *put, const tq_slice *notes, Tq__Field *field, tq_error *err)
{
    tqi_region *region = &put->task.region;

    field->opaque = tqi_region_array(region, put->n, sizeof(*field->opaque));
    field->run_block = tqi_region_zero(region, 1, sizeof(*field->run_block));
    field->run_rows = tqi_region_zero(region, 1, sizeof(*field->run_rows));
    field->run_offset = tqi_region_zero(region, 1, sizeof(*field->run_offset));
    if (field->opaque == NULL || field->run_block == NULL || field->run_rows == NULL || field->run_offset == NULL) {
        return put_nomem(err);
    }
    for (size_t i = 0; i < put->n; i++) {
        if (notes != NULL && notes[i].data == NULL && notes[i].size > 0) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': note %zu has no address", field->name, i);
        }
        field->opaque[i].len = notes != NULL ? notes[i].size : 0;
        field->opaque[i].data = tqi_region_copy(region, notes != NULL ? notes[i].data : "", field->opaque[i].len, 1);
        if (field->opaque[i].data == NULL) {
            return put_nomem(err);
        }
    }
    field->n_opaque = put->n;
    field->run_block[0] = 2; /* after no blocks and the mark of lost cells */
    field->run_rows[0] = (uint32_t)put->n;
    field->n_run_block = 1;
    field->n_run_rows = 1;
    field->n_run_offset = 1;
    return TQ_OK;
}

/* Kind and dtype of the column, or of each of its rows if they differ. */
static int put_types(tqi_client_put *put, const tq_column *column, Tq__Field *field, tq_error *err)
{
    tqi_region *region = &put->task.region;
    tq_dtype dtype = column->types != NULL && put->n > 0 ? column->types[0].dtype : column->dtype;
    uint32_t kind = column->types != NULL && put->n > 0 ? column->types[0].kind : (uint32_t)column->kind;
    int rc = put_check_type(column, kind, &dtype, err);

    field->kind = kind;
    field->dtype = tqi_type_pack(0, dtype);
    if (rc != TQ_OK || column->types == NULL) {
        return rc;
    }
    field->type = tqi_region_array(region, put->n, sizeof(*field->type));
    field->row_type = tqi_region_array(region, put->n, sizeof(*field->row_type));
    if (field->type == NULL || field->row_type == NULL) {
        return put_nomem(err);
    }
    for (size_t i = 0; i < put->n; i++) {
        dtype = column->types[i].dtype;
        rc = put_check_type(column, column->types[i].kind, &dtype, err);
        if (rc != TQ_OK) {
            return rc;
        }
        field->row_type[i] = tqi_type_place(field->type, &field->n_type, tqi_type_pack(column->types[i].kind, dtype));
    }
    field->n_row_type = put->n;
    if (field->n_type == 1) {
        field->n_type = 0;
        field->n_row_type = 0;
    }
    return TQ_OK;
}

static int put_columns(tqi_client_put *put, const tq_put_args *args, bool notify, const tq_slice *const *opaque,
                       tq_error *err)
{
    tqi_region *region = &put->task.region;
    Tq__Field *fields = tqi_region_array(region, args->n_columns, sizeof(*fields));

    put->columns = tqi_region_zero(region, args->n_columns, sizeof(*put->columns));
    put->batch.field = tqi_region_array(region, args->n_columns, sizeof(*put->batch.field));
    if (fields == NULL || put->columns == NULL || put->batch.field == NULL) {
        return put_nomem(err);
    }
    put->batch.n_field = args->n_columns;
    for (size_t c = 0; c < args->n_columns; c++) {
        const tq_column *column = &args->columns[c];
        tq_put_column *out = &put->columns[c];
        Tq__Field *field = &fields[c];
        int rc = put_check_column(put, column, err);

        tq__field__init(field);
        put->batch.field[c] = field;
        rc = rc ? rc : tqi_client_copy_name(region, "field", column->name, &field->name, err);
        if (rc == TQ_OK) {
            field->ragged_dim = column->ragged_dim;
            out->name = field->name;
            out->rows = (uint32_t)put->n;
            rc = put_types(put, column, field, err);
            rc = rc ? rc : put_shape(put, column, field, out, err);
        }
        if (rc == TQ_OK) {
            rc = notify ? put_opaque(put, opaque != NULL ? opaque[c] : NULL, field, err) : put_bytes(column, out, err);
        }
        if (rc != TQ_OK) {
            return rc;
        }
    }
    return tqi_check_distinct("field", TQI_NAMES(args->columns, name, args->n_columns), err);
}

/* --- tags ----------------------------------------------------------------- */

static int put_tag(tqi_client_put *put, const tq_tag *from, Tq__Tag *to, tq_error *err)
{
    tqi_region *region = &put->task.region;
    size_t size = 0;
    int rc = tqi_client_copy_tag_name(region, from->name, &to->name, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (from->sizes == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "tag '%s': sizes is NULL", from->name);
    }
    for (size_t i = 0; i < put->n; i++) {
        size += from->sizes[i];
    }
    if (from->values == NULL && size > 0) {
        return tqi_error_set(err, TQ_EINVAL, "tag '%s': values is NULL, expected %zu bytes", from->name, size);
    }
    to->size = tqi_region_copy(region, from->sizes, put->n, sizeof(*from->sizes));
    to->n_size = put->n;
    to->values.data = tqi_region_copy(region, from->values, size, 1);
    to->values.len = size;
    return to->size != NULL && to->values.data != NULL ? TQ_OK : put_nomem(err);
}

static int put_tags(tqi_client_put *put, const tq_put_args *args, tq_error *err)
{
    tqi_region *region = &put->task.region;

    if (args->n_tags > TQ_TAGS_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "put with %zu different tags: at most %d", args->n_tags, TQ_TAGS_MAX);
    }
    Tq__Tag *tags = tqi_region_array(region, args->n_tags, sizeof(*tags));
    int rc = TQ_OK;

    put->batch.tag = tqi_region_array(region, args->n_tags, sizeof(*put->batch.tag));
    if (tags == NULL || put->batch.tag == NULL) {
        return put_nomem(err);
    }
    put->batch.n_tag = args->n_tags;
    for (size_t t = 0; t < args->n_tags && rc == TQ_OK; t++) {
        tq__tag__init(&tags[t]);
        put->batch.tag[t] = &tags[t];
        rc = put_tag(put, &args->tags[t], &tags[t], err);
    }
    return rc ? rc : tqi_check_distinct("tag", TQI_NAMES(tags, name, args->n_tags), err);
}

int tqi_client_put_prepare(tqi_client_put *put, const tq_put_args *args, bool notify, const tq_slice *const *opaque,
                           tq_error *err)
{
    int rc;

    tq__publish__init(&put->publish);
    tq__batch__init(&put->batch);
    put->publish.batch = &put->batch;
    rc = put_samples(put, args, err);
    rc = rc ? rc : put_columns(put, args, notify, opaque, err);
    rc = rc ? rc : put_tags(put, args, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (notify && args->remover != NULL) {
        rc = tqi_client_copy_name(&put->task.region, "remover", args->remover, &put->publish.remover, err);
        if (rc != TQ_OK) {
            return rc;
        }
    }
    put->publish.other_fields = args->other_fields && !notify;
    put->stores = args->n_columns > 0 && !notify;
    put->write.job.columns = put->columns;
    put->write.job.n_columns = (uint32_t)args->n_columns;
    put->write.job.adds_samples = args->meta == NULL && !args->must_exist;
    put->write.job.wait_when_full = !args->fail_when_full;
    put->write.job.deadline_ns = put->task.deadline;
    return TQ_OK;
}
