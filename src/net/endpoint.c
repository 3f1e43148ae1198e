/*
 * endpoint.c - endpoints as text, and listening sockets.
 */
#include "net/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

static int endpoint_parse_unix(const char *text, size_t size, tqi_net_endpoint *endpoint, tq_error *err)
{
    const size_t prefix = strlen("unix:");

    if (size == prefix) {
        return tqi_error_set(err, TQ_EINVAL, "endpoint 'unix:' names no path");
    }
    size_t length = size - prefix;
    if (length >= sizeof(endpoint->path)) {
        return tqi_error_set(err, TQ_EINVAL, "path of endpoint '%.*s' has %zu bytes, a unix socket allows at most %zu",
                             (int)size, text, length, sizeof(endpoint->path) - 1);
    }
    endpoint->unix_socket = true;
    memcpy(endpoint->path, text + prefix, length);
    return TQ_OK;
}

/* A port's number, or -1. */
static long endpoint_port(const char *text, const char *end)
{
    long number = 0;

    if (end <= text || end - text > 5) {
        return -1;
    }
    for (; text < end; text++) {
        if (*text < '0' || *text > '9') {
            return -1;
        }
        number = number * 10 + (*text - '0');
    }
    return number <= 65535 ? number : -1;
}

static int endpoint_parse_tcp(const char *text, size_t size, tqi_net_endpoint *endpoint, tq_error *err)
{
    const char *host = text + strlen("tcp:");
    const char *end = text + size;
    const char *colon = end;

    while (colon > host && *colon != ':') {
        colon--;
    }
    const char *host_end = colon;
    const char *port = colon + 1;
    if (colon > host && *host == '[' && colon[-1] == ']') {
        host++;
        host_end--;
    } else if (colon > host && memchr(host, ':', (size_t)(colon - host)) != NULL) {
        return tqi_error_set(err, TQ_EINVAL,
                             "endpoint '%.*s': an IPv6 address is written in brackets, tcp:[address]:port", (int)size,
                             text);
    }
    if (colon <= host || host_end <= host || port >= end) {
        return tqi_error_set(err, TQ_EINVAL, "endpoint '%.*s' is not of the form tcp:host:port", (int)size, text);
    }
    size_t host_size = (size_t)(host_end - host);
    if (host_size >= sizeof(endpoint->host)) {
        return tqi_error_set(err, TQ_EINVAL, "endpoint '%.40s...': the host name is too long", text);
    }
    const char *dash = memchr(port, '-', (size_t)(end - port));
    long number = endpoint_port(port, dash != NULL ? dash : end);
    long last = dash != NULL ? endpoint_port(dash + 1, end) : number;
    if (number < 0 || last < 0) {
        return tqi_error_set(err, TQ_EINVAL, "endpoint '%.*s': the port is not a number from 0 to 65535", (int)size,
                             text);
    }
    if (dash != NULL && (number == 0 || last < number)) {
        return tqi_error_set(err, TQ_EINVAL, "endpoint '%.*s': a range of ports is written first-last, from 1 on",
                             (int)size, text);
    }
    memcpy(endpoint->host, host, host_size);
    snprintf(endpoint->port, sizeof(endpoint->port), "%ld", number);
    endpoint->last_port = dash != NULL ? (unsigned)last : 0;
    return TQ_OK;
}

int tqi_net_endpoint_parse(const char *text, size_t size, tqi_net_endpoint *endpoint, tq_error *err)
{
    memset(endpoint, 0, sizeof(*endpoint));
    if (size >= 5 && memcmp(text, "unix:", 5) == 0) {
        return endpoint_parse_unix(text, size, endpoint, err);
    }
    if (size >= 4 && memcmp(text, "tcp:", 4) == 0) {
        return endpoint_parse_tcp(text, size, endpoint, err);
    }
    return tqi_error_set(err, TQ_EINVAL,
                         "endpoint '%.*s' begins with neither unix: nor tcp:, as in tcp:HOST:PORT and "
                         "unix:/PATH",
                         (int)(size < 200 ? size : 200), text);
}

