/*
 * stdio.h - standing in for closed standard descriptors.
 */
#ifndef TQI_BASE_STDIO_H
#define TQI_BASE_STDIO_H

/* Opens /dev/null in the place of each of the descriptors 0 to 2 that is closed.  Else the next socket or event loop would
 * get that number: what is written to stderr would go there, and libuv aborts when it closes one. */
void tqi_stdio_guard(void);

#endif
