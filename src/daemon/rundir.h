/*
 * rundir.h - the runtime directory of one system: token, sockets and the handle by which others find it.
 *
 *   DIR/handle.json   {address, token_file, pid, owner_pid, name, user, created, version, library, module}; written last, whole
 *   DIR/token         the system's secret, mode 0600
 *   DIR/controller.sock, DIR/unit-N.sock, DIR/redis.sock
 *
 * The directory and the one that it lies in are held open from the start.  All that is written and removed goes through
 * these descriptors and has one of the names above: a link that somebody puts in the directory's place leads nowhere.
 */
#ifndef TQD_RUNDIR_H
#define TQD_RUNDIR_H

#include "net/net.h"

#include <stdint.h>

typedef struct tqd_rundir {
    char path[256];
    char name[256];
    char token_file[300];
    const char *last;       /* part of the path */
    int fd, parent;         /* while it is made */
    bool in_base;           /* it lies in the directory of all systems of this user */
    bool made;              /* the directory is ours to remove */
    size_t n_units;         /* whose sockets are in it */
    uint64_t device, inode; /* of our token, by which we know whether it still is */
    int64_t changed_ns;
} tqd_rundir;

/* Makes the directory (mode 0700) and the token in it: the given one, or a random one where that is empty.  TQ_EEXIST when
 * a running system has it. */
int tqd_rundir_init(tqd_rundir *dir, const char *path, const char *name, tqi_token *token,
                    tq_error *err);
/* Writes the handle: from now on others find the system.  `library` and `module`, unless NULL, are those of its storage backend:
 * clients that come by the handle, which only this user can write, may load and import them. */
int tqd_rundir_publish(const tqd_rundir *dir, const char *address, uint64_t owner_pid,
                       const char *library, const char *module, tq_error *err);
/* Removes the handle: nobody finds the system any more. */
void tqd_rundir_withdraw(const tqd_rundir *dir);
/* Removes everything that was made, and the directory of all systems of this user when it is empty.  What others have put
 * into the directory stays, and so does the directory then, with a warning.  A zeroed one is allowed.
 * When another system of that name has begun to use the directory meanwhile, all of it is left alone. */
void tqd_rundir_fini(tqd_rundir *dir);

#endif
