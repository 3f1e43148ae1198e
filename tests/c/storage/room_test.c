/*
 * room_test.c - when a storage unit reuses room: waiting, collecting, epochs, writers that outlive their session, pins.
 */
#include "testkit.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "controller/controller_state.h"
#include "unit/unit_state.h"

#include <tq/log.h>
#include <tq/types.h>

#define MIB (UINT64_C(1) << 20)

static void frees_what_is_dead(void **state)
{
    kit k;
    kit_client client;
    uint64_t offset, used, blocks, incarnation;
    uint32_t slot;
    uint8_t byte = 1;
    bool gone;
    tq_error err = {0};
    kit_call call;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    uint64_t id = kit_grant(&client, 0, 4, &incarnation);
    assert_int_equal(kit_reserve(&client, id, MIB, false, &slot, &offset, &err), TQ_OK);
    /* A reserve that waits is woken by the free; id + 2 dies before it comes. */
    kit_reserve_start(&client, id + 1, MIB, false, true, 0, incarnation, &call);
    uint64_t dead[2] = {id, id + 2};
    kit_abandon(&client, dead, 2, false);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
    assert_int_equal(kit_read(&client, id, slot, 0, 1, &byte, &gone, &err), TQ_OK);
    assert_true(gone);
    assert_int_equal(kit_reserve(&client, id + 2, 1, false, &slot, &offset, &err), TQ_ESTALE);
    assert_non_null(strstr(err.message, "has ended"));
    /* So does one that waited: its id dies while it waits. */
    kit_reserve_start(&client, id + 3, 1, false, true, 0, 0, &call);
    dead[0] = id + 1;
    dead[1] = id + 3;
    kit_abandon(&client, dead, 2, false);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_ESTALE);
    kit_call_free(&call);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(used, 0);
    assert_int_equal(blocks, 0);
    kit_client_close(&client);
    kit_close(&k);
}

static void waits_when_full(void **state)
{
    kit k;
    kit_client client;
    uint64_t offset, incarnation, used, blocks;
    uint32_t slot;
    tq_error err = {0};
    kit_call joins[3], column, never, timed;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 100 * 4096, false);
    kit_client_open(&k, &client, 0);
    uint64_t id = kit_grant(&client, 0, 20, &incarnation);
    /* A request that can never fit is refused at once, with sizes. */
    kit_reserve_start(&client, id, 91 * 4096, true, true, 0, 0, &never);
    kit_end(&client, &never);
    assert_int_equal(never.status, TQ_EFULL);
    assert_non_null(strstr(never.error.message, "372736"));
    assert_non_null(strstr(never.error.message, "409600"));
    kit_call_free(&never);
    assert_int_equal(kit_reserve(&client, id, 90 * 4096, true, &slot, &offset, &err), TQ_OK);
    assert_int_equal(kit_reserve(&client, id + 1, 1, true, &slot, &offset, &err), TQ_EFULL);
    /* The deadline of a wait is the unit's to keep. */
    uint64_t before = tqi_now();
    kit_reserve_start(&client, id + 1, 64, true, true, 30, 0, &timed);
    kit_end(&client, &timed);
    assert_int_equal(timed.status, TQ_EFULL);
    assert_true(tqi_now() - before >= 30000000u);
    assert_string_equal(timed.error.message,
                        "unit 'unit-0' stayed full until the deadline: 64 bytes wanted, 0 are free "
                        "for it: 368640 of 409600 are used, and the last 40960 are kept for "
                        "columns of existing samples; clear samples, or start the system with a "
                        "larger total_storage_size");
    kit_call_free(&timed);
    /* New samples wait in order; a column of old ones goes before them, into the last tenth. */
    kit_reserve_start(&client, id + 2, 50 * 4096, true, true, 0, 0, &joins[0]);
    kit_reserve_start(&client, id + 3, 10, true, true, 0, 0, &joins[1]);
    kit_reserve_start(&client, id + 4, 40 * 4096, true, true, 0, 0, &joins[2]);
    assert_int_equal(kit_reserve(&client, id + 5, 10 * 4096, false, &slot, &offset, &err), TQ_OK);
    assert_int_equal(kit_reserve(&client, id + 6, 1, true, &slot, &offset, &err), TQ_EFULL);
    assert_false(joins[0].done || joins[1].done || joins[2].done);
    kit_reserve_start(&client, id + 7, 20 * 4096, false, true, 0, 0, &column);
    kit_abandon(&client, &id, 1, false);
    kit_end(&client, &joins[0]);
    assert_int_equal(joins[0].status, TQ_OK);
    assert_true(column.done); /* before the first of those that join */
    assert_int_equal(column.status, TQ_OK);
    kit_end(&client, &joins[1]);
    assert_int_equal(joins[1].status, TQ_OK);
    assert_false(joins[2].done); /* 10 + 20 + 50 pages and a bit are used */
    /* A wait ends when it is cancelled. */
    tqi_net_call_cancel(joins[2].call);
    kit_end(&client, &joins[2]);
    assert_int_equal(joins[2].status, TQ_ECANCELED);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(used, 80 * 4096 + 64);
    assert_int_equal(blocks, 4);
    /* And when its session ends. */
    kit_call_free(&joins[0]);
    kit_call_free(&joins[1]);
    kit_call_free(&column);
    kit_reserve_start(&client, id + 8, 100 * 4096, false, true, 0, 0, &never);
    kit_client_close(&client);
    assert_true(never.done);
    assert_int_equal(never.status, TQ_ECLOSED);
    kit_close(&k);
}

