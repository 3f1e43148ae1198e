"""RayStore with `tensor_transport`: tensors travel by Ray Direct Transport, from process to process.

A put copies each column of tensors, on its device, and offers it to the transport in groups of rows; the holder
gets references and notes (see `records`).  A read lets the transport fetch the groups that contain the wanted
rows.  No tensor element passes through Ray's object store, and no device tensor through the host.

Tensors stay in the process that put them, and are lost with it.  Values that are not tensors, and tensors on a
device that the transport does not serve, are kept in Ray's object store and survive that process.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._impl.columns import rows_of_schema
from ..._impl.dtypes import have_torch
from ..._impl.encoding import Decoder, Encoder
from ..._impl.system import ControllerInfo
from ..._impl.tensors import pack_rows, tensordict_of
from ..._impl.words import counted
from ...errors import ConfigError, InvalidArgumentError, LostError
from ..kv_manager import UNKNOWN_OUTCOME
from ..manager import StorageManager, StorageManagerFactory
from .columns import Flat, flat_columns, rows_of_group
from .holder import SMALL, Borrowed, fetch
from .records import Column, Part
from .store import connected, failures, find_holder, holder_here, offer_holder

if TYPE_CHECKING:
    from ..._impl.tensors import Fields
    from ...metadata import BatchMeta

logger = logging.getLogger("transferq")

GROUP_BYTES = 16 << 20
"""Rows of a column that are fetched together: a read of one row transfers no more than this, or just the row."""


def check_transport(name: Any) -> str:
    """The name of a one-sided transport, in Ray's spelling; ConfigError for any other."""
    what = f"backend.RayStore.tensor_transport: {name!r}"
    if not have_torch():
        raise ConfigError(
            f"{what} needs torch: install the extra 'torch' of transferq (see the README)"
        )
    from ray.experimental.rdt import util

    try:
        transport = str(util.normalize_and_validate_tensor_transport(str(name)))
    except ValueError:
        raise ConfigError(f"{what} is no transport that Ray knows; known is nixl") from None
    if not util.is_one_sided_transport(transport):
        raise ConfigError(
            f"{what} is not one-sided: the process that has a tensor would have to take part in each read"
        )
    if transport == "NIXL" and importlib.util.find_spec("nixl") is None:
        raise ConfigError(
            f"{what} needs NIXL: install the extra 'nixl' of transferq (see the README)"
        )
    return transport


