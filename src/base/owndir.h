/*
 * owndir.h - directories that only this user can access, such as those that hold the token of a system. In a shared
 * directory such as /tmp, anybody can create the expected name, or a link in its place. So such a directory is opened
 * without following a link, its owner and mode are checked on the descriptor, and its contents are reached through the
 * descriptor, never through the path again.
 */
#ifndef TQI_BASE_OWNDIR_H
#define TQI_BASE_OWNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <tq/errors.h>

/* Which directory: `name` below the descriptor `at`, or a path with AT_FDCWD. Links are followed except in the last
 * part. */
typedef struct tqi_owndir {
    int at;
    const char *name;
    const char *shown;  /* its path, for messages */
    const char *remedy; /* what to do when it is another's: "set ... to ..." */
} tqi_owndir;

/* Opens a directory; with `make`, creates it first. TQ_EUNREACHABLE if it does not exist; TQ_ECONFIG if it cannot be
 * created, or is not a directory of this user with mode 0700: nothing in it has then been used. */
int tqi_owndir_open(const tqi_owndir *which, bool make, int *fd, tq_error *err);

/* Reads a regular file of at most `max` bytes and adds a terminating 0; the caller owns *text. TQ_EUNREACHABLE if it
 * does not exist. */
int tqi_owndir_read(int dir, const char *name, const char *shown, size_t max, char **text, size_t *size, tq_error *err);
/* Writes a file atomically, mode 0600: others see either the old one or the new one. */
int tqi_owndir_write(int dir, const char *name, const char *shown, const void *bytes, size_t size, tq_error *err);

/* Removes what a killed daemon left in its system's directory: files and sockets with the names that daemons use.
 * Anything else stays. */
void tqi_owndir_clear(int dir);

#endif
