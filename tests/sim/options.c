/*
 * options.c - see options.h.
 */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "chance.h"
#include "load/load.h"

static const char options_help[] =
    "sim: runs the whole system in one thread, in virtual time, with faults that are drawn from a seed\n"
    "  --seed N            only that seed\n"
    "  --seeds A-B         these seeds (default: 1-100); A-: from A on, with --seconds\n"
    "  --seconds S         as many of them as it runs in that time\n"
    "  --jobs N            processes at a time\n"
    "  --stop              end at the first finding\n"
    "  --twice             run every seed twice and compare the traces (default: every tenth)\n"
    "  --trace             print every event\n"
    "  --verbose           print what each seed drew, the faults and the marks\n"
    "  --history FILE      write what clients saw; tests/sim/check_history.py reads it\n"
    "  --load NAME         only that workload\n"
    "  --budget N          operations per client\n"
    "  --without FAULT     that kind of fault is off (may be repeated; all: no faults)\n"
    "  --only F:N,...      of the faults that the seed has, only these happen (none: none of them)\n"
    "  --operations N      each client ends after that many operations\n"
    "  --shrink            with --seed: find the smallest set of faults and operations that still fails\n"
    "  --corpus FILE       run the lines of a file: seeds with options of this program\n"
    "  --base ADDRESS      memory of the simulated processes begins there\n"
    "  --down              it is handed out from its end downwards\n";

/* A line of a corpus, for errors; NULL: the options are those of the command line. */
static const char *options_where;

static _Noreturn void options_wrong(const char *format, ...)
{
    va_list list;

    fprintf(stderr, "sim: %s%s", options_where != NULL ? options_where : "", options_where != NULL ? ": " : "");
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\n");
    exit(2);
}

/* A number, followed by the end of the text or by one of these characters. */
static uint64_t options_number(const char *text, const char *stops)
{
    char *end = NULL;

    errno = 0;
    unsigned long long number = strtoull(text, &end, 0);
    if (!isdigit((unsigned char)text[0]) || errno != 0 || strchr(stops, *end) == NULL) {
        options_wrong("'%s' is not a number", text);
    }
    return number;
}

static uint32_t options_small(const char *text, const char *stops)
{
    uint64_t number = options_number(text, stops);

    if (number > UINT32_MAX) {
        options_wrong("'%s' is too large", text);
    }
    return (uint32_t)number;
}

static double options_seconds(const char *text)
{
    char *end = NULL;
    double seconds = strtod(text, &end);

    if (end == text || *end != 0 || !(seconds > 0 && seconds < 1e9)) {
        options_wrong("'%s' is not a number of seconds", text);
    }
    return seconds;
}

static const char *options_load(const char *name)
{
    for (size_t i = 0; i < load_kinds_count; i++) {
        if (strcmp(load_kinds[i]->name, name) == 0) {
            return name;
        }
    }
    options_wrong("no workload is named '%s'", name);
}

static sim_fault options_fault(const char *name, size_t size)
{
    for (int i = 0; i < SIM_FAULTS; i++) {
        if (strlen(sim_fault_name((sim_fault)i)) == size && strncmp(sim_fault_name((sim_fault)i), name, size) == 0) {
            return (sim_fault)i;
        }
    }
    options_wrong("no fault is named '%.*s'", (int)size, name);
}

static void options_without(const char *name)
{
    sim_faults *faults = &sim_faults_drawn;

    if (strcmp(name, "all") == 0) {
        faults->n_off = 0;
        for (int i = 0; i < SIM_FAULTS; i++) {
            faults->off[faults->n_off++] = (sim_fault)i;
        }
        return;
    }
    sim_fault fault = options_fault(name, strlen(name));
    for (size_t i = 0; i < faults->n_off; i++) {
        if (faults->off[i] == fault) {
            return;
        }
    }
    faults->off[faults->n_off++] = fault;
}

static void options_only(const char *list)
{
    sim_faults *faults = &sim_faults_drawn;

    faults->selects = true;
    while (strcmp(list, "none") != 0 && *list) {
        const char *colon = strchr(list, ':');
        if (colon == NULL || faults->n_selected == SIM_DECISIONS) {
            options_wrong("--only wants FAULT:NUMBER,..., at most %d", SIM_DECISIONS);
        }
        faults->selected[faults->n_selected++] =
            (sim_decision){options_fault(list, (size_t)(colon - list)), options_small(colon + 1, ",")};
        list = colon + strcspn(colon, ",");
        list += *list == ',';
    }
}

static void options_seed_range(const char *text, sim_options *out)
{
    const char *dash = strchr(text, '-');

    out->first = options_number(text, "-");
    out->has_last = dash == NULL || dash[1] != 0;
    if (out->has_last) {
        out->last = dash != NULL ? options_number(dash + 1, "") : out->first;
        if (out->last < out->first || out->last == UINT64_MAX) {
            options_wrong("there are no seeds %s", text);
        }
    }
}

