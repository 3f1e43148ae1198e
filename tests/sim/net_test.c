/*
 * net_test.c - the simulated network with its faults: what arrives is what was sent, up to some byte; connections that
 * nothing comes through end when Linux ends them; and a seed gives the same run each time.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "net.h"
#include "net_testkit.h"

#define NET_PORT 4000

static sim_chance net_script;

/* --- connections -------------------------------------------------------------------- */

typedef struct net_ends {
    int fd[2];
    int process[2];
    int listener;
    uint64_t sent[2], received[2]; /* by that end */
    bool closed[2], over[2];       /* this end was closed; it has read the end */
} net_ends;

static socklen_t net_address(bool unix_socket, int process, struct sockaddr_storage *address)
{
    memset(address, 0, sizeof(*address));
    if (unix_socket) {
        struct sockaddr_un *un = (struct sockaddr_un *)(void *)address;
        un->sun_family = AF_UNIX;
        strcpy(un->sun_path, SIM_ROOT "/test.sock");
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(un->sun_path) + 1);
    }
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)address;
    in->sin_family = AF_INET;
    in->sin_port = htons(NET_PORT);
    in->sin_addr.s_addr = htonl(0x0A000001 + (uint32_t)process / 2);
    return sizeof(*in);
}

/* As src/net does it. */
static void net_tune(int fd)
{
    int on = 1, idle = 10, interval = 5, probes = 4;
    unsigned unanswered_ms = 30000;

    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle)), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval)), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes)), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof(unanswered_ms)), 0);
}

static int net_listen(bool unix_socket, int process)
{
    struct sockaddr_storage address;
    socklen_t size = net_address(unix_socket, process, &address);

    kit_as(process);
    int fd = socket(unix_socket ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= SIM_FD_FIRST);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, SOMAXCONN), 0);
    return fd;
}

