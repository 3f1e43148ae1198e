"""Random sequences of calls, made from a seed: the same calls on both sides."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict

from .cases import Script

KEYS = [f"k{place}" for place in range(8)]
TASKS = ["t", "u"]
DENSE = ["d1", "d2"]
STEPS = 24
FREED = 64
"""At least as many indexes as a sequence can free."""


class Sequence:
    """One sequence: it has its own partitions, and makes only calls that upstream survives."""

    def __init__(self, script: Script, random: Random) -> None:
        self.c = script
        self.random = random
        self.tick = 0

    def run(self) -> None:
        """Make the calls."""
        steps: list[tuple[Callable[[], None], int]] = [
            (self.batch_put, 5),
            (self.put_one, 4),
            (self.put_tags, 2),
            (self.read, 6),
            (self.read_some, 3),
            (self.listing, 3),
            (self.clear_keys, 3),
            (self.insert, 2),
            (self.put_rows, 3),
            (self.claim, 5),
            (self.force, 2),
            (self.statuses, 4),
            (self.reset, 1),
            (self.clear_samples, 1),
            (self.clear_partition, 1),
            (self.keys_of, 2),
            (self.metadata, 3),
        ]
        chosen = self.random.choices(
            [step for step, _ in steps], weights=[weight for _, weight in steps], k=STEPS
        )
        for self.tick, step in enumerate(chosen):
            step()
        self.c.call(self.c.tq.kv_list, self.pid(0))
        self.c.call(self.c.tq.kv_list, self.pid(1))

    def pid(self, which: int | None = None) -> str:
        """One of the partitions; the first one more often."""
        return self.c.pid(f"p{self.random.choice([0, 0, 1]) if which is None else which}")

    def known_pid(self) -> str:
        """An existing partition: a missing one is an error, which has separate cases."""
        pid = self.pid()
        if pid not in self.c.client.get_partition_list():
            self.c.client.put(self.data(1), partition_id=pid)
        return pid

    def forced(self, fields: list[str]) -> Any:
        """All samples of a partition; fields whose rows are all gone (D09) have separate cases."""
        pid = self.known_pid()
        return self.c.call(self.c.forced, self.written(pid, fields) or fields[:1], pid)

    def written(self, pid: str, fields: list[str]) -> list[str]:
        """The fields that have rows."""
        if pid not in self.c.client.get_partition_list():
            return []
        names: list[str] = self.c.client.get_meta(fields, 1, pid, "force_fetch").field_names
        return names

    def use_up(self) -> None:
        """Use up the indexes freed by a clear, because upstream reuses them in the order of a Python set."""
        self.c.client.get_meta(["soak"], FREED, self.c.pid("soak"), "insert")

    def keys(self, most: int = 4) -> list[str]:
        """Some distinct keys."""
        return self.random.sample(KEYS, self.random.randint(1, most))

    def kv(self, name: str) -> Any:
        """A function on keys, in its sync or its async form."""
        return getattr(self.c.tq, self.random.choice(["", "async_"]) + name)

    def column(self, name: str, rows: int) -> Any:
        """A column of new values; a field keeps its kind and dtype."""
        start = 100 * self.tick
        if name == "d1":
            return torch.arange(start, start + rows)
        if name == "d2":
            return torch.arange(start, start + 2 * rows, dtype=torch.float32).reshape(rows, 2)
        if name == "ragged":
            each = [
                torch.arange(start, start + self.random.randint(1, 4), dtype=torch.int32)
                for _ in range(rows)
            ]
            return torch.nested.as_nested_tensor(each, layout=torch.jagged)
        return NonTensorStack(*(f"{name}-{start}-{row}" for row in range(rows)))

    def data(self, rows: int) -> Any:
        """One to three columns."""
        names = self.random.sample([*DENSE, "ragged", "text"], self.random.randint(1, 3))
        return TensorDict({name: self.column(name, rows) for name in names}, batch_size=rows)

    def tags(self, rows: int) -> list[dict[str, Any]] | None:
        """Tags, or none."""
        if self.random.random() < 0.5:
            return None
        return [{self.random.choice("ab"): self.tick * 10 + row} for row in range(rows)]

    # --- calls by key ------------------------------------------------------------------------------

    def batch_put(self) -> None:
        keys = self.keys()
        put = self.kv("kv_batch_put")
        self.c.call(put, keys, self.pid(), self.data(len(keys)), self.tags(len(keys)))

    def put_one(self) -> None:
        fields = {"d2": torch.tensor([self.tick, 0.5]), "text": f"one {self.tick}"}
        tag = {"a": self.tick} if self.random.random() < 0.5 else None
        self.c.call(self.kv("kv_put"), self.random.choice(KEYS), self.pid(), fields, tag)

    def put_tags(self) -> None:
        keys = self.keys(2)
        tags = [{"only": self.tick} for _ in keys]
        self.c.call(self.kv("kv_batch_put"), keys, self.pid(), None, tags)

    def read(self) -> None:
        self.c.call(self.kv("kv_batch_get"), self.keys(), self.pid())

    def read_some(self) -> None:
        fields = self.random.sample([*DENSE, "ragged", "text", "nothing"], 2)
        self.c.call(self.kv("kv_batch_get"), self.keys(3), self.pid(), fields)

    def listing(self) -> None:
        self.c.call(self.kv("kv_list"), self.pid())

    def clear_keys(self) -> None:
        keys = self.keys(2)
        self.c.call(self.kv("kv_clear"), keys, self.pid())
        if len(keys) > 1:
            self.use_up()

    def keys_of(self) -> None:
        self.c.call(self.c.client.kv_retrieve_meta, self.keys(3), self.pid())

    # --- calls by metadata -------------------------------------------------------------------------

    def insert(self) -> None:
        count = self.random.randint(1, 3)
        meta = self.c.call(self.c.client.get_meta, ["d1"], count, self.pid(), "insert")
        if self.random.random() < 0.8:
            data = TensorDict({"d1": self.column("d1", count)}, batch_size=count)
            self.c.call(self.c.client.put, data, meta)

    def put_rows(self) -> None:
        rows = self.random.randint(1, 3)
        self.c.call(self.c.client.put, self.data(rows), partition_id=self.pid())

    def claim(self) -> None:
        fields = self.random.sample([*DENSE, "text"], self.random.randint(1, 2))
        task, count = self.random.choice(TASKS), self.random.randint(1, 3)
        client, pid = self.c.client, self.pid()
        meta = self.c.call(client.get_meta, fields, count, pid, "fetch", task)
        if getattr(meta, "size", 0):
            self.c.call(client.get_data, meta)

    def force(self) -> None:
        self.forced(["d1"])

    def statuses(self) -> None:
        client, pid, task = self.c.client, self.pid(), self.random.choice(TASKS)
        self.c.status(client.get_consumption_status, task, pid)
        field = self.random.choice(DENSE)
        if field in self.written(pid, [field]):
            self.c.status(client.get_production_status, [field], pid)
        self.c.call(client.check_consumption_status, task, pid)
        self.c.call(client.check_production_status, ["d1"], pid)

    def reset(self) -> None:
        task = self.random.choice([*TASKS, None])
        self.c.call(self.c.client.reset_consumption, self.pid(), task)

    def clear_samples(self) -> None:
        client = self.c.client
        meta = self.forced(["d1"])
        if getattr(meta, "size", 0):
            self.c.call(client.clear_samples, meta.select_samples([0]))

    def clear_partition(self) -> None:
        pid = self.pid()
        if self.written(pid, [*DENSE, "ragged", "text"]):  # otherwise D10
            self.c.call(self.c.client.clear_partition, pid)
            self.use_up()

    def metadata(self) -> None:
        """Local calls on metadata of the partition."""
        fields = ["d1", "d2"]
        meta = self.forced(fields)
        if isinstance(meta, Exception):
            return
        order = list(range(meta.size))
        self.random.shuffle(order)
        self.c.note(meta.select_samples(order[: self.random.randint(0, len(order))]))
        self.c.note(meta.chunk(self.random.randint(1, 4)))
        if meta.size:
            meta.reorder(order)
            self.c.note(meta.concat([meta.chunk(2)[1], meta.chunk(2)[0]]))


def run_sequence(script: Script, random: Random) -> None:
    """Make one sequence of calls."""
    Sequence(script, random).run()
