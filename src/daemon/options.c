/*
 * options.c - the command line of tqd (argp).
 */
#include "daemon/options.h"

#include "base/error.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char options_doc[] =
    "tqd - daemon of the transfer queue\v"
    "ROLE is one of\n"
    "  all-in-one   a controller and its storage units: one machine\n"
    "  controller   the controller only: samples, fields, claims\n"
    "  storage      storage units that join a controller (--join)\n"
    "\n"
    "Endpoints are unix:/path, tcp:host:port or tcp:[v6]:port (port 0 picks one, first-last is a "
    "range to pick from);\n"
    "alternatives are joined by commas.  Without --listen net.interface or net.bind says where "
    "(TQ_INTERFACE, TQ_BIND);\n"
    "storage units listen where their controller does, or where they see the one they join.\n"
    "\n"
    "Everybody of one system shares a secret, the token: --token-file names the file that holds "
    "it. With\n"
    "--runtime-dir and no --token-file a random one is made there, next to handle.json, by which "
    "clients on this\n"
    "machine find the system.\n"
    "\n"
    "SIGTERM and SIGINT end the daemon cleanly: everything it made is removed.\n"
    "\n"
    "Examples:\n"
    "  tqd all-in-one --runtime-dir /run/user/1000/ctq/default\n"
    "  tqd controller --listen tcp:10.0.0.1:7000 --token-file token\n"
    "  tqd storage --join tcp:10.0.0.1:7000 --token-file token\n"
    "\n"
    "tqd --help-config lists every key of the configuration.";

enum {
    OPT_HELP_CONFIG = 256,
    OPT_NAME,
    OPT_PARENT,
    OPT_READY
};

static const struct argp_option options_table[] = {
    {"config", 'c', "FILE", 0, "YAML configuration; may be given more than once", 0},
    {"set", 'o', "KEY=VALUE", 0, "one value of the configuration, e.g. controller.sampler=GRPOGroupNSampler", 0},
    /* Once the short form of --set; with tq it names the system, so here it must mean neither. */
    {NULL, 's', "", OPTION_HIDDEN, NULL, 0},
    {"listen", 'l', "ENDPOINT", 0, "where to listen; may be given more than once", 0},
    {"join", 'j', "ENDPOINT", 0, "controller that the storage units join", 0},
    {"token-file", 't', "FILE", 0, "file with the system's secret; else, for storage, TQ_TOKEN_FILE", 0},
    {"runtime-dir", 'd', "DIR", 0, "directory for token, sockets and handle; removed at the end", 0},
    {"name", OPT_NAME, "NAME", 0, "name of the system (default)", 0},
    {"parent-pid", OPT_PARENT, "PID", 0, "end when this process ends", 0},
    {"owner-pid", 0, NULL, OPTION_ALIAS | OPTION_HIDDEN, NULL, 0}, /* its former name */
    {"ready-fd", OPT_READY, "FD", 0, "write 'ready' (or 'error: ...' and 'code: N') there when all parts serve", 0},
    {"version", 'V', NULL, 0, "print the version and exit", -1},
    {"help-config", OPT_HELP_CONFIG, NULL, 0, "list the keys of the configuration and exit", 0},
    {0},
};

typedef struct options_state {
    tqd_options *options;
    tq_error *err;
    int rc;
    json_t *listen;
} options_state;

static long options_number(struct argp_state *state, const char *name, const char *text)
{
    char *end = NULL;
    long number = strtol(text, &end, 10);

    if (end == text || *end || number < 0) {
        argp_error(state, "--%s: expected a number, got '%s'", name, text);
    }
    return number;
}

static int options_role(options_state *parse, struct argp_state *state, const char *word)
{
    static const struct {
        const char *word;
        tqd_role role;
    } roles[] = {{"controller", TQD_CONTROLLER}, {"storage", TQD_STORAGE}, {"all-in-one", TQD_ALL_IN_ONE}};

    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(word, roles[i].word) == 0 && !parse->options->role) {
            parse->options->role = roles[i].role;
            return 0;
        }
    }
    argp_error(state,
               parse->options->role ? "unexpected argument '%s'"
                                    : "unknown role '%s'; there are controller, storage and all-in-one",
               word);
    return EINVAL;
}

