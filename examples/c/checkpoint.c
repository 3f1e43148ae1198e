/*
 * checkpoint.c DIR - saves the table with its data while others work, and loads it again.
 */
#include "example.h"

static void save(tq_op *op, const char *path)
{
    tq_save_args args = tq_save_args_init();
    const tq_checkpoint *made;

    args.path = path;
    args.metadata = "{\"step\": 7}";
    if (tq_save(op, &args) != TQ_OK) {
        must(tq_op_error(op)->code, tq_op_error(op));
    }
    while (!tq_op_wait_for(op, 1)) {
        uint64_t total;
        uint64_t moved = tq_op_moved(op, &total);

        printf("%llu of %llu bytes\n", (unsigned long long)moved, (unsigned long long)total);
    }
    must(tq_op_error(op)->code, tq_op_error(op));
    made = tq_op_checkpoint(op);
    printf("saved %llu samples\n", (unsigned long long)made->samples);
}

static void load(tq_op *op, const char *path)
{
    done(op, tq_load(op, path));
    printf("loaded %llu samples, saved with %s\n", (unsigned long long)tq_op_checkpoint(op)->samples,
           tq_op_checkpoint(op)->metadata);
}

int main(int argc, char **argv)
{
    const float numbers[2] = {1, 2};
    tq_client *client;
    tq_op *op;

    if (argc != 2) {
        fprintf(stderr, "usage: checkpoint DIR\n");
        return 2;
    }
    client = open_client();
    op = tq_op_alloc(client, NULL, NULL);
    put_numbers(op, "saved", numbers, 2);
    save(op, argv[1]);
    done(op, tq_clear_partition(op, "saved"));
    load(op, argv[1]);
    done(op, tq_clear_partition(op, "saved"));
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
