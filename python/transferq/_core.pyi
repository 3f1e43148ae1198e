from collections.abc import Callable, Sequence
from typing import Any, Protocol, overload

import numpy as np
from typing_extensions import Buffer as BufferLike

version: str
TENSOR: int
VALUE: int
FETCH: int
FORCE_FETCH: int
NAME_MAX: int
KEY_MAX: int

Slice = BufferLike | tuple[int, int]
Column = (
    tuple[
        str,
        int,
        int,
        int,
        int,
        tuple[int, ...] | None,
        BufferLike | None,
        BufferLike | None,
        Sequence[Slice],
    ]
    | tuple[
        str,
        int,
        int,
        int,
        int,
        tuple[int, ...] | None,
        BufferLike | None,
        BufferLike | None,
        Sequence[Slice],
        int,
    ]
    | tuple[
        str,
        int,
        int,
        int,
        int,
        tuple[int, ...] | None,
        BufferLike | None,
        BufferLike | None,
        Sequence[Slice],
        int,
        BufferLike,
    ]
)
Tag = tuple[str, BufferLike, BufferLike]
Layout = tuple[str, bool, int, int, int, int, bytes, int, int]
Integers = BufferLike | Sequence[int] | np.ndarray[Any, Any]
Shape = tuple[int, ...]

class _Future(Protocol):
    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Any, /) -> None: ...

def live() -> dict[str, int]: ...
def kv_register(type: str, make: Callable[[str], Any], value_max: int, /) -> None: ...
def kv_wait() -> None: ...
def balance(weights: list[float], k: int, equal: bool, /) -> list[int]: ...
def memory_limit() -> tuple[int, bool]: ...
def runtime_dir() -> str: ...
def runtime_open(name: str | None, make: bool = False, /) -> int: ...
def runtime_clear(fd: int, /) -> None: ...
@overload
def pack_rows(
    rows: list[Any], convert: Callable[[Any], object], /
) -> tuple[bytes | Buffer, bytes]: ...
@overload
def pack_rows(
    rows: list[Any], convert: Callable[[Any], object], keep: list[Any], /
) -> tuple[list[Slice], bytes]: ...
@overload
def unpack_rows(
    data: Left,
    offsets: BufferLike,
    build: Callable[..., Any],
    decode: Callable[[memoryview], Any],
    /,
) -> list[Any] | None: ...
@overload
def unpack_rows(
    data: BufferLike,
    offsets: BufferLike,
    build: Callable[..., Any],
    decode: Callable[[memoryview], Any],
    /,
) -> list[Any]: ...
def jagged_rows(
    ndims: BufferLike, dims: BufferLike, ragged: int, /
) -> tuple[bytes, int, int, tuple[int, ...]] | None: ...
def weigh(value: object, limit: int, /) -> bool: ...
def pace() -> None: ...
def pause() -> None: ...
def stamp(member: Any, values: list[Any], untrack: bool, /) -> list[Any]: ...
def copy_maps(
    maps: list[dict[str, Any]], places: Integers | None, deepcopy: Any, /
) -> list[dict[str, Any]]: ...

class Buffer:
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

class Left:
    def __len__(self) -> int: ...

class Queue:
    def __init__(self) -> None: ...
    @property
    def pid(self) -> int: ...
    def fileno(self) -> int: ...
    def drain(self) -> int: ...
    def close(self) -> None: ...

class Op:
    def result(self, timeout: float | None = None) -> Any: ...
    def attach(self, queue: Queue, future: _Future, /) -> bool: ...
    def cancel(self) -> None: ...
    def done(self) -> bool: ...