static void a_waiting_put_is_sent_elsewhere_when_the_unit_ends(void **state)
{
    kit k;
    kit_client client;
    uint64_t offset, incarnation, used, blocks;
    uint32_t slot;
    tq_error err = {0};
    kit_call waiting;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    uint64_t id = kit_grant(&client, 0, 2, &incarnation);
    assert_int_equal(kit_reserve(&client, id, MIB, false, &slot, &offset, &err), TQ_OK);
    kit_reserve_start(&client, id + 1, 1, false, true, 0, incarnation, &waiting);
    kit_stat(&client, &used, &blocks); /* it is there by now */
    kit_unit_stop(&k, 0);
    kit_end(&client, &waiting);
    assert_int_equal(waiting.status, TQ_EUNREACHABLE);
    kit_call_free(&waiting);
    kit_client_close(&client);
    kit_close(&k);
}

static void new_epoch_drops_all(void **state)
{
    kit k;
    kit_client client;
    tqi_store_map old, now;
    uint64_t offset, incarnation, later, used, blocks;
    uint32_t slot;
    uint8_t byte = 9;
    bool gone = false;
    tq_error err = {0};
    kit_call waiting, call;
    Tq__UnitRead message;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    kit_map(&client, &old, NULL);
    uint64_t id = kit_grant(&client, 0, 2, &incarnation);
    assert_int_equal(kit_reserve(&client, id, MIB, false, &slot, &offset, &err), TQ_OK);
    old.arena[offset] = 1;
    assert_true(tqi_store_map_read(&old, id, slot, offset, &byte, 1, false));
    kit_reserve_start(&client, id + 1, 1, false, true, 0, incarnation, &waiting);
    k.ready[0] = false;
    kit_controller_stop(&k);
    kit_controller_start(&k);
    kit_until(&k, &k.ready[0]);
    kit_end(&client, &waiting);
    assert_int_equal(waiting.status, TQ_ESTALE);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 0);
    /* Old memory and old slots are nobody's: a late writer and a late reader do no harm. */
    assert_false(tqi_store_map_read(&old, id, slot, offset, &byte, 1, false));
    kit_map(&client, &now, &later);
    assert_true(later != incarnation);
    uint64_t again = kit_grant(&client, 0, 2, &incarnation);
    assert_true(incarnation == later);
    assert_int_equal(again, id); /* numbers begin again */
    assert_int_equal(kit_reserve(&client, again, MIB, false, &slot, &offset, &err), TQ_OK);
    now.arena[offset] = 2;
    old.arena[offset] = 3;
    assert_true(tqi_store_map_read(&now, again, slot, offset, &byte, 1, false));
    assert_int_equal(byte, 2);
    assert_false(tqi_store_map_read(&old, again, slot, offset, &byte, 1, false));
    /* Requests that name the old incarnation are refused, reads of it are gone. */
    kit_reserve_start(&client, again + 1, 1, false, false, 0, later + 1, &call);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_ESTALE);
    kit_call_free(&call);
    uint64_t zero = 0, one = 1;
    tq__unit_read__init(&message);
    message.id = &again;
    message.slot = &slot;
    message.offset = &zero;
    message.size = &one;
    message.n_id = message.n_slot = message.n_offset = message.n_size = 1;
    message.incarnation = later + 1;
    kit_start(&client, client.unit, TQI_UNIT_READ, &message, NULL, 0, &byte, 20, &call);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(((const Tq__UnitReadReply *)call.reply)->n_gone, 1);
    kit_call_free(&call);
    assert_int_equal(kit_read(&client, again, slot, 0, 1, &byte, &gone, &err), TQ_OK);
    assert_false(gone);
    tqi_store_map_fini(&old);
    tqi_store_map_fini(&now);
    kit_client_close(&client);
    kit_close(&k);
}

