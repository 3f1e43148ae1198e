/*
 * connect.c - how a connection is made: addresses, who listens there, and the first packets of TCP.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "disk.h"
#include "net.h"

#define CONNECT_FIRST_RETRY (1 * SIM_S)
#define CONNECT_TRIES       6             /* tcp_syn_retries */
#define CONNECT_GIVES_UP    (127 * SIM_S) /* after the last of them */
#define CONNECT_NETWORK     UINT32_C(0x0A000000)
#define CONNECT_PORT_FIRST  32768
#define CONNECT_PORTS       28000

net_socket *net_bound, *net_dials;

static uint32_t connect_ports_used;

/* --- addresses ------------------------------------------------------------------ */

uint32_t net_host_address(uint32_t host)
{
    return htonl(CONNECT_NETWORK + host + 1);
}

uint32_t net_host_of(uint32_t from, uint32_t address)
{
    uint32_t number = ntohl(address);

    if (number == INADDR_ANY || number >> 24 == 127) {
        return from;
    }
    return number > CONNECT_NETWORK && number <= CONNECT_NETWORK + SIM_PROCESSES ? number - CONNECT_NETWORK - 1
                                                                                 : UINT32_MAX;
}

static const struct sockaddr_in *connect_in(const struct sockaddr_storage *address)
{
    return (const struct sockaddr_in *)(const void *)address;
}

void net_bound_add(net_socket *socket)
{
    socket->bound = true;
    socket->bound_prev = NULL;
    socket->bound_next = net_bound;
    if (net_bound != NULL) {
        net_bound->bound_prev = socket;
    }
    net_bound = socket;
}

void net_bound_remove(net_socket *socket)
{
    if (!socket->bound) {
        return;
    }
    if (socket->bound_prev != NULL) {
        socket->bound_prev->bound_next = socket->bound_next;
    } else {
        net_bound = socket->bound_next;
    }
    if (socket->bound_next != NULL) {
        socket->bound_next->bound_prev = socket->bound_prev;
    }
    socket->bound = false;
}

/* Whether a socket bound to `own` gets what is sent to `to`. */
static bool connect_covers(const struct sockaddr_in *own, const struct sockaddr_in *to)
{
    uint32_t address = to->sin_addr.s_addr == htonl(INADDR_ANY) ? htonl(INADDR_LOOPBACK) : to->sin_addr.s_addr;

    return own->sin_port == to->sin_port &&
           (own->sin_addr.s_addr == htonl(INADDR_ANY) || own->sin_addr.s_addr == address);
}

net_socket *net_find_listener(uint32_t from, const struct sockaddr_in *address, uint32_t *host)
{
    *host = net_host_of(from, address->sin_addr.s_addr);
    for (net_socket *at = net_bound; at != NULL; at = at->bound_next) {
        if (at->domain == AF_INET && at->state == NET_LISTENS && at->host == *host &&
            connect_covers(connect_in(&at->local), address)) {
            return at;
        }
    }
    return NULL;
}

uint16_t net_free_port(uint32_t host)
{
    for (;;) {
        uint16_t port = htons((uint16_t)(CONNECT_PORT_FIRST + connect_ports_used++ % CONNECT_PORTS));
        const net_socket *at = net_bound;
        while (at != NULL && (at->domain != AF_INET || at->host != host || connect_in(&at->local)->sin_port != port)) {
            at = at->bound_next;
        }
        if (at == NULL) {
            return port;
        }
    }
}

/* --- those who wait to be accepted ------------------------------------------------ */

/* Makes the other end, in the listener's queue. */
static net_socket *connect_join(net_socket *socket, net_socket *listener)
{
    net_socket *end = net_socket_make(socket->domain, SOCK_STREAM, listener->host, listener->pid);

    end->send_buffer = listener->send_buffer;
    end->receive_buffer = listener->receive_buffer;
    end->local = socket->domain == AF_UNIX ? listener->local : socket->peer;
    end->local_size = socket->domain == AF_UNIX ? listener->local_size : socket->peer_size;
    end->peer = socket->local;
    end->peer_size = socket->local_size;
    end->peer_pid = socket->pid;
    socket->peer_pid = listener->listener_pid;
    net_link_make(socket, end);
    end->next_waiting = NULL;
    if (listener->last != NULL) {
        listener->last->next_waiting = end;
    } else {
        listener->first = end;
    }
    listener->last = end;
    listener->waiting++;
    sim_file_changed(&listener->file);
    return end;
}

/* --- unix ------------------------------------------------------------------------- */

