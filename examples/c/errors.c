/*
 * errors.c - errors that a program handles: each function provokes one, and returns it.
 */
#include <string.h>

#include "example.h"

static const char *field = "x";

static tq_claim_args claim_of(int64_t n)
{
    tq_claim_args claim = tq_claim_args_init();

    claim.partition = "errors";
    claim.task = "train";
    claim.fields = &field;
    claim.n_fields = 1;
    claim.batch_size = n;
    return claim;
}

static tq_error claim_at_once(tq_op *op)
{
    tq_claim_args claim = claim_of(3);

    claim.poll = true;
    if (tq_claim(op, &claim) == TQ_OK) {
        tq_op_wait(op);
    }
    return *tq_op_error(op); /* TQ_EAGAIN: come back later */
}

static tq_error cancel(tq_op *op)
{
    tq_claim_args claim = claim_of(3);

    if (tq_claim(op, &claim) == TQ_OK) {
        tq_op_cancel(op);
        tq_op_wait(op);
    }
    return *tq_op_error(op); /* TQ_ECANCELED: no sample was claimed */
}

static tq_error unpack_rubbish(void)
{
    tq_meta *meta = NULL;
    tq_error err = {0};

    if (tq_meta_unpack((const uint8_t *)"rubbish", 7, &meta, &err) == TQ_OK) {
        tq_meta_unref(meta);
    }
    return err; /* TQ_EPROTO: nothing was believed */
}

static void show(tq_error err)
{
    printf("%s: %s\n", tq_error_name(err.code), err.message);
}

int main(void)
{
    const float numbers[2] = {1, 2};
    tq_client *client = open_client();
    tq_op *op = tq_op_alloc(client, NULL, NULL);

    put_numbers(op, "errors", numbers, 2);
    show(claim_at_once(op));
    show(cancel(op));
    show(unpack_rubbish());
    done(op, tq_clear_partition(op, "errors"));
    tq_op_free(op);
    tq_client_close(client);
    return 0;
}
