/*
 * link.c - one connection to a Redis server: commands from the caller's memory, replies through hiredis.
 *
 * Commands are written by us, not through hiredis' output buffer, which would copy every value. Replies are parsed
 * by hiredis with functions of ours that make no objects: a value is copied from the read buffer to its destination.
 *
 * A server may be silent for the configured time, and everything ends at the deadline, even if bytes keep trickling in:
 * writes wait in poll(); reads, which hiredis does, use a socket timeout that shrinks with the remaining time.
 */
#include "manager/kv/redis/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/pointer.h"

#define LINK_IOV 64

/* --- replies -------------------------------------------------------------- */

static tqi_redis_link *link_of(const redisReadTask *task)
{
    return task->privdata;
}

static void *link_on_string(const redisReadTask *task, char *text, size_t size)
{
    tqi_redis_link *link = link_of(task);
    tqi_redis_reply *reply = &link->reply;

    reply->type = task->type;
    reply->size = size;
    if (task->type == REDIS_REPLY_STRING) {
        if (link->expected != NULL && size == link->expected->size) {
            memcpy(link->expected->dest, text, size);
        } else if (link->spare != NULL) {
            snprintf(link->spare, TQI_REDIS_INFO, "%.*s", (int)(size < TQI_REDIS_INFO ? size : TQI_REDIS_INFO - 1),
                     text);
        }
    } else {
        snprintf(reply->text, sizeof(reply->text), "%.*s", (int)(size < 255 ? size : 255), text);
    }
    return reply;
}

static void *link_on_integer(const redisReadTask *task, long long value)
{
    tqi_redis_link *link = link_of(task);

    link->reply.type = REDIS_REPLY_INTEGER;
    link->reply.integer = value;
    return &link->reply;
}

static void *link_on_nil(const redisReadTask *task)
{
    tqi_redis_link *link = link_of(task);

    link->reply.type = REDIS_REPLY_NIL;
    return &link->reply;
}

/* The reply is a part of the link. */
static void link_on_free(void *reply)
{
    (void)reply;
}

static redisReplyObjectFunctions link_functions = {
    .createString = link_on_string,
    .createInteger = link_on_integer,
    .createNil = link_on_nil,
    .freeObject = link_on_free,
};

static int link_failed(const tqi_redis_link *link, int errnum, tq_error *err)
{
    const redisContext *context = link->context;
    const char *text = context->err != 0 && context->err != REDIS_ERR_IO ? context->errstr : strerror(errnum);

    if (errnum == EAGAIN || errnum == EWOULDBLOCK || errnum == ETIMEDOUT) {
        return tqi_error_set(err, TQ_ETIMEDOUT, "Redis did not answer in time");
    }
    return tqi_error_set(err, TQ_EUNREACHABLE, "the connection to Redis failed: %s", text);
}

/* How long one wait may take now; 0 if the deadline has passed. */
static uint64_t link_left(const tqi_redis_link *link)
{
    uint64_t now = tqi_now();
    uint64_t left = link->deadline > now ? link->deadline - now : 0;

    return left < link->silence ? left : link->silence;
}

/* Makes reads give up after the time that one wait may take. Not set again until that has shrunk to half. */
static int link_arm(tqi_redis_link *link)
{
    uint64_t left = link_left(link);

    if (left == 0) {
        errno = ETIMEDOUT;
        return REDIS_ERR;
    }
    if (left > link->armed / 2 && left <= link->armed) {
        return REDIS_OK;
    }
    uint64_t us = left < 1000000 ? 1000 : left / 1000; /* 0 would be no limit */
    struct timeval limit = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
    link->armed = left;
    return redisSetTimeout(link->context, limit);
}

/* As redisGetReply, by the deadline. */
static int link_reply(tqi_redis_link *link)
{
    void *reply = NULL;
    int failed = redisGetReplyFromReader(link->context, &reply);

    while (failed == REDIS_OK && reply == NULL) {
        failed = link_arm(link);
        failed = failed == REDIS_OK ? redisBufferRead(link->context) : failed;
        failed = failed == REDIS_OK ? redisGetReplyFromReader(link->context, &reply) : failed;
    }
    return failed;
}

