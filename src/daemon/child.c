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

#define SERVER_TAIL     400
#define SERVER_PROBE_MS 10
#define SERVER_TERM_MS  3000

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
    char tail[SERVER_TAIL + 1]; /* the tail of its output */
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
    while (path && *path) {
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
static void server_exec(const tqd_child_options *options, pid_t parent, int input, int output)
{
    static const char failed[] = "cannot be executed\n";
    sigset_t none;

    for (int number = 1; number < NSIG; number++) {
        signal(number, SIG_DFL); /* also of those that we ignore */
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* A process group of its own: a terminal's signals go to the daemon, which then stops the server itself. */
    setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) {
        _exit(127);
    }
    /* Both are above 2, see server_fork. */
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
static int server_input(const char *text, tq_error *err)
{
    int fds[2];

    if (!text) {
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
static int server_fork(tqd_child *server, int *output, tq_error *err)
{
    sigset_t all, before;
    pid_t parent = getpid();
    int input = server_input(server->options.input, err);
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
    server->pid = fork();
    int failed = errno;
    if (server->pid == 0) {
        server_exec(&server->options, parent, input, fds[1]);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(input);
    close(fds[1]);
    if (server->pid < 0) {
        close(fds[0]);
        return tqi_error_errno(err, failed, server->options.what);
    }
    *output = fds[0];
    return TQ_OK;
}

/* --- its end -------------------------------------------------------------- */

static void server_closed(uv_handle_t *handle)
{
    tqd_child *server = handle->data;

    if (--server->open > 0) {
        return;
    }
    if (server->options.ended) {
        server->options.ended(server->stopping ? NULL : server->how, server->options.arg);
    }
    free(server);
}

static void server_tell(tqd_child *server, const tq_error *err)
{
    if (!server->told) {
        server->told = true;
        server->options.ready(err, server->options.arg);
    }
}

/* The tail of its output, as one line. */
static const char *server_last(tqd_child *server)
{
    while (server->tail_size > 0 && strchr("\r\n ", server->tail[server->tail_size - 1])) {
        server->tail_size--;
    }
    server->tail[server->tail_size] = 0;
    for (char *at = server->tail; *at; at++) {
        *at = (char)(*at == '\n' || *at == '\r' ? ' ' : *at);
    }
    return server->tail_size > 0 ? server->tail : "nothing";
}

static void server_end(tqd_child *server)
{
    tq_error err = {0};
    int status = 0;

    if (server->ended) {
        return;
    }
    server->ended = true;
    /* A child that has closed its output may still be running; it must not be. */
    int killed = waitpid(server->pid, &status, WNOHANG) == 0 ? kill(server->pid, SIGKILL) : -1;
    while (killed == 0 && waitpid(server->pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        snprintf(server->how, sizeof(server->how), "signal %d", WTERMSIG(status));
    } else {
        snprintf(server->how, sizeof(server->how), "exit status %d", WEXITSTATUS(status));
    }
    if (!server->stopping && !server->serves) {
        tqi_error_set(&err, TQ_EIO, "%s did not start (%s); it said: %s", server->options.what, server->how,
                      server_last(server));
        server_tell(server, &err);
    } else if (!server->stopping) {
        tqi_log(TQI_ERROR, "tqd", "%s (process %d) has ended: %s; it said: %s", server->options.what, (int)server->pid,
                server->how, server_last(server));
    }
    uv_close((uv_handle_t *)&server->output, server_closed);
    uv_close((uv_handle_t *)&server->timer, server_closed);
}

static void server_on_late(uv_timer_t *timer)
{
    tqd_child *server = timer->data;

    tqi_log(TQI_WARN, "tqd", "%s (process %d) does not end when asked to, and is killed", server->options.what,
            (int)server->pid);
    kill(server->pid, SIGKILL);
}

void tqd_child_stop(tqd_child *server)
{
    if (server->stopping || server->ended) {
        return;
    }
    server->stopping = true;
    server->told = true;
    kill(server->pid, SIGTERM);
    uv_timer_start(&server->timer, server_on_late, SERVER_TERM_MS, 0);
}

int tqd_child_pid(const tqd_child *server)
{
    return server->pid;
}

/* --- serving -------------------------------------------------------------- */

static void server_serves(tqd_child *server)
{
    if (!server->stopping && !server->serves) {
        server->serves = true;
        uv_timer_stop(&server->timer);
        server_tell(server, NULL);
    }
}

/* Whether anybody other than ourselves accepts connections there: a socket that connects to a free port of its own
 * address may connect to itself. */
static bool server_accepts(const struct sockaddr_storage *at)
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

static void server_on_timer(uv_timer_t *timer)
{
    tqd_child *server = timer->data;
    tq_error err = {0};

    if (server->options.ready_at && server_accepts(&server->at)) {
        server_serves(server);
    } else if (tqi_now() >= server->deadline) {
        tqi_error_set(&err, TQ_ETIMEDOUT, "%s does not serve after %.0f s; it said: %s", server->options.what,
                      (double)server->options.timeout_ms / 1000, server_last(server));
        server_tell(server, &err);
    } else {
        uv_timer_start(timer, server_on_timer,
                       server->options.ready_at ? SERVER_PROBE_MS : (server->deadline - tqi_now()) / 1000000 + 1, 0);
    }
}

static void server_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    tqd_child *server = handle->data;

    (void)suggested;
    *buf = uv_buf_init(server->chunk, sizeof(server->chunk));
}

static void server_keep(tqd_child *server, const char *text, size_t size)
{
    size_t keep = size > SERVER_TAIL ? SERVER_TAIL : size;
    size_t old = server->tail_size + keep > SERVER_TAIL ? SERVER_TAIL - keep : server->tail_size;

    memmove(server->tail, server->tail + server->tail_size - old, old);
    memcpy(server->tail + old, text + size - keep, keep);
    server->tail_size = old + keep;
    server->tail[server->tail_size] = 0;
}

/* Whether the tail of the output says that it is serving. */
static void server_look(tqd_child *server)
{
    const char *line = server->options.ready_line;

    if (!server->serves && line && memmem(server->tail, server->tail_size, line, strlen(line))) {
        server_serves(server);
    }
}

static void server_on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    tqd_child *server = stream->data;

    if (size < 0) {
        server_end(server);
        return;
    }
    /* In steps, so that at some step every line is complete in the tail, however much arrives at once. */
    for (size_t at = 0; at < (size_t)size; at += SERVER_TAIL / 2) {
        size_t left = (size_t)size - at;
        server_keep(server, buf->base + at, left < SERVER_TAIL / 2 ? left : SERVER_TAIL / 2);
        server_look(server);
    }
}

int tqd_child_start(uv_loop_t *loop, const tqd_child_options *options, tqd_child **out, tq_error *err)
{
    tqd_child *server = calloc(1, sizeof(*server));
    int output = -1;

    if (!server) {
        return tqi_error_nomem(err, options->what);
    }
    server->options = *options;
    if (options->ready_at) {
        server->at = *options->ready_at;
        server->options.ready_at = &server->at;
    }
    int rc = server_fork(server, &output, err);
    if (rc) {
        free(server);
        return rc;
    }
    server->open = 2;
    server->deadline = tqi_now() + options->timeout_ms * 1000000;
    uv_pipe_init(loop, &server->output, 0);
    uv_timer_init(loop, &server->timer);
    server->output.data = server->timer.data = server;
    rc = uv_pipe_open(&server->output, output);
    rc = rc ? rc : uv_read_start((uv_stream_t *)&server->output, server_on_alloc, server_on_read);
    if (rc) {
        server->stopping = true;
        server->options.ended = NULL; /* reported now, so not reported again */
        kill(server->pid, SIGKILL);
        server_end(server);
        return tqi_error_set(err, TQ_EIO, "%s: %s", options->what, uv_strerror(rc));
    }
    /* Not called at once: the caller must have the server before it is called back. */
    uv_timer_start(&server->timer, server_on_timer, 0, 0);
    *out = server;
    return TQ_OK;
}
