/*
 * plan_field.c - the fields of a publish in the making: schemas, shapes, runs; and linking their cells.  See plan.h.
 */
#include "meta/plan.h"

static const char *plan_type_text(uint32_t type, char out[32])
{
    static const char *const codes[] = {
        [TQ_INT] = "int",       [TQ_UINT] = "uint",       [TQ_FLOAT] = "float",
        [TQ_BFLOAT] = "bfloat", [TQ_COMPLEX] = "complex", [TQ_BOOL] = "bool",
    };

    tq_dtype dtype = tqi_type_dtype(type);

    if (tqi_type_kind(type) == TQ_VALUE) {
        return "non-tensor values";
    }
    if (dtype.code < sizeof(codes) / sizeof(codes[0]) && codes[dtype.code] != NULL) {
        (void)snprintf(out, 32, "%s%u", codes[dtype.code], dtype.bits);
    } else {
        (void)snprintf(out, 32, "dtype %u of %u bits", dtype.code, dtype.bits);
    }
    return out;
}

static int plan_check_type(const tqi_batch_field *in, uint32_t type, tq_error *err)
{
    tq_dtype dtype = tqi_type_dtype(type);

    if (type >> 16 > TQ_VALUE || dtype.bits == 0 || dtype.bits % 8 != 0) {
        return tqi_error_set(err, TQ_EINVAL,
                             "field '%s': kind %u with dtype %u of %u bits is not known", in->name,
                             type >> 16, dtype.code, dtype.bits);
    }
    if (tqi_type_kind(type) == TQ_VALUE && (dtype.code != TQ_UINT || dtype.bits != 8)) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': values are bytes of uint8", in->name);
    }
    return TQ_OK;
}

static int plan_check_schema(const tqi_plan *plan, const tqi_batch_field *in, tq_error *err)
{
    int rc = plan_check_type(in, tqi_type_pack(in->kind, in->dtype), err);

    if (rc == TQ_OK && !in->ragged && (in->ndim > TQ_NDIM_MAX || in->types != NULL)) {
        return tqi_error_set(err, TQ_EINVAL,
                             "field '%s' has rows of %u dims, at most %d are possible", in->name,
                             in->ndim, TQ_NDIM_MAX);
    }
    for (size_t i = 0; rc == TQ_OK && in->types != NULL && i < plan->n; i++) {
        rc = plan_check_type(in, in->types[i], err);
    }
    return rc;
}

/* Whether the runs cover all rows; counts those that bring a cell. */
static int plan_check_runs(const tqi_plan *plan, tqi_plan_field *out, tq_error *err)
{
    const tqi_batch_field *in = out->in;
    uint64_t rows = 0;

    for (size_t i = 0; i < in->n_runs; i++) {
        uint32_t block = in->runs[i].block;
        if (in->runs[i].rows == 0 ||
            (block != TQI_RUN_NONE && block != TQI_RUN_OPAQUE && block > plan->batch->n_blocks)) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': run %zu is malformed", in->name, i);
        }
        if (block == TQI_RUN_OPAQUE && in->opaque == NULL) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': opaque cells without bytes",
                                 in->name);
        }
        rows += in->runs[i].rows;
        out->produced += block != TQI_RUN_NONE ? in->runs[i].rows : 0;
    }
    if (rows != plan->n) {
        return tqi_error_set(err, TQ_EROWS, "field '%s' has %llu rows, the batch has %zu", in->name,
                             (unsigned long long)rows, plan->n);
    }
    return TQ_OK;
}

/* ---------------------------------------------------------------------------------------- shapes */

/* Calls for each row that brings a cell are the same for shapes and bytes: this walks them. */
typedef struct plan_walk {
    const tqi_batch_field *in;
    size_t run;
    uint32_t left; /* rows of the run */
} plan_walk;

static const tqi_run *plan_next(plan_walk *walk)
{
    if (walk->left == 0) {
        walk->left = walk->in->runs[walk->run++].rows;
    }
    walk->left--;
    return &walk->in->runs[walk->run - 1];
}

static uint32_t plan_given_type(const tqi_batch_field *in, size_t row)
{
    return in->types != NULL ? in->types[row] : tqi_type_pack(in->kind, in->dtype);
}

