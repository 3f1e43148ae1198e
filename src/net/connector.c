/*
 * connector.c - the identity of a client, and starting and closing its channels.
 */
#include "net/calling.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"

static void connector_init_chunk(tqi_net_fd_chunk *chunk)
{
    for (size_t i = 0; i < sizeof chunk->fds / sizeof *chunk->fds; i++) {
        atomic_init(&chunk->fds[i], -1);
    }
    atomic_init(&chunk->next, NULL);
}

/*
 * A slot is filled after its socket was opened and emptied before it is closed: at worst, a fork in between leaves the
 * child one socket too many; it never makes the child close a socket of somebody else.
 */
atomic_int *tqi_net_connector_note_fd(tqi_net_connector *connector, int fd)
{
    tqi_net_fd_chunk *chunk = &connector->fds;
    for (;;) {
        for (size_t i = 0; i < sizeof chunk->fds / sizeof *chunk->fds; i++) {
            if (atomic_load(&chunk->fds[i]) == -1) {
                atomic_store(&chunk->fds[i], fd);
                return &chunk->fds[i];
            }
        }
        tqi_net_fd_chunk *next = atomic_load(&chunk->next);
        if (!next) {
            next = malloc(sizeof *next);
            if (!next) {
                return NULL;
            }
            connector_init_chunk(next);
            atomic_store(&chunk->next, next);
        }
        chunk = next;
    }
}

void tqi_net_connector_forked(tqi_net_connector *connector)
{
    for (tqi_net_fd_chunk *chunk = &connector->fds; chunk; chunk = atomic_load(&chunk->next)) {
        for (size_t i = 0; i < sizeof chunk->fds / sizeof *chunk->fds; i++) {
            int fd = atomic_exchange(&chunk->fds[i], -1);
            if (fd >= 0) {
                close(fd);
            }
        }
    }
}

void tqi_net_connector_log(const tqi_net_connector *connector, tq_log_level level, const char *format, ...)
{
    char text[2 * TQ_ERROR_MESSAGE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (connector->part) {
        tqi_log(level, connector->part, "%s: %s", connector->name, text);
    } else {
        tqi_log(level, "client", "%s", text);
    }
}

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
    if (!options->token || options->token->size == 0) {
        return tqi_error_set(err, TQ_EINVAL, "a client needs a token");
    }
    const char *name = options->name ? options->name : "";
    if (strlen(name) > 255) {
        return tqi_error_set(err, TQ_ENAME, "session name has %zu bytes, at most 255 are allowed", strlen(name));
    }
    tqi_net_connector *connector = calloc(1, sizeof *connector);
    if (!connector) {
        return tqi_error_nomem(err, "a client");
    }
    connector->name = strdup(name);
    if (!connector->name) {
        free(connector);
        return tqi_error_nomem(err, "a client");
    }
    connector->loop = loop;
    connector->token = *options->token;
    connector->part = options->part;
    connector->own_system = options->own_system;
    connector->first_request = options->first_request ? options->first_request : 1;
    tqi_random(connector->session, sizeof connector->session);
    if (gethostname(connector->host, sizeof connector->host - 1) != 0) {
        connector->host[0] = 0;
    }
    connector_init_chunk(&connector->fds);
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

static void connector_free(void *owner)
{
    tqi_net_connector *connector = owner;
    void (*done)(void *) = connector->done;
    void *arg = connector->done_arg;
    tqi_net_fd_chunk *chunk = atomic_load(&connector->fds.next);
    while (chunk) {
        tqi_net_fd_chunk *next = atomic_load(&chunk->next);
        free(chunk);
        chunk = next;
    }
    OPENSSL_cleanse(&connector->token, sizeof connector->token);
    free(connector->name);
    free(connector);
    if (done) {
        done(arg);
    }
}

void tqi_net_connector_part_closed(tqi_net_connector *connector)
{
    if (--connector->open == 0 && connector->closing) {
        tqi_net_flusher_stop(&connector->flusher, connector_free);
    }
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
        tqi_net_flusher_stop(&connector->flusher, connector_free);
        return;
    }
    tqi_net_channel *channel;
    DL_FOREACH (connector->channels, channel) {
        tqi_net_channel_close(channel);
    }
}
