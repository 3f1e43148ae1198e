/*
 * leave.c - reads that leave values in the store, for readers that decode them into objects of their own
 * (tq_data_look).
 *
 * Only large columns, because copying a small one on the loop takes no time. Only rows that are texts, bytes, or lists
 * and maps of them: a tensor or an image inside a value needs memory that was read into. The first row decides; if
 * others differ, they are read more slowly, but not wrongly.
 */
#include "client/get/get.h"

#include <tq/value.h>

#include "base/fence.h"

#define LEAVE_MIN (UINT64_C(256) << 10)
/* Average bytes of a row; and the extension type for large memory, see docs/values.md. */
#define LEAVE_ROW 4096u
/* How many values of the first row are inspected. */
#define LEAVE_VALUES 64u

bool tqi_client_get_may_leave(tqi_client_get *get, size_t c)
{
    const tq_data_column *column = &get->data->columns[c];
    const tqi_client_cells *cells = tqi_client_get_cells(get, c);
    size_t before = get->borrow.n;
    uint64_t end = 0;

    if (!get->leave_values || get->task.rt->internal.borrow == NULL || column->kind != TQ_VALUE ||
        column->types != NULL || (get->layouts != NULL && get->layouts[c].dest != NULL) ||
        column->offsets[get->meta->n] < LEAVE_MIN || column->offsets[get->meta->n] / get->meta->n < LEAVE_ROW) {
        return false;
    }
    for (size_t i = 0; i < get->meta->n; i++) {
        const tqi_manager_borrow_range range = {
            .block = &get->meta->blocks->blocks[cells->block[i] - 1],
            .offset = cells->offset[i],
            .size = tqi_client_cells_size(cells, i),
            .shared = true,
        };
        tqi_manager_borrow_range *last = get->borrow.n > before ? &get->borrow.ranges[get->borrow.n - 1] : NULL;

        if (range.size == 0) { /* no value is of no bytes */
            get->borrow.n = before;
            return false;
        }
        if (last != NULL && last->block == range.block && range.offset == end) {
            last->size += range.size;
        } else if (!tqi_client_get_note(get, c, &range)) {
            get->borrow.n = before;
            return false;
        }
        end = range.offset + range.size;
    }
    return true;
}

/* Whether a row is a text, bytes, or lists and maps of those, judging by its first values. Only a hint: the bytes may
 * change meanwhile. */
static bool leave_is_plain(const uint8_t *bytes, size_t size)
{
    bool plain = true;
    size_t at = 0;

    TQI_RACY_BEGIN();
    for (unsigned i = 0; i < LEAVE_VALUES && at < size && plain; i++) {
        tq_value value;
        size_t used = 0;
        plain = tq_value_read(bytes + at, size - at, &value, &used, NULL) == TQ_OK &&
                (value.type != TQ_VALUE_EXT || value.size < LEAVE_ROW);
        at += used;
    }
    TQI_RACY_END();
    return plain;
}

size_t tqi_client_get_left(tqi_client_get *get, size_t i)
{
    size_t c = get->borrow_column[i], first = i, row = 0;
    tq_data *data = get->data;
    tq_data_column *column = &data->columns[c];
    tqi_client_borrows *borrows = data->borrows;
    bool all =
        get->borrow.ranges[i].data != NULL && leave_is_plain(get->borrow.ranges[i].data, (size_t)column->offsets[1]);

    for (; i < get->borrow.n && get->borrow_column[i] == c; i++) {
        all = all && get->borrow.ranges[i].data != NULL;
    }
    for (size_t k = first; k < i; k++) {
        tqi_manager_borrow_range *range = &get->borrow.ranges[k];
        uint64_t end = column->offsets[row] + range->size;
        if (!all) {
            range->data = NULL;
            continue;
        }
        borrows->left[borrows->n_left++] = (tqi_client_left){
            .column = c,
            .row = row,
            .at = range->data,
            .size = range->size,
            .word = range->word,
            .id = range->block->id,
        };
        while (row < data->rows && column->offsets[row] < end) {
            row++;
        }
    }
    column->left = all;
    return i;
}
