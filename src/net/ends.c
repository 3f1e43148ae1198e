/*
 * ends.c - servers that are gone: they sent a Goodbye, or somebody else answers in their place, or nobody does. A
 * client has one system. The first channel of its connector leads to the controller (`primary`); if that ends, the end
 * applies to all channels: connector->ended. If another server ends, it applies to that server alone: channel->gone.
 * Both make calls fail at once, but do not stop the client from trying: each later call makes one round of attempts,
 * and a successful connection clears that state.
 */
#include "net/calling.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

static const char *ends_who(const tqi_net_connector *connector)
{
    return connector->part != NULL ? connector->part : "client";
}

/* What a program can do about it; a part of a daemon rejoins the next server there by itself. */
static const char *ends_remedy(const tqi_net_connector *connector)
{
    return connector->part != NULL ? "" : ": call init(), or open a new client, to attach to the system that runs now";
}

/* --- what is known at once ------------------------------------------------ */

/* Nothing more is sent to this server or expected from it. */
static void ends_drop(tqi_net_channel *channel)
{
    tqi_net_channel_drop(channel);
    tqi_net_dial_stop(channel);
    uv_timer_stop(&channel->retry_timer);
    channel->state = TQI_NET_CHANNEL_IDLE;
    channel->at = 0;
    channel->other = false;
}

/* `why` is a copy: callbacks may change the connector's. */
static void ends_system(tqi_net_connector *connector, tq_error why)
{
    tqi_net_channel *channel;

    connector->ended = why;
    tqi_net_connector_log(connector, connector->own_system ? TQI_DEBUG : TQI_INFO, "%s", why.message);
    DL_FOREACH (connector->channels, channel) {
        if (channel->state != TQI_NET_CHANNEL_CLOSED) {
            ends_drop(channel);
        }
    }
    if (connector->on_ended != NULL) {
        connector->on_ended(&why, connector->on_ended_arg);
    }
    /* Channels that are closed meanwhile stay in the list until the loop continues. */
    DL_FOREACH (connector->channels, channel) {
        if (channel->state != TQI_NET_CHANNEL_CLOSED) {
            tqi_net_call_end_all(channel, &why);
        }
        if (channel->state != TQI_NET_CHANNEL_CLOSED) {
            tqi_net_channel_settle(channel);
        }
    }
}

static void ends_server(tqi_net_channel *channel, tq_error why)
{
    channel->gone = why;
    tqi_net_connector_log(channel->connector, TQI_INFO, "%s: %s", channel->endpoint, why.message);
    ends_drop(channel);
    tqi_net_call_end_all(channel, &why);
    if (channel->state != TQI_NET_CHANNEL_CLOSED) {
        tqi_net_channel_settle(channel);
    }
}

void tqi_net_channel_goodbye(tqi_net_channel *channel)
{
    Tq__Goodbye *goodbye = channel->goodbye;
    tq_error why;

    channel->goodbye = NULL;
    if (goodbye->ending == TQ__ENDING__ENDS_SYSTEM && channel->primary) {
        tqi_error_set(&why, TQ_EENDED, "system '%s', which this %s was attached to, has ended (%s)%s", goodbye->system,
                      ends_who(channel->connector), goodbye->reason, ends_remedy(channel->connector));
    } else if (goodbye->ending == TQ__ENDING__ENDS_RUN) {
        tqi_error_set(&why, TQ_EIO, "it ends to be started again (%s)", goodbye->reason);
    } else {
        tqi_error_set(&why, TQ_EUNREACHABLE, "%s has ended (%s)", goodbye->server, goodbye->reason);
    }
    protobuf_c_message_free_unpacked(&goodbye->base, NULL);
    if (why.code == TQ_EENDED) {
        ends_system(channel->connector, why);
    } else if (why.code == TQ_EUNREACHABLE) {
        ends_server(channel, why);
    } else {
        channel->restarting = true;
        tqi_net_channel_failed(channel, &why);
    }
}

bool tqi_net_channel_replaced(tqi_net_channel *channel)
{
    char name[TQI_NET_ENDPOINT_MAX], clock[32];
    tq_error why;

    if (channel->epoch == 0) {
        return false;
    }
    tqi_net_endpoint_format(&channel->endpoints[channel->at], name, sizeof(name));
    if (!channel->primary) {
        tqi_error_set(&why, TQ_EUNREACHABLE, "another system's server answers at %s now", name);
        ends_server(channel, why);
        return true;
    }
    const char *since = tqi_text_time(channel->challenge_started_us, clock, sizeof(clock));
    bool same = channel->challenge_system[0] && strcmp(channel->challenge_system, channel->system) == 0;
    tqi_error_set(&why, TQ_EENDED,
                  "system '%s', which this %s was attached to, has ended; another one%s answers "
                  "at %s%s%s%s",
                  channel->system, ends_who(channel->connector), same ? " of that name" : ", with another token,", name,
                  since[0] ? " since " : " now", since, ends_remedy(channel->connector));
    ends_system(channel->connector, why);
    return true;
}

