/*
 * oom_test.c - every allocation of a starting controller, of converting a batch, and of a request fails once: the call
 * reports it, nothing leaks, and a failed request has changed nothing.
 */
#include "controller/testkit.h"

#include <stdio.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/testkit_oom.h"
#include "controller/convert.h"

static void closed(void *arg)
{
    *(bool *)arg = true;
}

static void a_controller_starts_or_says_why(void **state)
{
    tqi_net_token token = {.size = 5, .bytes = "token"};
    const char *listen[] = {"tcp:127.0.0.1:0"};
    tqi_controller_options options = {.token = &token, .listen = listen, .n_listen = 1, .events = 16};
    uv_loop_t loop;
    bool done = false;
    int rc = TQ_ENOMEM;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    for (long n = 0; rc != TQ_OK; n++) {
        tqi_controller *controller = NULL;
        tq_error err = {0};
        assert_true(n < 1000);
        oom_all_after(n);
        rc = tqi_controller_alloc(&loop, &options, &controller, &err);
        oom_end();
        if (rc == TQ_OK) {
            assert_true(n > 4);
            tqi_controller_close(controller, closed, &done);
        } else {
            assert_int_equal(rc, err.code);
            assert_true(err.message[0] != 0);
            assert_null(controller);
        }
        assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    }
    assert_true(done);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void batches_convert_or_say_why(void **state)
{
    enum {
        ROWS = 3000
    };
    static uint32_t indexes[ROWS];
    static tqi_table_run runs[ROWS];

    for (uint32_t i = 0; i < ROWS; i++) {
        indexes[i] = i;
        runs[i] = (tqi_table_run){.block = i % 3 ? 1 + i % 2 : TQI_BLOCK_LOST, .rows = 1, .offset = i};
    }
    tqi_table_batch_field fields[] = {{.name = "x", .dtype = {TQ_INT, 8}, .runs = runs, .n_runs = ROWS}};
    tqi_table_batch_block blocks[] = {{.id = 1, .owner = "a", .owner_incarnation = 1, .size = ROWS},
                                      {.id = 2, .owner = "a", .owner_incarnation = 2, .size = ROWS}};
    tqi_table_batch batch = {
        .partition = "p",
        .n = ROWS,
        .indexes = indexes,
        .fields = fields,
        .n_fields = 1,
        .blocks = blocks,
        .n_blocks = 2,
    };
    int rc = TQ_ENOMEM;
    (void)state;
    for (long n = 0; rc != TQ_OK; n++) {
        tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
        Tq__Batch message;
        tqi_table_batch back = {0};
        tq_error err = {0};
        oom_all_after(n);
        rc = tqi_ctl_conv_batch_out(&conv, &batch, 9, &message, &err);
        if (rc == TQ_OK) {
            rc = tqi_ctl_conv_batch_in(&conv, &message, ROWS, &back, &err);
        }
        oom_end();
        assert_int_equal(rc, err.code);
        if (rc == TQ_OK) {
            assert_true(n > 2);
            assert_int_equal(message.n_owner, 2);
            assert_int_equal(message.field[0]->run_block[0], 3);
            assert_int_equal(back.n, ROWS);
            assert_memory_equal(back.fields[0].runs, runs, sizeof(runs));
            assert_int_equal(back.blocks[1].owner_incarnation, 2);
        }
        tqi_region_fini(&conv);
    }
}

/* Whether a client was notified of what it is waiting for since the last call of this function. */
static bool was_told(kit_client *client, uint64_t *seen)
{
    Tq__Events ask = TQ__EVENTS__INIT;
    bool told = false;

    ask.since = *seen;
    Tq__EventsReply *reply = kit_ok(client, TQI_EVENTS, &ask);
    for (size_t i = 0; i < reply->n_event; i++) {
        told = told || strcmp(reply->event[i]->kind, "wait") == 0;
    }
    *seen = reply->next;
    kit_free(reply);
    return told;
}

/* A client's request for what it is waiting for. */
typedef struct asked {
    bool done;
    int status;
    size_t waits;
    long failures; /* allocations that failed until the answer came */
} asked;

static void asked_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    asked *about = arg;

    (void)call;
    about->failures = oom_end();
    about->done = true;
    about->status = answer->status;
    about->waits = answer->status ? 0 : ((const Tq__SystemStatusReply *)answer->reply)->n_wait;
}

