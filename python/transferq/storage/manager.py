"""Storage managers written in Python.

A storage manager keeps the data of samples anywhere it likes, by partition, index and field, and tells the
controller what is stored; the rest of the system does not know how.  Subclass `StorageManager`, register the
class under a name, and set `backend.storage_backend` to that name; its config is the section `backend.NAME`.

The managers of the C library (SimpleStorage) are selected by name in the same place.
"""

from __future__ import annotations

import json
import logging
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from .._core import TENSOR, VALUE, Client, Meta
from .._impl.calls import Steps, wait
from .._impl.column import Column
from .._impl.dtypes import describe_dtype, packed_type
from .._impl.encoding import Decoder, Encoder
from .._impl.layouts import merged_dim, with_ragged_dims
from .._impl.system import ControllerInfo
from .._impl.words import counted
from ..config import Config, config_of_map
from ..errors import ClearedError, InvalidArgumentError, UnknownManagerError

if TYPE_CHECKING:
    from .._impl.tensors import Fields
    from ..metadata import BatchMeta

logger = logging.getLogger("transferq")

CLIENT_SECONDS = 60.0
"""Time limit of a call if no other is given; the default of `client.timeout`."""


class StorageManager(ABC):
    """Base of storage managers.

    `client_timeout` is set by the client that uses the manager, to the `client.timeout` of its configuration.

    The manager has its own session at the controller, opened by the constructor; `notify_data_update` publishes
    through it.  The three methods below may be called from several event loops.
    """

    def __init__(
        self,
        controller_info: ControllerInfo,
        config: Mapping[str, Any],
        zmq_context: object = None,
    ) -> None:
        """Connect to the controller; `config` is the manager's section of the configuration.

        `zmq_context` is accepted for managers written for TransferQueue and not used.
        """
        self.controller_info = controller_info
        self.config: Config = config_of_map(dict(config))
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

        Rows of `data` belong to the samples of `metadata` in order.  Others see nothing before the controller is
        notified.  The `data_parser` parameter of TransferQueue's managers is never passed: the client has already
        parsed the data.
        """

    @abstractmethod
    async def get_data(self, metadata: BatchMeta) -> Fields:
        """Return the fields `metadata.field_names` of the samples, in their order."""

    @abstractmethod
    async def clear_data(self, metadata: BatchMeta) -> None:
        """Remove the stored data of cleared samples, which readers can no longer find.

        Their indexes are reused only afterwards.  The call may be repeated, also by another process, if it was not
        seen to complete.  The notes of the cells are in `metadata._custom_backend_meta`.
        """

    async def notify_data_update(
        self,
        partition_id: str,
        global_indexes: Sequence[int],
        field_schema: Mapping[str, Mapping[str, Any]],
        custom_backend_meta: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Tell the controller that fields of samples are stored.

        `field_schema` contains per field: dtype, shape, is_nested, is_non_tensor, and per_sample_shapes for nested
        fields.  `custom_backend_meta` has, per index and field, a note for readers; they get it back as
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
        """Publish fields of samples with a note per cell; the replaced values go to the remover to delete."""
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
        """Leave the controller.  May be called repeatedly."""
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
        """Register the decorated class; must run in every process that uses it, before `init`."""

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
        """Whether a class is registered under this name."""
        return manager_type in cls._registry

    @classmethod
    def is_empty(cls) -> bool:
        """Whether no class is registered at all."""
        return not cls._registry


TransferQueueStorageManagerFactory = StorageManagerFactory


class AsyncSimpleStorageManager:
    """Name of the manager of shared-memory storage units, which is part of the C library.

    `TransferQueueClient.initialize_storage_manager` accepts it under this name and as "SimpleStorage".
    """

    manager_type: ClassVar[str] = "SimpleStorage"


C_MANAGERS = {"AsyncSimpleStorageManager": AsyncSimpleStorageManager.manager_type}
"""Other names for managers of the C library."""


def _column(name: str, schema: Mapping[str, Any], rows: int) -> Column:
    """A column without data, from a manager's description of it."""
    dtypes = schema.get("per_sample_dtypes")
    if dtypes is not None:
        return _mixed_column(name, schema, dtypes, rows)
    if schema.get("is_non_tensor"):
        return Column(name, VALUE, 1, 8, rows, None, None, array("Q", [0] * rows), ())
    dtype = describe_dtype(schema.get("dtype"))
    if dtype is None:
        raise InvalidArgumentError(
            f"field {name!r}: {schema.get('dtype')!r} is no dtype of a tensor"
        )
    each = schema.get("per_sample_shapes")
    dim = int(schema.get("ragged_dim") or 0)
    if each is None:
        return Column(
            name, TENSOR, *dtype, rows, tuple(schema.get("shape") or ()), None, None, (), dim
        )
    if len(each) != rows:
        raise InvalidArgumentError(
            f"field {name!r}: expected {counted(rows, 'shape')}, got {len(each)}"
        )
    ndims = array("I", [len(shape) for shape in each])
    dims = array("Q", [dim for shape in each for dim in shape])
    return Column(name, TENSOR, *dtype, rows, None, ndims, dims, (), dim)


