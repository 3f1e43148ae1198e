/*
 * ops.c - operations: waiting with a limit, callbacks, deadlines, cancelling, and the library's log.
 */
#include <pthread.h>
#include <string.h>
#include <tq/log.h>

#include "example.h"

static void write_line(tq_log_level level, const char *part, const char *text, void *arg)
{
    fprintf(arg, "tq %s: %s%s\n", part, level <= TQ_LOG_WARN ? "! " : "", text);
}

/* To the program's own log, and only what went wrong. */
static void take_the_log(FILE *to)
{
    tq_log_set_sink(write_line, to);
    tq_log_set_level(TQ_LOG_WARN);
}

static tq_claim_args claim_of(const char *task, const char *const *fields)
{
    tq_claim_args claim = tq_claim_args_init();

    claim.partition = "ops";
    claim.task = task;
    claim.fields = fields;
    claim.n_fields = 1;
    claim.batch_size = 2;
    return claim;
}

/* Looks at a claim ten times a second, and does something else in between. */
static void wait_in_turns(tq_op *op)
{
    while (!tq_op_wait_for(op, 0.1)) {
        printf("not yet\n");
    }
    must(tq_op_error(op)->code, tq_op_error(op));
    printf("claimed %zu samples\n", tq_meta_sample_count(tq_op_meta(op)));
}

static void end_by_deadline(tq_op *op, const tq_claim_args *claim)
{
    tq_op_set_timeout(op, 0.2);
    if (tq_claim(op, claim) == TQ_OK && tq_op_wait(op) == TQ_ETIMEDOUT) {
        printf("in vain\n");
    }
    tq_op_set_timeout(op, 0); /* the client's again */
}

static void end_by_cancelling(tq_op *op, const tq_claim_args *claim)
{
    if (tq_claim(op, claim) == TQ_OK) {
        tq_op_cancel(op); /* it still completes, once */
        printf("%s\n", tq_op_wait(op) == TQ_ECANCELED ? "cancelled" : "was faster");
    }
}

struct finished {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is;
};

/* Runs on the client's thread, so it only says that there is something to do. */
static void on_done(tq_op *op, void *arg)
{
    struct finished *finished = arg;

    (void)op;
    pthread_mutex_lock(&finished->lock);
    finished->is = true;
    pthread_cond_signal(&finished->changed);
    pthread_mutex_unlock(&finished->lock);
}

static void hear_by_callback(tq_client *client, const tq_claim_args *claim)
{
    struct finished finished = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    tq_op *op = tq_op_alloc(client, on_done, &finished);

    if (op == NULL || tq_claim(op, claim) != TQ_OK) {
        exit(1);
    }
    pthread_mutex_lock(&finished.lock);
    while (!finished.is) {
        pthread_cond_wait(&finished.changed, &finished.lock);
    }
    pthread_mutex_unlock(&finished.lock);
    tq_op_wait(op); /* until the callback has returned, too */
    printf("heard: %s, done: %s\n", tq_error_name(tq_op_error(op)->code), tq_op_done(op) ? "yes" : "no");
    tq_op_free(op);
}

int main(void)
{
    const float numbers[4] = {1, 2, 3, 4};
    const char *field = "x";
    const char *missing = "reward";
    tq_client *client = open_client();
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    tq_claim_args first = claim_of("first", &field), never = claim_of("never", &missing);

    take_the_log(stderr);
    put_numbers(op, "ops", numbers, 4);
    if (tq_claim(op, &first) == TQ_OK) {
        wait_in_turns(op);
    }
    end_by_deadline(op, &never);
    end_by_cancelling(op, &never);
    hear_by_callback(client, &first);
    done(op, tq_clear_partition(op, "ops"));
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
