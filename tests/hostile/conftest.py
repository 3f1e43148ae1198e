"""Fixtures for the tests of what a stranger, another user of the machine, or anyone with the token could do."""

from support.package import client, pid, runtime_dir, tq

__all__ = ["client", "pid", "runtime_dir", "tq"]
