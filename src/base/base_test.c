/*
 * base_test.c - errors, buffers, time, log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tq/tq.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

static void every_code_has_a_name_and_a_text(void **state)
{
    (void)state;
    assert_string_equal(tq_strerror(TQ_OK), "success");
    assert_string_equal(tq_strerror(TQ_EKEY), "unknown key");
    assert_string_equal(tq_error_name(TQ_OK), "TQ_OK");
    assert_string_equal(tq_error_name(TQ_EINTERNAL), "TQ_EINTERNAL");
    assert_string_equal(tq_strerror(12345), "unknown error");
    assert_string_equal(tq_error_name(-12345), "TQ_E?");
}

static void the_headers_and_the_build_have_one_version(void **state)
{
    char text[32];

    (void)state;
    snprintf(text, sizeof(text), "%d.%d.%d", TQ_VERSION_MAJOR, TQ_VERSION_MINOR, TQ_VERSION_PATCH);
    assert_string_equal(text, tq_version()); /* the headers and the build agree */
    assert_string_equal(text, TQI_VERSION);
    assert_int_equal(TQ_VERSION, TQ_VERSION_NUMBER(TQ_VERSION_MAJOR, TQ_VERSION_MINOR, TQ_VERSION_PATCH));
    assert_true(TQ_VERSION_NUMBER(0, 10, 0) > TQ_VERSION_NUMBER(0, 9, 99));
}

static void an_error_has_its_code_and_message(void **state)
{
    (void)state;
    tq_error err = {0};
    assert_int_equal(tqi_error_set(&err, TQ_EKEY, "key '%s'", "a"), TQ_EKEY);
    assert_int_equal(err.code, TQ_EKEY);
    assert_string_equal(err.message, "key 'a'");
    assert_int_equal(tqi_error_set(NULL, TQ_EKEY, "key"), TQ_EKEY);
    /* A message may be wrapped in place. */
    tqi_error_set(&err, TQ_EPARTITION, "in p: %s", err.message);
    assert_string_equal(err.message, "in p: key 'a'");
    assert_int_equal(tqi_error_nomem(&err, "a batch"), TQ_ENOMEM);
    assert_string_equal(err.message, "out of memory for a batch");
    assert_int_equal(tqi_error_errno(&err, 2, "open x"), TQ_EIO);
    assert_string_equal(err.message, "open x: No such file or directory");
}

static void a_long_message_is_cut_between_letters(void **state)
{
    (void)state;
    /* Every way a sequence of 1 to 4 bytes can meet the end. */
    static const char *const letters[] = {"a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    for (size_t l = 0; l < 4; l++) {
        for (size_t lead = 0; lead < 5; lead++) {
            char text[1024] = "";
            memset(text, '.', lead);
            while (strlen(text) + strlen(letters[l]) + 1 < sizeof(text)) {
                strcat(text, letters[l]);
            }
            tq_error err;
            tqi_error_set(&err, TQ_EINVAL, "%s", text);
            size_t size = strlen(err.message);
            assert_true(size >= TQ_ERROR_MESSAGE_MAX - 4 && size < TQ_ERROR_MESSAGE_MAX);
            assert_int_equal((size - lead) % strlen(letters[l]), 0);
            assert_memory_equal(err.message, text, size);
        }
    }
}

