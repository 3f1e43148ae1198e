"""The C library libtq as Python objects, for the inside of this package.

One class per handle of `tq/tq.h`.  Every method of Client that returns an Op starts an operation; the comment says what
its result is.  Arguments that are not None keep their meaning from the C call of the same name.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
from typing_extensions import Buffer as BufferLike

from ._impl.column import Column, Layout, Slice

version: str
"""Version of the library."""
TENSOR: int
"""Kind of a column of tensors."""
VALUE: int
"""Kind of a column of other values."""
FETCH: int
"""Mode of a claim that consumes samples."""
FORCE_FETCH: int
"""Mode of a claim that shows all samples and consumes none."""
NAME_MAX: int
"""Most bytes in a name."""
KEY_MAX: int
"""Most bytes in a key."""

Tag = tuple[str, BufferLike, BufferLike]
Integers = BufferLike | Sequence[int] | np.ndarray[Any, Any]
Shape = tuple[int, ...]

class _Future(Protocol):
    """The part of an asyncio.Future that is used."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Any, /) -> None: ...

def live() -> dict[str, int]:
    """How many objects of each kind are alive; for tests."""

def kv_register(type: str, make: Callable[[str], Any], value_max: int, /) -> None:
    """Register a key-value store: `make(config)` gives its client; `value_max` is the most bytes of a value, 0: no limit."""

def kv_wait() -> None:
    """Wait until no method of a client of a key-value store runs."""

def balance(weights: list[float], k: int, equal: bool, /) -> list[int]:
    """The part, counted from 0, of each thing, so that the `k` parts weigh nearly the same; `equal`: and have as many things."""

def memory_limit() -> tuple[int, bool]:
    """Bytes that this process may use, and whether its control group says so."""

def runtime_dir() -> str:
    """Where the systems of this user have their directories."""

def runtime_open(name: str | None, make: bool = False, /) -> int:
    """A descriptor of the directory of `runtime_dir()` (None), or of a system's in it; ConfigError unless it is this user's alone."""

def runtime_clear(fd: int, /) -> None:
    """Remove what a daemon that was killed has left in the directory of its system."""

@overload
def pack_rows(rows: list[Any], convert: Callable[[Any], object], /) -> tuple[bytes | Buffer, bytes]:
    """Values as MessagePack, end to end, and the size of each as 64-bit integers; `convert` makes plain what is not."""

@overload
def pack_rows(
    rows: list[Any], convert: Callable[[Any], object], keep: list[Any], /
) -> tuple[list[Slice], bytes]:
    """The same as slices: large memory is not copied, and what they point into is appended to `keep`."""

@overload
def unpack_rows(
    data: Left,
    offsets: BufferLike,
    build: Callable[..., Any],
    decode: Callable[[memoryview], Any],
    /,
) -> list[Any] | None:
    """Values that were left in the store; None if they are no longer there."""

@overload
def unpack_rows(
    data: BufferLike,
    offsets: BufferLike,
    build: Callable[..., Any],
    decode: Callable[[memoryview], Any],
    /,
) -> list[Any]:
    """The values between 64-bit offsets in `data`.

    `build` makes what extension types stand for; rows that are malformed or nested deep are given to `decode`.
    """

def jagged_rows(
    ndims: BufferLike, dims: BufferLike, ragged: int, /
) -> tuple[bytes, int, int, tuple[int, ...]] | None:
    """Offsets of rows that agree in all dims but `ragged` (from 0), the least and greatest length, the shape of all; None if they do not."""

def weigh(value: object, limit: int, /) -> bool:
    """Whether encoding the value costs more than `limit` small values; looks no further than that."""

def log_start() -> None:
    """From now on the library's lines wait for `log_wait`, in place of going to stderr."""

def log_stop() -> None:
    """From now on the library's lines go to stderr; `log_wait` returns what is left, and then None."""

def log_wait() -> tuple[list[tuple[float, int, str, str]], int] | None:
    """Wait for lines of the library: time, level (0: error, 1: warn, 2: info, 3: debug), part, text; and how many were
    dropped because too many waited.  None when stopped."""

