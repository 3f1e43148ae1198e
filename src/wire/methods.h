/*
 * methods.h - the requests of the wire format in one table: number, C name, message name, reply, how it is repeated.
 *
 * Dispatch, codec, help and tests come from this table.
 *   KEEP  changes state: its reply is kept until the client acknowledges it, a repeat gets the kept reply. AGAIN may
 *   be executed twice, because it only reads or is idempotent: a repeat is executed again.
 */
#ifndef TQI_WIRE_METHODS_H
#define TQI_WIRE_METHODS_H

#include "tq.pb-c.h"

#include <tq/errors.h>

/* X(number, NAME, name (as protobuf-c spells the functions), Message, reply name, ReplyMessage, KEEP or AGAIN) */
#define TQI_METHODS_CONTROLLER(X)                                                                              \
    X(16, PUBLISH, publish, Publish, publish_reply, PublishReply, KEEP)                                        \
    X(17, RESERVE, reserve, Reserve, reserve_reply, ReserveReply, KEEP)                                        \
    X(18, CLAIM, claim, Claim, claim_reply, ClaimReply, KEEP)                                                  \
    X(19, RELEASE, release, Release, empty, Empty, KEEP)                                                       \
    X(20, RESOLVE, resolve, Resolve, resolve_reply, ResolveReply, AGAIN)                                       \
    X(21, CLEAR, clear, Clear, clear_reply, ClearReply, KEEP)                                                  \
    X(22, RESET_CONSUMPTION, reset_consumption, ResetConsumption, empty, Empty, KEEP)                          \
    X(23, CONSUMPTION, consumption_query, ConsumptionQuery, consumption_reply, ConsumptionReply, AGAIN)        \
    X(24, PRODUCTION, production_query, ProductionQuery, production_reply, ProductionReply, AGAIN)             \
    X(25, LIST_PARTITIONS, list_partitions, ListPartitions, list_partitions_reply, ListPartitionsReply, AGAIN) \
    X(26, LIST_KEYS, list_keys, ListKeys, list_keys_reply, ListKeysReply, AGAIN)                               \
    X(27, RETRIEVE_KEYS, retrieve_keys, RetrieveKeys, retrieve_keys_reply, RetrieveKeysReply, AGAIN)           \
    X(28, GRANT_BLOCKS, grant_blocks, GrantBlocks, grant_blocks_reply, GrantBlocksReply, KEEP)                 \
    X(29, ABANDON_BLOCKS, abandon_blocks, AbandonBlocks, empty, Empty, KEEP)                                   \
    X(30, REGISTER_OWNER, register_owner, RegisterOwner, register_owner_reply, RegisterOwnerReply, KEEP)       \
    X(31, REPORT_OWNER, report_owner, ReportOwner, report_owner_reply, ReportOwnerReply, AGAIN)                \
    X(32, COLLECT_DEAD, collect_dead, CollectDead, collect_dead_reply, CollectDeadReply, AGAIN)                \
    X(33, LIST_OWNERS, list_owners, ListOwners, list_owners_reply, ListOwnersReply, AGAIN)                     \
    X(34, REPORT_LOST, report_lost, ReportLost, empty, Empty, KEEP)                                            \
    X(35, COMPACT_MOVE, compact_move, CompactMove, empty, Empty, KEEP)                                         \
    X(36, SYSTEM_STATUS, system_status, SystemStatus, system_status_reply, SystemStatusReply, AGAIN)           \
    X(37, EVENTS, events, Events, events_reply, EventsReply, AGAIN)                                            \
    X(38, SYSTEM_CONFIG, system_config, SystemConfig, system_config_reply, SystemConfigReply, AGAIN)           \
    X(39, SNAPSHOT, snapshot, Snapshot, snapshot_reply, SnapshotReply, KEEP)                                   \
    X(40, SNAPSHOT_READ, snapshot_read, SnapshotRead, snapshot_read_reply, SnapshotReadReply, AGAIN)           \
    X(41, SNAPSHOT_CLOSE, snapshot_close, SnapshotClose, empty, Empty, KEEP)                                   \
    X(42, RESTORE_PART, restore_part, RestorePart, restore_part_reply, RestorePartReply, KEEP)                 \
    X(43, RESTORE_COMMIT, restore_commit, RestoreCommit, restore_commit_reply, RestoreCommitReply, KEEP)       \
    X(44, RESTORE_DROP, restore_drop, RestoreDrop, empty, Empty, KEEP)                                         \
    X(45, BEGIN_CLEAR, begin_clear, BeginClear, begin_clear_reply, BeginClearReply, KEEP)                      \
    X(46, END_CLEAR, end_clear, EndClear, empty, Empty, KEEP)                                                  \
    X(47, COMPACT_LIVE, compact_live, CompactLive, compact_live_reply, CompactLiveReply, AGAIN)                \
    X(48, UNKNOWN_BLOCKS, unknown_blocks, UnknownBlocks, unknown_blocks_reply, UnknownBlocksReply, AGAIN)

