/*
 * borrow.c - reads without copying: decides which columns can be read in place, and asks for them. Only tensors:
 * other values are decoded anyway and the bytes then discarded. Only large ones: a mapping costs as much as copying
 * BORROW_MIN bytes, and a process may have only some tens of thousands of mappings.
 */
#include "client/get/get.h"

#include "base/buf.h"
#include "base/error.h"

#define BORROW_MIN (UINT64_C(64) << 10)

/* Whether the rows lie end to end in one block; *first is the first row that has bytes. */
static bool borrow_together(const tqi_client_get *get, const tqi_client_cells *cells, size_t *first)
{
    bool found = false;
    uint64_t end = 0;

    for (size_t i = 0; i < get->meta->n; i++) {
        uint64_t size = tqi_client_cells_size(cells, i);
        if (size == 0) {
            continue;
        }
        if (!found) {
            *first = i;
            found = true;
        } else if (cells->block[i] != cells->block[*first] || cells->offset[i] != end) {
            return false;
        }
        end = cells->offset[i] + size;
    }
    return found;
}

bool tqi_client_get_may_borrow(tqi_client_get *get, size_t c)
{
    const tq_data_column *column = &get->data->columns[c];
    const tqi_client_cells *cells = tqi_client_get_cells(get, c);
    uint64_t size = column->offsets[get->meta->n];
    size_t first = 0;

    if (!get->zero_copy || get->task.rt->internal.borrow == NULL || column->kind != TQ_TENSOR ||
        column->types != NULL || column->padded || size < BORROW_MIN ||
        (get->layouts != NULL && get->layouts[c].dest != NULL) || !borrow_together(get, cells, &first)) {
        return false;
    }
    const tqi_manager_borrow_range range = {
        .block = &get->meta->blocks->blocks[cells->block[first] - 1],
        .offset = cells->offset[first],
        .size = size,
    };

    return tqi_client_get_note(get, c, &range);
}

int tqi_client_get_copy_instead(tqi_client_get *get, tq_error *err)
{
    int rc = TQ_OK;

    for (size_t i = 0; i < get->borrow.n && rc == TQ_OK; i++) {
        size_t c = get->borrow_column[i];
        if (get->borrow.ranges[i].data == NULL && get->data->columns[c].data == NULL) {
            rc = tqi_client_get_memory(get, c, get->data->columns[c].offsets[get->meta->n], err);
            rc = rc ? rc : tqi_client_get_plan_ranges(get, c, err);
        }
    }
    return rc;
}

/* Takes over the manager's mappings, even if the op is gone: they must be given back. */
static void borrow_done(tqi_manager_borrow_job *job)
{
    tqi_client_get *get = job->arg;
    tqi_client_borrows *borrows = get->data->borrows;

    for (size_t i = 0; i < job->n;) {
        const tqi_manager_borrow_range *range = &job->ranges[i];
        if (range->shared) {
            i = tqi_client_get_left(get, i);
            continue;
        }
        if (range->data != NULL) {
            get->data->columns[get->borrow_column[i]].data = range->data;
            borrows->maps[borrows->n_maps++] = (tqi_client_borrow_map){range->map, range->map_size};
        }
        i++;
    }
    for (size_t i = 0; i < job->n_handles; i++) {
        borrows->handles[borrows->n_handles++] = job->handles[i];
    }
    if (borrows->n_handles > 0) {
        tqi_client_borrows_attach(borrows, get->task.rt);
    }
    get->borrowed(get);
}

bool tqi_client_get_borrow(tqi_client_get *get, void (*borrowed)(tqi_client_get *get))
{
    if (get->borrow.n == 0) {
        return false;
    }
    get->borrowed = borrowed;
    get->data->borrows = tqi_client_borrows_make(get->borrow.n);
    get->borrow.handles = tqi_region_zero(&get->task.region, get->borrow.n, sizeof(*get->borrow.handles));
    if (get->data->borrows == NULL || get->borrow.handles == NULL) {
        borrowed(get); /* nothing can be borrowed: all is copied */
        return true;
    }
    get->borrow.n_handles = 0;
    get->borrow.deadline_ns = get->task.deadline;
    get->borrow.done = borrow_done;
    get->borrow.arg = get;
    get->task.rt->internal.borrow(get->task.rt->manager_state, &get->borrow);
    return true;
}
