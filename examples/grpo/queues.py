"""How a process connects to the queue, and a thin layer that measures the data going through it.

The same calls work on two packages, ``transferq`` and ``transfer_queue``.  All differences are here:

* ``transferq`` processes attach to a running system by its address or name.  A claim that cannot be
  satisfied yet waits in the controller, and the queue records the events for the timeline.
* ``transfer_queue`` lives in a Ray cluster and has no events.  Its controller is blocked while a
  claim waits, so claims return and are repeated after a pause.  Its group sampler needs consecutive
  indexes, and cleared ones are reused in another order, so consumed samples are not cleared.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .settings import BACKENDS, PROMPTS, RECORDS, TRAIN, WEIGHTS, Settings

Fields = Mapping[str, "Tensor | list[Tensor]"]
"""Columns to write: a tensor with one row per sample, or a list of tensors of any lengths."""


class Stopped(BaseException):
    """The process was asked to end (SIGTERM) while it waited for samples."""


class Queue:
    """One process's connection to the queue, with a clock on every call.

    ``busy`` is the time spent in puts, reads and clears, ``waiting`` the time in claims (most of it
    for samples that do not exist yet), ``moved`` the bytes of field data written and read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tq: Any = importlib.import_module(settings.queue)
        self.busy = 0.0
        self.waiting = 0.0
        self.moved = 0
        self._stopping = False
        self._interruptible = False

    # --- connecting --------------------------------------------------------------------------

    def start(self) -> Settings:
        """Starts a system or attaches to the user's own; returns settings by which others find it."""
        raise NotImplementedError

    def attach(self, name: str) -> None:
        """Attaches to the demo's system as a worker with this name."""
        raise NotImplementedError

    def close(self) -> None:
        """Detaches; in the process that started the system, stops it."""
        self.tq.close()

    def stop_on_signal(self) -> None:
        """Makes SIGTERM end this process's `stream` instead of the process."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    # --- writing -----------------------------------------------------------------------------

    def put(
        self, partition: str, keys: list[str], fields: Fields, tags: list[dict[str, Any]]
    ) -> None:
        """Writes samples by key, all in one step."""
        with self._timed():
            table = self._table(fields)
            self.tq.kv_batch_put(
                keys=keys, partition_id=self.settings.partition(partition), fields=table, tags=tags
            )

    def add_fields(self, samples: Any, fields: Fields) -> None:
        """Adds columns to claimed samples."""
        with self._timed():
            self.tq.get_client().put(self._table(fields), metadata=samples)

    def clear(self, samples: Any) -> None:
        """Gives back the memory of claimed samples."""
        with self._timed():
            self.tq.get_client().clear_samples(samples)

    def tidy(self) -> None:
        """Removes everything that a finished run left, except the held-out answers."""
        for partition in (PROMPTS, TRAIN, WEIGHTS, RECORDS):
            self.clear_partition(partition)

    def clear_partition(self, partition: str) -> None:
        """Removes a whole partition, if it exists."""
        with self._timed():
            self.tq.get_client().clear_partition(self.settings.partition(partition))

    # --- reading -----------------------------------------------------------------------------

    def stream(
        self, partition: str, fields: list[str], count: int, task: str
    ) -> Iterator[tuple[Any, TensorDict]]:
        """Keeps claiming `count` samples, and yields metadata and data, until told to stop.

        A claim takes whole groups, and samples that this task has not consumed before.
        """
        parent = multiprocessing.parent_process()
        try:
            while parent is None or parent.is_alive():
                samples = self._claim(
                    data_fields=fields,
                    batch_size=count,
                    partition_id=self.settings.partition(partition),
                    task_name=task,
                )
                if samples is not None:
                    yield samples, self._data(samples)
        except Stopped:
            return

    def read(self, partition: str, keys: list[str], fields: list[str]) -> TensorDict:
        """Fields of samples, by key."""
        with self._timed():
            data = self.tq.kv_batch_get(keys, self.settings.partition(partition), fields)
            self._count(data)
        return data

    def tags(self, partition: str) -> dict[str, dict[str, Any]]:
        """The keys of a partition with their tags."""
        name = self.settings.partition(partition)
        with self._timed():
            return dict(self.tq.kv_list(name).get(name, {}))

    def unconsumed(self, partition: str, task: str) -> int:
        """Number of samples that a task has not consumed."""
        _, consumed = self.tq.get_client().get_consumption_status(
            task_name=task, partition_id=self.settings.partition(partition)
        )
        return 0 if consumed is None else int((torch.as_tensor(consumed) == 0).sum())

    def events(self, since: int) -> list[dict[str, Any]]:
        """What happened in the queue after event number `since`, if the queue keeps a record."""
        return []

    # --- internals --------------------------------------------------------------------------------

    def _claim(self, **claim: Any) -> Any | None:
        """Metadata of claimed samples; None if there were not enough for a while."""
        started = time.perf_counter()
        self._interruptible = True
        try:
            if self._stopping:
                raise Stopped
            return self._get_meta(**claim)
        finally:
            self._interruptible = False
            self.waiting += time.perf_counter() - started

    def _get_meta(self, **claim: Any) -> Any | None:
        raise NotImplementedError

    def _data(self, samples: Any) -> TensorDict:
        with self._timed():
            data = self.tq.get_client().get_data(samples)
            self._count(data)
        return data

    def _table(self, fields: Fields) -> TensorDict:
        """Columns in the queue's form; lists become one ragged (jagged) column."""
        columns = {
            name: torch.nested.as_nested_tensor(value, layout=torch.jagged)
            if isinstance(value, list)
            else value
            for name, value in fields.items()
        }
        table = TensorDict(columns, batch_size=[len(next(iter(fields.values())))])
        self._count(table)
        return table

    def _count(self, table: TensorDict) -> None:
        for column in table.values():
            values = column.values() if column.is_nested else column
            self.moved += values.numel() * values.element_size()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.busy += time.perf_counter() - started

    def _on_stop(self, _signal: int, _frame: object) -> None:
        self._stopping = True
        if self._interruptible:
            raise Stopped


