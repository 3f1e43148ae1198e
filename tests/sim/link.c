/*
 * link.c - the life of a connection: joined, shut down, left by its ends, and freed.
 */
#include <errno.h>

#include "net.h"

net_link *net_links;
uint32_t net_link_count;

static uint64_t links_made;

net_link *net_link_make(net_socket *from, net_socket *to)
{
    net_link *link = sim_alloc(sizeof(*link));
    net_socket *sides[2] = {from, to};
    static const uint32_t pieces[] = {4 << 10, 16 << 10, 32 << 10, 64 << 10};

    link->number = ++links_made;
    link->unix_socket = from->domain == AF_UNIX;
    link->piece = sim_one_in(&net_chance, 16) ? 1448 : pieces[sim_below(&net_chance, 4)];
    if (link->unix_socket) {
        link->piece = 32 << 10;
    }
    for (uint32_t i = 0; i < 2; i++) {
        link->side[i] = sides[i];
        link->host[i] = sides[i]->host;
        link->pid[i] = sides[i]->pid;
        link->way[i].link = link;
        link->way[i].from = i;
        link->way[i].heard = sim_time();
        sides[i]->link = link;
        sides[i]->side = i;
        sides[i]->state = NET_CONNECTED;
        sides[i]->err = 0;
    }
    for (uint32_t i = 0; i < 2; i++) {
        link->way[i].severed =
            !link->unix_socket && net_partitioned(link->host[i], link->pid[i], link->host[!i], link->pid[!i]);
    }
    if (net_link_silent(link)) {
        net_link_blocked(link);
    }
    link->next = net_links;
    if (net_links != NULL) {
        net_links->prev = link;
    }
    net_links = link;
    net_link_count++;
    return link;
}

static void link_free(net_link *link)
{
    for (int i = 0; i < 2; i++) {
        net_way *way = &link->way[i];
        net_way_drop(way);
        net_chunks_free(&way->queue, &way->queue_last);
        if (way->stall_event != 0) {
            sim_at_drop(way->stall_event);
        }
        if (way->timeout_event != 0) {
            sim_at_drop(way->timeout_event);
        }
    }
    if (link->cut_event != 0) {
        sim_at_drop(link->cut_event);
    }
    if (link->prev != NULL) {
        link->prev->next = link->next;
    } else {
        net_links = link->next;
    }
    if (link->next != NULL) {
        link->next->prev = link->prev;
    }
    net_link_count--;
    sim_free(link);
}

/* TCP tells the other end that somebody did not read all of what it sent. */
static void link_leave_tcp(net_way *out, bool unread)
{
    if (unread) {
        sim_mark("a connection was closed with bytes unread");
        if (out->in_flight > 0 && sim_one_in(&net_chance, 2)) {
            net_way_truncate(out, sim_below(&net_chance, out->in_flight + 1)); /* the rest was not sent yet */
        }
        net_way_control(out, NET_RESET, net_link_latency(out->link), false);
    } else if (!out->shut) {
        net_way_control(out, NET_FIN, net_link_latency(out->link), false);
    }
}

static void link_leave(net_socket *socket, bool reset)
{
    net_link *link = socket->link;
    net_way *out = &link->way[socket->side];
    net_way *in = &link->way[!socket->side];
    bool unread = in->unread > 0 || reset;
    bool open = socket->state == NET_CONNECTED && !net_socket_over(socket);

    link->side[socket->side] = NULL;
    socket->link = NULL;
    net_way_arm_timeout(out);
    net_chunks_free(&in->queue, &in->queue_last);
    in->unread = 0;
    if (link->side[in->from] == NULL) {
        link_free(link);
        return;
    }
    if (link->unix_socket) {
        unread |= in->in_flight > 0;
        in->charged = 0;
        net_way_drop(in);
        if (!link->cut) {
            net_way_control(out, NET_GONE, net_link_latency(link), unread);
        }
        net_way_space(in);
        return;
    }
    if (in->full) {
        in->full = false; /* what waited for room comes to nobody */
        net_way_schedule(in);
    }
    if (open && !link->cut) {
        link_leave_tcp(out, unread);
    }
}

void net_link_leave(net_socket *socket)
{
    link_leave(socket, false);
}

void net_link_refuse(net_socket *socket)
{
    link_leave(socket, true);
}

static void link_shutdown_write(net_socket *socket)
{
    net_way *way = &socket->link->way[socket->side];

    socket->shut_write = true;
    if (!way->shut && !socket->link->cut) {
        net_way_control(way, NET_FIN, net_link_latency(socket->link), false);
    }
}

int net_shutdown(net_socket *socket, bool reading, bool writing)
{
    net_socket *other = socket->link->side[!socket->side];

    if (net_socket_over(socket)) {
        return -ENOTCONN;
    }
    if (reading) {
        socket->shut_read = true;
        if (socket->link->unix_socket && other != NULL) {
            other->shut_write = true; /* TCP does not tell */
            sim_file_changed(&other->file);
        }
    }
    if (writing) {
        link_shutdown_write(socket);
    }
    sim_file_changed(&socket->file);
    return 0;
}

/* Something between the ends has cut the connection, and what is sent now comes to nobody. */
void net_link_swallow(net_socket *socket)
{
    if (socket->link->unix_socket) {
        socket->link->swallowed = true;
    } else {
        net_way_answer_reset(&socket->link->way[!socket->side]);
    }
}

void net_links_end(void)
{
    sim_check(net_links == NULL, "the simulation: no connection is left", "%u are", net_link_count);
    links_made = 0;
}
