/*
 * saved_paths.c - which checkpoint a load must find at a path, and when it may fail. See saved.h.
 *
 * A save that ended with TQ_OK is there until another one has replaced it, and survives everything: kills, losses of
 * power, saves that fail. One that failed, or of which nobody knows the end, is there as a whole or not at all. Bits
 * that were flipped are always noticed.
 */
#include "oracle/saved.h"

#include <inttypes.h>

#include "client/checkpoint/files.h"
#include "disk.h"
#include "oracle/history_state.h"

#define SAVED_KEPT  "a checkpoint that was saved is kept"
#define SAVED_WHOLE "a checkpoint is loaded as a whole, or not at all"

/* A save or load. */
typedef struct saved_run {
    struct saved_run *next;
    const history_op *op;
    uint64_t pid;
    uint32_t host;
    bool over;
    uint64_t ended;  /* history sequence; of a process that died: when the next one started */
    bool damaged;    /* before it began */
    bool errors;     /* reading may fail */
    uint64_t opened; /* the save that made what it has opened */
} saved_run;

static saved_run *saved_runs; /* newest first; memory of the seed */

void saved_paths_start(void)
{
    saved_runs = NULL;
}

static saved_run *saved_run_of(const history_op *op)
{
    saved_run *run = saved_runs;

    while (run != NULL && run->op != op) {
        run = run->next;
    }
    return run;
}

uint64_t saved_save_of(uint64_t pid)
{
    const saved_run *run = saved_runs;

    while (run != NULL && (run->pid != pid || run->op->call != HISTORY_SAVE)) {
        run = run->next;
    }
    return run != NULL ? run->op->number : 0;
}

uint64_t saved_load_of(uint64_t pid, uint32_t nth)
{
    const saved_run *run = saved_runs;

    for (; run != NULL; run = run->next) {
        if (run->pid == pid && run->op->call == HISTORY_LOAD && run->opened != 0 &&
            (run->op->status == HISTORY_RUNNING || run->op->status == HISTORY_UNKNOWN) && nth-- == 0) {
            return run->op->number;
        }
    }
    return 0;
}

uint64_t saved_opened(uint64_t load)
{
    const saved_run *run = saved_runs;

    while (run != NULL && run->op->number != load) {
        run = run->next;
    }
    return run != NULL ? run->opened : 0;
}

/* --- the files ------------------------------------------------------------------------ */

int __real_tqi_client_ckpt_in_open(tqi_client_ckpt_in *in, const char *path, tq_error *err);
int __wrap_tqi_client_ckpt_in_open(tqi_client_ckpt_in *in, const char *path, tq_error *err);

/* A client has opened a checkpoint, and all sums but that of the data are right. */
int __wrap_tqi_client_ckpt_in_open(tqi_client_ckpt_in *in, const char *path, tq_error *err)
{
    static const char mark[] = "\"save\": ";
    int rc = __real_tqi_client_ckpt_in_open(in, path, err);
    const char *at = rc == TQ_OK && in->metadata != NULL ? strstr(in->metadata, mark) : NULL;
    saved_run *run = saved_runs;

    while (run != NULL && (sim_self == NULL || run->pid != sim_self->pid || run->op->call != HISTORY_LOAD)) {
        run = run->next;
    }
    if (run != NULL && rc == TQ_OK) {
        sim_check(at != NULL, SAVED_WHOLE, "op %" PRIu64 " opened '%s', which has other metadata: %s", run->op->number,
                  path, in->metadata != NULL ? in->metadata : "none");
        run->opened = 0;
        for (at += strlen(mark); *at >= '0' && *at <= '9'; at++) {
            run->opened = 10 * run->opened + (uint64_t)(*at - '0');
        }
    }
    return rc;
}

/* --- begin and end ------------------------------------------------------------------------ */

static saved_run *saved_begins(const history_op *op)
{
    saved_run *run = ledger_keep(sizeof(*run));

    run->op = op;
    run->pid = sim_self->pid;
    run->host = sim_self->host;
    run->ended = UINT64_MAX;
    run->damaged = sim_disk_is_damaged(run->host, op->path);
    run->errors = sim_may(SIM_DISK_ERROR);
    run->next = saved_runs;
    saved_runs = run;
    return run;
}

void saved_save_begins(const history_op *op)
{
    saved_begins(op);
}