int tqi_net_endpoint_parse_list(const char *text, tqi_net_endpoint **out, size_t *count, tq_error *err)
{
    if (text == NULL || !*text) {
        return tqi_error_set(err, TQ_EINVAL, "no endpoint is given");
    }
    size_t n = 1;
    for (const char *at = text; *at; at++) {
        n += *at == ',';
    }
    tqi_net_endpoint *list = calloc(n, sizeof(*list));
    if (list == NULL) {
        return tqi_error_nomem(err, "endpoints");
    }
    const char *at = text;
    for (size_t i = 0; i < n; i++) {
        size_t size = strcspn(at, ",");
        int rc = tqi_net_endpoint_parse(at, size, &list[i], err);
        if (rc != TQ_OK) {
            free(list);
            return rc;
        }
        at += size + 1;
    }
    *out = list;
    *count = n;
    return TQ_OK;
}

void tqi_net_endpoint_format(const tqi_net_endpoint *endpoint, char *out, size_t size)
{
    if (endpoint->unix_socket) {
        snprintf(out, size, "unix:%s", endpoint->path);
    } else {
        bool v6 = strchr(endpoint->host, ':') != NULL;
        char last[16] = "";
        if (endpoint->last_port != 0) {
            snprintf(last, sizeof(last), "-%u", endpoint->last_port);
        }
        snprintf(out, size, "tcp:%s%s%s:%s%s", v6 ? "[" : "", endpoint->host, v6 ? "]" : "", endpoint->port, last);
    }
}

const char *tqi_net_endpoint_name(const tqi_net_endpoint *endpoint)
{
    const char *slash = strrchr(endpoint->path, '/');

    return slash != NULL ? slash + 1 : endpoint->path;
}

void tqi_net_endpoint_sockaddr_un(const tqi_net_endpoint *endpoint, struct sockaddr_un *addr, socklen_t *size)
{
    memset(addr, 0, sizeof(*addr));
    addr->sun_family = AF_UNIX;
    size_t length = strlen(endpoint->path);
    memcpy(addr->sun_path, endpoint->path, length + 1);
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
}

void tqi_net_peer_format(const struct sockaddr *addr, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(out, size, "tcp:%s:%u", host, (unsigned)ntohs(in->sin_port));
    } else if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)addr;
        char scope[IF_NAMESIZE + 1] = "%";
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host));
        /* A link-local address is useless without it. */
        if (in->sin6_scope_id == 0 || if_indextoname(in->sin6_scope_id, scope + 1) == NULL) {
            scope[0] = 0;
        }
        snprintf(out, size, "tcp:[%s%s]:%u", host, scope, (unsigned)ntohs(in->sin6_port));
    } else {
        snprintf(out, size, "unix");
    }
}

void tqi_net_socket_tune(int fd, bool unix_socket)
{
    /* Every option is only an improvement: it is fine if the kernel lacks it. */
    if (unix_socket) {
        int bytes = 1 << 20;
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        return;
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    int idle = 10, interval = 5, probes = 4;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    unsigned int unanswered_ms = 30000;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof(unanswered_ms));
}

/* Whether anybody accepts connections on a unix socket: 1 yes, 0 no (the file is a leftover), -1 unknown (errno). */
static int endpoint_probe(const struct sockaddr_un *addr, socklen_t size)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return -1;
    }
    int rc = connect(fd, (const struct sockaddr *)addr, size);
    int errnum = rc == 0 ? 0 : errno;
    close(fd);
    errno = errnum;
    if (errnum == 0 || errnum == EAGAIN) {
        return 1; /* EAGAIN: its backlog is full */
    }
    return errnum == ECONNREFUSED ? 0 : -1;
}

/* Opens the directory of a socket: from then on the socket is made, examined and removed there, wherever its path may
 * lead later. */
