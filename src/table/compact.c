/*
 * compact.c - compaction: listing the live bytes of sparse blocks, and relinking cells to the copies. The table has no
 * list of the cells of a block; they are found by walking the rows in which it had cells, with one walk for all blocks
 * of a request that share rows, since these are mostly columns of the same samples.
 */
#include "base/buf.h"
#include "base/error.h"
#include "table/block.h"
#include "table/field.h"

/* Alignment of the next column's rows in a block: enough for any value. */
#define COMPACT_ALIGN 16u
/* Most blocks answered at once, and most cells examined for them: about a millisecond, or twice what the first block
 * alone takes. In a table whose rows were reused, blocks share all rows, so answering fewer would be no faster. */
#define COMPACT_BLOCKS_MAX 256u
#define COMPACT_WALK_MAX   (UINT64_C(1) << 18)

/* --- walks ---------------------------------------------------------------- */

/* Rows of a partition in which the blocks of a walk have cells, and how many rows. */
typedef struct compact_rows {
    tqi_table_partition *partition;
    uint32_t first, last;
    uint64_t cells;
} compact_rows;

typedef void (*compact_fn)(tqi_table_field *field, tqi_table_cell *cell, tqi_table_block *block, void *arg);

static int rows_order(const void *left, const void *right)
{
    const compact_rows *a = left;
    const compact_rows *b = right;

    if (a->partition != b->partition) {
        return a->partition->number < b->partition->number ? -1 : 1;
    }
    return a->first < b->first ? -1 : a->first > b->first;
}

/* Merges ranges that overlap or touch; returns how many are left. */
static size_t rows_join(compact_rows *rows, size_t n)
{
    size_t last = 0;

    if (n < 2) {
        return n;
    }
    qsort(rows, n, sizeof(*rows), rows_order);
    for (size_t i = 1; i < n; i++) {
        compact_rows *to = &rows[last];
        if (to->partition == rows[i].partition && rows[i].first <= (uint64_t)to->last + 1) {
            to->last = rows[i].last > to->last ? rows[i].last : to->last;
            to->cells += rows[i].cells;
        } else {
            rows[++last] = rows[i];
        }
    }
    return last + 1;
}

/* Stamps the blocks with their indexes, and says where their cells are; 0 for blocks that do not exist. */
static size_t compact_stamp(tqi_table *table, const uint32_t *handles, size_t n, compact_rows *rows)
{
    size_t n_rows = 0;

    table->stamp++;
    for (size_t i = 0; i < n; i++) {
        tqi_table_block *block = handles[i] != 0 ? tqi_t_block(table, handles[i]) : NULL;
        if (block != NULL) {
            block->place = (uint32_t)i;
        }
        if (block != NULL && block->stamp != table->stamp) {
            block->stamp = table->stamp;
            rows[n_rows++] = (compact_rows){block->partition, block->row_first, block->row_last, block->live};
        }
    }
    return rows_join(rows, n_rows);
}

/* Most cells that a walk examines. */
static uint64_t rows_walk(const compact_rows *rows, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        for (const tqi_table_field *field = rows[i].partition->known; field != NULL; field = field->next) {
            sum += (uint64_t)rows[i].last - rows[i].first + 1;
        }
    }
    return sum;
}

/* Calls fn for the cells of stamped blocks; fn may move a cell to a block without the stamp. */
static void compact_walk(tqi_table *table, const compact_rows *rows, compact_fn fn, void *arg)
{
    uint64_t stamp = table->stamp;
    uint64_t left = rows->cells;

    for (tqi_table_field *field = rows->partition->known; field != NULL && left > 0; field = field->next) {
        uint64_t end = (uint64_t)rows->last + 1 < field->capacity ? (uint64_t)rows->last + 1 : field->capacity;
        uint32_t other = TQI_BLOCK_NONE; /* the last block seen that has no stamp */
        for (uint64_t row = rows->first; row < end && left > 0; row++) {
            tqi_table_cell *cell = &field->cells[row];
            if (cell->block == other || !tqi_t_stored(cell)) {
                continue;
            }
            tqi_table_block *block = tqi_t_block(table, cell->block);
            if (block->stamp == stamp) {
                left--;
                fn(field, cell, block, arg);
            } else {
                other = cell->block;
            }
        }
    }
}

