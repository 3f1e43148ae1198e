"""Samples cleared one by one: the rest of their batches is compacted, and reads are not affected."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import transferq
from support.daemons import System
from support.relay import Relay
from support.waiting import wait_status, wait_until

torch = pytest.importorskip("torch")
from tensordict import TensorDict  # noqa: E402

ROWS = 8
AT_MOST = 1.3
"""Bytes in use, as a multiple of the live ones."""
ONE_OF_8_MIB = [
    "backend.SimpleStorage.total_storage_size=8MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
Sample = dict[str, Any]


def batch(rng: random.Random, number: int) -> list[Sample]:
    """Samples with log-normal lengths: two ragged columns, one with rows of a kilobyte, and a scalar."""
    made = []
    for row in range(ROWS):
        length = int(rng.lognormvariate(8.0, 1.0)) + 16
        tokens = torch.arange(length, dtype=torch.int64) * (number + 1) + row
        made.append(
            {
                "tokens": tokens,
                "mask": tokens % 3 == 0,
                "dense": torch.full((256,), number * ROWS + row, dtype=torch.float32),
                "number": torch.tensor(number * ROWS + row),
            }
        )
    return made


def put(client: Any, keys: list[str], samples: list[Sample]) -> None:
    columns: dict[str, Any] = {}
    for name in samples[0]:
        rows = [sample[name] for sample in samples]
        if name in ("tokens", "mask"):
            columns[name] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        else:
            columns[name] = torch.stack(rows)
    client.kv_batch_put(keys, "p", TensorDict(columns, batch_size=[len(keys)]))


def size(samples: list[Sample]) -> int:
    return sum(value.numel() * value.element_size() for each in samples for value in each.values())


def same(data: Any, samples: list[Sample]) -> None:
    """Every value read equals the value that was put."""
    for name in samples[0]:
        rows = list(data[name].unbind())
        assert len(rows) == len(samples)
        for row, sample in zip(rows, samples, strict=True):
            assert row.dtype == sample[name].dtype and torch.equal(row, sample[name]), name


def read(client: Any, keys: list[str], fields: list[str] | None = None, **more: Any) -> Any:
    """Samples by key."""
    meta = client.kv_retrieve_meta(keys, "p")
    return client.get_data(meta.select_fields(fields) if fields else meta, **more)


def check(client: Any, live: dict[str, Sample]) -> None:
    keys = list(live)
    for start in range(0, len(keys), 50):
        some = keys[start : start + 50]
        same(read(client, some), [live[key] for key in some])


def owners(client: Any, name: str) -> int:
    """Sum of the units' own reports."""
    return sum(owner[name] for owner in client.status()["owners"])


def until_used(client: Any, wanted: Callable[[int], object]) -> None:
    """Units report the bytes in use with a delay."""
    wait_until("bytes in use", lambda: owners(client, "used_bytes"), wanted)


def until_compact(client: Any, live: dict[str, Sample]) -> None:
    """Bytes in use approach the live bytes."""
    most = AT_MOST * size(list(live.values()))
    until_used(client, lambda used: 0 < used <= most)


def fill(client: Any, rng: random.Random, batches: int) -> dict[str, Sample]:
    live: dict[str, Sample] = {}
    for number in range(batches):
        samples = batch(rng, number)
        keys = [f"{number}-{row}" for row in range(ROWS)]
        put(client, keys, samples)
        live.update(zip(keys, samples, strict=True))
    return live


def drop(client: Any, live: dict[str, Sample], gone: list[str]) -> None:
    client.kv_clear(gone, "p")
    for key in gone:
        del live[key]


