/*
 * addresses_test.c - port ranges, and the addresses by which a host is reached.
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/serving.h"
#include "net/testkit.h"

/* A port that is free at the moment, together with the next two. */
static unsigned reach_free_ports(void)
{
    for (unsigned first = 21000; first < 60000; first += 7) {
        int fds[3] = {-1, -1, -1};
        size_t n = 0;
        while (n < 3) {
            char endpoint[64], bound[TQI_NET_ENDPOINT_MAX];
            snprintf(endpoint, sizeof(endpoint), "tcp:127.0.0.1:%u", first + (unsigned)n);
            if (tqi_net_listen(endpoint, &fds[n], bound, sizeof(bound), NULL) != TQ_OK) {
                break;
            }
            n++;
        }
        for (size_t i = 0; i < n; i++) {
            close(fds[i]);
        }
        if (n == 3) {
            return first;
        }
    }
    fail_msg("no three free ports");
    return 0;
}

static void the_first_free_port_of_a_range_is_taken(void **state)
{
    (void)state;
    unsigned first = reach_free_ports();
    char range[64], wanted[64], bound[TQI_NET_ENDPOINT_MAX];
    tq_error err = {0};
    int fds[3], extra = -1;

    snprintf(range, sizeof(range), "tcp:127.0.0.1:%u-%u", first, first + 2);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(tqi_net_listen(range, &fds[i], bound, sizeof bound, &err), TQ_OK);
        snprintf(wanted, sizeof(wanted), "tcp:127.0.0.1:%u", first + i);
        assert_string_equal(bound, wanted);
    }
    assert_int_equal(tqi_net_listen(range, &extra, bound, sizeof bound, &err), TQ_EIO);
    assert_non_null(strstr(err.message, range));
    assert_non_null(strstr(err.message, "every port of this range is in use"));
    close(fds[1]);
    assert_int_equal(tqi_net_listen(range, &fds[1], bound, sizeof bound, &err), TQ_OK);
    snprintf(wanted, sizeof(wanted), "tcp:127.0.0.1:%u", first + 1);
    assert_string_equal(bound, wanted);
    for (unsigned i = 0; i < 3; i++) {
        close(fds[i]);
    }
}

/* An address that does not belong to this host is refused at once, without trying the whole range. */
static void a_foreign_address_is_refused_without_trying_its_range(void **state)
{
    (void)state;
    char bound[TQI_NET_ENDPOINT_MAX];
    tq_error err = {0};
    int fd = -1;
    assert_int_equal(tqi_net_listen("tcp:192.0.2.1:20000-20009", &fd, bound, sizeof bound, &err), TQ_EIO);
    assert_non_null(strstr(err.message, "192.0.2.1:20000-20009"));
    assert_null(strstr(err.message, "in use"));
}

static void bad_ranges_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"tcp:h:0-5", "tcp:h:5-4", "tcp:h:5-", "tcp:h:-5", "tcp:h:5-65536", "tcp:h:5-6-7"};
    tqi_net_endpoint endpoint;
    char text[TQI_NET_ENDPOINT_MAX];
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        tq_error err = {0};
        assert_int_equal(tqi_net_endpoint_parse(bad[i], strlen(bad[i]), &endpoint, &err), TQ_EINVAL);
        assert_non_null(strstr(err.message, bad[i]));
    }
    const char *good = "tcp:[::]:20000-20009";
    assert_int_equal(tqi_net_endpoint_parse(good, strlen(good), &endpoint, NULL), TQ_OK);
    assert_string_equal(endpoint.port, "20000");
    assert_int_equal(endpoint.last_port, 20009);
    tqi_net_endpoint_format(&endpoint, text, sizeof(text));
    assert_string_equal(text, good);
}

