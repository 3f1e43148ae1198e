/*
 * config.c - the config of the Redis client: a URL and little more.
 */
#include "manager/kv/redis/redis.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <uriparser/Uri.h>

#include "config_keys.h"

#define CONFIG_PORT    6379
#define CONFIG_TIMEOUT ((double)TQI_CONFIG_BACKEND_REDIS_TIMEOUT_DEFAULT)

/* Keys that are read here or elsewhere, and those that the section of any backend may have. */
static const char *const config_keys[] = {TQI_CONFIG_BACKEND_REDIS_KEYS, "library", "module"};

/* Copies a piece of the URL, decoded. */
static int config_text(const UriTextRangeA *range, const char *what, char *out, size_t size, tq_error *err)
{
    size_t n = range->first != NULL ? (size_t)(range->afterLast - range->first) : 0;

    if (n >= size) {
        return tqi_error_set(err, TQ_ECONFIG, "Redis.url: the %s is longer than %zu bytes", what, size - 1);
    }
    memcpy(out, n > 0 ? range->first : "", n);
    out[n] = 0;
    uriUnescapeInPlaceA(out);
    return TQ_OK;
}

/* USER:PASSWORD, :PASSWORD, or USER. */
static int config_user(tqi_redis_config *out, const UriUriA *uri, tq_error *err)
{
    UriTextRangeA user = uri->userInfo, password = {0};

    if (user.first == NULL) {
        return TQ_OK;
    }
    const char *colon = memchr(user.first, ':', (size_t)(user.afterLast - user.first));
    if (colon != NULL) {
        password = (UriTextRangeA){.first = colon + 1, .afterLast = user.afterLast};
        user.afterLast = colon;
    }
    int rc = config_text(&user, "user", out->user, sizeof(out->user), err);
    return rc != TQ_OK ? rc : config_text(&password, "password", out->password, sizeof(out->password), err);
}

static int config_number(const char *text, const char *what, int max, int *out, tq_error *err)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != 0 || value > max) {
        return tqi_error_set(err, TQ_ECONFIG, "Redis.url: the %s must be a number up to %d, got '%s'", what, max, text);
    }
    *out = (int)value;
    return TQ_OK;
}

/* redis://USER:PASSWORD@HOST:PORT/DB */
static int config_tcp(tqi_redis_config *out, const UriUriA *uri, tq_error *err)
{
    char text[16] = "";
    int rc = config_text(&uri->hostText, "host", out->host, sizeof(out->host), err);

    if (rc == TQ_OK && out->host[0] == 0) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis.url: it names no host");
    }
    if (rc == TQ_OK && uri->portText.first != NULL) {
        rc = config_text(&uri->portText, "port", text, sizeof(text), err);
        rc = rc == TQ_OK ? config_number(text, "port", 65535, &out->port, err) : rc;
    }
    if (rc == TQ_OK && uri->pathHead != NULL && uri->pathHead->text.first != NULL &&
        uri->pathHead->text.first != uri->pathHead->text.afterLast) {
        rc = config_text(&uri->pathHead->text, "database", text, sizeof(text), err);
        rc = rc == TQ_OK ? config_number(text, "database", 1 << 20, &out->db, err) : rc;
    }
    return rc;
}

/* unix:///PATH?db=DB */
static int config_unix(tqi_redis_config *out, const UriUriA *uri, tq_error *err)
{
    size_t at = 0;
    char query[32] = "";
    int rc = TQ_OK;

    for (const UriPathSegmentA *part = uri->pathHead; part != NULL && rc == TQ_OK; part = part->next) {
        if (at + 2 < sizeof(out->path)) {
            out->path[at++] = '/';
        }
        rc = config_text(&part->text, "path", out->path + at, sizeof(out->path) - at, err);
        at += strlen(out->path + at);
    }
    if (rc == TQ_OK && at < 2) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis.url: it names no path of a socket");
    }
    if (rc == TQ_OK && uri->query.first != NULL) {
        rc = config_text(&uri->query, "query", query, sizeof(query), err);
        if (rc == TQ_OK && strncmp(query, "db=", 3) != 0) {
            rc = tqi_error_set(err, TQ_ECONFIG, "Redis.url: expected ?db=NUMBER, got '?%s'", query);
        }
        rc = rc == TQ_OK ? config_number(query + 3, "database", 1 << 20, &out->db, err) : rc;
    }
    return rc;
}

