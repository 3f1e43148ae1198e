"""Batches of a system as a PyTorch dataset and data loader.

A `StreamingDataset` claims batches, cuts them into micro-batches and yields those with their metadata.
While a batch is in use, the claim of the next one already waits at the controller.  The dataset runs in the
process that made it or in the worker processes of a data loader, each with its own client.

Needs torch and tensordict; they are imported with this module, and not by `import transferq` alone.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from tensordict import TensorDict, TensorDictBase
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ._core import FETCH, Op
from ._impl.calls import wait_any
from ._impl.named import named
from ._impl.ragged import jagged_by_torch, offsets_of_lengths
from ._impl.system import ControllerInfo, attach_or_start, from_environment
from ._impl.words import counted
from .client import TransferQueueClient
from .config import read
from .errors import TransferQueueError, TryAgainError
from .metadata import BatchMeta

if TYPE_CHECKING:
    from ._impl.ragged import RowOffsets
    from .config import Config

logger = logging.getLogger("transferq")

MicroBatch: TypeAlias = "tuple[TensorDict, BatchMeta]"

_LAST_EVENT = 1 << 62

_connected: weakref.WeakSet[StreamingDataset] = weakref.WeakSet()
"""The datasets of this process that are connected."""


def default_fetch_batch_fn(
    tq_client: TransferQueueClient,
    data_fields: Sequence[str],
    batch_size: int,
    partition_id: str,
    task_name: str,
    sampling_config: Mapping[str, Any],
    batch_index: int,
) -> tuple[TensorDict | None, BatchMeta]:
    """Claim a batch and read it; the data is None if the claim came back empty (polling mode)."""
    meta = tq_client.get_meta(
        data_fields=data_fields,
        batch_size=batch_size,
        partition_id=partition_id,
        task_name=task_name,
        sampling_config=_asked(sampling_config, partition_id, batch_index),
    )
    return (tq_client.get_data(meta) if meta.size else None), meta


def _asked(sampling_config: Mapping[str, Any], partition: str, batch: int) -> dict[str, Any]:
    """The sampler's settings for one batch."""
    return {**sampling_config, "batch_index": batch, "partition_id": partition}


def chunk_batch_fn(
    td: TensorDict, batch_meta: BatchMeta, micro_batch_size: int = 1
) -> list[MicroBatch]:
    """Cut a batch and its metadata into micro-batches of `micro_batch_size` rows; the last one may be smaller.

    ValueError if the batch has fewer rows than one micro-batch, or not as many rows as the metadata.
    """
    if not isinstance(td, TensorDictBase):
        raise TypeError(f"td: expected a TensorDict, got {type(td).__name__}")
    if not isinstance(micro_batch_size, int) or micro_batch_size < 1:
        raise ValueError(f"micro_batch_size: expected a positive integer, got {micro_batch_size!r}")
    if len(td.batch_size) == 0:
        raise ValueError("td: expected a TensorDict with a batch dimension")
    rows = int(td.batch_size[0])
    if micro_batch_size > rows:
        raise ValueError(f"micro_batch_size {micro_batch_size} is larger than the batch of {rows}")
    if batch_meta.size != rows:
        raise ValueError(
            f"the batch has {counted(rows, 'row')}, its metadata {counted(batch_meta.size, 'sample')}"
        )
    # A TensorDict cannot slice nested tensors.
    nested = {
        name: column
        for name, column in td.items()
        if isinstance(column, torch.Tensor) and column.is_nested
    }
    others = td.exclude(*nested)
    parts: list[MicroBatch] = []
    for start in range(0, rows, micro_batch_size):
        end = min(start + micro_batch_size, rows)
        part = others[start:end]
        shared: dict[int, RowOffsets] = {}
        for name, column in nested.items():
            part.set(name, _cut(column, start, end, shared))
        parts.append((part, batch_meta[start:end]))
    return parts


