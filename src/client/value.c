/*
 * value.c - encoded values (tq/value.h): the part of MessagePack that C programs need.
 */
#include <tq/value.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"

struct tq_values {
    uint8_t *bytes;
    size_t size, room;
    uint64_t *ends; /* where each value ends; columns' sizes are computed from these */
    uint64_t *sizes;
    uint32_t *tag_sizes;
    size_t n, n_room;
    uint64_t pending; /* items still missing from the value in progress; 0: none is in progress */
    tq_slice slice;
};

tq_values *tq_values_alloc(void)
{
    return calloc(1, sizeof(tq_values));
}

void tq_values_free(tq_values *values)
{
    if (values != NULL) {
        free(values->bytes);
        free(values->ends);
        free(values->sizes);
        free(values->tag_sizes);
        free(values);
    }
}

/* --- making --------------------------------------------------------------- */

/* Adds a header and its payload; `items` values must follow. Adds nothing if there is no memory. */
static int value_add(tq_values *values, const uint8_t *head, size_t n_head, const void *body, size_t size,
                     uint64_t items)
{
    if (values == NULL || (body == NULL && size > 0)) {
        return TQ_EINVAL;
    }
    if (tqi_grow(&values->bytes, &values->room, values->size + n_head + size, 1) != TQ_OK ||
        tqi_grow(&values->ends, &values->n_room, values->n + 1, sizeof(*values->ends)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    memcpy(values->bytes + values->size, head, n_head);
    if (size > 0) {
        memcpy(values->bytes + values->size + n_head, body, size);
    }
    values->size += n_head + size;
    values->pending = (values->pending ? values->pending : 1) - 1 + items;
    if (values->pending == 0) {
        values->ends[values->n++] = values->size;
    }
    return TQ_OK;
}

/* Writes a type and a big-endian number of the given size. */
static size_t value_head(uint8_t *head, uint8_t type, uint64_t number, size_t bytes)
{
    head[0] = type;
    for (size_t i = 0; i < bytes; i++) {
        head[1 + i] = (uint8_t)(number >> (8 * (bytes - 1 - i)));
    }
    return 1 + bytes;
}

/* Adds the shortest header for a length: in the type byte itself up to `most`, else in 1 (if there is such a type), 2
 * or 4 bytes. */
static int value_add_sized(tq_values *values, uint8_t fixed, uint64_t most, uint8_t type8, uint8_t type16,
                           const void *body, uint64_t n, uint64_t items)
{
    uint8_t head[5];
    size_t n_head;

    if (n > UINT32_MAX) {
        return TQ_EINVAL;
    }
    if (fixed && n <= most) {
        n_head = value_head(head, (uint8_t)(fixed | n), 0, 0);
    } else if (type8 && n <= UINT8_MAX) {
        n_head = value_head(head, type8, n, 1);
    } else if (n <= UINT16_MAX) {
        n_head = value_head(head, type16, n, 2);
    } else {
        n_head = value_head(head, (uint8_t)(type16 + 1), n, 4);
    }
    return value_add(values, head, n_head, body, items == UINT64_MAX ? n : 0, items == UINT64_MAX ? 0 : items);
}

int tq_values_null(tq_values *values)
{
    return value_add(values, (const uint8_t[]){0xc0}, 1, NULL, 0, 0);
}

int tq_values_bool(tq_values *values, bool value)
{
    return value_add(values, (const uint8_t[]){value ? 0xc3 : 0xc2}, 1, NULL, 0, 0);
}

int tq_values_uint(tq_values *values, uint64_t value)
{
    uint8_t head[9];
    size_t n = value < 0x80          ? value_head(head, (uint8_t)value, 0, 0)
               : value <= UINT8_MAX  ? value_head(head, 0xcc, value, 1)
               : value <= UINT16_MAX ? value_head(head, 0xcd, value, 2)
               : value <= UINT32_MAX ? value_head(head, 0xce, value, 4)
                                     : value_head(head, 0xcf, value, 8);

    return value_add(values, head, n, NULL, 0, 0);
}

int tq_values_int(tq_values *values, int64_t value)
{
    uint8_t head[9];
    uint64_t raw = (uint64_t)value;

    if (value >= 0) {
        return tq_values_uint(values, raw);
    }
    size_t n = value >= -32         ? value_head(head, (uint8_t)raw, 0, 0)
               : value >= INT8_MIN  ? value_head(head, 0xd0, raw, 1)
               : value >= INT16_MIN ? value_head(head, 0xd1, raw, 2)
               : value >= INT32_MIN ? value_head(head, 0xd2, raw, 4)
                                    : value_head(head, 0xd3, raw, 8);
    return value_add(values, head, n, NULL, 0, 0);
}

int tq_values_float(tq_values *values, double value)
{
    uint8_t head[9];
    uint64_t raw;

    memcpy(&raw, &value, sizeof(raw));
    return value_add(values, head, value_head(head, 0xcb, raw, 8), NULL, 0, 0);
}

/* Bytes of the UTF-8 character at the start of a text; 0: there is none. */
static size_t value_character(const uint8_t *at, size_t left)
{
    size_t n = at[0] < 0x80                     ? 1
               : at[0] >= 0xc2 && at[0] <= 0xdf ? 2
               : (at[0] & 0xf0) == 0xe0         ? 3
               : at[0] >= 0xf0 && at[0] <= 0xf4 ? 4
                                                : 0;

    if (n == 0 || n > left) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool wrong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] >= 0xa0) ||
                 (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] >= 0x90);
    return wrong ? 0 : n;
}

