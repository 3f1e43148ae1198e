/*
 * stdio.h - standing in for closed standard descriptors.
 */
#ifndef TQI_BASE_STDIO_H
#define TQI_BASE_STDIO_H

/* Opens /dev/null for each of the descriptors 0 to 2 that is closed. Otherwise the next socket or event loop would get
 * that number: output to stderr would go there, and libuv aborts when it closes one of these. */
void tqi_stdio_guard(void);

#endif
