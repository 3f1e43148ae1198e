/*
 * endpoints.c - see endpoints.h.
 */
#include "daemon/endpoints.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A value from the configuration, else from the environment, or NULL. */
static const char *net_value(const tqd_config *config, const char *key, const char *variable)
{
    const char *value = tqd_config_string(config, key);

    if (value == NULL || !*value) {
        value = getenv(variable);
    }
    return value != NULL && *value ? value : NULL;
}

/* Takes a port from the text; 0 if there is none. */
static unsigned net_port(const char **text)
{
    char *end = NULL;
    unsigned long port = **text >= '0' && **text <= '9' ? strtoul(*text, &end, 10) : 0;

    *text = end != NULL ? end : *text;
    return port <= 65535 ? (unsigned)port : 0;
}

static int net_range(tqd_net *net, tq_error *err)
{
    const char *text = net_value(net->config, "net.port_range", "TQ_PORT_RANGE");
    const char *at = text;

    if (text == NULL) {
        return TQ_OK;
    }
    unsigned first = net_port(&at);
    bool dash = *at == '-';
    at += dash;
    unsigned last = net_port(&at);
    if (!dash || *at || first < 1 || last < first) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "net.port_range (TQ_PORT_RANGE): expected first-last, such as "
                             "20000-20009, got '%s'",
                             text);
    }
    snprintf(net->range, sizeof(net->range), "%u-%u", first, last);
    return TQ_OK;
}

static int net_bind(tqd_net *net, tqi_net_addresses *interface, bool *has_interface, tq_error *err)
{
    const char *name = net_value(net->config, "net.interface", "TQ_INTERFACE");
    const char *bind = net_value(net->config, "net.bind", "TQ_BIND");
    tq_error detail = {0};

    *has_interface = name != NULL;
    if (name != NULL && tqi_net_address_of_interface(name, interface, &detail)) {
        return tqi_error_set(err, TQ_ECONFIG, "net.interface (TQ_INTERFACE): %s", detail.message);
    }
    bind = bind != NULL ? bind : name != NULL ? interface->host : "";
    size_t size = strlen(bind);
    bool bracket = size > 2 && bind[0] == '[' && bind[size - 1] == ']';
    if (size >= sizeof(net->bind)) {
        return tqi_error_set(err, TQ_ECONFIG, "net.bind (TQ_BIND): %.40s... is too long", bind);
    }
    snprintf(net->bind, sizeof(net->bind), "%.*s", (int)(bracket ? size - 2 : size), bracket ? bind + 1 : bind);
    return TQ_OK;
}

/* A published host goes into endpoint lists: it must be a name or an address, and nothing else. */
static int net_advertise(tqd_net *net, tq_error *err)
{
    const char *host = net_value(net->config, "net.advertise_host", "TQ_ADVERTISE_HOST");
    char endpoint[TQI_NET_HOST_MAX + 16], parsed[TQI_NET_HOST_MAX];

    net->advertise = host;
    if (host == NULL) {
        return TQ_OK;
    }
    bool v6 = host[0] != '[' && strchr(host, ':') != NULL;
    snprintf(endpoint, sizeof(endpoint), "tcp:%s%s%s:1", v6 ? "[" : "", host, v6 ? "]" : "");
    bool valid = strlen(host) < TQI_NET_HOST_MAX && !host[strcspn(host, ", \t\r\n/")] &&
                 tqi_net_endpoint_host(endpoint, parsed, sizeof(parsed)) &&
                 (strchr(parsed, ':') == NULL || strspn(parsed, "0123456789abcdefABCDEF:.") == strcspn(parsed, "%"));
    return valid ? TQ_OK
                 : tqi_error_set(err, TQ_ECONFIG,
                                 "net.advertise_host (TQ_ADVERTISE_HOST): expected a name or an "
                                 "address of this host without a port, got '%.200s'",
                                 host);
}