/* -1: it did not work out. */
static int net_dial(bool unix_socket, int from, int to)
{
    struct sockaddr_storage address;
    socklen_t size = net_address(unix_socket, to, &address);

    kit_as(from);
    int fd = socket(unix_socket ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!unix_socket) {
        net_tune(fd);
    }
    if (connect(fd, (struct sockaddr *)&address, size) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static void net_join(net_ends *ends, bool unix_socket, int from, int to)
{
    *ends = (net_ends){.process = {from, to}};
    ends->listener = net_listen(unix_socket, to);
    ends->fd[0] = net_dial(unix_socket, from, to);
    assert_true(ends->fd[0] >= 0);
    kit_run(100 * SIM_MS);
    kit_as(to);
    ends->fd[1] = accept4(ends->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(ends->fd[1] >= 0);
    if (!unix_socket) {
        net_tune(ends->fd[1]);
    }
}

static short net_ready(const net_ends *ends, int end)
{
    struct pollfd at = {.fd = ends->fd[end], .events = POLLIN | POLLOUT | POLLRDHUP};

    kit_as(ends->process[end]);
    assert_true(poll(&at, 1, 0) >= 0);
    return at.revents;
}

/* The byte at that place of what an end sends. */
static uint8_t net_byte(int end, uint64_t at)
{
    uint64_t z = (at / 3 + (uint64_t)end * 77) * UINT64_C(0x9e3779b97f4a7c15);

    return (uint8_t)(z >> 56 ^ at);
}

static int net_put(net_ends *ends, int end, size_t size)
{
    static uint8_t bytes[300000];
    struct iovec vec[2];
    struct msghdr message = {.msg_iov = vec, .msg_iovlen = 2};

    for (size_t i = 0; i < size; i++) {
        bytes[i] = net_byte(end, ends->sent[end] + i);
    }
    vec[0] = (struct iovec){.iov_base = bytes, .iov_len = size / 3};
    vec[1] = (struct iovec){.iov_base = bytes + size / 3, .iov_len = size - size / 3};
    kit_as(ends->process[end]);
    ssize_t n = sendmsg(ends->fd[end], &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    ends->sent[end] += n > 0 ? (uint64_t)n : 0;
    return n < 0 ? -errno : (int)n;
}

static int net_take(net_ends *ends, int end, size_t size)
{
    static uint8_t bytes[300000];
    struct iovec vec[2] = {{.iov_base = bytes, .iov_len = size / 5},
                           {.iov_base = bytes + size / 5, .iov_len = size - size / 5}};
    struct msghdr message = {.msg_iov = vec, .msg_iovlen = 2};

    kit_as(ends->process[end]);
    ssize_t n = recvmsg(ends->fd[end], &message, MSG_DONTWAIT);
    for (ssize_t i = 0; i < n; i++) {
        assert_int_equal(bytes[i], net_byte(!end, ends->received[end] + (uint64_t)i));
    }
    ends->received[end] += n > 0 ? (uint64_t)n : 0;
    assert_true(ends->received[end] <= ends->sent[!end]);
    return n < 0 ? -errno : (int)n;
}

static void net_close(net_ends *ends, int end)
{
    kit_as(ends->process[end]);
    assert_int_equal(close(ends->fd[end]), 0);
    ends->closed[end] = true;
}

static void net_part(net_ends *ends)
{
    for (int end = 0; end < 2; end++) {
        if (!ends->closed[end]) {
            net_close(ends, end);
        }
    }
    kit_as(ends->process[1]);
    close(ends->listener);
}

/* --- what arrives ---------------------------------------------------------------------- */

static void net_exchange(net_ends *ends, int end)
{
    size_t size =
        (size_t)(sim_one_in(&net_script, 8) ? sim_between(&net_script, 1, 300000) : sim_between(&net_script, 1, 3000));

    if (ends->closed[end]) {
        return;
    }
    if (sim_one_in(&net_script, 2)) {
        int n = net_put(ends, end, size);
        assert_true(n > 0 || n == -EAGAIN || n == -EPIPE || n == -ECONNRESET || n == -ETIMEDOUT);
        return;
    }
    int n = net_take(ends, end, size);
    assert_true(n > 0 || n == 0 || n == -EAGAIN || n == -ECONNRESET || n == -ETIMEDOUT || n == -EPIPE);
    ends->over[end] |= n == 0 || (n < 0 && n != -EAGAIN);
    assert_true(!ends->over[end] || n <= 0);
}

static uint64_t net_run(uint64_t seed, bool unix_socket, uint32_t one_in)
{
    net_ends ends;

    kit_start(seed);
    sim_chance_init(&net_script, seed, "script");
    net_join(&ends, unix_socket, 0, unix_socket ? 1 : 2);
    kit_faults(one_in);
    uint64_t steps = sim_between(&net_script, 1, 250);
    for (uint64_t i = 0; i < steps; i++) {
        net_exchange(&ends, (int)sim_below(&net_script, 2));
        if (sim_one_in(&net_script, 2)) {
            kit_run(sim_below(&net_script, 20 * SIM_MS));
        }
    }
    if (one_in == 0) {
        for (int i = 0; i < 4000 && (ends.received[0] < ends.sent[1] || ends.received[1] < ends.sent[0]); i++) {
            net_take(&ends, 0, 100000);
            net_take(&ends, 1, 100000);
            kit_run(SIM_MS);
        }
        assert_int_equal(ends.received[0], ends.sent[1]);
        assert_int_equal(ends.received[1], ends.sent[0]);
    }
    uint64_t hash = kit_hash();
    kit_faults(0);
    net_part(&ends);
    kit_end();
    return hash;
}

static void all_bytes_arrive_in_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        net_run(seed, seed % 2, 0);
    }
}

static void bytes_that_arrive_are_in_order_with_faults(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        net_run(seed, seed % 3 == 0, 3 << seed % 7);
    }
}

static void a_seed_gives_the_same_run_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        assert_int_equal(net_run(seed, seed % 2, 20), net_run(seed, seed % 2, 20));
    }
}

/* --- ends ------------------------------------------------------------------------------- */

/* When it is readable; SIM_NEVER: not within two minutes. */
static uint64_t net_until_readable(const net_ends *ends, int end)
{
    uint64_t begun = sim_time();

    for (int i = 0; i < 120000; i++) {
        if (net_ready(ends, end) & POLLIN) {
            return sim_time() - begun;
        }
        kit_run(SIM_MS);
    }
    return SIM_NEVER;
}

/* What the ends of a connection see when packets are dropped in some direction two seconds after it was made, and the
 * first end sends then or neither does. Measured with Linux 6.18 and a filter of packets; in seconds. */
