/*
 * loop_poll.c - libuv's polling of descriptors, and async handles.
 */
#include "loop_state.h"

#include <poll.h>

/* A polled descriptor. */
struct loop_poll {
    uv_poll_t *handle;
    int fd;
    short events; /* 0: stopped */
    bool ready;   /* in the round that is being called */
    short got;
    sim_watch watch;
    struct loop_poll *prev, *next;
};

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
    loop_handle_init(loop, (uv_handle_t *)handle, UV_POLL);
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
    loop_handle_stop((uv_handle_t *)handle);
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
    loop_handle_start((uv_handle_t *)handle);
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

bool loop_polls_look(sim_loop *own)
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
void loop_polls_run(sim_loop *own)
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

void loop_poll_close(uv_poll_t *handle)
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

void loop_polls_runner(sim_loop *own)
{
    for (loop_poll *poll = own->polls; poll != NULL; poll = poll->next) {
        poll->watch.fiber = sim_running;
    }
}

void loop_polls_free(sim_loop *own)
{
    while (own->polls != NULL) {
        loop_poll *poll = own->polls;
        own->polls = poll->next;
        sim_watch_remove(&poll->watch);
        sim_free(poll);
    }
}

/* --- async ------------------------------------------------------------------------------------------- */

int uv_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb cb)
{
    loop_handle_init(loop, (uv_handle_t *)async, UV_ASYNC);
    async->async_cb = cb;
    async->pending = 0;
    loop_handle_start((uv_handle_t *)async);
    return 0;
}

int uv_async_send(uv_async_t *async)
{
    sim_point();
    sim_check(!uv_is_closing((uv_handle_t *)async), "loop", "%s sends to an async handle that is closed",
              sim_self->name);
    if (!async->pending) {
        async->pending = 1;
        loop_of(async->loop)->n_async++;
        loop_wake(loop_of(async->loop));
    }
    return 0;
}

void loop_asyncs_run(uv_loop_t *loop)
{
    loop_queue *at = loop->handle_queue[0];

    while (at != &loop->handle_queue && loop_of(loop)->n_async > 0) {
        uv_handle_t *handle = loop_queue_handle(at);
        at = (loop_queue *)(*at)[0];
        uv_async_t *async = (uv_async_t *)handle;
        if (handle->type == UV_ASYNC && async->pending) {
            async->pending = 0;
            loop_of(loop)->n_async--;
            async->async_cb(async);
        }
    }
}

void loop_async_close(uv_async_t *async)
{
    if (async->pending) {
        async->pending = 0;
        loop_of(async->loop)->n_async--;
    }
    loop_handle_stop((uv_handle_t *)async);
}
