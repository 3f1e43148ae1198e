/*
 * events.c - time and events: one heap, ordered by time and then by a drawn number.
 */
#include "scheduler.h"

typedef struct sched_event {
    uint64_t time, tie;
    void (*fn)(void *arg);
    void *arg;
    uint32_t place;      /* in the heap, from 1; 0: free */
    uint32_t generation; /* of the slot */
    uint32_t next;       /* of the free list */
} sched_event;

static struct {
    sched_event *slots;
    uint32_t *heap; /* slots, the earliest first; from 1 */
    uint32_t n, n_slots, room, free;
} events;

static bool event_before(uint32_t a, uint32_t b)
{
    const sched_event *x = &events.slots[a], *y = &events.slots[b];

    return x->time != y->time ? x->time < y->time : x->tie < y->tie;
}

static void event_put(uint32_t place, uint32_t slot)
{
    events.heap[place] = slot;
    events.slots[slot].place = place;
}

static void event_up(uint32_t place)
{
    uint32_t slot = events.heap[place];

    for (; place > 1 && event_before(slot, events.heap[place / 2]); place /= 2) {
        event_put(place, events.heap[place / 2]);
    }
    event_put(place, slot);
}

static void event_down(uint32_t place)
{
    uint32_t slot = events.heap[place];

    for (;;) {
        uint32_t child = place * 2;
        if (child > events.n) {
            break;
        }
        if (child < events.n && event_before(events.heap[child + 1], events.heap[child])) {
            child++;
        }
        if (!event_before(events.heap[child], slot)) {
            break;
        }
        event_put(place, events.heap[child]);
        place = child;
    }
    event_put(place, slot);
}

static void event_remove(uint32_t slot)
{
    sched_event *event = &events.slots[slot];
    uint32_t place = event->place, last = events.heap[events.n--];

    if (last != slot) {
        event_put(place, last);
        event_down(place);
        event_up(events.slots[last].place);
    }
    event->place = 0;
    event->generation++;
    event->next = events.free;
    events.free = slot;
}

static uint32_t event_slot(void)
{
    if (events.free) {
        uint32_t slot = events.free;
        events.free = events.slots[slot].next;
        return slot;
    }
    if (events.n_slots + 1 >= events.room) {
        events.room = events.room ? events.room * 2 : 1024;
        events.slots = sim_realloc(events.slots, events.room * sizeof(*events.slots));
        events.heap = sim_realloc(events.heap, (events.room + 1) * sizeof(*events.heap));
    }
    uint32_t slot = ++events.n_slots;
    events.slots[slot] = (sched_event){.generation = 1};
    return slot;
}

uint64_t sim_time(void)
{
    return sim_scheduler.now;
}

uint64_t sim_at(uint64_t time, void (*fn)(void *arg), void *arg)
{
    uint32_t slot = event_slot();
    sched_event *event = &events.slots[slot];

    event->time = time > sim_scheduler.now ? time : sim_scheduler.now;
    event->tie = sim_next(&sim_scheduler.chance);
    event->fn = fn;
    event->arg = arg;
    events.heap[++events.n] = slot;
    event->place = events.n;
    event_up(events.n);
    return ((uint64_t)event->generation << 32) | slot;
}

void sim_at_drop(uint64_t id)
{
    uint32_t slot = (uint32_t)id;

    if (slot && slot <= events.n_slots && events.slots[slot].generation == id >> 32 && events.slots[slot].place) {
        event_remove(slot);
    }
}

void sched_events_clear(void)
{
    while (events.n > 0) {
        event_remove(events.heap[1]);
    }
    /* Slots are handed out in the same order in every run of a seed. */
    events.n_slots = 0;
    events.free = 0;
}

bool sched_step(uint64_t until)
{
    if (events.n == 0 || events.slots[events.heap[1]].time > until) {
        sim_scheduler.now = sim_scheduler.now > until || until == SIM_NEVER ? sim_scheduler.now : until;
        return false;
    }
    uint32_t slot = events.heap[1];
    sched_event event = events.slots[slot];
    event_remove(slot);
    sim_scheduler.now = event.time;
    sim_scheduler.events++;
    event.fn(event.arg);
    return true;
}
