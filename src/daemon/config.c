/*
 * config.c - YAML documents (libyaml) against the table of keys; the result is a JSON tree (jansson).
 */
#include "daemon/config.h"

#include "base/error.h"
#include "base/pointer.h"
#include "daemon/config_value.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define CONFIG_PATH_MAX  256
#define CONFIG_DEPTH_MAX 32

struct tqd_config {
    json_t *tree;
};

/* A document being applied: where it comes from, and the tree it changes. */
typedef struct config_source {
    const char *name; /* file name or "--set" */
    yaml_document_t document;
    json_t *tree;
    tq_error *err;
} config_source;

/* --- the tree ------------------------------------------------------------- */

static json_t *config_get(const json_t *tree, const char *path)
{
    char part[CONFIG_PATH_MAX];
    const json_t *node = tree;

    while (node != NULL && *path) {
        size_t size = strcspn(path, ".");
        snprintf(part, sizeof(part), "%.*s", (int)size, path);
        node = json_object_get(node, part);
        path += size + (path[size] == '.');
    }
    /* jansson accepts and returns only non-const nodes. */
    return json_incref(tqi_unconst(node));
}

/* Borrowed: the tree keeps it. */
static json_t *config_peek(const json_t *tree, const char *path)
{
    json_t *node = config_get(tree, path);

    json_decref(node);
    return node;
}

/* Takes the value, also on failure. */
static int config_put(json_t *tree, const char *path, json_t *value, tq_error *err)
{
    char part[CONFIG_PATH_MAX];
    json_t *node = tree;

    for (;;) {
        size_t size = strcspn(path, ".");
        snprintf(part, sizeof(part), "%.*s", (int)size, path);
        if (!path[size]) {
            return json_object_set_new(node, part, value) ? tqi_error_nomem(err, "configuration") : TQ_OK;
        }
        json_t *next = json_object_get(node, part);
        if (!json_is_object(next)) {
            next = json_object();
            if (json_object_set_new(node, part, next)) {
                json_decref(value);
                return tqi_error_nomem(err, "configuration");
            }
        }
        node = next;
        path += size + 1;
    }
}

/* --- the table ------------------------------------------------------------ */

static const tqd_key *config_key(const char *path)
{
    const tqd_key *any = NULL;

    for (size_t i = 0; i < tqd_n_keys; i++) {
        const tqd_key *key = &tqd_keys[i];
        size_t size = strlen(key->path);
        if (strcmp(key->path, path) == 0) {
            return key;
        }
        if (key->path[size - 1] == '*' && strncmp(key->path, path, size - 1) == 0 && path[size - 1] &&
            (any == NULL || size > strlen(any->path))) {
            any = key;
        }
    }
    return any;
}

/* Whether keys lie below this path, so that it must be a mapping. */
static bool config_is_section(const char *path)
{
    size_t size = strlen(path);

    for (size_t i = 0; i < tqd_n_keys; i++) {
        if (strncmp(tqd_keys[i].path, path, size) == 0 && tqd_keys[i].path[size] == '.') {
            return true;
        }
    }
    return false;
}

/* --- documents ------------------------------------------------------------ */

static int config_fail(config_source *source, const yaml_node_t *node, const char *text)
{
    return tqi_error_set(source->err, TQ_ECONFIG, "%s:%zu: %s", source->name, node->start_mark.line + 1, text);
}

static const char *config_scalar(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static bool config_quoted(const yaml_node_t *node)
{
    return node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
}

/* Converts any node to JSON, for sections that the daemon only passes on. NULL: too deep, bad key, or out of memory. */
static json_t *config_free_form(config_source *source, const yaml_node_t *node, int depth)
{
    if (depth > CONFIG_DEPTH_MAX) {
        return NULL;
    }
    if (node->type == YAML_SCALAR_NODE) {
        return tqd_value_guess(config_scalar(node), config_quoted(node));
    }
    bool list = node->type == YAML_SEQUENCE_NODE;
    json_t *out = list ? json_array() : json_object();
    if (list) {
        for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
            const yaml_node_t *item = yaml_document_get_node(&source->document, *i);
            if (json_array_append_new(out, config_free_form(source, item, depth + 1))) {
                goto fail;
            }
        }
        return out;
    }
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(&source->document, p->key);
        const yaml_node_t *value = yaml_document_get_node(&source->document, p->value);
        if (key->type != YAML_SCALAR_NODE ||
            json_object_set_new(out, config_scalar(key), config_free_form(source, value, depth + 1))) {
            goto fail;
        }
    }
    return out;
fail:
    json_decref(out);
    return NULL;
}

