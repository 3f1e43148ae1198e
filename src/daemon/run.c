/*
 * run.c - a daemon: a controller, storage units, or both, until a signal arrives or its parent exits.
 */
#include <tq/daemon.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/sized.h"
#include "base/stdio.h"
#include "config_backends.h"
#include "controller/controller.h"
#include "daemon/backend_probe.h"
#include "daemon/backend_servers.h"
#include "daemon/endpoints.h"
#include "daemon/exporter.h"
#include "daemon/options.h"
#include "daemon/parent.h"
#include "daemon/ports.h"
#include "daemon/rundir.h"
#include "daemon/watchdog.h"
#include "sampler/sampler.h"
#ifdef TQI_WITH_SIMPLE
#include "daemon/units.h"
#endif

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* What each signal ends; a hang-up ends the system unless our parent ignores it (nohup). */
static const struct {
    int number;
    const char *name;
    tqi_net_ending ending;
} daemon_signals[] = {
    {SIGTERM, "SIGTERM", TQI_NET_ENDS_SYSTEM},
    {SIGINT, "SIGINT", TQI_NET_ENDS_SYSTEM},
    {SIGHUP, "SIGHUP", TQI_NET_ENDS_SYSTEM},
    {SIGUSR1, "SIGUSR1", TQI_NET_ENDS_RUN},
};
/* Time for clients to remove what they have stored. Whoever stops a system waits for it, and finally kills it. */
#define DAEMON_DRAIN_MS  4000u
#define DAEMON_N_SIGNALS (sizeof(daemon_signals) / sizeof(daemon_signals[0]))

typedef struct daemon_state {
    tqd_options options;
    bool hosted; /* there are hooks */
    tq_daemon_hooks hooks;
    uv_loop_t loop;
    tqi_net_token token;
    tqd_rundir rundir;
    tqd_net net;
    tqd_listen listen; /* of the controller */
    char *address;     /* of the controller, as others reach it */
    char *config_json;
    char *backend_json;
    tqd_backend_servers *servers; /* NULL: none were started */
    tqi_controller *controller;
    uint64_t epoch;               /* of the controller, when it closes; 0: there was none */
    tqi_controller_stored stored; /* then */
    tqd_exporter *exporter;       /* NULL: metrics are off */
#ifdef TQI_WITH_SIMPLE
    tqd_units *units;
#endif
    uv_signal_t signals[DAEMON_N_SIGNALS];
    tqd_parent parent;
    bool parent_watched;
    uv_poll_t parent_poll;   /* of its pidfd */
    uv_timer_t parent_timer; /* else */
    tqd_watchdog *watchdog;  /* or NULL */
    bool stopping;
    int failed;
} daemon_state;

/* Tells whoever started us, once. */
static void daemon_tell(daemon_state *daemon, const char *text)
{
    int fd = daemon->options.ready_fd;

    if (fd < 0) {
        return;
    }
    daemon->options.ready_fd = -1;
    if (dprintf(fd, "%s\n", text) < 0) {
        tqi_log(TQI_WARN, "tqd", "cannot write to the ready descriptor: %s", strerror(errno));
    }
    close(fd);
}

/* Reports why it does not start, to the process that started it and on standard error. */
static void daemon_say(daemon_state *daemon, const tq_error *err)
{
    char text[TQ_ERROR_MESSAGE_MAX + 32];

    snprintf(text, sizeof(text), "error: %s\ncode: %d", err->message, err->code);
    fprintf(stderr, "tqd: %s\n", err->message);
    daemon_tell(daemon, text);
}

/* The controller has told its clients that the system ends, and is closed: nobody needs the rest any more. */
static void daemon_stop_rest(void *arg)
{
    daemon_state *daemon = arg;

#ifdef TQI_WITH_SIMPLE
    tqd_units_stop(daemon->units);
    daemon->units = NULL;
#endif
    /* A store that was started with the system ends with it; from an external store, our data must be removed. */
    if (daemon->epoch && daemon->servers == NULL) {
        tqd_backend_probe_end(&daemon->loop, daemon->options.config, daemon->epoch, daemon->stored);
    }
    tqd_backend_servers_stop(daemon->servers);
    daemon->servers = NULL;
}

static void daemon_close_controller(daemon_state *daemon)
{
    tqi_controller *controller = daemon->controller;

    daemon->controller = NULL;
    tqi_controller_close(controller, daemon_stop_rest, daemon);
}

