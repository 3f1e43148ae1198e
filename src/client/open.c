/*
 * open.c - opening a runtime: connector, controller, the system's storage configuration, storage manager.
 *
 * Runs on the loop thread, within the client's timeout. The manager's type and config are the user's, or else those
 * that the controller hands out (SYSTEM_CONFIG).
 */
#include "client/runtime.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"

static void open_on_connection(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg)
{
    tqi_client_runtime *rt = arg;

    (void)channel;
    atomic_store(&rt->client->epoch, epoch);
    rt->host.epoch = epoch;
    if (fresh) {
        rt->sessions++;
        tqi_client_collector_rejoin(rt);
    }
}

/* The system has ended (why), or is back (NULL). Calls that wait at a server end with their requests; calls that wait
 * without one, such as a put for room in a key-value store, are ended here. */
static void open_on_ended(const tq_error *why, void *arg)
{
    tqi_client_runtime *rt = arg;
    tq_client *client = rt->client;
    tqi_client_task *task, *next;

    pthread_mutex_lock(&client->lock);
    client->ended = why != NULL ? *why : (tq_error){0};
    pthread_mutex_unlock(&client->lock);
    for (task = why != NULL ? rt->tasks : NULL; task != NULL; task = next) {
        next = task->next;
        if (task->begun && task->op != NULL && task->call == NULL && task->type->cancel != NULL && !task->canceled) {
            task->over = true;
            tqi_client_task_cancel(task);
        }
    }
}

static void open_manager_opened(const tq_error *err, void *arg)
{
    tqi_client_runtime *rt = arg;
    tq_error failed = {0};

    if (!rt->manager_opening) {
        return;
    }
    rt->manager_opening = false;
    uv_timer_stop(&rt->open_timer);
    if (err != NULL && err->code != TQ_OK) {
        tqi_client_runtime_stop(rt, err);
        return;
    }
    rt->manager_open = true;
    if (rt->stop_due) {
        return;
    }
    if (rt->manager->owner != NULL && tqi_client_collector_start(rt, &failed) != TQ_OK) {
        tqi_client_runtime_stop(rt, &failed);
        return;
    }
    tqi_client_runtime_ready(rt);
}

static void open_on_timeout(uv_timer_t *timer)
{
    tqi_client_runtime *rt = timer->data;
    tq_error err = {0};

    tqi_error_set(&err, TQ_ETIMEDOUT, "storage manager %s did not open in time", rt->manager->type);
    tqi_client_runtime_stop(rt, &err);
}

static int open_manager(tqi_client_runtime *rt, const Tq__SystemConfigReply *reply, tq_error *err)
{
    const tqi_client_saved_options *options = &rt->client->options;
    const char *type = options->manager != NULL ? options->manager : reply->manager;
    const char *config = options->manager_config;
    int rc;

    if (!type[0]) {
        tqi_client_runtime_ready(rt);
        return TQ_OK;
    }
    if (config == NULL) {
        config = strcmp(type, reply->manager) == 0 && reply->manager_config[0] ? reply->manager_config : "{}";
    }
    const tqi_manager_trust trust = {.own_config = options->manager_config != NULL, .libraries = options->libraries};
    rc = tqi_manager_make(type, config, &trust, &rt->manager, err);
    if (rc != TQ_OK) {
        return rc;
    }
    rt->manager_state = calloc(1, rt->manager->state_size ? rt->manager->state_size : 1);
    rt->manager_config = strdup(config);
    if (rt->manager_state == NULL || rt->manager_config == NULL) {
        return tqi_error_nomem(err, "the storage manager");
    }
    rt->host.manager = rt->manager;
    rt->manager_opening = true;
    if (rt->open_deadline != TQI_NEVER) {
        uv_timer_start(&rt->open_timer, open_on_timeout, tqi_client_remaining_ms(rt->open_deadline), 0);
    }
    rt->manager->open(rt->manager_state, &rt->host, rt->manager_config, open_manager_opened, rt);
    return TQ_OK;
}

/* The system's configuration has arrived for the first time. Calls use its timeout unless the user set one. */
static void open_keep_config(tq_client *client, const char *text)
{
    json_t *config = json_loads(text, 0, NULL);
    const json_t *timeout = json_object_get(json_object_get(config, "client"), "timeout");

    if (!client->options.own_timeout && json_number_value(timeout) > 0) {
        client->options.timeout = json_number_value(timeout);
    }
    json_decref(config);
    client->config = strdup(text);
}

static void open_on_config(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_client_runtime *rt = arg;
    const Tq__SystemConfigReply *reply = (const Tq__SystemConfigReply *)answer->reply;
    tq_client *client = rt->client;
    tq_error err = {0};

    (void)call;

    if (answer->status != TQ_OK) {
        tqi_client_runtime_stop(rt, answer->error);
        return;
    }
    if (rt->stop_due) {
        return;
    }
    tqi_client_notice_init(rt, reply->config);
    rt->internal.notice_ms = rt->notice_ms;
    pthread_mutex_lock(&client->lock);
    if (client->config == NULL) {
        open_keep_config(client, reply->config);
    }
    pthread_mutex_unlock(&client->lock);
    if (client->config == NULL) {
        tqi_error_nomem(&err, "the configuration");
        tqi_client_runtime_stop(rt, &err);
    } else if (open_manager(rt, reply, &err) != TQ_OK) {
        tqi_client_runtime_stop(rt, &err);
    }
}

/* Name shown to people: what the user gave, or program and pid. */
static void open_name(const tqi_client_saved_options *options, char *out, size_t size)
{
    if (options->name != NULL) {
        snprintf(out, size, "%s", options->name);
    } else {
        char program[201]; /* whatever the file is called */
        tqi_text_escape(program, sizeof(program), program_invocation_short_name);
        snprintf(out, size, "%s-%ld", program, (long)getpid());
    }
}

static int open_begin(tqi_client_runtime *rt, tq_error *err)
{
    const tqi_client_saved_options *options = &rt->client->options;
    char name[TQ_NAME_MAX + 1];
    Tq__SystemConfig message;
    tqi_net_connector_options connector = {
        .token = &options->token,
        .name = name,
        .first_request = options->first_request,
    };
    tqi_net_call_args args = {
        .kind = TQI_SYSTEM_CONFIG,
        .message = &message.base,
        .deadline = rt->open_deadline,
        .done = open_on_config,
        .arg = rt,
    };
    tqi_net_call *call;
    int rc;

    tq__system_config__init(&message);
    open_name(options, name, sizeof(name));
    rc = tqi_net_connector_alloc(&rt->loop, &connector, &rt->connector, err);
    if (rc == TQ_OK) {
        tqi_net_connector_on_ended(rt->connector, open_on_ended, rt);
        if (rt->client->ended.code != TQ_OK) {
            tqi_net_connector_set_ended(rt->connector, &rt->client->ended);
        }
        rc = tqi_net_channel_get(rt->connector, options->address, &rt->controller, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_net_channel_on_open(rt->controller, open_on_connection, rt, err);
    }
    if (rc == TQ_OK) {
        rt->internal.loop = &rt->loop;
        rt->internal.connector = rt->connector;
        rt->internal.controller = rt->controller;
        rt->internal.node = options->node;
        tqi_client_manager_host_init(rt);
        rc = tqi_net_call_start(rt->controller, &args, &call, err);
    }
    return rc;
}

void tqi_client_runtime_open(tqi_client_runtime *rt)
{
    tq_error err = {0};

    if (open_begin(rt, &err) != TQ_OK) {
        tqi_client_runtime_stop(rt, &err);
    }
}
