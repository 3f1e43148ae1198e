/*
 * testkit.c - the service and the client of the tests.
 */
#include "net/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

uv_loop_t testing_loop;
tqi_net_token testing_token;
static char testing_dir[64];
static int testing_paths;

/* --- the loop ------------------------------------------------------------- */

int testing_setup(void **state)
{
    (void)state;
    assert_int_equal(uv_loop_init(&testing_loop), 0);
    memset(&testing_token, 0, sizeof testing_token);
    testing_token.size = 32;
    tqi_random(testing_token.bytes, testing_token.size);
    snprintf(testing_dir, sizeof testing_dir, "/tmp/tq-net-XXXXXX");
    assert_non_null(mkdtemp(testing_dir));
    testing_paths = 0;
    return 0;
}

int testing_teardown(void **state)
{
    (void)state;
    /* After a failed test, handles may be left: the loop then cannot be closed, which is a failure, too. */
    for (int i = 0; i < 100 && uv_run(&testing_loop, UV_RUN_NOWAIT); i++) {
    }
    for (int i = 0; i < testing_paths; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/s%d", testing_dir, i);
        unlink(path);
    }
    rmdir(testing_dir);
    return uv_loop_close(&testing_loop);
}

static void testing_on_guard(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void testing_on_flag(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

typedef struct testing_wait {
    uv_prepare_t prepare;
    const int *flag;
    int value;
} testing_wait;

/* The flag may have been set by a timer, before the loop waits. */
static void testing_on_prepare(uv_prepare_t *prepare)
{
    const testing_wait *wait = prepare->data;
    if (wait->flag && *wait->flag >= wait->value) {
        uv_stop(&testing_loop);
    }
}

static void testing_run(const int *flag, int value, unsigned ms, bool fail)
{
    bool over = false, stopped = false;
    uv_timer_t guard;
    testing_wait wait = {.flag = flag, .value = value};
    uv_prepare_init(&testing_loop, &wait.prepare);
    wait.prepare.data = &wait;
    uv_prepare_start(&wait.prepare, testing_on_prepare);
    uv_update_time(&testing_loop);
    uv_timer_init(&testing_loop, &guard);
    guard.data = &over;
    uv_timer_start(&guard, testing_on_guard, ms, 0);
    while ((!flag || *flag < value) && !over) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
    bool expired = over;
    over = false;
    uv_close((uv_handle_t *)&guard, testing_on_flag);
    wait.prepare.data = &stopped;
    uv_close((uv_handle_t *)&wait.prepare, testing_on_flag);
    while (!over || !stopped) {
        uv_run(&testing_loop, UV_RUN_NOWAIT);
    }
    if (expired && fail) {
        fail_msg("waited too long");
    }
}

void testing_until(const int *flag, int value)
{
    testing_run(flag, value, 20000, true);
}

void testing_run_ms(unsigned ms)
{
    testing_run(NULL, 0, ms, false);
}

uint8_t testing_byte(uint64_t at)
{
    return (uint8_t)(at * 131 + (at >> 8) * 7 + (at >> 16));
}

const char *testing_unix_endpoint(void)
{
    static char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "unix:%s/s%d", testing_dir, testing_paths++);
    return endpoint;
}

/* --- the service ---------------------------------------------------------- */

static int service_open(tqi_net_session *session, void *ctx)
{
    testing_server *server = ctx;
    server->opened++;
    server->session = session;
    server->local = tqi_net_session_local(session);
    return TQ_OK;
}

static void service_end(tqi_net_session *session, bool dead, void *ctx)
{
    testing_server *server = ctx;
    (void)session;
    server->ended++;
    server->ended_dead += dead;
    server->session = NULL;
}

static bool service_serves(uint16_t kind, void *ctx)
{
    (void)ctx;
    return kind != TQI_COLLECT_DEAD;
}

static void service_settled(bool acked, void *arg)
{
    testing_server *server = arg;
    server->settled_acked += acked;
    server->settled_lost += !acked;
}

static void service_forget(testing_server *server, const tqi_net_request *request)
{
    for (int i = 0; i < server->n_waiting; i++) {
        if (server->waiting[i] == request) {
            memmove(&server->waiting[i], &server->waiting[i + 1],
                    sizeof server->waiting[0] * (size_t)(server->n_waiting - i - 1));
            server->n_waiting--;
            return;
        }
    }
}

static void service_cancel(tqi_net_request *request, void *arg)
{
    testing_server *server = arg;
    tq_error err;
    service_forget(server, request);
    server->cancelled++;
    tqi_error_set(&err, TQ_ECANCELED, "cancelled");
    tqi_net_request_fail(request, &err);
}

static void service_wait(testing_server *server, tqi_net_request *request)
{
    tqi_net_request_on_cancel(request, service_cancel, server);
    server->waiting[server->n_waiting++] = request;
}

static void service_reserve(testing_server *server, tqi_net_request *request, const ProtobufCMessage *message)
{
    uint32_t number = ((const Tq__Reserve *)message)->samples;
    server->executed[number % TESTING_NUMBERS]++;
    server->executions++;
    if (number == TESTING_MATCH) {
        testing_answer(server);
    }
    Tq__Batch batch;
    tq__batch__init(&batch);
    batch.index = &number;
    batch.partition = server->partition ? server->partition : batch.partition;
    batch.n_index = 1;
    Tq__ReserveReply reply;
    tq__reserve_reply__init(&reply);
    reply.batch = &batch;
    tqi_net_request_on_settled(request, service_settled, server);
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
}

static void service_answer_claim(testing_server *server, tqi_net_request *request)
{
    static uint64_t claims;
    Tq__ClaimReply reply;
    tq__claim_reply__init(&reply);
    reply.claim = ++claims;
    tqi_net_request_on_settled(request, service_settled, server);
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
}

static void service_empty(tqi_net_request *request)
{
    Tq__Empty reply;
    tq__empty__init(&reply);
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
}

typedef struct service_out {
    testing_server *server;
    uint8_t bytes[];
} service_out;

static void service_sent(void *arg)
{
    service_out *out = arg;
    out->server->sent++;
    free(out);
}

/* Not through malloc, which a test may make fail. */
static void *service_alloc(size_t size)
{
    void *memory = aligned_alloc(16, (size + 31) & ~(size_t)15);
    assert_non_null(memory);
    return memory;
}

static void service_read(testing_server *server, tqi_net_request *request, const ProtobufCMessage *message)
{
    const Tq__UnitRead *read = (const Tq__UnitRead *)message;
    size_t size = read->n_size ? read->size[0] : 0;
    service_out *out = service_alloc(sizeof *out + size);
    out->server = server;
    for (size_t i = 0; i < size; i++) {
        out->bytes[i] = testing_byte(i);
    }
    Tq__UnitReadReply reply;
    tq__unit_read_reply__init(&reply);
    /* In three pieces, one of them empty. */
    struct iovec pieces[3] = {{out->bytes, size / 3}, {out->bytes, 0}, {out->bytes + size / 3, size - size / 3}};
    tqi_net_request_reply(request, &reply.base, pieces, 3, service_sent, out);
}

static void service_took(testing_server *server, tqi_net_request *request)
{
    const struct iovec *iov = NULL;
    int n = tqi_net_request_payload_for_tests(request, &iov);
    uint64_t at = 0;
    for (int i = 0; i < n; i++) {
        for (size_t j = 0; j < iov[i].iov_len; j++) {
            server->bad_payloads += ((const uint8_t *)iov[i].iov_base)[j] != testing_byte(at++);
        }
    }
    server->received += at;
    free(tqi_net_request_user(request));
    if (tqi_net_request_kind(request) == TQI_UNIT_WRITE) {
        service_empty(request);
        return;
    }
    Tq__PublishReply reply;
    tq__publish_reply__init(&reply);
    server->executions++;
    tqi_net_request_on_settled(request, service_settled, server);
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
}

static void service_mapped(void *arg)
{
    close((int)(intptr_t)arg);
}

static void service_map(tqi_net_request *request)
{
    int fd = memfd_create("testing", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "shared", 6), 6);
    Tq__UnitMapReply reply;
    tq__unit_map_reply__init(&reply);
    reply.incarnation = 5;
    tqi_net_request_reply_fds(request, &reply.base, &fd, 1, service_mapped, (void *)(intptr_t)fd);
}

