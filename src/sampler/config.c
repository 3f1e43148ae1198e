/*
 * config.c - reading the sampling_config of a claim; relies on jansson.
 */
#include "sampler/config.h"
#include "sampler/sampler.h"

#include "base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that some sampler reads, and others that callers of upstream pass along. */
static const char *const config_keys[] = {"batch_index",          "dp_rank",      "dp_size",
                                          "n_samples_per_prompt", "partition_id", "task_name"};
#define CONFIG_KEYS       (sizeof(config_keys) / sizeof(config_keys[0]))
#define CONFIG_KNOWN_KEYS "batch_index, dp_rank, dp_size, n_samples_per_prompt, partition_id, task_name"

static int config_parse(const tq_pick_request *request, json_t **out, tq_error *err)
{
    const char *text = request->config != NULL && request->config[0] != '\0' ? request->config : "{}";
    json_error_t error;

    *out = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (*out == NULL) {
        if (json_error_code(&error) == json_error_out_of_memory) {
            return tqi_error_nomem(err, "sampling_config");
        }
        return tqi_error_set(err, TQ_EINVAL, "sampling_config is not JSON: %s", error.text);
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return tqi_error_set(err, TQ_EINVAL, "sampling_config is not a JSON object");
    }
    return TQ_OK;
}

static bool config_known(const char *key)
{
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        if (strcmp(config_keys[i], key) == 0) {
            return true;
        }
    }
    return false;
}

static int config_check_keys(json_t *config, const char *sampler, tq_error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach(config, key, value)
    {
        if (!config_known(key)) {
            return tqi_error_set(err, TQ_EINVAL, "sampling_config: unknown key '%.64s'; %s knows " CONFIG_KNOWN_KEYS,
                                 key, sampler);
        }
    }
    return TQ_OK;
}

static int config_bad(const json_t *value, const char *name, const char *expected, tq_error *err)
{
    char *given = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    int rc = tqi_error_set(err, TQ_EINVAL, "sampling_config: %s: expected %s, got %.100s", name, expected,
                           given != NULL ? given : "?");

    free(given);
    return rc;
}

/* A whole number, at least 1; 1 if it is absent. */
static int config_count(const json_t *config, const char *name, uint32_t *out, tq_error *err)
{
    const json_t *value = json_object_get(config, name);

    *out = 1;
    if (value == NULL || json_is_null(value)) {
        return TQ_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > UINT32_MAX) {
        return config_bad(value, name, "a whole number from 1 to 4294967295", err);
    }
    *out = (uint32_t)json_integer_value(value);
    return TQ_OK;
}

#define CONFIG_STEP " batch_index="

/* Slot of a rank, given as JSON text, and the config's step. */
static int config_slot(const json_t *config, const char *rank, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    const json_t *step = json_object_get(config, "batch_index");
    char *step_text = step != NULL ? json_dumps(step, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    int length;

    slot[0] = '\0';
    if (step != NULL && step_text == NULL) {
        return tqi_error_nomem(err, "sampling_config");
    }
    length =
        snprintf(slot, TQ_NAME_MAX + 1, "dp_rank=%s" CONFIG_STEP "%s", rank, step_text != NULL ? step_text : "null");
    free(step_text);
    if (length < 0 || length > TQ_NAME_MAX) {
        slot[0] = '\0';
        return tqi_error_set(err, TQ_EINVAL, "dp_rank and batch_index are too long");
    }
    return TQ_OK;
}

static int config_read_rank(const json_t *config, tqi_sampler_config *out, tq_error *err)
{
    const json_t *rank = json_object_get(config, "dp_rank");
    const json_t *step = json_object_get(config, "batch_index");
    char *text;
    int rc;

    out->has_step = step != NULL;
    out->has_rank = rank != NULL && !json_is_null(rank);
    if (!out->has_rank) {
        return TQ_OK;
    }
    if (json_is_integer(rank)) {
        out->rank = json_integer_value(rank);
    }
    text = json_dumps(rank, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    if (text == NULL) {
        return tqi_error_nomem(err, "sampling_config");
    }
    (void)snprintf(out->rank_text, sizeof(out->rank_text), "%s", text);
    rc = config_slot(config, text, out->slot, err);
    free(text);
    return rc;
}

static int config_read(const tq_pick_request *request, const char *sampler, tqi_sampler_config *out, tq_error *err)
{
    json_t *config;
    int rc = config_parse(request, &config, err);

    *out = (tqi_sampler_config){.group = 1, .dp_size = 1, .rank = -1};
    if (rc != TQ_OK) {
        return rc;
    }
    rc = config_check_keys(config, sampler, err);
    if (rc == TQ_OK) {
        rc = config_count(config, "n_samples_per_prompt", &out->group, err);
    }
    if (rc == TQ_OK) {
        rc = config_count(config, "dp_size", &out->dp_size, err);
    }
    if (rc == TQ_OK) {
        rc = config_read_rank(config, out, err);
    }
    json_decref(config);
    return rc;
}

size_t tqi_sampler_config_size(const tqi_sampler_config *config)
{
    return offsetof(tqi_sampler_config, slot) + strlen(config->slot) + 1;
}

int tqi_sampler_config_read(const tq_pick_request *request, const char *sampler, tqi_sampler_config *out, tq_error *err)
{
    if (request->prepared != NULL) {
        memcpy(out, request->prepared, tqi_sampler_config_size(request->prepared));
        return TQ_OK;
    }
    return config_read(request, sampler, out, err);
}

int tqi_sampler_config_rank(const tqi_sampler_config *config, const char *sampler, tq_error *err)
{
    if (!config->has_rank) {
        return tqi_error_set(err, TQ_EINVAL,
                             "%s needs dp_rank in the sampling_config: the place of the caller "
                             "among those who share the samples, from 0",
                             sampler);
    }
    if (config->rank < 0) {
        return tqi_error_set(err, TQ_EINVAL,
                             "sampling_config: dp_rank: expected a whole number greater than or equal to 0, got %s",
                             config->rank_text);
    }
    return TQ_OK;
}

int tqi_sampler_config_slot(const tqi_sampler_config *config, uint32_t rank, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    /* The slot begins with our own rank, a number: the first match is what follows it. */
    const char *step = strstr(config->slot, CONFIG_STEP);
    int length = snprintf(slot, TQ_NAME_MAX + 1, "dp_rank=%u%s", rank, step != NULL ? step : "");

    if (step == NULL || length < 0 || length > TQ_NAME_MAX) {
        slot[0] = '\0';
        return tqi_error_set(err, TQ_EINVAL, "dp_rank and batch_index are too long");
    }
    return TQ_OK;
}