/* --- what is live --------------------------------------------------------- */

typedef struct live_cell {
    const tqi_table_field *field;
    uint64_t begin;
    uint64_t bytes;
    uint32_t place;
} live_cell;

typedef struct live_cells {
    live_cell *cells;
    size_t n;
    size_t capacity;
    bool failed;
} live_cells;

static void live_add(tqi_table_field *field, tqi_table_cell *cell, tqi_table_block *block, void *arg)
{
    live_cells *found = arg;

    if (found->failed || tqi_grow(&found->cells, &found->capacity, found->n + 1, sizeof(*found->cells)) != TQ_OK) {
        found->failed = true;
        return;
    }
    found->cells[found->n++] = (live_cell){field, cell->offset, tqi_t_cell_bytes(field, cell), block->place};
}

static int live_order(const void *left, const void *right)
{
    const live_cell *a = left;
    const live_cell *b = right;

    if (a->place != b->place) {
        return a->place < b->place ? -1 : 1;
    }
    return a->begin < b->begin ? -1 : a->begin > b->begin;
}

/* Cells are found column by column, and mostly lie in that order. */
static void live_sort(live_cells *found)
{
    for (size_t i = 1; i < found->n; i++) {
        if (live_order(&found->cells[i - 1], &found->cells[i]) > 0) {
            qsort(found->cells, found->n, sizeof(*found->cells), live_order);
            return;
        }
    }
}

/* Merges cells into stretches; the n-th block's begin at *at. */
static int live_join(const live_cells *found, size_t *at, uint32_t block, tqi_table_live *out)
{
    uint64_t *size = &out->sizes[block];

    for (const tqi_table_field *field = NULL; *at < found->n && found->cells[*at].place == block; ++*at) {
        const live_cell *cell = &found->cells[*at];
        tqi_table_stretch *last = out->counts[block] > 0 ? &out->stretches[out->n_stretches - 1] : NULL;
        uint64_t end = last != NULL ? last->begin + last->bytes : 0;
        if (last != NULL && (cell->begin < end || (cell->begin == end && cell->field == field))) {
            uint64_t more = cell->begin + cell->bytes > end ? cell->begin + cell->bytes - end : 0;
            last->bytes += more;
            *size += more;
        } else {
            if (tqi_grow(&out->stretches, &out->capacity, out->n_stretches + 1, sizeof(*out->stretches)) != TQ_OK) {
                return TQ_ENOMEM;
            }
            /* Rows of a column lie end to end. */
            *size = cell->field == field ? *size : (*size + COMPACT_ALIGN - 1) & ~(COMPACT_ALIGN - 1ull);
            out->stretches[out->n_stretches++] = (tqi_table_stretch){cell->begin, cell->bytes, *size};
            out->counts[block]++;
            *size += cell->bytes;
        }
        field = cell->field;
    }
    return TQ_OK;
}

