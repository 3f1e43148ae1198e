/*
 * connector_parts.c - what the channels of a connector share: the descriptors of its sockets, its log, and its end with
 * the last of them.
 */
#include "net/calling.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/crypto.h>

static void parts_init_chunk(tqi_net_fd_chunk *chunk)
{
    for (size_t i = 0; i < sizeof(chunk->fds) / sizeof(*chunk->fds); i++) {
        atomic_init(&chunk->fds[i], -1);
    }
    atomic_init(&chunk->next, NULL);
}

void tqi_net_connector_init_fds(tqi_net_connector *connector)
{
    parts_init_chunk(&connector->fds);
}

/*
 * A slot is filled after its socket was opened and emptied before it is closed: at worst, a fork in between leaves the
 * child one socket too many; it never makes the child close a socket of somebody else.
 */
atomic_int *tqi_net_connector_note_fd(tqi_net_connector *connector, int fd)
{
    tqi_net_fd_chunk *chunk = &connector->fds;

    for (;;) {
        for (size_t i = 0; i < sizeof(chunk->fds) / sizeof(*chunk->fds); i++) {
            if (atomic_load(&chunk->fds[i]) == -1) {
                atomic_store(&chunk->fds[i], fd);
                return &chunk->fds[i];
            }
        }
        tqi_net_fd_chunk *next = atomic_load(&chunk->next);
        if (next == NULL) {
            next = malloc(sizeof(*next));
            if (next == NULL) {
                return NULL;
            }
            parts_init_chunk(next);
            atomic_store(&chunk->next, next);
        }
        chunk = next;
    }
}

void tqi_net_connector_forked(tqi_net_connector *connector)
{
    for (tqi_net_fd_chunk *chunk = &connector->fds; chunk != NULL; chunk = atomic_load(&chunk->next)) {
        for (size_t i = 0; i < sizeof(chunk->fds) / sizeof(*chunk->fds); i++) {
            int fd = atomic_exchange(&chunk->fds[i], -1);
            if (fd >= 0) {
                close(fd);
            }
        }
    }
}

void tqi_net_connector_log(const tqi_net_connector *connector, tq_log_level level, const char *format, ...)
{
    char text[2 * TQ_ERROR_MESSAGE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (connector->part != NULL) {
        tqi_log(level, connector->part, "%s: %s", connector->name, text);
    } else {
        tqi_log(level, "client", "%s", text);
    }
}

static void parts_on_freed(void *owner)
{
    tqi_net_connector *connector = owner;
    void (*done)(void *) = connector->done;
    void *arg = connector->done_arg;
    tqi_net_fd_chunk *chunk = atomic_load(&connector->fds.next);

    while (chunk != NULL) {
        tqi_net_fd_chunk *next = atomic_load(&chunk->next);
        free(chunk);
        chunk = next;
    }
    OPENSSL_cleanse(&connector->token, sizeof(connector->token));
    free(connector->name);
    free(connector);
    if (done != NULL) {
        done(arg);
    }
}

void tqi_net_connector_free(tqi_net_connector *connector)
{
    tqi_net_flusher_stop(&connector->flusher, parts_on_freed);
}

void tqi_net_connector_part_closed(tqi_net_connector *connector)
{
    if (--connector->open == 0 && connector->closing) {
        tqi_net_connector_free(connector);
    }
}
