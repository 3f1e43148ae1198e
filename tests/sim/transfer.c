/*
 * transfer.c - bytes into a connection and out of it, and when a socket is ready.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "net.h"

/* What the kernel books for a buffer of a unix socket beside its bytes. */
#define TRANSFER_OVERHEAD 768
#define TRANSFER_LEAST    (2 * 1448) /* a window that is smaller counts as closed */

/* --- readiness ---------------------------------------------------------------- */

bool net_way_readable(const net_way *way)
{
    const net_socket *socket = way->link->side[!way->from];

    if (way->link->unix_socket || way->unread == 0) {
        return way->unread > 0;
    }
    return way->unread >= (uint64_t)socket->least || way->full ||
           way->unread + TRANSFER_LEAST > (uint64_t)socket->receive_buffer;
}

bool net_way_writable(const net_way *way)
{
    const net_socket *socket = way->link->side[way->from];
    uint64_t size = (uint64_t)socket->send_buffer;

    if (way->link->unix_socket) {
        return way->charged * 4 <= size;
    }
    return way->in_flight < size && size - way->in_flight >= way->in_flight / 2;
}

/* See unix_poll and tcp_poll of Linux. */
short net_stream_ready(net_socket *socket)
{
    bool tcp = socket->domain != AF_UNIX;
    short ready = 0;

    if (socket->err != 0) {
        ready |= POLLERR;
    }
    if ((socket->shut_read && socket->shut_write) || socket->state == NET_CLOSED || socket->state == NET_NEW) {
        ready |= POLLHUP;
    }
    if (socket->shut_read) {
        ready |= POLLIN | POLLRDHUP;
    }
    if (socket->link == NULL) {
        bool connects = socket->state == NET_CONNECTS;
        return connects ? ready : ready | POLLOUT;
    }
    net_way *out = &socket->link->way[socket->side];
    if (net_way_readable(&socket->link->way[!socket->side])) {
        ready |= POLLIN;
    }
    if ((tcp && socket->shut_write) || net_way_writable(out)) {
        ready |= POLLOUT;
    } else {
        out->no_space = true;
    }
    return ready;
}

void net_stream_retune(net_socket *socket)
{
    if (socket->domain != AF_UNIX && socket->receive_buffer < 2 * socket->least) {
        socket->receive_buffer = 2 * socket->least;
    }
    if (socket->link != NULL) {
        net_way *in = &socket->link->way[!socket->side];
        net_way_window(in);
        if (net_way_readable(in)) {
            sim_file_changed(&socket->file);
        }
    }
}

/* --- sending ------------------------------------------------------------------- */

/* Goes through the bytes of an iovec. */
typedef struct transfer_cursor {
    const struct iovec *vec;
    size_t n, offset;
} transfer_cursor;

static void transfer_copy(transfer_cursor *cursor, uint8_t *place, size_t size, bool in)
{
    while (size > 0) {
        uint8_t *base = (uint8_t *)cursor->vec->iov_base + cursor->offset;
        size_t n = cursor->vec->iov_len - cursor->offset;
        n = n < size ? n : size;
        if (n > 0) {
            memcpy(in ? place : base, in ? base : place, n);
        }
        place += n;
        size -= n;
        cursor->offset += n;
        if (cursor->offset == cursor->vec->iov_len) {
            cursor->vec++;
            cursor->n--;
            cursor->offset = 0;
        }
    }
}

static size_t transfer_total(const struct iovec *vec, size_t n)
{
    size_t total = 0;

    for (size_t i = 0; i < n; i++) {
        total += vec[i].iov_len;
    }
    return total;
}

/* How many of `size` bytes the socket takes now. */
static size_t transfer_room(const net_way *way, const net_socket *socket, size_t size)
{
    uint64_t buffer = (uint64_t)socket->send_buffer;
    uint64_t used = way->link->unix_socket ? way->charged : way->in_flight;
    uint64_t piece = way->link->piece;

    if (used >= buffer) {
        return 0;
    }
    if (!way->link->unix_socket) {
        return size < buffer - used ? size : (size_t)(buffer - used);
    }
    /* A unix socket takes one more buffer as long as it is not full. */
    uint64_t pieces = (buffer - used + piece + TRANSFER_OVERHEAD - 1) / (piece + TRANSFER_OVERHEAD);
    return size < pieces * piece ? size : (size_t)(pieces * piece);
}

/* How long the bytes take on the wire. */
static uint64_t transfer_time(const net_link *link, size_t size)
{
    return link->host[0] != link->host[1] ? size * net.picoseconds / 1000 : 0;
}

/* Puts the bytes behind those of the last chunk if that one arrives no earlier than they would. */
static bool transfer_merge(net_way *way, transfer_cursor *cursor, size_t size, uint64_t at)
{
    net_chunk *last = way->flight_last;

    if (last == NULL || last->kind != NET_BYTES || last->n_files > 0 || last->room - last->size < size ||
        last->at < at || way->full || last->size + size > way->link->piece) {
        return false;
    }
    transfer_copy(cursor, last->bytes + last->size, size, true);
    last->size += (uint32_t)size;
    way->in_flight += size;
    way->charged += size;
    return true;
}

