/*
 * crowd.c - many sessions of one process, each of which waits for a sample, on one loop: crowd COUNT, at the system of
 * TQ_ADDRESS and TQ_TOKEN_FILE. Says "open" when all of them wait; when all of those calls have ended it prints how
 * many ended with each error, and leaves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "net/net.h"

#include <tq/tq.h>

/* Sessions that are opened at a time. */
#define CROWD_OPENING 64u
#define CROWD_CODES   64

typedef struct one {
    tqi_net_connector *connector;
    tqi_net_channel *channel;
} one;

static uv_loop_t loop;
static one *clients;
static size_t count, begun, opened, ended, closed;
static unsigned codes[CROWD_CODES];
static tqi_net_token token;
static const char *address;

static void crowd_fail(const char *what, const tq_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    exit(1);
}

static void crowd_call(one *client, uint16_t kind, const void *message,
                       void (*done)(tqi_net_call *call, tqi_net_answer *answer, void *arg))
{
    tq_error err = {0};
    const tqi_net_call_args args = {.kind = kind, .message = message, .deadline = TQI_NEVER, .done = done, .arg = client};
    tqi_net_call *call;

    if (tqi_net_call_start(client->channel, &args, &call, &err) != TQ_OK) {
        crowd_fail("call", &err);
    }
}

static void crowd_closed(void *arg)
{
    (void)arg;
    closed++;
}

static void crowd_ended(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)arg;
    codes[-answer->status % CROWD_CODES]++;
    ended++;
}

static void crowd_open(void);

static void crowd_opened(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    char field[] = "x";
    char *fields[] = {field};
    char partition[] = "nothing comes";
    char task[] = "wait";
    Tq__Claim wait;

    (void)call;
    tq__claim__init(&wait);
    if (answer->status != TQ_OK) {
        crowd_fail("open", answer->error);
    }
    wait.partition = partition;
    wait.field = fields;
    wait.n_field = 1;
    wait.batch_size = 1;
    wait.task = task;
    crowd_call(arg, TQI_CLAIM, &wait, crowd_ended);
    opened++;
    crowd_open();
}

static void crowd_open(void)
{
    const tqi_net_connector_options options = {.token = &token, .name = "one of many"};
    Tq__ListPartitions hello = TQ__LIST_PARTITIONS__INIT;
    tq_error err = {0};

    if (begun == count) {
        return;
    }
    one *client = &clients[begun++];
    if (tqi_net_connector_alloc(&loop, &options, &client->connector, &err) != TQ_OK ||
        tqi_net_channel_get(client->connector, address, &client->channel, &err) != TQ_OK) {
        crowd_fail("connector", &err);
    }
    crowd_call(client, TQI_LIST_PARTITIONS, &hello, crowd_opened);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    tq_error err = {0};
    const char *file = getenv("TQ_TOKEN_FILE");

    address = getenv("TQ_ADDRESS");
    count = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    clients = calloc(count + 1, sizeof(*clients));
    if (!count || clients == NULL || address == NULL || file == NULL || uv_loop_init(&loop) != 0) {
        fprintf(stderr, "usage: crowd COUNT, with TQ_ADDRESS and TQ_TOKEN_FILE\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (tqi_net_token_load(file, &token, &err) != TQ_OK) {
        crowd_fail("token", &err);
    }
    for (size_t i = 0; i < CROWD_OPENING; i++) {
        crowd_open();
    }
    while (opened < count) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    printf("open\n");
    fflush(stdout);
    while (ended < count) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    for (int rc = 0; rc < CROWD_CODES; rc++) {
        if (codes[rc]) {
            printf("%s %u\n", rc ? tq_error_name(-rc) : "TQ_OK", codes[rc]);
        }
    }
    fflush(stdout);
    for (size_t i = 0; i < count; i++) {
        tqi_net_channel_unref(clients[i].channel);
        tqi_net_connector_close(clients[i].connector, crowd_closed, NULL);
    }
    while (closed < count) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    free(clients);
    return uv_loop_close(&loop) == 0 ? 0 : 1;
}
