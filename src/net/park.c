/*
 * park.c - making room for more connections: idle clients are asked to close theirs, and keep their sessions.
 */
#include "net/serving.h"

#include <utlist.h>

#include "base/clock.h"

static bool park_is_idle(const tqi_net_peer *peer)
{
    const tqi_net_session *session = peer->session;

    return session != NULL && !peer->parked && !peer->conn->closed && !peer->conn->finishing &&
           peer->conn->queue == NULL && peer->incoming == NULL && session->running == 0;
}

void tqi_net_peer_set_parked(tqi_net_peer *peer, bool parked)
{
    tqi_net_server *server = peer->server;

    if (parked && !peer->parked) {
        server->leaving++;
    } else if (!parked && peer->parked && server->leaving > 0) {
        server->leaving--;
    }
    peer->parked = parked;
}

/* A client that has a call in flight, or more to send, stays. Those that were asked may take a while to leave:
 * thousands of them share a few cores. */
unsigned tqi_net_peer_make_room(tqi_net_server *server, unsigned n, unsigned enough)
{
    unsigned asked = 0, looked = 0;
    tqi_net_peer *peer, *next;

    if (server->service->parkable == NULL) {
        return 0;
    }
    uint64_t now = tqi_now();
    if (now - server->leaving_since > TQI_NET_PARK_NS) {
        server->leaving_since = now;
        server->leaving = 0;
    }
    /* Those that were silent longest are rarely busy: only a few more are examined, not all. */
    for (peer = server->peers; peer != NULL && asked < n && server->leaving < enough && looked < 4 * n + 32;
         peer = next, looked++) {
        next = peer->next;
        if (park_is_idle(peer) && server->service->parkable(peer->session, server->ctx)) {
            tqi_net_peer_set_parked(peer, true);
            tqi_net_conn_send_message(peer->conn, &(tqi_frame){.kind = TQI_PARK}, NULL);
            DL_DELETE(server->peers, peer);
            DL_APPEND(server->peers, peer);
            asked++;
        }
    }
    return server->leaving;
}

void tqi_net_peer_not_idle(tqi_net_peer *peer)
{
    tqi_net_server *server = peer->server;

    if (server->service->parkable != NULL) {
        tqi_net_peer_set_parked(peer, false);
        DL_DELETE(server->peers, peer);
        DL_APPEND(server->peers, peer);
    }
}
