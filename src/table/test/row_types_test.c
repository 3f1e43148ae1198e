/*
 * row_types_test.c - types and shapes of the rows of a field: rows keep theirs, and the field's follow from them.
 */
#include "table/test/testkit_publish.h"

#include "base/type.h"

/* One row of field "a" with that key and dtype, and `elements` of them; lies in a block of its own. */
static int put_row(table *t, const char *key, uint8_t kind, tq_dtype dtype, uint64_t elements)
{
    const char *const keys[] = {key};
    one_field o = make(1);

    o.naming = TQI_TABLE_BY_KEY;
    o.keys = keys;
    o.field.kind = kind;
    o.field.dtype = dtype;
    o.field.ragged = kind == TQ_VALUE;
    o.field.ndim = 1;
    o.field.shape = kind == TQ_VALUE ? NULL : &elements;
    o.field.ndims = &o.field.ndim;
    o.field.n_ndims = kind == TQ_VALUE;
    o.field.dims = kind == TQ_VALUE ? &elements : NULL;
    o.field.n_dims = kind == TQ_VALUE;
    o.size = elements * dtype.bits / 8;
    return publish_only(t, o);
}

static const tq_dtype f32 = {TQ_FLOAT, 32};
static const tq_dtype i64 = {TQ_INT, 64};
static const tq_dtype u8 = {TQ_UINT, 8};

/* What the rows of these keys are read as: of one type if `types` is NULL. */
static void check_types(table *t, const char *const *keys, size_t n, uint8_t kind, tq_dtype dtype, const tq_dtype *types)
{
    tqi_table_resolve_args ask = {.partition = "p", .keys = keys, .n = n};
    tqi_table_result r = {0};

    assert_int_equal(tqi_table_resolve(t->table, &ask, &r, &t->err), TQ_OK);
    assert_int_equal(r.batch.n_fields, 1);
    assert_int_equal(r.batch.fields[0].kind, kind);
    assert_int_equal(r.batch.fields[0].dtype.code, dtype.code);
    assert_int_equal(r.batch.fields[0].dtype.bits, dtype.bits);
    assert_int_equal(r.batch.fields[0].types != NULL, types != NULL);
    for (size_t i = 0; types != NULL && i < n; i++) {
        assert_int_equal(tqi_type_dtype(r.batch.fields[0].types[i]).bits, types[i].bits);
    }
    tqi_table_result_fini(&r);
}

static void rows_keep_what_they_were_put_as(void **state)
{
    static const char *const abc[] = {"a", "b", "c"};
    static const char *const ba[] = {"b", "a"};
    const tq_dtype mixed[] = {f32, i64, u8};
    const tq_dtype two[] = {i64, f32};
    table t;

    (void)state;
    table_open(&t);
    assert_int_equal(put_row(&t, "a", TQ_TENSOR, f32, 3), TQ_OK);
    assert_int_equal(put_row(&t, "b", TQ_TENSOR, i64, 3), TQ_OK);
    assert_int_equal(put_row(&t, "c", TQ_VALUE, u8, 5), TQ_OK);
    assert_true(field_info(&t, 0).mixed);
    assert_true(tqi_table_partition_bytes(tqi_table_find_partition(t.table, "p")) == 12 + 24 + 5);
    check_types(&t, abc, 3, TQ_TENSOR, f32, mixed);
    check_types(&t, ba, 2, TQ_TENSOR, i64, two);
    check_types(&t, abc, 1, TQ_TENSOR, f32, NULL);
    check_types(&t, abc + 1, 1, TQ_TENSOR, i64, NULL);
    check_types(&t, abc + 2, 1, TQ_VALUE, u8, NULL);
    close_empty(&t);
}