#define TQI_METHODS_UNIT(X)                                                                    \
    X(64, UNIT_MAP, unit_map, UnitMap, unit_map_reply, UnitMapReply, AGAIN)                    \
    X(65, UNIT_RESERVE, unit_reserve, UnitReserve, unit_reserve_reply, UnitReserveReply, KEEP) \
    X(66, UNIT_WRITE, unit_write, UnitWrite, empty, Empty, AGAIN)                              \
    X(67, UNIT_READ, unit_read, UnitRead, unit_read_reply, UnitReadReply, AGAIN)               \
    X(68, UNIT_STAT, unit_stat, UnitStat, unit_stat_reply, UnitStatReply, AGAIN)               \
    X(69, UNIT_PIN, unit_pin, UnitPin, unit_pin_reply, UnitPinReply, KEEP)                     \
    X(70, UNIT_UNPIN, unit_unpin, UnitUnpin, empty, Empty, KEEP)                               \
    X(71, UNIT_FINISH, unit_finish, UnitFinish, empty, Empty, KEEP)

/* Kinds of frames. */
enum tqi_kind {
    TQI_CHALLENGE = 1,
    TQI_HELLO = 2,
    TQI_WELCOME = 3,
    TQI_FAILED = 4, /* reply: body is an Error */
    TQI_ACK = 5,    /* body is an Ack, or there is none: `ack` says all */
    TQI_CANCEL = 6,
    TQI_BYE = 7,     /* body is a Bye, or there is none: the client ends its session */
    TQI_PARK = 8,    /* no body, from the server: please close this connection while idle, to make room */
    TQI_GOODBYE = 9, /* body is a Goodbye, the server's last frame: it ends */
#define TQI_KIND(number, NAME, name, Message, reply, Reply, mode) TQI_##NAME = (number),
    TQI_METHODS_CONTROLLER(TQI_KIND) TQI_METHODS_UNIT(TQI_KIND)
#undef TQI_KIND
};

/* One row of the table, for code that works on any request. */
typedef struct tqi_method {
    uint16_t kind;
    const char *name; /* "PUBLISH" */
    const ProtobufCMessageDescriptor *request;
    const ProtobufCMessageDescriptor *reply;
    int keep;
} tqi_method;

/* Most blocks in one REPORT_LOST. */
#define TQI_REPORT_LOST_MAX 4096u

/* The row of a request kind, or NULL. */
const tqi_method *tqi_method_find(uint16_t kind);

/*
 * Decodes a body. NULL and TQ_EPROTO if it is not a well-formed message of that type, TQ_EINVAL if it would take more
 * memory than the base plus a multiple of its size; free with protobuf_c_message_free_unpacked(message, NULL).
 *
 * A number takes at most 8 bytes in memory for its one on the wire. Short strings take more, 72 to 104 bytes with the
 * scanner's table: the base has room for a million and more of them.
 */
#define TQI_DECODE_FACTOR 8u
#define TQI_DECODE_BASE   (UINT64_C(128) << 20)
ProtobufCMessage *tqi_message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body, size_t size,
                                     tq_error *err);
/* The same for a request, or for something that came with one: it may not take more than limits.request_bytes either,
 * whatever its size. *memory is what it takes. */
ProtobufCMessage *tqi_request_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body, size_t size,
                                     size_t *memory, tq_error *err);
/* The same for messages from a server, which may describe many samples with short keys. */
#define TQI_DECODE_FACTOR_REPLY 64u
ProtobufCMessage *tqi_reply_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body, size_t size,
                                   tq_error *err);

#endif
