/*
 * meta_test.c - metas are selected, concatenated, united and packed; packed bytes that are wrong are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/meta/meta.h"

/* A batch of n samples: "u" uniform float32 [2] in block 1, "r" ragged in block 2, whose row 1 is lost and row 2 not
 * produced. */
typedef struct sample_batch {
    Tq__Batch batch;
    Tq__Owner owner;
    Tq__Block blocks[2];
    Tq__Field fields[2];
    Tq__Tag tag;
    Tq__Owner *owners[1];
    Tq__Block *block_list[2];
    Tq__Field *field_list[2];
    Tq__Tag *tag_list[1];
    uint32_t index[4], incarnation[4], tag_sizes[4];
    char *keys[4];
    uint64_t shape[1];
    uint32_t ndims[4];
    uint64_t dims[4];
    uint32_t run_block[4], run_rows[4];
    uint64_t run_offset[4];
    uint32_t u_block, u_rows;
    uint64_t u_offset;
    uint8_t tag_values[4];
    uint8_t locator[3];
} sample_batch;

static void sample_fields(sample_batch *s)
{
    Tq__Field *u = &s->fields[0];
    Tq__Field *r = &s->fields[1];
    const uint32_t runs[4] = {2, 3, 0, 2};

    u->name = "u";
    u->dtype = TQ_FLOAT | 32 << 8;
    s->shape[0] = 2;
    u->shape = s->shape;
    u->n_shape = 1;
    s->u_block = 1;
    s->u_rows = 4;
    u->run_block = &s->u_block;
    u->run_rows = &s->u_rows;
    u->run_offset = &s->u_offset;
    u->n_run_block = u->n_run_rows = u->n_run_offset = 1;
    r->name = "r";
    r->dtype = TQ_INT | 64 << 8;
    r->ragged = true;
    s->ndims[0] = 1;
    s->ndims[3] = 2;
    s->dims[0] = 3;
    s->dims[1] = 2;
    s->dims[2] = 1;
    r->ndims = s->ndims;
    r->n_ndims = 4;
    r->dims = s->dims;
    r->n_dims = 3;
    for (int i = 0; i < 4; i++) {
        s->run_block[i] = runs[i];
        s->run_rows[i] = 1;
    }
    s->run_offset[3] = 24;
    r->run_block = s->run_block;
    r->run_rows = s->run_rows;
    r->run_offset = s->run_offset;
    r->n_run_block = r->n_run_rows = r->n_run_offset = 4;
}

static void sample_init(sample_batch *s)
{
    static char *names[4] = {"k0", "k1", "", "k3"};

    memset(s, 0, sizeof(*s));
    tq__batch__init(&s->batch);
    tq__owner__init(&s->owner);
    tq__tag__init(&s->tag);
    for (int i = 0; i < 2; i++) {
        tq__block__init(&s->blocks[i]);
        tq__field__init(&s->fields[i]);
        s->block_list[i] = &s->blocks[i];
        s->field_list[i] = &s->fields[i];
        s->blocks[i].id = 70 + (uint64_t)i;
        s->blocks[i].size = i == 0 ? 32 : 40;
        s->blocks[i].locator.data = s->locator;
        s->blocks[i].locator.len = sizeof(s->locator);
    }
    memcpy(s->locator, "loc", 3);
    s->owner.name = "unit";
    s->owner.incarnation = 9;
    s->owners[0] = &s->owner;
    s->tag_list[0] = &s->tag;
    for (uint32_t i = 0; i < 4; i++) {
        s->index[i] = 10 + i;
        s->incarnation[i] = 1 + i;
        s->keys[i] = names[i];
    }
    s->tag.name = "t";
    s->tag_sizes[0] = 1;
    s->tag_sizes[3] = 2;
    memcpy(s->tag_values, "\x05\xcc\xff", 3);
    s->tag.size = s->tag_sizes;
    s->tag.n_size = 4;
    s->tag.values.data = s->tag_values;
    s->tag.values.len = 3;
    sample_fields(s);
    s->batch.partition = "p";
    s->batch.epoch = 77;
    s->batch.index = s->index;
    s->batch.incarnation = s->incarnation;
    s->batch.key = s->keys;
    s->batch.n_index = s->batch.n_incarnation = s->batch.n_key = 4;
    s->batch.owner = s->owners;
    s->batch.n_owner = 1;
    s->batch.block = s->block_list;
    s->batch.n_block = 2;
    s->batch.field = s->field_list;
    s->batch.n_field = 2;
    s->batch.tag = s->tag_list;
    s->batch.n_tag = 1;
}