static void a_field_takes_another_type_when_its_rows_are_replaced(void **state)
{
    static const char *const ab[] = {"a", "b"};
    table t;

    (void)state;
    table_open(&t);
    assert_int_equal(put_row(&t, "a", TQ_TENSOR, f32, 3), TQ_OK);
    assert_int_equal(put_row(&t, "b", TQ_TENSOR, f32, 2), TQ_OK);
    assert_int_equal(put_row(&t, "a", TQ_TENSOR, i64, 3), TQ_OK);
    assert_true(field_info(&t, 0).mixed);
    assert_int_equal(put_row(&t, "b", TQ_TENSOR, i64, 3), TQ_OK);
    assert_false(field_info(&t, 0).mixed);
    assert_int_equal(field_info(&t, 0).dtype.code, TQ_INT);
    check_types(&t, ab, 2, TQ_TENSOR, i64, NULL);
    assert_int_equal(put_row(&t, "a", TQ_VALUE, u8, 4), TQ_OK);
    assert_int_equal(put_row(&t, "b", TQ_VALUE, u8, 4), TQ_OK);
    check_types(&t, ab, 2, TQ_VALUE, u8, NULL);
    assert_int_equal(put_row(&t, "b", TQ_TENSOR, f32, 1), TQ_OK);
    assert_int_equal(put_row(&t, "a", TQ_TENSOR, f32, 1), TQ_OK);
    check_types(&t, ab, 2, TQ_TENSOR, f32, NULL);
    assert_true(tqi_table_partition_bytes(tqi_table_find_partition(t.table, "p")) == 8);
    close_empty(&t);
}

static void tensors_without_elements_take_the_dtype_of_their_field(void **state)
{
    static const char *const ab[] = {"a", "b"};
    table t;

    (void)state;
    table_open(&t);
    assert_int_equal(put_row(&t, "a", TQ_TENSOR, f32, 0), TQ_OK);
    check_types(&t, ab, 1, TQ_TENSOR, f32, NULL);
    assert_int_equal(put_row(&t, "b", TQ_TENSOR, i64, 3), TQ_OK);
    assert_false(field_info(&t, 0).mixed);
    check_types(&t, ab, 1, TQ_TENSOR, i64, NULL);
    check_types(&t, ab, 2, TQ_TENSOR, i64, NULL);
    close_empty(&t);

    table_open_strict(&t);
    assert_int_equal(put_row(&t, "b", TQ_TENSOR, i64, 3), TQ_OK);
    assert_int_equal(put_row(&t, "a", TQ_TENSOR, f32, 0), TQ_OK);
    assert_int_equal(put_row(&t, "a", TQ_TENSOR, f32, 1), TQ_EDTYPE);
    check_types(&t, ab, 2, TQ_TENSOR, i64, NULL);
    close_empty(&t);
}

static void check_ragged_dim(table *t, uint8_t dim)
{
    const char *const fields[] = {"a"};
    tqi_table_resolve_args ask = {.partition = "p", .fields = fields, .n_fields = 1};
    tqi_table_result r = {0};

    assert_int_equal(field_info(t, 0).ragged_dim, dim);
    assert_int_equal(tqi_table_resolve(t->table, &ask, &r, &t->err), TQ_OK);
    assert_int_equal(r.batch.fields[0].ragged_dim, dim);
    tqi_table_result_fini(&r);
}

static void the_ragged_dim_is_where_rows_differ_or_what_a_put_names(void **state)
{
    static const uint64_t behind[] = {2, 4};
    static const uint64_t in_front[] = {3, 3};
    static const uint64_t flat[] = {5};
    table t;
    tqi_table_result r = {0};
    one_field o = make(2);

    (void)state;
    table_open(&t);
    o.field.ragged_dim = 1; /* says nothing */
    assert_int_equal(publish_only(&t, o), TQ_OK);
    check_ragged_dim(&t, 0);
    o = make(1);
    o.field.shape = flat;
    o.field.ndim = 1;
    assert_int_equal(publish_only(&t, o), TQ_OK);
    check_ragged_dim(&t, 0);
    o = make(1);
    o.field.shape = behind;
    o.size = 32;
    assert_int_equal(publish(&t, &o, &r), TQ_OK);
    assert_int_equal(r.batch.fields[0].ragged_dim, 2);
    tqi_table_result_fini(&r);
    check_ragged_dim(&t, 2);
    o = make(1);
    o.field.shape = in_front;
    o.size = 36;
    assert_int_equal(publish_only(&t, o), TQ_OK);
    check_ragged_dim(&t, TQ_RAGGED_MANY);
    table_clear(&t, "p");

    o = make(1);
    o.field.ragged_dim = 2;
    assert_int_equal(publish_only(&t, o), TQ_OK);
    check_ragged_dim(&t, 2);
    close_empty(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_keep_what_they_were_put_as),
        cmocka_unit_test(a_field_takes_another_type_when_its_rows_are_replaced),
        cmocka_unit_test(tensors_without_elements_take_the_dtype_of_their_field),
        cmocka_unit_test(the_ragged_dim_is_where_rows_differ_or_what_a_put_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
