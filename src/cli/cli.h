/*
 * cli.h - shared by the commands of tq. Everything here uses only the public header.
 */
#ifndef TQI_CLI_CLI_H
#define TQI_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <tq/tq.h>

/* Name of the sessions of this program. */
#define CLI_NAME "tq"

/* What the command line said. */
typedef struct cli_options {
    const char *address;    /* NULL: discover */
    const char *token_file; /* NULL: discover */
    const char *system;     /* NULL: TQ_SYSTEM or "default" */
    double timeout;         /* seconds */
    bool json;
    bool all;            /* clear --all, events --all */
    bool follow;         /* events --follow */
    long last;           /* events --last; below 0: not given */
    bool if_exists;      /* clear --if-exists */
    const char **fields; /* get --field */
    size_t n_fields;
    struct cli_bench_options *bench; /* see bench/bench.h */
    char **args;                     /* after the command's name */
    int n_args;
} cli_options;

/* One command. Returns the exit status: 0, or, with the reason printed, 1, or 2 if the command line is wrong. */
typedef struct cli_command {
    const char *name;
    const char *args; /* for the help: "[PARTITION]" */
    const char *help;
    int (*run)(cli_options *options);
} cli_command;

int cli_status(cli_options *options);
int cli_ls(cli_options *options);
int cli_get(cli_options *options);
int cli_clear(cli_options *options);
int cli_events(cli_options *options);
int cli_save(cli_options *options);
int cli_load(cli_options *options);
int cli_bench(cli_options *options);
int cli_serve(cli_options *options);

/* Connects to the system and makes one op. Exits with a message if that fails. */
typedef struct cli_session {
    tq_client *client;
    tq_op *op;
} cli_session;
int cli_connect(const cli_options *options, bool with_storage, cli_session *out);
void cli_disconnect(cli_session *session);
/* Waits for the op (`started` is the code that starting it returned); on an error prints it and returns 1. */
int cli_wait(const cli_session *session, int started);

/* "tq: " and the message on stderr; returns 1. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for a wrong command line, with a pointer to the help; returns 2. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints a JSON value and frees it; returns the exit status. */
int cli_print_json(json_t *value);

/* A table for people: columns are "NAME" or ">NAME" (aligned right), and outlive it. Cells may be any text. */
typedef struct cli_table cli_table;
cli_table *cli_table_new(const char *const *columns, size_t n);
/* One cell of the current row, from the left; rows begin with cli_table_row. */
void cli_table_row(cli_table *table);
void cli_table_cell(cli_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_table_print(cli_table *table); /* and frees it */

/* Sets the locale that the environment names, or UTF-8 if it names none. */
void cli_text_init(void);
/* Copies a text with control characters, and bytes invalid in the locale, as "\xNN"; `lines`: keeps line ends and
 * tabs. */
char *cli_text(const char *text, bool lines);
/* Cells of the display that a text takes. */
size_t cli_cells(const char *text);
/* Cuts a text to at most `cells` cells, with an ellipsis. */
void cli_shorten(char *text, size_t cells);
/* Prints a text, padded with blanks to `cells` cells. */
void cli_pad(const char *text, size_t cells, bool right);
/* Width of the terminal on stdout in columns; 0 if stdout is not a terminal. */
size_t cli_terminal(void);
/* A text as JSON, which is UTF-8: other bytes are "\xNN". NULL: null. */
json_t *cli_json_text(const char *text);
/* Sets a member of an object, whose name is such a text; takes ownership of the value. */
void cli_json_set(json_t *object, const char *name, json_t *value);

/* "1.5 GiB" into out. */
const char *cli_bytes(uint64_t bytes, char out[32]);
/* "float32", "bfloat16", ... into out. */
const char *cli_dtype(tq_dtype dtype, char out[32]);
/* "[3, 4]" into out; "ragged" for ragged ones. */
const char *cli_shape(bool ragged, uint32_t ndim, const uint64_t *shape, char out[128]);
/* msgpack bytes as JSON; extension types as {"$ext": type, "bytes": n}, and what is not one encoded value as
 * {"$error": "not encoded (104 101 ...)", "bytes": n}. */
json_t *cli_msgpack(const uint8_t *bytes, size_t size);
/* What a row is. */
tq_type cli_row_type(const tq_data_column *column, size_t row);
/* A row of a column as JSON: nested lists of numbers, or the value. max_items: longer tensors are cut (0: never). */
json_t *cli_row(const tq_data_column *column, size_t row);

#endif
