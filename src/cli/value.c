/*
 * value.c - cells as JSON: tensors as nested lists of numbers, values as they were encoded (msgpack).
 */
#include "cli/cli.h"

#include <math.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A float of few bits: 1 sign bit, `exponent` bits, `mantissa` bits, the usual bias. `special`: the highest exponent
 * means infinity and NaN; else only all ones is NaN (the fn formats). */
static double value_small_float(uint32_t bits, int exponent, int mantissa, bool special)
{
    int bias = (1 << (exponent - 1)) - 1;
    uint32_t fraction = bits & ((1u << mantissa) - 1);
    int raw = (int)(bits >> mantissa) & ((1 << exponent) - 1);
    double sign = (bits >> (exponent + mantissa)) & 1 ? -1.0 : 1.0;

    if (raw == (1 << exponent) - 1) {
        if (special) {
            return fraction ? (double)NAN : sign * (double)INFINITY;
        }
        if (fraction == (1u << mantissa) - 1) {
            return (double)NAN;
        }
    }
    if (raw == 0) {
        return sign * ldexp((double)fraction, 1 - bias - mantissa);
    }
    return sign * ldexp((double)(fraction | (1u << mantissa)), raw - bias - mantissa);
}

static uint64_t value_unsigned(const uint8_t *data, uint8_t bits)
{
    uint64_t out = 0;

    memcpy(&out, data, bits / 8u); /* little-endian, as are all machines this runs on */
    return out;
}

static json_t *value_real(double number)
{
    /* JSON has no NaN and no infinity. */
    if (isnan(number)) {
        return json_string("nan");
    }
    return isinf(number) ? json_string(number > 0 ? "inf" : "-inf") : json_real(number);
}

static json_t *value_float(const uint8_t *data, uint8_t bits)
{
    float single;
    double twice;

    switch (bits) {
    case 16:
        return value_real(value_small_float((uint32_t)value_unsigned(data, 16), 5, 10, true));
    case 32:
        memcpy(&single, data, sizeof(single));
        return value_real((double)single);
    case 64:
        memcpy(&twice, data, sizeof(twice));
        return value_real(twice);
    default:
        return json_null();
    }
}

static json_t *value_element(tq_dtype dtype, const uint8_t *data)
{
    uint64_t raw = dtype.bits <= 64 ? value_unsigned(data, dtype.bits) : 0;

    switch (dtype.code) {
    case TQ_INT:
        return json_integer(dtype.bits == 64 ? (json_int_t)raw
                                             : (json_int_t)(raw << (64 - dtype.bits)) >> (64 - dtype.bits));
    case TQ_UINT:
        return raw <= INT64_MAX ? json_integer((json_int_t)raw) : json_real((double)raw);
    case TQ_BOOL:
        return json_boolean(raw != 0);
    case TQ_FLOAT:
        return value_float(data, dtype.bits);
    case TQ_BFLOAT:
        return value_real(value_small_float((uint32_t)raw, 8, 7, true));
    case TQ_FLOAT8_E5M2:
        return value_real(value_small_float((uint32_t)raw, 5, 2, true));
    case TQ_FLOAT8_E4M3FN:
        return value_real(value_small_float((uint32_t)raw, 4, 3, false));
    case TQ_COMPLEX:
        return json_pack("[o, o]", value_float(data, dtype.bits / 2),
                         value_float(data + dtype.bits / 16, dtype.bits / 2));
    default:
        return json_integer((json_int_t)raw);
    }
}

static json_t *value_tensor(tq_dtype dtype, uint32_t ndim, const uint64_t *dims, const uint8_t **data)
{
    if (ndim == 0) {
        json_t *element = value_element(dtype, *data);
        *data += dtype.bits / 8;
        return element;
    }
    json_t *list = json_array();
    for (uint64_t i = 0; i < dims[0]; i++) {
        json_array_append_new(list, value_tensor(dtype, ndim - 1, dims + 1, data));
    }
    return list;
}

