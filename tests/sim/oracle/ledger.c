/*
 * ledger.c - the naive model of a table: samples, keys, cells, tasks. See ledger.h.
 */
#include "oracle/ledger.h"

#include "base/type.h"

static void partition_free(ledger_partition *partition)
{
    for (uint32_t i = 0; i < partition->n_tasks; i++) {
        ledger_task *task = &partition->tasks[i];
        for (uint32_t k = 0; k < task->n_picks; k++) {
            sim_free(task->picks[k].samples);
        }
        sim_free(task->picks);
        sim_free(task->consumed);
    }
    sim_free(partition->tasks);
    sim_free(partition->fields);
    sim_free(partition);
}

ledger *ledger_open(const tqi_table *table, const tqi_table_options *options)
{
    ledger *l = sim_alloc(sizeof(*l));

    l->table = table;
    l->options = *options;
    l->options.first_incarnation = options->first_incarnation != 0 ? options->first_incarnation : 1;
    l->next_claim = options->first_claim != 0 ? options->first_claim : 1;
    return l;
}

void ledger_close(ledger *l)
{
    for (uint32_t i = 0; i < l->samples_capacity; i++) {
        sim_free(l->samples[i].cells);
        sim_free(l->samples[i].tags);
    }
    for (uint32_t i = 0; i < l->n_partitions; i++) {
        partition_free(l->partitions[i]);
    }
    for (uint32_t i = 0; i < l->n_claims; i++) {
        sim_free(l->claims[i].samples);
    }
    for (uint32_t i = 0; i < l->n_clearings; i++) {
        sim_free(l->clearings[i].places);
    }
    ledger_map_fini(&l->partition_map);
    ledger_map_fini(&l->keys);
    ledger_map_fini(&l->block_map);
    ledger_map_fini(&l->claim_map);
    sim_free(l->samples);
    sim_free(l->free_queue);
    sim_free(l->partitions);
    sim_free(l->owners);
    sim_free(l->blocks);
    sim_free(l->free_blocks);
    sim_free(l->claims);
    sim_free(l->sessions);
    sim_free(l->clearings);
    sim_free(l->freezes);
    sim_free(l->gone);
    sim_free(l->scratch);
    sim_free(l->block_places);
    sim_free(l);
}

/* --- partitions ------------------------------------------------------------------ */

static ledger_partition *partition_lookup(const ledger *l, const char *name)
{
    uint32_t found = name != NULL ? ledger_map_get(&l->partition_map, ledger_name_id(name)) : 0;

    return found != 0 ? l->partitions[found - 1] : NULL;
}

ledger_partition *ledger_partition_find(const ledger *l, const char *name)
{
    ledger_partition *partition = partition_lookup(l, ledger_name(name));

    return partition != NULL && partition->exists ? partition : NULL;
}

ledger_partition *ledger_partition_get(ledger *l, const char *name)
{
    name = ledger_name(name);
    ledger_partition *partition = partition_lookup(l, name);
    if (partition == NULL) {
        partition = sim_alloc(sizeof(*partition));
        partition->name = name;
        LEDGER_GROW(l->partitions, l->partitions_capacity, l->n_partitions + 1);
        l->partitions[l->n_partitions++] = partition;
        ledger_map_set(&l->partition_map, ledger_name_id(name), l->n_partitions);
    }
    return partition;
}

/* --- samples ----------------------------------------------------------------------- */

ledger_sample *ledger_member(const ledger *l, const ledger_partition *partition, uint32_t index, uint32_t incarnation)
{
    uint32_t place = index - l->options.first_index;

    if (partition == NULL || place >= l->places || l->samples[place].partition != partition ||
        (incarnation != 0 && l->samples[place].incarnation != incarnation)) {
        return NULL;
    }
    return &l->samples[place];
}

/* Indexes may wrap around: the places behind the wrap have the low ones. */
uint32_t ledger_list(ledger *l, const ledger_partition *partition)
{
    uint32_t before = (uint32_t)0 - l->options.first_index;
    uint32_t wrap = l->options.first_index != 0 && l->places > before ? before : l->places;
    uint32_t n = 0;

    LEDGER_GROW(l->scratch, l->scratch_capacity, partition->samples);
    for (uint32_t i = 0; i < l->places && n < partition->samples; i++) {
        uint32_t place = i < l->places - wrap ? wrap + i : i - (l->places - wrap);
        if (l->samples[place].partition == partition) {
            l->scratch[n++] = place;
        }
    }
    return n;
}

static uint64_t key_of(const ledger_partition *partition, const char *key)
{
    return (uint64_t)ledger_name_id(partition->name) << 32 | ledger_name_id(key);
}

ledger_sample *ledger_key_find(const ledger *l, const ledger_partition *partition, const char *key)
{
    uint32_t found = ledger_map_get(&l->keys, key_of(partition, key));

    return found != 0 ? &l->samples[found - 1] : NULL;
}

void ledger_key_add(ledger *l, ledger_sample *sample, const char *key)
{
    sample->key = key;
    ledger_map_set(&l->keys, key_of(sample->partition, key), ledger_place(l, sample) + 1);
}

