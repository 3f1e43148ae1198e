/*
 * disk_tree.h - what the files of the virtual file system share.
 *
 *   disk.c         nodes, names, paths, hosts
 *   disk_sync.c    what is on the medium: fsync, writing back, power loss, flipped bits
 *   disk_calls.c   wrapped calls on descriptors: open, read, write, fsync, flock, ...
 *   disk_names.c   wrapped calls on names: mkdir, rename, unlink, stat, access, ...
 *   disk_stream.c  wrapped functions above those: opendir, nftw, fopen, json_load_file
 *
 * A node has two states: what every process sees now, and what lies on the medium. A write or a change of names is made
 * to the first at once and listed for the second; fsync, or half a minute, brings it there. When its host loses power,
 * the medium is what is left, with a drawn part of the list.
 *
 * There are no symbolic links, no permissions and no hard links.
 */
#ifndef TQ_SIM_DISK_TREE_H
#define TQ_SIM_DISK_TREE_H

#include "sim.h"

#include <errno.h>
#include <stdio.h>

#define DISK_NAME_MAX   255
#define DISK_PATH_MAX   4096
#define DISK_SECTOR     512
#define DISK_WRITE_BACK (30 * SIM_S) /* what is older than this lies on the medium without fsync */

typedef struct disk_node disk_node;
typedef struct disk_host disk_host;
typedef struct disk_open disk_open;

typedef enum disk_kind {
    DISK_FILE,
    DISK_DIR,
    DISK_SOCKET
} disk_kind;

typedef struct disk_bytes {
    uint8_t *bytes;
    size_t size, room;
} disk_bytes;

/* A write to a file, or a change of its size (bytes NULL), that is not on the medium yet. */
typedef struct disk_write {
    struct disk_write *next;
    uint64_t number; /* of the host: the order of everything that was done */
    uint64_t time;
    size_t offset; /* or the new size */
    size_t size;
    uint8_t *bytes;
} disk_write;

typedef struct disk_name {
    char *name;
    disk_node *node;
} disk_name;

/* The names in a directory, sorted. */
typedef struct disk_names {
    disk_name *name;
    size_t n, room;
} disk_names;

struct disk_node {
    disk_kind kind;
    uint64_t number; /* st_ino */
    disk_host *host;
    disk_node *prev, *next; /* all of the host */
    uint32_t mode;
    uint32_t refs;     /* names, open files, listed changes */
    uint32_t links;    /* names, now */
    disk_node *parent; /* of a directory that has a name; not counted */
    /* of a file */
    disk_bytes now, medium;
    disk_write *writes, **writes_end; /* not on the medium yet */
    uint32_t writers;                 /* open files that may write */
    bool flipped;                     /* a bit was; the product must not take it for whole */
    bool full;                        /* the rest of a write that was cut short gets ENOSPC */
    /* of a directory */
    disk_names names, medium_names;
    /* flock */
    disk_open *exclusive;
    uint32_t shared;
    void *socket; /* of a socket that is bound to it */
};

/* From now on, this name in that directory is of the node (NULL: of none). */
typedef struct disk_part {
    disk_node *dir;
    char *name;
    disk_node *node;
} disk_part;

/* A change of names that is not on the medium yet; it gets there as a whole. */
typedef struct disk_change {
    struct disk_change *next;
    uint64_t number;
    uint64_t time;
    uint32_t n;
    bool marked;
    disk_part part[2];
} disk_change;

struct disk_host {
    uint32_t host;
    disk_host *next;
    disk_node *root;
    disk_node *nodes;
    uint64_t nodes_made;
    uint64_t changes_made;
    disk_change *changes, **changes_end;
    bool journal;     /* fsync of anything brings all changes of names to the medium, as ext4 does */
    bool no_exchange; /* renameat2 cannot exchange names, as on some network file systems */
};

/* An opened file or directory. */
struct disk_open {
    sim_file file;
    disk_node *node;
    int flags;
    uint64_t at;
    int lock; /* LOCK_SH, LOCK_EX, or 0 */
};

/* Where a path leads. */
typedef struct disk_place {
    disk_node *dir;  /* NULL: the path is the root, or ends with "." or "..", or leads through a descriptor */
    disk_node *node; /* NULL: there is nothing of that name */
    char name[DISK_NAME_MAX + 1];
    bool dots;      /* ends with "." or ".." */
    bool slash;     /* ends with a slash */
    sim_file *file; /* /proc/self/fd/N of a descriptor that is not of the disk */
} disk_place;

extern sim_chance disk_chance;
extern const sim_file_ops disk_ops;

/* --- disk.c ------------------------------------------------------------------ */

/* Whether the path, relative to that descriptor, is of this file system. */
bool disk_is_path(int dir, const char *path);
/* Finds the place; -1 with errno if a directory on the way is missing, or a file's name ends with a slash. */
int disk_find(int dir, const char *path, disk_place *place);
/* Lets a file's name end with a slash: for calls that make something, and see that it is there already. */
int disk_find_place(int dir, const char *path, disk_place *place);
/* The same; there must be something. NULL with errno. */
disk_node *disk_find_node(int dir, const char *path);
/* The file system of the running process. */
disk_host *disk_here(void);
disk_host *disk_host_of(uint32_t host);
disk_node *disk_node_make(disk_host *host, disk_kind kind, uint32_t mode);
void disk_ref(disk_node *node);
void disk_unref(disk_node *node);
disk_node *disk_lookup(const disk_names *names, const char *name);
/* The place of the first name that is not less. */
size_t disk_lower(const disk_names *names, const char *name);
/* Makes the name one of the node, in that list of names alone. */
void disk_names_set(disk_names *names, const char *name, disk_node *node);
void disk_names_clear(disk_names *names);
/* The change, now, and listed for the medium. */
void disk_change_names(const disk_part *part, uint32_t n);
static inline int disk_fail(int error)
{
    errno = error;
    return -1;
}

/* --- disk_calls.c, disk_names.c ------------------------------------------------ */

/* Opens it; NULL with errno. */
sim_file *disk_open_node(disk_node *node, int flags);
void disk_stat_node(const disk_node *node, struct stat *out);

/* --- disk_sync.c -------------------------------------------------------------- */

void disk_bytes_write(disk_bytes *bytes, size_t offset, const void *from, size_t size);
void disk_bytes_resize(disk_bytes *bytes, size_t size);
/* The write, now, and listed for the medium. */
void disk_node_write(disk_node *node, size_t offset, const void *bytes, size_t size);
void disk_node_resize(disk_node *node, size_t size);
/* The node is going: frees what is listed. */
void disk_node_drop_writes(disk_node *node);
void disk_changes_drop(disk_host *host);
/* fsync, which fails with that error unless it is 0: 0, or -1 with errno. */
int disk_sync(disk_node *node, int error);
/* What is old lies on the medium; called before each change. */
void disk_write_back(disk_host *host);
/* The file is being opened for reading: a bit of it may flip. */
void disk_may_flip(disk_node *node);

/* --- faults ------------------------------------------------------------------- */

/* In every wrapped call. */
static inline void disk_point(void)
{
    if (sim_self != NULL) {
        sim_point();
    }
}
/* A call that goes to the medium: it may take long, and fail. Returns 0 or an errno. Others run meanwhile, or the
 * process is killed: what was looked up before must be looked up again. */
int disk_fault(bool needs_room);
bool disk_happens(sim_fault fault);

#endif
