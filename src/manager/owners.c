/*
 * owners.c - owners as the controller lists them, for storage managers.
 */
#include <stdlib.h>

#include "base/error.h"
#include "base/pointer.h"
#include "manager/manager.h"

int tqi_manager_owner_changes_read(const Tq__ListOwnersReply *reply, tqi_manager_owner_changes *out, tq_error *err)
{
    tq_owner_info *owners = calloc(reply->n_owner + 1, sizeof(*owners));

    if (owners == NULL) {
        return tqi_error_nomem(err, "the list of owners");
    }
    for (size_t i = 0; i < reply->n_owner; i++) {
        const Tq__OwnerInfo *from = reply->owner[i];
        const void *info = from->info.len > 0 ? (const void *)from->info.data : "";
        owners[i] = (tq_owner_info){
            .name = from->name,
            .incarnation = from->incarnation,
            .info = from->same ? NULL : info,
            .info_size = from->info.len,
            .present = from->present,
            .capacity_bytes = from->capacity_bytes,
            .used_bytes = from->used_bytes,
        };
    }
    *out = (tqi_manager_owner_changes){
        .all = !reply->changes,
        .owners = owners,
        .n = reply->n_owner,
        .gone = (const char *const *)reply->gone,
        .n_gone = reply->n_gone,
        .at = {.epoch = reply->epoch, .version = reply->version},
    };
    return TQ_OK;
}

void tqi_manager_owner_changes_fini(tqi_manager_owner_changes *changes)
{
    free(tqi_unconst(changes->owners));
}
