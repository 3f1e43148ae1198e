/*
 * reply.h - who makes a request, whether it can be answered, and the answer.
 */
#ifndef TQI_CONTROLLER_REPLY_H
#define TQI_CONTROLLER_REPLY_H

#include "controller/controller.h"
#include "controller/session.h"
#include "wire/methods.h"

/* The request's session; NULL if it has ended. */
tqi_ctl_session *tqi_ctl_session_of(const tqi_net_request *request);
/* Its number for the table; 0 if it has ended. */
uint64_t tqi_ctl_session_number(const tqi_net_request *request);
/* Name of the request's session, "" if it has ended. */
const char *tqi_ctl_session_name(const tqi_net_request *request);
/* Like tqi_net_request_reply, without a payload. */
bool tqi_ctl_reply(tqi_net_request *request, const ProtobufCMessage *reply);
/* TQ_EINVAL if the reply to `what` of n samples would exceed a frame: must be called before changing anything that the
 * reply reports. */
int tqi_ctl_check_reply(const ProtobufCMessage *reply, const char *what, size_t n, tq_error *err);
/* The same, and allocates the memory it is sent from: after that, a reply no larger than this is certain to be sent. */
int tqi_ctl_prepare_reply(tqi_net_request *request, const ProtobufCMessage *reply, const char *what, size_t n,
                          tq_error *err);
/* Answers with an Empty. */
void tqi_ctl_reply_empty(tqi_net_request *request);
/* TQ_ESTALE if `epoch` is set and not this controller's. */
int tqi_ctl_check_epoch(tqi_controller *ctl, uint64_t epoch, const char *what, tq_error *err);

#endif
