/*
 * testkit_owner.h - a controller with an owner, `unit`, and a client, for the tests of owners.
 */
#ifndef TQI_CONTROLLER_TESTKIT_OWNER_H
#define TQI_CONTROLLER_TESTKIT_OWNER_H

#include "controller/testkit.h"

extern kit k;
extern kit_client unit, client;

/* A literal in a message. */
char *kit_text(const char *s);

/* The owner is given up after a minute, or at once. */
int owner_setup(void **state);
int owner_setup_impatient(void **state);
/* Tears down the rest, if the test has already ended `unit`. */
int owner_teardown(void **state);
int owner_teardown_unit(void **state);

/* The client puts rows of a field `x` under an owner. */
void owner_put(const char *partition, uint32_t rows, const char *owner, uint64_t *block);
/* Asks for the dead blocks of an owner, which may wait. */
void owner_collect(kit_client *who, const char *owner, uint64_t done, kit_call *call);

#endif
