/*
 * endpoints.h - where a daemon listens and which addresses it publishes, from configuration and environment.
 *
 *   net.interface       TQ_INTERFACE        listen at its address, and give that away
 *   net.bind            TQ_BIND             listen at this address
 *   net.advertise_host  TQ_ADVERTISE_HOST   give this away, whatever is bound
 *   net.port_range      TQ_PORT_RANGE       ports for every endpoint of port 0
 *
 * Endpoints that controller.listen and storage.listen name are used as they are. Without them the controller listens
 * at net.bind or the interface's address, if one is set. Units listen there too, else where their controller does,
 * else at the address by which this host reaches the controller that they join, even if that is on this host: a client
 * that can reach the controller can then reach its units. A daemon with a runtime directory always has its unix
 * sockets. An endpoint bound to all addresses is published with the interface's address, or the one that this host
 * would use to reach the controller, never with the loopback's.
 */
#ifndef TQI_DAEMON_ENDPOINTS_H
#define TQI_DAEMON_ENDPOINTS_H

#include "daemon/config.h"
#include "net/net.h"

#define TQD_LISTEN_MAX   8
#define TQD_ENDPOINT_MAX 512

typedef struct tqd_net {
    const tqd_config *config;
    const char *join;            /* of a storage daemon, else NULL */
    const char *advertise;       /* net.advertise_host; NULL: none */
    char bind[TQI_NET_HOST_MAX]; /* from net.bind or net.interface; "": none */
    char range[32];              /* "first-last"; "": none */
    /* Our address on the route to the controller to join; "": the loopback's, or there is none to join. */
    char towards[TQI_NET_HOST_MAX];
    bool elsewhere; /* the controller to join is on another host */
    tqi_net_addresses reach;
} tqd_net;

/* The endpoints of one listener. */
typedef struct tqd_listen {
    char text[TQD_LISTEN_MAX][TQD_ENDPOINT_MAX];
    const char *list[TQD_LISTEN_MAX]; /* text, as pointers */
    size_t n;
} tqd_listen;

/* Reads configuration and environment; `join`: the controller of a storage daemon, else NULL. Strings belong to the
 * config. */
int tqd_net_init(tqd_net *net, const tqd_config *config, const char *join, tq_error *err);
/* Endpoints of the controller, the one in the runtime directory (may be NULL) first. */
int tqd_net_controller(const tqd_net *net, const char *runtime_dir, tqd_listen *out, tq_error *err);
/* Endpoints of unit i of n. TQ_ECONFIG if others could not reach them although the controller is elsewhere. */
int tqd_net_unit(const tqd_net *net, const char *runtime_dir, size_t i, size_t n, tqd_listen *out, tq_error *err);
/* Whether units listen only on the loopback because the controller was joined through the loopback's address. */
bool tqd_net_joins_loopback(const tqd_net *net);
/* The endpoint of the metrics. */
int tqd_net_metrics(const tqd_net *net, char *out, size_t size, tq_error *err);
/* Bound endpoints, separated by commas, as others reach them; malloc'ed, NULL if out of memory. */
char *tqd_net_advertised(const tqd_net *net, const char *bound);

#endif
