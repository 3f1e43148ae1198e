/*
 * loop_script.c - see loop_script.h.
 */
#include "loop_script.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <uv.h>

static struct {
    char *out;
    size_t size, used;
} script;

__attribute__((format(printf, 1, 2))) static void script_say(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    script.used += (size_t)vsnprintf(script.out + script.used, script.size - script.used, format, list);
    va_end(list);
}

static const char *script_name(const void *handle)
{
    return ((const uv_handle_t *)handle)->data;
}

static void script_on_close(uv_handle_t *handle)
{
    script_say("closed %s\n", script_name(handle));
}

static void script_close(void *handle)
{
    uv_close(handle, script_on_close);
}

static void script_finish(uv_loop_t *loop, const char *what)
{
    int alive = uv_run(loop, UV_RUN_DEFAULT);

    script_say("%s: alive %d, close %d\n", what, alive, uv_loop_close(loop));
}

/* --- timers ------------------------------------------------------------------------------ */

static uv_timer_t timer_a, timer_b, timer_c, timer_d;
static int timer_rounds;

static void timer_on_end(uv_timer_t *timer)
{
    script_say("timer %s\n", script_name(timer));
    script_close(timer);
}

static void timer_on_stop_other(uv_timer_t *timer)
{
    script_say("timer %s stops c\n", script_name(timer));
    uv_timer_stop(&timer_c);
    script_close(timer);
    script_close(&timer_c);
}

static void timer_on_again(uv_timer_t *timer)
{
    script_say("timer %s repeats\n", script_name(timer));
    if (++timer_rounds == 3) {
        uv_timer_stop(timer);
        script_say("active %d, closing %d\n", uv_is_active((uv_handle_t *)timer), uv_is_closing((uv_handle_t *)timer));
        script_close(timer);
        script_say("active %d, closing %d\n", uv_is_active((uv_handle_t *)timer), uv_is_closing((uv_handle_t *)timer));
    }
}

static void script_timers(void)
{
    uv_loop_t loop;

    uv_loop_init(&loop);
    uv_timer_init(&loop, &timer_a);
    uv_timer_init(&loop, &timer_b);
    uv_timer_init(&loop, &timer_c);
    uv_timer_init(&loop, &timer_d);
    timer_a.data = "a";
    timer_b.data = "b";
    timer_c.data = "c";
    timer_d.data = "d";
    timer_rounds = 0;
    /* Equal timeouts fire in the order in which they were started. */
    uv_timer_start(&timer_b, timer_on_stop_other, 40, 0);
    uv_timer_start(&timer_c, timer_on_end, 40, 0);
    uv_timer_start(&timer_a, timer_on_end, 20, 0);
    uv_timer_start(&timer_d, timer_on_again, 5, 60);
    script_say("due in %d\n", (int)(uv_timer_get_due_in(&timer_b) / 10));
    script_finish(&loop, "timers");
}

/* --- phases ------------------------------------------------------------------------------- */

static uv_prepare_t phase_prepare;
static uv_check_t phase_check;
static uv_idle_t phase_idle;
static uv_timer_t phase_timer;
static uv_async_t phase_async;
static int phase_rounds;

static void phase_on_idle(uv_idle_t *idle)
{
    script_say("idle\n");
    if (++phase_rounds == 2) {
        uv_idle_stop(idle);
        script_close(idle);
    }
}

static void phase_on_prepare(uv_prepare_t *prepare)
{
    (void)prepare;
    script_say("prepare\n");
}

static void phase_on_check(uv_check_t *check)
{
    (void)check;
    script_say("check\n");
}

static void phase_on_async(uv_async_t *async)
{
    script_say("async\n");
    script_close(async);
    script_close(&phase_prepare);
    script_close(&phase_check);
}

static void phase_on_timer(uv_timer_t *timer)
{
    script_say("timer sends\n");
    /* Twice is once. */
    uv_async_send(&phase_async);
    uv_async_send(&phase_async);
    script_close(timer);
}