typedef struct net_silence {
    bool there, back, sends;
    int got;           /* bytes that the other end reads */
    uint64_t after[2]; /* when the ends see it */
    bool reset;        /* the first one sees a reset */
} net_silence;

static const net_silence net_silences[] = {
    {.there = true, .back = true, .sends = true, .after = {30, 28}},
    {.there = true, .back = true, .after = {28, 28}},
    {.there = true, .sends = true, .after = {28, 28}, .reset = true},
    {.back = true, .sends = true, .got = 100, .after = {30, 60}},
    {.there = true, .after = {28, 28}},
    {.back = true, .after = {28, 28}},
};

static void net_check_silence(const net_silence *silence)
{
    net_ends ends;
    uint64_t after[2] = {0, 0};
    int got[2] = {0, 0};

    kit_start(7);
    net_join(&ends, false, 0, 2);
    kit_run(1900 * SIM_MS);
    kit_partition(silence->there, silence->back, 80 * SIM_S);
    if (silence->sends) {
        assert_int_equal(net_put(&ends, 0, 100), 100);
    }
    for (uint64_t ms = 0; ms < 70000; ms += 50) {
        kit_run(50 * SIM_MS);
        for (int end = 0; end < 2; end++) {
            if (after[end] == 0 && (net_ready(&ends, end) & POLLERR) != 0) {
                after[end] = ms / 1000;
            }
        }
    }
    assert_int_equal(net_take(&ends, 1, 100), silence->got > 0 ? silence->got : -ETIMEDOUT);
    got[0] = net_take(&ends, 0, 100);
    got[1] = silence->got > 0 ? net_take(&ends, 1, 100) : -ETIMEDOUT;
    for (int end = 0; end < 2; end++) {
        bool may = got[end] == -ECONNRESET && !silence->sends; /* one of two at the same time */
        assert_in_range(after[end], silence->after[end] - 2, silence->after[end] + 1);
        assert_true(got[end] == (end == 0 && silence->reset ? -ECONNRESET : -ETIMEDOUT) || may);
        assert_int_equal(net_take(&ends, end, 100), 0);
        assert_int_equal(net_put(&ends, end, 100), -EPIPE);
    }
    net_part(&ends);
    kit_end();
}

static void a_connection_through_which_nothing_comes_ends_as_with_linux(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(net_silences) / sizeof(*net_silences); i++) {
        net_check_silence(&net_silences[i]);
    }
}

static void a_connection_survives_a_partition_that_heals(void **state)
{
    net_ends ends;

    (void)state;
    kit_start(8);
    net_join(&ends, false, 0, 2);
    kit_partition(true, true, 20 * SIM_S);
    assert_int_equal(net_put(&ends, 0, 100), 100);
    uint64_t after = net_until_readable(&ends, 1);
    assert_in_range(after, 20 * SIM_S, 24 * SIM_S);
    assert_int_equal(net_take(&ends, 1, 200), 100);
    kit_run(100 * SIM_S);
    assert_int_equal(net_ready(&ends, 0), POLLOUT);
    assert_int_equal(net_ready(&ends, 1), POLLOUT);
    net_part(&ends);
    kit_end();
}

/* An end that timed out is not known to the other one until that one sends. */
static void an_end_learns_of_a_timeout_of_the_other_when_it_sends(void **state)
{
    net_ends ends;
    int off = 0;

    (void)state;
    kit_start(10);
    net_join(&ends, false, 0, 2);
    kit_as(2);
    assert_int_equal(setsockopt(ends.fd[1], SOL_SOCKET, SO_KEEPALIVE, &off, sizeof(off)), 0);
    kit_partition(true, true, 60 * SIM_S);
    assert_int_equal(net_put(&ends, 0, 100), 100);
    kit_run(70 * SIM_S);
    assert_int_equal(net_take(&ends, 0, 100), -ETIMEDOUT);
    assert_int_equal(net_ready(&ends, 1), POLLOUT);
    assert_int_equal(net_put(&ends, 1, 100), 100);
    kit_run(SIM_S);
    assert_int_equal(net_take(&ends, 1, 100), -ECONNRESET);
    net_part(&ends);
    kit_end();
}

