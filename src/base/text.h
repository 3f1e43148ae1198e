/*
 * text.h - text in a buffer of fixed size; what does not fit is cut off.
 */
#ifndef TQI_BASE_TEXT_H
#define TQI_BASE_TEXT_H

#include <stddef.h>

typedef struct tqi_text {
    char *at; /* the closing 0, where the next part goes */
    size_t left;
} tqi_text;

/* Empties the buffer, which has room for at least the closing 0. */
tqi_text tqi_text_begin(char *buffer, size_t size);
void tqi_text_add(tqi_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends names as "a, b, c". */
void tqi_text_add_names(tqi_text *text, char *const *names, size_t n);

#endif
