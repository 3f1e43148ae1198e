/*
 * text.c - names and values made safe for people to see: anything that a terminal could take for a command is escaped,
 * and widths are counted in display cells, not in bytes.
 */
#include "cli/cli.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

void cli_text_init(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    bool named = false;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = getenv(names[i]);
        named = named || (value != NULL && *value);
    }
    /* Containers and services often set no locale; their terminals are UTF-8 anyway. */
    if (setlocale(LC_CTYPE, named ? "" : "C.UTF-8") == NULL) {
        (void)setlocale(LC_CTYPE, "C.UTF-8");
    }
}

/* Bytes of the next character of a text; 0 if they are not a character of the locale. */
static size_t text_next(const char *text, size_t left, wchar_t *out)
{
    mbstate_t state = {0};
    size_t n = mbrtowc(out, text, left, &state);

    return n == 0 || n > left ? 0 : n;
}

static bool text_is_line(char c)
{
    return c == '\n' || c == '\t';
}

char *cli_text(const char *text, bool lines)
{
    size_t left = strlen(text);
    char *out = malloc(4 * left + 1);
    char *at = out;

    while (out != NULL && left > 0) {
        wchar_t wide = 0;
        size_t n = text_next(text, left, &wide);
        if ((n > 0 && iswprint((wint_t)wide)) || (lines && text_is_line(*text))) {
            n = n > 0 ? n : 1;
            memcpy(at, text, n);
            at += n;
        } else {
            n = n > 0 ? n : 1;
            for (size_t i = 0; i < n; i++) {
                at += sprintf(at, "\\x%02x", (unsigned)(unsigned char)text[i]);
            }
        }
        text += n;
        left -= n;
    }
    if (out != NULL) {
        *at = 0;
    }
    return out;
}

/* Bytes of a text that take at most `cells`, and the cells that they take. */
static size_t text_fit(const char *text, size_t cells, size_t *taken)
{
    size_t left = strlen(text);
    const char *at = text;

    *taken = 0;
    while (left > 0) {
        wchar_t wide = 0;
        size_t n = text_next(at, left, &wide);
        int width = n > 0 ? wcwidth(wide) : 1;
        size_t more = width > 0 ? (size_t)width : 0;
        if (*taken + more > cells) {
            break;
        }
        n = n > 0 ? n : 1;
        *taken += more;
        at += n;
        left -= n;
    }
    return (size_t)(at - text);
}

size_t cli_cells(const char *text)
{
    size_t taken;

    (void)text_fit(text, SIZE_MAX, &taken);
    return taken;
}

void cli_shorten(char *text, size_t cells)
{
    bool utf8 = MB_CUR_MAX > 1;
    const char *mark = utf8 ? "\xe2\x80\xa6" : "...";
    size_t room = utf8 ? 1 : 3;
    size_t taken;

    if (cells < room || cli_cells(text) <= cells) {
        return;
    }
    size_t n = text_fit(text, cells - room, &taken);
    /* What is cut off has as many cells, but not always as many bytes: a wide one has three. */
    if (strlen(text) >= n + strlen(mark)) {
        strcpy(text + n, mark);
    } else {
        text[n] = 0;
    }
}

void cli_pad(const char *text, size_t cells, bool right)
{
    size_t taken = cli_cells(text);
    int gap = taken < cells ? (int)(cells - taken) : 0;

    if (right) {
        printf("%*s%s", gap, "", text);
    } else {
        printf("%s%*s", text, gap, "");
    }
}

size_t cli_terminal(void)
{
    struct winsize size;

    if (!isatty(STDOUT_FILENO)) {
        return 0;
    }
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* Bytes of the UTF-8 character at the start of a text; 0: it begins with none. */
static size_t text_utf8(const char *text)
{
    size_t left = strlen(text);

    for (size_t n = 1; n <= 4 && n <= left; n++) {
        json_t *one = json_stringn(text, n);
        bool whole = one != NULL;
        json_decref(one);
        if (whole) {
            return n;
        }
    }
    return 0;
}

/* The text with the bytes that are not UTF-8, whatever the locale, as "\xNN". */
static char *text_escape(const char *text)
{
    char *out = malloc(4 * strlen(text) + 1);
    char *at = out;

    while (out != NULL && *text) {
        size_t n = text_utf8(text);
        if (n > 0) {
            memcpy(at, text, n);
            at += n;
        } else {
            n = 1;
            at += sprintf(at, "\\x%02x", (unsigned)(unsigned char)*text);
        }
        text += n;
    }
    if (out != NULL) {
        *at = 0;
    }
    return out;
}

json_t *cli_json_text(const char *text)
{
    json_t *out = text != NULL ? json_string(text) : json_null();
    char *escaped = out != NULL || text == NULL ? NULL : text_escape(text);

    if (escaped != NULL) {
        out = json_string(escaped);
        free(escaped);
    }
    return out;
}

void cli_json_set(json_t *object, const char *name, json_t *value)
{
    json_t *text = cli_json_text(name);

    json_object_set_new(object, text != NULL ? json_string_value(text) : "", value);
    json_decref(text);
}