@StorageManagerFactory.register("RayTensors")
class RayTensors(StorageManager):
    """The manager; its config is the section of RayStore."""

    def __init__(self, controller_info: ControllerInfo, config: Mapping[str, Any]) -> None:
        """Connect to Ray, to the controller and to the holder."""
        self._ray, _ = connected(config)
        self._transport = check_transport(config.get("tensor_transport"))
        super().__init__(controller_info, config)
        try:
            self._find_holder(controller_info)
        except BaseException:
            self.close()
            raise
        self._borrowed = Borrowed()

    def _find_holder(self, controller_info: ControllerInfo) -> None:
        assert self._core is not None
        epoch = self._core.epoch
        offer_holder(self._ray, self.config, epoch, controller_info)
        self._root = find_holder(self._ray, self.config, epoch)
        self._here = holder_here(self._ray, self._root)
        self._root.prepare.remote()

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that waits for Ray, in a thread."""

        def call() -> Any:
            with failures():
                return method(*arguments)

        return await asyncio.to_thread(call)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the holder."""
        remote = getattr(self._root, method).remote
        return await self._call(lambda: self._ray.get(remote(*arguments)))

    # --- put --------------------------------------------------------------------------------------

    async def put_data(
        self, data: Fields, metadata: BatchMeta, data_parser: Callable[[Any], Any] | None = None
    ) -> None:
        """Offer the tensors, note where they are, and tell the controller; all or nothing per partition."""
        if data_parser is not None:
            raise InvalidArgumentError("data_parser: the client parses, not the storage manager")
        name = secrets.token_hex(8)
        flats = await self._call(lambda: dict(flat_columns(data, metadata.size, Encoder())))
        try:
            columns = await self._call(
                lambda: {field: self._offer(flat) for field, flat in flats.items()}
            )
            await self._ask("add_record", name, _samples(metadata), columns)
            del columns
        except BaseException:
            await self._ask("drop_record", name)
            raise
        schema = {field: flat.schema() for field, flat in flats.items()}
        await self._tell(metadata, schema, name)
        await self._ask("publish_record", name)

    async def _tell(
        self, metadata: BatchMeta, schema: Mapping[str, Mapping[str, Any]], name: str
    ) -> None:
        """Publish; after an error drop the record, unless some of it is, or may be, published."""
        start = 0
        try:
            for part in metadata.chunk_by_partition():
                indexes = part.global_indexes
                each = {
                    field: rows_of_schema(known, start, start + part.size)
                    for field, known in schema.items()
                }
                notes = {index: dict.fromkeys(schema, name) for index in indexes}
                await self.notify_data_update(part.partition_ids[0], indexes, each, notes)
                start += part.size
        except BaseException as error:
            if start == 0 and not isinstance(error, UNKNOWN_OUTCOME):
                await self._ask("drop_record", name)
            else:
                logger.warning(
                    "a put of %s may be published: it stays", counted(metadata.size, "sample")
                )
            raise

    def _offer(self, flat: Flat) -> Column:
        """Put a column by the transport; columns that it cannot carry go into the object store."""
        direct = "dtype" in flat.meta and self._carries(flat.meta["device"])
        starts: list[int] = []
        groups: list[Any] = []
        for start, first, last in _groups(flat.sizes):
            starts.append(start)
            if first == last:
                groups.append(None)
            elif direct:
                groups.append(self._put_tensor(flat.bytes[first:last]))
            else:
                data = flat.bytes[first:last]
                groups.append(
                    self._put_plain(data if isinstance(data, np.ndarray) else data.cpu().numpy())
                )
        return Column({**flat.meta, "direct": direct}, starts, groups)

    def _carries(self, device: str) -> bool:
        from ray.experimental.rdt import util

        return bool(util.device_match_transport(device, self._transport))

    def _put_tensor(self, tensor: Any) -> Any:
        ref = self._ray.put([tensor], _tensor_transport=self._transport)
        self._borrowed.free_here(ref)
        return ref

    def _put_plain(self, data: Any) -> Any:
        if data.nbytes <= SMALL:
            return data.tobytes()
        (own,) = self._ray.get(self._here.own.remote([self._ray.put(data)]))
        return own

    # --- get --------------------------------------------------------------------------------------

    async def get_data(self, metadata: BatchMeta) -> Any:
        """Fetch the groups that contain the cells; LostError names the samples whose cells are gone."""
        names = metadata.field_names
        indexes = metadata.global_indexes
        noted = metadata._custom_backend_meta
        records = {name: [each.get(name) for each in noted] for name in names}
        parts, refs, lost = await self._ask("locate", indexes, records)
        _check_lost(indexes, lost)
        return await self._call(self._assemble, names, indexes, parts, refs)

    def _assemble(
        self, names: Sequence[str], indexes: Sequence[int], parts: Sequence[Part], refs: list[Any]
    ) -> Any:
        with self._borrowed.used(refs):
            self._choose_device(parts, refs)
            fetched = fetch(refs)
        columns: dict[str, list[Any]] = {name: [None] * len(indexes) for name in names}
        lost: list[tuple[str, int]] = []
        decoder = Decoder()
        for part in parts:
            by_group: dict[int, tuple[list[int], list[int]]] = {}
            for position, row, group in zip(
                part.positions, part.rows, part.groups_of_rows(), strict=True
            ):
                positions, rows = by_group.setdefault(group, ([], []))
                positions.append(position)
                rows.append(row)
            for group, (positions, rows) in by_group.items():
                held = part.groups[group]
                data = fetched[held] if isinstance(held, int) else held
                if data is None and held is not None:
                    lost += [(part.field, position) for position in positions]
                    continue
                values = rows_of_group(
                    _as_data(data, part.meta), part.meta, part.starts[group], rows, decoder
                )
                for position, value in zip(positions, values, strict=True):
                    columns[part.field][position] = value
        _check_lost(indexes, lost)
        return tensordict_of(
            {name: _packed(rows) for name, rows in columns.items()}, [len(indexes)]
        )

    def _choose_device(self, parts: Sequence[Part], refs: Sequence[Any]) -> None:
        """Choose the device that tensors arrive on: the configured one, or the host if their own is not available here."""
        import torch
        from ray.experimental import set_target_device_for_ref

        wanted = self.config.get("device")
        for part in parts:
            if not part.meta["direct"]:
                continue
            has = part.meta["device"]
            target = wanted or ("cpu" if has == "cuda" and not torch.cuda.is_available() else None)
            for place in part.groups.values():
                if target is not None and target != has and isinstance(place, int):
                    set_target_device_for_ref(refs[place], target)

    # --- clear ------------------------------------------------------------------------------------

    async def clear_data(self, metadata: BatchMeta) -> None:
        """Drop the samples; a group's memory is freed with the last of them."""
        await self._ask("clear_samples", _samples(metadata))


def _samples(metadata: BatchMeta) -> list[tuple[int, int]]:
    """Index and incarnation of each sample."""
    return [
        (int(index), int(incarnation))
        for piece in metadata._pieces
        for index, incarnation in zip(
            memoryview(piece.indexes), memoryview(piece.incarnations), strict=True
        )
    ]


def _groups(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Groups of rows to fetch together: the first row, and where the bytes begin and end."""
    groups: list[tuple[int, int, int]] = []
    start = first = last = 0
    for row, size in enumerate(sizes):
        if row > start and last - first + size > GROUP_BYTES:
            groups.append((start, first, last))
            start, first = row, last
        last += size
    groups.append((start, first, last))
    return groups


def _as_data(data: Any, meta: Mapping[str, Any]) -> Any:
    """The object to put for a group: a byte tensor for tensors, bytes for other values."""
    if data is None or "sizes" in meta:
        return data
    if meta["direct"]:
        return data[0]
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _packed(rows: list[Any]) -> Any:
    """Pack the rows into a column that shares no memory with the stored data."""
    from tensordict import NonTensorStack

    column = pack_rows(rows)
    if isinstance(column, NonTensorStack):
        return pack_rows([row.clone() if hasattr(row, "clone") else row for row in rows])
    return column


def _check_lost(indexes: Sequence[int], lost: Sequence[tuple[str, int]]) -> None:
    if lost:
        names = sorted({name for name, _ in lost})
        samples = sorted({indexes[position] for _, position in lost})
        raise LostError(
            f"fields {names}: the store has lost the values of samples {samples[:8]}"
            + ("" if len(samples) <= 8 else f" and {len(samples) - 8} more")
            + "; tensors are lost with the process that put them"
        )
