/*
 * wire_test.c - frame headers, the table of methods, decoding of bodies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/limits.h"
#include "wire/frame.h"
#include "wire/methods.h"

static void a_frame_has_its_layout(void **state)
{
    (void)state;
    const tqi_frame frame = {
        .version = TQI_PROTOCOL_VERSION,
        .kind = 0x1234,
        .request = 0x1122334455667788u,
        .ack = 2,
        .body = 0x00ABCDEF,
        .flags = TQI_FRAME_REPLY,
        .payload = 0x0102030405060708u,
    };
    static const uint8_t bytes[TQI_FRAME_HEADER] = {'T',  'Q',  'Q',  '1',  TQI_PROTOCOL_VERSION,
                                                    0,    0x34, 0x12, 0x88, 0x77,
                                                    0x66, 0x55, 0x44, 0x33, 0x22,
                                                    0x11, 2,    0,    0,    0,
                                                    0,    0,    0,    0,    0xEF,
                                                    0xCD, 0xAB, 0,    1,    0,
                                                    0,    0,    8,    7,    6,
                                                    5,    4,    3,    2,    1};
    uint8_t out[TQI_FRAME_HEADER];
    tqi_frame back = {0};
    tqi_frame_encode(&frame, out);
    assert_memory_equal(out, bytes, sizeof bytes);
    assert_int_equal(tqi_frame_decode(out, &back, NULL), TQ_OK);
    assert_int_equal(back.version, frame.version);
    assert_int_equal(back.kind, frame.kind);
    assert_int_equal(back.request, frame.request);
    assert_int_equal(back.ack, frame.ack);
    assert_int_equal(back.body, frame.body);
    assert_int_equal(back.flags, frame.flags);
    assert_int_equal(back.payload, frame.payload);
}

static void bad_frames_are_refused(void **state)
{
    (void)state;
    tqi_frame frame = {.version = TQI_PROTOCOL_VERSION, .kind = 16, .request = 9};
    tqi_frame back;
    uint8_t bytes[TQI_FRAME_HEADER];
    tq_error err = {0};
    tqi_frame_encode(&frame, bytes);
    bytes[0] ^= 1;
    assert_int_equal(tqi_frame_decode(bytes, &back, &err), TQ_EPROTO);
    assert_non_null(strstr(err.message, "malformed frame"));
    frame.body = TQI_FRAME_BODY_MAX;
    tqi_frame_encode(&frame, bytes);
    assert_int_equal(tqi_frame_decode(bytes, &back, &err), TQ_OK);
    frame.body++;
    tqi_frame_encode(&frame, bytes);
    assert_int_equal(tqi_frame_decode(bytes, &back, &err), TQ_EPROTO);
    frame.version = 7;
    tqi_frame_encode(&frame, bytes);
    assert_int_equal(tqi_frame_decode(bytes, &back, &err), TQ_EVERSION);
    assert_int_equal(back.kind, 16);
    assert_int_equal(back.request, 9);
    assert_non_null(strstr(err.message, "version 7"));
    assert_non_null(strstr(err.message, "version 2"));
    assert_non_null(strstr(err.message, "this side is older"));
    frame.version = TQI_PROTOCOL_VERSION - 1;
    tqi_frame_encode(&frame, bytes);
    assert_int_equal(tqi_frame_decode(bytes, &back, &err), TQ_EVERSION);
    assert_non_null(strstr(err.message, "the peer is older"));
}

static void every_method_is_found(void **state)
{
    (void)state;
    int found = 0, keep = 0;
    for (unsigned kind = 0; kind <= UINT16_MAX; kind++) {
        const tqi_method *method = tqi_method_find((uint16_t)kind);
        if (method != NULL) {
            assert_int_equal(method->kind, kind);
            assert_true(kind >= 16);
            found++;
            keep += method->keep;
        }
    }
#define KEEP                                                        1
#define AGAIN                                                       0
#define COUNT(number, NAME, name, Message, reply, Reply, mode)      +1
#define COUNT_KEEP(number, NAME, name, Message, reply, Reply, mode) +(mode)
    assert_int_equal(found, 0 TQI_METHODS_CONTROLLER(COUNT) TQI_METHODS_UNIT(COUNT));
    assert_int_equal(keep, 0 TQI_METHODS_CONTROLLER(COUNT_KEEP) TQI_METHODS_UNIT(COUNT_KEEP));
    const tqi_method *method = tqi_method_find(TQI_CLAIM);
    assert_string_equal(method->name, "CLAIM");
    assert_ptr_equal(method->request, &tq__claim__descriptor);
    assert_ptr_equal(method->reply, &tq__claim_reply__descriptor);
    assert_true(method->keep);
    assert_false(tqi_method_find(TQI_UNIT_READ)->keep);
    assert_null(tqi_method_find(TQI_HELLO));
}

static void a_body_is_decoded(void **state)
{
    (void)state;
    Tq__Claim claim;
    tq__claim__init(&claim);
    char partition[] = "step0", task[] = "train", field0[] = "a", field1[] = "b";
    char *fields[] = {field0, field1};
    claim.partition = partition;
    claim.task = task;
    claim.n_field = 2;
    claim.field = fields;
    claim.batch_size = -4;
    uint8_t bytes[256];
    size_t size = tq__claim__pack(&claim, bytes);
    ProtobufCMessage *message = tqi_message_decode(&tq__claim__descriptor, bytes, size, NULL);
    assert_non_null(message);
    const Tq__Claim *back = (const Tq__Claim *)message;
    assert_string_equal(back->partition, "step0");
    assert_int_equal(back->n_field, 2);
    assert_string_equal(back->field[1], "b");
    assert_int_equal(back->batch_size, -4);
    protobuf_c_message_free_unpacked(message, NULL);
    /* Truncated anywhere, it is refused or is a shorter message, never a crash; without its last byte it is always
     * refused. */
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut + 1);
        assert_non_null(part);
        memcpy(part, bytes, cut);
        message = tqi_message_decode(&tq__claim__descriptor, part, cut, NULL);
        if (message != NULL) {
            protobuf_c_message_free_unpacked(message, NULL);
        }
        free(part);
    }
    tq_error err = {0};
    assert_null(tqi_message_decode(&tq__claim__descriptor, bytes, size - 1, &err));
    assert_int_equal(err.code, TQ_EPROTO);
    assert_non_null(strstr(err.message, "Claim"));
    message = tqi_message_decode(&tq__empty__descriptor, NULL, 0, &err);
    assert_non_null(message);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* A body of n parts of a field, each of the same bytes. */
