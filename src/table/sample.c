/*
 * sample.c - samples: their global indexes, incarnations, keys and groups.
 *
 * Samples lie in pages that never move, at position index - first index of the table. Free ones form a queue through
 * their `row`, so that freeing cannot fail and the index freed first is reused first.
 */
#include "table/sample.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "table/claim.h"
#include "table/field.h"

tqi_table_sample *tqi_t_member(const tqi_table_partition *partition, uint32_t index, uint32_t incarnation)
{
    tqi_table_sample *sample = tqi_t_sample(partition->table, index);

    if (sample == NULL || sample->partition != partition || (incarnation != 0 && incarnation != sample->incarnation)) {
        return NULL;
    }
    return sample;
}

int tqi_t_samples_reserve(tqi_table *table, uint64_t end, tq_error *err)
{
    size_t need = (size_t)((end + TQI_T_PAGE - 1) >> TQI_T_PAGE_BITS);

    if (tqi_grow(&table->pages, &table->pages_capacity, need, sizeof(tqi_table_sample *)) != TQ_OK) {
        return tqi_error_nomem(err, "samples");
    }
    while (table->n_pages < need) {
        tqi_table_sample *page = calloc(TQI_T_PAGE, sizeof(*page));
        if (page == NULL) {
            return tqi_error_nomem(err, "samples");
        }
        for (size_t i = 0; i < TQI_T_PAGE; i++) {
            page[i].incarnation = table->first_incarnation;
        }
        table->pages[table->n_pages++] = page;
    }
    return TQ_OK;
}

int tqi_t_samples_plan(tqi_table *table, uint32_t n, uint32_t *indexes, tq_error *err)
{
    uint32_t place = table->free_head;
    uint32_t reused = n < table->n_free ? n : table->n_free;
    uint64_t end = table->places;
    uint32_t i;

    for (i = 0; i < reused; i++) {
        indexes[i] = table->first_index + place;
        place = tqi_t_place(table, place)->row;
    }
    for (; i < n; i++) {
        if (table->first_index + (uint32_t)end == TQ_NO_INDEX) {
            end++;
        }
        if (end >= UINT32_MAX) {
            return tqi_error_set(err, TQ_EFULL, "all %u sample indexes are in use", UINT32_MAX);
        }
        indexes[i] = table->first_index + (uint32_t)end++;
    }
    return tqi_t_samples_reserve(table, end, err);
}

tqi_table_sample *tqi_t_sample_take(tqi_table *table, uint32_t *index)
{
    tqi_table_sample *sample;
    uint32_t place;

    if (table->n_free > 0) {
        place = table->free_head;
        sample = tqi_t_place(table, place);
        table->free_head = sample->row;
        table->n_free--;
    } else {
        if (table->first_index + table->places == TQ_NO_INDEX) {
            table->places++;
        }
        place = table->places++;
        sample = tqi_t_place(table, place);
    }
    table->n_samples++;
    *index = table->first_index + place;
    return sample;
}

void tqi_t_place_free(tqi_table *table, uint32_t place)
{
    if (table->n_free == 0) {
        table->free_head = place;
    } else {
        tqi_t_place(table, table->free_tail)->row = place;
    }
    table->free_tail = place;
    table->n_free++;
}

static void sample_free(tqi_table *table, uint32_t index)
{
    uint32_t place = index - table->first_index;
    tqi_table_sample *sample = tqi_t_place(table, place);
    tqi_table_clearing *clearing = table->clearing;

    sample->partition = NULL;
    sample->extras = NULL;
    sample->ordinal = 0;
    sample->row = 0;
    sample->incarnation++;
    if (sample->incarnation == 0) {
        sample->incarnation = 1;
    }
    table->n_samples--;
    if (clearing != NULL) {
        sample->ordinal = 1;
        clearing->indexes[clearing->n++] = index;
    } else {
        tqi_t_place_free(table, place);
    }
}

void tqi_t_sample_clear(tqi_table_partition *partition, uint32_t index)
{
    tqi_table_sample *sample = tqi_t_sample(partition->table, index);
    tqi_table_field *field, *next;

    tqi_t_ready_leave(partition, index, sample->row);
    for (field = partition->known; field != NULL; field = next) {
        next = field->next;
        tqi_t_cell_unlink(field, index, sample->row, TQI_BLOCK_NONE);
        tqi_t_field_gc(field);
    }
    if (sample->extras != NULL) {
        if (sample->extras->group != NULL) {
            sample->extras->group->cleared++;
        }
        tqi_t_extras_free(partition, sample->extras);
    }
    roaring_bitmap_remove(partition->members, index);
    partition->samples--;
    tqi_t_row_free(partition, sample->row);
    sample_free(partition->table, index);
}

void tqi_t_samples_fini(tqi_table *table)
{
    for (size_t i = 0; i < table->n_pages; i++) {
        free(table->pages[i]);
    }
    free(table->pages);
}

/* --- extras --------------------------------------------------------------- */

tqi_table_extras *tqi_t_extras_alloc(const char *key)
{
    size_t size = key != NULL ? strlen(key) : 0;
    tqi_table_extras *extras = calloc(1, sizeof(*extras) + size + 1);

    if (extras != NULL && size > 0) {
        memcpy(extras->key, key, size);
        extras->key_size = size;
    }
    return extras;
}

int tqi_t_key_add(tqi_table_partition *partition, tqi_table_extras *extras)
{
    return TQI_HASH_ADD_KEYPTR(partition->keys, extras->key, extras->key_size, extras) ? TQ_OK : TQ_ENOMEM;
}

tqi_table_extras *tqi_t_key_find(const tqi_table_partition *partition, const char *key)
{
    tqi_table_extras *extras;

    HASH_FIND(hh, partition->keys, key, strlen(key), extras);
    return extras;
}

void tqi_t_extras_free(tqi_table_partition *partition, tqi_table_extras *extras)
{
    tqi_table_tag *tag;

    if (TQI_HASH_HAS(extras)) {
        HASH_DEL(partition->keys, extras);
    }
    if (extras->group != NULL && --extras->group->samples == 0) {
        HASH_DEL(partition->groups, extras->group);
        free(extras->group);
    }
    while ((tag = extras->tags) != NULL) {
        extras->tags = tag->next;
        tqi_t_tag_free(partition, tag);
    }
    free(extras);
}

int tqi_t_group_join(tqi_table_partition *partition, tqi_table_extras *extras, const char *name)
{
    size_t size = strlen(name);
    tqi_table_group *group;

    HASH_FIND(hh, partition->groups, name, size, group);
    if (group == NULL) {
        group = calloc(1, sizeof(*group) + size + 1);
        if (group == NULL) {
            return TQ_ENOMEM;
        }
        group->number = ++partition->table->last_number;
        memcpy(group->name, name, size);
        if (!TQI_HASH_ADD_KEYPTR(partition->groups, group->name, size, group)) {
            free(group);
            return TQ_ENOMEM;
        }
    }
    group->samples++;
    extras->group = group;
    return TQ_OK;
}

const char *tqi_table_partition_key(const tqi_table_partition *partition, uint32_t index)
{
    const tqi_table_sample *sample = tqi_t_member(partition, index, 0);

    return sample != NULL && sample->extras != NULL && sample->extras->key_size > 0 ? sample->extras->key : NULL;
}
