/*
 * model_test.c - random operations on the table and on a naive model of it; the two must always agree.
 *
 * The seeds are fixed. Some runs start the counters near their wrap.
 */
#include "table/test/model_run.h"

#define OPERATIONS 20000

const char *const model_partitions[M_PARTITIONS] = {"p0", "p1", "p2"};
const char *const model_fields[M_FIELDS] = {"f0", "f1", "f2", "f3", "f4"};
const char *const model_tasks[M_TASKS] = {"t0", "t1"};
const char *const model_tags[M_TAGS] = {"g0", "g1"};
const char *const model_keys[M_KEYS] = {"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"};
const char *const model_groups[M_GROUPS] = {"x", "y", "z"};
const char *const model_owners[M_OWNERS] = {"o0", "o1"};

uint32_t rnd(run *r, uint32_t below)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return (uint32_t)((r->state >> 11) % below);
}

int rnd_sample(run *r, int partition)
{
    uint32_t start = rnd(r, M_PLACES);

    for (uint32_t i = 0; i < M_PLACES; i++) {
        uint32_t place = (start + i) % M_PLACES;
        if (r->m.samples[place].partition == partition) {
            return (int)place;
        }
    }
    return -1;
}

bool model_avail(const run *r, const held_view *held, uint32_t place)
{
    const model_sample *sample = &r->m.samples[place];

    return sample->partition == held->partition && !sample->consumed[held->task] &&
           model_ready(&r->m, place, held->fields);
}

static void one_operation(run *r)
{
    uint32_t which = rnd(r, 100);

    if (which < 40) {
        op_publish(r);
    } else {
        op_other(r, which - 40);
    }
}

/* Takes everything down; nothing may be left. */
static void end_run(run *r)
{
    tqi_table_counts counts;
    uint32_t cleared;
    uint64_t notice;
    tqi_table_dead dead[16];

    for (int v = 0; v < MODEL_VIEWS; v++) {
        tqi_table_view_unref(r->views[v].view);
    }
    for (int c = 0; c < M_CLEARS; c++) {
        if (r->clearings[c] != NULL) {
            tqi_table_clearing_end(r->table, r->clearings[c]);
        }
    }
    for (int p = 0; p < M_PARTITIONS; p++) {
        assert_int_equal(tqi_table_clear_partition(r->table, model_partitions[p], &cleared, &r->err), TQ_OK);
    }
    for (int s = 0; s < M_SESSIONS; s++) {
        tqi_table_session_end(r->table, (uint64_t)s, true);
    }
    for (int o = 0; o < M_OWNERS; o++) {
        tqi_table_owner_late_die(r->owners[o], UINT64_MAX);
        while (tqi_table_owner_dead(r->owners[o], dead, 16, &notice) > 0) {
            tqi_table_owner_done(r->owners[o], notice, 0);
        }
        assert_int_equal(tqi_table_owner_blocks(r->owners[o]), 0);
        assert_int_equal(tqi_table_owner_bytes(r->owners[o]), 0);
    }
    tqi_table_count(r->table, &counts);
    assert_memory_equal(&counts, &(tqi_table_counts){0}, sizeof(counts));
    tqi_table_free(r->table);
}

static void random_operations_agree_with_the_model(void **state)
{
    static const struct {
        uint64_t seed;
        tqi_table_options options;
    } runs[] = {
        {UINT64_C(0x1234567), {.epoch = 1}},
        {UINT64_C(0x89abcdef01), {.epoch = 2}},
        {UINT64_C(0x5eed), {.epoch = 3, .first_index = UINT32_MAX - 20, .first_incarnation = UINT32_MAX - 2}},
        {UINT64_C(0xfeedbeef),
         {
             .epoch = 4,
             .first_index = UINT32_MAX,
             .first_incarnation = UINT32_MAX,
             .first_block = UINT64_MAX - 200,
             .first_ordinal = UINT64_MAX - 10,
             .first_claim = UINT64_MAX - 5,
         }},
        {UINT64_C(0xc0ffee), {.epoch = 5, .first_block = UINT64_MAX, .first_claim = UINT64_MAX}},
    };
    run *r = calloc(1, sizeof(*r));

    (void)state;
    assert_non_null(r);
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        memset(r, 0, sizeof(*r));
        r->state = runs[i].seed;
        model_init(&r->m, &runs[i].options);
        assert_int_equal(tqi_table_alloc(&runs[i].options, &r->table, &r->err), TQ_OK);
        for (int o = 0; o < M_OWNERS; o++) {
            assert_int_equal(
                tqi_table_owner_register(r->table, model_owners[o], r->m.owner_incarnation[o], &r->owners[o], &r->err),
                TQ_OK);
        }
        for (uint32_t step = 0; step < OPERATIONS; step++) {
            one_operation(r);
            check_views(r);
            check_counts(r);
            if (step % 16 == 0) {
                check_all(r);
            }
        }
        end_run(r);
    }
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_agree_with_the_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
