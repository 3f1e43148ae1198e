/*
 * client.c - finding a system, opening a client with options, and what a program may ask about both.
 */
#include <string.h>
#include <unistd.h>

#include "example.h"

static void show_versions(void)
{
    printf("built with %d.%d.%d, runs with %s\n", TQ_VERSION_MAJOR, TQ_VERSION_MINOR, TQ_VERSION_PATCH, tq_version());
}

static void show_error(int rc)
{
    printf("%s: %s\n", tq_error_name(rc), tq_strerror(rc));
}

static void show_memory(void)
{
    bool of_cgroup;
    uint64_t bytes = tq_memory_limit(&of_cgroup);

    printf("%llu MiB, by the %s\n", (unsigned long long)(bytes >> 20), of_cgroup ? "control group" : "machine");
}

static void show_runtime_directory(void)
{
    char path[4096];
    tq_error err;

    must(tq_runtime_dir(path, sizeof(path), &err), &err);
    printf("handles are in %s\n", path);
}

/* What a supervisor does after it has killed a daemon. */
static void clean_up_after(const char *system)
{
    int fd;
    tq_error err;

    if (tq_runtime_open(system, false, &fd, &err) == TQ_OK) {
        tq_runtime_clear(fd);
        close(fd);
    } else {
        printf("nothing to clean up: %s\n", tq_error_name(err.code));
    }
}

static void find(tq_location *place)
{
    tq_error err;

    *place = tq_location_init();
    must(tq_discover(NULL, place, &err), &err);
    printf("system '%s' of process %llu\n", place->name, (unsigned long long)place->pid);
}

static tq_client *open_with_options(const tq_location *place)
{
    tq_client_options options = tq_client_options_init();
    tq_client *client;
    tq_error err;

    options.address = place->address;
    options.token_file = place->token_file;
    options.name = "example";
    options.timeout = 10; /* seconds, for opening and for calls */
    must(tq_client_open(&options, &client, &err), &err);
    return client;
}

static void show_system(const tq_client *client)
{
    printf("run %s, configuration of %zu bytes\n", tq_client_epoch(client) != 0 ? "known" : "unknown",
           strlen(tq_client_config(client)));
}

int main(void)
{
    tq_location place;
    tq_client *client;

    show_versions();
    show_error(TQ_EFULL);
    show_memory();
    show_runtime_directory();
    clean_up_after("no-such-system");
    find(&place);
    client = open_with_options(&place);
    show_system(client);
    tq_client_close(client);
    return 0;
}
