"""MooncakeStore: samples in a Mooncake distributed store.

Values are passed by address in both directions, through the C library's KV manager.  The config is the section
`backend.MooncakeStore`, with TransferQueue's keys.  Needs mooncake, from the extra `transferq[mooncake]`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Condition
from typing import Any

import numpy as np

from .._impl.config_keys import TABLE
from ..errors import (
    ConfigError,
    InputOutputError,
    StorageFullError,
    UnreachableError,
    UnsupportedError,
)
from .kv import StorageClientFactory, StorageKVClient, memory

_MISSING = -704
_FULL = -200
_EXPIRED = -707
_UNREACHABLE = {
    -800: "the process that holds the value does not answer",
    -900: "the master does not answer",
    -901: "the master does not answer in time",
}

_JOIN_BYTES = 16 << 10
"""If the pieces of a value are smaller than this on average, they are joined first: each piece costs a request, and
thousands of them fail."""

_DEFAULTS = {
    key.path.rpartition(".")[2]: key.default
    for key in TABLE.values()
    if key.path.startswith("backend.MooncakeStore.") and key.default is not None
}


@StorageClientFactory.register("MooncakeStore")
class MooncakeClient(StorageKVClient):
    """Values in the segments' memory, managed by one master."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Connect to the master, and mount this client's segment if it is configured to have one."""
        super().__init__(config)
        _check_supported(config)
        MooncakeDistributedStore, ReplicateConfig = _import()
        given = {key: config[key] for key in _DEFAULTS if config.get(key) is not None}
        chosen = {**_DEFAULTS, **given}
        self._master = str(chosen["master_server_address"])
        if chosen["protocol"] not in ("tcp", "rdma"):
            raise ConfigError(
                f"backend.MooncakeStore.protocol: expected tcp or rdma, got {chosen['protocol']!r}"
            )
        own_address = _connect(self._master)
        # By default a full Mooncake evicts any data.
        self._replicate = ReplicateConfig()
        self._replicate.with_hard_pin = bool(chosen["hard_pin"])
        self._store = MooncakeDistributedStore()
        # Data in a client's segment is lost with that client, so this client has no segment if others provide them.
        self._segment = 0 if config.get("auto_init") else int(chosen["global_segment_size"])
        code = self._store.setup(
            chosen["local_hostname"] or own_address,
            _metadata_server(str(chosen["metadata_server"])),
            self._segment,
            int(chosen["local_buffer_size"]),
            chosen["protocol"],
            chosen["device_name"],
            self._master,
        )
        if code != 0:
            raise UnreachableError(f"Mooncake master {self._master}: setup failed with code {code}")
        self._regions = Regions(self._store) if chosen["protocol"] == "rdma" else None

    @property
    def name(self) -> str:
        """The master's address."""
        return self._master

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        """Put values; the store gathers their pieces, small ones are joined before."""
        pointers, sizes, joined = _joined(pointers, sizes)
        pieces = (
            piece
            for value in zip(pointers, sizes, strict=True)
            for piece in zip(*value, strict=True)
        )
        with self._registered(pieces):
            codes = self._store.batch_put_from_multi_buffers(keys, pointers, sizes, self._replicate)
        joined.clear()  # not earlier: the store reads from this memory
        self._check("put", keys, codes, [sum(pieces) for pieces in sizes])

    def get_into(self, keys: list[str], pointers: list[int], sizes: list[int]) -> Sequence[bool]:
        """Get values."""
        with self._registered(zip(pointers, sizes, strict=True)):
            codes = list(self._store.batch_get_into(keys, pointers, sizes))
            # One lease over all keys, seconds long, expired too early; a lease per key covers less time.
            for i in (i for i, code in enumerate(codes) if code == _EXPIRED):
                (codes[i],) = self._store.batch_get_into([keys[i]], [pointers[i]], [sizes[i]])
        found = self._found("get", keys, codes)
        # A value removed during the read may have been overwritten in memory: only those that still exist are valid.
        there = self._store.batch_is_exist(keys)
        self._check("look for", keys, there)
        return [one and bool(still) for one, still in zip(found, there, strict=True)]

    def remove(self, keys: list[str]) -> Sequence[bool]:
        """Remove values, even while they are being read."""
        return self._found("remove", keys, self._store.batch_remove(keys, force=True))

    def _registered(self, pieces: Iterable[tuple[int, int]]) -> AbstractContextManager[None]:
        """Register the memory if the transport requires it; TCP does not."""
        return nullcontext() if self._regions is None else self._regions.hold(pieces)

    def _found(self, what: str, keys: list[str], codes: Sequence[int]) -> list[bool]:
        self._check(what, keys, [0 if code == _MISSING else code for code in codes])
        return [code != _MISSING for code in codes]

    def _check(
        self,
        what: str,
        keys: list[str],
        codes: Sequence[int],
        bytes_of: Sequence[int] | None = None,
    ) -> None:
        failed = [
            (key, code, size)
            for key, code, size in zip(keys, codes, bytes_of or [0] * len(keys), strict=True)
            if code < 0
        ]
        if not failed:
            return
        # Waiting for room only helps if no value failed for another reason.
        key, code, size = next((each for each in failed if each[1] != _FULL), failed[0])
        where = f"Mooncake at {self._master}: {what} of {key}"
        if code == _FULL:
            raise StorageFullError(
                f"{where}: no segment has room for its {size} bytes (code {code}; this client gave {self._segment} bytes to "
                "the store); clear samples, or add segments "
                "(backend.MooncakeStore.global_segment_size of this client, or another one's)"
            )
        if code in _UNREACHABLE:
            raise UnreachableError(f"{where}: {_UNREACHABLE[code]} (code {code})")
        if code == _EXPIRED:
            raise InputOutputError(
                f"{where}: it took longer than the master's default_kv_lease_ttl (code {code})"
            )
        raise InputOutputError(f"{where} failed with code {code}")

    def close(self) -> None:
        """Leave the store; data in this client's segment is lost."""
        self._store.close()


