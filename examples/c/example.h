/* example.h - what the examples share: every error ends the program, with its message. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <stdio.h>
#include <stdlib.h>
#include <tq/tq.h>

/* For calls that return a code and fill an error. */
static inline void must(int rc, const tq_error *err)
{
    if (rc != TQ_OK) {
        fprintf(stderr, "%s: %s\n", tq_error_name(rc), err->message);
        exit(1);
    }
}

/* For calls on an op: waits until it is done. */
static inline void done(tq_op *op, int started)
{
    if (started != TQ_OK || tq_op_wait(op) != TQ_OK) {
        must(tq_op_error(op)->code, tq_op_error(op));
    }
}

/* The system that tq_discover finds: TQ_ADDRESS, TQ_SYSTEM, or "default" on this machine. */
static inline tq_client *open_client(void)
{
    tq_client_options options = tq_client_options_init();
    tq_client *client;
    tq_error err;

    must(tq_client_open(&options, &client, &err), &err);
    return client;
}

/* Puts n samples with a field "x" of one float each. */
static inline void put_numbers(tq_op *op, const char *partition, const float *numbers, size_t n)
{
    const tq_slice bytes = {numbers, n * sizeof(*numbers)};
    const tq_column column = tq_column_make("x", TQ_FLOAT, 32, n, &bytes);
    tq_put_args put = tq_put_args_init();

    put.partition = partition;
    put.n = n;
    put.columns = &column;
    put.n_columns = 1;
    done(op, tq_put(op, &put));
}

#endif