static int plan_uniform(tqi_plan *plan, tqi_plan_field *out, tq_error *err)
{
    const tqi_batch_field *in = out->in;
    uint32_t type = tqi_m_relative_type(out->type, plan_given_type(in, 0), in->ndim, in->shape);
    int rc;

    if (in->kind == TQ_VALUE && in->ndim != 1) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': a value has one dim, its size", in->name);
    }
    rc = tqi_m_shape_get_typed(plan->meta, type, in->ndim, in->shape, &out->shape, err);
    if (rc == TQ_OK) {
        tqi_m_shape_hold(plan->meta, out->shape, out->produced - 1);
        out->counted = out->produced;
    }
    return rc;
}

static int plan_ragged(tqi_plan *plan, tqi_plan_field *out, tq_error *err)
{
    const tqi_batch_field *in = out->in;
    plan_walk walk = {.in = in};
    size_t at = 0;

    out->shapes = calloc(plan->n, sizeof(*out->shapes));
    if (out->shapes == NULL) {
        return tqi_error_nomem(err, "shapes");
    }
    for (size_t i = 0; i < plan->n; i++) {
        uint32_t ndim = in->ndims[in->n_ndims == 1 ? 0 : i];
        bool cell = plan_next(&walk)->block != TQI_RUN_NONE;
        uint32_t type = plan_given_type(in, i);
        int rc = TQ_OK;

        if (ndim > in->n_dims - at || (cell && tqi_type_kind(type) == TQ_VALUE && ndim != 1)) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': shape of row %zu is malformed",
                                 in->name, i);
        }
        if (cell) {
            rc = tqi_m_shape_get_typed(plan->meta,
                                       tqi_m_relative_type(out->type, type, ndim, in->dims + at),
                                       ndim, in->dims + at, &out->shapes[i], err);
        }
        if (rc != TQ_OK) {
            return rc;
        }
        out->counted = i + 1;
        at += ndim;
    }
    if (at != in->n_dims) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %zu dims are left over", in->name,
                             in->n_dims - at);
    }
    return TQ_OK;
}

/* ---------------------------------------------------------------------------------------- types */

static int plan_row_order(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;

    return a < b ? -1 : a > b;
}

/* What the cells to be replaced are; `twice`: one of them is named by two rows. */
typedef struct plan_replaced {
    uint32_t own; /* of the field's type */
    uint32_t filled;
    bool twice;
} plan_replaced;

static int plan_replaces(const tqi_plan *plan, const tqi_plan_field *out, plan_replaced *replaced,
                         tq_error *err)
{
    const tqi_field *field = out->field;
    plan_walk walk = {.in = out->in};
    uint32_t *rows = malloc(plan->n * sizeof(*rows));
    size_t n = 0;

    if (rows == NULL) {
        return tqi_error_nomem(err, "rows");
    }
    for (size_t i = 0; i < plan->n; i++) {
        if (plan_next(&walk)->block != TQI_RUN_NONE) {
            rows[n++] = plan->rows[i].row;
        }
    }
    qsort(rows, n, sizeof(*rows), plan_row_order);
    for (size_t i = 0; i < n; i++) {
        tqi_cell cell = tqi_m_cell(field, rows[i]);
        bool own = tqi_m_produced(cell.block) && tqi_m_shape_type(plan->meta, cell.shape) == 0;
        replaced->twice = replaced->twice || (i > 0 && rows[i - 1] == rows[i]);
        replaced->own += own;
        replaced->filled += own && tqi_m_cell_filled(field, &cell);
    }
    free(rows);
    return TQ_OK;
}

/* Calls for each row that brings a cell: *first is the type of the first one that says what it is and is not `own`,
 * *any that of the first of all; `same`: some row is of the type `own`. */
static int plan_given(const tqi_plan *plan, const tqi_plan_field *out, uint32_t own,
                      uint32_t *first, uint32_t *any, bool *same, tq_error *err)
{
    const tqi_batch_field *in = out->in;
    plan_walk walk = {.in = in};
    size_t at = 0;

    for (size_t i = 0; i < plan->n; i++) {
        uint32_t ndim = in->ragged ? in->ndims[in->n_ndims == 1 ? 0 : i] : in->ndim;
        const uint64_t *dims = in->ragged ? in->dims + at : in->shape;
        uint32_t type = plan_given_type(in, i);
        bool cell = plan_next(&walk)->block != TQI_RUN_NONE;
        bool empty = false;

        if (in->ragged && ndim > in->n_dims - at) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': shape of row %zu is malformed",
                                 in->name, i);
        }
        at += in->ragged ? ndim : 0;
        if (!cell) {
            continue;
        }
        for (uint32_t d = 0; d < ndim && tqi_type_kind(type) == TQ_TENSOR; d++) {
            empty = empty || dims[d] == 0;
        }
        *any = *any != 0 ? *any : type;
        *same = *same || (!empty && type == own);
        if (!empty && type != own && *first == 0) {
            *first = type;
        }
    }
    return TQ_OK;
}

