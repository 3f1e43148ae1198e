/*
 * c_api.c - code as users of the C library write it, run against the system that the environment names: c_api STEP.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tq/value.h>

static tq_client *client;
static tq_op *op;

/* Ends the program when a call failed. */
static void done(int rc, const char *what)
{
    if (rc != TQ_OK || tq_op_wait(op) != TQ_OK) {
        fprintf(stderr, "%s: %s\n", what, tq_op_error(op)->message);
        exit(1);
    }
}

static void claim(int64_t n)
{
    const char *field = "x";
    const tq_claim_args args = {
        .size = sizeof(args),
        .partition = "p",
        .fields = &field,
        .n_fields = 1,
        .batch_size = n,
        .task = "t",
    };

    done(tq_claim(op, &args), "claim");
}

/* The most natural line: what was claimed is read, and then cleared, with one op. */
static void chain(void)
{
    claim(2);
    done(tq_get(op, tq_op_meta(op), NULL, 0, NULL), "get");
    const int64_t *numbers = tq_data_column_at(tq_op_data(op), 0)->data;
    printf("%d %d\n", (int)numbers[0], (int)numbers[1]);
    claim(2);
    done(tq_clear_meta(op, tq_op_meta(op)), "clear");
    printf("%d cleared\n", (int)tq_op_count(op));
}

/* A claim that failed has no metadata. */
static void failed(void)
{
    const char *field = "x";
    const tq_claim_args args = {
        .size = sizeof(args),
        .partition = "p",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 100,
        .task = "t",
        .poll = true,
    };

    printf("%d\n", tq_claim(op, &args) || tq_op_wait(op));
    printf("%s\n", tq_error_name(tq_get(op, tq_op_meta(op), NULL, 0, NULL)));
    printf("%s\n", tq_op_error(op)->message);
}

static void put(const tq_column *column, const tq_tag *tag)
{
    const char *keys[] = {"k0", "k1", "k2", "k3"};
    const tq_put_args args = {
        .size = sizeof(args),
        .partition = "v",
        .keys = keys,
        .n = column->rows,
        .columns = column,
        .n_columns = 1,
        .tags = tag,
        .n_tags = tag != NULL ? 1 : 0,
    };

    done(tq_put(op, &args), "put");
}

/* Raw text where an encoded value belongs. */
static void raw(void)
{
    const uint64_t sizes[] = {4, 5};
    static const uint8_t bytes[9] = {0xa3, 'o', 'k', '!', 'h', 'e', 'l', 'l', 'o'};
    const tq_slice given = {(void *)(uintptr_t)bytes, sizeof(bytes)};
    const tq_column column = {
        .name = "text",
        .kind = TQ_VALUE,
        .rows = 2,
        .ndim = 1,
        .dims = sizes,
        .slices = &given,
        .n_slices = 1,
    };

    put(&column, NULL);
}

/* The same with the helpers. */
static void values(void)
{
    tq_values *rows = tq_values_alloc();
    tq_values *steps = tq_values_alloc();
    tq_column column;
    tq_tag tag;
    tq_error err = {0};

    tq_values_str(rows, "h\xc3\xa9llo", 6);
    tq_values_int(rows, -5);
    tq_values_map(rows, 2);
    tq_values_str(rows, "a", 1);
    tq_values_list(rows, 3);
    tq_values_float(rows, 1.5);
    tq_values_null(rows);
    tq_values_bool(rows, true);
    tq_values_str(rows, "b", 1);
    tq_values_bytes(rows, "\0\xff", 2);
    tq_values_uint(rows, UINT64_MAX);
    for (int i = 0; i < 4; i++) {
        tq_values_int(steps, 100 * i);
    }
    if (tq_values_column(rows, "value", &column, &err) || tq_values_tag(steps, "step", &tag, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    put(&column, &tag);
    tq_values_free(rows);
    tq_values_free(steps);
}

/* Says how a call was refused. */
static void refused(int rc, const char *what)
{
    rc = rc == TQ_OK ? tq_op_wait(op) : rc;
    printf("%s: %s %s\n", what, tq_error_name(rc), tq_op_error(op)->message);
}

/* Names of an older encoding, which are no UTF-8: refused but for that of a tag. */
static void latin(void)
{
    const char *key = "cl\xe9";
    const char *field = "\xe9t\xe9";
    const char *plain = "key";
    const uint8_t seven = 7;
    const uint32_t size = 1;
    const tq_tag tag = {.name = "caf\xe9", .values = &seven, .sizes = &size};
    tq_put_args args = {.size = sizeof(args), .partition = "v", .keys = &key, .n = 1, .tags = &tag, .n_tags = 1};
    tq_claim_args wanted = {
        .size = sizeof(wanted),
        .partition = "v",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 2,
        .task = "task",
    };

    refused(tq_put(op, &args), "key");
    args.keys = &plain;
    args.partition = "caf\xe9";
    refused(tq_put(op, &args), "partition");
    refused(tq_claim(op, &wanted), "field");
    wanted.fields = &plain;
    wanted.task = "t\xe2"
                  "che";
    refused(tq_claim(op, &wanted), "task");
    args.partition = "v";
    done(tq_put(op, &args), "put");
}

/* Reads what Python has put: kinds and numbers of its values. */
static void look(void)
{
    const char *field = "value";
    const tq_resolve_args args = {.size = sizeof(args), .partition = "v"};

    done(tq_resolve(op, &args), "resolve");
    done(tq_get(op, tq_op_meta(op), &field, 1, NULL), "get");
    const tq_data_column *column = tq_data_column_at(tq_op_data(op), 0);
    for (size_t i = 0; i < tq_data_row_count(tq_op_data(op)); i++) {
        const uint8_t *at = (const uint8_t *)column->data + column->offsets[i];
        tq_value value;
        tq_error err = {0};
        size_t size = column->offsets[i + 1] - column->offsets[i];
        if (tq_value_check(at, size, &err) || tq_value_read(at, size, &value, NULL, &err)) {
            printf("%s\n", err.message);
        } else {
            printf("%d %.*s %g %zu\n", (int)value.type, value.type == TQ_VALUE_STR ? (int)value.size : 0,
                   (const char *)value.bytes, value.number, value.items);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } steps[] = {{"chain", chain},   {"failed", failed}, {"raw", raw},
                 {"values", values}, {"look", look},     {"latin", latin}};
    const tq_client_options options = {.size = sizeof(options)};
    tq_error err = {0};

    if (tq_client_open(&options, &client, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    op = tq_op_alloc(client, NULL, NULL);
    for (size_t i = 0; argc > 1 && i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (strcmp(argv[1], steps[i].name) == 0) {
            steps[i].run();
        }
    }
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
