/*
 * sampler.h - the plug-in interface for sampling policies. In libtqd, except tq_balance, which is in libtq.
 *
 * A sampler is a pure function. Its input is the claim's request and a read-only view of the samples that are ready
 * and that the task has not consumed yet; its output is the pick: the samples that the claim gets. The controller
 * calls it on its own thread, inside a claim; it must not block, keep pointers into the view, or change anything but
 * the pick.
 *
 * Cached picks: a sampler may pick for several callers at once (all ranks of a step). It then stores the others' picks
 * under slot names with tq_pick_cache. The controller keeps them with the partition and task only if the pick
 * succeeds, hands them out when that slot is requested, and drops them with the partition.
 */
#ifndef TQ_SAMPLER_H
#define TQ_SAMPLER_H

#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface. Version 2 added user, kept and forget. Samplers of older versions are served without what
 * they lack; those of newer ones are refused with TQ_EVERSION. */
#define TQ_SAMPLER_ABI 2

typedef struct tq_sampler_view tq_sampler_view; /**< Ready samples of one task; owned by the controller. */
typedef struct tq_pick tq_pick;                 /**< What a sampler picks; owned by the controller. */

/** A claim's request to its sampler. */
typedef struct tq_pick_request {
    uint32_t batch_size;   /**< Samples wanted; at least 1. */
    const char *partition; /**< Name of the partition. */
    const char *task;      /**< Name of the task. */
    /** The claim's sampling_config as a JSON object of at most 65,536 bytes, "{}" when none was given. */
    const char *config;
    void *user;           /**< The sampler's own: tq_sampler.user. */
    const void *prepared; /**< The controller's own: the parsed config. NULL: none. */
} tq_pick_request;

/** Number of samples in the view; at most what the sampler's `look` returns, if it has one. */
TQ_API uint32_t tq_view_count(const tq_sampler_view *view);
/** Global indexes of the view's samples, ascending; valid during the pick. */
TQ_API const uint32_t *tq_view_indexes(const tq_sampler_view *view);
/** Group given at put for the i-th sample of the view, or NULL: its group then follows from its ordinal. Within a
 * pick, all samples of a group return the same pointer. */
TQ_API const char *tq_view_group(const tq_sampler_view *view, uint32_t i);
/** Number of samples in the partition, ready or not, with the same group (as given at put) as the i-th sample of the
 * view. */
TQ_API uint32_t tq_view_group_size(const tq_sampler_view *view, uint32_t i);
/** Ordinal (order of joining the partition, from 0) of the i-th sample of the view. */
TQ_API uint64_t tq_view_ordinal(const tq_sampler_view *view, uint32_t i);
/** Reads the i-th sample's tag `name` as a number; false when it has none or it is not a number. */
TQ_API bool tq_view_tag_number(const tq_sampler_view *view, uint32_t i, const char *name, double *out);
/** The i-th sample's tag number `tag` (from 0) with its encoded (msgpack) value; false when it has no more tags. */
TQ_API bool tq_view_tag(const tq_sampler_view *view, uint32_t i, uint32_t tag, const char **name, tq_slice *value);
/** Whether the task has consumed this sample of the partition, and it still exists and is ready. Such a sample is not
 * in the view, but may be picked again (tq_pick_again). */
TQ_API bool tq_view_had(const tq_sampler_view *view, uint32_t index);

/** Adds the i-th sample of the view to the pick, in this order; `consume` marks it as handed to the task. */
TQ_API int tq_pick_add(tq_pick *pick, uint32_t i, bool consume);
/** Adds a sample that the task has already consumed (tq_view_had) to the pick, by its index: for samplers that repeat
 * answers they keep themselves. Each index at most once. */
TQ_API int tq_pick_again(tq_pick *pick, uint32_t index);
/** Marks the i-th sample of the view as handed to the task, whether it is picked or not. */
TQ_API int tq_pick_consume(tq_pick *pick, uint32_t i);
/** Stores a pick (positions in the view) for another caller under `slot`; its samples count as consumed. */
TQ_API int tq_pick_cache(tq_pick *pick, const char *slot, const uint32_t *positions, uint32_t n);
/** Names the cache slot of this claim itself, so that a repeat by the same caller gets the same answer. */
TQ_API int tq_pick_slot(tq_pick *pick, const char *slot);

/** The table of one sampler. */
typedef struct tq_sampler {
    uint32_t abi;     /**< TQ_SAMPLER_ABI that it was built with. */
    const char *name; /**< Name it is registered and requested by. */
    /** Checks a request before it may wait. TQ_OK, or an error with which the claim fails at once. May be NULL. */
    int (*check)(const tq_pick_request *request, tq_error *err);
    /** Writes the cache slot that this request reads to `slot` ("" for none). May be NULL: no cache. */
    int (*slot)(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1], tq_error *err);
    /** Fewest samples in the view with which a pick can succeed; the controller does not call pick with fewer. */
    uint32_t (*need)(const tq_pick_request *request);
    /** Picks. TQ_OK with a filled pick; TQ_EAGAIN if too few samples are suitable; any other code fails the claim. */
    int (*pick)(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err);
    /** Most samples that a pick needs to see: it is shown the first ones in ascending order, so a pick's cost depends
     * on that number and not on how many are ready. NULL: it sees all. */
    uint32_t (*look)(const tq_pick_request *request);
    void *user; /**< Handed to the functions in each request. May be NULL. */
    /** Whether the sampler itself keeps an answer for this request: pick is then called however few samples are ready.
     * Called when fewer than `need` are ready. May be NULL: it keeps none. */
    bool (*kept)(const tq_pick_request *request);
    /** Called when the partition was cleared: answers kept for it are void. May be NULL. */
    void (*forget)(const char *partition, void *user);
} tq_sampler;

/** Registers a sampler by name for controllers in this process. The table must stay valid until the process exits. */
TQ_API int tq_sampler_register(const tq_sampler *sampler, tq_error *err);

/** Splits n things into k parts of nearly equal weight (Karmarkar-Karp): part[i] is the part of thing i, counted from
 * 0, and part 0 is the heaviest. `equal`: every part gets n / k things. TQ_EINVAL if there are fewer things than
 * parts, if parts are to be equal and n is not a multiple of k, or if a weight is not finite. */
TQ_API int tq_balance(const double *weights, uint32_t n, uint32_t k, bool equal, uint32_t *part, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
