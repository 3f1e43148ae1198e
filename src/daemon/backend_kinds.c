/*
 * backend_kinds.c - Redis: one server, at a socket in the runtime directory, or at the controller's address with a
 * password of its own. Mooncake: a master, and a process that holds the data, so that no client's exit ends it.
 */
#include "daemon/backend_kinds.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "config_backends.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KINDS_SECRET 32 /* random bytes of a password */

/* --- plans ---------------------------------------------------------------- */

/* Adds an argument. If it does not fit, the plan becomes too long, which plan_end detects. */
static void plan_arg(tqd_plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void plan_arg(tqd_plan *plan, const char *format, ...)
{
    char *at = plan->text + plan->text_size;
    size_t left = sizeof(plan->text) - plan->text_size;
    va_list args;

    va_start(args, format);
    int size = vsnprintf(at, left, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= left || plan->n_args + 1 >= TQD_BACKEND_ARGS) {
        plan->text_size = sizeof(plan->text);
        return;
    }
    plan->argv[plan->n_args++] = at;
    plan->text_size += (size_t)size + 1;
}

static int plan_end(tqd_plan *plan, tq_error *err)
{
    plan->argv[plan->n_args] = NULL;
    return plan->text_size < sizeof(plan->text)
               ? TQ_OK
               : tqi_error_set(err, TQ_ECONFIG, "%s: its command line or its configuration is too long", plan->what);
}

/* The first address of a host. */
static int place_resolve(const char *host, int port, struct sockaddr_storage *out, tq_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char number[16];

    snprintf(number, sizeof(number), "%d", port);
    int failed = getaddrinfo(host, number, &hints, &found);
    if (failed) {
        return tqi_error_set(err, TQ_ECONFIG, "%s: %s", host, gai_strerror(failed));
    }
    memset(out, 0, sizeof(*out));
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return TQ_OK;
}

/* Binds a port for a moment, to see whether it is free: 0 picks one. Returns the port, or 0. */
static int place_try_port(struct sockaddr_storage *at, int port)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)at;
    struct sockaddr_in *v4 = (struct sockaddr_in *)at;
    bool is_v6 = at->ss_family == AF_INET6;
    socklen_t size = is_v6 ? sizeof(*v6) : sizeof(*v4);
    int on = 1, found = 0;
    int fd = socket(at->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return 0;
    }
    *(is_v6 ? &v6->sin6_port : &v4->sin_port) = htons((uint16_t)port);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 && bind(fd, (struct sockaddr *)at, size) == 0 &&
        getsockname(fd, (struct sockaddr *)at, &size) == 0) {
        found = ntohs(is_v6 ? v6->sin6_port : v4->sin_port);
    }
    close(fd);
    return found;
}

/* A port that is currently free on the host, from the range if there is one. */
static int place_port(tqd_place *place, const char *host, int *out, tq_error *err)
{
    const char *dash = strchr(place->net->range, '-'); /* it was checked when it was read */
    struct sockaddr_storage at = {0};
    int rc = place_resolve(host, 0, &at, err);

    *out = 0;
    if (rc) {
        return rc;
    }
    if (dash != NULL) {
        int port = (int)strtol(place->net->range, NULL, 10), last = (int)strtol(dash + 1, NULL, 10);
        port = place->next_port > port ? place->next_port : port;
        while (!*out && port <= last) {
            *out = place_try_port(&at, port++);
        }
        place->next_port = port;
    } else {
        *out = place_try_port(&at, 0);
    }
    return *out ? TQ_OK
                : tqi_error_set(err, TQ_EIO, "no port is free at %s%s%s", host,
                                place->net->range[0] ? " in net.port_range " : "", place->net->range);
}

/* "HOST:PORT" as others reach it, with brackets if the host contains colons. */
static int place_advertise(tqd_place *place, const char *host, int port, char *out, size_t size, tq_error *err)
{
    char bound[TQD_ENDPOINT_MAX];
    bool v6 = strchr(host, ':') != NULL;

    snprintf(bound, sizeof(bound), "tcp:%s%s%s:%d", v6 ? "[" : "", host, v6 ? "]" : "", port);
    char *advertised = tqd_net_advertised(place->net, bound);
    if (advertised == NULL) {
        return tqi_error_nomem(err, "an address");
    }
    snprintf(out, size, "%s", advertised + strlen("tcp:"));
    free(advertised);
    return TQ_OK;
}

