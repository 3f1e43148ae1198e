/*
 * main.c - tq, the command line: options, and one table of commands.
 */
#include "cli/bench/bench.h"
#include "cli/cli.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLI_FIELDS_MAX 256
#define CLI_LAST_MAX   1000000

/* The C library's argp reads it, so it must leave the program. */
__attribute__((visibility("default"))) const char *argp_program_version = "tq " TQI_VERSION;

static const cli_command cli_commands[] = {
    {"status", "", "partitions, storage and clients of a system", cli_status},
    {"ls", "[PARTITION]", "partitions, or the keys and tags of one", cli_ls},
    {"get", "PARTITION [KEY | @INDEX]...", "fields of samples (all of the partition when none is named)", cli_get},
    {"clear", "PARTITION [KEY | @INDEX]... | --all", "clear samples, or the whole partition", cli_clear},
    {"events", "[--follow] [--last N] [--all]", "what happened lately", cli_events},
    {"save", "DIR [PARTITION]", "save a checkpoint of the system, or of one partition", cli_save},
    {"load", "DIR", "replace the state of the system by a checkpoint", cli_load},
    {"bench", "[BENCH OPTIONS]", "how fast a running system is from here", cli_bench},
    {"serve", "[TQD OPTIONS]", "run a system here until interrupted (tqd all-in-one)", cli_serve},
};

static const char cli_doc[] =
    "tq - command line of the transfer queue\n"
    "\n"
    "Commands:\n"
    "  status                             partitions, storage and clients\n"
    "  ls [PARTITION]                     partitions, or the keys and tags of one\n"
    "  get PARTITION [KEY | @INDEX]...    fields of samples (default: of all)\n"
    "  clear PARTITION [KEY | @INDEX]...  clear samples\n"
    "  clear PARTITION --all              clear the whole partition\n"
    "  events                             what happened lately\n"
    "  save DIR [PARTITION]               save a checkpoint (default: of all)\n"
    "  load DIR                           replace the state by a checkpoint\n"
    "  bench                              how fast a running system is from here\n"
    "  serve                              run a system until interrupted (see tqd)\n"
    "\v"
    "The system is found by --address (or TQ_ADDRESS, with TQ_TOKEN_FILE), else by its name (--system, TQ_SYSTEM, "
    "'default') among those that run on this machine for this user.\n"
    "\n"
    "Exit status: 0, or 1 when something failed (the reason is on stderr), or 2 for a wrong command line.";

enum {
    CLI_OPT_ALL = 256,
    CLI_OPT_IF_EXISTS,
    CLI_OPT_JSON,
    CLI_OPT_LAST
};

static const struct argp_option cli_argp_options[] = {
    {"address", 'a', "ENDPOINT", 0, "controller, unix:/path or tcp:host:port", 0},
    {"token-file", 't', "FILE", 0, "file with the system's secret", 0},
    {"system", 's', "NAME", 0, "name of a system on this machine", 0},
    {"timeout", 'w', "SECONDS", 0, "deadline of the command (10)", 0},
    {"field", 'f', "FIELD", 0, "get: only this field; may be given more than once", 0},
    {"all", CLI_OPT_ALL, NULL, 0,
     "clear: everything in the partition, and the partition; events: also commands of tq that "
     "came and went",
     0},
    {"if-exists", CLI_OPT_IF_EXISTS, NULL, 0, "clear: no error when there is no such partition", 0},
    {"follow", 'F', NULL, 0, "events: go on as they happen", 0},
    {"last", CLI_OPT_LAST, "N", 0, "events: begin with the last N (20 with --follow, else all)", 0},
    {"json", CLI_OPT_JSON, NULL, 0, "print JSON", 0},
    {0},
};

typedef struct cli_parse {
    cli_options options;
    cli_bench_options bench;
    const cli_command *command;
    const char *fields[CLI_FIELDS_MAX];
} cli_parse;

