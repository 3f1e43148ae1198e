/*
 * examples_test.c - runs the programs that are given as arguments against a system, as users run them: the environment
 * names it.
 */
#include "testkit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static test_system sys;
static char token_file[80];
static char **programs;

static int set_up(void **state)
{
    (void)state;
    system_start(&sys, 1, 1 << 24);
    snprintf(token_file, sizeof(token_file), "%s/token", sys.dir);
    int fd = open(token_file, O_CREAT | O_WRONLY | O_EXCL, 0600);
    assert_int_equal(write(fd, SYSTEM_TOKEN, strlen(SYSTEM_TOKEN)), strlen(SYSTEM_TOKEN));
    close(fd);
    setenv("TQ_ADDRESS", sys.address, 1);
    setenv("TQ_TOKEN_FILE", token_file, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(token_file);
    system_stop(&sys);
    return 0;
}

static void each_program_succeeds(void **state)
{
    (void)state;
    for (char **program = programs; *program; program++) {
        int status = -1;
        print_message("%s\n", *program);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(50);
            execl(*program, *program, (char *)NULL);
            _exit(127);
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_program_succeeds)};

    programs = argv + 1;
    return argc < 2 ? 1 : cmocka_run_group_tests_name("examples", tests, set_up, tear_down);
}
