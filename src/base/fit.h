/*
 * fit.h - waiters in order of arrival, each with the number it needs. The oldest waiter that a given number satisfies
 * is found in O(log n), however many need more.
 *
 * A tree over the slots of the array; each node has the smallest number needed below it.
 */
#ifndef TQI_BASE_FIT_H
#define TQI_BASE_FIT_H

#include <stddef.h>
#include <stdint.h>

/* Embedded in what waits. */
typedef struct tqi_fit_node {
    uint32_t need;
    uint32_t place; /* in the row, from 1; 0: in none */
} tqi_fit_node;

/* Zero-initialised is empty. */
typedef struct tqi_fit {
    tqi_fit_node **nodes; /* by place; NULL: left */
    uint32_t *least;      /* node i has 2i and 2i+1 below it; the leaves begin at capacity */
    uint32_t capacity;    /* a power of two */
    uint32_t used;        /* places */
    uint32_t count;
} tqi_fit;

void tqi_fit_fini(tqi_fit *fit);
/* Adds it as the youngest; need is below UINT32_MAX. TQ_OK or TQ_ENOMEM. */
int tqi_fit_add(tqi_fit *fit, tqi_fit_node *node, uint32_t need);
/* Removes it; does nothing if it is in none. */
void tqi_fit_remove(tqi_fit *fit, tqi_fit_node *node);
/* The oldest one that needs at most `room`, or NULL. */
tqi_fit_node *tqi_fit_first(const tqi_fit *fit, uint32_t room);

#endif
