/*
 * loop.c - see loop.h.
 *
 * The phases of an iteration are libuv's ("Design overview" in its documentation): timers, idle, prepare, poll, check,
 * closing; until 1.44 timers run before the poll phase, since 1.45 after it. A loop that has nothing to do is a fiber
 * that sleeps: until its first timer, or until a descriptor, an async handle or a finished work wakes it. Works of the
 * thread pool are fibers, at most four at a time in a process, as in libuv.
 */
#include "loop.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>

#include <uv.h>

#include "scheduler.h"
#include "thread.h"

#define LOOP_POOL 4
/* In uv_handle_t.flags, whose bits are ours: no code of libuv sees these handles. */
#define LOOP_ACTIVE  1u
#define LOOP_REF     2u
#define LOOP_CLOSING 4u
#define LOOP_CLOSED  8u

typedef struct loop_work loop_work;

/* What the simulator keeps of a loop, in its own memory. */
typedef struct sim_loop {
    sim_process *process;
    uv_loop_t *loop;
    sim_fiber *runner; /* in uv_run; NULL: nobody */
    uv_timer_t **timers; /* active ones, the earliest first: a heap would not pay for about 20 */
    uint32_t n_timers, timers_room;
    struct loop_poll *polls;
    uint32_t n_async; /* sent and not yet called */
    uv_handle_t *closing;
    loop_work *works; /* not yet called back */
    struct sim_loop *prev, *next;
} sim_loop;

/* A polled descriptor. */
typedef struct loop_poll {
    uv_poll_t *handle;
    int fd;
    short events; /* 0: stopped */
    bool ready;   /* in the round that is being called */
    short got;
    sim_watch watch;
    struct loop_poll *prev, *next;
} loop_poll;

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

static sim_loop *loops;
static bool loop_timers_last;

void sim_loops_start(bool timers_last)
{
    loop_timers_last = timers_last;
}

static sim_loop *loop_of(const uv_loop_t *loop)
{
    return loop->internal_fields;
}

/* --- loops and handles --------------------------------------------------------------- */

int uv_loop_init(uv_loop_t *loop)
{
    void *data = loop->data;

    sim_point();
    memset(loop, 0, sizeof(*loop));
    loop->data = data;
    sim_loop *own = sim_alloc(sizeof(*own));
    own->process = sim_self;
    own->loop = loop;
    own->next = loops;
    if (loops != NULL) {
        loops->prev = own;
    }
    loops = own;
    loop->internal_fields = own;
    loop->handle_queue[0] = loop->handle_queue[1] = &loop->handle_queue;
    uv_update_time(loop);
    return 0;
}

static void loop_free(sim_loop *own)
{
    while (own->polls != NULL) {
        loop_poll *poll = own->polls;
        own->polls = poll->next;
        sim_watch_remove(&poll->watch);
        sim_free(poll);
    }
    while (own->works != NULL) {
        loop_work *work = own->works;
        own->works = work->next;
        sim_free(work);
    }
    if (own->prev != NULL) {
        own->prev->next = own->next;
    } else {
        loops = own->next;
    }
    if (own->next != NULL) {
        own->next->prev = own->prev;
    }
    sim_free(own->timers);
    sim_free(own);
}

static bool loop_empty(const uv_loop_t *loop)
{
    return loop->handle_queue[0] == (void *)&loop->handle_queue;
}

int uv_loop_close(uv_loop_t *loop)
{
    sim_loop *own = loop_of(loop);

    if (!loop_empty(loop) || own->works != NULL || own->closing != NULL) {
        return UV_EBUSY;
    }
    loop_free(own);
    memset(loop, 0xdd, sizeof(*loop));
    return 0;
}

void sim_loops_end(sim_process *process)
{
    sim_loop *next;

    for (sim_loop *own = loops; own != NULL; own = next) {
        next = own->next;
        if (own->process == process) {
            loop_free(own);
        }
    }
}

