/*
 * stateful.h - a fuzzer of the requests of a controller and of a storage unit that keeps state: what it sends makes
 * sense, and then some of it is spoiled.
 *
 * A run is a world of its own: a real controller and a real unit on one loop, and a few clients that speak frames by
 * hand over socket pairs. Every choice is read from the input, bytes of a fuzzer or of a seed: which client sends
 * which request, with what of all that earlier replies have told (model.c), and how it is spoiled (mutate.c). Time and
 * randomness are the world's own (host.c), so an input always does the same.
 *
 * The simulation (tests/sim/load/stateful.c) has another world for the same clients: one with faults.
 *
 *   host.c        what the process is to the code under test: its clock, its randomness, its pool of threads, its
 *   clients
 *   world.c       the controller, the unit and the loop; the end of a run, when all must be empty again
 *   link.c        connections of clients: handshake, frames, replies
 *   model.c       what replies have told
 *   steps.c       one step; which request, and the table of those below
 *   steps_*.c     the requests, by what they are about
 *   mutate.c      messages and frames that are spoiled
 *   check_table.c the books of the controller's table against each other
 *   report.c      the requests counted by kind, and faults
 */
#ifndef TQ_FUZZ_STATEFUL_H
#define TQ_FUZZ_STATEFUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "controller/controller.h"
#include "net/net.h"
#include "unit/unit.h"

struct tqi_table;

#define SF_CLIENTS  5
#define SF_GRANTS   6
#define SF_BLOCKS   16
#define SF_MANY     8
#define SF_SAMPLES  48
#define SF_PLACED   48
#define SF_SAVED    4
#define SF_PARTS    16
#define SF_NUMBERS  64
#define SF_OWNERS   4
#define SF_REMOVERS 256
#define SF_UNIT     "unit-0"
#define SF_CAPACITY (UINT64_C(256) << 10)
#define SF_KINDS    80
/* How long things are kept for an absent client. */
#define SF_GRACE_MS 5000u
#define SF_OWNER_MS 20000u
#define SF_LATE_MS  300u

/* --- learned -------------------------------------------------------------- */

/* Ids that were granted: those from `next` on are not used yet. */
typedef struct sf_grant {
    uint64_t first;
    uint32_t count, next;
    int owner;
    uint64_t incarnation;
    uint8_t grant[TQI_NET_GRANT];
    bool granted;
} sf_grant;

/* A block that was reserved at the unit. */
typedef struct sf_block {
    uint64_t id, size;
    uint32_t slot;
    uint64_t incarnation;
    bool written;
} sf_block;

/* A block that was published. */
typedef struct sf_placed {
    uint64_t id, size;
    uint32_t slot;
    int owner;
    bool written; /* as sf_byte has it */
    bool live;    /* as far as is known */
} sf_placed;

typedef struct sf_sample {
    int partition;
    uint32_t index, incarnation;
} sf_sample;

/* A snapshot's parts. */
typedef struct sf_saved {
    uint64_t epoch;
    uint32_t n;
    ProtobufCBinaryData part[SF_PARTS]; /* malloc'ed */
    bool whole;
} sf_saved;

typedef struct sf_owner {
    uint64_t incarnation;
    uint8_t key[TQI_NET_GRANT_KEY];
    bool keyed;
    uint64_t notice, named;
} sf_owner;

/* --- clients -------------------------------------------------------------- */

typedef struct sf_pending {
    uint64_t number;
    uint16_t kind;
    bool mutated;
    bool waits; /* its answer may be long in coming */
    bool must;  /* succeed */
    bool lost;  /* its connection was */
    bool bare;  /* without its payload, so it cannot be repeated */
    bool again; /* its number belongs to another request, whose answer may arrive */
    uint8_t *body;
    size_t size;
    struct sf_pending *prev, *next;
} sf_pending;

typedef struct sf_link {
    int fd; /* -1: not connected */
    bool unit;
    bool odd;          /* acknowledged what did not come: it may be left without answers */
    uint64_t next;     /* number of a request */
    uint64_t instance; /* of the session there */
    sf_pending *pending;
    uint8_t *in;
    size_t n_in, capacity;
} sf_link;

typedef struct sf_client {
    uint8_t session[TQI_NET_SESSION_ID];
    unsigned generation;
    int pid;         /* its process, as servers see it; 0: none yet */
    sf_link link[2]; /* to the controller, to the unit */
    bool mapped;
    bool serves[SF_OWNERS];
    sf_grant grant[SF_GRANTS];
    unsigned n_grant; /* ever, as all of these */
    sf_block block[SF_BLOCKS];
    unsigned n_block;
    uint64_t claim[SF_MANY], clearing[SF_MANY], pin[SF_MANY];
    unsigned n_claim, n_clearing, n_pin;
    uint64_t last_pin;
    uint64_t snapshot;
    uint32_t snapshot_parts, snapshot_next;
    struct sf_saved *saving;
    uint64_t restore;
    uint32_t restore_next;
    int restoring; /* place in saved */
    Tq__CompactLiveReply *live;
    uint64_t live_id[SF_MANY];
    int live_owner;
} sf_client;