int tq_values_str(tq_values *values, const char *text, size_t size)
{
    size_t n;

    if (text == NULL) {
        return TQ_EINVAL;
    }
    for (size_t at = 0; at < size; at += n) {
        n = value_character((const uint8_t *)text + at, size - at);
        if (n == 0) {
            return TQ_EINVAL;
        }
    }
    return value_add_sized(values, 0xa0, 31, 0xd9, 0xda, text, size, UINT64_MAX);
}

int tq_values_bytes(tq_values *values, const void *bytes, size_t size)
{
    return value_add_sized(values, 0, 0, 0xc4, 0xc5, bytes, size, UINT64_MAX);
}

int tq_values_list(tq_values *values, uint32_t n)
{
    return value_add_sized(values, 0x90, 15, 0, 0xdc, NULL, n, n);
}

int tq_values_map(tq_values *values, uint32_t n)
{
    return value_add_sized(values, 0x80, 15, 0, 0xde, NULL, n, 2 * (uint64_t)n);
}

size_t tq_values_count(const tq_values *values)
{
    return values != NULL ? values->n : 0;
}

static int value_complete(const tq_values *values, const char *name, const void *out, tq_error *err)
{
    if (values == NULL || name == NULL || out == NULL) {
        return tqi_error_null(err, values == NULL ? "values" : name == NULL ? "name" : "out");
    }
    if (values->pending > 0) {
        return tqi_error_set(err, TQ_EINVAL, "'%s': value %zu is a list or map that lacks %llu items", name, values->n,
                             (unsigned long long)values->pending);
    }
    return TQ_OK;
}

int tq_values_column(tq_values *values, const char *name, tq_column *out, tq_error *err)
{
    int rc = value_complete(values, name, out, err);

    if (rc != TQ_OK) {
        return rc;
    }
    uint64_t *sizes = reallocarray(values->sizes, values->n + 1, sizeof(*sizes));
    if (sizes == NULL) {
        return tqi_error_nomem(err, "a column");
    }
    values->sizes = sizes;
    for (size_t i = 0; i < values->n; i++) {
        sizes[i] = values->ends[i] - (i > 0 ? values->ends[i - 1] : 0);
    }
    values->slice = (tq_slice){values->bytes, values->size};
    *out = (tq_column){
        .name = name,
        .kind = TQ_VALUE,
        .dtype = {TQ_UINT, 8},
        .rows = values->n,
        .ndim = 1,
        .dims = sizes,
        .slices = &values->slice,
        .n_slices = 1,
    };
    return TQ_OK;
}

