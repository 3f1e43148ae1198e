/*
 * config.h - the daemon's configuration: YAML files and --set options against one typed table.
 *
 * The table (config_table.c, made from config/keys.toml) names every key with its type, default and range. A bad key
 * or value is refused with file, line and what was expected. The result is kept twice: as plain C values for the
 * daemon, and as one JSON object for clients that attach (they read their own sections of it, which the daemon only
 * passes on).
 */
#ifndef TQI_DAEMON_CONFIG_H
#define TQI_DAEMON_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tq/errors.h>

/* Types of values. */
typedef enum tqd_type {
    TQD_STRING, /* any text, or one of the key's choices */
    TQD_BOOL,
    TQD_INT,
    TQD_SECONDS, /* a number, or "250ms", "10s", "5min" */
    TQD_BYTES,   /* a number, or "512MiB", "8GiB", "25%" (of the machine's memory) */
    TQD_STRINGS, /* a list of strings; a single string is a list of one */
    TQD_FREE,    /* anything: passed on to clients or to a storage manager */
    TQD_INIT     /* read only by init(): accepted, so that one file serves both, but not kept */
} tqd_type;

/* One key. */
typedef struct tqd_key {
    const char *path; /* "controller.sampler"; a last part of "*" stands for any key without an entry of its own */
    tqd_type type;
    const char *value; /* default, as YAML; NULL: none */
    /* for numbers, in seconds or bytes if they have a unit; max 0: no limit */
    double min, max;
    const char *range;   /* both in words, for messages */
    const char *choices; /* "a,b,c": the allowed strings; NULL: any */
    const char *expects; /* the choices in words */
} tqd_key;

/* "MiB" and the like, with what one of it is; the last one has suffix NULL. */
typedef struct tqd_unit {
    const char *suffix;
    double factor;
} tqd_unit;

extern const tqd_key tqd_keys[];
extern const size_t tqd_n_keys;
extern const tqd_unit tqd_seconds_units[], tqd_bytes_units[];
/* Prints --help-config. */
extern const char tqd_config_help[];

typedef struct tqd_config tqd_config;

/* All defaults. */
int tqd_config_alloc(tqd_config **out, tq_error *err);
void tqd_config_free(tqd_config *config);
/* Applies a YAML file on top of the present values. On an error none of it is applied. */
int tqd_config_load(tqd_config *config, const char *path, tq_error *err);
/* "controller.sampler=GRPOGroupNSampler": the value is YAML. */
int tqd_config_set(tqd_config *config, const char *assignment, tq_error *err);

/* Whether a value was given, and is not a default. */
bool tqd_config_is_set(const tqd_config *config, const char *path);
/* Values by path; the path must be in the table with that type. Strings belong to the config; NULL: not set. */
const char *tqd_config_string(const tqd_config *config, const char *path);
bool tqd_config_bool(const tqd_config *config, const char *path);
int64_t tqd_config_int(const tqd_config *config, const char *path);
/* A count is a non-negative whole number. */
uint64_t tqd_config_count(const tqd_config *config, const char *path);
double tqd_config_seconds(const tqd_config *config, const char *path);
uint64_t tqd_config_bytes(const tqd_config *config, const char *path);
/* n strings of a list; fills at most max. */
size_t tqd_config_strings(const tqd_config *config, const char *path, const char **out, size_t max);

/* Records a value that the daemon has determined, under a path that users cannot set, for readers of the whole
 * configuration. */
int tqd_config_note(tqd_config *config, const char *path, const char *value, tq_error *err);

/* The whole configuration, and the section of the chosen storage backend ("{}" without one), as JSON text; malloc'ed. */
char *tqd_config_json(const tqd_config *config);
char *tqd_config_backend_json(const tqd_config *config);

#endif
