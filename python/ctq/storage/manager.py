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
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .._calls import Steps, wait
from .._core import TENSOR, VALUE, Client, Meta
from ..config import Config, of_map
from ..encoding import Decoder, Encoder
from ..errors import InvalidArgumentError, UnknownManagerError
from ..system import ControllerInfo
from ..tensors import describe_dtype

if TYPE_CHECKING:
    from .._core import Column
    from ..metadata import BatchMeta
    from ..tensors import Fields

logger = logging.getLogger("ctq")


class StorageManager(ABC):
    """Base of storage managers.

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
        self._core: Client | None = Client(
            controller_info.address,
            token=controller_info.token,
            token_file=controller_info.token_file,
            name=self.storage_manager_id,
            manager="",
        )

    @abstractmethod
    async def put_data(
        self, data: Fields, metadata: BatchMeta, data_parser: Callable[[Any], Any] | None = None
    ) -> None:
        """Store the columns of the samples, then call `notify_data_update`.

        Rows of `data` belong to the samples of `metadata` in order.  Nothing is visible to others before
        the controller was notified.
        """

    @abstractmethod
    async def get_data(self, metadata: BatchMeta) -> Fields:
        """Return the fields `metadata.field_names` of the samples, in their order."""

    @abstractmethod
    async def clear_data(self, metadata: BatchMeta) -> None:
        """Forget the samples; their indexes are used again only afterwards.  May be repeated."""

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
        if self._core is None:
            raise InvalidArgumentError(f"storage manager {self.storage_manager_id} is closed")
        indexes = [int(index) for index in global_indexes]
        columns = [_column(name, schema, len(indexes)) for name, schema in field_schema.items()]
        encoder = Encoder()
        noted = custom_backend_meta or {}
        notes = [
            encoder.encode_rows(name, (noted.get(index, {}).get(name) for index in indexes))
            for name in field_schema
        ]
        await wait(
            self._core.notify(
                partition=partition_id,
                meta=Meta.make(partition_id, indexes),
                columns=columns,
                notes=notes,
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
        """Register the decorated class, in every process that shall use it, before `init`."""

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
    if schema.get("is_non_tensor"):
        return (name, VALUE, 1, 8, rows, None, None, array("Q", [0] * rows), ())
    dtype = describe_dtype(schema.get("dtype"))
    if dtype is None:
        raise InvalidArgumentError(
            f"field {name!r}: {schema.get('dtype')!r} is no dtype of a tensor"
        )
    each = schema.get("per_sample_shapes")
    if each is None:
        return (name, TENSOR, *dtype, rows, tuple(schema.get("shape") or ()), None, None, ())
    if len(each) != rows:
        raise InvalidArgumentError(f"field {name!r}: expected {rows} shapes, got {len(each)}")
    ndims = array("I", [len(shape) for shape in each])
    dims = array("Q", [dim for shape in each for dim in shape])
    return (name, TENSOR, *dtype, rows, None, ndims, dims, ())


# --- how the client uses one ----------------------------------------------------------------------


class ManagedStorage:
    """Puts, reads and clears through a storage manager written in Python."""

    def __init__(self, core: Client, manager: StorageManager) -> None:
        self._core = core
        self.manager = manager

    def put(
        self, data: Fields, metadata: BatchMeta, data_parser: Callable[[Any], Any] | None
    ) -> Steps[list[Meta]]:
        """Store the data of samples that exist; returns what the controller then knows of them."""
        yield self.manager.put_data(data, metadata, data_parser)
        names = list(data.keys())
        pieces: list[Meta] = []
        for piece in metadata._pieces:
            found = yield self._core.resolve(
                piece.partition, indexes=piece.indexes, fields=names, tags=True
            )
            pieces.append(found)
        return pieces

    def get(self, metadata: BatchMeta) -> Steps[Any]:
        """Read; the notes that go with the fields are put into the metadata first."""
        decoder = Decoder()
        names = metadata.field_names
        start = 0
        for piece in metadata._pieces:
            data = yield self._core.get(piece, names)
            for column in data.columns:
                for row, note in enumerate(column[10] or ()):
                    metadata._custom_backend_meta[start + row][column[0]] = decoder.decode(note)
            start += len(piece)
        return (yield self.manager.get_data(metadata))

    def clear(self, metadata: BatchMeta) -> Steps[int]:
        """Clear: first where the data is, then at the controller, which reuses the indexes."""
        yield self.manager.clear_data(metadata)
        count = 0
        for piece in metadata._pieces:
            count += yield self._core.clear_meta(piece)
        return count


def manager_of(config: str) -> tuple[str, dict[str, Any]]:
    """Name and section of the storage manager in a system's configuration (JSON)."""
    backend = json.loads(config).get("backend", {})
    name = str(backend.get("storage_backend") or "SimpleStorage")
    section = backend.get(name)
    return name, section if isinstance(section, dict) else {}
