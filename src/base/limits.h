/*
 * limits.h - how much a client can make a server keep. One table for the whole process: the daemon sets it from the
 * section `limits` of its configuration (config/keys.toml has the names and defaults) before it starts a server;
 * otherwise the defaults apply. Each default allows 8,192 clients and 10,000 partitions. Anything beyond a limit is
 * refused with an error that names it, has to wait, or is dropped if its help says so; every such case is counted.
 */
#ifndef TQI_BASE_LIMITS_H
#define TQI_BASE_LIMITS_H

#include <stdint.h>

/* X(kind, name, default); kinds: COUNT, BYTES, MS (milliseconds here, a time in the configuration) */
#define TQI_LIMITS(X)                                 \
    X(COUNT, greeting, 0)                             \
    X(COUNT, sessions, 65536)                         \
    X(BYTES, queued_replies, UINT64_C(16) << 20)      \
    X(BYTES, all_queued_replies, UINT64_C(256) << 20) \
    X(BYTES, request_bytes, UINT64_C(512) << 20)      \
    X(BYTES, incoming_bytes, UINT64_C(1) << 30)       \
    X(COUNT, kept_replies, 65536)                     \
    X(BYTES, kept_reply_bytes, UINT64_C(256) << 20)   \
    X(COUNT, waiting, 65536)                          \
    X(BYTES, waiting_bytes, UINT64_C(256) << 20)      \
    X(BYTES, all_waiting_bytes, UINT64_C(1) << 30)    \
    X(COUNT, partitions, 100000)                      \
    X(COUNT, fields, 65536)                           \
    X(COUNT, tasks, 16384)                            \
    X(COUNT, grants, 4096)                            \
    X(COUNT, owners, 16384)                           \
    X(COUNT, late_ranges, 1048576)                    \
    X(BYTES, event_bytes, UINT64_C(64) << 20)         \
    X(COUNT, snapshots, 64)                           \
    X(MS, snapshot_idle, 30000)                       \
    X(COUNT, restores, 64)                            \
    X(BYTES, restore_bytes, UINT64_C(4) << 30)        \
    X(MS, restore_idle, 600000)                       \
    X(COUNT, pins, 65536)                             \
    X(COUNT, pinned_blocks, 1048576)

typedef enum tqi_limit {
#define TQI_LIMIT_ENUM(kind, name, value) TQI_LIMIT_##name,
    TQI_LIMITS(TQI_LIMIT_ENUM)
#undef TQI_LIMIT_ENUM
    TQI_LIMIT_NUMBER
} tqi_limit;

typedef struct tqi_limits_table {
#define TQI_LIMIT_MEMBER(kind, name, value) uint64_t name;
    TQI_LIMITS(TQI_LIMIT_MEMBER)
#undef TQI_LIMIT_MEMBER
} tqi_limits_table;

/* Written before the first server of the process starts, and by tests. */
extern tqi_limits_table tqi_limits;

/* A limit was reached. Any thread. */
void tqi_limit_reached(tqi_limit limit);
/* How often that was. */
uint64_t tqi_limit_times(tqi_limit limit);
/* As the configuration has it. */
const char *tqi_limit_name(tqi_limit limit);

#endif
