/*
 * shortage.c - why a claim waits, in words: for its timeout error, for the status, and for its client's log.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/text.h"
#include "controller/claims.h"
#include "controller/controller_state.h"

/* Fields that are named one by one. */
#define SHORTAGE_FIELDS 4u

typedef struct shortage_text {
    tqi_text out;
    bool any; /* it has a part already */
} shortage_text;

/* Begins another part of the text. */
static void shortage_part(shortage_text *text)
{
    if (text->any) {
        tqi_text_add(&text->out, "; ");
    }
    text->any = true;
}

/* Fields that no sample has: most likely somebody misspelt them. */
static bool shortage_unknown(const tqi_table_view *view, shortage_text *text)
{
    const char *name = NULL;
    uint32_t produced = 0;
    uint32_t lost = 0;
    size_t n = 0;

    for (size_t i = 0; tqi_table_view_field(view, i, &name, &produced, &lost); i++) {
        if (produced || lost) {
            continue;
        }
        if (n == 0) {
            shortage_part(text);
            tqi_text_add(&text->out, "no sample of the partition has the fields [");
        }
        if (n < SHORTAGE_FIELDS) {
            tqi_text_add(&text->out, "%s'%.64s'", n ? ", " : "", name);
        }
        n++;
    }
    if (n > SHORTAGE_FIELDS) {
        tqi_text_add(&text->out, ", and %zu other%s", n - SHORTAGE_FIELDS, tqi_text_s(n - SHORTAGE_FIELDS));
    }
    if (n) {
        tqi_text_add(&text->out, "] (misspelt?)");
    }
    return n > 0;
}

/* The other fields that some samples lack. */
static void shortage_lacking(const tqi_table_view *view, uint32_t samples, shortage_text *text)
{
    const char *name = NULL;
    uint32_t produced = 0;
    uint32_t lost = 0;
    size_t n = 0;

    for (size_t i = 0; tqi_table_view_field(view, i, &name, &produced, &lost); i++) {
        if ((!produced && !lost) || produced >= samples) {
            continue;
        }
        if (n++ < SHORTAGE_FIELDS) {
            shortage_part(text);
            tqi_text_add(&text->out, "'%.64s': %u have it, %u lack it", name, (unsigned)produced,
                         (unsigned)(samples - produced));
            if (lost) {
                tqi_text_add(&text->out, ", %u of them since it was lost with its storage", (unsigned)lost);
            }
        }
    }
    if (n > SHORTAGE_FIELDS) {
        shortage_part(text);
        tqi_text_add(&text->out, "%zu other field%s %s lacking, too", n - SHORTAGE_FIELDS,
                     tqi_text_s(n - SHORTAGE_FIELDS), n - SHORTAGE_FIELDS == 1 ? "is" : "are");
    }
}

static void shortage_broken_group(const tqi_table_short_group *group, uint32_t n, shortage_text *text)
{
    if (group->name != NULL) {
        tqi_text_add(&text->out,
                     "group '%.64s' has %u of %u left because samples of it were cleared or consumed: "
                     "it completes only if more are put into it",
                     group->name, (unsigned)group->left, (unsigned)n);
    } else {
        tqi_text_add(&text->out,
                     "the group of put number %llu to %llu has %u of %u left because samples of it "
                     "were cleared or consumed: it never completes",
                     (unsigned long long)group->ordinal, (unsigned long long)(group->ordinal + n - 1),
                     (unsigned)group->left, (unsigned)n);
    }
}

/* Groups that lack samples, for a sampler that hands out whole ones. */
static bool shortage_groups(const tqi_table_view *view, uint32_t n, shortage_text *text)
{
    tqi_table_short_groups groups;
    tq_error err = {0};

    if (n < 2 || tqi_table_view_short_groups(view, n, &groups, &err) != TQ_OK || groups.groups == 0) {
        return false;
    }
    shortage_part(text);
    tqi_text_add(&text->out, "%u of the ready ones are in %u incomplete groups of %u", (unsigned)groups.samples,
                 (unsigned)groups.groups, (unsigned)n);
    const tqi_table_short_group *group = &groups.example;
    tqi_text_add(&text->out, ": ");
    if (group->broken) {
        shortage_broken_group(group, n, text);
        if (groups.broken > 1) {
            tqi_text_add(&text->out, ", and so for %u other group%s", (unsigned)groups.broken - 1,
                         tqi_text_s(groups.broken - 1));
        }
    } else if (group->name != NULL) {
        tqi_text_add(&text->out, "group '%.64s' has %u ready", group->name, (unsigned)group->ready);
    } else {
        tqi_text_add(&text->out, "that of put number %llu to %llu has %u ready", (unsigned long long)group->ordinal,
                     (unsigned long long)(group->ordinal + n - 1), (unsigned)group->ready);
    }
    return group->broken;
}

bool tqi_ctl_shortage(const tqi_table_view *view, const tq_sampler *sampler, const tq_pick_request *pick, char *out,
                      size_t size)
{
    shortage_text text = {.out = tqi_text_begin(out, size)};
    tqi_table_shortage shortage;

    tqi_table_view_shortage(view, &shortage);
    if (!shortage.exists) {
        tqi_text_add(&text.out, "there is no partition '%.128s' (misspelt?)", pick->partition);
        return true;
    }
    if (shortage.samples == 0) {
        tqi_text_add(&text.out, "the partition has no samples");
        return false;
    }
    bool suspect = shortage_unknown(view, &text);
    shortage_part(&text);
    tqi_text_add(&text.out, "the partition has %u sample%s", (unsigned)shortage.samples, tqi_text_s(shortage.samples));
    if (shortage.consumed) {
        tqi_text_add(&text.out, ", %u of them consumed by the task", (unsigned)shortage.consumed);
    }
    shortage_lacking(view, shortage.samples, &text);
    uint32_t need = sampler->need != NULL ? sampler->need(pick) : pick->batch_size;
    if (need > pick->batch_size) {
        shortage_part(&text);
        tqi_text_add(&text.out, "%s picks for all ranks at once, from %u ready ones or more", sampler->name,
                     (unsigned)need);
    }
    return shortage_groups(view, tqi_sampler_group(sampler, pick), &text) || suspect;
}

const char *tqi_ctl_uptime(const tqi_controller *ctl, char out[32])
{
    unsigned long long s = (tqi_now() - ctl->started) / 1000000000u;

    if (s < 120) {
        snprintf(out, 32, "%llu s", s);
    } else if (s < 7200) {
        snprintf(out, 32, "%llu min", s / 60);
    } else {
        snprintf(out, 32, "%llu h", s / 3600);
    }
    return out;
}
