/*
 * testkit.c - the loop and the service of the tests.
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
    memset(&testing_token, 0, sizeof(testing_token));
    testing_token.size = 32;
    tqi_random(testing_token.bytes, testing_token.size);
    snprintf(testing_dir, sizeof(testing_dir), "/tmp/tq-net-XXXXXX");
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
        snprintf(path, sizeof(path), "%s/s%d", testing_dir, i);
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

    if (wait->flag != NULL && *wait->flag >= wait->value) {
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
    while ((flag == NULL || *flag < value) && !over) {
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

    snprintf(endpoint, sizeof(endpoint), "unix:%s/s%d", testing_dir, testing_paths++);
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
                    sizeof(server->waiting[0]) * (size_t)(server->n_waiting - i - 1));
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
    batch.partition = server->partition != NULL ? server->partition : batch.partition;
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
    service_out *out = service_alloc(sizeof(*out) + size);

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

    memset(server, 0, sizeof(*server));
    server->epoch = epoch;
    tqi_net_server_options options = {.epoch = epoch, .token = &testing_token, .grace_ms = grace_ms};
    assert_int_equal(tqi_net_server_alloc(&testing_loop, &testing_service, server, &options, &server->server, &err),
                     TQ_OK);
    int rc = tqi_net_server_listen(server->server, endpoint, server->endpoint, sizeof(server->endpoint), &err);
    if (rc != TQ_OK) {
        fail_msg("%s", err.message);
    }
}

void testing_on_closed(void *arg)
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