int tq_values_tag(tq_values *values, const char *name, tq_tag *out, tq_error *err)
{
    int rc = value_complete(values, name, out, err);

    if (rc != TQ_OK) {
        return rc;
    }
    uint32_t *sizes = reallocarray(values->tag_sizes, values->n + 1, sizeof(*sizes));
    if (sizes == NULL) {
        return tqi_error_nomem(err, "a tag");
    }
    values->tag_sizes = sizes;
    for (size_t i = 0; i < values->n; i++) {
        uint64_t size = values->ends[i] - (i > 0 ? values->ends[i - 1] : 0);
        if (size > UINT32_MAX) {
            return tqi_error_set(err, TQ_EINVAL, "tag '%s': value %zu has %llu bytes", name, i,
                                 (unsigned long long)size);
        }
        sizes[i] = (uint32_t)size;
    }
    *out = (tq_tag){.name = name, .values = values->bytes, .sizes = sizes};
    return TQ_OK;
}

/* --- reading -------------------------------------------------------------- */

static int value_malformed(const uint8_t *bytes, size_t size, const char *what, tq_error *err)
{
    char text[48] = "";
    size_t used = 0;

    for (size_t i = 0; i < size && i < 8; i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u", i ? " " : "", bytes[i]);
    }
    return tqi_error_set(err, TQ_EINVAL, "not an encoded value (%zu bytes: %s%s): %s; see docs/values.md", size, text,
                         size > 8 ? " ..." : "", what);
}

static uint64_t value_number(const uint8_t *bytes, size_t n)
{
    uint64_t number = 0;

    for (size_t i = 0; i < n; i++) {
        number = number << 8 | bytes[i];
    }
    return number;
}

static void value_natural(tq_value *out, uint64_t number)
{
    out->type = number <= INT64_MAX ? TQ_VALUE_INT : TQ_VALUE_UINT;
    out->natural = number;
    out->integer = number <= INT64_MAX ? (int64_t)number : INT64_MAX;
    out->number = (double)number;
}

static void value_negative(tq_value *out, uint64_t raw, size_t n)
{
    int64_t number = (int64_t)(raw << (64 - 8 * n)) >> (64 - 8 * n);

    out->type = TQ_VALUE_INT;
    out->integer = number;
    out->natural = number >= 0 ? (uint64_t)number : 0;
    out->number = (double)number;
}

/* What the first byte of a value means: the size of the number after it, and what that number counts. */
typedef struct value_form {
    tq_value_type type;
    size_t width;    /* of the number behind the first byte */
    uint64_t number; /* if there is none */
} value_form;

static bool value_form_of(uint8_t lead, value_form *out)
{
    static const value_form forms[32] = {
        {TQ_VALUE_NULL, 0, 0},  {TQ_VALUE_NULL, 0, 1},  {TQ_VALUE_BOOL, 0, 0},  {TQ_VALUE_BOOL, 0, 1},
        {TQ_VALUE_BYTES, 1, 0}, {TQ_VALUE_BYTES, 2, 0}, {TQ_VALUE_BYTES, 4, 0}, {TQ_VALUE_EXT, 1, 0},
        {TQ_VALUE_EXT, 2, 0},   {TQ_VALUE_EXT, 4, 0},   {TQ_VALUE_FLOAT, 4, 0}, {TQ_VALUE_FLOAT, 8, 0},
        {TQ_VALUE_UINT, 1, 0},  {TQ_VALUE_UINT, 2, 0},  {TQ_VALUE_UINT, 4, 0},  {TQ_VALUE_UINT, 8, 0},
        {TQ_VALUE_INT, 1, 0},   {TQ_VALUE_INT, 2, 0},   {TQ_VALUE_INT, 4, 0},   {TQ_VALUE_INT, 8, 0},
        {TQ_VALUE_EXT, 0, 1},   {TQ_VALUE_EXT, 0, 2},   {TQ_VALUE_EXT, 0, 4},   {TQ_VALUE_EXT, 0, 8},
        {TQ_VALUE_EXT, 0, 16},  {TQ_VALUE_STR, 1, 0},   {TQ_VALUE_STR, 2, 0},   {TQ_VALUE_STR, 4, 0},
        {TQ_VALUE_LIST, 2, 0},  {TQ_VALUE_LIST, 4, 0},  {TQ_VALUE_MAP, 2, 0},   {TQ_VALUE_MAP, 4, 0}};

    if (lead < 0x80) {
        *out = (value_form){TQ_VALUE_UINT, 0, lead};
    } else if (lead < 0x90) {
        *out = (value_form){TQ_VALUE_MAP, 0, lead & 0x0fu};
    } else if (lead < 0xa0) {
        *out = (value_form){TQ_VALUE_LIST, 0, lead & 0x0fu};
    } else if (lead < 0xc0) {
        *out = (value_form){TQ_VALUE_STR, 0, lead & 0x1fu};
    } else if (lead < 0xe0) {
        *out = forms[lead - 0xc0];
    } else {
        *out = (value_form){TQ_VALUE_INT, 0, lead};
    }
    return lead != 0xc1;
}