int tqi_redis_link_receive(tqi_redis_link *link, tq_kv_read *expected, tq_error *err)
{
    link->expected = expected;
    link->reply.type = 0;
    link->reply.text[0] = 0;
    errno = 0;
    int failed = link_reply(link);
    int errnum = errno;
    link->expected = NULL;
    if (failed != REDIS_OK || link->reply.type == 0) {
        return link_failed(link, errnum, err);
    }
    return TQ_OK;
}

/* --- commands ------------------------------------------------------------- */

/* Waits until something can be sent. */
static int link_wait(const tqi_redis_link *link, tq_error *err)
{
    struct pollfd wait = {.fd = link->context->fd, .events = POLLOUT};
    uint64_t ms = link_left(link) / 1000000;
    int n = poll(&wait, 1, ms > INT_MAX ? INT_MAX : (int)ms);

    if (n == 0) {
        return link_failed(link, ETIMEDOUT, err);
    }
    return n > 0 || errno == EINTR ? TQ_OK : link_failed(link, errno, err);
}

static int link_write(const tqi_redis_link *link, struct iovec *iov, int n, tq_error *err)
{
    while (n > 0) {
        /* Not writev: a closed connection must not raise SIGPIPE in the user's process. */
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)n};
        ssize_t done = sendmsg(link->context->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            int rc = link_wait(link, err);
            if (rc != TQ_OK) {
                return rc;
            }
            continue;
        }
        if (done < 0) {
            return link_failed(link, errno, err);
        }
        for (size_t left = (size_t)done; n > 0 && left >= iov->iov_len; iov++, n--) {
            left -= iov->iov_len;
            done = (ssize_t)left;
        }
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + done;
            iov->iov_len -= (size_t)done;
        }
    }
    return TQ_OK;
}

static int link_keepalive_head(const tqi_redis_command *command, const char *asking, char *out, size_t size)
{
    char ms[24];
    int n = snprintf(ms, sizeof(ms), "%llu", (unsigned long long)command->keepalive_ms);
    size_t key = strlen(command->key);

    if (command->verb == TQI_REDIS_RENEW) {
        return snprintf(out, size, "%s*3\r\n$7\r\nPEXPIRE\r\n$%zu\r\n%s\r\n$%d\r\n%s\r\n", asking, key, command->key, n,
                        ms);
    }
    return snprintf(out, size, "%s*5\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$1\r\n1\r\n$2\r\nPX\r\n$%d\r\n%s\r\n", asking, key,
                    command->key, n, ms);
}

/* The command up to its value, if it has one. */
static int link_head(const tqi_redis_command *command, char *out, size_t size)
{
    const char *asking = command->asking ? "*1\r\n$6\r\nASKING\r\n" : "";
    size_t key = strlen(command->key);

    switch (command->verb) {
    case TQI_REDIS_SET:
        return snprintf(out, size, "%s*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%llu\r\n", asking, key, command->key,
                        (unsigned long long)command->value->size);
    case TQI_REDIS_UNLINK:
        return snprintf(out, size, "%s*2\r\n$6\r\nUNLINK\r\n$%zu\r\n%s\r\n", asking, key, command->key);
    case TQI_REDIS_KEEPALIVE:
    case TQI_REDIS_RENEW:
        return link_keepalive_head(command, asking, out, size);
    case TQI_REDIS_GET:
        break;
    }
    const tq_kv_read *read = command->read;
    if (read->size == read->value_size) {
        return snprintf(out, size, "%s*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n", asking, key, command->key);
    }
    char from[24], to[24];
    int n_from = snprintf(from, sizeof(from), "%llu", (unsigned long long)read->offset);
    int n_to = snprintf(to, sizeof(to), "%llu", (unsigned long long)(read->offset + read->size - 1));
    return snprintf(out, size, "%s*4\r\n$8\r\nGETRANGE\r\n$%zu\r\n%s\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", asking, key,
                    command->key, n_from, from, n_to, to);
}

