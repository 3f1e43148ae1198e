/*
 * samples.c - the life of a batch: reserve, put, claim, look up, read in several ways, clear.
 */
#include <string.h>

#include "example.h"

static const char *const KEYS[3] = {"a", "b", "c"};

/* A prompt known only by its key: its samples exist, and get their fields later. */
static void reserve(tq_op *op)
{
    done(op, tq_reserve(op, "samples", 3, KEYS, NULL));
    printf("reserved %zu\n", tq_meta_sample_count(tq_op_meta(op)));
}

/* Three rows of two floats, prepared in the library's pool, whose pages are mapped already. */
static void put_by_key(tq_op *op)
{
    const uint64_t shape[1] = {2};
    float *rows = tq_buffer_take(6 * sizeof(float));
    tq_slice bytes = {rows, 6 * sizeof(float)};
    tq_column column = tq_column_make("logits", TQ_FLOAT, 32, 3, &bytes);
    tq_put_args put = tq_put_args_init();

    for (int i = 0; i < 6; i++) {
        rows[i] = (float)i;
    }
    column.ndim = 1;
    column.shape = shape;
    put.partition = "samples";
    put.keys = KEYS;
    put.n = 3;
    put.columns = &column;
    put.n_columns = 1;
    done(op, tq_put(op, &put));
    tq_buffer_give(rows, bytes.size);
}

static void claim(tq_op *op)
{
    const char *field = "logits";
    tq_claim_args claim = tq_claim_args_init();

    claim.partition = "samples";
    claim.task = "train";
    claim.fields = &field;
    claim.n_fields = 1;
    claim.batch_size = 3;
    claim.tags = true; /* with keys */
    done(op, tq_claim(op, &claim));
}

static void look_up(tq_op *op)
{
    tq_resolve_args which = tq_resolve_args_init();

    which.partition = "samples";
    which.keys = KEYS;
    which.n = 2;
    done(op, tq_resolve(op, &which));
}

static void read_all_columns(tq_op *op)
{
    tq_data *data;

    done(op, tq_get(op, tq_op_meta(op), NULL, 0, NULL));
    data = tq_data_ref(tq_op_data(op)); /* the op may be used again */
    for (size_t c = 0; c < tq_data_column_count(data); c++) {
        const tq_data_column *column = tq_data_column_at(data, c);
        printf("%s: %zu rows of %llu bytes\n", column->name, tq_data_row_count(data),
               (unsigned long long)(column->offsets[1] - column->offsets[0]));
    }
    tq_data_unref(data);
}

/* Rows go straight to where the caller wants them. */
static void read_into(tq_op *op, const tq_meta *meta, float *rows, size_t size)
{
    tq_get_field field = {.name = "logits", .dest = rows, .dest_size = size};
    tq_get_options options = tq_get_options_init();

    options.fields = &field;
    options.n_fields = 1;
    done(op, tq_get(op, meta, &field.name, 1, &options));
}

static void read_by_key(tq_op *op)
{
    tq_get_by_key_args which = tq_get_by_key_args_init();
    const tq_data_column *column;

    which.partition = "samples";
    which.keys = KEYS;
    which.n = 3;
    done(op, tq_get_by_key(op, &which));
    column = tq_data_find_column(tq_op_data(op), "logits");
    printf("last value %.0f\n", ((const float *)column->data)[5]);
}

static void clear(tq_op *op, const tq_meta *meta)
{
    done(op, tq_clear_meta(op, meta));
    printf("cleared %llu\n", (unsigned long long)tq_op_count(op));
}

int main(void)
{
    float rows[6];
    tq_client *client = open_client();
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    tq_meta *claimed;

    reserve(op);
    put_by_key(op);
    claim(op);
    claimed = tq_meta_ref(tq_op_meta(op));
    read_into(op, claimed, rows, sizeof(rows));
    look_up(op);
    read_all_columns(op);
    read_by_key(op);
    clear(op, claimed);
    tq_meta_unref(claimed);
    done(op, tq_clear_partition(op, "samples"));
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
