/*
 * model.c - the naive model of the table; see model.h.
 */
#include "table/test/model.h"

#include "table/test/testkit.h"

void model_init(model *m, const tqi_table_options *options)
{
    memset(m, 0, sizeof(*m));
    m->options = *options;
    m->options.first_incarnation = options->first_incarnation != 0 ? options->first_incarnation : 1;
    m->holding = -1;
    for (uint32_t i = 0; i < M_PLACES; i++) {
        m->samples[i].partition = -1;
        m->samples[i].incarnation = m->options.first_incarnation;
    }
    for (int i = 0; i < M_OWNERS; i++) {
        m->owner_incarnation[i] = 100;
    }
}

uint32_t model_index(const model *m, uint32_t place)
{
    uint32_t index = m->options.first_index + place;

    /* At and after the skipped one everything is one further. */
    return index < m->options.first_index || index == TQ_NO_INDEX ? index + 1 : index;
}

uint32_t model_place(const model *m, uint32_t index)
{
    uint32_t place = index - m->options.first_index;

    return index < m->options.first_index ? place - 1 : place;
}

uint32_t model_room(const model *m)
{
    return M_PLACES - m->n_places + m->n_free;
}

uint32_t model_join(model *m, int partition, int key, int group)
{
    model_partition *p = &m->partitions[partition];
    model_sample *sample;
    uint32_t place;

    if (m->n_free > 0) {
        place = m->free_queue[0];
        m->n_free--;
        memmove(m->free_queue, m->free_queue + 1, m->n_free * sizeof(uint32_t));
    } else {
        assert_true(m->n_places < M_PLACES);
        place = m->n_places++;
    }
    if (!p->exists) {
        p->exists = true;
        p->next_ordinal = m->options.first_ordinal;
    }
    sample = &m->samples[place];
    sample->partition = partition;
    sample->ordinal = p->next_ordinal++;
    sample->key = key;
    sample->group = group;
    return place;
}

void model_clear(model *m, uint32_t place)
{
    model_sample *sample = &m->samples[place];
    uint32_t incarnation = sample->incarnation + 1;

    memset(sample, 0, sizeof(*sample));
    sample->partition = -1;
    sample->incarnation = incarnation != 0 ? incarnation : 1;
    if (m->holding >= 0) {
        m->held[m->holding][m->n_held[m->holding]++] = place;
    } else {
        m->free_queue[m->n_free++] = place;
    }
    model_settle(m);
}

void model_release_held(model *m, int clear)
{
    for (uint32_t i = 0; i < m->n_held[clear]; i++) {
        m->free_queue[m->n_free++] = m->held[clear][i];
    }
    m->n_held[clear] = 0;
}

void model_reset(model *m, int partition, int task)
{
    m->partitions[partition].generation[task]++;
    for (uint32_t i = 0; i < m->n_places; i++) {
        if (m->samples[i].partition == partition) {
            m->samples[i].consumed[task] = false;
        }
    }
}

void model_clear_partition(model *m, int partition)
{
    bool found;

    /* By index, not by place: after the wrap the low indexes come first. */
    do {
        uint32_t lowest = 0;
        found = false;
        for (uint32_t i = 0; i < m->n_places; i++) {
            if (m->samples[i].partition == partition && (!found || model_index(m, i) < model_index(m, lowest))) {
                lowest = i;
                found = true;
            }
        }
        if (found) {
            model_clear(m, lowest);
        }
    } while (found);
    for (int t = 0; t < M_TASKS; t++) {
        m->partitions[partition].generation[t]++;
    }
    m->partitions[partition].exists = false;
}

/* Rows are compared with the first of two dims that was restored, in order of indexes. */
static void model_find_like(const model *m, int partition, int field, model_shape *like)
{
    uint32_t lowest = 0;

    like->ndim = 0;
    for (uint32_t i = 0; i < m->n_places; i++) {
        const model_cell *cell = &m->samples[i].cells[field];
        if (m->samples[i].partition == partition && cell->state >= CELL_STORED && cell->shape.ndim == 2 &&
            (like->ndim == 0 || model_index(m, i) < lowest)) {
            *like = cell->shape;
            lowest = model_index(m, i);
        }
    }
}

