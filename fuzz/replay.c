/*
 * replay.c: runs a fuzz target over its corpus, for builds without libFuzzer.
 *
 * Arguments are files and folders; each file is one input. Linked with one LLVMFuzzerTestOneInput. Each input
 * lies in its own allocation of its exact size, so that the sanitizers and valgrind see a read past its end.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long inputs;

static int replay_fail(const char *path)
{
    fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
    return -1;
}

static int replay_file(const char *path, size_t size)
{
    int rc = -1;
    uint8_t *data = malloc(size ? size : 1);
    FILE *file = fopen(path, "rb");

    if (data == NULL || file == NULL || fread(data, 1, size, file) != size) {
        replay_fail(path);
        goto done;
    }
    LLVMFuzzerTestOneInput(data, size);
    inputs++;
    rc = 0;
done:
    if (file != NULL) {
        fclose(file);
    }
    free(data);
    return rc;
}

static int replay_path(const char *path);

static int replay_folder(const char *path)
{
    int rc = 0;
    DIR *dir = opendir(path);

    if (dir == NULL) {
        return replay_fail(path);
    }
    for (struct dirent *entry = readdir(dir); entry != NULL && rc == 0; entry = readdir(dir)) {
        char *child = NULL;
        if (entry->d_name[0] == '.') {
            continue;
        }
        if (asprintf(&child, "%s/%s", path, entry->d_name) < 0) {
            rc = replay_fail(path);
            break;
        }
        rc = replay_path(child);
        free(child);
    }
    closedir(dir);
    return rc;
}

static int replay_path(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        return replay_fail(path);
    }
    return S_ISDIR(st.st_mode) ? replay_folder(path) : replay_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (replay_path(argv[i]) != 0) {
            return 1;
        }
    }
    if (inputs == 0) {
        fprintf(stderr, "replay: no inputs\n");
        return 1;
    }
    printf("replayed %lu inputs\n", inputs);
    return 0;
}