/* [::] accepts connections of both kinds, and none of its ports is used twice. */
static void any_address_accepts_both_kinds_of_connections(void **state)
{
    (void)state;
    char bound[TQI_NET_ENDPOINT_MAX], other[TQI_NET_ENDPOINT_MAX];
    tq_error err = {0};
    int fd = -1, second = -1;
    assert_int_equal(tqi_net_listen("tcp:[::]:0", &fd, bound, sizeof bound, &err), TQ_OK);
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)strtoul(strrchr(bound, ':') + 1, NULL, 10)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (const struct sockaddr *)&to, sizeof to), 0);
    close(client);
    assert_int_equal(tqi_net_listen(bound, &second, other, sizeof other, &err), TQ_EIO);
    close(fd);
}

static void any_and_loopback_hosts_are_told_apart(void **state)
{
    (void)state;
    char host[TQI_NET_HOST_MAX];
    assert_true(tqi_net_host_is_any("0.0.0.0"));
    assert_true(tqi_net_host_is_any("::"));
    assert_false(tqi_net_host_is_any("10.0.0.1"));
    assert_false(tqi_net_host_is_any("node-3"));
    assert_true(tqi_net_host_is_loopback("127.0.0.1"));
    assert_true(tqi_net_host_is_loopback("127.1.2.3"));
    assert_true(tqi_net_host_is_loopback("::1"));
    assert_true(tqi_net_host_is_loopback("::ffff:127.0.0.1"));
    assert_true(tqi_net_host_is_loopback("localhost"));
    assert_false(tqi_net_host_is_loopback("10.0.0.1"));
    assert_false(tqi_net_host_is_loopback("fe80::1"));
    assert_true(tqi_net_endpoint_host("tcp:[fd00::2]:7", host, sizeof host));
    assert_string_equal(host, "fd00::2");
    assert_false(tqi_net_endpoint_host("unix:/x", host, sizeof host));
    assert_false(tqi_net_endpoint_host("nothing", host, sizeof host));
}

/* The interface that every host has. */
static void an_interface_has_an_address(void **state)
{
    (void)state;
    tqi_net_addresses reach;
    tq_error err = {0};
    assert_int_equal(tqi_net_address_of_interface("lo", &reach, &err), TQ_OK);
    assert_string_equal(reach.host, "127.0.0.1");
    assert_string_equal(reach.v4, "127.0.0.1");
    assert_int_equal(tqi_net_address_of_interface("tq-none", &reach, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "'tq-none'"));
    assert_non_null(strstr(err.message, "there are: "));
    assert_non_null(strstr(err.message, "lo"));
}

/* Whether this host has an address besides the loopback's, determined without the code under test. */
static bool reach_alone(void)
{
    struct ifaddrs *list = NULL;
    bool alone = true;

    assert_int_equal(getifaddrs(&list), 0);
    for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        alone = alone && (at->ifa_addr == NULL || (at->ifa_flags & IFF_LOOPBACK) != 0 || (at->ifa_flags & IFF_UP) == 0 ||
                          (at->ifa_addr->sa_family != AF_INET && at->ifa_addr->sa_family != AF_INET6));
    }
    freeifaddrs(list);
    return alone;
}

static void the_address_towards_a_server_is_found(void **state)
{
    (void)state;
    tqi_net_addresses reach;
    tq_error err = {0};
    bool elsewhere = true;
    assert_int_equal(tqi_net_address_towards("unix:/x", &reach, &elsewhere, &err), TQ_OK);
    assert_false(elsewhere);
    elsewhere = true;
    assert_int_equal(tqi_net_address_towards("unix:/x,tcp:127.0.0.1:7", &reach, &elsewhere, &err), TQ_OK);
    assert_false(elsewhere);
    assert_string_equal(reach.host, "127.0.0.1");
    elsewhere = true;
    assert_int_equal(tqi_net_address_towards("tcp:[::1]:7", &reach, &elsewhere, &err), TQ_OK);
    assert_false(elsewhere);
    assert_string_equal(reach.host, "::1");
    assert_int_equal(tqi_net_address_towards("tcp:no-such-host.invalid:7", &reach, &elsewhere, &err), TQ_EIO);
    assert_non_null(strstr(err.message, "no-such-host.invalid"));
    assert_int_equal(tqi_net_address_towards("what", &reach, &elsewhere, &err), TQ_EINVAL);
}