typedef void *loop_queue[2];

static uv_handle_t *queue_handle(loop_queue *queue)
{
    return (uv_handle_t *)((char *)queue - offsetof(uv_handle_t, handle_queue));
}

uint32_t sim_loops_count(const sim_process *process, uint32_t *handles)
{
    uint32_t n = 0;

    *handles = 0;
    for (const sim_loop *own = loops; own != NULL; own = own->next) {
        if (own->process != process) {
            continue;
        }
        n++;
        for (loop_queue *at = own->loop->handle_queue[0]; at != &own->loop->handle_queue; at = (loop_queue *)(*at)[0]) {
            ++*handles;
        }
    }
    return n;
}

static void handle_init(uv_loop_t *loop, uv_handle_t *handle, uv_handle_type type)
{
    loop_queue *queue = &handle->handle_queue, *list = &loop->handle_queue;

    handle->loop = loop;
    handle->type = type;
    handle->flags = LOOP_REF;
    handle->close_cb = NULL;
    handle->next_closing = NULL;
    (*queue)[0] = list;
    (*queue)[1] = (*list)[1];
    (*(loop_queue *)(*list)[1])[0] = queue;
    (*list)[1] = queue;
}

static void handle_start(uv_handle_t *handle)
{
    if (!(handle->flags & LOOP_ACTIVE)) {
        handle->flags |= LOOP_ACTIVE;
        handle->loop->active_handles += (handle->flags & LOOP_REF) != 0;
    }
}

static void handle_stop(uv_handle_t *handle)
{
    if (handle->flags & LOOP_ACTIVE) {
        handle->flags &= ~LOOP_ACTIVE;
        handle->loop->active_handles -= (handle->flags & LOOP_REF) != 0;
    }
}

int uv_is_active(const uv_handle_t *handle)
{
    return (handle->flags & LOOP_ACTIVE) != 0;
}

int uv_is_closing(const uv_handle_t *handle)
{
    return (handle->flags & (LOOP_CLOSING | LOOP_CLOSED)) != 0;
}

void uv_ref(uv_handle_t *handle)
{
    if (!(handle->flags & LOOP_REF)) {
        handle->flags |= LOOP_REF;
        handle->loop->active_handles += (handle->flags & LOOP_ACTIVE) != 0;
    }
}

void uv_unref(uv_handle_t *handle)
{
    if (handle->flags & LOOP_REF) {
        handle->flags &= ~LOOP_REF;
        handle->loop->active_handles -= (handle->flags & LOOP_ACTIVE) != 0;
    }
}

uint64_t uv_now(const uv_loop_t *loop)
{
    return loop->time;
}

uint64_t uv_hrtime(void)
{
    return sim_clock(sim_self, sim_time());
}

void uv_update_time(uv_loop_t *loop)
{
    loop->time = sim_clock(loop_of(loop)->process, sim_time()) / SIM_MS;
}

int uv_backend_fd(const uv_loop_t *loop)
{
    (void)loop;
    return -1;
}

void uv_stop(uv_loop_t *loop)
{
    loop->stop_flag = 1;
}

/* --- timers ---------------------------------------------------------------------------------- */

int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    handle_init(loop, (uv_handle_t *)timer, UV_TIMER);
    timer->timer_cb = NULL;
    timer->timeout = 0;
    timer->repeat = 0;
    return 0;
}

