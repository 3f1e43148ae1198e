/*
 * session.c - connecting to the system that the command is about.
 */
#include "cli/cli.h"

#include <string.h>

int cli_connect(const cli_options *options, bool with_storage, cli_session *out)
{
    tq_location location = {.size = sizeof(location)};
    tq_error err = {0};
    tq_client_options client = {
        .size = sizeof(client),
        .name = CLI_NAME,
        .manager = with_storage ? NULL : "",
        .timeout = options->timeout,
    };

    memset(out, 0, sizeof(*out));
    if (options->address == NULL && tq_discover(options->system, &location, &err)) {
        return cli_fail("%s\ntq: start one with `tq serve`, or give --address and --token-file", err.message);
    }
    client.address = options->address != NULL ? options->address : location.address;
    client.libraries = options->address != NULL ? NULL : location.library;
    client.token_file = options->token_file != NULL ? options->token_file : location.token_file;
    if (!*client.token_file) {
        return cli_fail("no token: give --token-file or set TQ_TOKEN_FILE");
    }
    if (tq_client_open(&client, &out->client, &err)) {
        return cli_fail("%s", err.message);
    }
    out->op = tq_op_alloc(out->client, NULL, NULL);
    if (out->op == NULL) {
        cli_disconnect(out);
        return cli_fail("out of memory");
    }
    return 0;
}

void cli_disconnect(cli_session *session)
{
    tq_op_free(session->op);
    if (session->client != NULL) {
        tq_client_close(session->client);
    }
    memset(session, 0, sizeof(*session));
}

int cli_wait(const cli_session *session, int started)
{
    if (started || tq_op_wait(session->op)) {
        return cli_fail("%s", tq_op_error(session->op)->message);
    }
    return 0;
}