def pace() -> None:
    """From now on this thread releases the GIL about once a millisecond in pack_rows and unpack_rows."""

def pause() -> None:
    """Release the GIL for a moment, in a thread that called `pace()`."""

def stamp(member: Any, values: list[Any], untrack: bool, /) -> list[Any]:
    """Copies of a member of a NonTensorStack, each with one of the values; `untrack`: the garbage collector ignores them."""

def copy_maps(
    maps: list[dict[str, Any]], places: Integers | None, deepcopy: Any, /
) -> list[dict[str, Any]]:
    """Copies of the maps at these places (None: all); `deepcopy` copies what is not plain."""

class MetaField(NamedTuple):
    """A field of a meta: what is known about it, and which rows are ready."""

    name: str
    """Name of the field."""
    kind: int
    """TENSOR or VALUE; that of the first row if rows differ."""
    code: int
    """Code of the dtype, as in DLPack."""
    bits: int
    """Bits of an element; 0: nothing is known about the field yet."""
    ragged: bool
    """Whether rows differ in shape."""
    shape: Shape | None
    """Shape of every row; None if rows differ."""
    ndims: Buffer | None
    """Number of dims of each row, as 32-bit integers; None unless rows differ and their shapes are known."""
    dims: Buffer | None
    """The dims of all rows, one row after another, as 64-bit integers; None like `ndims`."""
    ready: Buffer
    """One byte per row: 1 produced, 0 not, 2 lost; empty if nothing is known."""
    ragged_dim: int
    """Dim of a row, counted from 1, in which rows of the field differ; 0: none; 255: several."""
    types: bytes | None
    """Kind and dtype of each row, as 32-bit integers (kind << 16 | bits << 8 | code); None if rows agree."""

class DataColumn(NamedTuple):
    """A column that was read."""

    name: str
    """Name of the field."""
    kind: int
    """TENSOR or VALUE; that of the first row if rows differ."""
    code: int
    """Code of the dtype, as in DLPack."""
    bits: int
    """Bits of an element."""
    ragged: bool
    """Whether the rows differ in shape."""
    shape: Shape | None
    """Shape of every row; None if rows differ."""
    ndims: Buffer
    """Number of dims of each row, as 32-bit integers."""
    dims: Buffer
    """The dims of all rows, one row after another, as 64-bit integers."""
    offsets: Buffer
    """Where each row begins in `data`, in bytes, and where the last one ends: rows + 1 64-bit integers."""
    data: Buffer | Left
    """The bytes of the rows; a Left if values were left in the store."""
    notes: list[bytes] | None
    """What a storage manager that keeps data by index noted for each row; None for the others."""
    length: int | None
    """Rows lie at equal distances, with room for a first dim of this length; None: end to end."""
    ragged_dim: int
    """Dim of a row, counted from 1, in which rows of the field differ, whichever are read; 0: none; 255: several."""
    types: bytes | None
    """Kind and dtype of each row, as 32-bit integers (kind << 16 | bits << 8 | code); None if rows agree."""

class Buffer:
    """Memory of a Meta or Data with the buffer protocol; alive as long as the last view of it."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

class Left:
    """A column of values that a read left in the store."""

    def __len__(self) -> int: ...

class Queue:
    """Completed operations of one event loop."""

    def __init__(self) -> None: ...
    @property
    def pid(self) -> int:
        """The process that made it; it does not work in a child."""
    def fileno(self) -> int:
        """A descriptor that is readable when operations have completed."""
    def drain(self) -> int:
        """Resolve the futures of all completed operations; returns how many."""
    def close(self) -> None:
        """Close the descriptor; operations that are not completed yet resolve no future."""

class Op:
    """An operation: started, and completed once."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait, at most `timeout` seconds, and return the operation's result; raises its error."""
    def attach(self, queue: Queue, future: _Future, /) -> bool:
        """Resolve the future through the queue on completion; False if the operation has completed already."""
    def cancel(self) -> None:
        """Give the operation up: it completes with CanceledError unless it has completed already."""
    def done(self) -> bool:
        """Whether it has completed."""

