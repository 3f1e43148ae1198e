/*
 * oom_test.c - every allocation fails once: constructors report it and leak nothing, and an exchange between client and
 * server ends with an answer or an error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/testkit_oom.h"
#include "net/calling.h"
#include "net/testkit.h"

static void no_log(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)level;
    (void)component;
    (void)text;
    (void)arg;
}

static void on_closed(void *arg)
{
    *(int *)arg = 1;
}

static const tqi_net_service idle_service = {.name = "idle"};

static void a_server_without_memory_is_not_made(void **state)
{
    (void)state;
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    tqi_net_server_options options = {.epoch = 1, .token = &testing_token};
    bool failed = true;
    long n = 0;
    while (failed) {
        tqi_net_server *server = NULL;
        tq_error err = {0};
        oom_one_after(n++);
        int rc = tqi_net_server_alloc(&testing_loop, &idle_service, NULL, &options, &server, &err);
        if (rc == TQ_OK) {
            rc = tqi_net_server_listen(server, endpoint, NULL, 0, &err);
        }
        failed = oom_end() > 0;
        assert_int_equal(rc, failed ? TQ_ENOMEM : TQ_OK);
        if (server != NULL) {
            int closed = 0;
            tqi_net_server_close(server, on_closed, &closed);
            testing_until(&closed, 1);
        } else {
            assert_int_equal(err.code, TQ_ENOMEM);
        }
    }
    assert_true(n >= 3);
}

static void ignore_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    assert_int_equal(answer->status, TQ_ECLOSED);
    *(int *)arg += 1;
}

static void a_client_without_memory_is_not_made(void **state)
{
    (void)state;
    tqi_net_connector_options options = {.token = &testing_token, .name = "oom"};
    bool failed = true;
    long n = 0;
    while (failed) {
        tqi_net_connector *connector = NULL;
        tqi_net_channel *channel = NULL;
        tq_error err = {0};
        int done = 0;
        Tq__Reserve message;
        tq__reserve__init(&message);
        tqi_net_call_args args = {
            .kind = TQI_RESERVE,
            .message = &message.base,
            .deadline = 1,
            .done = ignore_done,
            .arg = &done,
        };
        oom_one_after(n++);
        int rc = tqi_net_connector_alloc(&testing_loop, &options, &connector, &err);
        if (rc == TQ_OK) {
            rc = tqi_net_channel_get(connector, "unix:/nonexistent/x,tcp:127.0.0.1:1", &channel, &err);
        }
        if (rc == TQ_OK) {
            rc = tqi_net_call_start(channel, &args, NULL, &err);
            if (rc != TQ_OK) {
                assert_null(channel->calls);
                assert_null(channel->keeps);
                assert_int_equal(channel->next_request, 1);
            }
        }
        failed = oom_end() > 0;
        assert_int_equal(rc, failed ? TQ_ENOMEM : TQ_OK);
        if (connector != NULL) {
            testing_connector_stop(connector);
        }
        assert_int_equal(done, failed ? 0 : 1);
    }
    assert_true(n >= 6);
}

/* The n-th allocation of a whole exchange fails; whatever that breaks, every call completes exactly once. */
static void every_call_ends_once_without_memory(void **state)
{
    (void)state;
    bool failed = true;
    uint8_t data[100];
    int ok = 0;
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = testing_byte(i);
    }
    long n = 0;
    for (; failed; n++) {
        testing_server server;
        uint8_t back[100];
        testing_server_start(&server, testing_unix_endpoint(), 1, 10000);
        tqi_net_connector *connector = testing_connector(&testing_token, 0);
        tqi_net_channel *channel = testing_channel(connector, server.endpoint);
        testing_call reserve = {0}, publish = {0}, read = {.buffer = back, .buffer_size = sizeof(back)}, map = {0};
        testing_reserve(channel, &reserve, 1, 20);
        testing_write(channel, &publish, TQI_PUBLISH, data, sizeof(data), 20);
        testing_read(channel, &read, sizeof(back), 20);
        testing_map(channel, &map);
        oom_one_after(n);
        testing_until(&reserve.done, 1);
        testing_until(&publish.done, 1);
        testing_until(&read.done, 1);
        testing_until(&map.done, 1);
        failed = oom_end() > 0;
        const testing_call *calls[] = {&reserve, &publish, &read, &map};
        for (int i = 0; i < 4; i++) {
            assert_true(calls[i]->status == TQ_OK || calls[i]->status == TQ_ENOMEM || calls[i]->status == TQ_ESTALE);
            ok += calls[i]->status == TQ_OK;
            assert_true(failed || calls[i]->status == TQ_OK);
        }
        assert_true(server.executed[1] <= 1);
        if (read.status == TQ_OK) {
            assert_memory_equal(back, data, sizeof data);
        }
        if (map.fd >= 0) {
            close(map.fd);
        }
        testing_connector_stop(connector);
        testing_server_stop(&server);
    }
    assert_true(n > 20);
    assert_true(ok > 3 * n);
}

