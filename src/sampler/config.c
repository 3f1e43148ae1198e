/*
 * config.c - reading the sampling_config of a claim; relies on jansson.
 */
#include "sampler/config.h"

#include "base/error.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static int config_parse(const tq_pick_request *request, json_t **out, tq_error *err)
{
    const char *text =
        request->config != NULL && request->config[0] != '\0' ? request->config : "{}";
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

int tqi_sampler_config_count(const tq_pick_request *request, const char *name, uint32_t absent,
                             uint32_t *out, tq_error *err)
{
    json_t *config;
    const json_t *value;
    int rc = config_parse(request, &config, err);

    if (rc != TQ_OK) {
        return rc;
    }
    value = json_object_get(config, name);
    *out = absent;
    if (json_is_integer(value) && json_integer_value(value) >= 1 &&
        json_integer_value(value) <= UINT32_MAX) {
        *out = (uint32_t)json_integer_value(value);
    } else if (value != NULL && !json_is_null(value)) {
        rc = tqi_error_set(err, TQ_EINVAL, "%s must be a positive whole number", name);
    }
    json_decref(config);
    return rc;
}

int tqi_sampler_config_slot(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1],
                            tq_error *err)
{
    const size_t flags = JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS;
    json_t *config;
    const json_t *rank;
    const json_t *step;
    char *rank_text = NULL;
    char *step_text = NULL;
    int length;
    int rc = config_parse(request, &config, err);

    slot[0] = '\0';
    if (rc != TQ_OK) {
        return rc;
    }
    rank = json_object_get(config, "dp_rank");
    step = json_object_get(config, "batch_index");
    if (rank == NULL || json_is_null(rank)) {
        goto done;
    }
    rank_text = json_dumps(rank, flags);
    step_text = step != NULL ? json_dumps(step, flags) : NULL;
    if (rank_text == NULL || (step != NULL && step_text == NULL)) {
        rc = tqi_error_nomem(err, "sampling_config");
        goto done;
    }
    length = snprintf(slot, TQ_NAME_MAX + 1, "dp_rank=%s batch_index=%s", rank_text,
                      step != NULL ? step_text : "null");
    if (length < 0 || length > TQ_NAME_MAX) {
        slot[0] = '\0';
        rc = tqi_error_set(err, TQ_EINVAL, "dp_rank and batch_index are too long");
    }

done:
    free(rank_text);
    free(step_text);
    json_decref(config);
    return rc;
}
