/*
 * table.c - what is in the table: partitions, keys, progress, status, events; clearing parts of it.
 */
#include <string.h>

#include "example.h"

static void put(tq_op *op, const char *const *keys, size_t n)
{
    const float numbers[3] = {1, 2, 3};
    const tq_slice bytes = {numbers, n * sizeof(*numbers)};
    const tq_column column = tq_column_make("x", TQ_FLOAT, 32, n, &bytes);
    tq_put_args put = tq_put_args_init();

    put.partition = "table";
    put.keys = keys;
    put.n = n;
    put.columns = &column;
    put.n_columns = 1;
    done(op, tq_put(op, &put));
}

static void list_partitions(tq_op *op)
{
    size_t n;
    const char *const *names;

    done(op, tq_list_partitions(op));
    names = tq_op_names(op, &n);
    for (size_t i = 0; i < n; i++) {
        printf("partition %s\n", names[i]);
    }
}

static void list_keys(tq_op *op)
{
    done(op, tq_list_keys(op, "table"));
    printf("%zu keys\n", tq_meta_sample_count(tq_op_meta(op)));
}

/* Two keys at a time: the controller serves others in between. */
static void list_in_pages(tq_op *op)
{
    tq_keys_page page = tq_keys_page_init();
    char after[TQ_KEY_MAX + 1];

    page.limit = 2;
    do {
        done(op, tq_list_keys_page(op, "table", &page));
        for (size_t i = 0; i < tq_meta_sample_count(tq_op_meta(op)); i++) {
            snprintf(after, sizeof(after), "%s", tq_meta_key(tq_op_meta(op), i));
            printf("key %s\n", after);
        }
        page.after = after;
        page.mark = tq_op_count(op);
    } while (page.mark != 0);
}

static void keys_of(tq_op *op, uint32_t index)
{
    size_t n;

    done(op, tq_keys_of(op, "table", &index, 1));
    printf("sample %u has the key '%s'\n", index, tq_op_names(op, &n)[0]);
}

static void show_consumption(tq_op *op, const char *task)
{
    const tq_progress *progress;
    size_t consumed = 0;

    done(op, tq_query_consumption(op, "table", task));
    progress = tq_op_progress(op);
    for (size_t i = 0; i < progress->n; i++) {
        consumed += progress->flags[i];
    }
    printf("%s has consumed %zu of %zu\n", task, consumed, progress->n);
}

static void show_production(tq_op *op)
{
    const char *const fields[2] = {"x", "reward"};
    const tq_progress *progress;

    done(op, tq_query_production(op, "table", fields, 2));
    progress = tq_op_progress(op);
    printf("first sample: x %s, reward %s\n", progress->flags[0] ? "is there" : "is missing",
           progress->flags[1] ? "is there" : "is missing");
}

static void start_over(tq_op *op, const char *task)
{
    done(op, tq_reset_consumption(op, "table", task));
}

static void show_status(tq_op *op)
{
    const tq_system_status *status;

    done(op, tq_query_status(op));
    status = tq_op_status(op);
    for (size_t i = 0; i < status->n_owners; i++) {
        printf("%s: %llu of %llu bytes\n", status->owners[i]->name, (unsigned long long)status->owners[i]->used_bytes,
               (unsigned long long)status->owners[i]->capacity_bytes);
    }
}

/* Everything that is kept; with `wait` in the last argument, the call would wait for the next event. */
static void show_events(tq_op *op)
{
    uint64_t since = 0;
    size_t n;

    do {
        const tq_event *const *events;

        done(op, tq_query_events(op, since, 100, false));
        events = tq_op_events(op, &n, &since);
        for (size_t i = 0; i < n; i++) {
            printf("event %s by %s\n", events[i]->kind, events[i]->session);
        }
    } while (n > 0);
}

static void clear_some(tq_op *op, const char *key, uint32_t index)
{
    done(op, tq_clear_keys(op, "table", &key, 1));
    done(op, tq_clear_indexes(op, "table", &index, 1));
}

static void clear_all(tq_op *op)
{
    done(op, tq_clear_partition(op, "table"));
    printf("cleared %llu\n", (unsigned long long)tq_op_count(op));
}

int main(void)
{
    static const char *const keys[3] = {"a", "b", "c"};
    tq_client *client = open_client();
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    uint32_t last;

    put(op, keys, 3);
    last = tq_meta_indexes(tq_op_meta(op))[2];
    list_partitions(op);
    list_keys(op);
    list_in_pages(op);
    keys_of(op, last);
    show_consumption(op, "train");
    show_production(op);
    start_over(op, "train");
    show_status(op);
    show_events(op);
    clear_some(op, "a", last);
    clear_all(op);
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