static const struct option options_names[] = {
    {"seed", required_argument, NULL, 's'},
    {"seeds", required_argument, NULL, 's'},
    {"seconds", required_argument, NULL, 'S'},
    {"jobs", required_argument, NULL, 'j'},
    {"stop", no_argument, NULL, 'x'},
    {"twice", no_argument, NULL, '2'},
    {"trace", no_argument, NULL, 't'},
    {"verbose", no_argument, NULL, 'v'},
    {"quiet", no_argument, NULL, 'q'},
    {"history", required_argument, NULL, 'H'},
    {"load", required_argument, NULL, 'l'},
    {"budget", required_argument, NULL, 'b'},
    {"without", required_argument, NULL, 'w'},
    {"only", required_argument, NULL, 'o'},
    {"operations", required_argument, NULL, 'n'},
    {"shrink", no_argument, NULL, 'k'},
    {"corpus", required_argument, NULL, 'c'},
    {"base", required_argument, NULL, 'B'},
    {"every", required_argument, NULL, 'e'},
    {"help", no_argument, NULL, 'h'},
    {"down", no_argument, NULL, 'd'},
    {NULL, 0, NULL, 0},
};

/* An option without an argument; false: it is another one. */
static bool options_flag(int option, sim_options *out)
{
    switch (option) {
    case 'x':
        out->stop = true;
        break;
    case '2':
        out->twice = true;
        break;
    case 't':
        out->trace = true;
        break;
    case 'v':
        out->verbose = true;
        break;
    case 'q':
        out->quiet = true;
        break;
    case 'k':
        out->shrink = true;
        break;
    case 'd':
        sim_memory_down = true;
        break;
    default:
        return false;
    }
    return true;
}

/* An option with an argument; false: there is none of that name. */
static bool options_value(int option, sim_options *out)
{
    switch (option) {
    case 's':
        options_seed_range(optarg, out);
        break;
    case 'S':
        out->seconds = options_seconds(optarg);
        break;
    case 'j':
        out->jobs = options_small(optarg, "");
        break;
    case 'H':
        out->history = optarg;
        break;
    case 'l':
        out->world.load = options_load(optarg);
        break;
    case 'b':
        out->world.budget = options_small(optarg, "");
        break;
    case 'w':
        options_without(optarg);
        break;
    case 'o':
        options_only(optarg);
        break;
    case 'n':
        out->world.operations = options_small(optarg, "");
        break;
    case 'c':
        out->corpus = optarg;
        break;
    case 'B':
        sim_memory_base = (uintptr_t)options_number(optarg, "");
        break;
    case 'e':
        out->every = options_number(optarg, "");
        break;
    default:
        return false;
    }
    return true;
}

void options_parse(int argc, char **argv, const char *where, sim_options *out)
{
    int option;

    options_where = where;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options_names, NULL)) != -1) {
        if (option == 'h') {
            fputs(options_help, stdout);
            exit(0);
        }
        if (!options_flag(option, out) && !options_value(option, out)) {
            options_wrong("see --help");
        }
    }
    if (optind < argc) {
        options_wrong("'%s' is not an option: see --help", argv[optind]);
    }
    if (out->jobs < 1 || out->jobs > OPTIONS_JOBS) {
        options_wrong("--jobs wants 1 to %d", OPTIONS_JOBS);
    }
    if (!out->has_last && out->seconds <= 0 && out->corpus == NULL) {
        out->has_last = true;
        out->last = out->first + 99;
    }
}

void options_print(FILE *to, const sim_options *options)
{
    const sim_faults *faults = &sim_faults_drawn;

    if (options->twice) {
        fprintf(to, " --twice");
    }
    if (faults->n_off >= SIM_FAULTS) {
        fprintf(to, " --without all");
    }
    for (size_t i = 0; i < faults->n_off && faults->n_off < SIM_FAULTS; i++) {
        fprintf(to, " --without %s", sim_fault_name(faults->off[i]));
    }
    if (faults->selects) {
        fprintf(to, " --only ");
        for (size_t i = 0; i < faults->n_selected; i++) {
            fprintf(to, "%s%s:%u", i > 0 ? "," : "", sim_fault_name(faults->selected[i].fault),
                    faults->selected[i].number);
        }
        if (faults->n_selected == 0) {
            fprintf(to, "none");
        }
    }
    if (options->world.load != NULL) {
        fprintf(to, " --load %s", options->world.load);
    }
    if (options->world.budget) {
        fprintf(to, " --budget %u", options->world.budget);
    }
    if (options->world.operations) {
        fprintf(to, " --operations %u", options->world.operations);
    }
}
