/*
 * testkit_usual.h - what most tests run on: two units of 8 MiB, a client whose calls may take 10 s, and an op of it.
 * The two functions are a fixture of cmocka.
 */
#ifndef TEST_CLIENT_TESTKIT_USUAL_H
#define TEST_CLIENT_TESTKIT_USUAL_H

#include "testkit.h"

extern test_system sys;
extern tq_client *client;
extern tq_op *op;

int usual_setup(void **state);
int usual_teardown(void **state);

#endif
