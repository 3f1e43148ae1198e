/*
 * data.c - the workloads of tq bench, and batches of them in memory.
 *
 * They are those of bench/workloads.py, in names, samples, fields, types and shapes; a test compares them. Its maps
 * with tensors (multimodal) are specific to the Python package and are left to it.
 */
#include "cli/bench/bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH      8192
#define LONGEST    16384
#define VOCABULARY 151936

#define KEY_SIZE   24

static const char bench_letters[] = "abcdefghijklmnopqrstuvwxyz .,;";

/* --- what is random ------------------------------------------------------- */

/* splitmix64: the same numbers on every machine. */
static uint64_t random_next(uint64_t *state)
{
    uint64_t mixed = (*state += UINT64_C(0x9e3779b97f4a7c15));

    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

/* In (0, 1). */
static double random_share(uint64_t *state)
{
    return ((double)(random_next(state) >> 11) + 0.5) * 0x1p-53;
}

static uint64_t length_uniform(uint64_t *random)
{
    return 1 + random_next(random) % (WIDTH - 1);
}

/* Log-normal: most answers are short, a few are very long. */
static uint64_t length_longtail(uint64_t *random)
{
    double radius = sqrt(-2 * log(random_share(random)));
    double length = exp(7.3 + radius * cos(2 * M_PI * random_share(random)));

    return length < 16 ? 16 : length > LONGEST ? LONGEST : (uint64_t)length;
}

/* --- the table ------------------------------------------------------------ */

#define FLOAT32      \
    {                \
        TQ_FLOAT, 32 \
    }
#define INT64      \
    {              \
        TQ_INT, 64 \
    }
#define BOOL       \
    {              \
        TQ_BOOL, 8 \
    }

#define SCALAR(name, dtype)               \
    {                                     \
        name, BENCH_FIXED, dtype, 0, 1, 0 \
    }
#define FIXED(name, dtype, width)             \
    {                                         \
        name, BENCH_FIXED, dtype, 1, width, 0 \
    }
#define RAGGED(name, dtype, series)             \
    {                                           \
        name, BENCH_RAGGED, dtype, 1, 0, series \
    }
#define TEXT(name, series)                           \
    {                                                \
        name, BENCH_TEXT, {TQ_UINT, 8}, 1, 0, series \
    }

static const bench_field fields_tiny[] = {
    FIXED("ids", INT64, 16),
    FIXED("log_probs", FLOAT32, 16),
    SCALAR("reward", FLOAT32),
};

static const bench_field fields_simple[] = {
    FIXED("field_0", FLOAT32, WIDTH), FIXED("field_1", FLOAT32, WIDTH), FIXED("field_2", FLOAT32, WIDTH),
    FIXED("field_3", FLOAT32, WIDTH), FIXED("field_4", FLOAT32, WIDTH), FIXED("field_5", FLOAT32, WIDTH),
    FIXED("field_6", FLOAT32, WIDTH), FIXED("field_7", FLOAT32, WIDTH), FIXED("field_8", FLOAT32, WIDTH),
};

static const bench_field fields_complex[] = {
    FIXED("regular_0", FLOAT32, WIDTH), RAGGED("ragged_0", FLOAT32, 1), TEXT("text_0", 2),
    FIXED("regular_1", FLOAT32, WIDTH), RAGGED("ragged_1", FLOAT32, 3), TEXT("text_1", 4),
    FIXED("regular_2", FLOAT32, WIDTH), RAGGED("ragged_2", FLOAT32, 5), TEXT("text_2", 6),
};

static const bench_field fields_longtail[] = {
    FIXED("prompts", INT64, 1024),      RAGGED("responses", INT64, 1),
    RAGGED("response_mask", BOOL, 1),   RAGGED("old_log_probs", FLOAT32, 1),
    RAGGED("ref_log_prob", FLOAT32, 1), RAGGED("advantages", FLOAT32, 1),
    SCALAR("reward", FLOAT32),          SCALAR("group", INT64),
};

#define FIELDS(name) fields_##name, sizeof(fields_##name) / sizeof(fields_##name[0])

const bench_workload bench_workloads[] = {
    {"tiny", "three small fields", 1, FIELDS(tiny), NULL},
    {"simple", "9 fields of 8192 float32", 1024, FIELDS(simple), NULL},
    {"complex", "a third each of regular, ragged and strings", 1024, FIELDS(complex), length_uniform},
    {"grpo-longtail", "responses log-normal up to 16384, groups of 8", 512, FIELDS(longtail), length_longtail},
};
const size_t bench_n_workloads = sizeof(bench_workloads) / sizeof(bench_workloads[0]);

const bench_workload *bench_find(const char *name)
{
    for (size_t i = 0; i < bench_n_workloads; i++) {
        if (strcmp(bench_workloads[i].name, name) == 0) {
            return &bench_workloads[i];
        }
    }
    return NULL;
}

/* Samples at a scale: whole groups of 8, and one group at least unless there are fewer. */
static size_t workload_rows(const bench_workload *workload, double scale)
{
    size_t least = workload->samples < 8 ? workload->samples : 8;
    size_t rows = (size_t)nearbyint((double)workload->samples * scale) / 8 * 8;

    return rows > least ? rows : least;
}

/* --- a batch -------------------------------------------------------------- */

/* Bytes of a string's header, as msgpack writes it. */
static size_t text_head(uint64_t length, uint8_t out[3])
{
    if (length < 32) {
        out[0] = (uint8_t)(0xa0 | length);
        return 1;
    }
    if (length < 256) {
        out[0] = 0xd9;
        out[1] = (uint8_t)length;
        return 2;
    }
    out[0] = 0xda;
    out[1] = (uint8_t)(length >> 8);
    out[2] = (uint8_t)length;
    return 3;
}

/* Lengths of a field's rows as stored; returns their sum in elements. */
static uint64_t field_lengths(const bench_workload *workload, const bench_field *field, size_t rows, uint64_t *out)
{
    uint64_t random = field->series;
    uint64_t total = 0;
    uint8_t head[3];

    for (size_t row = 0; row < rows; row++) {
        uint64_t length = workload->length(&random);
        out[row] = field->rows == BENCH_TEXT ? length + text_head(length, head) : length;
        total += out[row];
    }
    return total;
}

static void fill_text(const bench_workload *workload, const bench_field *field, size_t rows, uint8_t *out)
{
    uint64_t random = field->series;

    for (size_t row = 0; row < rows; row++) {
        uint64_t length = workload->length(&random);
        out += text_head(length, out);
        for (uint64_t i = 0; i < length; i++) {
            *out++ = (uint8_t)bench_letters[i % (sizeof(bench_letters) - 1)];
        }
    }
}

static void fill_tensor(tq_dtype dtype, uint64_t elements, void *out)
{
    uint64_t random = elements;

    for (uint64_t i = 0; i < elements; i++) {
        if (dtype.code == TQ_FLOAT) {
            ((float *)out)[i] = (float)random_share(&random);
        } else if (dtype.code == TQ_INT) {
            ((int64_t *)out)[i] = (int64_t)(random_next(&random) % VOCABULARY);
        } else {
            ((uint8_t *)out)[i] = 1;
        }
    }
}

static int batch_column(bench_batch *batch, size_t f)
{
    const bench_field *field = &batch->workload->fields[f];
    uint64_t elements = batch->rows * field->width;

    if (field->rows != BENCH_FIXED) {
        batch->dims[f] = calloc(batch->rows, sizeof(*batch->dims[f]));
        if (batch->dims[f] == NULL) {
            return cli_fail("out of memory");
        }
        elements = field_lengths(batch->workload, field, batch->rows, batch->dims[f]);
    }
    size_t size = elements * field->dtype.bits / 8;
    void *data = aligned_alloc(64, (size + 63) / 64 * 64);
    if (data == NULL) {
        return cli_fail("no memory for %zu bytes of the workload %s", size, batch->workload->name);
    }
    if (field->rows == BENCH_TEXT) {
        fill_text(batch->workload, field, batch->rows, data);
    } else {
        fill_tensor(field->dtype, elements, data);
    }
    batch->slices[f] = (tq_slice){data, size};
    batch->columns[f] = (tq_column){
        .name = field->name,
        .kind = field->rows == BENCH_TEXT ? TQ_VALUE : TQ_TENSOR,
        .dtype = field->dtype,
        .rows = batch->rows,
        .ndim = field->ndim,
        .shape = batch->dims[f] != NULL ? NULL : &field->width,
        .dims = batch->dims[f],
        .slices = &batch->slices[f],
        .n_slices = 1,
    };
    batch->bytes += size;
    return 0;
}

int bench_batch_make(const bench_workload *workload, double scale, bench_batch *out)
{
    size_t rows = workload_rows(workload, scale);
    int failed = 0;

    memset(out, 0, sizeof(*out));
    out->workload = workload;
    out->rows = rows;
    out->keys = calloc(rows, sizeof(*out->keys));
    out->names = calloc(rows, KEY_SIZE);
    out->columns = calloc(workload->n_fields, sizeof(*out->columns));
    out->slices = calloc(workload->n_fields, sizeof(*out->slices));
    out->dims = calloc(workload->n_fields, sizeof(*out->dims));
    if (out->keys == NULL || out->names == NULL || out->columns == NULL || out->slices == NULL || out->dims == NULL) {
        bench_batch_free(out);
        return cli_fail("out of memory");
    }
    for (size_t row = 0; row < rows; row++) {
        char *key = out->names + row * KEY_SIZE;
        snprintf(key, KEY_SIZE, "k%zu", row);
        out->keys[row] = key;
    }
    for (size_t f = 0; f < workload->n_fields && !failed; f++) {
        failed = batch_column(out, f);
    }
    if (failed) {
        bench_batch_free(out);
    }
    return failed;
}

void bench_batch_free(bench_batch *batch)
{
    for (size_t f = 0; batch->workload != NULL && f < batch->workload->n_fields; f++) {
        if (batch->slices != NULL) {
            free((void *)(uintptr_t)batch->slices[f].data);
        }
        if (batch->dims != NULL) {
            free(batch->dims[f]);
        }
    }
    free(batch->keys);
    free(batch->names);
    free(batch->columns);
    free(batch->slices);
    free(batch->dims);
    memset(batch, 0, sizeof(*batch));
}

/* --- as JSON -------------------------------------------------------------- */

/* Its bytes as they are counted there: of strings, those of the text. */
static uint64_t describe_bytes(const bench_workload *workload, const bench_field *field, size_t rows)
{
    uint64_t random = field->series;
    uint64_t elements = rows * field->width;

    for (size_t row = 0; row < rows && field->rows != BENCH_FIXED; row++) {
        elements += workload->length(&random);
    }
    return elements * field->dtype.bits / 8;
}

static json_t *describe_field(const bench_workload *workload, const bench_field *field, size_t rows)
{
    char dtype[32];
    json_t *shape = json_array();

    if (field->rows != BENCH_FIXED) {
        json_array_append_new(shape, json_null());
    } else if (field->ndim == 1) {
        json_array_append_new(shape, json_integer((json_int_t)field->width));
    }
    return json_pack("{s:s, s:s, s:o, s:I}", "name", field->name, "type",
                     field->rows == BENCH_TEXT ? "text" : cli_dtype(field->dtype, dtype), "shape", shape, "bytes",
                     (json_int_t)describe_bytes(workload, field, rows));
}

json_t *bench_describe(const cli_bench_options *settings)
{
    json_t *list = json_array();

    for (size_t i = 0; i < bench_n_workloads; i++) {
        const bench_workload *workload = &bench_workloads[i];
        size_t rows = workload_rows(workload, settings->scale);
        json_t *fields = json_array();
        json_int_t bytes = 0;
        for (size_t f = 0; f < workload->n_fields; f++) {
            bytes += (json_int_t)describe_bytes(workload, &workload->fields[f], rows);
            json_array_append_new(fields, describe_field(workload, &workload->fields[f], rows));
        }
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:I, s:o}", "name", workload->name, "about", workload->about,
                                        "samples", (json_int_t)rows, "bytes", bytes, "fields", fields));
    }
    return list;
}
