/*
 * args.h - checks and copies of callers' arguments, before anything is sent.
 */
#ifndef TQI_CLIENT_ARGS_H
#define TQI_CLIENT_ARGS_H

#include "base/region.h"

#include <tq/tq.h>

/* A partition, field, ... name: checked (TQ_ENAME) and copied. */
int tqi_client_copy_name(tqi_region *region, const char *what, const char *name, char **out, tq_error *err);
/* The same for the name of a tag, which may contain any bytes. */
int tqi_client_copy_tag_name(tqi_region *region, const char *name, char **out, tq_error *err);
/* TQ_EINVAL if n > 0 things are given as NULL. */
int tqi_client_check_array(const char *what, const void *array, size_t n, tq_error *err);
/* Field names: checked, none twice (TQ_EINVAL), copied. names NULL with n 0: none. */
int tqi_client_copy_fields(tqi_region *region, const char *const *names, size_t n, char ***out, size_t *n_out,
                           tq_error *err);
/* Keys, none of them NULL: TQ_ENAME says which one is bad. */
int tqi_client_copy_keys(tqi_region *region, const char *const *keys, size_t n, char ***out, size_t *n_out,
                         tq_error *err);
/* Groups; NULL elements are none and become "". */
int tqi_client_copy_groups(tqi_region *region, const char *const *groups, size_t n, char ***out, size_t *n_out,
                           tq_error *err);
/* TQ_EINVAL if there are more samples than an index can number. */
int tqi_client_check_samples(size_t n, tq_error *err);

#endif