def _mixed_column(name: str, schema: Mapping[str, Any], dtypes: Sequence[Any], rows: int) -> Column:
    """A column without data whose rows differ in dtype, or of which some are not tensors (dtype None)."""
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
    return Column(name, kind, *first, rows, None, ndims, dims, (), 0, types)


# --- how the client uses a manager ----------------------------------------------------------------

READS = 3
"""Attempts of a read whose samples are moved while it runs."""

Clearing: TypeAlias = "tuple[int, bool, Meta]"
"""Data to be removed: the number of the clear, whether this client started it, and the cleared samples."""


class ManagedStorage:
    """Puts, reads and clears through a storage manager written in Python.

    A clear has two phases at the controller.  When it begins, the samples disappear.  Then their data is removed.
    When it ends, their indexes become reusable.  A clear that a client leaves unfinished goes to the next client
    whose storage has the same name.
    """

    def __init__(self, core: Client, manager: StorageManager, name: str, timeout: float) -> None:
        self._core = core
        self.manager = manager
        manager.remover = name
        manager.client_timeout = timeout

    def put(self, data: Fields, metadata: BatchMeta) -> Steps[list[Meta]]:
        """Store the data of existing samples; returns what the controller then knows about them."""
        yield self.manager.put_data(data, metadata)  # the client has already parsed the data
        names = list(data.keys())
        pieces: list[Meta] = []
        for piece in metadata._pieces:
            found = yield self._core.resolve(
                piece.partition, indexes=piece.indexes, fields=names, tags=True
            )
            pieces.append(found)
        return pieces

    def get(self, metadata: BatchMeta) -> Steps[Any]:
        """Read data, after adding the notes of the cells to the metadata.

        If samples are cleared before the read completes, it fails.  If fields are overwritten meanwhile and the manager
        no longer finds their old values, they are read again.
        """
        for again in reversed(range(READS)):
            dims = yield from self._note(metadata)
            before = list(metadata._pieces)  # a put with the same metadata would change this list
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
        """Add the notes of the cells to the metadata; returns the ragged dims of the fields."""
        decoder = Decoder()
        names = metadata.field_names
        dims: dict[str, int] = {}
        start = 0
        for piece in metadata._pieces:
            data = yield self._core.get(piece, names)
            for column in data.columns:
                for row, note in enumerate(column.notes or ()):
                    metadata._custom_backend_meta[start + row][column.name] = decoder.decode(note)
                dims[column.name] = merged_dim(dims.get(column.name, 0), column.ragged_dim)
            start += len(piece)
        return dims

    def _resolve_again(self, metadata: BatchMeta, fields: list[str]) -> Steps[list[Meta]]:
        """Look up where the samples are now; ClearedError names those that no longer exist."""
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
        """Clear samples by metadata or keys, or a whole partition, and remove their data; returns the number of samples."""
        begun: list[Clearing] = yield self._core.begin_clear(
            self.manager.remover, partition, meta=meta, keys=keys
        )
        yield from self._remove(begun)
        return sum(len(cleared) for _, own, cleared in begun if own)

    def recover(self) -> Steps[None]:
        """Remove the data of clears that other clients began and did not finish."""
        begun: list[Clearing] = yield self._core.begin_clear(self.manager.remover)
        yield from self._remove(begun)

    def _remove(self, clearings: Sequence[Clearing]) -> Steps[None]:
        """Remove the data of clears and end them; raises the first error of a clear that this client began."""
        left = [number for number, _, _ in clearings]
        failed: Exception | None = None
        try:
            for number, own, meta in clearings:
                try:
                    yield self.manager.clear_data(noted(meta))
                except Exception as error:  # noqa: BLE001 - the other clears still have to be ended
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
            # Not awaited: the call may have been cancelled.
            for number in left:
                if not self._core.closed:
                    self._core.end_clear(number, False)
        if failed is not None:
            raise failed


def noted(meta: Meta) -> BatchMeta:
    """Wrap metadata, with the notes that the manager gave when it notified the controller."""
    from ..metadata import BatchMeta

    decoder = Decoder()
    made = BatchMeta._wrap([meta])
    for name in meta.field_names:
        for row, note in enumerate(meta.notes(name) or ()):
            if note:
                made._custom_backend_meta[row][name] = decoder.decode(note)
    return made


def _moved(before: Sequence[Meta], now: Sequence[Meta], fields: Sequence[str]) -> bool:
    """Whether any cells have moved."""
    return any(
        old.notes(name) != new.notes(name)
        for old, new in zip(before, now, strict=True)
        for name in fields
    )


def manager_of(config: str) -> tuple[str, dict[str, Any]]:
    """Name and section of the storage manager, from a system's configuration (JSON)."""
    backend = json.loads(config).get("backend", {})
    name = str(backend.get("storage_backend") or "SimpleStorage")
    section = backend.get(name)
    return name, section if isinstance(section, dict) else {}
