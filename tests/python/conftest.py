"""Fixtures of the tests of the package."""

from support.package import client, pid, runtime_dir, tq

__all__ = ["client", "pid", "runtime_dir", "tq"]
