/*
 * oom_test.c - every allocation of a request to a storage unit fails once: work answered with an error was not done,
 * and when memory is available again everything continues.
 */
#include "testkit.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/testkit_oom.h"
#include "net/calling.h"
#include "unit/unit_state.h"

#define MIB (UINT64_C(1) << 20)
/* Enough in a request for its reply to be larger than what any request has room for. */
#define BLOCKS UINT64_C(60)
#define PINNED UINT64_C(300)

static void quiet(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)level;
    (void)component;
    (void)text;
    (void)arg;
}

typedef struct reply {
    bool done;
    int status;
    uint32_t slot;
    size_t gone;
} reply;

static void answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    reply *r = arg;

    (void)call;
    r->done = true;
    r->status = answer->status;
    if (answer->status != TQ_OK) {
        return;
    }
    if (answer->reply->descriptor == &tq__unit_reserve_reply__descriptor) {
        r->slot = ((const Tq__UnitReserveReply *)answer->reply)->slot[0];
    } else if (answer->reply->descriptor == &tq__unit_pin_reply__descriptor) {
        r->gone = ((const Tq__UnitPinReply *)answer->reply)->n_gone;
    }
}

/* A request, of which the n-th allocation fails. */
static reply ask(kit_client *client, uint16_t kind, const void *message, long n, bool *failed)
{
    reply r = {.status = TQ_ENOMEM};
    tq_error err = {0};
    tqi_net_call_args args = {
        .kind = kind,
        .message = message,
        .deadline = tqi_deadline(KIT_LONG),
        .done = answered,
        .arg = &r,
    };

    if (n >= 0) {
        oom_one_after(n);
    }
    if (tqi_net_call_start(client->unit, &args, NULL, &err) == TQ_OK) {
        kit_until(client->kit, &r.done);
    }
    *failed = oom_end() > 0;
    return r;
}

static reply reserve(kit_client *client, uint64_t first, long n, bool *failed)
{
    Tq__UnitReserve message;
    uint64_t ids[BLOCKS], sizes[BLOCKS];
    Tq__Grant grant, *grants = &grant;

    tq__grant__init(&grant);
    for (unsigned i = 0; i < KIT_GRANTS; i++) {
        if (first - client->grants[i].first < client->grants[i].count) {
            grant.first = client->grants[i].first;
            grant.count = client->grants[i].count;
            grant.proof = (ProtobufCBinaryData){TQI_NET_GRANT, client->grants[i].proof};
        }
    }
    for (uint64_t i = 0; i < BLOCKS; i++) {
        ids[i] = first + i;
        sizes[i] = 100;
    }
    tq__unit_reserve__init(&message);
    message.id = ids;
    message.size = sizes;
    message.n_id = message.n_size = BLOCKS;
    message.grant = &grants;
    message.n_grant = 1;
    return ask(client, TQI_UNIT_RESERVE, &message, n, failed);
}

static void a_session_heals_when_memory_is_back(void **state)
{
    kit k;
    bool failed = true, unused;
    long n = 0;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    for (; failed; n++) {
        kit_client client;
        assert_true(n < 1000);
        kit_client_open(&k, &client, 0);
        uint64_t id = kit_grant(&client, 0, 2 * BLOCKS, NULL);
        /* The first request to the unit makes the session. */
        reply first = reserve(&client, id, n, &failed);
        assert_true(first.status == TQ_OK || (failed && first.status == TQ_ENOMEM));
        assert_int_equal(reserve(&client, id + BLOCKS, -1, &unused).status, TQ_OK);
        kit_client_close(&client);
    }
    assert_true(n > 10);
    kit_close(&k);
}

