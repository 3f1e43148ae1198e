/*
 * main.c - the program `sim`: runs seeds, says what it found, and repeats or shrinks it.
 *
 * Seeds run in child processes, many in each, so that a fault that ends the process (a signal, a sanitizer) is a
 * finding like any other. What the children count lies in memory that they share with the parent.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "chance.h"
#include "marks.h"
#include "options.h"
#include "oracle/history.h"
#include "scheduler.h"
#include "shrink.h"
#include "world.h"

#define MAIN_BATCH 200 /* seeds per child */

/* What the children count. */
int __real_clock_gettime(clockid_t clock, struct timespec *ts);

typedef struct main_job {
    uint64_t next, end; /* seeds that are left */
    uint64_t at;        /* the one that runs */
    uint64_t seeds, requests, ops, events, faults;
    uint64_t hash; /* sum over the seeds, so that their order does not matter */
    uint64_t happened[SIM_FAULTS];
    uint64_t marks[MARKS_MAX];
    uint64_t virtual_ns;
    char invariant[64]; /* of the finding; "": none */
    /* the faults of the last seed, for --shrink */
    size_t n_list;
    sim_decision list[SIM_DECISIONS];
} main_job;

static sim_options options = {.first = 1, .jobs = 1, .every = 10};
static main_job *jobs; /* shared with the children */
static main_job *job;  /* of this child */
static const char *program;
static uint64_t main_until = UINT64_MAX; /* no seed begins later, in real time */

