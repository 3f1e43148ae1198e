/*
 * old_store.c - a plug-in built for an interface version that no longer exists: it must be refused, not called.
 */
#include <stddef.h>

#include <tq/manager.h>

TQ_API const tq_storage_manager *tq_storage_manager_plugin(uint32_t abi);

const tq_storage_manager *tq_storage_manager_plugin(uint32_t abi)
{
    (void)abi;
    return NULL;
}
