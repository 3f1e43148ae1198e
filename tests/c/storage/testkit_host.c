/*
 * testkit_host.c - what a client offers its storage manager, on the kit's loop and with its real controller (see
 * testkit_host.h).
 */
#include "testkit_host.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

typedef struct host_call {
    host *h;
    uint32_t count;
    void (*granted)(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg);
    void (*listed)(const tq_error *err, const tq_owner_info *owners, size_t n, void *arg);
    void (*changed)(const tq_error *err, const tqi_manager_owner_changes *changes, void *arg);
    void *arg;
} host_call;

static host *host_of(tq_manager_host *base)
{
    return (host *)(void *)base;
}

/* Starts a request; one that cannot be started (the client is being closed) ends at once. */
static void host_call_start(tq_manager_host *base, uint16_t kind, const void *message, uint64_t deadline,
                            void (*done)(tqi_net_call *call, tqi_net_answer *answer, void *arg), host_call made)
{
    host *h = host_of(base);
    host_call *call = malloc(sizeof(*call));
    tq_error err = {0};

    assert_non_null(call);
    *call = made;
    call->h = h;
    tqi_net_call_args args = {.kind = kind, .message = message, .deadline = deadline, .done = done, .arg = call};
    h->open++;
    if (tqi_net_call_start(h->client.controller, &args, NULL, &err) != TQ_OK) {
        assert_int_equal(err.code, TQ_ECLOSED);
        tqi_net_answer answer = {.status = err.code, .error = &err};
        done(NULL, &answer, call);
    }
}

static void host_granted(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    host_call made = *(host_call *)arg;
    const Tq__GrantBlocksReply *reply = (const Tq__GrantBlocksReply *)answer->reply;

    (void)call;
    free(arg);
    made.h->open--;
    made.h->internal.grant = reply != NULL ? reply->grant.data : NULL;
    made.h->internal.grant_size = reply != NULL ? reply->grant.len : 0;
    made.granted(answer->status != TQ_OK ? answer->error : NULL, reply != NULL ? reply->first : 0,
                 reply != NULL ? reply->incarnation : 0, made.arg);
}

static void host_grant(tq_manager_host *base, const char *owner, uint32_t count, uint64_t deadline_ns,
                       void (*done)(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg), void *arg)
{
    Tq__GrantBlocks message;

    tq__grant_blocks__init(&message);
    message.owner = (char *)(uintptr_t)owner;
    message.count = count;
    host_of(base)->grants++;
    host_call_start(base, TQI_GRANT_BLOCKS, &message, deadline_ns, host_granted,
                    (host_call){.count = count, .granted = done, .arg = arg});
}

static void host_abandoned(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    host_call made = *(host_call *)arg;

    (void)call;
    (void)answer;
    free(arg);
    made.h->open--;
}

static void host_abandon(tq_manager_host *base, const uint64_t *ids, size_t n, bool done)
{
    Tq__AbandonBlocks message;

    tq__abandon_blocks__init(&message);
    message.id = (uint64_t *)(uintptr_t)ids;
    message.n_id = n;
    message.writing = !done;
    host_of(base)->abandoned += n;
    host_call_start(base, TQI_ABANDON_BLOCKS, &message, TQI_NEVER, host_abandoned, (host_call){.count = 0});
}

static void host_listed(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    host_call made = *(host_call *)arg;
    const Tq__ListOwnersReply *reply = (const Tq__ListOwnersReply *)answer->reply;
    tqi_manager_owner_changes changes = {0};
    tq_error err = {0};

    (void)call;
    free(arg);
    made.h->open--;
    const tq_error *failed = answer->status != TQ_OK ? answer->error : NULL;
    if (failed == NULL) {
        assert_int_equal(tqi_manager_owner_changes_read(reply, &changes, &err), TQ_OK);
        made.h->listed += changes.n;
    }
    if (made.changed != NULL) {
        made.changed(failed, failed == NULL ? &changes : NULL, made.arg);
    } else {
        made.listed(failed, changes.owners, changes.n, made.arg);
    }
    tqi_manager_owner_changes_fini(&changes);
}

static void host_owners(tq_manager_host *base, bool wait, uint64_t deadline_ns,
                        void (*done)(const tq_error *err, const tq_owner_info *owners, size_t n, void *arg), void *arg)
{
    Tq__ListOwners message;

    tq__list_owners__init(&message);
    message.manager = (char *)(uintptr_t)host_of(base)->manager->type;
    message.wait = wait;
    message.brief = true;
    host_call_start(base, TQI_LIST_OWNERS, &message, deadline_ns, host_listed, (host_call){.listed = done, .arg = arg});
}

static void host_owner_changes(tq_manager_host *base, const tqi_manager_owners_at *since, bool wait,
                               uint64_t deadline_ns,
                               void (*done)(const tq_error *err, const tqi_manager_owner_changes *changes, void *arg),
                               void *arg)
{
    Tq__ListOwners message;

    tq__list_owners__init(&message);
    message.manager = (char *)(uintptr_t)host_of(base)->manager->type;
    message.wait = wait;
    message.brief = true;
    message.since = since->version;
    message.epoch = since->epoch;
    host_call_start(base, TQI_LIST_OWNERS, &message, deadline_ns, host_listed, (host_call){.changed = done, .arg = arg});
}

typedef struct host_work {
    uv_work_t work;
    host *h;
    void (*run)(void *arg);
    void (*done)(void *arg);
    void *arg;
} host_work;

