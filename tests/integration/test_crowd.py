"""More clients than a daemon has descriptors for each to connect to every storage unit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.daemons import System

BUILD = os.environ["TQ_TEST_BUILD"]
DESCRIPTORS = 1060
CLIENTS = 400
ROUNDS = 32


@pytest.mark.slow
def test_clients_of_a_crowded_daemon_keep_to_one_unit_each(system: System) -> None:
    """There is room for two connections per client, to the controller and one unit, so clients do not alternate."""
    daemon = system.start(
        settings=["backend.SimpleStorage.num_data_storage_units=2", "log.level=debug"],
        before=["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"],
    )
    with subprocess.Popen(
        [str(Path(BUILD) / "bench" / "many_clients"), str(CLIENTS), str(ROUNDS)],
        env=system.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as clients:
        assert clients.stdin is not None
        assert clients.stdout is not None
        assert clients.stdout.readline() == "open\n"
        clients.stdin.write("\n")
        clients.stdin.flush()
        rounds = 0
        for line in clients.stdout:
            if line == "done\n":
                break
            rounds += 1
        taken = sum(1 for _ in Path(f"/proc/{daemon.pid}/fd").iterdir())
        clients.stdin.write("\n")
        clients.stdin.flush()
    assert clients.returncode == 0
    assert rounds == ROUNDS * CLIENTS
    log = daemon.log.read_text()
    assert "Too many open files" not in log
    assert "did not authenticate" not in log
    # Clients that came before it was crowded are asked to drop a connection; they may return once, in any number of rounds.
    # Clients that take turns come back every third to eighth round.
    resumed = log.count(" resumed from ")
    print(f"{resumed} sessions resumed")
    assert resumed <= CLIENTS
    assert taken < DESCRIPTORS * 15 / 16, taken
