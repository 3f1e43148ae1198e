/*
 * sim.h - the kernel of the simulation: one thread, virtual time, fibers, processes, descriptors, faults, all of it
 * drawn from one seed.
 *
 * The object files that ship run in here unchanged. What they would ask of libuv, of the C library or of the kernel is
 * answered by the files of tests/sim: functions of libuv are defined here (loop.c), and calls of the C library are
 * replaced when the program is linked (`-Wl,--wrap=NAME`: a file defines __wrap_NAME, and __real_NAME is the original).
 *
 * Whose memory. Code of a simulated process allocates with malloc, which serves it from the heap of that process. The
 * simulator keeps what must outlive a process in memory of sim_alloc, and never calls malloc itself: it often runs in
 * the middle of a process's call.
 *
 * Determinism. Nothing depends on addresses, on real time, on real descriptors, on the environment, or on the order in
 * which a hash table of the C library iterates. Two runs of one build with one seed give the same trace hash.
 */
#ifndef TQ_SIM_H
#define TQ_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

typedef struct sim_process sim_process;
typedef struct sim_fiber sim_fiber;
typedef struct sim_file sim_file;

#define SIM_NEVER UINT64_MAX
#define SIM_US    UINT64_C(1000)
#define SIM_MS    UINT64_C(1000000)
#define SIM_S     UINT64_C(1000000000)

/* --- memory of the simulator: memory.c ------------------------------------ */

/* Zeroed; never NULL (the program ends when the machine has no memory). */
void *sim_alloc(size_t size);
void *sim_realloc(void *old, size_t size);
void sim_free(void *memory);
char *sim_strdup(const char *text);

/* Where the memory of processes lies; --base sets it before anything starts. A fault that hangs on the order of
 * addresses shows when they go downward. */
extern uint64_t sim_memory_base;
extern bool sim_memory_down;
/* Per seed, before the first process. */
void sim_memory_start(void);
/* Stacks of fibers: the same addresses in every run, zero at first, with a page in front of them that must not be
 * touched. */
void *sim_stack_alloc(size_t size);
void sim_stack_free(void *stack);

/* --- chance: chance.c ------------------------------------------------------ */

/* A stream of random numbers (xoshiro256**). Every subsystem has one of its own, made from the seed and a name, so that
 * a change in one leaves the draws of the others as they were. */
typedef struct sim_chance {
    uint64_t s[4];
} sim_chance;

/* The seed of this run. */
extern uint64_t sim_seed;
void sim_chance_init(sim_chance *chance, uint64_t seed, const char *name);
uint64_t sim_next(sim_chance *chance);
/* Uniform in [0, n); 0 for n == 0. */
uint64_t sim_below(sim_chance *chance, uint64_t n);
/* Uniform in [low, high]. */
uint64_t sim_between(sim_chance *chance, uint64_t low, uint64_t high);
/* True once in n draws on average; false for n == 0. */
bool sim_one_in(sim_chance *chance, uint64_t n);

/* --- faults: chance.c ------------------------------------------------------ */

