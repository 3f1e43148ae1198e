/*
 * memory.c - the smaller of the machine's memory and the limits of this process's control groups.
 *
 * /proc/self/cgroup names the group in each hierarchy, /proc/self/mountinfo where a hierarchy is mounted and which
 * group the mount shows as its root. A limit counts for all groups below it, so every directory from the group up to
 * the mount is read: memory.max and memory.high of version 2, memory.limit_in_bytes of version 1. A file that cannot
 * be read sets no limit. Both versions may be mounted side by side; only one of them has the memory controller.
 */
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tq/tq.h>

#define MEMORY_LINE (2 * PATH_MAX)

typedef struct memory_look {
    const char *root;
    tqi_memory found;
} memory_look;

/* --- limits --------------------------------------------------------------- */

static void memory_file(memory_look *look, const char *directory, const char *name)
{
    char path[2 * PATH_MAX], text[32] = "", *end = NULL;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    ssize_t size = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[size > 0 ? size : 0] = 0;
    errno = 0;
    unsigned long long limit = strtoull(text, &end, 10);
    /* "max" is not a number. A limit of 0 would leave this process no memory to run in, so it is not a real limit. */
    if (end != text && !errno && limit > 0 && limit < look->found.bytes) {
        look->found = (tqi_memory){.bytes = limit, .of_cgroup = true};
    }
}

/* The group and all above it, up to the mount. */
static void memory_walk(memory_look *look, const char *mount, const char *group, bool unified)
{
    char directory[2 * PATH_MAX];

    int size = snprintf(directory, sizeof(directory), "%s%s%s", look->root, mount, group);
    size_t least = strlen(look->root) + strlen(mount);

    if (size < 0 || (size_t)size >= sizeof(directory)) {
        return;
    }
    for (;;) {
        if (unified) {
            memory_file(look, directory, "memory.max");
            memory_file(look, directory, "memory.high");
        } else {
            memory_file(look, directory, "memory.limit_in_bytes");
        }
        char *slash = strrchr(directory, '/');
        if (slash == NULL || (size_t)(slash - directory) < least) {
            return;
        }
        *slash = 0;
    }
}

/* --- where the groups are ------------------------------------------------- */

static FILE *memory_open(const memory_look *look, const char *name)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s%s", look->root, name);
    return fopen(path, "re");
}

/* Whether a list of words with commas has this one. */
static bool memory_has_word(const char *list, const char *word)
{
    size_t size = strlen(word);

    for (; *list; list += strcspn(list, ","), list += *list == ',') {
        if (strcspn(list, ",\n") == size && strncmp(list, word, size) == 0) {
            return true;
        }
    }
    return false;
}

/* The group of this process: of version 2, or of the hierarchy of version 1 with the memory controller. */
static bool memory_group(const memory_look *look, bool unified, char out[PATH_MAX])
{
    FILE *file = memory_open(look, "/proc/self/cgroup");
    char line[MEMORY_LINE];
    bool found = false;

    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL) {
            continue;
        }
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        found = unified ? controllers[1] == 0 : memory_has_word(controllers + 1, "memory");
        if (found) {
            snprintf(out, PATH_MAX, "%.*s", PATH_MAX - 1, path);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

/* Blanks in a path are written in octal: \040. */
static void memory_unescape(char *text)
{
    char *to = text;

    for (const char *at = text; *at; to++) {
        if (at[0] == '\\' && at[1] && at[2] && at[3]) {
            *to = (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + (at[3] - '0'));
            at += 4;
        } else {
            *to = *at++;
        }
    }
    *to = 0;
}

/* The part of the group's path below the root of the mount; "" if the mount does not show the group. */
static const char *memory_below(const char *group, const char *root)
{
    size_t size = strcmp(root, "/") == 0 ? 0 : strlen(root);

    if (strncmp(group, root, size) != 0 || (group[size] != '/' && group[size] != 0) || strstr(group, "/..") != NULL) {
        return "";
    }
    return strcmp(group + size, "/") == 0 ? "" : group + size;
}

static void memory_mount(memory_look *look, char *line)
{
    /* number parent device ROOT MOUNT options... - TYPE source OPTIONS */
    char *words[5], *save = NULL, *dash = strstr(line, " - ");
    char type[32] = "", options[512] = "", group[PATH_MAX] = "";

    if (dash == NULL || sscanf(dash, " - %31s %*s %511s", type, options) < 1) {
        return;
    }
    bool unified = strcmp(type, "cgroup2") == 0;
    if (!unified && (strcmp(type, "cgroup") != 0 || !memory_has_word(options, "memory"))) {
        return;
    }
    for (size_t i = 0; i < 5; i++) {
        words[i] = strtok_r(i == 0 ? line : NULL, " ", &save);
        if (words[i] == NULL) {
            return;
        }
    }
    memory_unescape(words[3]);
    memory_unescape(words[4]);
    if (memory_group(look, unified, group)) {
        memory_walk(look, words[4], memory_below(group, words[3]), unified);
    }
}

tqi_memory tqi_memory_limit_at(const char *root, uint64_t machine)
{
    memory_look look = {.root = root, .found = {.bytes = machine}};
    FILE *file = memory_open(&look, "/proc/self/mountinfo");
    char line[MEMORY_LINE];

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        memory_mount(&look, line);
    }
    if (file != NULL) {
        fclose(file);
    }
    return look.found;
}

tqi_memory tqi_memory_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    return tqi_memory_limit_at("", pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX);
}

uint64_t tq_memory_limit(bool *of_cgroup)
{
    tqi_memory memory = tqi_memory_limit();

    if (of_cgroup != NULL) {
        *of_cgroup = memory.of_cgroup;
    }
    return memory.bytes;
}