static void bad_names_are_refused_and_shown(void **state)
{
    (void)state;
    tq_error err = {0};
    char name[300];
    memset(name, 'n', sizeof(name));
    name[255] = 0;
    assert_int_equal(tqi_check_name("field", name, 255, &err), TQ_OK);
    name[255] = 'n';
    name[256] = 0;
    assert_int_equal(tqi_check_name("field", name, 255, &err), TQ_ENAME);
    assert_non_null(strstr(err.message, "field"));
    assert_non_null(strstr(err.message, "256"));
    assert_int_equal(tqi_check_name("task", "", 255, &err), TQ_ENAME);
    assert_string_equal(err.message, "task name is empty");
    assert_int_equal(tqi_check_name("task", NULL, 255, NULL), TQ_ENAME);
    assert_int_equal(tqi_check_name("key", "12345678\x1b[2J", 255, &err), TQ_ENAME);
    assert_non_null(strstr(err.message, "key name '12345678\\x1b[2J' has a control character"));
    assert_non_null(strstr(err.message, "at byte 8 (0x1b)"));
    assert_int_equal(tqi_check_name("key", "a\xff", 255, &err), TQ_ENAME);
    assert_non_null(strstr(err.message, "what is not UTF-8 at byte 1 (0xff)"));
    assert_int_equal(tqi_check_size("tag", "\x1f\xff", 255, &err), TQ_OK);
}

static void a_buffer_grows_and_refuses_what_overflows(void **state)
{
    (void)state;
    tqi_buf buf = {0};
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(tqi_buf_append(&buf, &i, sizeof i), TQ_OK);
    }
    assert_int_equal(buf.size, 4000);
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t value;
        memcpy(&value, buf.data + 4 * i, sizeof(value));
        sum += value;
    }
    assert_int_equal(sum, 499500);
    assert_int_equal(tqi_buf_reserve(&buf, SIZE_MAX - 10), TQ_ENOMEM);
    assert_int_equal(tqi_buf_reserve(&buf, PTRDIFF_MAX / 2), TQ_ENOMEM);
    assert_int_equal(buf.size, 4000);
    assert_int_equal(tqi_buf_append(&buf, NULL, 0), TQ_OK);
    tqi_buf_fini(&buf);
    assert_int_equal(tqi_buf_printf(&buf, "%s-%d", "x", 5), TQ_OK);
    assert_int_equal(tqi_buf_printf(&buf, "%s", ""), TQ_OK);
    assert_int_equal(buf.size, 3);
    assert_string_equal((const char *)buf.data, "x-5");
    tqi_buf_fini(&buf);
    assert_null(buf.data);
}

static void an_array_grows_and_keeps_its_items(void **state)
{
    (void)state;
    uint64_t *items = NULL;
    size_t capacity = 0;
    assert_int_equal(tqi_grow(&items, &capacity, 3, sizeof *items), TQ_OK);
    assert_true(capacity >= 3);
    items[2] = 9;
    assert_int_equal(tqi_grow(&items, &capacity, 100, sizeof *items), TQ_OK);
    assert_true(capacity >= 100);
    assert_int_equal(items[2], 9);
    size_t before = capacity;
    assert_int_equal(tqi_grow(&items, &capacity, SIZE_MAX / 8, sizeof *items), TQ_ENOMEM);
    assert_int_equal(capacity, before);
    free(items);
}

static void deadlines_and_random_bytes_are_as_promised(void **state)
{
    (void)state;
    uint64_t a = tqi_now();
    uint64_t b = tqi_now();
    assert_true(b >= a);
    assert_true(tqi_wall_us() > 1600000000000000);
    assert_true(tqi_deadline(-1) == TQI_NEVER);
    assert_true(tqi_deadline(1e30) == TQI_NEVER);
    assert_true(tqi_deadline(__builtin_nan("")) == TQI_NEVER);
    uint64_t deadline = tqi_deadline(2);
    assert_true(deadline > a + 1900000000u && deadline < tqi_now() + 2000000001u);
    assert_true(tqi_deadline(0) <= tqi_now());
    assert_int_not_equal(tqi_random_id(), tqi_random_id());
    uint8_t bytes[64] = {0}, none[64] = {0};
    tqi_random(bytes, sizeof(bytes));
    assert_memory_not_equal(bytes, none, sizeof bytes);
}

struct lines {
    atomic_int count;
    char last[64];
};

