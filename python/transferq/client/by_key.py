"""Client calls on samples by key: a key is a user's name for a sample, unique in its partition."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._impl.arguments import (
    Parser,
    check_data,
    check_keys,
    common_fields,
    expect_text,
    parsed,
    plain_names,
    warn_nothing_selected,
)
from .._impl.calls import Steps, twins
from .._impl.columns import encode_tags, refuse_unknown_fields, tags_of
from .._impl.encoding import Decoder, Encoder
from .._impl.kv_metadata import repeated
from .._impl.layouts import lay_out
from .._impl.one_sample import one_row, row_batch
from .._impl.read_options import LayoutOption, PaddingOption, read_options
from .._impl.reading import packed, read
from .._impl.tensors import empty, is_tensordict, row_count, to_batch
from .._impl.words import counted
from .._impl.work import Work, is_heavy, is_heavy_row
from ..errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    NotReadyError,
    RowCountError,
    UnknownKeyError,
    UnknownPartitionError,
)
from ..metadata import BatchMeta, KVBatchMeta
from .connection import Connection

if TYPE_CHECKING:
    from tensordict import TensorDict

    from .._core import Data, Meta, Tag
    from .._impl.tensors import Batch, Fields

logger = logging.getLogger("transferq")

NO_INDEX = 2**32 - 1
"""The index that no sample has (TQ_NO_INDEX)."""

LIST_PAGE = 2000
"""Keys listed at a time: with a few tags each, they occupy the controller for about a millisecond."""
MANY = 1000
"""Most samples whose tags are encoded or decoded in an event loop."""


class SamplesByKey(Connection):
    """Client calls on samples by key."""

    def _kv_retrieve_meta(
        self, keys: Sequence[str] | str, partition_id: str, create: bool = False
    ) -> Steps[BatchMeta]:
        """Metadata of samples by key, with the fields that all of them have.

        Unknown keys are left out; with `create` they are created.
        """
        wanted = check_keys(keys)
        if create:
            yield self._core.reserve(partition_id, keys=wanted)
        found = yield from self._lookup(wanted, partition_id)
        return found if found is not None else BatchMeta.empty()

    def _lookup(self, keys: list[str], partition_id: str) -> Steps[BatchMeta | None]:
        """Those samples of these keys that exist, with the fields that all of them have."""
        try:
            meta: Meta = yield self._core.resolve(partition_id, keys=keys, lenient=True, tags=True)
        except UnknownPartitionError:
            return None
        return BatchMeta._wrap([meta.select(None, common_fields(meta))]) if len(meta) else None

    def _kv_retrieve_keys(
        self, global_indexes: Sequence[int] | int, partition_id: str
    ) -> Steps[list[str | None]]:
        """Keys of samples by index, None for a sample without one; RuntimeError if the partition does not exist."""
        indexes = [global_indexes] if isinstance(global_indexes, int) else global_indexes
        if not isinstance(indexes, list) or not all(isinstance(index, int) for index in indexes):
            raise ArgumentTypeError("global_indexes: expected an int or a list of int")
        if not indexes:
            raise InvalidArgumentError("global_indexes: expected at least one, got an empty list")
        # All numbers that no sample can have are sent as one invalid index.
        possible = [index if 0 <= index < NO_INDEX else NO_INDEX for index in indexes]
        try:
            keys: list[str | None] = yield self._core.retrieve_keys(partition_id, possible)
        except UnknownPartitionError as error:
            raise RuntimeError(str(error)) from error
        return [key or None for key in keys]

    def _kv_list(self, partition_id: str | None = None) -> Steps[dict[str, dict[str, Any]]]:
        """Keys with their tags, per partition: for one partition, or for all."""
        names: list[str] = yield self._core.list_partitions()
        if partition_id is not None:
            expect_text("partition_id", partition_id)
            names = [partition_id] if partition_id in names else []
        listed: dict[str, dict[str, Any]] = {}
        for name in names:
            listed[name] = yield from self._list(name)
        return listed

    def _list(self, partition: str) -> Steps[dict[str, Any]]:
        """Keys of a partition with their tags, one page at a time, so that the controller serves others in between."""
        listed: dict[str, Any] = {}
        meta: Meta
        meta, mark = yield self._core.list_keys(partition, LIST_PAGE)
        while mark:
            keys = meta.keys
            # The next page is requested while this one is decoded.
            following = self._core.list_keys(partition, LIST_PAGE, keys[-1], mark)
            listed.update(zip(keys, tags_of(meta), strict=True))  # type: ignore[arg-type]
            meta, mark = yield following
        listed.update(zip(meta.keys, tags_of(meta), strict=True))  # type: ignore[arg-type]
        return listed

    def _kv_put(
        self,
        key: str,
        partition_id: str,
        fields: Fields | None,
        tag: Mapping[str, Any] | None,
        data_parser: Parser | None,
        *,
        group: str | None,
    ) -> Steps[KVBatchMeta]:
        """Store fields, a tag map or both for one sample by key."""
        if fields is not None and not (fields if isinstance(fields, dict) else list(fields.keys())):
            # Without fields, the call only creates the key or stores its tag.
            fields, tag = None, tag or {}
        simple = fields is None or not is_tensordict(fields)
        if self._managed is not None or data_parser is not None or not simple:
            if fields is not None and not is_tensordict(fields):
                fields = one_row(fields)
            return (
                yield from self._kv_batch_put(
                    [key],
                    partition_id,
                    fields,
                    None if tag is None else [tag],
                    data_parser,
                    groups=None if group is None else [group],
                )
            )
        encoder = Encoder(self.config["serialization"]["allow_pickle"])
        batch: Batch | None = None
        if fields is not None:
            batch = yield Work(is_heavy_row(fields), row_batch, fields, encoder)
        tags = [] if tag is None else encode_tags([tag], "tag")
        groups = None if group is None else [group]
        return (yield from self._kv_store([key], partition_id, batch, tags, groups))

    def _kv_store(
        self,
        keys: list[str],
        partition: str,
        batch: Batch | None,
        tags: list[Tag],
        groups: Sequence[str | None] | None,
    ) -> Steps[KVBatchMeta]:
        meta: Meta
        meta, others = yield self._core.put(
            partition=partition,
            keys=keys,
            groups=groups,
            columns=batch.columns if batch else (),
            tags=tags,
            keep=batch.keep if batch else None,
            other_fields=True,
        )
        each: list[dict[str, Any]] = yield Work(len(meta) > MANY, tags_of, meta)
        return KVBatchMeta._made(list(keys), each, partition, sorted((*others, *meta.field_names)))

    def _kv_batch_put(
        self,
        keys: Sequence[str],
        partition_id: str,
        fields: Fields | None = None,
        tags: Sequence[Mapping[str, Any]] | None = None,
        data_parser: Parser | None = None,
        *,
        groups: Sequence[str | None] | None = None,
    ) -> Steps[KVBatchMeta]:
        """Store columns, tags or both for samples by key; missing samples are created."""
        names = check_keys(keys)
        if len(set(names)) != len(names):
            raise InvalidArgumentError(f"kv_batch_put: Got duplicated keys: {repeated(names)}")
        if fields is None and tags is None:
            raise InvalidArgumentError("kv_batch_put: expected fields, tags or both")
        if isinstance(tags, Mapping):
            raise ArgumentTypeError(
                f"tags: expected a list of maps, one per key, got one map; did you mean [{tags!r:.40}]?"
            )
        if tags is not None and len(tags) != len(names):
            raise RowCountError(
                f"kv_batch_put: expected {counted(len(names), 'tag')}, one per key, got {len(tags)}"
            )
        if fields is not None:
            check_data("fields", fields)
            fields = parsed(fields, data_parser)
            rows = row_count(fields)
            if rows != len(names):
                raise RowCountError(
                    f"kv_batch_put: expected {counted(len(names), 'row')}, one per key, got {rows}"
                )
        encoder = Encoder(self.config["serialization"]["allow_pickle"])
        columns: list[Tag] = []
        if tags is not None:
            columns = yield Work(len(tags) > MANY, encode_tags, tags)
        if fields is None or self._managed is None:
            batch: Batch | None = None
            if fields is not None:
                batch = yield Work(is_heavy(fields), to_batch, fields, encoder)
            return (yield from self._kv_store(names, partition_id, batch, columns, groups))
        reserved: Meta
        reserved, others = yield self._core.put(
            partition=partition_id, keys=names, tags=columns, groups=groups, other_fields=True
        )
        yield from self._managed.put(fields, BatchMeta._wrap([reserved]))
        return KVBatchMeta._made(
            list(names), tags_of(reserved), partition_id, sorted({*others, *fields.keys()})
        )

    def _kv_batch_get(
        self,
        keys: Sequence[str] | str,
        partition_id: str,
        select_fields: Sequence[str] | str | None = None,
        *,
        layout: LayoutOption | None = None,
        padding: PaddingOption | None = None,
        pin_memory: bool | None = None,
        zero_copy: bool = False,
        strict: bool = False,
    ) -> Steps[TensorDict]:
        """Read samples by key; unknown keys, and fields that some of the samples lack, are left out.

        With `strict` these are errors that name them: UnknownKeyError, and UnknownFieldError for an entry of
        `select_fields`.
        """
        wanted = check_keys(keys)
        chosen = [select_fields] if isinstance(select_fields, str) else select_fields
        options = read_options(self.config["client"], layout, padding, pin_memory)
        decoder = Decoder(self.config["serialization"]["allow_pickle"])
        if self._managed is None and (options is None or options.is_packed) and plain_names(chosen):
            # One call, in which the library both looks up and reads the samples.
            found, data = yield from self._read_keys(
                wanted, partition_id, chosen, zero_copy=zero_copy, strict=strict
            )
            if data is not None:
                return (
                    yield from packed(
                        self._core, found, data, options, decoder, zero_copy=zero_copy
                    )
                )
            meta = BatchMeta._wrap([found.select(None, common_fields(found))])
        else:
            meta = (yield from self._lookup(wanted, partition_id)) or BatchMeta.empty()
            if strict:
                _refuse_missing(
                    partition_id, wanted, [key for piece in meta._pieces for key in piece.keys]
                )
                refuse_unknown_fields(_those(wanted, partition_id), chosen or [], meta.field_names)
        if meta.size == 0:
            raise UnknownKeyError(
                _not_found(partition_id, len(set(wanted)), list(dict.fromkeys(wanted)))
            )
        if not meta.field_names:
            raise NotReadyError(
                f"partition {partition_id!r}: no field is ready in all of the keys {wanted[:8]}"
            )
        if chosen is not None:
            asked, readable = chosen, meta.field_names
            meta = meta.select_fields(asked)
            if not meta.field_names:
                warn_nothing_selected(asked, readable)
        if not meta.field_names:
            return empty()
        if self._managed is not None:
            return lay_out((yield from self._managed.get(meta)), options)
        pieces = meta._pieces
        return (
            yield from read(
                self._core, pieces, meta.field_names, options, decoder, zero_copy=zero_copy
            )
        )

    def _read_keys(
        self,
        wanted: list[str],
        partition_id: str,
        chosen: Sequence[str] | None,
        *,
        zero_copy: bool,
        strict: bool,
    ) -> Steps[tuple[Meta, Data | None]]:
        """Look up and read samples in one call; no data if that cannot read all of them."""
        names = None if chosen is None else list(dict.fromkeys(chosen))
        found: Meta
        found, data = yield self._core.get_keys(
            partition_id, wanted, names, zero_copy=zero_copy, leave_values=True
        )
        if strict:
            _refuse_missing(partition_id, wanted, found.keys)
            refuse_unknown_fields(_those(wanted, partition_id), chosen or [], common_fields(found))
        return found, data

    def _kv_clear(self, keys: Sequence[str] | str, partition_id: str) -> Steps[None]:
        """Remove samples by key; unknown ones are skipped."""
        wanted = check_keys(keys)
        try:
            if self._managed is not None:
                yield from self._managed.clear(partition_id, keys=wanted)
            else:
                yield self._core.clear_keys(partition_id, wanted)
        except UnknownPartitionError:
            logger.debug("kv_clear: no partition %r", partition_id)

    kv_retrieve_meta, async_kv_retrieve_meta = twins(_kv_retrieve_meta)
    kv_retrieve_keys, async_kv_retrieve_keys = twins(_kv_retrieve_keys)
    kv_list, async_kv_list = twins(_kv_list)
    kv_batch_put, async_kv_batch_put = twins(_kv_batch_put)
    kv_clear, async_kv_clear = twins(_kv_clear)


def _those(keys: list[str], partition: str) -> str:
    more = ", ..." if len(keys) > 4 else ""
    return f"fields of all of the keys {keys[:4]}{more} of partition {partition!r}"


def _not_found(partition: str, asked: int, missing: list[str]) -> str:
    """Say which of the keys are missing, and how to see those that there are."""
    more = f" and {len(missing) - 8} others" if len(missing) > 8 else ""
    return (
        f"{len(missing)} of {asked} keys not found in partition {partition!r}: "
        f"{missing[:8]}{more}; `tq ls {shlex.quote(partition)}` lists its keys"
    )


def _refuse_missing(partition: str, wanted: list[str], found: Sequence[str | None]) -> None:
    """Raise UnknownKeyError for keys that were not found."""
    there = set(found)
    missing = [key for key in dict.fromkeys(wanted) if key not in there]
    if missing:
        raise UnknownKeyError(_not_found(partition, len(set(wanted)), missing))
