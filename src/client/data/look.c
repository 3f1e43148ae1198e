/*
 * look.c - tq_data_look: reading rows that a read left in the store, in place. The unit may reuse their memory at any
 * time, so each access is validated by the block's slot, like every read of shared memory (store/store.h): the slot's
 * word must hold the block's id before and after. Ids are never reused, so two accesses that both pass saw the same
 * bytes. Before the memory goes away under a reader (the client is closed) or would be missing in a child (it is not
 * inherited), what was left becomes a copy. A lock separates copying and reading; a reader holds it for the rows of
 * one call.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fence.h"
#include "client/data/data.h"

static bool look_before(const tqi_client_left *left)
{
    /* Acquire: no byte is read before the id was seen. */
    return left->word != NULL ? atomic_load_explicit(left->word, memory_order_acquire) == left->id : left->at != NULL;
}

static bool look_after(const tqi_client_left *left)
{
    if (left->word == NULL) {
        return true;
    }
    TQI_FENCE(memory_order_acquire);
    return atomic_load_explicit(left->word, memory_order_relaxed) == left->id;
}

void tqi_client_left_own(tqi_client_borrows *borrows)
{
    uint64_t size = 0, at = 0;

    if (borrows->n_left == 0) {
        return;
    }
    pthread_rwlock_wrlock(&borrows->moved);
    for (size_t i = 0; i < borrows->n_left; i++) {
        size += borrows->left[i].word != NULL ? borrows->left[i].size : 0;
    }
    if (borrows->copy == NULL && size > 0) {
        borrows->copy = malloc(size);
    }
    for (size_t i = 0; i < borrows->n_left; i++) {
        tqi_client_left *left = &borrows->left[i];
        uint8_t *to = borrows->copy != NULL ? (uint8_t *)borrows->copy + at : NULL;
        if (left->word == NULL) {
            continue;
        }
        bool there = to != NULL && look_before(left);
        if (there) {
            TQI_RACY_BEGIN();
            memcpy(to, left->at, left->size);
            TQI_RACY_END();
            there = look_after(left);
        }
        left->at = there ? to : NULL;
        left->word = NULL;
        at += left->size;
    }
    pthread_rwlock_unlock(&borrows->moved);
}

/* The piece that holds a row of the column; NULL: none. */
static const tqi_client_left *look_find(const tqi_client_borrows *borrows, size_t c, size_t row)
{
    size_t low = 0, high = borrows->n_left;

    while (low < high) { /* the first one after it */
        size_t middle = low + (high - low) / 2;
        const tqi_client_left *left = &borrows->left[middle];
        if (left->column < c || (left->column == c && left->row <= row)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 && borrows->left[low - 1].column == c ? &borrows->left[low - 1] : NULL;
}

int tq_data_look(const tq_data *data, size_t c, size_t row, size_t n,
                 void (*look)(void *arg, size_t row, const void *bytes, size_t size), void *arg)
{
    int rc = TQ_OK;

    if (data == NULL || look == NULL || c >= data->n_columns || !data->columns[c].left || row > data->rows ||
        n > data->rows - row) {
        return TQ_EINVAL;
    }
    const uint64_t *offsets = data->columns[c].offsets;
    pthread_rwlock_rdlock(&data->borrows->moved);
    for (size_t end = row + n; row < end && rc == TQ_OK; row++) {
        const tqi_client_left *left = look_find(data->borrows, c, row);
        if (left == NULL || !look_before(left)) {
            rc = TQ_ELOST;
            break;
        }
        TQI_RACY_BEGIN();
        look(arg, row, left->at + (offsets[row] - offsets[left->row]), (size_t)(offsets[row + 1] - offsets[row]));
        TQI_RACY_END();
        rc = look_after(left) ? TQ_OK : TQ_ELOST;
    }
    pthread_rwlock_unlock(&data->borrows->moved);
    return rc;
}