class TransferQQueue(Queue):
    """The queue of this project."""

    PATIENCE = 1.0
    """Seconds that a claim waits before its process checks for other work."""

    def start(self) -> Settings:
        """Starts a system under its own name, unless the environment refers to one."""
        if "TQ_ADDRESS" not in os.environ:
            os.environ.setdefault("TQ_SYSTEM", f"demo-{os.getpid()}")
        sampler = self.tq.GRPOGroupNSampler(n_samples_per_prompt=self.settings.group)
        backend = BACKENDS[self.settings.backend]
        self.tq.init({"controller": {"sampler": sampler}, "backend": backend}, name="demo")
        return self.settings

    def attach(self, name: str) -> None:
        """Finds the system through the environment."""
        self.tq.init(name=name, attach=True)

    def events(self, since: int) -> list[dict[str, Any]]:
        """The queue's own record of puts, claims and clears."""
        return list(self.tq.get_client().get_events(since=since))

    def _get_meta(self, **claim: Any) -> Any | None:
        whole_groups = {"sampler": "grpo_group_n", "n_samples_per_prompt": self.settings.group}
        try:
            return self.tq.get_client().get_meta(
                mode="fetch", sampling_config=whole_groups, timeout=self.PATIENCE, **claim
            )
        except TimeoutError:
            return None


class TransferQueueQueue(Queue):
    """The Python package with the same interface, on a Ray cluster."""

    PAUSE = 0.002
    ATTEMPTS = 500
    """How long, and how often, a claim is tried before its process checks for other work."""

    def __init__(self, settings: Settings) -> None:
        os.environ.setdefault("TQ_LOGGING_LEVEL", "ERROR")
        super().__init__(settings)

    def start(self) -> Settings:
        """Starts a small Ray cluster (or joins the one at `RAY_ADDRESS`) and the queue in it."""
        import ray

        own = (
            {} if "RAY_ADDRESS" in os.environ else {"num_cpus": 4, "object_store_memory": 80 << 20}
        )
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **own)
        self.settings = replace(self.settings, address=ray.get_runtime_context().gcs_address)
        sampler = self.tq.GRPOGroupNSampler(n_samples_per_prompt=self.settings.group)
        self.tq.init(_omega({"controller": {"sampler": sampler, "polling_mode": True}}))
        return self.settings

    def attach(self, name: str) -> None:
        """Joins the Ray cluster and finds the controller there."""
        import ray

        ray.init(address=self.settings.address, log_to_driver=False, logging_level="ERROR")
        self.tq.init()

    def close(self) -> None:
        """Stops the queue where it was started; leaves the Ray cluster."""
        import ray

        if multiprocessing.parent_process() is None:
            self.tq.close()
        ray.shutdown()

    def put(
        self, partition: str, keys: list[str], fields: Fields, tags: list[dict[str, Any]]
    ) -> None:
        """Writes tags before fields: a sample with fields can be claimed, whether it has tags or not."""
        with self._timed():
            name = self.settings.partition(partition)
            self.tq.kv_batch_put(keys=keys, partition_id=name, tags=tags)
        super().put(partition, keys, fields, tags)

    def clear(self, samples: Any) -> None:
        """Keeps the samples: see the module's docstring."""

    def tags(self, partition: str) -> dict[str, dict[str, Any]]:
        """Only the keys that have tags: a put is several requests, and a process killed between them leaves keys without any."""
        return {key: tags for key, tags in super().tags(partition).items() if tags}

    def tidy(self) -> None:
        """Keeps the samples here too; they are removed with the queue."""

    def _get_meta(self, **claim: Any) -> Any | None:
        for _ in range(self.ATTEMPTS):
            samples = self.tq.get_client().get_meta(mode="fetch", **claim)
            if samples.size:
                return samples
            time.sleep(self.PAUSE)
        return None


def _omega(config: dict[str, Any]) -> Any:
    """A config in the form that `transfer_queue` takes, which may contain objects."""
    from omegaconf import OmegaConf

    return OmegaConf.create(config, flags={"allow_objects": True})


def connection(settings: Settings) -> Queue:
    """The queue named by the settings, not yet connected."""
    return {"transferq": TransferQQueue, "transfer_queue": TransferQueueQueue}[settings.queue](
        settings
    )


def rows(column: Tensor) -> list[Tensor]:
    """The cells of a ragged column."""
    return list(column.unbind())


def dense(column: Tensor) -> Tensor:
    """A column whose cells have one shape, as one tensor."""
    return torch.stack(rows(column)) if column.is_nested else column
