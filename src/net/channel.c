/*
 * channel.c - a channel: when it connects, what it does when that fails, and how it closes. It connects at the first
 * call. Once it has been connected, and for as long as somebody holds it, it reconnects when the connection is lost,
 * even without calls: its session at the server must stay alive, and with it everything that depends on the session.
 *
 * States (TQI_NET_CHANNEL_*):
 *
 *   IDLE -> WAIT -> RESOLVE -> CONNECT -> GREET -> OPEN
 *
 *   IDLE     to WAIT with the first call (tqi_net_channel_kick)
 *   WAIT     to an attempt when the retry timer fires; a unix socket, or an address that is known, needs no RESOLVE
 *   RESOLVE, CONNECT, GREET
 *            to OPEN when the server has answered the greeting; when the attempt fails or takes too long, to the next
 *            address, then to the next endpoint, and after the last one to WAIT, for longer each time
 *   OPEN     to WAIT when the connection breaks, to IDLE when it is parked because nobody needs it now
 *   any      to IDLE when nothing wants a connection any more, or an error is final; to CLOSED, for good, when it is
 *            closed
 */
#include "net/calling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

static void channel_on_retry(uv_timer_t *timer);
static void channel_on_deadline(uv_timer_t *timer);

/* --- connecting ----------------------------------------------------------- */

void tqi_net_channel_reset_rx(tqi_net_channel *channel)
{
    if (channel->rx_reply != NULL) {
        protobuf_c_message_free_unpacked(channel->rx_reply, NULL);
        channel->rx_reply = NULL;
    }
    if (channel->goodbye != NULL) {
        protobuf_c_message_free_unpacked(&channel->goodbye->base, NULL);
        channel->goodbye = NULL;
    }
    channel->rx_call = NULL;
    channel->rx_error.code = TQ_OK;
}

static bool channel_is_over(const tqi_net_channel *channel)
{
    return channel->gone.code != TQ_OK || channel->connector->ended.code != TQ_OK;
}

static bool channel_wants_connection(const tqi_net_channel *channel)
{
    return channel->calls != NULL ||
           (channel->refs > 0 && channel->epoch != 0 && !channel->unwanted && !channel_is_over(channel));
}

/* For one attempt, in milliseconds. */
static unsigned channel_patience(const tqi_net_channel *channel)
{
    return channel_is_over(channel) ? TQI_NET_GONE_ATTEMPT_MS : TQI_NET_ATTEMPT_MS;
}

void tqi_net_channel_drop(tqi_net_channel *channel)
{
    tqi_net_conn *conn = channel->conn;

    channel->conn = NULL;
    tqi_net_channel_reset_rx(channel);
    if (conn != NULL) {
        tqi_net_conn_close(conn);
    }
}

static void channel_remember(tqi_net_channel *channel, const tq_error *why)
{
    char name[TQI_NET_ENDPOINT_MAX];

    tqi_net_endpoint_format(&channel->endpoints[channel->at], name, sizeof(name));
    tqi_error_set(&channel->reason, why->code, "%s: %s", name, why->message);
    if (channel->endpoints[channel->at].unix_socket) {
        snprintf(channel->unix_failure, sizeof(channel->unix_failure), "%.*s", (int)sizeof(channel->unix_failure) - 1,
                 channel->reason.message);
    }
}

static void channel_attempt(tqi_net_channel *channel)
{
    uv_timer_start(&channel->retry_timer, channel_on_retry, channel_patience(channel), 0);
    if (channel->at == 0) {
        channel->all_refused = channel->all_unknown = true;
    }
    channel->failure = TQI_NET_FAILURE_OTHER;
    /* Replaced as soon as the attempt makes progress. */
    channel->state = TQI_NET_CHANNEL_CONNECT;
    tqi_net_dial_start(channel);
}

static void channel_pause(tqi_net_channel *channel)
{
    channel->at = 0;
    if (!channel_wants_connection(channel)) {
        channel->state = TQI_NET_CHANNEL_IDLE;
        uv_timer_stop(&channel->retry_timer);
        return;
    }
    channel->state = TQI_NET_CHANNEL_WAIT;
    /* Half of it is random, so that the clients of a restarted server do not all come at once. */
    unsigned delay = channel->backoff_ms / 2 + (unsigned)(tqi_random_id() % (channel->backoff_ms / 2 + 1));
    uv_timer_start(&channel->retry_timer, channel_on_retry, delay, 0);
    channel->backoff_ms *= 2;
    if (channel->backoff_ms > TQI_NET_BACKOFF_MAX_MS) {
        channel->backoff_ms = TQI_NET_BACKOFF_MAX_MS;
    }
}

