"""The calls of a client on samples by key: a key is a user's name for a sample, unique in its partition."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._arguments import Parser, check_data, check_keys, common_fields, parsed
from ._calls import Steps, twins
from ._columns import encode_tags, tags_of
from .encoding import Encoder
from .errors import InvalidArgumentError, RowCountError, UnknownPartitionError
from .kv_metadata import repeated
from .metadata import BatchMeta, KVBatchMeta
from .tensors import row_count, to_batch

if TYPE_CHECKING:
    from ._core import Client, Meta
    from .config import Config
    from .storage import ManagedStorage
    from .tensors import Fields

logger = logging.getLogger("ctq")


class SamplesByKey:
    """The calls of a client on samples by key."""

    _core: Client
    _python: ManagedStorage | None
    config: Config

    def _kv_retrieve_meta(
        self, keys: Sequence[str] | str, partition_id: str, create: bool = False
    ) -> Steps[BatchMeta]:
        """Metadata of samples by key, with the fields that all of them have.

        Unknown keys are left out, or with `create` made.
        """
        wanted = check_keys(keys)
        if create:
            yield self._core.reserve(partition_id, keys=wanted)
        found = yield from self._lookup(wanted, partition_id)
        return found if found is not None else BatchMeta.empty()

    def _lookup(self, keys: list[str], partition_id: str) -> Steps[BatchMeta | None]:
        """The samples that exist of these keys, with the fields that all of them have."""
        try:
            meta: Meta = yield self._core.resolve(partition_id, keys=keys, lenient=True, tags=True)
        except UnknownPartitionError:
            return None
        return BatchMeta._wrap([meta.select(None, common_fields(meta))]) if len(meta) else None

    def _kv_retrieve_keys(
        self, global_indexes: Sequence[int] | int, partition_id: str
    ) -> Steps[list[str | None]]:
        """Keys of samples by index, None for one without; RuntimeError when there is no such partition."""
        indexes = [global_indexes] if isinstance(global_indexes, int) else global_indexes
        if not isinstance(indexes, list) or not all(isinstance(index, int) for index in indexes):
            raise TypeError("global_indexes: expected an int or a list of int")
        if not indexes:
            raise ValueError("global_indexes: expected at least one")
        try:
            keys: list[str | None] = yield self._core.retrieve_keys(partition_id, indexes)
        except UnknownPartitionError as error:
            raise RuntimeError(str(error)) from error
        return [key or None for key in keys]

    def _kv_list(self, partition_id: str | None = None) -> Steps[dict[str, dict[str, Any]]]:
        """Keys with their tags, per partition: of one partition, or of all."""
        names: list[str] = yield self._core.list_partitions()
        if partition_id is not None:
            names = [partition_id] if partition_id in names else []
        started = [(name, self._core.list_keys(name)) for name in names]
        listed: dict[str, dict[str, Any]] = {}
        for name, op in started:
            meta: Meta = yield op
            listed[name] = {
                key: tags
                for key, tags in zip(meta.keys, tags_of(meta), strict=True)
                if key is not None
            }
        return listed

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
        """Store columns, tags or both of samples by key; those that do not exist are made."""
        names = check_keys(keys)
        if len(set(names)) != len(names):
            raise InvalidArgumentError(f"kv_batch_put: Got duplicated keys: {repeated(names)}")
        if fields is None and tags is None:
            raise InvalidArgumentError("kv_batch_put: expected fields, tags or both")
        if tags is not None and len(tags) != len(names):
            raise RowCountError(
                f"kv_batch_put: expected {len(names)} tags, one per key, got {len(tags)}"
            )
        if fields is not None:
            check_data("fields", fields)
            fields = parsed(fields, data_parser)
            rows = row_count(fields)
            if rows != len(names):
                raise RowCountError(
                    f"kv_batch_put: expected {len(names)} rows, one per key, got {rows}"
                )
        encoder = Encoder(self.config["serialization"]["allow_pickle"])
        columns = encode_tags(tags, encoder) if tags else []
        # What the samples have before is asked for at the same time.
        before = self._core.resolve(partition_id, keys=list(dict.fromkeys(names)), lenient=True)
        if fields is not None and self._python is not None:
            reserved: Meta = yield self._core.put(
                partition=partition_id, keys=names, tags=columns, groups=groups
            )
            yield from self._python.put(fields, BatchMeta._wrap([reserved]))
            meta = reserved
            stored = list(fields.keys())
        else:
            batch = to_batch(fields, encoder) if fields is not None else None
            meta = yield self._core.put(
                partition=partition_id,
                keys=names,
                groups=groups,
                columns=batch.columns if batch else (),
                tags=columns,
                keep=batch.keep if batch else None,
            )
            stored = meta.field_names
        try:
            known: Meta = yield before
            kept = common_fields(known) if len(known) == len(set(names)) else []
        except UnknownPartitionError:
            kept = []
        return KVBatchMeta(
            keys=names,
            tags=tags_of(meta),
            partition_id=partition_id,
            fields=sorted({*kept, *stored}),
        )

    def _kv_clear(self, keys: Sequence[str] | str, partition_id: str) -> Steps[None]:
        """Remove samples by key; unknown ones are skipped."""
        wanted = check_keys(keys)
        try:
            if self._python is not None:
                yield from self._python.clear(partition_id, keys=wanted)
            else:
                yield self._core.clear_keys(partition_id, wanted)
        except UnknownPartitionError:
            logger.debug("kv_clear: no partition %r", partition_id)

    kv_retrieve_meta, async_kv_retrieve_meta = twins(_kv_retrieve_meta)
    kv_retrieve_keys, async_kv_retrieve_keys = twins(_kv_retrieve_keys)
    kv_list, async_kv_list = twins(_kv_list)
    kv_batch_put, async_kv_batch_put = twins(_kv_batch_put)
    kv_clear, async_kv_clear = twins(_kv_clear)
