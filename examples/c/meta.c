/*
 * meta.c - metadata: what a claim returns, taking it apart, putting it together, sending it to another process.
 */
#include <string.h>

#include "example.h"

/* Two samples with keys, groups and a tag. */
static void put(tq_op *op)
{
    static const char *const keys[2] = {"left", "right"};
    static const char *const groups[2] = {"pair", "pair"};
    static const uint8_t version[2] = {3, 3}; /* the number 3, encoded, twice */
    static const uint32_t sizes[2] = {1, 1};
    const tq_tag tag = {.name = "version", .values = version, .sizes = sizes};
    const float numbers[2] = {1, 2};
    const tq_slice bytes = {numbers, sizeof(numbers)};
    const tq_column columns[2] = {
        tq_column_make("x", TQ_FLOAT, 32, 2, &bytes),
        tq_column_make("y", TQ_FLOAT, 32, 2, &bytes),
    };
    tq_put_args put = tq_put_args_init();

    put.partition = "meta";
    put.keys = keys;
    put.groups = groups;
    put.n = 2;
    put.columns = columns;
    put.n_columns = 2;
    put.tags = &tag;
    put.n_tags = 1;
    done(op, tq_put(op, &put));
}

static tq_meta *all_of(tq_op *op, const char *partition)
{
    tq_resolve_args which = tq_resolve_args_init();

    which.partition = partition;
    which.tags = true;
    done(op, tq_resolve(op, &which));
    return tq_meta_ref(tq_op_meta(op));
}

static void show_samples(const tq_meta *meta)
{
    const uint32_t *indexes = tq_meta_indexes(meta);
    const uint32_t *incarnations = tq_meta_incarnations(meta);

    for (size_t i = 0; i < tq_meta_sample_count(meta); i++) {
        const char *key = tq_meta_key(meta, i);
        const char *group = tq_meta_group(meta, i);

        printf("sample %u.%u: key %s, group %s\n", indexes[i], incarnations[i], key != NULL ? key : "-",
               group != NULL ? group : "-");
    }
}

static void show_fields(const tq_meta *meta)
{
    for (size_t f = 0; f < tq_meta_field_count(meta); f++) {
        const tq_meta_field *field = tq_meta_field_at(meta, f);

        printf("field %s, %u bits, %s\n", field->name, field->dtype.bits,
               tq_meta_notes(meta, f) != NULL ? "kept by index" : "with placements");
    }
}

static void show_tags(const tq_meta *meta)
{
    for (size_t t = 0; t < tq_meta_tag_count(meta); t++) {
        const tq_meta_tag *tag = tq_meta_tag_at(meta, t);

        printf("tag %s, first value of %u bytes\n", tag->name, tag->sizes[0]);
    }
}

static void show_origin(const tq_meta *meta)
{
    printf("partition %s, %s, %s\n", tq_meta_partition(meta), tq_meta_claim(meta) != 0 ? "claimed" : "looked up",
           tq_meta_epoch(meta) != 0 ? "by the controller" : "by hand");
}

static void find_by_name(const tq_meta *meta)
{
    size_t row;

    if (tq_meta_find_field(meta, "x") != NULL && tq_meta_find_tag(meta, "version") != NULL &&
        tq_meta_find_key(meta, "right", &row)) {
        printf("'right' is row %zu\n", row);
    }
}

/* One row and one field of a meta. */
static tq_meta *part_of(const tq_meta *meta, uint32_t row, const char *field)
{
    tq_meta *part;
    tq_error err;

    must(tq_meta_select(meta, &row, 1, &field, 1, &part, &err), &err);
    return part;
}

static void put_together(const tq_meta *meta)
{
    tq_meta *rows[2] = {part_of(meta, 0, "x"), part_of(meta, 1, "x")};
    tq_meta *other = part_of(meta, 0, "y");
    tq_meta *column, *row;
    tq_error err;

    must(tq_meta_concat(rows, 2, &column, &err), &err);
    must(tq_meta_union(rows[0], other, &row, &err), &err);
    printf("%zu samples; %zu fields\n", tq_meta_sample_count(column), tq_meta_field_count(row));
    tq_meta_unref(column);
    tq_meta_unref(row);
    tq_meta_unref(rows[0]);
    tq_meta_unref(rows[1]);
    tq_meta_unref(other);
}

/* As bytes, for a message to another process. */
static void send(const tq_meta *meta)
{
    uint8_t *bytes;
    size_t size;
    tq_meta *received;
    tq_error err;

    must(tq_meta_pack(meta, &bytes, &size, &err), &err);
    must(tq_meta_unpack(bytes, size, &received, &err), &err);
    free(bytes);
    printf("received %zu samples\n", tq_meta_sample_count(received));
    tq_meta_unref(received);
}

/* From indexes that a program has kept; a read looks their placements up. */
static void make_by_hand(tq_op *op, uint32_t index)
{
    const char *field = "x";
    tq_meta *meta;
    tq_error err;

    must(tq_meta_make("meta", &index, NULL, 1, &field, 1, &meta, &err), &err);
    show_origin(meta);
    done(op, tq_get(op, meta, NULL, 0, NULL));
    tq_meta_unref(meta);
}

int main(void)
{
    tq_client *client = open_client();
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    tq_meta *meta;

    put(op);
    meta = all_of(op, "meta");
    show_origin(meta);
    show_samples(meta);
    show_fields(meta);
    show_tags(meta);
    find_by_name(meta);
    put_together(meta);
    send(meta);
    make_by_hand(op, tq_meta_indexes(meta)[0]);
    tq_meta_unref(meta);
    done(op, tq_clear_partition(op, "meta"));
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