static void script_phases(void)
{
    uv_loop_t loop;

    phase_rounds = 0;
    uv_loop_init(&loop);
    uv_prepare_init(&loop, &phase_prepare);
    uv_check_init(&loop, &phase_check);
    uv_idle_init(&loop, &phase_idle);
    uv_timer_init(&loop, &phase_timer);
    uv_async_init(&loop, &phase_async, phase_on_async);
    phase_prepare.data = "prepare";
    phase_check.data = "check";
    phase_idle.data = "idle";
    phase_timer.data = "timer";
    phase_async.data = "async";
    uv_prepare_start(&phase_prepare, phase_on_prepare);
    uv_check_start(&phase_check, phase_on_check);
    uv_idle_start(&phase_idle, phase_on_idle);
    uv_timer_start(&phase_timer, phase_on_timer, 30, 0);
    script_say("nowait %d\n", uv_run(&loop, UV_RUN_NOWAIT));
    script_say("close %d\n", uv_loop_close(&loop) == UV_EBUSY);
    script_finish(&loop, "phases");
}

/* --- references and stopping ----------------------------------------------------------------- */

static void stop_on_timer(uv_timer_t *timer)
{
    script_say("timer %s stops the loop\n", script_name(timer));
    uv_stop(timer->loop);
}

static void script_references(void)
{
    uv_loop_t loop;

    uv_loop_init(&loop);
    uv_timer_init(&loop, &timer_a);
    uv_timer_init(&loop, &timer_b);
    timer_a.data = "a";
    timer_b.data = "b";
    uv_timer_start(&timer_a, timer_on_end, 10000, 0);
    uv_unref((uv_handle_t *)&timer_a);
    script_say("unreferenced: alive %d, run %d\n", uv_loop_alive(&loop), uv_run(&loop, UV_RUN_DEFAULT));
    uv_timer_start(&timer_b, stop_on_timer, 1, 0);
    script_say("stopped: run %d\n", uv_run(&loop, UV_RUN_DEFAULT));
    uv_timer_start(&timer_b, stop_on_timer, 1, 0);
    script_say("once: run %d\n", uv_run(&loop, UV_RUN_ONCE));
    script_close(&timer_b);
    script_close(&timer_a);
    script_finish(&loop, "references");
}

/* --- descriptors ------------------------------------------------------------------------------- */

static uv_poll_t poll_a, poll_b;
static int poll_fd, poll_rounds;

static void poll_on_write(uv_poll_t *poll, int status, int events)
{
    uint64_t one = 1;

    script_say("poll %s: %d, events %d\n", script_name(poll), status, events);
    (void)!write(poll_fd, &one, sizeof(one));
    if (++poll_rounds == 2) {
        uv_poll_start(poll, UV_READABLE, poll_on_write);
    } else if (poll_rounds == 4) {
        uv_poll_stop(poll);
        script_close(poll);
    }
}

static void script_polls(void)
{
    uv_loop_t loop;

    poll_rounds = 0;
    poll_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uv_loop_init(&loop);
    script_say("init %d\n", uv_poll_init(&loop, &poll_a, poll_fd));
    poll_a.data = "a";
    poll_b.data = "b";
    uv_poll_start(&poll_a, UV_WRITABLE, poll_on_write);
    script_say("again %d\n", uv_poll_init(&loop, &poll_b, poll_fd) == UV_EEXIST);
    script_finish(&loop, "polls");
    close(poll_fd);
}

/* --- works ---------------------------------------------------------------------------------------- */

static uv_work_t work_a;

static void work_run(uv_work_t *work)
{
    (void)work;
}

static void work_after(uv_work_t *work, int status)
{
    (void)work;
    script_say("work done %d\n", status);
}

static void script_works(void)
{
    uv_loop_t loop;

    uv_loop_init(&loop);
    uv_queue_work(&loop, &work_a, work_run, work_after);
    script_say("close %d\n", uv_loop_close(&loop) == UV_EBUSY);
    script_finish(&loop, "works");
}

void loop_script(char *out, size_t size)
{
    script.out = out;
    script.size = size;
    script.used = 0;
    script_timers();
    script_phases();
    script_references();
    script_polls();
    script_works();
}
