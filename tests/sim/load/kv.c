/*
 * kv.c - samples that are put, read, overwritten, tagged and cleared by key, by several clients at once: keys come from
 * a small space, so that most of them exist, and two puts of the same keys often run at the same time.
 */
#include "load/steps.h"

#define KV_SPACE 24
#define KV_KEYS  6 /* most of a call */

static const char *const kv_fields[] = {"prompt", "reward", "blob", "text", "tiny", "any"};
#define KV_FIELDS (sizeof(kv_fields) / sizeof(kv_fields[0]))

typedef struct kv {
    load_call call;
    sim_chance *chance;
    const char *partition;
    const char *keys[KV_KEYS];
    uint32_t n;
} kv;

static void kv_draw(kv *now)
{
    now->partition = load_partition(now->call.client, (uint32_t)sim_below(now->chance, 4) == 0);
    now->n = (uint32_t)sim_between(now->chance, 1, KV_KEYS);
    load_draw_keys(now->chance, KV_SPACE, now->n, now->keys);
}

/* New samples, or new values of those that exist; without fields: tags alone. */
static void kv_put(kv *now)
{
    const char *fields[3];
    load_put_args put = {.partition = now->partition, .keys = now->keys, .n = now->n, .fields = fields};

    put.n_fields = load_draw_names(now->chance, kv_fields, KV_FIELDS, (uint32_t)sim_between(now->chance, 0, 3), fields);
    put.size = (load_size)sim_below(now->chance, 2);
    put.must_exist = sim_one_in(now->chance, 6);
    put.fail_when_full = sim_one_in(now->chance, 8);
    put.untagged = put.n_fields > 0 && sim_one_in(now->chance, 8);
    if (load_finish(&now->call, load_put(&now->call, &put)) == TQ_EFULL) {
        load_make_room(&now->call, now->partition);
    }
}

static void kv_get(kv *now)
{
    const char *fields[3];
    load_get_args get = {.zero_copy = sim_one_in(now->chance, 4), .leave_values = sim_one_in(now->chance, 4)};

    if (sim_one_in(now->chance, 2)) {
        get.fields = fields;
        get.n_fields =
            load_draw_names(now->chance, kv_fields, KV_FIELDS, (uint32_t)sim_between(now->chance, 1, 3), fields);
    }
    load_finish(&now->call, load_get_by_key(&now->call, now->partition, now->keys, now->n, &get));
}

/* Looks samples up, then reads some of their fields, or writes them again, through the meta; others do so meanwhile. */
static void kv_resolve(kv *now)
{
    const char *fields[2];
    load_resolve_args resolve = {.partition = now->partition, .keys = now->keys, .n = now->n};
    load_meta meta = {.meta = NULL};
    load_put_args put = {.meta = &meta, .fields = fields, .size = LOAD_SMALL};

    resolve.lenient = !sim_one_in(now->chance, 4);
    resolve.tags = sim_one_in(now->chance, 2);
    if (load_finish(&now->call, load_resolve(&now->call, &resolve)) != TQ_OK) {
        return;
    }
    load_meta_take(&now->call, &meta);
    if (load_meta_count(&meta) > 0 && sim_one_in(now->chance, 2)) {
        put.n_fields =
            load_draw_names(now->chance, kv_fields, KV_FIELDS, (uint32_t)sim_between(now->chance, 1, 2), fields);
        load_finish(&now->call, load_put(&now->call, &put));
    }
    if (load_meta_count(&meta) > 0 && tq_meta_field_count(meta.meta) > 0) {
        load_read(&now->call, &meta, NULL, 0);
    }
    load_meta_drop(&meta);
}

static void kv_claim(kv *now)
{
    static const char *const tasks[] = {"kv", "audit"};
    const char *fields[2];
    load_claim_args claim = {.partition = now->partition, .task = tasks[sim_below(now->chance, 2)], .fields = fields};
    load_meta meta = {.meta = NULL};

    claim.n_fields = load_draw_names(now->chance, kv_fields, 3, (uint32_t)sim_between(now->chance, 1, 2), fields);
    claim.batch = (uint32_t)sim_between(now->chance, 1, 4);
    claim.tags = sim_one_in(now->chance, 2);
    claim.poll = sim_one_in(now->chance, 4);
    now->call.timeout = load_draw_wait(now->chance);
    if (load_finish(&now->call, load_claim(&now->call, &claim)) == TQ_OK) {
        now->call.timeout = 0;
        load_meta_take(&now->call, &meta);
        load_read(&now->call, &meta, fields, claim.n_fields);
        if (sim_one_in(now->chance, 2)) {
            load_finish(&now->call, load_clear_meta(&now->call, &meta));
        }
    }
    load_meta_drop(&meta);
}

static void kv_clear(kv *now)
{
    if (sim_one_in(now->chance, 24)) {
        load_finish(&now->call, load_clear_partition(&now->call, now->partition));
    } else {
        load_finish(&now->call, load_clear_keys(&now->call, now->partition, now->keys, now->n));
    }
}

static void kv_step(kv *now)
{
    kv_draw(now);
    switch (sim_below(now->chance, 16)) {
    case 0:
    case 1:
        kv_clear(now);
        break;
    case 2:
        kv_claim(now);
        break;
    case 3:
        load_look_around(&now->call, now->partition, "kv");
        break;
    case 4:
        load_finish(&now->call, load_reserve(&now->call, now->partition, now->n, now->keys, NULL));
        break;
    case 5:
    case 6:
        kv_resolve(now);
        break;
    case 7:
    case 8:
    case 9:
    case 10:
        kv_get(now);
        break;
    default:
        kv_put(now);
        break;
    }
}

static void kv_thread(load_thread *thread)
{
    kv now = {.chance = &thread->chance};

    load_call_init(&now.call, thread->client, thread->number, &thread->chance);
    while (load_next(&now.call)) {
        kv_step(&now);
    }
    load_call_fini(&now.call);
}

static void kv_run(load_client *self)
{
    load_threads(self, (uint32_t)sim_between(&self->chance, 1, 3), kv_thread);
}

const load_kind load_kv = {.name = "kv", .run = kv_run};
