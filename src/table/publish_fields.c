/*
 * publish_fields.c - the fields of a planned publish: schemas, shapes and runs; and linking their cells. See
 * publish_plan.h.
 */
#include "base/error.h"
#include "base/text.h"
#include "base/type.h"
#include "table/field.h"
#include "table/publish_plan.h"
#include "table/result.h"

static int plan_check_schema(const tqi_table_plan *plan, const tqi_table_batch_field *in, tq_error *err)
{
    int rc = tqi_t_plan_check_type(in, tqi_type_pack(in->kind, in->dtype), err);

    if (rc == TQ_OK && !in->ragged && (in->ndim > TQ_NDIM_MAX || in->types != NULL)) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s' has rows of %u dims, at most %d are possible", in->name,
                             in->ndim, TQ_NDIM_MAX);
    }
    for (size_t i = 0; rc == TQ_OK && in->types != NULL && i < plan->n; i++) {
        rc = tqi_t_plan_check_type(in, in->types[i], err);
    }
    return rc;
}

/* Whether the runs cover all rows; counts those that bring a cell. */
static int plan_check_runs(const tqi_table_plan *plan, tqi_table_plan_field *out, tq_error *err)
{
    const tqi_table_batch_field *in = out->in;
    uint64_t rows = 0;

    for (size_t i = 0; i < in->n_runs; i++) {
        uint32_t block = in->runs[i].block;
        if (in->runs[i].rows == 0 ||
            (block != TQI_BLOCK_NONE && block != TQI_BLOCK_OPAQUE && block > plan->batch->n_blocks)) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': run %zu is malformed", in->name, i);
        }
        if (block == TQI_BLOCK_OPAQUE && in->opaque == NULL) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': opaque cells without bytes", in->name);
        }
        rows += in->runs[i].rows;
        out->produced += block != TQI_BLOCK_NONE ? in->runs[i].rows : 0;
    }
    if (rows != plan->n) {
        return tqi_error_set(err, TQ_EROWS, "field '%s' has %llu row%s, the batch has %zu", in->name,
                             (unsigned long long)rows, tqi_text_s(rows), plan->n);
    }
    return TQ_OK;
}

/* --- shapes --------------------------------------------------------------- */

static int plan_uniform(tqi_table_plan *plan, tqi_table_plan_field *out, tq_error *err)
{
    const tqi_table_batch_field *in = out->in;
    uint32_t type = tqi_t_relative_type(out->type, tqi_t_plan_given_type(in, 0), in->ndim, in->shape);
    int rc;

    if (in->kind == TQ_VALUE && in->ndim != 1) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': a value has one dim, its size", in->name);
    }
    rc = tqi_t_shape_get_typed(plan->table, type, in->ndim, in->shape, &out->shape, err);
    if (rc == TQ_OK) {
        tqi_t_shape_ref(plan->table, out->shape, out->produced - 1);
        out->counted = out->produced;
    }
    return rc;
}

static int plan_ragged(tqi_table_plan *plan, tqi_table_plan_field *out, tq_error *err)
{
    const tqi_table_batch_field *in = out->in;
    tqi_table_plan_walk walk = {.in = in};
    size_t at = 0;

    out->shapes = calloc(plan->n, sizeof(*out->shapes));
    if (out->shapes == NULL) {
        return tqi_error_nomem(err, "shapes");
    }
    for (size_t i = 0; i < plan->n; i++) {
        uint32_t ndim = in->ndims[in->n_ndims == 1 ? 0 : i];
        bool cell = tqi_t_plan_next(&walk)->block != TQI_BLOCK_NONE;
        uint32_t type = tqi_t_plan_given_type(in, i);
        int rc = TQ_OK;

        if (ndim > in->n_dims - at || (cell && tqi_type_kind(type) == TQ_VALUE && ndim != 1)) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': shape of row %zu is malformed", in->name, i);
        }
        if (cell) {
            rc = tqi_t_shape_get_typed(plan->table, tqi_t_relative_type(out->type, type, ndim, in->dims + at), ndim,
                                       in->dims + at, &out->shapes[i], err);
        }
        if (rc != TQ_OK) {
            return rc;
        }
        out->counted = i + 1;
        at += ndim;
    }
    if (at != in->n_dims) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %zu dims are left over", in->name, in->n_dims - at);
    }
    return TQ_OK;
}

