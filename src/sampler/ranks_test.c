/*
 * ranks_test.c - samplers of data-parallel ranks over a real table, and their balancing against a naive search.
 */
#include "sampler/sampler.h"
#include "table/test/testkit.h"

#include <math.h>

static const char *const fields[] = {"a"};

typedef struct ranks_claim {
    table t;
    tqi_table_view *view;
    tqi_table_result r;
} ranks_claim;

static void open_claim(ranks_claim *c)
{
    memset(c, 0, sizeof(*c));
    table_open(&c->t);
    assert_int_equal(tqi_table_view_get(c->t.table, "p", fields, 1, "train", &c->view, &c->t.err), TQ_OK);
}

static void close_claim(ranks_claim *c)
{
    tqi_table_result_fini(&c->r);
    tqi_table_view_unref(c->view);
    table_clear(&c->t, "p");
    table_assert_empty(&c->t);
    table_close(&c->t);
}

/* As the controller does it: checked first. */
static int claim(ranks_claim *c, const char *sampler, uint32_t batch, const char *config)
{
    const tq_sampler *found;
    tq_pick_request request = {.batch_size = batch, .partition = "p", .task = "train", .config = config};
    int rc;

    tqi_table_result_fini(&c->r);
    assert_int_equal(tqi_sampler_find(sampler, &found, &c->t.err), TQ_OK);
    rc = found->check(&request, &c->t.err);
    return rc ? rc : tqi_sampler_claim(found, c->view, &request, SESSION, false, &c->r, NULL, &c->t.err);
}

static void assert_picked(const ranks_claim *c, const uint32_t *want, size_t n)
{
    assert_int_equal(c->r.batch.n, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(c->r.batch.indexes[i], want[i]);
    }
}
#define PICKED(c, ...) assert_picked(c, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

