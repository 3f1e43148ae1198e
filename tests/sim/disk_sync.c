/*
 * disk_sync.c - what lies on the medium: fsync, writing back, the loss of power, flipped bits. See disk_tree.h.
 *
 * After a loss of power everything that was synced is there. Of the rest there is nothing, or all of it, or everything
 * up to some moment (and the write at that moment in part), or any of the sectors and any of the changes of names; but
 * changes of one name keep their order.
 */
#include "disk_tree.h"

#include <string.h>

/* --- bytes -------------------------------------------------------------------- */

void disk_bytes_resize(disk_bytes *bytes, size_t size)
{
    if (size > bytes->room) {
        bytes->room = size < 2 * bytes->room ? 2 * bytes->room : size;
        bytes->bytes = sim_realloc(bytes->bytes, bytes->room);
    }
    if (size > bytes->size) {
        memset(bytes->bytes + bytes->size, 0, size - bytes->size);
    }
    bytes->size = size;
}

void disk_bytes_write(disk_bytes *bytes, size_t offset, const void *from, size_t size)
{
    if (size == 0) {
        return;
    }
    if (offset + size > bytes->size) {
        disk_bytes_resize(bytes, offset + size);
    }
    memcpy(bytes->bytes + offset, from, size);
}

/* --- what is listed ------------------------------------------------------------ */

static disk_write *disk_list_write(disk_node *node, size_t offset, size_t size)
{
    disk_write *write = sim_alloc(sizeof(*write));

    write->number = ++node->host->changes_made;
    write->time = sim_time();
    write->offset = offset;
    write->size = size;
    *node->writes_end = write;
    node->writes_end = &write->next;
    return write;
}

void disk_node_write(disk_node *node, size_t offset, const void *bytes, size_t size)
{
    disk_write *write;

    if (size == 0) {
        return;
    }
    write = disk_list_write(node, offset, size);
    write->bytes = sim_alloc(size);
    memcpy(write->bytes, bytes, size);
    disk_bytes_write(&node->now, offset, bytes, size);
    sim_trace("disk write", node->number, size);
}

void disk_node_resize(disk_node *node, size_t size)
{
    if (size != node->now.size) {
        disk_list_write(node, size, 0);
        disk_bytes_resize(&node->now, size);
        sim_trace("disk resize", node->number, size);
    }
}

static void disk_write_take(disk_node *node)
{
    disk_write *write = node->writes;

    node->writes = write->next;
    if (node->writes == NULL) {
        node->writes_end = &node->writes;
    }
    sim_free(write->bytes);
    sim_free(write);
}

void disk_node_drop_writes(disk_node *node)
{
    while (node->writes != NULL) {
        disk_write_take(node);
    }
}

/* --- to the medium ---------------------------------------------------------------- */

static void disk_apply_write(disk_node *node, const disk_write *write)
{
    if (write->bytes == NULL) {
        disk_bytes_resize(&node->medium, write->offset);
    } else {
        disk_bytes_write(&node->medium, write->offset, write->bytes, write->size);
    }
}

static void disk_apply_change(const disk_change *change)
{
    for (uint32_t i = 0; i < change->n; i++) {
        disk_names_set(&change->part[i].dir->medium_names, change->part[i].name, change->part[i].node);
    }
}

/* Takes the change out of the list, of which `at` is the link to it. */
static void disk_change_take(disk_host *host, disk_change **at)
{
    disk_change *change = *at;

    *at = change->next;
    if (*at == NULL) {
        host->changes_end = at;
    }
    for (uint32_t i = 0; i < change->n; i++) {
        sim_free(change->part[i].name);
        if (change->part[i].node != NULL) {
            disk_unref(change->part[i].node);
        }
        disk_unref(change->part[i].dir);
    }
    sim_free(change);
}

void disk_changes_drop(disk_host *host)
{
    while (host->changes != NULL) {
        disk_change_take(host, &host->changes);
    }
}

static void disk_flush_writes(disk_node *node, uint64_t until)
{
    while (node->writes != NULL && node->writes->time <= until) {
        disk_apply_write(node, node->writes);
        disk_write_take(node);
    }
}

