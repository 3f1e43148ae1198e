/*
 * connector.c - the identity of a client, and its start and shutdown.
 */
#include "net/calling.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"

static void connector_tick(void *owner)
{
    tqi_net_connector *connector = owner;

    tqi_net_call_end_cancelled(connector);
    if (connector->acks_due) {
        connector->acks_due = false;
        tqi_net_channel *channel;
        DL_FOREACH (connector->channels, channel) {
            if (channel->ack_due) {
                tqi_net_channel_send_ack(channel);
            }
        }
    }
}

int tqi_net_connector_alloc(uv_loop_t *loop, const tqi_net_connector_options *options, tqi_net_connector **out,
                            tq_error *err)
{
    if (options->token == NULL || options->token->size == 0) {
        return tqi_error_set(err, TQ_EINVAL, "a client needs a token");
    }
    const char *name = options->name != NULL ? options->name : "";
    if (strlen(name) > 255) {
        return tqi_error_set(err, TQ_ENAME, "session name has %zu bytes, at most 255 are allowed", strlen(name));
    }
    tqi_net_connector *connector = calloc(1, sizeof(*connector));
    if (connector == NULL) {
        return tqi_error_nomem(err, "a client");
    }
    connector->name = strdup(name);
    if (connector->name == NULL) {
        free(connector);
        return tqi_error_nomem(err, "a client");
    }
    connector->loop = loop;
    connector->token = *options->token;
    connector->part = options->part;
    connector->own_system = options->own_system;
    connector->first_request = options->first_request ? options->first_request : 1;
    tqi_random(connector->session, sizeof(connector->session));
    if (gethostname(connector->host, sizeof(connector->host) - 1) != 0) {
        connector->host[0] = 0;
    }
    tqi_net_connector_init_fds(connector);
    connector->conn_ops = &tqi_net_channel_ops;
    tqi_net_flusher_init(&connector->flusher, loop, connector_tick, connector);
    *out = connector;
    return TQ_OK;
}

bool tqi_net_connector_crowded(const tqi_net_connector *connector)
{
    return connector->crowded_at != 0 && tqi_now() - connector->crowded_at < TQI_NET_CROWDED_NS;
}

void tqi_net_connector_set_token(tqi_net_connector *connector, const tqi_net_token *token)
{
    connector->token = *token;
}

void tqi_net_connector_finished(tqi_net_connector *connector)
{
    connector->finished = true;
}

void tqi_net_connector_close(tqi_net_connector *connector, void (*done)(void *arg), void *arg)
{
    connector->closing = true;
    connector->done = done;
    connector->done_arg = arg;
    tqi_net_call_end_cancelled(connector);
    if (connector->open == 0) {
        tqi_net_connector_free(connector);
        return;
    }
    tqi_net_channel *channel;
    DL_FOREACH (connector->channels, channel) {
        tqi_net_channel_close(channel);
    }
}
