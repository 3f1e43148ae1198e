/*
 * options.h - the command line of tqd.
 */
#ifndef TQI_DAEMON_OPTIONS_H
#define TQI_DAEMON_OPTIONS_H

#include "daemon/config.h"

#include <sys/types.h>

/* What one daemon runs. */
typedef enum tqd_role {
    TQD_CONTROLLER = 1,
    TQD_STORAGE = 2,
    TQD_ALL_IN_ONE = TQD_CONTROLLER | TQD_STORAGE
} tqd_role;

typedef struct tqd_options {
    tqd_role role;
    const char *runtime_dir; /* NULL: none */
    const char *name;        /* of the system */
    const char *token_file;  /* NULL: made in the runtime directory */
    const char *join;        /* controller of a storage daemon */
    pid_t parent_pid;        /* end with this process; 0: none */
    int ready_fd;            /* notified when all are serving; -1: none */
    tqd_config *config;
} tqd_options;

/* Parses the command line; prints help or errors and exits, as programs do. Strings belong to argv. */
int tqd_options_parse(tqd_options *options, int argc, char **argv, tq_error *err);
void tqd_options_fini(tqd_options *options);

#endif
