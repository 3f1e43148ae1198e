/*
 * socket_options.c - getsockopt and setsockopt.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#include "net.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define OPTIONS_LEAST_BUFFER 4608 /* SOCK_MIN_SNDBUF */

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);

static int options_error(int err)
{
    errno = err;
    return -1;
}

static int options_give(void *value, socklen_t *size, const void *from, size_t from_size)
{
    size_t n = *size < from_size ? *size : from_size;

    memcpy(value, from, n);
    *size = (socklen_t)n;
    return 0;
}

static int options_peer(const net_socket *socket, void *value, socklen_t *size)
{
    struct ucred cred = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};

    if (socket->domain == AF_UNIX && socket->peer_pid != 0) {
        cred = (struct ucred){.pid = (pid_t)socket->peer_pid, .uid = SIM_USER, .gid = SIM_USER};
    }
    return options_give(value, size, &cred, sizeof(cred));
}

static int options_peer_pidfd(const net_socket *socket, void *value, socklen_t *size)
{
    if (socket->domain != AF_UNIX || !net.peer_pidfd) {
        return options_error(ENOPROTOOPT);
    }
    if (socket->peer_pid == 0) {
        return options_error(ENODATA);
    }
    int fd = net_peer_pidfd(socket->peer_pid);
    return fd < 0 ? -1 : options_give(value, size, &fd, sizeof(fd));
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    if (!sim_fd_is(fd)) {
        return __real_getsockopt(fd, level, name, value, size);
    }
    sim_point();
    net_socket *socket = (net_socket *)sim_fd_file_of(fd, &net_socket_ops, ENOTSOCK);
    if (socket == NULL) {
        return -1;
    }
    if (level != SOL_SOCKET) {
        return options_error(ENOPROTOOPT);
    }
    int err = socket->err;
    switch (name) {
    case SO_ERROR:
        socket->err = 0;
        return options_give(value, size, &err, sizeof(err));
    case SO_PEERCRED:
        return options_peer(socket, value, size);
    case SO_PEERPIDFD:
        return options_peer_pidfd(socket, value, size);
    case SO_RCVLOWAT:
        return options_give(value, size, &socket->least, sizeof(socket->least));
    case SO_SNDBUF:
        return options_give(value, size, &socket->send_buffer, sizeof(socket->send_buffer));
    default:
        return options_error(ENOPROTOOPT);
    }
}

static int options_set_tcp(net_socket *socket, int name, int number)
{
    int *place = name == TCP_KEEPIDLE    ? &socket->idle_s
                 : name == TCP_KEEPINTVL ? &socket->interval_s
                 : name == TCP_KEEPCNT   ? &socket->probes
                                         : NULL;

    if (socket->domain == AF_UNIX) {
        return options_error(EOPNOTSUPP);
    }
    if (place != NULL) {
        if (number < 1) {
            return options_error(EINVAL);
        }
        *place = number;
    } else if (name == TCP_USER_TIMEOUT) {
        if (number < 0) {
            return options_error(EINVAL);
        }
        socket->unanswered_ms = number;
    } else if (name != TCP_NODELAY) {
        return options_error(ENOPROTOOPT);
    }
    return 0;
}

static int options_set_socket(net_socket *socket, int name, int number)
{
    switch (name) {
    case SO_SNDBUF:
        /* Twice what was asked for, up to what the system allows. */
        number = number < net.unix_most ? number : net.unix_most;
        number = 2 * number > OPTIONS_LEAST_BUFFER ? 2 * number : OPTIONS_LEAST_BUFFER;
        socket->send_buffer = number;
        if (socket->link != NULL) {
            net_way_space(&socket->link->way[socket->side]);
        }
        return 0;
    case SO_KEEPALIVE:
        socket->keepalive = number != 0;
        return 0;
    case SO_REUSEADDR:
        socket->reuse = number != 0;
        return 0;
    case SO_RCVLOWAT:
        socket->least = number > 0 ? number : number < 0 ? INT32_MAX : 1;
        net_stream_retune(socket);
        return 0;
    default:
        return options_error(ENOPROTOOPT);
    }
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    int number;

    if (!sim_fd_is(fd)) {
        return __real_setsockopt(fd, level, name, value, size);
    }
    sim_point();
    net_socket *socket = (net_socket *)sim_fd_file_of(fd, &net_socket_ops, ENOTSOCK);
    if (socket == NULL) {
        return -1;
    }
    if (size < sizeof(number)) {
        return options_error(EINVAL);
    }
    memcpy(&number, value, sizeof(number));
    return level == SOL_SOCKET    ? options_set_socket(socket, name, number)
           : level == IPPROTO_TCP ? options_set_tcp(socket, name, number)
                                  : options_error(ENOPROTOOPT);
}
