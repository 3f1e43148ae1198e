/*
 * socket.c - the calls of sockets.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>

#include "disk.h"
#include "net.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define SOCKET_BUFFER  212992 /* net.core.wmem_default, rmem_default */
#define SOCKET_LEAST   4608   /* SOCK_MIN_SNDBUF */
#define SOCKET_BACKLOG 4096   /* net.core.somaxconn */
#define SOCKET_FILES   253    /* SCM_MAX_FD */

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __real_bind(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size);
int __real_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __real_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
int __real_getsockname(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size);
int __real_getpeername(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size);
int __real_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);

static uint64_t sockets_made;

/* --- the file ----------------------------------------------------------------- */

static short socket_ready(sim_file *file)
{
    net_socket *socket = (net_socket *)file;

    if (socket->state == NET_LISTENS) {
        return socket->first != NULL ? POLLIN : 0;
    }
    return socket->type == SOCK_STREAM ? net_stream_ready(socket) : POLLOUT;
}

/* Whoever waits to be accepted by a listener that closes is reset. */
static void socket_refuse_waiting(net_socket *socket)
{
    net_socket *at = socket->first, *next;

    socket->first = socket->last = NULL;
    for (; at != NULL; at = next) {
        next = at->next_waiting;
        sim_mark("a listener closes on one that waits");
        net_link_refuse(at);
        sim_file_unref(&at->file);
    }
}

static void socket_destroy(sim_file *file)
{
    net_socket *socket = (net_socket *)file;

    net_bound_remove(socket);
    net_connect_drop(socket);
    socket_refuse_waiting(socket);
    if (socket->link != NULL) {
        net_link_leave(socket);
    }
    sim_free(socket);
}

const sim_file_ops net_socket_ops = {
    .name = "socket",
    .ready = socket_ready,
    .destroy = socket_destroy,
};

net_socket *net_socket_make(int domain, int type, uint32_t host, uint64_t pid)
{
    net_socket *socket = sim_alloc(sizeof(*socket));

    sim_file_init(&socket->file, &net_socket_ops);
    socket->file.flags = O_RDWR | O_NONBLOCK;
    socket->number = ++sockets_made;
    socket->domain = domain;
    socket->type = type;
    socket->host = host;
    socket->pid = pid;
    socket->least = 1;
    socket->idle_s = 7200;
    socket->interval_s = 75;
    socket->probes = 9;
    socket->send_buffer = domain == AF_UNIX ? SOCKET_BUFFER : net.tcp_send;
    socket->receive_buffer = domain == AF_UNIX ? SOCKET_BUFFER : net.tcp_receive;
    socket->local.ss_family = socket->peer.ss_family = (sa_family_t)domain;
    socket->local_size = domain == AF_UNIX ? sizeof(sa_family_t) : sizeof(struct sockaddr_in);
    socket->peer_size = socket->local_size;
    return socket;
}

static net_socket *socket_of(int fd)
{
    return (net_socket *)sim_fd_file_of(fd, &net_socket_ops, ENOTSOCK);
}

static int socket_error(int err)
{
    errno = err;
    return -1;
}

int __wrap_socket(int domain, int type, int protocol)
{
    if (sim_self == NULL) {
        return __real_socket(domain, type, protocol);
    }
    sim_point();
    int kind = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (domain != AF_UNIX && domain != AF_INET) {
        return socket_error(EAFNOSUPPORT); /* a kernel without IPv6 */
    }
    if (kind != SOCK_STREAM && kind != SOCK_DGRAM) {
        return socket_error(ESOCKTNOSUPPORT);
    }
    sim_check(kind == SOCK_DGRAM || (type & SOCK_NONBLOCK) != 0, "the simulation: sockets do not block", "%s",
              sim_self->name);
    return sim_fd_open(&net_socket_make(domain, kind, sim_self->host, sim_self->pid)->file);
}

/* --- addresses ---------------------------------------------------------------- */

