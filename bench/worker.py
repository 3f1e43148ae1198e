"""One side of the comparison: a process that has a package imported and times calls to it.

    python bench/worker.py transferq|transfer_queue

Reads one JSON object per line, {"do": NAME, ...}, and answers with one line.  Both packages have the same calls,
so everything here is written once; each runs in its own environment.  Only the calls are timed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from bench.event_loop import longest_gap
from bench.noise import Noise
from bench.workloads import UNITS, WORKLOADS, Columns, size, table

PARTITION = "bench"
LISTED = "bench-listed"


class Worker:
    """The calls, by their names in requests."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.tq: Any = importlib.import_module(package)
        self._columns: dict[tuple[str, float], Columns] = {}
        self._claimed = 0
        self._noise: Noise | None = None
        self._address = ""

    # --- starting and ending ----------------------------------------------------------------------

    def init(self) -> dict[str, Any]:
        """Seconds until a system of two storage units serves, with nothing running before."""
        from omegaconf import OmegaConf

        if self.package == "transfer_queue":
            os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        conf = OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": UNITS}}})
        started = time.perf_counter()
        if self.package == "transfer_queue":
            import ray

            ray.init(num_cpus=4, object_store_memory=512 << 20, include_dashboard=False)
            self._address = ray.get_runtime_context().gcs_address
        self.tq.init(conf)
        return {"seconds": time.perf_counter() - started}

    def attach(self, **variables: str) -> dict[str, Any]:
        """Attach to the system named by the environment, extended by these variables."""
        os.environ.update(variables)
        self.tq.init(attach=True)
        return {}

    def close(self) -> dict[str, Any]:
        """Leave the system and end it."""
        started = time.perf_counter()
        self.tq.close()
        if self.package == "transfer_queue":
            import ray

            ray.shutdown()
        return {"seconds": time.perf_counter() - started}

    # --- other users ------------------------------------------------------------------------------

    def noise_open(self, put: int, read: int) -> dict[str, Any]:
        """Start processes that stream large batches; they wait."""
        self._noise = Noise(self.package, self._address, put, read)
        return {}

    def noise_go(self, seconds: float) -> dict[str, Any]:
        """Let them stream; returns after these seconds."""
        assert self._noise is not None
        self._noise.go(seconds)
        return {}

    def noise_stop(self) -> dict[str, Any]:
        """Pause them; returns the data that they moved."""
        assert self._noise is not None
        return self._noise.stop()

    def noise_close(self) -> dict[str, Any]:
        """Stop them."""
        assert self._noise is not None
        self._noise.close()
        return {}

    # --- batches ----------------------------------------------------------------------------------

    def _made(self, name: str, scale: float) -> Columns:
        key = (name, scale)
        if key not in self._columns:
            self._columns = {key: WORKLOADS[name].columns(scale)}  # keep only one in memory
        return self._columns[key]

    def batch(self, workload: str, scale: float, check: bool, warm: bool = False) -> dict[str, Any]:
        """Put, list, read and clear a batch by keys; seconds of each.

        `warm`: first put it into every unit once.  Units take turns, and release memory that was unused for some
        seconds, as it is while the other side is measured.
        """
        columns = self._made(workload, scale)
        fields = table(columns)
        keys = [f"k{row}" for row in range(fields.batch_size[0])]
        for _ in range(UNITS if warm else 0):
            self.tq.kv_batch_put(keys, PARTITION, fields)
            self.tq.kv_clear(keys, PARTITION)
        times = [time.perf_counter()]
        self.tq.kv_batch_put(keys, PARTITION, fields)
        times.append(time.perf_counter())
        listed = self.tq.kv_list(PARTITION)
        times.append(time.perf_counter())
        data = self.tq.kv_batch_get(keys, PARTITION)
        times.append(time.perf_counter())
        if check:
            compare(columns, data)
            assert list(listed[PARTITION]) == keys
        del data
        cleared = time.perf_counter()
        self.tq.kv_clear(keys, PARTITION)
        ended = time.perf_counter()
        put, listing, get = (after - before for before, after in pairwise(times))
        return {
            "put": put,
            "list": listing,
            "get": get,
            "clear": ended - cleared,
            "bytes": size(columns),
        }

    # --- data that stays in the store -------------------------------------------------------------

    def hold(self, workload: str, scale: float) -> dict[str, Any]:
        """Put a batch and leave it there."""
        columns = self._made(workload, scale)
        fields = table(columns)
        keys = [f"k{row}" for row in range(fields.batch_size[0])]
        self.tq.kv_batch_put(keys, PARTITION, fields)
        return {"bytes": size(columns)}

    def release(self) -> dict[str, Any]:
        """Clear everything."""
        self.tq.get_client().clear_partition(PARTITION)
        return {}

    def steps(self, count: int, rows: bool) -> dict[str, Any]:
        """Steps that put a batch of a log-normal size and clear some of the data; returns the bytes that are left.

        `rows`: clear single samples instead of whole batches.
        """
        random = torch.Generator().manual_seed(0)
        live: dict[str, tuple[int, list[str]]] = {}
        for step in range(count):
            width = int(torch.empty(1).log_normal_(10.0, 1.0, generator=random)) + 16
            keys = [f"s{step}-{row}" for row in range(8)]
            fields = table({"tokens": torch.zeros(len(keys), width, dtype=torch.int32)})
            self.tq.kv_batch_put(keys, PARTITION, fields)
            for each in [[key] for key in keys] if rows else [keys]:
                live[each[0]] = (4 * width * len(each), each)
            chances = torch.rand(len(live), generator=random).tolist()
            gone = [name for name, chance in zip(live, chances, strict=True) if chance < 0.02]
            cleared = [key for name in gone for key in live.pop(name)[1]]
            if cleared:
                self.tq.kv_clear(cleared, PARTITION)
        return {"bytes": sum(held for held, _ in live.values())}

    def cells(self, samples: int) -> dict[str, Any]:
        """Put samples of nine scalar fields."""
        client = self.tq.get_client()
        for start in range(0, samples, 100_000):
            count = min(100_000, samples - start)
            columns = {f"field_{place}": torch.rand(count) for place in range(9)}
            client.put(table(columns), partition_id=PARTITION)
        return {"cells": 9 * samples}

    def put_once(self) -> dict[str, Any]:
        """Seconds of one put by key."""
        fields = self._fields()
        started = time.perf_counter()
        self.tq.kv_put("once", PARTITION, fields=fields)
        return {"seconds": time.perf_counter() - started}

    def read_once(self) -> dict[str, Any]:
        """Seconds of one read by key."""
        started = time.perf_counter()
        self.tq.kv_batch_get("once", PARTITION)
        return {"seconds": time.perf_counter() - started}

    # --- the event loop ---------------------------------------------------------------------------

    def stalls(self, workload: str, scale: float, count: int) -> dict[str, Any]:
        """The longest times that the event loop was blocked in async puts and gets of a batch, and while idle."""
        fields = table(self._made(workload, scale))
        keys = [f"k{row}" for row in range(fields.batch_size[0])]
        found: dict[str, list[float]] = {"put": [], "get": [], "idle": []}

        async def run() -> None:
            for _ in range(count):
                put = self.tq.async_kv_batch_put(keys, PARTITION, fields)
                found["put"].append((await longest_gap(put))[0])
                gap, data = await longest_gap(self.tq.async_kv_batch_get(keys, PARTITION))
                found["get"].append(gap)
                del data
                self.tq.kv_clear(keys, PARTITION)
                found["idle"].append((await longest_gap(asyncio.sleep(0.1)))[0])

        asyncio.run(run())
        return found

    def texts(self, scale: float, count: int) -> dict[str, Any]:
        """Seconds of reads of long texts, and of decoding them from this process's memory, in turn.

        Whether creating texts costs page faults depends on the process (run.py: KEEPS), and is the same for both.
        """
        columns = self._made("long texts", scale)
        keys = [f"k{row}" for row in range(len(columns["text"]))]
        self.tq.kv_batch_put(keys, PARTITION, table(columns))
        client = self.tq.get_client()
        meta = client.kv_retrieve_meta(keys, PARTITION)
        encoded = [text.encode() for text in columns["text"]]
        calls: dict[str, Callable[[], Any]] = {
            "read": lambda: self.tq.kv_batch_get(keys, PARTITION),
            "read by metadata": lambda: client.get_data(meta),
            "decoded": lambda: [bytes.decode(each) for each in encoded],
        }
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(count):
            for name, call in calls.items():
                started = time.perf_counter()
                data = call()
                found[name].append(time.perf_counter() - started)
                del data
        self.tq.kv_clear(keys, PARTITION)
        return found

    # --- small operations -------------------------------------------------------------------------

    def small(self, operation: str, count: int) -> dict[str, Any]:
        """Seconds of each of `count` calls, one at a time."""
        step: Callable[[int], Any] = getattr(self, f"_{operation}")(count)
        seconds = []
        for place in range(count):
            started = time.perf_counter()
            step(place)
            seconds.append(time.perf_counter() - started)
        self.tq.get_client().clear_partition(PARTITION)
        return {"seconds": seconds}

    def _fields(self) -> dict[str, torch.Tensor]:
        return {name: column[0] for name, column in self._made("tiny", 1.0).items()}

    def _kv_put(self, count: int) -> Callable[[int], Any]:
        fields = self._fields()
        return lambda place: self.tq.kv_put(f"k{place}", PARTITION, fields=fields)

    def _tag_put(self, count: int) -> Callable[[int], Any]:
        self.tq.kv_put("k", PARTITION, fields=self._fields())
        return lambda place: self.tq.kv_put("k", PARTITION, tag={"version": place})

    def _claims(self, count: int) -> dict[str, Any]:
        """Samples for `count` claims of 64, and the arguments of the claims."""
        self._fill(64 * count)
        self._claimed += 1
        return {
            "data_fields": ["reward"],
            "batch_size": 64,
            "partition_id": PARTITION,
            "task_name": f"task{self._claimed}",
        }

    def _claim(self, count: int) -> Callable[[int], Any]:
        claim, client = self._claims(count), self.tq.get_client()
        return lambda place: client.get_meta(**claim)

    def _kv_get(self, count: int) -> Callable[[int], Any]:
        self.tq.kv_put("k", PARTITION, fields=self._fields())
        return lambda place: self.tq.kv_batch_get("k", PARTITION)

    def _kv_get_dense(self, count: int) -> Callable[[int], Any]:
        """Rows in dense layout if the package supports it: PyPI's only has jagged."""
        self.tq.kv_put("k", PARTITION, fields=self._fields())
        more = {"layout": "dense"} if self.package == "transferq" else {}
        return lambda place: self.tq.kv_batch_get("k", PARTITION, **more)

    def _fill(self, samples: int) -> None:
        """Samples that have `reward`."""
        client = self.tq.get_client()
        for start in range(0, samples, 100_000):
            count = min(100_000, samples - start)
            client.put(table({"reward": torch.rand(count)}), partition_id=PARTITION)

    def concurrent(self, operation: str, callers: int, count: int) -> dict[str, Any]:
        """Small calls by this many concurrent asyncio tasks: calls per second, and the seconds of each."""
        step: Callable[[int], Awaitable[Any]] = getattr(self, f"_async_{operation}")(count)
        each: list[float] = []

        async def run() -> float:
            places = iter(range(count))

            async def call() -> None:
                for place in places:
                    begun = time.perf_counter()
                    await step(place)
                    each.append(time.perf_counter() - begun)

            started = time.perf_counter()
            await asyncio.gather(*(call() for _ in range(callers)))
            return time.perf_counter() - started

        seconds = asyncio.run(run())
        self.tq.get_client().clear_partition(PARTITION)
        return {"per_second": count / seconds, "seconds": each}

    def _async_kv_put(self, count: int) -> Callable[[int], Awaitable[Any]]:
        fields = self._fields()
        return lambda place: self.tq.async_kv_put(f"k{place}", PARTITION, fields=fields)

    def _async_tag_put(self, count: int) -> Callable[[int], Awaitable[Any]]:
        self.tq.kv_put("k", PARTITION, fields=self._fields())
        return lambda place: self.tq.async_kv_put("k", PARTITION, tag={"version": place})

    def _async_claim(self, count: int) -> Callable[[int], Awaitable[Any]]:
        claim, client = self._claims(count), self.tq.get_client()
        return lambda place: client.async_get_meta(**claim)

    def _async_kv_get(self, count: int) -> Callable[[int], Awaitable[Any]]:
        self.tq.kv_put("k", PARTITION, fields=self._fields())
        return lambda place: self.tq.async_kv_batch_get("k", PARTITION)

    def zero_copy(self, scale: float, count: int) -> dict[str, Any]:
        """Seconds of zero-copy reads of the simple case; transferq only."""
        fields = table(self._made("simple", scale))
        keys = [f"k{row}" for row in range(fields.batch_size[0])]
        self.tq.kv_batch_put(keys, PARTITION, fields)
        meta = self.tq.get_client().kv_retrieve_meta(keys, PARTITION)
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            data = self.tq.get_client().get_data(meta, layout="dense", zero_copy=True)
            seconds.append(time.perf_counter() - started)
            del data
        self.tq.kv_clear(keys, PARTITION)
        return {"seconds": seconds}

    def growth(self, samples: int, count: int) -> dict[str, Any]:
        """Seconds of claims of 64 from a partition of this many ready samples."""
        self._fill(samples)
        client = self.tq.get_client()
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            client.get_meta(
                data_fields=["reward"], batch_size=64, partition_id=PARTITION, task_name="growth"
            )
            seconds.append(time.perf_counter() - started)
        client.clear_partition(PARTITION)
        return {"seconds": seconds}

    # --- lists of keys, with concurrent claims: see listing.py ------------------------------------

    def fill_keys(self, keys: int, tags: int) -> dict[str, Any]:
        """Put keys with tags."""
        for start in range(0, keys, 10_000):
            names = [f"k{place}" for place in range(start, min(keys, start + 10_000))]
            each = [
                {f"tag{tag}": place + tag for tag in range(tags)} for place in range(len(names))
            ]
            self.tq.kv_batch_put(names, LISTED, tags=each)
        return {}

    def clear_keys(self) -> dict[str, Any]:
        """Remove the keys."""
        self.tq.get_client().clear_partition(LISTED)
        return {}

    def listings(self, keys: int, count: int) -> dict[str, Any]:
        """Seconds of each of `count` lists of these keys."""
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            listed = self.tq.kv_list(LISTED)
            seconds.append(time.perf_counter() - started)
            assert len(listed[LISTED]) == keys
        return {"seconds": seconds}

    def compute(self, total: float) -> dict[str, Any]:
        """Compute for this many seconds, without the queue."""
        end = time.perf_counter() + total
        found = 0
        while time.perf_counter() < end:
            found ^= sum(range(1000))
        return {"computed": found}

    def small_claims(self, count: int) -> dict[str, Any]:
        """Seconds of each of `count` claims of one sample."""
        self._fill(count)
        client = self.tq.get_client()
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            client.get_meta(
                data_fields=["reward"], batch_size=1, partition_id=PARTITION, task_name="meanwhile"
            )
            seconds.append(time.perf_counter() - started)
        client.clear_partition(PARTITION)
        return {"seconds": seconds}


def compare(columns: Columns, data: Any) -> None:
    """Raise an error unless every row that was read equals the row that was put."""
    for name, column in columns.items():
        got = data.get(name)
        rows = got.unbind() if isinstance(got, torch.Tensor) else got.tolist()
        assert len(rows) == len(column), name
        assert all(_same(one, other) for one, other in zip(column, rows, strict=True)), name


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return bool(one.dtype == other.dtype and torch.equal(one, other))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def main() -> None:
    """Answer requests until the input ends."""
    # Output of the package must not be mistaken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(sys.argv[1])
    answers.write("{}\n")
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
