/*
 * room.h - how much room there is, and why there is none, in words.
 */
#ifndef TQI_UNIT_ROOM_H
#define TQI_UNIT_ROOM_H

#include "unit/unit.h"
#include "unit/writers.h"
#include "wire/methods.h"

/* Bytes that a waiting reserve wants. */
uint64_t tqi_unit_wanted(const Tq__UnitReserve *message);

/* Bytes still available to blocks of a kind. */
uint64_t tqi_unit_room(const tqi_unit *unit, bool adds_samples);
/* Writers that pin blocks, at most max, those with the most bytes first; returns how many. */
size_t tqi_unit_holders(const tqi_unit *unit, const tqi_unit_writer **out, size_t max);
/* Writes into `out` why there is no room for `wanted` bytes, in words. behind: other puts have precedence. */
void tqi_unit_describe_room(const tqi_unit *unit, uint64_t wanted, bool adds_samples, bool behind, char *out,
                            size_t size);
#define TQI_UNIT_ROOM_TEXT 440u /* its size in bytes, so that an error has room for the rest */

#endif
