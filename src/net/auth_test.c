/*
 * auth_test.c - which clients are admitted, and what happens to those that break the protocol.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/socket.h>

#include "base/log.h"
#include "net/serving.h"
#include "net/testkit.h"

static int warnings;
static char warning[1024];

static void keep_warning(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)component;
    (void)arg;
    if (level <= TQI_WARN) {
        warnings++;
        snprintf(warning, sizeof(warning), "%s", text);
    }
}

static int setup(void **state)
{
    warnings = 0;
    tq_log_set_sink(keep_warning, NULL);
    return testing_setup(state);
}

static int teardown(void **state)
{
    tq_log_set_sink(NULL, NULL);
    return testing_teardown(state);
}

/* Another client of the same server works. */
static void assert_serves(testing_server *server)
{
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server->endpoint);
    testing_call call = {0};

    testing_reserve(channel, &call, 1, 10);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    testing_connector_stop(connector);
}

static void a_wrong_token_is_refused(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    tqi_net_token wrong = testing_token;
    wrong.bytes[31] ^= 1;
    tqi_net_connector *connector = testing_connector(&wrong, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call calls[2] = {0};
    /* No deadline: the refusal ends the calls, and the client does not try again. */
    testing_reserve(channel, &calls[0], 1, -1);
    testing_events(channel, &calls[1], -1);
    testing_until(&calls[1].done, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(calls[i].status, TQ_EAUTH);
        assert_non_null(strstr(calls[i].error.message, server.endpoint));
    }
    assert_int_equal(warnings, 1);
    assert_int_equal(server.opened, 0);
    testing_call again = {0};
    testing_reserve(channel, &again, 1, -1);
    testing_until(&again.done, 1);
    assert_int_equal(again.status, TQ_EAUTH);
    testing_connector_stop(connector);
    assert_serves(&server);
    testing_server_stop(&server);
}

/* A path that belongs to another system here refuses us; the endpoint after it is the intended one. */
static void the_endpoint_after_a_refusal_is_tried(void **state)
{
    (void)state;
    testing_server stranger, server;
    char list[2 * TQI_NET_ENDPOINT_MAX];
    testing_server_start(&stranger, testing_unix_endpoint(), 1, 1000);
    testing_server_start(&server, "tcp:127.0.0.1:0", 2, 1000);
    stranger.server->token = (tqi_net_token){.bytes = "another", .size = 7};
    snprintf(list, sizeof(list), "%s,%s", stranger.endpoint, server.endpoint);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, list);
    testing_call call = {0};
    testing_reserve(channel, &call, 1, 10);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(tqi_net_channel_epoch_for_tests(channel), 2);
    assert_int_equal(stranger.opened, 0);
    testing_connector_stop(connector);
    testing_server_stop(&stranger);
    testing_server_stop(&server);
}

/* An address that belongs to another server of the same system is skipped; if it is the only one, calls end as stale. */
static void only_the_named_server_is_accepted(void **state)
{
    (void)state;
    testing_server other, server;
    char list[2 * TQI_NET_ENDPOINT_MAX];
    testing_server_start(&other, testing_unix_endpoint(), 1, 1000);
    testing_server_start(&server, "tcp:127.0.0.1:0", 2, 1000);
    uint64_t id = tqi_net_server_id(server.server);
    assert_true(id != 0 && id != tqi_net_server_id(other.server));
    snprintf(list, sizeof(list), "%s,%s", other.endpoint, server.endpoint);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = NULL, *same = NULL, *wrong = NULL;
    assert_int_equal(tqi_net_channel_get_server(connector, list, id, &channel, NULL), TQ_OK);
    assert_int_equal(tqi_net_channel_get_server(connector, list, id, &same, NULL), TQ_OK);
    assert_ptr_equal(channel, same);
    testing_call call = {0}, lost = {0};
    testing_reserve(channel, &call, 1, 10);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(tqi_net_channel_epoch_for_tests(channel), 2);
    assert_false(tqi_net_channel_local(channel));
    assert_non_null(strstr(tqi_net_channel_unix_failure(channel), other.endpoint));
    assert_non_null(strstr(tqi_net_channel_unix_failure(channel), "another server"));
    assert_int_equal(other.executions, 0);
    assert_int_equal(tqi_net_channel_get_server(connector, other.endpoint, id, &wrong, NULL), TQ_OK);
    /* No deadline: the other server's answer ends it. */
    testing_reserve(wrong, &lost, 1, -1);
    testing_until(&lost.done, 1);
    assert_int_equal(lost.status, TQ_ESTALE);
    assert_non_null(strstr(lost.error.message, other.endpoint));
    testing_connector_stop(connector);
    testing_server_stop(&other);
    testing_server_stop(&server);
}

