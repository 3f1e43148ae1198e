/*
 * disk.c - the tree of the virtual file system: nodes, names and paths. See disk_tree.h.
 */
#include "disk_tree.h"

#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

sim_chance disk_chance;
static disk_host *disk_hosts;

/* --- nodes -------------------------------------------------------------------- */

disk_node *disk_node_make(disk_host *host, disk_kind kind, uint32_t mode)
{
    disk_node *node = sim_alloc(sizeof(*node));

    node->kind = kind;
    node->number = ++host->nodes_made;
    node->host = host;
    node->mode = mode & ~022u;
    node->refs = 1;
    node->writes_end = &node->writes;
    node->next = host->nodes;
    if (host->nodes != NULL) {
        host->nodes->prev = node;
    }
    host->nodes = node;
    return node;
}

static void disk_node_free(disk_node *node)
{
    if (node->prev != NULL) {
        node->prev->next = node->next;
    } else {
        node->host->nodes = node->next;
    }
    if (node->next != NULL) {
        node->next->prev = node->prev;
    }
    disk_node_drop_writes(node);
    disk_names_clear(&node->names);
    disk_names_clear(&node->medium_names);
    sim_free(node->names.name);
    sim_free(node->medium_names.name);
    sim_free(node->now.bytes);
    sim_free(node->medium.bytes);
    sim_free(node);
}

void disk_ref(disk_node *node)
{
    node->refs++;
}

void disk_unref(disk_node *node)
{
    if (--node->refs == 0) {
        disk_node_free(node);
    }
}

/* --- names -------------------------------------------------------------------- */

