/*
 * methods.c - the table of requests.
 */
#include "wire/methods.h"

#define KEEP  1
#define AGAIN 0
#define METHOD_ROW(number, NAME, name, Message, reply, Reply, mode) \
    [number] = {number, #NAME, &tq__##name##__descriptor, &tq__##reply##__descriptor, mode},

/* By kind; places without a request have no name. */
static const tqi_method methods[] = {TQI_METHODS_CONTROLLER(METHOD_ROW) TQI_METHODS_UNIT(METHOD_ROW)};

const tqi_method *tqi_method_find(uint16_t kind)
{
    if (kind >= sizeof(methods) / sizeof(*methods) || methods[kind].name == NULL) {
        return NULL;
    }
    return &methods[kind];
}
