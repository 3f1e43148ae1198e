/*
 * stream.c - the two ways of a connection: chunks that travel, arrive and are read, and what ends them.
 */
#include <errno.h>
#include <string.h>

#include "net.h"

#define STREAM_RETRIES_NS (924 * SIM_S) /* tcp_retries2, without TCP_USER_TIMEOUT */

static void stream_arrive(net_way *way);

/* --- chunks ------------------------------------------------------------------- */

static const uint32_t stream_rooms[] = {512, 8 << 10, 64 << 10};

#define STREAM_ROOMS (sizeof(stream_rooms) / sizeof(*stream_rooms))

static net_chunk *stream_free[STREAM_ROOMS];

net_chunk *net_chunk_make(net_kind kind, size_t size)
{
    size_t i = 0;

    while (i < STREAM_ROOMS - 1 && stream_rooms[i] < size) {
        i++;
    }
    net_chunk *chunk = stream_free[i];
    if (chunk != NULL) {
        stream_free[i] = chunk->next;
    } else {
        chunk = sim_alloc(sizeof(*chunk) + stream_rooms[i]);
    }
    memset(chunk, 0, sizeof(*chunk));
    chunk->kind = kind;
    chunk->room = stream_rooms[i];
    return chunk;
}

void net_chunk_free(net_chunk *chunk)
{
    size_t i = 0;

    for (uint32_t k = 0; k < chunk->n_files; k++) {
        sim_file_unref(chunk->files[k]);
    }
    sim_free(chunk->files);
    while (i < STREAM_ROOMS - 1 && stream_rooms[i] != chunk->room) {
        i++;
    }
    chunk->next = stream_free[i];
    stream_free[i] = chunk;
}

void net_chunks_free(net_chunk **first, net_chunk **last)
{
    net_chunk *list = *first, *next;

    *first = *last = NULL;
    for (; list != NULL; list = next) {
        next = list->next;
        net_chunk_free(list);
    }
}

void net_way_drop(net_way *way)
{
    net_chunks_free(&way->flight, &way->flight_last);
    way->in_flight = 0;
    way->full = false;
    if (way->event != 0) {
        sim_at_drop(way->event);
        way->event = 0;
    }
}

static void stream_append(net_chunk **first, net_chunk **last, net_chunk *chunk)
{
    chunk->next = NULL;
    if (*last != NULL) {
        (*last)->next = chunk;
    } else {
        *first = chunk;
    }
    *last = chunk;
}

/* --- time --------------------------------------------------------------------- */

uint64_t net_latency(uint32_t from, uint32_t to, bool unix_socket)
{
    uint64_t base = unix_socket ? net.latency_unix : net.latency_near;

    if (from != to) {
        base = net.latency + net.latency * ((from ^ to) % 4) / 4;
    }
    return base > 0 ? base + sim_below(&net_chance, base / 4 + 1) : 0;
}

uint64_t net_link_latency(const net_link *link)
{
    return net_latency(link->host[0], link->host[1], link->unix_socket);
}

uint64_t net_discovery(const net_socket *socket)
{
    return socket->keepalive ? sim_below(&sim_fault_chance, (uint64_t)socket->idle_s * SIM_S) : SIM_NEVER;
}

/* --- timeouts of TCP ------------------------------------------------------------ */

/* When Linux gives up, as long as nothing is heard: what was sent is not acknowledged (TCP_USER_TIMEOUT), or an idle
 * connection does not answer (keepalive; TCP_USER_TIMEOUT takes the place of the number of probes). */
static uint64_t stream_timeout(const net_way *way)
{
    const net_socket *socket = way->link->side[way->from];

    if (socket == NULL || socket->state != NET_CONNECTED) {
        return SIM_NEVER;
    }
    uint64_t unanswered = (uint64_t)socket->unanswered_ms * SIM_MS;
    if (way->unacked_since != 0) {
        return way->unacked_since + (unanswered > 0 ? unanswered : STREAM_RETRIES_NS);
    }
    if (way->silent_since == 0 || !socket->keepalive) {
        return SIM_NEVER;
    }
    const net_way *back = &way->link->way[!way->from];
    uint64_t since = way->heard > way->silent_since ? way->heard : way->silent_since;
    if (back->unacked_since != 0 && !net_way_blocked(back)) {
        since = sim_time(); /* the other end sends the same again and again */
    }
    uint64_t idle = (uint64_t)socket->idle_s * SIM_S;
    uint64_t interval = (uint64_t)socket->interval_s * SIM_S;
    uint64_t probes = (uint64_t)socket->probes;
    if (unanswered > 0) {
        probes = unanswered > idle ? (unanswered - idle + interval - 1) / interval : 0;
        probes += probes == 0;
    }
    return since + idle + probes * interval;
}

