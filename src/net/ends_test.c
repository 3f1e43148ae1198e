/*
 * ends_test.c - servers that shut down: they send a Goodbye while requests wait, the connection may break at any byte
 * of it, and a client that does not know Goodbye, or a server that does not send one, is no worse off than before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/internal.h"
#include "net/testkit.h"

#define MS UINT64_C(1000000)

static void server_end(testing_server *server, tqi_net_ending ending)
{
    tqi_net_server_set_goodbye(server->server, ending, "the test's server", "SIGTERM");
    testing_server_stop(server);
}

typedef struct told {
    int ended, back;
    tq_error why;
} told;

static void on_ended(const tq_error *why, void *arg)
{
    told *t = arg;

    if (why != NULL) {
        t->ended++;
        t->why = *why;
    } else {
        t->back++;
    }
}

/* Waiting calls end at once; later calls fail at once; the next call finds a new server at the address. */
static void calls_end_with_their_system(void **state)
{
    (void)state;
    testing_server server;
    told t = {0};
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    testing_server_start(&server, endpoint, 1, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_connector_on_ended(connector, on_ended, &t);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call claim = {0}, events = {0}, later = {0}, again = {0};
    testing_claim(channel, &claim, false, 60);
    testing_events(channel, &events, 60);
    testing_until(&server.n_waiting, 2);
    uint64_t begin = tqi_now();
    server_end(&server, TQI_NET_ENDS_SYSTEM);
    testing_until(&claim.done, 1);
    testing_until(&events.done, 1);
    assert_int_equal(claim.status, TQ_EENDED);
    assert_int_equal(events.status, TQ_EENDED);
    assert_non_null(strstr(claim.error.message, "has ended (SIGTERM)"));
    assert_int_equal(t.ended, 1);
    assert_int_equal(t.why.code, TQ_EENDED);
    testing_reserve(channel, &later, 1, 60);
    testing_until(&later.done, 1);
    assert_int_equal(later.status, TQ_EENDED);
    assert_true(tqi_now() - begin < 2000 * MS);
    testing_server_start(&server, endpoint, 2, 60000);
    testing_reserve(channel, &again, 2, 60);
    testing_until(&again.done, 1);
    assert_int_equal(again.status, TQ_OK);
    assert_int_equal(t.back, 1);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

/* Its own calls end as unreachable; those at the connector's other server continue. */
static void a_server_ends_alone(void **state)
{
    (void)state;
    testing_server first, second;
    testing_server_start(&first, testing_unix_endpoint(), 1, 60000);
    testing_server_start(&second, testing_unix_endpoint(), 1, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *one = testing_channel(connector, first.endpoint);
    tqi_net_channel *two = testing_channel(connector, second.endpoint);
    testing_call a = {0}, b = {0}, later = {0};
    testing_claim(one, &a, false, 60);
    testing_claim(two, &b, false, 60);
    testing_until(&first.n_waiting, 1);
    testing_until(&second.n_waiting, 1);
    server_end(&second, TQI_NET_ENDS_SERVER);
    testing_until(&b.done, 1);
    assert_int_equal(b.status, TQ_EUNREACHABLE);
    assert_non_null(strstr(b.error.message, "the test's server has ended (SIGTERM)"));
    testing_reserve(two, &later, 1, 60);
    testing_until(&later.done, 1);
    assert_int_equal(later.status, TQ_EUNREACHABLE);
    assert_int_equal(a.done, 0);
    testing_answer(&first);
    testing_until(&a.done, 1);
    assert_int_equal(a.status, TQ_OK);
    testing_connector_stop(connector);
    testing_server_stop(&first);
}

/* A run that ends in order to restart: a call that may be repeated waits for the next run. */
static void a_call_waits_for_the_next_run(void **state)
{
    (void)state;
    testing_server server;
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    testing_server_start(&server, endpoint, 1, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call events = {0};
    testing_events(channel, &events, 60);
    testing_until(&server.n_waiting, 1);
    server_end(&server, TQI_NET_ENDS_RUN);
    testing_run_ms(50);
    assert_int_equal(events.done, 0);
    testing_server_start(&server, endpoint, 2, 60000);
    testing_until(&server.n_waiting, 1);
    testing_answer(&server);
    testing_until(&events.done, 1);
    assert_int_equal(events.status, TQ_OK);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

/* A client that does not read, with more queued than its socket takes, is waited for only briefly, and the others
 * learn of the shutdown at once. */
static void a_deaf_client_holds_nothing_up(void **state)
{
    (void)state;
    testing_server server;
    testing_raw raw = {.goodbyes = true};
    uint64_t size[] = {16u << 20}, none[] = {0};
    uint32_t slot[] = {0};
    uint8_t body[256];
    Tq__UnitRead read;
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    testing_raw_connect(&raw, server.endpoint);
    raw.goodbyes = true;
    testing_raw_login(&raw);
    uv_poll_stop(&raw.poll);
    tq__unit_read__init(&read);
    read.id = read.offset = none;
    read.n_id = read.n_offset = read.n_size = read.n_slot = 1;
    read.size = size;
    read.slot = slot;
    tqi_frame frame = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_UNIT_READ, .request = 1};
    frame.body = (uint32_t)tq__unit_read__pack(&read, body);
    testing_raw_frame(&raw, &frame, body);
    testing_until(&server.handled, 1);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call claim = {0};
    testing_claim(channel, &claim, false, 60);
    testing_until(&server.n_waiting, 1);
    uint64_t begin = tqi_now();
    server_end(&server, TQI_NET_ENDS_SYSTEM);
    uint64_t took = tqi_now() - begin;
    assert_true(took >= 400 * MS && took < 5000 * MS);
    assert_int_equal(server.sent, 1); /* its memory was given back */
    testing_until(&claim.done, 1);
    assert_int_equal(claim.status, TQ_EENDED);
    testing_connector_stop(connector);
    testing_raw_close(&raw);
}

/* The bare client's Hello does not announce Goodbye: its connection is closed without one. */
static void an_old_client_gets_no_goodbye(void **state)
{
    (void)state;
    testing_server server;
    testing_raw raw;
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    testing_raw_connect(&raw, server.endpoint);
    testing_raw_login(&raw);
    int before = raw.size;
    server_end(&server, TQI_NET_ENDS_SYSTEM);
    testing_until(&raw.eof, 1);
    assert_int_equal(raw.size, before);
    testing_raw_close(&raw);
}

/* --- cut at any byte ------------------------------------------------------ */

/* Relays one connection to the real server, and a limited number of bytes of what the server sends from then on. */
typedef struct player {
    uv_poll_t poll;
    int fd, peer, server;
    size_t limit, passed;
    bool cut;
    int open;
} player;

static void player_close(uv_handle_t *handle)
{
    ((player *)handle->data)->open--;
}

typedef struct pipe_end {
    uv_poll_t poll;
    player *player;
    int from, to;
    bool down;
} pipe_end;

static void pipe_closed(uv_handle_t *handle)
{
    pipe_end *end = handle->data;

    end->player->open--;
    free(end);
}

static void pipe_on_readable(uv_poll_t *poll, int status, int events)
{
    pipe_end *end = poll->data;
    player *p = end->player;
    char bytes[4096];

    (void)status;
    (void)events;
    ssize_t n = recv(end->from, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n > 0 && end->down && p->cut && p->passed + (size_t)n > p->limit) {
        n = (ssize_t)(p->limit - p->passed);
        (void)!send(end->to, bytes, (size_t)n, MSG_NOSIGNAL);
        p->passed += (size_t)n;
        n = 0;
    }
    if (n > 0) {
        p->passed += end->down ? (size_t)n : 0;
        (void)!send(end->to, bytes, (size_t)n, MSG_NOSIGNAL);
        return;
    }
    shutdown(end->from, SHUT_RDWR);
    shutdown(end->to, SHUT_RDWR);
    uv_close((uv_handle_t *)poll, pipe_closed);
}

static void player_pipe(player *p, int from, int to, bool down)
{
    pipe_end *end = calloc(1, sizeof(*end));

    assert_non_null(end);
    *end = (pipe_end){.player = p, .from = from, .to = to, .down = down};
    uv_poll_init(&testing_loop, &end->poll, from);
    end->poll.data = end;
    uv_poll_start(&end->poll, UV_READABLE, pipe_on_readable);
    p->open++;
}

static void player_on_accept(uv_poll_t *poll, int status, int events)
{
    player *p = poll->data;

    (void)status;
    (void)events;
    p->peer = accept(p->fd, NULL, NULL);
    assert_true(p->peer >= 0);
    player_pipe(p, p->peer, p->server, false);
    player_pipe(p, p->server, p->peer, true);
    uv_close((uv_handle_t *)poll, player_close);
    close(p->fd); /* nobody listens after this one */
}

/* A client behind the relay, whose claim is waiting when the server shuts down; returns its status and the size of the
 * Goodbye. */
static int cut_at(size_t limit, bool cut, size_t *size)
{
    testing_server server;
    player p = {.cut = cut, .open = 1};
    char endpoint[128], bound[TQI_NET_ENDPOINT_MAX];
    tqi_net_endpoint target, own;
    struct sockaddr_un addr;
    socklen_t addr_size;

    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    assert_int_equal(tqi_net_endpoint_parse(server.endpoint, strlen(server.endpoint), &target, NULL), TQ_OK);
    assert_int_equal(tqi_net_endpoint_parse(endpoint, strlen(endpoint), &own, NULL), TQ_OK);
    tqi_net_endpoint_sockaddr_un(&target, &addr, &addr_size);
    p.server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(p.server, (const struct sockaddr *)&addr, addr_size), 0);
    assert_int_equal(tqi_net_endpoint_listen(&own, &p.fd, NULL, bound, sizeof bound, NULL), TQ_OK);
    uv_poll_init(&testing_loop, &p.poll, p.fd);
    p.poll.data = &p;
    p.limit = SIZE_MAX;
    uv_poll_start(&p.poll, UV_READABLE, player_on_accept);

    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call claim = {0};
    testing_claim(channel, &claim, false, 0.2);
    testing_until(&server.n_waiting, 1);
    p.passed = 0;
    p.limit = limit;
    server_end(&server, TQI_NET_ENDS_SYSTEM);
    testing_until(&claim.done, 1);
    *size = p.passed;
    testing_connector_stop(connector);
    while (p.open > 0) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
    close(p.peer);
    close(p.server);
    unlink(own.path);
    return claim.status;
}

/* A complete Goodbye ends the call with its reason; one cut off at any byte is a lost connection, and the deadline
 * applies. */
static void a_goodbye_that_is_cut_is_a_lost_connection(void **state)
{
    (void)state;
    size_t whole = 0, passed;
    assert_int_equal(cut_at(0, false, &whole), TQ_EENDED);
    assert_true(whole > 40 && whole < 400);
    for (size_t limit = 0; limit < whole; limit += limit < 44 ? 4 : 9) {
        assert_int_equal(cut_at(limit, true, &passed), TQ_EUNREACHABLE);
        assert_int_equal(passed, limit);
    }
    assert_int_equal(cut_at(whole - 1, true, &passed), TQ_EUNREACHABLE);
    assert_int_equal(cut_at(whole, true, &passed), TQ_EENDED);
}

/* An older server shuts down silently: the call waits for its deadline, and the next one finds nobody. */
static void a_server_without_goodbye_is_waited_for(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call claim = {0};
    testing_claim(channel, &claim, false, 0.3);
    testing_until(&server.n_waiting, 1);
    testing_server_stop(&server);
    testing_until(&claim.done, 1);
    assert_int_equal(claim.status, TQ_EUNREACHABLE);
    testing_connector_stop(connector);
}

/* Another token where it was connected: its system has ended, and the call's error says so. */
static void another_system_at_the_address_is_noticed(void **state)
{
    (void)state;
    testing_server server;
    tqi_net_token mine = testing_token;
    char endpoint[128];
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    testing_server_start(&server, endpoint, 1, 60000);
    tqi_net_connector *connector = testing_connector(&mine, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call first = {0}, second = {0}, third = {0};
    testing_reserve(channel, &first, 1, 60);
    testing_until(&first.done, 1);
    testing_server_stop(&server);
    testing_token.bytes[0] ^= 1;
    testing_server_start(&server, endpoint, 2, 60000);
    testing_reserve(channel, &second, 2, 60);
    testing_until(&second.done, 1);
    assert_int_equal(second.status, TQ_EENDED);
    assert_non_null(strstr(second.error.message, "another one"));
    testing_reserve(channel, &third, 3, 60);
    testing_until(&third.done, 1);
    assert_int_equal(third.status, TQ_EENDED);
    testing_token.bytes[0] ^= 1;
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

int main(void)
{
#define ENDS_TEST(name) cmocka_unit_test_setup_teardown(name, testing_setup, testing_teardown)
    const struct CMUnitTest tests[] = {
        ENDS_TEST(calls_end_with_their_system),
        ENDS_TEST(a_server_ends_alone),
        ENDS_TEST(a_call_waits_for_the_next_run),
        ENDS_TEST(a_deaf_client_holds_nothing_up),
        ENDS_TEST(an_old_client_gets_no_goodbye),
        ENDS_TEST(a_goodbye_that_is_cut_is_a_lost_connection),
        ENDS_TEST(a_server_without_goodbye_is_waited_for),
        ENDS_TEST(another_system_at_the_address_is_noticed),
    };

    return cmocka_run_group_tests_name("net_ends", tests, NULL, NULL);
}