static void value_float(tq_value *out, uint64_t raw, size_t width)
{
    uint32_t half = (uint32_t)raw;
    float single;

    if (width == 4) {
        memcpy(&single, &half, sizeof(single));
        out->number = (double)single;
    } else {
        memcpy(&out->number, &raw, sizeof(raw));
    }
}

int tq_value_read(const void *bytes, size_t size, tq_value *out, size_t *used, tq_error *err)
{
    const uint8_t *at = bytes;
    value_form form;
    uint64_t number;
    size_t head;

    if (out == NULL || (bytes == NULL && size > 0)) {
        return tqi_error_null(err, out == NULL ? "tq_value_read: out" : "tq_value_read: bytes");
    }
    memset(out, 0, sizeof(*out));
    if (size == 0) {
        return value_malformed(at, size, "there are no bytes", err);
    }
    if (!value_form_of(at[0], &form)) {
        return value_malformed(at, size, "no value begins with 193", err);
    }
    head = 1 + form.width + (form.type == TQ_VALUE_EXT);
    if (head > size) {
        return value_malformed(at, size, "it is cut off", err);
    }
    number = form.width ? value_number(at + 1, form.width) : form.number;
    out->type = form.type;
    switch (form.type) {
    case TQ_VALUE_BOOL:
        out->boolean = number != 0;
        break;
    case TQ_VALUE_UINT:
        value_natural(out, number);
        break;
    case TQ_VALUE_INT:
        value_negative(out, number, form.width ? form.width : 1);
        break;
    case TQ_VALUE_FLOAT:
        value_float(out, number, form.width);
        break;
    case TQ_VALUE_LIST:
    case TQ_VALUE_MAP:
        out->items = number;
        break;
    case TQ_VALUE_STR:
    case TQ_VALUE_BYTES:
    case TQ_VALUE_EXT:
        out->bytes = at + head;
        out->size = number;
        out->ext = form.type == TQ_VALUE_EXT ? (int8_t)at[head - 1] : 0;
        if (number > size - head) {
            return value_malformed(at, size, "it is cut off", err);
        }
        head += number;
        break;
    case TQ_VALUE_NULL:
        break;
    }
    if (used != NULL) {
        *used = head;
    }
    return TQ_OK;
}

int tq_value_check(const void *bytes, size_t size, tq_error *err)
{
    const uint8_t *at = bytes;
    size_t left = size;
    uint64_t wanted = 1;

    while (wanted > 0) {
        tq_value value = {0};
        size_t used = 0;
        if (bytes == NULL || left == 0) {
            return bytes != NULL ? value_malformed(bytes, size, "it is cut off", err)
                                 : tqi_error_null(err, "tq_value_check: bytes");
        }
        int rc = tq_value_read(at, left, &value, &used, err);
        if (rc != TQ_OK) {
            return rc;
        }
        uint64_t items = value.type == TQ_VALUE_MAP ? 2 * (uint64_t)value.items : value.items;
        wanted += items - 1;
        at += used;
        left -= used;
    }
    return left == 0 ? TQ_OK : value_malformed(bytes, size, "more follows behind the first value", err);
}