int tqi_redis_link_send(tqi_redis_link *link, const tqi_redis_command *command, tq_error *err)
{
    char head[256];
    struct iovec iov[LINK_IOV];
    int n = 0;
    size_t slices = command->verb == TQI_REDIS_SET ? command->value->n_slices : 0;
    int rc = TQ_OK;

    iov[n++] = (struct iovec){.iov_base = head, .iov_len = (size_t)link_head(command, head, sizeof(head))};
    for (size_t s = 0; s < slices && rc == TQ_OK; s++) {
        const tq_slice *slice = &command->value->slices[s];
        iov[n++] = (struct iovec){.iov_base = tqi_unconst(slice->data), .iov_len = slice->size};
        if (n == LINK_IOV) {
            rc = link_write(link, iov, n, err);
            n = 0;
        }
    }
    if (rc == TQ_OK && command->verb == TQI_REDIS_SET) {
        static const char end[] = "\r\n";
        iov[n++] = (struct iovec){.iov_base = tqi_unconst(end), .iov_len = 2};
    }
    return rc == TQ_OK && n > 0 ? link_write(link, iov, n, err) : rc;
}

/* --- open and close ------------------------------------------------------- */

static struct timeval link_time(const tqi_redis_config *config, uint64_t deadline)
{
    uint64_t now = tqi_now(), us = (uint64_t)(config->timeout * 1e6);
    uint64_t left = deadline > now ? (deadline - now) / 1000 : 0;

