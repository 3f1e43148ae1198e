/*
 * cut_test.c - the connection breaks after every single byte of an exchange, in both directions: every request is
 * executed exactly once and every call gets its answer.
 *
 * A relay between client and server passes a given number of bytes and then closes both its sockets; later connections
 * pass unhindered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/socket.h>

#include "net/internal.h"
#include "net/testkit.h"

enum {
    UP,
    DOWN,
    WAYS
}; /* to the server, to the client */

typedef struct relay relay;

typedef struct link {
    relay *relay;
    uv_poll_t polls[WAYS]; /* [UP] reads from the client, [DOWN] from the server */
    int fds[WAYS];         /* [UP] the client's socket, [DOWN] the server's */
    size_t left[WAYS];
    bool closed;
    int open;
} link_pair;

struct relay {
    uv_poll_t poll;
    int fd;
    tqi_net_endpoint target;
    size_t limit[WAYS]; /* of the next connection; then none */
    size_t passed[WAYS];
    int links;
    int closed;
};

static void link_on_closed(uv_handle_t *handle)
{
    link_pair *link = handle->data;

    if (--link->open == 0) {
        link->relay->links--;
        free(link);
    }
}

static void link_close(link_pair *link)
{
    if (link->closed) {
        return;
    }
    link->closed = true;
    for (int way = 0; way < WAYS; way++) {
        uv_close((uv_handle_t *)&link->polls[way], link_on_closed);
        close(link->fds[way]);
    }
}

static void link_on_readable(uv_poll_t *poll, int status, int events)
{
    link_pair *link = poll->data;
    int way = poll == &link->polls[UP] ? UP : DOWN;
    char bytes[65536];

    (void)status;
    (void)events;
    if (link->closed) {
        return;
    }
    size_t room = link->left[way] < sizeof(bytes) ? link->left[way] : sizeof(bytes);
    ssize_t n = room ? recv(link->fds[way], bytes, room, MSG_DONTWAIT) : 0;
    if (n > 0) {
        link->relay->passed[way] += (size_t)n;
        link->left[way] -= (size_t)n;
        if (send(link->fds[!way], bytes, (size_t)n, MSG_NOSIGNAL) != n) {
            n = 0;
        }
    }
    if (n <= 0 || link->left[way] == 0) {
        link_close(link);
    }
}

static void relay_on_accept(uv_poll_t *poll, int status, int events)
{
    relay *r = poll->data;

    (void)status;
    (void)events;
    link_pair *link = calloc(1, sizeof(*link));
    assert_non_null(link);
    struct sockaddr_un addr;
    socklen_t size;
    tqi_net_endpoint_sockaddr_un(&r->target, &addr, &size);
    link->relay = r;
    link->fds[UP] = accept(r->fd, NULL, NULL);
    link->fds[DOWN] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(link->fds[DOWN], (const struct sockaddr *)&addr, size), 0);
    link->open = WAYS;
    r->links++;
    for (int way = 0; way < WAYS; way++) {
        link->left[way] = r->limit[way];
        r->limit[way] = SIZE_MAX;
        assert_int_equal(uv_poll_init(&testing_loop, &link->polls[way], link->fds[way]), 0);
        link->polls[way].data = link;
        uv_poll_start(&link->polls[way], UV_READABLE, link_on_readable);
    }
    if (link->left[UP] == 0 || link->left[DOWN] == 0) {
        link_close(link);
    }
}

static void relay_start(relay *r, const char *endpoint, const char *target)
{
    tqi_net_endpoint own;
    char bound[TQI_NET_ENDPOINT_MAX];

    memset(r, 0, sizeof(*r));
    assert_int_equal(tqi_net_endpoint_parse(endpoint, strlen(endpoint), &own, NULL), TQ_OK);
    assert_int_equal(tqi_net_endpoint_parse(target, strlen(target), &r->target, NULL), TQ_OK);
    assert_int_equal(tqi_net_endpoint_listen(&own, &r->fd, NULL, bound, sizeof bound, NULL), TQ_OK);
    uv_poll_init(&testing_loop, &r->poll, r->fd);
    r->poll.data = r;
    r->limit[UP] = r->limit[DOWN] = SIZE_MAX;
    uv_poll_start(&r->poll, UV_READABLE, relay_on_accept);
}

static void relay_on_closed(uv_handle_t *handle)
{
    ((relay *)handle->data)->closed = 1;
}

static void relay_stop(relay *r)
{
    uv_close((uv_handle_t *)&r->poll, relay_on_closed);
    close(r->fd);
    testing_until(&r->closed, 1);
    while (r->links > 0) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
}

/* One client: a KEEP request, a KEEP request with a payload, and an AGAIN request with one back. */
static void exchange(testing_server *server, const char *endpoint, uint32_t number)
{
    static const size_t size = 30;
    uint8_t data[30], back[30];

    for (size_t i = 0; i < size; i++) {
        data[i] = testing_byte(i);
    }
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call reserve = {0}, publish = {0}, read = {.buffer = back, .buffer_size = sizeof(back)};
    int executions = server->executions;
    int settled = server->settled_acked;
    /* In this order, because the second answer is acknowledged at once, and the first one with it. */
    testing_write(channel, &publish, TQI_PUBLISH, data, size, 20);
    testing_reserve(channel, &reserve, number, 20);
    testing_read(channel, &read, size, 20);
    testing_until(&read.done, 1);
    testing_until(&publish.done, 1);
    assert_int_equal(reserve.done, 1);
    assert_int_equal(reserve.status, TQ_OK);
    assert_int_equal(reserve.index, number);
    assert_int_equal(publish.status, TQ_OK);
    assert_int_equal(read.status, TQ_OK);
    assert_memory_equal(back, data, size);
    assert_int_equal(server->executed[number], 1);
    assert_int_equal(server->executions, executions + 2);
    testing_until(&server->settled_acked, settled + 2);
    testing_connector_stop(connector);
}

static void a_connection_cut_at_any_byte_loses_nothing(void **state)
{
    (void)state;
    testing_server server;
    char target[128], endpoint[128];
    relay r;
    snprintf(target, sizeof(target), "%s", testing_unix_endpoint());
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    testing_server_start(&server, target, 1, 60000);
    relay_start(&r, endpoint, target);
    /* Once whole, to see how long it is. */
    exchange(&server, endpoint, 0);
    size_t total[WAYS] = {r.passed[UP], r.passed[DOWN]};
    assert_true(total[UP] > 300 && total[DOWN] > 250 && total[UP] + total[DOWN] < TESTING_NUMBERS);
    uint32_t number = 1;
    for (int way = 0; way < WAYS; way++) {
        for (size_t limit = 0; limit <= total[way]; limit++) {
            r.limit[way] = limit;
            exchange(&server, endpoint, number++);
        }
    }
    assert_int_equal(server.bad_payloads, 0);
    assert_int_equal(server.settled_lost, 0);
    assert_true(server.sinks_failed > 0);
    assert_int_equal(server.received, 30 * (uint64_t)number);
    relay_stop(&r);
    testing_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_connection_cut_at_any_byte_loses_nothing, testing_setup, testing_teardown),
    };

    return cmocka_run_group_tests_name("net_cut", tests, NULL, NULL);
}
