/*
 * ledger_base.c - what the ledgers of a seed share: maps, and one copy of each name and shape.
 */
#include "oracle/ledger.h"

#include <xxhash.h>

/* --- maps ------------------------------------------------------------------- */

static uint32_t map_home(const ledger_map *map, uint64_t key)
{
    return (uint32_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (map->size - 1);
}

static uint32_t map_place(const ledger_map *map, uint64_t key)
{
    uint32_t place = map_home(map, key);

    while (map->values[place] != 0 && map->keys[place] != key) {
        place = (place + 1) & (map->size - 1);
    }
    return place;
}

uint32_t ledger_map_get(const ledger_map *map, uint64_t key)
{
    return map->size != 0 ? map->values[map_place(map, key)] : 0;
}

static void map_grow(ledger_map *map)
{
    ledger_map larger = {.size = map->size != 0 ? map->size * 2 : 64};

    larger.keys = sim_alloc(larger.size * sizeof(*larger.keys));
    larger.values = sim_alloc(larger.size * sizeof(*larger.values));
    for (uint32_t i = 0; i < map->size; i++) {
        if (map->values[i] != 0) {
            uint32_t place = map_place(&larger, map->keys[i]);
            larger.keys[place] = map->keys[i];
            larger.values[place] = map->values[i];
        }
    }
    larger.used = map->used;
    ledger_map_fini(map);
    *map = larger;
}

void ledger_map_set(ledger_map *map, uint64_t key, uint32_t value)
{
    if (map->size == 0 || map->used >= map->size / 2) {
        map_grow(map);
    }
    uint32_t place = map_place(map, key);
    map->used += map->values[place] == 0;
    map->keys[place] = key;
    map->values[place] = value;
}

/* Entries that would no longer be found move into the hole. */
void ledger_map_drop(ledger_map *map, uint64_t key)
{
    if (ledger_map_get(map, key) == 0) {
        return;
    }
    uint32_t mask = map->size - 1;
    uint32_t hole = map_place(map, key);
    for (uint32_t place = (hole + 1) & mask; map->values[place] != 0; place = (place + 1) & mask) {
        if (((place - map_home(map, map->keys[place])) & mask) >= ((place - hole) & mask)) {
            map->keys[hole] = map->keys[place];
            map->values[hole] = map->values[place];
            hole = place;
        }
    }
    map->values[hole] = 0;
    map->used--;
}

void ledger_map_fini(ledger_map *map)
{
    sim_free(map->keys);
    sim_free(map->values);
    *map = (ledger_map){0};
}

/* --- memory of the seed -------------------------------------------------------- */

#define KEEP_CHUNK ((size_t)1 << 16)

typedef struct keep_chunk {
    struct keep_chunk *next;
    size_t used, size;
    max_align_t bytes[];
} keep_chunk;

typedef struct name_record {
    uint32_t id;
    char text[];
} name_record;

static keep_chunk *keep_chunks;
static ledger_map name_map, shape_map;
static name_record **names;
static uint32_t n_names, names_capacity;
static ledger_shape **shapes;
static uint32_t n_shapes, shapes_capacity;

void *ledger_keep(size_t size)
{
    keep_chunk *chunk = keep_chunks;

    size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (chunk == NULL || chunk->size - chunk->used < size) {
        size_t room = size > KEEP_CHUNK / 4 ? size : KEEP_CHUNK;
        chunk = sim_alloc(sizeof(*chunk) + room);
        chunk->size = room;
        chunk->next = keep_chunks;
        keep_chunks = chunk;
    }
    void *memory = (char *)chunk->bytes + chunk->used;
    chunk->used += size;
    return memory;
}

void ledger_forget(void)
{
    while (keep_chunks != NULL) {
        keep_chunk *next = keep_chunks->next;
        sim_free(keep_chunks);
        keep_chunks = next;
    }
    ledger_map_fini(&name_map);
    ledger_map_fini(&shape_map);
    sim_free(names);
    sim_free(shapes);
    names = NULL;
    shapes = NULL;
    n_names = names_capacity = n_shapes = shapes_capacity = 0;
}

/* --- names and shapes ------------------------------------------------------------ */

uint64_t ledger_hash(const void *bytes, size_t size)
{
    return XXH3_64bits(bytes, size);
}

const char *ledger_name(const char *text)
{
    if (text == NULL || text[0] == '\0') {
        return NULL;
    }
    size_t size = strlen(text);
    uint64_t key = ledger_hash(text, size);
    uint32_t found;
    for (; (found = ledger_map_get(&name_map, key)) != 0; key++) {
        if (strcmp(names[found - 1]->text, text) == 0) {
            return names[found - 1]->text;
        }
    }
    name_record *name = ledger_keep(sizeof(*name) + size + 1);
    memcpy(name->text, text, size + 1);
    name->id = n_names;
    LEDGER_GROW(names, names_capacity, n_names + 1);
    names[n_names++] = name;
    ledger_map_set(&name_map, key, n_names);
    return name->text;
}

uint32_t ledger_name_id(const char *name)
{
    uint32_t id;

    memcpy(&id, name - offsetof(name_record, text) + offsetof(name_record, id), sizeof(id));
    return id;
}

const ledger_shape *ledger_shape_of(uint32_t ndim, const uint64_t *dims)
{
    uint64_t key = XXH3_64bits_withSeed(dims, ndim * sizeof(*dims), ndim);
    uint32_t found;

    for (; (found = ledger_map_get(&shape_map, key)) != 0; key++) {
        if (shapes[found - 1]->ndim == ndim &&
            (ndim == 0 || memcmp(shapes[found - 1]->dims, dims, ndim * sizeof(*dims)) == 0)) {
            return shapes[found - 1];
        }
    }
    ledger_shape *shape = ledger_keep(sizeof(*shape) + ndim * sizeof(*dims));
    shape->ndim = ndim;
    shape->elements = 1;
    for (uint32_t i = 0; i < ndim; i++) {
        shape->dims[i] = dims[i];
        shape->elements *= dims[i];
    }
    LEDGER_GROW(shapes, shapes_capacity, n_shapes + 1);
    shapes[n_shapes++] = shape;
    ledger_map_set(&shape_map, key, n_shapes);
    return shape;
}
