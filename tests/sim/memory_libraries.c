/*
 * memory_libraries.c - the shared libraries that keep data of the product (CRoaring, jansson, protobuf-c) allocate from
 * the heap of the process, too: when the program starts, their tables of imported functions are changed. They get all
 * that they ask for: CRoaring does not survive a failure.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "heap.h"
#include "memory.h"

#ifdef __aarch64__
#define LIBRARIES_JUMP_SLOT R_AARCH64_JUMP_SLOT
#define LIBRARIES_GLOB_DAT  R_AARCH64_GLOB_DAT
#define LIBRARIES_ADDRESS   R_AARCH64_ABS64
#else
#define LIBRARIES_JUMP_SLOT R_X86_64_JUMP_SLOT
#define LIBRARIES_GLOB_DAT  R_X86_64_GLOB_DAT
#define LIBRARIES_ADDRESS   R_X86_64_64
#endif

static void *libraries_take(size_t size, size_t align, bool zero, const void *caller)
{
    void *memory = heap_take(heap_current, size, align, zero, caller);

    if (memory == NULL) {
        sim_found("memory", "a library asks for %zu bytes, and the heap of %s is full", size, heap_current->name);
    }
    return memory;
}

static void *libraries_malloc(size_t size)
{
    return libraries_take(size, 1, false, __builtin_return_address(0));
}

static void *libraries_calloc(size_t n, size_t size)
{
    return libraries_take(n * size, 1, true, __builtin_return_address(0));
}

static void *libraries_realloc(void *old, size_t size)
{
    void *memory = libraries_take(size, 1, false, __builtin_return_address(0));

    if (old != NULL) {
        size_t had = __wrap_malloc_usable_size(old);
        memcpy(memory, old, had < size ? had : size);
        __wrap_free(old);
    }
    return memory;
}

static int libraries_posix_memalign(void **out, size_t align, size_t size)
{
    *out = libraries_take(size, align, false, __builtin_return_address(0));
    return 0;
}

static char *libraries_strdup(const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(libraries_take(size, 1, false, __builtin_return_address(0)), text, size);
}

static const struct {
    const char *name;
    void (*ours)(void);
} libraries_imports[] = {
    {"malloc", (void (*)(void))libraries_malloc},
    {"calloc", (void (*)(void))libraries_calloc},
    {"realloc", (void (*)(void))libraries_realloc},
    {"free", (void (*)(void))__wrap_free},
    {"posix_memalign", (void (*)(void))libraries_posix_memalign},
    {"strdup", (void (*)(void))libraries_strdup},
};

static const char *const libraries_names[] = {"libroaring.", "libjansson.", "libprotobuf-c."};

/* Lets the entries of a table of relocations that name a function of ours point to it. */
static void libraries_redirect(uintptr_t load, const ElfW(Rela) * table, size_t bytes, const ElfW(Sym) * symbols,
                               const char *strings)
{
    if (table == NULL || symbols == NULL || strings == NULL) {
        return;
    }
    for (size_t i = 0; i < bytes / sizeof(*table); i++) {
        const char *name = strings + symbols[ELF64_R_SYM(table[i].r_info)].st_name;
        uintptr_t type = ELF64_R_TYPE(table[i].r_info), slot = load + table[i].r_offset, page = slot & ~UINT64_C(4095);
        if (type != LIBRARIES_JUMP_SLOT && type != LIBRARIES_GLOB_DAT && type != LIBRARIES_ADDRESS) {
            continue;
        }
        for (size_t k = 0; k < sizeof(libraries_imports) / sizeof(libraries_imports[0]); k++) {
            if (strcmp(name, libraries_imports[k].name) == 0) {
                mprotect((void *)page, 4096, PROT_READ | PROT_WRITE);
                memcpy((void *)slot, &libraries_imports[k].ours, sizeof(void *));
            }
        }
    }
}

static int libraries_visit(struct dl_phdr_info *info, size_t size, void *arg)
{
    const ElfW(Rela) *table = NULL, *calls = NULL;
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    size_t table_bytes = 0, calls_bytes = 0;
    bool wanted = false;

    (void)size;
    (void)arg;
    for (size_t i = 0; i < sizeof(libraries_names) / sizeof(libraries_names[0]); i++) {
        wanted = wanted || strstr(info->dlpi_name, libraries_names[i]) != NULL;
    }
    for (size_t i = 0; wanted && i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) {
            continue;
        }
        const ElfW(Dyn) *dyn = (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
        for (; dyn->d_tag != DT_NULL; dyn++) {
            /* The C library has made these absolute. */
            const void *at = (const void *)dyn->d_un.d_ptr;
            table = dyn->d_tag == DT_RELA ? at : table;
            calls = dyn->d_tag == DT_JMPREL ? at : calls;
            symbols = dyn->d_tag == DT_SYMTAB ? at : symbols;
            strings = dyn->d_tag == DT_STRTAB ? at : strings;
            table_bytes = dyn->d_tag == DT_RELASZ ? dyn->d_un.d_val : table_bytes;
            calls_bytes = dyn->d_tag == DT_PLTRELSZ ? dyn->d_un.d_val : calls_bytes;
        }
        libraries_redirect(info->dlpi_addr, table, table_bytes, symbols, strings);
        libraries_redirect(info->dlpi_addr, calls, calls_bytes, symbols, strings);
    }
    return 0;
}

__attribute__((constructor)) static void libraries_begin(void)
{
    dl_iterate_phdr(libraries_visit, NULL);
}