/* Clients have removed what they have stored, except `left` blocks. */
static void daemon_drained(uint64_t left, void *arg)
{
    daemon_state *daemon = arg;

    daemon->stored.left = left;
    daemon->stored.removed = left == 0;
    daemon_close_controller(daemon);
}

static void daemon_stop(daemon_state *daemon, tqi_net_ending ending, const char *reason)
{
    if (daemon->stopping) {
        return;
    }
    daemon->stopping = true;
    /* The handlers stay until everything is removed, because a second signal must not kill us half way. */
    for (size_t i = 0; i < DAEMON_N_SIGNALS; i++) {
        uv_unref((uv_handle_t *)&daemon->signals[i]);
    }
    if (daemon->parent_watched) {
        uv_close(daemon->parent.fd >= 0 ? (uv_handle_t *)&daemon->parent_poll : (uv_handle_t *)&daemon->parent_timer,
                 NULL);
    }
    tqd_rundir_withdraw(&daemon->rundir);
    tqd_exporter_stop(daemon->exporter);
    daemon->exporter = NULL;
#ifdef TQI_WITH_SIMPLE
    if (daemon->units != NULL) {
        tqd_units_set_goodbye(daemon->units, ending == TQI_NET_ENDS_RUN ? TQI_NET_ENDS_RUN : TQI_NET_ENDS_SERVER,
                              reason);
    }
#endif
    if (daemon->controller == NULL) {
        daemon_stop_rest(daemon);
        return;
    }
    daemon->epoch = tqi_controller_epoch(daemon->controller);
    daemon->stored = tqi_controller_stored_elsewhere(daemon->controller);
    tqi_controller_set_goodbye(daemon->controller, ending, reason);
    if (ending == TQI_NET_ENDS_SYSTEM && (daemon->stored.blocks > 0 || daemon->stored.dead) && !daemon->stored.stays &&
        daemon->servers == NULL && tqd_backend_probe_needs_clients(daemon->options.config)) {
        tqi_controller_drain(daemon->controller, DAEMON_DRAIN_MS, daemon_drained, daemon);
    } else {
        daemon_close_controller(daemon);
    }
}

/* It could not start. */
static void daemon_fail(daemon_state *daemon, const char *reason)
{
    daemon->failed = 1;
    daemon_stop(daemon, TQI_NET_ENDS_SYSTEM, reason);
}

static void daemon_on_signal(uv_signal_t *handle, int number)
{
    size_t i = 0;

    while (daemon_signals[i].number != number) {
        i++;
    }
    tqi_log(TQI_INFO, "tqd", "%s: ending", daemon_signals[i].name);
    daemon_stop(handle->data, daemon_signals[i].ending, daemon_signals[i].name);
}

