/*
 * config_value.c - turns YAML scalars into typed values: numbers with units, words, durations.
 */
#include "daemon/config_value.h"

#include "base/error.h"
#include "base/memory.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "12 MiB" with one of the units. False if it does not have that form. */
static bool value_quantity(const char *text, const tqd_unit *units, double *out)
{
    char *end = NULL;

    errno = 0;
    double number = strtod(text, &end);
    if (end == text || errno || !isfinite(number)) {
        return false;
    }
    while (*end == ' ') {
        end++;
    }
    if (units == tqd_bytes_units && strcmp(end, "%") == 0) {
        *out = number / 100.0 * (double)tqi_memory_limit().bytes;
        return true;
    }
    for (const tqd_unit *unit = units; unit->suffix != NULL; unit++) {
        if (strcasecmp(end, unit->suffix) == 0) {
            *out = number * unit->factor;
            return true;
        }
    }
    return false;
}

static bool value_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on"};
    static const char *const no[] = {"false", "no", "off"};

    for (size_t i = 0; i < 3; i++) {
        if (strcasecmp(text, yes[i]) == 0) {
            *out = true;
            return true;
        }
        if (strcasecmp(text, no[i]) == 0) {
            *out = false;
            return true;
        }
    }
    return false;
}

json_t *tqd_value_guess(const char *text, bool quoted)
{
    if (quoted) {
        return json_string(text);
    }
    if (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0) {
        return json_null();
    }
    bool flag;
    if (value_bool(text, &flag)) {
        return json_boolean(flag);
    }
    char *end = NULL;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    if (*end == 0 && !errno) {
        return json_integer(whole);
    }
    errno = 0;
    double number = strtod(text, &end);
    if (*end == 0 && !errno && isfinite(number)) {
        return json_real(number);
    }
    return json_string(text);
}

static int value_range(const tqd_key *key, double number, const char *text, tq_error *err)
{
    if (number < key->min || (key->max > 0 && number > key->max)) {
        return tqi_error_set(err, TQ_ECONFIG, "%s: %s is out of range (%s)", key->path, text, key->range);
    }
    return TQ_OK;
}

/* Whether a text is one of "a,b,c". */
static bool value_is_choice(const char *choices, const char *text)
{
    size_t size = strlen(text);

    while (*choices) {
        size_t n = strcspn(choices, ",");
        if (n == size && strncmp(choices, text, n) == 0) {
            return true;
        }
        choices += n + (choices[n] == ',');
    }
    return false;
}

/* Numbers: a whole one, seconds, or bytes. */
static int value_number(const tqd_key *key, const char *text, double *number, tq_error *err)
{
    char *end = NULL;

    switch (key->type) {
    case TQD_INT:
        errno = 0;
        *number = (double)strtoll(text, &end, 10);
        if (end == text || *end || errno) {
            return tqi_error_set(err, TQ_ECONFIG, "%s: expected a whole number, got '%s'", key->path, text);
        }
        break;
    case TQD_SECONDS:
        if (!value_quantity(text, tqd_seconds_units, number)) {
            return tqi_error_set(err, TQ_ECONFIG, "%s: expected a time such as 10s or 250ms, got '%s'", key->path, text);
        }
        break;
    default:
        if (!value_quantity(text, tqd_bytes_units, number)) {
            return tqi_error_set(err, TQ_ECONFIG, "%s: expected a size such as 512MiB, 8GiB or 25%%, got '%s'",
                                 key->path, text);
        }
        if (strchr(text, '%') != NULL && strtod(text, NULL) > 100) {
            return tqi_error_set(err, TQ_ECONFIG, "%s: %s is more than the machine's memory", key->path, text);
        }
        break;
    }
    return value_range(key, *number, text, err);
}

int tqd_value_parse(const tqd_key *key, const char *text, bool quoted, json_t **out, tq_error *err)
{
    double number = 0;
    bool flag = false;
    int rc = TQ_OK;
    json_t *value = NULL;

    switch (key->type) {
    case TQD_STRING:
        if (key->choices != NULL && !value_is_choice(key->choices, text)) {
            return tqi_error_set(err, TQ_ECONFIG, "%s: expected %s, got '%s'", key->path, key->expects, text);
        }
        value = json_string(text);
        break;
    case TQD_STRINGS:
        value = json_string(text);
        break;
    case TQD_FREE:
    case TQD_INIT:
        value = tqd_value_guess(text, quoted);
        break;
    case TQD_BOOL:
        if (!value_bool(text, &flag)) {
            return tqi_error_set(err, TQ_ECONFIG, "%s: expected true or false, got '%s'", key->path, text);
        }
        value = json_boolean(flag);
        break;
    case TQD_INT:
    case TQD_BYTES:
        rc = value_number(key, text, &number, err);
        value = rc ? NULL : json_integer((json_int_t)number);
        break;
    case TQD_SECONDS:
        rc = value_number(key, text, &number, err);
        value = rc ? NULL : json_real(number);
        break;
    }
    if (rc) {
        return rc;
    }
    if (value == NULL) {
        return tqi_error_set(err, TQ_ECONFIG, "%s: '%s' is not valid UTF-8", key->path, text);
    }
    *out = value;
    return TQ_OK;
}