/* The receiver's window stays closed although its machine answers. */
static void a_window_that_stays_closed_ends_the_connection(void **state)
{
    net_ends ends;

    (void)state;
    kit_start(11);
    net_join(&ends, false, 0, 2);
    while (net_put(&ends, 0, 100000) > 0 || (kit_run(100 * SIM_MS), net_ready(&ends, 0) & POLLOUT)) {
    }
    uint64_t after = net_until_readable(&ends, 0);
    assert_in_range(after, 28 * SIM_S, 30 * SIM_S);
    assert_int_equal(net_take(&ends, 0, 100), -ETIMEDOUT);
    assert_true(net_take(&ends, 1, 100000) > 0);
    net_part(&ends);
    kit_end();
}

/* However something between the ends cuts them, both learn of it, and read what comes before. */
static void both_ends_notice_a_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        net_ends ends;
        kit_start(seed);
        sim_chance_init(&net_script, seed, "script");
        net_join(&ends, seed % 2, 0, seed % 2 ? 1 : 2);
        for (int i = 0; i < 6; i++) {
            net_put(&ends, i % 2, sim_between(&net_script, 1, 3000)); /* less than fills it */
            kit_run(sim_below(&net_script, SIM_MS));
            net_take(&ends, (int)sim_below(&net_script, 2), 100000);
        }
        kit_fault(SIM_CUT, 1);
        assert_true(net_put(&ends, (int)sim_below(&net_script, 2), 5000) > 0);
        bool uncut = seed % 2 == 1 && !net.unix_cuts;
        for (int round = 0; round < 4; round++) {
            kit_run(4 * SIM_S);
            for (int end = 0; end < 2; end++) {
                int n;
                while ((n = net_take(&ends, end, 100000)) > 0) {
                }
                assert_true(n == 0 || n == -ECONNRESET || n == -EPIPE || round < 3 || uncut);
            }
        }
        net_part(&ends);
        kit_end();
    }
}

static void the_peer_of_a_killed_process_reads_what_was_sent_and_then_the_end(void **state)
{
    net_ends ends;

    (void)state;
    for (int unix_socket = 0; unix_socket < 2; unix_socket++) {
        for (int unread = 0; unread < 2; unread++) {
            kit_start(12);
            net_join(&ends, unix_socket, 0, unix_socket ? 1 : 2);
            assert_int_equal(net_put(&ends, 0, 5000), 5000);
            if (unread) {
                assert_int_equal(net_put(&ends, 1, 10), 10);
            }
            kit_run(SIM_S);
            kit_kill(0);
            kit_run(SIM_S);
            assert_int_equal(net_take(&ends, 1, 100000), 5000);
            assert_int_equal(net_take(&ends, 1, 100000), unread ? -ECONNRESET : 0);
            assert_int_equal(net_take(&ends, 1, 100000), 0);
            int n = net_put(&ends, 1, 10);
            assert_int_equal(n, unread || unix_socket ? -EPIPE : 10);
            kit_run(SIM_S);
            assert_int_equal(net_put(&ends, 1, 10), -EPIPE);
            net_close(&ends, 1);
            close(ends.listener);
            kit_end();
        }
    }
}

/* --- processes and events ------------------------------------------------------------------ */

static void a_pidfd_is_readable_after_its_process_has_ended(void **state)
{
    net_ends ends;
    struct ucred cred;
    socklen_t size = sizeof(cred);
    int fd = -1;

    (void)state;
    kit_start(13);
    net_join(&ends, true, 0, 1);
    kit_as(0);
    pid_t pid = getpid();
    kit_as(1);
    assert_int_equal(getsockopt(ends.fd[1], SOL_SOCKET, SO_PEERCRED, &cred, &size), 0);
    assert_int_equal(cred.pid, pid);
    assert_int_equal(cred.uid, geteuid());
    size = sizeof(fd);
    assert_int_equal(getsockopt(ends.fd[1], SOL_SOCKET, 77, &fd, &size), 0);
    struct pollfd at = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&at, 1, 0), 0);
    kit_fault(SIM_PIDFD_LATE, 1);
    kit_kill(0);
    kit_as(1);
    assert_int_equal(poll(&at, 1, 0), 0);
    int another = sim_pidfd_open((uint64_t)pid);
    assert_true(another >= 0);
    kit_run(60 * SIM_S);
    assert_int_equal(poll(&at, 1, 0), 1);
    at.fd = another;
    assert_int_equal(poll(&at, 1, 0), 1);
    assert_int_equal(sim_pidfd_open((uint64_t)pid), -1);
    assert_int_equal(errno, ESRCH);
    close(another);
    close(fd);
    net_close(&ends, 1);
    close(ends.listener);
    assert_int_equal(sim_fds_count(sim_self), 0);
    kit_end();
}

