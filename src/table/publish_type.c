/*
 * publish_type.c - the kind and dtype of the fields of a planned publish. See publish_plan.h. A field has the type of
 * its first rows; rows of other types record theirs in their shapes. When a put replaces the last row of the field's
 * type, the field takes the new type. Tensors without elements do not count: they follow the field.
 */
#include "base/error.h"
#include "base/type.h"
#include "table/field.h"
#include "table/publish_plan.h"

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

int tqi_t_plan_check_type(const tqi_table_batch_field *in, uint32_t type, tq_error *err)
{
    tq_dtype dtype = tqi_type_dtype(type);

    if (type >> 16 > TQ_VALUE || dtype.bits == 0 || dtype.bits % 8 != 0) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': kind %u with dtype %u of %u bits is not known", in->name,
                             type >> 16, dtype.code, dtype.bits);
    }
    if (tqi_type_kind(type) == TQ_VALUE && (dtype.code != TQ_UINT || dtype.bits != 8)) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': values are bytes of uint8", in->name);
    }
    return TQ_OK;
}

static int plan_row_order(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;

    return a < b ? -1 : a > b;
}

/* The cells that the put replaces. */
typedef struct plan_replaced {
    uint32_t own;    /* of the field's type */
    uint32_t filled; /* of these, all but tensors without elements */
    bool twice;      /* a cell is replaced by two rows */
} plan_replaced;

static int plan_replaces(const tqi_table_plan *plan, const tqi_table_plan_field *out, plan_replaced *replaced,
                         tq_error *err)
{
    const tqi_table_field *field = out->field;
    tqi_table_plan_walk walk = {.in = out->in};
    uint32_t *rows = malloc(plan->n * sizeof(*rows));
    size_t n = 0;

    if (rows == NULL) {
        return tqi_error_nomem(err, "rows");
    }
    for (size_t i = 0; i < plan->n; i++) {
        if (tqi_t_plan_next(&walk)->block != TQI_BLOCK_NONE) {
            rows[n++] = plan->rows[i].row;
        }
    }
    qsort(rows, n, sizeof(*rows), plan_row_order);
    for (size_t i = 0; i < n; i++) {
        tqi_table_cell cell = tqi_t_cell(field, rows[i]);
        bool own = tqi_t_produced(cell.block) && tqi_t_shape_type(plan->table, cell.shape) == 0;
        replaced->twice = replaced->twice || (i > 0 && rows[i - 1] == rows[i]);
        replaced->own += own;
        replaced->filled += own && tqi_t_cell_filled(field, &cell);
    }
    free(rows);
    return TQ_OK;
}

/* Walks the rows that bring a cell, except tensors without elements: *first is the type of the first one whose type is
 * not `own`, and *same says whether any has the type `own`. *any is the type of the very first row, with or without
 * elements. */
static int plan_given(const tqi_table_plan *plan, const tqi_table_plan_field *out, uint32_t own, uint32_t *first,
                      uint32_t *any, bool *same, tq_error *err)
{
    const tqi_table_batch_field *in = out->in;
    tqi_table_plan_walk walk = {.in = in};
    size_t at = 0;

    for (size_t i = 0; i < plan->n; i++) {
        uint32_t ndim = in->ragged ? in->ndims[in->n_ndims == 1 ? 0 : i] : in->ndim;
        const uint64_t *dims = in->ragged ? in->dims + at : in->shape;
        uint32_t type = tqi_t_plan_given_type(in, i);
        bool cell = tqi_t_plan_next(&walk)->block != TQI_BLOCK_NONE;
        bool empty = false;

        if (in->ragged && ndim > in->n_dims - at) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': shape of row %zu is malformed", in->name, i);
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

/* Makes the field take the other type if no row of its own type is left. */
static int plan_switches(const tqi_table_plan *plan, tqi_table_plan_field *out, uint32_t other, tq_error *err)
{
    const tqi_table_field *field = out->field;
    plan_replaced replaced = {0};
    int rc = plan_replaces(plan, out, &replaced, err);
    bool tensors = field->kind == TQ_TENSOR && tqi_type_kind(other) == TQ_TENSOR;
    uint32_t own = field->produced - field->foreign;

    if (rc == TQ_OK && !replaced.twice && (tensors ? replaced.filled == field->filled : replaced.own == own)) {
        out->type = other;
        out->switches = true;
    }
    return rc;
}

int tqi_t_plan_type(const tqi_table_plan *plan, tqi_table_plan_field *out, tq_error *err)
{
    const tqi_table_batch_field *in = out->in;
    const tqi_table_field *field = out->field;
    uint32_t own = field->known ? tqi_t_field_type(field) : 0;
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
    if (plan->table->strict_schema) {
        if (own == 0) { /* in a new field, only rows that differ among themselves can be refused */
            first = 0;
            rc = plan_given(plan, out, out->type, &first, &any, &same, err);
        }
        if (rc == TQ_OK && first != 0) {
            return tqi_error_set(err, TQ_EDTYPE,
                                 "field '%.128s' of partition '%.128s' holds %s, given are %s: convert "
                                 "the rows, use another field, or switch controller.strict_schema "
                                 "off, which lets a field mix them",
                                 in->name, field->partition->name, plan_type_text(out->type, expected),
                                 plan_type_text(first, given));
        }
        return rc;
    }
    return own != 0 && first != 0 && !same ? plan_switches(plan, out, first, err) : TQ_OK;
}