    us = left < us ? left : us;
    us = us < 1000 ? 1000 : us; /* 0 would be no limit */
    return (struct timeval){.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
}

int tqi_redis_link_limit(tqi_redis_link *link, const tqi_redis_config *config, uint64_t deadline, tq_error *err)
{
    link->deadline = deadline;
    link->silence = (uint64_t)(config->timeout * 1e9);
    link->armed = 0;
    return link_left(link) > 0 ? TQ_OK : link_failed(link, ETIMEDOUT, err);
}

/* A command of plain words. */
static int link_words(tqi_redis_link *link, int n, const char **words, tq_error *err)
{
    char *text = NULL;
    int size = redisFormatCommandArgv(&text, n, words, NULL);

    if (size < 0) {
        return tqi_error_nomem(err, "a Redis command");
    }
    struct iovec iov = {.iov_base = text, .iov_len = (size_t)size};
    int rc = link_write(link, &iov, 1, err);
    redisFreeCommand(text);
    return rc;
}

/* The number after "NAME:"; 0: not found. */
static unsigned long long link_number(const char *info, const char *name)
{
    const char *at = strstr(info, name);

    return at != NULL ? strtoull(at + strlen(name), NULL, 10) : 0;
}

bool tqi_redis_link_room(tqi_redis_link *link, tq_error *err)
{
    const char *words[] = {"INFO", "memory"};
    char info[TQI_REDIS_INFO] = "";
    tq_error ignored = {0};
    int rc;

    link->spare = info;
    rc = link_words(link, 2, words, &ignored);
    rc = rc == TQ_OK ? tqi_redis_link_receive(link, NULL, &ignored) : rc;
    link->spare = NULL;
    if (rc == TQ_OK && link_number(info, "\nmaxmemory:") > 0) {
        char was[sizeof(err->message)];
        snprintf(was, sizeof(was), "%s", err->message);
        tqi_error_set(err, TQ_EFULL, "%s (it uses %llu of maxmemory %llu bytes)", was,
                      link_number(info, "\nused_memory:"), link_number(info, "\nmaxmemory:"));
    }
    return rc == TQ_OK;
}

int tqi_redis_link_plain(tqi_redis_link *link, tq_error *err)
{
    redisReader *plain = redisReaderCreate();

    if (plain == NULL) {
        return tqi_error_nomem(err, "reading a reply of Redis");
    }
    redisReaderFree(link->context->reader);
    link->context->reader = plain;
    return TQ_OK;
}

int tqi_redis_link_ask(tqi_redis_link *link, int n, const char **words, redisReply **out, tq_error *err)
{
    void *got = NULL;
    int rc = link_words(link, n, words, err);

    *out = NULL;
    if (rc != TQ_OK) {
        return rc;
    }
    errno = 0;
    if (redisGetReply(link->context, &got) != REDIS_OK || got == NULL) {
        return link_failed(link, errno, err);
    }
    *out = got;
    return TQ_OK;
}

/* "HOST:PORT", or the path of a socket: what messages call a server. */
static const char *link_place(const tqi_redis_config *config, const char *host, int port, char *out, size_t size)
{
    if (host[0] == 0) {
        return config->path;
    }
    snprintf(out, size, "%s:%d", host, port);
    return out;
}

/* A command of plain words whose reply is OK. */
static int link_say(tqi_redis_link *link, int n, const char **words, const char *what, int otherwise, tq_error *err)
{
    int rc = link_words(link, n, words, err);

    rc = rc == TQ_OK ? tqi_redis_link_receive(link, NULL, err) : rc;
    if (rc == TQ_OK && link->reply.type == REDIS_REPLY_ERROR) {
        rc = tqi_error_set(err, otherwise, "it refused %s: %s", what, link->reply.text);
    }
    return rc;
}

static int link_greet(tqi_redis_link *link, const tqi_redis_config *config, tq_error *err)
{
    char db[16];
    int rc = TQ_OK;

    if (config->password[0] != 0 || config->user[0] != 0) {
        const char *words[] = {"AUTH", config->user, config->password};
        if (config->user[0] == 0) {
            words[1] = config->password;
        }
        rc = link_say(link, config->user[0] == 0 ? 2 : 3, words, "user and password", TQ_EAUTH, err);
    }
    if (rc == TQ_OK && config->db != 0) {
        snprintf(db, sizeof(db), "%d", config->db);
        const char *words[] = {"SELECT", db};
        rc = link_say(link, 2, words, "the database", TQ_ECONFIG, err);
    }
    if (rc == TQ_OK) {
        const char *words[] = {"PING"};
        rc = link_say(link, 1, words, "a PING", TQ_EAUTH, err);
    }
    return rc;
}

int tqi_redis_link_open(const tqi_redis_config *config, const char *host, int port, uint64_t deadline,
                        tqi_redis_link **out, tq_error *err)
{
    struct timeval limit = link_time(config, deadline);
    tqi_redis_link *link = calloc(1, sizeof(*link));
    tq_error inner = {0};
    char place[320];
    int rc;

    if (link == NULL) {
        return tqi_error_nomem(err, "a connection to Redis");
    }
    link->context =
        host[0] != 0 ? redisConnectWithTimeout(host, port, limit) : redisConnectUnixWithTimeout(config->path, limit);
    if (link->context == NULL) {
        rc = tqi_error_nomem(err, "a connection to Redis");
    } else if (link->context->err != 0) {
        rc = tqi_error_set(err, TQ_EUNREACHABLE,
                           "Redis at %s cannot be reached: %s; check backend.Redis.url, and that it "
                           "runs",
                           link_place(config, host, port, place, sizeof(place)), link->context->errstr);
    } else {
        fcntl(link->context->fd, F_SETFD, FD_CLOEXEC);
        link->context->reader->fn = &link_functions;
        link->context->reader->privdata = link;
        rc = tqi_redis_link_limit(link, config, deadline, &inner);
        rc = rc == TQ_OK ? link_greet(link, config, &inner) : rc;
        if (rc != TQ_OK) {
            tqi_error_set(err, rc, "Redis at %s: %s", link_place(config, host, port, place, sizeof(place)),
                          inner.message);
        }
    }
    if (rc != TQ_OK) {
        tqi_redis_link_close(link);
        return rc;
    }
    *out = link;
    return TQ_OK;
}

void tqi_redis_link_close(tqi_redis_link *link)
{
    if (link != NULL) {
        redisFree(link->context);
        free(link);
    }
}
