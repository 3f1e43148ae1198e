"""The cost of a call grows with its own data, not with unrelated data, and never quadratically.

Processor time is measured, the least or the median of several runs, and compared with that for a smaller size.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.daemons import System

ROOM = [
    "backend.SimpleStorage.total_storage_size=512MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]

FEW = 3_000
MANY = 8 * FEW
ROW = np.zeros((1, 2), np.float32)


def least(call: Callable[[int], Any], times: int = 3) -> float:
    """Seconds of processor time, in this process, of the cheapest of some calls; each call gets its number.

    Python's garbage collection is excluded: it walks everything in the process, whatever the call does.
    """
    best = float("inf")
    gc.collect()
    gc.disable()
    try:
        for number in range(times):
            start = time.process_time()
            call(number)
            best = min(best, time.process_time() - start)
    finally:
        gc.enable()
    return best


def wide(fields: int) -> dict[str, Any]:
    """One sample with this many fields."""
    return {f"field_{number}": ROW for number in range(fields)}


def test_a_put_costs_by_its_fields(system: System) -> None:
    system.start(settings=ROOM)
    client = system.client()
    took, daemon = {}, {}
    for fields in (FEW, MANY):
        row = wide(fields)

        def put(number: int, row: dict[str, Any] = row) -> None:
            client.put(row, partition_id=f"p{len(row)}-{number}")
            client.clear_partition(f"p{len(row)}-{number}")

        put(-1)  # touches memory for the first time
        before = system.daemons[0].seconds()
        took[fields] = least(put)
        daemon[fields] = system.daemons[0].seconds() - before
    # Eight times the fields take about eight times as long, give or take a busy machine; quadratic would be 64 times.
    assert took[MANY] < 20 * took[FEW], took
    assert daemon[MANY] < 20 * daemon[FEW], daemon


@pytest.mark.slow
def test_a_read_and_a_claim_cost_by_their_fields(system: System) -> None:
    system.start(settings=ROOM)
    client = system.client()
    reads, claims = {}, {}
    for fields in (FEW, MANY):
        row = wide(fields)
        partition = f"p{fields}"
        meta = client.put(row, partition_id=partition)
        names = list(row)[::-1]
        reads[fields] = least(lambda _, meta=meta: client.get_data(meta))
        claims[fields] = least(
            lambda number, names=names, partition=partition: client.get_meta(
                names, 1, partition, task_name=f"t{number}"
            )
        )
    assert reads[MANY] < 20 * reads[FEW], reads
    assert claims[MANY] < 20 * claims[FEW], claims