static const cli_command *cli_find(const char *name)
{
    for (size_t i = 0; i < sizeof(cli_commands) / sizeof(cli_commands[0]); i++) {
        if (strcmp(cli_commands[i].name, name) == 0) {
            return &cli_commands[i];
        }
    }
    return NULL;
}

static void cli_refuse(const struct argp_state *state, const char *name)
{
    char known[128] = "";
    size_t used = 0;

    for (size_t i = 0; i < sizeof(cli_commands) / sizeof(cli_commands[0]); i++) {
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "", cli_commands[i].name);
    }
    argp_error(state, "unknown command '%s'; there are %s", name, known);
}

static double cli_seconds(const struct argp_state *state, const char *text)
{
    char *end = NULL;
    double seconds = strtod(text, &end);

    if (*end || !(seconds > 0)) {
        argp_error(state, "--timeout: expected seconds, got '%s'", text);
    }
    return seconds;
}

static long cli_last(const struct argp_state *state, const char *text)
{
    char *end = NULL;

    errno = 0;
    long last = strtol(text, &end, 10);
    if (end == text || *end || errno || last < 0 || last > CLI_LAST_MAX) {
        argp_error(state, "--last: expected a number from 0 to %d, got '%s'", CLI_LAST_MAX, text);
    }
    return last;
}

/* The command, or one of its arguments. */
static void cli_argument(const struct argp_state *state, char *text)
{
    cli_parse *parse = state->input;

    if (parse->command != NULL) {
        parse->options.args[parse->options.n_args++] = text;
        return;
    }
    parse->command = cli_find(text);
    if (parse->command == NULL) {
        cli_refuse(state, text);
    }
}

static error_t cli_parse_option(int key, char *arg, struct argp_state *state)
{
    cli_parse *parse = state->input;
    cli_options *options = &parse->options;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &parse->bench;
        break;
    case 'a':
        options->address = arg;
        break;
    case 't':
        options->token_file = arg;
        break;
    case 's':
        options->system = arg;
        break;
    case 'w':
        options->timeout = cli_seconds(state, arg);
        break;
    case 'f':
        if (options->n_fields == CLI_FIELDS_MAX) {
            argp_error(state, "--field: at most %d", CLI_FIELDS_MAX);
        }
        parse->fields[options->n_fields++] = arg;
        break;
    case 'F':
        options->follow = true;
        break;
    case CLI_OPT_LAST:
        options->last = cli_last(state, arg);
        break;
    case CLI_OPT_ALL:
        options->all = true;
        break;
    case CLI_OPT_IF_EXISTS:
        options->if_exists = true;
        break;
    case CLI_OPT_JSON:
        options->json = true;
        break;
    case ARGP_KEY_ARG:
        cli_argument(state, arg);
        break;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no command given");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp_child children[] = {{&cli_bench_argp, 0, "Options of bench:", 1}, {0}};
    static const struct argp parser = {
        .options = cli_argp_options,
        .parser = cli_parse_option,
        .args_doc = "COMMAND [ARG...]",
        .doc = cli_doc,
        .children = children,
    };
    cli_parse parse = {.options = {.timeout = 10, .last = -1}, .bench = {.scale = 1, .rounds = 5, .calls = 1000}};

    argp_err_exit_status = 2;
    cli_text_init();
    /* serve hands its options on, unread. */
    if (argc > 1 && strcmp(argv[1], "serve") == 0) {
        parse.options.args = argv + 2;
        parse.options.n_args = argc - 2;
        return cli_serve(&parse.options);
    }
    parse.options.args = calloc((size_t)argc + 1, sizeof(char *));
    parse.options.fields = parse.fields;
    parse.options.bench = &parse.bench;
    if (parse.options.args == NULL) {
        return cli_fail("out of memory");
    }
    argp_parse(&parser, argc, argv, 0, NULL, &parse);
    int status = parse.command->run(&parse.options);
    free(parse.options.args);
    return status;
}
