/*
 * state.c - what every object of the module reaches: the module's state, and the count of live objects.
 */
#include "core.h"

static long state_live[CORE_N_KINDS]; /* with the GIL held */

void core_count(enum core_kind kind, int change)
{
    state_live[kind] += change;
}

long core_counted(enum core_kind kind)
{
    return state_live[kind];
}

core_state *core_state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}
