/*
 * adapter.c - one claim: a sampler's pick over a view of the table, then the take.
 *
 * The pick is collected here and changes the table only if the sampler succeeded: first the cached picks of others are
 * stored, then the samples are taken; if the take fails, the stored picks are dropped again.
 *
 * A tag's value is MessagePack, and a sampler may read a number from it. That is decoded by hand: the bytes come from
 * clients and are not trusted, a number has one of twelve forms of at most nine bytes, and a library would make an
 * object of every value and bring its allocations into the controller.
 */
#include "sampler/sampler.h"

#include "base/buf.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

struct tq_sampler_view {
    tqi_table_view *view;
    const uint32_t *indexes;
    uint32_t count;
};

/* A pick for one cache slot: indexes[from .. from + n) of tq_pick.cached. */
typedef struct pick_slot {
    char name[TQ_NAME_MAX + 1];
    size_t from;
    uint32_t n;
} pick_slot;

struct tq_pick {
    const tq_sampler_view *view;
    uint8_t *chosen_bits;   /* per position of the view, made with the first pick */
    uint8_t *consumed_bits; /* the same for consumed ones */
    uint32_t *chosen;       /* indexes */
    size_t n_chosen;
    size_t chosen_capacity;
    uint32_t *consumed;
    size_t n_consumed;
    size_t consumed_capacity;
    uint32_t *again; /* those of chosen that are not in the view */
    size_t n_again;
    size_t again_capacity;
    uint32_t *cached;
    size_t n_cached;
    size_t cached_capacity;
    pick_slot *slots;
    size_t n_slots;
    size_t slots_capacity;
    char own_slot[TQ_NAME_MAX + 1];
};

/* --- what a sampler reads ------------------------------------------------- */

uint32_t tq_view_count(const tq_sampler_view *view)
{
    return view != NULL ? view->count : 0;
}

const uint32_t *tq_view_indexes(const tq_sampler_view *view)
{
    return view != NULL ? view->indexes : NULL;
}

const char *tq_view_group(const tq_sampler_view *view, uint32_t i)
{
    return view != NULL && i < view->count ? tqi_table_view_sample_group(view->view, view->indexes[i]) : NULL;
}

uint32_t tq_view_group_size(const tq_sampler_view *view, uint32_t i)
{
    return view != NULL && i < view->count ? tqi_table_view_sample_group_size(view->view, view->indexes[i]) : 0;
}

uint64_t tq_view_ordinal(const tq_sampler_view *view, uint32_t i)
{
    return view != NULL && i < view->count ? tqi_table_view_sample_ordinal(view->view, view->indexes[i]) : 0;
}

/* Big-endian number of 1, 2, 4 or 8 bytes. */
static uint64_t adapter_big_endian(const uint8_t *data, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++) {
        value = value << 8 | data[i];
    }
    return value;
}

static double adapter_float(uint64_t bits, size_t size)
{
    double wide;
    float narrow;
    uint32_t half = (uint32_t)bits;

    if (size == 4) {
        memcpy(&narrow, &half, sizeof(narrow));
        return (double)narrow;
    }
    memcpy(&wide, &bits, sizeof(wide));
    return wide;
}

/* A msgpack number. */
static bool adapter_number(tq_slice value, double *out)
{
    const uint8_t *data = value.data;
    uint8_t type = value.size > 0 ? data[0] : 0xc0;
    size_t size = 0;
    uint64_t bits;

    if (value.size == 1 && (type < 0x80 || type >= 0xe0)) {
        *out = type < 0x80 ? (double)type : (double)type - 256.0;
        return true;
    }
    if (type >= 0xcc && type <= 0xcf) {
        size = (size_t)1 << (type - 0xcc);
    } else if (type >= 0xd0 && type <= 0xd3) {
        size = (size_t)1 << (type - 0xd0);
    } else if (type == 0xca || type == 0xcb) {
        size = type == 0xca ? 4 : 8;
    }
    if (size == 0 || value.size != size + 1) {
        return false;
    }
    bits = adapter_big_endian(data + 1, size);
    if (type == 0xca || type == 0xcb) {
        *out = adapter_float(bits, size);
    } else if (type >= 0xd0) {
        /* Sign from the top bit of its size. */
        *out = (double)((int64_t)(bits << (64 - 8 * size)) >> (64 - 8 * size));
    } else {
        *out = (double)bits;
    }
    return true;
}