int tqi_table_compact_live(tqi_table *table, const uint64_t *ids, size_t n, tqi_table_live *out, tq_error *err)
{
    n = n < COMPACT_BLOCKS_MAX ? n : COMPACT_BLOCKS_MAX;
    uint32_t *handles = calloc(n + 1, sizeof(*handles));
    compact_rows *rows = calloc(n + 1, sizeof(*rows));
    live_cells found = {0};
    uint64_t cells = 0;
    size_t at = 0;
    int rc = TQ_OK;

    *out = (tqi_table_live){.sizes = calloc(n + 1, sizeof(*out->sizes)), .counts = calloc(n + 1, sizeof(*out->counts))};
    if (handles == NULL || rows == NULL || out->sizes == NULL || out->counts == NULL) {
        rc = tqi_error_nomem(err, "live cells");
        goto out;
    }
    if (table->freezes != NULL) {
        rc = tqi_error_set(err, TQ_EAGAIN, "no block can be moved while a checkpoint is read");
        goto out;
    }
    for (; out->n < n; out->n++) {
        uint32_t handle = tqi_t_block_find(table, ids[out->n]);
        cells += handle != 0 ? tqi_t_block(table, handle)->live : 0;
        if (out->n > 0 && cells > TQI_T_SPARSE_CELLS) {
            break;
        }
        handles[out->n] = handle;
    }
    size_t n_rows = compact_stamp(table, handles, out->n < 1 ? out->n : 1, rows);
    uint64_t most = 2 * rows_walk(rows, n_rows);
    most = most > COMPACT_WALK_MAX ? most : COMPACT_WALK_MAX;
    n_rows = compact_stamp(table, handles, out->n, rows);
    while (out->n > 1 && rows_walk(rows, n_rows) > most) {
        out->n /= 2;
        n_rows = compact_stamp(table, handles, out->n, rows);
    }
    for (size_t i = 0; i < n_rows; i++) {
        compact_walk(table, &rows[i], live_add, &found);
    }
    live_sort(&found);
    for (uint32_t i = 0; i < out->n && !found.failed; i++) {
        found.failed = live_join(&found, &at, i, out) != TQ_OK;
    }
    if (found.failed) {
        rc = tqi_error_nomem(err, "live cells");
    }

out:
    free(found.cells);
    free(rows);
    free(handles);
    return rc;
}

void tqi_table_live_fini(tqi_table_live *live)
{
    free(live->sizes);
    free(live->counts);
    free(live->stretches);
    *live = (tqi_table_live){0};
}

/* --- moves ---------------------------------------------------------------- */

typedef struct compact_plan {
    tqi_table *table;
    const tqi_table_move *moves;
    size_t n;
    const tqi_table_session *session;
    uint32_t *from; /* handles */
    uint32_t *to;
    tqi_table_range **ranges;
    compact_rows *rows;
} compact_plan;

static void compact_plan_fini(compact_plan *plan)
{
    free(plan->from);
    free(plan->to);
    free(plan->ranges);
    free(plan->rows);
}

/* The range of the new block; NULL with err (TQ_EINVAL) if it cannot be one. */
static tqi_table_range *compact_range(const tqi_table_session *session, const tqi_table_batch_block *to, tq_error *err)
{
    tqi_table_range *range = session != NULL ? tqi_t_range_find(session, to->id) : NULL;

    if (range == NULL || to->owner == NULL || strcmp(range->owner->name, to->owner) != 0 ||
        range->owner->incarnation != to->owner_incarnation) {
        tqi_error_set(err, TQ_EINVAL, "block %llu is not an unpublished block of this session and owner",
                      (unsigned long long)to->id);
        return NULL;
    }
    if (to->locator_size > TQ_LOCATOR_MAX) {
        tqi_error_set(err, TQ_EINVAL, "locator of block %llu has %zu bytes, at most %d are possible",
                      (unsigned long long)to->id, to->locator_size, TQ_LOCATOR_MAX);
        return NULL;
    }
    return range;
}

static int compact_check_stretches(const tqi_table_move *move, tq_error *err)
{
    uint64_t end = 0;

    for (size_t i = 0; i < move->n; i++) {
        const tqi_table_stretch *stretch = &move->stretches[i];
        if (stretch->begin < end || stretch->bytes > UINT64_MAX - stretch->begin || stretch->place > move->to.size ||
            stretch->bytes > move->to.size - stretch->place) {
            return tqi_error_set(err, TQ_EINVAL,
                                 "what is moved of block %llu is out of order, or does not fit "
                                 "into block %llu",
                                 (unsigned long long)move->from, (unsigned long long)move->to.id);
        }
        end = stretch->begin + stretch->bytes;
    }
    return TQ_OK;
}

/* Marks the new blocks as used, which also detects duplicates; nothing stays marked after an error. */
static int compact_check(compact_plan *plan, tq_error *err)
{
    int rc = TQ_OK;
    size_t i = 0;

    for (; i < plan->n && rc == TQ_OK; i++) {
        plan->ranges[i] = compact_range(plan->session, &plan->moves[i].to, err);
        if (plan->ranges[i] == NULL) {
            rc = TQ_EINVAL;
            break;
        }
        tqi_t_range_mark(plan->ranges[i], plan->moves[i].to.id, true);
        rc = compact_check_stretches(&plan->moves[i], err);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_blocks_reserve(plan->table, plan->n, err);
    }
    while (rc != TQ_OK && i-- > 0) {
        tqi_t_range_mark(plan->ranges[i], plan->moves[i].to.id, false);
    }
    return rc;
}

