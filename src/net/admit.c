/*
 * admit.c - whether a session may have one more request: limits the number of its waiting requests and of kept replies.
 */
#include "net/serving.h"

#include "base/error.h"
#include "base/limits.h"

/* A client at its limits may still send these, up to twice the limit; otherwise it could never release what it holds. */
bool tqi_net_gives_back(uint16_t kind)
{
    switch (kind) {
    case TQI_RELEASE:
    case TQI_ABANDON_BLOCKS:
    case TQI_END_CLEAR:
    case TQI_SNAPSHOT_CLOSE:
    case TQI_RESTORE_DROP:
    case TQI_UNIT_UNPIN:
    case TQI_UNIT_FINISH:
        return true;
    default:
        return false;
    }
}

/* Sessions with few waiting requests are still admitted when others drive up the total. */
#define ADMIT_FLOOR (UINT64_C(64) << 10)

static int admit_all_waiting(const tqi_net_session *session, uint64_t times, tq_error *err)
{
    const tqi_net_server *server = session->server;

    if (server->running_bytes / times <= tqi_limits.all_waiting_bytes || session->running_bytes / times <= ADMIT_FLOOR) {
        return TQ_OK;
    }
    tqi_limit_reached(TQI_LIMIT_all_waiting_bytes);
    return tqi_error_set(err, TQ_EINVAL,
                         "session '%s' has requests of %llu bytes that wait, and all have %llu, "
                         "which is more than %llu (limits.all_waiting_bytes): let some end first, "
                         "or start the system with more",
                         session->name, (unsigned long long)session->running_bytes,
                         (unsigned long long)server->running_bytes, (unsigned long long)tqi_limits.all_waiting_bytes);
}

static int admit_waiting(const tqi_net_session *session, uint64_t times, tq_error *err)
{
    bool many = session->running / times >= tqi_limits.waiting;

    if (!many && session->running_bytes / times <= tqi_limits.waiting_bytes) {
        return TQ_OK;
    }
    tqi_limit_reached(many ? TQI_LIMIT_waiting : TQI_LIMIT_waiting_bytes);
    return tqi_error_set(err, TQ_EINVAL,
                         "session '%s' has %zu requests of %llu bytes that wait, at most "
                         "%llu of %llu may (limits.waiting, limits.waiting_bytes): let some end first, or start the "
                         "system with larger limits",
                         session->name, session->running, (unsigned long long)session->running_bytes,
                         (unsigned long long)tqi_limits.waiting, (unsigned long long)tqi_limits.waiting_bytes);
}

static int admit_kept(const tqi_net_session *session, bool back, uint64_t times, tq_error *err)
{
    bool many = session->kept / times >= tqi_limits.kept_replies;

    /* The limit on their number is enough to bound empty replies. */
    if (!many && (back || session->kept_bytes <= tqi_limits.kept_reply_bytes)) {
        return TQ_OK;
    }
    tqi_limit_reached(many ? TQI_LIMIT_kept_replies : TQI_LIMIT_kept_reply_bytes);
    return tqi_error_set(err, TQ_EINVAL,
                         "session '%s' has not acknowledged %zu replies of %llu bytes, at most "
                         "%llu of %llu may be kept (limits.kept_replies, limits.kept_reply_bytes): "
                         "acknowledge them",
                         session->name, session->kept, (unsigned long long)session->kept_bytes,
                         (unsigned long long)tqi_limits.kept_replies, (unsigned long long)tqi_limits.kept_reply_bytes);
}

int tqi_net_session_admit(const tqi_net_session *session, uint16_t kind, bool keep, tq_error *err)
{
    bool back = tqi_net_gives_back(kind);
    uint64_t times = back ? 2 : 1;
    int rc = admit_waiting(session, times, err);

    rc = rc ? rc : admit_all_waiting(session, times, err);
    if (rc == TQ_OK && keep) {
        rc = admit_kept(session, back, times, err);
    }
    return rc;
}
