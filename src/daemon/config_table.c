/*
 * config_table.c - every key of the daemon's configuration.
 */
#include "daemon/config.h"

const tqd_key tqd_keys[] = {
    {"controller.listen", TQD_STRINGS, NULL, 0, 0,
     "endpoints of the controller: unix:/path, tcp:host:port"},
    {"controller.sampler", TQD_STRING, "SequentialSampler", 0, 0,
     "sampler of claims that name none"},
    {"controller.polling_mode", TQD_BOOL, "false", 0, 0,
     "answer claims at once instead of letting them wait"},
    {"controller.session_grace", TQD_SECONDS, "10s", 0, 86400,
     "life of a session without a connection"},
    {"controller.owner_timeout", TQD_SECONDS, "30s", 0, 86400,
     "after this a storage unit that is gone has lost its data"},
    {"controller.events", TQD_INT, "65536", 1, 1 << 24, "events kept for tq events and timelines"},
    {"controller.first_counters", TQD_INT, "0", 0, 1 << 30,
     "for tests: indexes and ids start this far below their wrap"},
    {"controller.sampling_config", TQD_FREE, NULL, 0, 0,
     "added to the sampling config of every claim, by clients"},
    {"backend.storage_backend", TQD_STRING, "SimpleStorage", 0, 0,
     "storage manager that clients use"},
    {"backend.SimpleStorage.total_storage_size", TQD_BYTES, "25%", 1 << 20, 0,
     "memory of all storage units together"},
    {"backend.SimpleStorage.num_data_storage_units", TQD_INT, "2", 1, 256,
     "storage units of this daemon"},
    {"backend.*", TQD_FREE, NULL, 0, 0,
     "section of another storage backend, passed on to its manager"},
    {"storage.listen", TQD_STRINGS, NULL, 0, 0,
     "endpoints of a storage unit; of several units, port 0 or a %d for the number"},
    {"storage.advertise_host", TQD_STRING, NULL, 0, 0,
     "host by which others reach the units' tcp endpoints"},
    {"storage.name", TQD_STRING, NULL, 0, 0,
     "units are called NAME-0, NAME-1, ...; unique in the system"},
    {"log.level", TQD_STRING, "info", 0, 0, "error, warn, info or debug"},
    {"client.*", TQD_FREE, NULL, 0, 0, "passed on to clients"},
    {"serialization.*", TQD_FREE, NULL, 0, 0, "passed on to clients"},
    {"metrics.enabled", TQD_BOOL, "false", 0, 0,
     "serve GET /metrics in the text format of Prometheus"},
    {"metrics.port", TQD_INT, "0", 0, 65535, "port of the metrics; 0: any free one"},
    {"metrics.listen", TQD_STRING, NULL, 0, 0,
     "address of the metrics; else that of controller.listen, else 127.0.0.1"},
    {"metrics.max_partitions", TQD_INT, "256", 0, 100000,
     "so many of the newest partitions have series of their own"},
    {"ray.*", TQD_FREE, NULL, 0, 0, "passed on to clients"},
};

const size_t tqd_n_keys = sizeof(tqd_keys) / sizeof(tqd_keys[0]);
