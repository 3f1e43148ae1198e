/*
 * history_json.c - the history as lines of JSON: history.md.
 */
#include "oracle/history_state.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct json_out {
    void (*put)(void *arg, const char *text, size_t size);
    void *arg;
    size_t used;
    char buffer[8192];
} json_out;

static void json_flush(json_out *out)
{
    out->put(out->arg, out->buffer, out->used);
    out->used = 0;
}

static void json_raw(json_out *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (out->used == sizeof(out->buffer)) {
            json_flush(out);
        }
        out->buffer[out->used++] = text[i];
    }
}

__attribute__((format(printf, 2, 3))) static void json_printf(json_out *out, const char *format, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    json_raw(out, text, n > 0 ? (size_t)n : 0);
}

static void json_string(json_out *out, const char *text)
{
    if (text == NULL) {
        json_raw(out, "null", 4);
        return;
    }
    json_raw(out, "\"", 1);
    for (; *text != '\0'; text++) {
        const uint8_t c = (uint8_t)*text;

        if (c == '"' || c == '\\') {
            json_printf(out, "\\%c", c);
        } else if (c < 0x20) {
            json_printf(out, "\\u%04x", c);
        } else {
            json_raw(out, text, 1);
        }
    }
    json_raw(out, "\"", 1);
}

static void json_member(json_out *out, const char *name)
{
    json_printf(out, ",\"%s\":", name);
}

static void json_text(json_out *out, const char *name, const char *text)
{
    json_member(out, name);
    json_string(out, text);
}

static void json_number(json_out *out, const char *name, uint64_t number)
{
    json_member(out, name);
    json_printf(out, "%" PRIu64, number);
}

static void json_flag(json_out *out, const char *name, bool flag)
{
    if (flag) {
        json_member(out, name);
        json_printf(out, "true");
    }
}

static void json_texts(json_out *out, const char *name, const char *const *texts, size_t n)
{
    json_member(out, name);
    json_raw(out, "[", 1);
    for (size_t i = 0; i < n; i++) {
        json_raw(out, ",", i > 0);
        json_string(out, texts[i]);
    }
    json_raw(out, "]", 1);
}

static void json_rows(json_out *out, const char *name, const history_row *rows, size_t n)
{
    json_member(out, name);
    json_raw(out, "[", 1);
    for (size_t i = 0; i < n; i++) {
        json_printf(out, "%s[%u,%u,", i > 0 ? "," : "", rows[i].index, rows[i].incarnation);
        json_string(out, rows[i].key);
        json_raw(out, "]", 1);
    }
    json_raw(out, "]", 1);
}

static void json_samples(json_out *out, const history_op *op)
{
    if (op->by == HISTORY_BY_ROWS) {
        json_rows(out, "rows", op->rows, op->n);
    } else if (op->by == HISTORY_BY_KEYS) {
        json_member(out, "keys");
        json_raw(out, "[", 1);
        for (uint32_t i = 0; i < op->n; i++) {
            json_raw(out, ",", i > 0);
            json_string(out, op->rows[i].key);
        }
        json_raw(out, "]", 1);
    } else if (op->by == HISTORY_BY_ALL) {
        json_flag(out, "all", true);
    }
    json_number(out, "n", op->n);
}

static void json_fields(json_out *out, const history_op *op)
{
    if (op->all_fields) {
        json_text(out, "fields", NULL);
    } else {
        json_texts(out, "fields", op->fields, op->n_fields);
    }
}

static void json_claim(json_out *out, const history_op *op)
{
    json_text(out, "task", op->task);
    json_text(out, "mode", op->force ? "force" : "fetch");
    json_flag(out, "poll", op->poll);
    json_text(out, "sampler", op->sampler);
    json_member(out, "config");
    json_printf(out, "%s", op->config != NULL ? op->config : "{}");
}

