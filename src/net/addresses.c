/*
 * addresses.c - the addresses by which other hosts reach this one. The wildcard address of a listening socket is of no
 * use to another host, and the loopback address means every host itself. So the published address is one of the
 * interface that the user chose, or the one that the kernel would send from: connecting a datagram socket reveals it,
 * and sends nothing.
 */
#include "net/internal.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

/* Remote addresses, from the blocks reserved for documentation, which only a default route covers. */
static const char *const reach_everywhere[] = {"203.0.113.1", "2001:db8::1"};

static bool reach_numeric(const char *host, struct sockaddr_storage *addr, socklen_t *size)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *list = NULL;

    if (getaddrinfo(host, "9", &hints, &list) != 0) {
        return false;
    }
    memcpy(addr, list->ai_addr, list->ai_addrlen);
    *size = list->ai_addrlen;
    freeaddrinfo(list);
    return true;
}

static bool reach_text(const struct sockaddr *addr, char *out)
{
    socklen_t size = addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);

    return getnameinfo(addr, size, out, TQI_NET_HOST_MAX, NULL, 0, NI_NUMERICHOST) == 0;
}

bool tqi_net_host_is_any(const char *host)
{
    struct sockaddr_storage addr;
    socklen_t size;

    if (!reach_numeric(host, &addr, &size)) {
        return false;
    }
    return addr.ss_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)&addr)->sin6_addr)
                                      : ((const struct sockaddr_in *)&addr)->sin_addr.s_addr == htonl(INADDR_ANY);
}

bool tqi_net_host_is_loopback(const char *host)
{
    struct sockaddr_storage addr;
    socklen_t size;

    if (!reach_numeric(host, &addr, &size)) {
        return strcmp(host, "localhost") == 0;
    }
    if (addr.ss_family == AF_INET) {
        return ntohl(((const struct sockaddr_in *)&addr)->sin_addr.s_addr) >> 24 == 127;
    }
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&addr)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

/* The address from which packets to that destination would be sent. */
static int reach_source(const struct sockaddr *to, socklen_t size, char *out)
{
    struct sockaddr_storage from = {0};
    socklen_t from_size = sizeof(from);
    int fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int errnum = 0;

    if (fd < 0) {
        return errno;
    }
    if (connect(fd, to, size) != 0 || getsockname(fd, (struct sockaddr *)&from, &from_size) != 0) {
        errnum = errno;
    } else if (!reach_text((const struct sockaddr *)&from, out)) {
        errnum = EADDRNOTAVAIL;
    }
    close(fd);
    return errnum;
}

/* Whether an address belongs to this host: only those can be bound. */
static bool reach_is_ours(const struct sockaddr *addr, socklen_t size)
{
    struct sockaddr_storage copy = {0};
    int fd = socket(addr->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return false;
    }
    memcpy(&copy, addr, size);
    if (addr->sa_family == AF_INET6) {
        ((struct sockaddr_in6 *)&copy)->sin6_port = 0;
    } else {
        ((struct sockaddr_in *)&copy)->sin_port = 0;
    }
    bool ours = bind(fd, (const struct sockaddr *)&copy, size) == 0;
    close(fd);
    return ours;
}

/* How suitable an interface's address is for publishing: 0 means not at all. */
static int reach_rank(const struct ifaddrs *at)
{
    if (at->ifa_addr == NULL || !(at->ifa_flags & IFF_UP)) {
        return 0;
    }
    if (at->ifa_addr->sa_family == AF_INET) {
        return 3;
    }
    if (at->ifa_addr->sa_family != AF_INET6) {
        return 0;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)at->ifa_addr;
    return IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr) ? 1 : 2;
}

/* The best addresses of an interface, or of any interface except the loopback; false if there is none. */
static bool reach_pick(const struct ifaddrs *list, const char *interface, tqi_net_addresses *out)
{
    int best = 0;

    memset(out, 0, sizeof(*out));
    for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        int rank = reach_rank(at);
        if (interface != NULL ? strcmp(at->ifa_name, interface) != 0 : (at->ifa_flags & IFF_LOOPBACK) != 0) {
            continue;
        }
        if (rank > best && reach_text(at->ifa_addr, out->host)) {
            best = rank;
            if (rank == 3) {
                memcpy(out->v4, out->host, sizeof(out->v4));
            }
        }
    }
    return best > 0;
}

int tqi_net_address_of_interface(const char *interface, tqi_net_addresses *out, tq_error *err)
{
    struct ifaddrs *list = NULL;
    char names[256] = "";
    int rc = TQ_OK;

    if (getifaddrs(&list) != 0) {
        return tqi_error_errno(err, errno, "the list of network interfaces");
    }
    if (!reach_pick(list, interface, out)) {
        size_t used = 0;
        for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
            /* Every interface also has a link-level entry, whose address does not count here. */
            if (at->ifa_addr != NULL && at->ifa_addr->sa_family == AF_PACKET && used < sizeof(names)) {
                used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", at->ifa_name);
            }
        }
        rc = tqi_error_set(err, TQ_EINVAL, "no address of a network interface '%s'%s%s", interface,
                           names[0] ? "; there are: " : "", names);
    }
    freeifaddrs(list);
    return rc;
}