static int config_url(tqi_redis_config *out, const char *url, tq_error *err)
{
    UriUriA uri;
    char scheme[16] = "";
    int rc;

    /* The URL itself may hold a password, so no message shows it. */
    if (uriParseSingleUriA(&uri, url, NULL) != URI_SUCCESS) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "Redis.url: expected redis://[USER:PASSWORD@]HOST[:PORT][/DB] or "
                             "unix:///PATH[?db=DB]");
    }
    rc = config_text(&uri.scheme, "scheme", scheme, sizeof(scheme), err);
    if (rc == TQ_OK) {
        rc = config_user(out, &uri, err);
    }
    if (rc == TQ_OK && strcmp(scheme, "redis") == 0) {
        rc = config_tcp(out, &uri, err);
    } else if (rc == TQ_OK && strcmp(scheme, "unix") == 0) {
        rc = config_unix(out, &uri, err);
    } else if (rc == TQ_OK) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis.url: expected redis: or unix:, got '%s:'%s", scheme,
                           strcmp(scheme, "rediss") == 0 ? " (TLS is not supported)" : "");
    }
    uriFreeUriMembersA(&uri);
    return rc;
}

static int config_check_keys(json_t *root, tq_error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach(root, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof(config_keys) / sizeof(config_keys[0]); i++) {
            known = known || strcmp(key, config_keys[i]) == 0;
        }
        if (!known) {
            return tqi_error_set(err, TQ_ECONFIG, "Redis.%s: unknown key; known are " TQI_CONFIG_BACKEND_REDIS_WORDS,
                                 key);
        }
    }
    return TQ_OK;
}

int tqi_redis_config_read(tqi_redis_config *out, const char *json, tq_error *err)
{
    json_error_t where;
    json_t *root = json_loads(json, 0, &where);
    const json_t *url = json_object_get(root, "url");
    const json_t *cluster = json_object_get(root, "cluster");
    const json_t *timeout = json_object_get(root, "timeout");
    int rc = TQ_OK;

    *out = (tqi_redis_config){.port = CONFIG_PORT, .timeout = CONFIG_TIMEOUT};
    if (root == NULL || !json_is_object(root)) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis: a JSON object is expected");
    } else if (config_check_keys(root, err) != TQ_OK) {
        rc = TQ_ECONFIG; /* first, because a misspelt key is also a missing one */
    } else if (!json_is_string(url)) {
        rc = tqi_error_set(err, TQ_ECONFIG,
                           "Redis.url: expected the URL of the server: "
                           "redis://HOST:PORT or unix:///PATH, or auto_init: true for a "
                           "server that is started with the system");
    } else if (cluster != NULL && !json_is_boolean(cluster) && !json_is_null(cluster)) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis.cluster: expected true or false");
    } else if (timeout != NULL &&
               (!json_is_number(timeout) || json_number_value(timeout) < TQI_CONFIG_BACKEND_REDIS_TIMEOUT_MIN)) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis.timeout: expected seconds, at least %g",
                           TQI_CONFIG_BACKEND_REDIS_TIMEOUT_MIN);
    }
    if (rc == TQ_OK) {
        out->cluster = json_is_true(cluster);
        out->timeout = timeout != NULL ? json_number_value(timeout) : CONFIG_TIMEOUT;
        rc = config_url(out, json_string_value(url), err);
    }
    if (rc == TQ_OK && out->cluster && (out->db != 0 || out->host[0] == 0)) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis.url: a cluster has a host and no database, for it has only one");
    }
    json_decref(root);
    return rc;
}
