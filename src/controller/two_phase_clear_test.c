/*
 * two_phase_clear_test.c - two-phase clears over the real connection: what is visible in between, and which session
 * continues an abandoned one.
 */
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/testkit.h"

static kit k;
static kit_client client, other;

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static int setup(void **state)
{
    (void)state;
    kit_start(&k, NULL);
    kit_connect(&k, &client, "client");
    kit_connect(&k, &other, "other");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kit_disconnect(&client);
    kit_disconnect(&other);
    kit_stop(&k);
    return 0;
}

/* Publishes field x of samples: of keys (made), of indexes, or of new ones; each cell with a note. */
typedef struct notice {
    char **keys;
    uint32_t *indexes;
    size_t n;
    const char *note;
    const char *remover;
} notice;

static Tq__PublishReply *publish(kit_client *from, const notice *what)
{
    Tq__Publish message;
    Tq__Batch batch;
    Tq__Field field;
    Tq__Field *fields[] = {&field};
    uint64_t shape = 2, offset = 0;
    uint32_t block = 2, rows = (uint32_t)what->n;
    ProtobufCBinaryData notes[8];

    tq__publish__init(&message);
    tq__batch__init(&batch);
    tq__field__init(&field);
    message.batch = &batch;
    message.create = true;
    message.remover = text(what->remover != NULL ? what->remover : "");
    batch.partition = text("p");
    batch.key = what->keys;
    batch.n_key = what->keys != NULL ? what->n : 0;
    batch.index = what->indexes;
    batch.n_index = what->indexes != NULL ? what->n : 0;
    message.samples = what->keys != NULL || what->indexes != NULL ? 0 : rows;
    batch.field = fields;
    batch.n_field = 1;
    field.name = text("x");
    field.dtype = TQ_INT | 64u << 8;
    field.shape = &shape;
    field.n_shape = 1;
    field.run_block = &block;
    field.run_offset = &offset;
    field.run_rows = &rows;
    field.n_run_block = field.n_run_offset = field.n_run_rows = 1;
    for (size_t i = 0; i < what->n; i++) {
        notes[i] = tqi_ctl_conv_bytes(what->note, strlen(what->note));
    }
    field.opaque = notes;
    field.n_opaque = what->n;
    return kit_ok(from, TQI_PUBLISH, &message);
}

static uint32_t published_index(kit_client *from)
{
    const notice what = {.n = 1, .note = "new"};
    Tq__PublishReply *reply = publish(from, &what);
    uint32_t index = reply->batch->index[0];

    kit_free(reply);
    return index;
}

static Tq__BeginClearReply *begin(kit_client *from, const char *remover, char **keys, size_t n)
{
    Tq__BeginClear message;
    Tq__Clear clear;

    tq__begin_clear__init(&message);
    tq__clear__init(&clear);
    message.remover = text(remover);
    clear.partition = text("p");
    clear.key = keys;
    clear.n_key = n;
    message.clear = n ? &clear : NULL;
    return kit_ok(from, TQI_BEGIN_CLEAR, &message);
}

static Tq__BeginClearReply *begin_all(kit_client *from)
{
    Tq__BeginClear message;
    Tq__Clear clear;

    tq__begin_clear__init(&message);
    tq__clear__init(&clear);
    message.remover = text("shelf");
    clear.partition = text("p");
    clear.all = true;
    message.clear = &clear;
    return kit_ok(from, TQI_BEGIN_CLEAR, &message);
}

static void end(kit_client *from, uint64_t id, bool removed)
{
    Tq__EndClear message;

    tq__end_clear__init(&message);
    message.id = id;
    message.removed = removed;
    kit_free(kit_ok(from, TQI_END_CLEAR, &message));
}

static void end_fails(kit_client *from, uint64_t id)
{
    Tq__EndClear message;

    tq__end_clear__init(&message);
    message.id = id;
    kit_fails(from, TQI_END_CLEAR, &message, TQ_ESTALE, "is not this session's");
}