static uint32_t place_take(ledger *l)
{
    if (l->n_free > 0) {
        uint32_t place = l->free_queue[l->free_first];
        l->free_first = (l->free_first + 1) % l->free_capacity;
        l->n_free--;
        return place;
    }
    if (ledger_index(l, l->places) == TQ_NO_INDEX) {
        l->places++;
    }
    uint32_t before = l->samples_capacity;
    LEDGER_GROW(l->samples, l->samples_capacity, l->places + 1);
    for (uint32_t i = before; i < l->samples_capacity; i++) {
        l->samples[i].incarnation = l->options.first_incarnation;
    }
    return l->places++;
}

void ledger_place_free(ledger *l, uint32_t place)
{
    if (l->n_free == l->free_capacity) {
        uint32_t capacity = l->free_capacity * 2 + 64;
        uint32_t *queue = sim_alloc(capacity * sizeof(*queue));
        for (uint32_t i = 0; i < l->n_free; i++) {
            queue[i] = l->free_queue[(l->free_first + i) % l->free_capacity];
        }
        sim_free(l->free_queue);
        l->free_queue = queue;
        l->free_capacity = capacity;
        l->free_first = 0;
    }
    l->free_queue[(l->free_first + l->n_free++) % l->free_capacity] = place;
}

void ledger_born(ledger *l, ledger_partition *partition)
{
    if (!partition->exists) {
        partition->exists = true;
        partition->born = ++l->next_born;
        partition->next_ordinal = l->options.first_ordinal;
    }
}

ledger_sample *ledger_join(ledger *l, ledger_partition *partition)
{
    uint32_t place = place_take(l);
    ledger_sample *sample = &l->samples[place];

    sample->partition = partition;
    sample->ordinal = partition->next_ordinal++;
    partition->samples++;
    return sample;
}

void ledger_clear_sample(ledger *l, ledger_sample *sample)
{
    ledger_partition *partition = sample->partition;
    uint32_t place = ledger_place(l, sample);
    const ledger_cell none = {0};

    LEDGER_GROW(l->gone, l->gone_capacity, l->n_gone + 1);
    l->gone[l->n_gone++] = ledger_named(l, sample);
    for (uint32_t f = 0; f < sample->n_cells; f++) {
        ledger_cell_set(l, sample, f, &none);
    }
    for (uint32_t t = 0; t < partition->n_tasks; t++) {
        ledger_consume(&partition->tasks[t], place, false);
    }
    if (sample->key != NULL) {
        ledger_map_drop(&l->keys, key_of(partition, sample->key));
    }
    sample->key = sample->group = NULL;
    sample->n_cells = sample->n_tags = 0;
    sample->partition = NULL;
    sample->ordinal = 0;
    sample->incarnation += sample->incarnation == UINT32_MAX ? 2 : 1;
    partition->samples--;
    if (l->clearing != NULL) {
        sample->held = true;
        l->clearing->places = sim_realloc(l->clearing->places, (l->clearing->n + 1) * sizeof(uint32_t));
        l->clearing->places[l->clearing->n++] = place;
    } else {
        ledger_place_free(l, place);
    }
}

void ledger_clear_partition(ledger *l, ledger_partition *partition)
{
    uint32_t n = ledger_list(l, partition);

    for (uint32_t i = 0; i < n; i++) {
        ledger_clear_sample(l, &l->samples[l->scratch[i]]);
    }
    for (uint32_t t = 0; t < partition->n_tasks; t++) {
        ledger_task_reset(l, partition, &partition->tasks[t]);
    }
    partition->exists = false;
}

void ledger_tag_set(ledger_sample *sample, const char *name, const void *value, uint32_t size)
{
    uint32_t i = 0;

    name = ledger_name(name);
    while (i < sample->n_tags && sample->tags[i].name != name) {
        i++;
    }
    if (i == sample->n_tags) {
        LEDGER_GROW(sample->tags, sample->tags_capacity, i + 1);
        sample->n_tags++;
    }
    sample->tags[i] = (ledger_tag){name, size, ledger_hash(value, size)};
}

/* --- cells ---------------------------------------------------------------------------- */

uint32_t ledger_field_get(ledger_partition *partition, const char *name)
{
    name = ledger_name(name);
    for (uint32_t f = 0; f < partition->n_fields; f++) {
        if (partition->fields[f].name == name) {
            return f;
        }
    }
    LEDGER_GROW(partition->fields, partition->fields_capacity, partition->n_fields + 1);
    partition->fields[partition->n_fields] = (ledger_field){.name = name};
    return partition->n_fields++;
}

int64_t ledger_field_find(const ledger_partition *partition, const char *name)
{
    name = ledger_name(name);
    for (uint32_t f = 0; f < partition->n_fields; f++) {
        if (partition->fields[f].name == name) {
            return partition->fields[f].produced + partition->fields[f].lost > 0 ? (int64_t)f : -1;
        }
    }
    return -1;
}

uint64_t ledger_cell_bytes(const ledger_cell *cell)
{
    return ledger_produced(cell) ? cell->shape->elements * tqi_type_size(cell->type) : 0;
}