static void service_handle(tqi_net_request *request, const ProtobufCMessage *message, void *ctx)
{
    testing_server *server = ctx;
    server->handled++;
    switch (tqi_net_request_kind(request)) {
    case TQI_RESERVE:
        service_reserve(server, request, message);
        break;
    case TQI_CLAIM:
        if (((const Tq__Claim *)message)->poll) {
            service_answer_claim(server, request);
        } else {
            service_wait(server, request);
        }
        break;
    case TQI_RELEASE:
        server->released++;
        server->acked_at_release = server->settled_acked;
        service_empty(request);
        break;
    case TQI_EVENTS:
        service_wait(server, request);
        break;
    case TQI_UNIT_READ:
        service_read(server, request, message);
        break;
    case TQI_UNIT_WRITE:
    case TQI_PUBLISH:
        service_took(server, request);
        break;
    case TQI_UNIT_MAP:
        service_map(request);
        break;
    default: {
        tq_error err;
        tqi_error_set(&err, TQ_EPARTITION, "unknown partition 'p'");
        tqi_net_request_fail(request, &err);
    }
    }
}

static int service_sink(tqi_net_request *request, const ProtobufCMessage *message, uint64_t size, struct iovec *iov,
                        int max, int *count, void *ctx, tq_error *err)
{
    testing_server *server = ctx;
    (void)message;
    (void)max;
    if (size == server->refuse_sink) {
        return tqi_error_set(err, TQ_EFULL, "no room for %llu bytes", (unsigned long long)size);
    }
    uint8_t *bytes = service_alloc(size);
    server->sinks++;
    tqi_net_request_set_user(request, bytes);
    iov[0] = (struct iovec){bytes, size / 2};
    iov[1] = (struct iovec){bytes + size / 2, size - size / 2};
    *count = 2;
    return TQ_OK;
}

