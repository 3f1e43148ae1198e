/*
 * machine.c - which machine this is: two processes that read the same name can share memory and unix sockets.
 *
 * The kernel's boot id is the same for all processes on a running kernel, containers included, and different after a
 * reboot and on another machine that has the same host name.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

void tqi_store_machine(char out[TQI_STORE_MACHINE])
{
    char name[TQI_STORE_MACHINE] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, name, sizeof(name) - 1);

    if (fd >= 0) {
        close(fd);
    }
    if (n <= 0 && gethostname(name, sizeof(name) - 1) != 0) {
        name[0] = 0;
    }
    name[strcspn(name, "\n")] = 0;
    memcpy(out, name, sizeof(name));
}
