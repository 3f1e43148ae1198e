/*
 * steps_table.c - requests about samples: publish, reserve, claim, resolve, clear, and what asks about them.
 */
#include "stateful.h"

#include <string.h>

#include <tq/types.h>

#include "store/store.h"

/* --- names ---------------------------------------------------------------- */

static char **some_keys(sf *f, size_t n)
{
    char **keys = sf_alloc(f, n * sizeof(*keys));
    uint32_t first = sf_pick(f, 12);

    for (size_t i = 0; i < n; i++) {
        keys[i] = sf_text(f, "k%u", (unsigned)(first + i));
    }
    return keys;
}

static char **some_fields(sf *f, size_t n)
{
    char **fields = sf_alloc(f, n * sizeof(*fields));
    uint32_t first = sf_pick(f, 5);

    for (size_t i = 0; i < n; i++) {
        fields[i] = sf_field_name(f, (first + (uint32_t)i) % 5);
    }
    return fields;
}

/* Samples of one partition that are known: their indexes, and incarnations. */
static size_t some_samples(sf *f, int *partition, uint32_t **index, uint32_t **incarnation)
{
    unsigned have = f->n_sample < SF_SAMPLES ? f->n_sample : SF_SAMPLES;
    size_t most = 1 + sf_pick(f, 4), n = 0;

    *index = sf_alloc(f, most * sizeof(**index));
    *incarnation = sf_alloc(f, most * sizeof(**incarnation));
    if (!have) {
        return 0;
    }
    /* The newest first: they are the likeliest to be there. */
    unsigned at = f->n_sample - 1 - sf_pick(f, have < 16 ? have : 16);
    *partition = f->sample[at % SF_SAMPLES].partition;
    for (unsigned i = 0; i < have && n < most && at - i < f->n_sample; i++) {
        const sf_sample *sample = &f->sample[(at - i) % SF_SAMPLES];
        bool known = sample->partition != *partition;
        for (size_t k = 0; k < n; k++) {
            known = known || (*index)[k] == sample->index;
        }
        if (!known) {
            (*index)[n] = sample->index;
            (*incarnation)[n++] = sample->incarnation;
        }
        if (at - i == 0) {
            break;
        }
    }
    return n;
}

/* --- publish -------------------------------------------------------------- */

/* What publishes use: a block of a given size, of which some bytes are taken. */
typedef struct put {
    Tq__Batch *batch;
    sf_block *at; /* of the unit; NULL: it is another's */
    size_t n;
    uint64_t size, used;
    bool block;   /* there is one */
    bool growing; /* and it is made as large as is needed */
    bool opaque;
} put;

static void put_runs(sf *f, const put *p, Tq__Field *field, uint32_t block, uint64_t offset)
{
    field->run_block = sf_alloc(f, sizeof(uint32_t));
    field->run_rows = sf_alloc(f, sizeof(uint32_t));
    field->run_offset = sf_alloc(f, sizeof(uint64_t));
    field->run_block[0] = block;
    field->run_rows[0] = (uint32_t)p->n;
    field->run_offset[0] = offset;
    field->n_run_block = field->n_run_rows = field->n_run_offset = 1;
}

static void put_opaque(sf *f, const put *p, Tq__Field *field)
{
    put_runs(f, p, field, (uint32_t)p->batch->n_block + 2, 0);
    field->shape = sf_alloc(f, sizeof(uint64_t));
    field->shape[0] = 2;
    field->n_shape = 1;
    field->opaque = sf_alloc(f, p->n * sizeof(*field->opaque));
    field->n_opaque = p->n;
    for (size_t i = 0; i < p->n; i++) {
        field->opaque[i].data = (uint8_t *)sf_text(f, "note %u", sf_pick(f, 100));
        field->opaque[i].len = strlen((char *)field->opaque[i].data);
    }
}