static void room_is_reserved_and_answered_or_free(void **state)
{
    kit k;
    kit_client client;
    bool failed = true;
    uint64_t used, blocks, held;
    long n = 0;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_client_open(&k, &client, 0);
    kit_stat(&client, &used, &held);
    for (; failed; n++) {
        assert_true(n < 1000);
        uint64_t id = kit_grant(&client, 0, BLOCKS, NULL);
        reply r = reserve(&client, id, n, &failed);
        assert_true(r.status == TQ_OK || (failed && r.status == TQ_ENOMEM));
        held += r.status == TQ_OK ? BLOCKS : 0;
        kit_stat(&client, &used, &blocks);
        assert_int_equal(blocks, held);
    }
    assert_true(n > 5);
    kit_client_close(&client);
    kit_close(&k);
}

static void blocks_are_pinned_and_answered_or_not_pinned(void **state)
{
    kit k;
    kit_client client;
    tqi_store_map map;
    Tq__UnitPin message;
    bool failed = true, unused;
    uint64_t ids[PINNED], incarnation, pins = 0;
    uint32_t slots[PINNED] = {0};
    long n = 0;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_client_open(&k, &client, 0);
    kit_map(&client, &map, &incarnation);
    uint64_t id = kit_grant(&client, 0, BLOCKS, NULL);
    reply block = reserve(&client, id, -1, &unused);
    assert_int_equal(block.status, TQ_OK);
    for (uint64_t i = 0; i < PINNED; i++) {
        ids[i] = id + i * 1000; /* all except the first do not exist, and are named in the reply */
    }
    slots[0] = block.slot;
    tq__unit_pin__init(&message);
    message.id = ids;
    message.slot = slots;
    message.n_id = message.n_slot = PINNED;
    for (; failed; n++) {
        assert_true(n < 1000);
        message.pin = (uint64_t)n + 1;
        reply r = ask(&client, TQI_UNIT_PIN, &message, n, &failed);
        assert_true(r.status == TQ_OK || (failed && r.status == TQ_ENOMEM));
        assert_int_equal(r.gone, r.status == TQ_OK ? PINNED - 1 : 0);
        pins += r.status == TQ_OK;
    }
    assert_true(n > 5);
    kit_until_reported(&client, "pins", pins);
    tqi_store_map_fini(&map);
    kit_client_close(&client);
    kit_close(&k);
}

static void stopped(void *arg)
{
    *(bool *)arg = true;
}

/* A unit that starts hears of every new session at its controller, without which it would not register again. */
static void a_unit_that_starts_hears_of_its_sessions(void **state)
{
    const char *listen[] = {"tcp:127.0.0.1:0"};
    kit k;
    bool failed = true;
    long n = 0;

    (void)state;
    kit_open(&k);
    tqi_unit_options options = {
        .name = "unit-0",
        .controller = k.controller_at,
        .listen = listen,
        .n_listen = 1,
        .token = &k.token,
        .store = {.capacity = MIB},
    };
    for (; failed; n++) {
        tqi_unit *unit = NULL;
        tq_error err = {0};
        bool end = false;
        oom_one_after(n);
        int rc = tqi_unit_alloc(&k.loop, &options, &unit, &err);
        failed = oom_end() > 0;
        assert_true(rc == TQ_OK || (failed && rc == TQ_ENOMEM));
        if (rc != TQ_OK) {
            continue; /* it closes itself */
        }
        assert_int_equal(unit->controller->n_on_open, 1);
        tqi_unit_close(unit, stopped, &end);
        kit_until(&k, &end);
    }
    assert_true(n > 10);
    kit_close(&k);
}

static int setup(void **state)
{
    (void)state;
    tq_log_set_sink(quiet, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    oom_end();
    tq_log_set_sink(NULL, NULL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unit_that_starts_hears_of_its_sessions),
        cmocka_unit_test(a_session_heals_when_memory_is_back),
        cmocka_unit_test(room_is_reserved_and_answered_or_free),
        cmocka_unit_test(blocks_are_pinned_and_answered_or_not_pinned),
    };

    return cmocka_run_group_tests_name("unit_oom", tests, setup, teardown);
}