/* A published address can be bound here, and is the loopback's only if there is no other. */
static void the_default_address_can_be_bound(void **state)
{
    (void)state;
    tqi_net_addresses reach;
    char endpoint[TQI_NET_ENDPOINT_MAX], bound[TQI_NET_ENDPOINT_MAX];
    int fd = -1;
    tqi_net_address_default(&reach);
    assert_int_equal(tqi_net_host_is_loopback(reach.host), reach_alone());
    assert_false(tqi_net_host_is_any(reach.host));
    bool v6 = strchr(reach.host, ':') != NULL;
    snprintf(endpoint, sizeof(endpoint), "tcp:%s%s%s:0", v6 ? "[" : "", reach.host, v6 ? "]" : "");
    assert_int_equal(tqi_net_listen(endpoint, &fd, bound, sizeof bound, NULL), TQ_OK);
    close(fd);
}

static void what_is_bound_is_published_by_host(void **state)
{
    (void)state;
    const tqi_net_addresses both = {.host = "fd00::2", .v4 = "10.0.0.2"};
    const tqi_net_addresses v6 = {.host = "fd00::2"};
    static const struct {
        const char *bound, *host, *text;
        bool v6_only;
    } cases[] = {
        {"unix:/x", "node", "unix:/x", false},
        {"tcp:10.0.0.1:7", NULL, "tcp:10.0.0.1:7", false},
        {"tcp:127.0.0.1:7", NULL, "tcp:127.0.0.1:7", false},
        {"tcp:0.0.0.0:7", NULL, "tcp:10.0.0.2:7", false},
        {"tcp:[::]:7", NULL, "tcp:[fd00::2]:7", false},
        {"tcp:0.0.0.0:7", NULL, "tcp:127.0.0.1:7", true},
        {"tcp:0.0.0.0:7", "node", "tcp:node:7", false},
        {"tcp:127.0.0.1:7", "fd00::3", "tcp:[fd00::3]:7", false},
        {"tcp:127.0.0.1:7", "[fd00::3]", "tcp:[fd00::3]:7", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char text[TQI_NET_ENDPOINT_MAX];
        assert_int_equal(tqi_net_endpoint_advertise(cases[i].bound, cases[i].host, cases[i].v6_only ? &v6 : &both, text,
                                                    sizeof text, NULL),
                         TQ_OK);
        assert_string_equal(text, cases[i].text);
    }
    char small[8];
    assert_int_equal(tqi_net_endpoint_advertise("tcp:0.0.0.0:7", NULL, &both, small, sizeof small, NULL), TQ_ENAME);
}

/* A range is no place to connect to. */
static void a_range_cannot_be_connected_to(void **state)
{
    (void)state;
    uv_loop_t loop;
    tqi_net_token token = {.bytes = "x", .size = 1};
    tqi_net_connector_options options = {.token = &token, .name = "test"};
    tqi_net_connector *connector = NULL;
    tqi_net_channel *channel = NULL;
    tq_error err = {0};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(tqi_net_connector_alloc(&loop, &options, &connector, &err), TQ_OK);
    assert_int_equal(tqi_net_channel_get(connector, "unix:/x,tcp:h:5-6", &channel, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "tcp:h:5-6"));
    tqi_net_connector_close(connector, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_free_port_of_a_range_is_taken),
        cmocka_unit_test(a_foreign_address_is_refused_without_trying_its_range),
        cmocka_unit_test(bad_ranges_are_refused),
        cmocka_unit_test(any_address_accepts_both_kinds_of_connections),
        cmocka_unit_test(any_and_loopback_hosts_are_told_apart),
        cmocka_unit_test(an_interface_has_an_address),
        cmocka_unit_test(the_address_towards_a_server_is_found),
        cmocka_unit_test(the_default_address_can_be_bound),
        cmocka_unit_test(what_is_bound_is_published_by_host),
        cmocka_unit_test(a_range_cannot_be_connected_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