static void give_up_owners(tqi_net_session *session, void *arg)
{
    tqi_ctl_session *of = tqi_net_session_user(session);

    if (of->serves != NULL) {
        tqi_ctl_owners_leave(arg, of, true);
    }
}

static void when_it_cannot(tq_log_level level, const char *part, const char *message, void *arg)
{
    (void)level;
    (void)part;
    if (strstr(message, "cannot start anew") != NULL) {
        *(bool *)arg = true;
    }
}

/* The controller forgets the unit, which must drop all, but has no memory for a new store until later. */
static void drops_all_when_there_is_memory_again(void **state)
{
    kit k;
    kit_client client;
    uint64_t offset, used, blocks;
    uint32_t slot;
    bool could_not = false;
    tq_error err = {0};

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    uint64_t id = kit_grant(&client, 0, 1, NULL);
    assert_int_equal(kit_reserve(&client, id, 1, false, &slot, &offset, &err), TQ_OK);
    tq_log_set_sink(when_it_cannot, &could_not);
    k.units[0]->store_options.capacity = UINT64_MAX / 2;
    k.ready[0] = false;
    tqi_net_server_each_session(k.controller->server, give_up_owners, k.controller);
    k.controller->wake(k.controller);
    kit_until(&k, &could_not);
    /* It tries again, with every answer to its registration. */
    could_not = false;
    while (!could_not && !k.ready[0]) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    assert_false(k.ready[0]);
    k.units[0]->store_options.capacity = MIB;
    kit_until(&k, &k.ready[0]);
    tq_log_set_sink(NULL, NULL);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 0);
    kit_client_close(&client);
    kit_close(&k);
}

/* ---- a writer that the controller lost sight of, but that still lives ---- */

/* The child: reserves half of the unit in its own session, maps it, gives its id up in the middle of a write, reports
 * that, and runs until told to exit. */