static void disk_flush_changes(disk_host *host, uint64_t until)
{
    while (host->changes != NULL && host->changes->time <= until) {
        disk_apply_change(host->changes);
        disk_change_take(host, &host->changes);
    }
}

void disk_write_back(disk_host *host)
{
    uint64_t now = sim_time();

    if (now >= DISK_WRITE_BACK) {
        for (disk_node *node = host->nodes; node != NULL; node = node->next) {
            disk_flush_writes(node, now - DISK_WRITE_BACK);
        }
        disk_flush_changes(host, now - DISK_WRITE_BACK);
    }
}

static bool disk_same_name(const disk_change *one, const disk_change *other)
{
    for (uint32_t i = 0; i < one->n; i++) {
        for (uint32_t j = 0; j < other->n; j++) {
            if (one->part[i].dir == other->part[j].dir && strcmp(one->part[i].name, other->part[j].name) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* Brings the names of one directory to the medium, with the earlier changes that these need. */
static void disk_sync_names(disk_node *dir)
{
    disk_host *host = dir->host;
    bool more = false;

    for (disk_change *change = host->changes; change != NULL; change = change->next) {
        change->marked = change->part[0].dir == dir || (change->n > 1 && change->part[1].dir == dir);
        more = more || change->marked;
    }
    while (more) {
        more = false;
        for (disk_change *early = host->changes; early != NULL; early = early->next) {
            for (disk_change *late = early->next; late != NULL && !early->marked; late = late->next) {
                early->marked = late->marked && disk_same_name(early, late);
                more = more || early->marked;
            }
        }
    }
    for (disk_change **at = &host->changes; *at != NULL;) {
        if ((*at)->marked) {
            disk_apply_change(*at);
            disk_change_take(host, at);
        } else {
            at = &(*at)->next;
        }
    }
}

/* The kernel could not write the pages: it takes them for clean, and perhaps forgets them. */
static int disk_sync_fails(disk_node *node, int error)
{
    if (node->kind == DISK_FILE && node->writes != NULL) {
        if (sim_one_in(&disk_chance, 2)) {
            size_t size = node->now.size;
            disk_bytes_resize(&node->now, 0);
            disk_bytes_write(&node->now, 0, node->medium.bytes, node->medium.size);
            disk_bytes_resize(&node->now, size);
        }
        disk_node_drop_writes(node);
    }
    return disk_fail(error);
}

int disk_sync(disk_node *node, int error)
{
    if (error) {
        return disk_sync_fails(node, error);
    }
    sim_trace("disk sync", node->number, node->now.size);
    disk_flush_writes(node, SIM_NEVER);
    if (node->host->journal) {
        disk_flush_changes(node->host, SIM_NEVER);
    } else if (node->kind == DISK_DIR) {
        disk_sync_names(node);
    }
    return 0;
}

/* --- the loss of power --------------------------------------------------------------- */

/* Everything before that number, and a part of the write of that number. */
static void disk_lose_after(disk_host *host, uint64_t number, bool torn)
{
    for (disk_node *node = host->nodes; node != NULL; node = node->next) {
        for (const disk_write *write = node->writes; write != NULL && write->number <= number; write = write->next) {
            if (write->number < number || write->bytes == NULL || !torn) {
                disk_apply_write(node, write);
            } else {
                disk_bytes_write(&node->medium, write->offset, write->bytes, sim_below(&disk_chance, write->size + 1));
            }
        }
    }
    for (const disk_change *change = host->changes; change != NULL && change->number <= number; change = change->next) {
        disk_apply_change(change);
    }
}

/* Any sectors of the writes; the file has the new size or that of the sectors. */
static void disk_lose_sectors(disk_node *node, uint64_t keep)
{
    for (const disk_write *write = node->writes; write != NULL; write = write->next) {
        size_t at = write->offset;
        size_t end = write->offset + write->size;
        if (write->bytes == NULL && sim_below(&disk_chance, 8) < keep) {
            disk_bytes_resize(&node->medium, write->offset);
        }
        while (at < end) {
            size_t next = (at / DISK_SECTOR + 1) * DISK_SECTOR;
            size_t size = (next < end ? next : end) - at;
            size_t kept = sim_below(&disk_chance, 8) < keep ? size : 0;
            if (kept > 0 && sim_one_in(&disk_chance, 16)) {
                kept = sim_below(&disk_chance, size); /* torn */
            }
            disk_bytes_write(&node->medium, at, write->bytes + (at - write->offset), kept);
            at += size;
        }
    }
    if (node->writes != NULL && node->medium.size < node->now.size && sim_one_in(&disk_chance, 2)) {
        disk_bytes_resize(&node->medium, node->now.size);
    }
}

/* Any changes; one that comes after a change of the same name that is lost is lost, too. */
static void disk_lose_changes(disk_host *host, uint64_t keep)
{
    for (disk_change *change = host->changes; change != NULL; change = change->next) {
        change->marked = sim_below(&disk_chance, 8) >= keep;
        for (const disk_change *early = host->changes; early != change && !change->marked; early = early->next) {
            change->marked = early->marked && disk_same_name(early, change);
        }
        if (!change->marked) {
            disk_apply_change(change);
        }
    }
}

static void disk_lose(disk_host *host)
{
    uint64_t first = host->changes_made;
    uint64_t keep = sim_below(&disk_chance, 9);
    uint64_t how = sim_below(&disk_chance, sim_may(SIM_DISK_TORN) ? 8 : 2);

    for (const disk_node *node = host->nodes; node != NULL; node = node->next) {
        first = node->writes != NULL && node->writes->number < first ? node->writes->number : first;
    }
    first = host->changes != NULL && host->changes->number < first ? host->changes->number : first;
    sim_trace("disk power loss", host->host, how);
    if (how == 0) {
        return;
    }
    if (how == 1) {
        disk_lose_after(host, SIM_NEVER, false);
    } else if (how < 5) {
        disk_lose_after(host, sim_between(&disk_chance, first, host->changes_made), true);
    } else {
        for (disk_node *node = host->nodes; node != NULL; node = node->next) {
            disk_lose_sectors(node, keep);
        }
        disk_lose_changes(host, keep);
    }
}

/* What is on the medium is what is seen. */
static void disk_reread(disk_node *node)
{
    disk_node_drop_writes(node);
    disk_bytes_resize(&node->now, 0);
    disk_bytes_write(&node->now, 0, node->medium.bytes, node->medium.size);
    node->full = false;
    node->socket = NULL;
    for (size_t i = 0; i < node->names.n; i++) {
        node->names.name[i].node->links--;
    }
    disk_names_clear(&node->names);
    for (size_t i = 0; i < node->medium_names.n; i++) {
        disk_node *named = node->medium_names.name[i].node;
        disk_names_set(&node->names, node->medium_names.name[i].name, named);
        named->links++;
        named->parent = node;
    }
}

/* Names that were lost may leave what they named behind, and others in it: such nodes must not keep each other. */
void sim_disk_power_loss(uint32_t number)
{
    disk_host *host = disk_host_of(number);
    disk_node *next;

    disk_write_back(host);
    disk_lose(host);
    disk_changes_drop(host);
    for (disk_node *node = host->nodes; node != NULL; node = node->next) {
        disk_ref(node);
    }
    for (disk_node *node = host->nodes; node != NULL; node = node->next) {
        disk_reread(node);
    }
    for (disk_node *node = host->nodes; node != NULL; node = next) {
        next = node->next;
        disk_unref(node);
    }
}

/* --- flipped bits ---------------------------------------------------------------------- */

void disk_may_flip(disk_node *node)
{
    uint64_t bit;

    if (node->kind != DISK_FILE || node->writers > 0 || node->now.size == 0 || !disk_happens(SIM_DISK_FLIP)) {
        return;
    }
    bit = sim_below(&disk_chance, 8 * (uint64_t)node->now.size);
    node->now.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    if (bit / 8 < node->medium.size) {
        node->medium.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    node->flipped = true;
    sim_trace("disk flip", node->number, bit);
}
