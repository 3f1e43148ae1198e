/*
 * backend_servers.c - see backend_servers.h. Programs are started one after the other, each once the previous one is
 * serving. A port that was free may be taken by the time a program binds it, so a program that exits at once is tried
 * again with another port.
 */
#include "daemon/backend_servers.h"

#include "base/error.h"
#include "base/log.h"
#include "daemon/backend_kinds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVERS_MAX        2
#define SERVERS_TIMEOUT_MS 60000
#define SERVERS_TRIES      3

typedef struct servers_one {
    tqd_backend_servers *all;
    tqd_child *child; /* NULL: does not run */
} servers_one;

struct tqd_backend_servers {
    uv_loop_t *loop;
    const tqd_backend_kind *kind;
    tqd_place place;
    servers_one ones[SERVERS_MAX];
    size_t n; /* that were started */
    int tries;
    bool serve; /* all */
    bool stopping;
    tq_error failed; /* of the one being started */
    void (*ready)(const tq_error *err, void *arg);
    void *arg;
};

static int servers_start_next(tqd_backend_servers *servers, tq_error *err);

/* Stops the last one that is running; frees everything if there is none. */
static void servers_stop_next(tqd_backend_servers *servers)
{
    while (servers->n > 0 && servers->ones[servers->n - 1].child == NULL) {
        servers->n--;
    }
    if (servers->n > 0) {
        tqd_child_stop(servers->ones[servers->n - 1].child);
    } else {
        free(servers);
    }
}

static void servers_on_ended(const char *how, void *arg)
{
    servers_one *one = arg;
    tqd_backend_servers *servers = one->all;
    tq_error err = servers->failed;

    one->child = NULL;
    if (servers->stopping) {
        servers_stop_next(servers);
        return;
    }
    if (servers->serve) {
        tqi_log(TQI_ERROR, "tqd", "what was stored in %s is lost; nothing can be stored any more",
                servers->kind->backend);
        return;
    }
    if (one != &servers->ones[servers->n - 1]) {
        tqi_error_set(&err, TQ_EIO, "a server of backend.%s.auto_init has ended (%s) while another one was started",
                      servers->kind->backend, how);
        servers->ready(&err, servers->arg);
        return;
    }
    servers->n--;
    if (!servers->place.picked || ++servers->tries == SERVERS_TRIES || servers_start_next(servers, &err)) {
        servers->ready(&err, servers->arg);
    }
}

static void servers_on_ready(const tq_error *err, void *arg)
{
    servers_one *one = arg;
    tqd_backend_servers *servers = one->all;
    tq_error failed = {0};

    if (err != NULL && err->code == TQ_EIO) { /* it has exited; that is handled there */
        servers->failed = *err;
        return;
    }
    if (err != NULL) {
        servers->ready(err, servers->arg);
        return;
    }
    servers->tries = 0;
    if (servers->n < servers->kind->n_programs) {
        if (servers_start_next(servers, &failed)) {
            servers->ready(&failed, servers->arg);
        }
        return;
    }
    servers->serve = true;
    int rc = servers->kind->note(&servers->place, &failed);
    servers->ready(rc ? &failed : NULL, servers->arg);
}

static int servers_start_next(tqd_backend_servers *servers, tq_error *err)
{
    servers_one *one = &servers->ones[servers->n];
    tqd_plan *plan = calloc(1, sizeof(*plan));
    char program[PATH_MAX];

    if (plan == NULL) {
        return tqi_error_nomem(err, "starting a server");
    }
    int rc = servers->kind->plan(&servers->place, servers->n, plan, err);
    if (!rc && !tqd_backend_kind_find(plan->name, program)) {
        rc = tqi_error_set(err, TQ_ECONFIG,
                           "backend.%s.auto_init: the program %s is neither beside tqd nor on "
                           "PATH: %s",
                           servers->kind->backend, plan->name, plan->install);
    }
    if (!rc) {
        tqd_child_options options = {
            .what = plan->what,
            .program = program,
            .argv = plan->argv,
            .input = plan->input[0] ? plan->input : NULL,
            .ready_line = plan->ready_line,
            .ready_at = plan->ready_at.ss_family ? &plan->ready_at : NULL,
            .timeout_ms = SERVERS_TIMEOUT_MS,
            .ready = servers_on_ready,
            .ended = servers_on_ended,
            .arg = one,
        };
        one->all = servers;
        rc = tqd_child_start(servers->loop, &options, &one->child, err);
    }
    if (!rc) {
        servers->n++;
        tqi_log(TQI_INFO, "tqd", "%s is process %d", plan->what, tqd_child_pid(one->child));
    }
    free(plan);
    return rc;
}

/* The kind that the configuration asks for; NULL: none. */
static int servers_kind(const tqd_config *config, const tqd_backend_kind **out, tq_error *err)
{
    const char *backend = tqd_config_string(config, "backend.storage_backend");
    bool wanted = false;
    int rc = TQ_OK;

    *out = NULL;
    for (size_t i = 0; i < tqd_n_backend_kinds; i++) {
        if (strcmp(tqd_backend_kinds[i].backend, backend) == 0) {
            rc = tqd_backend_kinds[i].wanted(config, &wanted, err);
            *out = wanted ? &tqd_backend_kinds[i] : NULL;
        }
    }
    return rc;
}

int tqd_backend_servers_start(uv_loop_t *loop, const tqd_backend_servers_options *options,
                              void (*ready)(const tq_error *err, void *arg), void *arg, tqd_backend_servers **out,
                              tq_error *err)
{
    const tqd_backend_kind *kind;
    int rc = servers_kind(options->config, &kind, err);

    *out = NULL;
    if (rc || kind == NULL) {
        return rc;
    }
    tqd_backend_servers *servers = calloc(1, sizeof(*servers));
    if (servers == NULL) {
        return tqi_error_nomem(err, "the servers of a storage backend");
    }
    servers->loop = loop;
    servers->kind = kind;
    servers->ready = ready;
    servers->arg = arg;
    servers->place = (tqd_place){
        .config = options->config,
        .net = options->net,
        .runtime_dir = options->runtime_dir,
        .host = "127.0.0.1",
        .local = true,
    };
    for (size_t i = 0; servers->place.local && i < options->listen->n; i++) {
        char host[TQI_NET_HOST_MAX];
        if (tqi_net_endpoint_host(options->listen->list[i], host, sizeof(host))) {
            memcpy(servers->place.host, host, sizeof(host));
            servers->place.local = false;
        }
    }
    rc = servers_start_next(servers, err);
    if (rc) {
        free(servers);
        return rc;
    }
    *out = servers;
    return TQ_OK;
}

void tqd_backend_servers_stop(tqd_backend_servers *servers)
{
    if (servers != NULL && !servers->stopping) {
        servers->stopping = true;
        servers_stop_next(servers);
    }
}
