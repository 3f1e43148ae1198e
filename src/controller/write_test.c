/*
 * write_test.c - publish, reserve, clear, reset and reads over the real connection; refused requests leave no trace.
 */
#include <stdio.h>

#include "controller/controller.h"
#include "controller/reply.h"
#include "controller/testkit.h"

static kit k;
static kit_client unit, client;

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static int setup(void **state)
{
    (void)state;
    kit_start(&k, NULL);
    kit_connect(&k, &unit, "unit");
    kit_connect(&k, &client, "client");
    kit_register(&unit, "unit", 77, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kit_disconnect(&unit);
    kit_disconnect(&client);
    kit_stop(&k);
    return 0;
}

/* Names of all partitions, separated by spaces. */
static void expect_partitions(const char *expected)
{
    Tq__ListPartitions ask = TQ__LIST_PARTITIONS__INIT;
    char names[256] = "";
    size_t used = 0;
    Tq__ListPartitionsReply *reply = kit_ok(&client, TQI_LIST_PARTITIONS, &ask);

    for (size_t i = 0; i < reply->n_name; i++) {
        int n = snprintf(names + used, sizeof(names) - used, "%s%s", i ? " " : "", reply->name[i]);
        assert_in_range(n, 1, sizeof(names) - used - 1);
        used += (size_t)n;
    }
    assert_string_equal(names, expected);
    kit_free(reply);
}

/* The block is dead in the owner's queue and its writer has finished. */
static void expect_dead(uint64_t block)
{
    Tq__CollectDead ask;

    tq__collect_dead__init(&ask);
    ask.owner = text("unit");
    Tq__CollectDeadReply *reply = kit_ok(&unit, TQI_COLLECT_DEAD, &ask);
    bool found = false;
    assert_int_equal(reply->n_first, reply->n_count);
    assert_int_equal(reply->n_first, reply->writer_done.len);
    for (size_t i = 0; i < reply->n_first; i++) {
        if (block >= reply->first[i] && block < reply->first[i] + reply->count[i]) {
            found = true;
            assert_int_equal(reply->writer_done.data[i], 1);
        }
    }
    assert_true(found);
    kit_free(reply);
}

static void publishes_by_key_and_resolves(void **state)
{
    char *keys[] = {text("a"), text("b")};
    char *more[] = {text("b"), text("nobody")};
    kit_put put = {.partition = "p", .field = "x", .rows = 2, .keys = keys};
    Tq__Resolve resolve;

    (void)state;
    Tq__PublishReply *published = kit_publish(&client, &put);
    assert_int_equal(published->batch->n_key, 2);
    assert_string_equal(published->batch->key[1], "b");
    assert_int_equal(published->batch->n_field, 1);
    assert_int_equal(published->batch->field[0]->n_run_block, 0);
    tq__resolve__init(&resolve);
    resolve.partition = text("p");
    resolve.key = more;
    resolve.n_key = 1;
    Tq__ResolveReply *resolved = kit_ok(&client, TQI_RESOLVE, &resolve);
    assert_int_equal(resolved->batch->n_index, 1);
    assert_int_equal(resolved->batch->index[0], published->batch->index[1]);
    assert_int_equal(resolved->batch->field[0]->n_run_block, 1);
    assert_int_equal(resolved->batch->field[0]->run_offset[0], 8);
    assert_int_equal(resolved->batch->block[0]->id, put.block);
    kit_free(resolved);
    resolve.n_key = 2;
    kit_fails(&client, TQI_RESOLVE, &resolve, TQ_EKEY, "nobody");
    resolve.lenient = true;
    resolved = kit_ok(&client, TQI_RESOLVE, &resolve);
    assert_int_equal(resolved->batch->n_index, 1);
    kit_free(resolved);
    resolve.epoch = tqi_controller_epoch(k.controller) + 1;
    kit_fails(&client, TQI_RESOLVE, &resolve, TQ_ESTALE, "epoch");
    resolve.epoch = 0;
    resolve.partition = text("nowhere");
    resolve.lenient = false;
    kit_fails(&client, TQI_RESOLVE, &resolve, TQ_EPARTITION, "nowhere");
    kit_free(published);
}

/* Samples without a key among those with one, in one answer. */
static void resolves_samples_without_keys(void **state)
{
    char *keys[] = {text("a")};
    kit_put named = {.partition = "p", .field = "x", .rows = 1, .keys = keys};
    kit_put unnamed = {.partition = "p", .field = "x", .rows = 1};
    Tq__Resolve resolve;

    (void)state;
    kit_free(kit_publish(&client, &unnamed));
    kit_free(kit_publish(&client, &named));
    tq__resolve__init(&resolve);
    resolve.partition = text("p");
    resolve.tags = true;
    Tq__ResolveReply *reply = kit_ok(&client, TQI_RESOLVE, &resolve);
    assert_int_equal(reply->batch->n_index, 2);
    assert_int_equal(reply->batch->n_key, 2);
    assert_string_equal(reply->batch->key[0], "");
    assert_string_equal(reply->batch->key[1], "a");
    kit_free(reply);
}

static void lists_keys(void **state)
{
    char *keys[] = {text("a"), text("b")};
    kit_put put = {.partition = "p", .field = "x", .rows = 2, .keys = keys};
    kit_put other = {.partition = "q", .field = "x", .rows = 1, .keys = keys + 1};
    Tq__ListKeys ask;
    Tq__RetrieveKeys retrieve;

    (void)state;
    Tq__PublishReply *published = kit_publish(&client, &put);
    kit_free(kit_publish(&client, &other));
    expect_partitions("p q");
    tq__list_keys__init(&ask);
    Tq__ListKeysReply *reply = kit_ok(&client, TQI_LIST_KEYS, &ask);
    assert_int_equal(reply->n_batch, 2);
    assert_string_equal(reply->batch[0]->partition, "p");
    assert_int_equal(reply->batch[0]->n_key, 2);
    assert_string_equal(reply->batch[0]->key[0], "a");
    assert_string_equal(reply->batch[1]->key[0], "b");
    kit_free(reply);
    ask.partition = text("q");
    reply = kit_ok(&client, TQI_LIST_KEYS, &ask);
    assert_int_equal(reply->n_batch, 1);
    assert_int_equal(reply->batch[0]->n_key, 1);
    kit_free(reply);
    ask.partition = text("nowhere");
    reply = kit_ok(&client, TQI_LIST_KEYS, &ask);
    assert_int_equal(reply->n_batch, 0);
    kit_free(reply);
    tq__retrieve_keys__init(&retrieve);
    retrieve.partition = text("p");
    uint32_t indexes[] = {published->batch->index[1], 4000000};
    retrieve.index = indexes;
    retrieve.n_index = 2;
    Tq__RetrieveKeysReply *names = kit_ok(&client, TQI_RETRIEVE_KEYS, &retrieve);
    assert_int_equal(names->n_key, 2);
    assert_string_equal(names->key[0], "b");
    assert_string_equal(names->key[1], "");
    kit_free(names);
    retrieve.partition = text("nowhere");
    kit_fails(&client, TQI_RETRIEVE_KEYS, &retrieve, TQ_EPARTITION, "nowhere");
    kit_free(published);
}

static void reserves_and_fills(void **state)
{
    Tq__Reserve reserve;
    Tq__ProductionQuery query;
    char *fields[] = {text("x"), text("y")};

    (void)state;
    tq__reserve__init(&reserve);
    reserve.partition = text("p");
    kit_fails(&client, TQI_RESERVE, &reserve, TQ_EINVAL, "0 keys");
    reserve.samples = UINT32_MAX;
    kit_fails(&client, TQI_RESERVE, &reserve, TQ_EINVAL, "at most");
    expect_partitions("");
    reserve.samples = 3;
    Tq__ReserveReply *reply = kit_ok(&client, TQI_RESERVE, &reserve);
    assert_int_equal(reply->batch->n_index, 3);
    kit_put put = {.partition = "p", .field = "x", .rows = 2, .indexes = reply->batch->index + 1};
    kit_free(kit_publish(&client, &put));
    tq__production_query__init(&query);
    query.partition = text("p");
    query.field = fields;
    query.n_field = 2;
    Tq__ProductionReply *produced = kit_ok(&client, TQI_PRODUCTION, &query);
    assert_true(produced->known);
    assert_int_equal(produced->n_index, 3);
    assert_int_equal(produced->produced.len, 6);
    assert_memory_equal(produced->produced.data, "\0\0\1\0\1\0", 6);
    kit_free(produced);
    query.partition = text("nowhere");
    produced = kit_ok(&client, TQI_PRODUCTION, &query);
    assert_false(produced->known);
    kit_free(produced);
    kit_free(reply);
}

static void refuses_another_epoch(void **state)
{
    uint32_t indexes[] = {0};
    kit_put put = {
        .partition = "p",
        .field = "x",
        .rows = 1,
        .indexes = indexes,
        .epoch = tqi_controller_epoch(k.controller) ^ 1,
    };

    (void)state;
    kit_publish_fails(&client, &put, TQ_ESTALE, "epoch");
    expect_partitions("");
    put.epoch = tqi_controller_epoch(k.controller);
    put.indexes = NULL;
    kit_free(kit_publish(&client, &put));
    Tq__Clear clear;
    tq__clear__init(&clear);
    clear.partition = text("p");
    clear.all = true;
    clear.epoch = put.epoch ^ 1;
    Tq__ClearReply *reply = kit_ok(&client, TQI_CLEAR, &clear);
    assert_int_equal(reply->samples, 0);
    kit_free(reply);
    expect_partitions("p");
}

static void a_refused_publish_leaves_no_trace(void **state)
{
    char *keys[] = {text("a"), text("")};
    kit_put put = {.partition = "p", .field = "x", .rows = 1};
    uint32_t gone[] = {0};

    (void)state;
    Tq__PublishReply *published = kit_publish(&client, &put);
    gone[0] = published->batch->index[0];
    kit_free(published);
    Tq__Clear clear;
    tq__clear__init(&clear);
    clear.partition = text("p");
    clear.index = gone;
    clear.n_index = 1;
    Tq__ClearReply *cleared = kit_ok(&client, TQI_CLEAR, &clear);
    assert_int_equal(cleared->samples, 1);
    kit_free(cleared);
    expect_dead(put.block);
    put.indexes = gone;
    kit_publish_fails(&client, &put, TQ_ECLEARED, "");
    expect_dead(put.block);
    put.indexes = NULL;
    put.keys = keys;
    put.rows = 2;
    put.partition = "q";
    kit_publish_fails(&client, &put, TQ_ENAME, "key");
    expect_dead(put.block);
    put.keys = NULL;
    put.partition = "";
    kit_publish_fails(&client, &put, TQ_ENAME, "partition");
    expect_dead(put.block);
    expect_partitions("p");
}

/* Sends publishes, each with one thing wrong. */
static void refuses_arrays_that_disagree(void **state)
{
    Tq__Publish publish;
    Tq__Batch batch;
    Tq__Field field, *fields[] = {&field};
    Tq__Tag tag, *tags[] = {&tag};
    uint32_t run_block[] = {3}, run_rows[] = {2}, sizes[] = {1, 1};
    uint64_t run_offset[] = {0}, dims[] = {1};
    uint32_t ndims[] = {1, 17};

    (void)state;
    tq__publish__init(&publish);
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "without a batch");
    tq__batch__init(&batch);
    tq__field__init(&field);
    tq__tag__init(&tag);
    publish.batch = &batch;
    batch.partition = text("p");
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "names no samples");
    publish.samples = UINT32_MAX;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "at most");
    publish.samples = 2;
    field.name = text("x");
    field.dtype = TQ_INT | 64 << 8;
    batch.field = fields;
    batch.n_field = 1;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "cover 0 rows");
    field.run_block = run_block;
    field.n_run_block = 1;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "run_rows");
    field.run_rows = run_rows;
    field.run_offset = run_offset;
    field.n_run_rows = field.n_run_offset = 1;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "names block 3 of 0");
    run_block[0] = 2;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "opaque");
    run_block[0] = 0;
    run_rows[0] = 3;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "cover 3 rows of 2");
    run_rows[0] = 2;
    field.dims = dims;
    field.n_dims = 1;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "uniform");
    field.ragged = true;
    field.ndims = ndims;
    field.n_ndims = 2;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "17 dimensions");
    field.n_ndims = 1;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "its ndims say 2");
    field.kind = 2;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "kind");
    batch.n_field = 0;
    tag.name = text("t");
    tag.size = sizes;
    tag.n_size = 1;
    batch.tag = tags;
    batch.n_tag = 1;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "1 sizes");
    tag.n_size = 2;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "its sizes say 2");
    batch.n_tag = 0;
    batch.index = sizes;
    batch.n_index = 1;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "new ones");
    publish.samples = 0;
    batch.incarnation = sizes;
    batch.n_incarnation = 2;
    kit_fails(&client, TQI_PUBLISH, &publish, TQ_EINVAL, "incarnation: 2");
    expect_partitions("");
}

