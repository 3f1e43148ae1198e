/*
 * text.h - text in a buffer of fixed size; excess text is truncated.
 */
#ifndef TQI_BASE_TEXT_H
#define TQI_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* The ending of a noun behind that number: "1 block", "2 blocks". */
static inline const char *tqi_text_s(uint64_t n)
{
    return n == 1 ? "" : "s";
}

/* Offset of the first byte that is not plain text: a control character (of C0, DEL or C1), or invalid UTF-8; the size
 * if there is none. Such bytes may be commands to a terminal, or split a line in two. */
size_t tqi_text_plain(const char *text, size_t size);
/* Copies text, truncated to the size including the terminating 0; each byte that is not plain becomes "\\x1b". */
void tqi_text_escape(char *out, size_t size, const char *text);

typedef struct tqi_text {
    char *at; /* the closing 0, where the next part goes */
    size_t left;
} tqi_text;

/* Empties the buffer, which has room for at least the terminating 0. */
tqi_text tqi_text_begin(char *buffer, size_t size);
void tqi_text_add(tqi_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends names as "a, b, c". */
void tqi_text_add_names(tqi_text *text, char *const *names, size_t n);

#endif
