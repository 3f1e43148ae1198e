/*
 * queue.h - what ops and fork need of queues of completed ops.
 */
#ifndef TQI_CLIENT_QUEUE_H
#define TQI_CLIENT_QUEUE_H

#include <tq/tq.h>

/* Puts an op that has ended into its queue, and makes it DONE; loop thread. After that the op is no longer ours. */
void tqi_client_queue_push(tq_op *op);
/* Takes an op out of its queue, if it is in one: it is used again, or freed. */
void tqi_client_queue_leave(tq_op *op);

/* Taken around a fork. */
void tqi_client_queues_lock(void);
void tqi_client_queues_unlock(void);
void tqi_client_queues_forked(void);

#endif