static void bad_token_files_are_refused(void **state)
{
    (void)state;
    tqi_net_token token;
    tq_error err;
    char path[] = "/tmp/tq-token-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(tqi_net_token_load(path, &token, &err), TQ_EAUTH);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(write(fd, "secret\r\n \n", 10), 10);
    assert_int_equal(tqi_net_token_load(path, &token, &err), TQ_OK);
    assert_int_equal(token.size, 6);
    assert_memory_equal(token.bytes, "secret", 6);
    char text[300];
    memset(text, 'x', sizeof(text));
    assert_int_equal(write(fd, text, sizeof text), sizeof text);
    assert_int_equal(tqi_net_token_load(path, &token, &err), TQ_EAUTH);
    assert_non_null(strstr(err.message, path));
    close(fd);
    unlink(path);
    assert_int_equal(tqi_net_token_load(path, &token, &err), TQ_EAUTH);
    assert_non_null(strstr(err.message, path));
}

static void a_client_that_says_nothing_is_closed(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    server.server->handshake_ns = 50000000;
    testing_raw raw;
    testing_raw_connect(&raw, server.endpoint);
    testing_until(&raw.eof, 1);
    assert_true(raw.size > TQI_FRAME_HEADER);
    assert_int_equal(warnings, 1);
    testing_raw_close(&raw);
    assert_int_equal(server.opened, 0);
    assert_serves(&server);
    testing_server_stop(&server);
}

static void a_client_of_another_version_is_refused(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    testing_raw raw;
    testing_raw_connect(&raw, server.endpoint);
    testing_raw_frame(&raw, &(tqi_frame){.version = 9, .kind = TQI_HELLO}, NULL);
    char message[512] = "";
    assert_int_equal(testing_raw_refusal(&raw, message, sizeof message), TQ_EVERSION);
    assert_non_null(strstr(message, "version 9"));
    assert_non_null(strstr(message, "version 2"));
    assert_non_null(strstr(message, "this server is older"));
    assert_int_equal(warnings, 1);
    testing_raw_close(&raw);
    assert_serves(&server);
    testing_server_stop(&server);
}

/* A server of a later version: the header, whose format is fixed, is enough to recognise it. */
typedef struct later_server {
    uv_poll_t poll;
    int fd;
    int accepted[4];
    int n;
    const void *bytes;
    size_t size;
    int closed;
} later_server;

static void later_on_accept(uv_poll_t *poll, int status, int events)
{
    later_server *later = poll->data;

    (void)status;
    (void)events;
    int fd = accept(later->fd, NULL, NULL);
    assert_true(fd >= 0 && later->n < 4);
    later->accepted[later->n++] = fd;
    assert_int_equal(send(fd, later->bytes, later->size, MSG_NOSIGNAL), later->size);
}

static void later_on_closed(uv_handle_t *handle)
{
    ((later_server *)handle->data)->closed = 1;
}

static void later_start(later_server *later, const char *endpoint, const void *bytes, size_t size)
{
    tqi_net_endpoint parsed;
    char bound[TQI_NET_ENDPOINT_MAX];

    memset(later, 0, sizeof(*later));
    later->bytes = bytes;
    later->size = size;
    assert_int_equal(tqi_net_endpoint_parse(endpoint, strlen(endpoint), &parsed, NULL), TQ_OK);
    assert_int_equal(tqi_net_endpoint_listen(&parsed, &later->fd, NULL, bound, sizeof bound, NULL), TQ_OK);
    uv_poll_init(&testing_loop, &later->poll, later->fd);
    later->poll.data = later;
    uv_poll_start(&later->poll, UV_READABLE, later_on_accept);
}

static void later_stop(later_server *later)
{
    uv_close((uv_handle_t *)&later->poll, later_on_closed);
    close(later->fd);
    for (int i = 0; i < later->n; i++) {
        close(later->accepted[i]);
    }
    testing_until(&later->closed, 1);
}

