/*
 * missing.c - error messages about samples and partitions that do not exist (any more).
 */
#include "table/missing.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "table/sample.h"

/* Samples and partitions that a message names; the others are counted. */
#define MISSING_NAMED 5u

/* "0, 1, 2, 3, 4 and 7 more" */
static void missing_samples(const tqi_table_partition *partition, const uint32_t *indexes, const uint32_t *incarnations,
                            size_t n, tqi_text *text, size_t *found)
{
    *found = 0;
    for (size_t i = 0; i < n; i++) {
        if (tqi_t_member(partition, indexes[i], incarnations != NULL ? incarnations[i] : 0) == NULL) {
            if (*found < MISSING_NAMED) {
                tqi_text_add(text, "%s%u", *found > 0 ? ", " : "", indexes[i]);
            }
            ++*found;
        }
    }
    if (*found > MISSING_NAMED) {
        tqi_text_add(text, " and %zu more", *found - MISSING_NAMED);
    }
}

int tqi_t_cleared(const tqi_table_partition *partition, const uint32_t *indexes, const uint32_t *incarnations, size_t n,
                  tq_error *err)
{
    char named[96];
    char clock[32];
    tqi_text text = tqi_text_begin(named, sizeof(named));
    /* A partition that does not exist may have been removed by the load. */
    int64_t loaded = partition->exists ? partition->loaded_us : partition->table->loaded_us;
    size_t found = 0;

    missing_samples(partition, indexes, incarnations, n, &text, &found);
    if (loaded != 0) {
        return tqi_error_set(err, TQ_ECLEARED,
                             "sample%s %s of partition '%.128s' (%zu of %zu asked for) ended when a checkpoint was "
                             "loaded at %s, or later: metadata of before the load is of no use any more, claim or "
                             "resolve the samples again",
                             tqi_text_s(found), named, partition->name, found, n,
                             tqi_text_time(loaded, clock, sizeof(clock)));
    }
    for (size_t i = 0; i < n && incarnations == NULL; i++) {
        if (indexes[i] - partition->table->first_index >= partition->table->places) {
            return tqi_error_set(err, TQ_ECLEARED,
                                 "sample %u was never put: `tq ls PARTITION` lists those of "
                                 "partition '%.128s'",
                                 indexes[i], partition->name);
        }
    }
    return tqi_error_set(err, TQ_ECLEARED,
                         "sample%s %s %s cleared from partition '%.128s' (%zu of %zu asked for): "
                         "claim or resolve samples that are there",
                         tqi_text_s(found), named, found == 1 ? "was" : "were", partition->name, found, n);
}

int tqi_t_unknown_key(const tqi_table_partition *partition, const char *key, tq_error *err)
{
    if (HASH_COUNT(partition->keys) == 0) {
        return tqi_error_set(err, TQ_EKEY,
                             "no key '%.200s' in partition '%.128s', which has no keys: `tq get` and `tq clear` take "
                             "its samples as @INDEX",
                             key != NULL ? key : "", partition->name);
    }
    return tqi_error_set(err, TQ_EKEY,
                         "no key '%.200s' in partition '%.128s', which has %u key%s: `tq ls "
                         "PARTITION` lists them",
                         key != NULL ? key : "", partition->name, HASH_COUNT(partition->keys),
                         tqi_text_s(HASH_COUNT(partition->keys)));
}

int tqi_t_unknown_field(const tqi_table_partition *partition, const char *name, tq_error *err)
{
    char known[192];
    tqi_text text = tqi_text_begin(known, sizeof(known));
    size_t n = 0;

    for (const tqi_table_field *at = partition->known; at != NULL; at = at->next, n++) {
        if (n < MISSING_NAMED) {
            tqi_text_add(&text, "%s'%.32s'", n > 0 ? ", " : "", at->name);
        }
    }
    if (n > MISSING_NAMED) {
        tqi_text_add(&text, " and %zu more", n - MISSING_NAMED);
    }
    return tqi_error_set(err, TQ_EFIELD,
                         "no field '%.200s' in partition '%.128s': its name is misspelt, or nothing "
                         "was put into it; there %s %s",
                         name != NULL ? name : "", partition->name, n == 1 ? "is" : "are", n > 0 ? known : "none");
}

int tqi_table_unknown_partition(tqi_table *table, const char *name, tq_error *err)
{
    char known[192];
    char load[128] = "";
    char clock[32];
    tqi_text text = tqi_text_begin(known, sizeof(known));
    size_t n = 0;

    for (const tqi_table_partition *at = table->existing; at != NULL; at = at->next, n++) {
        if (n < MISSING_NAMED) {
            tqi_text_add(&text, "%s'%.32s'", n > 0 ? ", " : "", at->name);
        }
    }
    if (n > MISSING_NAMED) {
        tqi_text_add(&text, " and %zu more", n - MISSING_NAMED);
    }
    if (table->loaded_us != 0) {
        snprintf(load, sizeof(load), ", or it is not in the checkpoint that was loaded at %s",
                 tqi_text_time(table->loaded_us, clock, sizeof(clock)));
    }
    return tqi_error_set(err, TQ_EPARTITION,
                         "unknown partition '%.128s': nothing was put into it, or it was "
                         "cleared%s; there %s %s",
                         name, load, n == 1 ? "is" : "are", n > 0 ? known : "none");
}
