/*
 * shelf.h - storage managers of the tests' own, as users write them.
 *
 * "SimShelf" is a table of tq/manager.h: blocks of clients lie on one shelf, which is memory of the simulator, so they
 * outlive the clients; it has no server process, so any client may be asked to remove dead blocks.
 *
 * The second shelf holds values by name, for a manager like those in Python: it keeps the values itself, tells the
 * controller with tq_notify what it has, and clears in two phases (load/keyed.c).
 */
#ifndef TQ_SIM_SHELF_H
#define TQ_SIM_SHELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHELF_MANAGER "SimShelf"

/* Per seed. */
void shelf_start(uint64_t seed);
void shelf_end(void);
/* Registers the manager in the running process, before tq_client_open. TQ_OK or TQ_ENOMEM. */
int shelf_register(void);
/* Blocks of that run of the controller that are there. */
size_t shelf_blocks(uint64_t epoch);

/* A value by its name: the op that put it, its row and its field. */
typedef struct shelf_name {
    uint32_t op;
    uint16_t row, field;
} shelf_name;

void shelf_put(shelf_name name);
bool shelf_has(shelf_name name);
void shelf_remove(shelf_name name); /* whether it is there or not */
/* Calls `each` for all names. */
void shelf_each(void (*each)(shelf_name name, void *arg), void *arg);

#endif