static tq_meta *sample_meta(void)
{
    sample_batch s;
    tq_meta *meta = NULL;
    tq_error err = {0};

    sample_init(&s);
    if (tqi_client_meta_decode(&s.batch, NULL, 5, false, &meta, &err) != TQ_OK) {
        fail_msg("%s", err.message);
    }
    return meta;
}

static void check_sample(const tq_meta *meta)
{
    const tq_meta_field *r = tq_meta_field_at(meta, 1);

    assert_int_equal(tq_meta_sample_count(meta), 4);
    assert_int_equal(tq_meta_epoch(meta), 77);
    assert_int_equal(tq_meta_claim(meta), 5);
    assert_int_equal(tq_meta_indexes(meta)[3], 13);
    assert_int_equal(tq_meta_incarnations(meta)[3], 4);
    assert_string_equal(tq_meta_key(meta, 3), "k3");
    assert_null(tq_meta_key(meta, 2));
    assert_memory_equal(r->ready, "\1\2\0\1", 4);
    assert_int_equal(r->ndims[3], 2);
    assert_int_equal(meta->fields[0].offset[3], 24);
    assert_int_equal(meta->fields[1].offset[3], 24);
    assert_int_equal(meta->blocks->blocks[meta->fields[1].block[3] - 1].id, 71);
    assert_string_equal(meta->blocks->blocks[meta->fields[1].block[0] - 1].owner, "unit");
    assert_int_equal(tqi_client_cells_size(&meta->fields[1], 3), 16);
    assert_memory_equal(tq_meta_tag_at(meta, 0)->values, "\x05\xcc\xff", 3);
    assert_int_equal(tq_meta_tag_at(meta, 0)->sizes[3], 2);
}

static void a_batch_is_decoded(void **state)
{
    tq_meta *meta = sample_meta();

    (void)state;
    check_sample(meta);
    tq_meta_unref(tq_meta_ref(meta));
    check_sample(meta);
    tq_meta_unref(meta);
}

/* Each corruption of a good batch is refused, and the message names it. */
static void every_corruption_of_a_batch_is_refused(void **state)
{
    (void)state;
    for (int wrong = 0;; wrong++) {
        sample_batch s;
        tq_meta *meta = NULL;
        tq_error err = {0};
        sample_init(&s);
        switch (wrong) {
        case 0:
            s.batch.n_incarnation = 3;
            break;
        case 1:
            s.batch.n_key = 3;
            break;
        case 2:
            s.tag.n_size = 3;
            break;
        case 3:
            s.tag.values.len = 2;
            break;
        case 4:
            s.blocks[1].owner = 1;
            break;
        case 5:
            s.blocks[0].locator.len = TQ_LOCATOR_MAX + 1;
            break;
        case 6:
            s.fields[0].n_shape = TQ_NDIM_MAX + 1;
            break;
        case 7:
            s.shape[0] = UINT64_MAX;
            break;
        case 8:
            s.fields[1].n_ndims = 3;
            break;
        case 9:
            s.fields[1].n_dims = 2;
            break;
        case 10:
            s.fields[1].n_dims = 4;
            break;
        case 11:
            s.ndims[0] = TQ_NDIM_MAX + 1;
            break;
        case 12:
            s.u_rows = 3;
            break;
        case 13:
            s.u_rows = 5;
            break;
        case 14:
            s.u_block = 5;
            break;
        case 15:
            s.u_block = 4;
            break; /* opaque, without notes */
        case 16:
            s.u_offset = 1;
            break;
        case 17:
            s.u_offset = UINT64_MAX;
            break;
        case 18:
            s.fields[0].n_run_offset = 0;
            break;
        case 19:
            s.fields[0].dtype = 99 | 32 << 8;
            break;
        case 20:
            s.fields[0].kind = 2;
            break;
        case 21:
            s.fields[0].name = "";
            break;
        case 22:
            s.fields[1].n_opaque = 1;
            break;
        default:
            assert_int_equal(wrong, 23);
            return;
        }
        assert_int_equal(tqi_client_meta_decode(&s.batch, NULL, 0, false, &meta, &err), TQ_EPROTO);
        assert_null(meta);
        assert_true(strncmp(err.message, "metadata: ", 10) == 0);
    }
}