static void refuses_blocks_of_others(void **state)
{
    kit_put put = {.partition = "p", .field = "x", .rows = 1};
    Tq__AbandonBlocks abandon = TQ__ABANDON_BLOCKS__INIT;

    (void)state;
    uint64_t foreign = kit_grant(&unit, "unit", 1);
    abandon.id = &foreign;
    abandon.n_id = 1;
    kit_fails(&client, TQI_ABANDON_BLOCKS, &abandon, TQ_EINVAL, "");
    kit_free(kit_ok(&unit, TQI_ABANDON_BLOCKS, &abandon));
    expect_dead(foreign);
    put.rows = 1;
    kit_free(kit_publish(&client, &put));
    abandon.id = &put.block;
    kit_fails(&client, TQI_ABANDON_BLOCKS, &abandon, TQ_EINVAL, "");
}

static void resets_consumption(void **state)
{
    kit_put put = {.partition = "p", .field = "x", .rows = 2};
    Tq__ResetConsumption reset;
    Tq__Claim claim;
    char *fields[] = {text("x")};
    kit_call call;

    (void)state;
    kit_free(kit_publish(&client, &put));
    assert_int_equal(kit_poll(&client, "p", "x", 2, "t"), 2);
    kit_claim(&claim, "p", fields, 2, "t");
    kit_send(&client, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&unit, 1);
    tq__reset_consumption__init(&reset);
    reset.partition = text("p");
    reset.task = text("t");
    kit_free(kit_ok(&unit, TQI_RESET_CONSUMPTION, &reset));
    assert_int_equal(kit_wait(&call), TQ_OK);
    kit_end(&call);
    reset.partition = text("nowhere");
    reset.task = text("");
    kit_free(kit_ok(&unit, TQI_RESET_CONSUMPTION, &reset));
}

