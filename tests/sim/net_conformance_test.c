/*
 * net_conformance_test.c - the simulated sockets against those of the kernel that this runs on: the same drawn sequence
 * of calls on both, and after each call the same result, the same error, and the same readiness of both ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "net_testkit.h"

#ifndef CONFORMANCE_SCRIPTS
#define CONFORMANCE_SCRIPTS 1500
#endif
#define CONFORMANCE_STEPS   20
#define CONFORMANCE_WAIT_MS 2000

/* The two worlds; an end of a connection has a descriptor in each. */
enum {
    REAL,
    SIMULATED,
    WORLDS
};

typedef struct conformance_pair {
    bool unix_socket;
    bool far; /* the ends are on different hosts */
    int fd[WORLDS][2];
    int listener[WORLDS];
    char log[8192];
    size_t logged;
} conformance_pair;

static sim_chance conformance_chance;

static void conformance_enter(const conformance_pair *pair, int world, int end)
{
    kit_as(world == REAL ? -1 : end == 0 ? 0 : pair->far ? 2 : 1);
}

static void conformance_log(conformance_pair *pair, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vsnprintf(pair->log + pair->logged, sizeof(pair->log) - pair->logged, format, args);
    va_end(args);
    pair->logged += (size_t)n < sizeof(pair->log) - pair->logged ? (size_t)n : 0;
}

static void conformance_differ(const conformance_pair *pair, const char *what, int real, int simulated)
{
    fprintf(stderr, "%s", pair->log);
    fail_msg("%s: %s: the kernel %d, simulated %d (errors are negative: %s, %s)", pair->unix_socket ? "unix" : "TCP",
             what, real, simulated, real < 0 ? strerror(-real) : "", simulated < 0 ? strerror(-simulated) : "");
}

/* --- one call in one world ------------------------------------------------------------ */

static int conformance_poll(const conformance_pair *pair, int world, int end)
{
    int fd = pair->fd[world][end];
    struct pollfd at = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};

    if (fd < 0) {
        return 0;
    }
    conformance_enter(pair, world, end);
    assert_true(poll(&at, 1, 0) >= 0);
    return at.revents;
}

static int conformance_send(int fd, size_t size)
{
    static char bytes[1 << 20];
    struct iovec vec = {.iov_base = bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1};
    ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

    return n < 0 ? -errno : (int)n;
}

static int conformance_receive(int fd, size_t size)
{
    static char bytes[1 << 20];
    struct iovec vec[2] = {{.iov_base = bytes, .iov_len = size / 2},
                           {.iov_base = bytes + size / 2, .iov_len = size - size / 2}};
    struct msghdr message = {.msg_iov = vec, .msg_iovlen = 2};
    ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);

    return n < 0 ? -errno : (int)n;
}

static int conformance_error(int fd)
{
    int err = 0;
    socklen_t size = sizeof(err);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) == 0 ? err : -errno;
}

typedef enum conformance_kind {
    SENDS,
    RECEIVES,
    ASKS_ERROR,
    SETS_LEAST,
    SHUTS,
    CLOSES,
    KINDS,
} conformance_kind;

static const char *const conformance_names[KINDS] = {"send", "receive", "SO_ERROR", "SO_RCVLOWAT", "shutdown", "close"};

static int conformance_call(conformance_pair *pair, int world, int end, conformance_kind kind, int number)
{
    int fd = pair->fd[world][end];

    conformance_enter(pair, world, end);
    switch (kind) {
    case SENDS:
        return conformance_send(fd, (size_t)number);
    case RECEIVES:
        return conformance_receive(fd, (size_t)number);
    case ASKS_ERROR:
        return conformance_error(fd);
    case SETS_LEAST:
        return setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &number, sizeof(number)) == 0 ? 0 : -errno;
    case SHUTS:
        return shutdown(fd, number) == 0 ? 0 : -errno;
    default:
        pair->fd[world][end] = -1;
        return close(fd) == 0 ? 0 : -errno;
    }
}

/* --- both worlds ------------------------------------------------------------------------ */

static uint64_t conformance_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The kernel gets time until its sockets are as ready as the simulated ones. */
static void conformance_compare(conformance_pair *pair)
{
    uint64_t until = conformance_ms() + CONFORMANCE_WAIT_MS;

    kit_as(-1);
    kit_settle();
    for (int end = 0; end < 2; end++) {
        int simulated = conformance_poll(pair, SIMULATED, end);
        int real = conformance_poll(pair, REAL, end);
        while (real != simulated && conformance_ms() < until) {
            struct timespec pause = {.tv_nsec = 50000};
            nanosleep(&pause, NULL);
            real = conformance_poll(pair, REAL, end);
        }
        conformance_log(pair, "    end %d: %#x\n", end, (unsigned)simulated);
        if (real != simulated) {
            conformance_differ(pair, end == 0 ? "poll of end 0" : "poll of end 1", real, simulated);
        }
    }
}

