/*
 * values.c - texts, lists and maps as rows, numbers as tags; reading them back.
 */
#include <string.h>
#include <tq/value.h>

#include "example.h"

static void make_texts(tq_values *texts)
{
    if (tq_values_str(texts, "hello", 5) != TQ_OK || tq_values_bytes(texts, "\x00\xff", 2) != TQ_OK) {
        exit(1);
    }
}

/* {"turns": [1, 2.5, true, null], "seed": 2^63} */
static void make_conversation(tq_values *values)
{
    if (tq_values_map(values, 2) != TQ_OK || tq_values_str(values, "turns", 5) != TQ_OK ||
        tq_values_list(values, 4) != TQ_OK || tq_values_int(values, 1) != TQ_OK ||
        tq_values_float(values, 2.5) != TQ_OK || tq_values_bool(values, true) != TQ_OK ||
        tq_values_null(values) != TQ_OK || tq_values_str(values, "seed", 4) != TQ_OK ||
        tq_values_uint(values, UINT64_C(1) << 63) != TQ_OK) {
        exit(1);
    }
    printf("%zu value\n", tq_values_count(values));
}

/* Both rows of a put, with their score as a tag. */
static void put(tq_op *op, tq_values *texts, tq_values *scores)
{
    tq_put_args put = tq_put_args_init();
    tq_column column;
    tq_tag tag;
    tq_error err;

    must(tq_values_column(texts, "text", &column, &err), &err);
    must(tq_values_tag(scores, "score", &tag, &err), &err);
    put.partition = "values";
    put.n = column.rows;
    put.columns = &column;
    put.n_columns = 1;
    put.tags = &tag;
    put.n_tags = 1;
    done(op, tq_put(op, &put));
}

static void show(const void *bytes, size_t size)
{
    tq_value value;
    tq_error err;

    must(tq_value_read(bytes, size, &value, NULL, &err), &err);
    if (value.type == TQ_VALUE_STR) {
        printf("text '%.*s'\n", (int)value.size, (const char *)value.bytes);
    } else if (value.type == TQ_VALUE_BYTES) {
        printf("%zu bytes\n", value.size);
    }
}

static void read_back(tq_op *op, const tq_meta *meta)
{
    const tq_data_column *column;

    done(op, tq_get(op, meta, NULL, 0, NULL));
    column = tq_data_find_column(tq_op_data(op), "text");
    for (size_t row = 0; row < tq_data_row_count(tq_op_data(op)); row++) {
        const uint8_t *bytes = column->data;

        show(bytes + column->offsets[row], column->offsets[row + 1] - column->offsets[row]);
    }
}

static void check(const void *bytes, size_t size)
{
    tq_error err;

    if (tq_value_check(bytes, size, &err) != TQ_OK) {
        printf("not a value: %s\n", err.message);
    }
}

static void count_bytes(void *arg, size_t row, const void *bytes, size_t size)
{
    (void)row;
    (void)bytes;
    *(size_t *)arg += size;
}

/* Large texts may stay where they are: the caller looks at them in the store's memory. */
static void look(tq_op *op, const tq_meta *meta)
{
    tq_get_options options = tq_get_options_init();
    const tq_data *data;
    size_t size = 0;

    options.leave_values = true;
    done(op, tq_get(op, meta, NULL, 0, &options));
    data = tq_op_data(op);
    if (!tq_data_column_at(data, 0)->left) {
        printf("small texts are copied\n");
    } else if (tq_data_look(data, 0, 0, tq_data_row_count(data), count_bytes, &size) == TQ_OK) {
        printf("%zu bytes, in place\n", size);
    }
}

int main(void)
{
    tq_client *client = open_client();
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    tq_values *texts = tq_values_alloc(), *scores = tq_values_alloc(), *conversation = tq_values_alloc();
    tq_meta *meta;

    make_texts(texts);
    make_conversation(conversation);
    if (tq_values_float(scores, 0.5) != TQ_OK || tq_values_float(scores, 1) != TQ_OK) {
        return 1;
    }
    put(op, texts, scores);
    meta = tq_meta_ref(tq_op_meta(op));
    read_back(op, meta);
    look(op, meta);
    check("raw text", 8);
    tq_meta_unref(meta);
    tq_values_free(texts);
    tq_values_free(scores);
    tq_values_free(conversation);
    done(op, tq_clear_partition(op, "values"));
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
