/*
 * history_state.h - the history of the seed, for history.c and history_json.c.
 */
#ifndef TQ_SIM_HISTORY_STATE_H
#define TQ_SIM_HISTORY_STATE_H

#include "oracle/history.h"

typedef struct history_state {
    uint64_t seed;
    uint64_t grace_ms; /* for which a session outlives its connections, 0: unknown */
    uint64_t sequence; /* of the last line */
    uint64_t calm_time;
    bool loads;
    bool may[SIM_FAULTS];
    history_op **ops; /* number - 1 */
    uint64_t n_ops, ops_size;
    history_event *events;
    size_t n_events, events_size;
    struct history_chunk *chunks;
    const char **texts; /* open addressing; the size is a power of two */
    size_t n_texts, texts_size;
} history_state;

extern history_state history_now;

#endif