/* New samples with the tag total_lengths as uint32; 0: without it. Groups may be NULL. */
static void put_lengths(ranks_claim *c, size_t n, const uint32_t *lengths, const char *const *groups)
{
    uint8_t *values = calloc(n, 5);
    uint32_t *sizes = calloc(n, sizeof(*sizes));
    size_t used = 0;
    tqi_table_result r = {0};

    assert_non_null(values);
    assert_non_null(sizes);
    for (size_t i = 0; i < n; i++) {
        if (lengths[i] != 0) {
            values[used] = 0xce;
            for (int byte = 0; byte < 4; byte++) {
                values[used + 1 + (size_t)byte] = (uint8_t)(lengths[i] >> (24 - 8 * byte));
            }
            sizes[i] = 5;
            used += 5;
        }
    }
    tqi_table_batch_tag tag = {"total_lengths", values, used, sizes};
    put p = {
        .partition = "p",
        .n = n,
        .naming = TQI_TABLE_NEW,
        .groups = groups,
        .tags = &tag,
        .n_tags = 1,
        .fields = fields,
        .n_fields = 1,
    };
    assert_int_equal(table_put(&c->t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);
    free(values);
    free(sizes);
}

/* --- rank aware ----------------------------------------------------------- */

static void rank_aware_gives_a_step_again(void **state)
{
    static const char first[] = "{\"dp_rank\":0,\"batch_index\":0,\"task_name\":\"train\"}";
    static const char other[] = "{\"dp_rank\":1,\"batch_index\":0,\"partition_id\":\"p\"}";
    static const char next[] = "{\"dp_rank\":0,\"batch_index\":1}";
    ranks_claim c;

    (void)state;
    open_claim(&c);
    assert_int_equal(claim(&c, "RankAwareSampler", 2, first), TQ_EAGAIN);
    table_new(&c.t, "p", 5, fields, 1, NULL);
    assert_int_equal(claim(&c, "RankAwareSampler", 6, first), TQ_EAGAIN); /* nothing, not fewer */
    assert_int_equal(tqi_table_view_ready(c.view), 5);
    assert_int_equal(claim(&c, "RankAwareSampler", 2, first), TQ_OK);
    PICKED(&c, 0, 1);
    assert_int_equal(claim(&c, "RankAwareSampler", 2, other), TQ_OK);
    PICKED(&c, 2, 3);
    /* Its other ranks get the same although too few are left. */
    assert_int_equal(claim(&c, "RankAwareSampler", 2, next), TQ_EAGAIN);
    assert_int_equal(claim(&c, "RankAwareSampler", 2, first), TQ_OK);
    PICKED(&c, 0, 1);
    assert_int_equal(c.r.claim, 0);
    assert_int_equal(tqi_table_view_ready(c.view), 1);
    /* The end of the partition ends its steps. */
    table_clear(&c.t, "p");
    table_new(&c.t, "p", 2, fields, 1, NULL);
    assert_int_equal(claim(&c, "RankAwareSampler", 2, first), TQ_OK);
    assert_int_not_equal(c.r.claim, 0);
    close_claim(&c);
}

static void bad_config_is_refused(void **state)
{
    static const struct {
        const char *sampler;
        uint32_t batch;
        const char *config;
        const char *says;
    } bad[] = {
        {"RankAwareSampler", 2, "{}", "needs dp_rank"},
        {"RankAwareSampler", 2, "{\"dp_rank\":0}", "needs batch_index"},
        {"RankAwareSampler", 2, "{\"dp_rank\":-1,\"batch_index\":0}", "dp_rank: expected a whole number"},
        {"RankAwareSampler", 2, "{\"dp_rank\":\"0\",\"batch_index\":0}", "dp_rank: expected a whole number"},
        {"RankAwareSampler", 2, "{\"dp_rnak\":0,\"batch_index\":0}", "unknown key 'dp_rnak'"},
        {"SequentialSampler", 2, "{\"dp_rnak\":0}", "SequentialSampler knows batch_index, dp_rank"},
        {"GRPOGroupNSampler", 2, "{\"n_samples\":2}", "unknown key 'n_samples'"},
        {"SeqlenBalancedSampler", 2, "{\"dp_size\":2}", "needs dp_rank"},
        {"SeqlenBalancedSampler", 2, "{\"dp_size\":0}", "dp_size: expected a whole number from 1 to 4294967295, got 0"},
        {"SeqlenBalancedSampler", 2, "{\"dp_size\":2,\"dp_rank\":2}", "must be below dp_size 2"},
        {"SeqlenBalancedSampler", 3, "{\"n_samples_per_prompt\":2}", "must be a multiple of"},
        {"SeqlenBalancedSampler", 65536, "{\"dp_size\":65536,\"dp_rank\":1}", "2^32"},
    };
    ranks_claim c;

    (void)state;
    open_claim(&c);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(claim(&c, bad[i].sampler, bad[i].batch, bad[i].config), TQ_EINVAL);
        if (strstr(c.t.err.message, bad[i].says) == NULL) {
            fail_msg("%s: %s", bad[i].config, c.t.err.message);
        }
    }
    assert_int_equal(claim(&c, "SequentialSampler", 1,
                           "{\"dp_rank\":0,\"batch_index\":3,\"task_name\":\"t\","
                           "\"partition_id\":\"p\",\"dp_size\":2,\"n_samples_per_prompt\":4}"),
                     TQ_EAGAIN);
    close_claim(&c);
}

/* --- balanced by length --------------------------------------------------- */

static void seqlen_fills_the_slots_of_all_ranks(void **state)
{
    static const uint32_t lengths[] = {50, 50, 5, 5, 50, 50, 5, 5, 9};
    static const char *const config = "{\"n_samples_per_prompt\":2,\"dp_size\":2,\"dp_rank\":%d,\"batch_index\":7}";
    char text[128];
    ranks_claim c;

    (void)state;
    open_claim(&c);
    put_lengths(&c, 7, lengths, NULL);
    (void)snprintf(text, sizeof(text), config, 1);
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 4, text), TQ_EAGAIN);
    put_lengths(&c, 2, lengths + 7, NULL);
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 4, text), TQ_OK);
    /* One long and one short group for each. */
    PICKED(&c, 0, 1, 6, 7);
    assert_int_equal(tqi_table_view_ready(c.view), 1);
    (void)snprintf(text, sizeof(text), config, 0);
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 4, text), TQ_OK);
    PICKED(&c, 2, 3, 4, 5);
    assert_int_equal(c.r.claim, 0);
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 4, text), TQ_OK);
    PICKED(&c, 2, 3, 4, 5);
    /* Cleared: the step is gone. */
    table_clear(&c.t, "p");
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 4, text), TQ_EAGAIN);
    close_claim(&c);
}

