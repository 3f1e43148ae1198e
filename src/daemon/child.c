/*
 * child.c - see child.h.
 *
 * The child is forked here, because libuv cannot ask the kernel to kill a child with its parent. Its exit is noticed
 * when its output ends: it holds the only other end of the pipe. Everything runs on the loop's thread, whose death
 * makes the kernel kill the child.
 */
#include "daemon/child.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_TAIL     400
#define CHILD_PROBE_MS 10
#define CHILD_TERM_MS  3000

struct tqd_child {
    tqd_child_options options;
    struct sockaddr_storage at; /* what options.ready_at points to */
    pid_t pid;
    uv_pipe_t output;
    /* until it serves: the next check; while it is being stopped: until SIGKILL */
    uv_timer_t timer;
    uint64_t deadline; /* by which it must serve */
    bool serves;
    bool told; /* options.ready was called, or must no longer be called */
    bool stopping;
    bool ended;
    int open; /* handles */
    char how[64];
    char tail[CHILD_TAIL + 1]; /* the tail of its output */
    size_t tail_size;
    char chunk[4096];
};

/* --- programs ------------------------------------------------------------- */

bool tqd_backend_kind_find(const char *name, char out[PATH_MAX])
{
    char self[PATH_MAX];
    const char *path = getenv("PATH");
    ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (size > 0) {
        self[size] = 0;
        int written = snprintf(out, PATH_MAX, "%s/%s", dirname(self), name);
        if (written > 0 && written < PATH_MAX && access(out, X_OK) == 0) {
            return true;
        }
    }
    while (path != NULL && *path) {
        size_t part = strcspn(path, ":");
        int written = snprintf(out, PATH_MAX, "%.*s/%s", (int)part, path, name);
        if (part > 0 && written > 0 && written < PATH_MAX && access(out, X_OK) == 0) {
            return true;
        }
        path += part + (path[part] == ':');
    }
    return false;
}

/* Runs in the child, where only async-signal-safe functions may be called. */
static void child_exec(const tqd_child_options *options, pid_t parent, int input, int output)
{
    static const char failed[] = "cannot be executed\n";
    sigset_t none;

    for (int number = 1; number < NSIG; number++) {
        signal(number, SIG_DFL); /* also of those that we ignore */
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* A process group of its own: a terminal's signals go to the daemon, which then stops the child itself. */
    setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) {
        _exit(127);
    }
    /* Both are above 2, see child_fork. */
    if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0) {
        _exit(127);
    }
    if (syscall(SYS_close_range, 3u, ~0u, 0u)) {
        for (int fd = 3; fd < 65536; fd++) {
            close(fd);
        }
    }
    /* execv takes non-const strings and does not change them. */
    execv(options->program, (char *const *)(uintptr_t)options->argv);
    if (write(2, failed, sizeof(failed) - 1) < 0) {
        _exit(126);
    }
    _exit(127);
}

/* The child's input: the text, or nothing. */
static int child_input(const char *text, tq_error *err)
{
    int fds[2];

    if (text == NULL) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return null >= 0 ? null : tqi_error_errno(err, errno, "/dev/null");
    }
    if (pipe2(fds, O_CLOEXEC)) {
        return tqi_error_errno(err, errno, "a pipe");
    }
    /* Less than a pipe holds, so nobody needs to read yet. */
    ssize_t written = write(fds[1], text, strlen(text));
    close(fds[1]);
    if (written != (ssize_t)strlen(text)) {
        close(fds[0]);
        return tqi_error_set(err, TQ_EIO, "writing to a pipe failed");
    }
    return fds[0];
}

