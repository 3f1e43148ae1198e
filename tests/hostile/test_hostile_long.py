"""Answers and reports that do not fit into one message arrive in pieces, and none is missing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from limits import RESERVE, Place, name_of, reserve

from support.daemons import System
from transferq.errors import LostError

EXAMPLES = Path(__file__).parents[2] / "examples" / "storage"
EVENTS = 20_000
"""This many names of a thousand bytes exceed the 16 MiB of one answer."""
BLOCKS = 4_500
"""More than one report of lost blocks may contain (TQI_REPORT_LOST_MAX)."""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system for a test to start."""
    made = System(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_all_events_are_shown_though_one_answer_has_fewer(system: System) -> None:
    place = Place(system, [])
    with place.holders:
        holder = place.holder()
        for start in range(0, EVENTS, 500):
            for index in range(start, start + 500):
                holder.send(RESERVE, reserve(name_of(index)))
            for _ in range(500):
                assert not holder.receive().failed
    first = place.client.get_events()
    assert len(first) < EVENTS
    for words, most in (([], EVENTS), (["--last", "18000"], 18_000)):
        shown = json.loads(system.tq("events", "--json", *words))
        reserved = [each for each in shown if each["kind"] == "reserve"]
        assert [each["partition"] for each in reserved[-17_000:]] == [
            name_of(index) for index in range(EVENTS - 17_000, EVENTS)
        ]
        numbers = [each["seq"] for each in reserved]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(shown) <= most + 10 * (not words)
        assert len(reserved) == EVENTS or words


def test_more_lost_blocks_than_one_report_may_name_are_all_reported(
    tmp_path: Path, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a separate value in a store that has lost them."""
    store = tmp_path / "store"
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("TQ_LIBRARIES", "file_store")
    section = f'backend.PyFileStore={{path: "{store}", module: file_store}}'
    system.start(role="controller", settings=["backend.storage_backend=PyFileStore", section])
    client = system.client("writer", client={"timeout": 60})

    async def put() -> None:
        for start in range(0, BLOCKS, 100):
            await asyncio.gather(
                *(
                    client.async_put({"x": np.full((1, 1), index)}, partition_id="p")
                    for index in range(start, start + 100)
                )
            )

    asyncio.run(put())
    values = list(store.iterdir())
    assert len(values) >= BLOCKS
    for value in values:
        os.unlink(value)
    meta = client.get_meta(["x"], BLOCKS, "p", mode="force_fetch")
    with pytest.raises(LostError):
        client.get_data(meta)
    # The reports are in flight when the read fails; each creates an event.
    lost, seen = 0, 0
    while lost < BLOCKS:
        for event in client.get_events(seen, wait=True, timeout=30):
            seen = event["seq"]
            lost += event["samples"] if event["kind"] == "lost" else 0
    (partition,) = client.status()["partitions"]
    assert [field["lost"] for field in partition["fields"]] == [BLOCKS]