/* The clear is about these notes of x. */
static void expect_notes(const Tq__Clearing *clearing, size_t n, const char *note)
{
    Tq__Batch *batch = tq__batch__unpack(NULL, clearing->batch.len, clearing->batch.data);

    assert_non_null(batch);
    assert_string_equal(batch->partition, "p");
    assert_int_equal(batch->n_index, n);
    assert_int_equal(batch->n_field, 1);
    assert_int_equal(batch->field[0]->n_opaque, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(batch->field[0]->opaque[i].len, strlen(note));
        assert_memory_equal(batch->field[0]->opaque[i].data, note, strlen(note));
    }
    tq__batch__free_unpacked(batch, NULL);
}

static char *keys[] = {"a", "b", "nobody"};

static void samples_are_gone_and_indexes_are_held(void **state)
{
    const notice what = {.keys = keys, .n = 2, .note = "kept"};
    Tq__Resolve resolve;

    (void)state;
    Tq__PublishReply *first = publish(&client, &what);
    Tq__BeginClearReply *begun = begin(&client, "shelf", keys, 3);
    assert_int_equal(begun->samples, 2);
    assert_int_equal(begun->n_clearing, 1);
    assert_true(begun->clearing[0]->begun);
    expect_notes(begun->clearing[0], 2, "kept");
    tq__resolve__init(&resolve);
    resolve.partition = text("p");
    resolve.index = first->batch->index;
    resolve.n_index = 2;
    kit_fails(&client, TQI_RESOLVE, &resolve, TQ_ECLEARED,
              "samples 0, 1 were cleared from partition 'p' (2 of 2 asked for)");
    resolve.n_index = 0;
    resolve.key = keys;
    resolve.n_key = 1;
    kit_fails(&client, TQI_RESOLVE, &resolve, TQ_EKEY, "no key 'a'");
    assert_int_equal(published_index(&client), 2);
    end_fails(&other, begun->clearing[0]->id);
    end(&client, begun->clearing[0]->id, true);
    assert_int_equal(published_index(&client), first->batch->index[0]);
    assert_int_equal(published_index(&client), first->batch->index[1]);
    end_fails(&client, begun->clearing[0]->id);
    kit_free(begun);
    kit_free(first);
}

static void what_was_left_goes_to_the_next(void **state)
{
    const notice what = {.keys = keys, .n = 2, .note = "kept"};
    kit_client third;

    (void)state;
    kit_free(publish(&client, &what));
    kit_connect(&k, &third, "third");
    Tq__BeginClearReply *begun = begin(&third, "shelf", keys, 1);
    uint64_t id = begun->clearing[0]->id;
    kit_free(begun);
    /* It is at work. */
    begun = begin(&other, "shelf", NULL, 0);
    assert_int_equal(begun->n_clearing, 0);
    kit_free(begun);
    kit_disconnect(&third);
    do { /* until the controller has seen that */
        kit_free(begin(&other, "another", NULL, 0));
        begun = begin(&other, "shelf", NULL, 0);
        if (begun->n_clearing == 0) {
            kit_free(begun);
            begun = NULL;
        }
    } while (begun == NULL);
    assert_int_equal(begun->n_clearing, 1);
    assert_int_equal(begun->clearing[0]->id, id);
    assert_false(begun->clearing[0]->begun);
    expect_notes(begun->clearing[0], 1, "kept");
    kit_free(begun);
    assert_int_equal(published_index(&client), 2);
    /* It could not remove the data either: the next session gets it along with its own, once. */
    end(&other, id, false);
    begun = begin(&client, "shelf", keys + 1, 1);
    assert_int_equal(begun->n_clearing, 2);
    assert_true(begun->clearing[0]->begun);
    assert_int_equal(begun->clearing[1]->id, id);
    end(&client, id, true);
    end(&client, begun->clearing[0]->id, true);
    kit_free(begun);
    assert_int_equal(published_index(&client), 0);
    assert_int_equal(published_index(&client), 1);
}

static void a_whole_partition(void **state)
{
    const notice what = {.n = 3, .note = "kept"};
    Tq__ListPartitions ask = TQ__LIST_PARTITIONS__INIT;

    (void)state;
    kit_free(publish(&client, &what));
    Tq__BeginClearReply *begun = begin_all(&client);
    assert_int_equal(begun->samples, 3);
    expect_notes(begun->clearing[0], 3, "kept");
    Tq__ListPartitionsReply *names = kit_ok(&client, TQI_LIST_PARTITIONS, &ask);
    assert_int_equal(names->n_name, 0);
    kit_free(names);
    /* A new partition of the same name has nothing to do with it. */
    assert_int_equal(published_index(&client), 3);
    end(&client, begun->clearing[0]->id, true);
    kit_free(begun);
    begun = begin_all(&client);
    assert_int_equal(begun->samples, 1);
    kit_free(begun);
    begun = begin_all(&client);
    assert_int_equal(begun->n_clearing, 0);
    kit_free(begun);
}