static bool timer_before(const uv_timer_t *a, const uv_timer_t *b)
{
    return a->timeout != b->timeout ? a->timeout < b->timeout : a->start_id < b->start_id;
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    sim_loop *own = loop_of(timer->loop);
    uint32_t at;

    if (uv_is_closing((uv_handle_t *)timer) || cb == NULL) {
        return UV_EINVAL;
    }
    uv_timer_stop(timer);
    timer->timer_cb = cb;
    timer->timeout = timer->loop->time + timeout < timeout ? UINT64_MAX : timer->loop->time + timeout;
    timer->repeat = repeat;
    timer->start_id = timer->loop->timer_counter++;
    if (own->n_timers == own->timers_room) {
        own->timers_room = own->timers_room ? own->timers_room * 2 : 16;
        own->timers = sim_realloc(own->timers, own->timers_room * sizeof(*own->timers));
    }
    for (at = own->n_timers++; at > 0 && timer_before(timer, own->timers[at - 1]); at--) {
        own->timers[at] = own->timers[at - 1];
    }
    own->timers[at] = timer;
    handle_start((uv_handle_t *)timer);
    return 0;
}

int uv_timer_stop(uv_timer_t *timer)
{
    sim_loop *own = loop_of(timer->loop);

    if (!uv_is_active((uv_handle_t *)timer)) {
        return 0;
    }
    for (uint32_t i = 0; i < own->n_timers; i++) {
        if (own->timers[i] == timer) {
            memmove(&own->timers[i], &own->timers[i + 1], (own->n_timers - i - 1) * sizeof(*own->timers));
            own->n_timers--;
            break;
        }
    }
    handle_stop((uv_handle_t *)timer);
    return 0;
}

int uv_timer_again(uv_timer_t *timer)
{
    if (timer->timer_cb == NULL) {
        return UV_EINVAL;
    }
    if (timer->repeat) {
        uv_timer_stop(timer);
        uv_timer_start(timer, timer->timer_cb, timer->repeat, timer->repeat);
    }
    return 0;
}

uint64_t uv_timer_get_due_in(const uv_timer_t *timer)
{
    return timer->timeout > timer->loop->time ? timer->timeout - timer->loop->time : 0;
}

static void loop_run_timers(uv_loop_t *loop)
{
    sim_loop *own = loop_of(loop);
    uint64_t last = loop->timer_counter;

    while (own->n_timers > 0 && own->timers[0]->timeout <= loop->time) {
        uv_timer_t *timer = own->timers[0];
        if (loop_timers_last && timer->start_id >= last) {
            break; /* 1.45 and later: one that a callback has started waits for the next iteration */
        }
        uv_timer_stop(timer);
        uv_timer_again(timer);
        timer->timer_cb(timer);
    }
}

/* --- prepare, check, idle ------------------------------------------------------------------------ */

#define LOOP_WATCHER(name, kind)                                  \
    int uv_##name##_init(uv_loop_t *loop, uv_##name##_t *handle)  \
    {                                                             \
        handle_init(loop, (uv_handle_t *)handle, kind);           \
        handle->name##_cb = NULL;                                 \
        return 0;                                                 \
    }                                                             \
    int uv_##name##_start(uv_##name##_t *handle, uv_##name##_cb cb) \
    {                                                             \
        if (uv_is_active((uv_handle_t *)handle)) {                \
            return 0;                                             \
        }                                                         \
        if (cb == NULL) {                                         \
            return UV_EINVAL;                                     \
        }                                                         \
        handle->name##_cb = cb;                                   \
        handle_start((uv_handle_t *)handle);                      \
        return 0;                                                 \
    }                                                             \
    int uv_##name##_stop(uv_##name##_t *handle)                   \
    {                                                             \
        handle_stop((uv_handle_t *)handle);                       \
        return 0;                                                 \
    }

LOOP_WATCHER(prepare, UV_PREPARE)
LOOP_WATCHER(check, UV_CHECK)
LOOP_WATCHER(idle, UV_IDLE)