static void writer_child(kit *parent, const char *endpoint, int say, int hear)
{
    static kit k;
    kit_client client;
    tqi_store_map map;
    uint64_t offset;
    uint32_t slot;
    tq_error err = {0};
    char byte = 'x';

    memset(&k, 0, sizeof(k));
    uv_loop_init(&k.loop);
    k.token = parent->token;
    memcpy(k.controller_at, parent->controller_at, sizeof(k.controller_at));
    kit_client_open(&k, &client, -1);
    if (tqi_net_channel_get(client.connector, endpoint, &client.unit, &err) != TQ_OK) {
        _exit(2);
    }
    kit_map(&client, &map, NULL);
    uint64_t id = kit_grant(&client, 0, 1, NULL);
    if (kit_reserve(&client, id, 50 * 4096, false, &slot, &offset, &err) != TQ_OK) {
        _exit(3);
    }
    kit_abandon(&client, &id, 1, true);
    if (write(say, &byte, 1) != 1 || read(hear, &byte, 1) < 0) {
        _exit(4);
    }
    _exit(0);
}

static void waits_for_a_living_writer(void **state)
{
    kit k;
    kit_client gone, other;
    uint64_t offset, incarnation;
    uint32_t slot;
    tq_error err = {0};
    kit_call first, second;
    int says[2], hears[2], status;
    char byte;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 100 * 4096, false);
    kit_client_open(&k, &gone, 0);
    kit_client_open(&k, &other, 0);
    assert_int_equal(pipe(says), 0);
    assert_int_equal(pipe(hears), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(says[0]);
        close(hears[1]);
        writer_child(&k, tqi_unit_endpoint_for_tests(k.units[0]), says[1], hears[0]);
    }
    close(says[1]);
    close(hears[0]);
    /* The loop serves the child until its word comes. */
    struct pollfd said = {.fd = says[0], .events = POLLIN};
    uint64_t used, blocks;
    while (poll(&said, 1, 0) == 0) {
        kit_stat(&other, &used, &blocks);
    }
    assert_int_equal(read(says[0], &byte, 1), 1);
    /* The other half by a writer without a mapping, whose session ends at the controller and at the unit. */
    uint64_t id = kit_grant(&gone, 0, 1, NULL);
    assert_int_equal(kit_reserve(&gone, id, 50 * 4096, false, &slot, &offset, &err), TQ_OK);
    uint64_t next = kit_grant(&other, 0, 2, &incarnation);
    kit_reserve_start(&other, next, 50 * 4096, false, true, 0, incarnation, &first);
    kit_reserve_start(&other, next + 1, 50 * 4096, false, true, 0, incarnation, &second);
    kit_client_close(&gone);
    kit_end(&other, &first);
    assert_int_equal(first.status, TQ_OK);
    /* Both are dead, but the child can still write into its block. */
    kit_stat(&other, &used, &blocks);
    assert_int_equal(blocks, 2);
    assert_false(second.done);
    close(hears[1]);
    kit_end(&other, &second);
    assert_int_equal(second.status, TQ_OK);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(says[0]);
    kit_call_free(&first);
    kit_call_free(&second);
    kit_client_close(&other);
    kit_close(&k);
}

/* ---- readers that look at blocks in place ---- */

static int pin(kit_client *client, uint64_t number, const uint64_t *ids, uint32_t *slots, size_t n, size_t *gone)
{
    Tq__UnitPin message;
    kit_call call;

    tq__unit_pin__init(&message);
    message.pin = number;
    message.id = (uint64_t *)(uintptr_t)ids;
    message.slot = slots;
    message.n_id = message.n_slot = n;
    kit_start(client, client->unit, TQI_UNIT_PIN, &message, NULL, 0, NULL, 20, &call);
    kit_end(client, &call);
    int status = call.status;
    *gone = status == TQ_OK ? ((const Tq__UnitPinReply *)call.reply)->n_gone : 0;
    kit_call_free(&call);
    return status;
}

