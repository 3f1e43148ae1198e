/*
 * factory.c - finds the storage manager of a type, loading a plug-in library if its config names one; and checks
 * whether its store can be reached.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "manager/kv/kv.h"
#include "manager/manager.h"

/* Whether a colon-separated list of paths contains the path. */
static bool factory_has(const char *list, const char *path)
{
    size_t size = strlen(path);

    for (const char *at = list; at != NULL && *at; at += strcspn(at, ":"), at += *at == ':') {
        if (strncmp(at, path, size) == 0 && (at[size] == 0 || at[size] == ':')) {
            return true;
        }
    }
    return false;
}

/* A library is code that runs in this process, and the operator of the system we connect to can name any file in its
 * configuration. */
static int factory_load(const char *type, const char *library, const tqi_manager_trust *trust, tq_error *err)
{
    if (!trust->own_config && !factory_has(trust->libraries, library) && !factory_has(getenv("TQ_LIBRARIES"), library)) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "the system's configuration names the library %s for backend %s, which this process "
                             "has "
                             "not allowed: it would run the library's code. If you trust it, set TQ_LIBRARIES=%s "
                             "(a list of paths, joined by colons), or name it in this process's own configuration, "
                             "backend.%s.library",
                             library, type, library, type);
    }
    return tq_manager_load(library, err);
}

int tqi_manager_make(const char *type, const char *config, const tqi_manager_trust *trust,
                     const tq_storage_manager **out, tq_error *err)
{
    json_error_t where;
    json_t *root = json_loads(config, 0, &where);
    int rc = TQ_OK;

    if (root == NULL || !json_is_object(root)) {
        json_decref(root);
        return tqi_error_set(err, TQ_ECONFIG, "config of storage manager %s: a JSON object is expected", type);
    }
    const char *library = json_string_value(json_object_get(root, "library"));
    /* A type that this process has, or has loaded, needs no library. */
    if (library != NULL && tq_manager_find(type, out, NULL) != TQ_OK) {
        rc = factory_load(type, library, trust, err);
    }
    json_decref(root);
    return rc != TQ_OK ? rc : tq_manager_find(type, out, err);
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
    const tq_kv_client *client = tq_manager_find(type, &found, NULL) == TQ_OK ? tqi_kv_client_of(found) : NULL;

    return client != NULL && client->list != NULL ? client : NULL;
}

bool tqi_manager_ends(const char *type)
{
    return factory_lists(type) != NULL;
}

int tqi_manager_end(const char *type, const char *config, uint64_t epoch, double seconds, uint64_t *removed,
                    tq_error *err)
{
    const tq_kv_client *client = factory_lists(type);

    *removed = 0;
    return client != NULL ? tqi_kv_end(client, config, epoch, seconds, removed, err)
                          : tqi_error_set(err, TQ_EUNSUPPORTED, "only this system's clients can remove them");
}