bool tq_view_tag_number(const tq_sampler_view *view, uint32_t i, const char *name, double *out)
{
    return view != NULL && name != NULL && out != NULL && i < view->count &&
           adapter_number(tqi_table_view_sample_tag(view->view, view->indexes[i], name), out);
}

bool tq_view_tag(const tq_sampler_view *view, uint32_t i, uint32_t tag, const char **name, tq_slice *value)
{
    return view != NULL && name != NULL && value != NULL && i < view->count &&
           tqi_table_view_sample_tag_at(view->view, view->indexes[i], tag, name, value);
}

bool tq_view_had(const tq_sampler_view *view, uint32_t index)
{
    return view != NULL && tqi_table_view_had(view->view, index);
}

/* --- what a sampler picks ------------------------------------------------- */

static bool adapter_bit(uint8_t *bits, uint32_t i)
{
    bool was = (bits[i / 8] >> (i % 8) & 1) != 0;

    bits[i / 8] |= (uint8_t)(1u << (i % 8));
    return was;
}

static int adapter_bits(tq_pick *pick)
{
    size_t size = (size_t)pick->view->count / 8 + 1;

    if (pick->chosen_bits == NULL) {
        pick->chosen_bits = calloc(2, size);
        if (pick->chosen_bits == NULL) {
            return TQ_ENOMEM;
        }
        pick->consumed_bits = pick->chosen_bits + size;
    }
    return TQ_OK;
}