/* Whether the field may take the other type: no row of its own one is left that says so. */
static int plan_switches(const tqi_plan *plan, tqi_plan_field *out, uint32_t other, tq_error *err)
{
    const tqi_field *field = out->field;
    plan_replaced replaced = {0};
    int rc = plan_replaces(plan, out, &replaced, err);
    bool tensors = field->kind == TQ_TENSOR && tqi_type_kind(other) == TQ_TENSOR;
    uint32_t own = field->produced - field->foreign;

    if (rc == TQ_OK && !replaced.twice &&
        (tensors ? replaced.filled == field->filled : replaced.own == own)) {
        out->type = other;
        out->switches = true;
    }
    return rc;
}

/* The type of the field after the commit: of its first rows, until none of these is left. */
static int plan_type(const tqi_plan *plan, tqi_plan_field *out, tq_error *err)
{
    const tqi_batch_field *in = out->in;
    const tqi_field *field = out->field;
    uint32_t own = field->known ? tqi_m_field_type(field) : 0;
    uint32_t first = 0, any = 0;
    bool same = false;
    char expected[32], given[32];
    int rc;

    out->type = tqi_type_pack(in->kind, in->dtype);
    if (in->types == NULL && (own == 0 || own == out->type)) {
        return TQ_OK;
    }
    rc = plan_given(plan, out, own, &first, &any, &same, err);
    if (rc != TQ_OK) {
        return rc;
    }
    out->type = own != 0 ? own : first != 0 ? first : any;
    if (plan->meta->strict_schema) {
        if (own == 0) { /* of a new field only rows that differ among themselves can be refused */
            first = 0;
            rc = plan_given(plan, out, out->type, &first, &any, &same, err);
        }
        if (rc == TQ_OK && first != 0) {
            return tqi_error_set(err, TQ_EDTYPE,
                                 "field '%s' of partition '%s' holds %s, %s was given", in->name,
                                 field->partition->name, plan_type_text(out->type, expected),
                                 plan_type_text(first, given));
        }
        return rc;
    }
    return own != 0 && first != 0 && !same ? plan_switches(plan, out, first, err) : TQ_OK;
}

static uint32_t plan_shape(const tqi_plan_field *field, size_t row)
{
    return field->shapes != NULL ? field->shapes[row] : field->shape;
}

/* What the schema will be: uniform as long as all rows have one shape. */
static void plan_schema(tqi_plan *plan, tqi_plan_field *out)
{
    const tqi_field *field = out->field;
    bool same = tqi_type_kind(out->type) != TQ_VALUE;
    uint32_t shape = field->known ? field->shape : TQI_SHAPE_NONE;

    out->learns = !field->known;
    if (field->known && field->ragged) {
        return;
    }
    if (out->shapes == NULL) {
        same = same && (shape == TQI_SHAPE_NONE || shape == out->shape);
        shape = out->shape;
    }
    for (size_t i = 0; out->shapes != NULL && same && i < plan->n; i++) {
        if (out->shapes[i] != TQI_SHAPE_NONE) {
            shape = shape == TQI_SHAPE_NONE ? out->shapes[i] : shape;
            same = shape == out->shapes[i];
        }
    }
    out->schema = same ? shape : TQI_SHAPE_NONE;
    out->turns_ragged = field->known && !same;
    if (out->learns && same) {
        tqi_m_shape_hold(plan->meta, shape, 1);
    }
}

/* Which dim is ragged: what the column says of itself (the first says nothing: torch names it where all lengths agree),
 * and where its rows differ from those that are there. */
static void plan_ragged_dim(const tqi_plan *plan, tqi_plan_field *out)
{
    const tqi_field *field = out->field;
    uint8_t given = out->in->ragged_dim > 1 ? out->in->ragged_dim : 0;

    out->like = field->known ? field->like : TQI_SHAPE_NONE;
    out->ragged_dim = tqi_ragged_dim_join(field->known ? field->ragged_dim : 0, given);
    if (out->in->kind == TQ_VALUE && out->in->types == NULL) {
        return;
    }
    for (size_t i = 0; i < (out->shapes != NULL ? plan->n : 1); i++) {
        tqi_m_shape_vary(plan->meta, plan_shape(out, i), &out->like, &out->ragged_dim);
    }
}