/* Real time, which is not that of the simulation. */
static uint64_t main_real_ns(void)
{
    struct timespec ts;

    __real_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- trace and findings -------------------------------------------------------------- */

void sim_trace(const char *what, uint64_t a, uint64_t b)
{
    sim_scheduler.hash = sched_mix(sim_scheduler.hash, a * 31 + b);
    if (options.trace) {
        fprintf(stderr, "%14.6f %-12s %s %llu %llu\n", (double)sim_time() / 1e9,
                sim_self != NULL ? sim_self->name : "-", what, (unsigned long long)a, (unsigned long long)b);
    }
}

static void main_print_draws(FILE *to)
{
    const world_draws *drawn = &world_drawn;

    fprintf(to,
            "  drawn: %s, %u hosts, %u units of %llu KiB, %u clients; grace %llu ms, owner timeout %llu ms, "
            "write deadline %llu ms%s%s%s%s\n",
            drawn->manager, drawn->hosts, drawn->units, (unsigned long long)drawn->capacity >> 10, drawn->clients,
            (unsigned long long)drawn->grace_ms, (unsigned long long)drawn->owner_timeout_ms,
            (unsigned long long)drawn->write_deadline_ms, drawn->first_counters ? "; counters near their wrap" : "",
            drawn->tcp_only ? "; tcp only" : "", drawn->controller_dies ? "; the controller may die" : "",
            drawn->timers_last ? "; timers last" : "");
    fprintf(to, "  faults:");
    for (int i = 0; i < SIM_FAULTS; i++) {
        if (sim_faults_drawn.one_in[i]) {
            fprintf(to, " %s 1/%u (%u)", sim_fault_name((sim_fault)i), sim_faults_drawn.one_in[i],
                    sim_faults_drawn.happened[i]);
        }
    }
    fprintf(to, "\n");
}

static void main_write_file(void *arg, const char *text, size_t size)
{
    fwrite(text, 1, size, arg);
}

static void main_write_history(const char *found)
{
    FILE *file = options.history != NULL ? fopen(options.history, "w") : NULL;

    if (file != NULL) {
        history_write(main_write_file, file, found);
        fclose(file);
    } else if (options.history != NULL) {
        fprintf(stderr, "sim: cannot write %s: %s\n", options.history, strerror(errno));
    }
}

_Noreturn void sim_found(const char *invariant, const char *format, ...)
{
    char text[2048];
    va_list list;

    /* From here on memory is the program's: stdio allocates. */
    char where[64];

    snprintf(where, sizeof(where), "%s", sim_self != NULL ? sim_self->name : "the simulator");
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    sim_self = NULL;
    sim_heap_enter(NULL);
    if (!options.quiet) {
        fprintf(stderr, "FOUND seed %llu at %.6f s in %s: %s: %s\n", (unsigned long long)sim_seed,
                (double)sim_time() / 1e9, where, invariant, text);
        main_print_draws(stderr);
        fprintf(stderr, "  trace hash %016llx after %llu events\n  again: %s --seed %llu",
                (unsigned long long)sim_scheduler.hash, (unsigned long long)sim_scheduler.events, program,
                (unsigned long long)sim_seed);
        options_print(stderr, &options);
        fprintf(stderr, "\n");
    }
    main_write_history(invariant);
    if (job != NULL) {
        snprintf(job->invariant, sizeof(job->invariant), "%s", invariant);
        job->n_list = sim_faults_drawn.n_list;
        memcpy(job->list, sim_faults_drawn.list, job->n_list * sizeof(*job->list));
    }
    fflush(NULL);
    _exit(1);
}

/* --- running seeds -------------------------------------------------------------------- */

/* Runs a seed once and counts it. */
static uint64_t main_run(uint64_t seed)
{
    uint64_t requests = world_requests;

    world_run(seed, &options.world);
    job->requests += world_requests - requests;
    job->ops += world_finished.ops;
    job->events += world_finished.events;
    job->virtual_ns += world_finished.time;
    job->faults += sim_faults_drawn.total;
    for (int i = 0; i < SIM_FAULTS; i++) {
        job->happened[i] += sim_faults_drawn.happened[i];
    }
    return world_finished.hash;
}

static void main_seed(uint64_t seed)
{
    uint64_t hash = main_run(seed);

    job->seeds++;
    job->hash += sched_mix(hash, seed);
    if (options.verbose) {
        main_print_draws(stderr);
        fprintf(stderr, "seed %llu: hash %016llx, %llu events, %llu ops, %.1f s\n", (unsigned long long)seed,
                (unsigned long long)hash, (unsigned long long)world_finished.events,
                (unsigned long long)world_finished.ops, (double)world_finished.time / 1e9);
    }
    if (options.twice || (options.every && seed % options.every == 0)) {
        /* With memory in the other order: nothing may hang on addresses. */
        sim_memory_down = !sim_memory_down;
        uint64_t again = main_run(seed);
        sim_memory_down = !sim_memory_down;
        sim_check(again == hash, "determinism", "the second run of the seed has the trace hash %016llx, not %016llx",
                  (unsigned long long)again, (unsigned long long)hash);
    }
}

static void main_ending(void)
{
    sim_heap_enter(NULL);
    main_write_history(NULL);
}

static _Noreturn void main_child(main_job *own)
{
    job = own;
    marks_counts = own->marks;
    world_logs = options.trace;
    world_ending = options.history != NULL ? main_ending : NULL;
    for (; job->next < job->end; job->next++) {
        main_seed(job->next);
        if (main_real_ns() >= main_until) {
            job->end = 0;
        }
    }
    fflush(NULL);
    _exit(0);
}

/* Takes the next seeds for a child; false: there are none. */
static bool main_take(main_job *own, uint64_t *next)
{
    uint64_t left;

    if ((options.has_last && *next > options.last) || main_real_ns() >= main_until) {
        return false;
    }
    left = options.has_last ? options.last - *next + 1 : MAIN_BATCH;
    /* The last seeds are shared out, too. */
    uint64_t share = options.has_last ? (left + options.jobs - 1) / options.jobs : left;
    own->next = *next;
    own->end = *next + (share < MAIN_BATCH ? share : MAIN_BATCH);
    *next = own->end;
    return true;
}

static pid_t main_fork(main_job *own)
{
    pid_t parent = getpid();

    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(2); /* it ended before that */
        }
        main_child(own);
    }
    if (pid < 0) {
        perror("sim: fork");
        exit(2);
    }
    return pid;
}

