/*
 * pick.c - what the sampler layer reads from a view: its samples in ascending order, and what is known about each.
 */
#include "base/buf.h"
#include "base/error.h"
#include "table/sample.h"

uint32_t tqi_table_view_list_first(tqi_table_view *view, uint32_t max, const uint32_t **indexes, tq_error *err)
{
    roaring_uint32_iterator_t it;
    uint32_t n = view->count < max ? view->count : max;

    if (!view->list_valid || view->listed < n) {
        if (tqi_grow(&view->list, &view->list_capacity, n > 0 ? n : 1, sizeof(*view->list)) != TQ_OK) {
            (void)tqi_error_nomem(err, "list of ready samples");
            *indexes = NULL;
            return 0;
        }
        roaring_init_iterator(view->avail, &it);
        view->listed = roaring_read_uint32_iterator(&it, view->list, n);
        view->list_valid = true;
    }
    *indexes = view->list;
    return n;
}

uint32_t tqi_table_view_list_for_tests(tqi_table_view *view, const uint32_t **indexes, tq_error *err)
{
    return tqi_table_view_list_first(view, UINT32_MAX, indexes, err);
}

static const tqi_table_sample *pick_sample(const tqi_table_view *view, uint32_t index)
{
    return tqi_t_member(view->key.set->partition, index, 0);
}

static const tqi_table_group *pick_group(const tqi_table_view *view, uint32_t index)
{
    const tqi_table_sample *sample = pick_sample(view, index);

    return sample != NULL && sample->extras != NULL ? sample->extras->group : NULL;
}

const char *tqi_table_view_sample_group(const tqi_table_view *view, uint32_t index)
{
    const tqi_table_group *group = pick_group(view, index);

    return group != NULL ? group->name : NULL;
}

uint32_t tqi_table_view_sample_group_size(const tqi_table_view *view, uint32_t index)
{
    const tqi_table_group *group = pick_group(view, index);

    return group != NULL ? group->samples : 0;
}

uint64_t tqi_table_view_sample_ordinal(const tqi_table_view *view, uint32_t index)
{
    const tqi_table_sample *sample = pick_sample(view, index);

    return sample != NULL ? sample->ordinal - view->key.set->partition->table->first_ordinal : 0;
}

tq_slice tqi_table_view_sample_tag(const tqi_table_view *view, uint32_t index, const char *name)
{
    const tqi_table_sample *sample = pick_sample(view, index);
    const tqi_table_tag *tag = sample != NULL && sample->extras != NULL ? sample->extras->tags : NULL;

    while (tag != NULL && strcmp(tag->name->name, name) != 0) {
        tag = tag->next;
    }
    return tag != NULL ? (tq_slice){tag->value, tag->size} : (tq_slice){NULL, 0};
}

bool tqi_table_view_sample_tag_at(const tqi_table_view *view, uint32_t index, uint32_t tag, const char **name,
                                  tq_slice *value)
{
    const tqi_table_sample *sample = pick_sample(view, index);
    const tqi_table_tag *at = sample != NULL && sample->extras != NULL ? sample->extras->tags : NULL;

    while (at != NULL && tag > 0) {
        at = at->next;
        tag--;
    }
    if (at != NULL) {
        *name = at->name->name;
        *value = (tq_slice){at->value, at->size};
    }
    return at != NULL;
}

bool tqi_table_view_had(const tqi_table_view *view, uint32_t index)
{
    return roaring_bitmap_contains(view->key.set->ready, index) &&
           roaring_bitmap_contains(view->key.task->consumed, index);
}