class Meta:
    """Which samples, and where their cells are stored; immutable."""

    @classmethod
    def make(
        cls,
        partition: str,
        indexes: Integers,
        fields: Sequence[str] = ...,
        incarnations: Integers | None = None,
    ) -> Meta:
        """A meta by hand, without placements: a read looks them up.  `incarnations` None: any."""
    @classmethod
    def concat(cls, metas: Sequence[Meta], /) -> Meta:
        """One after the other; partitions, fields and dtypes must agree."""
    @classmethod
    def unpack(cls, bytes: BufferLike, /) -> Meta:
        """From bytes that `pack` made; they are checked."""
    def __len__(self) -> int: ...
    @property
    def partition(self) -> str:
        """Name of the partition."""
    @property
    def epoch(self) -> int:
        """Epoch of the controller that made it; 0: made by hand."""
    @property
    def claim(self) -> int:
        """Id of the claim that it answered; 0 without one."""
    @property
    def indexes(self) -> Buffer:
        """Global index of each sample, as 32-bit integers."""
    @property
    def incarnations(self) -> Buffer:
        """Incarnation of each sample, as 32-bit integers; 0: any."""
    @property
    def keys(self) -> list[str | None]:
        """Key of each sample, or None."""
    @property
    def groups(self) -> list[str | None]:
        """Group of each sample, or None."""
    @property
    def fields(self) -> list[MetaField]:
        """What is known about each field."""
    @property
    def field_names(self) -> list[str]:
        """Names of the fields."""
    @property
    def tags(self) -> list[tuple[str, Buffer, Buffer]]:
        """Name, MessagePack values end to end, and the size of each sample's value (0: none) of each tag."""
    def select(self, rows: Integers | None = None, fields: Sequence[str] | None = None) -> Meta:
        """Rows (places, in any order, repeats allowed; None: all) and fields (None: all)."""
    def union(self, other: Meta, /) -> Meta:
        """Fields of both for the same samples; where both have a field, that of the other."""
    def tag_maps(
        self, decode: Callable[[memoryview], Any], decode_name: Callable[[str], Any], /
    ) -> list[dict[Any, Any]]:
        """The tags of each sample; `decode` is called for values that are not plain, `decode_name` for names that begin with 0x1f."""
    def notes(self, field: str, /) -> list[bytes] | None:
        """Notes of a field's cells, one per sample (empty: none); None where the built-in managers keep the data."""
    def pack(self) -> bytes:
        """As bytes, to send to another process."""

class Data:
    """What a read returned; `len()` is the number of rows."""

    def __len__(self) -> int: ...
    @property
    def columns(self) -> list[DataColumn]:
        """The columns, in the order of the fields that were asked for."""

