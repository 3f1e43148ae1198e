"""Fixtures of the tests of faults that users met."""

from support.package import client, pid, runtime_dir, tq

__all__ = ["client", "pid", "runtime_dir", "tq"]