static void stream_on_timeout(void *arg);

void net_way_arm_timeout(net_way *way)
{
    if (way->timeout_event != 0) {
        sim_at_drop(way->timeout_event);
        way->timeout_event = 0;
    }
    uint64_t due = stream_timeout(way);
    if (due != SIM_NEVER) {
        way->timeout_event = sim_at(due > sim_time() ? due : sim_time(), stream_on_timeout, way);
    }
}

bool net_link_silent(const net_link *link)
{
    return net_way_blocked(&link->way[0]) || net_way_blocked(&link->way[1]);
}

/* TCP: both ends have said that they send nothing more, and both know. */
bool net_socket_over(const net_socket *socket)
{
    return !socket->link->unix_socket && socket->ended && socket->shut_write &&
           socket->link->way[socket->side].flight == NULL;
}

/* What is on its way is lost, but not the end that a cut of the connection has sent, nor a reset that its receiver
 * will find out by itself (net_discovery). */
static void stream_lose_flight(net_way *way)
{
    const net_chunk *last = way->flight_last;
    net_kind kind = last != NULL ? last->kind : NET_BYTES;
    bool kept = kind != NET_BYTES && (way->link->cut || kind == NET_RESET);
    bool flag = kept && (last->probed || last->broken);
    uint64_t at = kept ? last->at : 0;

    net_way_drop(way);
    if (kept) {
        net_way_control(way, kind, at > sim_time() ? at - sim_time() : 0, flag);
    }
}

/* The socket's connection is lost: what it sent and the other end has not got is lost. */
static void stream_break(net_socket *socket, int err)
{
    net_way *way = &socket->link->way[socket->side];
    net_way *in = &socket->link->way[!socket->side];

    sim_trace("net: broken", socket->link->number * 2 + socket->side, (uint64_t)err);
    socket->err = err;
    socket->shut_read = socket->shut_write = true;
    socket->state = NET_CLOSED;
    if (way->unacked_since != 0 && !net_way_blocked(way)) {
        in->heard = sim_time(); /* what it sent again so far */
    }
    way->unacked_since = 0;
    stream_lose_flight(way);
    way->shut = true;
    net_way_arm_timeout(way);
    if (in->full) {
        in->full = false; /* what waited for room comes to nobody */
        net_way_schedule(in);
    }
    sim_file_changed(&socket->file);
}

static void stream_on_timeout(void *arg)
{
    net_way *way = arg;
    net_link *link = way->link;
    net_socket *socket = link->side[way->from];

    way->timeout_event = 0;
    if (stream_timeout(way) > sim_time()) {
        net_way_arm_timeout(way);
        return;
    }
    bool idle = way->unacked_since == 0;
    sim_mark(idle ? "a connection timed out by keepalive" : "a connection timed out with bytes unacknowledged");
    stream_break(socket, ETIMEDOUT);
    /* Keepalive sends a reset, which may not get through. Else the other end finds out when it sends or asks. */
    net_socket *other = link->side[!way->from];
    bool open = other != NULL && other->state == NET_CONNECTED && !way->was_reset;
    if (open && idle && !net_way_blocked(way)) {
        net_way_control(way, NET_RESET, net_link_latency(link), false);
    } else if (open) {
        sim_mark("a connection is half-open");
        uint64_t delay = net_discovery(other);
        if (delay != SIM_NEVER) {
            net_way_control(way, NET_RESET, delay, true);
        }
    }
}

/* When the sender last heard of the other end, at the latest by keepalive. */
static uint64_t stream_last_heard(const net_way *way)
{
    const net_socket *socket = way->link->side[way->from];
    uint64_t quiet = sim_time() - way->heard;

    return sim_time() - (socket != NULL && socket->keepalive ? quiet % ((uint64_t)socket->idle_s * SIM_S) : 0);
}

void net_link_blocked(net_link *link)
{
    for (int i = 0; i < 2 && !link->unix_socket; i++) {
        net_way *way = &link->way[i];
        if (way->silent_since == 0) {
            way->silent_since = stream_last_heard(way);
        }
        if (way->in_flight > 0 && way->unacked_since == 0) {
            way->unacked_since = sim_time();
        }
        net_way_arm_timeout(way);
    }
}

