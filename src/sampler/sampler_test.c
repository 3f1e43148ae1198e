/*
 * sampler_test.c - samplers over a real table: picks, groups, cached picks, config, registry.
 */
#include "sampler/sampler.h"
#include "table/test/testkit.h"

#include <sys/mman.h>
#include <unistd.h>

static const char *const fields[] = {"a"};

typedef struct claim_test {
    table t;
    tqi_table_view *view;
    tqi_table_result r;
} claim_test;

static void open_claim(claim_test *c)
{
    memset(c, 0, sizeof(*c));
    table_open(&c->t);
    assert_int_equal(tqi_table_view_get(c->t.table, "p", fields, 1, "train", &c->view, &c->t.err), TQ_OK);
}

static void close_claim(claim_test *c)
{
    tqi_table_result_fini(&c->r);
    tqi_table_view_unref(c->view);
    table_clear(&c->t, "p");
    table_assert_empty(&c->t);
    table_close(&c->t);
}

static int claim(claim_test *c, const char *sampler, uint32_t batch, const char *config)
{
    const tq_sampler *found;
    tq_pick_request request = {.batch_size = batch, .partition = "p", .task = "train", .config = config};

    tqi_table_result_fini(&c->r);
    assert_int_equal(tqi_sampler_find(sampler, &found, &c->t.err), TQ_OK);
    request.user = found->user;
    return tqi_sampler_claim(found, c->view, &request, SESSION, false, &c->r, NULL, &c->t.err);
}

static void assert_picked(const claim_test *c, const uint32_t *want, size_t n)
{
    assert_int_equal(c->r.batch.n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(c->r.batch.indexes[i], want[i]);
    }
}
#define PICKED(c, ...) assert_picked(c, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

