/*
 * testkit_map_store.h - a KV store in the memory of the test's process, with a client for it: a complete store, which
 * a test can fill, make fail, and remove values from.
 *
 * "MapStore" reads parts of values and has no limit; "SmallStore" reads whole values of at most MAP_SMALL bytes. Both
 * are clients of the one store.
 */
#ifndef TEST_KV_TESTKIT_MAP_STORE_H
#define TEST_KV_TESTKIT_MAP_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/kv.h>

#define MAP_SMALL 1000u

void map_store_register(void);
/* Empties it: no room limit, no failures. */
void map_store_reset(void);
void map_store_set_capacity(uint64_t bytes);
/* The put of the n-th value from now on fails; 0: none. */
void map_store_fail_after(unsigned n);
/* The n-th put from now on gets no answer, and is executed after a get or removal of the value has found nothing. */
void map_store_delay(unsigned n);
/* Waits until it is. */
void map_store_wait_arrived(void);
/* The next removal gets no answer, and is executed after the put that succeeds next; waits until there was one. */
void map_store_delay_removal(void);
void map_store_wait_removal(void);
/* Removes every value, as a store that evicts. */
void map_store_evict(void);
/* Waits until it holds that many values. */
void map_store_wait(size_t values);
/* Waits until a put has found it full since the last map_store_reset_full. */
void map_store_wait_full(void);
void map_store_reset_full(void);
/* The table of "MapStore". */
const tq_kv_client *map_store_client(void);
size_t map_store_values(void);
uint64_t map_store_bytes(void);

#endif
