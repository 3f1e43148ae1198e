/*
 * plan.c - what a read does with each column: its destination, and whether it is copied, borrowed or left; and which
 * cells cannot be read, by name.
 */
#include "client/get/get.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/text.h"

static bool plan_placed(uint32_t block)
{
    return tqi_block_named(block);
}

/* --- naming what is missing ----------------------------------------------- */

#define PLAN_NAMED 5 /* most samples named per field, and most fields named */

typedef bool (*plan_match)(const tqi_client_get *get, const tqi_client_cells *cells, size_t row);

static void plan_name_field(const tqi_client_get *get, const tqi_client_cells *cells, plan_match match, tqi_buf *text)
{
    size_t found = 0, all = 0;

    for (size_t i = 0; i < get->meta->n; i++) {
        all += match(get, cells, i);
    }
    for (size_t i = 0; i < get->meta->n && found < all; i++) {
        if (!match(get, cells, i)) {
            continue;
        }
        if (found == 0) {
            tqi_buf_printf(text, "%sfield '%s' of sample%s", text->size > 0 ? "; " : "", cells->pub.name,
                           tqi_text_s(all));
        }
        if (found < PLAN_NAMED) {
            const char *key = tq_meta_key(get->meta, i);
            tqi_buf_printf(text, "%s %u", found > 0 ? "," : "", get->meta->indexes[i]);
            if (key != NULL) {
                tqi_buf_printf(text, " ('%.40s')", key);
            }
        }
        found++;
    }
    if (found > PLAN_NAMED) {
        tqi_buf_printf(text, " and %zu more", found - PLAN_NAMED);
    }
}

/* "partition 'p', field 'a' of samples 1, 2; field 'b' ..." */
static int plan_name(const tqi_client_get *get, plan_match match, int rc, const char *what, tq_error *err)
{
    tqi_buf text = {0};
    size_t named = 0;

    for (size_t c = 0; c < get->n_fields && named < PLAN_NAMED; c++) {
        size_t before = text.size;
        plan_name_field(get, tqi_client_get_cells(get, c), match, &text);
        named += text.size > before;
    }
    tqi_error_set(err, rc, "partition '%.128s': %s: %.*s: %s", get->meta->partition, what,
                  (int)(text.size < 250 ? text.size : 250), text.data != NULL ? (const char *)text.data : "",
                  rc == TQ_ELOST ? "put them again, or load a checkpoint; tq status counts lost cells"
                                 : "claim them, which waits, or read what tq status shows as produced");
    tqi_buf_fini(&text);
    return rc;
}

static bool plan_is_lost(const tqi_client_get *get, const tqi_client_cells *cells, size_t row)
{
    (void)get;
    return cells->block[row] == TQI_BLOCK_LOST;
}

static bool plan_is_not_ready(const tqi_client_get *get, const tqi_client_cells *cells, size_t row)
{
    (void)get;
    return cells->block[row] == TQI_BLOCK_NONE || cells->block[row] == TQI_BLOCK_UNKNOWN;
}

bool tqi_client_get_missing(const tqi_client_get *get, tq_error *err)
{
    bool lost = false;
    bool missing = false;

    for (size_t c = 0; c < get->n_fields; c++) {
        const tqi_client_cells *cells = tqi_client_get_cells(get, c);
        for (size_t i = 0; i < get->meta->n; i++) {
            lost = lost || plan_is_lost(get, cells, i);
            missing = missing || plan_is_not_ready(get, cells, i);
        }
    }
    if (err != NULL && lost) {
        plan_name(get, plan_is_lost, TQ_ELOST, "lost with their storage", err);
    } else if (err != NULL && missing) {
        plan_name(get, plan_is_not_ready, TQ_ENOTREADY, "not ready", err);
    }
    return lost || missing;
}

static bool plan_is_gone(const tqi_client_get *get, const tqi_client_cells *cells, size_t row)
{
    uint64_t id;

    if (!plan_placed(cells->block[row]) || tqi_client_cells_size(cells, row) == 0) {
        return false;
    }
    id = get->meta->blocks->blocks[cells->block[row] - 1].id;
    for (size_t g = 0; g < get->n_gone; g++) {
        if (get->gone[g].id == id) {
            return true;
        }
    }
    return false;
}

bool tqi_client_get_still_gone(const tqi_client_get *get, tq_error *err)
{
    for (size_t c = 0; c < get->n_fields; c++) {
        const tqi_client_cells *cells = tqi_client_get_cells(get, c);
        for (size_t i = 0; i < get->meta->n; i++) {
            if (plan_is_gone(get, cells, i)) {
                plan_name(get, plan_is_gone, TQ_ELOST, "not in their storage any more", err);
                return true;
            }
        }
    }
    return false;
}

/* --- destination columns -------------------------------------------------- */

#define PLAN_ALIGN 16u

