"""Addresses and ports of the machine that the tests run on."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing


def free_ports(count: int) -> list[int]:
    """Ports without a listener; all bound at the same time, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def free_range(count: int) -> tuple[int, int]:
    """First and last of consecutive ports without a listener."""
    for first in range(23000, 60000, count):
        with ExitStack() as sockets:
            try:
                for port in range(first, first + count):
                    one = sockets.enter_context(closing(socket.socket()))
                    one.bind(("0.0.0.0", port))
            except OSError:
                continue
            return first, first + count - 1
    raise AssertionError("no free ports in a row")


def own_address(family: socket.AddressFamily = socket.AF_INET) -> str | None:
    """The address of this family that the machine sends from, or None if it has no network."""
    elsewhere = "203.0.113.1" if family == socket.AF_INET else "2001:db8::1"
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((elsewhere, 9))
            address: str = probe.getsockname()[0]
    except OSError:
        return None
    return None if address.startswith("127.") or address == "::1" else address
