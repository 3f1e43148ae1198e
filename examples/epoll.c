/* epoll.c - a program with an event loop of its own: one thread waits for a timer, puts and claims, with epoll. */
#include <err.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <tq/tq.h>

#define ROUNDS 8

static const char *const field = "x";
static float rows[ROUNDS]; /* bytes that are put stay where they are until the put is done */
static tq_slice slices[ROUNDS];

static tq_op *make(tq_client *client, tq_queue *queue, const char *what)
{
    tq_op *op = tq_op_alloc(client, NULL, (void *)(uintptr_t)what);

    tq_op_set_queue(op, queue); /* instead of a callback on another thread */
    return op;
}

static void check(const tq_op *op, int rc)
{
    if (rc != TQ_OK) {
        errx(1, "%s: %s", (const char *)tq_op_arg(op), tq_op_error(op)->message);
    }
}

/* Starts a claim, and a put that it waits for. */
static void start(tq_client *client, tq_queue *queue, int round)
{
    tq_claim_args claim = {.size = sizeof(claim), .partition = "epoll", .task = "reader"};
    tq_op *claims = make(client, queue, "claim"), *puts = make(client, queue, "put");

    claim.fields = &field;
    claim.n_fields = claim.batch_size = 1;
    rows[round] = (float)round;
    slices[round] = (tq_slice){&rows[round], sizeof(rows[round])};
    const tq_column column = tq_column_make(field, TQ_FLOAT, 32, 1, &slices[round]);
    const tq_put_args put = {.size = sizeof(put), .partition = "epoll", .columns = &column, .n_columns = 1};
    check(claims, tq_claim(claims, &claim));
    check(puts, tq_put(puts, &put));
}

int main(void)
{
    const struct itimerspec tick = {{0, 10000000}, {0, 1}};
    const tq_client_options options = {.size = sizeof(options), .name = "epoll"};
    int loop = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, 0), started = 0, done = 0;
    tq_client *client;
    tq_queue *queue;
    tq_error error;

    if (tq_client_open(&options, &client, &error) != TQ_OK || tq_queue_alloc(&queue, &error) != TQ_OK) {
        errx(1, "%s", error.message);
    }
    timerfd_settime(timer, 0, &tick, NULL);
    epoll_ctl(loop, EPOLL_CTL_ADD, timer, &(struct epoll_event){.events = EPOLLIN, .data.fd = timer});
    epoll_ctl(loop, EPOLL_CTL_ADD, tq_queue_fd(queue), &(struct epoll_event){.events = EPOLLIN, .data.fd = -1});
    while (done < 2 * ROUNDS) {
        struct epoll_event event;
        uint64_t ticks;
        tq_op *op;
        epoll_wait(loop, &event, 1, -1);
        if (event.data.fd == timer && read(timer, &ticks, sizeof(ticks)) > 0 && started < ROUNDS) {
            start(client, queue, started++);
        }
        for (; tq_queue_take(queue, &op, 1) == 1; tq_op_free(op)) {
            check(op, tq_op_error(op)->code);
            printf("%s %d is done\n", (const char *)tq_op_arg(op), ++done);
        }
    }
    tq_queue_free(queue);
    tq_client_close(client);
    return 0;
}
