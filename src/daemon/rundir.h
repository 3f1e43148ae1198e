/*
 * rundir.h - the runtime directory of one system: token, sockets and the handle by which others find it.
 *
 *   DIR/handle.json   {address, token_file, pid, owner_pid, name, user, created, version, library, module}; written
 *   last,
 *                     atomically
 *   DIR/token         the system's secret, mode 0600
 *   DIR/controller.sock, DIR/unit-N.sock, DIR/redis.sock
 *
 * The directory and its parent are held open from the start. Everything is written and removed through these
 * descriptors and has one of the names above: a link put in place of the directory has no effect.
 */
#ifndef TQI_DAEMON_RUNDIR_H
#define TQI_DAEMON_RUNDIR_H

#include "net/net.h"

#include <stdint.h>

typedef struct tqd_rundir {
    char path[256];
    char name[256];
    char token_file[300];
    const char *last;       /* part of the path */
    int fd, parent;         /* while it is made */
    bool in_base;           /* it is in the directory of all systems of this user */
    bool made;              /* the directory is ours to remove */
    size_t n_units;         /* whose sockets are in it */
    uint64_t device, inode; /* of our token, to check whether it is still ours */
    int64_t changed_ns;
} tqd_rundir;

/* Makes the directory (mode 0700) and the token in it: the given one, or a random one if that is empty. TQ_EEXIST if a
 * running system has it. */
int tqd_rundir_init(tqd_rundir *dir, const char *path, const char *name, tqi_net_token *token, tq_error *err);
/* Writes the handle: from now on others can find the system. `library` and `module`, unless NULL, are those of its
 * storage backend: clients that come through the handle, which only this user can write, may load and import them. */
int tqd_rundir_publish(const tqd_rundir *dir, const char *address, uint64_t parent_pid, const char *library,
                       const char *module, tq_error *err);
/* Removes the handle: nobody can find the system any more. */
void tqd_rundir_withdraw(const tqd_rundir *dir);
/* Removes everything that was made, and the directory of all systems of this user if it is empty. Files that others
 * have put into the directory stay, and then so does the directory, with a warning. A zeroed struct is allowed. If
 * another system of that name has begun to use the directory meanwhile, all of it is left alone. */
void tqd_rundir_fini(tqd_rundir *dir);

#endif