static void put_field(claim_test *c, const uint32_t *indexes, size_t n)
{
    put p = {.partition = "p", .n = n, .naming = TQI_TABLE_BY_INDEX, .indexes = indexes, .fields = fields, .n_fields = 1};
    tqi_table_result r = {0};

    assert_int_equal(table_put(&c->t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);
}

static void clear_one(claim_test *c, uint32_t index)
{
    uint32_t cleared;

    assert_int_equal(tqi_table_clear_indexes(c->t.table, "p", &index, NULL, 1, &cleared, &c->t.err), TQ_OK);
    assert_int_equal(cleared, 1);
}

#define N2 "{\"n_samples_per_prompt\": 2}"

static void sequential_takes_the_first_ready(void **state)
{
    claim_test c;

    (void)state;
    open_claim(&c);
    assert_int_equal(claim(&c, "", 2, "{}"), TQ_EAGAIN);
    assert_non_null(strstr(c.t.err.message, "'p'"));
    table_new(&c.t, "p", 5, fields, 1, NULL);
    assert_int_equal(claim(&c, NULL, 2, "{}"), TQ_OK);
    PICKED(&c, 0, 1);
    assert_int_not_equal(c.r.claim, 0);
    assert_int_equal(claim(&c, "SequentialSampler", 4, "{}"), TQ_EAGAIN);
    clear_one(&c, 3);
    assert_int_equal(claim(&c, "sequential", 2, "{}"), TQ_OK);
    PICKED(&c, 2, 4);
    close_claim(&c);
}

static void grpo_takes_complete_groups_by_ordinal(void **state)
{
    claim_test c;

    (void)state;
    open_claim(&c);
    table_new(&c.t, "p", 8, NULL, 0, NULL);
    put_field(&c, (const uint32_t[]){0, 2, 3, 5}, 4);
    assert_int_equal(claim(&c, "grpo_group_n", 4, N2), TQ_EAGAIN);
    assert_int_equal(claim(&c, "GRPOGroupNSampler", 2, N2), TQ_OK);
    PICKED(&c, 2, 3);
    put_field(&c, (const uint32_t[]){4, 6, 7}, 3);
    assert_int_equal(claim(&c, "grpo_group_n", 4, N2), TQ_OK);
    PICKED(&c, 4, 5, 6, 7);
    /* 0 waits for 1. */
    assert_int_equal(claim(&c, "grpo_group_n", 2, N2), TQ_EAGAIN);
    put_field(&c, (const uint32_t[]){1}, 1);
    assert_int_equal(claim(&c, "grpo_group_n", 2, N2), TQ_OK);
    PICKED(&c, 0, 1);
    close_claim(&c);
}

static void grpo_survives_clears_and_reused_indexes(void **state)
{
    claim_test c;

    (void)state;
    open_claim(&c);
    table_new(&c.t, "p", 6, fields, 1, NULL);
    clear_one(&c, 1); /* breaks the first group only */
    clear_one(&c, 4);
    clear_one(&c, 5);
    assert_int_equal(claim(&c, "grpo_group_n", 2, N2), TQ_OK);
    PICKED(&c, 2, 3);
    /* The next two samples get indexes 1 and 4, and are one group although 0 lies beside 1. */
    table_new(&c.t, "p", 2, fields, 1, NULL);
    assert_int_equal(claim(&c, "grpo_group_n", 2, N2), TQ_OK);
    PICKED(&c, 1, 4);
    assert_int_equal(tqi_table_view_ready(c.view), 1);
    close_claim(&c);
}

static void grpo_follows_given_groups(void **state)
{
    claim_test c;

    (void)state;
    open_claim(&c);
    table_new_in_groups(&c.t, 6, fields[0], (const char *const[]){"x", "y", "x", "z", "y", "z"});
    assert_int_equal(claim(&c, "grpo_group_n", 4, N2), TQ_OK);
    PICKED(&c, 0, 2, 1, 4);
    table_new_in_groups(&c.t, 2, fields[0], (const char *const[]){"w", "z"});
    /* z has three: its first two are a group; w and the third z wait. */
    assert_int_equal(claim(&c, "grpo_group_n", 2, N2), TQ_OK);
    PICKED(&c, 3, 5);
    assert_int_equal(claim(&c, "grpo_group_n", 2, N2), TQ_EAGAIN);
    table_new_in_groups(&c.t, 1, fields[0], (const char *const[]){"w"});
    assert_int_equal(claim(&c, "grpo_group_n", 2, N2), TQ_OK);
    PICKED(&c, 6, 8);
    assert_int_equal(tqi_table_view_ready(c.view), 1);
    assert_string_equal(tqi_table_view_sample_group(c.view, 7), "z");
    assert_int_equal(tqi_table_view_sample_group_size(c.view, 7), 3);
    close_claim(&c);
}

static void grpo_keeps_the_pick_of_a_rank(void **state)
{
    static const char step[] = "{\"n_samples_per_prompt\":2,\"dp_rank\":0,\"batch_index\":5}";
    static const char other[] = "{\"n_samples_per_prompt\":2,\"dp_rank\":1,\"batch_index\":5}";
    claim_test c;
    uint64_t first;

    (void)state;
    open_claim(&c);
    table_new(&c.t, "p", 6, fields, 1, NULL);
    assert_int_equal(claim(&c, "grpo_group_n", 2, step), TQ_OK);
    PICKED(&c, 0, 1);
    first = c.r.claim;
    assert_int_equal(claim(&c, "grpo_group_n", 2, other), TQ_OK);
    PICKED(&c, 2, 3);
    assert_int_equal(claim(&c, "grpo_group_n", 2, step), TQ_OK);
    PICKED(&c, 0, 1);
    assert_int_equal(c.r.claim, 0);
    assert_int_equal(tqi_table_view_ready(c.view), 2);
    /* Another rank may have them by now: they are not freed again. */
    tqi_table_claim_release(c.t.table, SESSION, first);
    assert_int_equal(tqi_table_view_ready(c.view), 2);
    clear_one(&c, 1);
    assert_int_equal(claim(&c, "grpo_group_n", 2, step), TQ_OK);
    PICKED(&c, 4, 5);
    /* A reset forgets picks, too. */
    assert_int_equal(tqi_table_reset_consumption(c.t.table, "p", "train", &c.t.err), TQ_OK);
    assert_int_equal(tqi_table_view_ready(c.view), 5);
    assert_int_equal(claim(&c, "grpo_group_n", 4, step), TQ_OK);
    PICKED(&c, 2, 3, 4, 5);
    close_claim(&c);
}

static void bad_config_is_refused(void **state)
{
    static const char *const bad[] = {
        "{\"n_samples_per_prompt\": 0}",
        "{\"n_samples_per_prompt\": -2}",
        "{\"n_samples_per_prompt\": \"2\"}",
        "{\"n_samples_per_prompt\": 2.5}",
        "{\"n_samples_per_prompt\": 4294967296}",
        "[2]",
        "{",
        "",
        "nonsense",
    };
    const tq_sampler *sampler;
    tq_pick_request request = {.batch_size = 3, .partition = "p", .task = "train", .config = N2};
    tq_error err = {0};

    (void)state;
    assert_int_equal(tqi_sampler_find("grpo_group_n", &sampler, &err), TQ_OK);
    assert_int_equal(sampler->check(&request, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "3"));
    request.batch_size = 4;
    assert_int_equal(sampler->check(&request, &err), TQ_OK);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        request.config = bad[i];
        assert_int_equal(sampler->check(&request, &err), bad[i][0] == '\0' ? TQ_OK : TQ_EINVAL);
    }
}

