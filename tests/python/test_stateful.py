"""Random sequences of calls, compared with a simple model of the queue."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import transferq
from transferq import errors
from transferq._impl.calls import run

KEYS = [f"k{i}" for i in range(6)]
FIELDS = ["a", "b", "c"]
TASKS = ["t", "u"]
GROUP = 2

keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True)
fields = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=2, unique=True)
tags = st.dictionaries(
    st.sampled_from(["x", "y"]),
    st.one_of(st.integers(0, 9), st.none(), st.text(max_size=3)),
    max_size=2,
)


class Sample:
    """One row of the model."""

    def __init__(self, index: int, key: str | None, group: str | None) -> None:
        self.index = index
        self.key = key
        self.group = group
        self.cells: dict[str, int] = {}
        self.tags: dict[str, Any] = {}
        self.consumed: set[str] = set()


class Queue(RuleBasedStateMachine):
    """The queue and its model, side by side."""

    metas = Bundle("metas")
    partition = ""
    runs = 0

    @initialize()
    def begin(self) -> None:
        Queue.runs += 1
        self.partition = f"run-{Queue.runs}"
        self.client = transferq.get_client()
        self.samples: list[Sample] = []
        self.exists = False
        self.counter = 0

    def teardown(self) -> None:
        if self.partition:
            self.client.clear_partition(self.partition)

    # --- helpers ------------------------------------------------------------------------------

    def _values(self, n: int) -> list[int]:
        self.counter += n
        return list(range(self.counter - n, self.counter))

    def _columns(self, names: list[str], n: int) -> dict[str, list[int]]:
        return {name: self._values(n) for name in names}

    @staticmethod
    def _arrays(columns: dict[str, list[int]]) -> dict[str, Any]:
        return {name: np.array(column) for name, column in columns.items()}

    def _store(self, samples: list[Sample], columns: dict[str, list[int]]) -> None:
        for name, column in columns.items():
            for sample, value in zip(samples, column, strict=True):
                sample.cells[name] = value

    def _by_key(self, key: str) -> Sample | None:
        return next((sample for sample in self.samples if sample.key == key), None)

    def _ready(self, names: list[str], task: str) -> list[Sample]:
        ready = [
            sample
            for sample in self.samples
            if set(names) <= set(sample.cells) and task not in sample.consumed
        ]
        return sorted(ready, key=lambda sample: sample.index)

    def _read(self, meta: Any) -> dict[str, list[int]]:
        data = self.client.get_data(meta)
        return {name: np.asarray(data[name]).tolist() for name in meta.field_names}

    # --- writing ------------------------------------------------------------------------------

    @rule(target=metas, n=st.integers(1, 5), names=fields, grouped=st.booleans())
    def put_new(self, n: int, names: list[str], grouped: bool) -> Any:
        groups = [f"g{i // GROUP}-{self.counter}" for i in range(n)] if grouped else None
        columns = self._columns(names, n)
        meta = self.client.put(self._arrays(columns), partition_id=self.partition, groups=groups)
        assert meta.size == n
        taken = {sample.index for sample in self.samples}
        assert not taken & set(meta.global_indexes)
        made = [
            Sample(index, None, groups[i] if groups else None)
            for i, index in enumerate(meta.global_indexes)
        ]
        self.samples += made
        self._store(made, columns)
        self.exists = True
        return meta, made

    @rule(
        wanted=keys,
        names=fields,
        given=st.lists(tags, min_size=4, max_size=4),
        with_tags=st.booleans(),
    )
    def put_keys(
        self, wanted: list[str], names: list[str], given: list[dict[str, Any]], with_tags: bool
    ) -> None:
        columns = self._columns(names, len(wanted))
        meta = transferq.kv_batch_put(
            wanted,
            self.partition,
            self._arrays(columns),
            given[: len(wanted)] if with_tags else None,
        )
        self._take_keys(wanted, given if with_tags else None)
        samples = [sample for key in wanted if (sample := self._by_key(key))]
        common = set.intersection(*(set(sample.cells) for sample in samples))
        self._store(samples, columns)
        assert meta.fields == sorted(common | set(names))
        assert meta.tags == [sample.tags for sample in samples]

    @rule(wanted=keys, given=st.lists(tags, min_size=4, max_size=4))
    def put_tags(self, wanted: list[str], given: list[dict[str, Any]]) -> None:
        transferq.kv_batch_put(wanted, self.partition, tags=given[: len(wanted)])
        self._take_keys(wanted, given)

    def _take_keys(self, wanted: list[str], given: list[dict[str, Any]] | None) -> None:
        found = self.client.kv_retrieve_meta(wanted, self.partition)
        assert found.size == len(wanted)
        self.exists = True
        for i, (key, index) in enumerate(zip(wanted, found.global_indexes, strict=True)):
            sample = self._by_key(key)
            if sample is None:
                assert index not in {each.index for each in self.samples}
                sample = Sample(index, key, None)
                self.samples.append(sample)
            assert sample.index == index
            if given is not None:
                sample.tags.update(given[i])

    @rule(pair=metas, names=fields)
    def put_again(self, pair: Any, names: list[str]) -> None:
        meta, samples = pair
        columns = self._columns(names, len(samples))
        if all(sample in self.samples for sample in samples):
            self.client.put(self._arrays(columns), metadata=meta)
            self._store(samples, columns)
        else:
            with pytest.raises(errors.ClearedError):
                self.client.put(self._arrays(columns), metadata=meta)

    # --- claiming -----------------------------------------------------------------------------

    @rule(n=st.integers(1, 4), names=fields, task=st.sampled_from(TASKS))
    def claim(self, n: int, names: list[str], task: str) -> None:
        ready = self._ready(names, task)
        meta = self._claim(n, names, task)
        if meta is None:
            assert len(ready) < n
            return
        assert meta.global_indexes == [sample.index for sample in ready[:n]]
        assert self._read(meta) == {
            name: [sample.cells[name] for sample in ready[:n]] for name in sorted(names)
        }
        for sample in ready[:n]:
            sample.consumed.add(task)

    def _claim(self, n: int, names: list[str], task: str) -> Any:
        """A claim that returns at once, with the first n ready samples or with none."""
        op = self.client._core.claim(
            self.partition, names, n, task=task, sampler="SequentialSampler", poll=True
        )
        try:
            meta = op.result()
        except errors.TryAgainError:
            return None
        return transferq.BatchMeta._wrap([meta])

    @rule(groups=st.integers(1, 2), names=fields, task=st.sampled_from(TASKS))
    def claim_groups(self, groups: int, names: list[str], task: str) -> None:
        op = self.client._core.claim(
            self.partition,
            names,
            groups * GROUP,
            task=task,
            sampler="GRPOGroupNSampler",
            sampler_config=f'{{"n_samples_per_prompt": {GROUP}}}',
            poll=True,
        )
        try:
            meta = op.result()
        except errors.TryAgainError:
            return
        ready = {sample.index: sample for sample in self._ready(names, task)}
        indexes = memoryview(meta.indexes).tolist()
        assert len(indexes) == len(set(indexes)) == groups * GROUP
        assert set(indexes) <= set(ready)
        picked = [ready[index] for index in indexes]
        for start in range(0, len(picked), GROUP):
            assert len({sample.group for sample in picked[start : start + GROUP]}) == 1
        for sample in picked:
            sample.consumed.add(task)

    @rule(task=st.sampled_from([*TASKS, None]))
    def reset(self, task: str | None) -> None:
        assert self.client.reset_consumption(self.partition, task) is True
        for sample in self.samples:
            sample.consumed -= set(TASKS) if task is None else {task}

    # --- clearing -----------------------------------------------------------------------------

    @rule(pair=metas)
    def clear_samples(self, pair: Any) -> None:
        meta, samples = pair
        self.client.clear_samples(meta)
        self.samples = [sample for sample in self.samples if sample not in samples]

    @rule(wanted=keys)
    def clear_keys(self, wanted: list[str]) -> None:
        transferq.kv_clear(wanted, self.partition)
        self.samples = [sample for sample in self.samples if sample.key not in wanted]

    @rule()
    def clear_partition(self) -> None:
        self.client.clear_partition(self.partition)
        self.samples = []
        self.exists = False

    # --- reading ----------------------------------------------------------------------------------

    @rule(wanted=keys)
    def read_keys(self, wanted: list[str]) -> None:
        samples = [sample for key in wanted if (sample := self._by_key(key))]
        if not samples:
            with pytest.raises(errors.UnknownKeyError):
                transferq.kv_batch_get(wanted, self.partition)
            return
        common = sorted(set.intersection(*(set(sample.cells) for sample in samples)))
        if not common:
            with pytest.raises(errors.NotReadyError):
                transferq.kv_batch_get(wanted, self.partition)
            return
        data = transferq.kv_batch_get(wanted, self.partition)
        assert sorted(data.keys()) == common
        for name in common:
            assert np.asarray(data[name]).tolist() == [sample.cells[name] for sample in samples]

    @invariant()
    def the_table_is_that_of_the_model(self) -> None:
        if not self.partition:
            return
        listed = transferq.kv_list(self.partition)
        with_keys = {sample.key: sample.tags for sample in self.samples if sample.key is not None}
        assert listed == ({self.partition: with_keys} if self.exists else {})
        samples = sorted(self.samples, key=lambda sample: sample.index)
        known = [name for name in FIELDS if any(name in sample.cells for sample in samples)]
        fields = known if samples else FIELDS
        indexes, produced = self.client.get_production_status(fields, self.partition)
        assert (indexes is not None) == bool(self.exists and fields)
        if indexes is not None:
            assert indexes.tolist() == [sample.index for sample in samples]
            assert produced.tolist() == [
                [int(name in sample.cells) for name in fields] for sample in samples
            ]
        if not self.exists:
            return
        for task in TASKS:
            _, consumed = self.client.get_consumption_status(task, self.partition)
            assert consumed.tolist() == [int(task in sample.consumed) for sample in samples]


def play(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_short_sequences(tq: Any) -> None:
    play(examples=15, steps=15)


@pytest.mark.slow
def test_long_sequences(tq: Any) -> None:
    play(examples=60, steps=50)


def test_steps_run_in_any_form() -> None:
    def steps() -> Any:
        return 5
        yield

    assert run(steps()) == 5
