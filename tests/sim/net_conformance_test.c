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
#define CONFORMANCE_FILES   4
#define CONFORMANCE_WAIT_MS 2000
#define CONFORMANCE_FULL_MS 50 /* with no room for that long, there will be none */

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

/* `files`: how many descriptors of the socket itself come along. */
static int conformance_send(int fd, size_t size, size_t files)
{
    static char bytes[1 << 20];
    struct iovec vec = {.iov_base = bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1};
    union {
        char space[CMSG_SPACE(CONFORMANCE_FILES * sizeof(int))];
        struct cmsghdr header;
    } control = {0};

    if (files > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(files * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(files * sizeof(int));
        for (size_t i = 0; i < files; i++) {
            memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd, sizeof(int));
        }
    }
    ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 ? -errno : (int)n;
}

/* Closes the descriptors that came, and adds a thousand for each; a million if some were cut off. */
static int conformance_take_files(struct msghdr *message)
{
    int found = (message->msg_flags & MSG_CTRUNC) != 0 ? 1000000 : 0;

    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at != NULL; at = CMSG_NXTHDR(message, at)) {
        size_t n = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(at) + i * sizeof(fd), sizeof(fd));
            assert_int_equal(close(fd), 0);
            found += 10000;
        }
    }
    return found;
}

static int conformance_receive(int fd, size_t size)
{
    static char bytes[1 << 20];
    struct iovec vec[2] = {{.iov_base = bytes, .iov_len = size / 2},
                           {.iov_base = bytes + size / 2, .iov_len = size - size / 2}};
    union {
        char space[CMSG_SPACE(CONFORMANCE_FILES * sizeof(int))];
        struct cmsghdr header;
    } control = {0};
    struct msghdr message = {.msg_iov = vec, .msg_iovlen = 2, .msg_control = &control};

    /* Room for two, and sometimes for none. */
    message.msg_controllen = size % 4 == 0 ? 0 : CMSG_SPACE(2 * sizeof(int));
    ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    return n < 0 ? -errno : (int)n + conformance_take_files(&message);
}

static int conformance_error(int fd)
{
    int err = 0;
    socklen_t size = sizeof(err);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) == 0 ? err : -errno;
}

typedef enum conformance_kind {
    SENDS,
    SENDS_FILES,
    RECEIVES,
    ASKS_ERROR,
    SETS_LEAST,
    SHUTS,
    CLOSES,
    KINDS,
} conformance_kind;

static const char *const conformance_names[KINDS] = {
    "send", "send with descriptors", "receive", "SO_ERROR", "SO_RCVLOWAT", "shutdown", "close"};

static int conformance_call(conformance_pair *pair, int world, int end, conformance_kind kind, int number)
{
    int fd = pair->fd[world][end];

    conformance_enter(pair, world, end);
    switch (kind) {
    case SENDS:
        return conformance_send(fd, (size_t)number, 0);
    case SENDS_FILES:
        return conformance_send(fd, (size_t)number, (size_t)number % CONFORMANCE_FILES + 1);
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

    if (kind == SENDS_FILES && !pair->unix_socket) {
        return SENDS;
    }
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

static void a_unix_connection_answers_as_that_of_the_kernel(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= CONFORMANCE_SCRIPTS; seed++) {
        conformance_script(seed, true);
    }
}

static void a_tcp_connection_answers_as_that_of_the_kernel(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= CONFORMANCE_SCRIPTS; seed++) {
        conformance_script(seed, false);
    }
}

/* --- how connections are made ------------------------------------------------------------------ */

/* What a sequence of calls gave; compared as a whole. */
typedef struct conformance_results {
    char text[4096];
    size_t size;
} conformance_results;

static void conformance_note(conformance_results *results, const char *what, int value)
{
    int n = snprintf(results->text + results->size, sizeof(results->text) - results->size, "%s %d%s%s\n", what, value,
                     value < 0 ? " " : "", value < 0 ? strerror(-value) : "");

    results->size += (size_t)n;
    assert_true(results->size < sizeof(results->text));
}

