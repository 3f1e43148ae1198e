"""The storage manager over value-form clients of key-value stores: each cell is a separate value."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._impl.calls import wait
from .._impl.columns import rows_of_schema, schema_of_fields
from .._impl.dtypes import have_torch
from .._impl.system import ControllerInfo
from .._impl.tensors import is_tensor, pack_rows, row_list, tensordict_of
from .._impl.words import counted
from ..errors import (
    CanceledError,
    ClosedError,
    InvalidArgumentError,
    LostError,
    NotReadyError,
    StorageFullError,
    TimedOutError,
    TransferQueueError,
    UnreachableError,
)
from .kv import StorageClientFactory
from .kv_calls import CallLeftError, Calls
from .manager import StorageManager, noted

if TYPE_CHECKING:
    from .._core import Meta
    from .._impl.tensors import Fields
    from ..metadata import BatchMeta
    from .manager import Clearing

logger = logging.getLogger("transferq")

UNKNOWN_OUTCOME = (
    TimedOutError,
    UnreachableError,
    CanceledError,
    ClosedError,
    asyncio.CancelledError,
)
"""Errors after which a publish may nevertheless have been done."""


FULL_SECONDS = (0.01, 1.0)
"""Pauses between attempts to put into a full store: the first, and the longest."""


class KVStorageManager(StorageManager):
    """Samples in a store accessed through the value-form client named by `config["client_name"]`.

    A cell is one value under the key tq/EPOCH/INDEX.INCARNATION.PUT/FIELD.  PUT is new with every put, so no key
    is ever put with two values: an overwrite is stored under a new key and becomes visible as a whole, and then the
    replaced value is removed.  The note of a cell is its key without the field, the object that the client returned
    for the value, and whether the value is None.
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
        """Put the cells of each partition, then publish them, all or none."""
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
        """Put samples of one partition.  After an error remove the values again, unless they may have been published."""
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
                logger.warning(
                    "a put of %s may be published and stays", counted(len(keys), "value")
                )
            elif publishes:
                await self._undo(keys, said, error)
            raise
        await self._remove_replaced(replaced)
        if replaced and len(replaced[0][2]) < len(piece):
            await self._remove_rest()

    async def _put(self, keys: list[str], values: list[Any]) -> Sequence[Any] | None:
        """Put values, all or none; waits for room if the store is full."""
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
        """Remove what a failed put may have stored; the put's error is the one to raise."""
        try:
            await self._call("clear", keys, custom_backend_meta=said)
        except Exception as error:  # noqa: BLE001
            self._not_undone(keys, error, failed)

    def _undo_late(self, keys: list[str], said: Sequence[Any] | None) -> None:
        """Remove the values of a put that completed after its caller gave up; runs in the thread of that put."""
        try:
            self.storage_client.clear(keys, custom_backend_meta=said)
        except Exception as error:  # noqa: BLE001 - there is no caller to raise it to
            self._not_undone(keys, error, None)

    def _not_undone(
        self, keys: list[str], error: BaseException, failed: BaseException | None
    ) -> None:
        # If the store is unreachable, both calls fail alike, and the put's error already says so.
        known = failed is not None and type(error) is type(failed)
        logger.log(
            logging.DEBUG if known else logging.WARNING,
            "%s: %s of a failed put may be left, the first one is %s: %s: %s",
            self._calls.name,
            counted(len(keys), "value"),
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
        """Remove the values replaced by a put; the put itself is done, so after an error they are left for later."""
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
        """Request and remove those replaced values that did not fit into the answer to the put."""
        try:
            if self._core is not None:
                await self._remove_replaced(await wait(self._core.begin_clear(self.remover)))
        except TransferQueueError as error:
            logger.warning("values that were replaced are left for later: %s", error)

    async def get_data(self, metadata: BatchMeta) -> Any:
        """Get the cells; LostError names samples whose values are no longer in the store."""
        names = metadata.field_names
        notes = [_note_of(metadata, row, name) for name in names for row in range(metadata.size)]
        keys = [f"{note[0]}/{names[place // metadata.size]}" for place, note in enumerate(notes)]
        shapes: list[Any] = []
        dtypes: list[Any] = []
        for name in names:
            shapes += metadata.get_shapes(name)
            dtypes += metadata.get_dtypes(name)
        values = await self._call("get", keys, shapes, dtypes, [note[1] for note in notes])
        self._calls.check_row("get", "value", values, keys)
        values = [_of_field(value, dtype) for value, dtype in zip(values, dtypes, strict=True)]
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
        """Remove the cells at the keys in their notes."""
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
        """Leave the store and the controller.  May be called repeatedly."""
        self._calls.close()
        close = getattr(self.storage_client, "close", None)
        if close is not None:
            close()
        super().close()


def _of_field(value: Any, dtype: Any) -> Any:
    """Give a tensor without elements the dtype of its field, whatever dtype it was put with."""
    if dtype is not None and is_tensor(value) and value.numel() == 0:
        return value.to(dtype)
    return value


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
            + ": put them again, or load a checkpoint"
        )