bool net_way_blocked(const net_way *way)
{
    return way->severed || way->stalled;
}

void net_way_open(net_way *way, bool at_once)
{
    net_link *link = way->link;

    if (net_way_blocked(way)) {
        return;
    }
    for (int i = 0; i < 2 && !link->unix_socket && !net_link_silent(link); i++) {
        link->way[i].silent_since = 0;
        link->way[i].heard = sim_time();
        link->way[i].unacked_since = link->way[i].full ? sim_time() : 0;
        net_way_arm_timeout(&link->way[i]);
    }
    for (int i = 0; i < 2; i++) {
        net_chunk *chunk = link->way[i].flight;
        if (chunk != NULL && link->way[i].event == 0) {
            /* It is sent again when the timer of the sender fires, which has backed off. */
            uint64_t again = at_once || link->unix_socket ? 0 : net_drawn_time(&net_chance, SIM_MS, 3 * SIM_S);
            uint64_t at = sim_time() + net_link_latency(link) + again;
            chunk->at = chunk->at > at ? chunk->at : at;
            net_way_schedule(&link->way[i]);
        }
    }
}

/* --- arrival ------------------------------------------------------------------ */

static bool stream_held(const net_way *way)
{
    const net_chunk *chunk = way->flight;

    return chunk == NULL || way->full || net_way_blocked(way) ||
           (chunk->probed && net_way_blocked(&way->link->way[!way->from]));
}

static void stream_on_arrival(void *arg)
{
    net_way *way = arg;

    way->event = 0;
    stream_arrive(way);
}

void net_way_schedule(net_way *way)
{
    const net_chunk *chunk = way->flight;

    if (chunk == NULL || way->event != 0 || stream_held(way)) {
        return;
    }
    if (chunk->at <= sim_time()) {
        stream_arrive(way);
    } else {
        way->event = sim_at(chunk->at, stream_on_arrival, way);
    }
}

/* Puts it behind what is on its way already. */
static void stream_put(net_way *way, net_chunk *chunk, uint64_t at)
{
    chunk->at = at > way->last_at ? at : way->last_at;
    way->last_at = chunk->at;
    stream_append(&way->flight, &way->flight_last, chunk);
    net_way_schedule(way);
}

void net_way_put(net_way *way, net_chunk *chunk, uint64_t at)
{
    way->in_flight += chunk->size;
    if (!way->link->unix_socket && !net_link_silent(way->link)) {
        way->heard = sim_time(); /* nearly: it is acknowledged */
    } else if (!way->link->unix_socket && way->unacked_since == 0) {
        way->unacked_since = sim_time();
        net_way_arm_timeout(way);
    }
    stream_put(way, chunk, at);
}

void net_way_control(net_way *way, net_kind kind, uint64_t delay, bool flag)
{
    net_chunk *chunk = net_chunk_make(kind, 0);

    chunk->probed = kind == NET_RESET && flag;
    chunk->broken = kind == NET_GONE && flag;
    way->shut = true;
    way->was_reset |= kind == NET_RESET;
    stream_put(way, chunk, sim_time() + delay);
}

/* The end at the beginning of this way is no more, and something came to it: TCP answers with a reset. */
void net_way_answer_reset(net_way *way)
{
    net_socket *socket = way->link->side[!way->from];
    uint64_t at = sim_time() + net_link_latency(way->link);

    if (socket == NULL || socket->state != NET_CONNECTED) {
        return;
    }
    if (!way->was_reset) {
        if (way->full || net_way_blocked(way)) {
            net_way_drop(way); /* it was not sent yet */
        }
        net_way_control(way, NET_RESET, at - sim_time(), false);
    } else if (way->flight_last != NULL && way->flight_last->at > at) {
        way->flight_last->at = at;
        if (way->event != 0) {
            sim_at_drop(way->event);
            way->event = 0;
        }
        net_way_schedule(way);
    }
}

/* Whether the receiver has room for the chunk; else its window is closed until it reads. */
static bool stream_admit(net_way *way, const net_socket *socket, const net_chunk *chunk)
{
    if (way->link->unix_socket || way->unread == 0 || way->unread + chunk->size <= (uint64_t)socket->receive_buffer) {
        return true;
    }
    sim_mark("a window was closed");
    way->full = true;
    if (way->unacked_since == 0) {
        way->unacked_since = sim_time();
        net_way_arm_timeout(way);
    }
    return false;
}