static void a_server_of_another_version_is_named(void **state)
{
    (void)state;
    later_server later;
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    uint8_t header[TQI_FRAME_HEADER];
    tqi_frame_encode(&(tqi_frame){.version = 3, .kind = 99, .body = 12345}, header);
    later_start(&later, endpoint, header, sizeof(header));
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call call = {0};
    testing_reserve(channel, &call, 1, -1);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_EVERSION);
    assert_non_null(strstr(call.error.message, endpoint));
    assert_non_null(strstr(call.error.message, "version 3"));
    assert_non_null(strstr(call.error.message, "version 2"));
    assert_non_null(strstr(call.error.message, "this client is older"));
    assert_int_equal(later.n, 1);
    assert_int_equal(warnings, 1);
    /* The server notices it as well. */
    tqi_frame told;
    uint8_t answer[TQI_FRAME_HEADER];
    assert_int_equal(recv(later.accepted[0], answer, sizeof answer, MSG_WAITALL), sizeof answer);
    assert_int_equal(tqi_frame_decode(answer, &told, NULL), TQ_OK);
    assert_int_equal(told.kind, TQI_HELLO);
    /* It is logged once, not with each call. */
    testing_call again = {0};
    testing_reserve(channel, &again, 2, -1);
    testing_until(&again.done, 1);
    assert_int_equal(again.status, TQ_EVERSION);
    assert_int_equal(warnings, 1);
    testing_connector_stop(connector);
    later_stop(&later);
}

static void a_server_of_another_protocol_is_named(void **state)
{
    (void)state;
    later_server later;
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    static const char noise[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    later_start(&later, endpoint, noise, sizeof(noise) - 1);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call call = {0};
    testing_reserve(channel, &call, 1, -1);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_EPROTO);
    assert_non_null(strstr(call.error.message, endpoint));
    assert_int_equal(later.n, 3);
    testing_connector_stop(connector);
    later_stop(&later);
}

/* A server without the token cannot pretend: it does not know the proof. */
static void a_server_without_the_token_is_refused(void **state)
{
    (void)state;
    later_server later;
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    uint8_t bytes[2 * TQI_FRAME_HEADER + 256], nonce[TQI_NET_NONCE] = {0}, proof[TQI_NET_PROOF] = {0};
    Tq__Challenge challenge;
    tq__challenge__init(&challenge);
    challenge.nonce = (ProtobufCBinaryData){sizeof(nonce), nonce};
    Tq__Welcome welcome;
    tq__welcome__init(&welcome);
    welcome.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    welcome.epoch = 4;
    tqi_frame frame = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_CHALLENGE};
    frame.body = (uint32_t)tq__challenge__pack(&challenge, bytes + TQI_FRAME_HEADER);
    tqi_frame_encode(&frame, bytes);
    size_t size = TQI_FRAME_HEADER + frame.body;
    frame.kind = TQI_WELCOME;
    frame.body = (uint32_t)tq__welcome__pack(&welcome, bytes + size + TQI_FRAME_HEADER);
    tqi_frame_encode(&frame, bytes + size);
    size += TQI_FRAME_HEADER + frame.body;
    later_start(&later, endpoint, bytes, size);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call call = {0};
    testing_reserve(channel, &call, 1, -1);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_EAUTH);
    assert_int_equal(tqi_net_channel_epoch_for_tests(channel), 0);
    testing_connector_stop(connector);
    later_stop(&later);
}

static void malformed_frames_before_the_login_close_the_connection(void **state)
{
    (void)state;
    static const tqi_frame frames[] = {
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO, .body = 4097},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO, .body = UINT32_MAX},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO, .payload = 1},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 1},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO, .body = 0},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO, .flags = 1u << TQI_FRAME_FDS_SHIFT},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_BYE},
    };
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    for (size_t i = 0; i < sizeof(frames) / sizeof(*frames); i++) {
        testing_raw raw;
        warnings = 0;
        testing_raw_connect(&raw, server.endpoint);
        testing_raw_frame(&raw, &frames[i], NULL);
        testing_until(&raw.eof, 1);
        assert_int_equal(warnings, 1);
        assert_non_null(strstr(warning, "malformed"));
        assert_non_null(strstr(warning, "unix"));
        testing_raw_close(&raw);
    }
    assert_int_equal(server.opened, 0);
    assert_serves(&server);
    testing_server_stop(&server);
}

/* A peer that keeps sending garbage does not fill the log. */
static void warnings_about_garbage_are_limited(void **state)
{
    static const tqi_frame garbage = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_BYE};
    testing_server server;

    (void)state;

    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    warnings = 0;
    for (unsigned i = 0; i < 3 * TQI_NET_WARN_MAX; i++) {
        testing_raw raw;
        testing_raw_connect(&raw, server.endpoint);
        testing_raw_frame(&raw, &garbage, NULL);
        testing_until(&raw.eof, 1);
        testing_raw_close(&raw);
    }
    assert_true(warnings >= (int)TQI_NET_WARN_MAX && warnings < 3 * (int)TQI_NET_WARN_MAX);
    assert_serves(&server);
    testing_server_stop(&server);
}

