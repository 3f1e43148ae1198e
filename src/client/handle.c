/*
 * handle.c - the client object itself, for all who hold one: its references, waking its thread, and the time left.
 */
#include "client/runtime.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

static void handle_free(tq_client *client)
{
    pthread_mutex_destroy(&client->lock);
    pthread_cond_destroy(&client->changed);
    tqi_region_fini(&client->options.region);
    memset(&client->options.token, 0, sizeof(client->options.token));
    free(client->config);
    free(client);
}

void tqi_client_unref(tq_client *client)
{
    if (atomic_fetch_sub_explicit(&client->refs, 1, memory_order_acq_rel) == 1) {
        handle_free(client);
    }
}

void tqi_client_wake(tq_client *client)
{
    tqi_client_runtime *rt = client->runtime;

    if (rt != NULL && !rt->deaf && !client->woken) {
        client->woken = true;
        uv_async_send(&rt->async);
    }
}

bool tqi_client_on_loop(tq_client *client)
{
    bool on;

    pthread_mutex_lock(&client->lock);
    on = client->runtime != NULL && client->runtime->state != TQI_CLIENT_RUNTIME_DEAD &&
         pthread_equal(client->runtime->thread, pthread_self());
    pthread_mutex_unlock(&client->lock);
    return on;
}

uint64_t tqi_client_remaining_ms(uint64_t deadline)
{
    uint64_t now;

    if (deadline == TQI_NEVER) {
        return 0;
    }
    now = tqi_now();
    return deadline <= now ? 1 : (deadline - now) / 1000000u + 1;
}