/* --- Redis ---------------------------------------------------------------- */

static int redis_wanted(const tqd_config *config, bool *out, tq_error *err)
{
    *out = tqd_config_bool(config, "backend.Redis.auto_init");
    if (!*out) {
        return TQ_OK;
    }
    if (tqd_config_is_set(config, "backend.Redis.url")) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "backend.Redis: auto_init starts a server, url names one that runs: "
                             "give one of the two");
    }
    if (tqd_config_bool(config, "backend.Redis.cluster")) {
        return tqi_error_set(err, TQ_ECONFIG, "backend.Redis.cluster: auto_init starts a single server");
    }
#ifndef TQI_WITH_REDIS
    return tqi_error_set(err, TQ_EUNSUPPORTED, "backend.Redis: this tqd was built without Redis (-Dredis=false)");
#else
    return TQ_OK;
#endif
}

/* A path in a URL. */
static void redis_url_path(const char *path, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "unix://");

    for (; *path && used + 4 < size; path++) {
        bool plain = isalnum((unsigned char)*path) || strchr("/-._~", *path) != NULL;
        used += (size_t)snprintf(out + used, size - used, plain ? "%c" : "%%%02X", (unsigned char)*path);
    }
}

/* Adds to the input. If it does not fit, the plan becomes too long, which plan_end detects. */
static void redis_add(tqd_plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void redis_add(tqd_plan *plan, const char *format, ...)
{
    size_t used = strlen(plan->input), left = sizeof(plan->input) - used;
    va_list args;

    va_start(args, format);
    int size = vsnprintf(plan->input + used, left, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= left) {
        plan->text_size = sizeof(plan->text);
    }
}

/* A line of its configuration file: a key and a value of any bytes. */
static void redis_word(tqd_plan *plan, const char *key, const char *value)
{
    redis_add(plan, "%s \"", key);
    for (; *value; value++) {
        bool plain = isprint((unsigned char)*value) && *value != '"' && *value != '\\';
        redis_add(plan, plain ? "%c" : "\\x%02x", (unsigned char)*value);
    }
    redis_add(plan, "\"\n");
}

static int redis_at_socket(tqd_place *place, tqd_plan *plan)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/redis.sock", place->runtime_dir);
    redis_word(plan, "port", "0");
    redis_word(plan, "unixsocket", path);
    redis_word(plan, "unixsocketperm", "600");
    redis_url_path(path, place->address, sizeof(place->address));
    return TQ_OK;
}

static int redis_at_port(tqd_place *place, tqd_plan *plan, tq_error *err)
{
    uint8_t random[KINDS_SECRET];
    char secret[2 * KINDS_SECRET + 1], number[16], reached[TQI_NET_HOST_MAX + 16];
    int rc = place_port(place, place->host, &place->port, err);

    if (rc || (rc = place_advertise(place, place->host, place->port, reached, sizeof(reached), err))) {
        return rc;
    }
    tqi_random(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++) {
        snprintf(secret + 2 * i, 3, "%02x", random[i]);
    }
    snprintf(number, sizeof(number), "%d", place->port);
    redis_word(plan, "bind", place->host);
    redis_word(plan, "port", number);
    redis_word(plan, "requirepass", secret);
    snprintf(place->address, sizeof(place->address), "redis://:%s@%s", secret, reached);
    place->picked = true;
    return TQ_OK;
}