static void release_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    *(int *)arg = answer->status;
}

/* What gives something back is never refused: without memory for it, the connection is closed, and it comes again. */
static void a_release_comes_again_without_memory(void **state)
{
    (void)state;
    bool failed = true;
    long n = 0;
    for (; failed; n++) {
        testing_server server;
        testing_server_start(&server, testing_unix_endpoint(), 1, 10000);
        tqi_net_connector *connector = testing_connector(&testing_token, 0);
        tqi_net_channel *channel = testing_channel(connector, server.endpoint);
        testing_call first = {0};
        int status = 1;
        Tq__Release message;
        tq__release__init(&message);
        tqi_net_call_args args = {
            .kind = TQI_RELEASE,
            .message = &message.base,
            .deadline = TQI_NEVER,
            .done = release_done,
            .arg = &status,
        };
        testing_reserve(channel, &first, 1, 20);
        testing_until(&first.done, 1);
        assert_int_equal(tqi_net_call_start(channel, &args, NULL, NULL), TQ_OK);
        oom_one_after(n);
        while (status == 1 && server.released == 0) {
            uv_run(&testing_loop, UV_RUN_ONCE);
        }
        failed = oom_end() > 0;
        testing_until(&status, TQ_OK);
        assert_int_equal(server.released, 1);
        testing_connector_stop(connector);
        testing_server_stop(&server);
    }
    assert_true(n > 3);
}

/* The room that a changing request has from the start is enough for every reply of fixed size. */
static void the_room_of_a_request_fits_every_fixed_reply(void **state)
{
    (void)state;
    int fixed = 0;
    for (uint16_t kind = 0; kind < 256; kind++) {
        const tqi_method *method = tqi_method_find(kind);
        if (method == NULL || !method->keep) {
            continue;
        }
        size_t size = 0;
        bool varies = false;
        for (unsigned i = 0; i < method->reply->n_fields; i++) {
            const ProtobufCFieldDescriptor *field = &method->reply->fields[i];
            varies = varies || field->label == PROTOBUF_C_LABEL_REPEATED || field->type == PROTOBUF_C_TYPE_STRING ||
                     field->type == PROTOBUF_C_TYPE_BYTES || field->type == PROTOBUF_C_TYPE_MESSAGE;
            size += 2 + 10; /* its number, and the longest integer */
        }
        assert_true(varies || size <= TQI_NET_REPLY_ROOM);
        fixed += !varies;
    }
    assert_true(fixed > 10);
}

static int setup(void **state)
{
    tq_log_set_sink(no_log, NULL);
    return testing_setup(state);
}

static int teardown(void **state)
{
    oom_end();
    tq_log_set_sink(NULL, NULL);
    return testing_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_server_without_memory_is_not_made, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_without_memory_is_not_made, setup, teardown),
        cmocka_unit_test_setup_teardown(every_call_ends_once_without_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(a_release_comes_again_without_memory, setup, teardown),
        cmocka_unit_test(the_room_of_a_request_fits_every_fixed_reply),
    };

    return cmocka_run_group_tests_name("net_oom", tests, NULL, NULL);
}