static void samples_and_fields_are_selected(void **state)
{
    tq_meta *meta = sample_meta();
    tq_meta *out = NULL;
    tq_error err = {0};
    const uint32_t rows[3] = {3, 0, 3};
    const uint32_t bad = 4;
    const char *fields[1] = {"r"};
    const char *unknown[1] = {"nothing"};

    (void)state;

    assert_int_equal(tq_meta_select(meta, rows, 3, fields, 1, &out, &err), TQ_OK);
    assert_int_equal(tq_meta_sample_count(out), 3);
    assert_int_equal(tq_meta_field_count(out), 1);
    assert_int_equal(tq_meta_indexes(out)[1], 10);
    assert_string_equal(tq_meta_key(out, 2), "k3");
    assert_int_equal(out->fields[0].offset[2], 24);
    assert_int_equal(out->fields[0].pub.dims[0], 2);
    assert_int_equal(out->fields[0].pub.dims[2], 3);
    assert_memory_equal(tq_meta_tag_at(out, 0)->values, "\xcc\xff\x05\xcc\xff", 5);
    tq_meta_unref(out);
    assert_int_equal(tq_meta_select(meta, NULL, 0, NULL, 0, &out, &err), TQ_OK);
    check_sample(out);
    tq_meta_unref(out);
    assert_int_equal(tq_meta_select(meta, &bad, 1, NULL, 0, &out, &err), TQ_EINVAL);
    assert_int_equal(tq_meta_select(meta, NULL, 0, unknown, 1, &out, &err), TQ_EFIELD);
    assert_non_null(strstr(err.message, "'nothing'"));
    tq_meta_unref(meta);
}

/* The types of rows survive packing, and are dropped when the selected rows agree. */
static void check_packed_types(const tq_meta *meta)
{
    const uint32_t last[] = {(uint32_t)(meta->n - 1)};
    tq_meta *other = NULL;
    uint8_t *bytes;
    size_t size;

    assert_int_equal(tq_meta_pack(meta, &bytes, &size, NULL), TQ_OK);
    assert_int_equal(tq_meta_unpack(bytes, size, &other, NULL), TQ_OK);
    free(bytes);
    assert_memory_equal(other->fields[0].pub.types, meta->fields[0].pub.types, meta->n * sizeof(tq_type));
    tq_meta_unref(other);
    assert_int_equal(tq_meta_select(meta, last, 1, NULL, 0, &other, NULL), TQ_OK);
    assert_null(other->fields[0].pub.types);
    assert_int_equal(other->fields[0].pub.dtype.code, TQ_INT);
    tq_meta_unref(other);
}

static void metas_are_concatenated(void **state)
{
    tq_meta *a = sample_meta();
    tq_meta *b = sample_meta();
    tq_meta *out = NULL;
    tq_meta *empty = NULL;
    tq_meta *list[3] = {a, NULL, b};
    tq_error err = {0};

    (void)state;

    assert_int_equal(tq_meta_make("p", NULL, NULL, 0, NULL, 0, &empty, &err), TQ_OK);
    list[1] = empty;
    assert_int_equal(tq_meta_concat(list, 3, &out, &err), TQ_OK);
    assert_int_equal(tq_meta_sample_count(out), 8);
    assert_int_equal(out->blocks->n, 4);
    assert_false(out->fields[0].pub.ragged);
    assert_int_equal(out->fields[1].block[7], 4);
    assert_int_equal(out->blocks->blocks[3].id, 71);
    assert_string_equal(out->blocks->blocks[3].owner, "unit");
    assert_int_equal(out->fields[1].block[5], TQI_BLOCK_LOST);
    assert_int_equal(out->fields[1].pub.ndims[7], 2);
    assert_int_equal(tq_meta_claim(out), 5);
    tq_meta_unref(b);
    b = sample_meta();
    tq_meta_unref(out);
    b->fields[0].pub.dtype.code = TQ_INT;
    list[1] = b;
    assert_int_equal(tq_meta_concat(list, 2, &out, &err), TQ_OK);
    assert_true(out->fields[0].pub.ragged);
    assert_non_null(out->fields[0].pub.types);
    assert_int_equal(out->fields[0].pub.types[0].dtype.code, TQ_FLOAT);
    assert_int_equal(out->fields[0].pub.types[7].dtype.code, TQ_INT);
    check_packed_types(out);
    tq_meta_unref(b);
    tq_meta_unref(out);
    tq_meta_unref(empty);
    tq_meta_unref(a);
    assert_int_equal(tq_meta_concat(NULL, 0, &out, &err), TQ_EINVAL);
}

