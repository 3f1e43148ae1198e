/*
 * dial.c - from an endpoint to a connecting socket.
 *
 * Numeric addresses are used at once, names are looked up by libuv's threads. The addresses of a name are tried one
 * after the other.
 */
#include "net/calling.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

#define DIAL_REMEDY "check the host's spelling, or give its address"

/* A look-up in progress: it outlives its channel if that is closed meanwhile. */
struct tqi_net_resolve {
    uv_getaddrinfo_t req;
    tqi_net_channel *channel; /* NULL: not wanted any more */
    tqi_net_connector *connector;
};

static void dial_failed(tqi_net_channel *channel, const char *what, int errnum)
{
    tq_error err;

    tqi_net_channel_refused(channel, errnum);
    tqi_error_errno(&err, errnum, what);
    tqi_net_channel_failed(channel, &err);
}

static void dial_connect(tqi_net_channel *channel, const struct sockaddr *addr, socklen_t size)
{
    bool unix_socket = addr->sa_family == AF_UNIX;
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        dial_failed(channel, "socket", errno);
        return;
    }
    memcpy(&channel->dialed, addr, size);
    tqi_net_socket_tune(fd, unix_socket);
    int rc = connect(fd, addr, size);
    if (rc != 0 && errno != EINPROGRESS) {
        int errnum = errno;
        close(fd);
        dial_failed(channel, "connect", errnum);
        return;
    }
    tq_error err;
    tqi_net_connector *connector = channel->connector;
    atomic_int *slot = tqi_net_connector_note_fd(connector, fd);
    if (slot == NULL) {
        close(fd);
        tqi_error_nomem(&err, "a connection");
        tqi_net_channel_failed(channel, &err);
        return;
    }
    if (tqi_net_conn_open(connector->loop, &connector->flusher, fd, unix_socket, rc != 0, connector->conn_ops, channel,
                          &channel->conn, &err) != TQ_OK) {
        atomic_store(slot, -1);
        close(fd);
        tqi_net_channel_failed(channel, &err);
        return;
    }
    channel->conn->fd_slot = slot;
    channel->conn->want_fds = unix_socket;
    channel->conns++;
    channel->state = rc != 0 ? TQI_NET_CHANNEL_CONNECT : TQI_NET_CHANNEL_GREET;
    channel->challenged = false;
}

bool tqi_net_dial_next_address(tqi_net_channel *channel)
{
    if (channel->address == NULL) {
        return false;
    }
    const struct addrinfo *address = channel->address;
    channel->address = address->ai_next;
    dial_connect(channel, address->ai_addr, address->ai_addrlen);
    return true;
}

/* A look-up that the channel gave up also finishes here. */
static void dial_on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    tqi_net_resolve *resolve = req->data;
    tqi_net_channel *channel = resolve->channel;
    tqi_net_connector *connector = resolve->connector;

    free(resolve);
    if (channel == NULL) {
        uv_freeaddrinfo(list);
    } else {
        channel->resolve = NULL;
        if (status != 0) {
            tq_error err;
            /* Other errors, such as a name server that does not answer, may be temporary. */
            if (status == UV_EAI_NONAME || status == UV_EAI_NODATA || status == UV_EAI_ADDRFAMILY) {
                channel->failure = TQI_NET_FAILURE_UNKNOWN;
            }
            tqi_error_set(&err, TQ_EIO, "look-up of the name: %s; " DIAL_REMEDY, uv_strerror(status));
            tqi_net_channel_failed(channel, &err);
        } else {
            channel->addresses = list;
            channel->address = list;
            tqi_net_dial_next_address(channel);
        }
    }
    tqi_net_connector_part_closed(connector);
}

static void dial_resolve(tqi_net_channel *channel, const tqi_net_endpoint *endpoint)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
    };
    struct addrinfo *list = NULL;

    if (getaddrinfo(endpoint->host, endpoint->port, &hints, &list) == 0) {
        channel->addresses = list;
        channel->address = list;
        tqi_net_dial_next_address(channel);
        return;
    }
    hints.ai_flags = AI_NUMERICSERV;
    tqi_net_resolve *resolve = calloc(1, sizeof(*resolve));
    int rc = resolve != NULL ? uv_getaddrinfo(channel->connector->loop, &resolve->req, dial_on_resolved, endpoint->host,
                                              endpoint->port, &hints)
                             : UV_ENOMEM;
    if (rc != 0) {
        free(resolve);
        tq_error err;
        tqi_error_set(&err, rc == UV_ENOMEM ? TQ_ENOMEM : TQ_EIO, "look-up of the name: %s; " DIAL_REMEDY,
                      uv_strerror(rc));
        tqi_net_channel_failed(channel, &err);
        return;
    }
    resolve->req.data = resolve;
    resolve->channel = channel;
    resolve->connector = channel->connector;
    resolve->connector->open++;
    channel->resolve = resolve;
    channel->state = TQI_NET_CHANNEL_RESOLVE;
}

void tqi_net_dial_start(tqi_net_channel *channel)
{
    const tqi_net_endpoint *endpoint = &channel->endpoints[channel->at];

    tqi_net_dial_stop(channel);
    if (endpoint->unix_socket) {
        struct sockaddr_un addr;
        socklen_t size;
        tqi_net_endpoint_sockaddr_un(endpoint, &addr, &size);
        dial_connect(channel, (const struct sockaddr *)&addr, size);
    } else {
        dial_resolve(channel, endpoint);
    }
}

void tqi_net_dial_stop(tqi_net_channel *channel)
{
    if (channel->resolve != NULL) {
        channel->resolve->channel = NULL;
        uv_cancel((uv_req_t *)&channel->resolve->req);
        channel->resolve = NULL;
    }
    if (channel->addresses != NULL) {
        /* libuv's list and that of the numeric look-up both come from the C library. */
        freeaddrinfo(channel->addresses);
        channel->addresses = NULL;
        channel->address = NULL;
    }
}