static void service_sink_failed(tqi_net_request *request, void *ctx)
{
    testing_server *server = ctx;
    server->sinks_failed++;
    free(tqi_net_request_user(request));
}

static bool service_parkable(const tqi_net_session *session, void *ctx)
{
    const testing_server *server = ctx;

    (void)session;
    return !server->stay;
}

const tqi_net_service testing_service = {
    .name = "testing",
    .session_open = service_open,
    .session_end = service_end,
    .serves = service_serves,
    .handle = service_handle,
    .sink = service_sink,
    .sink_failed = service_sink_failed,
    .parkable = service_parkable,
};

void testing_answer(testing_server *server)
{
    testing_answer_at(server, 0);
}

void testing_answer_at(testing_server *server, int at)
{
    tqi_net_request *request = server->waiting[at];
    service_forget(server, request);
    if (tqi_net_request_kind(request) == TQI_CLAIM) {
        service_answer_claim(server, request);
        return;
    }
    Tq__EventsReply reply;
    tq__events_reply__init(&reply);
    reply.next = 77;
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
}

void testing_server_start(testing_server *server, const char *endpoint, uint64_t epoch, uint64_t grace_ms)
{
    tq_error err = {0};
    memset(server, 0, sizeof *server);
    server->epoch = epoch;
    tqi_net_server_options options = {.epoch = epoch, .token = &testing_token, .grace_ms = grace_ms};
    assert_int_equal(tqi_net_server_alloc(&testing_loop, &testing_service, server, &options, &server->server, &err),
                     TQ_OK);
    int rc = tqi_net_server_listen(server->server, endpoint, server->endpoint, sizeof server->endpoint, &err);
    if (rc != TQ_OK) {
        fail_msg("%s", err.message);
    }
}

static void testing_on_closed(void *arg)
{
    *(int *)arg = 1;
}

void testing_server_stop(testing_server *server)
{
    int closed = 0;
    tqi_net_server_close(server->server, testing_on_closed, &closed);
    testing_until(&closed, 1);
    server->server = NULL;
}

/* --- the client ----------------------------------------------------------- */

tqi_net_connector *testing_connector(const tqi_net_token *token, uint64_t first_request)
{
    tqi_net_connector *connector = NULL;
    tq_error err = {0};
    tqi_net_connector_options options = {.token = token, .name = "tester", .first_request = first_request};
    assert_int_equal(tqi_net_connector_alloc(&testing_loop, &options, &connector, &err), TQ_OK);
    return connector;
}

void testing_connector_stop(tqi_net_connector *connector)
{
    int closed = 0;
    tqi_net_connector_close(connector, testing_on_closed, &closed);
    testing_until(&closed, 1);
}

tqi_net_channel *testing_channel(tqi_net_connector *connector, const char *endpoint)
{
    tqi_net_channel *channel = NULL;
    tq_error err = {0};
    assert_int_equal(tqi_net_channel_get(connector, endpoint, &channel, &err), TQ_OK);
    return channel;
}

static void testing_release(tqi_net_channel *channel, uint64_t claim);

static void testing_on_done(tqi_net_call *handle, tqi_net_answer *answer, void *arg)
{
    testing_call *call = arg;
    assert_ptr_equal(handle, call->call);
    assert_int_equal(call->done, 0);
    call->done++;
    call->status = answer->status;
    call->payload = answer->payload;
    if (answer->status != TQ_OK) {
        assert_non_null(answer->error);
        assert_int_equal(answer->error->code, answer->status);
        call->error = *answer->error;
        return;
    }
    if (answer->reply->descriptor == &tq__reserve_reply__descriptor) {
        call->index = ((const Tq__ReserveReply *)answer->reply)->batch->index[0];
    } else if (answer->reply->descriptor == &tq__claim_reply__descriptor) {
        call->claim = ((const Tq__ClaimReply *)answer->reply)->claim;
        if (call->undo) {
            testing_release(call->release_on, call->claim);
        }
    }
    if (answer->n_fds > 0) {
        call->fd = answer->fds[0];
        answer->fds[0] = -1;
    }
}

