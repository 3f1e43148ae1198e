/*
 * witness.c - the commits of a seed, and the ledgers of the tables that exist. See witness.h.
 */
#include "oracle/guard.h"
#include "oracle/ledger.h"
#include "oracle/objects.h"

#include "table/records.h"

const char *const witness_kind_names[WITNESS_KINDS] = {
    [WITNESS_PUBLISH] = "publish",     [WITNESS_RESERVE] = "reserve",
    [WITNESS_CLEAR] = "clear",         [WITNESS_CLEAR_BEGIN] = "clear begin",
    [WITNESS_CLEAR_END] = "clear end", [WITNESS_RESET] = "reset",
    [WITNESS_TAKE] = "take",           [WITNESS_SETTLE] = "settle",
    [WITNESS_RELEASE] = "release",     [WITNESS_SESSION_END] = "session end",
    [WITNESS_LOST] = "lost",           [WITNESS_MOVE] = "move",
    [WITNESS_DROP] = "drop",           [WITNESS_RESTORE] = "restore",
};

static ledger *ledgers;
static witness_commit *commits;
static uint32_t n_commits, commits_capacity;
static sim_chance chance;
static uint64_t compare_one_in;

void witness_start(uint64_t seed)
{
    sim_chance_init(&chance, seed, "witness");
    compare_one_in = UINT64_C(16) << sim_below(&chance, 6);
    objects_start();
}

void witness_end(void)
{
    while (ledgers != NULL) {
        ledger *next = ledgers->next;
        ledger_close(ledgers);
        ledgers = next;
    }
    sim_free(commits);
    commits = NULL;
    n_commits = commits_capacity = 0;
    guard_end();
    objects_end();
    ledger_forget();
}

void witness_commits(const witness_commit **out, size_t *n)
{
    *out = commits;
    *n = n_commits;
}

uint64_t witness_count(void)
{
    return n_commits;
}

bool witness_is_lost(uint64_t controller, const char *partition, witness_sample sample, const char *field)
{
    for (const ledger *l = ledgers; l != NULL; l = l->next) {
        const ledger_partition *in = l->pid == controller ? ledger_partition_find(l, partition) : NULL;
        const ledger_sample *found = in != NULL ? ledger_member(l, in, sample.index, sample.incarnation) : NULL;
        int64_t f = found != NULL ? ledger_field_find(in, field) : -1;
        if (f >= 0) {
            return ledger_cell_of(found, (uint32_t)f)->state == LEDGER_LOST;
        }
    }
    return false;
}

ledger_block_state witness_block(const char *owner, uint64_t incarnation, uint64_t id)
{
    for (const ledger *l = ledgers; l != NULL; l = l->next) {
        uint32_t found = ledger_block_find(l, id);
        const ledger_owner *of = found != 0 ? &l->owners[l->blocks[found - 1].owner] : NULL;
        if (of != NULL && of->name == ledger_name(owner) && of->incarnation == incarnation) {
            return l->blocks[found - 1].state;
        }
    }
    return LEDGER_FREE;
}

/* --- tables ------------------------------------------------------------------------ */

/* Of processes that have been killed. */
static void ledgers_bury(void)
{
    for (ledger **at = &ledgers; *at != NULL;) {
        ledger *l = *at;
        if (l->pid != 0 && sim_process_of(l->pid) == NULL) {
            *at = l->next;
            ledger_close(l);
        } else {
            at = &l->next;
        }
    }
}

static ledger *ledger_of(const tqi_table *table)
{
    uint64_t pid = sim_self != NULL ? sim_self->pid : 0;
    ledger *l = ledgers;

    while (l != NULL && (l->table != table || l->pid != pid)) {
        l = l->next;
    }
    return l;
}

WITNESS_WRAP(int, tqi_table_alloc, const tqi_table_options *options, tqi_table **out, tq_error *err)
{
    int rc = __real_tqi_table_alloc(options, out, err);

    if (rc == TQ_OK) {
        ledgers_bury();
        ledger *l = ledger_open(*out, options);
        l->process = sim_self;
        l->pid = sim_self != NULL ? sim_self->pid : 0;
        l->next = ledgers;
        ledgers = l;
    }
    return rc;
}

WITNESS_WRAP(void, tqi_table_free, tqi_table *table)
{
    ledger *l = table != NULL ? witness_enter(table) : NULL;

    if (l != NULL) {
        ledger_compare(l);
    }
    __real_tqi_table_free(table);
    for (ledger **at = &ledgers; l != NULL && *at != NULL; at = &(*at)->next) {
        if (*at == l) {
            *at = l->next;
            ledger_close(l);
            break;
        }
    }
}

ledger *witness_enter(const tqi_table *table)
{
    ledger *l = ledger_of(table);

    if (l == NULL || l->inside) {
        return NULL;
    }
    l->inside = true;
    l->operation++;
    l->n_gone = 0;
    return l;
}

void witness_leave(ledger *l)
{
    l->inside = false;
}

ledger *witness_look(const tqi_table *table)
{
    ledger *l = ledger_of(table);

    return l != NULL && !l->inside ? l : NULL;
}

/* --- commits -------------------------------------------------------------------------- */

static const ledger_session *session_of(const ledger *l, uint64_t number)
{
    for (uint32_t i = l->n_sessions; i > 0; i--) {
        if (l->sessions[i - 1].number == number) {
            return &l->sessions[i - 1];
        }
    }
    return NULL;
}

witness_commit *witness_add(ledger *l, witness_kind kind, const ledger_request *request)
{
    const ledger_session *session = request != NULL ? session_of(l, request->session) : NULL;

    LEDGER_GROW(commits, commits_capacity, n_commits + 1);
    witness_commit *commit = &commits[n_commits++];
    *commit = (witness_commit){
        .number = n_commits,
        .time = sim_time(),
        .controller = l->pid,
        .epoch = l->options.epoch,
        .kind = kind,
        .client = session != NULL && session->name != NULL ? session->name : "",
        .pid = session != NULL ? session->pid : 0,
        .partition = "",
        .task = "",
    };
    if (request != NULL) {
        commit->session = request->session;
        commit->request = request->number;
        commit->request_kind = request->kind;
    }
    sim_trace("commit", kind, n_commits);
    return commit;
}

const witness_sample *witness_samples(const witness_sample *samples, uint32_t n)
{
    witness_sample *kept = ledger_keep(n * sizeof(*kept));

    if (n > 0) {
        memcpy(kept, samples, n * sizeof(*kept));
    }
    return kept;
}

void witness_gone(ledger *l, witness_commit *commit)
{
    commit->samples = witness_samples(l->gone, l->n_gone);
    commit->n = l->n_gone;
    l->n_gone = 0;
}

void witness_checked(ledger *l, bool refused)
{
    if (sim_one_in(&chance, refused ? compare_one_in / 8 : compare_one_in)) {
        ledger_compare(l);
        guard_look();
    }
}