/* What a child that ended says; true: it found something, and its remaining seeds are still to be run. */
static bool main_ended(main_job *own, int status)
{
    /* A child that ends earlier was ended from within a seed. */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && own->next >= own->end) {
        return false;
    }
    if (own->invariant[0] == 0) {
        snprintf(own->invariant, sizeof(own->invariant), "%s",
                 WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit");
        if (!options.quiet) {
            fprintf(stderr, "FOUND seed %llu: the program ended: %s (status %d)\n  again: %s --seed %llu",
                    (unsigned long long)own->next, own->invariant, status, program, (unsigned long long)own->next);
            options_print(stderr, &options);
            fprintf(stderr, "\n");
        }
    }
    return true;
}

/* Runs seeds in children until there are none left; returns how many findings there were. */
static uint64_t main_seeds(void)
{
    pid_t pids[OPTIONS_JOBS] = {0};
    uint64_t next = options.first, found = 0;
    unsigned running = 0;
    bool stop = false;

    if (options.seconds > 0) {
        main_until = main_real_ns() + (uint64_t)(options.seconds * 1e9);
    }
    for (;;) {
        for (unsigned i = 0; i < options.jobs; i++) {
            if (!stop && pids[i] == 0 && main_take(&jobs[i], &next)) {
                pids[i] = main_fork(&jobs[i]);
                running++;
            }
        }
        if (running == 0) {
            return found;
        }
        int status;
        pid_t pid = wait(&status);
        if (pid < 0 && errno != EINTR) {
            perror("sim: wait");
            exit(2);
        }
        unsigned i = 0;
        while (i < options.jobs && pids[i] != pid) {
            i++;
        }
        if (i == options.jobs) {
            continue;
        }
        pids[i] = 0;
        running--;
        if (main_ended(&jobs[i], status)) {
            found++;
            stop = stop || options.stop;
            for (unsigned k = 0; stop && k < options.jobs; k++) {
                jobs[k].end = 0; /* the others end after the seed that they run */
            }
            jobs[i].invariant[0] = 0;
            if (!stop && ++jobs[i].next < jobs[i].end) {
                pids[i] = main_fork(&jobs[i]);
                running++;
            }
        }
    }
}

/* --- output -------------------------------------------------------------------------------- */

static void main_sum(main_job *sum)
{
    for (unsigned i = 0; i < options.jobs; i++) {
        sum->seeds += jobs[i].seeds;
        sum->requests += jobs[i].requests;
        sum->ops += jobs[i].ops;
        sum->events += jobs[i].events;
        sum->faults += jobs[i].faults;
        sum->hash += jobs[i].hash;
        sum->virtual_ns += jobs[i].virtual_ns;
        for (int k = 0; k < SIM_FAULTS; k++) {
            sum->happened[k] += jobs[i].happened[k];
        }
        for (int k = 0; k < MARKS_MAX; k++) {
            sum->marks[k] += jobs[i].marks[k];
        }
    }
}

static int main_report(const main_job *sum, uint64_t found, double seconds)
{
    uint64_t missing = 0;

    if (options.verbose) {
        for (int k = 0; k < SIM_FAULTS; k++) {
            printf("fault %-16s %llu\n", sim_fault_name((sim_fault)k), (unsigned long long)sum->happened[k]);
        }
    }
    missing = marks_report(sum->marks, sum->seeds, options.verbose);
    printf("sim: %.1f s: %.0f events/s, %.0f requests/s, %llu operations, %.0f s of virtual time\n", seconds,
           (double)sum->events / seconds, (double)sum->requests / seconds, (unsigned long long)sum->ops,
           (double)sum->virtual_ns / 1e9);
    printf("sim: seeds=%llu requests=%llu events=%llu faults=%llu found=%llu hash=%016llx\n",
           (unsigned long long)sum->seeds, (unsigned long long)sum->requests, (unsigned long long)sum->events,
           (unsigned long long)sum->faults, (unsigned long long)found, (unsigned long long)sum->hash);
    return found > 0 || missing > 0;
}

/* --- shrinking and the corpus ------------------------------------------------------------------ */

