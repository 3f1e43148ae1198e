/*
 * registry.c - storage managers by type: built in, registered, or loaded from shared libraries.
 *
 * Managers are never removed: clients keep pointers to their tables, and a loaded library stays loaded. One lock
 * guards the list; nothing is called while it is held.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "config_backends.h"
#include "manager/kv/kv.h"
#include "manager/manager.h"

typedef const tq_storage_manager *(*registry_plugin)(uint32_t abi);
typedef const tq_kv_client *(*registry_kv_plugin)(uint32_t abi);

#define REGISTRY_BUILT(manager)    manager,
#define REGISTRY_ABSENT(type, why) {type, why},

/* The built-in ones; ends with NULL. config/keys.toml names them. */
static const tq_storage_manager *const registry_builtin[] = {TQI_BACKENDS_BUILT(REGISTRY_BUILT) NULL};

/* Those that belong to the project but are not in this library, and why. */
static const struct {
    const char *type, *why;
} registry_elsewhere[] = {TQI_BACKENDS_ABSENT(REGISTRY_ABSENT)};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static const tq_storage_manager **registry_list;
static size_t registry_capacity;
static size_t registry_count;

/* With the lock held. */
static const tq_storage_manager *registry_get(const char *type)
{
    for (size_t i = 0; registry_builtin[i] != NULL; i++) {
        if (strcmp(type, registry_builtin[i]->type) == 0) {
            return registry_builtin[i];
        }
    }
    for (size_t i = 0; i < registry_count; i++) {
        if (strcmp(type, registry_list[i]->type) == 0) {
            return registry_list[i];
        }
    }
    return NULL;
}

/* Whether a table can be served. */
static int registry_check(const tq_storage_manager *manager, tq_error *err)
{
    if (manager == NULL) {
        return tqi_error_null(err, "tq_manager_register: manager");
    }
    if (manager->abi < 1 || manager->abi > TQ_MANAGER_ABI) {
        return tqi_error_set(err, TQ_EVERSION,
                             "storage manager '%s' was made for version %u of the interface, this is version %u",
                             manager->type != NULL ? manager->type : "", manager->abi, TQ_MANAGER_ABI);
    }
    int rc = tqi_check_name("storage manager", manager->type != NULL ? manager->type : "", TQ_NAME_MAX, err);
    if (rc != TQ_OK) {
        return rc;
    }
    const char *missing = manager->open == NULL                               ? "open"
                          : manager->close == NULL                            ? "close"
                          : manager->put == NULL                              ? "put"
                          : manager->get == NULL                              ? "get"
                          : manager->owner != NULL && manager->remove == NULL ? "remove"
                                                                              : NULL;
    if (missing != NULL) {
        return tqi_error_set(err, TQ_EINVAL, "storage manager '%s' has no function '%s'", manager->type, missing);
    }
    return TQ_OK;
}

int tq_manager_register(const tq_storage_manager *manager, tq_error *err)
{
    int rc = registry_check(manager, err);

    if (rc != TQ_OK) {
        return rc;
    }
    pthread_mutex_lock(&registry_lock);
    const tq_storage_manager *known = registry_get(manager->type);
    if (known == manager) {
        rc = TQ_OK;
    } else if (known != NULL) {
        rc = tqi_error_set(err, TQ_EEXIST, "there is a storage manager '%s' already", manager->type);
    } else if (tqi_grow(&registry_list, &registry_capacity, registry_count + 1, sizeof(*registry_list)) != TQ_OK) {
        rc = tqi_error_nomem(err, "the list of storage managers");
    } else {
        registry_list[registry_count++] = manager;
    }
    pthread_mutex_unlock(&registry_lock);
    return rc;
}

/* A symbol of a library as a function: POSIX's way from an object pointer to a function pointer. */
static bool registry_symbol(void *library, const char *name, void *function, size_t size)
{
    void *symbol = dlsym(library, name);

    memcpy(function, &symbol, size);
    return symbol != NULL;
}

/* Registers what a library exports: of the newest version that both sides know: a storage manager, or a client of a KV
 * store. */