/* Rows of lengths of their own; their bytes. */
static uint64_t put_ragged(sf *f, const put *p, Tq__Field *field, uint64_t item)
{
    uint64_t bytes = 0;

    field->ragged = true;
    field->ndims = sf_alloc(f, sizeof(uint32_t));
    field->ndims[0] = 1;
    field->n_ndims = 1;
    field->dims = sf_alloc(f, p->n * sizeof(uint64_t));
    field->n_dims = p->n;
    for (size_t i = 0; i < p->n; i++) {
        field->dims[i] = sf_pick(f, 16) == 0 ? 400 : sf_pick(f, 24);
        bytes += field->dims[i] * item;
    }
    return bytes;
}

static uint64_t put_uniform(sf *f, const put *p, Tq__Field *field, uint64_t item)
{
    size_t ndim = sf_pick(f, 3);
    uint64_t elements = 1;

    field->shape = sf_alloc(f, 2 * sizeof(uint64_t));
    field->n_shape = ndim;
    for (size_t i = 0; i < ndim; i++) {
        field->shape[i] = 1 + sf_pick(f, 4);
        elements *= field->shape[i];
    }
    if (ndim == 1 && sf_once_in(f, 8)) {
        field->shape[0] = elements = 300;
    }
    return elements * item * p->n;
}

/* Fields have types of their own, and rarely another one. */
static Tq__Field *put_field(sf *f, put *p, char *name)
{
    static const uint32_t dtypes[] = {TQ_INT | 64 << 8, TQ_FLOAT | 32 << 8, TQ_UINT | 8 << 8, TQ_UINT | 8 << 8,
                                      TQ_BFLOAT | 16 << 8};
    Tq__Field *field = sf_message(f, &tq__field__descriptor);
    uint32_t which = sf_once_in(f, 16) ? sf_pick(f, 5) : (uint32_t)(name[1] - '0');
    uint64_t bytes, item;

    field->name = name;
    field->kind = which == 2 ? TQ_VALUE : TQ_TENSOR;
    field->dtype = dtypes[which];
    item = (dtypes[which] >> 8) / 8;
    if (p->opaque && which != 2) {
        put_opaque(f, p, field);
        return field;
    }
    bytes = which >= 2 && which < 4 ? put_ragged(f, p, field, item) : put_uniform(f, p, field, item);
    bool fits = p->block && (p->growing || bytes <= p->size - p->used);
    put_runs(f, p, field, fits ? 1 : 0, fits ? p->used : 0);
    if (fits) {
        p->used += bytes;
    }
    return field;
}

static void put_fields(sf *f, put *p)
{
    size_t n = 1 + sf_pick(f, 3);
    char **names = some_fields(f, n);

    p->batch->field = sf_alloc(f, n * sizeof(*p->batch->field));
    for (size_t i = 0; i < n; i++) {
        p->batch->field[p->batch->n_field++] = put_field(f, p, names[i]);
    }
    if (p->block && p->growing) {
        p->batch->block[0]->size = p->used + sf_pick(f, 3) * 700;
    }
}

static void put_tags(sf *f, const put *p)
{
    Tq__Tag *tag = sf_message(f, &tq__tag__descriptor);

    tag->name = sf_text(f, "tag%u", sf_pick(f, 3));
    tag->size = sf_alloc(f, p->n * sizeof(uint32_t));
    tag->n_size = p->n;
    tag->values.data = sf_alloc(f, p->n);
    for (size_t i = 0; i < p->n; i++) {
        tag->size[i] = sf_pick(f, 2);
        if (tag->size[i]) {
            tag->values.data[tag->values.len++] = (uint8_t)sf_pick(f, 128);
        }
    }
    p->batch->tag = sf_alloc(f, sizeof(tag));
    p->batch->tag[p->batch->n_tag++] = tag;
}

