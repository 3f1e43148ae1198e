/*
 * handlers.h - one handler for each kind of request.
 */
#ifndef TQI_CONTROLLER_HANDLERS_H
#define TQI_CONTROLLER_HANDLERS_H

#include "controller/controller.h"
#include "wire/methods.h"

/* Handlers: TQ_OK if the request was answered or waits, else the error with which it fails. */
#define TQI_CTL_HANDLER(number, NAME, method, Message, reply, Reply, mode) \
    int tqi_ctl_on_##method(tqi_controller *ctl, tqi_net_request *request, const Tq__##Message *msg, tq_error *err);
TQI_METHODS_CONTROLLER(TQI_CTL_HANDLER)
#undef TQI_CTL_HANDLER

#endif
