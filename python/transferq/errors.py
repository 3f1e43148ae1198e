"""The errors of the transfer queue.

Every class derives from `TransferQueueError`, which is a `RuntimeError`, and from a built-in class that fits
(`ValueError`, `TimeoutError`, ...), and has a `code`: its number in the C library.  The classes are made from
the library's own table.
"""

from __future__ import annotations

from ._core import (
    AuthenticationError,
    CanceledError,
    CheckpointError,
    ClaimSizeError,
    ClearedError,
    ClosedError,
    ConfigError,
    DtypeError,
    ExistsError,
    InputOutputError,
    InternalError,
    InvalidArgumentError,
    LostError,
    NameLengthError,
    NotReadyError,
    OutOfMemoryError,
    ProtocolError,
    ProtocolVersionError,
    RowCountError,
    SamplerError,
    StaleError,
    StorageFullError,
    StorageKeyNotFoundError,
    SystemEndedError,
    TimedOutError,
    TransferQueueError,
    TryAgainError,
    UnknownFieldError,
    UnknownKeyError,
    UnknownManagerError,
    UnknownPartitionError,
    UnknownSamplerError,
    UnreachableError,
    UnsupportedError,
)


class SerializationError(TransferQueueError, TypeError):
    """A value that is neither a tensor nor of a plain type, while pickle is switched off."""


class ArgumentTypeError(InvalidArgumentError, TypeError):
    """An argument of the wrong type; the message begins with the argument's name."""


__all__ = [
    "ArgumentTypeError",
    "AuthenticationError",
    "CanceledError",
    "CheckpointError",
    "ClaimSizeError",
    "ClearedError",
    "ClosedError",
    "ConfigError",
    "DtypeError",
    "ExistsError",
    "InputOutputError",
    "InternalError",
    "InvalidArgumentError",
    "LostError",
    "NameLengthError",
    "NotReadyError",
    "OutOfMemoryError",
    "ProtocolError",
    "ProtocolVersionError",
    "RowCountError",
    "SamplerError",
    "SerializationError",
    "StaleError",
    "StorageFullError",
    "StorageKeyNotFoundError",
    "SystemEndedError",
    "TimedOutError",
    "TransferQueueError",
    "TryAgainError",
    "UnknownFieldError",
    "UnknownKeyError",
    "UnknownManagerError",
    "UnknownPartitionError",
    "UnknownSamplerError",
    "UnreachableError",
    "UnsupportedError",
]
