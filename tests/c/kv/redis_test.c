/*
 * redis_test.c - the Redis client of the KV manager against real servers, started here: over a unix socket and TCP,
 * with users and databases, full, restarted; and its configuration.
 */
#include "testkit_batch.h"
#include "tests/c/testkit_wait.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "manager/kv/redis/redis.h"

/* --- servers -------------------------------------------------------------- */

typedef struct server {
    char dir[64];
    char config[256]; /* for the manager */
    int port;
    pid_t pid;
} server;

static server redis;
static bench on;

/* Starts the server and waits for its "ready" line. */
static void server_start(server *s, const char *const *more)
{
    char port[16], socket[96], line[512];
    const char *args[32] = {"redis-server", "--port", port,     "--bind",     "127.0.0.1",
                            "--unixsocket", socket,   "--save", "",           "--appendonly",
                            "no",           "--dir",  s->dir,   "--loglevel", "notice"};
    size_t n = 15;
    int out[2];

    snprintf(port, sizeof(port), "%d", s->port);
    snprintf(socket, sizeof(socket), "%s/redis.sock", s->dir);
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        args[n++] = more[i];
    }
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        dup2(out[1], 1);
        dup2(out[1], 2);
        execvp(args[0], (char *const *)(uintptr_t)args);
        _exit(127);
    }
    close(out[1]);
    FILE *log = fdopen(out[0], "r");
    assert_non_null(log);
    bool ready = false;
    while (!ready && fgets(line, sizeof(line), log) != NULL) {
        ready = strstr(line, "The server is now ready to accept connections at") != NULL;
    }
    fclose(log);
    assert_true(ready);
}

static void server_stop(server *s, int signal)
{
    int status;

    kill(s->pid, signal);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
}