static void clears_by_key_and_checks_arguments(void **state)
{
    char *keys[] = {text("a"), text("b")};
    char *named[] = {text("b"), text("nobody")};
    uint32_t indexes[] = {1, 2};
    kit_put put = {.partition = "p", .field = "x", .rows = 2, .keys = keys};
    Tq__Clear clear;

    (void)state;
    kit_free(kit_publish(&client, &put));
    tq__clear__init(&clear);
    clear.partition = text("p");
    clear.key = named;
    clear.n_key = 2;
    clear.index = indexes;
    clear.n_index = 2;
    kit_fails(&client, TQI_CLEAR, &clear, TQ_EINVAL, "one of them");
    clear.n_key = 0;
    clear.incarnation = indexes;
    clear.n_incarnation = 1;
    kit_fails(&client, TQI_CLEAR, &clear, TQ_EINVAL, "incarnation");
    clear.n_incarnation = clear.n_index = 0;
    clear.n_key = 2;
    Tq__ClearReply *reply = kit_ok(&client, TQI_CLEAR, &clear);
    assert_int_equal(reply->samples, 1);
    kit_free(reply);
    clear.partition = text("nowhere");
    reply = kit_ok(&client, TQI_CLEAR, &clear);
    assert_int_equal(reply->samples, 0);
    kit_free(reply);
    expect_partitions("p");
}