static int plan_dims(tq_data *data, const tqi_client_cells *cells, size_t rows, tq_data_column *column, tq_error *err)
{
    tqi_region *region = &data->region;
    uint32_t *ndims = tqi_region_array(region, rows, sizeof(*ndims));
    uint64_t *offsets = tqi_region_array(region, rows + 1, sizeof(*offsets));
    uint64_t *dims;
    size_t total = 0;
    uint32_t ndim;

    if (ndims == NULL || offsets == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    offsets[0] = 0;
    for (size_t i = 0; i < rows; i++) {
        tqi_client_cells_dims(cells, i, &ndim);
        ndims[i] = ndim;
        total += ndim;
        if (__builtin_add_overflow(offsets[i], tqi_client_cells_size(cells, i), &offsets[i + 1]) ||
            offsets[i + 1] > INT64_MAX - PLAN_ALIGN) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': more bytes than can be read at once", column->name);
        }
        if (cells->types != NULL) {
            /* Elements of every size must be aligned for access. */
            offsets[i + 1] = (offsets[i + 1] + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
        }
    }
    dims = tqi_region_array(region, total, sizeof(*dims));
    if (dims == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    if (cells->types != NULL) {
        column->types = tqi_region_copy(region, cells->types, rows, sizeof(*cells->types));
        if (column->types == NULL) {
            return tqi_error_nomem(err, "a read");
        }
    }
    column->ragged = false;
    column->ndim = rows > 0 ? ndims[0] : cells->pub.ndim;
    column->ndims = ndims;
    column->offsets = offsets;
    column->dims = dims;
    column->shape = rows > 0 ? dims : tqi_region_copy(region, cells->pub.shape, cells->pub.ndim, sizeof(*dims));
    for (size_t i = 0; i < rows; i++) {
        const uint64_t *row = tqi_client_cells_dims(cells, i, &ndim);
        for (uint32_t d = 0; d < ndim; d++) {
            dims[d] = row[d];
        }
        column->ragged = column->ragged || ndim != column->ndim ||
                         (ndim > 0 && memcmp(dims, column->shape, ndim * sizeof(*dims)) != 0);
        dims += ndim;
    }
    return column->shape != NULL ? TQ_OK : tqi_error_nomem(err, "a read");
}

static int plan_opaque(tq_data *data, const tqi_client_cells *cells, size_t rows, tq_data_column *column, bool *opaque,
                       tq_error *err)
{
    tq_slice *notes;
    size_t found = 0;

    for (size_t i = 0; i < rows; i++) {
        found += cells->block[i] == TQI_BLOCK_OPAQUE;
    }
    *opaque = found > 0;
    if (found == 0) {
        return TQ_OK;
    }
    if (found != rows) {
        return tqi_error_set(err, TQ_EUNSUPPORTED,
                             "field '%s': %zu of %zu samples are kept by a manager that keys by "
                             "index; read them apart",
                             column->name, found, rows);
    }
    notes = tqi_region_array(&data->region, rows, sizeof(*notes));
    if (notes == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    for (size_t i = 0; i < rows; i++) {
        notes[i].size = cells->opaque[i].size;
        notes[i].data = tqi_region_copy(&data->region, cells->opaque[i].data, notes[i].size, 1);
        if (notes[i].data == NULL) {
            return tqi_error_nomem(err, "a read");
        }
    }
    column->opaque = notes;
    return TQ_OK;
}

static int plan_column(tqi_client_get *get, size_t c, bool *opaque, tq_error *err)
{
    tq_data *data = get->data;
    tq_data_column *column = &data->columns[c];
    const tqi_client_cells *cells = tqi_client_get_cells(get, c);
    int rc;

    column->kind = cells->pub.kind;
    column->dtype = cells->pub.dtype;
    column->ragged_dim = cells->pub.ragged_dim;
    column->name = tqi_region_string(&data->region, cells->pub.name);
    if (column->name == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    if (!tqi_client_cells_shaped(cells) && get->meta->n > 0) {
        return tqi_error_set(err, TQ_EPROTO, "field '%s': the controller told no shapes", column->name);
    }
    rc = plan_dims(data, cells, get->meta->n, column, err);
    rc = rc ? rc : plan_opaque(data, cells, get->meta->n, column, opaque, err);
    if (rc != TQ_OK || *opaque) {
        return rc;
    }
    return tqi_client_get_pad(get, c, err);
}

int tqi_client_get_plan(tqi_client_get *get, tq_error *err)
{
    tq_data_unref(get->data);
    get->n_ranges = 0;
    get->borrow.n = 0;
    get->gaps = 0;
    get->data = tqi_client_data_alloc(get->meta->n, get->n_fields);
    if (get->data == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    for (size_t c = 0; c < get->n_fields; c++) {
        bool opaque = false;
        int rc = plan_column(get, c, &opaque, err);
        if (rc == TQ_OK && !opaque && !tqi_client_get_may_borrow(get, c) && !tqi_client_get_may_leave(get, c)) {
            rc = tqi_client_get_memory(get, c, get->data->columns[c].offsets[get->meta->n], err);
            rc = rc ? rc : tqi_client_get_plan_ranges(get, c, err);
        }
        if (rc != TQ_OK) {
            return rc;
        }
    }
    return TQ_OK;
}