static int socket_bind_unix(net_socket *socket, const struct sockaddr *address, socklen_t size)
{
    struct sockaddr_un un = {0};

    if (size <= offsetof(struct sockaddr_un, sun_path) || size > sizeof(un)) {
        return socket_error(EINVAL);
    }
    memcpy(&un, address, size);
    if (un.sun_path[0] == 0) {
        for (const net_socket *at = net_bound; at != NULL; at = at->bound_next) {
            if (at->domain == AF_UNIX && at->host == socket->host && at->local_size == size &&
                memcmp(&at->local, &un, size) == 0) {
                return socket_error(EADDRINUSE);
            }
        }
    } else {
        char path[sizeof(un.sun_path) + 1] = "";
        memcpy(path, un.sun_path, size - offsetof(struct sockaddr_un, sun_path));
        if (sim_disk_socket_bind(path, (void *)(uintptr_t)socket->number) != 0) {
            return -1;
        }
    }
    memcpy(&socket->local, &un, size);
    socket->local_size = size;
    net_bound_add(socket);
    return 0;
}

static int socket_bind_tcp(net_socket *socket, const struct sockaddr *address, socklen_t size)
{
    struct sockaddr_in in;

    if (size < sizeof(in)) {
        return socket_error(EINVAL);
    }
    memcpy(&in, address, sizeof(in));
    if (in.sin_family != AF_INET) {
        return socket_error(EAFNOSUPPORT);
    }
    if (net_host_of(socket->host, in.sin_addr.s_addr) != socket->host) {
        return socket_error(EADDRNOTAVAIL);
    }
    for (const net_socket *at = net_bound; at != NULL && in.sin_port != 0; at = at->bound_next) {
        const struct sockaddr_in *other = (const struct sockaddr_in *)(const void *)&at->local;
        bool same = at->domain == AF_INET && at->type == socket->type && at->host == socket->host &&
                    other->sin_port == in.sin_port &&
                    (other->sin_addr.s_addr == in.sin_addr.s_addr || other->sin_addr.s_addr == htonl(INADDR_ANY) ||
                     in.sin_addr.s_addr == htonl(INADDR_ANY));
        if (same && !(socket->reuse && at->reuse && at->state != NET_LISTENS)) {
            return socket_error(EADDRINUSE);
        }
    }
    if (in.sin_port == 0) {
        in.sin_port = net_free_port(socket->host);
    }
    memcpy(&socket->local, &in, sizeof(in));
    socket->local_size = sizeof(in);
    net_bound_add(socket);
    return 0;
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    if (!sim_fd_is(fd)) {
        return __real_bind(fd, address, size);
    }
    sim_point();
    net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    if (socket->bound || socket->state != NET_NEW) {
        return socket_error(EINVAL);
    }
    return socket->domain == AF_UNIX ? socket_bind_unix(socket, address, size) : socket_bind_tcp(socket, address, size);
}

int __wrap_listen(int fd, int backlog)
{
    if (!sim_fd_is(fd)) {
        return __real_listen(fd, backlog);
    }
    sim_point();
    net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    if (socket->type != SOCK_STREAM) {
        return socket_error(EOPNOTSUPP);
    }
    if ((socket->state != NET_NEW && socket->state != NET_LISTENS) || (!socket->bound && socket->domain == AF_UNIX)) {
        return socket_error(EINVAL);
    }
    const struct sockaddr_in anywhere = {.sin_family = AF_INET};
    if (!socket->bound && socket_bind_tcp(socket, (const struct sockaddr *)(const void *)&anywhere, sizeof(anywhere))) {
        return -1;
    }
    socket->state = NET_LISTENS;
    socket->backlog = backlog < 0 || backlog > SOCKET_BACKLOG ? SOCKET_BACKLOG : backlog;
    socket->listener_pid = sim_self->pid;
    return 0;
}

