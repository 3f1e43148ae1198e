/*
 * net.h - the simulated network: what socket.c, connect.c, stream.c, net_faults.c and names.c share.
 *
 * A connection (net_link) has two ends and two ways. What one end sends is put on its way in chunks, each with the time
 * at which it arrives; when that has come, it lies in the queue from which the other end reads. Chunks keep their order
 * and are never lost while the connection lives. What a program sees of it follows Linux: when a socket is readable or
 * writable, which error it gives once or for good, and what a close does to the other end.
 */
#ifndef TQ_SIM_NET_H
#define TQ_SIM_NET_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "sim.h"

typedef struct net_chunk net_chunk;
typedef struct net_link net_link;
typedef struct net_socket net_socket;

typedef enum net_kind {
    NET_BYTES,
    NET_FIN,   /* the sender sends nothing more */
    NET_GONE,  /* the other end of a unix socket is closed */
    NET_RESET, /* the connection is no more */
} net_kind;

struct net_chunk {
    net_chunk *next;
    uint64_t at; /* when it arrives */
    net_kind kind;
    uint32_t size, taken; /* bytes, and how many of them were read */
    uint32_t room;
    bool probed; /* NET_RESET: the answer to what the receiver asks, so both ways must be open */
    bool broken; /* NET_GONE: with ECONNRESET */
    uint32_t n_files;
    sim_file **files; /* SCM_RIGHTS, with the first byte */
    uint8_t bytes[];
};

typedef struct net_way {
    net_link *link;
    uint32_t from; /* side */
    net_chunk *flight, *flight_last;
    net_chunk *queue, *queue_last; /* arrived */
    uint64_t in_flight, unread;    /* bytes */
    uint64_t charged;              /* unix: what the kernel books for both */
    uint64_t last_at;
    uint64_t event; /* next arrival */
    uint64_t stall_event;
    bool severed; /* by a partition */
    bool stalled;
    bool shut;     /* nothing more is put on it but a reset */
    bool full;     /* the receiver's window is closed */
    bool no_space; /* a send has failed for lack of space */
    bool was_reset;
    /* TCP, of the sender: since when something it sent, or asked, has no answer; 0: not so. */
    uint64_t silent_since, unacked_since;
    uint64_t timeout_event;
    uint64_t heard; /* when something arrived at the sender */
} net_way;

struct net_link {
    net_link *prev, *next;
    uint64_t number;
    bool unix_socket;
    bool cut; /* by something between the ends */
    uint32_t host[2];
    uint64_t pid[2];
    net_socket *side[2]; /* NULL: closed */
    net_way way[2];      /* from that side */
    uint32_t piece;      /* the most that one chunk takes of a send */
    bool swallowed;      /* unix: something was sent to an end that was closed already */
    uint64_t cut_event;
};

typedef enum net_state {
    NET_NEW,
    NET_LISTENS,
    NET_CONNECTS,
    NET_CONNECTED,
    NET_CLOSED, /* after an error */
} net_state;

struct net_socket {
    sim_file file;
    uint64_t number;
    net_state state;
    int domain, type;
    uint32_t host;
    uint64_t pid; /* its maker; of one that was accepted: that of the listener */
    int err;      /* what SO_ERROR says */
    bool shut_read, shut_write;
    bool ended; /* the other end sends nothing more */
    /* options */
    bool keepalive, reuse;
    int least; /* SO_RCVLOWAT */
    int send_buffer, receive_buffer;
    int idle_s, interval_s, probes, unanswered_ms;
    /* addresses */
    struct sockaddr_storage local, peer;
    socklen_t local_size, peer_size;
    uint64_t peer_pid; /* unix: SO_PEERCRED */
    bool bound;
    net_socket *bound_prev, *bound_next;
    /* NET_LISTENS: connections that wait to be accepted */
    uint64_t listener_pid;
    int backlog, waiting;
    net_socket *first, *last;
    net_socket *next_waiting;
    /* NET_CONNECTS */
    net_socket *dial_prev, *dial_next;
    uint64_t dial_event, dial_started;
    uint32_t dial_tries;
    bool dial_hangs;
    bool dialed; /* and no connect has said so */
    /* NET_CONNECTED, NET_CLOSED; NULL: never connected */
    net_link *link;
    uint32_t side;
};

/* What the seed has drawn. */
typedef struct net_drawn {
    uint64_t latency;          /* between hosts */
    uint64_t latency_near;     /* TCP within one host */
    uint64_t latency_unix;     /* 0: arrives during the call */
    uint64_t picoseconds;      /* per byte, between hosts */
    int tcp_send, tcp_receive; /* buffers */
    int unix_most;             /* wmem_max: the limit of SO_SNDBUF */
    bool unix_cuts;            /* SIM_CUT also cuts unix sockets, as a proxy between them would */
    bool peer_pidfd;           /* the kernel has SO_PEERPIDFD */
} net_drawn;

extern net_drawn net;
extern sim_chance net_chance;
extern const sim_file_ops net_socket_ops;
extern net_link *net_links;
extern uint32_t net_link_count;
extern net_socket *net_bound, *net_dials;