/* Each seed draws which of these may happen and how often. The names are those of the options and of the output. */
typedef enum sim_fault {
    SIM_CHUNK_DELAY = 0, /* bytes take longer than usual */
    SIM_CUT,             /* a connection is cut (after any byte, in either direction) */
    SIM_SHORT_SEND,      /* sendmsg takes a part */
    SIM_STALL,           /* one direction of a connection is blocked for a time */
    SIM_PARTITION,       /* two processes cannot reach each other, in one or both directions, for a time */
    SIM_CONNECT_HANG,    /* connect gets no answer until it gives up */
    SIM_CONNECT_REFUSE,  /* connect is refused although somebody listens */
    SIM_CONNECT_LATE,    /* connect succeeds late */
    SIM_ACCEPT_FULL,     /* accept fails with EMFILE, ENFILE or ENOBUFS */
    SIM_KILL_POINT,      /* a process is killed inside a wrapped call */
    SIM_KILL_EVENT,      /* a process is killed between two events */
    SIM_STOP,            /* a process is stopped (SIGSTOP) and goes on later */
    SIM_OOM,             /* an allocation fails, once or for a time */
    SIM_NO_PIDFD,        /* a process cannot be watched */
    SIM_PIDFD_LATE,      /* the end of a process is seen late */
    SIM_CLOCK_STEP,      /* the wall clock of a process jumps */
    SIM_CLOCK_SKEW,      /* the clocks of a process run fast or slowly (drawn once per process) */
    SIM_TIMER_LATE,      /* a loop wakes up late */
    SIM_PREEMPT,         /* another thread of the process runs at a lock or at an atomic wait */
    SIM_KV_SLOW,         /* a KV store answers late */
    SIM_KV_FULL,         /* a KV store has no room */
    SIM_KV_LATE,         /* a put gets no answer and is executed later */
    SIM_KV_EVICT,        /* a KV store evicts a value */
    SIM_DISK_FULL,       /* ENOSPC */
    SIM_DISK_SLOW,       /* a call of the file system takes long */
    SIM_DISK_ERROR,      /* EIO at write, fsync or read */
    SIM_DISK_TORN,       /* at the end of a process with its machine, what was not synced is there in part */
    SIM_DISK_FLIP,       /* a bit of a file is flipped */
    SIM_LOAD_CANCEL,     /* a workload cancels an operation */
    SIM_LOAD_DEADLINE,   /* a workload gives an operation 0 to 50 ms */
    SIM_FAULTS           /* number of kinds */
} sim_fault;

/* Whether the fault happens at this place, now. Each call is a decision with a number per kind, by which `--only` and
 * `--shrink` select the ones that happen. Always false in the liveness phase. */
bool sim_happens(sim_fault fault);
/* Whether the seed has the fault at all (for what is drawn once). */
bool sim_may(sim_fault fault);
const char *sim_fault_name(sim_fault fault);
/* The stream for the details of a fault that happens: how long, after how many bytes. */
extern sim_chance sim_fault_chance;
/* Whether faults are over: everything must now end. */
bool sim_is_calm(void);

/* --- marks: marks.c --------------------------------------------------------- */

/* An event that a run over many seeds must have seen: counted by name; marks.c has the table of those that must happen.
 * `name` is a literal. */
void sim_mark(const char *name);

/* --- trace ----------------------------------------------------------------- */

/* Mixes an event into the trace hash, and prints it with --trace. `what` is a literal; a and b must not be addresses or
 * real descriptors. */
void sim_trace(const char *what, uint64_t a, uint64_t b);
/* Ends the run of this seed: the finding is printed with the seed, its options, and how to repeat it. Does not return.
 * The text names the invariant ("none lost: ..."), then what was seen. */