/* Uniform rows of two shapes become ragged. */
static void two_shapes_concatenate_to_ragged_rows(void **state)
{
    sample_batch s;
    tq_meta *metas[2];
    tq_meta *out = NULL;

    (void)state;

    sample_init(&s);
    s.batch.n_field = 1;
    assert_int_equal(tqi_client_meta_decode(&s.batch, NULL, 0, false, &metas[0], NULL), TQ_OK);
    s.shape[0] = 1;
    assert_int_equal(tqi_client_meta_decode(&s.batch, NULL, 0, false, &metas[1], NULL), TQ_OK);
    assert_int_equal(tq_meta_concat(metas, 2, &out, NULL), TQ_OK);
    assert_true(out->fields[0].pub.ragged);
    assert_int_equal(out->fields[0].pub.dims[3], 2);
    assert_int_equal(out->fields[0].pub.dims[4], 1);
    tq_meta_unref(out);
    tq_meta_unref(metas[0]);
    tq_meta_unref(metas[1]);
}

static void fields_of_the_same_samples_are_united(void **state)
{
    tq_meta *meta = sample_meta();
    tq_meta *only_u;
    tq_meta *only_r;
    tq_meta *out = NULL;
    tq_meta *other = NULL;
    const char *u = "u";
    const char *r = "r";
    const uint32_t rows[1] = {0};
    tq_error err = {0};

    (void)state;

    assert_int_equal(tq_meta_select(meta, NULL, 0, &u, 1, &only_u, &err), TQ_OK);
    assert_int_equal(tq_meta_select(meta, NULL, 0, &r, 1, &only_r, &err), TQ_OK);
    assert_int_equal(tq_meta_union(only_u, only_r, &out, &err), TQ_OK);
    check_sample(out);
    tq_meta_unref(out);
    assert_int_equal(tq_meta_union(meta, only_r, &out, &err), TQ_OK);
    assert_int_equal(tq_meta_field_count(out), 2);
    assert_int_equal(tq_meta_tag_count(out), 1);
    tq_meta_unref(out);
    assert_int_equal(tq_meta_select(meta, rows, 1, NULL, 0, &other, &err), TQ_OK);
    assert_int_equal(tq_meta_union(meta, other, &out, &err), TQ_EINVAL);
    tq_meta_unref(other);
    tq_meta_unref(only_u);
    tq_meta_unref(only_r);
    tq_meta_unref(meta);
}

