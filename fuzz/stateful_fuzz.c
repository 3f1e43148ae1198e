/*
 * stateful_fuzz.c - sequences of requests to a controller and a storage unit, most of which make sense: see
 * stateful/stateful.h. libFuzzer prints at its end how often each request was answered.
 */
#include <stdlib.h>

#include "stateful/stateful.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_end(void)
{
    sf_report(0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return atexit(fuzz_end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_run(data, size);
    return 0;
}