static void descriptors_are_numbered_and_limited_as_in_linux(void **state)
{
    struct rlimit limit;

    (void)state;
    kit_start(14);
    kit_as(0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int first = eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(first, SIM_FD_FIRST);
    int second = fcntl(first, F_DUPFD_CLOEXEC, 0);
    assert_int_equal(second, SIM_FD_FIRST + 1);
    assert_int_equal(fcntl(second, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(second, F_SETFD, 0), 0);
    assert_int_equal(fcntl(second, F_GETFD), 0);
    assert_int_equal(fcntl(first, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(first, F_GETFL), O_RDWR | O_NONBLOCK);
    assert_int_equal(close(first), 0);
    eventfd_t count = 0;
    assert_int_equal(eventfd_write(second, 4), 0);
    assert_int_equal(eventfd_read(second, &count), 0);
    assert_int_equal(count, 7);
    assert_int_equal(eventfd_read(second, &count), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(fcntl(second, F_DUPFD_CLOEXEC, 0), first);
    int fd, last = second;
    while ((fd = fcntl(second, F_DUPFD_CLOEXEC, 0)) >= 0) {
        assert_int_equal(fd, ++last);
    }
    assert_int_equal(errno, EMFILE);
    assert_int_equal(last + 1, limit.rlim_cur);
    assert_int_equal(close(SIM_FD_FIRST + 70), 0);
    assert_int_equal(fcntl(second, F_DUPFD, SIM_FD_FIRST + 50), SIM_FD_FIRST + 70);
    assert_int_equal(fcntl((int)limit.rlim_cur, F_GETFD), -1);
    assert_int_equal(errno, EBADF);
    kit_end();
}

static void host_names_are_those_of_the_simulation(void **state)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *list;
    char name[64];

    (void)state;
    kit_start(15);
    kit_as(2);
    assert_int_equal(gethostname(name, sizeof(name)), 0);
    assert_string_equal(name, "host-1");
    assert_int_equal(getaddrinfo("host-1", "80", &hints, &list), EAI_NONAME);
    hints.ai_flags = 0;
    assert_int_equal(getaddrinfo("host-1", "80", &hints, &list), 0);
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)list->ai_addr;
    assert_int_equal(ntohl(in->sin_addr.s_addr), 0x0A000002);
    assert_int_equal(ntohs(in->sin_port), 80);
    freeaddrinfo(list);
    assert_int_equal(getaddrinfo("nobody", "80", &hints, &list), EAI_NONAME);
    assert_int_equal(getaddrinfo("::1", "80", &hints, &list), 0);
    assert_int_equal(list->ai_family, AF_INET6);
    freeaddrinfo(list);
    kit_as(-1);
    kit_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_bytes_arrive_in_order),
        cmocka_unit_test(bytes_that_arrive_are_in_order_with_faults),
        cmocka_unit_test(a_seed_gives_the_same_run_again),
        cmocka_unit_test(a_connection_through_which_nothing_comes_ends_as_with_linux),
        cmocka_unit_test(a_connection_survives_a_partition_that_heals),
        cmocka_unit_test(an_end_learns_of_a_timeout_of_the_other_when_it_sends),
        cmocka_unit_test(a_window_that_stays_closed_ends_the_connection),
        cmocka_unit_test(both_ends_notice_a_cut),
        cmocka_unit_test(the_peer_of_a_killed_process_reads_what_was_sent_and_then_the_end),
        cmocka_unit_test(a_pidfd_is_readable_after_its_process_has_ended),
        cmocka_unit_test(descriptors_are_numbered_and_limited_as_in_linux),
        cmocka_unit_test(host_names_are_those_of_the_simulation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
