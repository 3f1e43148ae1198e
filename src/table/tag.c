/*
 * tag.c - tags: small encoded values by name on a sample, merged by name. The values are never decoded.
 */
#include "base/error.h"
#include "base/hash.h"
#include "table/result.h"
#include "table/sample.h"

tqi_table_tag *tqi_t_tag_alloc(tqi_table_partition *partition, const char *name, const uint8_t *value, uint32_t size)
{
    size_t length = strlen(name);
    tqi_table_tag_name *known;
    tqi_table_tag *tag = calloc(1, sizeof(*tag) + size);

    if (tag == NULL) {
        return NULL;
    }
    HASH_FIND(hh, partition->tag_names, name, length, known);
    if (known == NULL) {
        known = calloc(1, sizeof(*known) + length + 1);
        if (known == NULL) {
            free(tag);
            return NULL;
        }
        memcpy(known->name, name, length);
        if (!TQI_HASH_ADD_KEYPTR(partition->tag_names, known->name, length, known)) {
            free(known);
            free(tag);
            return NULL;
        }
    }
    known->refs++;
    tag->name = known;
    tag->size = size;
    memcpy(tag->value, value, size);
    return tag;
}

void tqi_t_tag_free(tqi_table_partition *partition, tqi_table_tag *tag)
{
    if (--tag->name->refs == 0) {
        HASH_DEL(partition->tag_names, tag->name);
        free(tag->name);
    }
    free(tag);
}

tqi_table_tag *tqi_t_tag_set(tqi_table_extras *extras, tqi_table_tag *tag, size_t *before)
{
    tqi_table_tag **place = &extras->tags;
    tqi_table_tag *old;

    *before = 0;
    while (*place != NULL && (*place)->name != tag->name) {
        place = &(*place)->next;
        (*before)++;
    }
    old = *place;
    tag->next = old != NULL ? old->next : NULL;
    *place = tag;
    return old;
}

void tqi_t_tag_unset(tqi_table_extras *extras, const tqi_table_tag *tag, tqi_table_tag *old)
{
    tqi_table_tag **place = &extras->tags;

    while (*place != tag) {
        place = &(*place)->next;
    }
    if (old != NULL) {
        old->next = tag->next;
        *place = old;
    } else {
        *place = tag->next;
    }
}

/* A column that is being filled. */
typedef struct tag_column {
    uint8_t *values;
    size_t size;
    uint32_t *sizes;
} tag_column;

/* Gives each name among the rows' tags a column and sums up its bytes; returns how many. */
static size_t tag_columns(tqi_table *table, const tqi_table_row *rows, size_t n, tqi_table_batch_tag *tags)
{
    uint64_t stamp = ++table->stamp;
    size_t count = 0;

    for (size_t i = 0; i < n; i++) {
        const tqi_table_tag *tag = rows[i].extras != NULL ? rows[i].extras->tags : NULL;
        for (; tag != NULL; tag = tag->next) {
            if (tag->name->stamp != stamp) {
                tag->name->stamp = stamp;
                tag->name->column = count++;
            }
            if (tags != NULL) {
                tags[tag->name->column].name = tag->name->name;
                tags[tag->name->column].values_size += tag->size;
            }
        }
    }
    return count;
}

static void tag_fill(const tqi_table_row *rows, size_t n, tag_column *columns)
{
    for (size_t i = 0; i < n; i++) {
        const tqi_table_tag *tag = rows[i].extras != NULL ? rows[i].extras->tags : NULL;
        for (; tag != NULL; tag = tag->next) {
            tag_column *column = &columns[tag->name->column];
            memcpy(column->values + column->size, tag->value, tag->size);
            column->size += tag->size;
            column->sizes[i] = tag->size;
        }
    }
}

int tqi_t_tags_describe(tqi_table *table, const tqi_table_row *rows, size_t n, tqi_table_result *result, tq_error *err)
{
    size_t count = tag_columns(table, rows, n, NULL);
    tqi_table_batch_tag *tags;
    tag_column *columns;

    if (count == 0) {
        return TQ_OK;
    }
    tags = tqi_region_zero(&result->region, count, sizeof(*tags));
    columns = tqi_region_zero(&result->region, count, sizeof(*columns));
    if (tags == NULL || columns == NULL) {
        return tqi_error_nomem(err, "tags");
    }
    (void)tag_columns(table, rows, n, tags);
    for (size_t i = 0; i < count; i++) {
        columns[i].values = tqi_region_zero(&result->region, tags[i].values_size, 1);
        columns[i].sizes = tqi_region_zero(&result->region, n, sizeof(*columns[i].sizes));
        tags[i].name = tqi_region_string(&result->region, tags[i].name);
        if (columns[i].values == NULL || columns[i].sizes == NULL || tags[i].name == NULL) {
            return tqi_error_nomem(err, "tags");
        }
        tags[i].values = columns[i].values;
        tags[i].sizes = columns[i].sizes;
    }
    tag_fill(rows, n, columns);
    result->batch.tags = tags;
    result->batch.n_tags = count;
    return TQ_OK;
}