static int redis_plan(tqd_place *place, size_t i, tqd_plan *plan, tq_error *err)
{
    uint64_t memory = tqd_config_bytes(place->config, "backend.Redis.memory");
    char number[32];
    int rc;

    (void)i;
    plan->what = "the Redis server of backend.Redis.auto_init";
    plan->name = "redis-server";
    plan->install = "install the system package redis-server";
    plan->ready_line = "eady to accept connections";
    plan_arg(plan, "redis-server");
    plan_arg(plan, "-"); /* its configuration comes through its input, because it contains a password */
    redis_word(plan, "save", "");
    redis_word(plan, "appendonly", "no");
    redis_word(plan, "daemonize", "no");
    if (memory) {
        snprintf(number, sizeof(number), "%llu", (unsigned long long)memory);
        redis_word(plan, "maxmemory", number);
        redis_word(plan, "maxmemory-policy", "noeviction");
    }
    if (place->runtime_dir != NULL) {
        redis_word(plan, "dir", place->runtime_dir);
    }
    if (place->runtime_dir != NULL && place->local) {
        rc = redis_at_socket(place, plan);
    } else {
        rc = redis_at_port(place, plan, err);
    }
    return rc ? rc : plan_end(plan, err);
}

static int redis_note(const tqd_place *place, tq_error *err)
{
    return tqd_config_note(place->config, "backend.Redis.url", place->address, err);
}

/* --- Mooncake ------------------------------------------------------------- */

static int mooncake_wanted(const tqd_config *config, bool *out, tq_error *err)
{
    const char *protocol = tqd_config_string(config, "backend.MooncakeStore.protocol");

    *out = tqd_config_is_set(config, "backend.MooncakeStore.auto_init")
               ? tqd_config_bool(config, "backend.MooncakeStore.auto_init")
               : !tqd_config_is_set(config, "backend.MooncakeStore.master_server_address");
    /* Mooncake itself would try for ever. */
    return !*out || protocol == NULL || strcmp(protocol, "tcp") == 0 || strcmp(protocol, "rdma") == 0
               ? TQ_OK
               : tqi_error_set(err, TQ_ECONFIG, "backend.MooncakeStore.protocol: expected tcp or rdma, got '%s'",
                               protocol);
}

static const char *mooncake_string(const tqd_place *place, const char *path, const char *otherwise)
{
    const char *text = tqd_config_string(place->config, path);

    return text != NULL && *text ? text : otherwise;
}

/* Where the master listens: as configured, else at the controller's address with any port. */
static int mooncake_master_at(tqd_place *place, char *host, size_t size, tq_error *err)
{
    const char *given = mooncake_string(place, "backend.MooncakeStore.master_server_address", NULL);
    const char *colon = given != NULL ? strrchr(given, ':') : NULL;
    struct sockaddr_storage at = {0};
    char *end = NULL;
    int rc;

    if (given == NULL) {
        snprintf(host, size, "%s", place->host);
        place->picked = true;
        rc = place_port(place, host, &place->port, err);
        return rc ? rc : place_advertise(place, host, place->port, place->address, sizeof(place->address), err);
    }
    long port = colon != NULL ? strtol(colon + 1, &end, 10) : 0;
    if (colon == NULL || colon == given || end == NULL || *end || port < 1 || port > 65535 ||
        (size_t)(colon - given) >= size || strlen(given) >= sizeof(place->address)) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "backend.MooncakeStore.master_server_address: expected HOST:PORT, got '%.200s'", given);
    }
    bool bracket = given[0] == '[' && colon[-1] == ']';
    snprintf(host, size, "%.*s", (int)(colon - given) - 2 * bracket, given + bracket);
    snprintf(place->address, sizeof(place->address), "%s", given);
    place->port = (int)port;
    place->picked = false;
    /* Another system's master would look like ours. */
    rc = place_resolve(host, 0, &at, err);
    return rc || place_try_port(&at, (int)port)
               ? rc
               : tqi_error_set(err, TQ_ECONFIG,
                               "backend.MooncakeStore.master_server_address: %s is not free for "
                               "the master of auto_init; with auto_init: false it is used as it is",
                               given);
}