/* ---------------------------------------------------------------------------------------- bytes */

static uint64_t plan_size(const tqi_batch_field *in, size_t row)
{
    return in->types != NULL ? tqi_type_size(in->types[row]) : in->dtype.bits / 8u;
}

static int plan_check_bytes(const tqi_plan *plan, const tqi_plan_field *field, tq_error *err)
{
    const tqi_batch_field *in = field->in;
    size_t row = 0;

    for (size_t i = 0; i < in->n_runs; i++) {
        const tqi_run *run = &in->runs[i];
        uint64_t end = run->offset;
        bool fits = true;

        for (uint32_t r = 0; run->block != TQI_RUN_NONE && r < run->rows; r++) {
            uint64_t elements = tqi_m_shape_elements(plan->meta, plan_shape(field, row + r));
            uint64_t bytes = 0;
            fits = !__builtin_mul_overflow(elements, plan_size(in, row + r), &bytes) && fits;
            fits = !__builtin_add_overflow(end, bytes, &end) && fits;
        }
        if (!fits || (run->block != TQI_RUN_NONE && run->block != TQI_RUN_OPAQUE &&
                      end > plan->batch->blocks[run->block - 1].size)) {
            return tqi_error_set(err, TQ_EINVAL,
                                 "field '%s': rows %zu to %zu do not fit into their block",
                                 in->name, row, row + run->rows - 1);
        }
        row += run->rows;
    }
    return TQ_OK;
}

static int plan_opaque(const tqi_plan *plan, tqi_plan_field *out, tq_error *err)
{
    plan_walk walk = {.in = out->in};

    if (out->in->opaque == NULL) {
        return TQ_OK;
    }
    out->opaque = calloc(plan->n, sizeof(tqi_opaque *));
    if (out->opaque == NULL) {
        return tqi_error_nomem(err, "opaque cells");
    }
    for (size_t i = 0; i < plan->n; i++) {
        const tq_slice *slice = &out->in->opaque[i];
        if (plan_next(&walk)->block != TQI_RUN_OPAQUE) {
            continue;
        }
        out->opaque[i] = malloc(sizeof(tqi_opaque) + slice->size);
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

/* ---------------------------------------------------------------------------------------- all of it */

static int plan_field(tqi_plan *plan, tqi_plan_field *out, uint64_t stamp, tq_error *err)
{
    const tqi_batch_field *in = out->in;
    tqi_field *field;
    int rc = tqi_m_field_get(plan->partition, in->name, &field, err);

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
        return tqi_error_set(err, TQ_EROWS, "field '%s' has %zu row shapes, the batch has %zu rows",
                             in->name, in->n_ndims, plan->n);
    }
    rc = plan_type(plan, out, err);
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
        rc = tqi_m_field_reserve(field, plan->max_row, err);
    }
    if (rc == TQ_OK) {
        plan_schema(plan, out);
        plan_ragged_dim(plan, out);
    }
    return rc;
}