static int endpoint_open_dir(const tqi_net_endpoint *endpoint, tq_error *err)
{
    char path[sizeof(endpoint->path)];
    const char *name = tqi_net_endpoint_name(endpoint);
    size_t size = (size_t)(name - endpoint->path);

    memcpy(path, size > 0 ? endpoint->path : ".", size > 0 ? size : 1);
    path[size > 0 ? size : 1] = 0;
    int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        char reason[128];
        tqi_error_set(err, TQ_EIO, "cannot listen on unix:%s: %s", endpoint->path,
                      strerror_r(errno, reason, sizeof(reason)));
    }
    return dir;
}

/* Where bind makes the socket: there is no bindat, but a path may start at a descriptor. Without /proc, or if the name
 * is too long for that, the endpoint's path is used. */
static void endpoint_bind_at(const tqi_net_endpoint *endpoint, int dir, struct sockaddr_un *addr, socklen_t *size)
{
    tqi_net_endpoint there = {.unix_socket = true};
    const char *name = tqi_net_endpoint_name(endpoint);

    snprintf(there.path, sizeof(there.path), "/proc/self/fd/%d", dir);
    size_t length = strlen(there.path);
    bool fits = access(there.path, F_OK) == 0 && length + 1 + strlen(name) < sizeof(there.path);
    if (fits) {
        snprintf(there.path + length, sizeof(there.path) - length, "/%s", name);
    }
    tqi_net_endpoint_sockaddr_un(fits ? &there : endpoint, addr, size);
}

static int endpoint_listen_unix(const tqi_net_endpoint *endpoint, int *fd_out, int *dir_out, tq_error *err)
{
    struct sockaddr_un addr;
    socklen_t size;
    const char *name = tqi_net_endpoint_name(endpoint);
    int dir = endpoint_open_dir(endpoint, err);

    if (dir < 0) {
        return TQ_EIO;
    }
    endpoint_bind_at(endpoint, dir, &addr, &size);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        int errnum = errno;
        close(dir);
        return tqi_error_errno(err, errnum, "socket");
    }
    int rc = bind(fd, (const struct sockaddr *)&addr, size);
    bool bound = rc == 0;
    if (rc != 0 && errno == EADDRINUSE) {
        struct stat st;
        if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISSOCK(st.st_mode)) {
            rc = tqi_error_set(err, TQ_EEXIST, "'%s' exists and is not a socket", endpoint->path);
            goto fail;
        }
        int alive = endpoint_probe(&addr, size);
        if (alive != 0) {
            rc = tqi_error_set(err, TQ_EEXIST, "endpoint unix:%s is in use: another process accepts connections there",
                               endpoint->path);
            goto fail;
        }
        unlinkat(dir, name, 0);
        rc = bind(fd, (const struct sockaddr *)&addr, size);
        bound = rc == 0;
    }
    if (rc != 0 || listen(fd, SOMAXCONN) != 0) {
        char reason[128];
        rc = tqi_error_set(err, TQ_EIO, "cannot listen on unix:%s: %s", endpoint->path,
                           strerror_r(errno, reason, sizeof(reason)));
        goto fail;
    }
    *fd_out = fd;
    *dir_out = dir;
    return TQ_OK;
fail:
    if (bound) {
        unlinkat(dir, name, 0);
    }
    close(fd);
    close(dir);
    return rc;
}

/* A listening socket at one of the addresses, or -1 with *errnum. */
static int endpoint_bind(const struct addrinfo *list, unsigned port, int *errnum)
{
    for (const struct addrinfo *at = list; at != NULL; at = at->ai_next) {
        struct sockaddr_storage addr = {0};
        int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            *errnum = errno;
            continue;
        }
        memcpy(&addr, at->ai_addr, at->ai_addrlen);
        int on = 1, off = 0;
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (at->ai_family == AF_INET6) {
            /* [::] means every address, including those of IPv4, whatever the system's default is. */
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
            ((struct sockaddr_in6 *)&addr)->sin6_port = htons((uint16_t)port);
        } else {
            ((struct sockaddr_in *)&addr)->sin_port = htons((uint16_t)port);
        }
        if (bind(fd, (const struct sockaddr *)&addr, at->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
            return fd;
        }
        *errnum = errno;
        close(fd);
    }
    return -1;
}

