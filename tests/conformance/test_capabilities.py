"""What each backend can do, measured; the table of docs/backends.md must say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import transferq

from . import capabilities
from .backend import Backend
from .backends import BACKENDS
from .conftest import MEASURED, is_full
from .patterns import number_of, numbers_of, row, rows, unbound
from .worker import Worker, device, measure, put_and_stay

MiB = 1 << 20


def copies(seen: dict[str, Any]) -> str:
    """Which directions take no memory of this process beside the caller's, and what the caller gets."""
    size = seen["bytes"]
    ways = {"put": seen["put"] < size / 4, "get": seen["get"] < size + size / 4}
    return " and ".join(way for way, free in ways.items() if free) or "no"


def after_crash(backend: Backend, client: transferq.TransferQueueClient) -> str:
    """Whether data still exists after the process that put it was killed."""
    victim = Worker(put_and_stay, backend, "crash")
    assert victim.receive() == "done"
    victim.kill()
    meta = client.get_meta(["x"], 8, "crash", mode="force_fetch")
    try:
        numbers = numbers_of(client.get_data(meta)["x"])
    except transferq.errors.LostError:
        return "no: reported as lost"
    assert numbers == list(range(8))
    return "yes"


def after_restart(backend: Backend) -> str:
    """Whether data still exists after the store was killed and restarted."""
    if "restart" not in backend.can:
        return "not tried"
    if not backend.is_process:
        return "has no process"
    meta = backend.client("before").put({"x": rows(range(4), 1000)}, partition_id="restart")
    backend.kill()
    backend.restart()
    try:
        numbers = numbers_of(backend.client("after").get_data(meta)["x"])
    except transferq.errors.LostError:
        return "no: reported as lost"
    assert numbers == [0, 1, 2, 3]
    return "yes"


def largest(client: transferq.TransferQueueClient, sizes: list[int]) -> int:
    """The largest of these sizes that a value can have."""
    good = 0
    for size in sizes:
        try:
            meta = client.put({"x": row(1, size // 8)[None]}, partition_id="large")
            assert number_of(unbound(client.get_data(meta)["x"])[0]) == 1
        except transferq.errors.TransferQueueError:
            break
        good = size
        client.clear_partition("large")
    return good


@pytest.mark.timeout(600)
def test_capabilities(fresh: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    """Measure them; the page has the same row, except for what is only tried with --backends-full."""
    backend: Backend = fresh()
    client = backend.client()
    seen = Worker(measure, backend, "measure").end()
    full = is_full(request.config)
    size = largest(client, [16 * MiB, *([1024 * MiB] if full else [])])
    made = {
        "zero-copy": copies(seen),
        "partial read": "yes" if seen["part"] < seen["bytes"] / 8 else "no",
        "largest value tried": f"{size // MiB} MiB" if size < 1024 * MiB else "1 GiB",
        "survives client crash": after_crash(backend, client),
        "device tensors": Worker(device, backend, "device").end(),
        "survives store restart": after_restart(backend),
    }
    request.node.user_properties.append(("measured", seen))
    assert size >= 16 * MiB
    MEASURED[backend.title] = made
    if full:
        return
    noted = capabilities.read().get(backend.title)
    assert noted is not None, f"docs/backends.md has no row for {backend.title}: make test-backends"
    only_full = {"largest value tried"}
    if made["device tensors"].startswith("not tried"):
        only_full.add("device tensors")
    for column in set(capabilities.COLUMNS) - only_full:
        assert noted[column] == made[column], (backend.title, column, seen)


def test_the_page_has_no_other_rows() -> None:
    """Every row is a backend of the suite."""
    assert set(capabilities.read()) <= {backend.title for backend in BACKENDS.values()}
