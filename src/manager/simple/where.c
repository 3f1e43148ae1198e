/*
 * where.c - where a unit is, seen from this process, and what is logged about it. A unit registers its endpoints, its
 * machine, the number of its server, the file of its unix socket and, if it has one, its node. Two nodes may be on one
 * machine (those of a Ray cluster, containers), and then nearness depends on the node: if both sides name theirs, the
 * node counts and not the machine. Containers on one machine may have the same paths for different files and the same
 * addresses for different hosts: a path is used for the unit only if it is the same file, and a server that answers
 * must have the registered number (tqi_net_channel_get_server).
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "manager/simple/simple.h"

/* Numbers in the third field of a unit's info; 0 if it has none. */
typedef struct where_marks {
    unsigned long long server, device, inode;
} where_marks;

/* Whether the path of the list's first unix endpoint leads to the unit's socket here, too. */
static bool where_in_sight(const char *list, const where_marks *marks)
{
    const char *at = strstr(list, "unix:");
    struct stat st;
    char path[256];

    if (at == NULL) {
        return false;
    }
    at += strlen("unix:");
    size_t size = strcspn(at, ",");
    if (size >= sizeof(path)) {
        return false;
    }
    memcpy(path, at, size);
    path[size] = 0;
    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
           (marks->inode == 0 || (st.st_ino == marks->inode && st.st_dev == marks->device));
}

/* The list without its unix endpoints. */
static char *where_without_unix(const char *list)
{
    char *out = calloc(1, strlen(list) + 1);
    size_t n = 0;

    for (const char *at = list; out != NULL && *at != 0;) {
        size_t size = strcspn(at, ",");
        if (strncmp(at, "unix:", 5) != 0) {
            if (n > 0) {
                out[n++] = ',';
            }
            memcpy(out + n, at, size);
            n += size;
        }
        at += size;
        at += *at == ',';
    }
    return out;
}

/* Why a unit is not local; NULL if it is. */
static const char *where_away(const tqi_simple *simple, const char *list, const char *machine, const where_marks *marks,
                              const char *node)
{
    bool by_node = node[0] != 0 && simple->node != NULL;

    if (by_node && strcmp(node, simple->node) != 0) {
        return "it is on another node";
    }
    if (!by_node && machine[0] != 0 && simple->machine[0] != 0 && strcmp(machine, simple->machine) != 0) {
        return "it is on another machine";
    }
    if (strstr(list, "unix:") == NULL) {
        return "it has no unix socket";
    }
    return where_in_sight(list, marks) ? NULL
                                       : "its unix socket is not to be seen from here (another "
                                         "container or user?)";
}

int tqi_simple_link_set_info(tqi_simple_link *link, const void *info, size_t size)
{
    char *copy = calloc(1, size + 4);
    where_marks marks = {0};
    char *endpoint;

    if (copy == NULL) {
        return TQ_ENOMEM;
    }
    if (size > 0) {
        memcpy(copy, info, size);
    }
    size_t list = strlen(copy);
    const char *machine = copy + list + 1;
    const char *text = list < size ? machine + strlen(machine) + 1 : machine;
    if (text < copy + size) {
        char *at = NULL;
        marks.server = strtoull(text, &at, 16);
        marks.device = strtoull(at, &at, 16);
        marks.inode = strtoull(at, &at, 16);
    }
    const char *node = text < copy + size ? text + strlen(text) + 1 : "";
    const char *away = where_away(link->simple, copy, machine, &marks, node);
    endpoint = away == NULL ? strdup(copy) : where_without_unix(copy);
    if (endpoint != NULL && endpoint[0] == 0) {
        /* Only sockets that are elsewhere: kept, so that the error says where the unit should be. */
        free(endpoint);
        endpoint = strdup(copy);
    }
    if (endpoint == NULL) {
        free(copy);
        return TQ_ENOMEM;
    }
    free(link->info);
    free(link->endpoint);
    link->info = copy;
    link->info_size = size;
    link->endpoint = endpoint;
    link->local = away == NULL;
    link->away = away;
    link->said = false;
    link->server = marks.server;
    return TQ_OK;
}

void tqi_simple_link_say(tqi_simple_link *link, const char *failure)
{
    if (link->said) {
        return;
    }
    link->said = true;
    if (link->local && failure == NULL) {
        tqi_log(TQI_INFO, "client", "storage unit '%s' is used by shared memory", link->name);
        return;
    }
    /* A failure is worth attention: on one machine, users expect shared memory. */
    tqi_log(failure != NULL ? TQI_WARN : TQI_INFO, "client",
            "storage unit '%s' is used over the stream, not by shared memory: %s", link->name,
            failure != NULL ? failure : link->away);
}

bool tqi_simple_link_near(const tqi_simple_link *link)
{
    return link->local && link->map_state != TQI_SIMPLE_MAP_REFUSED;
}
