"""The client: every call on samples by metadata, in a sync and an async form.

`TransferQueueClient` inherits what its calls share from `connection.Connection`, the calls on samples by key from
`by_key.SamplesByKey`, and those on checkpoints from `checkpoint.Checkpoints`.

`put` and `async_put` are the same call, written once as steps (see `_calls`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._core import FETCH, FORCE_FETCH, Meta, Op
from .._impl.arguments import (
    Parser,
    check_data,
    check_put_metadata,
    expect_metadata,
    field_list,
    parsed,
    progress_arrays,
    rows_of,
    sampling_json,
    seconds,
)
from .._impl.calls import Steps, twins
from .._impl.columns import encode_tags
from .._impl.layouts import lay_out
from .._impl.named import named
from .._impl.read_options import LayoutOption, PaddingOption, read_options
from .._impl.reading import read
from .._impl.system import ControllerInfo, describe
from .._impl.tensors import Batch, empty, row_count, to_batch
from .._impl.words import counted
from .._impl.work import Work, is_heavy
from ..errors import (
    InvalidArgumentError,
    RowCountError,
    TimedOutError,
    TransferQueueError,
    TryAgainError,
    UnknownPartitionError,
)
from ..metadata import BatchMeta
from .by_key import SamplesByKey
from .checkpoint import Checkpoints

if TYPE_CHECKING:
    from tensordict import TensorDict

    from .._impl.tensors import Fields

logger = logging.getLogger("transferq")


class TransferQueueClient(SamplesByKey, Checkpoints):
    """A connection to a system; usable from any number of threads and event loops, and after a fork.

    `get_client()` returns the client that `init()` made.
    """

    __module__ = "transferq.client"

    @named
    def __init__(
        self,
        client_id: str | None = None,
        controller_info: ControllerInfo | Sequence[str | None] | str | None = None,
        zmq_io_threads: int | None = None,
        zmq_max_sockets: int | None = None,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect to the system at an address; `client_id` is the name shown to people.

        `controller_info` is an address, or what `init()` returned as `controller.zmq_info`.  The two zmq_
        arguments exist for callers of TransferQueue and are ignored: there are no such threads or sockets here.
        """
        super().__init__(client_id, controller_info, config)

    # --- samples by metadata ----------------------------------------------------------------------

    def _get_meta(
        self,
        data_fields: Sequence[str],
        batch_size: int,
        partition_id: str,
        mode: str = "fetch",
        task_name: str | None = None,
        sampling_config: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Steps[BatchMeta]:
        """Metadata of samples.

        `fetch`: claims samples whose fields are ready and that the task has not consumed yet; the sampler picks
        them, and they count as consumed.  The call waits up to `timeout` seconds (default `client.timeout`), then
        raises TimedOutError; in polling mode it returns an empty BatchMeta at once.
        `force_fetch`: all samples of the partition, ready or not; nothing is marked.  The partition must exist.
        `insert`: reserves new samples.

        `sampling_config` is passed to the sampler; its entry `sampler` selects a different one than the controller's.
        """
        if batch_size == 0:
            return BatchMeta.empty()
        if mode == "insert":
            return (yield from self._insert(data_fields, batch_size, partition_id))
        if mode not in ("fetch", "force_fetch"):
            raise InvalidArgumentError(f"mode: expected insert, fetch or force_fetch, got {mode!r}")
        if mode == "fetch" and task_name is None:
            raise InvalidArgumentError(
                "task_name: expected the name of the task that consumes the samples, got None; to look at samples "
                "without consuming them give mode='force_fetch'"
            )
        controller = self.config["controller"]
        policy, sampling = self._sampling(sampling_config)
        fields = field_list("data_fields", data_fields)

        def start() -> Op:
            return self._core.claim(
                partition_id,
                fields,
                batch_size,
                task=task_name,
                mode=FETCH if mode == "fetch" else FORCE_FETCH,
                sampler=policy,
                sampler_config=sampling,
                poll=bool(controller.get("polling_mode")),
                tags=True,
                timeout=seconds(timeout),
            )

        try:
            if mode == "fetch":
                key = (partition_id, tuple(fields), batch_size, task_name, policy, sampling)
                meta: Meta = yield from self._claim(key, start)
            else:
                meta = yield start()
                if not len(meta):
                    yield from self._check_partition(partition_id)
        except TryAgainError:
            return BatchMeta.empty()
        except TimedOutError as error:
            raise self._timed_out(error) from None
        return BatchMeta._wrap([meta])

    def _timed_out(self, error: TimedOutError) -> TimedOutError:
        """The error of a claim that found too few samples, with the system that was asked.

        A process that found a different system than its peers would wait for samples that never come.  The
        controller names itself by its address, which is kept if this process knows nothing better.
        """
        said, _, itself = str(error).partition("; asked the system at ")
        system = describe(self._info)
        if itself and not system.startswith("the system '"):
            return error
        return TimedOutError(f"{said}; asked {system}")

    def _check_partition(self, partition_id: str) -> Steps[None]:
        """Raise an error if a partition does not exist."""
        names: list[str] = yield self._core.list_partitions()
        if partition_id not in names:
            raise UnknownPartitionError(
                f"unknown partition {partition_id!r}: nothing was put into it, or it was cleared; "
                f"there are {names[:8] or 'none'}"
            )

    def _sampling(self, given: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
        """The sampler that a claim asks for, if any, and its settings as JSON."""
        settings = {**(self.config["controller"].get("sampling_config") or {}), **(given or {})}
        # A client that attached may want a different sampler than the system was started with.
        policy = settings.pop("sampler", None) or self._given.get("controller", {}).get("sampler")
        return policy, sampling_json(settings) if settings else None

    def _claim(self, key: tuple[Any, ...], start: Callable[[], Op]) -> Steps[Meta]:
        """Claim samples.

        If the caller gives the claim up, its samples are given back.  If the claim had just completed, its samples
        are kept for the next claim of the same kind.
        """
        left = self._left_over(key)
        if left is not None:
            return left
        op = start()
        try:
            meta: Meta = yield op
        except TransferQueueError:
            raise
        except BaseException:
            op.cancel()
            for other in list(self._given_up):
                if other.done() and _outcome(other) is None:
                    self._given_up.pop(other, None)
            self._given_up[op] = key
            raise
        return meta

    def _left_over(self, key: tuple[Any, ...]) -> Meta | None:
        """Take the samples of an earlier claim of the same kind that completed just before it was given up."""
        for op, kind in list(self._given_up.items()):
            if kind == key and op.done() and self._given_up.pop(op, None) is not None:
                meta = _outcome(op)
                if meta is not None:
                    return meta
        return None

    def _insert(
        self, data_fields: Sequence[str], batch_size: int, partition_id: str
    ) -> Steps[BatchMeta]:
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size must be positive, got {batch_size}")
        fields = field_list("data_fields", data_fields)
        meta: Meta = yield self._core.reserve(partition_id, batch_size)
        made = BatchMeta._wrap([meta])
        known = {"dtype": None, "shape": None, "is_nested": False, "is_non_tensor": False}
        planned = Meta.make(meta.partition, meta.indexes, fields, meta.incarnations)
        made._pieces = [meta.union(planned)]
        made._schema = {name: dict(known) for name in fields}
        return made

    def _put(
        self,
        data: Fields,
        metadata: BatchMeta | None = None,
        partition_id: str | None = None,
        data_parser: Parser | None = None,
        *,
        groups: Sequence[str | None] | None = None,
        strict: bool = False,
    ) -> Steps[BatchMeta]:
        """Store columns, either of the samples of `metadata` or of new samples in a partition.

        Returns the metadata of the samples; `metadata`, if given, is also updated in place.  All of the data
        becomes visible at once, or none.  `groups` names the group (the prompt) of each new sample.
        With `metadata`, `partition_id` is ignored; with `strict` it must match the samples' partition.
        `data_parser` gets the columns as a dict (ragged and non-tensor columns as lists of rows) and either changes
        them in place or returns the dict to store instead.

            meta = client.put({"prompt": prompts}, partition_id="train")  # one new sample per row
            client.put({"reward": rewards}, metadata=meta)  # another field of the same samples
        """
        check_data("data", data)
        data = parsed(data, data_parser)
        rows = row_count(data)
        if metadata is None:
            if partition_id is None:
                raise InvalidArgumentError(
                    "put: expected metadata, of samples that exist, or a partition_id, for new ones; got neither"
                )
            if rows == 0:
                raise RowCountError(
                    f"put: the fields {list(data.keys())[:8]} have 0 rows, expected at least 1: leave the call out where "
                    "there is nothing to put"
                )
            return (yield from self._put_new(data, partition_id, rows, groups))
        check_put_metadata(metadata)
        if metadata.size == 0:
            raise InvalidArgumentError(
                "put: the metadata has no samples, expected at least 1: give partition_id to put new samples"
            )
        if strict and partition_id is not None and {partition_id} != set(metadata.partition_ids):
            raise InvalidArgumentError(
                f"put: partition_id is {partition_id!r}, but the samples of the metadata are in "
                f"{sorted(set(metadata.partition_ids))}"
            )
        if rows != metadata.size:
            raise RowCountError(
                f"put: expected {counted(metadata.size, 'row')}, one per sample of the metadata, got {rows}"
            )
        if self._managed is not None:
            pieces = yield from self._managed.put(data, metadata)
            yield from self._set_custom_meta(metadata)
        else:
            pieces = yield from self._put_pieces(data, metadata)
        metadata._published(pieces)
        return metadata

    def _put_new(
        self, data: Fields, partition: str, rows: int, groups: Sequence[str | None] | None
    ) -> Steps[BatchMeta]:
        if self._managed is not None:
            reserved: Meta = yield self._core.reserve(partition, rows, groups=groups)
            made = BatchMeta._wrap([reserved])
            made._published((yield from self._managed.put(data, made)))
            return made
        batch: Batch = yield Work(is_heavy(data), to_batch, data, self._encoder())
        meta: Meta = yield self._core.put(
            partition=partition, n=rows, groups=groups, columns=batch.columns, keep=batch.keep
        )
        return BatchMeta._wrap([meta])

    def _put_pieces(self, data: Fields, metadata: BatchMeta) -> Steps[list[Meta]]:
        """One put per partition; there is almost always just one."""
        pieces = metadata._pieces
        changed = {id(piece): encode_tags(tags) for piece, tags in metadata._changed_tags()}
        started: list[Op] = []
        start = 0
        for piece in pieces:
            part = data if len(pieces) == 1 else rows_of(data, start, start + len(piece))
            start += len(piece)
            batch: Batch = yield Work(is_heavy(part), to_batch, part, self._encoder())
            tags = changed.get(id(piece), [])
            started.append(
                self._core.put(meta=piece, columns=batch.columns, tags=tags, keep=batch.keep)
            )
        done: list[Meta] = []
        for op in started:
            meta: Meta = yield op
            done.append(meta)
        return done

    def _get_data(
        self,
        metadata: BatchMeta | None,
        *,
        layout: LayoutOption | None = None,
        padding: PaddingOption | None = None,
        pin_memory: bool | None = None,
        zero_copy: bool = False,
    ) -> Steps[TensorDict]:
        """The fields of the metadata's samples, in the order of the metadata.

        Returns a TensorDict, or without torch a dict of NumPy arrays (a list of arrays where rows differ in
        shape, a list of values where they are not tensors).  Empty metadata reads as empty data.

        `layout`: "jagged", "dense" (for fields whose rows all have one shape; jagged for the rest) or "padded"; or a
        map of these by field, where "*" stands for all other fields.  `padding`: a pad value, or a map from field to
        a pad value or to a map of `value`, `multiple` and `length` (the padded length is at least `length`, and a
        multiple of `multiple`), `lengths` and `mask` (names of fields to add to the result: the length of each row,
        and the mask of its real elements); fields named in it are padded if no layout is given.  `pin_memory`: read
        into page-locked memory, for copies to a GPU.  Options that are not given come from the configuration
        (client.layout, padding, pin_memory).

        `zero_copy`: tensors of 64 KiB or more borrow a storage unit's memory, as private mappings, where possible: on the
        unit's machine, for rows that were put together and are read in order, neither padded nor page-locked.
        Others are copied.  Borrowed memory keeps its values even after the samples are cleared, and writes to it stay
        private; but the unit cannot reuse that memory before all tensors of the read have been freed.

            data = client.get_data(meta.select_fields(["prompt"]), layout="padded", padding=-1)
            data["prompt"]  # one tensor of len(meta) rows, the shorter ones filled up with -1
        """
        if metadata is None:
            return empty()
        expect_metadata(metadata)
        if metadata.size == 0 or not metadata.field_names:
            if metadata.size > 0:
                logger.warning(
                    "get_data: the metadata has %s and no fields (misspelt in select_fields?); the result "
                    "is empty",
                    counted(metadata.size, "sample"),
                )
            return empty()
        options = read_options(self.config["client"], layout, padding, pin_memory)
        if self._managed is not None:
            return lay_out((yield from self._managed.get(metadata)), options)
        return (
            yield from read(
                self._core,
                metadata._pieces,
                metadata.field_names,
                options,
                self._decoder(),
                zero_copy=zero_copy,
            )
        )

    def _set_custom_meta(self, metadata: BatchMeta) -> Steps[None]:
        """Store the changed tags of the metadata's samples; other tags stay as they are."""
        expect_metadata(metadata)
        for piece, tags in metadata._changed_tags():
            yield self._core.put(meta=piece, tags=encode_tags(tags))

    def _clear_samples(self, metadata: BatchMeta) -> Steps[None]:
        """Remove samples and everything known about them; missing ones are skipped with a warning."""
        expect_metadata(metadata)
        if metadata.size == 0:
            logger.debug("clear_samples: the metadata has no samples")
        elif self._managed is not None:
            for piece in metadata._pieces:
                _warn_missing(piece, (yield from self._managed.clear(meta=piece)))
        else:
            started = [(piece, self._core.clear_meta(piece)) for piece in metadata._pieces]
            for piece, op in started:
                _warn_missing(piece, (yield op))

    def _clear_partition(self, partition_id: str) -> Steps[None]:
        """Remove a partition and everything in it; does nothing if there is no such partition."""
        if self._managed is not None:
            yield from self._managed.clear(partition_id)
        else:
            yield self._core.clear_partition(partition_id)

    # --- status -----------------------------------------------------------------------------------

    def _get_consumption_status(self, task_name: str, partition_id: str) -> Steps[tuple[Any, Any]]:
        """A partition's indexes and, for each, 1 if the task has consumed it; (None, None) without the partition."""
        progress = yield self._core.consumption(partition_id, task_name)
        return progress_arrays(progress, flat=True)

    def _get_production_status(
        self, data_fields: Sequence[str], partition_id: str
    ) -> Steps[tuple[Any, Any]]:
        """Indexes of a partition's samples and, for each, a 1 per field that is ready.

        (None, None) if there is no such partition, or if no sample has any of the fields.
        """
        names = field_list("data_fields", data_fields)
        if not names:
            return None, None
        indexes, produced = progress_arrays(
            (yield self._core.production(partition_id, names)), flat=False
        )
        if produced is not None and len(produced) and not produced.any(axis=0).all():
            return None, None
        return indexes, produced

    def _check_consumption_status(self, task_name: str, partition_id: str) -> Steps[bool]:
        """Whether there are samples and the task has consumed all of them."""
        _, consumed = yield from self._get_consumption_status(task_name, partition_id)
        return consumed is not None and len(consumed) > 0 and bool((consumed == 1).all())

    def _check_production_status(
        self, data_fields: Sequence[str], partition_id: str
    ) -> Steps[bool]:
        """Whether all samples of a partition have these fields ready."""
        _, produced = yield from self._get_production_status(data_fields, partition_id)
        return produced is not None and bool((produced == 1).all())

    def _reset_consumption(self, partition_id: str, task_name: str | None = None) -> Steps[bool]:
        """Make consumed samples claimable again, for one task or for all tasks."""
        try:
            yield self._core.reset_consumption(partition_id, task_name)
        except UnknownPartitionError:
            logger.debug("reset_consumption: no partition %r", partition_id)
        return True

    def _get_partition_list(self) -> Steps[list[str]]:
        """Names of the partitions, in creation order."""
        names: list[str] = yield self._core.list_partitions()
        return names

    def _get_events(
        self, since: int = 0, limit: int = 0, wait: bool = False, timeout: float | None = None
    ) -> Steps[list[dict[str, Any]]]:
        """Events after number `since`: puts, claims, clears, clients that join and leave.

        The event of a departing client is `leave` if it closed its session, `died` if its process ended without
        doing so, and `silent` if it sent nothing for `controller.session_grace`.
        The oldest events come first, at most `limit` of them (0: as many as one reply holds, some 16 MiB).  To read all
        events that are kept, ask again from the last number until none are returned.  With `wait` the call waits for
        the next event, and returns none after `timeout` seconds.

        Each run of the controller numbers its events from 1.  If this client has received events of an earlier run, a
        number from that run means the start of the current one.  A number of the current run beyond its last event
        waits for the next event.
        """
        events, _ = yield self._core.events(since, limit, wait, seconds(timeout))
        return list(events)

    def _status(self) -> Steps[dict[str, Any]]:
        """State of the whole system, under the names used by `tq status --json`.

        `partitions`; `storage`, each with the `holders` that pin its blocks; `clients`; `waits`: every claim that
        waits for samples and every put that waits for room, with what each is waiting for.  `owners` and `sessions`
        are deprecated names of `storage` and `clients`.
        """
        status: dict[str, Any] = yield self._core.status()
        return status

    get_meta, async_get_meta = twins(_get_meta)
    put, async_put = twins(_put)
    get_data, async_get_data = twins(_get_data)
    set_custom_meta, async_set_custom_meta = twins(_set_custom_meta)
    clear_samples, async_clear_samples = twins(_clear_samples)
    clear_partition, async_clear_partition = twins(_clear_partition)
    get_consumption_status, async_get_consumption_status = twins(_get_consumption_status)
    get_production_status, async_get_production_status = twins(_get_production_status)
    check_consumption_status, async_check_consumption_status = twins(_check_consumption_status)
    check_production_status, async_check_production_status = twins(_check_production_status)
    reset_consumption, async_reset_consumption = twins(_reset_consumption)
    get_partition_list, async_get_partition_list = twins(_get_partition_list)
    get_events, async_get_events = twins(_get_events)
    status, async_status = twins(_status)


AsyncTransferQueueClient = TransferQueueClient


def _warn_missing(piece: Meta, cleared: int) -> None:
    if cleared < len(piece):
        logger.warning(
            "clear_samples: %d of %d samples are not in partition %r (cleared before, or never there)",
            len(piece) - cleared,
            len(piece),
            piece.partition,
        )


def _outcome(op: Op) -> Meta | None:
    """Metadata that a claim completed with; None after an error."""
    try:
        meta: Meta = op.result()
    except TransferQueueError:
        return None
    return meta
