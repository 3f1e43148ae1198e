/*
 * main.c - the program tqd.
 */
#include <tq/daemon.h>

int main(int argc, char **argv)
{
    return tq_daemon_run(argc, argv, NULL);
}
