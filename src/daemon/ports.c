/*
 * ports.c - see ports.h.
 *
 * Each host has its own ports, so listeners are counted per host, and the host with the most decides.
 */
#include "daemon/ports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

typedef struct ports_need {
    unsigned controller, units, metrics;
} ports_need;

static unsigned ports_sum(const ports_need *need)
{
    return need->controller + need->units + need->metrics;
}

/* Whether it takes a port of the range. */
static bool ports_of_range(const tqd_net *net, const char *endpoint, char *host, size_t size)
{
    const char *port = strrchr(endpoint, ':');

    return port != NULL && strcmp(port + 1, net->range) == 0 && tqi_net_endpoint_host(endpoint, host, size);
}

static unsigned ports_at(const tqd_net *net, const tqd_listen *listen, const char *host)
{
    char one[TQI_NET_HOST_MAX];
    unsigned n = 0;

    for (size_t i = 0; i < listen->n; i++) {
        n += ports_of_range(net, listen->list[i], one, sizeof(one)) && strcmp(one, host) == 0;
    }
    return n;
}

/* What listens where; the units' lists differ only in their numbers. */
typedef struct ports_plan {
    tqd_listen controller, unit, metrics;
} ports_plan;

static int ports_plan_make(const tqd_net *net, const tqd_ports_parts *parts, ports_plan *plan, tq_error *err)
{
    int rc = TQ_OK;

    memset(plan, 0, sizeof(*plan));
    if (parts->controller) {
        rc = tqd_net_controller(net, parts->runtime_dir, &plan->controller, err);
    }
    if (!rc && parts->n_units > 0) {
        rc = tqd_net_unit(net, parts->runtime_dir, 0, parts->n_units, &plan->unit, err);
    }
    if (!rc && parts->controller && tqd_config_bool(net->config, "metrics.enabled")) {
        rc = tqd_net_metrics(net, plan->metrics.text[0], TQD_ENDPOINT_MAX, err);
        plan->metrics.list[0] = plan->metrics.text[0];
        plan->metrics.n = 1;
    }
    return rc;
}

/* Where the most ports are needed, and what for. */
static ports_need ports_most(const tqd_net *net, const tqd_ports_parts *parts, const ports_plan *plan, char *where,
                             size_t size)
{
    const tqd_listen *lists[] = {&plan->controller, &plan->unit, &plan->metrics};
    char host[TQI_NET_HOST_MAX];
    ports_need most = {0};

    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < lists[k]->n; i++) {
            if (!ports_of_range(net, lists[k]->list[i], host, sizeof(host))) {
                continue;
            }
            ports_need need = {
                .controller = ports_at(net, &plan->controller, host),
                .units = ports_at(net, &plan->unit, host) * (unsigned)parts->n_units,
                .metrics = ports_at(net, &plan->metrics, host),
            };
            if (ports_sum(&need) > ports_sum(&most)) {
                most = need;
                snprintf(where, size, "%s", host);
            }
        }
    }
    return most;
}

static int ports_short(const tqd_net *net, const ports_need *need, unsigned has, const char *host, tq_error *err)
{
    const struct {
        unsigned n;
        const char *what;
    } parts[] = {
        {need->controller, "the controller"},
        {need->units, need->units == 1 ? "the storage unit" : "storage units"},
        {need->metrics, "the metrics"},
    };
    char text[128];
    tqi_text list = tqi_text_begin(text, sizeof(text));
    const char *between = "";

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].n > 0) {
            tqi_text_add(&list, "%s%u for %s", between, parts[i].n, parts[i].what);
            between = ", ";
        }
    }
    return tqi_error_set(err, TQ_ECONFIG,
                         "net.port_range (TQ_PORT_RANGE): %s has %u port%s, and %u are needed at "
                         "%s: %s; give a longer range",
                         net->range, has, tqi_text_s(has), ports_sum(need), host, text);
}

int tqd_ports_check(const tqd_net *net, const tqd_ports_parts *parts, tq_error *err)
{
    const char *dash = strchr(net->range, '-'); /* it was checked when it was read */
    char host[TQI_NET_HOST_MAX];

    if (dash == NULL) {
        return TQ_OK;
    }
    unsigned has = (unsigned)(strtoul(dash + 1, NULL, 10) - strtoul(net->range, NULL, 10) + 1);
    ports_plan *plan = malloc(sizeof(*plan));
    if (plan == NULL) {
        return tqi_error_nomem(err, "endpoints");
    }
    int rc = ports_plan_make(net, parts, plan, err);
    if (!rc) {
        ports_need need = ports_most(net, parts, plan, host, sizeof(host));
        rc = ports_sum(&need) > has ? ports_short(net, &need, has, host, err) : TQ_OK;
    }
    free(plan);
    return rc;
}
