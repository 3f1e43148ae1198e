"""Zero-copy reads: their values never change, whatever happens to the samples and to the reader."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import transferq
from support.waiting import wait_until

torch = pytest.importorskip("torch")

ROWS, WIDTH = 16, 128 * 1024
"""8 MiB of float32: a quarter of the only unit."""
ONE_UNIT = {
    "backend": {"SimpleStorage": {"total_storage_size": "32MiB", "num_data_storage_units": 1}},
    "client": {"timeout": 60},
}
KEYS = [f"k{row}" for row in range(ROWS)]


@pytest.fixture(scope="module")
def tq(runtime_dir: Path) -> Iterator[Any]:
    """A system with one unit, so that a put that does not fit has to wait there."""
    transferq.init(ONE_UNIT)
    yield transferq
    transferq.close()
    assert list(runtime_dir.iterdir()) == []


def numbers(base: float, rows: int = ROWS) -> Any:
    return base + torch.arange(rows * WIDTH, dtype=torch.float32).view(rows, WIDTH) % 1024


def put(pid: str, base: float, keys: list[str] = KEYS) -> Any:
    data = numbers(base, len(keys))
    transferq.kv_batch_put(keys, pid, {"x": data})
    return data


def view(pid: str, keys: list[str] = KEYS, **more: Any) -> Any:
    return transferq.kv_batch_get(keys, pid, layout="dense", zero_copy=True, **more)["x"]


def pins(client: Any) -> tuple[int, int]:
    """How many pins the unit has reported, and their bytes."""
    (unit,) = client.status()["owners"]
    return unit["pins"], unit["pinned_bytes"]


def until_pins(client: Any, expected: tuple[int, int]) -> None:
    """The unit reports its pins by itself, with a delay."""
    wait_until(f"(pins, bytes) {expected}", lambda: pins(client), lambda now: now == expected)


SIZE = ROWS * WIDTH * 4


def test_shows_what_was_put_and_lets_go(client: Any, pid: str) -> None:
    data = put(pid, 1)
    seen = view(pid)
    assert torch.equal(seen, data)
    until_pins(client, (1, SIZE))
    part = seen[3]
    del seen
    gc.collect()
    assert torch.equal(part, data[3])
    until_pins(client, (1, SIZE))  # the last tensor over it ends the pin
    del part
    gc.collect()
    until_pins(client, (0, 0))


def test_data_outlives_its_samples(client: Any, pid: str) -> None:
    data = put(pid, 2)
    before = view(pid)
    changed = put(pid, 3)  # overwrites
    after = view(pid)
    transferq.kv_clear(KEYS, pid)
    for step in range(20):  # cycles through all the remaining memory
        put(f"{pid}-{step}", 100 + step, KEYS[:8])
        client.clear_partition(f"{pid}-{step}")
    assert torch.equal(before, data)
    assert torch.equal(after, changed)


def test_writes_stay_with_the_writer(client: Any, pid: str) -> None:
    data = put(pid, 4)
    mine, other = view(pid), view(pid)
    mine[::2] = -1
    mine[1] += 1
    assert torch.equal(other, data)
    assert torch.equal(view(pid), data)
    assert torch.equal(transferq.kv_batch_get(KEYS, pid, layout="dense")["x"], data)
    assert (mine[2] == -1).all() and torch.equal(mine[1], data[1] + 1)
    assert torch.equal(mine[3], data[3])
    # Writes to the views do not hide data put in the same place later.
    del mine, other
    gc.collect()
    client.clear_partition(pid)
    until_pins(client, (0, 0))
    again = put(pid, 5)
    assert torch.equal(view(pid), again)


def test_a_put_waits_for_pinned_memory(client: Any, pid: str) -> None:
    data = put(pid, 6)
    seen = [view(pid)]
    client.clear_partition(pid)
    more = [f"m{row}" for row in range(2 * ROWS + ROWS // 2)]  # 20 MiB of the 28.8 for new samples
    done = threading.Event()
    writer = threading.Thread(target=lambda: (put(f"{pid}-more", 7, more), done.set()))
    kept = put(f"{pid}-kept", 8, KEYS[:4])
    writer.start()
    until_pins(client, (1, SIZE))
    assert torch.equal(seen[0], data)
    assert not done.is_set()  # and will not be: there is no room
    seen.clear()
    gc.collect()
    assert done.wait(60)
    writer.join()
    assert torch.equal(view(f"{pid}-kept", KEYS[:4]), kept)
    client.clear_partition(f"{pid}-more")
    client.clear_partition(f"{pid}-kept")


READER = """
import sys, time
import transferq
transferq.init(attach=True)
seen = transferq.kv_batch_get([f"k{row}" for row in range(16)], sys.argv[1], layout="dense", zero_copy=True)["x"]
print(float(seen[0, 0]), flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_killed_reader_lets_go(client: Any, pid: str) -> None:
    put(pid, 9)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, pid],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None and reader.stdout is not None
    with reader:
        assert reader.stdout.readline() == "9.0\n"
        until_pins(client, (1, SIZE))
        client.clear_partition(pid)
        reader.send_signal(signal.SIGKILL)
        reader.stdin.close()
    until_pins(client, (0, 0))
    # All of it is free again: this fits only if the reader's memory was released.
    data = put(pid, 10, [f"n{row}" for row in range(3 * ROWS + ROWS // 2)])
    assert data.numel() * 4 == 28 << 20


def test_a_closed_client_leaves_copies(client: Any, pid: str) -> None:
    data = put(pid, 11)
    other = transferq.TransferQueueClient("other", client._info)
    meta = client.kv_retrieve_meta(KEYS, pid)
    seen = other.get_data(meta, layout="dense", zero_copy=True)["x"]
    until_pins(client, (1, SIZE))
    other.close()
    until_pins(client, (0, 0))
    client.clear_partition(pid)
    put(pid, 12)
    put(f"{pid}-2", 13)
    assert torch.equal(seen, data)
    seen += 1
    assert torch.equal(seen, data + 1)
    client.clear_partition(f"{pid}-2")


def test_a_child_keeps_what_it_inherits(client: Any, pid: str) -> None:
    data = put(pid, 14)
    seen = view(pid)
    # NumPy, because torch's threads do not exist in a child, which would wait for them.
    mine, wanted, later = seen.numpy(), data.numpy(), numbers(15, 8).numpy()
    go, told = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(told)
            os.read(go, 1)  # the parent has dropped, cleared and overwritten the data
            same = bool((mine == wanted).all())
            mine[0] = 0
            status = 0 if same and bool((view(pid, KEYS[:8]).numpy() == later).all()) else 2
        finally:
            os._exit(status)
    os.close(go)
    assert torch.equal(seen, data)
    del seen, mine
    gc.collect()
    client.clear_partition(pid)
    until_pins(client, (0, 0))
    put(pid, 15)
    put(f"{pid}-2", 16)
    os.write(told, b"!")
    os.close(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.clear_partition(f"{pid}-2")


def test_what_cannot_be_shown_is_copied(client: Any, pid: str) -> None:
    data = put(pid, 17)
    transferq.kv_batch_put(
        KEYS,
        pid,
        {"small": torch.arange(ROWS), "text": [f"text {row}" * 9000 for row in range(ROWS)]},
    )
    backwards = KEYS[::-1]
    assert torch.equal(view(pid, backwards, select_fields="x"), data.flip(0))
    read = transferq.kv_batch_get(KEYS, pid, select_fields=["small", "text"], zero_copy=True)
    assert read["small"].tolist() == list(range(ROWS))
    assert read["text"][3] == "text 3" * 9000
    padded = transferq.kv_batch_get(
        KEYS, pid, select_fields="x", padding={"x": {"length": WIDTH + 1}}, zero_copy=True
    )
    assert torch.equal(padded["x"][:, :WIDTH], data)
    until_pins(client, (0, 0))
    # Neighbouring rows were put together, wherever the selection begins.
    seen = view(pid, KEYS[3:9], select_fields="x")
    assert torch.equal(seen, data[3:9])
    until_pins(client, (1, SIZE))


def test_ragged_rows_and_many_columns(client: Any, pid: str) -> None:
    rows = [torch.arange(1000 * (row + 1), dtype=torch.int64) for row in range(ROWS)]
    ragged = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    wide = numbers(18)[:, :4096].clone()
    transferq.kv_batch_put(KEYS, pid, {"ragged": ragged, "wide": wide})
    meta = client.kv_retrieve_meta(KEYS, pid)
    read = asyncio.run(client.async_get_data(meta, zero_copy=True))
    assert all(
        torch.equal(one, other) for one, other in zip(read["ragged"].unbind(), rows, strict=True)
    )
    assert torch.equal(torch.stack(read["wide"].unbind()), wide)
    until_pins(client, (1, 8 * 1000 * (ROWS * (ROWS + 1) // 2) + wide.nbytes))
    read = asyncio.run(transferq.async_kv_batch_get(KEYS, pid, zero_copy=True))
    assert torch.equal(torch.stack(read["wide"].unbind()), wide)


def test_outdated_metadata_is_looked_up(client: Any, pid: str) -> None:
    before = put(pid, 19)
    old = client.kv_retrieve_meta(KEYS, pid)
    again = put(pid, 20)
    # It returns the old values until the unit has freed their block, which happens shortly after it is notified.
    seen = wait_until(
        "the new values",
        lambda: client.get_data(old, layout="dense", zero_copy=True)["x"],
        lambda values: not torch.equal(values, before),
    )
    assert torch.equal(seen, again)
    client.clear_partition(pid)
    with pytest.raises(transferq.TransferQueueError):
        client.get_data(old, zero_copy=True)
    assert torch.equal(seen, again)
