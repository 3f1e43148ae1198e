/*
 * model_publish.c - random publishes, whole and broken ones, to the table and to its model.
 */
#include "table/test/model_run.h"

#include "base/type.h"

static const model_shape shapes[] = {
    {0, {0}}, {1, {0}}, {1, {3}}, {1, {UINT64_C(5)}}, {2, {2, 2}}, {2, {2, 3}}, {2, {2, 3}}, {2, {3, 3}},
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

typedef struct pub {
    int partition;
    int session;
    tqi_table_naming naming;
    size_t n;
    uint32_t indexes[M_ROWS];
    uint32_t incarnations[M_ROWS];
    const char *keys[M_ROWS];
    const char *groups[M_ROWS];
    int places[M_ROWS]; /* old ones; -1: new */
    int key[M_ROWS];
    int group[M_ROWS];
    uint32_t tags[M_TAGS][M_ROWS];
    tqi_table_batch_tag batch_tags[M_TAGS];
    uint8_t tag_values[M_TAGS][M_ROWS * 4];
    uint32_t tag_sizes[M_TAGS][M_ROWS];
    int fields[M_FIELDS];
    size_t n_fields;
    uint32_t types[M_FIELDS][M_ROWS];
    model_cell cells[M_FIELDS][M_ROWS];
    tqi_table_batch_field batch_fields[M_FIELDS];
    tqi_table_run runs[M_FIELDS][M_ROWS];
    uint32_t ndims[M_FIELDS][M_ROWS];
    uint64_t dims[M_FIELDS][M_ROWS * 2];
    tq_slice opaque[M_FIELDS][M_ROWS];
    model_shape same[M_FIELDS];
    uint8_t named[M_FIELDS]; /* ragged dims */
    uint32_t n_blocks;
    uint32_t slots[2];
    tqi_table_batch_block blocks[2];
    uint64_t used[2];
} pub;

static void pub_samples(run *r, pub *p)
{
    p->n = 1 + rnd(r, M_ROWS);
    p->naming = (tqi_table_naming)rnd(r, 3);
    if (p->naming == TQI_TABLE_BY_INDEX && rnd_sample(r, p->partition) < 0) {
        p->naming = TQI_TABLE_NEW;
    }
    for (size_t i = 0; i < p->n; i++) {
        p->key[i] = -1;
        p->group[i] = -1;
        p->places[i] = -1;
        if (p->naming == TQI_TABLE_BY_INDEX) {
            p->places[i] = rnd_sample(r, p->partition);
            p->indexes[i] = model_index(&r->m, (uint32_t)p->places[i]);
            p->incarnations[i] = rnd(r, 2) ? r->m.samples[p->places[i]].incarnation : 0;
            continue;
        }
        if (p->naming == TQI_TABLE_BY_KEY || rnd(r, 3) == 0) {
            p->key[i] = (int)rnd(r, M_KEYS);
            p->places[i] = model_find_key(&r->m, p->partition, p->key[i]);
        }
        if (p->naming == TQI_TABLE_NEW && p->key[i] >= 0) {
            bool taken = p->places[i] >= 0;
            for (size_t j = 0; j < i; j++) {
                taken = taken || p->key[j] == p->key[i];
            }
            p->key[i] = taken ? -1 : p->key[i];
            p->places[i] = -1;
        }
        p->keys[i] = p->key[i] >= 0 ? model_keys[p->key[i]] : NULL;
        if (p->places[i] < 0 && rnd(r, 3) == 0) {
            p->group[i] = (int)rnd(r, M_GROUPS);
            p->groups[i] = model_groups[p->group[i]];
        }
        for (size_t j = 0; j < i; j++) {
            if (p->key[i] >= 0 && p->key[j] == p->key[i]) {
                p->group[i] = p->group[j];
                p->groups[i] = p->groups[j];
            }
        }
    }
}

static void pub_tags(run *r, pub *p)
{
    for (int t = 0; t < M_TAGS; t++) {
        size_t at = 0;
        for (size_t i = 0; i < p->n; i++) {
            p->tags[t][i] = rnd(r, 3) == 0 ? 1 + rnd(r, 1000) : 0;
            p->tag_sizes[t][i] = p->tags[t][i] != 0 ? 4 : 0;
            if (p->tags[t][i] != 0) {
                memcpy(p->tag_values[t] + at, &p->tags[t][i], 4);
                at += 4;
            }
        }
        p->batch_tags[t] = (tqi_table_batch_tag){model_tags[t], p->tag_values[t], at, p->tag_sizes[t]};
    }
}

static tq_dtype pub_dtype(bool wide)
{
    return wide ? (tq_dtype){TQ_INT, 64} : (tq_dtype){TQ_FLOAT, 32};
}

/* Rows of one field: cells, runs, shapes. */
static void pub_field(run *r, pub *p, size_t at)
{
    int f = p->fields[at];
    const model_field *known = &r->m.partitions[p->partition].fields[f];
    tqi_table_batch_field *out = &p->batch_fields[at];
    bool mixed = rnd(r, 5) == 0;
    bool ragged = mixed || rnd(r, 3) == 0;
    bool wide = known->known && rnd(r, 4) ? known->wide : rnd(r, 2) != 0;
    model_shape same = known->known && !known->ragged && rnd(r, 4) ? known->shape : shapes[rnd(r, N_SHAPES)];
    uint32_t block = p->n_blocks > 0 ? rnd(r, p->n_blocks) : 0;
    size_t n_runs = 0;
    size_t n_dims = 0;

    p->same[at] = same;
    p->named[at] = rnd(r, 8) == 0 ? (uint8_t)(1 + rnd(r, 2)) : 0;
    for (size_t i = 0; i < p->n; i++) {
        model_cell *cell = &p->cells[at][i];
        tqi_table_run *last = n_runs > 0 ? &p->runs[at][n_runs - 1] : NULL;
        uint32_t mark = TQI_BLOCK_NONE;

        memset(cell, 0, sizeof(*cell));
        cell->shape = ragged ? shapes[rnd(r, N_SHAPES)] : same;
        cell->wide = mixed ? rnd(r, 2) != 0 : wide;
        p->types[at][i] = tqi_type_pack(TQ_TENSOR, pub_dtype(cell->wide));
        if (rnd(r, 16) == 0) {
            cell->state = CELL_OPAQUE;
            cell->opaque = rnd(r, 1000);
            mark = TQI_BLOCK_OPAQUE;
        } else if (p->n_blocks > 0 && rnd(r, 6) > 0) {
            cell->state = CELL_STORED;
            cell->block = p->blocks[block].id;
            cell->slot = p->slots[block];
            cell->offset = p->used[block];
            p->used[block] += model_bytes(cell);
            mark = block + 1;
        }
        p->opaque[at][i] = (tq_slice){&cell->opaque, sizeof(cell->opaque)};
        if (last != NULL && last->block == mark) {
            last->rows++;
        } else {
            p->runs[at][n_runs++] = (tqi_table_run){mark, 1, cell->offset};
        }
        p->ndims[at][i] = cell->state != CELL_NONE ? cell->shape.ndim : 0;
        memcpy(&p->dims[at][n_dims], cell->shape.dims, p->ndims[at][i] * sizeof(uint64_t));
        n_dims += p->ndims[at][i];
    }
    *out = (tqi_table_batch_field){
        .name = model_fields[f],
        .kind = TQ_TENSOR,
        .dtype = pub_dtype(p->cells[at][0].wide),
        .types = mixed ? p->types[at] : NULL,
        .ragged = ragged,
        .ndim = same.ndim,
        .shape = p->same[at].dims,
        .ndims = p->ndims[at],
        .n_ndims = p->n,
        .dims = p->dims[at],
        .n_dims = n_dims,
        .runs = p->runs[at],
        .n_runs = n_runs,
        .opaque = p->opaque[at],
        .ragged_dim = p->named[at],
    };
}

static void pub_blocks(run *r, pub *p)
{
    p->n_blocks = rnd(r, 3);
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        int owner = (int)rnd(r, M_OWNERS);
        uint32_t count = 1 + rnd(r, 3);
        uint64_t first;

        assert_int_equal(tqi_table_grant(r->table, (uint64_t)p->session, r->owners[owner], count, &first, &r->err),
                         TQ_OK);
        for (uint32_t i = 0; i < count; i++) {
            model_block *block = model_block_new(&r->m);
            *block = (model_block){BLOCK_GRANTED, first + i, 0, owner, p->session, false, 0};
        }
        first += rnd(r, count);
        p->slots[b] = (uint32_t)(model_block_find(&r->m, first) - r->m.blocks);
        p->blocks[b] = (tqi_table_batch_block){
            .id = first,
            .owner = model_owners[owner],
            .owner_incarnation = r->m.owner_incarnation[owner],
        };
    }
}

