/*
 * discover.c - finding a running system: environment, then the handle that a local daemon has written.
 */
#include "base/error.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tq/tq.h>
#include <unistd.h>

int tq_runtime_dir(char *out, size_t size, tq_error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    const char *temporary = getenv("TMPDIR");
    struct stat status;
    int written;
    if (!out) {
        return tqi_error_null(err, "tq_runtime_dir: out");
    }
    /* In a container it may be named and not be there, or be somebody else's. */
    if (runtime && stat(runtime, &status) == 0 && S_ISDIR(status.st_mode) &&
        access(runtime, W_OK | X_OK) == 0) {
        written = snprintf(out, size, "%s/ctq", runtime);
    } else {
        written = snprintf(out, size, "%s/ctq-%u", temporary && *temporary ? temporary : "/tmp",
                           (unsigned)geteuid());
    }
    if (written < 0 || (size_t)written >= size) {
        return tqi_error_set(err, TQ_ENAME, "the runtime directory's path is too long");
    }
    return TQ_OK;
}

static int discover_copy(char *out, size_t size, const json_t *handle, const char *key,
                         const char *path, tq_error *err)
{
    const char *value = json_string_value(json_object_get(handle, key));
    if (!value || strlen(value) >= size) {
        return tqi_error_set(err, TQ_ECONFIG, "%s: '%s' is missing or too long", path, key);
    }
    snprintf(out, size, "%s", value);
    return TQ_OK;
}

static int discover_handle(const char *name, tq_location *out, tq_error *err)
{
    char base[768];
    char path[1024 + 32];
    struct stat status;
    json_error_t detail;

    int rc = tq_runtime_dir(base, sizeof(base), err);
    if (rc) {
        return rc;
    }
    snprintf(path, sizeof(path), "%s/%s/handle.json", base, name);
    if (stat(base, &status) || access(path, F_OK)) {
        return tqi_error_set(err, TQ_EUNREACHABLE,
                             "no system '%s': TQ_ADDRESS is not set and there is no handle %s",
                             name, path);
    }
    /* Somebody else's directory in a shared temporary directory could send us anywhere. */
    if (status.st_uid != geteuid()) {
        return tqi_error_set(err, TQ_EAUTH, "%s belongs to another user (uid %u)", base,
                             (unsigned)status.st_uid);
    }
    json_t *handle = json_load_file(path, 0, &detail);
    if (!handle) {
        return tqi_error_set(err, TQ_ECONFIG, "%s:%d: %s", path, detail.line, detail.text);
    }
    rc = discover_copy(out->address, sizeof(out->address), handle, "address", path, err);
    if (!rc) {
        rc = discover_copy(out->token_file, sizeof(out->token_file), handle, "token_file", path,
                           err);
    }
    if (!rc) {
        rc = discover_copy(out->name, sizeof(out->name), handle, "name", path, err);
    }
    out->pid = (uint64_t)json_integer_value(json_object_get(handle, "pid"));
    out->created = json_number_value(json_object_get(handle, "created"));
    json_decref(handle);
    return rc;
}

int tq_discover(const char *name, tq_location *out, tq_error *err)
{
    const char *address = getenv("TQ_ADDRESS");
    const char *token_file = getenv("TQ_TOKEN_FILE");

    if (!out) {
        return tqi_error_null(err, "tq_discover: out");
    }
    memset(out, 0, sizeof(*out));
    if (!name && address && *address) {
        if (strlen(address) >= sizeof(out->address) ||
            strlen(token_file ? token_file : "") >= sizeof(out->token_file)) {
            return tqi_error_set(err, TQ_ENAME, "TQ_ADDRESS or TQ_TOKEN_FILE is too long");
        }
        snprintf(out->address, sizeof(out->address), "%s", address);
        snprintf(out->token_file, sizeof(out->token_file), "%s", token_file ? token_file : "");
        return TQ_OK;
    }
    if (!name || !*name) {
        name = getenv("TQ_SYSTEM");
    }
    return discover_handle(name && *name ? name : "default", out, err);
}
