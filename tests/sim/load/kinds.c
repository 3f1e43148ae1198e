/*
 * kinds.c - the table of all workloads.
 */
#include "load/load.h"

const load_kind *const load_kinds[] = {
    &load_grpo,     &load_stream, &load_churn,   &load_views,      &load_cancel,
    &load_keyed,    &load_kv,     &load_kvstore, &load_checkpoint, &load_checkpoint_whole,
    &load_stateful,
};
const size_t load_kinds_count = sizeof(load_kinds) / sizeof(load_kinds[0]);
