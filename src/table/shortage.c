/*
 * shortage.c - what a view lacks: the numbers behind the text that tells people why a claim waits. All of this is
 * requested only by people and at timeouts, so its cost may grow with the size of the partition.
 */
#include "base/error.h"
#include "base/hash.h"
#include "table/sample.h"

/* Most samples examined when looking for groups. */
#define SHORTAGE_LOOK_MAX 1000000u

void tqi_table_view_shortage(const tqi_table_view *view, tqi_table_shortage *out)
{
    const tqi_table_partition *partition = view->key.set->partition;

    *out = (tqi_table_shortage){
        .exists = partition->exists,
        .samples = partition->samples,
        .consumed = view->key.task->n_consumed,
    };
}

bool tqi_table_view_field(const tqi_table_view *view, size_t i, const char **name, uint32_t *produced, uint32_t *lost)
{
    const tqi_table_set *set = view->key.set;

    if (i >= set->n_fields) {
        return false;
    }
    *name = set->fields[i]->name;
    *produced = set->fields[i]->produced;
    *lost = set->fields[i]->lost;
    return true;
}

/* --- groups --------------------------------------------------------------- */

/* A group is identified by its record or, without one, by its position among the ordinals. */
typedef struct shortage_key {
    uint64_t number; /* 0: none */
    uint64_t place;
} shortage_key;

typedef struct shortage_group {
    UT_hash_handle hh;
    shortage_key key;
    const tqi_table_group *group; /* NULL: none */
    uint32_t ready;
    uint32_t left;
} shortage_group;

static const tqi_table_group *shortage_key_of(const tqi_table *table, const tqi_table_sample *sample, uint32_t n,
                                              shortage_key *key)
{
    const tqi_table_group *group = sample->extras != NULL ? sample->extras->group : NULL;

    /* It is hashed by its bytes. */
    memset(key, 0, sizeof(*key));
    key->number = group != NULL ? group->number : 0;
    key->place = group != NULL ? 0 : (sample->ordinal - table->first_ordinal) / n;
    return group;
}

static shortage_group *shortage_find(shortage_group *groups, const shortage_key *key)
{
    shortage_group *found;

    HASH_FIND(hh, groups, key, sizeof(*key), found);
    return found;
}

/* Counts the ready samples of each group; makes the groups. */
static int shortage_count_ready(const tqi_table_view *view, uint32_t n, shortage_group **groups)
{
    const tqi_table *table = view->key.set->partition->table;
    roaring_uint32_iterator_t it;
    uint32_t looked = 0;

    for (roaring_init_iterator(view->avail, &it); it.has_value && looked < SHORTAGE_LOOK_MAX;
         roaring_advance_uint32_iterator(&it), looked++) {
        shortage_key key;
        const tqi_table_group *named = shortage_key_of(table, tqi_t_sample(table, it.current_value), n, &key);
        shortage_group *group = shortage_find(*groups, &key);
        if (group == NULL) {
            group = calloc(1, sizeof(*group));
            if (group == NULL) {
                return TQ_ENOMEM;
            }
            group->key = key;
            group->group = named;
            if (!TQI_HASH_ADD(*groups, key, group)) {
                free(group);
                return TQ_ENOMEM;
            }
        }
        group->ready++;
    }
    return TQ_OK;
}

/* Counts the existing samples of these groups that the task has not consumed. */
static void shortage_count_left(const tqi_table_view *view, uint32_t n, shortage_group *groups)
{
    const tqi_table_partition *partition = view->key.set->partition;
    roaring_uint32_iterator_t it;
    uint32_t looked = 0;

    for (roaring_init_iterator(partition->members, &it); it.has_value && looked < SHORTAGE_LOOK_MAX;
         roaring_advance_uint32_iterator(&it), looked++) {
        const tqi_table_sample *sample = tqi_t_sample(partition->table, it.current_value);
        shortage_key key;
        shortage_key_of(partition->table, sample, n, &key);
        shortage_group *group = shortage_find(groups, &key);
        if (group != NULL && !roaring_bitmap_contains(view->key.task->consumed, it.current_value)) {
            group->left++;
        }
    }
}

/* Whether a group with too few samples left will not get more by itself. */
static bool shortage_broken(const tqi_table_partition *partition, const shortage_group *group, uint32_t n)
{
    uint64_t made = partition->next_ordinal - partition->table->first_ordinal;

    if (group->left >= n) {
        return false;
    }
    if (group->group != NULL) {
        return group->group->cleared > 0 || group->group->samples >= n;
    }
    return made / n > group->key.place; /* all of its ordinals were given out */
}

int tqi_table_view_short_groups(const tqi_table_view *view, uint32_t n, tqi_table_short_groups *out, tq_error *err)
{
    const tqi_table_partition *partition = view->key.set->partition;
    shortage_group *groups = NULL, *group, *next;
    int rc = shortage_count_ready(view, n, &groups);

    *out = (tqi_table_short_groups){0};
    if (rc == TQ_OK) {
        shortage_count_left(view, n, groups);
    } else {
        (void)tqi_error_nomem(err, "groups of samples");
    }
    HASH_ITER (hh, groups, group, next) {
        if (rc == TQ_OK && group->ready < n) {
            bool broken = shortage_broken(partition, group, n);
            if (out->groups == 0 || (broken && !out->example.broken)) {
                out->example = (tqi_table_short_group){
                    .name = group->group != NULL ? group->group->name : NULL,
                    .ordinal = group->key.place * n,
                    .ready = group->ready,
                    .left = group->left,
                    .broken = broken,
                };
            }
            out->groups++;
            out->samples += group->ready;
            out->broken += broken;
        }
        HASH_DEL(groups, group);
        free(group);
    }
    return rc;
}