static int conformance_rc(int rc)
{
    return rc < 0 ? -errno : rc;
}

static int conformance_socket(int domain)
{
    int fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    return fd;
}

/* Waits until the socket is ready for one of the events. */
static int conformance_wait(int fd, short events)
{
    struct pollfd at = {.fd = fd, .events = events};

    kit_settle();
    return poll(&at, 1, CONFORMANCE_WAIT_MS) == 1 ? at.revents : -ETIME;
}

/* A client of an address at which nobody listens yet. */
static void conformance_before_listen(conformance_results *results, int domain, const struct sockaddr *address,
                                      socklen_t size)
{
    int fd = conformance_socket(domain);
    int rc = conformance_rc(connect(fd, address, size));

    conformance_note(results, "connect before listen", rc);
    conformance_note(results, "poll", rc == -EINPROGRESS ? conformance_wait(fd, POLLIN | POLLOUT | POLLRDHUP) : 0);
    if (rc == -EINPROGRESS) {
        conformance_note(results, "connect again", conformance_rc(connect(fd, address, size)));
    }
    conformance_note(results, "error", conformance_error(fd));
    conformance_note(results, "receive", conformance_receive(fd, 1));
    conformance_note(results, "send", conformance_send(fd, 1, 0));
    close(fd);
}

static void conformance_of_listener(conformance_results *results, const conformance_pair *pair, int world)
{
    struct sockaddr_storage address;
    socklen_t size = conformance_address(pair, world, &address);
    int domain = pair->unix_socket ? AF_UNIX : AF_INET;
    int fds[8];

    conformance_enter(pair, world, 0);
    int listener = conformance_socket(domain);
    conformance_note(results, "listen without an address",
                     conformance_rc(listen(listener, 1)) == 0 && !pair->unix_socket);
    close(listener);
    listener = conformance_socket(domain);
    conformance_note(results, "poll of a new socket", conformance_wait(listener, POLLIN | POLLOUT));
    conformance_note(results, "accept before listen",
                     conformance_rc(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)));
    conformance_note(results, "send before connect", conformance_send(listener, 1, 0));
    conformance_note(results, "receive before connect", conformance_receive(listener, 1));
    conformance_note(results, "bind", conformance_rc(bind(listener, (struct sockaddr *)&address, size)));
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    conformance_note(results, "bind again", conformance_rc(bind(listener, (struct sockaddr *)&address, size)));
    fds[0] = conformance_socket(domain);
    conformance_note(results, "bind of another", conformance_rc(bind(fds[0], (struct sockaddr *)&address, size)));
    close(fds[0]);
    conformance_before_listen(results, domain, (struct sockaddr *)&address, size);
    conformance_note(results, "listen", conformance_rc(listen(listener, 2)));
    conformance_note(results, "accept of nobody",
                     conformance_rc(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)));
    for (int i = 0; i < 3; i++) {
        fds[i] = conformance_socket(domain);
        int rc = conformance_rc(connect(fds[i], (struct sockaddr *)&address, size));
        conformance_note(results, "connect", rc);
        conformance_note(results, "poll", conformance_wait(fds[i], POLLOUT));
        conformance_note(results, "connect again", conformance_rc(connect(fds[i], (struct sockaddr *)&address, size)));
        conformance_note(results, "send", conformance_send(fds[i], 100, 0));
    }
    if (pair->unix_socket) {
        fds[3] = conformance_socket(domain);
        conformance_note(results, "connect to a full one",
                         conformance_rc(connect(fds[3], (struct sockaddr *)&address, size)));
        close(fds[3]);
    }
    conformance_note(results, "poll of the listener", conformance_wait(listener, POLLIN | POLLOUT));
    close(fds[0]);
    kit_settle();
    int first = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(first >= 0);
    conformance_note(results, "receive from one that left", conformance_receive(first, 1000));
    conformance_note(results, "receive its end", conformance_receive(first, 1000));
    close(first);
    close(listener);
    for (int i = 1; i < 3; i++) {
        conformance_note(results, "poll", conformance_wait(fds[i], POLLIN | POLLRDHUP));
        conformance_note(results, "receive", conformance_receive(fds[i], 1));
        conformance_note(results, "receive", conformance_receive(fds[i], 1));
        conformance_note(results, "send", conformance_send(fds[i], 1, 0));
        conformance_note(results, "shutdown", conformance_rc(shutdown(fds[i], SHUT_RDWR)));
        close(fds[i]);
    }
    kit_as(-1);
}