static net_socket *connect_find_unix(const net_socket *socket, const struct sockaddr_un *address, socklen_t size)
{
    size_t named = size - offsetof(struct sockaddr_un, sun_path);
    uint64_t number = 0;

    if (named == 0) {
        errno = EINVAL;
        return NULL;
    }
    if (address->sun_path[0] != 0) {
        char path[sizeof(address->sun_path) + 1] = "";
        memcpy(path, address->sun_path, named);
        number = (uint64_t)(uintptr_t)sim_disk_socket_find(path);
        if (number == 0) {
            return NULL;
        }
    }
    for (net_socket *at = net_bound; at != NULL; at = at->bound_next) {
        if (at->domain != AF_UNIX || at->host != socket->host) {
            continue;
        }
        if (number != 0 ? at->number == number : at->local_size == size && memcmp(&at->local, address, size) == 0) {
            return at;
        }
    }
    errno = ECONNREFUSED; /* a leftover */
    return NULL;
}

static int connect_unix(net_socket *socket, const struct sockaddr *to, socklen_t size)
{
    struct sockaddr_un address = {0};

    memcpy(&address, to, size < sizeof(address) ? size : sizeof(address));
    net_socket *listener = connect_find_unix(socket, &address, size < sizeof(address) ? size : sizeof(address));
    if (listener == NULL) {
        return -1;
    }
    if (listener->state != NET_LISTENS) {
        errno = ECONNREFUSED;
        return -1;
    }
    if (listener->waiting > listener->backlog) {
        sim_mark("a unix socket's backlog is full");
        errno = EAGAIN;
        return -1;
    }
    if (socket->state != NET_NEW) {
        errno = socket->state == NET_LISTENS ? EINVAL : EISCONN;
        return -1;
    }
    if (sim_happens(SIM_CONNECT_REFUSE)) {
        sim_mark("a connect is refused");
        errno = sim_one_in(&sim_fault_chance, 2) ? EAGAIN : ECONNREFUSED;
        return -1;
    }
    socket->peer = listener->local;
    socket->peer_size = listener->local_size;
    connect_join(socket, listener);
    return 0;
}

/* --- TCP -------------------------------------------------------------------------- */

static void connect_on_packet(void *arg);
static void connect_on_answer(void *arg);

static void connect_unlist(net_socket *socket)
{
    if (socket->dial_event != 0) {
        sim_at_drop(socket->dial_event);
        socket->dial_event = 0;
    }
    if (socket->dial_prev != NULL) {
        socket->dial_prev->dial_next = socket->dial_next;
    } else if (net_dials == socket) {
        net_dials = socket->dial_next;
    }
    if (socket->dial_next != NULL) {
        socket->dial_next->dial_prev = socket->dial_prev;
    }
    socket->dial_prev = socket->dial_next = NULL;
}

void net_connect_drop(net_socket *socket)
{
    if (socket->state == NET_CONNECTS) {
        connect_unlist(socket);
    }
}

static void connect_failed(net_socket *socket, int err)
{
    connect_unlist(socket);
    sim_trace("net: connect failed", socket->number, (uint64_t)err);
    socket->state = NET_CLOSED;
    socket->err = err;
    socket->shut_read = socket->shut_write = true;
    sim_file_changed(&socket->file);
}

static uint64_t connect_deadline(const net_socket *socket)
{
    return socket->dial_started +
           (socket->unanswered_ms > 0 ? (uint64_t)socket->unanswered_ms * SIM_MS : CONNECT_GIVES_UP);
}

static void connect_on_deadline(void *arg)
{
    net_socket *socket = arg;

    socket->dial_event = 0;
    sim_mark("a connect timed out");
    connect_failed(socket, ETIMEDOUT);
}

/* No answer: it is sent again, after twice as long. */
static void connect_again(net_socket *socket)
{
    uint64_t wait = CONNECT_FIRST_RETRY << socket->dial_tries;
    uint64_t at = sim_time() + wait;

    socket->dial_tries++;
    if (socket->dial_hangs || socket->dial_tries > CONNECT_TRIES || at >= connect_deadline(socket)) {
        uint64_t deadline = connect_deadline(socket);
        socket->dial_event = sim_at(deadline > sim_time() ? deadline : sim_time(), connect_on_deadline, socket);
    } else {
        socket->dial_event = sim_at(at, connect_on_packet, socket);
    }
}

static bool connect_open(const net_socket *socket, uint32_t host, const net_socket *listener, bool there)
{
    uint64_t pid = listener != NULL ? listener->pid : 0;

    return there ? !net_partitioned(socket->host, socket->pid, host, pid)
                 : !net_partitioned(host, pid, socket->host, socket->pid);
}

/* The first packet reaches the other host. */
static void connect_on_packet(void *arg)
{
    net_socket *socket = arg;
    uint32_t host;
    net_socket *listener = net_find_listener(socket->host, connect_in(&socket->peer), &host);

    socket->dial_event = 0;
    if (socket->dial_hangs || host == UINT32_MAX || !connect_open(socket, host, listener, true) ||
        !connect_open(socket, host, listener, false)) {
        connect_again(socket);
        return;
    }
    if (listener != NULL && listener->waiting > listener->backlog) {
        sim_mark("a TCP backlog is full");
        connect_again(socket);
        return;
    }
    socket->dial_event = sim_at(sim_time() + net_latency(host, socket->host, false), connect_on_answer, socket);
}