static void socket_give_address(const struct sockaddr_storage *from, socklen_t from_size, struct sockaddr *address,
                                socklen_t *size)
{
    if (address != NULL) {
        memcpy(address, from, *size < from_size ? *size : from_size);
        *size = from_size;
    }
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    if (!sim_fd_is(fd)) {
        return __real_accept4(fd, address, size, flags);
    }
    sim_point();
    net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    if (socket->state != NET_LISTENS) {
        return socket_error(EINVAL);
    }
    sim_check((flags & SOCK_NONBLOCK) != 0, "the simulation: sockets do not block", "%s", sim_self->name);
    net_socket *end = socket->first;
    if (end != NULL && sim_happens(SIM_ACCEPT_FULL)) {
        static const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
        sim_mark("an accept fails");
        return socket_error(errors[sim_below(&sim_fault_chance, 4)]);
    }
    if (end == NULL) {
        return socket_error(EAGAIN);
    }
    sim_file_ref(&end->file);
    int accepted = sim_fd_open(&end->file);
    if (accepted < 0) {
        return -1; /* it still waits */
    }
    socket->first = end->next_waiting;
    socket->last = socket->first != NULL ? socket->last : NULL;
    socket->waiting--;
    end->next_waiting = NULL;
    end->pid = sim_self->pid;
    socket_give_address(&end->peer, end->peer_size, address, size);
    sim_file_unref(&end->file);
    sim_trace("net: accept", end->number, end->link != NULL ? end->link->number : 0);
    return accepted;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    if (!sim_fd_is(fd)) {
        return __real_connect(fd, address, size);
    }
    sim_point();
    net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    if (socket->type == SOCK_STREAM) {
        return net_connect(socket, address, size);
    }
    /* A datagram socket only says which address it would send from. */
    struct sockaddr_in to, own = {.sin_family = AF_INET};
    if (socket->domain != AF_INET || address->sa_family != AF_INET || size < sizeof(to)) {
        return socket_error(EINVAL);
    }
    memcpy(&to, address, sizeof(to));
    own.sin_port = net_free_port(socket->host);
    own.sin_addr.s_addr = net_host_of(socket->host, to.sin_addr.s_addr) == socket->host ? to.sin_addr.s_addr
                                                                                        : net_host_address(socket->host);
    memcpy(&socket->local, &own, sizeof(own));
    memcpy(&socket->peer, &to, sizeof(to));
    socket->peer_size = sizeof(to);
    return 0;
}

int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
    if (!sim_fd_is(fd)) {
        return __real_getsockname(fd, address, size);
    }
    const net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    socket_give_address(&socket->local, socket->local_size, address, size);
    return 0;
}

int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size)
{
    if (!sim_fd_is(fd)) {
        return __real_getpeername(fd, address, size);
    }
    const net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    if (socket->state != NET_CONNECTED) {
        return socket_error(ENOTCONN);
    }
    socket_give_address(&socket->peer, socket->peer_size, address, size);
    return 0;
}

int __wrap_shutdown(int fd, int how)
{
    if (!sim_fd_is(fd)) {
        return __real_shutdown(fd, how);
    }
    sim_point();
    net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    if (how < SHUT_RD || how > SHUT_RDWR) {
        return socket_error(EINVAL);
    }
    if (socket->state != NET_CONNECTED) {
        return socket_error(ENOTCONN);
    }
    int rc = net_shutdown(socket, how != SHUT_WR, how != SHUT_RD);
    return rc < 0 ? socket_error(-rc) : 0;
}

/* --- bytes -------------------------------------------------------------------- */

/* The files of SCM_RIGHTS, each with a reference, in memory of sim_alloc. */
static int socket_files(const struct msghdr *message, sim_file ***files, uint32_t *n_files)
{
    *files = NULL;
    *n_files = 0;
    if (message->msg_control == NULL || message->msg_controllen == 0) {
        return 0;
    }
    const struct cmsghdr *control = CMSG_FIRSTHDR(message);
    if (control == NULL || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) {
        return socket_error(EINVAL);
    }
    size_t n = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if (n == 0 || n > SOCKET_FILES) {
        return n == 0 ? 0 : socket_error(EINVAL);
    }
    *files = sim_alloc(n * sizeof(sim_file *));
    for (size_t i = 0; i < n; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(control) + i * sizeof(fd), sizeof(fd));
        sim_file *file = sim_fd_file(fd);
        if (file == NULL) {
            break;
        }
        sim_file_ref(file);
        (*files)[(*n_files)++] = file;
    }
    return *n_files == n ? 0 : socket_error(EBADF);
}

