/*
 * endpoint_test.c - endpoints as text, and what can prevent listening.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sys/socket.h>

#include "net/serving.h"
#include "net/testkit.h"

static void endpoints_are_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *path, *host, *port;
    } good[] = {
        {"unix:/run/x.sock", "/run/x.sock", "", ""},   {"unix:x", "x", "", ""},
        {"tcp:10.0.0.1:7000", "", "10.0.0.1", "7000"}, {"tcp:node-3.cluster:0", "", "node-3.cluster", "0"},
        {"tcp:[::1]:65535", "", "::1", "65535"},       {"tcp:[fe80::1%eth0]:1", "", "fe80::1%eth0", "1"},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        tqi_net_endpoint endpoint;
        char text[TQI_NET_ENDPOINT_MAX];
        assert_int_equal(tqi_net_endpoint_parse(good[i].text, strlen(good[i].text), &endpoint, NULL), TQ_OK);
        assert_string_equal(endpoint.path, good[i].path);
        assert_string_equal(endpoint.host, good[i].host);
        assert_string_equal(endpoint.port, good[i].port);
        tqi_net_endpoint_format(&endpoint, text, sizeof(text));
        assert_string_equal(text, good[i].text);
    }
}

static void bad_endpoints_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",          "x",        "unix:",      "tcp:",        "tcp::",    "tcp:h",
                                      "tcp:h:",    "tcp::5",   "tcp:h:x",    "tcp:h:65536", "tcp:h:-1", "tcp:h:000001",
                                      "tcp:::1:5", "tcp:[]:5", "tcp:[::1]5", "udp:h:5",     "tcp:h:5 "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        tqi_net_endpoint endpoint;
        tq_error err = {0};
        assert_int_equal(tqi_net_endpoint_parse(bad[i], strlen(bad[i]), &endpoint, &err), TQ_EINVAL);
        assert_non_null(strstr(err.message, bad[i]));
    }
    char text[200];
    snprintf(text, sizeof(text), "unix:/%0106d", 0);
    tqi_net_endpoint endpoint;
    tq_error err = {0};
    assert_int_equal(tqi_net_endpoint_parse(text, strlen(text), &endpoint, &err), TQ_OK);
    snprintf(text, sizeof(text), "unix:/%0107d", 0);
    assert_int_equal(tqi_net_endpoint_parse(text, strlen(text), &endpoint, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, text));
    assert_non_null(strstr(err.message, "108"));
    assert_non_null(strstr(err.message, "107"));
}

static void lists_of_endpoints_are_parsed(void **state)
{
    (void)state;
    tqi_net_endpoint *list = NULL;
    size_t count = 0;
    tq_error err = {0};
    assert_int_equal(tqi_net_endpoint_parse_list("unix:/a,tcp:h:1,tcp:[::]:2", &list, &count, &err), TQ_OK);
    assert_int_equal(count, 3);
    assert_string_equal(list[2].port, "2");
    free(list);
    static const char *const bad[] = {"", ",", "unix:/a,", "unix:/a,,tcp:h:1", NULL};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(tqi_net_endpoint_parse_list(bad[i], &list, &count, &err), TQ_EINVAL);
    }
}

int __real_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog);

static bool listen_fails;

int __wrap_listen(int fd, int backlog)
{
    if (listen_fails) {
        errno = EADDRINUSE;
        return -1;
    }
    return __real_listen(fd, backlog);
}

/* A second server on the same loop. */
static int listen_again(const char *endpoint, tq_error *err)
{
    tqi_net_endpoint parsed;
    char bound[TQI_NET_ENDPOINT_MAX];
    int fd = -1;

    assert_int_equal(tqi_net_endpoint_parse(endpoint, strlen(endpoint), &parsed, err), TQ_OK);
    int rc = tqi_net_endpoint_listen(&parsed, &fd, NULL, bound, sizeof(bound), err);
    if (rc == TQ_OK) {
        close(fd);
    }
    return rc;
}

static void an_endpoint_in_use_is_refused(void **state)
{
    (void)state;
    testing_server server;
    tq_error err = {0};
    testing_server_start(&server, testing_unix_endpoint(), 1, 0);
    assert_int_equal(listen_again(server.endpoint, &err), TQ_EEXIST);
    assert_non_null(strstr(err.message, server.endpoint));
    testing_call call = {0};
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    testing_reserve(testing_channel(connector, server.endpoint), &call, 1, 10);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    testing_connector_stop(connector);
    testing_server_stop(&server);
    assert_int_not_equal(access(server.endpoint + strlen("unix:"), F_OK), 0);
    testing_server_start(&server, "tcp:127.0.0.1:0", 1, 0);
    assert_int_equal(listen_again(server.endpoint, &err), TQ_EIO);
    assert_non_null(strstr(err.message, server.endpoint));
    assert_non_null(strstr(err.message, "another program uses this port"));
    testing_server_stop(&server);
}