def _cut(column: Any, start: int, end: int, shared: dict[int, RowOffsets]) -> Any:
    """Rows of a nested tensor; without a copy for a jagged tensor without gaps.

    Columns that share their offsets still do afterwards: `shared` holds the offsets that were already cut.
    """
    if column.layout != torch.jagged:
        return torch.nested.as_nested_tensor(list(column.unbind())[start:end], layout=column.layout)
    whole, ragged = column.offsets(), column._ragged_idx
    if column.lengths() is not None:
        rows = column.unbind()[start:end]
        offsets = offsets_of_lengths([row.size(ragged - 1) for row in rows])
        return jagged_by_torch(torch.cat(rows, ragged - 1), offsets, ragged)
    bounds = whole[start : end + 1].tolist()
    cut = shared.get(id(whole))
    if cut is None:
        lengths = [right - left for left, right in pairwise(bounds)]
        cut = shared[id(whole)] = offsets_of_lengths(lengths, whole.device)
    values = column.values().narrow(ragged - 1, bounds[0], bounds[-1] - bounds[0])
    return jagged_by_torch(values, cut, ragged)


class StreamingDataset(IterableDataset):  # type: ignore[misc]
    """Micro-batches of a partition, for one data-parallel rank.

    Iterating claims `batch_size` samples at a time for the task, reads their `data_fields` and yields
    (TensorDict, BatchMeta) of `micro_batch_size` rows.  It never ends by itself, unless
    `should_check_consumption_status` is set: then it ends once the task has consumed all samples of the
    partition (if more samples come later, reserve them in advance with TQ_PRE_ALLOC_SAMPLE_NUM).

    `config` is what `init()` returned, or anything that `init()` accepts.  With RankAwareSampler all datasets of one
    `dp_rank` get the same batches in the same order; in several workers of a data loader, worker w of n gets the
    batches w, w + n, ...

    `fetch_batch_fn` replaces `default_fetch_batch_fn`, and `process_batch_fn` replaces `chunk_batch_fn`; they are
    called with the same arguments.  With `prefetch` (and the default fetch) the claim of the next batch waits
    while a batch is in use.  Leaving a loop gives that claim back; if it was already answered, the next loop
    over this dataset starts with its batch.

    Batches are kept in `buffer`: after `reset()` they are yielded again, until `step()` moves to another partition.
    """

    @named
    def __init__(
        self,
        config: Any,
        batch_size: int,
        micro_batch_size: int,
        data_fields: list[str],
        partition_id: str,
        task_name: str,
        dp_rank: int,
        should_check_consumption_status: bool = False,
        fetch_batch_fn: Callable[..., Any] | None = None,
        process_batch_fn: Callable[..., Any] | None = None,
        *,
        prefetch: bool = True,
    ) -> None:
        """Check the arguments; a ValueError names the wrong one."""
        if batch_size < 1:
            raise ValueError(f"batch_size: expected a positive number, got {batch_size}")
        if micro_batch_size < 1:
            raise ValueError(
                f"micro_batch_size: expected a positive number, got {micro_batch_size}"
            )
        if len(data_fields) < 1:
            raise ValueError(f"data_fields: expected at least one name, got {data_fields}")
        if dp_rank < 0:
            raise ValueError(f"dp_rank: expected 0 or more, got {dp_rank}")
        super().__init__()
        self.config = config
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.data_fields = data_fields
        self.partition_id = partition_id
        self.task_name = task_name
        self.dp_rank = dp_rank
        self.should_check_consumption_status = should_check_consumption_status
        self.fetch_batch_fn = fetch_batch_fn or default_fetch_batch_fn
        self.process_batch_fn = process_batch_fn or chunk_batch_fn
        self.prefetch = prefetch
        self.sampling_config = {"dp_rank": dp_rank, "task_name": task_name}
        self.buffer: list[MicroBatch] = []
        self.batch_index = 0
        self._reach: ControllerInfo | None = _session_info()
        self._client: TransferQueueClient | None = None
        self._pid = os.getpid()
        self._claim: Op | None = None
        self._seen = 0

    def __getstate__(self) -> dict[str, Any]:
        # Connections and claims are not pickled.
        return {**self.__dict__, "_client": None, "_claim": None, "_pid": 0}

    # --- iterating --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[MicroBatch]:
        client = self._open()
        try:
            while True:
                if self.batch_index >= len(self.buffer):
                    fetched = self._fetch(client)
                    if fetched is None:
                        return
                    self.buffer.append(fetched)
                data, meta = self.buffer[self.batch_index]
                self.batch_index += 1
                self._look_ahead(client)
                yield from self._micro_batches(data, meta)
        finally:
            self._give_up()

    def _micro_batches(self, data: Any, meta: BatchMeta) -> Any:
        size = self.micro_batch_size
        if self.process_batch_fn is chunk_batch_fn:
            size = min(size, meta.size)  # samplers may return fewer than requested
        return self.process_batch_fn(data, meta, micro_batch_size=size)

    def reset(self) -> None:
        """Start over with the first batch of the buffer."""
        self.batch_index = 0

    def step(self, partition_id: str) -> None:
        """Move to another partition."""
        if self._give_up():
            logger.warning(
                "StreamingDataset: task %r leaves partition %r with a batch claimed and not used",
                self.task_name,
                self.partition_id,
            )
        self._claim = None
        self.buffer = []
        self.batch_index = 0
        self.partition_id = partition_id

    def close(self) -> None:
        """Give back the claim in flight and leave the system.  May be called repeatedly; iterating connects again."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            self._give_up()
            client.close()
        self._claim = None

    # --- connecting -------------------------------------------------------------------------------

    def _open(self) -> TransferQueueClient:
        """The client of this process; a client that a forked worker inherited belongs to its parent."""
        if self._client is None or self._pid != os.getpid():
            given = read(self.config)
            self._claim = None
            self._pid = os.getpid()
            self._client = TransferQueueClient(
                f"StreamingDataset-{self._pid}", self._where(given), config=given
            )
            _connected.add(self)
        return self._client

    def _where(self, given: Config) -> ControllerInfo:
        """How to reach the system: from the configuration, the environment, or the process that made this dataset."""
        named, reach = from_environment(given), self._reach
        if reach is not None and (named is None or named.address == reach.address):
            return reach  # includes a secret that is in no file, as in a Ray cluster
        return named if named is not None else attach_or_start(given, start=False)[0].info

    # --- claiming ---------------------------------------------------------------------------------

    def _batch_number(self) -> int:
        """Number of the next batch among all batches of this rank; the workers of a data loader take turns."""
        worker = get_worker_info()
        if worker is None:
            return len(self.buffer)
        return len(self.buffer) * int(worker.num_workers) + int(worker.id)

    def _start(self, client: TransferQueueClient) -> Op:
        sampler, settings = client._sampling(
            _asked(self.sampling_config, self.partition_id, self._batch_number())
        )
        return client._core.claim(
            self.partition_id,
            list(self.data_fields),
            self.batch_size,
            task=self.task_name,
            mode=FETCH,
            sampler=sampler,
            sampler_config=settings,
            tags=True,
            timeout=-1.0,
        )

    def _look_ahead(self, client: TransferQueueClient) -> None:
        """Claim the next batch ahead, while the current one is in use."""
        if (
            self.prefetch
            and self._claim is None
            and self.batch_index == len(self.buffer)
            and self.fetch_batch_fn is default_fetch_batch_fn
        ):
            self._claim = self._start(client)

    def _give_up(self) -> bool:
        """Give back the claim in flight; True if it was already answered, and is kept."""
        claim = self._claim
        if claim is None or self._pid != os.getpid():
            return False
        claim.cancel()
        try:
            claim.result()
        except TransferQueueError:
            self._claim = None
            return False
        return True

    def _fetch(self, client: TransferQueueClient) -> MicroBatch | None:
        """The next batch; None once the task has consumed all samples."""
        if self.fetch_batch_fn is default_fetch_batch_fn:
            meta = self._next_claim(client)
            return None if meta is None else (client.get_data(meta), meta)
        while True:
            self._seen = _last_event(client)
            data, meta = self.fetch_batch_fn(
                tq_client=client,
                data_fields=self.data_fields,
                batch_size=self.batch_size,
                partition_id=self.partition_id,
                task_name=self.task_name,
                sampling_config=self.sampling_config,
                batch_index=self._batch_number(),
            )
            if data is not None:
                return data, meta
            if self._had_all(client):
                return None
            self._wait(client)

    def _next_claim(self, client: TransferQueueClient) -> BatchMeta | None:
        """Wait for a claim, watching the events from before the claim was made."""
        found = self._answer()  # a claim made ahead
        while found is None:
            seen = self._seen = _last_event(client)
            if self._claim is None:
                self._claim = self._start(client)
            # The controller gets the consumption check after the claim, so it answers the claim first.
            if not self._claim.done() and self._had_all(client) and not self._give_up():
                return None
            self._wait(client)
            asked = self._claim.done()
            found = self._answer()
            if asked and found is None:
                # The system is in polling mode: it answers at once instead of waiting.
                if self._had_all(client):
                    return None
                self._seen = seen
                self._wait(client)
        return found

    def _answer(self) -> BatchMeta | None:
        """The samples of the claim in flight, if it was answered."""
        if self._claim is None or not self._claim.done():
            return None
        claim, self._claim = self._claim, None
        try:
            return BatchMeta._wrap([claim.result()])
        except TryAgainError:
            return None

    def _had_all(self, client: TransferQueueClient) -> bool:
        """Whether the dataset may end, and the task has consumed everything."""
        return self.should_check_consumption_status and client.check_consumption_status(
            self.task_name, self.partition_id
        )

    def _wait(self, client: TransferQueueClient) -> None:
        """Wait for the claim to be answered, or, where they matter, for events of the partition."""
        claim = self._claim
        watched = claim is None or self.should_check_consumption_status
        seconds = float(client.config["client"]["timeout"])
        told = False
        while claim is None or not claim.done():
            news = client._core.events(self._seen, 0, True, -1.0) if watched else None
            try:
                wait_any([op for op in (claim, news) if op is not None], seconds)
                if news is not None and news.done():
                    events, self._seen = news.result()
                    if any(event["partition"] == self.partition_id for event in events):
                        return
            finally:
                if news is not None:
                    news.cancel()
            if not told and (claim is None or not claim.done()):
                told = True
                logger.info(
                    "StreamingDataset: task %r waits for %s of partition %r with fields %s",
                    self.task_name,
                    counted(self.batch_size, "sample"),
                    self.partition_id,
                    self.data_fields,
                )


def _last_event(client: TransferQueueClient) -> int:
    """Number of the latest event."""
    _, last = client._core.events(_LAST_EVENT).result()
    return int(last)


def leave(system: ControllerInfo) -> None:
    """Close the datasets of this process that are connected to a system which the process leaves."""
    for dataset in list(_connected):
        if dataset._client is not None and dataset._client._info.address == system.address:
            dataset.close()


def _session_info() -> ControllerInfo | None:
    """How this process reaches its current system."""
    from ._impl.api import _process

    return _process.session.client._info if _process.session is not None else None


def _as_it_is(batch: Any) -> Any:
    """The collate function: batches of a dataset are already complete."""
    return batch


class StreamingDataLoader(DataLoader):  # type: ignore[misc]
    """A DataLoader over a `StreamingDataset`, which makes the batches; yields (TensorDict, BatchMeta).

    The arguments are those of torch's DataLoader.  Workers hold up to `num_workers * prefetch_factor` micro-batches
    ready; those still held when the loop is left are lost to the task.
    """

    def __init__(
        self,
        dataset: StreamingDataset,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
    ) -> None:
        """Take batch size, order and sampling from the dataset."""
        super().__init__(
            dataset=dataset,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=collate_fn or _as_it_is,
            pin_memory=pin_memory,
            worker_init_fn=worker_init_fn,
            multiprocessing_context=multiprocessing_context,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
        )

    def __iter__(self) -> Iterator[MicroBatch]:
        """The batches as the dataset makes them; a `collate_fn` may convert them."""
        batches: Iterator[MicroBatch] = super().__iter__()
        return batches

    def reset(self) -> None:
        """Start over with the first batch of the buffer."""
        self._end_workers()
        self.dataset.reset()

    def step(self, partition_id: str) -> None:
        """Move to another partition."""
        self._end_workers()
        self.dataset.step(partition_id)

    def get_buffer(self) -> list[MicroBatch]:
        """The batches kept by the dataset; those in worker processes are not included."""
        buffer: list[MicroBatch] = self.dataset.buffer
        return buffer

    def _end_workers(self) -> None:
        """End persistent workers, which hold an old copy of the dataset; the next loop starts new ones."""
        if self.persistent_workers:
            self._iterator = None


__all__ = [
    "StreamingDataLoader",
    "StreamingDataset",
    "chunk_batch_fn",
    "default_fetch_batch_fn",
]