static void socket_free_files(sim_file **files, uint32_t n_files)
{
    for (uint32_t i = 0; i < n_files; i++) {
        sim_file_unref(files[i]);
    }
    sim_free(files);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    sim_file **files = NULL;
    uint32_t n_files = 0;

    if (!sim_fd_is(fd)) {
        return __real_sendmsg(fd, message, flags);
    }
    sim_point();
    net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    sim_check((flags & MSG_NOSIGNAL) != 0, "the simulation: no SIGPIPE", "%s sends without MSG_NOSIGNAL",
              sim_self->name);
    if (socket->domain == AF_UNIX && socket_files(message, &files, &n_files) != 0) {
        int err = errno;
        socket_free_files(files, n_files);
        return socket_error(err);
    }
    ssize_t sent = socket->type == SOCK_STREAM ? net_send(socket, message->msg_iov, message->msg_iovlen, files, n_files)
                                               : -EOPNOTSUPP;
    if (sent <= 0) {
        socket_free_files(files, n_files);
    }
    return sent < 0 ? socket_error((int)-sent) : sent;
}

/* Descriptors for the files that came; those for which there is no room are closed, and MSG_CTRUNC says so. */
static void socket_give_files(struct msghdr *message, sim_file **files, uint32_t n_files)
{
    size_t room = message->msg_control != NULL && message->msg_controllen >= CMSG_LEN(sizeof(int))
                      ? (message->msg_controllen - CMSG_LEN(0)) / sizeof(int)
                      : 0;
    struct cmsghdr *control = message->msg_control;
    uint32_t given = 0;

    message->msg_flags = 0;
    while (given < n_files && given < room) {
        int fd = sim_fd_open(files[given]);
        if (fd < 0) {
            files[given] = NULL; /* its reference is gone with the failure */
            break;
        }
        memcpy(CMSG_DATA(control) + given * sizeof(fd), &fd, sizeof(fd));
        given++;
    }
    for (uint32_t i = given; i < n_files; i++) {
        message->msg_flags |= MSG_CTRUNC;
        if (files[i] != NULL) {
            sim_file_unref(files[i]);
        }
    }
    if (given > 0) {
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(given * sizeof(int));
    }
    size_t space = given > 0 ? CMSG_SPACE(given * sizeof(int)) : 0;
    message->msg_controllen = space < message->msg_controllen ? space : message->msg_controllen;
    sim_free(files);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    sim_file **files = NULL;
    uint32_t n_files = 0;

    if (!sim_fd_is(fd)) {
        return __real_recvmsg(fd, message, flags);
    }
    sim_point();
    net_socket *socket = socket_of(fd);
    if (socket == NULL) {
        return -1;
    }
    sim_check((flags & ~(MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_NOSIGNAL)) == 0,
              "the simulation: recvmsg with known flags", "%#x", (unsigned)flags);
    ssize_t got = socket->type == SOCK_STREAM
                      ? net_receive(socket, message->msg_iov, message->msg_iovlen, &files, &n_files)
                      : -EAGAIN;
    if (got < 0) {
        return socket_error((int)-got);
    }
    message->msg_namelen = 0;
    socket_give_files(message, files, n_files);
    return got;
}

void sim_net_start(void)
{
    sockets_made = 0;
    net_faults_start();
}

void sim_net_calm(void)
{
    net_faults_calm();
}

void sim_net_end(void)
{
    net_faults_end();
    net_connects_end();
    net_links_end();
    net_streams_end();
    net_pidfds_end();
}
