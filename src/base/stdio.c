/*
 * stdio.c - see stdio.h.
 */
#include "base/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void tqi_stdio_guard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            /* open takes the lowest free number, so it is this one; without /dev/null, nothing can be done. */
            int null = open("/dev/null", O_RDWR);
            if (null > STDERR_FILENO) {
                close(null);
            }
        }
    }
}