static void json_invoke(json_out *out, const history_op *op)
{
    json_printf(out, "{\"e\":\"invoke\",\"t\":%" PRIu64 ",\"op\":%" PRIu64 ",\"c\":%u,\"l\":%u,\"th\":%u", op->invoked,
                op->number, op->client, op->life, op->thread);
    json_text(out, "call", history_call_names[op->call]);
    json_text(out, "part", op->partition);
    json_member(out, "timeout");
    json_printf(out, "%g", op->timeout);
    json_samples(out, op);
    json_fields(out, op);
    if (op->call == HISTORY_CLAIM) {
        json_claim(out, op);
    } else if (op->call == HISTORY_RESET || op->call == HISTORY_CONSUMED) {
        json_text(out, "task", op->task);
    } else if (op->call == HISTORY_GET) {
        json_number(out, "from", op->from);
    } else if (op->call == HISTORY_END_CLEAR) {
        json_number(out, "id", op->from);
        json_member(out, "removed");
        json_printf(out, op->flag ? "true" : "false");
    } else if (op->call == HISTORY_SAVE || op->call == HISTORY_LOAD) {
        json_text(out, "path", op->path);
        json_flag(out, "state_only", op->flag);
    }
    if (op->groups != NULL) {
        json_texts(out, "groups", op->groups, op->n);
    }
    if (op->tags > 0) {
        json_number(out, "tags", op->tags);
    }
    json_flag(out, "must_exist", op->must_exist);
    json_flag(out, "lenient", op->lenient);
    json_raw(out, "}\n", 2);
}

static void json_ready(json_out *out, const history_op *op)
{
    json_member(out, "ready");
    for (uint32_t f = 0; f < op->n_result_fields; f++) {
        json_raw(out, f > 0 ? "," : "{", 1);
        json_string(out, op->result_fields[f]);
        json_raw(out, ":\"", 2);
        for (uint32_t i = 0; i < op->n_results; i++) {
            json_printf(out, "%u", op->ready[(size_t)f * op->n_results + i]);
        }
        json_raw(out, "\"", 1);
    }
    json_raw(out, op->n_result_fields > 0 ? "}" : "{}", op->n_result_fields > 0 ? 1 : 2);
}

static void json_values(json_out *out, const history_op *op)
{
    json_member(out, "values");
    for (uint32_t f = 0; f < op->n_result_fields; f++) {
        json_raw(out, f > 0 ? "," : "{", 1);
        json_string(out, op->result_fields[f]);
        json_raw(out, ":[", 2);
        for (uint32_t i = 0; i < op->n_results; i++) {
            json_printf(out, "%s%" PRIu64, i > 0 ? "," : "", op->values[(size_t)f * op->n_results + i].writer);
        }
        json_raw(out, "]", 1);
    }
    json_raw(out, op->n_result_fields > 0 ? "}" : "{}", op->n_result_fields > 0 ? 1 : 2);
}

static void json_progress(json_out *out, const history_op *op)
{
    json_member(out, "known");
    json_printf(out, op->known ? "true" : "false");
    json_member(out, "indexes");
    json_raw(out, "[", 1);
    for (uint32_t i = 0; i < op->n_results; i++) {
        json_printf(out, "%s%u", i > 0 ? "," : "", op->results[i].index);
    }
    json_raw(out, "]", 1);
    json_member(out, "flags");
    json_raw(out, "[", 1);
    for (size_t i = 0; i < (size_t)op->n_results * op->n_result_fields; i++) {
        json_printf(out, "%s%u", i > 0 ? "," : "", op->ready[i]);
    }
    json_raw(out, "]", 1);
}

static void json_results(json_out *out, const history_op *op)
{
    json_number(out, "epoch", op->epoch);
    if (op->call == HISTORY_CONSUMED || op->call == HISTORY_PRODUCED) {
        json_progress(out, op);
        return;
    }
    if (op->results != NULL && op->call != HISTORY_GET) {
        json_rows(out, "rows", op->results, op->n_results);
    }
    if (op->ready != NULL) {
        json_ready(out, op);
    }
    if (op->values != NULL) {
        json_values(out, op);
    }
    if (op->names != NULL) {
        json_texts(out, "names", op->names, op->n_names);
    }
    if (op->call == HISTORY_CLAIM) {
        json_number(out, "claim", op->count);
    } else {
        json_number(out, "count", op->count);
    }
}

