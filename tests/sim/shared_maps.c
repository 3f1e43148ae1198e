/*
 * shared_maps.c - what a process has mapped (shared.h): memfds, and memory without a file.
 *
 * A reservation of addresses (PROT_NONE) is refused, so that an arena is mapped where it is: memory from 2 MiB on is
 * aligned to 2 MiB already.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"
#include "shared.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

void *__real_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);
int __real_madvise(void *at, size_t size, int advice);
int __wrap_madvise(void *at, size_t size, int advice);
int __real_mincore(void *at, size_t size, unsigned char *out);
int __wrap_mincore(void *at, size_t size, unsigned char *out);

typedef struct shared_map {
    struct shared_map *next;
    uint8_t *at;
    uint64_t size; /* whole pages */
    shared_memory *memory;
    bool copy; /* private, at addresses of its own */
    bool file;
} shared_map;

struct sim_maps {
    shared_map *first; /* newest first */
};

static uint64_t maps_round(uint64_t size)
{
    return (size + SHARED_PAGE - 1) / SHARED_PAGE * SHARED_PAGE;
}

/* Of the running process, with that address in it; NULL: none. */
static shared_map *maps_find(const void *at)
{
    for (shared_map *map = sim_self != NULL ? sim_self->maps->first : NULL; map != NULL; map = map->next) {
        if ((uintptr_t)at - (uintptr_t)map->at < map->size) {
            return map;
        }
    }
    return NULL;
}

static void maps_drop(shared_map *map)
{
    if (map->copy) {
        __real_munmap(map->at, map->size);
        shared_window_give(&shared_window_of_copies, map->at, map->size);
    }
    shared_memory_unref(map->memory);
    sim_free(map);
}

/* A private mapping of a file is a real one. */
static uint8_t *maps_copy(const shared_memory *memory, uint64_t offset, uint64_t size)
{
    uint8_t *at = shared_window_take(&shared_window_of_copies, size, SHARED_UNIT);
    off_t begin = (off_t)((uint64_t)(memory->at - shared_window_of_memory.base) + offset);

    if (at != NULL && __real_mmap64(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                                    shared_backing, begin) == MAP_FAILED) {
        shared_window_give(&shared_window_of_copies, at, size);
        return NULL;
    }
    return at;
}

static void *maps_error(int rc)
{
    errno = rc;
    return MAP_FAILED;
}

static void *maps_map(size_t size, int prot, int flags, int fd, off_t offset)
{
    bool file = !(flags & MAP_ANONYMOUS), copy = file && !(flags & MAP_SHARED), writable = true;
    shared_memory *memory;
    uint8_t *at;

    if (prot == PROT_NONE || memory_fails()) {
        return maps_error(ENOMEM);
    }
    if (size == 0 || offset % SHARED_PAGE != 0) {
        return maps_error(EINVAL);
    }
    memory = file ? shared_memory_of(fd, &writable) : shared_memory_make(size);
    if (memory == NULL) {
        return maps_error(file ? errno : ENOMEM);
    }
    if (!writable && !copy && (prot & PROT_WRITE)) {
        return maps_error(EPERM);
    }
    uint64_t bytes = maps_round(size);
    if ((uint64_t)offset > memory->size || bytes > memory->size - (uint64_t)offset) {
        return maps_error(EINVAL); /* it would end in SIGBUS */
    }
    at = copy ? maps_copy(memory, (uint64_t)offset, bytes) : memory->at + offset;
    if (at == NULL) {
        return maps_error(ENOMEM);
    }
    if (file) {
        shared_memory_ref(memory);
    }
    shared_map *map = sim_alloc(sizeof(*map));
    *map = (shared_map){
        .next = sim_self->maps->first,
        .at = at,
        .size = bytes,
        .memory = memory,
        .copy = copy,
        .file = file,
    };
    sim_self->maps->first = map;
    return at;
}

void *__wrap_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    if (sim_self == NULL || (!(flags & MAP_ANONYMOUS) && !sim_fd_is(fd))) {
        return __real_mmap64(at, size, prot, flags, fd, offset);
    }
    sim_point();
    sim_check(!(flags & MAP_FIXED), "simulator", "a mapping at an address that the process chose");
    return maps_map(size, prot, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t size)
{
    if (sim_self == NULL ||
        (!shared_window_has(&shared_window_of_memory, at) && !shared_window_has(&shared_window_of_copies, at))) {
        return __real_munmap(at, size);
    }
    sim_point();
    for (shared_map **link = &sim_self->maps->first; *link != NULL; link = &(*link)->next) {
        shared_map *map = *link;
        if (map->at == at && map->size == maps_round(size)) {
            *link = map->next;
            maps_drop(map);
            return 0;
        }
    }
    sim_found("memory", "%s unmaps %zu bytes that it has not mapped so", sim_self->name, size);
}

static int maps_advise(shared_map *map, void *at, uint64_t size, int advice)
{
    uint64_t offset = (uint64_t)((uint8_t *)at - (map->copy ? map->at : map->memory->at));

    switch (advice) {
    case MADV_POPULATE_WRITE:
        if (memory_fails()) {
            errno = ENOMEM;
            return -1;
        }
        if (map->copy) {
            return __real_madvise(at, size, advice);
        }
        shared_memory_populate(map->memory, offset, size);
        return 0;
    case MADV_DONTNEED:
    case MADV_REMOVE:
        if (map->copy || map->file != (advice == MADV_REMOVE)) {
            errno = EINVAL;
            return -1;
        }
        shared_memory_punch(map->memory, offset, size);
        return 0;
    case MADV_DONTFORK:
    case MADV_HUGEPAGE:
        return 0;
    default:
        errno = EINVAL; /* such as MADV_COLLAPSE, which old kernels do not know */
        return -1;
    }
}

int __wrap_madvise(void *at, size_t size, int advice)
{
    shared_map *map = maps_find(at);

    if (sim_self == NULL) {
        return __real_madvise(at, size, advice);
    }
    sim_point();
    if (map == NULL) {
        /* Memory of malloc: advice changes nothing that can be seen. */
        return 0;
    }
    if ((uint64_t)((uint8_t *)at - map->at) + maps_round(size) > map->size) {
        errno = ENOMEM;
        return -1;
    }
    return maps_advise(map, at, maps_round(size), advice);
}

int __wrap_mincore(void *at, size_t size, unsigned char *out)
{
    const shared_map *map = maps_find(at);

    if (sim_self == NULL) {
        return __real_mincore(at, size, out);
    }
    if (map == NULL || map->copy || (uint64_t)((uint8_t *)at - map->at) + maps_round(size) > map->size) {
        errno = ENOMEM;
        return -1;
    }
    memcpy(out, map->memory->there + (uint64_t)((uint8_t *)at - map->memory->at) / SHARED_PAGE,
           maps_round(size) / SHARED_PAGE);
    return 0;
}

/* --- processes ----------------------------------------------------------------- */

void sim_maps_start(sim_process *process)
{
    process->maps = sim_alloc(sizeof(*process->maps));
}

void sim_maps_end(sim_process *process)
{
    while (process->maps->first != NULL) {
        shared_map *map = process->maps->first;
        process->maps->first = map->next;
        maps_drop(map);
    }
    sim_free(process->maps);
    process->maps = NULL;
}
