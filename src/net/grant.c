/*
 * grant.c - proof that block ids were granted to a session: made by the controller, checked by the storage unit.
 */
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "net/internal.h"

#include <tq/types.h>

static uint8_t *grant_put(uint8_t *at, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        *at++ = (uint8_t)(value >> (8 * i));
    }
    return at;
}

int tqi_net_grant_make(const uint8_t key[TQI_NET_GRANT_KEY], const char *owner, uint64_t incarnation,
                       const uint8_t session[TQI_NET_SESSION_ID], uint64_t first, uint32_t count,
                       uint8_t proof[TQI_NET_GRANT])
{
    uint8_t text[2 + TQ_NAME_MAX + 8 + TQI_NET_SESSION_ID + 8 + 4], whole[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    size_t size = strlen(owner);

    if (size > TQ_NAME_MAX) {
        return TQ_ENAME;
    }
    uint8_t *at = grant_put(text, size, 2);
    memcpy(at, owner, size);
    at = grant_put(at + size, incarnation, 8);
    memcpy(at, session, TQI_NET_SESSION_ID);
    at = grant_put(at + TQI_NET_SESSION_ID, first, 8);
    at = grant_put(at, count, 4);
    if (HMAC(EVP_sha256(), key, TQI_NET_GRANT_KEY, text, (size_t)(at - text), whole, &length) == NULL ||
        length < TQI_NET_GRANT) {
        return TQ_EINTERNAL;
    }
    memcpy(proof, whole, TQI_NET_GRANT);
    OPENSSL_cleanse(whole, sizeof(whole));
    return TQ_OK;
}

bool tqi_net_grant_holds(const uint8_t key[TQI_NET_GRANT_KEY], const char *owner, uint64_t incarnation,
                         const uint8_t session[TQI_NET_SESSION_ID], uint64_t first, uint32_t count,
                         const uint8_t *proof, size_t size)
{
    uint8_t right[TQI_NET_GRANT];

    return size == TQI_NET_GRANT && tqi_net_grant_make(key, owner, incarnation, session, first, count, right) == TQ_OK &&
           tqi_net_auth_equal(right, proof, TQI_NET_GRANT);
}

bool tqi_net_grant_key_equal(const uint8_t a[TQI_NET_GRANT_KEY], const uint8_t b[TQI_NET_GRANT_KEY])
{
    return tqi_net_auth_equal(a, b, TQI_NET_GRANT_KEY);
}