static void put_block(sf *f, put *p, uint64_t id, int owner, uint64_t incarnation, const sf_block *at)
{
    Tq__Owner *named = sf_message(f, &tq__owner__descriptor);
    Tq__Block *block = sf_message(f, &tq__block__descriptor);

    named->name = sf_text(f, "%s", sf_owner_name(owner));
    named->incarnation = incarnation;
    block->id = id;
    block->locator.data = sf_alloc(f, TQI_STORE_LOCATOR);
    block->locator.len = at != NULL ? TQI_STORE_LOCATOR : sf_pick(f, TQI_STORE_LOCATOR);
    if (at != NULL) {
        block->size = p->size = at->size;
        tqi_store_locator_make(block->locator.data, at->slot, 0);
    }
    p->block = true;
    p->growing = at == NULL;
    p->batch->owner = sf_alloc(f, sizeof(named));
    p->batch->owner[p->batch->n_owner++] = named;
    p->batch->block = sf_alloc(f, sizeof(block));
    p->batch->block[p->batch->n_block++] = block;
}

/* Of the unit, of another owner, none, or with cells that are a manager's own; false: there is none yet. */
static bool put_place(sf *f, sf_client *client, put *p)
{
    uint32_t which = sf_pick(f, 8);

    if (which < 3) {
        sf_block *block = sf_block_of(f, client, which < 2);
        if (block == NULL) {
            return false;
        }
        p->at = block;
        put_block(f, p, block->id, 0, block->incarnation, block);
    } else if (which < 6) {
        sf_grant *grant = sf_grant_of(f, client, 1 + (int)sf_pick(f, 3));
        if (grant == NULL) {
            return false;
        }
        put_block(f, p, grant->first + grant->next++, grant->owner, grant->incarnation, NULL);
    } else {
        p->opaque = which == 7;
    }
    return true;
}

static bool put_names(sf *f, put *p, Tq__Publish *message)
{
    Tq__Batch *batch = message->batch;
    int partition = -1;

    switch (sf_pick(f, 4)) {
    case 0:
        p->n = batch->n_key = 1 + sf_pick(f, 4);
        batch->key = some_keys(f, p->n);
        message->create = true;
        break;
    case 1:
        p->n = batch->n_index = some_samples(f, &partition, &batch->index, &batch->incarnation);
        if (p->n) {
            batch->n_incarnation = p->n;
            batch->partition = sf_text(f, "p%d", partition);
            break;
        } /* fall through */
    default:
        p->n = message->samples = 1 + sf_pick(f, 6);
        if (sf_once_in(f, 3)) {
            batch->group = sf_alloc(f, p->n * sizeof(char *));
            batch->n_group = p->n;
            for (size_t i = 0; i < p->n; i++) {
                batch->group[i] = sf_text(f, "g%u", sf_pick(f, 4));
            }
        }
        break;
    }
    return p->n > 0;
}

void sf_step_publish(sf *f, sf_client *client)
{
    Tq__Publish *message = sf_message(f, &tq__publish__descriptor);
    put p = {.batch = sf_message(f, &tq__batch__descriptor)};

    message->batch = p.batch;
    p.batch->partition = sf_partition_name(f);
    if (!put_names(f, &p, message) || !put_place(f, client, &p)) {
        return;
    }
    put_fields(f, &p);
    if (sf_once_in(f, 3)) {
        put_tags(f, &p);
    }
    if (p.batch->n_index && (p.opaque || sf_once_in(f, 4))) {
        message->remover = sf_text(f, "r%u", sf_pick(f, 3));
    }
    message->other_fields = sf_once_in(f, 4);
    bool fresh = message->samples && !(p.block && p.growing) && !f->strict;
    sf_send(f, client, TQI_PUBLISH, message, fresh ? SF_CLEAN : 0);
    if (p.at != NULL) {
        p.at->id = 0; /* published, or dead with a publish that was refused */
    }
}