def test_memory_follows_what_is_live(running: System) -> None:
    """Random single samples are cleared; the rest is read by key, by older metadata, and in place."""
    client, rng = running.client(), random.Random(1)
    live = fill(client, rng, 40)
    before = client.kv_retrieve_meta(list(live), "p")
    places = {key: place for place, key in enumerate(live)}
    seen = read(client, list(live)[:ROWS], ["tokens"], zero_copy=True)
    first = [live[key]["tokens"] for key in list(live)[:ROWS]]
    while len(live) > 60:
        drop(client, live, rng.sample(list(live), 20))
    until_used(client, lambda used: used > 0)
    until_compact(client, live)
    check(client, live)
    old = before.select_samples([places[key] for key in live])
    same(client.get_data(old), list(live.values()))
    assert all(torch.equal(*pair) for pair in zip(seen["tokens"].unbind(), first, strict=True))
    with pytest.raises(transferq.TransferQueueError, match="cleared"):
        client.get_data(before)
    # Once nothing is live, nothing is left.
    del seen
    client.kv_clear(list(live), "p")
    until_used(client, lambda used: used == 0 and owners(client, "blocks") == 0)


@pytest.mark.slow
def test_all_at_once(running: System) -> None:
    """Reads with old metadata, overwrites and clears continue while blocks move."""
    client, rng = running.client(), random.Random(2)
    live = fill(client, rng, 30)
    lasting = {key: live[key] for key in list(live)[:: ROWS // 2]}
    meta = client.kv_retrieve_meta(list(lasting), "p")
    ended = threading.Event()
    failed: list[Exception] = []

    def read_on() -> None:
        reader = running.client("reader")
        try:
            while not ended.is_set():
                same(reader.get_data(meta), list(lasting.values()))
                same(read(reader, list(lasting)), list(lasting.values()))
                view = reader.get_data(meta.select_fields(["tokens"]), zero_copy=True)
                same(view, [{"tokens": sample["tokens"]} for sample in lasting.values()])
        except (AssertionError, transferq.TransferQueueError) as error:
            failed.append(error)

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(100, 140):
            rest = [key for key in live if key not in lasting]
            changed = rng.sample(rest, ROWS)
            samples = batch(rng, number)
            put(client, changed, samples)  # overwrites
            live.update(zip(changed, samples, strict=True))
            drop(client, live, rng.sample(rest, 4))
            check(client, {key: live[key] for key in changed if key in live})
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert not failed, failed
    check(client, live)
    until_compact(client, live)
    check(client, live)
    assert owners(client, "used_bytes") > 0


def test_makes_room_for_puts_that_wait(system: System) -> None:
    """A unit full of mostly dead blocks accepts whatever fits beside the live data."""
    system.start(settings=ONE_OF_8_MIB)
    client = system.client(client={"timeout": 60})
    rows = {"x": torch.arange(8 * 100_000, dtype=torch.int32).view(8, -1)}
    for number in range(2):  # 3.2 MB each
        client.kv_batch_put([f"{number}-{row}" for row in range(8)], "p", rows)
    client.kv_clear([f"{number}-{row}" for number in range(2) for row in range(7)], "p")
    for number in range(2, 4):
        client.kv_batch_put([f"{number}-{row}" for row in range(8)], "p", rows)
    kept = read(client, ["0-7", "1-7"], layout="dense")["x"]
    assert torch.equal(kept, rows["x"][[7, 7]])
    last = read(client, [f"3-{row}" for row in range(8)], layout="dense")["x"]
    assert torch.equal(last, rows["x"])


def test_a_put_that_waits_gets_all_the_room(system: System) -> None:
    """Copies use half of the free room until a put waits: then blocks that did not fit before are moved."""
    system.start(settings=ONE_OF_8_MIB)
    client = system.client(client={"timeout": 60})

    def rows(n: int, size: int) -> Any:
        """Rows of `n` 128ths of the unit."""
        return torch.arange(n * size << 14, dtype=torch.int32).view(n, -1)

    client.kv_batch_put([str(row) for row in range(16)], "p", {"x": rows(16, 1)})
    large = client.put({"x": rows(1, 98)}, partition_id="q")
    client.put({"y": rows(1, 11)}, metadata=large)
    client.kv_clear([str(row) for row in range(14)], "p")
    kept = client.kv_retrieve_meta(["14", "15"], "p")
    until_used(client, lambda used: used == (16 + 98 + 11) << 16)
    for _ in range(100):  # two thirds are live, so it is not moved meanwhile
        assert torch.equal(client.get_data(kept, layout="dense")["x"], rows(16, 1)[14:])
    assert owners(client, "used_bytes") == (16 + 98 + 11) << 16
    client.put({"z": rows(1, 12)}, metadata=large)
    assert torch.equal(client.get_data(kept, layout="dense")["x"], rows(16, 1)[14:])


def test_what_is_seen_in_place_stays(running: System) -> None:
    """While a block is pinned by views, a copy of it would only take room."""
    client = running.client()
    rows = {"x": torch.arange(8 * 100_000, dtype=torch.int32).view(8, -1)}
    keys = [[f"{number}-{row}" for row in range(8)] for number in range(2)]
    for some in keys:
        client.kv_batch_put(some, "p", rows)
    seen = read(client, keys[0], ["x"], zero_copy=True)["x"]
    client.kv_clear([key for some in keys for key in some[:7]], "p")
    until_used(client, lambda used: used == 9 * 400_000)  # one of them has moved
    check(client, {some[7]: {"x": rows["x"][7]} for some in keys})
    assert torch.equal(torch.stack(list(seen.unbind())), rows["x"])
    assert owners(client, "used_bytes") == 9 * 400_000
    del seen
    until_used(client, lambda used: used == 2 * 400_000)
    check(client, {some[7]: {"x": rows["x"][7]} for some in keys})


def test_the_next_batch_is_seen_before_the_last_is_let_go(system: System) -> None:
    """Data viewed in place moves after the views end, even if as much or more is viewed by then."""
    system.start(settings=["backend.SimpleStorage.num_data_storage_units=1"])
    client = system.client(client={"timeout": 60})
    rows = {"x": torch.arange(8 * 100_000, dtype=torch.int32).view(8, -1)}
    keys = [[f"{number}-{row}" for row in range(8)] for number in range(2)]
    for some in keys:
        client.kv_batch_put(some, "p", rows)
    first = read(client, keys[0], ["x"], zero_copy=True)["x"]
    client.kv_clear(keys[0][:7], "p")
    second = read(client, keys[1], ["x"], zero_copy=True)["x"]
    check(client, {keys[0][7]: {"x": rows["x"][7]}})
    until_used(client, lambda used: used == 16 * 400_000)
    assert torch.equal(torch.stack(list(first.unbind())), rows["x"])
    del first
    until_used(client, lambda used: used == 9 * 400_000)
    assert torch.equal(torch.stack(list(second.unbind())), rows["x"])
    check(client, {keys[0][7]: {"x": rows["x"][7]}})


def test_a_read_goes_on(running: System) -> None:
    """Data repeatedly overwritten or moved while it is read is read from its current place."""
    client = running.client()
    large = torch.arange(4_000_000, dtype=torch.int64).view(8, -1)
    client.kv_batch_put([str(row) for row in range(8)], "p", {"x": large})
    client.kv_batch_put(["small"], "p", {"x": torch.zeros(1, 1000, dtype=torch.int64)})
    keys = [*(str(row) for row in range(8)), "small"]
    meta = client.kv_retrieve_meta(keys, "p")
    ended = threading.Event()

    def overwrite() -> None:
        writer = running.client("writer")
        try:
            for value in range(1, 300):
                writer.kv_batch_put(["small"], "p", {"x": torch.full((1, 1000), value)})
        finally:
            ended.set()

    writer = threading.Thread(target=overwrite)
    writer.start()
    try:
        while not ended.is_set():
            *most, last = client.get_data(meta)["x"].unbind()
            assert torch.equal(torch.stack(most), large)
            assert len(last) == 1000 and bool((last == last[0]).all())
    finally:
        writer.join()


@pytest.mark.slow
def test_a_session_that_ends(system: System, tmp_path: Path) -> None:
    """A unit that lost its connection while moving blocks continues with the ids of its next session."""
    system.start(role="controller", settings=["controller.session_grace=600ms"])
    path = tmp_path / "relay.sock"
    relay = Relay(path, system.runtime / "controller.sock")
    relay.delay = 0.002  # a unit pauses longer than the controller takes
    system.address = f"unix:{path}"
    system.join("--runtime-dir", str(system.folder / "one"), name="one")
    system.address = f"unix:{system.runtime / 'controller.sock'}"
    client, rng = system.client(client={"timeout": 60}), random.Random(6)
    wide = torch.arange(8 * 256, dtype=torch.int64).view(8, -1)
    live: dict[str, Sample] = {}
    for number in range(100):  # 800 blocks
        keys = [f"{number}-{row}" for row in range(8)]
        client.kv_batch_put(keys, "p", dict.fromkeys("abcdefgh", wide + number))
        for row, key in enumerate(keys):
            live[key] = dict.fromkeys("abcdefgh", wide[row] + number)
    full = size(list(live.values()))
    drop(client, live, [key for key in live if int(key[-1]) < 6])
    until_used(client, lambda used: 0 < used < full)
    relay.close()
    wait_status(client, lambda status: not any(owner["present"] for owner in status["owners"]))
    path.unlink(missing_ok=True)
    relay = Relay(path, system.runtime / "controller.sock")
    try:
        until_compact(client, live)
        check(client, live)
        check(client, fill(client, rng, 2))
    finally:
        relay.close()


@pytest.mark.slow
def test_a_killed_reader_keeps_nothing(running: System) -> None:
    """Data that a killed process viewed in place is moved and freed like everything else."""
    client, rng = running.client(), random.Random(3)
    live = fill(client, rng, 10)
    body = """
        import os, signal
        import transferq
        client = transferq.TransferQueueClient(
            "victim", transferq.ControllerInfo(os.environ["TQ_ADDRESS"], os.environ["TQ_TOKEN_FILE"]))
        keys = [f"{number}-{row}" for number in range(10) for row in range(8)]
        meta = client.kv_retrieve_meta(keys, "p").select_fields(["dense"])
        seen = client.get_data(meta, zero_copy=True)
        print("ready", flush=True)
        signal.pause()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body)],
        env=running.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None and victim.stdout.readline() == "ready\n"
        drop(client, live, rng.sample(list(live), 60))
        victim.kill()
    until_compact(client, live)
    check(client, live)


def test_a_killed_unit_loses_what_it_had(system: System) -> None:
    """The samples of a unit killed while it moves blocks are lost, and the system goes on."""
    system.start(role="controller", settings=["controller.owner_timeout=500ms"])
    runtime = ("--runtime-dir", str(system.folder / "one"))
    unit = system.join(*runtime, name="one")
    client, rng = system.client(client={"timeout": 60}), random.Random(4)
    live = fill(client, rng, 30)
    full = size(list(live.values()))
    drop(client, live, rng.sample(list(live), 150))
    until_used(client, lambda used: 0 < used < 0.9 * full)
    drop(client, live, rng.sample(list(live), 20))
    unit.kill()
    system.join(*runtime, name="one")
    until_used(client, lambda used: used == 0)
    with pytest.raises(transferq.TransferQueueError, match="lost"):
        read(client, list(live)[:1])
    client.clear_partition("p")
    live = fill(client, rng, 10)
    drop(client, live, rng.sample(list(live), 60))
    until_compact(client, live)
    check(client, live)


@pytest.mark.slow
def test_checkpoints_meanwhile(running: System, tmp_path: Path) -> None:
    """A checkpoint has all data of its instant, whatever moves while it is written or afterwards."""
    client, rng = running.client(), random.Random(5)
    live = fill(client, rng, 30)
    ended = threading.Event()
    saved: list[int] = []

    def save() -> None:
        saver = running.client("saver")
        while not ended.is_set():
            saver.save_checkpoint(str(tmp_path / "checkpoint"))
            saved.append(1)

    saver = threading.Thread(target=save)
    saver.start()
    try:
        while len(live) > 60:
            drop(client, live, rng.sample(list(live), 10))
        wait_until("a checkpoint to be saved", lambda: len(saved))
    finally:
        ended.set()
        saver.join()
    client.save_checkpoint(str(tmp_path / "last"))
    until_compact(client, live)
    check(client, live)
    client.load_checkpoint(str(tmp_path / "last"))
    check(client, live)
    until_compact(client, live)
    check(client, live)
