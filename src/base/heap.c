/*
 * heap.c - see heap.h.
 */
#include "base/heap.h"

/* Puts one of two trees below the other; the result has no neighbours. */
static tqi_heap_node *heap_join(tqi_heap_node *one, tqi_heap_node *other)
{
    if (other->key < one->key) {
        tqi_heap_node *less = other;
        other = one;
        one = less;
    }
    other->prev = one;
    other->next = one->child;
    if (one->child != NULL) {
        one->child->prev = other;
    }
    one->child = other;
    one->next = NULL;
    return one;
}

/* Makes one tree of neighbours: pairs of them from the left, then these from the right. That order is what keeps
 * removing cheap. */
static tqi_heap_node *heap_join_all(tqi_heap_node *first)
{
    tqi_heap_node *pairs = NULL;
    tqi_heap_node *all = NULL;

    while (first != NULL) {
        tqi_heap_node *pair = first;
        tqi_heap_node *second = first->next;
        first = second != NULL ? second->next : NULL;
        if (second != NULL) {
            pair = heap_join(pair, second);
        }
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs != NULL) {
        tqi_heap_node *pair = pairs;
        pairs = pair->next;
        pair->next = NULL;
        all = all != NULL ? heap_join(all, pair) : pair;
    }
    return all;
}

static void heap_set_top(tqi_heap *heap, tqi_heap_node *top)
{
    heap->top = top;
    if (top != NULL) {
        top->prev = top;
    }
}

void tqi_heap_add(tqi_heap *heap, tqi_heap_node *node, uint64_t key)
{
    node->key = key;
    node->child = NULL;
    node->next = NULL;
    heap_set_top(heap, heap->top != NULL ? heap_join(heap->top, node) : node);
}

void tqi_heap_remove(tqi_heap *heap, tqi_heap_node *node)
{
    tqi_heap_node *below;

    if (node->prev == NULL) {
        return;
    }
    below = heap_join_all(node->child);
    if (heap->top == node) {
        heap_set_top(heap, below);
    } else {
        if (node->prev->child == node) {
            node->prev->child = node->next;
        } else {
            node->prev->next = node->next;
        }
        if (node->next != NULL) {
            node->next->prev = node->prev;
        }
        if (below != NULL) {
            heap_set_top(heap, heap_join(heap->top, below));
        }
    }
    node->child = NULL;
    node->next = NULL;
    node->prev = NULL;
}