static int testing_sink(const ProtobufCMessage *reply, uint64_t size, struct iovec *iov, int max, int *count, void *arg)
{
    testing_call *call = arg;
    assert_non_null(reply);
    if (size > call->buffer_size) {
        return TQ_EFULL;
    }
    int pieces = call->pieces ? call->pieces : 1;
    assert_true(pieces <= max);
    uint8_t *at = call->buffer;
    for (int i = 0; i < pieces; i++) {
        size_t n = i + 1 < pieces ? size / (uint64_t)pieces : size - (uint64_t)(at - call->buffer);
        iov[i] = (struct iovec){at, n};
        at += n;
    }
    *count = pieces;
    return TQ_OK;
}

static void testing_on_orphan(tqi_net_channel *channel, const ProtobufCMessage *reply, void *arg);

static void testing_on_orphan_free(void *arg)
{
    ((testing_call *)arg)->orphans_freed++;
}

static void testing_start(tqi_net_channel *channel, testing_call *call, uint16_t kind, ProtobufCMessage *message,
                          const struct iovec *payload, int n_payload, double seconds)
{
    tq_error err = {0};
    tqi_net_call_args args = {
        .kind = kind,
        .message = message,
        .payload = payload,
        .n_payload = n_payload,
        .deadline = tqi_deadline(seconds),
        .done = testing_on_done,
        .arg = call,
    };
    if (call->buffer) {
        args.sink = testing_sink;
    }
    if (kind == TQI_CLAIM) {
        args.orphan = testing_on_orphan;
        args.orphan_free = testing_on_orphan_free;
        args.orphan_arg = call;
    }
    call->fd = -1;
    int rc = tqi_net_call_start(channel, &args, &call->call, &err);
    if (rc != TQ_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(call->done, 0);
}

static testing_call testing_release_call;

static void testing_release(tqi_net_channel *channel, uint64_t claim)
{
    Tq__Release release;
    tq__release__init(&release);
    release.claim = claim;
    memset(&testing_release_call, 0, sizeof testing_release_call);
    testing_start(channel, &testing_release_call, TQI_RELEASE, &release.base, NULL, 0, 10);
}

static void testing_on_orphan(tqi_net_channel *channel, const ProtobufCMessage *reply, void *arg)
{
    testing_call *call = arg;
    call->orphans++;
    call->orphan_claim = ((const Tq__ClaimReply *)reply)->claim;
    if (call->release_on) {
        assert_ptr_equal(call->release_on, channel);
        testing_release(channel, call->orphan_claim);
    }
}

void testing_reserve(tqi_net_channel *channel, testing_call *call, uint32_t number, double seconds)
{
    Tq__Reserve message;
    tq__reserve__init(&message);
    message.samples = number;
    testing_start(channel, call, TQI_RESERVE, &message.base, NULL, 0, seconds);
}

void testing_claim(tqi_net_channel *channel, testing_call *call, bool poll, double seconds)
{
    Tq__Claim message;
    tq__claim__init(&message);
    message.poll = poll;
    testing_start(channel, call, TQI_CLAIM, &message.base, NULL, 0, seconds);
}

void testing_events(tqi_net_channel *channel, testing_call *call, double seconds)
{
    Tq__Events message;
    tq__events__init(&message);
    testing_start(channel, call, TQI_EVENTS, &message.base, NULL, 0, seconds);
}

void testing_write(tqi_net_channel *channel, testing_call *call, uint16_t kind, const uint8_t *data, size_t size,
                   double seconds)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } bytes = {data};
    struct iovec pieces[2] = {{bytes.out, size / 3}, {bytes.out ? bytes.out + size / 3 : NULL, size - size / 3}};
    Tq__UnitWrite write;
    tq__unit_write__init(&write);
    Tq__Publish publish;
    tq__publish__init(&publish);
    testing_start(channel, call, kind, kind == TQI_PUBLISH ? &publish.base : &write.base, pieces, 2, seconds);
}

void testing_read(tqi_net_channel *channel, testing_call *call, size_t size, double seconds)
{
    uint64_t sizes[1] = {size};
    Tq__UnitRead message;
    tq__unit_read__init(&message);
    message.n_size = 1;
    message.size = sizes;
    testing_start(channel, call, TQI_UNIT_READ, &message.base, NULL, 0, seconds);
}

void testing_map(tqi_net_channel *channel, testing_call *call)
{
    Tq__UnitMap message;
    tq__unit_map__init(&message);
    testing_start(channel, call, TQI_UNIT_MAP, &message.base, NULL, 0, 10);
}