static uint8_t *parts(uint32_t field, const char *bytes, size_t n, size_t *size)
{
    size_t one = strlen(bytes) + 2;
    uint8_t *body = malloc(n * one);

    assert_non_null(body);
    for (size_t i = 0; i < n; i++) {
        body[i * one] = (uint8_t)(field << 3 | 2);
        body[i * one + 1] = (uint8_t)strlen(bytes);
        memcpy(body + i * one + 2, bytes, one - 2);
    }
    *size = n * one;
    return body;
}

static size_t peak_kib(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (size_t)usage.ru_maxrss;
}

/* Empty parts take a hundred bytes each: they are refused before they have taken much memory. */
static void a_body_of_empty_parts_is_refused_early(void **state)
{
    (void)state;
    tq_error err = {0};
    size_t size;
    uint8_t *body = parts(7, "", 4000000, &size); /* Batch.tag */
    size_t before = peak_kib();
    assert_null(tqi_message_decode(&tq__batch__descriptor, body, size, &err));
    assert_int_equal(err.code, TQ_EINVAL);
    assert_non_null(strstr(err.message, "a Batch of 8000000 bytes would take more than 198217728"));
    size_t grown = peak_kib() - before;
    print_message("8 MB of empty parts took %zu MiB\n", grown >> 10);
    assert_true(grown < 400u << 10); /* with the red zones of a sanitizer */
    free(body);
    /* Of a request the limit counts, too. */
    const uint64_t limit = tqi_limits.request_bytes;
    uint64_t times = tqi_limit_times(TQI_LIMIT_request_bytes);
    size_t memory = 0;
    body = parts(5, "1234567", 10000, &size);
    ProtobufCMessage *request = tqi_request_decode(&tq__batch__descriptor, body, size, &memory, &err);
    assert_non_null(request);
    /* Each key takes the least piece of malloc, and a pointer. */
    assert_in_range(memory, 10000 * 40, 10000 * 41);
    protobuf_c_message_free_unpacked(request, NULL);
    tqi_limits.request_bytes = memory;
    assert_null(tqi_request_decode(&tq__batch__descriptor, body, size, &memory, &err));
    assert_int_equal(err.code, TQ_EINVAL);
    assert_non_null(strstr(err.message, "bytes of memory (limits.request_bytes): use smaller"));
    assert_int_equal(tqi_limit_times(TQI_LIMIT_request_bytes), times + 1);
    /* With what is only needed on the way. */
    tqi_limits.request_bytes = 3 * memory;
    request = tqi_request_decode(&tq__batch__descriptor, body, size, &memory, &err);
    assert_non_null(request);
    protobuf_c_message_free_unpacked(request, NULL);
    tqi_limits.request_bytes = limit;
    free(body);
    /* A million keys, and as many small numbers as there are bytes, are accepted. */
    body = parts(5, "1234567", 1000000, &size);
    ProtobufCMessage *message = tqi_message_decode(&tq__batch__descriptor, body, size, &err);
    assert_non_null(message);
    protobuf_c_message_free_unpacked(message, NULL);
    free(body);
    Tq__Batch batch;
    tq__batch__init(&batch);
    batch.n_ordinal = 8000000;
    batch.ordinal = calloc(batch.n_ordinal, sizeof(*batch.ordinal));
    body = malloc(tq__batch__get_packed_size(&batch));
    assert_true(batch.ordinal && body);
    size = tq__batch__pack(&batch, body);
    message = tqi_message_decode(&tq__batch__descriptor, body, size, &err);
    assert_non_null(message);
    protobuf_c_message_free_unpacked(message, NULL);
    free(batch.ordinal);
    free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_has_its_layout),
        cmocka_unit_test(bad_frames_are_refused),
        cmocka_unit_test(every_method_is_found),
        cmocka_unit_test(a_body_is_decoded),
        cmocka_unit_test(a_body_of_empty_parts_is_refused_early),
    };

    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
