/*
 * stock.c - room for small blocks that is reserved ahead, so that a small put needs no request to its unit. A put of a
 * few hundred bytes spends more time asking for room than on everything else. When such puts come in quick succession,
 * the request of one also asks for room for the next ones: 1, then 3, then 7, at most TQI_SIMPLE_STOCK_MAX blocks of
 * one size per unit. These blocks are like any other that is reserved and not yet published: they go when the session
 * or the unit ends. Room that was not used for a second is given back, because others may need it. What counts as
 * quick depends on how long a request takes. With thousands of other clients it takes a good part of a second, and
 * even puts several request times apart gain from each request that they need not make.
 */
#include "manager/simple/put.h"

#include <stdlib.h>

#include "base/clock.h"

#define STOCK_LEAST   UINT64_C(256)
#define STOCK_MOST    UINT64_C(1024)
#define STOCK_SOON_NS UINT64_C(50000000)
#define STOCK_IDLE_NS UINT64_C(1000000000)

static uint64_t stock_size(uint64_t total)
{
    uint64_t size = STOCK_LEAST;

    while (size < total) {
        size *= 2;
    }
    return size;
}

/* How soon one put has to follow another. */
static uint64_t stock_soon(const tqi_simple_link *link)
{
    return tqi_simple_pace(link->simple, STOCK_SOON_NS);
}

/* When the rest of it is given back, unless it is used before. */
static uint64_t stock_end(const tqi_simple_link *link)
{
    uint64_t idle = 2 * stock_soon(link);

    return link->stock_at + (idle > STOCK_IDLE_NS ? idle : STOCK_IDLE_NS);
}

/* Gives back the room reserved ahead at all units that were not written recently. */
static void stock_idle(uv_timer_t *timer);

static void stock_arm(tqi_simple *simple, uint64_t end)
{
    uint64_t now = tqi_now();

    uv_timer_start(&simple->stock_timer, stock_idle, end > now ? (end - now) / 1000000 + 1 : 0, 0);
}

/* Whether that room can still be written and published: unit, controller and session are unchanged. */
static bool stock_valid(const tqi_simple_link *link, const tqi_simple_ids_from *from)
{
    return tqi_simple_ids_known(link->simple, from) && link->mapping != NULL &&
           link->mapping->incarnation == from->incarnation && link->incarnation == from->incarnation &&
           tqi_net_channel_local(link->channel);
}

void tqi_simple_stock_drop(tqi_simple_link *link)
{
    uint64_t ids[TQI_SIMPLE_STOCK_MAX];

    for (uint32_t i = 0; i < link->n_stock; i++) {
        ids[i] = link->stock[link->stock_first + i].id;
    }
    if (link->n_stock > 0 && tqi_simple_ids_known(link->simple, &link->stock_from)) {
        link->simple->host->abandon(link->simple->host, ids, link->n_stock, true);
    }
    link->n_stock = 0;
}

bool tqi_simple_stock_take(tqi_simple_put_op *op)
{
    tqi_simple_link *link = op->unit;

    if (!tqi_simple_stock_suits(op) || link->n_stock == 0) {
        return false;
    }
    if (!stock_valid(link, &link->stock_from) || op->total > link->stock_size) {
        tqi_simple_stock_drop(link);
        return false;
    }
    const tqi_simple_stocked *room = &link->stock[link->stock_first++];
    link->n_stock--;
    op->ids[0] = room->id;
    op->offsets[0] = room->offset;
    op->slots[0] = room->slot;
    op->from = link->stock_from;
    link->stock_at = tqi_now();
    return true;
}

bool tqi_simple_stock_suits(const tqi_simple_put_op *op)
{
    return op->n_blocks == 1 && op->total <= STOCK_MOST;
}

uint32_t tqi_simple_stock_want(tqi_simple_put_op *op)
{
    tqi_simple_link *link = op->unit;
    uint64_t now = tqi_now();
    bool soon = now - link->stock_at < stock_soon(link);

    if (!tqi_simple_stock_suits(op) || link->stocking || link->n_stock > 0 || link->mapping == NULL || op->no_stock) {
        return 0;
    }
    link->stock_at = now;
    link->stock_next = soon ? link->stock_next * 2 + 1 : 0;
    if (link->stock_next > TQI_SIMPLE_STOCK_MAX) {
        link->stock_next = TQI_SIMPLE_STOCK_MAX;
    }
    for (uint32_t i = 0; i < link->stock_next; i++) {
        op->sizes[1 + i] = stock_size(op->total);
    }
    link->stocking = link->stock_next > 0;
    return link->stock_next;
}

void tqi_simple_stock_fill(tqi_simple_put_op *op)
{
    tqi_simple_link *link = op->unit;
    tqi_simple *simple = op->simple;

    link->stock_from = op->from;
    link->stock_size = op->sizes[1];
    for (uint32_t i = 0; i < op->extra; i++) {
        link->stock[i] =
            (tqi_simple_stocked){.id = op->ids[1 + i], .offset = op->offsets[1 + i], .slot = op->slots[1 + i]};
    }
    link->stock_first = 0;
    link->n_stock = op->extra;
    op->extra = 0;
    if (!uv_is_active((uv_handle_t *)&simple->stock_timer)) {
        stock_arm(simple, stock_end(link));
    }
}

static void stock_idle(uv_timer_t *timer)
{
    tqi_simple *simple = timer->data;
    uint64_t now = tqi_now();
    uint64_t next = TQI_NEVER;
    tqi_simple_link *link;

    for (link = simple->links; link != NULL; link = link->hh.next) {
        if (link->n_stock > 0 && stock_end(link) <= now) {
            tqi_simple_stock_drop(link);
        }
        if (link->n_stock > 0 && stock_end(link) < next) {
            next = stock_end(link);
        }
    }
    if (next != TQI_NEVER) {
        stock_arm(simple, next);
    }
}
