/*
 * testkit.h - a whole system in the test's process: a controller and storage units, each on a thread
 * of its own, over unix sockets. Everything asserts by itself.
 */
#ifndef TEST_CLIENT_SYSTEM_H
#define TEST_CLIENT_SYSTEM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <tq/tq.h>

#define SYSTEM_UNITS 4
#define SYSTEM_TOKEN "correct-horse-battery-staple"

typedef struct system_thread system_thread;

typedef struct test_system {
    char dir[64];
    char address[128];
    system_thread *controller;
    system_thread *units[SYSTEM_UNITS];
    unsigned n_units;
} test_system;

/* Starts it and waits until all units have joined. */
void system_start(test_system *sys, unsigned units, uint64_t capacity);
void system_stop(test_system *sys);
/* Stops one unit, for good. */
void system_stop_unit(test_system *sys, unsigned unit);
/* A client of it. */
tq_client *system_open(const test_system *sys, double timeout);

/* Starts both and makes an op of the client; and closes all three. */
void system_begin(test_system *sys, unsigned units, uint64_t capacity, double timeout, tq_client **client, tq_op **op);
void system_end(test_system *sys, tq_client *client, tq_op *op);

/* Waits for an op that must succeed. */
void expect_ok(tq_op *op, int started);
/* Waits for an op that must fail, now or later, with a message that contains `text`. */
void expect_error(tq_op *op, int started, int rc, const char *text);

/* Puts n rows of one int64 each: base, base + 1, ...  meta NULL: new samples. The metadata is the
 * caller's. */
tq_meta *put_numbers(tq_op *op, const char *partition, const char *field, size_t n, int64_t base, const tq_meta *meta);
/* Reads them back. */
void check_numbers(tq_op *op, const tq_meta *meta, const char *field, size_t n, int64_t base);

#endif