static int config_list(config_source *source, const tqd_key *key, const yaml_node_t *node, json_t **out)
{
    json_t *list = json_array();

    if (node->type == YAML_SCALAR_NODE) {
        json_array_append_new(list, json_string(config_scalar(node)));
        *out = list;
        return TQ_OK;
    }
    for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(&source->document, *i);
        if (item->type != YAML_SCALAR_NODE || json_array_append_new(list, json_string(config_scalar(item)))) {
            json_decref(list);
            return tqi_error_set(source->err, TQ_ECONFIG, "%s:%zu: %s: expected a list of strings", source->name,
                                 item->start_mark.line + 1, key->path);
        }
    }
    *out = list;
    return TQ_OK;
}

static int config_apply(config_source *source, const char *path, const tqd_key *key, const yaml_node_t *node)
{
    char text[TQ_ERROR_MESSAGE_MAX];
    json_t *value = NULL;

    if (key->type == TQD_INIT) {
        return TQ_OK;
    }
    if (key->type == TQD_FREE) {
        value = config_free_form(source, node, 0);
        if (value == NULL) {
            snprintf(text, sizeof(text), "%s: cannot be read as plain data", path);
            return config_fail(source, node, text);
        }
        return config_put(source->tree, path, value, source->err);
    }
    /* An empty value leaves the default. */
    if (node->type == YAML_SCALAR_NODE && !config_quoted(node) &&
        (!*config_scalar(node) || strcmp(config_scalar(node), "null") == 0)) {
        return TQ_OK;
    }
    if (key->type == TQD_STRINGS && node->type != YAML_MAPPING_NODE) {
        int rc = config_list(source, key, node, &value);
        return rc ? rc : config_put(source->tree, path, value, source->err);
    }
    if (node->type != YAML_SCALAR_NODE) {
        snprintf(text, sizeof(text), "%s: expected a single value, got a %s", path,
                 node->type == YAML_SEQUENCE_NODE ? "list" : "mapping");
        return config_fail(source, node, text);
    }
    tq_error detail = {0};
    if (tqd_value_parse(key, config_scalar(node), config_quoted(node), &value, &detail)) {
        return config_fail(source, node, detail.message);
    }
    return config_put(source->tree, path, value, source->err);
}

/* Walks a mapping down to the keys of the table. */
static int config_walk(config_source *source, const char *path, const yaml_node_t *node)
{
    char text[TQ_ERROR_MESSAGE_MAX];
    const tqd_key *key = *path ? config_key(path) : NULL;

    if (*path && !config_is_section(path)) {
        if (key == NULL) {
            snprintf(text, sizeof(text), "unknown key '%s'; `tqd --help-config` lists all keys", path);
            return config_fail(source, node, text);
        }
        return config_apply(source, path, key, node);
    }
    if (node->type == YAML_SCALAR_NODE && !*config_scalar(node)) {
        return TQ_OK; /* an empty section */
    }
    if (node->type != YAML_MAPPING_NODE) {
        snprintf(text, sizeof(text), "%s: expected a mapping", *path ? path : "the document");
        return config_fail(source, node, text);
    }
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        const yaml_node_t *name = yaml_document_get_node(&source->document, p->key);
        const yaml_node_t *value = yaml_document_get_node(&source->document, p->value);
        char below[CONFIG_PATH_MAX];
        if (name->type != YAML_SCALAR_NODE) {
            return config_fail(source, name, "expected a name as key");
        }
        int size = snprintf(below, sizeof(below), "%s%s%s", path, *path ? "." : "", config_scalar(name));
        if (size < 0 || (size_t)size >= sizeof(below)) {
            return config_fail(source, name, "key is too long");
        }
        /* An unknown key is reported where its name stands, not its value. */
        bool known = config_is_section(below) || config_key(below) != NULL;
        if (!known) {
            snprintf(text, sizeof(text), "unknown key '%s'; `tqd --help-config` lists all keys", below);
            return config_fail(source, name, text);
        }
        int rc = config_walk(source, below, value);
        if (rc) {
            return rc;
        }
    }
    return TQ_OK;
}

/* Applies a parsed text to a copy of the tree, which replaces the tree only if all of it is valid. */
static int config_parse(tqd_config *config, yaml_parser_t *parser, const char *name, const char *path, tq_error *err)
{
    config_source source = {.name = name, .tree = json_deep_copy(config->tree), .err = err};
    int rc;

    if (source.tree == NULL) {
        return tqi_error_nomem(err, "configuration");
    }
    if (!yaml_parser_load(parser, &source.document)) {
        rc = tqi_error_set(err, TQ_ECONFIG, "%s:%zu: %s%s%s", name, parser->problem_mark.line + 1,
                           parser->context != NULL ? parser->context : "", parser->context != NULL ? ", " : "",
                           parser->problem != NULL ? parser->problem : "cannot be read");
        goto out;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&source.document);
    rc = root != NULL ? config_walk(&source, path, root) : TQ_OK;
    yaml_document_delete(&source.document);
out:
    if (rc) {
        json_decref(source.tree);
    } else {
        json_decref(config->tree);
        config->tree = source.tree;
    }
    return rc;
}