static error_t options_parse(int key, char *arg, struct argp_state *state)
{
    options_state *parse = state->input;
    tqd_options *options = parse->options;

    if (parse->rc) {
        return 0; /* the first error is reported by the caller */
    }
    switch (key) {
    case 'c':
        parse->rc = tqd_config_load(options->config, arg, parse->err);
        break;
    case 's':
        argp_error(state,
                   "-s is the name of a system, for tq: use --name NAME for that, or -o %s to set "
                   "a value of the configuration",
                   arg);
        break;
    case 'o':
        parse->rc = tqd_config_set(options->config, arg, parse->err);
        break;
    case 'l':
        json_array_append_new(parse->listen, json_string(arg));
        break;
    case 'j':
        options->join = arg;
        break;
    case 't':
        options->token_file = arg;
        break;
    case 'd':
        options->runtime_dir = arg;
        break;
    case OPT_NAME:
        options->name = arg;
        break;
    case OPT_PARENT:
        options->parent_pid = (pid_t)options_number(state, "parent-pid", arg);
        break;
    case OPT_READY:
        options->ready_fd = (int)options_number(state, "ready-fd", arg);
        break;
    case 'V':
        /* Done by hand: argp's version option needs a global symbol of the program, and this is a library. */
        puts("tqd " TQI_VERSION);
        exit(0);
    case OPT_HELP_CONFIG:
        fputs(tqd_config_help, stdout);
        exit(0);
    case ARGP_KEY_ARG:
        return options_role(parse, state, arg);
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no role given");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* --listen means the controller's endpoints if there is one, else the units'. */
static int options_listen(tqd_options *options, json_t *listen, tq_error *err)
{
    char assignment[2048];

    if (json_array_size(listen) == 0) {
        return TQ_OK;
    }
    char *text = json_dumps(listen, JSON_COMPACT);
    if (text == NULL) {
        return tqi_error_nomem(err, "--listen");
    }
    int size = snprintf(assignment, sizeof(assignment), "%s=%s",
                        options->role & TQD_CONTROLLER ? "controller.listen" : "storage.listen", text);
    free(text);
    if (size < 0 || (size_t)size >= sizeof(assignment)) {
        return tqi_error_set(err, TQ_ENAME, "--listen: too many endpoints");
    }
    return tqd_config_set(options->config, assignment, err);
}

static int options_check(const tqd_options *options, tq_error *err)
{
    if (options->role == TQD_STORAGE && options->join == NULL) {
        return tqi_error_set(err, TQ_ECONFIG, "a storage daemon needs --join with the controller's endpoint");
    }
    if (options->role != TQD_STORAGE && options->join != NULL) {
        return tqi_error_set(err, TQ_ECONFIG, "--join is for the storage role: this daemon has a controller of its own");
    }
    int rc = tqi_check_name("system", options->name, 255, err);
    if (rc) {
        return rc;
    }
    if (options->token_file == NULL && (options->runtime_dir == NULL || options->role == TQD_STORAGE)) {
        return tqi_error_set(err, TQ_ECONFIG, "--token-file is needed%s",
                             options->role == TQD_STORAGE ? " (or TQ_TOKEN_FILE): the token of the system to join"
                                                          : " without --runtime-dir");
    }
    return TQ_OK;
}

int tqd_options_parse(tqd_options *options, int argc, char **argv, tq_error *err)
{
    static const struct argp parser = {
        .options = options_table,
        .parser = options_parse,
        .args_doc = "ROLE",
        .doc = options_doc,
    };
    options_state state = {.options = options, .err = err, .listen = json_array()};

    *options = (tqd_options){.name = "default", .ready_fd = -1};
    argp_err_exit_status = 2;
    state.rc = tqd_config_alloc(&options->config, err);
    if (!state.rc) {
        argp_parse(&parser, argc, argv, 0, NULL, &state);
    }
    if (!state.rc) {
        state.rc = options_listen(options, state.listen, err);
    }
    const char *token_file = getenv("TQ_TOKEN_FILE");
    if (options->role == TQD_STORAGE && options->token_file == NULL && token_file != NULL && *token_file) {
        options->token_file = token_file;
    }
    if (!state.rc) {
        state.rc = options_check(options, err);
    }
    json_decref(state.listen);
    return state.rc;
}

void tqd_options_fini(tqd_options *options)
{
    tqd_config_free(options->config);
    options->config = NULL;
}