/* fd.c's: what RLIMIT_NOFILE leaves a process above SIM_FD_FIRST. */
uint32_t net_descriptors(void);

/* --- link.c, stream.c, transfer.c ----------------------------------------------------------------- */

/* Joins two sockets; both become NET_CONNECTED. */
net_link *net_link_make(net_socket *from, net_socket *to);
/* close(2) of one end. */
void net_link_leave(net_socket *socket);
/* The same of one that was never accepted. */
void net_link_refuse(net_socket *socket);
/* At least 0: bytes taken; else -errno. Takes over the files and the list (of sim_alloc) if it takes any byte. */
ssize_t net_send(net_socket *socket, const struct iovec *vec, size_t n, sim_file **files, uint32_t n_files);
/* The same for bytes read; 0: the end. *files: those that came, in memory of sim_alloc. */
ssize_t net_receive(net_socket *socket, const struct iovec *vec, size_t n, sim_file ***files, uint32_t *n_files);
/* 0 or -errno. */
int net_shutdown(net_socket *socket, bool reading, bool writing);
short net_stream_ready(net_socket *socket);
/* SO_RCVLOWAT or the buffer has changed. */
void net_stream_retune(net_socket *socket);
/* Time that bytes need from one host to another. */
uint64_t net_latency(uint32_t from, uint32_t to, bool unix_socket);
void net_streams_end(void);

void net_links_end(void);
uint64_t net_link_latency(const net_link *link);
/* Whether nothing gets through in one of its directions. */
bool net_link_silent(const net_link *link);
/* TCP: both ends have said that they send nothing more, and both know. */
bool net_socket_over(const net_socket *socket);

net_chunk *net_chunk_make(net_kind kind, size_t size);
void net_chunk_free(net_chunk *chunk);
void net_chunks_free(net_chunk **first, net_chunk **last);
void net_way_schedule(net_way *way);    /* the next arrival */
void net_way_drop(net_way *way);        /* what is on its way */
void net_way_arm_timeout(net_way *way); /* that of the sender */
/* The end at the beginning of this way is no more, and something came to it: TCP answers with a reset. */
void net_way_answer_reset(net_way *way);
/* Puts bytes on the way; `at`: not before that. */
void net_way_put(net_way *way, net_chunk *chunk, uint64_t at);
void net_way_space(net_way *way);  /* the sender may have room again */
void net_way_window(net_way *way); /* the receiver may have room again */
/* What poll says of the receiver, and of the sender. */
bool net_way_readable(const net_way *way);
bool net_way_writable(const net_way *way);
void net_link_swallow(net_socket *socket);

/* What faults do to a way. */
bool net_way_blocked(const net_way *way);
void net_way_open(net_way *way, bool at_once); /* it is no longer blocked: what it held goes on */
void net_link_blocked(net_link *link);         /* one of its ways became blocked */
void net_way_truncate(net_way *way, uint64_t keep);
void net_way_control(net_way *way, net_kind kind, uint64_t delay, bool flag);
/* How long the end takes to see by itself that the other one is gone; SIM_NEVER: it does not. */
uint64_t net_discovery(const net_socket *socket);

/* --- connect.c ------------------------------------------------------------------ */

int net_connect(net_socket *socket, const struct sockaddr *address, socklen_t size);
void net_connect_drop(net_socket *socket); /* it is closed before an answer came */
void net_connect_calm(void);
void net_connects_end(void);
/* A port that no socket of the host is bound to, in network order. */
uint16_t net_free_port(uint32_t host);
/* The listener of that address as seen from the host, or NULL. */
net_socket *net_find_listener(uint32_t from, const struct sockaddr_in *address, uint32_t *host);
/* 10.0.0.(host + 1) as network order; and the host of an address as seen from `from`: UINT32_MAX: nobody's. */
uint32_t net_host_address(uint32_t host);
uint32_t net_host_of(uint32_t from, uint32_t address);
void net_bound_add(net_socket *socket);
void net_bound_remove(net_socket *socket);
net_socket *net_socket_make(int domain, int type, uint32_t host, uint64_t pid);

/* --- net_faults.c --------------------------------------------------------------- */

void net_faults_start(void);
void net_faults_end(void);
void net_faults_calm(void);
/* May cut or stall the connection, and says by how much the chunk is late. */
uint64_t net_faults_of_send(net_way *way);
void net_faults_after_send(net_way *way);
/* A partition: two sides that cannot reach each other. */
typedef struct net_parted {
    bool of_processes; /* a and b are pids, else hosts */
    uint64_t a, b;
    bool there, back; /* from a to b, and from b to a */
} net_parted;

/* Starts one, for that time; false: there are as many as there may be. */
bool net_partition(const net_parted *who, uint64_t ns);
/* Whether a partition lies between these two, in that direction. */
bool net_partitioned(uint32_t from_host, uint64_t from_pid, uint32_t to_host, uint64_t to_pid);
/* Between low and high ns, each order of magnitude as likely as the others. */
uint64_t net_drawn_time(sim_chance *chance, uint64_t low, uint64_t high);

/* --- pidfd.c -------------------------------------------------------------------- */

int net_peer_pidfd(uint64_t pid);
void net_pidfds_end(void);

#endif
