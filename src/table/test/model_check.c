/*
 * model_check.c - compares everything that the table reports with the model.
 */
#include "table/test/model_run.h"

#include <string.h>

#include "base/type.h"

void check_views(run *r)
{
    tqi_table_view *view;

    while ((view = tqi_table_next_touched(r->table)) != NULL) {
        for (int v = 0; v < MODEL_VIEWS; v++) {
            r->views[v].touched = r->views[v].touched || r->views[v].view == view;
        }
        assert_non_null(tqi_table_view_user(view));
    }
    for (int v = 0; v < MODEL_VIEWS; v++) {
        held_view *held = &r->views[v];
        const uint32_t *list;
        uint32_t n, found = 0;

        if (held->view == NULL) {
            continue;
        }
        n = tqi_table_view_list_for_tests(held->view, &list, &r->err);
        assert_int_equal(n, tqi_table_view_ready(held->view));
        for (uint32_t i = 1; i < n; i++) {
            assert_true(list[i - 1] < list[i]);
        }
        for (uint32_t place = 0; place < M_PLACES; place++) {
            bool now = model_avail(r, held, place);
            assert_true(!now || held->was[place] || held->touched);
            held->was[place] = now;
            found += now;
        }
        assert_int_equal(n, found);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(held->was[model_place(&r->m, list[i])]);
        }
        held->touched = false;
    }
}

void check_counts(const run *r)
{
    tqi_table_counts counts;
    uint64_t samples = 0, cells = 0, keys = 0, blocks = 0, claims = 0, partitions = 0, held = 0;

    for (uint32_t i = 0; i < M_PLACES; i++) {
        samples += r->m.samples[i].partition >= 0;
        keys += r->m.samples[i].partition >= 0 && r->m.samples[i].key >= 0;
        for (int f = 0; f < M_FIELDS; f++) {
            cells += r->m.samples[i].cells[f].state >= CELL_STORED;
        }
    }
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        blocks += r->m.blocks[b].state == BLOCK_LIVE;
    }
    for (int c = 0; c < M_CLAIMS; c++) {
        claims += r->m.claims[c].id != 0;
    }
    for (int p = 0; p < M_PARTITIONS; p++) {
        partitions += r->m.partitions[p].exists;
    }
    tqi_table_count(r->table, &counts);
    assert_int_equal(counts.samples, samples);
    assert_int_equal(counts.live_cells, cells);
    assert_int_equal(counts.keys, keys);
    assert_int_equal(counts.blocks, blocks);
    assert_int_equal(counts.claims, claims);
    for (int c = 0; c < M_CLEARS; c++) {
        held += r->m.n_held[c];
    }
    assert_int_equal(counts.partitions, partitions);
    assert_int_equal(counts.held, held);
}

/* One cell of a resolved batch against the model; `offset` is where the run continues. */
static void check_cell(const run *r, const tqi_table_batch *batch, const tqi_table_batch_field *field,
                       const tqi_table_run *at, uint64_t *offset, const model_cell *cell, const model_shape *shape,
                       size_t row, const tq_slice *opaque)
{
    uint32_t bits = field->types != NULL ? tqi_type_dtype(field->types[row]).bits : field->dtype.bits;
    const tq_slice *note = opaque != NULL ? &opaque[row] : NULL;

    (void)r;
    if (model_filled(cell)) {
        assert_int_equal(bits, cell->wide ? 64 : 32);
    }
    switch (cell->state) {
    case CELL_NONE:
        assert_int_equal(at->block, TQI_BLOCK_NONE);
        break;
    case CELL_LOST:
        assert_int_equal(at->block, TQI_BLOCK_LOST);
        break;
    case CELL_OPAQUE:
        assert_int_equal(at->block, TQI_BLOCK_OPAQUE);
        assert_true(note && note->size == 4 && memcmp(note->data, &cell->opaque, 4) == 0);
        assert_true(model_shape_equal(shape, &cell->shape));
        break;
    case CELL_STORED:
        assert_in_range(at->block, 1, batch->n_blocks);
        assert_true(batch->blocks[at->block - 1].id == cell->block);
        assert_true(*offset == cell->offset);
        assert_true(model_shape_equal(shape, &cell->shape));
        *offset += model_bytes(cell);
    }
}

