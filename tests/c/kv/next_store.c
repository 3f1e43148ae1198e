/*
 * next_store.c - a plug-in of a later version of kv.h, which this library does not know.
 */
#include <stddef.h>

#include <tq/kv.h>

TQ_API const tq_kv_client *tq_kv_client_plugin(uint32_t abi);

const tq_kv_client *tq_kv_client_plugin(uint32_t abi)
{
    static const tq_kv_client table = {.abi = TQ_KV_ABI + 1, .type = "NextStore"};

    (void)abi;
    return &table;
}