/* Forks; the child's output is read from *output. */
static int child_fork(tqd_child *child, int *output, tq_error *err)
{
    sigset_t all, before;
    pid_t parent = getpid();
    int input = child_input(child->options.input, err);
    int fds[2];

    if (input < 0) {
        return input;
    }
    if (pipe2(fds, O_CLOEXEC)) {
        close(input);
        return tqi_error_errno(err, errno, "a pipe");
    }
    /* No handler of ours runs in the child. (Our own 0, 1 and 2 are open: tqi_stdio_guard.) */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    child->pid = fork();
    int failed = errno;
    if (child->pid == 0) {
        child_exec(&child->options, parent, input, fds[1]);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(input);
    close(fds[1]);
    if (child->pid < 0) {
        close(fds[0]);
        return tqi_error_errno(err, failed, child->options.what);
    }
    *output = fds[0];
    return TQ_OK;
}

/* --- its end -------------------------------------------------------------- */

static void child_closed(uv_handle_t *handle)
{
    tqd_child *child = handle->data;

    if (--child->open > 0) {
        return;
    }
    if (child->options.ended != NULL) {
        child->options.ended(child->stopping ? NULL : child->how, child->options.arg);
    }
    free(child);
}

static void child_tell(tqd_child *child, const tq_error *err)
{
    if (!child->told) {
        child->told = true;
        child->options.ready(err, child->options.arg);
    }
}

/* The tail of its output, as one line. */
static const char *child_last(tqd_child *child)
{
    while (child->tail_size > 0 && strchr("\r\n ", child->tail[child->tail_size - 1]) != NULL) {
        child->tail_size--;
    }
    child->tail[child->tail_size] = 0;
    for (char *at = child->tail; *at; at++) {
        *at = (char)(*at == '\n' || *at == '\r' ? ' ' : *at);
    }
    return child->tail_size > 0 ? child->tail : "nothing";
}

static void child_end(tqd_child *child)
{
    tq_error err = {0};
    int status = 0;

    if (child->ended) {
        return;
    }
    child->ended = true;
    /* A child that has closed its output may still be running; it must not be. */
    int killed = waitpid(child->pid, &status, WNOHANG) == 0 ? kill(child->pid, SIGKILL) : -1;
    while (killed == 0 && waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        snprintf(child->how, sizeof(child->how), "signal %d", WTERMSIG(status));
    } else {
        snprintf(child->how, sizeof(child->how), "exit status %d", WEXITSTATUS(status));
    }
    if (!child->stopping && !child->serves) {
        tqi_error_set(&err, TQ_EIO, "%s did not start (%s); it said: %s", child->options.what, child->how,
                      child_last(child));
        child_tell(child, &err);
    } else if (!child->stopping) {
        tqi_log(TQI_ERROR, "tqd", "%s (process %d) has ended: %s; it said: %s", child->options.what, (int)child->pid,
                child->how, child_last(child));
    }
    uv_close((uv_handle_t *)&child->output, child_closed);
    uv_close((uv_handle_t *)&child->timer, child_closed);
}

static void child_on_late(uv_timer_t *timer)
{
    tqd_child *child = timer->data;

    tqi_log(TQI_WARN, "tqd", "%s (process %d) does not end when asked to, and is killed", child->options.what,
            (int)child->pid);
    kill(child->pid, SIGKILL);
}

void tqd_child_stop(tqd_child *child)
{
    if (child->stopping || child->ended) {
        return;
    }
    child->stopping = true;
    child->told = true;
    kill(child->pid, SIGTERM);
    uv_timer_start(&child->timer, child_on_late, CHILD_TERM_MS, 0);
}

int tqd_child_pid(const tqd_child *child)
{
    return child->pid;
}

/* --- serving -------------------------------------------------------------- */

static void child_serves(tqd_child *child)
{
    if (!child->stopping && !child->serves) {
        child->serves = true;
        uv_timer_stop(&child->timer);
        child_tell(child, NULL);
    }
}

/* Whether anybody other than ourselves accepts connections there: a socket that connects to a free port of its own
 * address may connect to itself. */
static bool child_accepts(const struct sockaddr_storage *at)
{
    socklen_t size = at->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    struct sockaddr_storage own = {0};
    socklen_t own_size = sizeof(own);
    int fd = socket(at->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool accepts = fd >= 0 && connect(fd, (const struct sockaddr *)at, size) == 0 &&
                   getsockname(fd, (struct sockaddr *)&own, &own_size) == 0 && memcmp(&own, at, size) != 0;

    if (fd >= 0) {
        close(fd);
    }
    return accepts;
}

static void child_on_timer(uv_timer_t *timer)
{
    tqd_child *child = timer->data;
    tq_error err = {0};

    if (child->options.ready_at != NULL && child_accepts(&child->at)) {
        child_serves(child);
    } else if (tqi_now() >= child->deadline) {
        tqi_error_set(&err, TQ_ETIMEDOUT, "%s does not serve after %.0f s; it said: %s", child->options.what,
                      (double)child->options.timeout_ms / 1000, child_last(child));
        child_tell(child, &err);
    } else {
        uv_timer_start(timer, child_on_timer,
                       child->options.ready_at != NULL ? CHILD_PROBE_MS : (child->deadline - tqi_now()) / 1000000 + 1,
                       0);
    }
}

static void child_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    tqd_child *child = handle->data;

    (void)suggested;
    *buf = uv_buf_init(child->chunk, sizeof(child->chunk));
}

static void child_keep(tqd_child *child, const char *text, size_t size)
{
    size_t keep = size > CHILD_TAIL ? CHILD_TAIL : size;
    size_t old = child->tail_size + keep > CHILD_TAIL ? CHILD_TAIL - keep : child->tail_size;

    memmove(child->tail, child->tail + child->tail_size - old, old);
    memcpy(child->tail + old, text + size - keep, keep);
    child->tail_size = old + keep;
    child->tail[child->tail_size] = 0;
}

/* Whether the tail of the output says that it is serving. */
static void child_look(tqd_child *child)
{
    const char *line = child->options.ready_line;

    if (!child->serves && line != NULL && memmem(child->tail, child->tail_size, line, strlen(line)) != NULL) {
        child_serves(child);
    }
}

static void child_on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    tqd_child *child = stream->data;

    if (size < 0) {
        child_end(child);
        return;
    }
    /* In steps, so that at some step every line is complete in the tail, however much arrives at once. */
    for (size_t at = 0; at < (size_t)size; at += CHILD_TAIL / 2) {
        size_t left = (size_t)size - at;
        child_keep(child, buf->base + at, left < CHILD_TAIL / 2 ? left : CHILD_TAIL / 2);
        child_look(child);
    }
}

