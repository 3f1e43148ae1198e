/*
 * sized.h - structs of the public API that begin with their size, from programs built with other versions of the
 * headers.
 */
#ifndef TQI_BASE_SIZED_H
#define TQI_BASE_SIZED_H

#include <tq/errors.h>

#include <stddef.h>

/* Copies a struct of the caller into one of this library's size. A smaller one, of an older program, is filled up with
 * zeros; a larger one, of a newer program, must have nothing but zeros where this library has no members. Else
 * TQ_EINVAL, with a message that names the type and the sizes; what the library knows of a larger one is copied even
 * then, and nothing of one without a size. */
int tqi_sized_copy(const char *type, const void *given, void *out, size_t size, tq_error *err);

/* The same for the arguments of a call, which may be NULL: TQ_EINVAL, too. */
#define TQI_SIZED_ARGS(call, type, given, out, err) \
    ((given) ? tqi_sized_copy(#type, (given), (out), sizeof(type), (err)) : tqi_error_null((err), call ": args"))

/* The other way: a struct that the caller gives for the library to fill. Check: TQ_EINVAL if its size was not set.
 * Give: copies as much as it has room for, and zeros what is left over. */
int tqi_sized_check(const char *type, const void *out, size_t size, tq_error *err);
void tqi_sized_give(const void *full, void *out);

/* Holds where a struct ends with its last member: a member added later then never lies where an older program had
 * padding, whose bytes can be anything. */
#define TQI_SIZED_ENDS_WITH(type, member)                                                                             \
    _Static_assert(offsetof(type, size) == 0 && offsetof(type, member) + sizeof(((type *)0)->member) == sizeof(type), \
                   #type " has padding at its end")

#endif
