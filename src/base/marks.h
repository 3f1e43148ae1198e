/*
 * marks.h - what stands where a cell's block would be named, if it has none: not produced, lost, kept by index, not
 * known.
 *
 * In memory a block is named by its place plus 1 (or by a handle of the table), and the marks are the highest numbers.
 * In a message (message Field of protocol/tq.proto) and in a packed meta the marks follow the blocks: they are counted
 * from the number of blocks, so that they stay small.
 */
#ifndef TQI_BASE_MARKS_H
#define TQI_BASE_MARKS_H

#include <stdbool.h>
#include <stdint.h>

/* In memory. */
#define TQI_BLOCK_NONE    0u                /* not produced */
#define TQI_BLOCK_LOST    UINT32_MAX        /* lost with its storage */
#define TQI_BLOCK_OPAQUE  (UINT32_MAX - 1u) /* kept by a manager that keys by index */
#define TQI_BLOCK_UNKNOWN (UINT32_MAX - 2u) /* only of a client: the controller has to be asked */
#define TQI_BLOCK_MARKS   TQI_BLOCK_UNKNOWN /* marks start here */

/* In a message, added to the number of blocks; 0 alone is TQI_BLOCK_NONE. */
#define TQI_MARK_LOST          1u
#define TQI_MARK_OPAQUE        2u
#define TQI_MARK_UNKNOWN       3u /* only in a packed meta: not produced as far as is known */
#define TQI_MARK_UNKNOWN_READY 4u /* only in a packed meta: produced */

/* Whether it names a block. */
static inline bool tqi_block_named(uint32_t block)
{
    return block != TQI_BLOCK_NONE && block < TQI_BLOCK_MARKS;
}

/* The number in a message for a block's name or a mark other than TQI_BLOCK_UNKNOWN. */
static inline uint32_t tqi_mark_pack(uint32_t block, uint32_t n_blocks)
{
    return block == TQI_BLOCK_LOST     ? n_blocks + TQI_MARK_LOST
           : block == TQI_BLOCK_OPAQUE ? n_blocks + TQI_MARK_OPAQUE
                                       : block;
}

/* The reverse; TQI_BLOCK_UNKNOWN for what neither names one of the blocks nor is one of these marks. */
static inline uint32_t tqi_mark_unpack(uint64_t number, uint64_t n_blocks)
{
    return number <= n_blocks                     ? (uint32_t)number
           : number == n_blocks + TQI_MARK_LOST   ? TQI_BLOCK_LOST
           : number == n_blocks + TQI_MARK_OPAQUE ? TQI_BLOCK_OPAQUE
                                                  : TQI_BLOCK_UNKNOWN;
}

#endif
