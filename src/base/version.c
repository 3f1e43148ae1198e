/*
 * version.c - version of the library, as the build knows it.
 */
#include <tq/tq.h>

const char *tq_version(void)
{
    return TQI_VERSION;
}