static void a_packed_meta_is_unpacked_alike(void **state)
{
    tq_meta *meta = sample_meta();
    tq_meta *part;
    tq_meta *out = NULL;
    const uint32_t rows[2] = {0, 3};
    const char *r = "r";
    const uint32_t index = 4;
    uint8_t *bytes;
    size_t size;

    (void)state;

    assert_int_equal(tq_meta_pack(meta, &bytes, &size, NULL), TQ_OK);
    assert_int_equal(tq_meta_unpack(bytes, size, &out, NULL), TQ_OK);
    check_sample(out);
    tq_meta_unref(out);
    for (size_t cut = 0; cut < size; cut++) { /* any prefix is refused or is a complete meta; never a crash */
        if (tq_meta_unpack(bytes, cut, &out, NULL) == TQ_OK) {
            tq_meta_unref(out);
        }
    }
    bytes[3]++;
    assert_int_equal(tq_meta_unpack(bytes, size, &out, NULL), TQ_EPROTO);
    free(bytes);
    assert_int_equal(tq_meta_select(meta, rows, 2, &r, 1, &part, NULL), TQ_OK);
    assert_int_equal(tq_meta_pack(part, &bytes, &size, NULL), TQ_OK);
    assert_int_equal(tq_meta_unpack(bytes, size, &out, NULL), TQ_OK);
    assert_int_equal(out->blocks->n, 1); /* only what is used */
    assert_int_equal(out->fields[0].offset[1], 24);
    tq_meta_unref(out);
    tq_meta_unref(part);
    free(bytes);
    tq_meta_unref(meta);
    assert_int_equal(tq_meta_make("p", &index, NULL, 1, &r, 1, &meta, NULL), TQ_OK);
    assert_int_equal(tq_meta_pack(meta, &bytes, &size, NULL), TQ_OK);
    assert_int_equal(tq_meta_unpack(bytes, size, &out, NULL), TQ_OK);
    assert_int_equal(out->fields[0].block[0], TQI_BLOCK_UNKNOWN);
    assert_int_equal(out->fields[0].ready[0], 0);
    tq_meta_unref(out);
    tq_meta_unref(meta);
    free(bytes);
}

/* A packed meta's marks are not accepted in an answer of the controller. */
static void marks_of_a_packed_meta_are_refused_from_the_controller(void **state)
{
    sample_batch s;
    tq_meta *meta = NULL;

    (void)state;
    sample_init(&s);
    s.u_block = 2 + TQI_MARK_UNKNOWN;
    assert_int_equal(tqi_client_meta_decode(&s.batch, NULL, 0, false, &meta, NULL), TQ_EPROTO);
    assert_int_equal(tqi_client_meta_decode(&s.batch, NULL, 0, true, &meta, NULL), TQ_OK);
    tq_meta_unref(meta);
}

static void bad_arguments_make_no_meta(void **state)
{
    tq_meta *meta = NULL;
    tq_error err = {0};
    const char *twice[2] = {"a", "a"};
    const char *empty[1] = {""};

    (void)state;
    assert_int_equal(tq_meta_make("", NULL, NULL, 0, NULL, 0, &meta, &err), TQ_ENAME);
    assert_int_equal(tq_meta_make("p", NULL, NULL, 0, twice, 2, &meta, &err), TQ_EINVAL);
    assert_int_equal(tq_meta_make("p", NULL, NULL, 0, empty, 1, &meta, &err), TQ_ENAME);
    assert_null(meta);
}

static void selecting_much_is_quick(void **state)
{
    enum {
        N = 100000
    };
    uint32_t *indexes = malloc(N * sizeof(*indexes));
    const char *fields[4] = {"a", "b", "c", "d"};
    tq_meta *meta;
    tq_meta *out;
    uint64_t start;

    (void)state;

    for (uint32_t i = 0; i < N; i++) {
        indexes[i] = N - 1 - i;
    }
    assert_int_equal(tq_meta_make("p", indexes, NULL, N, fields, 4, &meta, NULL), TQ_OK);
    start = tqi_now();
    assert_int_equal(tq_meta_select(meta, indexes, N, NULL, 0, &out, NULL), TQ_OK);
    print_message("select of %d samples x 4 fields: %.2f ms\n", N, (double)(tqi_now() - start) / 1e6);
    assert_int_equal(tq_meta_indexes(out)[0], 0);
    assert_int_equal(tq_meta_indexes(out)[N - 1], N - 1);
    tq_meta_unref(out);
    tq_meta_unref(meta);
    free(indexes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_decoded),
        cmocka_unit_test(every_corruption_of_a_batch_is_refused),
        cmocka_unit_test(samples_and_fields_are_selected),
        cmocka_unit_test(metas_are_concatenated),
        cmocka_unit_test(two_shapes_concatenate_to_ragged_rows),
        cmocka_unit_test(fields_of_the_same_samples_are_united),
        cmocka_unit_test(a_packed_meta_is_unpacked_alike),
        cmocka_unit_test(marks_of_a_packed_meta_are_refused_from_the_controller),
        cmocka_unit_test(bad_arguments_make_no_meta),
        cmocka_unit_test(selecting_much_is_quick),
    };

    return cmocka_run_group_tests_name("client_meta", tests, NULL, NULL);
}
