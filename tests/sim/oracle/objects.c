/*
 * objects.c - see objects.h.
 */
#include "oracle/objects.h"

#include "controller/controller.h"
#include "oracle/ledger.h"
#include "unit/unit.h"

static objects_item *items;
static uint32_t n_items, items_capacity;

void objects_start(void)
{
    n_items = 0;
}

void objects_end(void)
{
    sim_free(items);
    items = NULL;
    n_items = items_capacity = 0;
}

static void objects_add(objects_kind kind, void *object)
{
    LEDGER_GROW(items, items_capacity, n_items + 1);
    items[n_items++] = (objects_item){.kind = kind, .pid = sim_self != NULL ? sim_self->pid : 0, .object = object};
}

static void objects_drop(const void *object)
{
    uint64_t pid = sim_self != NULL ? sim_self->pid : 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (items[i].object == object && items[i].pid == pid) {
            items[i] = items[--n_items];
            return;
        }
    }
}

objects_item *objects_next(const objects_item *after)
{
    uint32_t i = after != NULL ? (uint32_t)(after - items) + 1 : 0;

    while (i < n_items && items[i].pid != 0 && sim_process_of(items[i].pid) == NULL) {
        i++;
    }
    return i < n_items ? &items[i] : NULL;
}

WITNESS_WRAP(int, tqi_controller_alloc, uv_loop_t *loop, const tqi_controller_options *options, tqi_controller **out,
             tq_error *err)
{
    int rc = __real_tqi_controller_alloc(loop, options, out, err);

    if (rc == TQ_OK) {
        objects_add(OBJECTS_CONTROLLER, *out);
    }
    return rc;
}

WITNESS_WRAP(void, tqi_controller_close, tqi_controller *controller, void (*done)(void *arg), void *arg)
{
    objects_drop(controller);
    __real_tqi_controller_close(controller, done, arg);
}

WITNESS_WRAP(int, tqi_unit_alloc, uv_loop_t *loop, const tqi_unit_options *options, tqi_unit **out, tq_error *err)
{
    int rc = __real_tqi_unit_alloc(loop, options, out, err);

    if (rc == TQ_OK) {
        objects_add(OBJECTS_UNIT, *out);
    }
    return rc;
}

WITNESS_WRAP(void, tqi_unit_close, tqi_unit *unit, void (*done)(void *arg), void *arg)
{
    objects_drop(unit);
    __real_tqi_unit_close(unit, done, arg);
}
