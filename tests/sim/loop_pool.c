/*
 * loop_pool.c - libuv's thread pool: works are fibers, at most four at a time in a process, as in libuv.
 */
#include "loop_state.h"

#include <netdb.h>
#include <string.h>

#include "scheduler.h"

#define LOOP_POOL 4

struct loop_work {
    uv_req_t *req; /* NULL: its loop's process has ended */
    sim_loop *own;
    void (*run)(loop_work *work);
    void (*after)(loop_work *work, int status);
    sim_fiber *fiber;
    bool done;
    int status;
    loop_work *next;
};

/* --- the thread pool ------------------------------------------------------------------------------------------ */

static uint32_t pool_running(const sim_process *process)
{
    uint32_t n = 0;

    for (const sim_loop *own = sim_loops; own != NULL; own = own->next) {
        for (const loop_work *work = own->works; own->process == process && work != NULL; work = work->next) {
            n += work->fiber != NULL && !work->done;
        }
    }
    return n;
}

static void work_main(void *arg);

/* Starts works while threads are free: those that were queued first. */
static void pool_start(sim_process *process)
{
    for (sim_loop *own = sim_loops; own != NULL; own = own->next) {
        for (loop_work *work = own->works; own->process == process && work != NULL; work = work->next) {
            if (work->fiber == NULL && !work->done && pool_running(process) < LOOP_POOL) {
                work->fiber = sim_fiber_start(process, "pool", work_main, work);
            }
        }
    }
}

static void work_main(void *arg)
{
    loop_work *work = arg;
    sim_process *process = sim_self;

    work->run(work);
    work->done = true;
    loop_wake(work->own);
    pool_start(process);
}

static void work_queue(uv_loop_t *loop, uv_req_t *req, uv_req_type type, void (*run)(loop_work *work),
                       void (*after)(loop_work *work, int status))
{
    sim_loop *own = loop_of(loop);
    loop_work *work = sim_alloc(sizeof(*work)), **end = &own->works;

    sim_point();
    *work = (loop_work){.req = req, .own = own, .run = run, .after = after};
    req->type = type;
    req->reserved[0] = work;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = work;
    loop->active_reqs.count++;
    pool_start(own->process);
}

static void work_run_user(loop_work *work)
{
    uv_work_t *req = (uv_work_t *)work->req;

    req->work_cb(req);
}

static void work_after_user(loop_work *work, int status)
{
    uv_work_t *req = (uv_work_t *)work->req;

    if (req->after_work_cb != NULL) {
        req->after_work_cb(req, status);
    }
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *req, uv_work_cb work_cb, uv_after_work_cb after)
{
    if (work_cb == NULL) {
        return UV_EINVAL;
    }
    req->loop = loop;
    req->work_cb = work_cb;
    req->after_work_cb = after;
    work_queue(loop, (uv_req_t *)req, UV_WORK, work_run_user, work_after_user);
    return 0;
}

int uv_cancel(uv_req_t *req)
{
    loop_work *work = req->reserved[0];

    if (work->fiber != NULL || work->done) {
        return UV_EBUSY;
    }
    work->done = true;
    work->status = UV_ECANCELED;
    loop_wake(work->own);
    return 0;
}

static loop_work *pool_done(const sim_loop *own)
{
    loop_work *work = own->works;

    while (work != NULL && !work->done) {
        work = work->next;
    }
    return work;
}

void loop_works_run(sim_loop *own)
{
    loop_work *work;

    while ((work = pool_done(own))) {
        loop_work **at = &own->works;
        while (*at != work) {
            at = &(*at)->next;
        }
        *at = work->next;
        own->loop->active_reqs.count--;
        work->after(work, work->status);
        sim_free(work);
    }
}

/* --- names -------------------------------------------------------------------------------------------------------- */

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out);
void __wrap_freeaddrinfo(struct addrinfo *list);

static void work_run_names(loop_work *work)
{
    uv_getaddrinfo_t *req = (uv_getaddrinfo_t *)work->req;

    sim_pass(sim_between(&sim_scheduler.chance, 20 * SIM_US, 20 * SIM_MS));
    int rc = __wrap_getaddrinfo(req->hostname, req->service, req->hints, &req->addrinfo);
    work->status = rc == 0 ? 0 : rc == EAI_NONAME ? UV_EAI_NONAME : UV_EAI_FAIL;
}

static void work_after_names(loop_work *work, int status)
{
    uv_getaddrinfo_t *req = (uv_getaddrinfo_t *)work->req;

    sim_free(req->hostname);
    sim_free(req->hints);
    req->cb(req, status == UV_ECANCELED ? UV_EAI_CANCELED : status, req->addrinfo);
}

int uv_getaddrinfo(uv_loop_t *loop, uv_getaddrinfo_t *req, uv_getaddrinfo_cb cb, const char *node, const char *service,
                   const struct addrinfo *hints)
{
    req->loop = loop;
    req->cb = cb;
    req->addrinfo = NULL;
    req->hostname = sim_strdup(node);
    req->service = sim_strdup(service);
    req->hints = sim_alloc(sizeof(*hints));
    memcpy(req->hints, hints, sizeof(*hints));
    work_queue(loop, (uv_req_t *)req, UV_GETADDRINFO, work_run_names, work_after_names);
    return 0;
}

void uv_freeaddrinfo(struct addrinfo *list)
{
    if (list != NULL) {
        __wrap_freeaddrinfo(list);
    }
}

bool loop_works_done(const sim_loop *own)
{
    return pool_done(own) != NULL;
}

void loop_works_free(sim_loop *own)
{
    while (own->works != NULL) {
        loop_work *work = own->works;
        own->works = work->next;
        sim_free(work);
    }
}
