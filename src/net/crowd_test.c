/*
 * crowd_test.c - many sessions at one server: how many descriptors they cost, and what happens when descriptors run
 * out.
 */
#include "net/calling.h"
#include "net/serving.h"
#include "net/testkit.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"

/* Descriptors of this process, and how many of them are pidfds. */
static int crowd_count(int *processes)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = -1; /* that of the folder */

    *processes = 0;
    assert_non_null(dir);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char target[256] = "";
        if (entry->d_name[0] != '.') {
            n++;
            if (readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1) > 0) {
                *processes += strstr(target, "pidfd") != NULL;
            }
        }
    }
    closedir(dir);
    return n;
}

/* --- one process, many sessions ------------------------------------------- */

enum {
    SESSIONS = 12
};

/* Runs in a separate process: clients of all endpoints; reports when they are connected, and exits when asked to. */
static int child_main(int argc, char **endpoints)
{
    uv_loop_init(&testing_loop);
    testing_token.size = 32;
    memset(testing_token.bytes, 'k', testing_token.size);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        tqi_net_connector *connector = testing_connector(&testing_token, 0);
        testing_call call = {0};
        testing_reserve(testing_channel(connector, endpoints[i % (uint32_t)argc]), &call, i, -1);
        testing_until(&call.done, 1);
    }
    char go;
    _exit(write(STDOUT_FILENO, "r", 1) == 1 && read(STDIN_FILENO, &go, 1) == 1 ? 0 : 1);
}

/* A process with sessions at two servers has one pidfd, and one more for two servers that share a loop. */
static void one_process_takes_one_descriptor(void **state)
{
    (void)state;
    testing_server servers[2];
    char second[300];
    memset(testing_token.bytes, 'k', testing_token.size);
    testing_server_start(&servers[0], testing_unix_endpoint(), 100, 60000);
    snprintf(second, sizeof(second), "%s-b", testing_unix_endpoint());
    testing_server_start(&servers[1], second, 200, 60000);
    int in[2], out[2], before = 0, after = 0;
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    crowd_count(&before);
    pid_t child = fork();
    if (child == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        char name[] = "crowd_test", verb[] = "child";
        char *args[] = {name, verb, servers[0].endpoint, servers[1].endpoint, NULL};
        execv("/proc/self/exe", args);
        _exit(3);
    }
    testing_until(&servers[1].executions, SESSIONS / 2);
    assert_int_equal(servers[0].executions, SESSIONS / 2);
    assert_int_equal(servers[0].opened + servers[1].opened, SESSIONS);
    assert_true(servers[0].local && servers[1].local);
    crowd_count(&after);
    assert_int_equal(after - before, 2);
    char ready;
    assert_int_equal(read(out[0], &ready, 1), 1);

    /* One of its sessions ends: the others continue. */
    tqi_net_session *session = servers[0].server->sessions;
    assert_true(tqi_net_session_process(session) == tqi_net_session_process((tqi_net_session *)session->hh.next));
    tqi_net_session_end(session, false);
    testing_run_ms(10);
    assert_int_equal(servers[0].ended, 1);
    assert_int_equal(servers[0].ended_dead, 0);
    assert_int_equal(servers[1].ended, 0);

    /* Its end is seen by all that are left. */
    assert_int_equal(write(in[1], "g", 1), 1);
    testing_until(&servers[0].ended, SESSIONS / 2);
    testing_until(&servers[1].ended, SESSIONS / 2);
    assert_int_equal(servers[0].ended_dead + servers[1].ended_dead, SESSIONS - 1);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    testing_run_ms(10);
    crowd_count(&after);
    assert_int_equal(after, before);
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
        testing_server_stop(&servers[i]);
    }
}

typedef struct exits_seen {
    tqi_net_exit exit;
    int times;
} exits_seen;

static void told_of(tqi_net_exit *exit, const char *failed)
{
    assert_null(failed);
    ((exits_seen *)exit)->times++;
}