size_t disk_lower(const disk_names *names, const char *name)
{
    size_t low = 0;
    size_t high = names->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(names->name[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

disk_node *disk_lookup(const disk_names *names, const char *name)
{
    size_t at = disk_lower(names, name);

    return at < names->n && strcmp(names->name[at].name, name) == 0 ? names->name[at].node : NULL;
}

static void disk_names_remove(disk_names *names, size_t at)
{
    disk_node *node = names->name[at].node;

    sim_free(names->name[at].name);
    memmove(names->name + at, names->name + at + 1, (names->n - at - 1) * sizeof(*names->name));
    names->n--;
    disk_unref(node);
}

void disk_names_set(disk_names *names, const char *name, disk_node *node)
{
    size_t at = disk_lower(names, name);
    bool there = at < names->n && strcmp(names->name[at].name, name) == 0;

    if (node != NULL) {
        disk_ref(node);
    }
    if (there && node == NULL) {
        disk_names_remove(names, at);
    } else if (there) {
        disk_node *former = names->name[at].node;
        names->name[at].node = node;
        disk_unref(former);
    } else if (node != NULL) {
        if (names->n == names->room) {
            names->room = names->room ? 2 * names->room : 8;
            names->name = sim_realloc(names->name, names->room * sizeof(*names->name));
        }
        memmove(names->name + at + 1, names->name + at, (names->n - at) * sizeof(*names->name));
        names->name[at] = (disk_name){.name = sim_strdup(name), .node = node};
        names->n++;
    }
}

void disk_names_clear(disk_names *names)
{
    while (names->n > 0) {
        disk_names_remove(names, names->n - 1);
    }
}

/* Two parts may exchange names: what one displaces, the other places. So links are counted down in all, then up. */
void disk_change_names(const disk_part *part, uint32_t n)
{
    disk_host *host = part[0].dir->host;
    disk_change *change = sim_alloc(sizeof(*change));

    change->number = ++host->changes_made;
    change->time = sim_time();
    change->n = n;
    for (uint32_t i = 0; i < n; i++) {
        disk_node *former = disk_lookup(&part[i].dir->names, part[i].name);
        if (former != NULL) {
            former->links--;
        }
        change->part[i] = part[i];
        change->part[i].name = sim_strdup(part[i].name);
        disk_ref(part[i].dir);
        if (part[i].node != NULL) {
            disk_ref(part[i].node);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        if (part[i].node != NULL) {
            part[i].node->links++;
            part[i].node->parent = part[i].dir;
        }
        disk_names_set(&part[i].dir->names, part[i].name, part[i].node);
        sim_trace("disk name", part[i].dir->number, part[i].node != NULL ? part[i].node->number : 0);
    }
    *host->changes_end = change;
    host->changes_end = &change->next;
}

/* --- hosts -------------------------------------------------------------------- */

disk_host *disk_host_of(uint32_t number)
{
    disk_host **at = &disk_hosts;
    disk_host *host;

    while (*at != NULL && (*at)->host != number) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        return *at;
    }
    host = sim_alloc(sizeof(*host));
    *at = host;
    host->host = number;
    host->changes_end = &host->changes;
    host->journal = sim_one_in(&disk_chance, 2);
    host->no_exchange = sim_one_in(&disk_chance, 4);
    host->root = disk_node_make(host, DISK_DIR, 0755);
    host->root->links = 1;
    host->root->parent = host->root;
    return host;
}

disk_host *disk_here(void)
{
    return disk_host_of(sim_self != NULL ? sim_self->host : 0);
}

void sim_disk_start(void)
{
    sim_chance_init(&disk_chance, sim_seed, "disk");
}

/* Nodes may refer to each other in a circle (a name now, another one on the medium), so all names go before the nodes. */
static void disk_host_free(disk_host *host)
{
    disk_changes_drop(host);
    for (disk_node *node = host->nodes; node != NULL; node = node->next) {
        disk_ref(node);
    }
    for (disk_node *node = host->nodes; node != NULL; node = node->next) {
        disk_names_clear(&node->names);
        disk_names_clear(&node->medium_names);
    }
    while (host->nodes != NULL) {
        disk_node_free(host->nodes);
    }
    sim_free(host);
}

void sim_disk_end(void)
{
    while (disk_hosts != NULL) {
        disk_host *host = disk_hosts;
        disk_hosts = host->next;
        disk_host_free(host);
    }
}

/* --- paths -------------------------------------------------------------------- */

static bool disk_starts(const char *path, const char *with)
{
    size_t size = strlen(with);

    return strncmp(path, with, size) == 0 && (path[size] == 0 || path[size] == '/');
}

/* The virtual descriptor that a path through /proc begins at, with the rest of the path; -1: it is another path. */
static int disk_proc(const char *path, const char **rest)
{
    static const char start[] = "/proc/self/fd/";
    char *end = NULL;
    long fd;

    if (strncmp(path, start, sizeof(start) - 1) != 0) {
        return -1;
    }
    fd = strtol(path + sizeof(start) - 1, &end, 10);
    if (fd < SIM_FD_FIRST || fd > INT32_MAX || (*end != 0 && *end != '/')) {
        return -1;
    }
    *rest = end;
    return (int)fd;
}

bool disk_is_path(int dir, const char *path)
{
    const char *rest;

    if (path == NULL) {
        return false;
    }
    /* What is above the tree is opened and synced like what is in it. */
    return path[0] == '/' ? disk_starts(path, SIM_ROOT) || path[1] == 0 || disk_proc(path, &rest) >= 0
                          : dir != AT_FDCWD && sim_fd_is(dir);
}

/* Where the path begins; `path` then holds the rest. */
static disk_node *disk_begin(int dir, const char **path, disk_place *place)
{
    sim_file *file;
    int fd = dir;
    bool proc = false;

    if ((*path)[0] == '/' && (*path)[1] == 0) {
        return disk_here()->root;
    }
    if (disk_starts(*path, SIM_ROOT)) {
        *path += strlen(SIM_ROOT);
        return disk_here()->root;
    }
    if ((*path)[0] == '/') {
        fd = disk_proc(*path, path);
        proc = true;
    }
    file = sim_fd_file(fd);
    if (file == NULL) {
        (void)disk_fail(proc ? ENOENT : EBADF);
        return NULL;
    }
    if (file->ops != &disk_ops) {
        place->file = file;
        (void)disk_fail(ENOTDIR);
        return NULL;
    }
    return ((disk_open *)file)->node;
}

/* Takes the next component of the path; -1 with errno if it is too long. */
static int disk_component(const char **path, char name[DISK_NAME_MAX + 1])
{
    size_t size = strcspn(*path, "/");

    if (size > DISK_NAME_MAX) {
        return disk_fail(ENAMETOOLONG);
    }
    memcpy(name, *path, size);
    name[size] = 0;
    *path += size;
    return 0;
}

/* Whether there is another component; skips the slashes before it. */
static bool disk_goes_on(const char **path)
{
    *path += strspn(*path, "/");
    return **path != 0;
}

int disk_find_place(int dir, const char *path, disk_place *place)
{
    memset(place, 0, sizeof(*place));
    if (path[0] == 0) {
        return disk_fail(ENOENT);
    }
    if (strlen(path) >= DISK_PATH_MAX) {
        return disk_fail(ENAMETOOLONG);
    }
    place->node = disk_begin(dir, &path, place);
    if (place->node == NULL) {
        return place->file != NULL && path[0] == 0 ? 0 : -1;
    }
    while (disk_goes_on(&path)) {
        if (place->node == NULL) {
            return disk_fail(ENOENT);
        }
        if (place->node->kind != DISK_DIR) {
            return disk_fail(ENOTDIR);
        }
        if (disk_component(&path, place->name) != 0) {
            return place->node->links == 0 ? disk_fail(ENOENT) : -1;
        }
        place->dots = strcmp(place->name, ".") == 0 || strcmp(place->name, "..") == 0;
        place->slash = path[0] == '/';
        place->dir = place->dots ? NULL : place->node;
        if (!place->dots) {
            place->node = disk_lookup(&place->node->names, place->name);
        } else if (place->name[1] == '.' && place->node->links > 0) {
            place->node = place->node->parent;
        }
    }
    return 0;
}

int disk_find(int dir, const char *path, disk_place *place)
{
    int rc = disk_find_place(dir, path, place);

    return rc == 0 && place->slash && place->node != NULL && place->node->kind != DISK_DIR ? disk_fail(ENOTDIR) : rc;
}

disk_node *disk_find_node(int dir, const char *path)
{
    disk_place place;

    if (disk_find(dir, path, &place) != 0) {
        return NULL;
    }
    if (place.node == NULL) {
        (void)disk_fail(place.file != NULL ? ENOTDIR : ENOENT);
    }
    return place.node;
}

static bool disk_is_flipped(const disk_node *node)
{
    bool flipped = node->flipped;

    for (size_t i = 0; i < node->names.n && !flipped; i++) {
        flipped = disk_is_flipped(node->names.name[i].node);
    }
    return flipped;
}

bool sim_disk_is_damaged(uint32_t host, const char *path)
{
    const disk_node *node = disk_host_of(host)->root;
    char name[DISK_NAME_MAX + 1];
    const char *at = path + strlen(SIM_ROOT);

    while (node != NULL && disk_goes_on(&at) && disk_component(&at, name) == 0) {
        node = disk_lookup(&node->names, name);
    }
    return node != NULL && disk_is_flipped(node);
}

/* --- faults ------------------------------------------------------------------- */

bool disk_happens(sim_fault fault)
{
    return sim_self != NULL && sim_happens(fault);
}

int disk_fault(bool needs_room)
{
    if (disk_happens(SIM_DISK_SLOW)) {
        /* Most calls that are slow take a moment; some wait for all that others have written. */
        bool very = sim_one_in(&disk_chance, 8);
        sim_pass(sim_between(&disk_chance, SIM_MS, very ? 60 * SIM_S : SIM_S));
    }
    if (disk_happens(SIM_DISK_ERROR)) {
        return EIO;
    }
    return needs_room && disk_happens(SIM_DISK_FULL) ? ENOSPC : 0;
}