typedef struct sf {
    /* input */
    const uint8_t *data;
    size_t size, at;
    bool over;
    unsigned rate;    /* how many of 256 requests are spoiled */
    bool strict;      /* rows of a field may not differ in type */
    bool tight;       /* limits are low, so anything may be refused */
    bool clean;       /* nothing was spoiled so far, and nobody was cut off */
    bool faulty;      /* connections may break, and servers be short of memory */
    const char *name; /* of the sessions, with a number behind it */
    /* Hears each good answer; NULL: nobody does. */
    void (*heard)(struct sf *f, uint16_t kind, const ProtobufCMessage *reply);
    void *user;
    uint64_t steps;
    /* world */
    uv_loop_t loop;
    char dir[64];
    char controller_at[96];
    tqi_net_token token;
    tqi_controller *controller;
    tqi_unit *unit;
    bool closed;
    sf_client client[SF_CLIENTS];
    const sf_client *behind; /* its request was sent and not waited for */
    /* memory of one step */
    uint8_t *arena;
    size_t used;
    /* learned from replies, for all clients */
    sf_sample sample[SF_SAMPLES];
    unsigned n_sample;
    sf_placed placed[SF_PLACED];
    unsigned n_placed;
    sf_saved saved[SF_SAVED];
    unsigned n_saved;
    sf_owner owner[SF_OWNERS]; /* place 0 is the unit */
    uint64_t number[SF_NUMBERS];
    unsigned n_number;
    uint64_t mark;
    uint64_t event;
    uint64_t list_version, list_epoch; /* of the owners */
    char *remover[SF_REMOVERS];        /* all that ever began a clear; malloc'ed */
    unsigned n_remover;
} sf;

/* --- report.c ------------------------------------------------------------- */

typedef struct sf_count {
    uint64_t sent, mutated, well, well_mutated, refused;
} sf_count;
extern sf_count sf_counts[SF_KINDS];
extern bool sf_tracing; /* every request and answer is logged */
void sf_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern uint64_t sf_cut, sf_ended, sf_killed, sf_cancelled, sf_violations, sf_runs;

