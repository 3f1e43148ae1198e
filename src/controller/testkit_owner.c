/*
 * testkit_owner.c - see testkit_owner.h.
 */
#include "controller/testkit_owner.h"
#include "base/pointer.h"

kit k;
kit_client unit, client;

char *kit_text(const char *s)
{
    return tqi_unconst(s);
}

static int owner_setup_with(uint64_t owner_timeout_ms)
{
    tqi_controller_options options = {.grace_ms = 60000, .owner_timeout_ms = owner_timeout_ms};

    kit_start(&k, &options);
    kit_connect(&k, &unit, "unit");
    kit_connect(&k, &client, "client");
    kit_register(&unit, "unit", 77, false);
    return 0;
}

int owner_setup(void **state)
{
    (void)state;
    return owner_setup_with(60000);
}

int owner_setup_impatient(void **state)
{
    (void)state;
    return owner_setup_with(1);
}

int owner_teardown(void **state)
{
    (void)state;
    kit_disconnect(&client);
    kit_stop(&k);
    return 0;
}

int owner_teardown_unit(void **state)
{
    kit_disconnect(&unit);
    return owner_teardown(state);
}

void owner_put(const char *partition, uint32_t rows, const char *owner, uint64_t *block)
{
    kit_put what = {.partition = partition, .field = "x", .rows = rows, .owner = owner};

    kit_free(kit_publish(&client, &what));
    *block = what.block;
}

void owner_collect(kit_client *who, const char *owner, uint64_t done, kit_call *call)
{
    Tq__CollectDead msg;

    tq__collect_dead__init(&msg);
    msg.owner = kit_text(owner);
    msg.done = done;
    kit_send(who, TQI_COLLECT_DEAD, &msg, call);
}
