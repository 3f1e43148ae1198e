/*
 * render.c - what people see: tables (libsmartcols), JSON (jansson), errors, and how numbers look.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <libsmartcols.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct cli_table {
    struct libscols_table *table;
    struct libscols_line *line;
    size_t next;
};

cli_table *cli_table_new(const char *const *columns, size_t n)
{
    cli_table *table = calloc(1, sizeof(*table));
    if (!table) {
        return NULL;
    }
    scols_init_debug(0);
    table->table = scols_new_table();
    for (size_t i = 0; table->table && i < n; i++) {
        bool right = columns[i][0] == '>';
        scols_table_new_column(table->table, columns[i] + right, 0, right ? SCOLS_FL_RIGHT : 0);
    }
    return table;
}

void cli_table_row(cli_table *table)
{
    table->line = table->table ? scols_table_new_line(table->table, NULL) : NULL;
    table->next = 0;
}

void cli_table_cell(cli_table *table, const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
    }
    va_end(args);
    if (!text || !table->line || scols_line_refer_data(table->line, table->next++, text)) {
        free(text);
    }
}

void cli_table_print(cli_table *table)
{
    if (table->table) {
        scols_print_table(table->table);
        scols_unref_table(table->table);
    }
    free(table);
}

int cli_fail(const char *format, ...)
{
    va_list args;
    fputs("tq: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return 1;
}

int cli_usage(const char *format, ...)
{
    va_list args;
    fputs("tq: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\nTry `tq --help' for more information.\n", stderr);
    return 2;
}

int cli_print_json(json_t *value)
{
    if (!value) {
        return cli_fail("out of memory");
    }
    int failed = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(value);
    return failed ? cli_fail("cannot write JSON") : 0;
}

const char *cli_bytes(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

const char *cli_dtype(tq_dtype dtype, char out[32])
{
    static const struct {
        const char *name;
        uint8_t code;
        bool bits;
    } names[] = {
        {"int", TQ_INT, true},
        {"uint", TQ_UINT, true},
        {"float", TQ_FLOAT, true},
        {"bfloat", TQ_BFLOAT, true},
        {"complex", TQ_COMPLEX, true},
        {"bool", TQ_BOOL, false},
        {"float8_e4m3fn", TQ_FLOAT8_E4M3FN, false},
        {"float8_e4m3fnuz", TQ_FLOAT8_E4M3FNUZ, false},
        {"float8_e5m2", TQ_FLOAT8_E5M2, false},
        {"float8_e5m2fnuz", TQ_FLOAT8_E5M2FNUZ, false},
        {"float8_e8m0fnu", TQ_FLOAT8_E8M0FNU, false},
        {"float4_e2m1fn_x2", TQ_FLOAT4_E2M1FN, false},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].code == dtype.code) {
            snprintf(out, 32, names[i].bits ? "%s%u" : "%s", names[i].name, dtype.bits);
            return out;
        }
    }
    snprintf(out, 32, "code%u/%u", dtype.code, dtype.bits);
    return out;
}

const char *cli_shape(bool ragged, uint32_t ndim, const uint64_t *shape, char out[128])
{
    if (ragged) {
        return "ragged";
    }
    size_t used = (size_t)snprintf(out, 128, "[");
    for (uint32_t i = 0; i < ndim && used < 100; i++) {
        used += (size_t)snprintf(out + used, 128 - used, "%s%" PRIu64, i ? ", " : "", shape[i]);
    }
    snprintf(out + used, 128 - used, "]");
    return out;
}
