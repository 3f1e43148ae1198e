/*
 * errors.h - every error of the transfer queue, in one table.
 *
 * The enum, the texts (tq_strerror), the Python exception classes and docs/errors.md are all generated from this table
 * (a new code also needs its cause and remedy in tools/error_page.py). A function that can fail returns TQ_OK (0) or
 * one of these negative codes, and fills a tq_error with a message that names the thing at fault.
 */
#ifndef TQ_ERRORS_H
#define TQ_ERRORS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(code, value, Python class, Python base class besides TransferQueueError, text) */
#define TQ_ERRORS(X)                                                                                   \
    X(TQ_EINVAL, -1, InvalidArgumentError, ValueError, "invalid argument")                             \
    X(TQ_ENOMEM, -2, OutOfMemoryError, MemoryError, "out of memory")                                   \
    X(TQ_EROWS, -3, RowCountError, ValueError, "columns disagree in their number of rows")             \
    X(TQ_EDTYPE, -4, DtypeError, TypeError, "dtype contradicts the field's schema")                    \
    X(TQ_EKEY, -5, UnknownKeyError, ValueError, "unknown key")                                         \
    X(TQ_EPARTITION, -6, UnknownPartitionError, ValueError, "unknown partition")                       \
    X(TQ_EFIELD, -7, UnknownFieldError, ValueError, "unknown field")                                   \
    X(TQ_ENOTREADY, -8, NotReadyError, ValueError, "fields are not ready")                             \
    X(TQ_EMANAGER, -9, UnknownManagerError, ValueError, "unknown storage manager")                     \
    X(TQ_ESAMPLER, -10, UnknownSamplerError, ValueError, "unknown sampler")                            \
    X(TQ_ENAME, -11, NameLengthError, ValueError, "name is empty or too long")                         \
    X(TQ_ESIZE, -12, ClaimSizeError, ValueError, "claim size must be positive")                        \
    X(TQ_EFULL, -13, StorageFullError, RuntimeError, "storage is full")                                \
    X(TQ_ETIMEDOUT, -14, TimedOutError, TimeoutError, "deadline passed")                               \
    X(TQ_ECANCELED, -15, CanceledError, RuntimeError, "operation was cancelled")                       \
    X(TQ_EPROTO, -16, ProtocolError, ConnectionError, "malformed frame or message")                    \
    X(TQ_EAUTH, -17, AuthenticationError, PermissionError, "authentication failed")                    \
    X(TQ_EVERSION, -18, ProtocolVersionError, ConnectionError, "protocol versions differ")             \
    X(TQ_EUNREACHABLE, -19, UnreachableError, ConnectionError, "peer cannot be reached")               \
    X(TQ_ESTALE, -20, StaleError, RuntimeError, "belongs to an earlier run of the controller or unit") \
    X(TQ_ECLEARED, -21, ClearedError, RuntimeError, "sample was cleared")                              \
    X(TQ_ELOST, -22, LostError, RuntimeError, "data was lost with its storage")                        \
    X(TQ_EEXIST, -23, ExistsError, ValueError, "already exists")                                       \
    X(TQ_EAGAIN, -24, TryAgainError, RuntimeError, "not enough ready samples")                         \
    X(TQ_ECONFIG, -25, ConfigError, ValueError, "bad configuration")                                   \
    X(TQ_ECLOSED, -26, ClosedError, RuntimeError, "client is closed")                                  \
    X(TQ_EUNSUPPORTED, -27, UnsupportedError, RuntimeError, "not supported")                           \
    X(TQ_EIO, -28, InputOutputError, OSError, "system call failed")                                    \
    X(TQ_EINTERNAL, -29, InternalError, RuntimeError, "internal error")                                \
    X(TQ_ECHECKPOINT, -30, CheckpointError, ValueError, "checkpoint is incomplete or was altered")     \
    X(TQ_EPICK, -31, SamplerError, RuntimeError, "the sampler failed")                                 \
    X(TQ_EENDED, -32, SystemEndedError, ConnectionError, "the system has ended")

/** The codes. */
enum tq_code {
    TQ_OK = 0, /**< Success. */
#define TQ_ERROR_ENUM(code, value, py, pybase, text) code = (value),
    TQ_ERRORS(TQ_ERROR_ENUM)
#undef TQ_ERROR_ENUM
};

/** Size of tq_error.message in bytes, including the terminating 0; longer messages are truncated. */
#define TQ_ERROR_MESSAGE_MAX 512

/** An error with its details. Owned by the caller, usually on the stack; all zero means "no error". */
typedef struct tq_error {
    int code;                           /**< TQ_OK or one of enum tq_code. */
    char message[TQ_ERROR_MESSAGE_MAX]; /**< Names the thing at fault; UTF-8, 0-terminated. */
} tq_error;

#ifdef __cplusplus
}
#endif
#endif