void tqi_net_channel_failed(tqi_net_channel *channel, const tq_error *why)
{
    bool was_open = channel->state == TQI_NET_CHANNEL_OPEN;

    channel_remember(channel, why);
    tqi_net_channel_drop(channel);
    tqi_net_connector_log(channel->connector, TQI_DEBUG, "%s", channel->reason.message);
    if (was_open) {
        /* Logged once: further failed attempts only write to the debug log. Not logged at all for a server that shut
         * down in order. */
        bool known = channel->restarting || channel->connector->ended.code != TQ_OK;
        tqi_net_connector_log(channel->connector, known ? TQI_INFO : TQI_WARN,
                              "connection to %s lost, trying again: %s", channel->endpoint, channel->reason.message);
        channel->lost_at = tqi_now();
        if (tqi_now() - channel->opened_at > TQI_NET_BACKOFF_CALM_NS) {
            channel->backoff_ms = TQI_NET_BACKOFF_MIN_MS;
        }
        tqi_net_dial_stop(channel);
        channel_pause(channel);
        return;
    }
    tqi_net_channel_note_failure(channel);
    if (tqi_net_dial_next_address(channel)) {
        return;
    }
    tqi_net_dial_stop(channel);
    channel->other = channel->other || why->code == TQ_ESTALE;
    if (channel->at + 1 < channel->n_endpoints) {
        channel->at++;
        channel_attempt(channel);
        return;
    }
    if (!channel->other && tqi_net_channel_give_up(channel)) {
        return;
    }
    if (channel->other) {
        /* The intended server may have been restarted, at these endpoints or at others: the channel's user finds out. */
        tq_error gone;
        tqi_error_set(&gone, TQ_ESTALE, "another server of this system is at %s", channel->endpoint);
        tqi_net_channel_fatal(channel, &gone);
        return;
    }
    channel_pause(channel);
}

void tqi_net_channel_fatal(tqi_net_channel *channel, const tq_error *why)
{
    channel_remember(channel, why);
    tqi_net_channel_fatal_as(channel, &channel->reason);
}

void tqi_net_channel_fatal_as(tqi_net_channel *channel, const tq_error *why)
{
    tq_error err = *why;

    tqi_net_channel_drop(channel);
    tqi_net_dial_stop(channel);
    uv_timer_stop(&channel->retry_timer);
    channel->state = TQI_NET_CHANNEL_IDLE;
    channel->at = 0;
    channel->other = false;
    channel->proto_errors = 0;
    tqi_net_call_give_up(channel, &err);
    tqi_net_channel_settle(channel);
}

/* The server has another version. A header of ours goes back, so that its log, too, names both. */
static void channel_tell_version(tqi_net_channel *channel)
{
    tqi_net_conn *conn = channel->conn;

    tqi_net_channel_send_control(channel, TQI_HELLO, NULL);
    channel->conn = NULL;
    tqi_net_channel_reset_rx(channel);
    tqi_net_conn_finish(conn);
}

static void channel_broken(tqi_net_channel *channel, const tq_error *err);

void tqi_net_channel_broken(tqi_net_conn *conn, const tq_error *err)
{
    tqi_net_channel *channel = conn->owner;

    if (channel->conn != conn || channel->state == TQI_NET_CHANNEL_CLOSED) {
        tqi_net_conn_close(conn);
        return;
    }
    if (err->code == TQ_EVERSION && channel->state == TQI_NET_CHANNEL_GREET) {
        tq_error why = {0};
        tqi_frame_version_error(&why, "the server", conn->frame.version, "this client");
        if (channel->told_version != conn->frame.version + 1) {
            tqi_net_connector_log(channel->connector, TQI_WARN, "%s: %s", channel->endpoint, why.message);
            channel->told_version = conn->frame.version + 1;
        }
        channel_tell_version(channel);
        channel_broken(channel, &why);
    } else {
        channel_broken(channel, err);
    }
}

