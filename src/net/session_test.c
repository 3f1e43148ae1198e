/*
 * session_test.c - sessions: restarts of the server, grace, the death of a process.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/calling.h"
#include "net/serving.h"
#include "net/testkit.h"

typedef struct openings {
    int count;
    int fresh;
    uint64_t epoch;
} openings;

static void on_open(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg)
{
    openings *o = arg;

    assert_int_equal(tqi_net_channel_epoch_for_tests(channel), epoch);
    o->count++;
    o->fresh += fresh;
    o->epoch = epoch;
}

/* Breaks the connection of the server's only session. */
static void cut(testing_server *server)
{
    tqi_net_peer_close(server->session->peer);
}

static void a_restarted_server_gives_a_new_session(void **state)
{
    (void)state;
    testing_server server;
    char endpoint[128];
    openings opened = {0};
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    testing_server_start(&server, endpoint, 100, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    assert_int_equal(tqi_net_channel_on_open(channel, on_open, &opened, NULL), TQ_OK);
    testing_call claim = {0}, events = {0}, unsent = {0}, late = {0};
    testing_claim(channel, &claim, false, -1);
    testing_events(channel, &events, -1);
    testing_until(&server.n_waiting, 2);
    assert_int_equal(opened.count, 1);
    assert_int_equal(opened.fresh, 1);
    /* The whole process is gone: nothing answers the requests. */
    cut(&server);
    testing_server_stop(&server);
    assert_int_equal(server.cancelled, 2);
    testing_run_ms(30);
    assert_int_equal(claim.done + events.done, 0);
    testing_reserve(channel, &unsent, 3, -1);
    testing_server_start(&server, endpoint, 101, 1000);
    testing_until(&claim.done, 1);
    assert_int_equal(claim.status, TQ_ESTALE);
    assert_non_null(strstr(claim.error.message, endpoint));
    assert_int_equal(claim.orphans, 0);
    assert_int_equal(claim.orphans_freed, 1);
    testing_until(&unsent.done, 1);
    assert_int_equal(unsent.status, TQ_OK);
    testing_until(&server.n_waiting, 1);
    testing_answer(&server);
    testing_until(&events.done, 1);
    assert_int_equal(events.status, TQ_OK);
    assert_int_equal(opened.count, 2);
    assert_int_equal(opened.fresh, 2);
    assert_int_equal(opened.epoch, 101);
    testing_reserve(channel, &late, 4, 10);
    testing_until(&late.done, 1);
    assert_int_equal(late.status, TQ_OK);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void a_session_resumes_on_a_new_connection(void **state)
{
    (void)state;
    testing_server server;
    openings opened = {0};
    testing_server_start(&server, testing_unix_endpoint(), 100, 5000);
    tqi_net_connector *connector = testing_connector(&testing_token, UINT64_MAX - 1);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    assert_int_equal(tqi_net_channel_on_open(channel, on_open, &opened, NULL), TQ_OK);
    testing_call claim = {0}, events = {0};
    testing_claim(channel, &claim, false, -1);
    testing_events(channel, &events, -1);
    testing_until(&server.n_waiting, 2);
    cut(&server);
    assert_false(tqi_net_session_connected(server.session));
    /* Answered while nobody is connected: the claim's reply is kept, the events are requested again. */
    testing_answer(&server);
    testing_answer(&server);
    assert_int_equal(server.n_waiting, 0);
    testing_until(&claim.done, 1);
    assert_int_equal(claim.status, TQ_OK);
    testing_until(&server.n_waiting, 1);
    /* This one is still running when the connection breaks: the repeat finds it. */
    cut(&server);
    testing_until(&opened.count, 3);
    testing_answer(&server);
    testing_until(&events.done, 1);
    assert_int_equal(events.status, TQ_OK);
    assert_int_equal(opened.fresh, 1);
    assert_int_equal(server.opened, 1);
    assert_int_equal(server.handled, 3);
    testing_until(&server.settled_acked, 1);
    testing_connector_stop(connector);
    testing_server_stop(&server);
    assert_int_equal(server.settled_lost, 0);
}

/* An idle client reconnects by itself, because its session matters. */
static void an_idle_client_reconnects(void **state)
{
    (void)state;
    testing_server server;
    openings opened = {0};
    testing_server_start(&server, testing_unix_endpoint(), 100, 5000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    assert_int_equal(tqi_net_channel_on_open(channel, on_open, &opened, NULL), TQ_OK);
    testing_call call = {0};
    testing_reserve(channel, &call, 1, 10);
    testing_until(&call.done, 1);
    for (int i = 0; i < 3; i++) {
        cut(&server);
        testing_until(&opened.count, i + 2);
    }
    assert_int_equal(server.opened, 1);
    assert_int_equal(opened.fresh, 1);
    /* If its user no longer wants it, it reconnects only for a call. */
    tqi_net_channel_set_wanted(channel, false);
    cut(&server);
    for (int turns = 0; channel->state != TQI_NET_CHANNEL_IDLE; turns++) {
        assert_true(turns < 10000);
        testing_run_ms(1);
    }
    assert_int_equal(opened.count, 4);
    testing_call later = {0};
    testing_reserve(channel, &later, 2, 10);
    testing_until(&later.done, 1);
    assert_int_equal(opened.count, 5);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void a_session_ends_with_its_grace_time(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 100, 100);
    testing_raw raw;
    testing_raw_connect(&raw, server.endpoint);
    testing_raw_login(&raw);
    static const tqi_frame reserve = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_RESERVE, .request = 1, .ack = 1};
    static const tqi_frame claim = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_CLAIM, .request = 2, .ack = 1};
    static const tqi_frame events = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_EVENTS, .request = 3, .ack = 1};
    testing_raw_frame(&raw, &reserve, NULL);
    testing_raw_frame(&raw, &claim, NULL);
    testing_raw_frame(&raw, &events, NULL);
    testing_until(&server.n_waiting, 2);
    uint64_t start = tqi_now();
    testing_raw_close(&raw);
    testing_until(&server.ended, 1);
    assert_true(tqi_now() - start >= 100000000u);
    assert_int_equal(server.ended_dead, 0);
    assert_int_equal(server.cancelled, 2);
    assert_int_equal(server.n_waiting, 0);
    assert_int_equal(server.settled_lost, 1);
    assert_int_equal(server.settled_acked, 0);
    testing_server_stop(&server);
}

