"""How large the storage is, and what of it stays behind when a system ends."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from support.cgroups import NoGroups, limited
from support.daemons import System


def test_storage_is_sized_by_the_limit_of_the_control_group(system: System) -> None:
    """A quarter of the pod's limit, not of its host's memory; the log says how much and of what."""
    with ExitStack() as stack:
        try:
            before = stack.enter_context(limited(512 << 20, f"tq-test-{os.getpid()}"))
        except NoGroups as error:
            pytest.skip(f"the kernel does not let this user make control groups: {error}")
        stack.callback(system.close)  # a group with a process in it stays
        system.start(before=before)
        owners = system.client().status()["owners"]
        log = (system.folder / "tqd.log").read_text()
    assert [owner["capacity_bytes"] for owner in owners] == [64 << 20, 64 << 20]
    assert "storage: 2 x 64.0 MiB (25 % of 512.0 MiB, the cgroup's limit)" in log