int tqd_child_start(uv_loop_t *loop, const tqd_child_options *options, tqd_child **out, tq_error *err)
{
    tqd_child *child = calloc(1, sizeof(*child));
    int output = -1;

    if (child == NULL) {
        return tqi_error_nomem(err, options->what);
    }
    child->options = *options;
    if (options->ready_at != NULL) {
        child->at = *options->ready_at;
        child->options.ready_at = &child->at;
    }
    int rc = child_fork(child, &output, err);
    if (rc) {
        free(child);
        return rc;
    }
    child->open = 2;
    child->deadline = tqi_now() + options->timeout_ms * 1000000;
    uv_pipe_init(loop, &child->output, 0);
    uv_timer_init(loop, &child->timer);
    child->output.data = child->timer.data = child;
    rc = uv_pipe_open(&child->output, output);
    rc = rc ? rc : uv_read_start((uv_stream_t *)&child->output, child_on_alloc, child_on_read);
    if (rc) {
        child->stopping = true;
        child->options.ended = NULL; /* reported now, so not reported again */
        kill(child->pid, SIGKILL);
        child_end(child);
        return tqi_error_set(err, TQ_EIO, "%s: %s", options->what, uv_strerror(rc));
    }
    /* Not called at once: the caller must have the child before it is called back. */
    uv_timer_start(&child->timer, child_on_timer, 0, 0);
    *out = child;
    return TQ_OK;
}
