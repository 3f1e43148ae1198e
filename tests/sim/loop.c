/*
 * loop.c - see loop.h: loops, timers and the phases of an iteration.
 *
 * The phases are libuv's ("Design overview" in its documentation): timers, idle, prepare, poll, check, closing; until
 * 1.44 timers run before the poll phase, since 1.45 after it. A loop that has nothing to do is a fiber that sleeps:
 * until its first timer, or until a descriptor, an async handle or a finished work wakes it.
 */
#include "loop_state.h"

#include <string.h>

#include "scheduler.h"
#include "thread.h"

sim_loop *sim_loops;
static bool loop_timers_last;

void sim_loops_start(bool timers_last)
{
    loop_timers_last = timers_last;
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
    own->next = sim_loops;
    if (sim_loops != NULL) {
        sim_loops->prev = own;
    }
    sim_loops = own;
    loop->internal_fields = own;
    loop->handle_queue[0] = loop->handle_queue[1] = &loop->handle_queue;
    uv_update_time(loop);
    return 0;
}

static void loop_free(sim_loop *own)
{
    loop_polls_free(own);
    loop_works_free(own);
    if (own->prev != NULL) {
        own->prev->next = own->next;
    } else {
        sim_loops = own->next;
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

    for (sim_loop *own = sim_loops; own != NULL; own = next) {
        next = own->next;
        if (own->process == process) {
            loop_free(own);
        }
    }
}

uint32_t sim_loops_count(const sim_process *process, uint32_t *handles)
{
    uint32_t n = 0;

    *handles = 0;
    for (const sim_loop *own = sim_loops; own != NULL; own = own->next) {
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

void loop_handle_init(uv_loop_t *loop, uv_handle_t *handle, uv_handle_type type)
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

void loop_handle_start(uv_handle_t *handle)
{
    if (!(handle->flags & LOOP_ACTIVE)) {
        handle->flags |= LOOP_ACTIVE;
        handle->loop->active_handles += (handle->flags & LOOP_REF) != 0;
    }
}

void loop_handle_stop(uv_handle_t *handle)
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

void loop_wake(const sim_loop *own)
{
    if (own->runner != NULL) {
        sim_wake(own->runner);
    }
}

/* --- timers ---------------------------------------------------------------------------------- */

int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    loop_handle_init(loop, (uv_handle_t *)timer, UV_TIMER);
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
    loop_handle_start((uv_handle_t *)timer);
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
    loop_handle_stop((uv_handle_t *)timer);
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

#define LOOP_WATCHER(name, kind)                                    \
    int uv_##name##_init(uv_loop_t *loop, uv_##name##_t *handle)    \
    {                                                               \
        loop_handle_init(loop, (uv_handle_t *)handle, kind);        \
        handle->name##_cb = NULL;                                   \
        return 0;                                                   \
    }                                                               \
    int uv_##name##_start(uv_##name##_t *handle, uv_##name##_cb cb) \
    {                                                               \
        if (uv_is_active((uv_handle_t *)handle)) {                  \
            return 0;                                               \
        }                                                           \
        if (cb == NULL) {                                           \
            return UV_EINVAL;                                       \
        }                                                           \
        handle->name##_cb = cb;                                     \
        loop_handle_start((uv_handle_t *)handle);                   \
        return 0;                                                   \
    }                                                               \
    int uv_##name##_stop(uv_##name##_t *handle)                     \
    {                                                               \
        loop_handle_stop((uv_handle_t *)handle);                    \
        return 0;                                                   \
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
        uv_handle_t *handle = loop_queue_handle(at);
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

/* --- closing
 * --------------------------------------------------------------------------------------------------------- */

void uv_close(uv_handle_t *handle, uv_close_cb cb)
{
    sim_loop *own = loop_of(handle->loop);

    sim_check(!uv_is_closing(handle), "loop", "%s closes a handle twice", sim_self->name);
    switch (handle->type) {
    case UV_TIMER:
        uv_timer_stop((uv_timer_t *)handle);
        break;
    case UV_POLL:
        loop_poll_close((uv_poll_t *)handle);
        break;
    case UV_ASYNC:
        loop_async_close((uv_async_t *)handle);
        break;
    default:
        loop_handle_stop(handle);
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

/* --- running
 * ------------------------------------------------------------------------------------------------------------ */

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
    while (!(ready = loop_polls_look(own)) && own->n_async == 0 && !loop_works_done(own) && sim_time() < until) {
        if (!sim_sleep(until) && sim_happens(SIM_TIMER_LATE)) {
            /* The host is busy. For whoever measures how long something took, that is as if the process was stopped. */
            uint64_t begun = sim_time();
            sim_sleep(begun + sim_below(&sim_fault_chance, 2 * SIM_S));
            own->process->stopped_for += sim_time() - begun;
        }
    }
    uv_update_time(loop);
    loop_asyncs_run(loop);
    loop_works_run(own);
    if (ready) {
        loop_polls_run(own);
    }
}

int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    sim_loop *own = loop_of(loop);

    own->runner = sim_running;
    loop_polls_runner(own);
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