void net_way_space(net_way *way)
{
    net_socket *sender = way->link->side[way->from];

    if (way->no_space && sender != NULL && net_way_writable(way)) {
        way->no_space = false;
        sim_file_changed(&sender->file);
    }
}

static void stream_take_bytes(net_way *way, net_socket *socket, net_chunk *chunk)
{
    way->in_flight -= chunk->size;
    if (socket != NULL && !way->link->unix_socket && socket->state == NET_CONNECTED && socket->shut_read &&
        socket->shut_write) {
        stream_break(socket, ECONNRESET); /* after shutdown(SHUT_RDWR) nothing is expected */
    }
    if (socket == NULL || socket->state != NET_CONNECTED) {
        if (way->link->unix_socket) {
            way->link->swallowed = true;
        } else {
            net_way_answer_reset(&way->link->way[!way->from]);
        }
        net_chunk_free(chunk);
        net_way_space(way);
        return;
    }
    way->unread += chunk->size;
    stream_append(&way->queue, &way->queue_last, chunk);
    if (net_way_readable(way)) {
        sim_file_changed(&socket->file);
    }
    net_way_space(way);
}

static void stream_take_end(net_way *way, net_socket *socket, const net_chunk *chunk)
{
    net_way *back = &way->link->way[!way->from];

    if (socket == NULL || socket->state != NET_CONNECTED || net_socket_over(socket)) {
        return;
    }
    if (chunk->kind == NET_RESET) {
        sim_mark("a reset arrives");
        stream_break(socket, socket->ended ? EPIPE : ECONNRESET);
        return;
    }
    socket->ended = true;
    socket->shut_read = true;
    if (chunk->kind == NET_GONE) {
        if (chunk->broken || back->in_flight > 0 || way->link->swallowed) {
            socket->err = ECONNRESET;
        }
        socket->shut_write = true;
        back->charged = 0;
        stream_lose_flight(back);
    }
    sim_file_changed(&socket->file);
}

/* Everything whose time has come. */
static void stream_arrive(net_way *way)
{
    net_link *link = way->link;

    while (!stream_held(way) && way->flight->at <= sim_time()) {
        net_chunk *chunk = way->flight;
        net_socket *socket = link->side[!way->from];
        bool alive = socket != NULL && socket->state == NET_CONNECTED;
        if (chunk->kind == NET_BYTES && alive && !stream_admit(way, socket, chunk)) {
            return;
        }
        way->flight = chunk->next;
        way->flight_last = way->flight != NULL ? way->flight_last : NULL;
        link->way[!way->from].heard = sim_time();
        sim_trace("net: arrives", link->number * 2 + way->from, (uint64_t)chunk->kind << 32 | chunk->size);
        if (chunk->kind == NET_BYTES) {
            stream_take_bytes(way, socket, chunk);
        } else {
            stream_take_end(way, socket, chunk);
            net_chunk_free(chunk);
        }
    }
    net_way_schedule(way);
}

void net_way_window(net_way *way)
{
    const net_socket *socket = way->link->side[!way->from];

    if (!way->full || (way->unread > 0 && way->unread + way->flight->size > (uint64_t)socket->receive_buffer)) {
        return;
    }
    way->full = false;
    if (!net_link_silent(way->link)) {
        way->unacked_since = 0;
        net_way_arm_timeout(way);
    }
    /* The new window travels to the sender, and the bytes to us. */
    way->flight->at = sim_time() + 2 * net_link_latency(way->link);
    net_way_schedule(way);
}

void net_way_truncate(net_way *way, uint64_t keep)
{
    net_chunk *kept = NULL, *kept_last = NULL;
    uint64_t left = keep;

    while (way->flight != NULL && left > 0 && way->flight->kind == NET_BYTES) {
        net_chunk *chunk = way->flight;
        way->flight = chunk->next;
        chunk->size = chunk->size < left ? chunk->size : (uint32_t)left;
        left -= chunk->size;
        stream_append(&kept, &kept_last, chunk);
    }
    bool full = way->full;
    net_way_drop(way);
    way->flight = kept;
    way->flight_last = kept_last;
    way->in_flight = keep - left;
    way->full = full && kept != NULL;
    net_way_schedule(way);
}

void net_streams_end(void)
{
    for (size_t i = 0; i < STREAM_ROOMS; i++) {
        net_chunk *next;
        for (net_chunk *chunk = stream_free[i]; chunk != NULL; chunk = next) {
            next = chunk->next;
            sim_free(chunk);
        }
        stream_free[i] = NULL;
    }
}
