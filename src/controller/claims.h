/*
 * claims.h - waiting claims, and what the status and events say about them.
 */
#ifndef TQI_CONTROLLER_CLAIMS_H
#define TQI_CONTROLLER_CLAIMS_H

#include "controller/controller.h"
#include "controller/convert.h"
#include "controller/session.h"
#include "sampler/sampler.h"
#include "table/table.h"
#include "wire/methods.h"

/* The view's ready set has grown: serves its waiters, oldest first. */
void tqi_ctl_claims_gather(tqi_table_view *view);
/* The partition was restored: the waiters of a view move to the new one. */
void tqi_ctl_claims_move(tqi_table_view *from, tqi_table_view *to, void *unused);

/* Describes a waiting claim, except its client. */
int tqi_ctl_claim_info(const tqi_ctl_waiting_claim *waiter, tqi_region *conv, Tq__WaitInfo *out, tq_error *err);
/* shortage.c: writes into `out` why the claim waits, in words. Returns whether it probably waits in vain. */
bool tqi_ctl_shortage(const tqi_table_view *view, const tq_sampler *sampler, const tq_pick_request *pick, char *out,
                      size_t size);
#define TQI_CTL_SHORTAGE 300u /* its size in bytes, so that an error has room for the rest */

/* waiting.c: what is waiting, at most 1000 entries. */
int tqi_ctl_waiting(tqi_controller *ctl, tqi_region *conv, Tq__WaitInfo ***out, size_t *n, tq_error *err);
/* Answers a session that asks what it is waiting for, with what it was not told before. */
int tqi_ctl_waiting_mine(tqi_controller *ctl, tqi_net_request *request, const Tq__SystemStatus *msg, tq_error *err);

#endif