static void channel_broken(tqi_net_channel *channel, const tq_error *err)
{
    if (err->code == TQ_EAUTH || err->code == TQ_EVERSION) {
        if (err->code == TQ_EAUTH && channel->connected_at == channel->at + 1 && tqi_net_channel_replaced(channel)) {
            return;
        }
        /* A path or an address of another host may belong to somebody else here, who refuses us: the next one is
         * tried. */
        if (channel->state == TQI_NET_CHANNEL_OPEN || channel->at + 1 >= channel->n_endpoints) {
            tqi_net_channel_fatal(channel, err);
            return;
        }
        char name[TQI_NET_ENDPOINT_MAX];
        tqi_net_endpoint_format(&channel->endpoints[channel->at], name, sizeof(name));
        tqi_net_connector_log(channel->connector, channel->told_other ? TQI_DEBUG : TQI_WARN,
                              "%s: %s; trying the next of %s", name, err->message, channel->endpoint);
        channel->told_other = true;
    }
    if (err->code == TQ_EPROTO) {
        tqi_net_connector_log(channel->connector, TQI_WARN, "connection to %s closed: %s", channel->endpoint,
                              err->message);
        if (++channel->proto_errors >= TQI_NET_PROTO_ERRORS) {
            tqi_net_channel_fatal(channel, err);
            return;
        }
    }
    tqi_net_channel_failed(channel, err);
}

static void channel_on_retry(uv_timer_t *timer)
{
    tqi_net_channel *channel = timer->data;

    switch (channel->state) {
    case TQI_NET_CHANNEL_WAIT:
        channel_attempt(channel);
        break;
    case TQI_NET_CHANNEL_RESOLVE:
    case TQI_NET_CHANNEL_CONNECT:
    case TQI_NET_CHANNEL_GREET: {
        tq_error err;
        channel->failure = TQI_NET_FAILURE_OTHER;
        tqi_error_set(&err, TQ_EIO, "no answer in %u s", channel_patience(channel) / 1000);
        tqi_net_channel_failed(channel, &err);
        if (channel->state != TQI_NET_CHANNEL_WAIT && channel->state != TQI_NET_CHANNEL_IDLE) {
            /* The next address has its own time. */
            uv_timer_start(&channel->retry_timer, channel_on_retry, channel_patience(channel), 0);
        }
        break;
    }
    case TQI_NET_CHANNEL_CLOSED:
        if (channel->conn != NULL) {
            tqi_net_conn_close(channel->conn);
        }
        break;
    default:
        break;
    }
}

void tqi_net_channel_park(tqi_net_channel *channel)
{
    tqi_net_conn *conn = channel->conn;

    if (!channel->parkable || channel->calls != NULL || channel->state != TQI_NET_CHANNEL_OPEN) {
        return;
    }
    tqi_net_channel_send_ack(channel);
    channel->conn = NULL;
    channel->state = TQI_NET_CHANNEL_IDLE;
    tqi_net_conn_finish(conn);
}

void tqi_net_channel_kick(tqi_net_channel *channel)
{
    if (channel->state == TQI_NET_CHANNEL_IDLE) {
        channel->state = TQI_NET_CHANNEL_WAIT;
        channel->backoff_ms = TQI_NET_BACKOFF_MIN_MS;
        uv_timer_start(&channel->retry_timer, channel_on_retry, 0, 0);
    }
}

void tqi_net_channel_opened(tqi_net_channel *channel, uint64_t epoch, bool resumed)
{
    bool fresh = !resumed || channel->epoch == 0;
    bool lost_session = !resumed && channel->epoch != 0;
    bool another = channel->epoch != 0 && channel->epoch != epoch;
    tqi_net_conn *conn = channel->conn;

    tqi_net_dial_stop(channel);
    uv_timer_stop(&channel->retry_timer);
    tqi_net_channel_back(channel);
    channel->epoch = epoch;
    channel->at = 0;
    channel->other = false;
    channel->reason.code = TQ_OK;
    channel->opened_at = tqi_now();
    if (lost_session) {
        tqi_net_call_stale(channel, another);
    }
    if (channel->conn != conn || channel->state != TQI_NET_CHANNEL_GREET) {
        return; /* closed by a callback */
    }
    /* Only now, so that calls started by the callbacks above also go out in the order of their numbers. */
    channel->state = TQI_NET_CHANNEL_OPEN;
    tqi_net_call_resend(channel);
    if (resumed) {
        /* The last acknowledgement may have been lost. It is queued after the requests, because one of them may undo an
         * answer. */
        channel->ack_sent = 0;
        channel->ack_hold = true;
        channel->arrived = channel->next_request - tqi_net_call_ack(channel);
        channel->arrived_bytes = TQI_NET_KEPT_BYTES; /* unknown, so the most it can be */
        tqi_net_channel_send_ack(channel);
    }
    for (size_t i = 0; i < channel->n_on_open && channel->conn == conn; i++) {
        channel->on_open[i].fn(channel, epoch, fresh, channel->on_open[i].arg);
    }
    if (channel->conn == conn) {
        tqi_net_channel_settle(channel);
    }
}

