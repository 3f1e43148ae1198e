/*
 * config_value.h - typed values from the scalars of a YAML document.
 */
#ifndef TQI_DAEMON_CONFIG_VALUE_H
#define TQI_DAEMON_CONFIG_VALUE_H

#include "daemon/config.h"

/* The JSON value of a scalar of the key's type: numbers are in seconds or bytes. TQ_ECONFIG names the key, what was
 * expected and what was given. */
int tqd_value_parse(const tqd_key *key, const char *text, bool quoted, json_t **out, tq_error *err);

/* How YAML interprets an untyped scalar: null, true, 1, 1.5 or a string. */
json_t *tqd_value_guess(const char *text, bool quoted);

#endif