/* Checks the reply and does the same to the model. */
static void pub_apply(run *r, pub *p, const tqi_table_batch *reply)
{
    model *m = &r->m;

    for (uint32_t b = 0; b < p->n_blocks; b++) {
        m->blocks[p->slots[b]].state = BLOCK_LIVE;
        m->blocks[p->slots[b]].size = p->blocks[b].size;
    }
    for (size_t i = 0; i < p->n; i++) {
        int place = p->places[i];
        if (place < 0 && p->naming == TQI_TABLE_BY_KEY) {
            place = model_find_key(m, p->partition, p->key[i]);
        }
        if (place < 0) {
            place = (int)model_join(m, p->partition, p->key[i], p->group[i]);
        }
        p->places[i] = place;
        for (int t = 0; t < M_TAGS; t++) {
            m->samples[place].tags[t] = p->tags[t][i] != 0 ? p->tags[t][i] : m->samples[place].tags[t];
        }
        assert_int_equal(reply->indexes[i], model_index(m, (uint32_t)place));
        assert_int_equal(reply->incarnations[i], m->samples[place].incarnation);
        assert_true(reply->ordinals[i] == m->samples[place].ordinal);
    }
    for (size_t at = 0; at < p->n_fields; at++) {
        model_cell given[M_ROWS];
        int places[M_ROWS];
        size_t n = 0;
        for (size_t i = 0; i < p->n; i++) {
            if (p->cells[at][i].state != CELL_NONE) {
                places[n] = p->places[i];
                given[n++] = p->cells[at][i];
            }
        }
        if (n > 0) {
            model_field *field = &m->partitions[p->partition].fields[p->fields[at]];
            model_learn(m, p->partition, p->fields[at], given, places, n);
            field->varies[1] = field->varies[1] || p->named[at] == 2;
        }
        for (size_t i = 0; i < n; i++) {
            model_link(m, (uint32_t)places[i], p->fields[at], &given[i]);
        }
    }
    model_settle(m);
}

