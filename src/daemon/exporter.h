/*
 * exporter.h - the controller's metrics over HTTP: GET /metrics in the text format of Prometheus.
 *
 * A thread of libmicrohttpd's serves the connections. It never accesses the controller: for each scrape it asks the
 * controller's loop for a set of metrics and renders that, so a slow or broken HTTP client costs the controller
 * nothing.
 */
#ifndef TQI_DAEMON_EXPORTER_H
#define TQI_DAEMON_EXPORTER_H

#include "controller/controller.h"
#include "daemon/endpoints.h"

typedef struct tqd_exporter tqd_exporter;

/* Binds as metrics.{listen,port} say, else where the controller is, so that the metrics can be reached from wherever
 * the controller can, and records the address for others, "host:port", in the configuration as metrics.endpoint. *out
 * is NULL if metrics are off. */
int tqd_exporter_open(uv_loop_t *loop, tqd_config *config, const tqd_net *net, tqd_exporter **out, tq_error *err);
/* Serves, from now on. */
int tqd_exporter_start(tqd_exporter *exporter, tqi_controller *controller, tq_error *err);
/* Stops it; returns when its thread has exited. Must be called before the controller is closed; NULL is allowed. */
void tqd_exporter_stop(tqd_exporter *exporter);

#endif