/* A watcher is notified that the process has ended after the session it came from; one that was removed is not. */
static void a_watcher_hears_of_the_end_after_the_session(void **state)
{
    (void)state;
    testing_server server;
    memset(testing_token.bytes, 'k', testing_token.size);
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        char name[] = "crowd_test", verb[] = "child";
        char *args[] = {name, verb, server.endpoint, NULL};
        execv("/proc/self/exe", args);
        _exit(3);
    }
    testing_until(&server.executions, SESSIONS);
    exits_seen one = {.exit = {.fn = told_of}}, other = {.exit = {.fn = told_of}};
    tqi_net_process *process = tqi_net_process_ref(tqi_net_session_process(server.session));
    tqi_net_process_on_exit(process, &one.exit);
    tqi_net_process_on_exit(process, &other.exit);
    tqi_net_process_off_exit(process, &other.exit);
    tqi_net_process_off_exit(process, &other.exit);
    while (server.server->sessions != NULL) {
        tqi_net_session_end(server.server->sessions, false);
    }
    assert_int_equal(server.ended, SESSIONS);
    assert_int_equal(one.times, 0);
    char ready;
    assert_int_equal(read(out[0], &ready, 1), 1);
    assert_int_equal(write(in[1], "g", 1), 1);
    testing_until(&one.times, 1);
    assert_int_equal(other.times, 0);
    assert_int_equal(server.ended_dead, 0);
    tqi_net_process_unref(process);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
    }
    testing_server_stop(&server);
}

/* --- few descriptors ------------------------------------------------------ */

/* A client whose connection may be asked for, and one call. */
static tqi_net_channel *crowd_client(const testing_server *server, tqi_net_connector **connector, uint32_t number)
{
    *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(*connector, server->endpoint);
    tqi_net_channel_set_parkable(channel);
    testing_call call = {0};
    testing_reserve(channel, &call, number, -1);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    return channel;
}

static int crowd_connected(const testing_server *server)
{
    int n = 0;

    for (tqi_net_session *session = server->server->sessions; session != NULL; session = session->hh.next) {
        n += tqi_net_session_connected(session);
    }
    return n;
}

static void crowd_connected_is(const testing_server *server, int n)
{
    for (int i = 0; i < 2000 && crowd_connected(server) != n; i++) {
        testing_run_ms(5);
    }
    assert_int_equal(crowd_connected(server), n);
}

static void a_parked_client_comes_back_with_its_session(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    tqi_net_connector *a, *b, *c, *d;
    tqi_net_channel *idle = crowd_client(&server, &a, 1);
    tqi_net_channel *busy = crowd_client(&server, &b, 2);
    testing_call claim = {0};
    testing_claim(busy, &claim, false, -1);
    testing_until(&server.n_waiting, 1);
    c = testing_connector(&testing_token, 0);
    tqi_net_channel *firm = testing_channel(c, server.endpoint); /* would connect again at once */
    testing_call call = {0};
    testing_reserve(firm, &call, 3, -1);
    testing_until(&call.done, 1);
    assert_int_equal(crowd_connected(&server), 3);

    /* The next connection makes the server ask: the idle client leaves, the others stay. */
    server.server->crowded = 0;
    crowd_client(&server, &d, 4);
    crowd_connected_is(&server, 3);
    assert_false(tqi_net_channel_local(idle));
    assert_true(tqi_net_channel_local(busy));
    assert_true(tqi_net_channel_local(firm));
    assert_int_equal(server.ended, 0);

    /* It comes back to its old session when it has something to send. */
    server.server->crowded = INT_MAX;
    call.done = 0;
    testing_reserve(idle, &call, 5, -1);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(server.opened, 4);
    assert_int_equal(crowd_connected(&server), 4);
    testing_answer(&server);
    testing_until(&claim.done, 1);
    assert_int_equal(claim.status, TQ_OK);

    /* A session that must not lose it is not asked. */
    server.stay = true;
    server.server->crowded = 0;
    tqi_net_connector *e;
    crowd_client(&server, &e, 6);
    testing_run_ms(20);
    assert_int_equal(crowd_connected(&server), 5);
    tqi_net_connector *all[] = {a, b, c, d, e};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        testing_connector_stop(all[i]);
    }
    testing_server_stop(&server);
}

/* No more clients are asked than necessary, however slowly they leave; but a client that does not leave is not waited
 * for. */