class Client:
    """A connection to a controller, with the storage manager that the system names, or with `manager`."""

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
    def closed(self) -> bool:
        """Whether it has been closed."""
    @property
    def epoch(self) -> int:
        """Epoch of the controller: another one is another run."""
    @property
    def config(self) -> str:
        """The system's configuration, as JSON."""
    def close(self) -> None:
        """End all calls with ClosedError and leave the system; may be called repeatedly."""
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
    ) -> Op:
        """Store columns and tags: of new samples (`partition` with `n` or `keys`) or of given ones (`meta`).

        Result: Meta; with `other_fields` also the names of the fields that all these samples have besides.
        """
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
    ) -> Op:
        """Register columns whose data a storage manager has stored, with its `notes` per field and row.

        Result: Meta; with `remover` the clears that this has caused, each as its number, whether it was begun by this
        call, and a Meta.
        """
    def reserve(
        self,
        partition: str,
        n: int = 0,
        keys: Sequence[str] | None = None,
        groups: Sequence[str | None] | None = None,
        timeout: float = 0.0,
    ) -> Op:
        """Reserve `n` new samples, or one for each key.  Result: Meta."""
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
    ) -> Op:
        """Claim up to `batch_size` samples whose fields are ready; waits for them unless `poll`.  Result: Meta."""
    def resolve(
        self,
        partition: str,
        keys: Sequence[str] | None = None,
        indexes: Integers | None = None,
        fields: Sequence[str] | None = None,
        lenient: bool = False,
        tags: bool = False,
        timeout: float = 0.0,
    ) -> Op:
        """Look up samples by key or index; `lenient`: without those that do not exist.  Result: Meta."""
    def get(
        self,
        meta: Meta,
        fields: Sequence[str] | None = None,
        layouts: Sequence[Layout] = (),
        keep: object = None,
        timeout: float = 0.0,
        zero_copy: bool = False,
        leave_values: bool = False,
    ) -> Op:
        """Read fields of the samples (None: all of them).  Result: Data."""
    def get_keys(
        self,
        partition: str,
        keys: Sequence[str],
        fields: Sequence[str] | None = None,
        timeout: float = 0.0,
        zero_copy: bool = False,
        leave_values: bool = False,
    ) -> Op:
        """Look up samples by key and read them.  Result: Meta, and Data or None."""
    def clear_meta(self, meta: Meta, timeout: float = 0.0) -> Op:
        """Remove samples.  Result: how many there were."""
    def clear_indexes(self, partition: str, indexes: Integers, timeout: float = 0.0) -> Op:
        """Remove samples by index.  Result: how many there were."""
    def clear_keys(self, partition: str, keys: Sequence[str], timeout: float = 0.0) -> Op:
        """Remove samples by key.  Result: how many there were."""
    def clear_partition(self, partition: str, timeout: float = 0.0) -> Op:
        """Remove a partition with all its samples.  Result: how many there were."""
    def begin_clear(
        self,
        remover: str,
        partition: str | None = None,
        meta: Meta | None = None,
        keys: Sequence[str] | None = None,
        timeout: float = 0.0,
    ) -> Op:
        """Remove samples whose data a storage manager in Python keeps.

        Result: the clears whose data is to be removed, each as its number, whether this call began it, and a Meta.
        """
    def end_clear(self, id: int, removed: bool, timeout: float = 0.0) -> Op:
        """End a clear that `begin_clear` returned; if not `removed` it is left to the next caller."""
    def reset_consumption(
        self, partition: str, task: str | None = None, timeout: float = 0.0
    ) -> Op:
        """Make consumed samples claimable again, for one task (None: all)."""
    def consumption(self, partition: str, task: str, timeout: float = 0.0) -> Op:
        """Which samples a task has consumed.  Result: indexes, columns, flags; or None without the partition."""
    def production(self, partition: str, fields: Sequence[str], timeout: float = 0.0) -> Op:
        """Which samples have which fields.  Result: indexes, columns, flags; or None without the partition."""
    def list_partitions(self, timeout: float = 0.0) -> Op:
        """Result: the names of the partitions, in order of creation."""
    def list_keys(
        self,
        partition: str,
        limit: int = 0,
        after: str | None = None,
        mark: int = 0,
        timeout: float = 0.0,
    ) -> Op:
        """A page of the samples that have keys.  Result: Meta, and the mark to continue with."""
    def retrieve_keys(self, partition: str, indexes: Integers, timeout: float = 0.0) -> Op:
        """Result: the key of each sample, None for a sample without one."""
    def save(
        self,
        path: str,
        partition: str | None = None,
        state_only: bool = False,
        metadata: str | None = None,
        timeout: float = 0.0,
    ) -> Op:
        """Save a checkpoint.  Result: what it contains, as a dict."""
    def load(self, path: str, timeout: float = 0.0) -> Op:
        """Load a checkpoint in place of all partitions, or of the one it has.  Result: what it contained, as a dict."""
    def status(self, timeout: float = 0.0) -> Op:
        """Result: the state of the system, as a dict."""
    def events(
        self, since: int = 0, limit: int = 0, wait: bool = False, timeout: float = 0.0
    ) -> Op:
        """Result: the events after number `since` as dicts, and the number to continue after."""

class TransferQueueError(RuntimeError):
    """What all errors of this package derive from."""

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