static int adapter_consume(tq_pick *pick, uint32_t i)
{
    if (tqi_grow(&pick->consumed, &pick->consumed_capacity, pick->n_consumed + 1, sizeof(*pick->consumed)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    if (!adapter_bit(pick->consumed_bits, i)) {
        pick->consumed[pick->n_consumed++] = pick->view->indexes[i];
    }
    return TQ_OK;
}

int tq_pick_add(tq_pick *pick, uint32_t i, bool consume)
{
    if (pick == NULL || i >= pick->view->count) {
        return TQ_EINVAL;
    }
    if (adapter_bits(pick) != TQ_OK ||
        tqi_grow(&pick->chosen, &pick->chosen_capacity, pick->n_chosen + 1, sizeof(*pick->chosen)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    if (adapter_bit(pick->chosen_bits, i)) {
        return TQ_EINVAL;
    }
    pick->chosen[pick->n_chosen++] = pick->view->indexes[i];
    return consume ? adapter_consume(pick, i) : TQ_OK;
}

int tq_pick_consume(tq_pick *pick, uint32_t i)
{
    if (pick == NULL || i >= pick->view->count) {
        return TQ_EINVAL;
    }
    return adapter_bits(pick) == TQ_OK ? adapter_consume(pick, i) : TQ_ENOMEM;
}

int tq_pick_again(tq_pick *pick, uint32_t index)
{
    if (pick == NULL || !tqi_table_view_had(pick->view->view, index)) {
        return TQ_EINVAL;
    }
    if (tqi_grow(&pick->again, &pick->again_capacity, pick->n_again + 1, sizeof(*pick->again)) != TQ_OK ||
        tqi_grow(&pick->chosen, &pick->chosen_capacity, pick->n_chosen + 1, sizeof(*pick->chosen)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    pick->again[pick->n_again++] = index;
    pick->chosen[pick->n_chosen++] = index;
    return TQ_OK;
}

int tq_pick_cache(tq_pick *pick, const char *slot, const uint32_t *positions, uint32_t n)
{
    pick_slot *out;

    if (pick == NULL || slot == NULL || positions == NULL || slot[0] == '\0' || strlen(slot) > TQ_NAME_MAX || n == 0) {
        return TQ_EINVAL;
    }
    if (adapter_bits(pick) != TQ_OK ||
        tqi_grow(&pick->slots, &pick->slots_capacity, pick->n_slots + 1, sizeof(*pick->slots)) != TQ_OK ||
        tqi_grow(&pick->cached, &pick->cached_capacity, pick->n_cached + n, sizeof(*pick->cached)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    out = &pick->slots[pick->n_slots];
    *out = (pick_slot){.from = pick->n_cached, .n = n};
    memcpy(out->name, slot, strlen(slot));
    for (uint32_t i = 0; i < n; i++) {
        int rc = positions[i] < pick->view->count ? adapter_consume(pick, positions[i]) : TQ_EINVAL;
        if (rc != TQ_OK) {
            return rc;
        }
        pick->cached[out->from + i] = pick->view->indexes[positions[i]];
    }
    pick->n_cached += n;
    pick->n_slots++;
    return TQ_OK;
}

int tq_pick_slot(tq_pick *pick, const char *slot)
{
    if (pick == NULL || slot == NULL || strlen(slot) > TQ_NAME_MAX) {
        return TQ_EINVAL;
    }
    memset(pick->own_slot, 0, sizeof(pick->own_slot));
    memcpy(pick->own_slot, slot, strlen(slot));
    return TQ_OK;
}

static void adapter_pick_fini(tq_pick *pick)
{
    free(pick->chosen_bits);
    free(pick->chosen);
    free(pick->consumed);
    free(pick->again);
    free(pick->cached);
    free(pick->slots);
}

/* --- the claim ------------------------------------------------------------ */

/* Stores the cached picks and takes the samples. */
static int adapter_take(tqi_table_view *view, const tq_pick *pick, uint64_t session, bool with_tags,
                        tqi_table_result *result, tq_error *err)
{
    tq_error ignored;
    size_t stored = 0;
    int rc = TQ_OK;

    while (rc == TQ_OK && stored < pick->n_slots) {
        const pick_slot *slot = &pick->slots[stored];
        rc = tqi_table_view_cache_set(view, slot->name, pick->cached + slot->from, slot->n, err);
        stored += rc == TQ_OK;
    }
    if (rc == TQ_OK && pick->own_slot[0] != '\0') {
        rc = tqi_table_view_cache_set(view, pick->own_slot, pick->chosen, (uint32_t)pick->n_chosen, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_table_view_take(view, pick->chosen, (uint32_t)pick->n_chosen, pick->consumed,
                                 (uint32_t)pick->n_consumed, session, with_tags, result, err);
        if (rc != TQ_OK && pick->own_slot[0] != '\0') {
            (void)tqi_table_view_cache_set(view, pick->own_slot, NULL, 0, &ignored);
        }
    }
    while (rc != TQ_OK && stored-- > 0) {
        /* Emptying a slot cannot fail. */
        (void)tqi_table_view_cache_set(view, pick->slots[stored].name, NULL, 0, &ignored);
    }
    return rc;
}

static int adapter_compare(const void *a, const void *b)
{
    uint32_t one = *(const uint32_t *)a;
    uint32_t other = *(const uint32_t *)b;

    return one < other ? -1 : one > other;
}

/* Positions are checked as they are added; samples that are handed out again are checked for duplicates here. */
static int adapter_check_again(tq_pick *pick, const char *sampler, tq_error *err)
{
    if (pick->n_again > 1) {
        qsort(pick->again, pick->n_again, sizeof(*pick->again), adapter_compare);
    }
    for (size_t i = 1; i < pick->n_again; i++) {
        if (pick->again[i] == pick->again[i - 1]) {
            return tqi_error_set(err, TQ_EINVAL, "sampler '%s' picked sample %u twice", sampler, pick->again[i]);
        }
    }
    return TQ_OK;
}

int tqi_sampler_slot(const tq_sampler *sampler, const tq_pick_request *request, char slot[TQ_NAME_MAX + 1],
                     tq_error *err)
{
    slot[0] = '\0';
    return sampler->slot != NULL ? sampler->slot(request, slot, err) : TQ_OK;
}

/* TQ_OK with the result if the request's slot holds a pick, else TQ_EAGAIN. */
static int adapter_cached(const tq_sampler *sampler, tqi_table_view *view, const tq_pick_request *request,
                          uint64_t session, bool with_tags, tqi_table_result *result, tq_error *err)
{
    char slot[TQ_NAME_MAX + 1];
    const uint32_t *chosen;
    uint32_t n;
    int rc = tqi_sampler_slot(sampler, request, slot, err);

    if (rc != TQ_OK) {
        return rc;
    }
    chosen = slot[0] != '\0' ? tqi_table_view_cache_get(view, slot, &n) : NULL;
    if (chosen == NULL) {
        return TQ_EAGAIN;
    }
    return tqi_table_view_take(view, chosen, n, NULL, 0, session, with_tags, result, err);
}

static void adapter_tell(const tq_pick *pick, const tqi_sampler_told *told)
{
    for (size_t i = 0; i < pick->n_slots; i++) {
        told->cached(pick->slots[i].name, told->arg);
    }
    if (pick->own_slot[0] != '\0') {
        told->cached(pick->own_slot, told->arg);
    }
}

int tqi_sampler_claim(const tq_sampler *sampler, tqi_table_view *view, const tq_pick_request *request, uint64_t session,
                      bool with_tags, tqi_table_result *result, const tqi_sampler_told *told, tq_error *err)
{
    tq_sampler_view shown = {.view = view};
    tq_pick pick = {.view = &shown};
    uint32_t need = sampler->need(request);
    uint32_t look = sampler->look != NULL ? sampler->look(request) : UINT32_MAX;
    int rc = adapter_cached(sampler, view, request, session, with_tags, result, err);

    if (rc != TQ_EAGAIN) {
        return rc;
    }
    if ((tqi_table_view_ready(view) < need || tqi_table_view_ready(view) == 0) &&
        (sampler->kept == NULL || !sampler->kept(request))) {
        return tqi_error_set(err, TQ_EAGAIN, "%u sample%s ready for task '%s' in partition '%s', %u needed",
                             tqi_table_view_ready(view), tqi_table_view_ready(view) == 1 ? " is" : "s are",
                             request->task, request->partition, need);
    }
    shown.count = tqi_table_view_list_first(view, look, &shown.indexes, err);
    if (shown.indexes == NULL) {
        return TQ_ENOMEM;
    }
    if (err != NULL) {
        err->code = TQ_OK;
    }
    rc = sampler->pick(&shown, request, &pick, err);
    if (rc == TQ_OK && pick.n_chosen == 0) {
        rc = TQ_EAGAIN;
    }
    if (rc == TQ_OK) {
        rc = adapter_check_again(&pick, sampler->name, err);
    }
    if (rc == TQ_OK) {
        rc = adapter_take(view, &pick, session, with_tags, result, err);
        if (rc == TQ_OK && told != NULL) {
            adapter_tell(&pick, told);
        }
    } else if (err != NULL && err->code != rc) {
        /* The sampler gave no detail. */
        (void)tqi_error_set(err, rc,
                            rc == TQ_EAGAIN
                                ? "sampler '%s' finds too few fitting samples in partition '%s' for task '%s'"
                                : "sampler '%s' failed in partition '%s' for task '%s'",
                            sampler->name, request->partition, request->task);
    }
    adapter_pick_fini(&pick);
    return rc;
}