static int mooncake_plan_master(tqd_place *place, tqd_plan *plan, tq_error *err)
{
    char host[TQI_NET_HOST_MAX];
    int rc = mooncake_master_at(place, host, sizeof(host), err);

    if (rc || (rc = place_resolve(host, place->port, &plan->ready_at, err))) {
        return rc;
    }
    plan->what = "the Mooncake master of backend.MooncakeStore.auto_init";
    plan->name = "mooncake_master";
    plan_arg(plan, "mooncake_master");
    plan_arg(plan, "--rpc_address=%s", host);
    plan_arg(plan, "--rpc_port=%d", place->port);
    plan_arg(plan, "--rpc_thread_num=4");
    plan_arg(plan, "--metrics_host=127.0.0.1");
    plan_arg(plan, "--metrics_port=0");
    plan_arg(plan, "--enable_metric_reporting=false");
    /* A full store makes puts wait; it evicts nothing. */
    plan_arg(plan, "--eviction_high_watermark_ratio=1.0");
    plan_arg(plan, "--eviction_ratio=0.0");
    /* A read that takes longer fails; the grant keeps nobody waiting, because values are removed by force. */
    plan_arg(plan, "--default_kv_lease_ttl=60000");
    plan_arg(plan, "--logtostderr=true");
    plan_arg(plan, "--minloglevel=2");
    return TQ_OK;
}

static int mooncake_plan_holder(tqd_place *place, tqd_plan *plan, tq_error *err)
{
    uint64_t size = tqd_config_bytes(place->config, "backend.MooncakeStore.global_segment_size");
    const char *host = mooncake_string(place, "backend.MooncakeStore.local_hostname", NULL);
    char reached[TQI_NET_HOST_MAX + 16] = "";
    int port, rc = TQ_OK;

    if (host == NULL) {
        rc = place_advertise(place, place->host, 0, reached, sizeof(reached), err);
        if (rc) {
            return rc;
        }
        *strrchr(reached, ':') = 0;
        bool bracket = reached[0] == '[';
        reached[strlen(reached) - bracket] = 0;
        host = reached + bracket;
    }
    if ((rc = place_port(place, host, &port, err)) || (rc = place_resolve(host, port, &plan->ready_at, err))) {
        return rc;
    }
    if (!size) {
        size = tqi_memory_limit().bytes / 4;
    }
    place->picked = true;
    plan->what = "the Mooncake client that holds the data, of backend.MooncakeStore.auto_init";
    plan->name = "mooncake_client";
    plan_arg(plan, "mooncake_client");
    plan_arg(plan, "--host=%s", host);
    plan_arg(plan, "--port=%d", port);
    plan_arg(plan, "--master_server_address=%s", place->address);
    plan_arg(plan, "--metadata_server=P2PHANDSHAKE");
    plan_arg(plan, "--global_segment_size=%llu", (unsigned long long)size);
    plan_arg(plan, "--local_buffer_size=0");
    plan_arg(plan, "--protocol=%s", mooncake_string(place, "backend.MooncakeStore.protocol", "tcp"));
    plan_arg(plan, "--device_names=%s", mooncake_string(place, "backend.MooncakeStore.device_name", ""));
    plan_arg(plan, "--logtostderr=true");
    plan_arg(plan, "--minloglevel=2");
    return TQ_OK;
}

static int mooncake_plan(tqd_place *place, size_t i, tqd_plan *plan, tq_error *err)
{
    int rc = i == 0 ? mooncake_plan_master(place, plan, err) : mooncake_plan_holder(place, plan, err);

    plan->install = "install the extra 'mooncake' of transferq (see the README)";
    return rc ? rc : plan_end(plan, err);
}

static int mooncake_note(const tqd_place *place, tq_error *err)
{
    int rc = tqd_config_note(place->config, "backend.MooncakeStore.master_server_address", place->address, err);

    rc = rc ? rc : tqd_config_note(place->config, "backend.MooncakeStore.metadata_server", "P2PHANDSHAKE", err);
    /* Clients hold no data then. */
    return rc ? rc : tqd_config_set(place->config, "backend.MooncakeStore.auto_init=true", err);
}

/* --- the table ------------------------------------------------------------ */

const tqd_backend_kind tqd_backend_kinds[] = {
    {TQI_BACKEND_REDIS, 1, redis_wanted, redis_plan, redis_note},
    {TQI_BACKEND_MOONCAKESTORE, 2, mooncake_wanted, mooncake_plan, mooncake_note},
};

const size_t tqd_n_backend_kinds = sizeof(tqd_backend_kinds) / sizeof(tqd_backend_kinds[0]);
