/*
 * disk.h - what other parts of the kernel ask of the virtual file system.
 */
#ifndef TQ_SIM_DISK_H
#define TQ_SIM_DISK_H

/*
 * Paths of unix sockets. A path is looked up as open(2) would do it for the running process; it may begin with
 * /proc/self/fd/N, where N is a directory.
 *
 * `listener` is what socket.c knows the bound socket by. It is a number rather than a pointer, and never looked at by
 * the file system: a socket's file stays when the socket is gone, and then connections to it are refused.
 */

/* bind: makes the file. 0, or -1 with errno: EADDRINUSE when the name exists, ENOENT, ENOTDIR and so on. */
int sim_disk_socket_bind(const char *path, void *listener);
/* connect: the listener of the file. NULL with errno: ENOENT, ENOTDIR; ECONNREFUSED when it is no socket. */
void *sim_disk_socket_find(const char *path);

/*
 * For workloads, in the simulator. Whether a bit was flipped in a file at or below the path: its reader must notice.
 */
#include <stdbool.h>
#include <stdint.h>
bool sim_disk_is_damaged(uint32_t host, const char *path);

#endif