static void conformance_step(conformance_pair *pair, int end, conformance_kind kind, int number)
{
    int result[WORLDS];

    for (int world = 0; world < WORLDS; world++) {
        result[world] = conformance_call(pair, world, end, kind, number);
    }
    conformance_log(pair, "  end %d: %s %d: %d\n", end, conformance_names[kind], number, result[SIMULATED]);
    if (result[REAL] != result[SIMULATED]) {
        conformance_differ(pair, conformance_names[kind], result[REAL], result[SIMULATED]);
    }
    conformance_compare(pair);
}

/* --- connections ---------------------------------------------------------------------------- */

static socklen_t conformance_address(const conformance_pair *pair, int world, struct sockaddr_storage *address)
{
    static unsigned made;

    memset(address, 0, sizeof(*address));
    if (pair->unix_socket) {
        struct sockaddr_un *un = (struct sockaddr_un *)(void *)address;
        un->sun_family = AF_UNIX;
        /* Without a file in either world. */
        int n = snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1, "tq-conformance-%d-%u", (int)getpid(), made++);
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    }
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)address;
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(world == REAL || !pair->far ? INADDR_LOOPBACK : 0x0A000002);
    return sizeof(*in);
}

static void conformance_connect(conformance_pair *pair, int world)
{
    struct sockaddr_storage address;
    socklen_t size = conformance_address(pair, world, &address);
    int domain = pair->unix_socket ? AF_UNIX : AF_INET;
    int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

    conformance_enter(pair, world, 1);
    int listener = socket(domain, type, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 16), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    conformance_enter(pair, world, 0);
    int fd = socket(domain, type, 0);
    int rc = connect(fd, (struct sockaddr *)&address, size);
    assert_true(rc == 0 || errno == EINPROGRESS);
    kit_settle();
    struct pollfd at = {.fd = fd, .events = POLLOUT};
    assert_int_equal(poll(&at, 1, 3000), 1);
    assert_int_equal(conformance_error(fd), 0);
    conformance_enter(pair, world, 1);
    at = (struct pollfd){.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&at, 1, 3000), 1);
    int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    int on = 1;
    if (!pair->unix_socket) {
        assert_int_equal(setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
        conformance_enter(pair, world, 0);
        assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    }
    pair->fd[world][0] = fd;
    pair->fd[world][1] = accepted;
    pair->listener[world] = listener;
}

static void conformance_finish(conformance_pair *pair)
{
    for (int world = 0; world < WORLDS; world++) {
        for (int end = 0; end < 2; end++) {
            if (pair->fd[world][end] >= 0) {
                conformance_enter(pair, world, end);
                close(pair->fd[world][end]);
            }
        }
        conformance_enter(pair, world, 1);
        close(pair->listener[world]);
    }
    kit_as(-1);
}

static conformance_kind conformance_draw(const conformance_pair *pair)
{
    static const conformance_kind kinds[] = {SENDS,    SENDS,      SENDS,      RECEIVES, RECEIVES,
                                             RECEIVES, ASKS_ERROR, SETS_LEAST, SHUTS,    CLOSES};
    conformance_kind kind = kinds[sim_below(&conformance_chance, sizeof(kinds) / sizeof(*kinds))];

    return kind == SETS_LEAST && pair->unix_socket ? ASKS_ERROR : kind;
}

static void conformance_script(uint64_t seed, bool unix_socket)
{
    conformance_pair pair = {.unix_socket = unix_socket, .far = !unix_socket && seed % 2};

    kit_start(seed);
    sim_chance_init(&conformance_chance, seed, "script");
    conformance_log(&pair, "\nscript %llu\n", (unsigned long long)seed);
    conformance_connect(&pair, REAL);
    conformance_connect(&pair, SIMULATED);
    conformance_compare(&pair);
    for (int i = 0; i < CONFORMANCE_STEPS; i++) {
        int end = (int)sim_below(&conformance_chance, 2);
        conformance_kind kind = conformance_draw(&pair);
        int number = kind == SHUTS        ? (int)sim_below(&conformance_chance, 3)
                     : kind == SETS_LEAST ? (int)sim_between(&conformance_chance, 0, 2000)
                     : kind == CLOSES     ? 0
                                          : (int)sim_between(&conformance_chance, 1, 1000);
        if (pair.fd[REAL][end] >= 0) {
            conformance_step(&pair, end, kind, number);
        }
    }
    conformance_finish(&pair);
    kit_end();
}

static void test_unix_scripts(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= CONFORMANCE_SCRIPTS; seed++) {
        conformance_script(seed, true);
    }
}

static void test_tcp_scripts(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= CONFORMANCE_SCRIPTS; seed++) {
        conformance_script(seed, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unix_scripts),
        cmocka_unit_test(test_tcp_scripts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