/* --- deadlines ------------------------------------------------------------ */

void tqi_net_channel_arm_deadline(tqi_net_channel *channel)
{
    if (channel->deadlines.top == NULL) {
        return; /* the timer may fire: it will find nothing to do */
    }
    uint64_t now = tqi_now();
    uint64_t deadline = channel->deadlines.top->key;
    uv_timer_start(&channel->deadline_timer, channel_on_deadline, deadline > now ? (deadline - now) / 1000000 + 1 : 0,
                   0);
}

static void channel_on_deadline(uv_timer_t *timer)
{
    tqi_net_channel *channel = timer->data;

    tqi_net_call_timeouts(channel);
    if (channel->state != TQI_NET_CHANNEL_CLOSED) {
        tqi_net_channel_arm_deadline(channel);
    }
}

/* --- start and end -------------------------------------------------------- */

static void channel_free(tqi_net_channel *channel)
{
    free(channel->on_open);
    free(channel->endpoints);
    free(channel->endpoint);
    free(channel);
}

static tqi_net_channel *channel_find(tqi_net_connector *connector, const char *endpoint, uint64_t server)
{
    tqi_net_channel *channel;

    DL_FOREACH (connector->channels, channel) {
        if (channel->state != TQI_NET_CHANNEL_CLOSED && channel->server == server &&
            strcmp(channel->endpoint, endpoint) == 0) {
            return channel;
        }
    }
    return NULL;
}

int tqi_net_channel_get(tqi_net_connector *connector, const char *endpoint, tqi_net_channel **out, tq_error *err)
{
    return tqi_net_channel_get_server(connector, endpoint, 0, out, err);
}

int tqi_net_channel_get_server(tqi_net_connector *connector, const char *endpoint, uint64_t server,
                               tqi_net_channel **out, tq_error *err)
{
    if (connector->closing) {
        return tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one");
    }
    if (endpoint == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "no endpoint is given");
    }
    tqi_net_channel *channel = channel_find(connector, endpoint, server);
    if (channel != NULL) {
        channel->refs++;
        *out = channel;
        return TQ_OK;
    }
    channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return tqi_error_nomem(err, "a channel");
    }
    int rc = tqi_net_endpoint_parse_list(endpoint, &channel->endpoints, &channel->n_endpoints, err);
    for (size_t i = 0; rc == TQ_OK && i < channel->n_endpoints; i++) {
        if (channel->endpoints[i].last_port != 0) {
            rc = tqi_error_set(err, TQ_EINVAL,
                               "endpoint '%s': a range of ports is there to listen in, not to "
                               "connect to",
                               endpoint);
        }
    }
    if (rc == TQ_OK) {
        channel->endpoint = strdup(endpoint);
        rc = channel->endpoint != NULL ? TQ_OK : tqi_error_nomem(err, "a channel");
    }
    if (rc != TQ_OK) {
        channel_free(channel);
        return rc;
    }
    channel->connector = connector;
    channel->server = server;
    channel->refs = 1;
    channel->next_request = connector->first_request;
    channel->backoff_ms = TQI_NET_BACKOFF_MIN_MS;
    uv_timer_init(connector->loop, &channel->deadline_timer);
    uv_timer_init(connector->loop, &channel->retry_timer);
    channel->deadline_timer.data = channel;
    channel->retry_timer.data = channel;
    channel->timers = 2;
    channel->primary = !connector->had_channel;
    connector->had_channel = true;
    DL_APPEND(connector->channels, channel);
    connector->open++;
    *out = channel;
    return TQ_OK;
}

void tqi_net_channel_settle(tqi_net_channel *channel)
{
    if (channel->refs > 0 || channel->state == TQI_NET_CHANNEL_CLOSED) {
        return;
    }
    const tqi_net_call *call;
    for (call = channel->calls; call != NULL; call = call->hh.next) {
        /* A late answer is awaited only while there is a connection on which it could arrive. */
        if (!call->ended || channel->state == TQI_NET_CHANNEL_OPEN) {
            return;
        }
    }
    tqi_net_channel_close(channel);
}

