/*
 * guard.h - no torn memory: in the arena of a unit, a block's bytes change only between its reservation and its
 * publication, and free bytes do not change at all.
 *
 * When a piece of an arena becomes free, its bytes are overwritten with a pattern; when it is given out again, nobody
 * may have written there. When a block is published, its bytes are hashed, and looked at again when the memory becomes
 * free, and now and then before that. When cells are moved, the copies must be equal to what they replace.
 */
#ifndef TQ_SIM_ORACLE_GUARD_H
#define TQ_SIM_ORACLE_GUARD_H

#include "oracle/ledger.h"

void guard_end(void);
/* Clients use the library, so what they publish is what they have written. */
extern bool guard_trusts;
/* The controller has published a block. */
void guard_published(const tqi_table_batch_block *block);
/* It has moved a cell from one block of an owner to another one. */
typedef struct guard_cell {
    const char *owner;
    uint64_t incarnation;
    uint64_t id, offset, bytes;
} guard_cell;
void guard_moved(const guard_cell *from, const guard_cell *to);
/* Looks at all published blocks of all units. */
void guard_look(void);
/* Calls fn for each block that a store has. */
void guard_each(const void *store, void (*fn)(uint64_t id, uint64_t size, bool published, void *arg), void *arg);
/* Called when a unit is at rest: nothing may be left in its arena. */
void guard_check_empty(const void *store);

#endif
