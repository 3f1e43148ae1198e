"""Clients of key-value stores written in Python, and the storage manager over those that take values.

There are two forms of a client, and a class may have either.  In the pointer form (`put_from`, `get_into`,
`remove`) no byte becomes a Python object: the C library's KV manager cuts batches into values of about
256 KiB and hands over addresses, and a store's own library moves the bytes.  In the value form (`put`, `get`,
`clear`, as in TransferQueue) every cell is a value of its own, a tensor or another object, and what the client
says of it is kept at the controller.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .. import _core
from .._columns import schema_of_fields
from ..errors import ConfigError, InvalidArgumentError, LostError
from ..system import ControllerInfo
from ..tensors import have_torch, pack_rows, row_list, tensordict_of
from .manager import StorageManager, StorageManagerFactory

if TYPE_CHECKING:
    from ..metadata import BatchMeta
    from ..tensors import Fields

BUILT_IN = {"MooncakeStore": "ctq.storage.mooncake", "RayStore": "ctq.storage.ray_store"}
"""Backends written in Python that come with the package: the module that registers each."""

POINTER_FORM = ("put_from", "get_into", "remove")
VALUE_FORM = ("put", "get", "clear")


def memory(pointer: int, size: int) -> memoryview:
    """View `size` bytes at an address; valid during the call that was given the address."""
    return memoryview((ctypes.c_char * size).from_address(pointer)).cast("B")


class StorageKVClient:
    """Base of clients of a key-value store; define the three methods of one form.

    Methods are called from several threads at once, and may be called again after an error, which may be any
    exception; `StorageFullError` makes puts wait.  In the pointer form no key is ever put with other content.
    """

    value_max: ClassVar[int] = 0
    """Largest value of the store in bytes, 0 for no limit; larger ones are cut (pointer form)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Connect; `config` is the section of the backend in the configuration."""
        self.config = config

    @property
    def name(self) -> str:
        """Name of the store: the same in all processes that use it (pointer form)."""
        return type(self).__name__

    def close(self) -> None:
        """Disconnect."""

    # --- with the system --------------------------------------------------------------------------

    @classmethod
    def manager_type(cls, section: Mapping[str, Any]) -> str | None:
        """A registered storage manager that serves this configuration better than the general one."""
        return None

    @classmethod
    def starting(
        cls, section: Mapping[str, Any], detached: bool
    ) -> tuple[Mapping[str, Any], Callable[[], None]]:
        """Called in the process that starts a system, before: what the store needs beside its servers.

        Returns the section that the system is to run with, and what to call after the system's end.  `detached`:
        the system outlives the process.
        """
        return section, _nothing

    @classmethod
    def connected(cls, info: ControllerInfo, epoch: int, section: Mapping[str, Any]) -> None:
        """Called when a client has connected to a system on this store."""

    # --- pointer form -----------------------------------------------------------------------------

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        """Put values: the bytes of each lie in pieces at addresses."""
        raise NotImplementedError

    def get_into(self, keys: list[str], pointers: list[int], sizes: list[int]) -> Sequence[bool]:
        """Get whole values of these sizes to addresses; False for a key that is not there."""
        raise NotImplementedError

    def remove(self, keys: list[str]) -> Sequence[bool]:
        """Remove keys; False for one that was not there."""
        raise NotImplementedError

    # --- value form -------------------------------------------------------------------------------

    def put(self, keys: list[str], values: list[Any]) -> list[Any] | None:
        """Put values; what is returned, one object per key or None, is given to `get` and `clear`."""
        raise NotImplementedError

    def get(
        self,
        keys: list[str],
        shapes: list[Any] | None = None,
        dtypes: list[Any] | None = None,
        custom_backend_meta: list[Any] | None = None,
    ) -> list[Any]:
        """Get values; None for a key that is not there.  Shape and dtype are None for objects."""
        raise NotImplementedError

    def clear(self, keys: list[str], custom_backend_meta: list[Any] | None = None) -> None:
        """Remove keys; those that are not there are no error."""
        raise NotImplementedError


def _nothing() -> None:
    """Nothing to do."""


KVClient = TypeVar("KVClient", bound=type[Any])


def _has_form(client: type[Any], form: Sequence[str]) -> bool:
    return all(
        getattr(client, method, None) not in (None, getattr(StorageKVClient, method))
        for method in form
    )


class StorageClientFactory:
    """Clients of key-value stores by name."""

    _registry: ClassVar[dict[str, type[Any]]] = {}

    @classmethod
    def register(cls, client_type: str) -> Callable[[KVClient], KVClient]:
        """Register the decorated class; `backend.storage_backend` may then name it."""

        def decorator(client: KVClient) -> KVClient:
            if _has_form(client, POINTER_FORM):
                known = cls._registry.get(client_type)
                if known is None or not _has_form(known, POINTER_FORM):
                    _core.kv_register(client_type, cls._maker(client_type), client.value_max)
            elif not _has_form(client, VALUE_FORM):
                raise TypeError(
                    f"{client!r} must define {', '.join(POINTER_FORM)}, or {', '.join(VALUE_FORM)}"
                )
            cls._registry[client_type] = client
            return client

        return decorator

    @classmethod
    def _maker(cls, client_type: str) -> Callable[[str], Any]:
        """What the C library calls for a client: the class that has the name then."""
        return lambda config: cls._registry[client_type](json.loads(config))

    @classmethod
    def create(cls, client_type: str, config: Mapping[str, Any]) -> Any:
        """Make a client of a registered type."""
        if client_type not in cls._registry:
            known = ", ".join(sorted(cls._registry)) or "none"
            raise InvalidArgumentError(
                f"no client of a key-value store is registered as {client_type!r}; known: {known}"
            )
        return cls._registry[client_type](config)

    @classmethod
    def known(cls, client_type: str) -> type[StorageKVClient] | None:
        """The class of a registered type, if it is one of ours."""
        client = cls._registry.get(client_type)
        return client if client is not None and issubclass(client, StorageKVClient) else None

    @classmethod
    def needs_manager(cls, client_type: str) -> bool:
        """Whether it is a client of the value form, which `KVStorageManager` serves."""
        client = cls._registry.get(client_type)
        return client is not None and not _has_form(client, POINTER_FORM)


class KVStorageManager(StorageManager):
    """Samples in a store of which `config["client_name"]` names the client, of the value form.

    A cell is one value under the key EPOCH/INDEX.INCARNATION/FIELD: no key of one sample is used by another,
    whatever is reused.
    """

    def __init__(self, controller_info: ControllerInfo, config: Mapping[str, Any]) -> None:
        """Connect to the controller and to the store."""
        name = config.get("client_name")
        if not name:
            raise InvalidArgumentError("client_name: expected the name of a registered client")
        self.storage_client = StorageClientFactory.create(name, config)
        super().__init__(controller_info, config)

    @staticmethod
    def _keys(metadata: BatchMeta, names: Sequence[str]) -> list[str]:
        """Keys of all cells, field by field."""
        samples = [
            f"{piece.epoch:x}/{index}.{incarnation}"
            for piece in metadata._pieces
            for index, incarnation in zip(
                memoryview(piece.indexes), memoryview(piece.incarnations), strict=True
            )
        ]
        return [f"{sample}/{name}" for name in names for sample in samples]

    async def put_data(
        self, data: Fields, metadata: BatchMeta, data_parser: Callable[[Any], Any] | None = None
    ) -> None:
        """Put every cell, then tell the controller; after an error new cells are removed again."""
        names = list(data.keys())
        keys = self._keys(metadata, names)
        values = [row for name in names for row in row_list(name, data[name], metadata.size)]
        overwrites = not set(names).isdisjoint(metadata.field_names)
        try:
            notes = await asyncio.to_thread(self.storage_client.put, keys, values)
            await self._notify(metadata, schema_of_fields(data), names, notes)
        except BaseException:
            if not overwrites:
                await asyncio.to_thread(self.storage_client.clear, keys)
            raise

    async def _notify(
        self,
        metadata: BatchMeta,
        schema: Mapping[str, Mapping[str, Any]],
        names: Sequence[str],
        notes: Sequence[Any] | None,
    ) -> None:
        start = 0
        for part in metadata.chunk_by_partition():
            indexes = part.global_indexes
            each = {
                name: _rows_of_schema(field, start, start + part.size)
                for name, field in schema.items()
            }
            noted = {
                index: {
                    name: notes[place * metadata.size + start + row]
                    for place, name in enumerate(names)
                }
                for row, index in enumerate(indexes)
                if notes is not None
            }
            await self.notify_data_update(part.partition_ids[0], indexes, each, noted)
            start += part.size

    async def get_data(self, metadata: BatchMeta) -> Any:
        """Get the cells; LostError names a key that the store does not have any more."""
        names = metadata.field_names
        keys = self._keys(metadata, names)
        schema = metadata.field_schema
        shapes: list[Any] = []
        dtypes: list[Any] = []
        for name in names:
            shapes += metadata.get_shapes(name)
            dtypes += [schema[name].get("dtype")] * metadata.size
        noted = metadata._custom_backend_meta
        notes = [noted[row].get(name) for name in names for row in range(metadata.size)]
        values = await asyncio.to_thread(self.storage_client.get, keys, shapes, dtypes, notes)
        if len(values) != len(keys):
            raise InvalidArgumentError(
                f"{type(self.storage_client).__name__}.get: expected {len(keys)} values, got {len(values)}"
            )
        rows = {
            name: values[place * metadata.size : (place + 1) * metadata.size]
            for place, name in enumerate(names)
        }
        for name in names:
            if not schema[name].get("is_non_tensor"):
                _check_there(name, rows[name], metadata)
        fields = {name: pack_rows(list(column)) for name, column in rows.items()}
        return tensordict_of(fields, [metadata.size]) if have_torch() else fields

    async def clear_data(self, metadata: BatchMeta) -> None:
        """Remove the cells."""
        names = metadata.field_names
        noted = metadata._custom_backend_meta
        notes = [noted[row].get(name) for name in names for row in range(metadata.size)]
        keys = self._keys(metadata, names)
        await asyncio.to_thread(self.storage_client.clear, keys, custom_backend_meta=notes)

    def close(self) -> None:
        """Leave the store and the controller.  May be repeated."""
        close = getattr(self.storage_client, "close", None)
        if close is not None:
            close()
        super().close()


def _rows_of_schema(field: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    each = field.get("per_sample_shapes")
    return {**field, **({} if each is None else {"per_sample_shapes": each[start:end]})}


def _check_there(name: str, values: Sequence[Any], metadata: BatchMeta) -> None:
    lost = [
        index for index, value in zip(metadata.global_indexes, values, strict=True) if value is None
    ]
    if lost:
        raise LostError(
            f"field {name!r}: the store has lost the values of samples {lost[:8]}"
            + ("" if len(lost) <= 8 else f" and {len(lost) - 8} more")
        )


def import_backend(name: str, section: Mapping[str, Any]) -> None:
    """Import what registers a backend: its module here, and the one that its section names."""
    for module in (BUILT_IN.get(name), section.get("module")):
        if module is not None:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ConfigError(
                    f"backend.{name}.module: {module!r} cannot be imported: {error}"
                ) from error


def manager_in_python(
    name: str, controller_info: ControllerInfo, section: Mapping[str, Any]
) -> StorageManager | None:
    """Make the storage manager of a backend, if it is one written in Python.

    The module that the backend's section names is imported first, and may be what registers it.
    """
    import_backend(name, section)
    client = StorageClientFactory.known(name)
    manager_type = None if client is None else client.manager_type(section)
    if manager_type is not None or StorageManagerFactory.knows(name):
        return StorageManagerFactory.create(manager_type or name, controller_info, section)
    if StorageClientFactory.needs_manager(name):
        return KVStorageManager(controller_info, {**section, "client_name": name})
    return None


def starting(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Callable[[], None]]:
    """What the backend of a configuration needs before a system starts.

    Returns the configuration to start it with, and what to call when it has ended.
    """
    backend = given.get("backend") or {}
    name = str(backend.get("storage_backend") or "")
    section = backend.get(name) or {}
    if name in BUILT_IN or name in StorageClientFactory._registry:
        import_backend(name, section)
    client = StorageClientFactory.known(name)
    if client is None:
        return given, _nothing
    detached = (given.get("ray") or {}).get("lifetime") == "detached"
    changed, ended = client.starting(section, detached)
    return {**given, "backend": {**backend, name: changed}}, ended


def client_connected(
    info: ControllerInfo, epoch: int, name: str, section: Mapping[str, Any]
) -> None:
    """Tell the class of the store's clients that one has connected."""
    client = StorageClientFactory.known(name)
    if client is not None:
        client.connected(info, epoch, section)