static uint32_t plan_shape(const tqi_table_plan_field *field, size_t row)
{
    return field->shapes != NULL ? field->shapes[row] : field->shape;
}

/* What the schema will be: uniform as long as all rows have one shape. */
static void plan_schema(tqi_table_plan *plan, tqi_table_plan_field *out)
{
    const tqi_table_field *field = out->field;
    bool same = tqi_type_kind(out->type) != TQ_VALUE;
    uint32_t shape = field->known ? field->shape : TQI_TABLE_SHAPE_NONE;

    out->learns = !field->known;
    if (field->known && field->ragged) {
        return;
    }
    if (out->shapes == NULL) {
        same = same && (shape == TQI_TABLE_SHAPE_NONE || shape == out->shape);
        shape = out->shape;
    }
    for (size_t i = 0; out->shapes != NULL && same && i < plan->n; i++) {
        if (out->shapes[i] != TQI_TABLE_SHAPE_NONE) {
            shape = shape == TQI_TABLE_SHAPE_NONE ? out->shapes[i] : shape;
            same = shape == out->shapes[i];
        }
    }
    out->schema = same ? shape : TQI_TABLE_SHAPE_NONE;
    out->turns_ragged = field->known && !same;
    if (out->learns && same) {
        tqi_t_shape_ref(plan->table, shape, 1);
    }
}

/* Which dim is ragged: as the column declares (the first dim does not count: torch names it even if all lengths
 * agree), and where its rows differ from the existing ones. */
static void plan_ragged_dim(const tqi_table_plan *plan, tqi_table_plan_field *out)
{
    const tqi_table_field *field = out->field;
    uint8_t given = out->in->ragged_dim > 1 ? out->in->ragged_dim : 0;

    out->like = field->known ? field->like : TQI_TABLE_SHAPE_NONE;
    out->ragged_dim = tqi_ragged_dim_join(field->known ? field->ragged_dim : 0, given);
    if (out->in->kind == TQ_VALUE && out->in->types == NULL) {
        return;
    }
    for (size_t i = 0; i < (out->shapes != NULL ? plan->n : 1); i++) {
        tqi_t_shape_vary(plan->table, plan_shape(out, i), &out->like, &out->ragged_dim);
    }
}

/* --- bytes ---------------------------------------------------------------- */

static uint64_t plan_size(const tqi_table_batch_field *in, size_t row)
{
    return in->types != NULL ? tqi_type_size(in->types[row]) : in->dtype.bits / 8u;
}

static int plan_check_bytes(const tqi_table_plan *plan, const tqi_table_plan_field *field, tq_error *err)
{
    const tqi_table_batch_field *in = field->in;
    size_t row = 0;

    for (size_t i = 0; i < in->n_runs; i++) {
        const tqi_table_run *run = &in->runs[i];
        uint64_t end = run->offset;
        bool fits = true;

        for (uint32_t r = 0; run->block != TQI_BLOCK_NONE && r < run->rows; r++) {
            uint64_t elements = tqi_t_shape_elements(plan->table, plan_shape(field, row + r));
            uint64_t bytes = 0;
            fits = !__builtin_mul_overflow(elements, plan_size(in, row + r), &bytes) && fits;
            fits = !__builtin_add_overflow(end, bytes, &end) && fits;
        }
        if (!fits || (run->block != TQI_BLOCK_NONE && run->block != TQI_BLOCK_OPAQUE &&
                      end > plan->batch->blocks[run->block - 1].size)) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': rows %zu to %zu do not fit into their block", in->name,
                                 row, row + run->rows - 1);
        }
        row += run->rows;
    }
    return TQ_OK;
}

static int plan_opaque(const tqi_table_plan *plan, tqi_table_plan_field *out, tq_error *err)
{
    tqi_table_plan_walk walk = {.in = out->in};

    if (out->in->opaque == NULL) {
        return TQ_OK;
    }
    out->opaque = calloc(plan->n, sizeof(tqi_table_opaque *));
    if (out->opaque == NULL) {
        return tqi_error_nomem(err, "opaque cells");
    }
    for (size_t i = 0; i < plan->n; i++) {
        const tq_slice *slice = &out->in->opaque[i];
        if (tqi_t_plan_next(&walk)->block != TQI_BLOCK_OPAQUE) {
            continue;
        }
        out->opaque[i] = malloc(sizeof(tqi_table_opaque) + slice->size);
        if (out->opaque[i] == NULL) {
            return tqi_error_nomem(err, "opaque cells");
        }
        out->opaque[i]->size = slice->size;
        if (slice->size > 0) {
            memcpy(out->opaque[i]->data, slice->data, slice->size);
        }
    }
    return TQ_OK;
}