class Meta:
    @classmethod
    def make(
        cls,
        partition: str,
        indexes: Integers,
        fields: Sequence[str] = ...,
        incarnations: Integers | None = None,
    ) -> Meta: ...
    @classmethod
    def concat(cls, metas: Sequence[Meta], /) -> Meta: ...
    @classmethod
    def unpack(cls, bytes: BufferLike, /) -> Meta: ...
    def __len__(self) -> int: ...
    @property
    def partition(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def claim(self) -> int: ...
    @property
    def indexes(self) -> Buffer: ...
    @property
    def incarnations(self) -> Buffer: ...
    @property
    def keys(self) -> list[str | None]: ...
    @property
    def groups(self) -> list[str | None]: ...
    @property
    def fields(
        self,
    ) -> list[
        tuple[
            str,
            int,
            int,
            int,
            bool,
            Shape | None,
            Buffer | None,
            Buffer | None,
            Buffer,
            int,
            bytes | None,
        ]
    ]: ...
    @property
    def field_names(self) -> list[str]: ...
    @property
    def tags(self) -> list[tuple[str, Buffer, Buffer]]: ...
    def select(self, rows: Integers | None = None, fields: Sequence[str] | None = None) -> Meta: ...
    def union(self, other: Meta, /) -> Meta: ...
    def tag_maps(
        self, decode: Callable[[memoryview], Any], decode_name: Callable[[str], Any], /
    ) -> list[dict[Any, Any]]: ...
    def notes(self, field: str, /) -> list[bytes] | None: ...
    def pack(self) -> bytes: ...

class Data:
    def __len__(self) -> int: ...
    @property
    def columns(
        self,
    ) -> list[
        tuple[
            str,
            int,
            int,
            int,
            bool,
            Shape | None,
            Buffer,
            Buffer,
            Buffer,
            Buffer | Left,
            list[bytes] | None,
            int | None,
            int,
            bytes | None,
        ]
    ]: ...

class Client:
    def __init__(
        self,
        address: str,
        token: str | None = None,
        token_file: str | None = None,
        name: str | None = None,
        manager: str | None = None,
        manager_config: str | None = None,
        timeout: float = 0.0,
        node: str | None = None,
        notice: float = 0.0,
        libraries: str | None = None,
    ) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def epoch(self) -> int: ...
    @property
    def config(self) -> str: ...
    def close(self) -> None: ...
    def put(
        self,
        *,
        partition: str | None = None,
        meta: Meta | None = None,
        keys: Sequence[str] | None = None,
        n: int = 0,
        must_exist: bool = False,
        groups: Sequence[str | None] | None = None,
        columns: Sequence[Column] = (),
        tags: Sequence[Tag] = (),
        fail_when_full: bool = False,
        keep: object = None,
        timeout: float = 0.0,
        other_fields: bool = False,
    ) -> Op: ...
    def notify(
        self,
        *,
        partition: str | None = None,
        meta: Meta | None = None,
        keys: Sequence[str] | None = None,
        n: int = 0,
        must_exist: bool = False,
        groups: Sequence[str | None] | None = None,
        columns: Sequence[Column] = (),
        tags: Sequence[Tag] = (),
        notes: Sequence[Sequence[bytes]] = (),
        keep: object = None,
        remover: str | None = None,
        timeout: float = 0.0,
    ) -> Op: ...
    def reserve(
        self,
        partition: str,
        n: int = 0,
        keys: Sequence[str] | None = None,
        groups: Sequence[str | None] | None = None,
        timeout: float = 0.0,
    ) -> Op: ...
    def claim(
        self,
        partition: str,
        fields: Sequence[str],
        batch_size: int,
        task: str | None = None,
        mode: int = 0,
        sampler: str | None = None,
        sampler_config: str | None = None,
        poll: bool = False,
        tags: bool = False,
        timeout: float = 0.0,
    ) -> Op: ...
    def resolve(
        self,
        partition: str,
        keys: Sequence[str] | None = None,
        indexes: Integers | None = None,
        fields: Sequence[str] | None = None,
        lenient: bool = False,
        tags: bool = False,
        timeout: float = 0.0,
    ) -> Op: ...
    def get(
        self,
        meta: Meta,
        fields: Sequence[str] | None = None,
        layouts: Sequence[Layout] = (),
        keep: object = None,
        timeout: float = 0.0,
        zero_copy: bool = False,
        leave_values: bool = False,
    ) -> Op: ...
    def get_keys(
        self,
        partition: str,
        keys: Sequence[str],
        fields: Sequence[str] | None = None,
        timeout: float = 0.0,
        zero_copy: bool = False,
        leave_values: bool = False,
    ) -> Op: ...
    def clear_meta(self, meta: Meta, timeout: float = 0.0) -> Op: ...
    def clear_indexes(self, partition: str, indexes: Integers, timeout: float = 0.0) -> Op: ...
    def clear_keys(self, partition: str, keys: Sequence[str], timeout: float = 0.0) -> Op: ...
    def clear_partition(self, partition: str, timeout: float = 0.0) -> Op: ...
    def begin_clear(
        self,
        remover: str,
        partition: str | None = None,
        meta: Meta | None = None,
        keys: Sequence[str] | None = None,
        timeout: float = 0.0,
    ) -> Op: ...
    def end_clear(self, id: int, removed: bool, timeout: float = 0.0) -> Op: ...
    def reset_consumption(
        self, partition: str, task: str | None = None, timeout: float = 0.0
    ) -> Op: ...
    def consumption(self, partition: str, task: str, timeout: float = 0.0) -> Op: ...
    def production(self, partition: str, fields: Sequence[str], timeout: float = 0.0) -> Op: ...
    def list_partitions(self, timeout: float = 0.0) -> Op: ...
    def list_keys(
        self,
        partition: str,
        limit: int = 0,
        after: str | None = None,
        mark: int = 0,
        timeout: float = 0.0,
    ) -> Op: ...
    def retrieve_keys(self, partition: str, indexes: Integers, timeout: float = 0.0) -> Op: ...
    def save(
        self,
        path: str,
        partition: str | None = None,
        state_only: bool = False,
        metadata: str | None = None,
        timeout: float = 0.0,
    ) -> Op: ...
    def load(self, path: str, timeout: float = 0.0) -> Op: ...
    def status(self, timeout: float = 0.0) -> Op: ...
    def events(
        self, since: int = 0, limit: int = 0, wait: bool = False, timeout: float = 0.0
    ) -> Op: ...

class TransferQueueError(RuntimeError):
    code: int
    symbol: str

class StorageKeyNotFoundError(TransferQueueError, KeyError): ...
class InvalidArgumentError(TransferQueueError, ValueError): ...
class OutOfMemoryError(TransferQueueError, MemoryError): ...
class RowCountError(TransferQueueError, ValueError): ...
class DtypeError(TransferQueueError, TypeError): ...
class UnknownKeyError(TransferQueueError, ValueError): ...
class UnknownPartitionError(TransferQueueError, ValueError): ...
class UnknownFieldError(TransferQueueError, ValueError): ...
class NotReadyError(TransferQueueError, ValueError): ...
class UnknownManagerError(TransferQueueError, ValueError): ...
class UnknownSamplerError(TransferQueueError, ValueError): ...
class NameLengthError(TransferQueueError, ValueError): ...
class ClaimSizeError(TransferQueueError, ValueError): ...
class StorageFullError(TransferQueueError, RuntimeError): ...
class TimedOutError(TransferQueueError, TimeoutError): ...
class CanceledError(TransferQueueError, RuntimeError): ...
class ProtocolError(TransferQueueError, ConnectionError): ...
class AuthenticationError(TransferQueueError, PermissionError): ...
class ProtocolVersionError(TransferQueueError, ConnectionError): ...
class UnreachableError(TransferQueueError, ConnectionError): ...
class StaleError(TransferQueueError, RuntimeError): ...
class ClearedError(StorageKeyNotFoundError, RuntimeError): ...
class LostError(StorageKeyNotFoundError, RuntimeError): ...
class ExistsError(TransferQueueError, ValueError): ...
class TryAgainError(TransferQueueError, RuntimeError): ...
class ConfigError(TransferQueueError, ValueError): ...
class ClosedError(TransferQueueError, RuntimeError): ...
class UnsupportedError(TransferQueueError, RuntimeError): ...
class InputOutputError(TransferQueueError, OSError): ...
class InternalError(TransferQueueError, RuntimeError): ...
class CheckpointError(TransferQueueError, ValueError): ...
class SamplerError(TransferQueueError, RuntimeError): ...
class SystemEndedError(UnreachableError): ...
