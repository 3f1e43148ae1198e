/*
 * discover.c - finding a running system: environment, then the handle that a local daemon has written.
 */
#include "base/error.h"
#include "base/owndir.h"
#include "base/sized.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tq/tq.h>
#include <unistd.h>

#define DISCOVER_HANDLE_MAX (64u << 10)
#define DISCOVER_NAME_MAX   255 /* of a file */

int tq_runtime_dir(char *out, size_t size, tq_error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    const char *temporary = getenv("TMPDIR");
    struct stat status;
    int written;

    if (out == NULL) {
        return tqi_error_null(err, "tq_runtime_dir: out");
    }
    /* In a container the variable may name a directory that does not exist or belongs to another user. */
    if (runtime != NULL && stat(runtime, &status) == 0 && S_ISDIR(status.st_mode) && access(runtime, W_OK | X_OK) == 0) {
        written = snprintf(out, size, "%s/ctq", runtime);
    } else {
        written =
            snprintf(out, size, "%s/ctq-%u", temporary != NULL && *temporary ? temporary : "/tmp", (unsigned)geteuid());
    }
    if (written < 0 || (size_t)written >= size) {
        return tqi_error_set(err, TQ_ENAME, "the runtime directory's path is too long");
    }
    return TQ_OK;
}

/* A name must not lead out of the directory of all systems. */
static int discover_check_name(const char *name, tq_error *err)
{
    int rc = tqi_check_name("system", name, DISCOVER_NAME_MAX, err);

    if (!rc && (*name == '.' || strchr(name, '/') != NULL)) {
        rc = tqi_error_set(err, TQ_ENAME,
                           "'%s' is no name of a system, for it has a '/', or a dot in front: "
                           "set TQ_SYSTEM, or the option that named it, to another one",
                           name);
    }
    return rc;
}

/* Opens a system's directory in the directory of all systems. */
static int discover_system(int base_fd, const char *base, const char *name, bool make, int *fd, tq_error *err)
{
    char path[1024 + 300];

    snprintf(path, sizeof(path), "%s/%s", base, name);
    const tqi_owndir which = {
        .at = base_fd,
        .name = name,
        .shown = path,
        .remedy = "remove it, or choose another name for the system",
    };
    return tqi_owndir_open(&which, make, fd, err);
}

int tq_runtime_open(const char *name, bool make, int *fd, tq_error *err)
{
    char base[1024];
    int opened;

    if (fd == NULL) {
        return tqi_error_null(err, "tq_runtime_open: fd");
    }
    int rc = name != NULL ? discover_check_name(name, err) : TQ_OK;
    rc = rc ? rc : tq_runtime_dir(base, sizeof(base), err);
    if (rc) {
        return rc;
    }
    const tqi_owndir which = {
        .at = AT_FDCWD,
        .name = base,
        .shown = base,
        .remedy = "set XDG_RUNTIME_DIR or TMPDIR to a directory that this user alone can write to",
    };
    rc = tqi_owndir_open(&which, make, &opened, err);
    if (rc || name == NULL) {
        if (!rc) {
            *fd = opened;
        }
        return rc;
    }
    rc = discover_system(opened, base, name, make, fd, err);
    close(opened);
    return rc;
}

void tq_runtime_clear(int fd)
{
    tqi_owndir_clear(fd);
}

static int discover_copy(char *out, size_t size, const json_t *handle, const char *key, const char *path, tq_error *err)
{
    const char *value = json_string_value(json_object_get(handle, key));

    if (value == NULL || strlen(value) >= size) {
        return tqi_error_set(err, TQ_ECONFIG, "%s: '%s' is missing or too long", path, key);
    }
    snprintf(out, size, "%s", value);
    return TQ_OK;
}

static int discover_handle(const char *name, tq_location *out, tq_error *err)
{
    char base[768];
    char path[1024 + 300];
    char *text = NULL;
    size_t size = 0;
    json_error_t detail;
    int dir = -1;

    int rc = tq_runtime_dir(base, sizeof(base), err);

    rc = rc ? rc : tq_runtime_open(name, false, &dir, err);
    snprintf(path, sizeof(path), "%s/%s/handle.json", base, name);
    rc = rc ? rc : tqi_owndir_read(dir, "handle.json", path, DISCOVER_HANDLE_MAX, &text, &size, err);
    if (dir >= 0) {
        close(dir);
    }
    if (rc == TQ_EUNREACHABLE) {
        return tqi_error_set(err, TQ_EUNREACHABLE, "no system '%s': TQ_ADDRESS is not set and there is no handle %s",
                             name, path);
    }
    if (rc) {
        return rc;
    }
    json_t *handle = json_loadb(text, size, 0, &detail);
    free(text);
    if (handle == NULL) {
        return tqi_error_set(err, TQ_ECONFIG, "%s:%d: %s", path, detail.line, detail.text);
    }
    rc = discover_copy(out->address, sizeof(out->address), handle, "address", path, err);
    if (!rc) {
        rc = discover_copy(out->token_file, sizeof(out->token_file), handle, "token_file", path, err);
    }
    if (!rc) {
        rc = discover_copy(out->name, sizeof(out->name), handle, "name", path, err);
    }
    const char *library = json_string_value(json_object_get(handle, "library"));
    if (!rc && library != NULL) {
        rc = discover_copy(out->library, sizeof(out->library), handle, "library", path, err);
    }
    out->pid = (uint64_t)json_integer_value(json_object_get(handle, "pid"));
    out->created = json_number_value(json_object_get(handle, "created"));
    json_decref(handle);
    return rc;
}

static int discover(const char *name, tq_location *out, tq_error *err)
{
    const char *address = getenv("TQ_ADDRESS");
    const char *token_file = getenv("TQ_TOKEN_FILE");

    if (name == NULL && address != NULL && *address) {
        if (strlen(address) >= sizeof(out->address) ||
            strlen(token_file != NULL ? token_file : "") >= sizeof(out->token_file)) {
            return tqi_error_set(err, TQ_ENAME, "TQ_ADDRESS or TQ_TOKEN_FILE is too long");
        }
        snprintf(out->address, sizeof(out->address), "%s", address);
        snprintf(out->token_file, sizeof(out->token_file), "%s", token_file != NULL ? token_file : "");
        return TQ_OK;
    }
    if (name == NULL || !*name) {
        name = getenv("TQ_SYSTEM");
    }
    return discover_handle(name != NULL && *name ? name : "default", out, err);
}

TQI_SIZED_ENDS_WITH(tq_location, library);

int tq_discover(const char *name, tq_location *out, tq_error *err)
{
    tq_location found = {.size = sizeof(found)};
    int rc =
        out != NULL ? tqi_sized_check("tq_location", out, sizeof(found), err) : tqi_error_null(err, "tq_discover: out");

    if (rc == TQ_OK) {
        rc = discover(name, &found, err);
        tqi_sized_give(&found, out);
    }
    return rc;
}