int tqd_config_load(tqd_config *config, const char *path, tq_error *err)
{
    FILE *file = fopen(path, "re");
    yaml_parser_t parser;
    int rc;

    if (file == NULL) {
        return tqi_error_set(err, TQ_ECONFIG, "%s: %s", path, strerror(errno));
    }
    if (!yaml_parser_initialize(&parser)) {
        fclose(file);
        return tqi_error_nomem(err, "YAML parser");
    }
    yaml_parser_set_input_file(&parser, file);
    rc = config_parse(config, &parser, path, "", err);
    yaml_parser_delete(&parser);
    fclose(file);
    return rc;
}

int tqd_config_set(tqd_config *config, const char *assignment, tq_error *err)
{
    const char *equals = strchr(assignment, '=');
    char path[CONFIG_PATH_MAX];
    yaml_parser_t parser;
    int rc;

    if (equals == NULL || equals == assignment || (size_t)(equals - assignment) >= sizeof(path)) {
        return tqi_error_set(err, TQ_ECONFIG, "--set %s: expected section.key=value", assignment);
    }
    snprintf(path, sizeof(path), "%.*s", (int)(equals - assignment), assignment);
    if (!yaml_parser_initialize(&parser)) {
        return tqi_error_nomem(err, "YAML parser");
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)equals + 1, strlen(equals + 1));
    rc = config_parse(config, &parser, "--set", path, err);
    yaml_parser_delete(&parser);
    return rc;
}

/* --- life and values ------------------------------------------------------ */

int tqd_config_alloc(tqd_config **out, tq_error *err)
{
    tqd_config *config = calloc(1, sizeof(*config));

    if (config == NULL || (config->tree = json_object()) == NULL) {
        free(config);
        return tqi_error_nomem(err, "configuration");
    }
    for (size_t i = 0; i < tqd_n_keys; i++) {
        const tqd_key *key = &tqd_keys[i];
        json_t *value = NULL;
        if (key->value != NULL &&
            (tqd_value_parse(key, key->value, false, &value, err) || config_put(config->tree, key->path, value, err))) {
            tqd_config_free(config);
            return err != NULL ? err->code : TQ_ENOMEM;
        }
    }
    *out = config;
    return TQ_OK;
}

void tqd_config_free(tqd_config *config)
{
    if (config != NULL) {
        json_decref(config->tree);
        free(config);
    }
}

bool tqd_config_is_set(const tqd_config *config, const char *path)
{
    return config_peek(config->tree, path) != NULL;
}

const char *tqd_config_string(const tqd_config *config, const char *path)
{
    return json_string_value(config_peek(config->tree, path));
}

bool tqd_config_bool(const tqd_config *config, const char *path)
{
    return json_is_true(config_peek(config->tree, path));
}

int64_t tqd_config_int(const tqd_config *config, const char *path)
{
    return json_integer_value(config_peek(config->tree, path));
}

uint64_t tqd_config_count(const tqd_config *config, const char *path)
{
    return (uint64_t)json_integer_value(config_peek(config->tree, path));
}

double tqd_config_seconds(const tqd_config *config, const char *path)
{
    return json_number_value(config_peek(config->tree, path));
}

uint64_t tqd_config_bytes(const tqd_config *config, const char *path)
{
    return tqd_config_count(config, path);
}

size_t tqd_config_strings(const tqd_config *config, const char *path, const char **out, size_t max)
{
    const json_t *list = config_peek(config->tree, path);
    size_t n = 0;

    for (; n < json_array_size(list) && n < max; n++) {
        out[n] = json_string_value(json_array_get(list, n));
    }
    return n;
}

int tqd_config_note(tqd_config *config, const char *path, const char *value, tq_error *err)
{
    json_t *text = json_string(value);

    return text != NULL ? config_put(config->tree, path, text, err) : tqi_error_nomem(err, path);
}

char *tqd_config_json(const tqd_config *config)
{
    return json_dumps(config->tree, JSON_COMPACT);
}

char *tqd_config_backend_json(const tqd_config *config)
{
    const char *backend = tqd_config_string(config, "backend.storage_backend");
    const json_t *section = json_object_get(json_object_get(config->tree, "backend"), backend != NULL ? backend : "");

    return json_is_object(section) ? json_dumps(section, JSON_COMPACT) : strdup("{}");
}
