/*
 * names.c - who a process is, and the names and addresses of hosts.
 *
 * A host is called host-N; its network interface has the address 10.0.0.(N + 1). There is no IPv6.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net.h"

int __real_gethostname(char *name, size_t size);
int __wrap_gethostname(char *name, size_t size);
pid_t __real_getpid(void);
pid_t __wrap_getpid(void);
uid_t __real_geteuid(void);
uid_t __wrap_geteuid(void);
uid_t __real_getuid(void);
uid_t __wrap_getuid(void);
int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out);
void __real_freeaddrinfo(struct addrinfo *list);
void __wrap_freeaddrinfo(struct addrinfo *list);
int __real_getifaddrs(struct ifaddrs **out);
int __wrap_getifaddrs(struct ifaddrs **out);
void __real_freeifaddrs(struct ifaddrs *list);
void __wrap_freeifaddrs(struct ifaddrs *list);

int __wrap_gethostname(char *name, size_t size)
{
    if (sim_self == NULL) {
        return __real_gethostname(name, size);
    }
    if ((size_t)snprintf(name, size, "host-%u", sim_self->host) >= size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return 0;
}

pid_t __wrap_getpid(void)
{
    return sim_self != NULL ? (pid_t)sim_self->pid : __real_getpid();
}

uid_t __wrap_geteuid(void)
{
    return sim_self != NULL ? SIM_USER : __real_geteuid();
}

uid_t __wrap_getuid(void)
{
    return sim_self != NULL ? SIM_USER : __real_getuid();
}

/* --- names ---------------------------------------------------------------------- */

/* The result of a look-up, in one piece. */
typedef struct names_found {
    struct addrinfo info;
    struct sockaddr_storage address;
} names_found;

/* 0, or EAI_*. */
static int names_port(const char *port, uint16_t *number)
{
    char *end;

    *number = 0;
    if (port == NULL) {
        return 0;
    }
    unsigned long value = strtoul(port, &end, 10);
    if (end == port || *end != 0 || value > 65535) {
        return EAI_SERVICE;
    }
    *number = htons((uint16_t)value);
    return 0;
}

/* The number of host-N; false: it is another name. */
static bool names_number(const char *host, uint32_t *number)
{
    char *end;

    if (strncmp(host, "host-", 5) != 0 || host[5] < '0' || host[5] > '9') {
        return false;
    }
    unsigned long value = strtoul(host + 5, &end, 10);
    *number = (uint32_t)value;
    return *end == 0 && value < SIM_PROCESSES;
}

static int names_host(const char *host, int flags, struct sockaddr_storage *address)
{
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)address;
    uint32_t number;

    address->ss_family = AF_INET;
    if (host == NULL) {
        in->sin_addr.s_addr = htonl((flags & AI_PASSIVE) != 0 ? INADDR_ANY : INADDR_LOOPBACK);
    } else if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        return 0;
    } else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        address->ss_family = AF_INET6;
    } else if ((flags & AI_NUMERICHOST) != 0) {
        return EAI_NONAME;
    } else if (strcmp(host, "localhost") == 0) {
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (names_number(host, &number)) {
        in->sin_addr.s_addr = net_host_address(number);
    } else {
        return EAI_NONAME;
    }
    return 0;
}

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    struct sockaddr_storage address = {0};
    uint16_t number;

    if (sim_self == NULL) {
        return __real_getaddrinfo(host, port, hints, out);
    }
    sim_point();
    int rc = names_port(port, &number);
    rc = rc != 0 ? rc : names_host(host, hints->ai_flags, &address);
    if (rc == 0 && hints->ai_family != AF_UNSPEC && hints->ai_family != address.ss_family) {
        rc = EAI_ADDRFAMILY;
    }
    if (rc != 0) {
        return rc;
    }
    names_found *found = calloc(1, sizeof(*found));
    if (found == NULL) {
        return EAI_MEMORY;
    }
    bool v6 = address.ss_family == AF_INET6;
    ((struct sockaddr_in *)(void *)&address)->sin_port = number; /* at the same place in both */
    found->address = address;
    found->info = (struct addrinfo){
        .ai_family = address.ss_family,
        .ai_socktype = hints->ai_socktype,
        .ai_protocol = hints->ai_socktype == SOCK_DGRAM ? IPPROTO_UDP : IPPROTO_TCP,
        .ai_addrlen = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
        .ai_addr = (struct sockaddr *)&found->address,
    };
    *out = &found->info;
    return 0;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
    if (sim_self == NULL) {
        __real_freeaddrinfo(list);
    } else {
        free(list);
    }
}

/* --- network interfaces ----------------------------------------------------------- */

typedef struct names_interfaces {
    struct ifaddrs entries[4]; /* each has a link-level entry as well */
    struct sockaddr_in addresses[2];
    struct sockaddr_ll links[2];
} names_interfaces;

int __wrap_getifaddrs(struct ifaddrs **out)
{
    static char loopback[] = "lo", network[] = "eth0";

    if (sim_self == NULL) {
        return __real_getifaddrs(out);
    }
    sim_point();
    names_interfaces *all = calloc(1, sizeof(*all));
    if (all == NULL) {
        errno = ENOMEM;
        return -1;
    }
    for (unsigned i = 0; i < 4; i++) {
        struct ifaddrs *entry = &all->entries[i];
        unsigned which = i % 2;
        entry->ifa_next = i < 3 ? entry + 1 : NULL;
        entry->ifa_name = which == 0 ? loopback : network;
        entry->ifa_flags = IFF_UP | IFF_RUNNING | (which == 0 ? IFF_LOOPBACK : 0);
        if (i < 2) {
            all->links[which] = (struct sockaddr_ll){.sll_family = AF_PACKET, .sll_ifindex = (int)which + 1};
            entry->ifa_addr = (struct sockaddr *)(void *)&all->links[which];
        } else {
            all->addresses[which].sin_family = AF_INET;
            all->addresses[which].sin_addr.s_addr =
                which == 0 ? htonl(INADDR_LOOPBACK) : net_host_address(sim_self->host);
            entry->ifa_addr = (struct sockaddr *)(void *)&all->addresses[which];
        }
    }
    *out = all->entries;
    return 0;
}

void __wrap_freeifaddrs(struct ifaddrs *list)
{
    if (sim_self == NULL) {
        __real_freeifaddrs(list);
    } else {
        free(list);
    }
}
