/*
 * exporter.c - GET /metrics (libmicrohttpd); see exporter.h.
 *
 * Threads: the HTTP thread raises `asked`, wakes the loop by `async` and waits for `answered` to reach it; the loop
 * makes one set for everything requested until then. `mutex` guards these two, `set` and `closing`.
 *
 * libmicrohttpd closes an idle connection, but would keep one for ever that sends a byte now and then. So connections
 * are listed here, in the order in which their requests began, and shut down when a request takes too long or when
 * there is one connection too many. `mutex` guards the list, too: libmicrohttpd closes a descriptor only after it has
 * reported that the connection ends.
 */
#include "daemon/exporter.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/pointer.h"
#include "base/process.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

/* Connections at a time. With one more, the one whose request began first is closed: an answer takes milliseconds, so
 * it is one that never asks. libmicrohttpd is allowed a few more, because it stops accepting at its limit. */
#define EXPORTER_CONNECTIONS 64u
#define EXPORTER_MORE        16u
/* Limit from the start of a connection, or the end of its last request, to the end of the next request; and the
 * interval at which it is checked. */
#define EXPORTER_REQUEST_NS UINT64_C(20000000000)
#define EXPORTER_LOOK_MS    2000u
/* An idle connection is closed after this. */
#define EXPORTER_IDLE_SECONDS 10u
#define EXPORTER_MEMORY       (32u << 10)
/* How long a scrape waits for the controller's loop. */
#define EXPORTER_WAIT_NS UINT64_C(5000000000)

typedef struct exporter_peer {
    struct exporter_peer *next, *prev; /* utlist: those that began first are first */
    int fd;
    uint64_t since;
} exporter_peer;

struct tqd_exporter {
    tqi_controller *controller;
    uint32_t max_partitions;
    int fd; /* listening; libmicrohttpd's once it has started */
    char endpoint[300];
    struct MHD_Daemon *http;
    uv_async_t async;
    uv_timer_t look;
    unsigned open_handles;
    exporter_peer *peers;
    unsigned n_peers;
    uv_mutex_t mutex;
    uv_cond_t cond;
    uint64_t asked;
    uint64_t answered;
    tqi_metric_set *set; /* answer to the last request, until it is taken */
    bool closing;
};

/* --- on the loop ---------------------------------------------------------- */

static void exporter_on_asked(uv_async_t *async)
{
    tqd_exporter *exporter = async->data;
    tqi_metric_set *set = NULL;
    tq_error err = {0};
    uint64_t asked;

    uv_mutex_lock(&exporter->mutex);
    asked = exporter->asked;
    uv_mutex_unlock(&exporter->mutex);
    if (tqi_controller_metrics(exporter->controller, exporter->max_partitions, &set, &err)) {
        tqi_log(TQI_WARN, "tqd", "no metrics: %s", err.message);
    }
    uv_mutex_lock(&exporter->mutex);
    tqi_metric_set_free(exporter->set);
    exporter->set = set;
    exporter->answered = asked;
    uv_cond_broadcast(&exporter->cond);
    uv_mutex_unlock(&exporter->mutex);
}

/* Ends the connection whose request began first; libmicrohttpd notices, and frees it. With the mutex held. */
static void exporter_end_first(tqd_exporter *exporter)
{
    exporter_peer *first = exporter->peers;

    shutdown(first->fd, SHUT_RDWR);
    /* While it is closing, it is no longer the first. */
    DL_DELETE(exporter->peers, first);
    first->since = UINT64_MAX;
    DL_APPEND(exporter->peers, first);
    exporter->n_peers--;
}

static void exporter_on_look(uv_timer_t *timer)
{
    tqd_exporter *exporter = timer->data;
    uint64_t now = tqi_now();

    uv_mutex_lock(&exporter->mutex);
    while (exporter->n_peers > 0 && exporter->peers->since + EXPORTER_REQUEST_NS <= now) {
        exporter_end_first(exporter);
    }
    uv_mutex_unlock(&exporter->mutex);
}

static void exporter_free(uv_handle_t *handle)
{
    tqd_exporter *exporter = handle->data;

    if (--exporter->open_handles > 0) {
        return;
    }
    tqi_metric_set_free(exporter->set);
    uv_cond_destroy(&exporter->cond);
    uv_mutex_destroy(&exporter->mutex);
    free(exporter);
}

/* --- on the HTTP thread --------------------------------------------------- */