static void unpin(kit_client *client, uint64_t number)
{
    Tq__UnitUnpin message;
    kit_call call;

    tq__unit_unpin__init(&message);
    message.pin = &number;
    message.n_pin = 1;
    kit_start(client, client->unit, TQI_UNIT_UNPIN, &message, NULL, 0, NULL, 20, &call);
    kit_end(client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
}

/* A session that was lost leaves its pins to its client's next one. */
static void pins_of_a_lost_session_can_be_ended(void **state)
{
    kit k;
    kit_client client;
    tqi_store_map map;
    uint64_t id, offset, used, blocks;
    uint32_t slot;
    size_t gone;
    tq_error err = {0};

    (void)state;
    kit_open(&k);
    k.grace_ms = 0;
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    kit_map(&client, &map, NULL);
    id = kit_grant(&client, 0, 1, NULL);
    assert_int_equal(kit_reserve(&client, id, MIB / 2, false, &slot, &offset, &err), TQ_OK);
    assert_int_equal(pin(&client, 1, &id, &slot, 1, &gone), TQ_OK);
    kit_client_cut(&client);
    kit_abandon(&client, &id, 1, false);
    do {
        kit_stat(&client, &used, &blocks);
    } while (blocks > 0);
    assert_int_equal(used, MIB / 2);
    unpin(&client, 2); /* none to end */
    kit_stat(&client, &used, &blocks);
    assert_int_equal(used, MIB / 2);
    unpin(&client, 1);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(used, 0);
    kit_until_reported(&client, "pins", 0);
    tqi_store_map_fini(&map);
    kit_client_close(&client);
    kit_close(&k);
}

static void pinned_memory_is_not_reused(void **state)
{
    kit k;
    kit_client client;
    tqi_store_map map;
    uint64_t offsets[2], used, blocks, ids[2], incarnation;
    uint32_t slots[2];
    size_t gone, size = 0;
    void *base = NULL;
    tq_error err = {0};
    kit_call waiting;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    ids[0] = kit_grant(&client, 0, 4, &incarnation);
    ids[1] = ids[0] + 1;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kit_reserve(&client, ids[i], MIB / 2, false, &slots[i], &offsets[i], &err), TQ_OK);
    }
    /* Only for a session that has mapped the memory. */
    assert_int_equal(pin(&client, 1, ids, slots, 2, &gone), TQ_EUNSUPPORTED);
    kit_map(&client, &map, NULL);
    memset(map.arena + offsets[0], 0x11, MIB / 2);
    memset(map.arena + offsets[1], 0x22, MIB / 2);
    assert_int_equal(pin(&client, 1, ids, slots, 2, &gone), TQ_OK);
    assert_int_equal(gone, 0);
    assert_int_equal(pin(&client, 1, ids, slots, 1, &gone), TQ_EINVAL); /* that number is taken */
    assert_int_equal(pin(&client, 2, ids, slots, 1, &gone), TQ_OK);     /* twice is possible */
    kit_until_reported(&client, "pins", 2);
    assert_int_equal(kit_reported(&client, "pinned_bytes"), 3 * (MIB / 2));
    const uint8_t *view = tqi_store_map_borrow(&map, offsets[0], MIB / 2, &base, &size);
    assert_non_null(view);
    assert_null(tqi_store_map_borrow(&map, MIB - 1, 2, &base, &size));
    kit_abandon(&client, ids, 2, false);
    kit_reserve_start(&client, ids[0] + 2, MIB / 2, false, true, 0, incarnation, &waiting);
    do {
        kit_stat(&client, &used, &blocks);
    } while (blocks > 0);
    assert_int_equal(used, MIB); /* dead, and still there */
    /* Its holder is notified. */
    kit_call full;
    kit_reserve_start(&client, ids[0] + 3, MIB / 4, false, false, 0, incarnation, &full);
    kit_end(&client, &full);
    assert_int_equal(full.status, TQ_EFULL);
    char text[256];
    snprintf(text, sizeof(text),
             "; 1048576 of the used bytes were cleared, but zero-copy reads still show them: 'test' "
             "(process %d) pins 1572864; that room comes back when those tensors are deleted; "
             "clear samples, or",
             (int)getpid());
    if (strstr(full.error.message, text) == NULL) {
        fail_msg("'%s' is not in: %s", text, full.error.message);
    }
    kit_call_free(&full);
    assert_int_equal(pin(&client, 3, ids, slots, 2, &gone), TQ_OK);
    assert_int_equal(gone, 2);
    unpin(&client, 77); /* none to end */
    unpin(&client, 2);
    assert_false(waiting.done);
    assert_int_equal(view[0], 0x11);
    assert_int_equal(view[MIB / 2 - 1], 0x11);
    unpin(&client, 1);
    kit_end(&client, &waiting);
    assert_int_equal(waiting.status, TQ_OK);
    kit_call_free(&waiting);
    kit_until_reported(&client, "pins", 0);
    assert_int_equal(kit_reported(&client, "pinned_bytes"), 0);
    munmap(base, size);
    tqi_store_map_fini(&map);
    kit_client_close(&client);
    kit_close(&k);
}