/* Calls the active handles of a kind. A callback may stop or close any of them, and starts none of its kind. */
static bool loop_run_watchers(uv_loop_t *loop, uv_handle_type type, bool calls)
{
    loop_queue *at = loop->handle_queue[0];
    bool any = false;

    while (at != &loop->handle_queue) {
        uv_handle_t *handle = queue_handle(at);
        at = (loop_queue *)(*at)[0];
        if (handle->type != type || !(handle->flags & LOOP_ACTIVE)) {
            continue;
        }
        any = true;
        if (!calls) {
            break;
        }
        if (type == UV_PREPARE) {
            ((uv_prepare_t *)handle)->prepare_cb((uv_prepare_t *)handle);
        } else if (type == UV_CHECK) {
            ((uv_check_t *)handle)->check_cb((uv_check_t *)handle);
        } else {
            ((uv_idle_t *)handle)->idle_cb((uv_idle_t *)handle);
        }
    }
    return any;
}

/* --- async ------------------------------------------------------------------------------------------- */

int uv_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb cb)
{
    handle_init(loop, (uv_handle_t *)async, UV_ASYNC);
    async->async_cb = cb;
    async->pending = 0;
    handle_start((uv_handle_t *)async);
    return 0;
}

static void loop_wake(sim_loop *own)
{
    if (own->runner != NULL) {
        sim_wake(own->runner);
    }
}

int uv_async_send(uv_async_t *async)
{
    sim_point();
    sim_check(!uv_is_closing((uv_handle_t *)async), "loop", "%s sends to an async handle that is closed", sim_self->name);
    if (!async->pending) {
        async->pending = 1;
        loop_of(async->loop)->n_async++;
        loop_wake(loop_of(async->loop));
    }
    return 0;
}

static void loop_run_asyncs(uv_loop_t *loop)
{
    loop_queue *at = loop->handle_queue[0];

    while (at != &loop->handle_queue && loop_of(loop)->n_async > 0) {
        uv_handle_t *handle = queue_handle(at);
        at = (loop_queue *)(*at)[0];
        uv_async_t *async = (uv_async_t *)handle;
        if (handle->type == UV_ASYNC && async->pending) {
            async->pending = 0;
            loop_of(loop)->n_async--;
            async->async_cb(async);
        }
    }
}

/* --- polling descriptors --------------------------------------------------------------------------------- */

static loop_poll *poll_of(const uv_poll_t *handle)
{
    loop_poll *poll = loop_of(handle->loop)->polls;

    while (poll->handle != handle) {
        poll = poll->next;
    }
    return poll;
}

int uv_poll_init(uv_loop_t *loop, uv_poll_t *handle, int fd)
{
    sim_loop *own = loop_of(loop);

    for (const loop_poll *other = own->polls; other != NULL; other = other->next) {
        if (other->fd == fd && other->events) {
            return UV_EEXIST;
        }
    }
    if (sim_fd_file(fd) == NULL) {
        return UV_EBADF;
    }
    handle_init(loop, (uv_handle_t *)handle, UV_POLL);
    handle->poll_cb = NULL;
    loop_poll *poll = sim_alloc(sizeof(*poll));
    poll->handle = handle;
    poll->fd = fd;
    poll->next = own->polls;
    if (own->polls != NULL) {
        own->polls->prev = poll;
    }
    own->polls = poll;
    return 0;
}

int uv_poll_stop(uv_poll_t *handle)
{
    loop_poll *poll = poll_of(handle);

    poll->events = 0;
    poll->ready = false;
    sim_watch_remove(&poll->watch);
    handle_stop((uv_handle_t *)handle);
    return 0;
}

int uv_poll_start(uv_poll_t *handle, int events, uv_poll_cb cb)
{
    loop_poll *poll = poll_of(handle);

    uv_poll_stop(handle);
    if (events == 0) {
        return 0;
    }
    sim_file *file = sim_fd_file(poll->fd);
    if (file == NULL) {
        return UV_EBADF;
    }
    poll->events = (short)((events & UV_READABLE ? POLLIN : 0) | (events & UV_WRITABLE ? POLLOUT : 0) |
                           (events & UV_DISCONNECT ? POLLRDHUP : 0) | (events & UV_PRIORITIZED ? POLLPRI : 0));
    handle->poll_cb = cb;
    handle_start((uv_handle_t *)handle);
    sim_fiber *runner = loop_of(handle->loop)->runner;
    sim_watch_add(&poll->watch, file, runner != NULL ? runner : sim_running);
    return 0;
}