/* A socket that was bound but cannot listen is removed. */
static void a_socket_that_cannot_listen_is_removed(void **state)
{
    (void)state;
    char endpoint[128];
    tq_error err = {0};
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    listen_fails = true;
    assert_int_equal(listen_again(endpoint, &err), TQ_EIO);
    listen_fails = false;
    assert_non_null(strstr(err.message, endpoint));
    assert_int_not_equal(access(endpoint + strlen("unix:"), F_OK), 0);
}

static void only_a_leftover_socket_is_replaced(void **state)
{
    (void)state;
    testing_server server;
    char endpoint[128];
    tq_error err = {0};
    /* A socket nobody accepts on is replaced. */
    snprintf(endpoint, sizeof(endpoint), "%s", testing_unix_endpoint());
    assert_int_equal(listen_again(endpoint, &err), TQ_OK);
    assert_int_equal(access(endpoint + strlen("unix:"), F_OK), 0);
    testing_server_start(&server, endpoint, 1, 0);
    /* When a server closes, it removes only its own socket. */
    unlink(endpoint + strlen("unix:"));
    assert_int_equal(listen_again(endpoint, &err), TQ_OK);
    testing_server_stop(&server);
    assert_int_equal(access(endpoint + strlen("unix:"), F_OK), 0);
    unlink(endpoint + strlen("unix:"));
    /* A file is not. */
    int fd = open(endpoint + strlen("unix:"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(listen_again(endpoint, &err), TQ_EEXIST);
    assert_non_null(strstr(err.message, "not a socket"));
    assert_int_equal(listen_again("unix:/nonexistent/x", &err), TQ_EIO);
    assert_non_null(strstr(err.message, "unix:/nonexistent/x"));
    assert_non_null(strstr(err.message, "No such file"));
}

static void bad_places_to_listen_are_refused(void **state)
{
    (void)state;
    testing_server server;
    tq_error err = {0};
    char small[8];
    testing_server_start(&server, testing_unix_endpoint(), 1, 0);
    assert_int_equal(tqi_net_server_listen(server.server, "nowhere", NULL, 0, &err), TQ_EINVAL);
    assert_int_equal(tqi_net_server_listen(server.server, "tcp:127.0.0.1:0", small, sizeof small, &err), TQ_EINVAL);
    char second[300];
    assert_int_equal(tqi_net_server_listen(server.server, "tcp:127.0.0.1:0", second, sizeof second, &err), TQ_OK);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    testing_call call = {0};
    testing_reserve(testing_channel(connector, second), &call, 1, 10);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    testing_connector_stop(connector);
    testing_server_stop(&server);
    tqi_net_server *none = NULL;
    tqi_net_server_options options = {.epoch = 1};
    tqi_net_service service = {.name = "none"};
    assert_int_equal(tqi_net_server_alloc(&testing_loop, &service, NULL, &options, &none, &err), TQ_EINVAL);
    options = (tqi_net_server_options){.token = &testing_token};
    assert_int_equal(tqi_net_server_alloc(&testing_loop, &service, NULL, &options, &none, &err), TQ_EINVAL);
}

/* When no descriptors are left, the server pauses; it accepts again once some are free. */
static void a_server_out_of_descriptors_accepts_again_later(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 0);
    testing_raw raw;
    testing_raw_connect(&raw, server.endpoint);
    struct rlimit old, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(next >= 0);
    close(next);
    few = old;
    few.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    testing_run_ms(150);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(raw.size, 0);
    testing_until(&raw.size, TQI_FRAME_HEADER);
    testing_raw_close(&raw);
    testing_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoints_are_parsed),
        cmocka_unit_test(bad_endpoints_are_refused),
        cmocka_unit_test(lists_of_endpoints_are_parsed),
        cmocka_unit_test_setup_teardown(an_endpoint_in_use_is_refused, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_socket_that_cannot_listen_is_removed, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(only_a_leftover_socket_is_replaced, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(bad_places_to_listen_are_refused, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_server_out_of_descriptors_accepts_again_later, testing_setup, testing_teardown),
    };

    return cmocka_run_group_tests_name("net_endpoint", tests, NULL, NULL);
}