static void daemon_watch_signals(daemon_state *daemon)
{
    struct sigaction before;

    for (size_t i = 0; i < DAEMON_N_SIGNALS; i++) {
        uv_signal_init(&daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        bool ignored = sigaction(daemon_signals[i].number, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
        if (!ignored || daemon_signals[i].number == SIGTERM) {
            uv_signal_start(&daemon->signals[i], daemon_on_signal, daemon_signals[i].number);
        }
    }
}

static void daemon_parent_ended(daemon_state *daemon)
{
    char reason[80];

    snprintf(reason, sizeof(reason), "its parent, process %d, has ended", (int)daemon->options.parent_pid);
    tqi_log(TQI_INFO, "tqd", "%s: ending", reason);
    daemon_stop(daemon, TQI_NET_ENDS_SYSTEM, reason);
}

static void daemon_on_parent(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    daemon_parent_ended(handle->data);
}

static void daemon_on_look(uv_timer_t *timer)
{
    daemon_state *daemon = timer->data;

    if (tqd_parent_ended(&daemon->parent)) {
        daemon_parent_ended(daemon);
    }
}

/* Lets others find the system. */
static int daemon_publish(daemon_state *daemon, tq_error *err)
{
    json_t *backend = json_loads(daemon->backend_json, 0, NULL);
    int rc = tqd_rundir_publish(&daemon->rundir, daemon->address, (uint64_t)daemon->options.parent_pid,
                                json_string_value(json_object_get(backend, "library")),
                                json_string_value(json_object_get(backend, "module")), err);

    json_decref(backend);
    return rc;
}

/* All parts are serving: let others find the system. */
static void daemon_on_ready(void *arg)
{
    daemon_state *daemon = arg;
    tq_error err = {0};

    if (daemon->stopping) {
        return;
    }
    if (daemon->rundir.made && daemon->controller != NULL && daemon_publish(daemon, &err)) {
        tqi_log(TQI_ERROR, "tqd", "%s", err.message);
        daemon_fail(daemon, err.message);
        return;
    }
    if (daemon->controller != NULL) {
        tqi_log(TQI_INFO, "tqd", "system '%s' serves at %s", daemon->options.name, daemon->address);
    } else {
        tqi_log(TQI_INFO, "tqd", "storage units have joined %s", daemon->options.join);
    }
    daemon_tell(daemon, "ready");
}

#ifdef TQI_WITH_SIMPLE
/* The storage units serve, or never will. */
static void daemon_on_units(const tq_error *err, void *arg)
{
    daemon_state *daemon = arg;

    if (err == NULL) {
        daemon_on_ready(daemon);
    } else if (!daemon->stopping) {
        daemon_say(daemon, err);
        daemon_fail(daemon, err->message);
    }
}
#endif

static int daemon_watch_parent(daemon_state *daemon, tq_error *err)
{
    if (!daemon->options.parent_pid) {
        return TQ_OK;
    }
    int rc = tqd_parent_init(&daemon->parent, daemon->options.parent_pid, err);
    if (rc) {
        return rc;
    }
    daemon->parent_watched = true;
    if (daemon->parent.fd >= 0) {
        uv_poll_init(&daemon->loop, &daemon->parent_poll, daemon->parent.fd);
        daemon->parent_poll.data = daemon;
        uv_poll_start(&daemon->parent_poll, UV_READABLE, daemon_on_parent);
    } else {
        uv_timer_init(&daemon->loop, &daemon->parent_timer);
        daemon->parent_timer.data = daemon;
        uv_timer_start(&daemon->parent_timer, daemon_on_look, TQD_PARENT_CHECK_MS, TQD_PARENT_CHECK_MS);
    }
    return daemon->hosted ? tqd_watchdog_start(&daemon->parent, &daemon->rundir, &daemon->watchdog, err) : TQ_OK;
}

/* A given token goes into the runtime directory, too: a client that finds the handle there uses it to attach. */
static int daemon_token(daemon_state *daemon, tq_error *err)
{
    const tqd_options *options = &daemon->options;
    int rc = options->token_file != NULL ? tqi_net_token_load(options->token_file, &daemon->token, err) : TQ_OK;

    return rc || options->runtime_dir == NULL
               ? rc
               : tqd_rundir_init(&daemon->rundir, options->runtime_dir, options->name, &daemon->token, err);
}

/* Looks up the configured sampler here so that the error names the key. */
static int daemon_find_sampler(const daemon_state *daemon, tq_error *err)
{
    const char *name = tqd_config_string(daemon->options.config, "controller.sampler");
    const tq_daemon_hooks *hooks = &daemon->hooks;
    const tq_sampler *found;
    tq_error detail = {0};
    int rc = tqi_sampler_find(name, &found, &detail);

    if (rc && hooks->sampler != NULL) {
        rc = hooks->sampler(name, hooks->user, &detail);
        rc = rc ? rc : tqi_sampler_find(name, &found, &detail);
    } else if (rc && strchr(name, ':') != NULL) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "controller.sampler: '%s' is written in Python: start it with python "
                             "-m transferq.host in the place of tqd, with the same options",
                             name);
    }
    return rc ? tqi_error_set(err, TQ_ECONFIG, "controller.sampler: %s", detail.message) : TQ_OK;
}

static int daemon_start_controller(daemon_state *daemon, tq_error *err)
{
    tqd_config *config = daemon->options.config;
    int rc = daemon_find_sampler(daemon, err);

    rc = rc ? rc : tqd_exporter_open(&daemon->loop, config, &daemon->net, &daemon->exporter, err);
    if (rc) {
        return rc;
    }
    daemon->config_json = tqd_config_json(config);
    daemon->backend_json = tqd_config_backend_json(config);
    tqi_controller_options options = {
        .listen = daemon->listen.list,
        .n_listen = daemon->listen.n,
        .token = &daemon->token,
        .sampler = tqd_config_string(config, "controller.sampler"),
        .polling = tqd_config_bool(config, "controller.polling_mode"),
        .strict_schema = tqd_config_bool(config, "controller.strict_schema"),
        .grace_ms = (uint64_t)(tqd_config_seconds(config, "controller.session_grace") * 1000),
        .owner_timeout_ms = (uint64_t)(tqd_config_seconds(config, "controller.owner_timeout") * 1000),
        .write_deadline_ms = (uint64_t)(tqd_config_seconds(config, "controller.write_deadline") * 1000),
        .events = (uint32_t)tqd_config_count(config, "controller.events"),
        .first_counters = (uint64_t)tqd_config_int(config, "controller.first_counters"),
        .manager = tqd_config_string(config, "backend.storage_backend"),
        .manager_config = daemon->backend_json,
        .config = daemon->config_json,
        .metrics = daemon->exporter != NULL,
        .system = daemon->options.name,
    };
    rc = tqi_controller_alloc(&daemon->loop, &options, &daemon->controller, err);
    if (!rc) {
        daemon->address = tqd_net_advertised(&daemon->net, tqi_controller_endpoint(daemon->controller));
        rc = daemon->address != NULL ? TQ_OK : tqi_error_nomem(err, "the controller's address");
    }
    return rc || daemon->exporter == NULL ? rc : tqd_exporter_start(daemon->exporter, daemon->controller, err);
}