/* Breaks the publish in one way; returns the error it must give, TQ_OK when it was left whole. */
static int pub_break(run *r, pub *p)
{
    switch (rnd(r, 12)) {
    case 0:
        if (p->n_fields > 0) {
            p->batch_fields[0].dtype = (tq_dtype){TQ_BOOL, 7};
            return TQ_EINVAL;
        }
        return TQ_OK;
    case 1:
        if (p->n_blocks > 0) {
            p->blocks[p->n_blocks - 1].id += 1000;
            return TQ_EINVAL;
        }
        return TQ_OK;
    case 2:
        if (p->n_fields > 0) {
            p->runs[p->n_fields - 1][0].rows++;
            return TQ_EROWS;
        }
        return TQ_OK;
    case 3:
        if (p->naming == TQI_TABLE_BY_INDEX) {
            p->incarnations[p->n - 1] = r->m.samples[p->places[p->n - 1]].incarnation + 7;
            return TQ_ECLEARED;
        }
        return TQ_OK;
    case 4:
        for (uint32_t b = 0; b < p->n_blocks; b++) {
            if (p->used[b] > 0) {
                p->blocks[b].size = p->used[b] - 1;
                return TQ_EINVAL;
            }
        }
        return TQ_OK;
    default:
        return TQ_OK;
    }
}

void op_publish(run *r)
{
    pub p = {.partition = (int)rnd(r, M_PARTITIONS), .session = (int)rnd(r, M_SESSIONS)};
    tqi_table_result result = {0};
    tqi_table_batch batch;
    tqi_table_publish_args publish;
    int want;

    if (model_room(&r->m) < M_ROWS) {
        return;
    }
    pub_samples(r, &p);
    pub_tags(r, &p);
    pub_blocks(r, &p);
    for (int f = 0; f < M_FIELDS; f++) {
        if (rnd(r, 2)) {
            p.fields[p.n_fields] = f;
            pub_field(r, &p, p.n_fields++);
        }
    }
    for (uint32_t b = 0; b < p.n_blocks; b++) {
        p.blocks[b].size = p.used[b];
    }
    want = pub_break(r, &p);
    batch = (tqi_table_batch){
        .partition = model_partitions[p.partition],
        .n = p.n,
        .indexes = p.indexes,
        .incarnations = p.naming == TQI_TABLE_BY_INDEX ? p.incarnations : NULL,
        .keys = p.keys,
        .groups = p.groups,
        .tags = p.batch_tags,
        .n_tags = M_TAGS,
        .fields = p.batch_fields,
        .n_fields = p.n_fields,
        .blocks = p.blocks,
        .n_blocks = p.n_blocks,
    };
    publish =
        (tqi_table_publish_args){.batch = &batch, .naming = p.naming, .create = true, .session = (uint64_t)p.session};
    assert_int_equal(tqi_table_publish(r->table, &publish, &result, &r->err), want);
    if (want == TQ_OK) {
        pub_apply(r, &p, &result.batch);
    }
    tqi_table_result_fini(&result);
}