static void conformance_compare_results(const conformance_results results[WORLDS])
{
    if (strcmp(results[REAL].text, results[SIMULATED].text) != 0) {
        fprintf(stderr, "the kernel:\n%s\nsimulated:\n%s", results[REAL].text, results[SIMULATED].text);
        fail();
    }
}

static void conformance_listener(bool unix_socket)
{
    conformance_results results[WORLDS] = {0};
    conformance_pair pair = {.unix_socket = unix_socket};

    kit_start(1);
    for (int world = 0; world < WORLDS; world++) {
        conformance_of_listener(&results[world], &pair, world);
    }
    kit_end();
    conformance_compare_results(results);
}

static void a_unix_listener_answers_as_that_of_the_kernel(void **state)
{
    (void)state;
    conformance_listener(true);
}

static void a_tcp_listener_answers_as_that_of_the_kernel(void **state)
{
    (void)state;
    conformance_listener(false);
}

/* --- a socket that is full ------------------------------------------------------------------------ */

/* Only when it is writable; how much it takes hangs on the kernel's bookkeeping. */
static void conformance_of_full(conformance_results *results, conformance_pair *pair, int world)
{
    int bytes = 1 << 20, n, sent = 0, got = 0;
    struct pollfd at;

    conformance_connect(pair, world);
    int from = pair->fd[world][0], to = pair->fd[world][1];
    conformance_enter(pair, world, 0);
    if (pair->unix_socket) {
        assert_int_equal(setsockopt(from, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
    }
    do {
        while ((n = conformance_send(from, 100000, 0)) > 0) {
            sent += n;
        }
        kit_settle();
        at = (struct pollfd){.fd = from, .events = POLLOUT};
    } while (poll(&at, 1, CONFORMANCE_FULL_MS) == 1);
    conformance_note(results, "send when full", n);
    if (pair->unix_socket) {
        conformance_note(results, "it took more than 200000", sent > 200000);
    }
    conformance_enter(pair, world, 1);
    conformance_note(results, "poll of the receiver", conformance_wait(to, POLLIN));
    do {
        while ((n = conformance_receive(to, 300001)) > 0) {
            got += n;
        }
        kit_settle();
    } while (got < sent && conformance_wait(to, POLLIN) == POLLIN);
    conformance_note(results, "all was read", got == sent);
    conformance_enter(pair, world, 0);
    conformance_note(results, "poll of the sender", conformance_wait(from, POLLOUT));
    conformance_note(results, "send", conformance_send(from, 1000, 0));
}

static void a_full_socket_answers_as_that_of_the_kernel(void **state)
{
    (void)state;
    for (int unix_socket = 0; unix_socket < 2; unix_socket++) {
        conformance_results results[WORLDS] = {0};
        conformance_pair pair = {.unix_socket = unix_socket};
        kit_start(1);
        for (int world = 0; world < WORLDS; world++) {
            conformance_of_full(&results[world], &pair, world);
        }
        conformance_finish(&pair);
        kit_end();
        conformance_compare_results(results);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unix_connection_answers_as_that_of_the_kernel),
        cmocka_unit_test(a_tcp_connection_answers_as_that_of_the_kernel),
        cmocka_unit_test(a_unix_listener_answers_as_that_of_the_kernel),
        cmocka_unit_test(a_tcp_listener_answers_as_that_of_the_kernel),
        cmocka_unit_test(a_full_socket_answers_as_that_of_the_kernel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
