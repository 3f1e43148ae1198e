"""Checkpoints written by released versions load in this one, with all of their content.

A failure here means that this version cannot read checkpoints that users have: see tests/fixtures/checkpoints/README.md.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import transferq
from support.checkpoint_state import describe
from support.runtime import own_runtime
from transferq.errors import LostError

torch = pytest.importorskip("torch")
pytest.importorskip("tensordict")

# Needs both of them.
from support.typed_values import same  # noqa: E402

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "checkpoints"
VERSIONS = sorted(
    path.name for path in FIXTURES.iterdir() if path.is_dir() and path.name[0].isdigit()
)
README = "see tests/fixtures/checkpoints/README.md"


def contents_of(version: str) -> Any:
    """The module that defines the content of a version's checkpoints."""
    name = "checkpoint_contents_" + version.replace(".", "_")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FIXTURES / version / "contents.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def state_of(version: str, checkpoint: str) -> Any:
    """The result of describe() when it was saved."""
    return json.loads((FIXTURES / version / "state.json").read_text())[checkpoint]


def rows_of(column: Any) -> list[Any]:
    """The rows of a column that was read, in any layout."""
    return list(column.unbind() if isinstance(column, torch.Tensor) else column)


def read(client: Any, partition: str, field: str, count: int) -> list[Any]:
    """The first rows of a field, in order of their indexes, without consuming them."""
    meta = client.get_meta([], 1, partition, mode="force_fetch", task_name="reader")
    meta = meta.select_samples(list(range(count)))
    fetched = client.get_meta([field], count, partition, mode="force_fetch", task_name="reader")
    assert fetched.global_indexes[:count] == meta.global_indexes
    return rows_of(client.get_data(fetched.select_samples(list(range(count))))[field])


def compare(client: Any, contents: Any, partition: str) -> None:
    """All values of a partition."""
    for field, expected in contents.COLUMNS[partition].items():
        got = read(client, partition, field, len(expected))
        for place, (one, other) in enumerate(zip(got, expected, strict=True)):
            try:
                same(one, other)
            except AssertionError as error:
                raise AssertionError(
                    f"{partition}: {field}[{place}] has changed; {README}"
                ) from error


@pytest.fixture
def groups_of_two() -> Iterator[Any]:
    """A system with the sampler that the checkpoints were made with."""
    with own_runtime():
        transferq.init(
            {
                "backend": {"SimpleStorage": {"total_storage_size": "64MiB"}},
                "controller": {
                    "sampler": "GRPOGroupNSampler",
                    "sampling_config": {"n_samples_per_prompt": 2},
                },
                "client": {"timeout": 20},
            }
        )
        yield transferq
        transferq.close()


def test_there_are_fixtures() -> None:
    assert "0.2.0" in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_in_it(groups_of_two: Any, version: str) -> None:
    client, contents = groups_of_two.get_client(), contents_of(version)
    loaded = client.load_checkpoint(FIXTURES / version / "everything")
    assert loaded["lost"] == 0
    expected = state_of(version, "everything")
    assert describe(client) == expected, f"the table has changed; {README}"
    for partition in ("dtypes", "layouts", "values", "keys"):
        compare(client, contents, partition)
    tasks = contents.COLUMNS["tasks"]["x"]
    cleared = len(tasks) - len(expected["tasks"]["indexes"])
    left = {int(row) for row in read(client, "tasks", "x", len(tasks) - cleared)}
    assert cleared == 2
    assert left == {int(row) for row in tasks} - {0, 2}  # group g0 was cleared


@pytest.mark.parametrize("version", VERSIONS)
def test_groups_consumption_and_cached_picks_hold(groups_of_two: Any, version: str) -> None:
    client, contents = groups_of_two.get_client(), contents_of(version)
    client.load_checkpoint(FIXTURES / version / "everything")
    consumed = state_of(version, "everything")["tasks"]["consumed"]["train"]
    indexes = state_of(version, "everything")["tasks"]["indexes"]
    picked = []
    for pick in (contents.PICK, contents.OTHER_PICK):
        meta = client.get_meta(["x"], 4, "tasks", task_name="train", sampling_config=pick)
        picked += meta.global_indexes
    assert sorted(picked) == [i for i, had in zip(indexes, consumed, strict=True) if had]
    # The rest of the groups: the names given in the first put, then pairs in order.
    free = client.get_meta(["x"], 2, "tasks", task_name="train")
    assert [int(row) for row in rows_of(client.get_data(free)["x"])] == [10, 11]
    pair = client.get_meta(["x"], 2, "tasks", task_name="other")
    assert [int(row) for row in rows_of(client.get_data(pair)["x"])] == [1, 4]


@pytest.mark.parametrize("version", VERSIONS)
def test_one_partition_leaves_the_others(groups_of_two: Any, version: str) -> None:
    client, contents = groups_of_two.get_client(), contents_of(version)
    for name in client.get_partition_list():
        client.clear_partition(name)
    client.put({"x": torch.ones(1)}, partition_id="mine")
    client.load_checkpoint(FIXTURES / version / "one_partition")
    state = describe(client)
    assert set(state) == {"mine", "keys"}
    assert state["keys"]["keys"] == state_of(version, "one_partition")["keys"]["keys"]
    assert state["keys"]["tags"] == state_of(version, "one_partition")["keys"]["tags"]
    compare(client, contents, "keys")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_table_without_its_data_has_lost_cells(
    groups_of_two: Any, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = groups_of_two.get_client()
    with caplog.at_level(logging.WARNING, "transferq"):
        loaded = client.load_checkpoint(FIXTURES / version / "table_only")
    expected = state_of(version, "table_only")
    cells = sum(
        sum(ready) for partition in expected.values() for ready in partition["ready"].values()
    )
    assert loaded["lost"] == cells
    assert f"the data of {cells} cells" in caplog.text
    state = describe(client)
    for name, partition in expected.items():
        for kept in ("indexes", "keys", "tags", "consumed"):
            assert state[name][kept] == partition[kept], f"{name}: {kept}; {README}"


@pytest.mark.parametrize("version", VERSIONS)
def test_lost_cells_stay_lost_and_are_healed_by_a_put(groups_of_two: Any, version: str) -> None:
    client, contents = groups_of_two.get_client(), contents_of(version)
    client.load_checkpoint(FIXTURES / version / "lost")
    assert describe(client) == state_of(version, "lost")
    assert [row.tolist() for row in read(client, "whole", "x", 2)] == [
        row.tolist() for row in contents.WHOLE
    ]
    meta = client.get_meta([], 1, "lost", mode="force_fetch", task_name="t")
    with pytest.raises(LostError):
        client.get_data(client.get_meta(["x"], 4, "lost", mode="force_fetch", task_name="t"))
    client.put({"x": torch.zeros(4, 4)}, metadata=meta)
    assert describe(client)["lost"]["lost"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_cells_of_a_python_manager(version: str) -> None:
    contents = contents_of(version)
    transferq.StorageManagerFactory.register("Notes")(contents.NotesManager)
    with own_runtime():
        transferq.init(
            {"backend": {"storage_backend": "Notes", "Notes": {}}, "client": {"timeout": 20}}
        )
        try:
            client = transferq.get_client()
            client.load_checkpoint(FIXTURES / version / "opaque")
            assert describe(client) == state_of(version, "opaque")
            meta = client.get_meta(["x", "s"], 2, "opaque", task_name="train")
            data = client.get_data(meta)
            assert {name: list(data[name]) for name in contents.OPAQUE} == {
                name: rows[1:] for name, rows in contents.OPAQUE.items()
            }
        finally:
            transferq.close()
