/*
 * registry.c - samplers by name. Registered ones come after the built-in ones; nothing is ever removed, so a found
 * table stays valid.
 */
#include "sampler/builtin.h"
#include "sampler/sampler.h"

#include "base/buf.h"
#include "base/error.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Named like upstream's classes; the short names are older ones of ours. */
static const struct {
    const char *name;
    const tq_sampler *sampler;
} registry_builtin[] = {
    {"SequentialSampler", &tqi_sampler_sequential}, {"GRPOGroupNSampler", &tqi_sampler_grpo_group_n},
    {"RankAwareSampler", &tqi_sampler_rank_aware},  {"SeqlenBalancedSampler", &tqi_sampler_seqlen_balanced},
    {"sequential", &tqi_sampler_sequential},        {"grpo_group_n", &tqi_sampler_grpo_group_n},
};
#define REGISTRY_BUILTIN (sizeof(registry_builtin) / sizeof(registry_builtin[0]))

typedef struct registry_entry {
    struct registry_entry *next;
    const tq_sampler *sampler; /* as it was given, or `table` */
    tq_sampler table;          /* of an older version of the interface: filled up with NULL */
} registry_entry;

/* Bytes of the table of each version; what comes after them is not ours to read. */
static const size_t registry_table_sizes[] = {
    [1] = offsetof(tq_sampler, user),
    [TQ_SAMPLER_ABI] = sizeof(tq_sampler),
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static registry_entry *registry_entries;

/* With the lock held. */
static const tq_sampler *registry_lookup(const char *name)
{
    const registry_entry *entry;

    for (size_t i = 0; i < REGISTRY_BUILTIN; i++) {
        if (strcmp(registry_builtin[i].name, name) == 0) {
            return registry_builtin[i].sampler;
        }
    }
    for (entry = registry_entries; entry != NULL; entry = entry->next) {
        if (strcmp(entry->sampler->name, name) == 0) {
            return entry->sampler;
        }
    }
    return NULL;
}

/* TQ_ESAMPLER with the known names; with the lock held. */
static int registry_unknown(const char *name, tq_error *err)
{
    const registry_entry *entry;
    tqi_buf names = {0};
    int rc = TQ_OK;

    for (size_t i = 0; rc == TQ_OK && i < REGISTRY_BUILTIN; i++) {
        if (strcmp(registry_builtin[i].name, registry_builtin[i].sampler->name) == 0) {
            rc = tqi_buf_printf(&names, "%s%s", i > 0 ? ", " : "", registry_builtin[i].name);
        }
    }
    for (entry = registry_entries; rc == TQ_OK && entry != NULL; entry = entry->next) {
        rc = tqi_buf_printf(&names, ", %s", entry->sampler->name);
    }
    rc = rc == TQ_OK
             ? tqi_error_set(err, TQ_ESAMPLER, "no sampler '%.64s'; there are %s", name, (const char *)names.data)
             : tqi_error_nomem(err, "names of samplers");
    tqi_buf_fini(&names);
    return rc;
}

int tqi_sampler_find(const char *name, const tq_sampler **out, tq_error *err)
{
    int rc = TQ_OK;

    if (name == NULL || name[0] == '\0') {
        name = tqi_sampler_sequential.name;
    }
    (void)pthread_mutex_lock(&registry_lock);
    *out = registry_lookup(name);
    if (*out == NULL) {
        rc = registry_unknown(name, err);
    }
    (void)pthread_mutex_unlock(&registry_lock);
    return rc;
}

int tq_sampler_register(const tq_sampler *sampler, tq_error *err)
{
    registry_entry *entry;
    int rc;

    if (sampler == NULL) {
        return tqi_error_null(err, "tq_sampler_register: sampler");
    }
    if (sampler->abi < 1 || sampler->abi > TQ_SAMPLER_ABI) {
        return tqi_error_set(err, TQ_EVERSION, "sampler '%s' was made for another interface (%u, not %u)",
                             sampler->name != NULL ? sampler->name : "", sampler->abi, TQ_SAMPLER_ABI);
    }
    rc = tqi_check_name("sampler", sampler->name, TQ_NAME_MAX, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (sampler->need == NULL || sampler->pick == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "sampler '%s' lacks need or pick", sampler->name);
    }
    entry = calloc(1, sizeof(*entry));
    if (entry == NULL) {
        return tqi_error_nomem(err, "sampler");
    }
    entry->sampler = sampler;
    if (sampler->abi < TQ_SAMPLER_ABI) {
        memcpy(&entry->table, sampler, registry_table_sizes[sampler->abi]);
        entry->sampler = &entry->table;
    }
    (void)pthread_mutex_lock(&registry_lock);
    if (registry_lookup(sampler->name) != NULL) {
        rc = tqi_error_set(err, TQ_EEXIST, "there is a sampler '%s' already", sampler->name);
        free(entry);
    } else {
        entry->next = registry_entries;
        registry_entries = entry;
    }
    (void)pthread_mutex_unlock(&registry_lock);
    return rc;
}

void tqi_sampler_forget(const char *partition)
{
    const registry_entry *entry;

    (void)pthread_mutex_lock(&registry_lock);
    entry = registry_entries;
    (void)pthread_mutex_unlock(&registry_lock);
    /* Entries are only ever prepended and never change, so they can be walked without the lock, which a sampler must
     * be able to take to register another. */
    for (; entry != NULL; entry = entry->next) {
        if (entry->sampler->forget != NULL) {
            entry->sampler->forget(partition, entry->sampler->user);
        }
    }
}
