"""A connection cut at every byte of a put, a claim and a clear: nothing is lost, nothing happens twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.daemons import System
from support.relay import Relay

NEVER = 1 << 60


@pytest.fixture
def relayed(running: System, tmp_path: Path):
    """A client whose connection to the controller goes through a relay, and the relay."""
    relay = Relay(tmp_path / "relay.sock", running.runtime / "controller.sock")
    client = running.client(address=f"unix:{relay.path}")
    yield client, relay
    client.close()
    relay.close()


def at_every_byte(relay: Relay, direction: str, act: Callable[[int], None]) -> int:
    """Runs `act` once to count its bytes, then once per byte with the connection cut there. Returns the number of cuts."""
    relay.arm(direction, NEVER)
    act(-1)
    total = relay.passed()[direction]
    assert total > 0
    before = relay.cuts
    for after in range(1, total + 1):
        relay.arm(direction, after)
        act(after)
    relay.disarm()
    return relay.cuts - before


@pytest.mark.parametrize("direction", ["up", "down"])
def test_put(relayed: tuple[transferq.TransferQueueClient, Relay], direction: str) -> None:
    """Each put creates its samples exactly once."""
    client, relay = relayed
    puts = 0

    def act(_: int) -> None:
        nonlocal puts
        meta = client.put({"x": np.array([puts, puts])}, partition_id="p")
        assert meta.size == 2
        puts += 1

    assert at_every_byte(relay, direction, act) > 50
    meta = client.get_meta(["x"], 1, "p", mode="force_fetch")
    values = [int(row) for row in client.get_data(meta)["x"]]
    assert sorted(values) == sorted(2 * list(range(puts)))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_claim(relayed: tuple[transferq.TransferQueueClient, Relay], direction: str) -> None:
    """Each sample is claimed once, and none is left over."""
    client, relay = relayed
    client.put({"x": np.arange(3000)}, partition_id="p")
    seen: list[int] = []

    def act(_: int) -> None:
        meta = client.get_meta(["x"], 2, "p", task_name="t")
        assert meta.size == 2
        seen.extend(meta.global_indexes)

    assert at_every_byte(relay, direction, act) > 50
    assert len(seen) == len(set(seen))
    rest = client.get_meta(["x"], 3000 - len(seen), "p", task_name="t")
    assert sorted([*seen, *rest.global_indexes]) == list(range(3000))


@pytest.mark.parametrize("direction", [pytest.param("up", marks=pytest.mark.slow), "down"])
def test_clear(relayed: tuple[transferq.TransferQueueClient, Relay], direction: str) -> None:
    """Each clear removes its samples and no others, even if its indexes are reused at once."""
    client, relay = relayed
    kept = client.put({"x": np.arange(4)}, partition_id="p")

    def act(_: int) -> None:
        meta = client.put({"x": np.arange(2)}, partition_id="p")
        client.clear_samples(meta)

    assert at_every_byte(relay, direction, act) > 50
    meta = client.get_meta(["x"], 1, "p", mode="force_fetch")
    assert list(meta.global_indexes) == list(kept.global_indexes)
    assert [int(row) for row in client.get_data(meta)["x"]] == [0, 1, 2, 3]
