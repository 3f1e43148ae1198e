/*
 * query.c - requests to the client that may end after the manager has closed: close detaches their records.
 */
#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "manager/simple/simple.h"

tqi_simple_query *tqi_simple_query_make(tqi_simple *simple)
{
    tqi_simple_query *query = calloc(1, sizeof(*query));

    if (query != NULL) {
        query->simple = simple;
        query->asked_at = tqi_now();
        DL_APPEND(simple->queries, query);
    }
    return query;
}

bool tqi_simple_query_end(tqi_simple_query *query)
{
    if (query->simple == NULL) {
        return false;
    }
    DL_DELETE(query->simple->queries, query);
    return true;
}

static void query_untold(void *arg, const tq_error *err)
{
    (void)arg;
    (void)err;
}

bool tqi_simple_query_leave(tqi_simple *simple, const void *arg)
{
    tqi_simple_query *query;

    DL_FOREACH (simple->queries, query) {
        if (query->listed != NULL && query->arg == arg) {
            query->listed = query_untold;
            query->arg = NULL;
            return true;
        }
    }
    return false;
}