/* A current set; NULL if the loop did not answer, or the daemon is shutting down. */
static tqi_metric_set *exporter_ask(tqd_exporter *exporter)
{
    tqi_metric_set *set = NULL;
    int timed_out = 0;

    uv_mutex_lock(&exporter->mutex);
    uint64_t mine = ++exporter->asked;
    uv_async_send(&exporter->async);
    while (exporter->answered < mine && !exporter->closing && !timed_out) {
        timed_out = uv_cond_timedwait(&exporter->cond, &exporter->mutex, EXPORTER_WAIT_NS);
    }
    if (exporter->answered >= mine) {
        set = exporter->set;
        exporter->set = NULL;
    }
    uv_mutex_unlock(&exporter->mutex);
    return set;
}

static enum MHD_Result exporter_respond(struct MHD_Connection *connection, unsigned status,
                                        struct MHD_Response *response, const char *type)
{
    if (response == NULL) {
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    }
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* A short text that needs no memory of its own. */
static enum MHD_Result exporter_text(struct MHD_Connection *connection, unsigned status, const char *type,
                                     const char *text)
{
    return exporter_respond(connection, status,
                            MHD_create_response_from_buffer(strlen(text), tqi_unconst(text), MHD_RESPMEM_PERSISTENT),
                            type);
}

static enum MHD_Result exporter_metrics(tqd_exporter *exporter, struct MHD_Connection *connection)
{
    tqi_buf text = {0};
    tqi_metric_set *set = exporter_ask(exporter);
    int rc = set != NULL ? TQ_OK : TQ_ETIMEDOUT;

    if (set != NULL) {
        tqi_metric_add(set, TQI_M_MEMORY_RSS, NULL, NULL, (double)tqi_process_rss());
        rc = tqi_metric_render(set, &text);
        tqi_metric_set_free(set);
    }
    if (rc != TQ_OK) {
        tqi_buf_fini(&text);
        return exporter_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
                             "the controller has no metrics at the moment\n");
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(text.size, text.data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        tqi_buf_fini(&text);
    }
    return exporter_respond(connection, MHD_HTTP_OK, response, "text/plain; version=0.0.4; charset=utf-8");
}

/* With the mutex held. Connections being closed are last, and not counted. */
static void exporter_add(tqd_exporter *exporter, exporter_peer *peer)
{
    exporter_peer *at = exporter->peers;

    while (at != NULL && at->since <= peer->since) {
        at = at->next;
    }
    DL_PREPEND_ELEM(exporter->peers, at, peer);
    exporter->n_peers++;
}

static void exporter_take(tqd_exporter *exporter, exporter_peer *peer)
{
    DL_DELETE(exporter->peers, peer);
    exporter->n_peers -= peer->since != UINT64_MAX;
}

static enum MHD_Result exporter_handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                       const char *version, const char *upload, size_t *upload_size, void **state)
{
    static char seen;

    (void)version;
    (void)upload;
    (void)upload_size;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        /* Answered before its body, which is not wanted. */
        return exporter_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD are served\n");
    }
    if (*state == NULL) {
        *state = &seen; /* the headers have arrived; it is called again for the complete request */
        return MHD_YES;
    }
    if (strcmp(url, "/metrics") == 0) {
        return exporter_metrics(cls, connection);
    }
    if (strcmp(url, "/") == 0) {
        return exporter_text(connection, MHD_HTTP_OK, "text/html; charset=utf-8",
                             "<html><head><title>transfer queue</title></head><body>"
                             "<a href=\"/metrics\">metrics</a></body></html>\n");
    }
    return exporter_text(connection, MHD_HTTP_NOT_FOUND, "text/plain", "not found; metrics are at /metrics\n");
}

/* A connection comes or goes. */
static void exporter_on_connection(void *cls, struct MHD_Connection *connection, void **context,
                                   enum MHD_ConnectionNotificationCode code)
{
    tqd_exporter *exporter = cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    exporter_peer *peer = *context;

    uv_mutex_lock(&exporter->mutex);
    if (code == MHD_CONNECTION_NOTIFY_STARTED && info != NULL && (peer = calloc(1, sizeof(*peer)))) {
        peer->fd = info->connect_fd;
        peer->since = tqi_now();
        *context = peer;
        while (exporter->n_peers >= EXPORTER_CONNECTIONS) {
            exporter_end_first(exporter);
        }
        exporter_add(exporter, peer);
    } else if (code == MHD_CONNECTION_NOTIFY_CLOSED && peer != NULL) {
        exporter_take(exporter, peer);
        free(peer);
        *context = NULL;
    }
    uv_mutex_unlock(&exporter->mutex);
}

/* A request has been answered: the connection may stay for the next one. */
static void exporter_on_answered(void *cls, struct MHD_Connection *connection, void **state,
                                 enum MHD_RequestTerminationCode code)
{
    tqd_exporter *exporter = cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    exporter_peer *peer = info != NULL ? info->socket_context : NULL;

