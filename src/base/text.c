/*
 * text.c - see text.h.
 */
#include "base/text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define TEXT_EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Whether eight bytes are printable ASCII: nearly all of all names. */
static bool text_is_ascii(const char *text)
{
    uint64_t word;

    memcpy(&word, text, sizeof(word));
    uint64_t controls = word - TEXT_EACH(0x20);                 /* high bit: below a blank */
    uint64_t deletes = (word ^ TEXT_EACH(0x7f)) - TEXT_EACH(1); /* high bit: 0x7f */
    return ((controls | deletes | word) & TEXT_EACH(0x80)) == 0;
}

/* Bytes of the character at a place; 0 when it is a control character, or none. */
static size_t text_character(const unsigned char *at, size_t left)
{
    unsigned first = at[0];

    if (first < 0x80) {
        return first >= 0x20 && first != 0x7f ? 1 : 0;
    }
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || size > left) {
        return 0;
    }
    uint32_t code = first & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (at[i] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000}; /* 0x80 to 0x9f: C1 */
    bool good = code >= least[size] && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    return good ? size : 0;
}

/* Whether all of it is printable ASCII; the last word may overlap the one before. */
static bool text_all_ascii(const char *text, size_t size)
{
    if (size < 8) {
        bool good = true;
        for (size_t i = 0; i < size; i++) {
            good = good && (unsigned char)(text[i] - 0x20) < 0x5f;
        }
        return good;
    }
    size_t at = 0;
    while (at + 8 < size && text_is_ascii(text + at)) {
        at += 8;
    }
    return at + 8 >= size && text_is_ascii(text + size - 8);
}

size_t tqi_text_plain(const char *text, size_t size)
{
    size_t at = 0;

    if (text_all_ascii(text, size)) {
        return size;
    }
    while (at < size) {
        if (size - at >= 8 && text_is_ascii(text + at)) {
            at += 8;
            continue;
        }
        size_t n = text_character((const unsigned char *)text + at, size - at);
        if (n == 0) {
            break;
        }
        at += n;
    }
    return at;
}

void tqi_text_escape(char *out, size_t size, const char *text)
{
    size_t left = strlen(text);
    size_t used = 0;

    while (left > 0) {
        size_t n = tqi_text_plain(text, left);
        if (n >= size - used) {
            n = size - used - 1;
            memcpy(out + used, text, n);
            used += n;
            break;
        }
        memcpy(out + used, text, n);
        used += n;
        if (n == left || size - used < sizeof("\\x00")) {
            break;
        }
        used += (size_t)snprintf(out + used, size - used, "\\x%02x", (unsigned char)text[n]);
        text += n + 1;
        left -= n + 1;
    }
    out[used] = 0;
}

tqi_text tqi_text_begin(char *buffer, size_t size)
{
    buffer[0] = 0;
    return (tqi_text){buffer, size};
}

void tqi_text_add(tqi_text *text, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text->at, text->left, format, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < text->left ? (size_t)n : text->left - 1;
    text->at += used;
    text->left -= used;
}

void tqi_text_add_names(tqi_text *text, char *const *names, size_t n)
{
    for (size_t i = 0; i < n && text->left > 1; i++) {
        tqi_text_add(text, "%s%s", i > 0 ? ", " : "", names[i]);
    }
}