int tqi_m_plan_fields(tqi_plan *plan, tq_error *err)
{
    uint64_t stamp = ++plan->meta->stamp;
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

/* What the rows are stored as, which differs from what was given where tensors have no elements. */
static int plan_describe_types(const tqi_plan *plan, const tqi_plan_field *from,
                               tqi_batch_field *out, tqi_result *result)
{
    const tqi_batch_field *in = from->in;
    uint32_t first = 0, *types;
    bool same = true;

    out->kind = in->kind;
    out->dtype = in->dtype;
    if (from->produced == 0 ||
        (in->types == NULL && from->type == tqi_type_pack(in->kind, in->dtype))) {
        return TQ_OK;
    }
    types = tqi_m_result_alloc(result, plan->n, sizeof(*types));
    if (types == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < plan->n; i++) {
        types[i] = tqi_m_shape_type(plan->meta, plan_shape(from, i));
        types[i] = types[i] != 0 ? types[i] : from->type;
        first = first != 0 ? first : types[i];
        same = same && types[i] == first;
    }
    out->kind = tqi_type_kind(first);
    out->dtype = tqi_type_dtype(first);
    out->types = same ? NULL : types;
    return TQ_OK;
}

int tqi_m_plan_describe(const tqi_plan *plan, tqi_result *result, tq_error *err)
{
    tqi_batch_field *fields = tqi_m_result_alloc(result, plan->n_fields, sizeof(*fields));

    if (fields == NULL) {
        return tqi_error_nomem(err, "reply");
    }
    for (size_t i = 0; i < plan->n_fields; i++) {
        const tqi_plan_field *from = &plan->fields[i];
        bool old = from->produced == 0 && from->field->known;
        uint32_t schema = old ? from->field->shape : from->schema;
        uint64_t room = 0;
        uint32_t ndim = from->in->ndim;
        const uint64_t *dims = from->in->shape;
        uint64_t *shape;

        fields[i].name = tqi_m_result_strdup(result, from->in->name);
        if (plan_describe_types(plan, from, &fields[i], result) != TQ_OK) {
            return tqi_error_nomem(err, "reply");
        }
        fields[i].ragged_dim = old ? from->field->ragged_dim : from->ragged_dim;
        fields[i].ragged = from->produced > 0 || old ? schema == TQI_SHAPE_NONE : from->in->ragged;
        if (schema != TQI_SHAPE_NONE) {
            dims = tqi_m_shape_dims(plan->meta, schema, &room, &ndim);
        }
        if (!fields[i].ragged) {
            shape = tqi_m_result_alloc(result, ndim, sizeof(*shape));
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

static void plan_link_field(tqi_plan *plan, tqi_plan_field *from)
{
    const tqi_batch_field *in = from->in;
    size_t row = 0;

    for (size_t i = 0; i < in->n_runs; i++) {
        const tqi_run *run = &in->runs[i];
        uint64_t offset = run->offset;

        for (uint32_t r = 0; r < run->rows; r++, row++) {
            tqi_cell cell = {0};
            if (run->block == TQI_RUN_NONE) {
                continue;
            }
            cell.shape = plan_shape(from, row);
            if (run->block == TQI_RUN_OPAQUE) {
                cell.block = TQI_CELL_OPAQUE;
                cell.offset = (uint64_t)(uintptr_t)from->opaque[row];
            } else {
                cell.block = plan->handles[run->block - 1];
                cell.offset = offset;
                offset += tqi_m_shape_elements(plan->meta, cell.shape) * plan_size(in, row);
            }
            tqi_m_cell_link(from->field, plan->rows[row].index, plan->rows[row].row, cell);
        }
    }
}

/* The rows that are replaced let go of what they have while the field still is of their type. */
static void plan_blank(const tqi_plan *plan, const tqi_plan_field *from)
{
    plan_walk walk = {.in = from->in};

    for (size_t i = 0; i < plan->n; i++) {
        if (plan_next(&walk)->block != TQI_RUN_NONE) {
            tqi_m_cell_blank(from->field, plan->rows[i].row);
        }
    }
}

void tqi_m_plan_link(tqi_plan *plan)
{
    for (size_t i = 0; i < plan->n_fields; i++) {
        tqi_plan_field *from = &plan->fields[i];
        if (from->produced == 0) {
            continue;
        }
        if (from->switches) {
            plan_blank(plan, from);
            tqi_m_field_set_type(from->field, from->type);
        }
        if (from->learns) {
            tqi_m_field_learn(from->field, tqi_type_kind(from->type), tqi_type_dtype(from->type),
                              from->schema);
        } else if (from->turns_ragged) {
            tqi_m_field_make_ragged(from->field);
        }
        tqi_m_field_set_ragged_dim(from->field, from->ragged_dim, from->like);
        plan_link_field(plan, from);
    }
}

void tqi_m_plan_fields_fini(tqi_plan *plan)
{
    for (size_t i = 0; i < plan->n_fields; i++) {
        tqi_plan_field *from = &plan->fields[i];

        if (!plan->committed) {
            if (from->learns) {
                tqi_m_shape_rele(plan->meta, from->schema, 1);
            }
            if (from->shapes == NULL) {
                tqi_m_shape_rele(plan->meta, from->shape, from->counted);
            }
            for (uint64_t r = 0; from->shapes != NULL && r < from->counted; r++) {
                tqi_m_shape_rele(plan->meta, from->shapes[r], 1);
            }
            for (size_t r = 0; from->opaque != NULL && r < plan->n; r++) {
                free(from->opaque[r]);
            }
        }
        free(from->shapes);
        free(from->opaque);
        if (from->field != NULL) {
            from->field->plans--;
            tqi_m_field_gc(from->field);
        }
    }
    free(plan->fields);
}
