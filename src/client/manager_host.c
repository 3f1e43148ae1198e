/*
 * manager_host.c - what the client offers its storage manager (tq_manager_host): grants, owners, the end of jobs,
 * thread pool.
 *
 * All on the loop thread. Requests of the manager are counted in rt->host_calls, work in rt->works: the runtime stops
 * only when none is left. A finished job is handed to the task that it belongs to.
 */
#include "client/runtime.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/pointer.h"
#include "wire/methods.h"

/* The server answers a wait this much before the client gives up. */
#define HOST_SLACK_NS 100000000u

typedef void (*host_granted_fn)(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg);
typedef void (*host_owners_fn)(const tq_error *err, const tq_owner_info *owners, size_t n, void *arg);
typedef void (*host_changes_fn)(const tq_error *err, const tqi_manager_owner_changes *changes, void *arg);

typedef struct host_call {
    tqi_client_runtime *rt;
    host_granted_fn granted;
    host_owners_fn owners;
    host_changes_fn changes;
    uint32_t count;
    void *arg;
} host_call;

static tqi_client_runtime *host_runtime(tq_manager_host *host)
{
    return TQI_CONTAINER(host, tqi_client_runtime, host);
}

static int host_start(host_call *made, uint16_t kind, const ProtobufCMessage *message, uint64_t deadline,
                      void (*done)(tqi_net_call *call, tqi_net_answer *answer, void *arg), tq_error *err)
{
    tqi_client_runtime *rt = made->rt;
    host_call *call = malloc(sizeof(*call));
    tqi_net_call_args args = {.kind = kind, .message = message, .deadline = deadline, .done = done, .arg = call};
    tqi_net_call *started;
    int rc;

    if (call == NULL) {
        return tqi_error_nomem(err, "a request of the storage manager");
    }
    *call = *made;
    rc = rt->stopping ? tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one")
                      : tqi_net_call_start(rt->controller, &args, &started, err);
    if (rc != TQ_OK) {
        free(call);
        return rc;
    }
    rt->host_calls++;
    return TQ_OK;
}

static host_call host_end(host_call *call)
{
    host_call made = *call;

    made.rt->host_calls--;
    free(call);
    return made;
}

/* --- grant, abandon ------------------------------------------------------- */

static void host_granted(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    host_call made = host_end(arg);
    const Tq__GrantBlocksReply *reply = (const Tq__GrantBlocksReply *)answer->reply;
    tq_error err = {0};

    (void)call;

    if (answer->status != TQ_OK) {
        made.granted(answer->error, 0, 0, made.arg);
        return;
    }
    if (reply->count != made.count || reply->first == 0 || reply->first > UINT64_MAX - reply->count) {
        tqi_error_set(&err, TQ_EPROTO, "the controller granted %u blocks from %llu, asked were %u", reply->count,
                      (unsigned long long)reply->first, made.count);
        made.granted(&err, 0, 0, made.arg);
        return;
    }
    made.rt->internal.grant = reply->grant.data;
    made.rt->internal.grant_size = reply->grant.len;
    made.granted(NULL, reply->first, reply->incarnation, made.arg);
    made.rt->internal.grant = NULL;
    made.rt->internal.grant_size = 0;
}

static void host_grant(tq_manager_host *host, const char *owner, uint32_t count, uint64_t deadline_ns,
                       host_granted_fn done, void *arg)
{
    host_call made = {.rt = host_runtime(host), .granted = done, .count = count, .arg = arg};
    Tq__GrantBlocks message;
    tq_error err = {0};

    tq__grant_blocks__init(&message);
    message.owner = tqi_unconst(owner);
    message.count = count;
    if (count < 1 || count > TQ_GRANT_MAX) {
        tqi_error_set(&err, TQ_EINVAL, "grant of %u blocks, expected 1 to %d", count, TQ_GRANT_MAX);
        done(&err, 0, 0, arg);
    } else if (host_start(&made, TQI_GRANT_BLOCKS, &message.base, deadline_ns, host_granted, &err) != TQ_OK) {
        done(&err, 0, 0, arg);
    }
}

static void host_told(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer; /* ids that are not given back now are released when the session ends */
    host_end(arg);
}

void tqi_client_abandon(tqi_client_runtime *rt, const uint64_t *ids, size_t n, bool done)
{
    host_call made = {.rt = rt};
    Tq__AbandonBlocks message;

    tq__abandon_blocks__init(&message);
    message.id = tqi_unconst(ids);
    message.n_id = n;
    message.writing = !done;
    if (n > 0) {
        host_start(&made, TQI_ABANDON_BLOCKS, &message.base, TQI_NEVER, host_told, NULL);
    }
}

void tqi_client_report_lost(tqi_client_runtime *rt, const uint64_t *ids, size_t n)
{
    host_call made = {.rt = rt};
    Tq__ReportLost message;

    tq__report_lost__init(&message);
    for (size_t at = 0; at < n; at += message.n_id) {
        message.id = tqi_unconst(&ids[at]);
        message.n_id = n - at < TQI_REPORT_LOST_MAX ? n - at : TQI_REPORT_LOST_MAX;
        host_start(&made, TQI_REPORT_LOST, &message.base, TQI_NEVER, host_told, NULL);
    }
}

static void host_abandon(tq_manager_host *host, const uint64_t *ids, size_t n, bool done)
{
    tqi_client_abandon(host_runtime(host), ids, n, done);
}