void tqi_net_channel_unref(tqi_net_channel *channel)
{
    channel->refs--;
    tqi_net_channel_settle(channel);
}

static void channel_on_timer_closed(uv_handle_t *handle)
{
    tqi_net_channel *channel = handle->data;

    if (--channel->timers == 0) {
        tqi_net_connector *connector = channel->connector;
        DL_DELETE(connector->channels, channel);
        channel_free(channel);
        tqi_net_connector_part_closed(connector);
    }
}

/* Called again when a connection of a closed channel has been freed. */
void tqi_net_channel_close(tqi_net_channel *channel)
{
    if (channel->state != TQI_NET_CHANNEL_CLOSED) {
        bool open = channel->state == TQI_NET_CHANNEL_OPEN;
        tq_error closed;
        tqi_error_set(&closed, TQ_ECLOSED, "the client is closed: open another one");
        if (open) {
            tqi_net_channel_acknowledge(channel, true);
        }
        /* Answers still in flight were not received: what they granted is given back. */
        uint64_t ack = tqi_net_call_ack(channel);
        channel->state = TQI_NET_CHANNEL_CLOSED;
        tqi_net_channel_reset_rx(channel);
        tqi_net_dial_stop(channel);
        tqi_net_call_end_all(channel, &closed);
        uv_timer_stop(&channel->deadline_timer);
        uv_timer_stop(&channel->retry_timer);
        if (channel->conn != NULL && open && !channel->conn->closed) {
            Tq__Bye bye;
            tq__bye__init(&bye);
            bye.finished = channel->connector->finished;
            tqi_net_channel_send(channel, TQI_BYE, ack, &bye.base);
            tqi_net_conn_finish(channel->conn);
            uv_timer_start(&channel->retry_timer, channel_on_retry, TQI_NET_GOODBYE_MS, 0);
        } else if (channel->conn != NULL) {
            tqi_net_conn_close(channel->conn);
        }
    }
    if (channel->conns == 0 && !uv_is_closing((uv_handle_t *)&channel->retry_timer)) {
        uv_close((uv_handle_t *)&channel->deadline_timer, channel_on_timer_closed);
        uv_close((uv_handle_t *)&channel->retry_timer, channel_on_timer_closed);
    }
}

/* The place of the listener with that arg; behind the last one: there is none. */
static size_t channel_listener(const tqi_net_channel *channel, const void *arg)
{
    size_t i = 0;

    while (i < channel->n_on_open && channel->on_open[i].arg != arg) {
        i++;
    }
    return i;
}

int tqi_net_channel_on_open(tqi_net_channel *channel,
                            void (*fn)(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg), void *arg,
                            tq_error *err)
{
    size_t i = channel_listener(channel, arg);

    if (i == channel->n_on_open) {
        if (tqi_grow(&channel->on_open, &channel->cap_on_open, i + 1, sizeof(*channel->on_open)) != TQ_OK) {
            return tqi_error_nomem(err, "a callback of a channel");
        }
        channel->n_on_open++;
    }
    channel->on_open[i] = (tqi_net_open_fn){fn, arg};
    return TQ_OK;
}

void tqi_net_channel_off_open(tqi_net_channel *channel, const void *arg)
{
    size_t i = channel_listener(channel, arg);

    if (i < channel->n_on_open) {
        channel->on_open[i] = channel->on_open[--channel->n_on_open];
    }
}

void tqi_net_channel_set_parkable(tqi_net_channel *channel)
{
    channel->parkable = true;
}

void tqi_net_channel_set_wanted(tqi_net_channel *channel, bool wanted)
{
    channel->unwanted = !wanted;
}

uint64_t tqi_net_channel_epoch_for_tests(const tqi_net_channel *channel)
{
    return channel->epoch;
}

const char *tqi_net_channel_unix_failure(const tqi_net_channel *channel)
{
    return channel->unix_failure;
}

bool tqi_net_channel_connected(const tqi_net_channel *channel)
{
    return channel->state == TQI_NET_CHANNEL_OPEN;
}

bool tqi_net_channel_local(const tqi_net_channel *channel)
{
    return channel->state == TQI_NET_CHANNEL_OPEN && channel->conn != NULL && channel->conn->unix_socket;
}
