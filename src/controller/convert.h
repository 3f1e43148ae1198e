/*
 * convert.h - converts between wire messages and the table's batches. Arrays with the same layout are referenced, not
 * copied, in both directions; what must be built (runs, blocks, arrays of messages) is in a tqi_region. Both sides
 * must therefore stay valid while the result is in use.
 */
#ifndef TQI_CONTROLLER_CONVERT_H
#define TQI_CONTROLLER_CONVERT_H

#include "base/pointer.h"
#include "base/region.h"
#include "table/table.h"
#include "wire/methods.h"

/* Bytes of the first chunk of a conversion's region: most messages need no second one. */
#define TQI_CTL_CONV_FIRST 16384u

/* Zeroed memory for n items; never NULL for n == 0. NULL: out of memory, err is set. What is converted lies in it. */
void *tqi_ctl_conv_alloc(tqi_region *conv, size_t n, size_t item, tq_error *err);

/* The same for an array of n pointers. */
void *tqi_ctl_conv_pointers(tqi_region *conv, size_t n, tq_error *err);

/* protobuf-c's structs lack const, but it does not write to what it packs. */
static inline char *tqi_ctl_conv_text(const char *text)
{
    return tqi_unconst(text != NULL ? text : "");
}

static inline ProtobufCBinaryData tqi_ctl_conv_bytes(const void *data, size_t size)
{
    return (ProtobufCBinaryData){.len = size, .data = tqi_unconst(data)};
}

/* Converts a received batch of `samples` rows and checks everything that does not need the table: lengths agree, runs
 * cover the rows, indexes exist. TQ_EINVAL names the array at fault. */
int tqi_ctl_conv_batch_in(tqi_region *conv, const Tq__Batch *in, size_t samples, tqi_table_batch *out, tq_error *err);
/* One block that was received. */
int tqi_ctl_conv_block_in(const Tq__Block *in, const Tq__Owner *owner, tqi_table_batch_block *out, tq_error *err);
/* Converts a batch to send; initialises `out`. */
int tqi_ctl_conv_batch_out(tqi_region *conv, const tqi_table_batch *in, uint64_t epoch, Tq__Batch *out, tq_error *err);
/* Whether the number is a valid ragged_dim: a dim of rows, none, or several. */
static inline bool tqi_ctl_conv_ragged_dim_ok(uint32_t dim)
{
    return dim <= TQ_NDIM_MAX || dim == TQ_RAGGED_MANY;
}
/* TQ_EINVAL if an optional array has neither 0 nor n items. */
int tqi_ctl_conv_check_count(const char *what, size_t given, size_t n, tq_error *err);

#endif