/* A client whose session ended, and which did not receive the Welcome of the next one, gets another that says that it
 * is a new session. */
static void a_lost_welcome_is_sent_again(void **state)
{
    (void)state;
    testing_server server;
    uint8_t session[TQI_NET_SESSION_ID] = {9};
    testing_raw raws[6];
    uint64_t instance = 0;
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    testing_raw_connect(&raws[0], server.endpoint);
    assert_false(testing_raw_hello(&raws[0], session, &instance));
    assert_int_not_equal(instance, 0);
    uint64_t first = instance;
    testing_raw_connect(&raws[1], server.endpoint);
    assert_true(testing_raw_hello(&raws[1], session, &instance));
    assert_true(instance == first);
    testing_raw_frame(&raws[1], &(tqi_frame){.version = TQI_PROTOCOL_VERSION, .kind = TQI_BYE}, NULL);
    testing_until(&server.ended, 1);
    for (int i = 2; i < 5; i++) {
        instance = first;
        testing_raw_connect(&raws[i], server.endpoint);
        assert_false(testing_raw_hello(&raws[i], session, &instance));
        assert_true(instance != first);
    }
    testing_raw_connect(&raws[5], server.endpoint);
    assert_true(testing_raw_hello(&raws[5], session, &instance));
    assert_int_equal(server.opened, 2);
    for (int i = 0; i < 6; i++) {
        testing_raw_close(&raws[i]);
    }
    testing_server_stop(&server);
}

static void a_closed_client_ends_its_session(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call claim = {0};
    testing_claim(channel, &claim, false, -1);
    testing_until(&server.n_waiting, 1);
    testing_connector_stop(connector);
    assert_int_equal(claim.done, 1);
    assert_int_equal(claim.status, TQ_ECLOSED);
    testing_until(&server.ended, 1);
    assert_int_equal(server.cancelled, 1);
    assert_int_equal(server.ended_dead, 0);
    testing_server_stop(&server);
}

