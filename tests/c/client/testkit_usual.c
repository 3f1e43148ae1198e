/*
 * testkit_usual.c - see testkit_usual.h.
 */
#include "testkit_usual.h"

test_system sys;
tq_client *client;
tq_op *op;

int usual_setup(void **state)
{
    (void)state;
    system_begin(&sys, 2, 8u << 20, 10, &client, &op);
    return 0;
}

int usual_teardown(void **state)
{
    (void)state;
    system_end(&sys, client, op);
    return 0;
}