static void what_a_publish_replaces_is_to_be_removed(void **state)
{
    uint32_t indexes[] = {0, 1};
    const notice what = {.keys = keys, .n = 2, .note = "first"};
    const notice again = {.indexes = indexes, .n = 2, .note = "second", .remover = "shelf"};
    const notice in_place = {.indexes = indexes, .n = 2, .note = "third"};

    (void)state;
    Tq__PublishReply *reply = publish(&client, &what);
    assert_null(reply->replaced);
    kit_free(reply);
    reply = publish(&client, &again);
    assert_non_null(reply->replaced);
    assert_true(reply->replaced->begun);
    expect_notes(reply->replaced, 2, "first");
    end(&client, reply->replaced->id, true);
    kit_free(reply);
    /* No index was held: the samples still use theirs. */
    assert_int_equal(published_index(&client), 2);
    reply = publish(&client, &in_place);
    assert_null(reply->replaced);
    kit_free(reply);
    reply = publish(&client, &again);
    expect_notes(reply->replaced, 2, "third");
    kit_free(reply);
}

static void much_that_a_publish_replaces_comes_in_pieces(void **state)
{
    uint32_t indexes[] = {0, 1, 2, 3, 4};
    const notice what = {.n = 5, .note = "first"};
    const notice again = {.indexes = indexes, .n = 5, .note = "second", .remover = "shelf"};
    size_t seen = 0;

    (void)state;
    k.controller->replaced_max = 1; /* a piece for each sample */
    kit_free(publish(&client, &what));
    Tq__PublishReply *reply = publish(&client, &again);
    expect_notes(reply->replaced, 1, "first");
    assert_true(reply->replaced->begun);
    uint64_t first = reply->replaced->id;
    kit_free(reply);
    /* The others belong to nobody: the next session that asks gets them all. */
    Tq__BeginClearReply *begun = begin(&other, "shelf", NULL, 0);
    assert_int_equal(begun->n_clearing, 4);
    for (size_t i = 0; i < begun->n_clearing; i++) {
        expect_notes(begun->clearing[i], 1, "first");
        assert_int_equal(begun->clearing[i]->id, first + 1 + i);
        end(&other, begun->clearing[i]->id, true);
        seen++;
    }
    kit_free(begun);
    assert_int_equal(seen, 4);
    end(&client, first, true);
    begun = begin(&other, "shelf", NULL, 0);
    assert_int_equal(begun->n_clearing, 0);
    kit_free(begun);
}

static void bad_requests_change_nothing(void **state)
{
    const notice what = {.keys = keys, .n = 2, .note = "kept"};
    Tq__BeginClear message;
    Tq__Clear clear;

    (void)state;
    kit_free(publish(&client, &what));
    tq__begin_clear__init(&message);
    tq__clear__init(&clear);
    clear.partition = text("p");
    clear.key = keys;
    clear.n_key = 2;
    message.clear = &clear;
    kit_fails(&client, TQI_BEGIN_CLEAR, &message, TQ_ENAME, "remover");
    message.remover = text("shelf");
    clear.all = true;
    kit_fails(&client, TQI_BEGIN_CLEAR, &message, TQ_EINVAL, "one of them");
    clear.all = false;
    clear.epoch = tqi_controller_epoch(k.controller) + 1;
    Tq__BeginClearReply *begun = kit_ok(&client, TQI_BEGIN_CLEAR, &message);
    assert_int_equal(begun->n_clearing, 0);
    kit_free(begun);
    begun = begin(&client, "shelf", keys, 2);
    assert_int_equal(begun->samples, 2);
    kit_free(begun);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(samples_are_gone_and_indexes_are_held, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_left_goes_to_the_next, setup, teardown),
        cmocka_unit_test_setup_teardown(a_whole_partition, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_publish_replaces_is_to_be_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(much_that_a_publish_replaces_comes_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_requests_change_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
