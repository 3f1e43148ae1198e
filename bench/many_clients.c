/*
 * many_clients.c - clients that put, claim, read and clear one sample each, all at once.
 *
 * many_clients COUNT ROUNDS, on the system of TQ_ADDRESS and TQ_TOKEN_FILE. Says "open" when all are connected and does
 * nothing until a line comes in; then each client goes round on its own, driven by the ends of its calls. Prints the
 * seconds of every round, one per line, then "done", and leaves at the next line.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <tq/tq.h>

enum {
    WIDTH = 16,
    FIELDS = 3
};

static const char *const names[FIELDS] = {"ids", "log_probs", "reward"};

/* One client with its ops: an op cannot be started again where it ends, so each step has its own. */
typedef struct one {
    tq_client *client;
    tq_op *put, *claim, *get, *clear;
    tq_meta *meta;
    double started;
    double *seconds; /* per round */
    int round, rounds;
} one;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static int running;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void check(const tq_op *op, int rc, const char *what)
{
    const tq_error *err = tq_op_error(op);

    if (rc != TQ_OK || err->code != TQ_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, tq_error_name(err->code), err->message);
        exit(1);
    }
}

static void one_start(one *client)
{
    static const float values[WIDTH];
    static const uint64_t shape[1] = {WIDTH};
    static const tq_slice bytes = {values, sizeof(values)};
    tq_column columns[FIELDS];
    const tq_put_args put = {.size = sizeof(put), .partition = "many", .n = 1, .columns = columns, .n_columns = FIELDS};

    for (int field = 0; field < FIELDS; field++) {
        columns[field] = (tq_column){
            .name = names[field],
            .dtype = {TQ_FLOAT, 32},
            .rows = 1,
            .ndim = 1,
            .shape = shape,
            .slices = &bytes,
            .n_slices = 1,
        };
    }
    client->started = now();
    check(client->put, tq_put(client->put, &put), "put");
}

static void one_put(tq_op *op, void *arg)
{
    one *client = arg;
    const tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "many",
        .fields = names,
        .n_fields = FIELDS,
        .batch_size = 1,
        .task = "all",
    };

    check(op, TQ_OK, "put");
    check(client->claim, tq_claim(client->claim, &claim), "claim");
}

static void one_claimed(tq_op *op, void *arg)
{
    one *client = arg;

    check(op, TQ_OK, "claim");
    client->meta = tq_meta_ref(tq_op_meta(op));
    check(client->get, tq_get(client->get, client->meta, NULL, 0, NULL), "get");
}

static void one_read(tq_op *op, void *arg)
{
    one *client = arg;

    check(op, TQ_OK, "get");
    check(client->clear, tq_clear_meta(client->clear, client->meta), "clear");
}

static void one_cleared(tq_op *op, void *arg)
{
    one *client = arg;

    check(op, TQ_OK, "clear");
    tq_meta_unref(client->meta);
    client->meta = NULL;
    client->seconds[client->round++] = now() - client->started;
    if (client->round < client->rounds) {
        one_start(client);
        return;
    }
    pthread_mutex_lock(&lock);
    running--;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&lock);
}

static void one_open(one *client, int rounds)
{
    const tq_client_options options = {.size = sizeof(options), .timeout = 300};
    tq_error err;

    if (tq_client_open(&options, &client->client, &err) != TQ_OK) {
        fprintf(stderr, "open: %s: %s\n", tq_error_name(err.code), err.message);
        exit(1);
    }
    client->rounds = rounds;
    client->seconds = calloc((size_t)rounds, sizeof(*client->seconds));
    client->put = tq_op_alloc(client->client, one_put, client);
    client->claim = tq_op_alloc(client->client, one_claimed, client);
    client->get = tq_op_alloc(client->client, one_read, client);
    client->clear = tq_op_alloc(client->client, one_cleared, client);
    if (client->seconds == NULL || client->put == NULL || client->claim == NULL || client->get == NULL ||
        client->clear == NULL) {
        fprintf(stderr, "open: out of memory\n");
        exit(1);
    }
}

static void one_close(one *client)
{
    tq_op_free(client->put);
    tq_op_free(client->claim);
    tq_op_free(client->get);
    tq_op_free(client->clear);
    tq_client_close(client->client);
    free(client->seconds);
}

static void next_line(const char *said)
{
    char line[16];

    printf("%s\n", said);
    fflush(stdout);
    if (fgets(line, sizeof(line), stdin) == NULL) {
        exit(0);
    }
}

int main(int argc, char **argv)
{
    int count = argc == 3 ? (int)strtol(argv[1], NULL, 10) : 0;
    int rounds = argc == 3 ? (int)strtol(argv[2], NULL, 10) : 0;
    struct rlimit files;

    if (count < 1 || rounds < 1) {
        fprintf(stderr, "usage: many_clients COUNT ROUNDS\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    one *clients = calloc((size_t)count, sizeof(*clients));
    if (clients == NULL) {
        return 1;
    }
    for (int i = 0; i < count; i++) {
        one_open(&clients[i], rounds);
    }
    next_line("open");
    running = count;
    for (int i = 0; i < count; i++) {
        one_start(&clients[i]);
    }
    pthread_mutex_lock(&lock);
    while (running > 0) {
        pthread_cond_wait(&ended, &lock);
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < count; i++) {
        for (int round = 0; round < rounds; round++) {
            printf("%.6f\n", clients[i].seconds[round]);
        }
    }
    next_line("done");
    for (int i = 0; i < count; i++) {
        one_close(&clients[i]);
    }
    free(clients);
    return 0;
}