/* --- all of it ------------------------------------------------------------ */

static int plan_field(tqi_table_plan *plan, tqi_table_plan_field *out, uint64_t stamp, tq_error *err)
{
    const tqi_table_batch_field *in = out->in;
    tqi_table_field *field;
    int rc = tqi_t_field_get(plan->partition, in->name, &field, err);

    if (rc != TQ_OK) {
        return rc;
    }
    field->plans++;
    out->field = field;
    if (field->stamp == stamp) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s' is twice in one batch", in->name);
    }
    field->stamp = stamp;
    rc = plan_check_schema(plan, in, err);
    if (rc == TQ_OK) {
        rc = plan_check_runs(plan, out, err);
    }
    if (rc != TQ_OK || out->produced == 0) {
        return rc;
    }
    if (in->ragged && in->n_ndims != plan->n && in->n_ndims != 1) {
        return tqi_error_set(err, TQ_EROWS, "field '%s' has %zu row shapes, the batch has %zu rows", in->name,
                             in->n_ndims, plan->n);
    }
    rc = tqi_t_plan_type(plan, out, err);
    if (rc != TQ_OK) {
        return rc;
    }
    rc = in->ragged ? plan_ragged(plan, out, err) : plan_uniform(plan, out, err);
    if (rc == TQ_OK) {
        rc = plan_check_bytes(plan, out, err);
    }
    if (rc == TQ_OK) {
        rc = plan_opaque(plan, out, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_field_reserve(field, plan->max_row, err);
    }
    if (rc == TQ_OK) {
        plan_schema(plan, out);
        plan_ragged_dim(plan, out);
    }
    return rc;
}

int tqi_t_plan_fields(tqi_table_plan *plan, tq_error *err)
{
    uint64_t stamp = ++plan->table->stamp;
    int rc = TQ_OK;

    if (plan->batch->n_fields == 0) {
        return TQ_OK;
    }
    plan->fields = calloc(plan->batch->n_fields, sizeof(*plan->fields));
    if (plan->fields == NULL) {
        return tqi_error_nomem(err, "fields");
    }
    for (size_t i = 0; rc == TQ_OK && i < plan->batch->n_fields; i++) {
        plan->fields[i].in = &plan->batch->fields[i];
        plan->n_fields++;
        rc = plan_field(plan, &plan->fields[i], stamp, err);
    }
    return rc;
}

/* The types with which rows are stored; they differ from the given ones for tensors without elements. */
static int plan_describe_types(const tqi_table_plan *plan, const tqi_table_plan_field *from, tqi_table_batch_field *out,
                               tqi_table_result *result)
{
    const tqi_table_batch_field *in = from->in;
    uint32_t first = 0, *types;
    bool same = true;

    out->kind = in->kind;
    out->dtype = in->dtype;
    if (from->produced == 0 || (in->types == NULL && from->type == tqi_type_pack(in->kind, in->dtype))) {
        return TQ_OK;
    }
    types = tqi_region_zero(&result->region, plan->n, sizeof(*types));
    if (types == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < plan->n; i++) {
        types[i] = tqi_t_shape_type(plan->table, plan_shape(from, i));
        types[i] = types[i] != 0 ? types[i] : from->type;
        first = first != 0 ? first : types[i];
        same = same && types[i] == first;
    }
    out->kind = tqi_type_kind(first);
    out->dtype = tqi_type_dtype(first);
    out->types = same ? NULL : types;
    return TQ_OK;
}