/* A field whose rows are all of one type is restored as one of that type. */
static void model_retype(model *m, int partition, int field)
{
    model_field *f = &m->partitions[partition].fields[field];
    bool seen[2] = {false, false};

    for (uint32_t i = 0; i < m->n_places; i++) {
        if (m->samples[i].partition == partition && model_filled(&m->samples[i].cells[field])) {
            seen[m->samples[i].cells[field].wide] = true;
        }
    }
    if (seen[0] != seen[1]) {
        f->wide = seen[1];
    }
    for (uint32_t i = 0; i < m->n_places; i++) {
        model_cell *cell = &m->samples[i].cells[field];
        if (m->samples[i].partition == partition) {
            cell->typed = model_filled(cell) && cell->wide != f->wide;
        }
    }
}

void model_restore(model *m, int partition)
{
    for (int p = 0; p < M_PARTITIONS; p++) {
        for (int f = 0; f < M_FIELDS && (partition < 0 || p == partition); f++) {
            model_find_like(m, p, f, &m->partitions[p].fields[f].like);
            model_retype(m, p, f);
        }
    }
    for (uint32_t i = 0; i < m->n_places; i++) {
        model_sample *sample = &m->samples[i];
        if (sample->partition >= 0 && (partition < 0 || sample->partition == partition)) {
            sample->incarnation = sample->incarnation + 1 != 0 ? sample->incarnation + 1 : 1;
        }
    }
    for (int p = 0; p < M_PARTITIONS; p++) {
        for (int t = 0; t < M_TASKS && (partition < 0 || p == partition); t++) {
            m->partitions[p].generation[t]++;
        }
    }
}

int model_find_key(const model *m, int partition, int key)
{
    for (uint32_t i = 0; i < m->n_places; i++) {
        if (m->samples[i].partition == partition && m->samples[i].key == key) {
            return (int)i;
        }
    }
    return -1;
}

bool model_shape_equal(const model_shape *a, const model_shape *b)
{
    return a->ndim == b->ndim && memcmp(a->dims, b->dims, a->ndim * sizeof(a->dims[0])) == 0;
}

bool model_filled(const model_cell *cell)
{
    return cell->state >= CELL_STORED && model_bytes(cell) > 0;
}

/* Whether the field may take the other type: no row of its own type is left, and no row is given twice. */
static bool model_may_switch(const model *m, int partition, int field, const model_cell *cells, const int *places,
                             size_t n)
{
    bool wide = m->partitions[partition].fields[field].wide;
    bool other = false;

    for (size_t i = 0; i < n; i++) {
        other = other || (model_filled(&cells[i]) && cells[i].wide != wide);
        if (model_filled(&cells[i]) && cells[i].wide == wide) {
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (places[i] == places[j]) {
                return false;
            }
        }
    }
    for (uint32_t p = 0; p < m->n_places; p++) {
        const model_cell *cell = &m->samples[p].cells[field];
        bool given = false;
        for (size_t i = 0; i < n; i++) {
            given = given || places[i] == (int)p;
        }
        if (m->samples[p].partition == partition && !given && model_filled(cell) && !cell->typed) {
            return false;
        }
    }
    return other;
}

static void model_learn_shape(model_field *f, const model_cell *cell)
{
    f->ragged = f->ragged || cell->typed || !model_shape_equal(&f->shape, &cell->shape);
    if (cell->shape.ndim == 2) {
        f->like = f->like.ndim == 0 ? cell->shape : f->like;
        f->varies[0] = f->varies[0] || cell->shape.dims[0] != f->like.dims[0];
        f->varies[1] = f->varies[1] || cell->shape.dims[1] != f->like.dims[1];
    }
}

void model_learn(model *m, int partition, int field, model_cell *cells, const int *places, size_t n)
{
    model_field *f = &m->partitions[partition].fields[field];

    if (!f->known) {
        bool wide = cells[0].wide;
        for (size_t i = n; i > 0; i--) {
            wide = model_filled(&cells[i - 1]) ? cells[i - 1].wide : wide;
        }
        *f = (model_field){.known = true, .wide = wide, .shape = cells[0].shape, .order = ++m->field_order};
    } else if (model_may_switch(m, partition, field, cells, places, n)) {
        f->wide = !f->wide;
    }
    for (size_t i = 0; i < n; i++) {
        cells[i].typed = model_filled(&cells[i]) && cells[i].wide != f->wide;
        model_learn_shape(f, &cells[i]);
    }
}

