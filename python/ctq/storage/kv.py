"""Clients of key-value stores written in Python, and the storage manager over those that take values.

There are two forms of a client, and a class may have either.  In the pointer form (`put_from`, `get_into`,
`remove`) no byte becomes a Python object: the C library's KV manager cuts batches into values of about
256 KiB and hands over addresses, and a store's own library moves the bytes.  In the value form (`put`, `get`,
`clear`, as in TransferQueue) every cell is a value of its own, a tensor or another object, and what the client
says of it is kept at the controller.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import importlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .. import _core
from .._calls import wait
from .._columns import rows_of_schema, schema_of_fields
from ..errors import (
    CanceledError,
    ClosedError,
    ConfigError,
    InvalidArgumentError,
    LostError,
    NotReadyError,
    StorageFullError,
    TimedOutError,
    TransferQueueError,
    UnreachableError,
)
from ..system import ControllerInfo
from ..tensors import have_torch, pack_rows, row_list, tensordict_of
from .kv_calls import CallLeftError, Calls
from .manager import StorageManager, StorageManagerFactory, noted

if TYPE_CHECKING:
    from .._core import Meta
    from ..metadata import BatchMeta
    from ..tensors import Fields
    from .manager import Clearing

logger = logging.getLogger("ctq")

BUILT_IN = {"MooncakeStore": "ctq.storage.mooncake", "RayStore": "ctq.storage.ray_tensors"}
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
    A method that blocks for longer than `client.timeout` is not waited for in the value form; its thread goes on.
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


def has_form(client: type[Any], form: Sequence[str]) -> bool:
    """Whether a class defines all methods of a form."""
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
            if has_form(client, POINTER_FORM):
                known = cls._registry.get(client_type)
                if known is None or not has_form(known, POINTER_FORM):
                    _core.kv_register(client_type, cls._maker(client_type), client.value_max)
            elif not has_form(client, VALUE_FORM):
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
        return client is not None and not has_form(client, POINTER_FORM)


UNKNOWN_OUTCOME = (
    TimedOutError,
    UnreachableError,
    CanceledError,
    ClosedError,
    asyncio.CancelledError,
)
"""How a publish ends that may have been done nevertheless."""


FULL_SECONDS = (0.01, 1.0)
"""Pauses between tries to put into a store that has no room: the first, and the longest."""


class KVStorageManager(StorageManager):
    """Samples in a store of which `config["client_name"]` names the client, of the value form.

    A cell is one value under the key tq/EPOCH/INDEX.INCARNATION.PUT/FIELD.  PUT is new with every put, so no key
    is ever put with two values: what is written again lies elsewhere, becomes visible as a whole, and what it
    replaces is removed then.  The note of a cell is its key without the field, what the client said of the
    value, and whether the value is None.
    """

    def __init__(self, controller_info: ControllerInfo, config: Mapping[str, Any]) -> None:
        """Connect to the controller and to the store."""
        name = config.get("client_name")
        if not name:
            raise InvalidArgumentError("client_name: expected the name of a registered client")
        self.storage_client = StorageClientFactory.create(name, config)
        super().__init__(controller_info, config)
        self.remover = str(name)
        self._calls = Calls(self.storage_client)

    async def put_data(
        self, data: Fields, metadata: BatchMeta, data_parser: Callable[[Any], Any] | None = None
    ) -> None:
        """Put the cells of each partition, then publish them: all of them or none."""
        rows = {name: row_list(name, data.get(name), metadata.size) for name in data.keys()}  # noqa: SIM118
        schema = schema_of_fields(data)
        start = 0
        for piece in metadata._pieces:
            end = start + len(piece)
            await self._put_piece(
                piece,
                {name: column[start:end] for name, column in rows.items()},
                {name: rows_of_schema(field, start, end) for name, field in schema.items()},
            )
            start = end

    async def _put_piece(
        self,
        piece: Meta,
        rows: Mapping[str, Sequence[Any]],
        schema: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Put samples of one partition.  After an error what was put is removed, unless it may be published."""
        core = self._core
        epoch = core.epoch if core is not None else piece.epoch
        put = os.urandom(8).hex()
        stems = [
            f"tq/{epoch:016x}/{index}.{incarnation}.{put}"
            for index, incarnation in zip(
                memoryview(piece.indexes), memoryview(piece.incarnations), strict=True
            )
        ]
        keys = [f"{stem}/{name}" for name in rows for stem in stems]
        values = [value for column in rows.values() for value in column]
        said: Sequence[Any] | None = None
        publishes = False
        try:
            said = await self._put(keys, values)
            notes = [
                [stems[place % len(stems)], None if said is None else said[place], value is None]
                for place, value in enumerate(values)
            ]
            publishes = True
            replaced = await self._notify(
                piece,
                schema,
                {
                    name: notes[at * len(stems) : (at + 1) * len(stems)]
                    for at, name in enumerate(rows)
                },
                self.remover,
            )
        except BaseException as error:
            if publishes and isinstance(error, UNKNOWN_OUTCOME):
                logger.warning("a put of %d values may be published: they stay", len(keys))
            elif publishes:
                await self._undo(keys, said, error)
            raise
        await self._remove_replaced(replaced)
        if replaced and len(replaced[0][2]) < len(piece):
            await self._remove_rest()

    async def _put(self, keys: list[str], values: list[Any]) -> Sequence[Any] | None:
        """Put values, all or none; waits for room in a store that is full."""
        deadline = time.monotonic() + self.client_timeout
        pause, longest = FULL_SECONDS
        full: StorageFullError | None = None
        while full is None or time.monotonic() < deadline:
            said: Any = None
            try:
                said = await self._calls.run(
                    "put",
                    (keys, values),
                    deadline,
                    late=lambda said: self._undo_late(keys, said),
                )
                return said if said is None else self._calls.check_row("put", "answer", said, keys)
            except CallLeftError as left:
                timed_out = isinstance(left.reason, TimedOutError)
                raise (full if full is not None and timed_out else left.reason) from None
            except BaseException as error:
                usable = self._calls.is_row(said, keys)
                await self._undo(keys, said if usable else None, error)
                if not isinstance(error, StorageFullError):
                    raise
                full = error
            await asyncio.sleep(max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(2 * pause, longest)
        raise full

    async def _undo(
        self, keys: list[str], said: Sequence[Any] | None, failed: BaseException
    ) -> None:
        """Remove what a put that failed may have put; its error is the one to be raised."""
        try:
            await self._call("clear", keys, custom_backend_meta=said)
        except Exception as error:  # noqa: BLE001
            self._not_undone(keys, error, failed)

    def _undo_late(self, keys: list[str], said: Sequence[Any] | None) -> None:
        """Remove what was put after nobody waited for it any more; in the thread of that put."""
        try:
            self.storage_client.clear(keys, custom_backend_meta=said)
        except Exception as error:  # noqa: BLE001 - nobody is there to be told
            self._not_undone(keys, error, None)

    def _not_undone(
        self, keys: list[str], error: BaseException, failed: BaseException | None
    ) -> None:
        # A store that is not there fails both: that is in the error of the put.
        known = failed is not None and type(error) is type(failed)
        logger.log(
            logging.DEBUG if known else logging.WARNING,
            "%s: %d values of a failed put may be left, the first one is %s: %s: %s",
            self._calls.name,
            len(keys),
            keys[0],
            type(error).__name__,
            error,
        )

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + self.client_timeout
        try:
            return await self._calls.run(method, args, deadline, kwargs)
        except CallLeftError as left:
            raise left.reason from None

    async def _remove_replaced(self, replaced: Sequence[Clearing]) -> None:
        """Remove what a put has replaced; the put is done, so an error only leaves it for later."""
        for number, _, meta in replaced:
            removed = False
            try:
                await self.clear_data(noted(meta))
                removed = True
            except Exception as error:  # noqa: BLE001
                logger.warning(
                    "removing values that were replaced: %s: %s", type(error).__name__, error
                )
            finally:
                if self._core is not None:
                    self._core.end_clear(number, removed)

    async def _remove_rest(self) -> None:
        """Remove what a put has replaced and one answer could not tell of: that is asked for."""
        try:
            if self._core is not None:
                await self._remove_replaced(await wait(self._core.begin_clear(self.remover)))
        except TransferQueueError as error:
            logger.warning("values that were replaced are left for later: %s", error)

    async def get_data(self, metadata: BatchMeta) -> Any:
        """Get the cells; LostError names samples whose values the store does not have any more."""
        names = metadata.field_names
        schema = metadata.field_schema
        notes = [_note_of(metadata, row, name) for name in names for row in range(metadata.size)]
        keys = [f"{note[0]}/{names[place // metadata.size]}" for place, note in enumerate(notes)]
        shapes: list[Any] = []
        dtypes: list[Any] = []
        for name in names:
            shapes += metadata.get_shapes(name)
            dtypes += [schema[name].get("dtype")] * metadata.size
        values = await self._call("get", keys, shapes, dtypes, [note[1] for note in notes])
        self._calls.check_row("get", "value", values, keys)
        for key, value, shape, dtype in zip(keys, values, shapes, dtypes, strict=True):
            if value is not None and dtype is not None:
                self._calls.check_tensor(key, value, shape, dtype)
        columns: dict[str, list[Any]] = {}
        for place, name in enumerate(names):
            cells = slice(place * metadata.size, (place + 1) * metadata.size)
            columns[name] = list(values[cells])
            _check_there(name, columns[name], notes[cells], metadata)
        fields = {name: pack_rows(column) for name, column in columns.items()}
        return tensordict_of(fields, [metadata.size]) if have_torch() else fields

    async def clear_data(self, metadata: BatchMeta) -> None:
        """Remove the cells, where the notes say that they are."""
        cells = [
            (f"{note[0]}/{name}", note[1])
            for notes in metadata._custom_backend_meta
            for name, note in notes.items()
        ]
        if cells:
            keys = [key for key, _ in cells]
            said = [answer for _, answer in cells]
            await self._call("clear", keys, custom_backend_meta=said)

    def close(self) -> None:
        """Leave the store and the controller.  May be repeated."""
        self._calls.close()
        close = getattr(self.storage_client, "close", None)
        if close is not None:
            close()
        super().close()


def _note_of(metadata: BatchMeta, row: int, name: str) -> Any:
    note = metadata._custom_backend_meta[row].get(name)
    if note is None:
        raise NotReadyError(f"field {name!r}: sample {metadata.global_indexes[row]} is not there")
    return note


def _check_there(
    name: str, values: Sequence[Any], notes: Sequence[Any], metadata: BatchMeta
) -> None:
    lost = [
        index
        for index, value, note in zip(metadata.global_indexes, values, notes, strict=True)
        if value is None and not note[2]
    ]
    if lost:
        raise LostError(
            f"field {name!r}: the store has lost the values of samples {lost[:8]}"
            + ("" if len(lost) <= 8 else f" and {len(lost) - 8} more")
        )


# After close(), which does not wait for long: a thread that came back to no interpreter would crash.
atexit.register(_core.kv_wait)


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
