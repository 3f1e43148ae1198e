/*
 * serve.c - tq serve: becomes `tqd all-in-one`, in the runtime directory where clients on this machine look.
 */
#include "cli/cli.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* tqd next to this program, else the one on the PATH. */
static const char *serve_daemon(char path[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (size > 0) {
        self[size] = 0;
        int written = snprintf(path, PATH_MAX, "%s/tqd", dirname(self));
        if (written > 0 && written < PATH_MAX && access(path, X_OK) == 0) {
            return path;
        }
    }
    return "tqd";
}

/* The directory of this user's systems; tqd creates it and checks its owner. */
static int serve_base(char *out, size_t size)
{
    tq_error err = {0};

    return tq_runtime_dir(out, size, &err) ? cli_fail("%s", err.message) : 0;
}

int cli_serve(cli_options *options)
{
    char base[PATH_MAX];
    char directory[PATH_MAX + 300];
    char program[PATH_MAX];
    const char *system = getenv("TQ_SYSTEM");
    size_t n = 0;
    int first = 0;
    bool placed = false;

    /* A role may be given as for tqd, if it is one that starts a system. */
    if (options->n_args > 0 && options->args[0][0] != '-') {
        if (strcmp(options->args[0], "all-in-one") != 0) {
            return cli_usage("serve runs a whole system (all-in-one), not '%s'; other roles are "
                             "those of tqd",
                             options->args[0]);
        }
        first = 1;
    }

    const char **argv = calloc((size_t)options->n_args + 8, sizeof(*argv));
    if (argv == NULL || serve_base(base, sizeof(base))) {
        free(argv);
        return 1;
    }
    system = system != NULL && *system ? system : "default";
    argv[n++] = serve_daemon(program);
    argv[n++] = "all-in-one";
    for (int i = first; i < options->n_args; i++) {
        placed = placed || strncmp(options->args[i], "--runtime-dir", 13) == 0 ||
                 strncmp(options->args[i], "-d", 2) == 0 || strncmp(options->args[i], "--help", 6) == 0;
        if (strncmp(options->args[i], "--name=", 7) == 0) {
            system = options->args[i] + 7;
        } else if (strcmp(options->args[i], "--name") == 0 && i + 1 < options->n_args) {
            system = options->args[i + 1];
        }
        argv[n++] = options->args[i];
    }
    if (!placed) {
        snprintf(directory, sizeof(directory), "%s/%s", base, system);
        argv[n++] = "--runtime-dir";
        argv[n++] = directory;
        argv[n++] = "--name";
        argv[n++] = system;
    }
    argv[n] = NULL;
    /* execvp takes non-const strings and does not change them. */
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    free(argv);
    return cli_fail("cannot start tqd: %s", strerror(errno));
}