uint8_t model_ragged_dim(const model_field *field)
{
    if (field->varies[0] && field->varies[1]) {
        return TQ_RAGGED_MANY;
    }
    return field->varies[0] ? 1 : field->varies[1] ? 2 : 0;
}

void model_link(model *m, uint32_t place, int field, const model_cell *cell)
{
    m->samples[place].cells[field] = *cell;
}

void model_settle(model *m)
{
    bool linked[M_BLOCKS] = {false};
    bool left[M_PARTITIONS][M_FIELDS] = {{false}};

    for (uint32_t i = 0; i < m->n_places; i++) {
        for (int f = 0; f < M_FIELDS && m->samples[i].partition >= 0; f++) {
            const model_cell *cell = &m->samples[i].cells[f];
            if (cell->state == CELL_STORED) {
                linked[cell->slot] = true;
            }
            if (cell->state != CELL_NONE) {
                left[m->samples[i].partition][f] = true;
            }
        }
    }
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        if (m->blocks[b].state == BLOCK_LIVE && !linked[b]) {
            m->blocks[b].state = BLOCK_DEAD;
            m->blocks[b].writer_done = true;
        }
    }
    for (int p = 0; p < M_PARTITIONS; p++) {
        for (int f = 0; f < M_FIELDS; f++) {
            m->partitions[p].fields[f].known = m->partitions[p].fields[f].known && left[p][f];
        }
    }
}

uint64_t model_bytes(const model_cell *cell)
{
    uint64_t bytes = cell->wide ? 8 : 4;

    for (uint32_t i = 0; i < cell->shape.ndim; i++) {
        bytes *= cell->shape.dims[i];
    }
    return bytes;
}

model_block *model_block_find(model *m, uint64_t id)
{
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        if (m->blocks[b].state != BLOCK_FREE && m->blocks[b].id == id) {
            return &m->blocks[b];
        }
    }
    return NULL;
}

model_block *model_block_new(model *m)
{
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        if (m->blocks[b].state == BLOCK_FREE) {
            return &m->blocks[b];
        }
    }
    fail_msg("the model has no room for another block");
    return NULL;
}

void model_lose_block(model *m, uint64_t id)
{
    for (uint32_t i = 0; i < m->n_places; i++) {
        for (int f = 0; f < M_FIELDS; f++) {
            model_cell *cell = &m->samples[i].cells[f];
            if (cell->state == CELL_STORED && cell->block == id) {
                memset(cell, 0, sizeof(*cell));
                cell->state = CELL_LOST;
            }
        }
    }
}

void model_lose_owner(model *m, int owner)
{
    for (uint32_t b = 0; b < M_BLOCKS; b++) {
        if (m->blocks[b].state != BLOCK_FREE && m->blocks[b].owner == owner) {
            if (m->blocks[b].state == BLOCK_LIVE) {
                model_lose_block(m, m->blocks[b].id);
            }
            m->blocks[b].state = BLOCK_FREE;
        }
    }
}

void model_release(model *m, model_claim *claim)
{
    if (claim->generation == m->partitions[claim->partition].generation[claim->task]) {
        for (uint32_t i = 0; i < claim->n; i++) {
            model_sample *sample = &m->samples[claim->places[i]];
            if (sample->partition == claim->partition && sample->incarnation == claim->incarnations[i]) {
                sample->consumed[claim->task] = false;
            }
        }
    }
    claim->id = 0;
}

bool model_ready(const model *m, uint32_t place, unsigned fields)
{
    for (int f = 0; f < M_FIELDS; f++) {
        model_cell_state state = m->samples[place].cells[f].state;
        if ((fields >> f & 1) != 0 && state != CELL_STORED && state != CELL_OPAQUE) {
            return false;
        }
    }
    return true;
}
