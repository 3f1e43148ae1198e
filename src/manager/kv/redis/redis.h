/*
 * redis.h - the parts of the Redis client of the KV storage manager.
 *
 *   redis.c    the table: config, put, get, remove
 *   config.c   the config and the URL in it
 *   link.c     one connection: commands out, replies in
 *   cluster.c  nodes with their idle connections; which node serves which slot of a cluster
 *   list.c     listing keys
 *   run.c      a list of commands: distributed among nodes, pipelined, redirected and retried
 *
 * Values travel without an extra copy: from the caller's slices, and from hiredis' read buffer to their destination.
 * Everything may be called from several threads: each takes its own connection.
 */
#ifndef TQI_MANAGER_KV_REDIS_REDIS_H
#define TQI_MANAGER_KV_REDIS_REDIS_H

#include <pthread.h>

#include <hiredis/hiredis.h>

#include "base/error.h"

#include <tq/kv.h>

#define TQI_REDIS_SLOTS 16384u
/* Largest value of a store unless it is configured for larger ones (proto-max-bulk-len). */
#define TQI_REDIS_VALUE_MAX (UINT64_C(512) << 20)
/* Commands in flight on one connection. */
#define TQI_REDIS_WINDOW 16u
/* How much is read of what a server reports about its memory. */
#define TQI_REDIS_INFO 4096u

typedef struct tqi_redis tqi_redis;

typedef struct tqi_redis_config {
    char host[256]; /* "": a unix socket */
    char path[256];
    int port;
    int db;
    char user[256];
    char password[256];
    bool cluster;
    double timeout; /* seconds that a connection may be silent */
} tqi_redis_config;

int tqi_redis_config_read(tqi_redis_config *out, const char *json, tq_error *err);

/* --- commands ------------------------------------------------------------- */

typedef enum tqi_redis_verb {
    TQI_REDIS_SET,
    TQI_REDIS_GET,
    TQI_REDIS_UNLINK,
    TQI_REDIS_KEEPALIVE,
    TQI_REDIS_RENEW
} tqi_redis_verb;

/* A command on one key. */
typedef struct tqi_redis_command {
    tqi_redis_verb verb;
    const char *key;
    const tq_kv_value *value; /* SET */
    tq_kv_read *read;         /* GET, of the whole or of a range */
    tq_kv_key *removed;       /* UNLINK, RENEW */
    uint64_t keepalive_ms;    /* KEEPALIVE: a SET that expires; RENEW: PEXPIRE, possible in a full store too */
    unsigned slot;
    unsigned node;
    bool asking; /* this once, and nobody else's commands for the slot */
    bool done;
} tqi_redis_command;

/* Runs all commands, in any order. On an error any of them may have run. */
int tqi_redis_run(tqi_redis *redis, tqi_redis_command *commands, size_t n, uint64_t deadline, tq_error *err);

/* --- connections ---------------------------------------------------------- */

/* A reply; a requested value is not in it but at its destination. */
typedef struct tqi_redis_reply {
    int type; /* REDIS_REPLY_... */
    long long integer;
    size_t size;    /* of a string */
    char text[256]; /* of a status or error */
} tqi_redis_reply;

typedef struct tqi_redis_link {
    redisContext *context;
    bool used; /* it was idle before: the server may have closed it */
    uint64_t deadline;
    uint64_t silence; /* nanoseconds that the server may be silent */
    uint64_t armed;   /* nanoseconds after which a read gives up */
    tq_kv_read *expected;
    char *spare; /* TQI_REDIS_INFO bytes for a string that is not a value; NULL: it is dropped */
    tqi_redis_reply reply;
    struct tqi_redis_link *next; /* idle ones of a node */
} tqi_redis_link;

/* Connects, authenticates and selects the database. */
int tqi_redis_link_open(const tqi_redis_config *config, const char *host, int port, uint64_t deadline,
                        tqi_redis_link **out, tq_error *err);
void tqi_redis_link_close(tqi_redis_link *link);
/* Sets the deadline for everything sent and received from now on. */
int tqi_redis_link_limit(tqi_redis_link *link, const tqi_redis_config *config, uint64_t deadline, tq_error *err);
/* From now on replies are hiredis' own objects, which can be nested; the link is closed afterwards, not reused. */
int tqi_redis_link_plain(tqi_redis_link *link, tq_error *err);
/* A command of plain words on such a link; *out is freed by freeReplyObject. */
int tqi_redis_link_ask(tqi_redis_link *link, int n, const char **words, redisReply **out, tq_error *err);
/* Appends to a TQ_EFULL message how much of its memory the server uses, if it says so. False: the link has failed. */
bool tqi_redis_link_room(tqi_redis_link *link, tq_error *err);
int tqi_redis_link_send(tqi_redis_link *link, const tqi_redis_command *command, tq_error *err);
/* The next reply, in link->reply; a value goes to `expected` if that is not NULL. */
int tqi_redis_link_receive(tqi_redis_link *link, tq_kv_read *expected, tq_error *err);

/* --- nodes ---------------------------------------------------------------- */

typedef struct tqi_redis_node {
    char host[256]; /* "": the unix socket of the config */
    int port;
    tqi_redis_link *idle;
} tqi_redis_node;

struct tqi_redis {
    tqi_redis_config config;
    char name[201];
    pthread_mutex_t lock;   /* of what follows */
    tqi_redis_node **nodes; /* the first one is the config's */
    size_t n_nodes;
    size_t nodes_capacity;
    uint16_t slots[TQI_REDIS_SLOTS]; /* of a cluster: place in the nodes */
};

/* The slot of a key: CRC16 of its hash tag, or of all of it (Redis cluster specification). */
unsigned tqi_redis_slot(const char *key);
/* The place of a node, made if it is new. */
int tqi_redis_node_get(tqi_redis *redis, const char *host, int port, unsigned *out, tq_error *err);
unsigned tqi_redis_slot_node(tqi_redis *redis, unsigned slot);
void tqi_redis_slot_moved(tqi_redis *redis, unsigned slot, unsigned node);
/* Asks a node which node serves which slot. */
int tqi_redis_slots_load(tqi_redis *redis, unsigned node, uint64_t deadline, tq_error *err);
/* list.c: as the table's function. */
int tqi_redis_list(tqi_redis *redis, const char *prefix, bool (*each)(const char *key, void *arg), void *arg,
                   uint64_t deadline, tq_error *err);
/* A connection to a node: an idle one, or with `fresh` always a new one. */
int tqi_redis_take(tqi_redis *redis, unsigned node, bool fresh, uint64_t deadline, tqi_redis_link **out, tq_error *err);
void tqi_redis_give(tqi_redis *redis, unsigned node, tqi_redis_link *link);
void tqi_redis_nodes_fini(tqi_redis *redis);

#endif