/* Fills v4 if host already is an IPv4 address, or another one is known. */
static void reach_complete(tqi_net_addresses *reach)
{
    tqi_net_addresses other;

    if (strchr(reach->host, ':') == NULL) {
        memcpy(reach->v4, reach->host, sizeof(reach->v4));
    } else if (!tqi_net_host_is_loopback(reach->host)) {
        tqi_net_address_default(&other);
        memcpy(reach->v4, other.v4, sizeof(reach->v4));
    }
}

static int reach_towards_one(const tqi_net_endpoint *endpoint, tqi_net_addresses *out, bool *elsewhere, tq_error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *list = NULL;
    char text[TQI_NET_ENDPOINT_MAX];
    int errnum = EADDRNOTAVAIL;

    tqi_net_endpoint_format(endpoint, text, sizeof(text));
    int rc = getaddrinfo(endpoint->host, endpoint->port, &hints, &list);
    if (rc != 0) {
        return tqi_error_set(err, TQ_EIO, "%s: look-up of the name: %s; check the host's spelling, or give its address",
                             text, gai_strerror(rc));
    }
    for (const struct addrinfo *at = list; at != NULL && errnum != 0; at = at->ai_next) {
        errnum = reach_source(at->ai_addr, at->ai_addrlen, out->host);
        if (errnum == 0) {
            *elsewhere = !reach_is_ours(at->ai_addr, at->ai_addrlen);
        }
    }
    freeaddrinfo(list);
    if (errnum != 0) {
        char reason[128];
        return tqi_error_set(err, TQ_EIO, "%s: no way there: %s", text, strerror_r(errnum, reason, sizeof(reason)));
    }
    reach_complete(out);
    return TQ_OK;
}

int tqi_net_address_towards(const char *endpoints, tqi_net_addresses *out, bool *elsewhere, tq_error *err)
{
    tqi_net_endpoint *list = NULL;
    size_t n = 0;
    int rc = tqi_net_endpoint_parse_list(endpoints, &list, &n, err);

    *elsewhere = false;
    memset(out, 0, sizeof(*out));
    snprintf(out->host, sizeof(out->host), "127.0.0.1");
    memcpy(out->v4, out->host, sizeof(out->v4));
    for (size_t i = 0; rc == TQ_OK && i < n; i++) {
        if (!list[i].unix_socket) {
            rc = reach_towards_one(&list[i], out, elsewhere, err);
            break;
        }
    }
    free(list);
    return rc;
}

void tqi_net_address_default(tqi_net_addresses *out)
{
    struct sockaddr_storage addr;
    struct ifaddrs *list = NULL;
    socklen_t size;

    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < sizeof(reach_everywhere) / sizeof(*reach_everywhere); i++) {
        char host[TQI_NET_HOST_MAX];
        if (!reach_numeric(reach_everywhere[i], &addr, &size) ||
            reach_source((const struct sockaddr *)&addr, size, host) != 0 || tqi_net_host_is_loopback(host)) {
            continue;
        }
        if (addr.ss_family == AF_INET) {
            memcpy(out->v4, host, sizeof(host));
        }
        if (!out->host[0]) {
            memcpy(out->host, host, sizeof(host));
        }
    }
    if (!out->host[0] && getifaddrs(&list) == 0) {
        reach_pick(list, NULL, out);
        freeifaddrs(list);
    }
    if (!out->host[0]) {
        snprintf(out->host, sizeof(out->host), "127.0.0.1"); /* a host without a network */
        memcpy(out->v4, out->host, sizeof(out->v4));
    }
}

/* --- endpoints as text ---------------------------------------------------- */

bool tqi_net_endpoint_host(const char *endpoint, char *out, size_t size)
{
    tqi_net_endpoint parsed;

    if (tqi_net_endpoint_parse(endpoint, strlen(endpoint), &parsed, NULL) != TQ_OK || parsed.unix_socket ||
        strlen(parsed.host) >= size) {
        return false;
    }
    memcpy(out, parsed.host, strlen(parsed.host) + 1);
    return true;
}

int tqi_net_endpoint_advertise(const char *bound, const char *host, const tqi_net_addresses *reach, char *out,
                               size_t size, tq_error *err)
{
    tqi_net_endpoint endpoint;
    char text[TQI_NET_ENDPOINT_MAX];
    int rc = tqi_net_endpoint_parse(bound, strlen(bound), &endpoint, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (!endpoint.unix_socket && host == NULL && tqi_net_host_is_any(endpoint.host)) {
        bool v4_only = strchr(endpoint.host, ':') == NULL;
        host = v4_only && reach->v4[0] ? reach->v4 : v4_only ? "127.0.0.1" : reach->host;
    }
    if (!endpoint.unix_socket && host != NULL) {
        size_t length = strlen(host);
        bool bracket = length > 2 && host[0] == '[' && host[length - 1] == ']';
        if (length >= sizeof(endpoint.host)) {
            return tqi_error_set(err, TQ_ENAME, "host '%.40s...' is too long", host);
        }
        snprintf(endpoint.host, sizeof(endpoint.host), "%.*s", (int)(bracket ? length - 2 : length),
                 bracket ? host + 1 : host);
    }
    tqi_net_endpoint_format(&endpoint, text, sizeof(text));
    if (strlen(text) >= size) {
        return tqi_error_set(err, TQ_ENAME, "no room for the text of endpoint %s", text);
    }
    memcpy(out, text, strlen(text) + 1);
    return TQ_OK;
}
