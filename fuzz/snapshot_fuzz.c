/*
 * snapshot_fuzz.c - bytes that claim to be the parts of a snapshot, restored into a controller with samples of its
 * own.
 *
 * An input is what the state file of a checkpoint holds: parts with their length (32 bits, little-endian) in front.
 * The first byte says how they are restored. What is accepted must survive being taken again: a second snapshot of the
 * restored table, put back into it, changes nothing.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "controller/snapshot_parts.h"
#include "table/snapshot.h"

#define FUZZ_SESSION 1u
#define FUZZ_BLOCKS  16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_must(bool fine)
{
    if (!fine) {
        abort();
    }
}

/* A table with one sample, and granted blocks that an input can name: ids from 1, owner "unit" of incarnation 7. */
static tqi_table *fuzz_table(void)
{
    tqi_table_options options = {.epoch = 1};
    tqi_table *table = NULL;
    tqi_table_owner *owner = NULL;
    tqi_table_result result = {0};
    uint64_t first = 0;

    fuzz_must(tqi_table_alloc(&options, &table, NULL) == TQ_OK);
    fuzz_must(tqi_table_owner_register(table, "unit", 7, &owner, NULL) == TQ_OK);
    fuzz_must(tqi_table_grant(table, FUZZ_SESSION, owner, FUZZ_BLOCKS, &first, NULL) == TQ_OK);
    fuzz_must(tqi_table_reserve_for_tests(table, "p", 1, NULL, NULL, &result, NULL) == TQ_OK);
    tqi_table_result_fini(&result);
    return table;
}

/* Takes the table and puts it back. */
static void fuzz_again(tqi_table *table)
{
    tqi_ctl_parts parts = {0};
    tqi_ctl_reading reading = {0};
    tqi_table_restored done;
    tqi_table_counts before, after;
    tq_error err = {0};

    tqi_table_count(table, &before);
    fuzz_must(tqi_ctl_parts_take(table, "", &parts, &err) == TQ_OK);
    fuzz_must(tqi_ctl_parts_read(&parts, &reading, &err) == TQ_OK);
    tqi_table_restore_state ask = {
        .partitions = reading.partitions,
        .n = reading.n_partitions,
        .relink = true,
        .session = FUZZ_SESSION,
    };
    fuzz_must(tqi_table_restore(table, &ask, &done, &err) == TQ_OK);
    tqi_table_count(table, &after);
    fuzz_must(memcmp(&before, &after, sizeof(before)) == 0);
    tqi_ctl_reading_fini(&reading);
    tqi_ctl_parts_fini(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tqi_ctl_parts parts = {0};
    tqi_ctl_reading reading = {0};
    tqi_table_restored done;
    tq_error err = {0};
    uint8_t how = size ? data[0] : 0;
    tqi_table *table = fuzz_table();

    for (size_t at = 1; size >= 5 && at <= size - 4;) {
        size_t length = data[at] | (size_t)data[at + 1] << 8 | (size_t)data[at + 2] << 16;
        length = length < size - at - 4 ? length : size - at - 4;
        fuzz_must(tqi_ctl_parts_add(&parts, data + at + 4, length, &err) == TQ_OK);
        at += 4 + length;
    }
    reading.strange = how & 4;
    if (tqi_ctl_parts_read(&parts, &reading, &err) == TQ_OK) {
        tqi_table_restore_state ask = {
            .partitions = reading.partitions,
            .n = reading.n_partitions,
            .partial = how & 1,
            .relink = (how & 2) != 0,
            .session = FUZZ_SESSION,
        };
        if (tqi_table_restore(table, &ask, &done, &err) == TQ_OK) {
            fuzz_again(table);
        }
    }
    tqi_ctl_reading_fini(&reading);
    tqi_ctl_parts_fini(&parts);
    tqi_table_free(table);
    return 0;
}
