/*
 * crowd.c - connections in the handshake: how many there may be, and which are closed to make room (see serving.h). A
 * stranger can open connections and send nothing. If a server then stopped accepting, no client could connect; so the
 * server keeps accepting, and closes the connections that have been silent longest. It does not close those of this
 * user's own processes: each would be reopened, and the handshakes of thousands of honest clients on busy cores do
 * take seconds.
 */
#include "net/serving.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/limits.h"

/* Number of servers in this process, which share its descriptors. Only used to compute a size: relaxed. */
static _Atomic int crowd_servers;

void tqi_net_greeting_server(int change)
{
    atomic_fetch_add_explicit(&crowd_servers, change, memory_order_relaxed);
}

static uint64_t crowd_max(const tqi_net_server *server)
{
    int servers = atomic_load_explicit(&crowd_servers, memory_order_relaxed);
    uint64_t all = tqi_limits.greeting ? tqi_limits.greeting : server->descriptors / TQI_NET_GREETING_SHARE;
    uint64_t most = all / (uint64_t)(servers > 0 ? servers : 1);

    return most > TQI_NET_GREETING_MIN ? most : TQI_NET_GREETING_MIN;
}

/* The address; a v4 address as v6 has it. */
static bool crowd_key(const struct sockaddr *addr, uint8_t key[16])
{
    memset(key, 0, 16);
    if (addr != NULL && addr->sa_family == AF_INET) {
        key[10] = key[11] = 0xFF;
        memcpy(key + 12, &((const struct sockaddr_in *)addr)->sin_addr, 4);
    } else if (addr != NULL && addr->sa_family == AF_INET6) {
        memcpy(key, &((const struct sockaddr_in6 *)addr)->sin6_addr, 16);
    } else {
        return false;
    }
    return true;
}

static tqi_net_origin *crowd_find(tqi_net_server *server, const struct sockaddr *addr)
{
    uint8_t key[16];
    tqi_net_origin *origin = NULL;

    if (crowd_key(addr, key)) {
        HASH_FIND(hh, server->origins, key, sizeof key, origin);
    }
    return origin;
}

int tqi_net_greeting_add(tqi_net_peer *peer, const struct sockaddr *addr)
{
    tqi_net_server *server = peer->server;
    uint8_t key[16];

    if (crowd_key(addr, key)) {
        tqi_net_origin *origin = crowd_find(server, addr);
        if (origin == NULL) {
            origin = calloc(1, sizeof(*origin));
            if (origin == NULL) {
                return TQ_ENOMEM;
            }
            memcpy(origin->key, key, sizeof(key));
            if (!TQI_HASH_ADD(server->origins, key, origin)) {
                free(origin);
                return TQ_ENOMEM;
            }
        }
        origin->n++;
        peer->origin = origin;
        DL_APPEND2(origin->peers, peer, origin_prev, origin_next);
    }
    if (peer->same_user) {
        DL_APPEND2(server->greeting_own, peer, greet_prev, greet_next);
    } else {
        server->n_greeting++;
        DL_APPEND2(server->greeting, peer, greet_prev, greet_next);
    }
    return TQ_OK;
}

void tqi_net_greeting_remove(tqi_net_peer *peer)
{
    tqi_net_server *server = peer->server;
    tqi_net_origin *origin = peer->origin;

    if (peer->greeted) {
        return;
    }
    peer->greeted = true;
    if (peer->same_user) {
        DL_DELETE2(server->greeting_own, peer, greet_prev, greet_next);
    } else {
        server->n_greeting--;
        DL_DELETE2(server->greeting, peer, greet_prev, greet_next);
    }
    if (origin != NULL) {
        peer->origin = NULL;
        DL_DELETE2(origin->peers, peer, origin_prev, origin_next);
        if (--origin->n == 0) {
            HASH_DEL(server->origins, origin);
            free(origin);
        }
    }
}

static void crowd_close(tqi_net_peer *peer)
{
    tqi_net_greeting_remove(peer);
    tqi_limit_reached(TQI_LIMIT_greeting);
    tqi_net_server_warn(peer->server, peer->conn->peer,
                        "closed: it did not authenticate, and others came (limits.greeting)");
    tqi_net_peer_close(peer);
}

/* Whether, with n connections in the handshake and `oldest` the oldest of them, that one must be closed. */
static bool crowd_is(const tqi_net_peer *oldest, unsigned n, uint64_t most)
{
    uint64_t since = oldest->deadline - oldest->server->handshake_ns;

    return n > 2 * most || (n > most && tqi_now() - since > TQI_NET_GREETING_YOUNG_NS);
}

void tqi_net_greeting_limit(tqi_net_server *server, const struct sockaddr *addr)
{
    uint64_t most = crowd_max(server);
    tqi_net_origin *origin = crowd_find(server, addr);

    while (origin != NULL && crowd_is(origin->peers, origin->n, most / 2)) {
        crowd_close(origin->peers); /* some are left, so the origin is, too */
    }
    while (server->greeting != NULL && crowd_is(server->greeting, server->n_greeting, most)) {
        crowd_close(server->greeting);
    }
}

bool tqi_net_greeting_give_way(tqi_net_server *server)
{
    if (server->n_greeting <= TQI_NET_GREETING_MIN) {
        return false;
    }
    crowd_close(server->greeting);
    return true;
}
