/*
 * cell.c - see cell.h.
 */
#include "cell.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define CELL_MAGIC UINT64_C(0x6c6c65632d717473) /* "stq-cell" */
#define CELL_WORDS 7                            /* of the header */

uint64_t cell_hash(const char *name)
{
    return XXH3_64bits(name, strlen(name));
}

uint64_t cell_row_new(uint32_t i)
{
    return (UINT64_C(1) << 62) | i;
}

uint64_t cell_row_key(const char *key)
{
    return (UINT64_C(2) << 62) | (cell_hash(key) >> 2);
}

uint64_t cell_row_sample(uint32_t index, uint32_t incarnation)
{
    return (UINT64_C(3) << 62) | ((uint64_t)(incarnation & 0x3fffffffu) << 32) | index;
}

/* The difference between two words of the pattern: odd, so that no two words of one cell are equal. Words at the same
 * place of two cells differ as their checksums do. */
#define CELL_STEP UINT64_C(0x9e3779b97f4a7c15)

static uint64_t cell_checksum(const cell_id *id, size_t length)
{
    const uint64_t words[] = {CELL_MAGIC, length, id->writer, id->partition, id->row, id->field};

    return XXH3_64bits(words, sizeof(words));
}

/* Writes what comes before the pattern, and returns its size; *checksum seeds the pattern. */
static size_t cell_header(uint8_t header[CELL_FULL], size_t length, const cell_id *id, uint64_t *checksum)
{
    const uint32_t writer = (uint32_t)id->writer;

    *checksum = cell_checksum(id, length);
    if (length >= CELL_FULL) {
        const uint64_t words[CELL_WORDS] = {CELL_MAGIC, length,    id->writer, id->partition,
                                            id->row,    id->field, *checksum};
        memcpy(header, words, sizeof(words));
        return sizeof(words);
    }
    memcpy(header, &writer, sizeof(writer));
    memcpy(header + sizeof(writer), checksum, sizeof(*checksum));
    return sizeof(writer) + sizeof(*checksum);
}

void cell_fill(void *bytes, size_t length, const cell_id *id)
{
    uint8_t header[CELL_FULL];
    uint8_t *to = bytes;
    uint64_t checksum;
    size_t size = cell_header(header, length, id, &checksum);

    size = size < length ? size : length;
    if (size > 0) {
        memcpy(to, header, size);
    }
    uint64_t word = checksum + CELL_STEP;
    size_t at = size;
    for (; length - at >= sizeof(word); at += sizeof(word), word += CELL_STEP) {
        memcpy(to + at, &word, sizeof(word));
    }
    memcpy(to + at, &word, length - at);
}

bool cell_is(const void *bytes, size_t length, const cell_id *id)
{
    uint8_t header[CELL_FULL];
    const uint8_t *from = bytes;
    uint64_t checksum;
    uint64_t wrong = 0;
    size_t size = cell_header(header, length, id, &checksum);

    size = size < length ? size : length;
    if (size > 0 && memcmp(from, header, size) != 0) {
        return false;
    }
    uint64_t word = checksum + CELL_STEP, read;
    size_t at = size;
    for (; length - at >= sizeof(word); at += sizeof(word), word += CELL_STEP) {
        memcpy(&read, from + at, sizeof(read));
        wrong |= read ^ word;
    }
    return wrong == 0 && memcmp(from + at, &word, length - at) == 0;
}

cell_seen cell_read(const void *bytes, size_t length, cell_id *out)
{
    uint64_t words[CELL_WORDS];
    uint32_t writer;

    *out = (cell_id){.writer = 0};
    if (length < CELL_SHORT) {
        return CELL_NOTHING;
    }
    if (length < CELL_FULL) {
        memcpy(&writer, bytes, sizeof(writer));
        out->writer = writer;
        return CELL_WRITER;
    }
    memcpy(words, bytes, sizeof(words));
    *out = (cell_id){.writer = words[2], .partition = words[3], .row = words[4], .field = words[5]};
    return words[0] == CELL_MAGIC && words[1] == length && cell_is(bytes, length, out) ? CELL_ALL : CELL_BROKEN;
}
