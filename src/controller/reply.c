/*
 * reply.c - what handlers need to answer a request: whose it is, whether it is of this epoch, whether its reply fits
 * into a frame, and the reply.
 */
#include "controller/reply.h"

#include "base/clock.h"
#include "base/error.h"
#include "controller/controller.h"
#include "controller/controller_state.h"
#include "controller/session.h"

/* --- the session of a request --------------------------------------------- */

tqi_ctl_session *tqi_ctl_session_of(const tqi_net_request *request)
{
    tqi_net_session *session = tqi_net_request_session(request);

    return session != NULL ? tqi_net_session_user(session) : NULL;
}

uint64_t tqi_ctl_session_number(const tqi_net_request *request)
{
    const tqi_ctl_session *session = tqi_ctl_session_of(request);

    return session != NULL ? session->number : 0;
}

const char *tqi_ctl_session_name(const tqi_net_request *request)
{
    tqi_net_session *session = tqi_net_request_session(request);

    return session != NULL ? tqi_net_session_name(session) : "";
}

/* --- the reply ------------------------------------------------------------ */

bool tqi_ctl_reply(tqi_net_request *request, const ProtobufCMessage *reply)
{
    return tqi_net_request_reply(request, reply, NULL, 0, NULL, NULL);
}

static int ctl_check_size(size_t size, const char *what, size_t n, tq_error *err)
{
    if (size > TQI_FRAME_BODY_MAX) {
        return tqi_error_set(err, TQ_EINVAL,
                             "%s of %zu samples: its reply of %zu bytes is too large, at most %u "
                             "are possible: use smaller batches",
                             what, n, size, TQI_FRAME_BODY_MAX);
    }
    return TQ_OK;
}

int tqi_ctl_check_reply(const ProtobufCMessage *reply, const char *what, size_t n, tq_error *err)
{
    return ctl_check_size(protobuf_c_message_get_packed_size(reply), what, n, err);
}

int tqi_ctl_prepare_reply(tqi_net_request *request, const ProtobufCMessage *reply, const char *what, size_t n,
                          tq_error *err)
{
    size_t size = protobuf_c_message_get_packed_size(reply);
    int rc = ctl_check_size(size, what, n, err);

    return rc ? rc : tqi_net_request_prepare(request, size, err);
}

void tqi_ctl_reply_empty(tqi_net_request *request)
{
    Tq__Empty empty = TQ__EMPTY__INIT;

    tqi_ctl_reply(request, &empty.base);
}

/* --- which run of the controller ------------------------------------------ */

int tqi_ctl_check_epoch(tqi_controller *ctl, uint64_t epoch, const char *what, tq_error *err)
{
    uint64_t ours = tqi_table_epoch(ctl->table);

    if (epoch && epoch != ours) {
        char clock[32];
        const char *since =
            tqi_text_time(ctl->server != NULL ? tqi_net_server_started_us(ctl->server) : 0, clock, sizeof(clock));
        return tqi_error_set(err, TQ_ESTALE,
                             "%s is of an earlier run of the controller (epoch %016llx, now "
                             "%016llx): the controller was restarted%s%s, and what was stored "
                             "before that is gone; claim or resolve the samples again",
                             what, (unsigned long long)epoch, (unsigned long long)ours, since[0] ? " at " : "", since);
    }
    return TQ_OK;
}

const char *tqi_controller_endpoint(const tqi_controller *ctl)
{
    return ctl->endpoint.data != NULL ? (const char *)ctl->endpoint.data : "";
}