static void seqlen_weighs_samples_without_the_tag(void **state)
{
    static const uint32_t lengths[] = {0, 0, 3, 0};
    static const uint8_t word[] = {0xa1, 'x', 0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0};
    static const uint32_t sizes[] = {2, 9};
    tqi_table_batch_tag tag = {"total_lengths", word, sizeof(word), sizes};
    put p = {
        .partition = "p",
        .n = 2,
        .naming = TQI_TABLE_NEW,
        .tags = &tag,
        .n_tags = 1,
        .fields = fields,
        .n_fields = 1,
    };
    tqi_table_result r = {0};
    ranks_claim c;

    (void)state;
    open_claim(&c);
    put_lengths(&c, 4, lengths, NULL);
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 4, "{}"), TQ_OK);
    PICKED(&c, 0, 1, 2, 3);
    assert_int_not_equal(c.r.claim, 0);
    /* Without a rank nothing is kept: the next claim gets the next samples. */
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 4, "{}"), TQ_EAGAIN);
    assert_int_equal(table_put(&c.t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);
    assert_int_equal(claim(&c, "SeqlenBalancedSampler", 2, "{}"), TQ_EINVAL);
    assert_non_null(strstr(c.t.err.message, "total_lengths of sample 4"));
    assert_int_equal(tqi_table_view_ready(c.view), 2);
    close_claim(&c);
}

#define RANKS  4
#define GROUP  3
#define GROUPS 12 /* of a step; each rank gets 3 */

/* Random lengths and groups: whole groups, no sample twice, no rank much heavier than another. */
static void seqlen_property(void **state)
{
    ranks_claim c;
    unsigned seed = 7;

    (void)state;
    for (int round = 0; round < 20; round++) {
        uint32_t lengths[GROUPS * GROUP + 5];
        const char *groups[GROUPS * GROUP + 5];
        static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "rest"};
        uint8_t seen[GROUPS * GROUP + 5] = {0};
        double weights[GROUPS] = {0};
        double sums[RANKS] = {0};
        double largest = 0;
        char text[128];

        open_claim(&c);
        for (size_t i = 0; i < GROUPS * GROUP + 5; i++) {
            seed = seed * 1103515245u + 12345u;
            lengths[i] = 1 + (seed >> 16) % 1000;
            /* Members of a group lie apart; the last group is not complete. */
            groups[i] = names[i < GROUPS * GROUP ? i % GROUPS : GROUPS];
        }
        for (size_t i = 0; i < GROUPS * GROUP; i++) {
            weights[i % GROUPS] += lengths[i];
        }
        put_lengths(&c, GROUPS * GROUP + 2, lengths, groups);
        for (int rank = RANKS - 1; rank >= 0; rank--) {
            uint32_t of_group[GROUPS] = {0};
            (void)snprintf(text, sizeof(text),
                           "{\"n_samples_per_prompt\":%d,\"dp_size\":%d,\"dp_rank\":%d,"
                           "\"batch_index\":%d}",
                           GROUP, RANKS, rank, round);
            assert_int_equal(claim(&c, "SeqlenBalancedSampler", GROUPS / RANKS * GROUP, text), TQ_OK);
            assert_int_equal(c.r.batch.n, GROUPS / RANKS * GROUP);
            for (size_t i = 0; i < c.r.batch.n; i++) {
                uint32_t index = c.r.batch.indexes[i];
                assert_true(index < GROUPS * GROUP);
                assert_int_equal(seen[index]++, 0);
                of_group[index % GROUPS]++;
                sums[rank] += lengths[index];
            }
            for (size_t g = 0; g < GROUPS; g++) {
                assert_true(of_group[g] == 0 || of_group[g] == GROUP);
            }
        }
        assert_int_equal(tqi_table_view_ready(c.view), 2);
        for (size_t g = 0; g < GROUPS; g++) {
            largest = weights[g] > largest ? weights[g] : largest;
        }
        for (int rank = 0; rank < RANKS; rank++) {
            assert_true(sums[0] >= sums[rank]);
            assert_true(sums[0] - sums[rank] <= largest);
        }
        close_claim(&c);
    }
}

/* --- tq_balance ----------------------------------------------------------- */