/* Whether it runs storage units: if the data is stored elsewhere, a controller's daemon has none. */
static bool daemon_has_units(const daemon_state *daemon)
{
    const tqd_options *options = &daemon->options;
    const char *backend = tqd_config_string(options->config, "backend.storage_backend");

    return options->role & TQD_STORAGE &&
           (strcmp(backend, TQI_BACKEND_SIMPLESTORAGE) == 0 || !(options->role & TQD_CONTROLLER));
}

static int daemon_check_ports(const daemon_state *daemon, tq_error *err)
{
    const tqd_options *options = &daemon->options;
    tqd_ports_parts parts = {
        .controller = options->role & TQD_CONTROLLER,
        .n_units = daemon_has_units(daemon)
                       ? (size_t)tqd_config_count(options->config, "backend.SimpleStorage.num_data_storage_units")
                       : 0,
        .runtime_dir = daemon->rundir.made ? daemon->rundir.path : NULL,
    };

    return tqd_ports_check(&daemon->net, &parts, err);
}

static int daemon_start_units(daemon_state *daemon, tq_error *err)
{
    if (!daemon_has_units(daemon)) {
        daemon_on_ready(daemon); /* the data lies elsewhere */
        return TQ_OK;
    }
#ifdef TQI_WITH_SIMPLE
    tqd_units_options options = {
        .config = daemon->options.config,
        .net = &daemon->net,
        .runtime_dir = daemon->rundir.made ? daemon->rundir.path : NULL,
        .controller = daemon->controller != NULL ? tqi_controller_endpoint(daemon->controller) : daemon->options.join,
        .token = &daemon->token,
        .token_file = daemon->controller != NULL ? NULL : daemon->options.token_file,
        .alone = daemon->controller == NULL,
    };
    if (daemon->controller == NULL) {
        /* Logged before anything can wait; the connections log from time to time that this is still so. */
        tqi_log(TQI_INFO, "tqd", "storage units wait for the controller at %s", daemon->options.join);
    }
    if (tqd_net_joins_loopback(&daemon->net)) {
        tqi_log(TQI_INFO, "tqd",
                "storage units are reached from this machine only, since %s is the loopback: for "
                "workers on other machines --join the controller's address in the network",
                daemon->options.join);
    }
    daemon->rundir.n_units = (size_t)tqd_config_count(options.config, "backend.SimpleStorage.num_data_storage_units");
    return tqd_units_start(&daemon->loop, &options, daemon_on_units, daemon, &daemon->units, err);
#else
    return tqi_error_set(err, TQ_EUNSUPPORTED,
                         "this tqd was built without storage units (-Dsimple=false): choose "
                         "another backend.storage_backend");
#endif
}

/* How much clients can make servers keep. */
static void daemon_set_limits(const tqd_config *config)
{
#define LIMIT_COUNT(path)            tqd_config_count(config, path)
#define LIMIT_BYTES(path)            tqd_config_bytes(config, path)
#define LIMIT_MS(path)               (uint64_t)(tqd_config_seconds(config, path) * 1000)
#define LIMIT_SET(kind, name, value) tqi_limits.name = LIMIT_##kind("limits." #name);
    TQI_LIMITS(LIMIT_SET)
#undef LIMIT_SET
#undef LIMIT_COUNT
#undef LIMIT_BYTES
#undef LIMIT_MS
}

/* Starts everything except what the storage backend needs, which is already serving. */
static int daemon_start_parts(daemon_state *daemon, tq_error *err)
{
    daemon_set_limits(daemon->options.config);
    int rc = daemon->options.role & TQD_CONTROLLER ? daemon_start_controller(daemon, err) : TQ_OK;

    return rc ? rc : daemon_start_units(daemon, err);
}