/* The stretch that contains all bytes of the cell, or NULL. */
static const tqi_table_stretch *compact_find(const tqi_table_move *move, uint64_t offset, uint64_t bytes)
{
    size_t low = 0, high = move->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (move->stretches[middle].begin <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return NULL;
    }
    const tqi_table_stretch *stretch = &move->stretches[low - 1];
    uint64_t into = offset - stretch->begin;
    return into <= stretch->bytes && bytes <= stretch->bytes - into ? stretch : NULL;
}

static void compact_cell(tqi_table_field *field, tqi_table_cell *cell, tqi_table_block *block, void *arg)
{
    const compact_plan *plan = arg;
    uint32_t from = cell->block, to = plan->to[block->place];
    uint64_t bytes = tqi_t_cell_bytes(field, cell);
    const tqi_table_stretch *stretch = compact_find(&plan->moves[block->place], cell->offset, bytes);

    if (stretch == NULL) {
        return;
    }
    cell->block = to;
    cell->offset = cell->offset - stretch->begin + stretch->place;
    tqi_t_block_link(tqi_t_block(plan->table, to), (uint32_t)(cell - field->cells), bytes);
    tqi_t_block_unlink(plan->table, from, bytes);
}

/* Cells that ended during the copy left dead bytes in the new block, which no later event would report. */
static void compact_check_new(tqi_table *table, const tqi_table_move *move, uint32_t handle)
{
    tqi_table_block *block = tqi_t_block(table, handle);
    uint64_t copied = 0;

    for (size_t i = 0; i < move->n; i++) {
        copied += move->stretches[i].bytes;
    }
    if (block->live_bytes < copied) {
        tqi_t_sparse_check(table, block, handle);
    }
}

/* Cannot fail. */
static void compact_commit(compact_plan *plan)
{
    tqi_table *table = plan->table;
    size_t n_rows = compact_stamp(table, plan->from, plan->n, plan->rows);

    for (size_t i = 0; i < plan->n; i++) {
        const tqi_table_batch_block *to = &plan->moves[i].to;
        if (plan->from[i] == 0) {
            tqi_t_dead_push(plan->ranges[i]->owner, to->id, true);
        } else {
            tqi_table_partition *partition = tqi_t_block(table, plan->from[i])->partition;
            plan->to[i] = tqi_t_block_add(table, to, plan->ranges[i]->owner, partition);
        }
    }
    for (size_t i = 0; i < n_rows; i++) {
        compact_walk(table, &plan->rows[i], compact_cell, plan);
    }
    for (size_t i = 0; i < plan->n; i++) {
        if (plan->to[i] != 0) {
            compact_check_new(table, &plan->moves[i], plan->to[i]);
            tqi_t_block_unref(table, plan->to[i]);
        }
        tqi_t_range_use(table, plan->ranges[i]);
    }
}

int tqi_table_compact_move(tqi_table *table, uint64_t session, const tqi_table_move *moves, size_t n, tq_error *err)
{
    compact_plan plan = {
        .table = table,
        .moves = moves,
        .n = n,
        .session = tqi_t_session_find(table, session),
        .from = calloc(n + 1, sizeof(*plan.from)),
        .to = calloc(n + 1, sizeof(*plan.to)),
        .ranges = calloc(n + 1, sizeof(tqi_table_range *)),
        .rows = calloc(n + 1, sizeof(*plan.rows)),
    };
    int rc;

    table->operation++;
    if (plan.from == NULL || plan.to == NULL || plan.ranges == NULL || plan.rows == NULL) {
        rc = tqi_error_nomem(err, "moves");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        plan.from[i] = tqi_t_block_find(table, moves[i].from);
    }
    rc = compact_check(&plan, err);
    if (rc == TQ_OK) {
        compact_commit(&plan);
    }

out:
    compact_plan_fini(&plan);
    return rc;
}
