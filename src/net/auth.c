/*
 * auth.c - the token, and the proofs that both sides of a connection know it.
 */
#include "net/internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/error.h"
#include "base/log.h"

/* A secret must not be guessable in a lifetime: 16 random bytes, or the same as 32 hexadecimal digits. */
#define AUTH_TOKEN_LEAST 16

void tqi_net_token_warn(const char *what, const tqi_net_token *token)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;

    if (token->size < AUTH_TOKEN_LEAST && !atomic_flag_test_and_set(&said)) {
        tqi_log(TQI_WARN, "auth",
                "%s has %zu bytes; fewer than %d can be guessed, and whoever knows the token can read "
                "and clear everything: make one with `openssl rand -hex 32`",
                what, token->size, AUTH_TOKEN_LEAST);
    }
}

/* A token file that others can read is no secret from them. */
static void auth_warn_mode(const char *path, int fd)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    struct stat status;

    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & (S_IRGRP | S_IROTH)) &&
        !atomic_flag_test_and_set(&said)) {
        tqi_log(TQI_WARN, "auth",
                "token file '%s' can be read by other users (mode %04o): chmod 600 it, and make a new "
                "token if others may have read it",
                path, (unsigned)status.st_mode & 07777);
    }
}

int tqi_net_token_load(const char *path, tqi_net_token *token, tq_error *err)
{
    char reason[128];
    char what[330];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return tqi_error_set(err, TQ_EAUTH,
                             "token file '%s' cannot be opened: %s; a system's is the file token in its "
                             "runtime directory",
                             path, strerror_r(errno, reason, sizeof(reason)));
    }
    auth_warn_mode(path, fd);
    /* Room for white space after the longest token, which an editor may have added. */
    uint8_t bytes[TQI_NET_TOKEN_MAX + 64];
    size_t size = 0;
    while (size < sizeof(bytes)) {
        ssize_t n = read(fd, bytes + size, sizeof(bytes) - size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            int errnum = errno;
            close(fd);
            return tqi_error_set(err, TQ_EAUTH, "token file '%s' cannot be read: %s", path,
                                 strerror_r(errnum, reason, sizeof(reason)));
        }
        if (n == 0) {
            break;
        }
        size += (size_t)n;
    }
    close(fd);
    while (size > 0 && isspace(bytes[size - 1])) {
        size--;
    }
    if (size == 0 || size > TQI_NET_TOKEN_MAX) {
        OPENSSL_cleanse(bytes, sizeof(bytes));
        return tqi_error_set(err, TQ_EAUTH, "token file '%s' %s", path,
                             size == 0 ? "is empty" : "is longer than 256 bytes");
    }
    memset(token, 0, sizeof(*token));
    memcpy(token->bytes, bytes, size);
    token->size = size;
    (void)snprintf(token->file, sizeof(token->file), "%s", path);
    OPENSSL_cleanse(bytes, sizeof(bytes));
    snprintf(what, sizeof(what), "the token in '%.300s'", path);
    tqi_net_token_warn(what, token);
    return TQ_OK;
}

int tqi_net_auth_proof(const tqi_net_token *token, const char *role, const uint8_t first[TQI_NET_NONCE],
                       const uint8_t second[TQI_NET_NONCE], const uint8_t session[TQI_NET_SESSION_ID],
                       uint8_t proof[TQI_NET_PROOF])
{
    uint8_t text[16 + 2 * TQI_NET_NONCE + TQI_NET_SESSION_ID];
    size_t size = strlen(role);

    memcpy(text, role, size);
    memcpy(text + size, first, TQI_NET_NONCE);
    size += TQI_NET_NONCE;
    memcpy(text + size, second, TQI_NET_NONCE);
    size += TQI_NET_NONCE;
    memcpy(text + size, session, TQI_NET_SESSION_ID);
    size += TQI_NET_SESSION_ID;
    unsigned int length = 0;
    if (HMAC(EVP_sha256(), token->bytes, (int)token->size, text, size, proof, &length) == NULL ||
        length != TQI_NET_PROOF) {
        return TQ_EINTERNAL;
    }
    return TQ_OK;
}

bool tqi_net_auth_equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    return CRYPTO_memcmp(a, b, size) == 0;
}
