/*
 * render.c - output for people: JSON (jansson), errors, and number formats.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* "tq: " and the text, which may name anything and have several lines. */
static void render_error(const char *format, va_list args)
{
    char *text = NULL;
    char *shown = vasprintf(&text, format, args) < 0 ? NULL : cli_text(text, true);

    fprintf(stderr, "tq: %s", shown != NULL ? shown : "out of memory");
    free(shown);
    free(text);
}

int cli_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    render_error(format, args);
    va_end(args);
    fputc('\n', stderr);
    return 1;
}

int cli_usage(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    render_error(format, args);
    va_end(args);
    fputs("\nTry `tq --help' for more information.\n", stderr);
    return 2;
}

int cli_print_json(json_t *value)
{
    if (value == NULL) {
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
