/*
 * text.c - see text.h.
 */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

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