static void host_work_run(uv_work_t *work)
{
    host_work *made = work->data;

    made->run(made->arg);
}

static void host_work_done(uv_work_t *work, int status)
{
    host_work made = *(host_work *)work->data;

    (void)status;
    free(work->data);
    made.h->open--;
    made.done(made.arg);
}

static int host_work_start(tq_manager_host *base, void (*run)(void *arg), void (*done)(void *arg), void *arg)
{
    host *h = host_of(base);
    host_work *made = malloc(sizeof(*made));

    assert_non_null(made);
    made->h = h;
    made->run = run;
    made->done = done;
    made->arg = arg;
    made->work.data = made;
    h->open++;
    h->works++;
    return uv_queue_work(h->internal.loop, &made->work, host_work_run, host_work_done) == 0 ? TQ_OK : TQ_ENOMEM;
}

static void *host_copy(const void *from, size_t size)
{
    void *to = malloc(size + 1);

    to = to != NULL ? to : malloc(size + 1); /* a test may let one allocation fail, but not this one */
    assert_non_null(to);
    if (size > 0) {
        memcpy(to, from, size);
    }
    return to;
}

static void host_put_finish(tq_manager_host *base, tq_put_job *job, const tq_error *err, const tq_block *blocks,
                            uint32_t n_blocks, const tq_extent *extents, uint32_t n_extents)
{
    host_end *end = job->user;

    (void)base;
    assert_false(end->done);
    end->done = true;
    if (err != NULL) {
        end->err = *err;
        assert_true(err->code < 0);
        return;
    }
    end->blocks = host_copy(blocks, n_blocks * sizeof(*blocks));
    end->n_blocks = n_blocks;
    for (uint32_t i = 0; i < n_blocks; i++) {
        end->blocks[i].owner = strdup(blocks[i].owner);
    }
    end->extents = host_copy(extents, n_extents * sizeof(*extents));
    end->n_extents = n_extents;
}

static void host_get_finish(tq_manager_host *base, tq_get_job *job, const tq_error *err, const uint32_t *gone,
                            uint32_t n_gone)
{
    host_end *end = job->user;

    (void)base;
    assert_false(end->done);
    end->done = true;
    if (err != NULL) {
        end->err = *err;
        assert_true(err->code < 0);
        return;
    }
    end->gone = host_copy(gone, n_gone * sizeof(*gone));
    end->n_gone = n_gone;
}

/* --- life ----------------------------------------------------------------- */

static void host_opened(const tq_error *err, void *arg)
{
    assert_true(err == NULL || err->code == TQ_OK);
    *(bool *)arg = true;
}

static void host_closed(void *arg)
{
    *(bool *)arg = true;
}

static void host_connected(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg)
{
    host *h = arg;

    (void)channel;
    (void)fresh;
    h->base.epoch = epoch;
}

void host_open(kit *k, host *h, const char *type, const char *config)
{
    bool opened = false;
    Tq__ListPartitions message;
    kit_call call;
    tq_error err = {0};

    memset(h, 0, sizeof(*h));
    assert_int_equal(tq_manager_find(type, &h->manager, &err), TQ_OK);
    kit_client_open(k, &h->client, -1);
    assert_int_equal(tqi_net_channel_on_open(h->client.controller, host_connected, h, NULL), TQ_OK);
    tq__list_partitions__init(&message);
    kit_start(&h->client, h->client.controller, TQI_LIST_PARTITIONS, &message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(&h->client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
    h->internal =
        (tqi_manager_internal){.loop = &k->loop, .connector = h->client.connector, .controller = h->client.controller};
    h->internal.owner_changes = host_owner_changes;
    h->base.abi = TQ_MANAGER_ABI;
    h->base.grant = host_grant;
    h->base.abandon = host_abandon;
    h->base.owners = host_owners;
    h->base.put_finish = host_put_finish;
    h->base.get_finish = host_get_finish;
    h->base.work = host_work_start;
    h->base.internal = &h->internal;
    h->state = calloc(1, h->manager->state_size);
    assert_non_null(h->state);
    h->manager->open(h->state, &h->base, config, host_opened, &opened);
    kit_until(k, &opened);
}

void host_close(host *h)
{
    bool closed = false;
    kit *k = h->client.kit;

    /* As the client does: what waits by itself, then the connector, which ends every request. */
    if (h->internal.stop != NULL) {
        h->internal.stop(h->state);
    }
    kit_client_close(&h->client);
    while (h->open > 0) {
        uv_run(&k->loop, UV_RUN_ONCE);
    }
    h->manager->close(h->state, host_closed, &closed);
    kit_until(k, &closed);
    free(h->state);
}

void host_put_start(host *h, tq_put_job *job, host_end *end)
{
    memset(end, 0, sizeof(*end));
    job->user = end;
    h->manager->put(h->state, job);
}

void host_get_start(host *h, tq_get_job *job, host_end *end)
{
    memset(end, 0, sizeof(*end));
    job->user = end;
    h->manager->get(h->state, job);
}

void host_wait(host *h, const host_end *end)
{
    kit_until(h->client.kit, &end->done);
}

void host_end_free(host_end *end)
{
    for (uint32_t i = 0; i < end->n_blocks; i++) {
        free((void *)(uintptr_t)end->blocks[i].owner);
    }
    free(end->blocks);
    free(end->extents);
    free(end->gone);
    memset(end, 0, sizeof(*end));
}
