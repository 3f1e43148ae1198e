/*
 * image.c - the writable data of the product (registries, the log, the pool of buffers, the list of clients to fork) is
 * there once in the program, but every simulated process has its own: when another process goes on, what is in place is
 * put away and that of the process is brought. image.ld gathers that data into one range.
 *
 * Under the sanitizers most of that range is what they know about it, a thousand times as much as the data. There the
 * symbols of the program say where the variables are.
 */
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "heap.h"
#include "memory.h"

#define IMAGE_GAP 32u /* bytes between two ranges that are copied with them */

extern uint8_t sim_image_low[], sim_image_high[];

typedef struct {
    uint8_t *at;
    size_t size;
} image_range;

static image_range *ranges;
static size_t n_ranges, image_bytes;
static uint8_t *pristine;
static sim_process *in_place; /* NULL: of no process that lives */

/* A copy of the ranges, one behind the other. */
struct sim_image {
    uint8_t first;
};

/* --- which bytes ----------------------------------------------------------- */

#ifdef SIM_ASAN

static int image_order(const void *a, const void *b)
{
    const image_range *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* Joins those that touch or nearly do. */
static void image_join(size_t n)
{
    qsort(ranges, n, sizeof(*ranges), image_order);
    n_ranges = 0;
    for (size_t i = 0; i < n; i++) {
        image_range *last = n_ranges > 0 ? &ranges[n_ranges - 1] : NULL;
        if (last != NULL && ranges[i].at <= last->at + last->size + IMAGE_GAP) {
            uint8_t *end = ranges[i].at + ranges[i].size;
            last->size = end > last->at + last->size ? (size_t)(end - last->at) : last->size;
        } else {
            ranges[n_ranges++] = ranges[i];
        }
    }
}

static void image_read_symbols(const uint8_t *file)
{
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)(const void *)file;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(const void *)(file + head->e_shoff);
    const Elf64_Sym *symbols = NULL;
    const char *names = NULL;
    uintptr_t load = 0;
    size_t n_symbols = 0, n = 0;

    for (size_t i = 0; i < head->e_shnum; i++) {
        if (sections[i].sh_type == SHT_SYMTAB) {
            symbols = (const Elf64_Sym *)(const void *)(file + sections[i].sh_offset);
            n_symbols = sections[i].sh_size / sizeof(*symbols);
            names = (const char *)file + sections[sections[i].sh_link].sh_offset;
        }
    }
    for (size_t i = 0; i < n_symbols; i++) {
        if (strcmp(names + symbols[i].st_name, "sim_image_low") == 0) {
            load = (uintptr_t)sim_image_low - symbols[i].st_value;
        }
    }
    ranges = n_symbols > 0 ? malloc(n_symbols * sizeof(*ranges)) : NULL;
    for (size_t i = 0; i < n_symbols && ranges != NULL; i++) {
        uint8_t *at = (uint8_t *)(load + symbols[i].st_value);
        if (ELF64_ST_TYPE(symbols[i].st_info) == STT_OBJECT && symbols[i].st_size > 0 && at >= sim_image_low &&
            at < sim_image_high && strncmp(names + symbols[i].st_name, "__odr_asan", 10) != 0) {
            ranges[n++] = (image_range){at, symbols[i].st_size};
        }
    }
    image_join(n);
}

static void image_find_ranges(void)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0) {
        void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file != MAP_FAILED) {
            image_read_symbols(file);
            munmap(file, (size_t)st.st_size);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    if (ranges == NULL) {
        fprintf(stderr, "sim: the program has no symbols, which tell where the data of the product is\n");
        exit(2);
    }
}

#else

static void image_find_ranges(void)
{
    static image_range all;

    all = (image_range){sim_image_low, (size_t)(sim_image_high - sim_image_low)};
    ranges = &all;
    n_ranges = 1;
}

#endif

/* --- copies ---------------------------------------------------------------- */

#ifdef SIM_ASAN
/* Not memcpy: between the variables there is memory that the sanitizer forbids. */
__attribute__((no_sanitize("address", "undefined"), optimize("no-tree-loop-distribute-patterns"))) static void image_copy_range(
    uint8_t *to, const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        to[i] = from[i];
    }
}
#else
static void image_copy_range(uint8_t *to, const uint8_t *from, size_t size)
{
    memcpy(to, from, size);
}
#endif

static void image_put_away(uint8_t *copy)
{
    for (size_t i = 0; i < n_ranges; copy += ranges[i++].size) {
        image_copy_range(copy, ranges[i].at, ranges[i].size);
    }
}

static void image_bring(const uint8_t *copy)
{
    for (size_t i = 0; i < n_ranges; copy += ranges[i++].size) {
        image_copy_range(ranges[i].at, copy, ranges[i].size);
    }
}

void memory_statics(void (*fn)(const void *at, size_t size, void *arg), void *arg)
{
    for (size_t i = 0; i < n_ranges; i++) {
        /* Whole words: variables that hold addresses are aligned. */
        size_t before = -(uintptr_t)ranges[i].at & (sizeof(void *) - 1);
        if (ranges[i].size > before) {
            fn(ranges[i].at + before, ranges[i].size - before, arg);
        }
    }
}

/* --- processes --------------------------------------------------------------- */

void sim_image_keep(void)
{
    image_put_away(pristine);
}

/* Before main: what sets the data of the product for every process comes later, and calls sim_image_keep. */
__attribute__((constructor)) static void image_begin(void)
{
    image_find_ranges();
    for (size_t i = 0; i < n_ranges; i++) {
        image_bytes += ranges[i].size;
    }
    pristine = sim_alloc(image_bytes);
    sim_image_keep();
}

void sim_image_start(sim_process *process)
{
    process->image = sim_alloc(image_bytes);
    memcpy(process->image, pristine, image_bytes);
}

void sim_image_end(sim_process *process)
{
    if (in_place == process) {
        in_place = NULL;
        image_bring(pristine);
    }
    sim_free(process->image);
    process->image = NULL;
}

void sim_image_enter(sim_process *process)
{
    /* The simulator works with what is in place: it asks the product for nothing that changes it. */
    if (process == NULL || process == in_place) {
        return;
    }
    if (in_place != NULL) {
        image_put_away((uint8_t *)in_place->image);
    }
    image_bring((const uint8_t *)process->image);
    in_place = process;
}
