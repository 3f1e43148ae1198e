/*
 * memory.h - the stores of a unit, and which of their memory stays warm.
 */
#ifndef TQI_UNIT_MEMORY_H
#define TQI_UNIT_MEMORY_H

#include "store/store.h"
#include "unit/unit.h"

/* A store, reference-counted: held by the unit, by transfers in progress, and by warming. The store of an earlier epoch
 * lives until these are done. */
typedef struct tqi_unit_store {
    tqi_unit *unit;
    tqi_store *store;
    unsigned refs;
} tqi_unit_store;

/* NULL with err set if there is no memory for it. */
tqi_unit_store *tqi_unit_store_make(tqi_unit *unit, tq_error *err);
void tqi_unit_store_unref(tqi_unit_store *held);
/* Warms memory in the thread pool, in steps, for as long as some of it should be warm and is not. */
void tqi_unit_warm(tqi_unit *unit);
/* Something was reserved or freed. */
void tqi_unit_changed(tqi_unit *unit);

#endif