static short poll_ready(const loop_poll *poll)
{
    const sim_file_ops *ops = poll->watch.file->ops;
    short ready = ops->ready != NULL ? ops->ready(poll->watch.file) : POLLIN | POLLOUT;

    ready &= (short)(poll->events | POLLERR | POLLHUP);
    if (ready == POLLERR || ready == POLLHUP) {
        /* As libuv does: whoever polls for something finds the error by reading or writing. */
        ready |= (short)(poll->events & (POLLIN | POLLOUT | POLLRDHUP | POLLPRI));
    }
    return ready;
}

static bool loop_look(sim_loop *own)
{
    bool any = false;

    for (loop_poll *poll = own->polls; poll != NULL; poll = poll->next) {
        poll->got = poll->events ? poll_ready(poll) : 0;
        poll->ready = poll->got != 0;
        any = any || poll->ready;
    }
    return any;
}

static void poll_call(loop_poll *poll)
{
    uv_poll_t *handle = poll->handle;
    short got = poll->got;

    poll->ready = false;
    if ((got & POLLERR) && !(got & POLLPRI)) {
        uv_poll_stop(handle);
        handle->poll_cb(handle, UV_EBADF, 0);
        return;
    }
    int events = (got & POLLIN ? UV_READABLE : 0) | (got & POLLOUT ? UV_WRITABLE : 0) |
                 (got & POLLRDHUP ? UV_DISCONNECT : 0) | (got & POLLPRI ? UV_PRIORITIZED : 0);
    handle->poll_cb(handle, 0, events);
}

/* Calls those that were ready when the loop looked; a callback may close any of them. */
static void loop_run_polls(sim_loop *own)
{
    for (;;) {
        loop_poll *poll = own->polls;
        while (poll != NULL && !poll->ready) {
            poll = poll->next;
        }
        if (poll == NULL) {
            return;
        }
        poll_call(poll);
    }
}

static void poll_close(uv_poll_t *handle)
{
    sim_loop *own = loop_of(handle->loop);
    loop_poll *poll = poll_of(handle);

    uv_poll_stop(handle);
    if (poll->prev != NULL) {
        poll->prev->next = poll->next;
    } else {
        own->polls = poll->next;
    }
    if (poll->next != NULL) {
        poll->next->prev = poll->prev;
    }
    sim_free(poll);
}

/* --- the thread pool ------------------------------------------------------------------------------------------ */

