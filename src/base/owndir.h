/*
 * owndir.h - directories into which only this user can look, such as those that hold the token of a system.
 *
 * In a shared directory such as /tmp anybody can make what is looked for there, or a link in its place.  So such a
 * directory is opened without following a link, its owner and mode are asked of the descriptor, and what lies in it is
 * reached from the descriptor, never by its path again.
 */
#ifndef TQI_BASE_OWNDIR_H
#define TQI_BASE_OWNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <tq/errors.h>

/* Which directory: `name` below the descriptor `at`, or a path with AT_FDCWD.  Links are followed up to its last part only. */
typedef struct tqi_owndir {
    int at;
    const char *name;
    const char *shown;  /* its path, for messages */
    const char *remedy; /* what to do when it is another's: "set ... to ..." */
} tqi_owndir;

/* Opens a directory, and makes it before where `make` says so.  TQ_EUNREACHABLE when it is not there; TQ_ECONFIG when it cannot
 * be made, or is no directory of this user with mode 0700: nothing of it has been used then. */
int tqi_owndir_open(const tqi_owndir *which, bool make, int *fd, tq_error *err);

/* Reads a regular file of at most `max` bytes, with a closing 0; *text is the caller's.  TQ_EUNREACHABLE when it is not there. */
int tqi_owndir_read(int dir, const char *name, const char *shown, size_t max, char **text,
                    size_t *size, tq_error *err);
/* Writes a file whole, mode 0600: others see the old one or the new one. */
int tqi_owndir_write(int dir, const char *name, const char *shown, const void *bytes, size_t size,
                     tq_error *err);

/* Removes what a daemon that was killed has left in the directory of its system: files and sockets by the names that daemons
 * give them.  Anything else stays. */
void tqi_owndir_clear(int dir);

#endif
