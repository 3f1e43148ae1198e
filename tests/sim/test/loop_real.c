/*
 * loop_real.c - prints what the script sees with libuv itself.
 */
#include "loop_script.h"

#include <stdio.h>

int main(void)
{
    static char out[1 << 16];

    loop_script(out, sizeof(out));
    fputs(out, stdout);
    return 0;
}