static void transfer_put(net_way *way, transfer_cursor *cursor, size_t size, uint64_t late, sim_file **files,
                         uint32_t n_files)
{
    net_link *link = way->link;
    uint64_t at = sim_time() + net_latency(link->host[0], link->host[1], link->unix_socket) + late;

    while (size > 0) {
        size_t piece = size < link->piece ? size : link->piece;
        uint64_t begins = at > way->last_at || n_files > 0 ? at : way->last_at;
        if (n_files == 0 && transfer_merge(way, cursor, piece, at)) {
            size -= piece;
            continue;
        }
        net_chunk *chunk = net_chunk_make(NET_BYTES, piece);
        transfer_copy(cursor, chunk->bytes, piece, true);
        chunk->size = (uint32_t)piece;
        chunk->files = files;
        chunk->n_files = n_files;
        files = NULL;
        n_files = 0;
        way->charged += piece + TRANSFER_OVERHEAD;
        net_way_put(way, chunk, begins + transfer_time(link, piece));
        size -= piece;
    }
}

/* Why nothing can be sent: -errno; 0: it can. */
static int transfer_refusal(net_socket *socket)
{
    if (socket->state == NET_CONNECTS) {
        return -EAGAIN;
    }
    if (socket->domain == AF_UNIX && socket->link == NULL) {
        return -ENOTCONN;
    }
    if (socket->link != NULL && !socket->shut_write) {
        return 0;
    }
    int err = socket->domain != AF_UNIX ? socket->err : 0;
    if (err != 0) {
        socket->err = 0; /* TCP tells it once, to whoever asks first */
    }
    return err != 0 ? -err : -EPIPE;
}

ssize_t net_send(net_socket *socket, const struct iovec *vec, size_t n, sim_file **files, uint32_t n_files)
{
    size_t size = transfer_total(vec, n);
    int refused = transfer_refusal(socket);
    transfer_cursor cursor = {.vec = vec, .n = n};

    if (refused != 0 || size == 0) {
        return refused;
    }
    net_way *way = &socket->link->way[socket->side];
    size_t room = transfer_room(way, socket, size);
    if (room == 0) {
        way->no_space = true;
        return -EAGAIN;
    }
    if (room > 1 && sim_happens(SIM_SHORT_SEND)) {
        room = sim_between(&sim_fault_chance, 1, room - 1);
        sim_mark("a send took a part");
    }
    if (room < size) {
        way->no_space = true;
    }
    sim_trace("net: send", socket->link->number * 2 + socket->side, room);
    if (socket->link->cut) {
        for (uint32_t i = 0; i < n_files; i++) {
            sim_file_unref(files[i]);
        }
        sim_free(files);
        net_link_swallow(socket);
        return (ssize_t)room;
    }
    uint64_t late = net_faults_of_send(way);
    transfer_put(way, &cursor, room, late, files, n_files);
    net_faults_after_send(way);
    return (ssize_t)room;
}

/* --- receiving ------------------------------------------------------------------ */

/* Without a byte to read: -errno, or 0 for the end. */
static int transfer_end(net_socket *socket)
{
    bool tcp = socket->domain != AF_UNIX;
    int err = socket->err;

    if (socket->state == NET_CONNECTS) {
        return -EAGAIN;
    }
    if (tcp && socket->ended) {
        return 0; /* whatever came after it */
    }
    if (err != 0) {
        socket->err = 0;
        return -err;
    }
    if (socket->shut_read) {
        return 0;
    }
    if (socket->link == NULL) {
        return tcp ? -ENOTCONN : -EINVAL;
    }
    return -EAGAIN;
}

/* Removes the bytes that were read from the first chunk. */
static void transfer_consume(net_way *way, uint32_t size)
{
    net_chunk *chunk = way->queue;

    chunk->taken += size;
    way->unread -= size;
    if (chunk->taken < chunk->size) {
        return;
    }
    if (way->link->unix_socket) {
        /* Merged bytes were booked as well. The sender is free of it only as a whole. */
        way->charged -= chunk->size + TRANSFER_OVERHEAD;
    }
    way->queue = chunk->next;
    way->queue_last = way->queue != NULL ? way->queue_last : NULL;
    net_chunk_free(chunk);
}

ssize_t net_receive(net_socket *socket, const struct iovec *vec, size_t n, sim_file ***files, uint32_t *n_files)
{
    size_t left = transfer_total(vec, n), got = 0;
    transfer_cursor cursor = {.vec = vec, .n = n};
    net_way *way = socket->link != NULL ? &socket->link->way[!socket->side] : NULL;
    bool done = false;

    if (way == NULL || way->queue == NULL) {
        return transfer_end(socket);
    }
    while (way->queue != NULL && left > 0 && !done) {
        net_chunk *chunk = way->queue;
        size_t piece = chunk->size - chunk->taken;
        piece = piece < left ? piece : left;
        /* Descriptors come with the first byte of what they were sent with, and nothing after that is read with it. */
        done = chunk->n_files > 0;
        if (done) {
            *files = chunk->files;
            *n_files = chunk->n_files;
            chunk->files = NULL;
            chunk->n_files = 0;
        }
        transfer_copy(&cursor, chunk->bytes + chunk->taken, piece, false);
        left -= piece;
        got += piece;
        transfer_consume(way, (uint32_t)piece);
    }
    if (way->link->unix_socket) {
        net_way_space(way);
    } else {
        net_way_window(way);
    }
    return (ssize_t)got;
}