/* When the server goes away, a client logs that once, however often it tries, and once when the server is back. */
static void an_outage_is_logged_once(void **state)
{
    const char *endpoint = testing_unix_endpoint();
    testing_server server;

    (void)state;

    testing_server_start(&server, endpoint, 1, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call call = {0}, again = {0};
    testing_reserve(channel, &call, 1, 10);
    testing_until(&call.done, 1);
    assert_int_equal(warnings, 0);
    testing_server_stop(&server);
    testing_until(&warnings, 1);
    assert_non_null(strstr(warning, "lost"));
    assert_non_null(strstr(warning, endpoint));
    testing_reserve(channel, &again, 1, -1);
    testing_run_ms(50);
    assert_int_equal(warnings, 1);
    testing_server_start(&server, endpoint, 2, 1000);
    testing_until(&again.done, 1);
    assert_int_equal(warnings, 2);
    assert_non_null(strstr(warning, "is back after"));
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void malformed_frames_after_the_login_close_the_connection(void **state)
{
    (void)state;
    static const tqi_frame frames[] = {
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 1, .body = TQI_FRAME_BODY_MAX + 1},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 0},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 1, .flags = TQI_FRAME_REPLY},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 1, .flags = 1u << TQI_FRAME_FDS_SHIFT},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 1, .body = 3},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_CANCEL, .body = 2},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_ACK, .payload = 5},
        {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO},
        {.version = TQI_PROTOCOL_VERSION, .kind = 0},
        {.version = TQI_PROTOCOL_VERSION + 1, .kind = TQI_RESERVE, .request = 1},
    };
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 0);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call before = {0}, waiting = {0}, after = {0};
    testing_reserve(channel, &before, 1, 10);
    testing_claim(channel, &waiting, false, 10);
    testing_until(&server.n_waiting, 1);
    for (size_t i = 0; i < sizeof(frames) / sizeof(*frames); i++) {
        testing_raw raw;
        warnings = 0;
        testing_raw_connect(&raw, server.endpoint);
        testing_raw_login(&raw);
        testing_raw_frame(&raw, &frames[i], frames[i].body <= 512 ? "\xff\xff\xff" : NULL);
        testing_until(&raw.eof, 1);
        assert_int_equal(warnings, 1);
        testing_raw_close(&raw);
    }
    assert_int_equal(server.opened, 1 + (int)(sizeof frames / sizeof *frames));
    assert_int_equal(server.ended, (int)(sizeof frames / sizeof *frames));
    /* The other connection saw nothing of it. */
    testing_answer(&server);
    testing_reserve(channel, &after, 2, 10);
    testing_until(&after.done, 1);
    assert_int_equal(waiting.status, TQ_OK);
    assert_int_equal(after.status, TQ_OK);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

/* An unknown kind of request from a later version, sent by hand: it is answered, and the connection stays open. */
static void an_unknown_request_is_answered(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 0);
    testing_raw raw;
    testing_raw_connect(&raw, server.endpoint);
    testing_raw_login(&raw);
    uint8_t payload[100] = {0};
    testing_raw_frame(
        &raw, &(tqi_frame){.version = TQI_PROTOCOL_VERSION, .kind = 999, .request = 1, .payload = sizeof(payload)},
        NULL);
    testing_raw_send(&raw, payload, sizeof(payload));
    testing_until(&raw.size, TQI_FRAME_HEADER + 4);
    tqi_frame reply;
    assert_int_equal(tqi_frame_decode(raw.bytes, &reply, NULL), TQ_OK);
    assert_int_equal(reply.kind, TQI_FAILED);
    assert_int_equal(reply.request, 1);
    raw.size = 0;
    testing_raw_frame(&raw, &(tqi_frame){.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 2, .ack = 2},
                      NULL);
    testing_until(&raw.size, TQI_FRAME_HEADER);
    assert_int_equal(tqi_frame_decode(raw.bytes, &reply, NULL), TQ_OK);
    assert_int_equal(reply.kind, TQI_RESERVE);
    assert_int_equal(reply.flags, TQI_FRAME_REPLY);
    assert_int_equal(warnings, 0);
    testing_raw_close(&raw);
    testing_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_wrong_token_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_endpoint_after_a_refusal_is_tried, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_named_server_is_accepted, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_token_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_says_nothing_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_of_another_version_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_of_another_version_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_of_another_protocol_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_without_the_token_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(malformed_frames_before_the_login_close_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(warnings_about_garbage_are_limited, setup, teardown),
        cmocka_unit_test_setup_teardown(an_outage_is_logged_once, setup, teardown),
        cmocka_unit_test_setup_teardown(malformed_frames_after_the_login_close_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unknown_request_is_answered, setup, teardown),
    };

    return cmocka_run_group_tests_name("net_auth", tests, NULL, NULL);
}