static int registry_plug(void *library, const char *path, tq_error *err)
{
    registry_plugin plugin;
    registry_kv_plugin kv_plugin;

    if (registry_symbol(library, "tq_storage_manager_plugin", &plugin, sizeof(plugin))) {
        const tq_storage_manager *manager = NULL;
        for (uint32_t abi = TQ_MANAGER_ABI; abi >= 1 && manager == NULL; abi--) {
            manager = plugin(abi);
        }
        return manager != NULL ? tq_manager_register(manager, err)
                               : tqi_error_set(err, TQ_EVERSION,
                                               "the storage manager in %s does not serve version %u of the interface",
                                               path, TQ_MANAGER_ABI);
    }
    if (registry_symbol(library, "tq_kv_client_plugin", &kv_plugin, sizeof(kv_plugin))) {
        const tq_kv_client *client = NULL;
        for (uint32_t abi = TQ_KV_ABI; abi >= 1 && client == NULL; abi--) {
            client = kv_plugin(abi);
        }
        return client != NULL
                   ? tq_kv_register(client, err)
                   : tqi_error_set(err, TQ_EVERSION, "the KV client in %s does not serve version %u of the interface",
                                   path, TQ_KV_ABI);
    }
    return tqi_error_set(err, TQ_EMANAGER,
                         "%s is no storage manager: it has neither tq_storage_manager_plugin nor "
                         "tq_kv_client_plugin",
                         path);
}

int tq_manager_load(const char *path, tq_error *err)
{
    if (path == NULL || path[0] == 0) {
        return tqi_error_set(err, TQ_EINVAL, "tq_manager_load: path is %s", path == NULL ? "NULL" : "empty");
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        return tqi_error_set(err, TQ_EMANAGER, "%s", why != NULL ? why : path);
    }
    int rc = registry_plug(library, path, err);
    if (rc != TQ_OK) {
        dlclose(library);
    }
    /* A registered one stays loaded for ever; loading it again only increments dlopen's count. */
    return rc;
}

/* Names of all managers, for a message. */
static int registry_names(tqi_buf *names)
{
    int rc = TQ_OK;

    for (size_t i = 0; registry_builtin[i] != NULL && rc == TQ_OK; i++) {
        rc = tqi_buf_printf(names, "%s%s", i > 0 ? ", " : "", registry_builtin[i]->type);
    }
    for (size_t i = 0; i < registry_count && rc == TQ_OK; i++) {
        rc = tqi_buf_printf(names, "%s%s", names->size > 0 ? ", " : "", registry_list[i]->type);
    }
    return rc;
}

/* The error for a type that nobody has registered. */
static int registry_unknown(const char *type, const tqi_buf *names, tq_error *err)
{
    for (size_t i = 0; i < sizeof(registry_elsewhere) / sizeof(registry_elsewhere[0]); i++) {
        if (strcmp(type, registry_elsewhere[i].type) == 0) {
            return tqi_error_set(err, TQ_EMANAGER, "'%s': %s", type, registry_elsewhere[i].why);
        }
    }
    return tqi_error_set(err, TQ_EMANAGER, "'%s' is unknown; known are: %s", type,
                         names->size > 0 ? (const char *)names->data : "none");
}

int tq_manager_find(const char *type, const tq_storage_manager **out, tq_error *err)
{
    tqi_buf names = {0};
    int rc = TQ_OK;

    if (type == NULL || out == NULL) {
        return tqi_error_null(err, type == NULL ? "tq_manager_find: type" : "tq_manager_find: out");
    }
    if (type[0] == 0) {
        return tqi_error_set(err, TQ_EMANAGER, "the type of the storage manager is missing");
    }
    pthread_mutex_lock(&registry_lock);
    const tq_storage_manager *manager = registry_get(type);
    if (manager == NULL) {
        rc = registry_names(&names);
    }
    pthread_mutex_unlock(&registry_lock);
    if (manager != NULL) {
        *out = manager;
    } else if (rc == TQ_OK) {
        rc = registry_unknown(type, &names, err);
    } else {
        tqi_error_nomem(err, "the list of storage managers");
    }
    tqi_buf_fini(&names);
    return rc;
}