/* With one allocation that fails after `after` others; < 0: none. */
static asked ask_what_waits(kit_client *client, long after)
{
    Tq__SystemStatus message = TQ__SYSTEM_STATUS__INIT;
    asked about = {0};
    tq_error err = {0};
    tqi_net_call *call;

    message.mine = true;
    const tqi_net_call_args args = {
        .kind = TQI_SYSTEM_STATUS,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = asked_done,
        .arg = &about,
    };
    assert_int_equal(tqi_net_call_start(client->channel, &args, &call, &err), TQ_OK);
    if (after >= 0) {
        oom_one_after(after);
    }
    while (!about.done) {
        uv_run(&client->kit->loop, UV_RUN_ONCE);
    }
    return about;
}

/* A client whose request could not be answered gets the notice when it asks again. */
static void what_waits_is_told_after_an_answer_that_failed(void **state)
{
    kit k;
    kit_client client;
    asked first = {.failures = 1};
    long refused = 0;
    uint64_t seen = 0;
    char *field[] = {"x"};

    (void)state;
    kit_start(&k, NULL);
    kit_connect(&k, &client, "client");
    for (long n = 0; first.failures > 0; n++) {
        Tq__Claim claim;
        kit_call waiting;
        kit_claim(&claim, "p", field, 1, "t");
        kit_send(&client, TQI_CLAIM, &claim, &waiting);
        kit_until_waiting(&client, 1);
        (void)was_told(&client, &seen);
        first = ask_what_waits(&client, n);
        /* The client may have had no memory for its answer either: that one was made. */
        if (first.status != TQ_OK && !was_told(&client, &seen)) {
            assert_int_equal(first.status, TQ_ENOMEM);
            refused++;
            assert_int_equal(ask_what_waits(&client, -1).waits, 1);
        }
        tqi_net_call_cancel(waiting.call);
        assert_int_equal(kit_wait(&waiting), TQ_ECANCELED);
        kit_end(&waiting);
        kit_until_waiting(&client, 0);
    }
    assert_int_equal(first.waits, 1);
    assert_true(refused > 2);
    kit_disconnect(&client);
    kit_stop(&k);
}

/* --- requests ------------------------------------------------------------- */

static void quiet(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)level;
    (void)component;
    (void)text;
    (void)arg;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    ((kit_raw *)poll->data)->readable = true;
    uv_poll_stop(poll);
}

typedef enum outcome {
    DONE,
    FAILED,
    CLOSED /* there was no memory for an answer of any kind */
} outcome;

/* Sends a request whose n-th allocation in the controller fails; *failed says whether there were that many. */
static outcome request_without_memory(kit_raw *raw, uint16_t kind, const void *message, long n, bool *failed)
{
    char byte;
    tqi_frame frame;

    kit_raw_send(raw, kind, 0, message);
    raw->readable = false;
    uv_poll_start(&raw->poll, UV_READABLE | UV_DISCONNECT, on_readable);
    oom_one_after(n);
    while (!raw->readable) {
        uv_run(&raw->kit->loop, UV_RUN_ONCE);
    }
    *failed = oom_end() > 0;
    if (recv(raw->fd, &byte, 1, MSG_PEEK) <= 0) {
        return CLOSED;
    }
    void *reply = kit_raw_receive(raw, &frame);
    if (frame.kind == TQI_FAILED) {
        assert_int_equal(((const Tq__Error *)reply)->code, TQ_ENOMEM);
    } else {
        assert_int_equal(frame.kind, kind);
    }
    kit_free(reply);
    return frame.kind == TQI_FAILED ? FAILED : DONE;
}

/* How many samples a partition has. */
static size_t samples_of(kit_client *client, char *partition)
{
    Tq__ProductionQuery query;

    tq__production_query__init(&query);
    query.partition = partition;
    Tq__ProductionReply *reply = kit_ok(client, TQI_PRODUCTION, &query);
    size_t n = reply->known ? reply->n_index : 0;
    kit_free(reply);
    return n;
}

enum {
    KEYS = 40 /* so that the replies are larger than what is kept for any request */
};

typedef struct changing {
    uint16_t kind;
    size_t before, after; /* samples */
    const void *(*message)(char *partition, char **keys);
} changing;

static const void *message_publish(char *partition, char **keys)
{
    static Tq__Batch batch;
    static Tq__Publish publish;

    tq__batch__init(&batch);
    tq__publish__init(&publish);
    batch.partition = partition;
    batch.key = keys;
    batch.n_key = KEYS;
    publish.batch = &batch;
    publish.create = true;
    return &publish;
}

static const void *message_reserve(char *partition, char **keys)
{
    static Tq__Reserve reserve;

    tq__reserve__init(&reserve);
    reserve.partition = partition;
    reserve.key = keys;
    reserve.n_key = KEYS;
    return &reserve;
}