/* Runs the one seed in a child; returns whether it fails by that invariant ("": by any, which is written there). */
static bool main_fails(char invariant[64])
{
    main_job *own = &jobs[0];
    int status;

    memset(own, 0, sizeof(*own));
    own->next = options.first;
    own->end = options.first + 1;
    pid_t pid = main_fork(own);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!main_ended(own, status)) {
        return false;
    }
    if (invariant[0] == 0) {
        memcpy(invariant, own->invariant, sizeof(own->invariant));
    }
    return strcmp(own->invariant, invariant) == 0;
}

static bool main_trial(uint32_t operations, void *arg)
{
    options.world.operations = operations;
    return main_fails(arg);
}

static int main_shrink(void)
{
    static sim_decision list[SIM_DECISIONS];
    char invariant[64] = "";

    options.every = 0;
    options.quiet = true;
    if (!main_fails(invariant)) {
        fprintf(stderr, "sim: seed %llu does not fail\n", (unsigned long long)options.first);
        return 2;
    }
    size_t n = jobs[0].n_list;
    memcpy(list, jobs[0].list, n * sizeof(*list));
    options.world.operations = shrink_run(list, n, main_trial, invariant);
    options.quiet = false;
    main_fails(invariant);
    return 1;
}

/* Runs each line of the file, which has the options of a seed; # begins a comment. Returns how many fail. */
static uint64_t main_corpus(uint64_t *lines)
{
    FILE *file = fopen(options.corpus, "r");
    static char line[1 << 16];
    uint64_t found = 0;
    sim_options before = options;

    if (file == NULL) {
        fprintf(stderr, "sim: cannot read %s: %s\n", options.corpus, strerror(errno));
        exit(2);
    }
    for (unsigned number = 1; fgets(line, sizeof(line), file) != NULL; number++) {
        char *words[64] = {(char *)(uintptr_t)program}, *save = NULL, invariant[64] = "";
        int n = 1;
        char where[256];
        snprintf(where, sizeof(where), "%s:%u", before.corpus, number);
        line[strcspn(line, "#\n")] = 0;
        char *word = strtok_r(line, " ", &save);
        for (; word != NULL && n < 63; word = strtok_r(NULL, " ", &save)) {
            words[n++] = word;
        }
        if (n == 1) {
            continue;
        }
        if (word != NULL) {
            fprintf(stderr, "sim: %s: more than 62 words\n", where);
            exit(2);
        }
        options = before;
        options.corpus = NULL;
        sim_faults_drawn.selects = false;
        sim_faults_drawn.n_selected = sim_faults_drawn.n_off = 0;
        options_parse(n, words, where, &options);
        found += main_fails(invariant);
        ++*lines;
    }
    if (ferror(file)) {
        fprintf(stderr, "sim: cannot read %s: %s\n", before.corpus, strerror(errno));
        exit(2);
    }
    fclose(file);
    options = before;
    sim_faults_drawn.selects = false;
    sim_faults_drawn.n_off = 0;
    return found;
}

static bool main_can_write(const char *path)
{
    FILE *file = fopen(path, "w");

    if (file == NULL) {
        fprintf(stderr, "sim: cannot write %s: %s\n", path, strerror(errno));
        return false;
    }
    fclose(file);
    return true;
}

int main(int argc, char **argv)
{
    program = argv[0];
    options_parse(argc, argv, NULL, &options);
    jobs = mmap(NULL, OPTIONS_JOBS * sizeof(*jobs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    if (jobs == MAP_FAILED) {
        perror("sim: mmap");
        return 2;
    }
    signal(SIGCHLD, SIG_DFL); /* it may be ignored, and then nobody could be waited for */
    if (options.history != NULL && !main_can_write(options.history)) {
        return 2;
    }
    if (options.shrink) {
        return main_shrink();
    }
    uint64_t begun = main_real_ns(), lines = 0, found = 0;
    if (options.corpus != NULL) {
        found = main_corpus(&lines);
        printf("sim: corpus: %llu lines, found=%llu\n", (unsigned long long)lines, (unsigned long long)found);
        memset(&jobs[0], 0, sizeof(jobs[0]));
        if (!options.has_last && options.seconds <= 0) {
            return found > 0;
        }
    }
    found += main_seeds();
    static main_job sum;
    main_sum(&sum);
    return main_report(&sum, found, (double)(main_real_ns() - begun) / 1e9);
}