/* Smallest possible largest sum, over all ways to split n things into k parts (of equal size). */
static double search(const double *weights, uint32_t n, uint32_t k, bool equal, uint32_t at, double *sums,
                     uint32_t *counts)
{
    double best = INFINITY;

    if (at == n) {
        best = 0;
        for (uint32_t p = 0; p < k; p++) {
            best = sums[p] > best ? sums[p] : best;
        }
        return best;
    }
    for (uint32_t p = 0; p < k; p++) {
        if (!equal || counts[p] < n / k) {
            sums[p] += weights[at];
            counts[p]++;
            double found = search(weights, n, k, equal, at + 1, sums, counts);
            best = found < best ? found : best;
            sums[p] -= weights[at];
            counts[p]--;
            if (counts[p] == 0) {
                break; /* the other empty parts are the same */
            }
        }
    }
    return best;
}

static void balance_is_near_the_best(void **state)
{
    unsigned seed = 3;
    tq_error err = {0};

    (void)state;
    for (int round = 0; round < 300; round++) {
        double weights[9];
        uint32_t part[9];
        double sums[3] = {0};
        double tried[3] = {0};
        uint32_t counts[3] = {0};
        uint32_t none[3] = {0};
        uint32_t k = 2 + (uint32_t)round % 2;
        bool equal = round % 4 < 2;
        uint32_t n = k == 2 ? 8 : 9;
        double total = 0;
        double heaviest = 0;
        for (uint32_t i = 0; i < n; i++) {
            seed = seed * 1103515245u + 12345u;
            weights[i] = (seed >> 16) % 500;
            total += weights[i];
            heaviest = weights[i] > heaviest ? weights[i] : heaviest;
        }
        assert_int_equal(tq_balance(weights, n, k, equal, part, &err), TQ_OK);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(part[i] < k);
            sums[part[i]] += weights[i];
            counts[part[i]]++;
        }
        double best = search(weights, n, k, equal, 0, tried, none);
        for (uint32_t p = 0; p < k; p++) {
            assert_true(!equal || counts[p] == n / k);
            assert_true(sums[0] >= sums[p]);
        }
        /* The differencing method is within 4/3 of the best; with parts of equal size within the heaviest thing. */
        assert_true(sums[0] >= best);
        assert_true(equal ? sums[0] - best <= heaviest : sums[0] <= best * 4 / 3);
        assert_true(sums[0] <= total / k + heaviest);
    }
}

static void balance_refuses_what_cannot_be_split(void **state)
{
    static const double weights[] = {1, 2, 3, 4};
    static const double bad[] = {1, INFINITY};
    uint32_t part[4];
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_balance(weights, 4, 0, false, part, &err), TQ_EINVAL);
    assert_int_equal(tq_balance(weights, 2, 3, false, part, &err), TQ_EINVAL);
    assert_int_equal(tq_balance(weights, 3, 2, true, part, &err), TQ_EINVAL);
    assert_int_equal(tq_balance(bad, 2, 2, true, part, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "thing 1"));
    assert_int_equal(tq_balance(weights, 4, 2, true, part, &err), TQ_OK);
    assert_int_equal(part[0], part[3]);
    assert_int_equal(part[1], part[2]);
    assert_int_equal(tq_balance(weights, 4, 1, false, part, &err), TQ_OK);
    assert_int_equal(part[0] + part[1] + part[2] + part[3], 0);
}

/* A sampler is identified by its name, not by the address of its table. */
static void a_copy_of_a_table_hands_out_groups_too(void **state)
{
    const tq_pick_request request = {.config = "{\"n_samples_per_prompt\":4}"};
    const tq_sampler *found;
    tq_sampler copy;

    (void)state;
    assert_int_equal(tqi_sampler_find("GRPOGroupNSampler", &found, NULL), TQ_OK);
    copy = *found;
    assert_int_equal(tqi_sampler_group(found, &request), 4);
    assert_int_equal(tqi_sampler_group(&copy, &request), 4);
    assert_int_equal(tqi_sampler_find("RankAwareSampler", &found, NULL), TQ_OK);
    assert_int_equal(tqi_sampler_group(found, &request), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_aware_gives_a_step_again),
        cmocka_unit_test(bad_config_is_refused),
        cmocka_unit_test(a_copy_of_a_table_hands_out_groups_too),
        cmocka_unit_test(seqlen_fills_the_slots_of_all_ranks),
        cmocka_unit_test(seqlen_weighs_samples_without_the_tag),
        cmocka_unit_test(seqlen_property),
        cmocka_unit_test(balance_is_near_the_best),
        cmocka_unit_test(balance_refuses_what_cannot_be_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