int tqi_t_plan_describe(const tqi_table_plan *plan, tqi_table_result *result, tq_error *err)
{
    tqi_table_batch_field *fields = tqi_region_zero(&result->region, plan->n_fields, sizeof(*fields));

    if (fields == NULL) {
        return tqi_error_nomem(err, "reply");
    }
    for (size_t i = 0; i < plan->n_fields; i++) {
        const tqi_table_plan_field *from = &plan->fields[i];
        bool old = from->produced == 0 && from->field->known;
        uint32_t schema = old ? from->field->shape : from->schema;
        uint64_t room = 0;
        uint32_t ndim = from->in->ndim;
        const uint64_t *dims = from->in->shape;
        uint64_t *shape;

        fields[i].name = tqi_region_string(&result->region, from->in->name);
        if (plan_describe_types(plan, from, &fields[i], result) != TQ_OK) {
            return tqi_error_nomem(err, "reply");
        }
        fields[i].ragged_dim = old ? from->field->ragged_dim : from->ragged_dim;
        fields[i].ragged = from->produced > 0 || old ? schema == TQI_TABLE_SHAPE_NONE : from->in->ragged;
        if (schema != TQI_TABLE_SHAPE_NONE) {
            dims = tqi_t_shape_dims(plan->table, schema, &room, &ndim);
        }
        if (!fields[i].ragged) {
            shape = tqi_region_zero(&result->region, ndim, sizeof(*shape));
            if (shape != NULL && ndim > 0) {
                memcpy(shape, dims, ndim * sizeof(*shape));
            }
            fields[i].ndim = ndim;
            fields[i].shape = shape;
        }
        if (fields[i].name == NULL || (!fields[i].ragged && fields[i].shape == NULL)) {
            return tqi_error_nomem(err, "reply");
        }
    }
    result->batch.fields = fields;
    result->batch.n_fields = plan->n_fields;
    return TQ_OK;
}

static void plan_link_field(tqi_table_plan *plan, tqi_table_plan_field *from)
{
    const tqi_table_batch_field *in = from->in;
    size_t row = 0;

    for (size_t i = 0; i < in->n_runs; i++) {
        const tqi_table_run *run = &in->runs[i];
        uint64_t offset = run->offset;

        for (uint32_t r = 0; r < run->rows; r++, row++) {
            tqi_table_cell cell = {0};
            if (run->block == TQI_BLOCK_NONE) {
                continue;
            }
            cell.shape = plan_shape(from, row);
            if (run->block == TQI_BLOCK_OPAQUE) {
                cell.block = TQI_BLOCK_OPAQUE;
                cell.offset = (uint64_t)(uintptr_t)from->opaque[row];
            } else {
                cell.block = plan->handles[run->block - 1];
                cell.offset = offset;
                offset += tqi_t_shape_elements(plan->table, cell.shape) * plan_size(in, row);
            }
            tqi_t_cell_link(from->field, plan->rows[row].index, plan->rows[row].row, cell);
        }
    }
}

/* The replaced rows release what they have while the field still has their type. */
static void plan_blank(const tqi_table_plan *plan, const tqi_table_plan_field *from)
{
    tqi_table_plan_walk walk = {.in = from->in};

    for (size_t i = 0; i < plan->n; i++) {
        if (tqi_t_plan_next(&walk)->block != TQI_BLOCK_NONE) {
            tqi_t_cell_blank(from->field, plan->rows[i].row);
        }
    }
}

void tqi_t_plan_link(tqi_table_plan *plan)
{
    for (size_t i = 0; i < plan->n_fields; i++) {
        tqi_table_plan_field *from = &plan->fields[i];
        if (from->produced == 0) {
            continue;
        }
        if (from->switches) {
            plan_blank(plan, from);
            tqi_t_field_set_type(from->field, from->type);
        }
        if (from->learns) {
            tqi_t_field_learn(from->field, tqi_type_kind(from->type), tqi_type_dtype(from->type), from->schema);
        } else if (from->turns_ragged) {
            tqi_t_field_make_ragged(from->field);
        }
        tqi_t_field_set_ragged_dim(from->field, from->ragged_dim, from->like);
        plan_link_field(plan, from);
    }
}

void tqi_t_plan_fields_fini(tqi_table_plan *plan)
{
    for (size_t i = 0; i < plan->n_fields; i++) {
        tqi_table_plan_field *from = &plan->fields[i];

        if (!plan->committed) {
            if (from->learns) {
                tqi_t_shape_unref(plan->table, from->schema, 1);
            }
            if (from->shapes == NULL) {
                tqi_t_shape_unref(plan->table, from->shape, from->counted);
            }
            for (uint64_t r = 0; from->shapes != NULL && r < from->counted; r++) {
                tqi_t_shape_unref(plan->table, from->shapes[r], 1);
            }
            for (size_t r = 0; from->opaque != NULL && r < plan->n; r++) {
                free(from->opaque[r]);
            }
        }
        free(from->shapes);
        free(from->opaque);
        if (from->field != NULL) {
            from->field->plans--;
            tqi_t_field_gc(from->field);
        }
    }
    free(plan->fields);
}
