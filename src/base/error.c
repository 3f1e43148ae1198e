/*
 * error.c - the texts of the error table, and filling tq_error.
 */
#include "base/error.h"

#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <tq/tq.h>

const char *tq_strerror(int rc)
{
    switch (rc) {
    case TQ_OK:
        return "success";
#define ERROR_TEXT(name, value, py, pybase, text) \
    case value:                                   \
        return text;
        TQ_ERRORS(ERROR_TEXT)
#undef ERROR_TEXT
    default:
        return "unknown error";
    }
}

const char *tq_error_name(int rc)
{
    switch (rc) {
    case TQ_OK:
        return "TQ_OK";
#define ERROR_NAME(name, value, py, pybase, text) \
    case value:                                   \
        return #name;
        TQ_ERRORS(ERROR_NAME)
#undef ERROR_NAME
    default:
        return "TQ_E?";
    }
}

/* A message that was cut must not end inside a UTF-8 sequence. */
static void error_trim(char *text, size_t size)
{
    size_t end = size - 1;
    size_t start = end;

    while (start > 0 && end - start < 4 && ((unsigned char)text[start - 1] & 0xC0) == 0x80) {
        start--;
    }
    if (start == 0) {
        return;
    }
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (end - (start - 1) < want) {
        text[start - 1] = 0;
    }
}

int tqi_error_set(tq_error *err, int rc, const char *format, ...)
{
    if (err != NULL) {
        /* The arguments may lie in err->message itself: a message is often wrapped in a longer one. */
        char text[TQ_ERROR_MESSAGE_MAX];
        va_list args;
        va_start(args, format);
        int n = vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        if (n < 0) {
            snprintf(text, sizeof(text), "%s", tq_strerror(rc));
        } else if ((size_t)n >= sizeof(text)) {
            error_trim(text, sizeof(text));
        }
        err->code = rc;
        memcpy(err->message, text, sizeof(text));
    }
    return rc;
}

int tqi_error_nomem(tq_error *err, const char *what)
{
    return tqi_error_set(err, TQ_ENOMEM, "out of memory for %s", what);
}

int tqi_error_errno(tq_error *err, int errnum, const char *what)
{
    char buffer[128];

    return tqi_error_set(err, TQ_EIO, "%s: %s", what, strerror_r(errnum, buffer, sizeof(buffer)));
}

/* The size of a name, unless it is empty or too long. */
static int error_name_size(const char *what, const char *name, size_t max, size_t *size, tq_error *err)
{
    if (name == NULL || !*name) {
        return tqi_error_set(err, TQ_ENAME, "%s name is empty", what);
    }
    *size = strlen(name);
    if (*size > max) {
        char shown[41];
        tqi_text_escape(shown, sizeof(shown), name);
        return tqi_error_set(err, TQ_ENAME,
                             "%s name '%s...' has %zu bytes, at most %zu are allowed: use a shorter "
                             "one, such as a hash of it",
                             what, shown, *size, max);
    }
    return TQ_OK;
}

int tqi_check_size(const char *what, const char *name, size_t max, tq_error *err)
{
    size_t size;

    return error_name_size(what, name, max, &size, err);
}

int tqi_check_name(const char *what, const char *name, size_t max, tq_error *err)
{
    size_t size = 0;
    int rc = error_name_size(what, name, max, &size, err);
    size_t plain = rc ? 0 : tqi_text_plain(name, size);

    if (plain == size || rc) {
        return rc;
    }
    char shown[200];
    tqi_text_escape(shown, sizeof(shown), name);
    unsigned byte = (unsigned char)name[plain];
    return tqi_error_set(err, TQ_ENAME,
                         "%s name '%s' has %s at byte %zu (0x%02x): names are UTF-8 without control "
                         "characters; encode other bytes, as hexadecimal for one",
                         what, shown,
                         byte < 0x20 || byte == 0x7f || byte == 0xc2 ? "a control character" : "what is not UTF-8",
                         plain, byte);
}