    (void)state;
    (void)code;
    uv_mutex_lock(&exporter->mutex);
    if (peer != NULL && peer->since != UINT64_MAX) {
        exporter_take(exporter, peer);
        peer->since = tqi_now();
        exporter_add(exporter, peer);
    }
    uv_mutex_unlock(&exporter->mutex);
}

/* What libmicrohttpd says about single connections. */
static void exporter_log(void *cls, const char *format, va_list args)
{
    char text[512];

    (void)cls;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = 0;
    tqi_log(TQI_DEBUG, "tqd", "metrics: %s", text);
}

/* --- start and end -------------------------------------------------------- */

int tqd_exporter_open(uv_loop_t *loop, tqd_config *config, const tqd_net *net, tqd_exporter **out, tq_error *err)
{
    char endpoint[300];
    char bound[300];
    char reached[300] = "";

    *out = NULL;
    if (!tqd_config_bool(config, "metrics.enabled")) {
        return TQ_OK;
    }
    tqd_exporter *exporter = calloc(1, sizeof(*exporter));
    if (exporter == NULL) {
        return tqi_error_nomem(err, "metrics");
    }
    exporter->max_partitions = (uint32_t)tqd_config_count(config, "metrics.max_partitions");
    int rc = tqd_net_metrics(net, endpoint, sizeof(endpoint), err);
    tq_error why = {0};
    if (rc == TQ_OK && tqi_net_listen(endpoint, &exporter->fd, bound, sizeof(bound), &why)) {
        rc = tqi_error_set(err, why.code, "metrics.port: %s", why.message);
    }
    if (rc) {
        free(exporter);
        return rc;
    }
    rc = tqi_net_endpoint_advertise(bound, net->advertise, &net->reach, reached, sizeof(reached), err);
    snprintf(exporter->endpoint, sizeof(exporter->endpoint), "%s", reached + (rc ? 0 : strlen("tcp:")));
    rc = rc ? rc : tqd_config_note(config, "metrics.endpoint", exporter->endpoint, err);
    if (rc || uv_mutex_init(&exporter->mutex)) {
        close(exporter->fd);
        free(exporter);
        return rc ? rc : tqi_error_nomem(err, "metrics");
    }
    uv_cond_init(&exporter->cond);
    uv_async_init(loop, &exporter->async, exporter_on_asked);
    exporter->async.data = exporter;
    uv_unref((uv_handle_t *)&exporter->async);
    uv_timer_init(loop, &exporter->look);
    exporter->look.data = exporter;
    uv_timer_start(&exporter->look, exporter_on_look, EXPORTER_LOOK_MS, EXPORTER_LOOK_MS);
    uv_unref((uv_handle_t *)&exporter->look);
    exporter->open_handles = 2;
    *out = exporter;
    return TQ_OK;
}

int tqd_exporter_start(tqd_exporter *exporter, tqi_controller *controller, tq_error *err)
{
    exporter->controller = controller;
    exporter->http = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        exporter_handle, exporter, MHD_OPTION_EXTERNAL_LOGGER, exporter_log, NULL, MHD_OPTION_LISTEN_SOCKET,
        exporter->fd, MHD_OPTION_CONNECTION_LIMIT, EXPORTER_CONNECTIONS + EXPORTER_MORE, MHD_OPTION_CONNECTION_TIMEOUT,
        EXPORTER_IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)EXPORTER_MEMORY, MHD_OPTION_NOTIFY_CONNECTION,
        exporter_on_connection, exporter, MHD_OPTION_NOTIFY_COMPLETED, exporter_on_answered, exporter, MHD_OPTION_END);
    if (exporter->http == NULL) {
        return tqi_error_set(err, TQ_EIO, "cannot serve metrics at %s", exporter->endpoint);
    }
    exporter->fd = -1;
    tqi_log(TQI_INFO, "tqd", "metrics at http://%s/metrics", exporter->endpoint);
    return TQ_OK;
}

void tqd_exporter_stop(tqd_exporter *exporter)
{
    if (exporter == NULL) {
        return;
    }
    uv_mutex_lock(&exporter->mutex);
    exporter->closing = true;
    uv_cond_broadcast(&exporter->cond);
    uv_mutex_unlock(&exporter->mutex);
    if (exporter->http != NULL) {
        MHD_stop_daemon(exporter->http);
    }
    if (exporter->fd >= 0) {
        close(exporter->fd);
    }
    uv_close((uv_handle_t *)&exporter->async, exporter_free);
    uv_close((uv_handle_t *)&exporter->look, exporter_free);
}
