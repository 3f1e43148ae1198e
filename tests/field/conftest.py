"""Fixtures for the tests of faults found by users."""

from support.package import client, pid, runtime_dir, tq

__all__ = ["client", "pid", "runtime_dir", "tq"]
