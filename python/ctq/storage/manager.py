"""Storage managers written in Python.

A storage manager keeps the data of samples anywhere it likes, by partition, index and field, and tells the
controller what is there; nothing else of the system knows how data is stored.  Subclass `StorageManager`,
register it by a name, and name it in `backend.storage_backend`; its config is the section
`backend.NAME`.

The managers that are part of the C library (SimpleStorage) are chosen by name in the same place.
"""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from .._calls import Steps, wait
from .._core import TENSOR, VALUE, Client, Meta
from .._words import counted
from ..config import Config, of_map
from ..dtypes import describe_dtype, packed_type
from ..encoding import Decoder, Encoder
from ..errors import ClearedError, InvalidArgumentError, UnknownManagerError
from ..layouts import merged_dim, with_ragged_dims
from ..system import ControllerInfo

if TYPE_CHECKING:
    from .._core import Column
    from ..metadata import BatchMeta
    from ..tensors import Fields

logger = logging.getLogger("ctq")

CLIENT_SECONDS = 60.0
"""How long a call may take where nobody has said it: as `client.timeout`."""


class StorageManager(ABC):
    """Base of storage managers.

    `client_timeout` is set by the client that uses it: `client.timeout` of its configuration.

    It keeps a session of its own at the controller (the handshake is done when it is made), through which
    `notify_data_update` publishes.  The three methods below may be called from several event loops.
    """

    def __init__(
        self,
        controller_info: ControllerInfo,
        config: Mapping[str, Any],
        zmq_context: object = None,
    ) -> None:
        """Connect to the controller; `config` is the manager's section of the configuration.

        `zmq_context` is for managers written for TransferQueue; nothing here uses one.
        """
        self.controller_info = controller_info
        self.config: Config = of_map(dict(config))
        self.storage_manager_id = f"{type(self).__name__}-{os.getpid()}"
        self.remover = type(self).__name__
        self.client_timeout = CLIENT_SECONDS
        self._core: Client | None = Client(
            controller_info.address,
            token=controller_info.token,
            token_file=controller_info.token_file,
            name=self.storage_manager_id,
            manager="",
        )

    @abstractmethod
    async def put_data(self, data: Fields, metadata: BatchMeta) -> None:
        """Store the columns of the samples, then call `notify_data_update`.

        Rows of `data` belong to the samples of `metadata` in order.  Nothing is visible to others before
        the controller was notified.  A `data_parser`, which TransferQueue's managers take as well, is never
        given: the client has parsed the data.
        """

    @abstractmethod
    async def get_data(self, metadata: BatchMeta) -> Fields:
        """Return the fields `metadata.field_names` of the samples, in their order."""

    @abstractmethod
    async def clear_data(self, metadata: BatchMeta) -> None:
        """Remove what is stored of the samples, which are cleared: nobody finds them any more.

        Their indexes are used again only afterwards.  It may be repeated, also by another process, when it
        was not seen to end.  The notes of their cells are in `metadata._custom_backend_meta`.
        """

    async def notify_data_update(
        self,
        partition_id: str,
        global_indexes: Sequence[int],
        field_schema: Mapping[str, Mapping[str, Any]],
        custom_backend_meta: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Tell the controller that fields of samples are stored.

        `field_schema` is per field: dtype, shape, is_nested, is_non_tensor, and per_sample_shapes of nested
        ones.  `custom_backend_meta` notes, per index and field, what a reader will need; it comes back as
        `metadata._custom_backend_meta`.
        """
        indexes = [int(index) for index in global_indexes]
        noted = custom_backend_meta or {}
        await self._notify(
            Meta.make(partition_id, indexes),
            field_schema,
            {name: [noted.get(index, {}).get(name) for index in indexes] for name in field_schema},
        )

    async def _notify(
        self,
        meta: Meta,
        schema: Mapping[str, Mapping[str, Any]],
        notes: Mapping[str, Sequence[Any]],
        remover: str | None = None,
    ) -> Any:
        """Publish fields of samples, with a note per cell; gives what the cells were to the remover."""
        if self._core is None:
            raise InvalidArgumentError(f"storage manager {self.storage_manager_id} is closed")
        encoder = Encoder()
        columns = [_column(name, field, len(meta)) for name, field in schema.items()]
        return await wait(
            self._core.notify(
                partition=meta.partition,
                meta=meta,
                columns=columns,
                notes=[encoder.encode_rows(name, notes[name]) for name in schema],
                remover=remover,
            )
        )

    def close(self) -> None:
        """Leave the controller.  May be repeated."""
        core, self._core = self._core, None
        if core is not None:
            core.close()


TransferQueueStorageManager = StorageManager

Manager = TypeVar("Manager", bound=StorageManager)


class StorageManagerFactory:
    """Storage managers by name."""

    _registry: ClassVar[dict[str, type[StorageManager]]] = {}

    @classmethod
    def register(cls, manager_type: str) -> Callable[[type[Manager]], type[Manager]]:
        """Register the decorated class, in every process that uses it, before `init`."""

        def decorator(manager: type[Manager]) -> type[Manager]:
            if not isinstance(manager, type) or not issubclass(manager, StorageManager):
                raise TypeError(f"{manager!r} is not a subclass of StorageManager")
            cls._registry[manager_type] = manager
            return manager

        return decorator

    @classmethod
    def create(
        cls, manager_type: str, controller_info: ControllerInfo, config: Mapping[str, Any]
    ) -> StorageManager:
        """Make a manager of a registered type."""
        if manager_type not in cls._registry:
            known = sorted(cls._registry) or "none"
            raise UnknownManagerError(
                f"no storage manager {manager_type!r} is registered; known: {known}"
            )
        return cls._registry[manager_type](controller_info, config)

    @classmethod
    def knows(cls, manager_type: str) -> bool:
        """Whether a class is registered under the name."""
        return manager_type in cls._registry

    @classmethod
    def is_empty(cls) -> bool:
        """Whether no class is registered at all."""
        return not cls._registry


TransferQueueStorageManagerFactory = StorageManagerFactory


class AsyncSimpleStorageManager:
    """Name of the manager of shared-memory storage units; it is part of the C library.

    Accepted by `TransferQueueClient.initialize_storage_manager` under this name and as "SimpleStorage".
    """

    manager_type: ClassVar[str] = "SimpleStorage"


C_MANAGERS = {"AsyncSimpleStorageManager": AsyncSimpleStorageManager.manager_type}
"""Other names of managers of the C library."""


def _column(name: str, schema: Mapping[str, Any], rows: int) -> Column:
    """A column without bytes, from what a manager knows of it."""
    dtypes = schema.get("per_sample_dtypes")
    if dtypes is not None:
        return _mixed_column(name, schema, dtypes, rows)
    if schema.get("is_non_tensor"):
        return (name, VALUE, 1, 8, rows, None, None, array("Q", [0] * rows), ())
    dtype = describe_dtype(schema.get("dtype"))
    if dtype is None:
        raise InvalidArgumentError(
            f"field {name!r}: {schema.get('dtype')!r} is no dtype of a tensor"
        )
    each = schema.get("per_sample_shapes")
    dim = int(schema.get("ragged_dim") or 0)
    if each is None:
        return (name, TENSOR, *dtype, rows, tuple(schema.get("shape") or ()), None, None, (), dim)
    if len(each) != rows:
        raise InvalidArgumentError(
            f"field {name!r}: expected {counted(rows, 'shape')}, got {len(each)}"
        )
    ndims = array("I", [len(shape) for shape in each])
    dims = array("Q", [dim for shape in each for dim in shape])
    return (name, TENSOR, *dtype, rows, None, ndims, dims, (), dim)


def _mixed_column(name: str, schema: Mapping[str, Any], dtypes: Sequence[Any], rows: int) -> Column:
    """The same for rows that differ in dtype, or of which some are no tensors (dtype None)."""
    shapes = schema.get("per_sample_shapes") or [()] * rows
    if len(dtypes) != rows or len(shapes) != rows:
        raise InvalidArgumentError(
            f"field {name!r}: expected {rows} dtypes and shapes, got {len(dtypes)} and {len(shapes)}"
        )
    known = [describe_dtype(dtype) for dtype in dtypes]
    for dtype, found in zip(dtypes, known, strict=True):
        if found is None and dtype is not None:
            raise InvalidArgumentError(f"field {name!r}: {dtype!r} is no dtype of a tensor")
    each = [
        (0,) if dtype is None else tuple(shape or ())
        for dtype, shape in zip(known, shapes, strict=True)
    ]
    ndims = array("I", [len(shape) for shape in each])
    dims = array("Q", [dim for shape in each for dim in shape])
    types = array("I", map(packed_type, known))
    kind, first = (VALUE, (1, 8)) if known[0] is None else (TENSOR, known[0])
    return (name, kind, *first, rows, None, ndims, dims, (), 0, types)


# --- how the client uses one ----------------------------------------------------------------------

READS = 3
"""How often a read is tried whose samples are moved meanwhile."""

Clearing: TypeAlias = "tuple[int, bool, Meta]"
"""Data to be removed: number of the clear, whether it was begun here, and what the samples were."""


class ManagedStorage:
    """Puts, reads and clears through a storage manager written in Python.

    A clear has two halves at the controller: it begins, and the samples are gone; their data is removed; it
    ends, and only now their indexes are used again.  What a client leaves behind in between goes to the next
    one whose storage has the same name.
    """

    def __init__(self, core: Client, manager: StorageManager, name: str, timeout: float) -> None:
        self._core = core
        self.manager = manager
        manager.remover = name
        manager.client_timeout = timeout

    def put(self, data: Fields, metadata: BatchMeta) -> Steps[list[Meta]]:
        """Store the data of samples that exist; returns what the controller then knows of them."""
        yield self.manager.put_data(data, metadata)  # the client has parsed the data
        names = list(data.keys())
        pieces: list[Meta] = []
        for piece in metadata._pieces:
            found = yield self._core.resolve(
                piece.partition, indexes=piece.indexes, fields=names, tags=True
            )
            pieces.append(found)
        return pieces

    def get(self, metadata: BatchMeta) -> Steps[Any]:
        """Read; the notes that go with the fields are put into the metadata first.

        Samples that are cleared before all is read are an error; fields that are written again meanwhile are
        read again, if the manager does not find them any more where they were.
        """
        for again in reversed(range(READS)):
            dims = yield from self._note(metadata)
            before = list(metadata._pieces)  # a put with the same metadata changes it
            try:
                data = yield self.manager.get_data(metadata)
            except Exception:
                newer = yield from self._resolve_again(metadata, metadata.field_names)
                if not again or not _moved(before, newer, metadata.field_names):
                    raise
                metadata = type(metadata)._wrap(newer)
            else:
                yield from self._resolve_again(metadata, metadata.field_names[:1])
                return with_ragged_dims(data, dims)
        raise AssertionError("unreachable: the last try returns or raises")

    def _note(self, metadata: BatchMeta) -> Steps[dict[str, int]]:
        """Put the notes of the cells into the metadata; returns the ragged dims of the fields."""
        decoder = Decoder()
        names = metadata.field_names
        dims: dict[str, int] = {}
        start = 0
        for piece in metadata._pieces:
            data = yield self._core.get(piece, names)
            for column in data.columns:
                for row, note in enumerate(column[10] or ()):
                    metadata._custom_backend_meta[start + row][column[0]] = decoder.decode(note)
                dims[column[0]] = merged_dim(dims.get(column[0], 0), column[12])
            start += len(piece)
        return dims

    def _resolve_again(self, metadata: BatchMeta, fields: list[str]) -> Steps[list[Meta]]:
        """Where the samples are now; ClearedError names those that are not there any more."""
        pieces: list[Meta] = []
        for piece in metadata._pieces:
            found: Meta = yield self._core.resolve(
                piece.partition, indexes=piece.indexes, fields=fields, lenient=True
            )
            known = dict(
                zip(memoryview(found.indexes), memoryview(found.incarnations), strict=True)
            )
            cleared = [
                index
                for index, incarnation in zip(
                    memoryview(piece.indexes), memoryview(piece.incarnations), strict=True
                )
                if known.get(index) != (incarnation or known.get(index, -1))
            ]
            if cleared:
                raise ClearedError(
                    f"samples {cleared[:8]} were cleared from partition {piece.partition!r}"
                )
            pieces.append(found)
        return pieces

    def clear(
        self,
        partition: str | None = None,
        *,
        meta: Meta | None = None,
        keys: Sequence[str] | None = None,
    ) -> Steps[int]:
        """Clear samples by metadata or keys, or a whole partition, and remove their data; returns how many."""
        begun: list[Clearing] = yield self._core.begin_clear(
            self.manager.remover, partition, meta=meta, keys=keys
        )
        yield from self._remove(begun)
        return sum(len(cleared) for _, own, cleared in begun if own)

    def recover(self) -> Steps[None]:
        """Remove the data of clears that others have begun and not ended."""
        begun: list[Clearing] = yield self._core.begin_clear(self.manager.remover)
        yield from self._remove(begun)

    def _remove(self, clearings: Sequence[Clearing]) -> Steps[None]:
        """Remove the data of clears and end them; the first error of one that was begun here is raised."""
        left = [number for number, _, _ in clearings]
        failed: Exception | None = None
        try:
            for number, own, meta in clearings:
                try:
                    yield self.manager.clear_data(noted(meta))
                except Exception as error:  # noqa: BLE001 - another clear has still to be ended
                    if not own:
                        logger.warning(
                            "removing the data of %s of partition %r: %s: %s; it is left for later",
                            counted(len(meta), "sample"),
                            meta.partition,
                            type(error).__name__,
                            error,
                        )
                    elif failed is None:
                        failed = error
                else:
                    yield self._core.end_clear(number, True)
                    left.remove(number)
        finally:
            # Not waited for: this may be the end of a call that was given up.
            for number in left:
                if not self._core.closed:
                    self._core.end_clear(number, False)
        if failed is not None:
            raise failed


def noted(meta: Meta) -> BatchMeta:
    """Metadata with the notes that a manager gave when it told the controller of the cells."""
    from ..metadata import BatchMeta

    decoder = Decoder()
    made = BatchMeta._wrap([meta])
    for name in meta.field_names:
        for row, note in enumerate(meta.notes(name) or ()):
            if note:
                made._custom_backend_meta[row][name] = decoder.decode(note)
    return made


def _moved(before: Sequence[Meta], now: Sequence[Meta], fields: Sequence[str]) -> bool:
    """Whether cells lie elsewhere than they did."""
    return any(
        old.notes(name) != new.notes(name)
        for old, new in zip(before, now, strict=True)
        for name in fields
    )


def manager_of(config: str) -> tuple[str, dict[str, Any]]:
    """Name and section of the storage manager in a system's configuration (JSON)."""
    backend = json.loads(config).get("backend", {})
    name = str(backend.get("storage_backend") or "SimpleStorage")
    section = backend.get(name)
    return name, section if isinstance(section, dict) else {}