void tqi_net_connector_set_ended(tqi_net_connector *connector, const tq_error *why)
{
    connector->ended = *why;
}

void tqi_net_connector_on_ended(tqi_net_connector *connector, void (*fn)(const tq_error *why, void *arg), void *arg)
{
    connector->on_ended = fn;
    connector->on_ended_arg = arg;
}

/* --- what attempts tell together ------------------------------------------ */

static bool ends_same_address(const struct sockaddr *a, const struct sockaddr_storage *b)
{
    if (a == NULL || a->sa_family != b->ss_family) {
        return false;
    }
    if (a->sa_family == AF_INET) {
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    }
    return a->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

/* Whether it is one of this machine's addresses. */
static bool ends_local(const struct sockaddr_storage *address)
{
    struct ifaddrs *all = NULL;
    bool found = address->ss_family == AF_UNIX;

    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        found = ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    if (!found && getifaddrs(&all) == 0) {
        for (const struct ifaddrs *one = all; one != NULL && !found; one = one->ifa_next) {
            found = ends_same_address(one->ifa_addr, address);
        }
        freeifaddrs(all);
    }
    return found;
}

void tqi_net_channel_refused(tqi_net_channel *channel, int errnum)
{
    bool nobody = errnum == ECONNREFUSED || (errnum == ENOENT && channel->dialed.ss_family == AF_UNIX);

    if (nobody && ends_local(&channel->dialed)) {
        channel->failure = TQI_NET_FAILURE_REFUSED;
    }
}

void tqi_net_channel_note_failure(tqi_net_channel *channel)
{
    if (channel->failure != TQI_NET_FAILURE_UNKNOWN) {
        channel->all_unknown = false;
    }
    if (channel->failure == TQI_NET_FAILURE_OTHER) {
        channel->all_refused = false;
    }
    channel->failure = TQI_NET_FAILURE_OTHER;
}

/* Logs that there has been no answer for a while, and repeats that from time to time. */
static void ends_tell(tqi_net_channel *channel, uint64_t now)
{
    if (now - channel->failing_since < TQI_NET_PATIENCE_NS ||
        (channel->told_at != 0 && now - channel->told_at < TQI_NET_SAY_NS)) {
        return;
    }
    channel->told_at = now;
    tqi_net_connector_log(channel->connector, TQI_WARN, "still waiting for %s after %.0f s: %s", channel->endpoint,
                          (double)(now - channel->failing_since) / 1e9, channel->reason.message);
}

bool tqi_net_channel_give_up(tqi_net_channel *channel)
{
    const tqi_net_connector *connector = channel->connector;
    uint64_t now = tqi_now();
    uint64_t patience = channel->primary ? TQI_NET_REFUSED_NS : TQI_NET_REFUSED_UNIT_NS;
    tq_error why = connector->ended.code != TQ_OK ? connector->ended : channel->gone;

    if (why.code != TQ_OK) {
        tqi_net_channel_fatal_as(channel, &why);
        return true;
    }
    if (channel->failing_since == 0) {
        channel->failing_since = now;
    }
    ends_tell(channel, now);
    if (!channel->all_refused || channel->restarting) {
        channel->refused_since = 0;
    } else if (channel->refused_since == 0) {
        channel->refused_since = now;
    }
    if (channel->all_unknown && channel->epoch == 0) {
        tqi_error_set(&why, TQ_EUNREACHABLE, "%s cannot be reached: %s", channel->endpoint, channel->reason.message);
    } else if (channel->refused_since != 0 && now - channel->refused_since >= patience) {
        tqi_error_set(&why, TQ_EUNREACHABLE,
                      "%s cannot be reached: %s; nobody has listened there for %.1f s: check the "
                      "address, and that the system runs",
                      channel->endpoint, channel->reason.message, (double)(now - channel->refused_since) / 1e9);
    } else {
        return false;
    }
    tqi_net_channel_fatal_as(channel, &why);
    return true;
}

void tqi_net_channel_back(tqi_net_channel *channel)
{
    tqi_net_connector *connector = channel->connector;

    if (channel->lost_at != 0) {
        tqi_net_connector_log(channel->connector, channel->restarting ? TQI_INFO : TQI_WARN,
                              "connection to %s is back after %.1f s", channel->endpoint,
                              (double)(tqi_now() - channel->lost_at) / 1e9);
    }
    channel->connected_at = channel->at + 1;
    channel->lost_at = 0;
    channel->failing_since = 0;
    channel->refused_since = 0;
    channel->told_at = 0;
    channel->told_other = false;
    channel->restarting = false;
    channel->gone.code = TQ_OK;
    if (channel->primary && connector->ended.code != TQ_OK) {
        connector->ended.code = TQ_OK;
        tqi_net_connector_log(channel->connector, TQI_INFO, "a system serves at %s again", channel->endpoint);
        if (connector->on_ended != NULL) {
            connector->on_ended(NULL, connector->on_ended_arg);
        }
    }
}