/* --- owners --------------------------------------------------------------- */

/* Calls back everyone who asked for owners, with the list or with its changes. */
static void host_list_end(const host_call *made, const tq_error *err, const tqi_manager_owner_changes *changes)
{
    if (made->changes != NULL) {
        made->changes(err, err != NULL ? NULL : changes, made->arg);
    } else if (made->owners != NULL) {
        made->owners(err, err != NULL ? NULL : changes->owners, err != NULL ? 0 : changes->n, made->arg);
    }
}

static void host_listed(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    host_call made = host_end(arg);
    const tq_error *failed = answer->error;
    tqi_manager_owner_changes changes = {0};
    tq_error err = {0};

    (void)call;

    if (answer->status == TQ_OK) {
        failed = tqi_manager_owner_changes_read((const Tq__ListOwnersReply *)answer->reply, &changes, &err) != TQ_OK
                     ? &err
                     : NULL;
    }
    host_list_end(&made, failed, &changes);
    tqi_manager_owner_changes_fini(&changes);
}

/* Sends it; ends the call if that fails. */
static void host_list(host_call *made, Tq__ListOwners *message, uint64_t deadline)
{
    tq_error err = {0};

    message->manager = tqi_unconst(made->rt->manager->type);
    message->timeout_ms = tqi_client_remaining_ms(deadline);
    message->brief = true;
    if (message->wait && deadline < TQI_NEVER - HOST_SLACK_NS) {
        deadline += HOST_SLACK_NS;
    }
    if (host_start(made, TQI_LIST_OWNERS, &message->base, deadline, host_listed, &err) != TQ_OK) {
        host_list_end(made, &err, NULL);
    }
}

static void host_owners(tq_manager_host *host, bool wait, uint64_t deadline_ns, host_owners_fn done, void *arg)
{
    host_call made = {.rt = host_runtime(host), .owners = done, .arg = arg};
    Tq__ListOwners message;

    tq__list_owners__init(&message);
    message.wait = wait;
    host_list(&made, &message, deadline_ns);
}

static void host_owner_changes(tq_manager_host *host, const tqi_manager_owners_at *since, bool wait,
                               uint64_t deadline_ns, host_changes_fn done, void *arg)
{
    host_call made = {.rt = host_runtime(host), .changes = done, .arg = arg};
    Tq__ListOwners message;

    tq__list_owners__init(&message);
    message.wait = wait;
    message.since = since->version;
    message.epoch = since->epoch;
    host_list(&made, &message, deadline_ns);
}

void tqi_client_owners(tqi_client_runtime *rt, const char *const *names, size_t n, uint64_t deadline,
                       host_owners_fn done, void *arg)
{
    host_call made = {.rt = rt, .owners = done, .arg = arg};
    Tq__ListOwners message;

    tq__list_owners__init(&message);
    message.name = tqi_unconst(names);
    message.n_name = n;
    host_list(&made, &message, deadline);
}

/* --- work ----------------------------------------------------------------- */

typedef struct host_job {
    uv_work_t work;
    tqi_client_runtime *rt;
    void (*run)(void *arg);
    void (*done)(void *arg);
    void *arg;
} host_job;

static void host_run(uv_work_t *work)
{
    host_job *job = work->data;

    job->run(job->arg);
}

static void host_ran(uv_work_t *work, int status)
{
    host_job job = *(host_job *)work->data;

    (void)status;
    free(work->data);
    job.rt->works--;
    job.done(job.arg);
}

static int host_work(tq_manager_host *host, void (*work)(void *arg), void (*done)(void *arg), void *arg)
{
    host_job *job = malloc(sizeof(*job));

    if (job == NULL) {
        return TQ_ENOMEM;
    }
    tqi_client_fork_uses_threads();
    job->rt = host_runtime(host);
    job->run = work;
    job->done = done;
    job->arg = arg;
    job->work.data = job;
    if (uv_queue_work(&job->rt->loop, &job->work, host_run, host_ran) != 0) {
        free(job);
        return TQ_ENOMEM;
    }
    job->rt->works++;
    return TQ_OK;
}

/* --- the ends of jobs ----------------------------------------------------- */

static void host_put_finish(tq_manager_host *host, tq_put_job *job, const tq_error *err, const tq_block *blocks,
                            uint32_t n_blocks, const tq_extent *extents, uint32_t n_extents)
{
    tqi_client_put_job *write = (tqi_client_put_job *)job;

    (void)host;
    write->written(write->task, err, blocks, n_blocks, extents, n_extents);
}

static void host_get_finish(tq_manager_host *host, tq_get_job *job, const tq_error *err, const uint32_t *gone,
                            uint32_t n_gone)
{
    tqi_client_get_job *read = (tqi_client_get_job *)job;

    (void)host;
    read->got(read->task, err, gone, n_gone);
}

void tqi_client_manager_host_init(tqi_client_runtime *rt)
{
    rt->host.abi = TQ_MANAGER_ABI;
    rt->host.grant = host_grant;
    rt->host.abandon = host_abandon;
    rt->host.owners = host_owners;
    rt->host.put_finish = host_put_finish;
    rt->host.get_finish = host_get_finish;
    rt->host.work = host_work;
    rt->host.internal = &rt->internal;
    rt->internal.owner_changes = host_owner_changes;
}