/* Taken as wall-clock time, this deadline, which counts from boot, would have passed years ago. */
static void a_condition_waits_by_the_clock_of_deadlines(void **state)
{
    (void)state;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond;
    tqi_cond_init(&cond);
    uint64_t deadline = tqi_deadline(0.02);
    int rc = 0;
    pthread_mutex_lock(&lock);
    while (rc == 0) {
        rc = tqi_cond_wait_until(&cond, &lock, deadline);
    }
    pthread_mutex_unlock(&lock);
    assert_int_equal(rc, ETIMEDOUT);
    assert_true(tqi_now() >= deadline);
    pthread_cond_destroy(&cond);
}

static void log_keep(tq_log_level level, const char *component, const char *text, void *arg)
{
    struct lines *lines = arg;

    if (atomic_fetch_add(&lines->count, 1) >= 3) {
        return; /* of several threads at a time */
    }
    snprintf(lines->last, sizeof(lines->last), "%d %s %s", (int)level, component, text);
}

static void *log_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++) {
        tqi_log(TQI_INFO, "thread", "line %d", i);
    }
    return NULL;
}

static void lines_are_filtered_escaped_and_never_lost(void **state)
{
    (void)state;
    struct lines lines = {0};
    assert_int_equal(tqi_log_parse_level("error"), TQI_ERROR);
    assert_int_equal(tqi_log_parse_level("debug"), TQI_DEBUG);
    assert_int_equal(tqi_log_parse_level("loud"), -1);
    tq_log_set_sink(log_keep, &lines);
    tq_log_set_level(TQI_WARN);
    tqi_log(TQI_INFO, "c", "not wanted");
    assert_int_equal(lines.count, 0);
    tqi_log(TQI_WARN, "c", "n=%d", 3);
    assert_int_equal(lines.count, 1);
    assert_string_equal(lines.last, "1 c n=3");
    /* A name from elsewhere does not begin a line. */
    tqi_log(TQI_WARN, "c", "%s", "a\nb");
    assert_string_equal(lines.last, "1 c a\\x0ab");
    tq_log_set_level(TQI_INFO);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, NULL), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(lines.count, 3002);
    tq_log_set_sink(NULL, NULL);
    tq_log_set_level(TQI_WARN);
}

/* A sink that waits until two threads are in it. */
static void log_meet(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)level;
    (void)component;
    (void)text;
    pthread_barrier_wait(arg);
}

/* A sink that another thread enters and leaves with the test. */
static void log_stay(tq_log_level level, const char *component, const char *text, void *arg)
{
    log_meet(level, component, text, arg);
    log_meet(level, component, text, arg);
}

static void *log_one(void *arg)
{
    (void)arg;
    tqi_log(TQI_WARN, "thread", "a line");
    return NULL;
}

/* One thread in the sink may wait for what another one, which logs too, holds. */
static void two_threads_can_be_in_the_sink(void **state)
{
    pthread_barrier_t both;
    pthread_t thread;

    (void)state;
    pthread_barrier_init(&both, NULL, 2);
    tq_log_set_sink(log_meet, &both);
    assert_int_equal(pthread_create(&thread, NULL, log_one, NULL), 0);
    log_one(NULL);
    tq_log_set_sink(NULL, NULL);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&both);
}

/* The parent's other thread is in the sink when the process forks: the child can still log, and set a sink. */
static void a_child_forked_while_a_thread_logs_can_log(void **state)
{
    struct lines lines = {0};
    pthread_barrier_t both;
    pthread_t thread;
    int status = 0;

    (void)state;
    pthread_barrier_init(&both, NULL, 2);
    tq_log_set_sink(log_stay, &both);
    assert_int_equal(pthread_create(&thread, NULL, log_one, NULL), 0);
    pthread_barrier_wait(&both);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        tq_log_set_sink(log_keep, &lines);
        tqi_log(TQI_WARN, "child", "a line");
        _exit(atomic_load(&lines.count) == 1 ? 0 : 1);
    }
    pthread_barrier_wait(&both);
    pthread_join(thread, NULL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    tq_log_set_sink(NULL, NULL);
    pthread_barrier_destroy(&both);
}