void saved_load_begins(const history_op *op)
{
    saved_begins(op);
}

void saved_client_starts(uint32_t client)
{
    for (saved_run *run = saved_runs; run != NULL; run = run->next) {
        if (run->op->client == client && !run->over) {
            run->over = true;
            run->ended = history_now.sequence;
        }
    }
}

static saved_run *saved_ended(const history_op *op)
{
    saved_run *run = saved_run_of(op);

    run->over = true;
    run->ended = op->sequence_ended;
    return run;
}

void saved_save_ended(const history_op *op)
{
    uint64_t partitions, samples;

    saved_ended(op);
    sim_check(op->status != HISTORY_OK || saved_count(op->number, &partitions, &samples), SAVED_WHOLE,
              "op %" PRIu64 " has saved, but no snapshot was taken for it", op->number);
}

/* --- what may be found ---------------------------------------------------------------------- */

static bool saved_same_place(const saved_run *one, const saved_run *other)
{
    return one->host == other->host && one->op->path == other->op->path;
}

/* Whether some other save ran at the same place and the same time. */
static bool saved_overlaps(const saved_run *load)
{
    for (const saved_run *run = saved_runs; run != NULL; run = run->next) {
        if (run->op->call == HISTORY_SAVE && saved_same_place(run, load) &&
            run->op->sequence_invoked < load->op->sequence_ended && run->ended > load->op->sequence_invoked) {
            return true;
        }
    }
    return false;
}

/* A save that was OK and had ended before that; the one that began last. */
static const saved_run *saved_last_before(const saved_run *at, uint64_t sequence)
{
    const saved_run *last = NULL;

    for (const saved_run *run = saved_runs; run != NULL; run = run->next) {
        if (run->op->call == HISTORY_SAVE && run->op->status == HISTORY_OK && saved_same_place(run, at) &&
            run->ended < sequence && (last == NULL || run->op->sequence_invoked > last->op->sequence_invoked)) {
            last = run;
        }
    }
    return last;
}

static void saved_check_found(const saved_run *load)
{
    const saved_run *last = saved_last_before(load, load->op->sequence_invoked);
    const saved_run *found = saved_runs;

    while (found != NULL && (found->op->number != load->opened || found->op->call != HISTORY_SAVE)) {
        found = found->next;
    }
    sim_check(found != NULL && saved_same_place(found, load), SAVED_KEPT,
              "op %" PRIu64 " loaded '%s', and found there what op %" PRIu64 " had saved elsewhere", load->op->number,
              load->op->path, load->opened);
    sim_check(found->op->status != HISTORY_FAIL, SAVED_KEPT,
              "op %" PRIu64 " loaded '%s', and found there what op %" PRIu64 " had failed to save", load->op->number,
              load->op->path, load->opened);
    sim_check(last == NULL || found->ended > last->op->sequence_invoked, SAVED_KEPT,
              "op %" PRIu64 " loaded '%s', and found there what op %" PRIu64 " had saved before op %" PRIu64 " did",
              load->op->number, load->op->path, load->opened, last->op->number);
    sim_check(!load->damaged || saved_overlaps(load), SAVED_WHOLE,
              "op %" PRIu64 " loaded '%s', in which a bit was flipped", load->op->number, load->op->path);
}

void saved_load_ended(const history_op *op)
{
    saved_run *load = saved_ended(op);
    const saved_run *last = saved_last_before(load, op->sequence_invoked);
    bool damaged = load->damaged || sim_disk_is_damaged(load->host, op->path);
    bool excused = damaged || saved_overlaps(load);

    if (op->status == HISTORY_OK) {
        saved_check_found(load);
    } else if (op->code == TQ_ECHECKPOINT || op->code == TQ_EVERSION) {
        sim_check(excused, SAVED_KEPT, "op %" PRIu64 " could not load '%s', which nobody has touched: %s", op->number,
                  op->path, op->message);
        sim_mark("damaged checkpoint refused");
    } else if (op->code == TQ_EIO && strstr(op->message, "checkpoint") != NULL) {
        sim_check(last == NULL || excused || load->errors, SAVED_KEPT,
                  "op %" PRIu64 " could not load '%s', which op %" PRIu64 " had saved: %s", op->number, op->path,
                  last->op->number, op->message);
    }
}
