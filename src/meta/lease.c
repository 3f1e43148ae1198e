/*
 * lease.c - sessions in the table: the block ids leased to them, and their claims.  Ids only increase, so a session's
 * ranges, kept in order of leasing, are sorted by their distance from the first one, even across the counter's wrap.
 */
#include "meta/internal.h"

tqi_session *tqi_m_session_find(const tqi_meta *meta, uint64_t id)
{
    tqi_session *session;

    HASH_FIND(hh, meta->sessions, &id, sizeof(id), session);
    return session;
}

int tqi_m_session_get(tqi_meta *meta, uint64_t id, tqi_session **out, tq_error *err)
{
    bool hash_failed = false;
    tqi_session *session = tqi_m_session_find(meta, id);

    if (session == NULL) {
        session = calloc(1, sizeof(*session));
        if (session == NULL) {
            return tqi_error_nomem(err, "session");
        }
        session->id = id;
        HASH_ADD(hh, meta->sessions, id, sizeof(id), session);
        if (hash_failed) {
            free(session);
            return tqi_error_nomem(err, "session");
        }
    }
    *out = session;
    return TQ_OK;
}

/* Index of the last range that begins at or before the id; ranges is not empty. */
static size_t lease_place(const tqi_session *session, uint64_t id)
{
    uint64_t base = session->ranges[0]->first;
    size_t low = 0;
    size_t high = session->n_ranges;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (session->ranges[middle]->first - base <= id - base) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

tqi_range *tqi_m_range_find(const tqi_session *session, uint64_t id)
{
    tqi_range *range;
    uint64_t place;

    if (session->n_ranges == 0) {
        return NULL;
    }
    range = session->ranges[lease_place(session, id)];
    place = id - range->first;
    if (place >= range->count || (range->used[place / 64] >> (place % 64) & 1) != 0) {
        return NULL;
    }
    return range;
}

void tqi_m_range_mark(tqi_range *range, uint64_t id, bool used)
{
    uint64_t place = id - range->first;
    uint64_t bit = UINT64_C(1) << (place % 64);

    if (used) {
        range->used[place / 64] |= bit;
    } else {
        range->used[place / 64] &= ~bit;
    }
}

void tqi_m_range_free(tqi_meta *meta, tqi_range *range)
{
    tqi_session *session = range->session;
    size_t place = lease_place(session, range->first);

    session->n_ranges--;
    memmove(&session->ranges[place], &session->ranges[place + 1],
            (session->n_ranges - place) * sizeof(tqi_range *));
    DL_DELETE(range->owner->ranges, range);
    meta->n_ranges--;
    meta->dead_reserved -= range->left;
    free(range);
}

void tqi_m_range_use(tqi_meta *meta, tqi_range *range)
{
    if (--range->left == 0) {
        tqi_m_range_free(meta, range);
    }
}

int tqi_meta_lease(tqi_meta *meta, uint64_t session_id, tqi_owner *owner, uint32_t count,
                   uint64_t *first, tq_error *err)
{
    tqi_session *session;
    tqi_range *range;
    int rc;

    if (count == 0 || count > TQI_M_LEASE_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "a lease is of 1 to %u blocks, not %u",
                             TQI_M_LEASE_MAX, count);
    }
    rc = tqi_m_session_get(meta, session_id, &session, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (session->n_ranges >= tqi_limits.leases) {
        tqi_limit_reached(TQI_LIMIT_leases);
        return tqi_error_set(
            err, TQ_EINVAL,
            "this session has %llu leases of block ids that it has not used, which "
            "is the most (limits.leases): publish or abandon some",
            (unsigned long long)tqi_limits.leases);
    }
    if (tqi_grow(&session->ranges, &session->ranges_capacity, session->n_ranges + 1,
                 sizeof(tqi_range *)) != TQ_OK) {
        return tqi_error_nomem(err, "lease");
    }
    range = calloc(1, sizeof(*range));
    if (range == NULL) {
        return tqi_error_nomem(err, "lease");
    }
    rc = tqi_m_dead_reserve(meta, count, err);
    if (rc != TQ_OK) {
        free(range);
        return rc;
    }
    /* No range holds id 0, which marks a free slot in the tables of storage units. */
    if (meta->next_block == 0 || meta->next_block > UINT64_MAX - count + 1) {
        meta->next_block = 1;
    }
    *range = (tqi_range){.session = session,
                         .owner = owner,
                         .first = meta->next_block,
                         .count = count,
                         .left = count};
    meta->next_block += count;
    meta->n_ranges++;
    session->ranges[session->n_ranges++] = range;
    DL_APPEND(owner->ranges, range);
    *first = range->first;
    return TQ_OK;
}

int tqi_meta_abandon(tqi_meta *meta, uint64_t session_id, const uint64_t *ids, size_t n,
                     bool writer_done, tq_error *err)
{
    const tqi_session *session = tqi_m_session_find(meta, session_id);
    size_t i;

    /* Marking while checking detects ids that are named twice. */
    for (i = 0; i < n; i++) {
        tqi_range *range = session != NULL ? tqi_m_range_find(session, ids[i]) : NULL;
        if (range == NULL) {
            break;
        }
        tqi_m_range_mark(range, ids[i], true);
    }
    if (i < n) {
        int rc =
            tqi_error_set(err, TQ_EINVAL, "block %llu is not an unpublished block of this session",
                          (unsigned long long)ids[i]);
        while (i-- > 0) {
            tqi_m_range_mark(session->ranges[lease_place(session, ids[i])], ids[i], false);
        }
        return rc;
    }
    meta->operation++;
    for (i = 0; i < n; i++) {
        tqi_range *range = session->ranges[lease_place(session, ids[i])];
        tqi_m_dead_push(range->owner, ids[i], writer_done);
        tqi_m_range_use(meta, range);
    }
    return TQ_OK;
}

void tqi_meta_session_end(tqi_meta *meta, uint64_t session_id, bool dead)
{
    tqi_session *session = tqi_m_session_find(meta, session_id);

    if (session == NULL) {
        return;
    }
    meta->operation++;
    while (session->claims != NULL) {
        tqi_meta_claim_release(meta, session_id, session->claims->id);
    }
    while (session->n_ranges > 0) {
        tqi_range *range = session->ranges[session->n_ranges - 1];
        for (uint32_t i = 0; i < range->count; i++) {
            if ((range->used[i / 64] >> (i % 64) & 1) == 0) {
                tqi_m_dead_push(range->owner, range->first + i, dead && !range->owner->outlives);
                range->left--;
            }
        }
        tqi_m_range_free(meta, range);
    }
    HASH_DEL(meta->sessions, session);
    free(session->ranges);
    free(session);
}
