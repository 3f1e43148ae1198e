/*
 * operations.c - fixed operations whose instructions are counted.
 *
 * Runs under callgrind: each operation is repeated on the same state, the counts of all repeats are dumped under its
 * name. Instructions, unlike seconds, are the same on a busy machine, so a change that makes an operation more
 * expensive is detected.
 */
#include "sampler/sampler.h"
#include "store/store.h"
#include "table/test/testkit.h"

#include <valgrind/callgrind.h>

#define REPEATS 16u
#define ROWS    64u
#define READY   10000u

static const char *const fields[] = {"prompt", "response", "reward",  "old_log_probs", "values",
                                     "mask",   "returns",  "version", "advantages"};
#define FIELDS 9u

/* Exactly the operation to be counted. */
#define COUNTED(name, statement)       \
    do {                               \
        CALLGRIND_ZERO_STATS;          \
        statement;                     \
        CALLGRIND_DUMP_STATS_AT(name); \
    } while (0)

static void keys_of(char (*text)[32], const char **keys, uint32_t repeat)
{
    for (uint32_t row = 0; row < ROWS; row++) {
        snprintf(text[row], sizeof(text[row]), "sample-%u-%u", repeat, row);
        keys[row] = text[row];
    }
}

static void put_keyed(table *t, const char *const *keys)
{
    put p = {
        .partition = "keyed",
        .n = ROWS,
        .naming = TQI_TABLE_BY_KEY,
        .create = true,
        .keys = keys,
        .fields = fields,
        .n_fields = FIELDS,
    };
    tqi_table_result result = {0};

    assert_int_equal(table_put(t, &p, &result), TQ_OK);
    tqi_table_result_fini(&result);
}

static void publishes(table *t)
{
    static char text[REPEATS + 1][ROWS][32];
    static const char *keys[REPEATS + 1][ROWS];

    for (uint32_t repeat = 0; repeat <= REPEATS; repeat++) {
        keys_of(text[repeat], keys[repeat], repeat);
    }
    put_keyed(t, keys[REPEATS]);
    COUNTED("publish of 64 new samples by key, 9 fields", {
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            put_keyed(t, keys[repeat]);
        }
    });
    COUNTED("overwrite of 64 samples by key, 9 fields", {
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            put_keyed(t, keys[repeat]);
        }
    });
    table_clear(t, "keyed");
}

static void claim(table *t, tqi_table_view *view, const tq_sampler *sampler)
{
    tq_pick_request request = {.batch_size = ROWS, .partition = "ready", .task = "train", .config = "{}"};
    tqi_table_result result = {0};

    assert_int_equal(tqi_sampler_claim(sampler, view, &request, SESSION, false, &result, NULL, &t->err), TQ_OK);
    tqi_table_claim_settle(t->table, result.claim);
    tqi_table_result_fini(&result);
}

static void resolve(table *t, uint32_t first)
{
    uint32_t indexes[ROWS];
    tqi_table_resolve_args ask = {.partition = "ready", .indexes = indexes, .n = ROWS, .fields = fields, .n_fields = 3};
    tqi_table_result result = {0};

    for (uint32_t row = 0; row < ROWS; row++) {
        indexes[row] = first + row;
    }
    assert_int_equal(tqi_table_resolve(t->table, &ask, &result, &t->err), TQ_OK);
    tqi_table_result_fini(&result);
}

static void clear(table *t, uint32_t first)
{
    uint32_t indexes[ROWS];
    uint32_t cleared;

    for (uint32_t row = 0; row < ROWS; row++) {
        indexes[row] = first + row;
    }
    assert_int_equal(tqi_table_clear_indexes(t->table, "ready", indexes, NULL, ROWS, &cleared, &t->err), TQ_OK);
    assert_int_equal(cleared, ROWS);
}

static void claims_and_clears(table *t)
{
    const tq_sampler *sampler;
    tqi_table_view *view;

    assert_int_equal(tqi_sampler_find("sequential", &sampler, &t->err), TQ_OK);
    assert_int_equal(tqi_table_view_get(t->table, "ready", fields, 3, "train", &view, &t->err), TQ_OK);
    for (uint32_t made = 0; made < READY; made += 1000) {
        table_new(t, "ready", 1000, fields, 3, NULL);
    }
    claim(t, view, sampler);
    COUNTED("claim of 64 of 10,000 ready samples", {
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            claim(t, view, sampler);
        }
    });
    COUNTED("resolve of 64 samples by index, 3 fields", {
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            resolve(t, repeat * ROWS);
        }
    });
    COUNTED("clear of 64 samples, 3 fields", {
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            clear(t, repeat * ROWS);
        }
    });
    tqi_table_view_unref(view);
    table_clear(t, "ready");
}

static void blocks(void)
{
    tqi_store_options options = {.capacity = 64u << 20};
    tqi_store *store;
    tq_error err = {0};
    tqi_store_place places[REPEATS];

    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_OK);
    for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
        places[repeat] = (tqi_store_place){.id = repeat + 1, .size = 1000 + 4096 * repeat};
    }
    COUNTED("reserve and free of a block", {
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            assert_int_equal(tqi_store_reserve(store, &places[repeat], 1, true, &err), TQ_OK);
        }
        for (uint32_t repeat = 0; repeat < REPEATS; repeat++) {
            assert_true(tqi_store_free_block(store, repeat + 1));
        }
    });
    tqi_store_free(store);
}

int main(void)
{
    table t;

    table_open(&t);
    publishes(&t);
    claims_and_clears(&t);
    table_close(&t);
    blocks();
    return 0;
}