_Noreturn void sim_found(const char *invariant, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define sim_check(condition, invariant, ...)     \
    do {                                         \
        if (!(condition)) {                      \
            sim_found((invariant), __VA_ARGS__); \
        }                                        \
    } while (0)

/* --- time and events: events.c ------------------------------------------------- */

/* Virtual nanoseconds since the start of the seed; every process adds an offset and a rate of its own to it. */
uint64_t sim_time(void);
/* Calls fn(arg) at that time, outside of any process. Events of the same time run in an order drawn from the seed.
 * Returns a number for sim_at_drop, never 0. */
uint64_t sim_at(uint64_t time, void (*fn)(void *arg), void *arg);
void sim_at_drop(uint64_t event);

/* --- processes: scheduler.c ------------------------------------------------------ */

#define SIM_PROCESSES 64 /* at a time */

struct sim_process {
    uint32_t id; /* index among the processes; its pid is 1000 + a number that is never used twice */
    uint64_t pid;
    char name[32]; /* "controller", "unit-1", "client-3" */
    bool alive;
    bool stopped;          /* SIGSTOP */
    uint64_t stopped_for;  /* ns that it was stopped in all; scheduler.c adds to it when the process goes on */
    bool exiting;          /* it ends as programs do: its descriptors are closed */
    uint32_t host;         /* processes of one host reach each other through unix sockets and shared memory */
    uint64_t clock_offset; /* monotonic time at sim_time() 0 */
    int64_t clock_rate;    /* parts per million faster than sim_time */
    int64_t wall_offset;   /* microseconds */
    /* of the parts of the kernel; each is made by the functions below and freed when the process ends */
    struct sim_heap *heap;               /* memory.c */
    struct sim_fds *fds;                 /* fd.c */
    struct sim_maps *maps;               /* shared.c */
    struct sim_image *image;             /* image.c: the writable data of the product */
    struct sim_threads *threads;         /* thread.c */
    void (*ended)(sim_process *process); /* by whoever started it; called outside of any process */
    void *user;
};

/* The process whose code runs; NULL: the simulator itself. */
extern sim_process *sim_self;
/* Starts a process with a main fiber; when `main` returns, the process ends as a program that returns from main. */
sim_process *sim_process_start(const char *name, uint32_t host, void (*main)(void *arg), void *arg);
/* SIGKILL. If it is the running one, this does not return. */
void sim_process_kill(sim_process *process);
/* The process of that pid, alive; NULL: none. */
sim_process *sim_process_of(uint64_t pid);
/* Called in every wrapped call: here another fiber may run, or the process be killed. */
void sim_point(void);

/* What the parts of the kernel do at the start and the end of a process. `killed`: nothing is closed in order. */
void sim_heap_start(sim_process *process);
void sim_heap_end(sim_process *process);
/* Bytes in live allocations of the process, and how many. */
uint64_t sim_heap_live(const sim_process *process, uint64_t *count);
/* Prints them by the place that allocated them. */
void sim_heap_report(const sim_process *process);
/* At the end of the running process's main function: nothing may be left that its static data does not lead to. */
void sim_heap_check_leaks(void);
/* Whether its allocations may fail (SIM_OOM); none does at first. */
void sim_heap_may_fail(sim_process *process, bool may);
void sim_fds_start(sim_process *process);
void sim_fds_end(sim_process *process, bool killed);
void sim_maps_start(sim_process *process);
void sim_maps_end(sim_process *process);
void sim_image_start(sim_process *process);
void sim_image_end(sim_process *process);
/* Makes the memory that product code sees (heap of malloc, image of static data) that of the process; NULL: the
 * simulator's. Called by scheduler.c only. */
void sim_heap_enter(sim_process *process);
void sim_image_enter(sim_process *process);
/* What the static data of the product is now is what each process begins with. Without a call it is what the program
 * began with. */
void sim_image_keep(void);

/* --- fibers: scheduler.c --------------------------------------------------------- */

/* The fiber that runs; NULL: an event of sim_at. */
extern sim_fiber *sim_running;
/* A fiber (a thread) of the process. */
sim_fiber *sim_fiber_start(sim_process *process, const char *name, void (*main)(void *arg), void *arg);
/* Puts the running fiber to sleep until it is woken or that time (SIM_NEVER) has come; returns whether it was woken. A
 * fiber that is woken before it sleeps does not sleep. */
bool sim_sleep(uint64_t until);
/* Lets a fiber that sleeps go on (after a drawn, short time); it may be of a process that has ended. */
void sim_wake(sim_fiber *fiber);
/* Lets time pass for the running fiber, during which others run. */
void sim_pass(uint64_t ns);
/* Fibers are kept until nobody refers to them. */
sim_fiber *sim_fiber_ref(sim_fiber *fiber);
void sim_fiber_unref(sim_fiber *fiber);
sim_process *sim_fiber_process(const sim_fiber *fiber);

/* --- descriptors: fd.c -------------------------------------------------------- */

/* Virtual descriptors begin here; smaller ones are real and pass through to the C library. Not larger, because the
 * product compares numbers with shares of RLIMIT_NOFILE, which must be a little above those in use. */
#define SIM_FD_FIRST 1024

/* The user as which all processes run: what geteuid says, and the owner of every file. */
#define SIM_USER 1000

/* What a descriptor refers to: shared by duplicates, also in other processes. */
typedef struct sim_file_ops {
    const char *name;
    /* POLLIN, POLLOUT, POLLERR, POLLHUP, POLLRDHUP as poll(2) would say; NULL: always readable and writable. */
    short (*ready)(sim_file *file);
    void (*destroy)(sim_file *file); /* the last descriptor is closed; frees it with sim_free */
    /* read, write, fstat and ftruncate (their wrappers are in disk_calls.c): -1 with errno; NULL: EINVAL. */
    ssize_t (*read)(sim_file *file, void *bytes, size_t size);
    ssize_t (*write)(sim_file *file, const void *bytes, size_t size);
    int (*stat)(sim_file *file, struct stat *out);
    int (*truncate)(sim_file *file, off_t size);
    /* open("/proc/self/fd/N", flags): a file of its own, or the same one with one more reference; NULL with errno.
     * NULL: ENXIO. */
    sim_file *(*reopen)(sim_file *file, int flags);
    /* Commands of fcntl other than those of fd.c, such as F_ADD_SEALS: -1 with errno; NULL: EINVAL. */
    int (*control)(sim_file *file, int command, long argument);
} sim_file_ops;

struct sim_file {
    const sim_file_ops *ops;
    uint32_t refs;
    int flags; /* what F_GETFL says, such as O_RDWR | O_NONBLOCK; whoever made the file sets it */
    struct sim_watch *watches;
};

/* A fiber that wants to be woken when the file may be ready; embed it. */
typedef struct sim_watch {
    sim_file *file; /* NULL: not listed */
    sim_fiber *fiber;
    struct sim_watch *prev, *next;
} sim_watch;

/* Its `refs` becomes 1 and `watches` empty. */
void sim_file_init(sim_file *file, const sim_file_ops *ops);
void sim_file_ref(sim_file *file);
void sim_file_unref(sim_file *file);
/* Its readiness may have changed: wakes the watching fibers. */
void sim_file_changed(sim_file *file);
void sim_watch_add(sim_watch *watch, sim_file *file, sim_fiber *fiber);
void sim_watch_remove(sim_watch *watch);
/* Gives the running process a descriptor of the file (takes over the reference); -1 with errno EMFILE. The lowest free
 * number is taken, as the kernel does. */
int sim_fd_open(sim_file *file);
/* The file of the running process's descriptor; NULL with errno EBADF. No reference is taken. */
sim_file *sim_fd_file(int fd);
/* The same if it is of that kind, else NULL with errno `wrong`. */
sim_file *sim_fd_file_of(int fd, const sim_file_ops *ops, int wrong);
static inline bool sim_fd_is(int fd)
{
    return fd >= SIM_FD_FIRST;
}
/* Number of open descriptors of the process. */
uint32_t sim_fds_count(const sim_process *process);
/* A pidfd of that process (readable once it has ended), for SO_PEERPIDFD and pidfd_open; -1 with errno. */
int sim_pidfd_open(uint64_t pid);
void sim_pidfd_ended(sim_process *process); /* called by scheduler.c */

/* --- sockets: socket.c, stream.c ----------------------------------------------- */

/* Between hosts (and within one) according to the seed. All of it follows what TCP and unix sockets do: bytes of one
 * connection are never lost, doubled or reordered. */
void sim_net_start(void); /* per seed */
void sim_net_end(void);
/* Faults are over from now on: partitions and stalls heal at once. Called by whoever makes sim_is_calm() true. */
void sim_net_calm(void);
/* Cuts all connections of a process, as when a machine sleeps for long. */
void sim_net_lose(uint64_t pid);

/* --- files: disk.c --------------------------------------------------------------- */

/* Paths under this directory are virtual; each host has its own tree there. */
#define SIM_ROOT "/sim"
void sim_disk_start(void); /* per seed */
void sim_disk_end(void);
/* Faults of the kind that need no call: torn and lost writes of a machine that loses power, flipped bits. */
void sim_disk_power_loss(uint32_t host);

#endif
