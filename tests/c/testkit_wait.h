/*
 * testkit_wait.h - waiting for a state that nobody announces: it is polled, with a deadline. The Python twin is
 * tests/support/waiting.py. Tests pause nowhere else.
 */
#ifndef TEST_TESTKIT_WAIT_H
#define TEST_TESTKIT_WAIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

#define TESTKIT_WAIT_SECONDS 60

/* Waits until the condition holds; the failure says for what the test waited. */
#define TESTKIT_WAIT_UNTIL(what, condition)                                   \
    do {                                                                      \
        const uint64_t testkit_deadline = tqi_deadline(TESTKIT_WAIT_SECONDS); \
        while (!(condition)) {                                                \
            if (tqi_now() >= testkit_deadline) {                              \
                fail_msg("waited %d s for %s", TESTKIT_WAIT_SECONDS, (what)); \
            }                                                                 \
            (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);    \
        }                                                                     \
    } while (0)

#endif