static uint32_t pool_running(const sim_process *process)
{
    uint32_t n = 0;

    for (const sim_loop *own = loops; own != NULL; own = own->next) {
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
    for (sim_loop *own = loops; own != NULL; own = own->next) {
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

static loop_work *loop_done_work(const sim_loop *own)
{
    loop_work *work = own->works;

    while (work != NULL && !work->done) {
        work = work->next;
    }
    return work;
}

static void loop_run_done(sim_loop *own)
{
    loop_work *work;

    while ((work = loop_done_work(own))) {
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

/* --- closing --------------------------------------------------------------------------------------------------------- */

void uv_close(uv_handle_t *handle, uv_close_cb cb)
{
    sim_loop *own = loop_of(handle->loop);

    sim_check(!uv_is_closing(handle), "loop", "%s closes a handle twice", sim_self->name);
    switch (handle->type) {
    case UV_TIMER:
        uv_timer_stop((uv_timer_t *)handle);
        break;
    case UV_POLL:
        poll_close((uv_poll_t *)handle);
        break;
    case UV_ASYNC:
        if (((uv_async_t *)handle)->pending) {
            ((uv_async_t *)handle)->pending = 0;
            own->n_async--;
        }
        handle_stop(handle);
        break;
    default:
        handle_stop(handle);
    }
    handle->flags |= LOOP_CLOSING;
    handle->close_cb = cb;
    handle->next_closing = own->closing;
    own->closing = handle;
}

static void loop_run_closing(uv_loop_t *loop)
{
    sim_loop *own = loop_of(loop);
    uv_handle_t *handle = own->closing;

    own->closing = NULL;
    while (handle != NULL) {
        uv_handle_t *next = handle->next_closing;
        loop_queue *queue = &handle->handle_queue;
        handle->flags = (handle->flags & ~LOOP_CLOSING) | LOOP_CLOSED;
        (*(loop_queue *)(*queue)[1])[0] = (*queue)[0];
        (*(loop_queue *)(*queue)[0])[1] = (*queue)[1];
        if (handle->close_cb != NULL) {
            handle->close_cb(handle);
        }
        handle = next;
    }
}

/* --- running ------------------------------------------------------------------------------------------------------------ */

int uv_loop_alive(const uv_loop_t *loop)
{
    return loop->active_handles > 0 || loop->active_reqs.count > 0 || loop_of(loop)->closing != NULL;
}

/* When the poll phase must end, in the simulator's time; 0: at once. */
static uint64_t loop_until(uv_loop_t *loop)
{
    sim_loop *own = loop_of(loop);

    if (loop->stop_flag || own->closing != NULL || (loop->active_handles == 0 && loop->active_reqs.count == 0) ||
        loop_run_watchers(loop, UV_IDLE, false)) {
        return 0;
    }
    if (own->n_timers == 0) {
        return SIM_NEVER;
    }
    uint64_t due = own->timers[0]->timeout;
    if (due > UINT64_MAX / SIM_MS) {
        return SIM_NEVER;
    }
    return due <= loop->time ? 0 : sim_clock_reaches(own->process, due * SIM_MS);
}

static void loop_poll_phase(uv_loop_t *loop, uint64_t until)
{
    sim_loop *own = loop_of(loop);
    bool ready;

    sim_point();
    while (!(ready = loop_look(own)) && own->n_async == 0 && loop_done_work(own) == NULL && sim_time() < until) {
        if (!sim_sleep(until) && sim_happens(SIM_TIMER_LATE)) {
            /* The host is busy. */
            sim_sleep(sim_time() + sim_below(&sim_fault_chance, 2 * SIM_S));
        }
    }
    uv_update_time(loop);
    loop_run_asyncs(loop);
    loop_run_done(own);
    if (ready) {
        loop_run_polls(own);
    }
}

int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    sim_loop *own = loop_of(loop);

    own->runner = sim_running;
    for (loop_poll *poll = own->polls; poll != NULL; poll = poll->next) {
        poll->watch.fiber = sim_running;
    }
    bool alive = uv_loop_alive(loop);
    if (!alive || loop_timers_last) {
        uv_update_time(loop);
    }
    if (alive && loop_timers_last && mode == UV_RUN_DEFAULT && !loop->stop_flag) {
        loop_run_timers(loop);
    }
    while (alive && !loop->stop_flag) {
        if (!loop_timers_last) {
            uv_update_time(loop);
            loop_run_timers(loop);
        }
        loop_run_watchers(loop, UV_IDLE, true);
        loop_run_watchers(loop, UV_PREPARE, true);
        loop_poll_phase(loop, mode == UV_RUN_NOWAIT ? 0 : loop_until(loop));
        loop_run_watchers(loop, UV_CHECK, true);
        loop_run_closing(loop);
        if (loop_timers_last || mode == UV_RUN_ONCE) {
            uv_update_time(loop);
            loop_run_timers(loop);
        }
        alive = uv_loop_alive(loop);
        if (mode != UV_RUN_DEFAULT) {
            break;
        }
    }
    loop->stop_flag = 0;
    own->runner = NULL;
    return alive;
}