/* Picks the last sample, does not consume it, and keeps the two before it for "other". */
static uint32_t odd_need(const tq_pick_request *request)
{
    return request->batch_size;
}

static int odd_slot(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    (void)err;
    (void)strcpy(slot, strcmp(request->config, "other") == 0 ? "other" : "");
    return TQ_OK;
}

static int odd_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    uint32_t n = tq_view_count(view);
    uint32_t before[] = {n - 2, n - 3};
    double number = 0;
    const char *name = NULL;
    tq_slice value;

    (void)request;
    (void)err;
    assert_int_equal(tq_pick_add(pick, n, false), TQ_EINVAL);
    assert_int_equal(tq_pick_add(pick, n - 1, false), TQ_OK);
    assert_int_equal(tq_pick_add(pick, n - 1, false), TQ_EINVAL);
    assert_int_equal(tq_pick_cache(pick, "", before, 2), TQ_EINVAL);
    assert_int_equal(tq_pick_cache(pick, "other", before, 2), TQ_OK);
    assert_true(tq_view_tag_number(view, 0, "t", &number));
    assert_true(number == -3.0);
    assert_true(tq_view_tag_number(view, 1, "t", &number));
    assert_true(number == 70000.0);
    assert_true(tq_view_tag_number(view, 2, "t", &number));
    assert_true(number == 1.5);
    assert_true(tq_view_tag_number(view, 3, "t", &number));
    assert_true(number == -129.0);
    assert_false(tq_view_tag_number(view, 4, "t", &number));
    assert_false(tq_view_tag_number(view, 5, "t", &number));
    assert_false(tq_view_tag_number(view, 6, "t", &number));
    assert_false(tq_view_tag_number(view, n, "t", &number));
    assert_true(tq_view_tag(view, 4, 0, &name, &value));
    assert_string_equal(name, "t");
    assert_int_equal(value.size, 2);
    assert_false(tq_view_tag(view, 4, 1, &name, &value));
    assert_false(tq_view_tag(view, 6, 0, &name, &value));
    assert_false(tq_view_tag(view, n, 0, &name, &value));
    assert_int_equal(tq_view_ordinal(view, 5), 5);
    assert_int_equal(tq_view_indexes(view)[3], 3);
    assert_null(tq_view_group(view, 0));
    assert_int_equal(tq_view_group_size(view, 0), 0);
    return TQ_OK;
}