int tqd_net_init(tqd_net *net, const tqd_config *config, const char *join, tq_error *err)
{
    tqi_net_addresses interface = {0}, towards = {0};
    bool has_interface = false, elsewhere = false;
    tq_error detail = {0};

    memset(net, 0, sizeof(*net));
    net->config = config;
    net->join = join;
    int rc = net_advertise(net, err);
    rc = rc ? rc : net_range(net, err);
    rc = rc ? rc : net_bind(net, &interface, &has_interface, err);
    if (rc) {
        return rc;
    }
    if (join != NULL && tqi_net_address_towards(join, &towards, &elsewhere, &detail)) {
        /* Only a fully specified configuration does not need a route to the controller yet. */
        if (!has_interface && !(net->advertise != NULL && net->bind[0])) {
            return tqi_error_set(err, detail.code,
                                 "--join %s; to start before there is one, set net.interface, or "
                                 "net.bind and net.advertise_host",
                                 detail.message);
        }
    }
    net->elsewhere = elsewhere;
    if (towards.host[0] && !tqi_net_host_is_loopback(towards.host)) {
        memcpy(net->towards, towards.host, sizeof(net->towards));
    }
    if (has_interface) {
        net->reach = interface;
    } else if (elsewhere) {
        net->reach = towards;
    } else {
        tqi_net_address_default(&net->reach);
    }
    return TQ_OK;
}

/* --- lists ---------------------------------------------------------------- */

/* Frames are not signed: anyone who can modify the traffic can take over a session. */
static void listen_warn(const tqd_net *net, const char *endpoint)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    char host[TQI_NET_HOST_MAX];

    if (!tqd_config_bool(net->config, "net.trusted") && tqi_net_endpoint_host(endpoint, host, sizeof(host)) &&
        !tqi_net_host_is_loopback(host) && !atomic_flag_test_and_set(&said)) {
        tqi_log(TQI_WARN, "tqd",
                "listens on %s, beyond this machine: after the handshake what is sent is neither "
                "encrypted nor signed; keep it on a network that you trust (and say "
                "net.trusted=true), or "
                "in a tunnel such as WireGuard (docs/security.md)",
                endpoint);
    }
}

/* Adds an endpoint; port 0 of tcp becomes the range. */
static int listen_add(const tqd_net *net, tqd_listen *out, const char *endpoint, tq_error *err)
{
    size_t size = strlen(endpoint);
    bool any_port = strncmp(endpoint, "tcp:", 4) == 0 && strcmp(endpoint + size - 2, ":0") == 0;

    if (out->n == TQD_LISTEN_MAX) {
        return tqi_error_set(err, TQ_ECONFIG, "%s: more than %d endpoints to listen on", endpoint, TQD_LISTEN_MAX);
    }
    char *text = out->text[out->n];
    int written = any_port && net->range[0]
                      ? snprintf(text, TQD_ENDPOINT_MAX, "%.*s%s", (int)(size - 1), endpoint, net->range)
                      : snprintf(text, TQD_ENDPOINT_MAX, "%s", endpoint);
    if (written < 0 || written >= TQD_ENDPOINT_MAX) {
        return tqi_error_set(err, TQ_ENAME, "endpoint %.40s... is too long", endpoint);
    }
    listen_warn(net, text);
    out->list[out->n++] = text;
    return TQ_OK;
}

static int listen_add_host(const tqd_net *net, tqd_listen *out, const char *host, tq_error *err)
{
    char endpoint[TQI_NET_HOST_MAX + 16];
    bool v6 = strchr(host, ':') != NULL;

    snprintf(endpoint, sizeof(endpoint), "tcp:%s%s%s:0", v6 ? "[" : "", host, v6 ? "]" : "");
    return listen_add(net, out, endpoint, err);
}

static int listen_add_socket(const tqd_net *net, tqd_listen *out, const char *runtime_dir, const char *name,
                             tq_error *err)
{
    char endpoint[TQD_ENDPOINT_MAX];
    int written = snprintf(endpoint, sizeof(endpoint), "unix:%s/%s.sock", runtime_dir, name);

    if (written < 0 || (size_t)written >= sizeof(endpoint)) {
        return tqi_error_set(err, TQ_ENAME, "--runtime-dir %.40s... is too long", runtime_dir);
    }
    return listen_add(net, out, endpoint, err);
}

