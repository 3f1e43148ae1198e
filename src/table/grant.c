/*
 * grant.c - sessions in the table: the block ids granted to them, and their claims. Ids only increase, so a session's
 * ranges, kept in order of granting, are sorted by their distance from the first one, even across the counter's wrap.
 */
#include <utlist.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "table/block.h"

tqi_table_session *tqi_t_session_find(const tqi_table *table, uint64_t id)
{
    tqi_table_session *session;

    HASH_FIND(hh, table->sessions, &id, sizeof(id), session);
    return session;
}

int tqi_t_session_get(tqi_table *table, uint64_t id, tqi_table_session **out, tq_error *err)
{
    tqi_table_session *session = tqi_t_session_find(table, id);

    if (session == NULL) {
        session = calloc(1, sizeof(*session));
        if (session == NULL) {
            return tqi_error_nomem(err, "session");
        }
        session->id = id;
        if (!TQI_HASH_ADD(table->sessions, id, session)) {
            free(session);
            return tqi_error_nomem(err, "session");
        }
    }
    *out = session;
    return TQ_OK;
}

/* Index of the last range that begins at or before the id; ranges is not empty. */
static size_t grant_place(const tqi_table_session *session, uint64_t id)
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

tqi_table_range *tqi_t_range_find(const tqi_table_session *session, uint64_t id)
{
    tqi_table_range *range;
    uint64_t place;

    if (session->n_ranges == 0) {
        return NULL;
    }
    range = session->ranges[grant_place(session, id)];
    place = id - range->first;
    if (place >= range->count || (range->used[place / 64] >> (place % 64) & 1) != 0) {
        return NULL;
    }
    return range;
}

void tqi_t_range_mark(tqi_table_range *range, uint64_t id, bool used)
{
    uint64_t place = id - range->first;
    uint64_t bit = UINT64_C(1) << (place % 64);

    if (used) {
        range->used[place / 64] |= bit;
    } else {
        range->used[place / 64] &= ~bit;
    }
}

void tqi_t_range_free(tqi_table *table, tqi_table_range *range)
{
    tqi_table_session *session = range->session;
    size_t place = grant_place(session, range->first);

    session->n_ranges--;
    memmove(&session->ranges[place], &session->ranges[place + 1],
            (session->n_ranges - place) * sizeof(tqi_table_range *));
    DL_DELETE(range->owner->ranges, range);
    table->n_ranges--;
    table->dead_reserved -= range->left;
    free(range);
}

void tqi_t_range_use(tqi_table *table, tqi_table_range *range)
{
    if (--range->left == 0) {
        tqi_t_range_free(table, range);
    }
}

int tqi_table_grant(tqi_table *table, uint64_t session_id, tqi_table_owner *owner, uint32_t count, uint64_t *first,
                    tq_error *err)
{
    tqi_table_session *session;
    tqi_table_range *range;
    int rc;

    if (count == 0 || count > TQ_GRANT_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "a grant is of 1 to %d blocks, not %u", TQ_GRANT_MAX, count);
    }
    rc = tqi_t_session_get(table, session_id, &session, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (session->n_ranges >= tqi_limits.grants) {
        tqi_limit_reached(TQI_LIMIT_grants);
        return tqi_error_set(err, TQ_EINVAL,
                             "this session has %llu grants of block ids that it has not used, which "
                             "is the most (limits.grants): publish or abandon some",
                             (unsigned long long)tqi_limits.grants);
    }
    if (tqi_grow(&session->ranges, &session->ranges_capacity, session->n_ranges + 1, sizeof(tqi_table_range *)) !=
        TQ_OK) {
        return tqi_error_nomem(err, "grant");
    }
    range = calloc(1, sizeof(*range));
    if (range == NULL) {
        return tqi_error_nomem(err, "grant");
    }
    rc = tqi_t_dead_reserve(table, count, err);
    if (rc != TQ_OK) {
        free(range);
        return rc;
    }
    /* No range holds id 0, which marks a free slot in the tables of storage units, and none ends where the numbers do:
     * its end is a number, too. */
    if (table->next_block == 0 || table->next_block > UINT64_MAX - count) {
        table->next_block = 1;
    }
    *range =
        (tqi_table_range){.session = session, .owner = owner, .first = table->next_block, .count = count, .left = count};
    table->next_block += count;
    table->n_ranges++;
    session->ranges[session->n_ranges++] = range;
    DL_APPEND(owner->ranges, range);
    *first = range->first;
    return TQ_OK;
}

int tqi_table_abandon(tqi_table *table, uint64_t session_id, const uint64_t *ids, size_t n, bool writer_done,
                      tq_error *err)
{
    const tqi_table_session *session = tqi_t_session_find(table, session_id);
    size_t i;

    /* Marking while checking detects ids that are named twice. */
    for (i = 0; i < n; i++) {
        tqi_table_range *range = session != NULL ? tqi_t_range_find(session, ids[i]) : NULL;
        if (range == NULL) {
            break;
        }
        tqi_t_range_mark(range, ids[i], true);
    }
    if (i < n) {
        int rc = tqi_error_set(err, TQ_EINVAL, "block %llu is not an unpublished block of this session",
                               (unsigned long long)ids[i]);
        while (i-- > 0) {
            tqi_t_range_mark(session->ranges[grant_place(session, ids[i])], ids[i], false);
        }
        return rc;
    }
    table->operation++;
    for (i = 0; i < n; i++) {
        tqi_table_range *range = session->ranges[grant_place(session, ids[i])];
        tqi_t_dead_push(range->owner, ids[i], writer_done);
        tqi_t_range_use(table, range);
    }
    return TQ_OK;
}

void tqi_t_session_free(tqi_table *table, tqi_table_session *session, bool dead)
{
    while (session->n_ranges > 0) {
        tqi_table_range *range = session->ranges[session->n_ranges - 1];
        for (uint32_t i = 0; i < range->count; i++) {
            if ((range->used[i / 64] >> (i % 64) & 1) == 0) {
                tqi_t_dead_push(range->owner, range->first + i, dead && !range->owner->outlives);
                range->left--;
            }
        }
        tqi_t_range_free(table, range);
    }
    HASH_DEL(table->sessions, session);
    free(session->ranges);
    free(session);
}
