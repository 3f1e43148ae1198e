/*
 * by_index.c - a program that keeps the data itself, under a name per sample, and tells the table only that it is
 * there: readers get the names back as notes, and a clear in two phases says what to remove.
 */
#include <string.h>

#include "example.h"

#define REMOVER "ByIndex"

/* Two samples whose field "x" is in files of the program's. */
static void announce(tq_op *op)
{
    const tq_slice notes[2] = {{"file-0", 6}, {"file-1", 6}};
    const tq_slice *of_column = notes;
    const tq_column column = tq_column_make("x", TQ_FLOAT, 32, 2, NULL);
    tq_put_args args = tq_put_args_init();

    done(op, tq_reserve(op, "by-index", 2, NULL, NULL));
    args.meta = tq_op_meta(op);
    args.columns = &column;
    args.n_columns = 1;
    args.remover = REMOVER;
    done(op, tq_notify(op, &args, &of_column));
}

static void read_notes(tq_op *op)
{
    tq_resolve_args which = tq_resolve_args_init();
    const tq_slice *notes;

    which.partition = "by-index";
    done(op, tq_resolve(op, &which));
    notes = tq_meta_notes(tq_op_meta(op), 0);
    for (size_t i = 0; i < tq_meta_sample_count(tq_op_meta(op)); i++) {
        printf("read %.*s\n", (int)notes[i].size, (const char *)notes[i].data);
    }
}

/* Phase one: the samples are gone. Then the files are removed. Phase two: their indexes may be used again. */
static void clear(tq_op *op)
{
    tq_begin_clear_args args = tq_begin_clear_args_init();
    const tq_clearing *const *clearings;
    uint64_t ids[16];
    size_t n;

    args.remover = REMOVER;
    args.partition = "by-index";
    done(op, tq_begin_clear(op, &args));
    clearings = tq_op_clearings(op, &n);
    n = n < 16 ? n : 16;
    for (size_t i = 0; i < n; i++) {
        printf("remove %zu files\n", tq_meta_sample_count(clearings[i]->meta));
        ids[i] = clearings[i]->id;
    }
    for (size_t i = 0; i < n; i++) {
        done(op, tq_end_clear(op, ids[i], true));
    }
}

int main(void)
{
    tq_client *client = open_client();
    tq_op *op = tq_op_alloc(client, NULL, NULL);

    announce(op);
    read_notes(op);
    clear(op);
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