void sf_step_reserve(sf *f, sf_client *client)
{
    Tq__Reserve *message = sf_message(f, &tq__reserve__descriptor);

    message->partition = sf_partition_name(f);
    if (sf_pick(f, 2)) {
        message->samples = 1 + sf_pick(f, 8);
    } else {
        message->n_key = 1 + sf_pick(f, 6);
        message->key = some_keys(f, message->n_key);
    }
    sf_send(f, client, TQI_RESERVE, message, SF_MUST);
}

/* --- claim ---------------------------------------------------------------- */

void sf_step_claim(sf *f, sf_client *client)
{
    static const char *const samplers[] = {
        "", "", "SequentialSampler", "GRPOGroupNSampler", "RankAwareSampler", "SeqlenBalancedSampler"};
    static const char *const configs[] = {"", "{\"n_samples_per_prompt\": 2}",
                                          "{\"dp_rank\": 0, \"dp_size\": 2, \"batch_index\": 1}",
                                          "{\"dp_rank\": 1, \"dp_size\": 2, \"batch_index\": 1}"};
    Tq__Claim *message = sf_message(f, &tq__claim__descriptor);
    uint32_t sampler = sf_pick(f, 6);

    message->partition = sf_partition_name(f);
    message->n_field = 1 + sf_pick(f, 8) / 6;
    message->field = some_fields(f, message->n_field);
    message->batch_size = 1 + sf_pick(f, 3);
    message->task = sf_text(f, "t%u", sf_pick(f, 3));
    message->sampler = sf_text(f, "%s", samplers[sampler]);
    message->config = sf_text(f, "%s", sampler == 3 ? configs[1] : sampler >= 4 ? configs[2 + sf_pick(f, 2)] : "");
    message->mode = sf_once_in(f, 4) ? TQ__CLAIM_MODE__FORCE_FETCH : TQ__CLAIM_MODE__FETCH;
    message->poll = sf_pick(f, 2);
    message->timeout_ms = sf_pick(f, 4) * 40;
    message->tags = sf_pick(f, 2);
    bool waits = !message->poll && message->mode == TQ__CLAIM_MODE__FETCH;
    sf_send(f, client, TQI_CLAIM, message,
            waits                                          ? SF_WAITS
            : message->mode == TQ__CLAIM_MODE__FORCE_FETCH ? SF_MUST
                                                           : 0);
}

void sf_step_release(sf *f, sf_client *client)
{
    Tq__Release *message = sf_message(f, &tq__release__descriptor);

    if (client->n_claim) {
        message->claim = client->claim[(client->n_claim - 1) % SF_MANY];
    }
    sf_send(f, client, TQI_RELEASE, message, SF_MUST);
}

void sf_step_resolve(sf *f, sf_client *client)
{
    Tq__Resolve *message = sf_message(f, &tq__resolve__descriptor);
    int partition = -1;
    uint32_t which = sf_pick(f, 4);

    message->partition = sf_partition_name(f);
    message->lenient = sf_pick(f, 2);
    message->tags = sf_pick(f, 2);
    if (which == 0) {
        message->n_key = 1 + sf_pick(f, 4);
        message->key = some_keys(f, message->n_key);
    } else if (which == 1) {
        message->n_index = some_samples(f, &partition, &message->index, &message->incarnation);
        message->n_incarnation = message->n_index;
        if (partition >= 0) {
            message->partition = sf_text(f, "p%d", partition);
        }
    }
    if (sf_once_in(f, 3)) {
        message->n_field = 1 + sf_pick(f, 3);
        message->field = some_fields(f, message->n_field);
    }
    bool must = message->lenient && !message->n_index;
    sf_send(f, client, TQI_RESOLVE, message, must ? SF_MUST : 0);
}

/* --- clear ---------------------------------------------------------------- */

static Tq__Clear *some_clear(sf *f)
{
    Tq__Clear *message = sf_message(f, &tq__clear__descriptor);
    int partition = -1;
    uint32_t which = sf_pick(f, 16);

    message->partition = sf_partition_name(f);
    if (which == 0) {
        message->all = true;
    } else if (which < 5) {
        message->n_key = 1 + sf_pick(f, 4);
        message->key = some_keys(f, message->n_key);
    } else {
        message->n_index = some_samples(f, &partition, &message->index, &message->incarnation);
        message->n_incarnation = message->n_index;
        if (partition >= 0) {
            message->partition = sf_text(f, "p%d", partition);
        }
    }
    return message;
}