static void check_field(const run *r, const tqi_table_batch *batch, const tqi_table_batch_field *field)
{
    int f = field->name[1] - '0';
    size_t at_run = 0, at_dim = 0;
    uint32_t left = 0;
    uint64_t offset = 0;

    for (size_t i = 0; i < batch->n; i++) {
        const model_cell *cell = &r->m.samples[model_place(&r->m, batch->indexes[i])].cells[f];
        model_shape shape = {field->ndim, {0}};
        if (left == 0) {
            assert_true(at_run < field->n_runs);
            left = field->runs[at_run].rows;
            offset = field->runs[at_run++].offset;
        }
        if (field->ragged) {
            shape.ndim = field->ndims[field->n_ndims == 1 ? 0 : i];
            memcpy(shape.dims, field->dims + at_dim, shape.ndim * sizeof(uint64_t));
            at_dim += shape.ndim;
        } else {
            memcpy(shape.dims, field->shape, shape.ndim * sizeof(uint64_t));
        }
        check_cell(r, batch, field, &field->runs[at_run - 1], &offset, cell, &shape, i, field->opaque);
        left--;
    }
    assert_int_equal(left, 0);
    assert_int_equal(at_run, field->n_runs);
    assert_int_equal(at_dim, field->ragged ? field->n_dims : 0);
}

static void check_tags(const run *r, const tqi_table_batch *batch)
{
    uint32_t seen = 0, want = 0;

    for (size_t t = 0; t < batch->n_tags; t++) {
        size_t at = 0;
        for (size_t i = 0; i < batch->n; i++) {
            uint32_t place = model_place(&r->m, batch->indexes[i]);
            uint32_t value = r->m.samples[place].tags[batch->tags[t].name[1] - '0'];
            assert_int_equal(batch->tags[t].sizes[i], value != 0 ? 4 : 0);
            assert_memory_equal(batch->tags[t].values + at, &value, batch->tags[t].sizes[i]);
            at += batch->tags[t].sizes[i];
            seen += value != 0;
        }
        assert_int_equal(at, batch->tags[t].values_size);
    }
    for (size_t i = 0; i < batch->n; i++) {
        for (int t = 0; t < M_TAGS; t++) {
            want += r->m.samples[model_place(&r->m, batch->indexes[i])].tags[t] != 0;
        }
    }
    assert_int_equal(seen, want);
}

static void check_samples(const run *r, int p, const tqi_table_batch *batch)
{
    for (size_t i = 0; i < batch->n; i++) {
        const model_sample *sample = &r->m.samples[model_place(&r->m, batch->indexes[i])];
        const char *key = batch->keys != NULL ? batch->keys[i] : NULL;
        const char *group = batch->groups != NULL ? batch->groups[i] : NULL;
        assert_int_equal(sample->partition, p);
        assert_true(i == 0 || batch->indexes[i - 1] < batch->indexes[i]);
        assert_int_equal(batch->incarnations[i], sample->incarnation);
        assert_true(batch->ordinals[i] == sample->ordinal);
        assert_int_equal(key != NULL, sample->key >= 0);
        assert_int_equal(group != NULL, sample->group >= 0);
        assert_true(key == NULL || strcmp(key, model_keys[sample->key]) == 0);
        assert_true(group == NULL || strcmp(group, model_groups[sample->group]) == 0);
    }
}