/* Explains why listening on a TCP endpoint failed, and what to do about it. */
static int endpoint_listen_failed(const tqi_net_endpoint *endpoint, const char *text, int errnum, tq_error *err)
{
    char reason[128];
    const char *remedy = "";

    if (errnum == EADDRINUSE && endpoint->last_port != 0) {
        return tqi_error_set(err, TQ_EIO,
                             "cannot listen on %s: every port of this range is in use, and it has "
                             "%lu: give a longer range, or end what uses these; a controller needs "
                             "one port, each storage unit one, the metrics one",
                             text, endpoint->last_port - strtoul(endpoint->port, NULL, 10) + 1);
    }
    if (errnum == EADDRINUSE) {
        remedy = ": another program uses this port; take another one, or port 0 for a free one";
    } else if (errnum == EADDRNOTAVAIL) {
        remedy = ": no network interface of this machine has this address";
    } else if (errnum == EACCES) {
        remedy = ": this user may not listen on this port; take one above 1023";
    }
    return tqi_error_set(err, TQ_EIO, "cannot listen on %s: %s%s", text, strerror_r(errnum, reason, sizeof(reason)),
                         remedy);
}

static int endpoint_listen_tcp(const tqi_net_endpoint *endpoint, int *fd_out, char *bound, size_t bound_size,
                               tq_error *err)
{
    char text[TQI_NET_ENDPOINT_MAX];

    tqi_net_endpoint_format(endpoint, text, sizeof(text));
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(endpoint->host, endpoint->port, &hints, &list);
    if (rc != 0) {
        return tqi_error_set(err, TQ_EIO, "cannot listen on %s: host '%s' is not known here: %s", text, endpoint->host,
                             gai_strerror(rc));
    }
    unsigned port = (unsigned)strtoul(endpoint->port, NULL, 10);
    int errnum = EADDRNOTAVAIL;
    int fd = endpoint_bind(list, port, &errnum);
    while (fd < 0 && errnum == EADDRINUSE && port < endpoint->last_port) {
        fd = endpoint_bind(list, ++port, &errnum);
    }
    freeaddrinfo(list);
    if (fd < 0) {
        return endpoint_listen_failed(endpoint, text, errnum, err);
    }
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(addr);
    if (getsockname(fd, (struct sockaddr *)&addr, &size) != 0) {
        errnum = errno;
        close(fd);
        return tqi_error_errno(err, errnum, "getsockname");
    }
    tqi_net_peer_format((const struct sockaddr *)&addr, bound, bound_size);
    *fd_out = fd;
    return TQ_OK;
}

int tqi_net_endpoint_listen(const tqi_net_endpoint *endpoint, int *fd_out, int *dir_out, char *bound, size_t bound_size,
                            tq_error *err)
{
    int dir = -1;
    int rc;

    if (endpoint->unix_socket) {
        tqi_net_endpoint_format(endpoint, bound, bound_size);
        rc = endpoint_listen_unix(endpoint, fd_out, &dir, err);
    } else {
        rc = endpoint_listen_tcp(endpoint, fd_out, bound, bound_size, err);
    }
    if (dir_out != NULL) {
        *dir_out = dir;
    } else if (dir >= 0) {
        close(dir);
    }
    return rc;
}

int tqi_net_listen(const char *endpoint, int *fd, char *bound, size_t bound_size, tq_error *err)
{
    tqi_net_endpoint parsed;
    int rc = tqi_net_endpoint_parse(endpoint, strlen(endpoint), &parsed, err);

    return rc ? rc : tqi_net_endpoint_listen(&parsed, fd, NULL, bound, bound_size, err);
}

bool tqi_net_endpoint_alive(const char *endpoint)
{
    tqi_net_endpoint parsed;
    struct sockaddr_un addr;
    socklen_t size;

    if (tqi_net_endpoint_parse(endpoint, strlen(endpoint), &parsed, NULL) != TQ_OK || !parsed.unix_socket) {
        return false;
    }
    tqi_net_endpoint_sockaddr_un(&parsed, &addr, &size);
    return endpoint_probe(&addr, size) == 1;
}