int tqd_net_controller(const tqd_net *net, const char *runtime_dir, tqd_listen *out, tq_error *err)
{
    const char *configured[TQD_LISTEN_MAX];
    size_t n = tqd_config_strings(net->config, "controller.listen", configured, TQD_LISTEN_MAX);
    int rc = TQ_OK;

    out->n = 0;
    if (runtime_dir != NULL) {
        rc = listen_add_socket(net, out, runtime_dir, "controller", err);
    }
    for (size_t i = 0; !rc && i < n; i++) {
        rc = listen_add(net, out, configured[i], err);
    }
    if (!rc && n == 0 && net->bind[0]) {
        rc = listen_add_host(net, out, net->bind, err);
    }
    return rc || out->n > 0 ? rc
                            : tqi_error_set(err, TQ_ECONFIG,
                                            "the controller needs --runtime-dir, an endpoint to --listen on, or "
                                            "net.bind or net.interface");
}

/* An endpoint of storage.listen, with %d replaced by the unit's number. */
static int unit_add(const tqd_net *net, const char *configured, size_t i, size_t n, tqd_listen *out, tq_error *err)
{
    char endpoint[TQD_ENDPOINT_MAX];
    const char *number = strstr(configured, "%d");
    const char *port = strrchr(configured, ':');
    bool many = port != NULL && (strcmp(port, ":0") == 0 || strchr(port, '-') != NULL);

    if (n > 1 && number == NULL && !(many && strncmp(configured, "tcp:", 4) == 0)) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "storage.listen: %zu storage units cannot all listen at %s: put a %%d "
                             "for the number of the unit into it, or set "
                             "backend.SimpleStorage.num_data_storage_units=1",
                             n, configured);
    }
    int size = number != NULL ? snprintf(endpoint, sizeof(endpoint), "%.*s%zu%s", (int)(number - configured),
                                         configured, i, number + 2)
                              : snprintf(endpoint, sizeof(endpoint), "%s", configured);
    if (size < 0 || (size_t)size >= sizeof(endpoint)) {
        return tqi_error_set(err, TQ_ENAME, "storage.listen: %.40s... is too long", configured);
    }
    return listen_add(net, out, endpoint, err);
}

/* If nothing is configured: at net.bind, or where this daemon's controller is, or on the route to the controller that
 * is joined. */
static int unit_add_default(const tqd_net *net, const char *runtime_dir, tqd_listen *out, tq_error *err)
{
    const char *controller[TQD_LISTEN_MAX];
    char host[TQI_NET_HOST_MAX];
    int rc = TQ_OK;

    if (net->bind[0]) {
        return listen_add_host(net, out, net->bind, err);
    }
    if (net->join != NULL && net->towards[0]) {
        return listen_add_host(net, out, net->towards, err);
    }
    if (net->join != NULL) {
        return runtime_dir != NULL || strncmp(net->join, "tcp:", 4) != 0 ? TQ_OK
                                                                         : listen_add_host(net, out, "127.0.0.1", err);
    }
    size_t n = tqd_config_strings(net->config, "controller.listen", controller, TQD_LISTEN_MAX);
    for (size_t i = 0; !rc && i < n; i++) {
        if (tqi_net_endpoint_host(controller[i], host, sizeof(host))) {
            rc = listen_add_host(net, out, host, err);
        }
    }
    return rc;
}

/* A unit that only this host can reach is of no use to a controller elsewhere, because its clients are elsewhere too. */
static int unit_check(const tqd_net *net, const tqd_listen *out, tq_error *err)
{
    char host[TQI_NET_HOST_MAX];

    if (!net->elsewhere) {
        return TQ_OK;
    }
    for (size_t i = 0; i < out->n; i++) {
        if (tqi_net_endpoint_host(out->list[i], host, sizeof(host)) && !tqi_net_host_is_loopback(host)) {
            return TQ_OK;
        }
    }
    return tqi_error_set(err, TQ_ECONFIG,
                         "storage.listen: %s is reached from this host only, but the controller %s "
                         "is on another one: listen at tcp:%s:0, or leave storage.listen out",
                         out->list[out->n - 1], net->join, net->towards);
}

