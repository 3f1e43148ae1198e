/*
 * args.c - see args.h.
 */
#include "client/args.h"

#include <string.h>

#include "base/error.h"
#include "base/name_table.h"

int tqi_client_copy_name(tqi_region *region, const char *what, const char *name, char **out, tq_error *err)
{
    int rc = name != NULL ? tqi_check_name(what, name, TQ_NAME_MAX, err) : tqi_error_null(err, what);

    if (rc != TQ_OK) {
        return rc;
    }
    *out = tqi_region_string(region, name);
    return *out ? TQ_OK : tqi_error_nomem(err, what);
}

int tqi_client_copy_tag_name(tqi_region *region, const char *name, char **out, tq_error *err)
{
    int rc = name != NULL ? tqi_check_size("tag", name, TQ_NAME_MAX, err) : tqi_error_null(err, "tag");

    if (rc != TQ_OK) {
        return rc;
    }
    *out = tqi_region_string(region, name);
    return *out ? TQ_OK : tqi_error_nomem(err, "tag");
}

int tqi_client_check_array(const char *what, const void *array, size_t n, tq_error *err)
{
    return array != NULL || n == 0 ? TQ_OK : tqi_error_set(err, TQ_EINVAL, "%s is NULL, expected %zu of them", what, n);
}

int tqi_client_copy_fields(tqi_region *region, const char *const *names, size_t n, char ***out, size_t *n_out,
                           tq_error *err)
{
    *out = NULL;
    *n_out = 0;
    if (names == NULL || n == 0) {
        return tqi_client_check_array("fields", names, n, err);
    }
    int rc = TQ_OK;
    for (size_t i = 0; i < n; i++) {
        const char *name = names[i];
        if (name == NULL) {
            return tqi_error_set(err, TQ_EINVAL, "fields[%zu] is NULL", i);
        }
        rc = tqi_check_name("field", name, TQ_NAME_MAX, err);
        if (rc != TQ_OK) {
            return rc;
        }
    }
    rc = tqi_check_distinct("field", (tqi_name_array){names, sizeof(*names), n}, err);
    if (rc != TQ_OK) {
        return rc;
    }
    *out = tqi_region_strings(region, names, n, NULL);
    *n_out = n;
    return *out ? TQ_OK : tqi_error_nomem(err, "field names");
}

int tqi_client_copy_keys(tqi_region *region, const char *const *keys, size_t n, char ***out, size_t *n_out,
                         tq_error *err)
{
    int rc = tqi_client_check_array("keys", keys, n, err);

    if (rc != TQ_OK) {
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        if (keys[i] == NULL) {
            return tqi_error_set(err, TQ_EINVAL, "keys[%zu] is NULL", i);
        }
        size_t size = strlen(keys[i]);
        if (size == 0 || size > TQ_KEY_MAX) {
            return tqi_error_set(err, TQ_ENAME, "key %zu has %zu bytes, expected 1 to %d: use %s", i, size, TQ_KEY_MAX,
                                 size == 0 ? "a key that is not empty, or no key"
                                           : "a shorter one, such as a hash of it");
        }
    }
    *out = tqi_region_strings(region, keys, n, NULL);
    *n_out = n;
    return *out ? TQ_OK : tqi_error_nomem(err, "keys");
}

int tqi_client_copy_groups(tqi_region *region, const char *const *groups, size_t n, char ***out, size_t *n_out,
                           tq_error *err)
{
    static char none[1];

    *out = NULL;
    *n_out = 0;
    if (groups == NULL) {
        return TQ_OK;
    }
    for (size_t i = 0; i < n; i++) {
        size_t size = groups[i] != NULL ? strlen(groups[i]) : 0;
        if (size > TQ_NAME_MAX) {
            return tqi_error_set(err, TQ_ENAME,
                                 "group of sample %zu has %zu bytes, at most %d are possible: use a "
                                 "shorter one, such as a hash of it",
                                 i, size, TQ_NAME_MAX);
        }
    }
    *out = tqi_region_strings(region, groups, n, none);
    *n_out = n;
    return *out ? TQ_OK : tqi_error_nomem(err, "groups");
}

int tqi_client_check_samples(size_t n, tq_error *err)
{
    if (n >= TQ_NO_INDEX) {
        return tqi_error_set(err, TQ_EINVAL, "%zu samples, at most %u are possible", n, TQ_NO_INDEX - 1);
    }
    return TQ_OK;
}