void sf_step_clear(sf *f, sf_client *client)
{
    sf_send(f, client, TQI_CLEAR, some_clear(f), SF_MUST);
}

void sf_step_begin_clear(sf *f, sf_client *client)
{
    Tq__BeginClear *message = sf_message(f, &tq__begin_clear__descriptor);

    message->remover = sf_text(f, "r%u", sf_pick(f, 3));
    if (sf_pick(f, 8)) {
        message->clear = some_clear(f);
    }
    sf_send(f, client, TQI_BEGIN_CLEAR, message, SF_MUST);
}

void sf_step_end_clear(sf *f, sf_client *client)
{
    Tq__EndClear *message = sf_message(f, &tq__end_clear__descriptor);

    if (!client->n_clearing) {
        sf_step_begin_clear(f, client);
        return;
    }
    message->id = client->clearing[--client->n_clearing % SF_MANY];
    message->removed = sf_pick(f, 4) > 0;
    sf_send(f, client, TQI_END_CLEAR, message, SF_CLEAN);
}

void sf_step_reset_consumption(sf *f, sf_client *client)
{
    Tq__ResetConsumption *message = sf_message(f, &tq__reset_consumption__descriptor);

    message->partition = sf_partition_name(f);
    if (sf_pick(f, 2)) {
        message->task = sf_text(f, "t%u", sf_pick(f, 3));
    }
    sf_send(f, client, TQI_RESET_CONSUMPTION, message, SF_MUST);
}

/* --- asking --------------------------------------------------------------- */

void sf_step_consumption_query(sf *f, sf_client *client)
{
    Tq__ConsumptionQuery *message = sf_message(f, &tq__consumption_query__descriptor);

    message->partition = sf_partition_name(f);
    message->task = sf_text(f, "t%u", sf_pick(f, 3));
    sf_send(f, client, TQI_CONSUMPTION, message, SF_MUST);
}

void sf_step_production_query(sf *f, sf_client *client)
{
    Tq__ProductionQuery *message = sf_message(f, &tq__production_query__descriptor);

    message->partition = sf_partition_name(f);
    message->n_field = 1 + sf_pick(f, 3);
    message->field = some_fields(f, message->n_field);
    sf_send(f, client, TQI_PRODUCTION, message, SF_MUST);
}

void sf_step_list_partitions(sf *f, sf_client *client)
{
    sf_send(f, client, TQI_LIST_PARTITIONS, sf_message(f, &tq__list_partitions__descriptor), SF_MUST);
}

void sf_step_list_keys(sf *f, sf_client *client)
{
    Tq__ListKeys *message = sf_message(f, &tq__list_keys__descriptor);
    uint32_t which = sf_pick(f, 4);

    if (which > 0) {
        message->partition = sf_partition_name(f);
    }
    if (which > 1) {
        message->limit = 1 + sf_pick(f, 4);
    }
    if (which > 2) {
        message->after = sf_text(f, "k%u", sf_pick(f, 12));
        message->mark = f->mark;
    }
    sf_send(f, client, TQI_LIST_KEYS, message, which == 0 ? SF_MUST : 0);
}

void sf_step_retrieve_keys(sf *f, sf_client *client)
{
    Tq__RetrieveKeys *message = sf_message(f, &tq__retrieve_keys__descriptor);
    uint32_t *incarnation;
    int partition = -1;

    message->n_index = some_samples(f, &partition, &message->index, &incarnation);
    message->partition = partition >= 0 ? sf_text(f, "p%d", partition) : sf_partition_name(f);
    sf_send(f, client, TQI_RETRIEVE_KEYS, message, 0);
}
