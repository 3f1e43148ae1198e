/*
 * backend.c - see backend.h.  A store is opened as a client opens it, on a thread of the loop's pool.
 */
#include "daemon/backend.h"

#include "base/error.h"
#include "manager/manager.h"

#include <stdlib.h>
#include <string.h>

typedef struct backend_check {
    uv_work_t work;
    char *backend;
    char *section;
    tq_error err;
    void (*checked)(const tq_error *err, void *arg);
    void *arg;
} backend_check;

static void backend_free(backend_check *check)
{
    if (check) {
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
        /* What is about a key of the section names it already. */
        bool names = strncmp(found.message, check->backend, size) == 0 &&
                     (found.message[size] == '.' || found.message[size] == ':');
        tqi_error_set(&check->err, rc, "backend.%s%s%s", names ? "" : check->backend,
                      names ? "" : ": ", found.message);
    }
}

static void backend_looked(uv_work_t *work, int status)
{
    backend_check *check = work->data;

    (void)status; /* nobody cancels it */
    check->checked(check->err.code ? &check->err : NULL, check->arg);
    backend_free(check);
}

int tqd_backend_check(uv_loop_t *loop, const tqd_config *config,
                      void (*checked)(const tq_error *err, void *arg), void *arg, bool *out,
                      tq_error *err)
{
    const char *backend = tqd_config_string(config, "backend.storage_backend");

    *out = strcmp(backend, "SimpleStorage") != 0;
    if (!*out) {
        return TQ_OK;
    }
    backend_check *check = calloc(1, sizeof(*check));
    if (check) {
        check->work.data = check;
        check->backend = strdup(backend);
        check->section = tqd_config_backend_json(config);
        check->checked = checked;
        check->arg = arg;
    }
    if (!check || !check->backend || !check->section ||
        uv_queue_work(loop, &check->work, backend_look, backend_looked)) {
        backend_free(check);
        *out = false;
        return tqi_error_nomem(err, "looking for the store of the backend");
    }
    return TQ_OK;
}