bool ledger_cell_filled(const ledger_cell *cell)
{
    return ledger_produced(cell) && (tqi_type_kind(cell->type) == TQ_VALUE || cell->shape->elements > 0);
}

static void cell_release(ledger *l, ledger_sample *sample, uint32_t field, const ledger_cell *old)
{
    ledger_partition *partition = sample->partition;

    partition->fields[field].lost -= old->state == LEDGER_LOST;
    if (!ledger_produced(old)) {
        return;
    }
    partition->fields[field].produced--;
    partition->live_cells--;
    partition->bytes -= ledger_cell_bytes(old);
    if (old->state == LEDGER_STORED) {
        l->blocks[old->block].live_bytes -= ledger_cell_bytes(old);
        ledger_block_unref(l, old->block);
    }
}

void ledger_cell_set(ledger *l, ledger_sample *sample, uint32_t field, const ledger_cell *cell)
{
    ledger_partition *partition = sample->partition;

    if (field >= sample->n_cells) {
        if (cell->state == LEDGER_NONE) {
            return;
        }
        LEDGER_GROW(sample->cells, sample->cells_capacity, field + 1);
        memset(sample->cells + sample->n_cells, 0, (field + 1 - sample->n_cells) * sizeof(*sample->cells));
        sample->n_cells = field + 1;
    }
    ledger_cell old = sample->cells[field];
    sample->cells[field] = *cell;
    partition->fields[field].lost += cell->state == LEDGER_LOST;
    if (ledger_produced(cell)) {
        partition->fields[field].produced++;
        partition->live_cells++;
        partition->bytes += ledger_cell_bytes(cell);
    }
    if (cell->state == LEDGER_STORED) {
        l->blocks[cell->block].live++;
        l->blocks[cell->block].live_bytes += ledger_cell_bytes(cell);
    }
    cell_release(l, sample, field, &old);
}

/* --- tasks ----------------------------------------------------------------------------- */

ledger_task *ledger_task_find(const ledger_partition *partition, const char *name)
{
    name = ledger_name(name);
    for (uint32_t t = 0; t < partition->n_tasks; t++) {
        if (partition->tasks[t].name == name) {
            return &partition->tasks[t];
        }
    }
    return NULL;
}

ledger_task *ledger_task_get(ledger_partition *partition, const char *name)
{
    ledger_task *task = ledger_task_find(partition, name);

    if (task == NULL) {
        LEDGER_GROW(partition->tasks, partition->tasks_capacity, partition->n_tasks + 1);
        task = &partition->tasks[partition->n_tasks++];
        *task = (ledger_task){.name = ledger_name(name)};
    }
    return task;
}

bool ledger_consumed(const ledger_task *task, uint32_t place)
{
    return task != NULL && place / 64 < task->words && (task->consumed[place / 64] >> (place % 64) & 1) != 0;
}

void ledger_consume(ledger_task *task, uint32_t place, bool on)
{
    uint64_t bit = UINT64_C(1) << (place % 64);

    if (ledger_consumed(task, place) == on) {
        return;
    }
    LEDGER_GROW(task->consumed, task->words, place / 64 + 1);
    task->consumed[place / 64] ^= bit;
    task->n_consumed += on ? 1 : UINT32_MAX;
}

static void task_drop_picks(ledger_task *task)
{
    for (uint32_t i = 0; i < task->n_picks; i++) {
        sim_free(task->picks[i].samples);
    }
    task->n_picks = 0;
}

void ledger_task_reset(ledger *l, ledger_partition *partition, ledger_task *task)
{
    if (task->words > 0) {
        memset(task->consumed, 0, task->words * sizeof(*task->consumed));
    }
    task->n_consumed = 0;
    task_drop_picks(task);
    for (uint32_t i = 0; i < l->n_claims; i++) {
        ledger_claim *claim = &l->claims[i];
        claim->gone = claim->gone || (claim->partition == partition && claim->task == task->name);
    }
}

bool ledger_is_picked(const ledger_task *task, witness_sample sample)
{
    for (uint32_t i = 0; i < task->n_picks; i++) {
        for (uint32_t k = 0; k < task->picks[i].n; k++) {
            if (task->picks[i].samples[k].index == sample.index &&
                task->picks[i].samples[k].incarnation == sample.incarnation) {
                return true;
            }
        }
    }
    return false;
}

void ledger_pick_set(ledger_task *task, const char *slot, const witness_sample *samples, uint32_t n)
{
    uint32_t i = 0;

    slot = ledger_name(slot);
    while (i < task->n_picks && task->picks[i].slot != slot) {
        i++;
    }
    if (i < task->n_picks) {
        sim_free(task->picks[i].samples);
        task->picks[i] = task->picks[--task->n_picks];
    }
    if (n > 0) {
        LEDGER_GROW(task->picks, task->picks_capacity, task->n_picks + 1);
        ledger_pick *pick = &task->picks[task->n_picks++];
        *pick = (ledger_pick){.slot = slot, .n = n, .samples = sim_alloc(n * sizeof(*samples))};
        memcpy(pick->samples, samples, n * sizeof(*samples));
    }
}