static json_t *value_text(const char *bytes, size_t size)
{
    json_t *out = json_stringn(bytes, size);
    char *text = out != NULL ? NULL : strndup(bytes, size); /* lone surrogates are no UTF-8 */

    if (text != NULL) {
        out = cli_json_text(text);
        free(text);
    }
    return out;
}

static json_t *value_object(const msgpack_object *object)
{
    json_t *out = NULL;

    switch (object->type) {
    case MSGPACK_OBJECT_NIL:
        return json_null();
    case MSGPACK_OBJECT_BOOLEAN:
        return json_boolean(object->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return object->via.u64 <= INT64_MAX ? json_integer((json_int_t)object->via.u64)
                                            : json_real((double)object->via.u64);
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return json_integer(object->via.i64);
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return value_real(object->via.f64);
    case MSGPACK_OBJECT_STR:
        return value_text(object->via.str.ptr, object->via.str.size);
    case MSGPACK_OBJECT_BIN:
        return json_pack("{s:I}", "$bytes", (json_int_t)object->via.bin.size);
    case MSGPACK_OBJECT_EXT:
        return json_pack("{s:i, s:I}", "$ext", (int)object->via.ext.type, "bytes", (json_int_t)object->via.ext.size);
    case MSGPACK_OBJECT_ARRAY:
        out = json_array();
        for (uint32_t i = 0; i < object->via.array.size; i++) {
            json_array_append_new(out, value_object(&object->via.array.ptr[i]));
        }
        return out;
    case MSGPACK_OBJECT_MAP:
        out = json_object();
        for (uint32_t i = 0; i < object->via.map.size; i++) {
            const msgpack_object_kv *pair = &object->via.map.ptr[i];
            json_t *key = value_object(&pair->key);
            char *text = json_is_string(key) ? NULL : json_dumps(key, JSON_ENCODE_ANY | JSON_COMPACT);
            const char *name = text != NULL ? text : json_string_value(key);
            if (name != NULL) {
                json_object_set_new(out, name, value_object(&pair->val));
            }
            free(text);
            json_decref(key);
        }
        return out;
    default:
        return json_null();
    }
}

/* Bytes that are not one encoded value: how many, and how they begin. */
static json_t *value_not_encoded(const uint8_t *bytes, size_t size)
{
    char text[64] = "not encoded (";
    size_t used = strlen(text);

    for (size_t i = 0; i < size && i < 8; i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u", i ? " " : "", bytes[i]);
    }
    snprintf(text + used, sizeof(text) - used, "%s)", size > 8 ? " ..." : "");
    return json_pack("{s:s, s:I}", "$error", text, "bytes", (json_int_t)size);
}

json_t *cli_msgpack(const uint8_t *bytes, size_t size)
{
    msgpack_unpacked unpacked;
    size_t offset = 0;
    json_t *out;

    msgpack_unpacked_init(&unpacked);
    if (msgpack_unpack_next(&unpacked, (const char *)bytes, size, &offset) == MSGPACK_UNPACK_SUCCESS && offset == size) {
        out = value_object(&unpacked.data);
    } else {
        out = value_not_encoded(bytes, size);
    }
    msgpack_unpacked_destroy(&unpacked);
    return out != NULL ? out : json_null();
}

tq_type cli_row_type(const tq_data_column *column, size_t row)
{
    return column->types != NULL ? column->types[row] : (tq_type){(uint8_t)column->kind, column->dtype};
}

json_t *cli_row(const tq_data_column *column, size_t row)
{
    const uint8_t *data = (const uint8_t *)column->data + column->offsets[row];
    const uint64_t *dims = column->dims;
    tq_type type = cli_row_type(column, row);

    for (size_t i = 0; i < row; i++) {
        dims += column->ndims[i];
    }
    if (type.kind == TQ_VALUE) {
        return cli_msgpack(data, dims[0]);
    }
    return value_tensor(type.dtype, column->ndims[row], dims, &data);
}