/* What the status says of the fields and of lost samples. */
static void check_status(run *r, int p, const tqi_table_partition *partition)
{
    tqi_table_field_info info;
    uint32_t lost[M_PLACES];
    uint32_t n_lost = 0;
    uint64_t bytes = 0, order = 0;
    size_t n_fields = 0, known = 0;

    for (uint32_t i = 0; i < M_PLACES; i++) {
        bool any = false;
        for (int f = 0; f < M_FIELDS && r->m.samples[i].partition == p; f++) {
            const model_cell *cell = &r->m.samples[i].cells[f];
            any = any || cell->state == CELL_LOST;
            bytes += cell->state >= CELL_STORED ? model_bytes(cell) : 0;
        }
        n_lost += any;
    }
    assert_int_equal(tqi_table_partition_lost(partition, lost, M_PLACES), n_lost);
    assert_true(tqi_table_partition_bytes(partition) == bytes);
    for (; tqi_table_partition_field(partition, n_fields, &info); n_fields++) {
        const model_field *field = &r->m.partitions[p].fields[info.name[1] - '0'];
        bool seen[2] = {false, false};
        uint32_t produced = 0;
        for (uint32_t i = 0; i < M_PLACES; i++) {
            produced += r->m.samples[i].partition == p && r->m.samples[i].cells[info.name[1] - '0'].state >= CELL_STORED;
            if (r->m.samples[i].partition == p && model_filled(&r->m.samples[i].cells[info.name[1] - '0'])) {
                seen[r->m.samples[i].cells[info.name[1] - '0'].wide] = true;
            }
        }
        assert_true(field->known);
        assert_true(field->order > order);
        order = field->order;
        assert_int_equal(info.produced, produced);
        assert_int_equal(info.ragged, field->ragged);
        assert_int_equal(info.mixed, seen[0] && seen[1]);
        assert_int_equal(info.dtype.bits, (seen[0] != seen[1] ? seen[1] : field->wide) ? 64 : 32);
        assert_int_equal(info.ragged_dim, model_ragged_dim(field));
        if (!info.ragged) {
            assert_int_equal(info.ndim, field->shape.ndim);
            assert_memory_equal(info.shape, field->shape.dims, info.ndim * sizeof(uint64_t));
        }
    }
    for (int f = 0; f < M_FIELDS; f++) {
        known += r->m.partitions[p].fields[f].known;
    }
    assert_int_equal(n_fields, known);
}

static void check_matrix(run *r, int p)
{
    uint32_t *index;
    uint8_t *bits;
    size_t n;
    bool known;

    assert_int_equal(
        tqi_table_production(r->table, model_partitions[p], model_fields, M_FIELDS, &known, &index, &bits, &n, &r->err),
        TQ_OK);
    assert_int_equal(known, r->m.partitions[p].exists);
    for (size_t i = 0; i < n * M_FIELDS; i++) {
        const model_sample *sample = &r->m.samples[model_place(&r->m, index[i / M_FIELDS])];
        assert_int_equal(bits[i], sample->cells[i % M_FIELDS].state >= CELL_STORED);
    }
    free(index);
    free(bits);
    for (int t = 0; t < M_TASKS; t++) {
        assert_int_equal(
            tqi_table_consumption(r->table, model_partitions[p], model_tasks[t], &known, &index, &bits, &n, &r->err),
            TQ_OK);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(bits[i], r->m.samples[model_place(&r->m, index[i])].consumed[t]);
        }
        free(index);
        free(bits);
    }
}

void check_all(run *r)
{
    uint64_t blocks[M_OWNERS] = {0}, bytes[M_OWNERS] = {0};

    for (int p = 0; p < M_PARTITIONS; p++) {
        tqi_table_resolve_args ask = {.partition = model_partitions[p], .lenient = true, .tags = true};
        tqi_table_partition *partition = tqi_table_find_partition(r->table, model_partitions[p]);
        tqi_table_result result = {0};

        assert_int_equal(partition != NULL, r->m.partitions[p].exists);
        assert_int_equal(tqi_table_resolve(r->table, &ask, &result, &r->err), TQ_OK);
        check_samples(r, p, &result.batch);
        for (size_t f = 0; f < result.batch.n_fields; f++) {
            check_field(r, &result.batch, &result.batch.fields[f]);
        }
        check_tags(r, &result.batch);
        check_matrix(r, p);
        if (partition != NULL) {
            assert_int_equal(result.batch.n, tqi_table_partition_samples(partition));
            check_status(r, p, partition);
        }
        tqi_table_result_fini(&result);
    }
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        if (r->m.blocks[b].state == BLOCK_LIVE) {
            blocks[r->m.blocks[b].owner]++;
            bytes[r->m.blocks[b].owner] += r->m.blocks[b].size;
        }
    }
    for (int o = 0; o < M_OWNERS; o++) {
        assert_int_equal(tqi_table_owner_blocks(r->owners[o]), blocks[o]);
        assert_int_equal(tqi_table_owner_bytes(r->owners[o]), bytes[o]);
    }
}