static void daemon_on_servers(const tq_error *err, void *arg)
{
    daemon_state *daemon = arg;
    tq_error failed = err != NULL ? *err : (tq_error){0};

    if (daemon->stopping || (err == NULL && !daemon_start_parts(daemon, &failed))) {
        return;
    }
    daemon_say(daemon, &failed);
    daemon_fail(daemon, failed.message);
}

static int daemon_start_servers(daemon_state *daemon, tq_error *err)
{
    const char *runtime_dir = daemon->rundir.made ? daemon->rundir.path : NULL;
    int rc = tqd_net_controller(&daemon->net, runtime_dir, &daemon->listen, err);
    tqd_backend_servers_options options = {
        .config = daemon->options.config,
        .net = &daemon->net,
        .listen = &daemon->listen,
        .runtime_dir = runtime_dir,
    };

    return rc ? rc
              : tqd_backend_servers_start(&daemon->loop, &options, daemon_on_servers, daemon, &daemon->servers, err);
}

static int daemon_start(daemon_state *daemon, tq_error *err)
{
    const char *level = tqd_config_string(daemon->options.config, "log.level");
    int rc;

    if (getenv("TQ_LOG") == NULL) {
        tq_log_set_level((tq_log_level)tqi_log_parse_level(level));
    }
    if ((rc = tqd_net_init(&daemon->net, daemon->options.config, daemon->options.join, err)) ||
        (rc = daemon_token(daemon, err)) || (rc = daemon_watch_parent(daemon, err)) ||
        (rc = daemon_check_ports(daemon, err))) {
        return rc;
    }
    bool waits = false;
    if (daemon->options.role & TQD_CONTROLLER) {
        rc = daemon_start_servers(daemon, err);
        waits = daemon->servers != NULL;
        /* A store that is not ours to start is checked. */
        rc = rc || waits ? rc
                         : tqd_backend_probe_check(&daemon->loop, daemon->options.config, daemon_on_servers, daemon,
                                                   &waits, err);
    }
    return rc || waits ? rc : daemon_start_parts(daemon, err);
}

/* A connection and a pidfd per client: as many descriptors as the system lets us have. */
static void daemon_raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void daemon_loop(daemon_state *daemon)
{
    tq_error err = {0};

    uv_loop_init(&daemon->loop);
    daemon_watch_signals(daemon);
    if (daemon_start(daemon, &err)) {
        daemon_say(daemon, &err);
        daemon_fail(daemon, err.message);
    }
    uv_run(&daemon->loop, UV_RUN_DEFAULT);
    tqd_watchdog_stop(daemon->watchdog);
    tqd_rundir_fini(&daemon->rundir);
    for (size_t i = 0; i < DAEMON_N_SIGNALS; i++) {
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
    }
    uv_run(&daemon->loop, UV_RUN_DEFAULT);
    uv_loop_close(&daemon->loop);
}

TQI_SIZED_ENDS_WITH(tq_daemon_hooks, user);

int tq_daemon_run(int argc, char **argv, const tq_daemon_hooks *hooks)
{
    /* It contains handles, so it must not move. */
    daemon_state *daemon = calloc(1, sizeof(*daemon));
    tq_error err = {0};
    int status;

    if (daemon == NULL || (argc > 0 && argv == NULL)) {
        fprintf(stderr, daemon != NULL ? "tqd: argv is NULL\n" : "tqd: out of memory\n");
        free(daemon);
        return 2;
    }
    if (hooks != NULL && tqi_sized_copy("tq_daemon_hooks", hooks, &daemon->hooks, sizeof(daemon->hooks), &err)) {
        fprintf(stderr, "tqd: %s\n", err.message);
        free(daemon);
        return 2;
    }
    tqi_stdio_guard();
    daemon_raise_limit();
    signal(SIGPIPE, SIG_IGN);
    daemon->hosted = hooks != NULL;
    daemon->parent.fd = -1;
    if (tqd_options_parse(&daemon->options, argc, argv, &err)) {
        daemon_say(daemon, &err);
        status = 2;
    } else {
        daemon_loop(daemon);
        status = daemon->failed;
    }
    tqd_parent_fini(&daemon->parent);
    free(daemon->address);
    free(daemon->config_json);
    free(daemon->backend_json);
    tqd_options_fini(&daemon->options);
    free(daemon);
    return status;
}