def _joined(
    pointers: list[list[int]], sizes: list[list[int]]
) -> tuple[list[list[int]], list[list[int]], list[Any]]:
    """Join the pieces of each value if they are small; returns the pieces, and the memory of joined values."""
    pointers, sizes = list(pointers), list(sizes)
    kept: list[Any] = []
    for place, (pieces, lengths) in enumerate(zip(pointers, sizes, strict=True)):
        if len(pieces) > 1 and sum(lengths) < _JOIN_BYTES * len(pieces):
            kept.append(np.frombuffer(b"".join(map(memory, pieces, lengths)), np.uint8))
            pointers[place], sizes[place] = [kept[-1].ctypes.data], [sum(lengths)]
    return pointers, sizes, kept


class Regions:
    """Memory that is registered with a store while it is in use.

    A store refuses overlapping ranges, so a range within a registered one shares its registration, and a range that
    extends beyond one waits until that one is released.
    """

    def __init__(self, store: Any) -> None:
        """Start with nothing registered."""
        self._store = store
        self._changed = Condition()
        self._users: dict[tuple[int, int], int] = {}

    @contextmanager
    def hold(self, pieces: Iterable[tuple[int, int]]) -> Iterator[None]:
        """Keep pieces, (address, size) each, registered while the context is open."""
        wanted = merged(pieces)
        with self._changed:
            self._changed.wait_for(lambda: not any(map(self._sticks_out, wanted)))
            held: list[tuple[int, int]] = []
            try:
                for region in wanted:
                    held.append(self._take(region))
            except BaseException:
                self._drop(held)
                raise
        try:
            yield
        finally:
            with self._changed:
                self._drop(held)

    def _sticks_out(self, region: tuple[int, int]) -> bool:
        start, end = region
        return any(
            first < end and start < last and not (first <= start and end <= last)
            for first, last in self._users
        )

    def _take(self, region: tuple[int, int]) -> tuple[int, int]:
        start, end = region
        for known in self._users:
            if known[0] <= start and end <= known[1]:
                self._users[known] += 1
                return known
        code = self._store.register_buffer(start, end - start)
        if code != 0:
            raise InputOutputError(
                f"Mooncake cannot register {end - start} bytes of memory: code {code}"
            )
        self._users[region] = 1
        return region

    def _drop(self, held: Iterable[tuple[int, int]]) -> None:
        for region in held:
            self._users[region] -= 1
            if self._users[region] == 0:
                del self._users[region]
                self._store.unregister_buffer(region[0])
        self._changed.notify_all()


def merged(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge pieces, (address, size) each, into ranges, (start, end) each; those that touch or overlap are joined."""
    regions: list[tuple[int, int]] = []
    for start, size in sorted(pieces):
        if regions and start <= regions[-1][1]:
            regions[-1] = (regions[-1][0], max(regions[-1][1], start + size))
        elif size > 0:
            regions.append((start, start + size))
    return regions


def _check_supported(config: Mapping[str, Any]) -> None:
    """Refuse options of TransferQueue's section that this client does not support."""
    offload = config.get("offload")
    wanted = {
        "offload.enabled": isinstance(offload, Mapping) and offload.get("enabled"),
        "use_gdr": config.get("use_gdr"),
    }
    for key, value in wanted.items():
        if value:
            raise ConfigError(f"backend.MooncakeStore.{key}: expected false: it is not supported")


def _import() -> tuple[Any, Any]:
    """Import the classes of Mooncake."""
    quiet = {} if "MC_LOG_LEVEL" in os.environ else {"MC_LOG_LEVEL": "ERROR"}
    # Otherwise it logs every step to standard error.  It reads this on import; child processes must not inherit it.
    os.environ.update(quiet)
    try:
        from mooncake.store import MooncakeDistributedStore, ReplicateConfig
    except ImportError as error:
        raise UnsupportedError(
            f"backend MooncakeStore needs mooncake ({error}): install the extra 'mooncake' of transferq "
            "(see the README)"
        ) from None
    finally:
        for name in quiet:
            del os.environ[name]
    return MooncakeDistributedStore, ReplicateConfig


def _metadata_server(text: str) -> str:
    """Where clients look up segments: peer to peer, or at an HTTP or etcd server."""
    if text.strip().upper() == "P2PHANDSHAKE":
        return "P2PHANDSHAKE"
    if text.startswith("etcd://"):
        return text
    url = text if text.startswith(("http://", "https://")) else f"http://{text}"
    return url if url.endswith("/metadata") else f"{url}/metadata"


def _connect(master: str) -> str:
    """This host's address on the route to the master.

    Fails at once, where the store's own setup would keep trying for a minute.
    """
    host, _, port = master.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            f"backend.MooncakeStore.master_server_address: expected HOST:PORT, got {master!r}"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as probe:
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UnreachableError(f"Mooncake master {master} cannot be reached: {error}") from None