/* The answer comes back: now both sides know. */
static void connect_on_answer(void *arg)
{
    net_socket *socket = arg;
    uint32_t host;
    net_socket *listener = net_find_listener(socket->host, connect_in(&socket->peer), &host);

    socket->dial_event = 0;
    if (!connect_open(socket, host, listener, true) || !connect_open(socket, host, listener, false)) {
        connect_again(socket);
        return;
    }
    if (listener == NULL) {
        sim_mark("nobody listens");
        connect_failed(socket, ECONNREFUSED);
        return;
    }
    connect_unlist(socket);
    socket->dialed = true;
    connect_join(socket, listener);
    sim_trace("net: connected", socket->link->number, socket->number);
    sim_file_changed(&socket->file);
}

static void connect_on_refusal(void *arg)
{
    net_socket *socket = arg;

    socket->dial_event = 0;
    sim_mark("a connect is refused");
    connect_failed(socket, sim_one_in(&sim_fault_chance, 8) ? EHOSTUNREACH : ECONNREFUSED);
}

static void connect_list(net_socket *socket)
{
    socket->dial_prev = NULL;
    socket->dial_next = net_dials;
    if (net_dials != NULL) {
        net_dials->dial_prev = socket;
    }
    net_dials = socket;
}

static int connect_tcp(net_socket *socket, const struct sockaddr_in *to)
{
    uint32_t host = net_host_of(socket->host, to->sin_addr.s_addr);
    uint64_t latency = net_latency(socket->host, host, false);
    struct sockaddr_in own = {.sin_family = AF_INET};

    memcpy(&socket->peer, to, sizeof(*to));
    socket->peer_size = sizeof(*to);
    if (to->sin_addr.s_addr == htonl(INADDR_ANY)) {
        ((struct sockaddr_in *)(void *)&socket->peer)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    /* Within a host, the own address is the one that is called. */
    own.sin_addr.s_addr =
        host == socket->host ? connect_in(&socket->peer)->sin_addr.s_addr : net_host_address(socket->host);
    own.sin_port = net_free_port(socket->host);
    memcpy(&socket->local, &own, sizeof(own));
    socket->local_size = sizeof(own);
    socket->state = NET_CONNECTS;
    socket->dial_started = sim_time();
    socket->dial_tries = 0;
    socket->dial_hangs = false;
    connect_list(socket);
    if (sim_happens(SIM_CONNECT_REFUSE)) {
        socket->dial_event = sim_at(sim_time() + 2 * latency, connect_on_refusal, socket);
    } else if (sim_happens(SIM_CONNECT_HANG)) {
        sim_mark("a connect gets no answer");
        socket->dial_hangs = true;
        connect_again(socket);
    } else {
        if (sim_happens(SIM_CONNECT_LATE)) {
            sim_mark("a connect is late");
            latency += net_drawn_time(&sim_fault_chance, SIM_MS, 20 * SIM_S);
        }
        socket->dial_event = sim_at(sim_time() + latency, connect_on_packet, socket);
    }
    errno = EINPROGRESS;
    return -1;
}

/* connect(2) of a socket that has connected before, or tried to. */
static int connect_repeated(net_socket *socket)
{
    if (socket->state == NET_CONNECTS) {
        errno = EALREADY;
        return -1;
    }
    if (socket->state == NET_CLOSED && socket->link == NULL) {
        /* The attempt failed; the socket is as new. */
        errno = socket->err != 0 ? socket->err : ECONNABORTED;
        socket->err = 0;
        socket->state = NET_NEW;
        socket->shut_read = socket->shut_write = false;
        return -1;
    }
    if (socket->state == NET_CONNECTED && socket->dialed) {
        socket->dialed = false; /* reported once */
        return 0;
    }
    errno = EISCONN;
    return -1;
}

int net_connect(net_socket *socket, const struct sockaddr *address, socklen_t size)
{
    if (address->sa_family != socket->domain) {
        errno = socket->domain == AF_UNIX ? EINVAL : EAFNOSUPPORT;
        return -1;
    }
    if (socket->domain == AF_UNIX) {
        return connect_unix(socket, address, size);
    }
    if (socket->state == NET_NEW) {
        return connect_tcp(socket, (const struct sockaddr_in *)(const void *)address);
    }
    return connect_repeated(socket);
}

/* Whoever got no answer asks again now. */
void net_connect_calm(void)
{
    for (net_socket *at = net_dials; at != NULL; at = at->dial_next) {
        if (at->dial_event != 0) {
            sim_at_drop(at->dial_event);
        }
        at->dial_hangs = false;
        at->dial_tries = 0;
        at->dial_event = sim_at(sim_time() + net.latency, connect_on_packet, at);
    }
}

void net_connects_end(void)
{
    sim_check(net_bound == NULL && net_dials == NULL, "the simulation: no socket is left", "%s",
              net_bound != NULL ? "one is bound" : "one connects");
    connect_ports_used = 0;
}
