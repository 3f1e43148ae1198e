/*
 * deadline.c - a binary heap of calls, the nearest deadline on top.
 */
#include "net/calling.h"

#include <tq/errors.h>

static void heap_put(tqi_heap *heap, size_t at, tqi_call *call)
{
    heap->items[at] = call;
    call->heap_at = at + 1;
}

static void heap_up(tqi_heap *heap, size_t at, tqi_call *call)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (heap->items[parent]->args.deadline <= call->args.deadline) {
            break;
        }
        heap_put(heap, at, heap->items[parent]);
        at = parent;
    }
    heap_put(heap, at, call);
}

static void heap_down(tqi_heap *heap, size_t at, tqi_call *call)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count &&
            heap->items[child + 1]->args.deadline < heap->items[child]->args.deadline) {
            child++;
        }
        if (call->args.deadline <= heap->items[child]->args.deadline) {
            break;
        }
        heap_put(heap, at, heap->items[child]);
        at = child;
    }
    heap_put(heap, at, call);
}

int tqi_heap_push(tqi_heap *heap, tqi_call *call)
{
    int rc = tqi_grow(&heap->items, &heap->capacity, heap->count + 1, sizeof *heap->items);
    if (rc == TQ_OK) {
        heap_up(heap, heap->count++, call);
    }
    return rc;
}

void tqi_heap_remove(tqi_heap *heap, tqi_call *call)
{
    if (call->heap_at == 0) {
        return;
    }
    size_t at = call->heap_at - 1;
    call->heap_at = 0;
    tqi_call *last = heap->items[--heap->count];
    if (last == call) {
        return;
    }
    if (at > 0 && heap->items[(at - 1) / 2]->args.deadline > last->args.deadline) {
        heap_up(heap, at, last);
    } else {
        heap_down(heap, at, last);
    }
}

tqi_call *tqi_heap_top(const tqi_heap *heap)
{
    return heap->count > 0 ? heap->items[0] : NULL;
}
