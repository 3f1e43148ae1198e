/*
 * factory.c - the storage manager of a type, from a plug-in library when its config names one; and whether its store is there.
 */
#include <jansson.h>

#include "base/error.h"
#include "manager/kv/kv.h"
#include "manager/manager.h"

int tqi_manager_make(const char *type, const char *config, const tq_storage_manager **out,
                     tq_error *err)
{
    json_error_t where;
    json_t *root = json_loads(config, 0, &where);
    int code = TQ_OK;

    if (root == NULL || !json_is_object(root)) {
        json_decref(root);
        return tqi_error_set(err, TQ_ECONFIG,
                             "config of storage manager %s: a JSON object is expected", type);
    }
    const char *library = json_string_value(json_object_get(root, "library"));
    if (library != NULL) {
        code = tq_manager_load(library, err);
    }
    json_decref(root);
    return code != TQ_OK ? code : tq_manager_find(type, out, err);
}

int tqi_manager_try(const char *type, const char *config, tq_error *err)
{
    const tq_storage_manager *found;

    return tq_manager_find(type, &found, NULL) == TQ_OK ? tqi_kv_try(found, config, err) : TQ_OK;
}

/* The client of a key-value store whose keys the library can list; else NULL. */
static const tq_kv_client *factory_lists(const char *type)
{
    const tq_storage_manager *found;
    const tq_kv_client *client =
        tq_manager_find(type, &found, NULL) == TQ_OK ? tqi_kv_client_of(found) : NULL;

    return client != NULL && client->list != NULL ? client : NULL;
}

bool tqi_manager_ends(const char *type)
{
    return factory_lists(type) != NULL;
}

int tqi_manager_end(const char *type, const char *config, uint64_t epoch, double seconds,
                    uint64_t *removed, tq_error *err)
{
    const tq_kv_client *client = factory_lists(type);

    *removed = 0;
    return client != NULL
               ? tqi_kv_end(client, config, epoch, seconds, removed, err)
               : tqi_error_set(err, TQ_EUNSUPPORTED, "only this system's clients can remove them");
}