/* A released channel closes its session at the server while others continue. */
static void a_released_channel_ends_its_session_alone(void **state)
{
    (void)state;
    testing_server servers[2];
    testing_server_start(&servers[0], testing_unix_endpoint(), 1, 60000);
    testing_server_start(&servers[1], testing_unix_endpoint(), 2, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *a = testing_channel(connector, servers[0].endpoint);
    tqi_net_channel *b = testing_channel(connector, servers[1].endpoint);
    assert_ptr_equal(testing_channel(connector, servers[0].endpoint), a);
    testing_call calls[3] = {0};
    testing_reserve(a, &calls[0], 1, 10);
    testing_reserve(b, &calls[1], 1, 10);
    testing_until(&calls[0].done, 1);
    testing_until(&calls[1].done, 1);
    tqi_net_channel_unref(a);
    testing_run_ms(20);
    assert_int_equal(servers[0].ended, 0);
    /* Released with a call in flight: the call completes as usual. */
    testing_reserve(a, &calls[2], 2, 10);
    tqi_net_channel_unref(a);
    testing_until(&calls[2].done, 1);
    assert_int_equal(calls[2].status, TQ_OK);
    testing_until(&servers[0].ended, 1);
    assert_int_equal(servers[0].settled_acked, 2);
    assert_int_equal(servers[1].ended, 0);
    a = testing_channel(connector, servers[0].endpoint);
    calls[0].done = 0;
    testing_reserve(a, &calls[0], 3, 10);
    testing_until(&calls[0].done, 1);
    assert_int_equal(servers[0].opened, 2);
    testing_connector_stop(connector);
    testing_server_stop(&servers[0]);
    testing_server_stop(&servers[1]);
}

/* --- processes that die --------------------------------------------------- */

/* Runs in a separate process: a client, then a child that inherits its socket and stays; the client sends one more
 * request and simply exits. */
static int child_main(const char *endpoint)
{
    uv_loop_init(&testing_loop);
    testing_token.size = 32;
    memset(testing_token.bytes, 'k', testing_token.size);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, endpoint);
    testing_call call = {0}, claim = {0}, last = {0};
    testing_claim(channel, &claim, false, -1);
    testing_reserve(channel, &call, 1, -1);
    testing_until(&call.done, 1);
    pid_t pid = fork();
    if (pid == 0) {
        for (;;) {
            pause();
        }
    }
    if (write(STDOUT_FILENO, &pid, sizeof(pid)) != sizeof(pid)) {
        _exit(1);
    }
    char go;
    if (read(STDIN_FILENO, &go, 1) != 1) {
        _exit(2);
    }
    testing_reserve(channel, &last, 2, -1);
    while (!last.call->tx->touched) {
        uv_run(&testing_loop, UV_RUN_NOWAIT);
    }
    _exit(0);
}

static void the_death_of_a_process_ends_its_session(void **state)
{
    (void)state;
    testing_server server;
    memset(testing_token.bytes, 'k', testing_token.size);
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        for (int fd = 3; fd < 100; fd++) {
            close(fd);
        }
        char name[] = "session_test", verb[] = "child";
        char *args[] = {name, verb, server.endpoint, NULL};
        execv("/proc/self/exe", args);
        _exit(3);
    }
    close(in[0]);
    close(out[1]);
    testing_until(&server.executions, 1);
    assert_int_equal(server.opened, 1);
    assert_true(server.local);
    assert_int_equal(tqi_net_session_pid(server.session), child);
    /* The pidfd is that process: it is alive, and signals reach it. */
    assert_true(tqi_net_session_pidfd_for_tests(server.session) >= 0);
    assert_int_equal(syscall(SYS_pidfd_send_signal, tqi_net_session_pidfd_for_tests(server.session), 0, NULL, 0), 0);
    pid_t grandchild = 0;
    assert_int_equal(read(out[0], &grandchild, sizeof grandchild), sizeof grandchild);
    assert_int_equal(server.ended, 0);
    uint64_t start = tqi_now();
    /* Its end is seen before what it sent last is read, which counts nevertheless. */
    uv_poll_stop(&server.session->peer->conn->poll);
    assert_int_equal(write(in[1], "g", 1), 1);
    testing_until(&server.ended, 1);
    assert_true(tqi_now() - start < 5000000000u);
    assert_int_equal(server.ended_dead, 1);
    assert_int_equal(server.cancelled, 1);
    /* The heir of the socket still lives. */
    assert_int_equal(kill(grandchild, 0), 0);
    kill(grandchild, SIGKILL);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(server.executions, 2);
    close(in[1]);
    close(out[0]);
    testing_server_stop(&server);
}

/* What a forked child does with an inherited client. */
static void a_forked_child_leaves_the_session_alone(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call call = {0}, again = {0};
    testing_reserve(channel, &call, 1, 10);
    testing_until(&call.done, 1);
    int fd = channel->conn->fd;
    pid_t child = fork();
    if (child == 0) {
        tqi_net_connector_forked(connector);
        _exit(write(fd, "x", 1) == -1 ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    testing_reserve(channel, &again, 2, 10);
    testing_until(&again.done, 1);
    assert_int_equal(again.status, TQ_OK);
    assert_int_equal(server.opened, 1);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "child") == 0) {
        return child_main(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_restarted_server_gives_a_new_session, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_session_resumes_on_a_new_connection, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(an_idle_client_reconnects, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_session_ends_with_its_grace_time, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_lost_welcome_is_sent_again, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_closed_client_ends_its_session, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_released_channel_ends_its_session_alone, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(the_death_of_a_process_ends_its_session, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_forked_child_leaves_the_session_alone, testing_setup, testing_teardown),
    };
    return cmocka_run_group_tests_name("net_session", tests, NULL, NULL);
}