static void no_more_clients_are_parked_than_necessary(void **state)
{
    (void)state;
    testing_server server;
    tqi_net_connector *all[6];
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    for (uint32_t i = 0; i < 6; i++) {
        crowd_client(&server, &all[i], i);
    }
    assert_int_equal(tqi_net_peer_make_room(server.server, 64, 2), 2);
    assert_int_equal(tqi_net_peer_make_room(server.server, 64, 2), 2);
    assert_int_equal(tqi_net_peer_make_room(server.server, 1, 64), 3);
    server.server->leaving_since = 0;
    assert_int_equal(tqi_net_peer_make_room(server.server, 64, 1), 1);
    crowd_connected_is(&server, 2);
    assert_int_equal(server.server->leaving, 0);
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        testing_connector_stop(all[i]);
    }
    testing_server_stop(&server);
}

/* A client is notified when half of the descriptors are in use, and when its connection is wanted back. */
static void clients_are_told_of_the_crowd(void **state)
{
    (void)state;
    testing_server server;
    tqi_net_connector *a, *b;
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    tqi_net_channel *idle = crowd_client(&server, &a, 1);
    assert_false(tqi_net_connector_crowded(a));
    assert_true(tqi_net_channel_connected(idle));
    server.server->descriptors = 2;
    crowd_client(&server, &b, 2);
    assert_true(tqi_net_connector_crowded(b));
    assert_false(tqi_net_connector_crowded(a));
    assert_int_equal(tqi_net_peer_make_room(server.server, 1, 1), 1);
    crowd_connected_is(&server, 1);
    assert_true(tqi_net_connector_crowded(a));
    assert_false(tqi_net_channel_connected(idle));
    testing_connector_stop(a);
    testing_connector_stop(b);
    testing_server_stop(&server);
}

/* A parked session ends with its grace time, and the next call gets a new one. */
static void a_parked_session_ends_with_its_grace_time(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 30);
    tqi_net_connector *a, *b;
    tqi_net_channel *idle = crowd_client(&server, &a, 1);
    server.server->crowded = 0;
    crowd_client(&server, &b, 2);
    testing_until(&server.ended, 1);
    assert_int_equal(server.ended_dead, 0);
    server.server->crowded = INT_MAX;
    testing_call call = {0};
    testing_reserve(idle, &call, 3, -1);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(server.opened, 3);
    testing_connector_stop(a);
    testing_connector_stop(b);
    testing_server_stop(&server);
}

enum {
    CLIENTS = 24,
    FIT = 6
};

/* Runs in a separate process: more clients than the server has descriptors for, all at once. */
static int crowd_main(const char *endpoint)
{
    static testing_call calls[CLIENTS];

    uv_loop_init(&testing_loop);
    testing_token.size = 32;
    memset(testing_token.bytes, 'k', testing_token.size);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        tqi_net_channel *channel = testing_channel(testing_connector(&testing_token, 0), endpoint);
        tqi_net_channel_set_parkable(channel);
        testing_reserve(channel, &calls[i], i, -1);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        testing_until(&calls[i].done, 1);
        if (calls[i].status != TQ_OK) {
            _exit(1);
        }
    }
    _exit(0);
}

/* All are served, each one's process is watched, and the server has logged what is short. */
static void more_clients_than_descriptors_are_served(void **state)
{
    (void)state;
    testing_server server;
    memset(testing_token.bytes, 'k', testing_token.size);
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    pid_t child = fork();
    if (child == 0) {
        char name[] = "crowd_test", verb[] = "crowd";
        char *args[] = {name, verb, server.endpoint, NULL};
        execv("/proc/self/exe", args);
        _exit(3);
    }
    int highest = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(highest >= 0);
    close(highest);
    server.server->full = highest + FIT;
    testing_until(&server.executions, CLIENTS);
    assert_int_equal(server.opened, CLIENTS);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(server.executed[i], 1);
    }
    assert_true(server.server->short_since != 0);
    testing_until(&server.ended_dead, CLIENTS);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    testing_server_stop(&server);
}

/* --- strangers ------------------------------------------------------------ */

enum {
    STRANGERS = 300,
    LIMIT = 512,                              /* descriptors, as the server takes it */
    GREETING = LIMIT / TQI_NET_GREETING_SHARE /* of them for connections that greet */
};

