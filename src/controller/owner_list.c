/*
 * owner_list.c - the list of owners, for the status and for clients, which are sent its changes. Every change
 * increments the version of the list and moves the owner to the end of the list of changes. The answer for a version
 * is the part of that list after it: its cost depends on what has changed, not on how many owners there are. The names
 * of lost owners are kept, up to a limit. A client whose version is older than the oldest of them, or comes from
 * another controller, gets the whole list. An owner changes when it is new, comes back, loses its last server, or is
 * lost, and when its free bytes change: in a system with few owners at every report, in a larger one when they have
 * moved by an eighth of its capacity, or across the threshold beyond which new samples do not fit.
 */
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/text.h"
#include "controller/controller_state.h"
#include "controller/owners.h"

/* Up to this number of owners every report is a change. */
#define LIST_EXACT 40u
/* Names of lost owners that are kept. */
#define LIST_GONE_MAX 1024u

/* --- changes -------------------------------------------------------------- */

void tqi_ctl_list_changed(tqi_controller *ctl, tqi_ctl_owner *owner, bool info)
{
    tqi_ctl_list *list = &ctl->list;

    if (owner->changed) {
        DL_DELETE2(list->row, owner, older, newer);
    }
    DL_APPEND2(list->row, owner, older, newer);
    owner->changed = ++list->version;
    if (info) {
        owner->info_changed = owner->changed;
    }
}

static void list_forget(tqi_ctl_list *list, tqi_ctl_gone *gone)
{
    list->forgot = gone->version;
    list->n_gone--;
    DL_DELETE(list->gone, gone);
    free(gone->name);
    free(gone);
}

void tqi_ctl_list_lost(tqi_controller *ctl, tqi_ctl_owner *owner)
{
    tqi_ctl_list *list = &ctl->list;
    tqi_ctl_gone *gone = calloc(1, sizeof(*gone));
    char *name = strdup(owner->name);

    if (owner->changed) {
        DL_DELETE2(list->row, owner, older, newer);
        owner->changed = 0;
    }
    list->version++;
    if (gone == NULL || name == NULL) {
        list->forgot = list->version; /* so every client gets the whole list next */
        free(gone);
        free(name);
        return;
    }
    gone->name = name;
    gone->version = list->version;
    DL_APPEND(list->gone, gone);
    if (++list->n_gone > LIST_GONE_MAX) {
        list_forget(list, list->gone);
    }
}

void tqi_ctl_list_fini(tqi_controller *ctl)
{
    while (ctl->list.gone != NULL) {
        list_forget(&ctl->list, ctl->list.gone);
    }
    ctl->list.row = NULL;
}

/* Beyond it, new samples do not fit (see the unit's room.c). */
static bool list_nearly_full(uint64_t capacity, uint64_t used)
{
    return used > capacity / 10 * 9;
}

void tqi_ctl_list_filled(tqi_controller *ctl, tqi_ctl_owner *owner, uint64_t capacity, uint64_t used)
{
    uint64_t was = owner->told_used;
    uint64_t moved = used > was ? used - was : was - used;
    bool coarse = HASH_COUNT(ctl->owners) > LIST_EXACT;
    uint64_t step = coarse && capacity / 8 > 0 ? capacity / 8 : 1;

    owner->used = used;
    if (capacity != owner->capacity || moved >= step ||
        list_nearly_full(capacity, used) != list_nearly_full(capacity, was)) {
        owner->capacity = capacity;
        owner->told_used = used;
        tqi_ctl_list_changed(ctl, owner, false);
    }
}
