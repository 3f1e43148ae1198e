/*
 * keep.c - keeps a snapshot open while it is being saved. The controller closes a snapshot that nobody reads. Blocks
 * may take hours after the last part, and a single write as long as its file system pleases; so a timer tells the
 * controller that it is in use, whatever the save is waiting for.
 */
#include "client/checkpoint/checkpoint.h"

#include <utlist.h>

#include "base/clock.h"

/* Interval at which the snapshot is kept alive at the controller. */
#define KEEP_MS 2000u
#define KEEP_NS (KEEP_MS * UINT64_C(1000000))

static void keep_answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer; /* if it is closed, reading will show what is gone */
    (void)arg;
}

static void keep_due(uv_timer_t *timer)
{
    tqi_client_runtime *rt = timer->data;

    for (tqi_client_ckpt_kept *kept = rt->kept; kept != NULL; kept = kept->next) {
        Tq__SnapshotRead message;
        tqi_net_call_args args = {
            .kind = TQI_SNAPSHOT_READ,
            .message = &message.base,
            .deadline = tqi_now() + 2 * KEEP_NS,
            .done = keep_answered,
        };
        tq__snapshot_read__init(&message);
        message.id = kept->snapshot;
        message.keep = true;
        tqi_net_call_start(rt->controller, &args, NULL, NULL);
    }
}

void tqi_client_ckpt_keep_begin(tqi_client_ckpt_kept *kept, tqi_client_runtime *rt, uint64_t snapshot)
{
    kept->rt = rt;
    kept->snapshot = snapshot;
    DL_APPEND(rt->kept, kept);
    if (!rt->stopping && !uv_is_active((uv_handle_t *)&rt->keep_timer)) {
        uv_timer_start(&rt->keep_timer, keep_due, KEEP_MS, KEEP_MS);
    }
}

void tqi_client_ckpt_keep_end(tqi_client_ckpt_kept *kept)
{
    tqi_client_runtime *rt = kept->rt;

    if (rt == NULL) {
        return;
    }
    kept->rt = NULL;
    DL_DELETE(rt->kept, kept);
    if (rt->kept == NULL) {
        uv_timer_stop(&rt->keep_timer);
    }
}