static void names_are_listed_until_the_text_is_full(void **state)
{
    char *names[] = {"a", "bb", "ccc"};
    char out[12];

    (void)state;
    tqi_text text = tqi_text_begin(out, sizeof(out));
    assert_string_equal(out, "");
    tqi_text_add_names(&text, names, 3);
    assert_string_equal(out, "a, bb, ccc");
    tqi_text_add(&text, "; %d", 12);
    assert_string_equal(out, "a, bb, ccc;");
    assert_int_equal(text.left, 1);
    tqi_text_add(&text, "more");
    tqi_text_add_names(&text, names, 3);
    assert_string_equal(out, "a, bb, ccc;");
}

/* Every byte, at every place of a word and beyond it. */
static void plain_text_ends_at_the_first_control_or_bad_byte(void **state)
{
    static const struct {
        const char *text;
        size_t plain;
    } cases[] = {
        {"", 0},
        {"\xc2\xa0", 2}, /* the first behind the controls of C1 */
        {"\xc2\x9f", 0}, /* the last of them */
        {"\xdf\xbf", 2},
        {"\xc0\xaf", 0}, /* overlong */
        {"\xe0\xa0\x80", 3},
        {"\xe0\x9f\xbf", 0},
        {"\xed\x9f\xbf\xed\xa0\x80", 3}, /* a half of a surrogate pair */
        {"\xf0\x90\x80\x80", 4},
        {"\xf0\x8f\xbf\xbf", 0},
        {"\xf4\x8f\xbf\xbf", 4},
        {"\xf4\x90\x80\x80", 0},
        {"\xf5\x80\x80\x80", 0},
        {"abc\xe2\x82", 3}, /* cut off */
        {"0123456\xe2\x82\xac"
         "89\n",
         12},
    };
    char text[24];

    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(tqi_text_plain(cases[i].text, strlen(cases[i].text)), cases[i].plain);
    }
    for (size_t at = 0; at < sizeof(text); at++) {
        for (int byte = 0; byte < 128; byte++) {
            memset(text, 'x', sizeof(text));
            text[at] = (char)byte;
            assert_int_equal(tqi_text_plain(text, sizeof text), byte < 0x20 || byte == 0x7f ? at : sizeof text);
        }
    }
}

static void bytes_that_are_not_plain_are_escaped(void **state)
{
    char out[12];

    (void)state;

    tqi_text_escape(out, sizeof(out), "a\nb\xff");
    assert_string_equal(out, "a\\x0ab\\xff");
    tqi_text_escape(out, sizeof(out), "0123456789abcdef");
    assert_string_equal(out, "0123456789a");
    tqi_text_escape(out, sizeof(out), "01234567\n9"); /* an escape is not cut */
    assert_string_equal(out, "01234567");
    tqi_text_escape(out, 1, "\n");
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_and_a_text),
        cmocka_unit_test(the_headers_and_the_build_have_one_version),
        cmocka_unit_test(an_error_has_its_code_and_message),
        cmocka_unit_test(a_long_message_is_cut_between_letters),
        cmocka_unit_test(bad_names_are_refused_and_shown),
        cmocka_unit_test(a_buffer_grows_and_refuses_what_overflows),
        cmocka_unit_test(an_array_grows_and_keeps_its_items),
        cmocka_unit_test(deadlines_and_random_bytes_are_as_promised),
        cmocka_unit_test(a_condition_waits_by_the_clock_of_deadlines),
        cmocka_unit_test(lines_are_filtered_escaped_and_never_lost),
        cmocka_unit_test(two_threads_can_be_in_the_sink),
        cmocka_unit_test(a_child_forked_while_a_thread_logs_can_log),
        cmocka_unit_test(names_are_listed_until_the_text_is_full),
        cmocka_unit_test(plain_text_ends_at_the_first_control_or_bad_byte),
        cmocka_unit_test(bytes_that_are_not_plain_are_escaped),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