static const void *message_clear(char *partition, char **keys)
{
    static Tq__Clear clear;

    tq__clear__init(&clear);
    clear.partition = partition;
    clear.key = keys;
    clear.n_key = KEYS;
    return &clear;
}

static const void *message_begin_clear(char *partition, char **keys)
{
    static Tq__BeginClear begin;
    static char remover[] = "remover";

    tq__begin_clear__init(&begin);
    begin.remover = remover;
    begin.clear = (Tq__Clear *)(uintptr_t)message_clear(partition, keys);
    return &begin;
}

static const changing changings[] = {
    {TQI_PUBLISH, 0, KEYS, message_publish},
    {TQI_RESERVE, 0, KEYS, message_reserve},
    {TQI_CLEAR, KEYS, 0, message_clear},
    {TQI_BEGIN_CLEAR, KEYS, 0, message_begin_clear},
};

/* Work that was done is answered as done, and work answered with an error was not done. */
static void a_change_is_done_and_answered_or_not_done(void **state)
{
    kit k;
    kit_client other;
    char text[KEYS][16], *keys[KEYS];

    (void)state;
    tq_log_set_sink(quiet, NULL);
    kit_start(&k, NULL);
    kit_connect(&k, &other, "other");
    for (int i = 0; i < KEYS; i++) {
        snprintf(text[i], sizeof(text[i]), "key %d", i);
        keys[i] = text[i];
    }
    for (size_t c = 0; c < sizeof(changings) / sizeof(*changings); c++) {
        const changing *change = &changings[c];
        bool failed = true;
        long n = 0;
        for (; failed; n++) {
            char partition[32];
            kit_raw raw;
            assert_true(n < 1000);
            snprintf(partition, sizeof(partition), "%u-%ld", (unsigned)change->kind, n);
            if (change->before) {
                kit_free(kit_ok(&other, TQI_RESERVE, message_reserve(partition, keys)));
            }
            kit_raw_open(&k, &raw);
            outcome how = request_without_memory(&raw, change->kind, change->message(partition, keys), n, &failed);
            assert_true(failed || how == DONE);
            assert_int_equal(samples_of(&other, partition), how == DONE ? change->after : change->before);
            kit_raw_close(&raw);
        }
        assert_true(n > 5);
    }
    kit_disconnect(&other);
    kit_stop(&k);
    tq_log_set_sink(NULL, NULL);
}

/* --- sessions ------------------------------------------------------------- */

static void answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    *(int *)arg = answer->status;
}

/* One request of which only the status matters. */
static int ask(kit *k, kit_client *client)
{
    Tq__ListPartitions list;
    tq_error err = {0};
    int status = 1;

    tq__list_partitions__init(&list);
    tqi_net_call_args args = {
        .kind = TQI_LIST_PARTITIONS,
        .message = &list.base,
        .deadline = tqi_deadline(60),
        .done = answered,
        .arg = &status,
    };
    int rc = tqi_net_call_start(client->channel, &args, NULL, &err);
    while (rc == TQ_OK && status == 1) {
        uv_run(&k->loop, UV_RUN_ONCE);
    }
    return rc ? rc : status;
}

/* A shortage of memory when a client connected does not affect it for ever. */
static void a_session_heals_when_memory_is_back(void **state)
{
    kit k;
    bool failed = true;
    long n = 0;

    (void)state;
    tq_log_set_sink(quiet, NULL);
    kit_start(&k, NULL);
    for (; failed; n++) {
        tqi_net_connector_options options = {.token = &k.token, .name = "client"};
        kit_client client = {.kit = &k};
        tq_error err = {0};
        assert_true(n < 1000);
        assert_int_equal(tqi_net_connector_alloc(&k.loop, &options, &client.connector, &err), TQ_OK);
        assert_int_equal(tqi_net_channel_get(client.connector, k.listen, &client.channel, &err), TQ_OK);
        oom_one_after(n);
        int status = ask(&k, &client);
        failed = oom_end() > 0;
        assert_true(status == TQ_OK || (failed && status == TQ_ENOMEM));
        assert_int_equal(ask(&k, &client), TQ_OK);
        kit_disconnect(&client);
    }
    assert_true(n > 10);
    kit_stop(&k);
    tq_log_set_sink(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_controller_starts_or_says_why),
        cmocka_unit_test(batches_convert_or_say_why),
        cmocka_unit_test(what_waits_is_told_after_an_answer_that_failed),
        cmocka_unit_test(a_change_is_done_and_answered_or_not_done),
        cmocka_unit_test(a_session_heals_when_memory_is_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