/* Something is wrong with the code under test: says so and aborts. */
void sf_fault(const sf *f, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
/* The fuzzer's own means failed. */
void sf_lack(const char *what) __attribute__((noreturn));
static inline void sf_must(bool fine, const char *what)
{
    if (!fine) {
        sf_lack(what);
    }
}
uint64_t sf_requests(void);
/* Prints the table; the number of kinds that had fewer than `least` good answers to requests that were not spoiled. */
unsigned sf_report(uint64_t least);

/* --- host.c --------------------------------------------------------------- */

/* From now on until sf_host_end, only sf_host_pass advances time, and randomness comes from `seed`. */
void sf_host_begin(uint64_t seed);
void sf_host_end(void);
void sf_host_pass(uint64_t ms);
/* Whether polling found anything since the last call. */
bool sf_host_polled(void);
/* Does what was given to the pool; whether there was anything. */
bool sf_host_work(void);
/* Another process of a client; its number. */
int sf_process_start(void);
void sf_process_kill(int pid);
/* It serves the next run, too. */
void sf_process_rest(int pid);
/* Servers take the socket for one of that process; 0: of this one, as it is. */
void sf_process_of(int fd, int pid);

/* --- world.c -------------------------------------------------------------- */

void sf_open(sf *f);
void sf_close(sf *f);
/* Turns the loop until nothing happens any more, and takes what came. */
void sf_turn(sf *f);
/* Lets the servers go on in the middle of a frame. */
void sf_pause(sf *f);
void sf_pass(sf *f, uint64_t ms);
/* Compares the books of table and unit. */
void sf_check(sf *f);
void sf_check_table(const sf *f, const struct tqi_table *table);
/* A connection to the controller or the unit; -1: none can be had now. `theirs` is for sf_process_of. */
int sf_connect(sf *f, sf_client *client, bool unit, int *theirs);
/* Lets the server answer on a connection that is being opened; false: it has had its time. */
bool sf_wait(sf *f, const sf_link *link, int turn);
/* Pins at the unit; of one client, or of all if it is NULL. */
uint64_t sf_pins(const sf *f, const sf_client *client);
/* A copy of the text, for as long as what was begun under that name may stay. */
char *sf_keep(const char *text);
/* A descriptor that nobody wants. */
int sf_spare_descriptor(sf *f);
/* State that a refused request must not change. */
typedef struct sf_state_of {
    uint64_t partitions, samples, cells, keys, held;
} sf_state_of;
void sf_state(const sf *f, sf_state_of *out);
/* All sessions have ended and all was cleared: nothing may be left. */
void sf_check_empty(sf *f);

/* --- link.c --------------------------------------------------------------- */

/* Connects, with a session; false if there are too many. */
bool sf_link_open(sf *f, sf_client *client, sf_link *link);
void sf_link_close(sf_link *link);
/* Sends bytes as they are; false when the connection is gone. */
bool sf_link_write(sf *f, sf_link *link, const void *data, size_t size);
/* Reads what has arrived. */
void sf_link_take(sf *f, sf_client *client, sf_link *link);
void sf_link_forget(sf_link *link);
/* All replies that came were received: what frames say of that. */
uint64_t sf_link_ack(const sf_link *link);
void sf_link_control(sf *f, sf_client *client, sf_link *link, uint16_t kind, const ProtobufCMessage *message);
/* The session is closed, or left to its grace time; the client begins another one. */
void sf_client_leave(sf *f, sf_client *client, bool goodbye);

/* --- model.c -------------------------------------------------------------- */

void sf_learn(sf *f, sf_client *client, const sf_pending *pending, const ProtobufCMessage *reply,
              const uint8_t *payload, size_t size);
void sf_number(sf *f, uint64_t number);
void sf_learn_remover(sf *f, const char *name);
void sf_forget(sf *f, sf_client *client, bool unit);
uint8_t sf_byte(uint64_t id, uint64_t at);
sf_placed *sf_placed_find(sf *f, uint64_t id);
const char *sf_owner_name(int owner);
void sf_saved_drop(sf_saved *saved);

/* --- steps ---------------------------------------------------------------- */

/* A number below n, from the input. */
uint32_t sf_pick(sf *f, uint32_t n);
bool sf_once_in(sf *f, uint32_t n);
void *sf_alloc(sf *f, size_t size);
char *sf_text(sf *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Of any length. */
char *sf_copy(sf *f, const char *text);
void *sf_message(sf *f, const ProtobufCMessageDescriptor *type);

/* Whether the answer may be long in coming, and whether it must be a good one. */
enum {
    SF_WAITS = 1,
    SF_MUST = 2,  /* whatever others did */
    SF_CLEAN = 4, /* if nothing was spoiled so far */
};
/* Sends a request, sometimes spoiled. */
void sf_send(sf *f, sf_client *client, uint16_t kind, void *message, unsigned how);
void sf_send_payload(sf *f, sf_client *client, uint16_t kind, void *message, const uint8_t *payload, size_t size,
                     unsigned how);
void sf_step(sf *f);

typedef void (*sf_step_fn)(sf *f, sf_client *client);
#define SF_STEP(number, NAME, name, Message, reply, Reply, mode) void sf_step_##name(sf *f, sf_client *client);
TQI_METHODS_CONTROLLER(SF_STEP)
TQI_METHODS_UNIT(SF_STEP)
#undef SF_STEP

char *sf_partition_name(sf *f);
char *sf_field_name(sf *f, uint32_t field);
/* An id that may be published: of a grant of the client's. NULL: it has none, and asks for some. */
sf_grant *sf_grant_of(sf *f, sf_client *client, int owner);
sf_block *sf_block_of(sf *f, sf_client *client, bool written);

/* --- mutate.c ------------------------------------------------------------- */

typedef struct sf_frame {
    tqi_frame head;
    uint8_t *body;
    size_t size, room;
    const uint8_t *payload;
    size_t payload_size;
    bool cut;        /* the connection is closed after what was sent */
    size_t length;   /* only this many bytes are sent; SIZE_MAX: all */
    bool descriptor; /* one travels with it */
    bool again;      /* its number may be another one's */
} sf_frame;

/* Changes something in a message, which lies in the arena. */
void sf_mutate_message(sf *f, ProtobufCMessage *message);
/* Changes bytes of the body, or the head. */
void sf_mutate_body(sf *f, sf_frame *frame);
void sf_mutate_frame(sf *f, sf_link *link, sf_frame *frame);
/* Whether a request would only cost time and memory; and notes what it leaves to be removed. */
bool sf_too_large(sf *f, const sf_frame *frame);

/* --- run.c ---------------------------------------------------------------- */

/* Does what the input says. */
void sf_run(const uint8_t *data, size_t size);

#endif