static void json_ended(json_out *out, const history_op *op)
{
    static const char *const names[] = {"running", "ok", "fail", "unknown"};

    json_printf(out, "{\"e\":\"%s\",\"t\":%" PRIu64 ",\"op\":%" PRIu64, names[op->status], op->ended, op->number);
    json_flag(out, "cancelled", op->cancelled);
    if (op->seconds >= 0) {
        json_number(out, "took", op->local_ended - op->local_invoked);
        json_number(out, "stopped", op->stopped_ended - op->stopped_invoked);
        if (op->local_waited > op->local_invoked) {
            json_number(out, "waited", op->local_waited - op->local_invoked);
        }
        json_member(out, "limit");
        json_printf(out, "%g", op->seconds);
    }
    json_flag(out, "freed", op->freed);
    if (op->status == HISTORY_OK) {
        json_results(out, op);
    } else {
        json_text(out, "code", tq_error_name(op->code));
        json_text(out, "message", op->message);
    }
    json_raw(out, "}\n", 2);
}

static void json_event(json_out *out, const history_event *event)
{
    if (event->client != 0) {
        json_printf(out, "{\"e\":\"client\",\"t\":%" PRIu64 ",\"c\":%u,\"l\":%u", event->time, event->client,
                    event->life);
        json_text(out, "what", event->what);
        json_text(out, "kind", event->name);
        json_number(out, "epoch", event->epoch);
        json_flag(out, "drains", event->drains);
    } else if (strcmp(event->what, "calm") == 0) {
        json_printf(out, "{\"e\":\"calm\",\"t\":%" PRIu64, event->time);
    } else {
        json_printf(out, "{\"e\":\"note\",\"t\":%" PRIu64, event->time);
        json_text(out, "what", event->what);
        json_text(out, "name", event->name);
    }
    json_raw(out, "}\n", 2);
}

/* What has a sequence number, by it. */
typedef struct json_line {
    const history_op *op;
    const history_event *event;
} json_line;

void history_write(void (*put)(void *arg, const char *text, size_t size), void *arg, const char *found)
{
    json_out *out = sim_alloc(sizeof(*out));
    json_line *lines = sim_alloc((history_now.sequence + 1) * sizeof(*lines));

    *out = (json_out){.put = put, .arg = arg};
    for (uint64_t i = 0; i < history_now.n_ops; i++) {
        const history_op *op = history_now.ops[i];

        lines[op->sequence_invoked].op = op;
        if (op->sequence_ended != 0) {
            lines[op->sequence_ended].op = op;
        }
    }
    for (size_t i = 0; i < history_now.n_events; i++) {
        lines[history_now.events[i].sequence].event = &history_now.events[i];
    }
    json_printf(out, "{\"e\":\"start\",\"version\":1,\"seed\":%" PRIu64 ",\"grace\":%g}\n", history_now.seed,
                (double)history_now.grace_ms / 1e3);
    for (uint64_t i = 1; i <= history_now.sequence; i++) {
        if (lines[i].event != NULL) {
            json_event(out, lines[i].event);
        } else if (lines[i].op != NULL && lines[i].op->sequence_invoked == i) {
            json_invoke(out, lines[i].op);
        } else if (lines[i].op != NULL) {
            json_ended(out, lines[i].op);
        }
    }
    json_printf(out, "{\"e\":\"end\",\"t\":%" PRIu64, sim_time());
    if (found != NULL) {
        json_text(out, "found", found);
    }
    json_raw(out, "}\n", 2);
    json_flush(out);
    sim_free(lines);
    sim_free(out);
}
