/*
 * block.c - published blocks: records in slabs under 32-bit handles, found by id, counted by their live cells.
 *
 * The map from ids is not base/hash.h for the sake of memory: there is a record per block, millions of them, and a
 * handle of uthash has 56 bytes. Open addressing over 32-bit handles takes 5 to 11 bytes per block.
 */
#include "table/block.h"

#include "base/buf.h"
#include "base/error.h"
#include "table/field.h"
#include "table/sample.h"

/* --- the map from ids ----------------------------------------------------- */

static uint32_t block_hash(uint64_t id)
{
    return (uint32_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

static void block_map_put(uint32_t *map, uint32_t size, uint64_t id, uint32_t handle)
{
    uint32_t place = block_hash(id) & (size - 1);

    while (map[place] != 0) {
        place = (place + 1) & (size - 1);
    }
    map[place] = handle;
}

/* Makes the map large enough for n blocks at a load of at most three quarters. */
static int block_map_reserve(tqi_table *table, uint64_t n, tq_error *err)
{
    uint64_t size = table->block_map_size != 0 ? table->block_map_size : 64;
    uint32_t *map;

    while (size * 3 / 4 < n) {
        size *= 2;
    }
    if (size == table->block_map_size) {
        return TQ_OK;
    }
    if (size > UINT32_C(1) << 31) {
        return tqi_error_set(err, TQ_EFULL, "too many blocks");
    }
    map = calloc(size, sizeof(*map));
    if (map == NULL) {
        return tqi_error_nomem(err, "blocks");
    }
    for (uint32_t i = 0; i < table->block_map_size; i++) {
        uint32_t handle = table->block_map[i];
        if (handle != 0) {
            block_map_put(map, (uint32_t)size, tqi_t_block(table, handle)->id, handle);
        }
    }
    free(table->block_map);
    table->block_map = map;
    table->block_map_size = (uint32_t)size;
    return TQ_OK;
}

static uint32_t block_map_place(const tqi_table *table, uint64_t id)
{
    uint32_t mask = table->block_map_size - 1;
    uint32_t place = block_hash(id) & mask;

    while (table->block_map[place] != 0 && tqi_t_block(table, table->block_map[place])->id != id) {
        place = (place + 1) & mask;
    }
    return place;
}

/* Empties a slot and moves back entries that would no longer be found. */
static void block_map_remove(tqi_table *table, uint64_t id)
{
    uint32_t mask = table->block_map_size - 1;
    uint32_t hole = block_map_place(table, id);
    uint32_t place = hole;

    for (;;) {
        uint32_t home;

        place = (place + 1) & mask;
        if (table->block_map[place] == 0) {
            break;
        }
        home = block_hash(tqi_t_block(table, table->block_map[place])->id) & mask;
        if (((place - home) & mask) >= ((place - hole) & mask)) {
            table->block_map[hole] = table->block_map[place];
            hole = place;
        }
    }
    table->block_map[hole] = 0;
}

uint32_t tqi_t_block_find(const tqi_table *table, uint64_t id)
{
    return table->block_map_size == 0 ? 0 : table->block_map[block_map_place(table, id)];
}

tqi_table_owner *tqi_table_block_owner(const tqi_table *table, uint64_t id)
{
    uint32_t handle = tqi_t_block_find(table, id);

    return handle == 0 ? NULL : tqi_t_block(table, handle)->owner;
}

/* --- records -------------------------------------------------------------- */

int tqi_t_blocks_reserve(tqi_table *table, size_t n, tq_error *err)
{
    while (table->n_block_free < n) {
        tqi_table_block *page;
        uint64_t first = (uint64_t)table->n_block_pages * TQI_T_BLOCK_PAGE + 1;

        if (first + TQI_T_BLOCK_PAGE > TQI_BLOCK_OPAQUE) {
            return tqi_error_set(err, TQ_EFULL, "too many blocks");
        }
        if (tqi_grow(&table->block_pages, &table->block_pages_capacity, table->n_block_pages + 1,
                     sizeof(tqi_table_block *)) != TQ_OK) {
            return tqi_error_nomem(err, "blocks");
        }
        page = calloc(TQI_T_BLOCK_PAGE, sizeof(*page));
        if (page == NULL) {
            return tqi_error_nomem(err, "blocks");
        }
        table->block_pages[table->n_block_pages++] = page;
        for (uint32_t i = TQI_T_BLOCK_PAGE; i-- > 0;) {
            page[i].live = table->block_free;
            table->block_free = (uint32_t)first + i;
        }
        table->n_block_free += TQI_T_BLOCK_PAGE;
    }
    return block_map_reserve(table, (uint64_t)table->n_blocks + n, err);
}

uint32_t tqi_t_block_add(tqi_table *table, const tqi_table_batch_block *from, tqi_table_owner *owner,
                         tqi_table_partition *partition)
{
    uint32_t handle = table->block_free;
    tqi_table_block *block = tqi_t_block(table, handle);

    table->block_free = block->live;
    table->n_block_free--;
    *block = (tqi_table_block){
        .id = from->id,
        .size = from->size,
        .owner = owner,
        .partition = partition,
        .live = 1,
        .row_first = UINT32_MAX,
        .locator_size = (uint8_t)from->locator_size,
    };
    block->sparse_from = tqi_t_sparse_from(block);
    if (from->locator_size > 0) {
        memcpy(block->locator, from->locator, from->locator_size);
    }
    block_map_put(table->block_map, table->block_map_size, block->id, handle);
    table->n_blocks++;
    owner->blocks++;
    owner->bytes += block->size;
    return handle;
}

static void block_die(tqi_table *table, tqi_table_block *block, uint32_t handle)
{
    tqi_table_owner *owner = block->owner;

    if (block->listed) {
        tqi_t_sparse_drop(table, block);
    }
    block_map_remove(table, block->id);
    table->n_blocks--;
    owner->blocks--;
    owner->bytes -= block->size;
    tqi_t_dead_push(owner, block->id, true);
    block->owner = NULL;
    block->partition = NULL;
    block->live = table->block_free;
    table->block_free = handle;
    table->n_block_free++;
}

void tqi_t_block_unref(tqi_table *table, uint32_t handle)
{
    tqi_table_block *block = tqi_t_block(table, handle);

    if (--block->live == 0) {
        block_die(table, block, handle);
    }
}

void tqi_t_block_unlink(tqi_table *table, uint32_t handle, uint64_t bytes)
{
    tqi_table_block *block = tqi_t_block(table, handle);

    block->live_bytes -= bytes;
    if (--block->live == 0) {
        block_die(table, block, handle);
    } else if (block->live_bytes <= block->sparse_from) {
        tqi_t_sparse_check(table, block, handle);
    }
}

void tqi_t_blocks_fini(tqi_table *table)
{
    for (size_t i = 0; i < table->n_block_pages; i++) {
        free(table->block_pages[i]);
    }
    free(table->block_pages);
    free(table->block_map);
}

/* --- lost ----------------------------------------------------------------- */

typedef void (*block_cell_fn)(tqi_table_field *field, uint32_t index, uint32_t row, tqi_table_cell *cell, void *arg);

/* Calls fn for each cell that is not TQI_BLOCK_NONE. */
static void block_each_cell(tqi_table_partition *partition, block_cell_fn fn, void *arg)
{
    tqi_table_field *field, *next;
    roaring_uint32_iterator_t it;

    for (field = partition->known; field != NULL; field = next) {
        next = field->next;
        field->plans++; /* keeps the field alive while its last cell may be removed */
        for (roaring_init_iterator(partition->members, &it); it.has_value && field->known;
             roaring_advance_uint32_iterator(&it)) {
            uint32_t row = tqi_t_sample(partition->table, it.current_value)->row;
            if (row < field->capacity && field->cells[row].block != TQI_BLOCK_NONE) {
                fn(field, it.current_value, row, &field->cells[row], arg);
            }
        }
        field->plans--;
        tqi_t_field_gc(field);
    }
}

typedef struct block_loss {
    uint64_t stamp;
    roaring_bitmap_t *hit;
} block_loss;

static void block_lose_cell(tqi_table_field *field, uint32_t index, uint32_t row, tqi_table_cell *cell, void *arg)
{
    block_loss *loss = arg;

    if (tqi_t_stored(cell) && tqi_t_block(field->partition->table, cell->block)->stamp == loss->stamp) {
        tqi_t_cell_unlink(field, index, row, TQI_BLOCK_LOST);
        if (loss->hit != NULL) {
            roaring_bitmap_add(loss->hit, index);
        }
    }
}

/* Reports the samples, in one call if there is memory for it. */
static void block_tell(const char *partition, const roaring_bitmap_t *hit, tqi_table_lost_fn lost, void *arg)
{
    size_t n = roaring_bitmap_get_cardinality(hit);
    uint32_t few[64];
    uint32_t *all = n > 64 ? malloc(n * sizeof(*all)) : NULL;
    roaring_uint32_iterator_t it;
    uint32_t got;

    if (all != NULL) {
        roaring_bitmap_to_uint32_array(hit, all);
        lost(partition, all, n, arg);
        free(all);
        return;
    }
    roaring_init_iterator(hit, &it);
    while ((got = roaring_read_uint32_iterator(&it, few, 64)) > 0) {
        lost(partition, few, got, arg);
    }
}

void tqi_t_lose_stamped(tqi_table_partition *partition, uint64_t stamp, tqi_table_lost_fn lost, void *arg)
{
    block_loss loss = {stamp, lost != NULL ? roaring_bitmap_create() : NULL};

    block_each_cell(partition, block_lose_cell, &loss);
    if (lost != NULL && loss.hit != NULL) {
        if (!roaring_bitmap_is_empty(loss.hit)) {
            block_tell(partition->name, loss.hit, lost, arg);
        }
        roaring_bitmap_free(loss.hit);
    }
}

int tqi_table_blocks_lost(tqi_table *table, const uint64_t *ids, size_t n, tqi_table_lost_fn lost, void *arg,
                          tq_error *err)
{
    uint64_t stamp = ++table->stamp;
    tqi_table_partition **partitions = NULL;
    size_t scanned;
    size_t n_partitions = 0;
    size_t capacity = 0;

    table->operation++;
    /* First collects their partitions, because a block's record goes with its last cell. */
    for (size_t i = 0; i < n; i++) {
        uint32_t handle = tqi_t_block_find(table, ids[i]);
        tqi_table_partition *partition = handle != 0 ? tqi_t_block(table, handle)->partition : NULL;
        if (partition == NULL) {
            continue;
        }
        for (scanned = 0; scanned < n_partitions && partitions[scanned] != partition;) {
            scanned++;
        }
        if (scanned == n_partitions) {
            if (tqi_grow(&partitions, &capacity, n_partitions + 1, sizeof(tqi_table_partition *)) != TQ_OK) {
                free(partitions);
                return tqi_error_nomem(err, "lost blocks");
            }
            partitions[n_partitions++] = partition;
        }
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t handle = tqi_t_block_find(table, ids[i]);
        if (handle != 0) {
            tqi_t_block(table, handle)->stamp = stamp;
        }
    }
    for (size_t i = 0; i < n_partitions; i++) {
        tqi_t_lose_stamped(partitions[i], stamp, lost, arg);
    }
    free(partitions);
    return TQ_OK;
}