/* A reply that does not fit into a frame is detected before anything changes; its bytes need not exist to be counted. */
static void a_reply_that_is_too_large_is_refused(void **state)
{
    Tq__Tag tag;
    Tq__Tag *tags[] = {&tag};
    Tq__Batch batch;
    Tq__PublishReply reply = TQ__PUBLISH_REPLY__INIT;
    uint8_t byte = 0;
    tq_error err = {0};

    (void)state;
    tq__tag__init(&tag);
    tq__batch__init(&batch);
    tag.values.data = &byte;
    batch.tag = tags;
    batch.n_tag = 1;
    reply.batch = &batch;
    tag.values.len = TQI_FRAME_BODY_MAX - 64;
    assert_int_equal(tqi_ctl_check_reply(&reply.base, "publish", 7, &err), TQ_OK);
    tag.values.len = TQI_FRAME_BODY_MAX;
    assert_int_equal(tqi_ctl_check_reply(&reply.base, "publish", 7, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "publish of 7 samples"));
    assert_non_null(strstr(err.message, "at most 268435456"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(publishes_by_key_and_resolves, setup, teardown),
        cmocka_unit_test_setup_teardown(resolves_samples_without_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(reserves_and_fills, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_another_epoch, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_publish_leaves_no_trace, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_arrays_that_disagree, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_blocks_of_others, setup, teardown),
        cmocka_unit_test_setup_teardown(resets_consumption, setup, teardown),
        cmocka_unit_test_setup_teardown(clears_by_key_and_checks_arguments, setup, teardown),
        cmocka_unit_test(a_reply_that_is_too_large_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
