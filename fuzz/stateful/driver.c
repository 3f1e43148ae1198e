/*
 * driver.c - the stateful fuzzer without libFuzzer: runs of a seed, and the table of what was asked and answered.
 *
 * Run i of seed s is run 0 of seed s + i, so a fault can be reproduced with the seed that it names. The input of such
 * a run is written to a file, too, which can be given to the target of libFuzzer or of replay.c, or back as an
 * argument.
 */
#include "stateful.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DRIVER_INPUT 16384u

static uint8_t input[DRIVER_INPUT];
static uint64_t seed;
static const char *keep = "."; /* directory of what broke something */

static void usage(void)
{
    fprintf(stderr, "usage: stateful [--seed N] [--runs N] [--requests N] [--seconds N] [--least N] "
                    "[--keep DIR] [--trace]\n");
    exit(2);
}

/* Bytes of a seed (splitmix64). */
static void fill(uint64_t from)
{
    uint64_t state = from;

    for (size_t i = 0; i < sizeof(input); i += 8) {
        uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        memcpy(input + i, &z, 8);
    }
}

/* Only what a signal handler may call. */
static void broken(int signal)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "%s/stateful-%" PRIu64, keep, seed);
    int fd = n > 0 && (size_t)n < sizeof(text) ? open(text, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    bool kept = fd >= 0 && write(fd, input, sizeof(input)) == (ssize_t)sizeof(input);

    n = snprintf(text, sizeof(text), "stateful: the fault is that of --seed %" PRIu64 " --runs 1%s\n", seed,
                 kept ? ", its input is kept" : "");
    if (n > 0 && write(2, text, (size_t)n) < 0) {
        _exit(3);
    }
    (void)signal;
}

static double seconds(void)
{
    struct timespec now;

    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static uint64_t number(char *const *argv, int *at)
{
    char *end = NULL;

    if (argv[*at + 1] == NULL) {
        usage();
    }
    errno = 0;
    uint64_t value = strtoull(argv[++*at], &end, 0);
    if (errno || *end || end == argv[*at]) {
        usage();
    }
    return value;
}

int main(int argc, char **argv)
{
    uint64_t runs = 0, requests = 0, limit = 0, least = 0, first;

    seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0) {
            seed = number(argv, &i);
        } else if (strcmp(argv[i], "--runs") == 0) {
            runs = number(argv, &i);
        } else if (strcmp(argv[i], "--requests") == 0) {
            requests = number(argv, &i);
        } else if (strcmp(argv[i], "--seconds") == 0) {
            limit = number(argv, &i);
        } else if (strcmp(argv[i], "--least") == 0) {
            least = number(argv, &i);
        } else if (strcmp(argv[i], "--trace") == 0) {
            sf_tracing = true;
        } else if (strcmp(argv[i], "--keep") == 0 && argv[i + 1] != NULL) {
            keep = argv[++i];
        } else {
            usage();
        }
    }
    if (!runs && !requests && !limit) {
        usage();
    }
    first = seed;
    setvbuf(stdout, NULL, _IOLBF, 0);
    double begin = seconds();
    struct sigaction action = {.sa_handler = broken, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGABRT, &action, NULL);
    printf("stateful: from seed %" PRIu64 " on\n", seed);
    for (;;) {
        fill(seed);
        sf_run(input, sizeof(input));
        seed++;
        if ((runs && seed - first >= runs) || (requests && sf_requests() >= requests) ||
            (limit && seconds() - begin >= (double)limit)) {
            break;
        }
    }
    double took = seconds() - begin;
    printf("%" PRIu64 " requests in %.0f s, %.0f/s, seeds %" PRIu64 " to %" PRIu64 "\n", sf_requests(), took,
           (double)sf_requests() / took, first, seed - 1);
    unsigned few = sf_report(least);
    if (few > 0) {
        printf("%u kinds of requests succeeded less than %" PRIu64 " times\n", few, least);
    }
    return few > 0;
}
