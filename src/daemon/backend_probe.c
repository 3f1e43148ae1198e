/*
 * backend_probe.c - see backend_probe.h. Opens a store as a client would, on a thread of the loop's pool.
 */
#include "daemon/backend_probe.h"

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "config_backends.h"
#include "manager/manager.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Seconds that removing may take: whoever stops a system waits for it, and finally kills it. */
#define BACKEND_END_SECONDS 6.0

typedef struct backend_check {
    uv_work_t work;
    char *backend;
    char *section;
    tq_error err;
    void (*checked)(const tq_error *err, void *arg);
    void *arg;
    /* of an end */
    uint64_t epoch;
    tqi_controller_stored stored;
} backend_check;

static void backend_free(backend_check *check)
{
    if (check != NULL) {
        free(check->backend);
        free(check->section);
        free(check);
    }
}

static void backend_look(uv_work_t *work)
{
    backend_check *check = work->data;
    tq_error found = {0};
    int rc = tqi_manager_try(check->backend, check->section, &found);
    size_t size = strlen(check->backend);

    if (rc) {
        /* Errors about a key of the section already name it. */
        bool names = strncmp(found.message, check->backend, size) == 0 &&
                     (found.message[size] == '.' || found.message[size] == ':');
        tqi_error_set(&check->err, rc, "backend.%s%s%s", names ? "" : check->backend, names ? "" : ": ", found.message);
    }
}

static void backend_looked(uv_work_t *work, int status)
{
    backend_check *check = work->data;

    (void)status; /* nobody cancels it */
    check->checked(check->err.code ? &check->err : NULL, check->arg);
    backend_free(check);
}

int tqd_backend_probe_check(uv_loop_t *loop, const tqd_config *config, void (*checked)(const tq_error *err, void *arg),
                            void *arg, bool *out, tq_error *err)
{
    const char *backend = tqd_config_string(config, "backend.storage_backend");

    *out = strcmp(backend, TQI_BACKEND_SIMPLESTORAGE) != 0;
    if (!*out) {
        return TQ_OK;
    }
    backend_check *check = calloc(1, sizeof(*check));
    if (check != NULL) {
        check->work.data = check;
        check->backend = strdup(backend);
        check->section = tqd_config_backend_json(config);
        check->checked = checked;
        check->arg = arg;
    }
    if (check == NULL || check->backend == NULL || check->section == NULL ||
        uv_queue_work(loop, &check->work, backend_look, backend_looked)) {
        backend_free(check);
        *out = false;
        return tqi_error_nomem(err, "looking for the store of the backend");
    }
    return TQ_OK;
}

/* --- the end -------------------------------------------------------------- */

bool tqd_backend_probe_needs_clients(const tqd_config *config)
{
    const char *backend = tqd_config_string(config, "backend.storage_backend");

    return strcmp(backend, TQI_BACKEND_SIMPLESTORAGE) != 0 && !tqi_manager_ends(backend);
}

static void backend_remove(uv_work_t *work)
{
    backend_check *check = work->data;
    const tqi_controller_stored *stored = &check->stored;
    tq_error why = {0};
    uint64_t removed = 0;
    int rc = tqi_manager_end(check->backend, check->section, check->epoch, BACKEND_END_SECONDS, &removed, &why);

    if (rc == TQ_OK) {
        tqi_log(TQI_INFO, "tqd", "removed %" PRIu64 " value%s of this system from %s", removed, tqi_text_s(removed),
                check->backend);
    } else if (rc != TQ_EUNSUPPORTED) {
        tqi_log(TQI_WARN, "tqd",
                "not all values of this system could be removed from %s: %" PRIu64 " removed, there were %" PRIu64
                " block%s with %" PRIu64
                " bytes; a later system there removes the rest once this one has had no client "
                "for sweep_after: %s",
                check->backend, removed, stored->blocks, tqi_text_s(stored->blocks), stored->bytes, why.message);
    } else if (stored->blocks > 0) {
        tqi_log(TQI_WARN, "tqd",
                "%" PRIu64 " of %" PRIu64 " block%s with %" PRIu64
                " bytes of this system stay in %s, under the keys tq/%016" PRIx64
                "/...: %s, and none did before its end",
                stored->left, stored->blocks, tqi_text_s(stored->blocks), stored->bytes, check->backend, check->epoch,
                why.message);
    } else if (stored->left > 0) {
        tqi_log(TQI_WARN, "tqd",
                "up to %" PRIu64 " block%s of this system that had been cleared, or given up while "
                "being written, may stay in %s, under the keys tq/%016" PRIx64 "/...: %s, and none did before its end",
                stored->left, tqi_text_s(stored->left), check->backend, check->epoch, why.message);
    }
}

static void backend_removed(uv_work_t *work, int status)
{
    (void)status; /* nobody cancels it */
    backend_free(work->data);
}

void tqd_backend_probe_end(uv_loop_t *loop, const tqd_config *config, uint64_t epoch, tqi_controller_stored stored)
{
    const char *backend = tqd_config_string(config, "backend.storage_backend");

    if (strcmp(backend, TQI_BACKEND_SIMPLESTORAGE) == 0) {
        return;
    }
    if (stored.removed && stored.blocks == 0) {
        return; /* there was only data that had already been cleared */
    }
    if (stored.removed) {
        tqi_log(TQI_INFO, "tqd",
                "the clients have removed %" PRIu64 " block%s with %" PRIu64 " bytes of this system from %s",
                stored.blocks, tqi_text_s(stored.blocks), stored.bytes, backend);
        return;
    }
    if (stored.stays) {
        tqi_log(TQI_WARN, "tqd",
                "this system leaves %" PRIu64 " block%s with %" PRIu64
                " bytes in %s, for a checkpoint without data refers to them; a later system there "
                "removes them once this one has had no client for sweep_after",
                stored.blocks, tqi_text_s(stored.blocks), stored.bytes, backend);
        return;
    }
    backend_check *check = calloc(1, sizeof(*check));
    if (check != NULL) {
        check->work.data = check;
        check->backend = strdup(backend);
        check->section = tqd_config_backend_json(config);
        check->epoch = epoch;
        check->stored = stored;
    }
    if (check == NULL || check->backend == NULL || check->section == NULL ||
        uv_queue_work(loop, &check->work, backend_remove, backend_removed)) {
        backend_free(check);
        tqi_log(TQI_WARN, "tqd", "no memory to remove the values of this system from %s", backend);
    }
}
