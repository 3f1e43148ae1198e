/*
 * client_handshake.c - the client's side of the handshake: CHALLENGE, HELLO, WELCOME or FAILED.
 */
#include "net/calling.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define GREET_BODY_MAX 4096

int tqi_net_client_handshake_head(const tqi_frame *frame, tq_error *err)
{
    if (frame->body > GREET_BODY_MAX || frame->payload > 0 ||
        (frame->kind != TQI_CHALLENGE && frame->kind != TQI_WELCOME && frame->kind != TQI_FAILED)) {
        return tqi_error_set(err, TQ_EPROTO, "malformed frame: kind %u, %u + %llu bytes, in the handshake",
                             (unsigned)frame->kind, (unsigned)frame->body, (unsigned long long)frame->payload);
    }
    return TQ_OK;
}

static int greet_challenge(tqi_net_channel *channel, const Tq__Challenge *challenge, tq_error *err)
{
    tqi_net_connector *connector = channel->connector;

    if (channel->challenged || challenge->nonce.len != TQI_NET_NONCE) {
        return tqi_error_set(err, TQ_EPROTO, "malformed message: a second or wrong Challenge");
    }
    channel->challenged = true;
    snprintf(channel->challenge_system, sizeof(channel->challenge_system), "%s", challenge->system);
    channel->challenge_started_us = challenge->started_us;
    memcpy(channel->server_nonce, challenge->nonce.data, TQI_NET_NONCE);
    tqi_random(channel->client_nonce, TQI_NET_NONCE);
    uint8_t proof[TQI_NET_PROOF];
    if (tqi_net_auth_proof(&connector->token, "tq-client", channel->server_nonce, channel->client_nonce,
                           connector->session, proof) != TQ_OK) {
        return tqi_error_set(err, TQ_EINTERNAL, "no proof could be computed");
    }
    Tq__Hello hello;
    tq__hello__init(&hello);
    hello.nonce = (ProtobufCBinaryData){TQI_NET_NONCE, channel->client_nonce};
    hello.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    hello.session = (ProtobufCBinaryData){TQI_NET_SESSION_ID, connector->session};
    hello.epoch = channel->epoch;
    hello.instance = channel->instance;
    hello.name = connector->name;
    hello.pid = (uint64_t)getpid();
    hello.host = connector->host;
    hello.goodbyes = true;
    tqi_net_channel_send_control(channel, TQI_HELLO, &hello.base);
    return TQ_OK;
}

static int greet_welcome(tqi_net_channel *channel, const Tq__Welcome *welcome, tq_error *err)
{
    tqi_net_connector *connector = channel->connector;
    uint8_t proof[TQI_NET_PROOF];

    if (!channel->challenged) {
        return tqi_error_set(err, TQ_EPROTO, "malformed message: a Welcome without a Challenge");
    }
    if (tqi_net_auth_proof(&connector->token, "tq-server", channel->client_nonce, channel->server_nonce,
                           connector->session, proof) != TQ_OK) {
        return tqi_error_set(err, TQ_EINTERNAL, "no proof could be computed");
    }
    if (welcome->proof.len != TQI_NET_PROOF || !tqi_net_auth_equal(proof, welcome->proof.data, TQI_NET_PROOF)) {
        return tqi_error_set(err, TQ_EAUTH, "authentication failed: the server does not know the token");
    }
    if (welcome->epoch == 0) {
        return tqi_error_set(err, TQ_EPROTO, "malformed message: a Welcome without an epoch");
    }
    if (channel->server != 0 && welcome->server != channel->server) {
        /* It is not lying, because it knows the token: the address belongs to another server here. */
        return tqi_error_set(err, TQ_ESTALE, "another server of this system answers there");
    }
    channel->instance = welcome->instance;
    snprintf(channel->system, sizeof(channel->system), "%s", welcome->system);
    channel->started_us = welcome->started_us;
    if (welcome->crowded) {
        connector->crowded_at = tqi_now();
    }
    tqi_net_channel_opened(channel, welcome->epoch, welcome->resumed);
    return TQ_OK;
}

int tqi_net_client_handshake_body(tqi_net_channel *channel, const tqi_frame *frame, const uint8_t *body, tq_error *err)
{
    const ProtobufCMessageDescriptor *type = frame->kind == TQI_CHALLENGE ? &tq__challenge__descriptor
                                             : frame->kind == TQI_WELCOME ? &tq__welcome__descriptor
                                                                          : &tq__error__descriptor;
    ProtobufCMessage *message = tqi_message_decode(type, body, frame->body, err);

    if (message == NULL) {
        return err->code;
    }
    int rc;
    if (frame->kind == TQI_CHALLENGE) {
        rc = greet_challenge(channel, (const Tq__Challenge *)message, err);
    } else if (frame->kind == TQI_WELCOME) {
        rc = greet_welcome(channel, (const Tq__Welcome *)message, err);
    } else {
        const Tq__Error *refused = (const Tq__Error *)message;
        /* Only errors that the user can fix are final; after anything else, the client tries again. */
        bool final = refused->code == TQ_EAUTH || refused->code == TQ_EVERSION;
        const char *file = refused->code == TQ_EAUTH ? channel->connector->token.file : "";
        rc = tqi_error_set(err, final ? refused->code : TQ_EIO, "%s%s%s%s", refused->message,
                           file[0] ? " (the one that was used is of " : "", file, file[0] ? ")" : "");
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return rc;
}
