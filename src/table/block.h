/*
 * block.h - blocks, the ids granted for them, and what their owners learn of them: which have died, and which are
 * sparse.
 */
#ifndef TQI_TABLE_BLOCK_H
#define TQI_TABLE_BLOCK_H

#include "table/records.h"

/* --- block.c -------------------------------------------------------------- */

static inline tqi_table_block *tqi_t_block(const tqi_table *table, uint32_t handle)
{
    return &table->block_pages[(handle - 1) / TQI_T_BLOCK_PAGE][(handle - 1) % TQI_T_BLOCK_PAGE];
}
/* Room for n more blocks. */
int tqi_t_blocks_reserve(tqi_table *table, size_t n, tq_error *err);
/* Makes a block with one reference (live 1), so that it does not die while it is being linked. Cannot fail after
 * reserve. */
uint32_t tqi_t_block_add(tqi_table *table, const tqi_table_batch_block *from, tqi_table_owner *owner,
                         tqi_table_partition *partition);
/* Counts one cell more, in that row. */
static inline void tqi_t_block_link(tqi_table_block *block, uint32_t row, uint64_t bytes)
{
    block->live++;
    block->live_bytes += bytes;
    block->row_first = row < block->row_first ? row : block->row_first;
    block->row_last = row > block->row_last ? row : block->row_last;
}
/* Counts one cell less; the block dies with the last one. Cannot fail. */
void tqi_t_block_unlink(tqi_table *table, uint32_t handle, uint64_t bytes);
/* Gives up a reference; the block dies with the last one. Cannot fail. */
void tqi_t_block_unref(tqi_table *table, uint32_t handle);
/* Whether the cell lies in a block. */
static inline bool tqi_t_stored(const tqi_table_cell *cell)
{
    return tqi_t_produced(cell->block) && cell->block != TQI_BLOCK_OPAQUE;
}
uint32_t tqi_t_block_find(const tqi_table *table, uint64_t id); /* 0: none */
/* Marks the cells of stamped blocks as lost, and calls `lost`. */
void tqi_t_lose_stamped(tqi_table_partition *partition, uint64_t stamp, tqi_table_lost_fn lost, void *arg);
void tqi_t_blocks_fini(tqi_table *table);

/* --- grant.c -------------------------------------------------------------- */

tqi_table_session *tqi_t_session_find(const tqi_table *table, uint64_t id);
int tqi_t_session_get(tqi_table *table, uint64_t id, tqi_table_session **out, tq_error *err);
/* The range of an unpublished id of the session; NULL if it is not one. */
tqi_table_range *tqi_t_range_find(const tqi_table_session *session, uint64_t id);
void tqi_t_range_mark(tqi_table_range *range, uint64_t id, bool used);
/* A marked id is published or dead: counts it, and frees the range with its last one. Cannot fail. */
void tqi_t_range_use(tqi_table *table, tqi_table_range *range);
/* Takes the range from its session and owner and frees it. */
void tqi_t_range_free(tqi_table *table, tqi_table_range *range);
/* Its unpublished ids die, and it is freed; its claims have ended before. `dead`: it writes no more. Cannot fail. */
void tqi_t_session_free(tqi_table *table, tqi_table_session *session, bool dead);

/* --- dead.c --------------------------------------------------------------- */

/* One dead id (with its reservation) for the owner's queue. Cannot fail. */
void tqi_t_dead_push(tqi_table_owner *owner, uint64_t id, bool writer_done);
int tqi_t_dead_reserve(tqi_table *table, uint32_t n, tq_error *err);
/* The owner's queue goes. */
void tqi_t_dead_drop(tqi_table_owner *owner);
void tqi_t_dead_fini(tqi_table *table);

/* Fewer dead bytes than this are not worth a move. */
#define TQI_T_SPARSE_MIN 1024u
/* A block with more cells never counts as sparse: moving them would take long and gain little. */
#define TQI_T_SPARSE_CELLS 65536u
/* The most live bytes that a sparse block may have. */
static inline uint64_t tqi_t_sparse_from(const tqi_table_block *block)
{
    uint64_t most = (block->size - block->size / 4) >> block->told;
    uint64_t worth = block->size > TQI_T_SPARSE_MIN ? block->size - TQI_T_SPARSE_MIN : 0;

    return most < worth ? most : worth;
}
/* Names the block to its owner, if it is sparse and has not been named yet. */
void tqi_t_sparse_check(tqi_table *table, tqi_table_block *block, uint32_t handle);
/* Takes a listed block from the list. */
void tqi_t_sparse_drop(tqi_table *table, tqi_table_block *block);

#endif
