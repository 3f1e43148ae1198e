/*
 * heap.h - items ordered by a number, mostly deadlines: the smallest is on top. A pairing heap. The nodes are embedded
 * in the items, so adding needs no memory and cannot fail; it takes constant time in any order, removing O(log n) on
 * average. All zero is an empty heap, and a node in no heap.
 */
#ifndef TQI_BASE_HEAP_H
#define TQI_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tqi_heap_node {
    uint64_t key;
    struct tqi_heap_node *child; /* the first one */
    struct tqi_heap_node *next;  /* of the same parent */
    struct tqi_heap_node *prev;  /* of the same parent, else the parent; the top's is itself; NULL: in no heap */
} tqi_heap_node;

typedef struct tqi_heap {
    tqi_heap_node *top; /* NULL: empty */
} tqi_heap;

/* The struct that has the node as `member`; NULL for NULL. */
#define TQI_HEAP_ENTRY(node, type, member) ((type *)tqi_heap_entry((node), offsetof(type, member)))

/* The node must be in no heap. */
void tqi_heap_add(tqi_heap *heap, tqi_heap_node *node, uint64_t key);
/* Removes the node; does nothing if it is in no heap. */
void tqi_heap_remove(tqi_heap *heap, tqi_heap_node *node);

static inline bool tqi_heap_has(const tqi_heap_node *node)
{
    return node->prev != NULL;
}

static inline void *tqi_heap_entry(tqi_heap_node *node, size_t offset)
{
    return node != NULL ? (char *)node - offset : NULL;
}

#endif