bool tqd_net_joins_loopback(const tqd_net *net)
{
    const char *configured[TQD_LISTEN_MAX];

    return net->join != NULL && strncmp(net->join, "tcp:", 4) == 0 && !net->towards[0] && !net->bind[0] &&
           tqd_config_strings(net->config, "storage.listen", configured, TQD_LISTEN_MAX) == 0;
}

int tqd_net_unit(const tqd_net *net, const char *runtime_dir, size_t i, size_t n, tqd_listen *out, tq_error *err)
{
    const char *configured[TQD_LISTEN_MAX];
    size_t n_configured = tqd_config_strings(net->config, "storage.listen", configured, TQD_LISTEN_MAX);
    char name[32];
    int rc = TQ_OK;

    out->n = 0;
    if (runtime_dir != NULL) {
        snprintf(name, sizeof(name), "unit-%zu", i);
        rc = listen_add_socket(net, out, runtime_dir, name, err);
    }
    for (size_t k = 0; !rc && k < n_configured; k++) {
        rc = unit_add(net, configured[k], i, n, out, err);
    }
    if (!rc && n_configured == 0) {
        rc = unit_add_default(net, runtime_dir, out, err);
    }
    if (!rc && out->n == 0) {
        rc = tqi_error_set(err, TQ_ECONFIG, "a storage unit needs --runtime-dir or an endpoint to --listen on");
    }
    return rc ? rc : unit_check(net, out, err);
}

int tqd_net_metrics(const tqd_net *net, char *out, size_t size, tq_error *err)
{
    const char *listen[TQD_LISTEN_MAX];
    size_t n = tqd_config_strings(net->config, "controller.listen", listen, TQD_LISTEN_MAX);
    const char *host = tqd_config_string(net->config, "metrics.listen");
    int64_t port = tqd_config_int(net->config, "metrics.port");
    char controller[TQI_NET_HOST_MAX];
    char number[32];

    for (size_t i = 0; host == NULL && i < n; i++) {
        host = tqi_net_endpoint_host(listen[i], controller, sizeof(controller)) ? controller : NULL;
    }
    host = host != NULL ? host : net->bind[0] ? net->bind : "127.0.0.1";
    bool bracket = strchr(host, ':') != NULL && host[0] != '[';
    snprintf(number, sizeof(number), "%d", (int)port);
    int written = snprintf(out, size, "tcp:%s%s%s:%s", bracket ? "[" : "", host, bracket ? "]" : "",
                           port == 0 && net->range[0] ? net->range : number);
    return written > 0 && (size_t)written < size
               ? TQ_OK
               : tqi_error_set(err, TQ_ECONFIG, "metrics.listen: %.40s... is too long", host);
}

char *tqd_net_advertised(const tqd_net *net, const char *bound)
{
    tqi_buf list = {0};
    int rc = TQ_OK;

    while (rc == TQ_OK && *bound) {
        char one[TQD_ENDPOINT_MAX], text[TQD_ENDPOINT_MAX];
        size_t size = strcspn(bound, ",");
        snprintf(one, sizeof(one), "%.*s", (int)size, bound);
        rc = tqi_net_endpoint_advertise(one, net->advertise, &net->reach, text, sizeof(text), NULL);
        if (rc == TQ_OK) {
            rc = tqi_buf_printf(&list, "%s%s", list.size > 0 ? "," : "", text);
        }
        bound += size + (bound[size] == ',');
    }
    if (rc != TQ_OK) {
        tqi_buf_fini(&list);
        return NULL;
    }
    return list.data != NULL ? (char *)list.data : strdup("");
}