static void a_registered_sampler_caches_for_others(void **state)
{
    static const tq_sampler odd = {
        .abi = TQ_SAMPLER_ABI,
        .name = "odd",
        .slot = odd_slot,
        .need = odd_need,
        .pick = odd_pick,
    };
    static const tq_sampler old = {.abi = TQ_SAMPLER_ABI + 1, .name = "old", .need = odd_need, .pick = odd_pick};
    static const tq_sampler empty = {.abi = TQ_SAMPLER_ABI, .name = "empty"};
    /* -3, 70000, 1.5f, -129, "x", truncated float64, none */
    static const uint8_t values[] = {0xfd, 0xce, 0,    1,    0x11, 0x70, 0xca, 0x3f, 0xc0, 0,
                                     0,    0xd1, 0xff, 0x7f, 0xa1, 'x',  0xcb, 0x3f, 0xf8};
    static const uint32_t sizes[] = {1, 5, 5, 3, 2, 3, 0};
    tqi_table_batch_tag tag = {"t", values, sizeof(values), sizes};
    put p = {
        .partition = "p",
        .n = 7,
        .naming = TQI_TABLE_NEW,
        .tags = &tag,
        .n_tags = 1,
        .fields = fields,
        .n_fields = 1,
    };
    claim_test c;
    const tq_sampler *found;

    (void)state;
    open_claim(&c);
    assert_int_equal(tqi_sampler_find("odd", &found, &c.t.err), TQ_ESAMPLER);
    assert_non_null(
        strstr(c.t.err.message, "SequentialSampler, GRPOGroupNSampler, RankAwareSampler, SeqlenBalancedSampler"));
    assert_int_equal(tq_sampler_register(&odd, &c.t.err), TQ_OK);
    assert_int_equal(tq_sampler_register(&odd, &c.t.err), TQ_EEXIST);
    assert_int_equal(tq_sampler_register(&old, &c.t.err), TQ_EVERSION);
    assert_int_equal(tq_sampler_register(&empty, &c.t.err), TQ_EINVAL);
    assert_int_equal(tqi_sampler_find("none", &found, &c.t.err), TQ_ESAMPLER);
    assert_non_null(strstr(c.t.err.message, "odd"));

    assert_int_equal(table_put(&c.t, &p, &c.r), TQ_OK);
    assert_int_equal(claim(&c, "odd", 1, "mine"), TQ_OK);
    PICKED(&c, 6);
    assert_int_equal(tqi_table_view_ready(c.view), 5);
    assert_int_equal(claim(&c, "odd", 1, "other"), TQ_OK);
    PICKED(&c, 5, 4);
    assert_int_equal(c.r.claim, 0);
    close_claim(&c);
}

static uint32_t first_need(const tq_pick_request *request)
{
    return request->batch_size;
}

static int first_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    (void)view;
    (void)err;
    assert_null(request->user);
    for (uint32_t i = 0; i < request->batch_size; i++) {
        assert_int_equal(tq_pick_add(pick, i, true), TQ_OK);
    }
    return TQ_OK;
}

/* A table of version 1 ends before `user`. Here the process's memory ends there, too. */
static void a_sampler_of_version_1_works(void **state)
{
    const tq_sampler whole = {.abi = 1, .name = "first", .need = first_need, .pick = first_pick};
    const size_t size = offsetof(tq_sampler, user), page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    put p = {.partition = "p", .n = 3, .naming = TQI_TABLE_NEW, .fields = fields, .n_fields = 1};
    claim_test c;

    (void)state;
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    const tq_sampler *first = memcpy(pages + page - size, &whole, size);
    open_claim(&c);
    assert_int_equal(tq_sampler_register(first, &c.t.err), TQ_OK);
    assert_int_equal(tq_sampler_register(first, &c.t.err), TQ_EEXIST);
    assert_int_equal(table_put(&c.t, &p, &c.r), TQ_OK);
    assert_int_equal(claim(&c, "first", 2, "{}"), TQ_OK);
    PICKED(&c, 0, 1);
    tqi_sampler_forget("p");
    close_claim(&c);
}

