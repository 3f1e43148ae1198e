"""How long a storage unit keeps free memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from support.daemons import Daemon, System
from support.waiting import wait_until

torch = pytest.importorskip("torch")

BATCH = 64 << 20


def cleared(system: System, keep: str) -> Daemon:
    """A daemon that has stored a batch, which is cleared."""
    system.folder.mkdir()
    daemon = system.start(
        settings=[
            "backend.SimpleStorage.num_data_storage_units=1",
            f"backend.SimpleStorage.keep_warm={keep}",
        ]
    )
    client = system.client(client={"timeout": 60})
    client.kv_batch_put(["a", "b"], "p", {"x": torch.ones(2, BATCH // 8)})
    assert daemon.stored() >= BATCH
    client.kv_clear(["a", "b"], "p")
    return daemon


def test_memory_is_kept_for_as_long_as_one_says(tmp_path: Path) -> None:
    """A unit that keeps nothing returns it; another one, which has had it longer, still keeps it."""
    with (
        closing(System(tmp_path / "keeps")) as keeps,
        closing(System(tmp_path / "gives")) as gives,
    ):
        kept, given = cleared(keeps, "1h"), cleared(gives, "0s")
        wait_until("memory to be given back", given.stored, lambda stored: stored <= BATCH // 4)
        assert kept.stored() >= BATCH