/* ---- published and cleared ---- */

static void published_blocks_are_freed_when_cleared(void **state)
{
    kit k;
    kit_client client;
    uint64_t offset, incarnation, run_offset = 0, used, blocks, shape = 4;
    uint32_t slot, run_block = 1, run_rows = 10;
    tq_error err = {0};
    kit_call call, waiting;
    Tq__Publish publish;
    Tq__Batch batch;
    Tq__Field field, *fields[1] = {&field};
    Tq__Owner owner, *owners[1] = {&owner};
    Tq__Block block, *list[1] = {&block};
    Tq__Clear clear;
    char name[] = "unit-0", partition[] = "p", column[] = "c";
    uint8_t locator[12] = {0};

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    uint64_t id = kit_grant(&client, 0, 2, &incarnation);
    assert_int_equal(kit_reserve(&client, id, MIB / 2, true, &slot, &offset, &err), TQ_OK);
    tq__publish__init(&publish);
    tq__batch__init(&batch);
    tq__field__init(&field);
    tq__owner__init(&owner);
    tq__block__init(&block);
    owner.name = name;
    owner.incarnation = incarnation;
    block.id = id;
    block.size = MIB / 2;
    block.locator.data = locator;
    block.locator.len = sizeof(locator);
    field.name = column;
    field.dtype = TQ_UINT | 8 << 8;
    field.shape = &shape;
    field.n_shape = 1;
    field.run_block = &run_block;
    field.run_offset = &run_offset;
    field.run_rows = &run_rows;
    field.n_run_block = field.n_run_offset = field.n_run_rows = 1;
    batch.partition = partition;
    batch.field = fields;
    batch.owner = owners;
    batch.block = list;
    batch.n_field = batch.n_owner = batch.n_block = 1;
    publish.batch = &batch;
    publish.samples = 10;
    kit_start(&client, client.controller, TQI_PUBLISH, &publish, NULL, 0, NULL, 20, &call);
    kit_end(&client, &call);
    if (call.status != TQ_OK) {
        print_error("publish: %s\n", call.error.message);
    }
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
    kit_reserve_start(&client, id + 1, MIB, false, true, 0, incarnation, &waiting);
    tq__clear__init(&clear);
    clear.partition = partition;
    clear.all = 1;
    kit_start(&client, client.controller, TQI_CLEAR, &clear, NULL, 0, NULL, 20, &call);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
    kit_end(&client, &waiting);
    assert_int_equal(waiting.status, TQ_OK);
    kit_call_free(&waiting);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 1);
    kit_client_close(&client);
    kit_close(&k);
}

/* ---- bad options ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frees_what_is_dead),
        cmocka_unit_test(waits_when_full),
        cmocka_unit_test(a_waiting_put_is_sent_elsewhere_when_the_unit_ends),
        cmocka_unit_test(new_epoch_drops_all),
        cmocka_unit_test(drops_all_when_there_is_memory_again),
        cmocka_unit_test(waits_for_a_living_writer),
        cmocka_unit_test(pinned_memory_is_not_reused),
        cmocka_unit_test(pins_of_a_lost_session_can_be_ended),
        cmocka_unit_test(published_blocks_are_freed_when_cleared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