/* A free port: bound once, so that nobody else is on it. */
static int server_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void server_make(server *s, const char *const *more)
{
    memset(s, 0, sizeof(*s));
    strcpy(s->dir, "/tmp/tq-redis-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    s->port = server_port();
    server_start(s, more);
    snprintf(s->config, sizeof(s->config), "{\"url\": \"unix://%s/redis.sock\"}", s->dir);
}

static void server_remove(server *s)
{
    server_stop(s, SIGTERM);
    assert_int_equal(rmdir(s->dir), 0); /* it leaves nothing */
}

/* The number that a command answers. */
static long long server_ask(const server *s, const char *command)
{
    char path[96];

    snprintf(path, sizeof(path), "%s/redis.sock", s->dir);
    redisContext *context = redisConnectUnix(path);
    assert_non_null(context);
    assert_int_equal(context->err, 0);
    redisReply *reply = redisCommand(context, command);
    assert_non_null(reply);
    assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
    long long answer = reply->integer;
    freeReplyObject(reply);
    redisFree(context);
    return answer;
}

static int setup(void **state)
{
    (void)state;
    server_make(&redis, NULL);
    bench_start(&on);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bench_stop(&on);
    server_remove(&redis);
    return 0;
}

/* --- tests ---------------------------------------------------------------- */

/* Keys that are not values: the keepalive of the system, the search keepalive, and the mark. */
#define KEYS_KEPT 3

/* Removal comes after the clear, on another thread. */
static void wait_empty(void)
{
    TESTKIT_WAIT_UNTIL("the values to be removed", server_ask(&redis, "DBSIZE") <= KEYS_KEPT);
}

static void moves_over_unix(void **state)
{
    (void)state;
    bench_open(&on, "Redis", redis.config, NULL);
    batches_move(&on, wait_empty);
}

static void moves_over_tcp(void **state)
{
    char config[128];

    (void)state;
    snprintf(config, sizeof(config), "{\"url\": \"redis://127.0.0.1:%d\"}", redis.port);
    bench_open(&on, "Redis", config, NULL);
    batches_move(&on, wait_empty);
}

static void uses_user_and_database(void **state)
{
    char config[256];
    tq_error err = {0};
    batch b;
    uint32_t rows[2] = {1, 0};

    (void)state;
    server_ask(&redis, "ACL SETUSER ann on >pa:ss/w@rd ~tq/* +@all");
    snprintf(config, sizeof(config), "{\"url\": \"redis://ann:pa%%3Ass%%2Fw%%40rd@127.0.0.1:%d/3\"}", redis.port);
    bench_open(&on, "Redis", config, NULL);
    batch_make(&b, "private", 2, 2, 100000, 0);
    tq_meta *meta = batch_put(&on, &b);
    batch_check(&on, &b, meta, rows, 2);
    assert_int_equal(server_ask(&redis, "DBSIZE"), 0); /* it is in database 3 */
    tq_meta_unref(meta);
    batch_free(&b);

    bench other = on;
    snprintf(config, sizeof(config), "{\"url\": \"redis://ann:s3cr3t@127.0.0.1:%d/3\"}", redis.port);
    assert_int_equal(bench_open(&other, "Redis", config, &err), TQ_EAUTH);
    assert_non_null(strstr(err.message, "WRONGPASS"));
    assert_null(strstr(err.message, "s3cr3t"));
    snprintf(config, sizeof(config), "{\"url\": \"redis://127.0.0.1:%d/99\"}", redis.port);
    assert_int_equal(bench_open(&other, "Redis", config, &err), TQ_ECONFIG);
    assert_non_null(strstr(err.message, "database"));
}

static void needs_a_server(void **state)
{
    char config[128];
    tq_error err = {0};

    (void)state;
    snprintf(config, sizeof(config), "{\"url\": \"redis://127.0.0.1:%d\", \"timeout\": 2}", server_port());
    assert_int_equal(bench_open(&on, "Redis", config, &err), TQ_EUNREACHABLE);
    assert_non_null(strstr(err.message, "127.0.0.1"));
    assert_int_equal(bench_open(&on, "Redis", "{\"url\": \"unix:///nowhere/redis.sock\"}", &err), TQ_EUNREACHABLE);
    assert_non_null(strstr(err.message, "/nowhere/redis.sock"));
}

static void waits_for_room(void **state)
{
    batch first, second;
    uint32_t rows[1] = {0};

    (void)state;
    bench_open(&on, "Redis", redis.config, NULL);
    server_ask(&redis, "CONFIG SET maxmemory 16mb maxmemory-policy noeviction");
    batch_make(&first, "first", 1, 100, 100000, 0);
    batch_make(&second, "second", 1, 80, 100000, 0);
    tq_meta_unref(batch_put(&on, &first));
    long long values = server_ask(&redis, "DBSIZE");
    second.args.fail_when_full = true;
    expect_error(on.op, tq_put(on.op, &second.args), TQ_EFULL, "OOM");
    assert_non_null(strstr(tq_op_error(on.op)->message, " is full and refused "));
    assert_non_null(strstr(tq_op_error(on.op)->message, "; clear samples, or raise the server's maxmemory"));
    TESTKIT_WAIT_UNTIL("the refused put to be removed", server_ask(&redis, "DBSIZE") <= values);
    second.args.fail_when_full = false;
    tq_op *waiting = tq_op_alloc(on.client, NULL, NULL);
    assert_int_equal(tq_put(waiting, &second.args), TQ_OK);
    expect_ok(on.op, tq_clear_partition(on.op, "first"));
    assert_int_equal(tq_op_wait(waiting), TQ_OK);
    batch_check(&on, &second, tq_op_meta(waiting), rows, 1);
    tq_op_free(waiting);
    batch_free(&first);
    batch_free(&second);
}

/* Starts a server that was killed. */
static void server_again(server *s)
{
    char left[96];

    snprintf(left, sizeof(left), "%s/redis.sock", s->dir);
    unlink(left);
    server_start(s, NULL);
}

/* Idle connections that the server has closed are no failure of what is asked next. */
static void goes_on_after_a_restart(void **state)
{
    batch b;
    uint32_t rows[3] = {2, 0, 1};

    (void)state;
    bench_open(&on, "Redis", redis.config, NULL);
    batch_make(&b, "again", 2, 3, 500, 0);
    for (int i = 0; i < 2; i++) {
        tq_meta *meta = batch_put(&on, &b);
        batch_check(&on, &b, meta, rows, 3);
        server_stop(&redis, SIGKILL);
        server_again(&redis);
        if (i == 0) {
            expect_error(on.op, tq_get(on.op, meta, NULL, 0, NULL), TQ_ELOST, "again");
            server_stop(&redis, SIGKILL);
            server_again(&redis);
        }
        tq_meta_unref(meta);
    }
    tq_meta_unref(batch_put(&on, &b));
    batch_free(&b);
}

static void outlives_the_server(void **state)
{
    batch b;
    uint32_t rows[3] = {2, 0, 1};

    (void)state;
    bench_open(&on, "Redis", redis.config, NULL);
    batch_make(&b, "kept", 2, 3, 90000, 0);
    tq_meta *meta = batch_put(&on, &b);
    batch_check(&on, &b, meta, rows, 3);
    server_stop(&redis, SIGKILL);
    tq_op_set_timeout(on.op, 5);
    expect_error(on.op, tq_get(on.op, meta, NULL, 0, NULL), TQ_EUNREACHABLE, "Redis");
    server_again(&redis);
    tq_op_set_timeout(on.op, 60);
    /* It kept nothing: the reader's error names the lost samples, and they can be written again. */
    expect_error(on.op, tq_get(on.op, meta, NULL, 0, NULL), TQ_ELOST, "kept");
    b.args.meta = meta;
    b.args.partition = NULL;
    expect_ok(on.op, tq_put(on.op, &b.args));
    batch_check(&on, &b, tq_op_meta(on.op), rows, 3);
    tq_meta_unref(meta);
    batch_free(&b);
}

static void reads_its_config(void **state)
{
    static const struct {
        const char *json, *message;
    } bad[] = {
        {"[]", "object"},
        {"{}", "Redis.url"},
        {"{\"url\": 5}", "Redis.url"},
        {"{\"url\": \"http://host\"}", "'http:'"},
        {"{\"url\": \"rediss://host\"}", "TLS"},
        {"{\"url\": \"redis://\"}", "host"},
        {"{\"url\": \"redis://host:70000\"}", "port"},
        {"{\"url\": \"redis://host/x\"}", "database"},
        {"{\"url\": \"redis://host:1 2\"}", "expected redis://"},
        {"{\"url\": \"unix:///\"}", "path"},
        {"{\"url\": \"unix:///a?name=x\"}", "?db="},
        {"{\"url\": \"redis://h\", \"cluster\": 1}", "cluster"},
        {"{\"url\": \"redis://h\", \"timeout\": 0}", "timeout"},
        {"{\"url\": \"redis://h\", \"ulr\": 0}", "ulr"},
        {"{\"ulr\": \"redis://h\"}", "Redis.ulr: unknown key"},
        {"{\"url\": \"redis://h/1\", \"cluster\": true}", "cluster"},
    };
    tqi_redis_config config;
    tq_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(tqi_redis_config_read(&config, bad[i].json, &err), TQ_ECONFIG);
        if (strstr(err.message, bad[i].message) == NULL) {
            fail_msg("%s: %s", bad[i].json, err.message);
        }
    }
    assert_int_equal(tqi_redis_config_read(&config, "{\"url\": \"redis://[::1]:7/2\"}", &err), 0);
    assert_string_equal(config.host, "::1");
    assert_int_equal(config.port, 7);
    assert_int_equal(config.db, 2);
    assert_int_equal(tqi_redis_config_read(&config, "{\"url\": \"unix://:p%40ss@/a/b%20c?db=4\"}", &err), 0);
    assert_string_equal(config.path, "/a/b c");
    assert_string_equal(config.password, "p@ss");
    assert_string_equal(config.user, "");
    assert_int_equal(config.db, 4);
}

static void knows_the_slots(void **state)
{
    (void)state;
    assert_int_equal(tqi_redis_slot("123456789"), 0x31c3); /* of the cluster specification */
    assert_int_equal(tqi_redis_slot("{user1000}.following"), tqi_redis_slot("user1000"));
    assert_int_equal(tqi_redis_slot("{}a"), tqi_redis_slot("{}a"));
    assert_int_not_equal(tqi_redis_slot("{}a"), tqi_redis_slot("{}b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_its_config),
        cmocka_unit_test(knows_the_slots),
        cmocka_unit_test_setup_teardown(moves_over_unix, setup, teardown),
        cmocka_unit_test_setup_teardown(moves_over_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(uses_user_and_database, setup, teardown),
        cmocka_unit_test_setup_teardown(needs_a_server, setup, teardown),
        cmocka_unit_test_setup_teardown(waits_for_room, setup, teardown),
        cmocka_unit_test_setup_teardown(goes_on_after_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(outlives_the_server, setup, teardown),
    };

    return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
