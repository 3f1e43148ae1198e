/* hello.c - puts, claims and reads three numbers. cc hello.c $(pkg-config --cflags --libs tq) */
#include <stdio.h>
#include <tq/tq.h>

static int ok(tq_op *op, int started)
{
    return started == TQ_OK && tq_op_wait(op) == TQ_OK;
}

int main(void)
{
    const float numbers[3] = {1, 2, 3};
    const tq_slice bytes = {numbers, sizeof(numbers)};
    const tq_column column = tq_column_make("x", TQ_FLOAT, 32, 3, &bytes);
    tq_client_options options = tq_client_options_init();
    tq_put_args put = tq_put_args_init();
    tq_claim_args claim = tq_claim_args_init();
    tq_client *client = NULL;
    tq_error err;

    put.partition = claim.partition = claim.task = "hello";
    put.columns = &column;
    put.n_columns = claim.n_fields = 1;
    claim.fields = &column.name;
    claim.batch_size = 3;
    if (tq_client_open(&options, &client, &err) != TQ_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    if (ok(op, tq_put(op, &put)) && ok(op, tq_claim(op, &claim)) && ok(op, tq_get(op, tq_op_meta(op), NULL, 0, NULL))) {
        const float *x = (const float *)tq_data_find_column(tq_op_data(op), "x")->data;
        printf("%.0f %.0f %.0f\n", x[0], x[1], x[2]);
    }
    err = *tq_op_error(op);
    fputs(err.message, stderr); /* empty if all went well */
    tq_op_free(op);
    tq_client_close(client);
    return err.code == TQ_OK ? 0 : 1;
}
