/*
 * cell.h - the bytes of a cell describe themselves: its writer, its row, field and partition, and its length. All
 * bytes follow from that, so a cell that is torn, mixed with another one, in the wrong place or out of date shows from
 * its bytes alone.
 *
 *   56 bytes and more: magic, length, writer, partition, row, field, checksum (8 bytes each), then a pattern
 *   fewer:             writer (4 bytes), checksum (8 bytes), then the pattern, as much of it as fits
 */
#ifndef TQ_SIM_CELL_H
#define TQ_SIM_CELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CELL_FULL   56 /* bytes from which a cell carries everything */
#define CELL_SHORT  4  /* bytes from which it carries its writer */
#define CELL_PLACED 12 /* bytes from which its checksum tells the row */

typedef struct cell_id {
    uint64_t writer;    /* number of the op that put it; below 2^32 */
    uint64_t partition; /* cell_hash of the name */
    uint64_t row;       /* one of the three below */
    uint64_t field;     /* cell_hash of the name */
} cell_id;

uint64_t cell_hash(const char *name);
/* The i-th of the new samples of the put that wrote it. */
uint64_t cell_row_new(uint32_t i);
/* The sample of that key. */
uint64_t cell_row_key(const char *key);
/* An existing sample. */
uint64_t cell_row_sample(uint32_t index, uint32_t incarnation);

void cell_fill(void *bytes, size_t length, const cell_id *id);
/* Whether all bytes are those of that cell with that length. */
bool cell_is(const void *bytes, size_t length, const cell_id *id);

typedef enum cell_seen {
    CELL_NOTHING, /* too short to tell */
    CELL_WRITER,  /* only the writer */
    CELL_ALL,     /* all of it, and the bytes agree with it */
    CELL_BROKEN   /* it says what it is, but its bytes are not those; out: what it says */
} cell_seen;
/* What a cell says about itself. */
cell_seen cell_read(const void *bytes, size_t length, cell_id *out);

#endif
