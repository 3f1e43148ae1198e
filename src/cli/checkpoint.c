/*
 * checkpoint.c - tq save, tq load: save the state of a system to a directory and load it back.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int checkpoint_print(const cli_session *session, const cli_options *options, const char *what)
{
    const tq_checkpoint *done = tq_op_checkpoint(session->op);
    char bytes[32];

    if (options->json) {
        json_t *metadata = json_loads(done->metadata, 0, NULL);
        return cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:b, s:o*}", "samples", (json_int_t)done->samples,
                                        "partitions", (json_int_t)done->partitions, "blocks", (json_int_t)done->blocks,
                                        "bytes", (json_int_t)done->bytes, "lost", (json_int_t)done->lost,
                                        "storage_saved", (int)done->storage_saved, "metadata", metadata));
    }
    printf("%s %" PRIu64 " sample%s of %" PRIu64 " partition%s, %s\n", what, done->samples,
           done->samples == 1 ? "" : "s", done->partitions, done->partitions == 1 ? "" : "s",
           done->storage_saved ? cli_bytes(done->bytes, bytes) : "without their data");
    if (done->lost) {
        printf("%" PRIu64 " cell%s lost: the data is not there any more\n", done->lost,
               done->lost == 1 ? " is" : "s are");
    }
    return 0;
}

int cli_save(cli_options *options)
{
    cli_session session = {0};

    if (options->n_args < 1 || options->n_args > 2) {
        return cli_usage("save takes a directory, and one partition at most");
    }
    int status = cli_connect(options, true, &session);
    if (status) {
        return status;
    }
    tq_save_args args = {
        .size = sizeof(args),
        .path = options->args[0],
        .partition = options->n_args == 2 ? options->args[1] : NULL,
    };
    status = cli_wait(&session, tq_save(session.op, &args));
    status = status ? status : checkpoint_print(&session, options, "saved");
    cli_disconnect(&session);
    return status;
}

int cli_load(cli_options *options)
{
    cli_session session = {0};

    if (options->n_args != 1) {
        return cli_usage("load takes one directory");
    }
    int status = cli_connect(options, true, &session);
    if (status) {
        return status;
    }
    status = cli_wait(&session, tq_load(session.op, options->args[0]));
    status = status ? status : checkpoint_print(&session, options, "loaded");
    cli_disconnect(&session);
    return status;
}