/* Connects and sends nothing. */
static int stranger(const char *endpoint)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un path;
    tqi_net_endpoint parsed;
    socklen_t size = sizeof(path);

    assert_int_equal(tqi_net_endpoint_parse(endpoint, strlen(endpoint), &parsed, NULL), TQ_OK);
    int fd = socket(parsed.unix_socket ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (parsed.unix_socket) {
        tqi_net_endpoint_sockaddr_un(&parsed, &path, &size);
        assert_int_equal(connect(fd, (const struct sockaddr *)&path, size), 0);
    } else {
        addr.sin_port = htons((uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10));
        assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    }
    return fd;
}

static bool was_closed(int fd)
{
    char bytes[256];
    ssize_t n = 1;

    while (n > 0) {
        n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    }
    return n == 0 || errno != EAGAIN;
}

/* Silent connections make room for each other, the oldest first, and a client can still connect. */
static void strangers_at(const char *endpoint, unsigned most)
{
    testing_server server;
    testing_call call = {0};
    int fds[STRANGERS];
    uint64_t before = tqi_limit_times(TQI_LIMIT_greeting);

    testing_server_start(&server, endpoint, 1, 60000);
    server.server->descriptors = LIMIT;
    server.server->user = geteuid() + 1; /* then those of this process count as strangers */
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = stranger(server.endpoint);
        uv_run(&testing_loop, UV_RUN_NOWAIT);
    }
    while ((tqi_limit_times(TQI_LIMIT_greeting) - before) + server.server->n_greeting < STRANGERS) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
    assert_in_range(server.server->n_greeting, most, 2 * most);
    assert_true(was_closed(fds[0]));
    assert_false(was_closed(fds[STRANGERS - 1]));
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    uint64_t since = tqi_now();
    testing_reserve(testing_channel(connector, server.endpoint), &call, 1, 20);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_true(tqi_now() - since < TQI_NET_ATTEMPT_MS * UINT64_C(1000000)); /* with the first attempt */
    assert_true(server.server->short_since == 0);
    testing_connector_stop(connector);
    for (int i = 0; i < STRANGERS; i++) {
        close(fds[i]);
    }
    testing_server_stop(&server);
}

/* Those of this user's own processes may take their time, however many they are: each would only come back. */
static void own_processes_may_take_their_time(void **state)
{
    (void)state;
    testing_server server;
    testing_call call = {0};
    int fds[STRANGERS];
    uint64_t before = tqi_limit_times(TQI_LIMIT_greeting);
    testing_server_start(&server, testing_unix_endpoint(), 1, 60000);
    server.server->descriptors = LIMIT;
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = stranger(server.endpoint);
        uv_run(&testing_loop, UV_RUN_NOWAIT);
    }
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    testing_reserve(testing_channel(connector, server.endpoint), &call, 1, 20);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(tqi_limit_times(TQI_LIMIT_greeting), before);
    assert_int_equal(server.server->n_greeting, 0);
    /* They have the usual time for it. */
    for (tqi_net_peer *peer = server.server->greeting_own; peer != NULL; peer = peer->greet_next) {
        peer->deadline = 1;
    }
    tqi_net_server_arm_timer(server.server);
    while (server.server->greeting_own != NULL) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
    for (int i = 0; i < STRANGERS; i++) {
        assert_true(was_closed(fds[i]));
        close(fds[i]);
    }
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void strangers_do_not_crowd_clients_out(void **state)
{
    (void)state;
    strangers_at("tcp:127.0.0.1:0", GREETING / 2); /* all of one address */
    strangers_at(testing_unix_endpoint(), GREETING);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "child") == 0) {
        return child_main(argc - 2, argv + 2);
    }
    if (argc > 2 && strcmp(argv[1], "crowd") == 0) {
        return crowd_main(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_process_takes_one_descriptor, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_watcher_hears_of_the_end_after_the_session, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_parked_client_comes_back_with_its_session, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(no_more_clients_are_parked_than_necessary, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(clients_are_told_of_the_crowd, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_parked_session_ends_with_its_grace_time, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(more_clients_than_descriptors_are_served, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(strangers_do_not_crowd_clients_out, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(own_processes_may_take_their_time, testing_setup, testing_teardown),
    };
    return cmocka_run_group_tests_name("net_crowd", tests, NULL, NULL);
}