/* A sampler that keeps its only answer itself: the first batch, which it repeats until the partition is cleared. */
typedef struct keeper {
    uint32_t kept[8];
    uint32_t n;
    bool twice;
} keeper;

static bool keeper_kept(const tq_pick_request *request)
{
    const keeper *own = request->user;

    return own->n > 0;
}

static void keeper_forget(const char *partition, void *user)
{
    keeper *own = user;

    assert_string_equal(partition, "p");
    own->n = 0;
}

static int keeper_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    keeper *own = request->user;
    int rc = TQ_OK;

    (void)err;
    if (own->n > 0) {
        for (uint32_t i = 0; rc == TQ_OK && i < own->n; i++) {
            rc = tq_pick_again(pick, own->kept[i]);
        }
        return rc == TQ_OK && own->twice ? tq_pick_again(pick, own->kept[0]) : rc;
    }
    for (uint32_t i = 0; i < request->batch_size; i++) {
        own->kept[own->n++] = tq_view_indexes(view)[i];
        assert_int_equal(tq_pick_add(pick, i, false), TQ_OK);
        assert_int_equal(tq_pick_consume(pick, i), TQ_OK);
    }
    assert_false(tq_view_had(view, own->kept[0]));
    assert_int_equal(tq_pick_again(pick, own->kept[0]), TQ_EINVAL);
    assert_int_equal(tq_pick_consume(pick, tq_view_count(view)), TQ_EINVAL);
    /* Consumed, but not handed out. */
    return tq_pick_consume(pick, tq_view_count(view) - 1);
}

static void a_sampler_keeps_answers_of_its_own(void **state)
{
    static keeper own;
    static const tq_sampler table_of = {
        .abi = TQ_SAMPLER_ABI,
        .name = "keeper",
        .need = odd_need,
        .pick = keeper_pick,
        .user = &own,
        .kept = keeper_kept,
        .forget = keeper_forget,
    };
    claim_test c;

    (void)state;
    open_claim(&c);
    assert_int_equal(tq_sampler_register(&table_of, &c.t.err), TQ_OK);
    table_new(&c.t, "p", 4, fields, 1, NULL);
    assert_int_equal(claim(&c, "keeper", 2, "{}"), TQ_OK);
    PICKED(&c, 0, 1);
    assert_int_equal(tqi_table_view_ready(c.view), 1);
    /* Fewer are ready than asked for, and none of those. */
    assert_int_equal(claim(&c, "keeper", 2, "{}"), TQ_OK);
    PICKED(&c, 0, 1);
    assert_int_equal(c.r.claim, 0);
    own.twice = true;
    assert_int_equal(claim(&c, "keeper", 2, "{}"), TQ_EINVAL);
    assert_non_null(strstr(c.t.err.message, "'keeper' picked sample 0 twice"));
    own.twice = false;
    /* Gone from the table: refused, and the sampler learns of the clear. */
    clear_one(&c, 1);
    assert_int_equal(claim(&c, "keeper", 2, "{}"), TQ_EINVAL);
    tqi_sampler_forget("p");
    assert_int_equal(claim(&c, "keeper", 2, "{}"), TQ_EAGAIN);
    assert_int_equal(tqi_table_view_ready(c.view), 1);
    close_claim(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequential_takes_the_first_ready),
        cmocka_unit_test(grpo_takes_complete_groups_by_ordinal),
        cmocka_unit_test(grpo_survives_clears_and_reused_indexes),
        cmocka_unit_test(grpo_follows_given_groups),
        cmocka_unit_test(grpo_keeps_the_pick_of_a_rank),
        cmocka_unit_test(bad_config_is_refused),
        cmocka_unit_test(a_registered_sampler_caches_for_others),
        cmocka_unit_test(a_sampler_of_version_1_works),
        cmocka_unit_test(a_sampler_keeps_answers_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
