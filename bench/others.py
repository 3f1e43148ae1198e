"""Alternatives for handing batches over: plain Ray objects, and Redis by itself.

Both take the same columns as the queue; neither knows about samples, so a column goes in and comes out whole.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.workloads import Columns
from tests.support.addresses import free_ports
from tests.support.redis_servers import RedisServer

WINDOW = 16
VALUE = 256 << 10


class RayObjects:
    """One object per column in a Ray store on this machine."""

    name = "Ray objects"

    def __init__(self) -> None:
        import ray

        self._ray: Any = ray
        ray.init(
            num_cpus=2,
            object_store_memory=3 << 30,
            include_dashboard=False,
            configure_logging=False,
        )

    def batch(self, columns: Columns) -> dict[str, float]:
        """Seconds to put and to get."""
        started = time.perf_counter()
        references = [self._ray.put(column) for column in columns.values()]
        put = time.perf_counter()
        read = self._ray.get(references)
        # The data read is in the store, read-only; a trainer's own tensor is a copy.
        copied = [_copied(column) for column in read]
        got = time.perf_counter()
        assert len(copied) == len(columns)
        return {"put": put - started, "get": got - put}

    def close(self) -> None:
        """Stop the store."""
        self._ray.shutdown()


def _copied(column: Any) -> Any:
    if isinstance(column, torch.Tensor):
        return column.clone()
    return [row.clone() if isinstance(row, torch.Tensor) else row for row in column]


class Redis:
    """Raw bytes in a Redis server over a unix socket, pipelined; tensors only."""

    name = "Redis"

    def __init__(self) -> None:
        import redis

        self._folder = tempfile.TemporaryDirectory(prefix="tq-bench-")
        path = Path(self._folder.name)
        socket = str(path / "redis.sock")
        self._server = RedisServer(path / "data", free_ports(1)[0], "--unixsocket", socket)
        self._client: Any = redis.Redis(unix_socket_path=socket)

    def batch(self, columns: Columns) -> dict[str, float]:
        """Seconds to put and to get, in values of 256 KiB."""
        values = [
            whole.data[start : start + VALUE]
            for whole in (_bytes(column) for column in columns.values())
            for start in range(0, len(whole), VALUE)
        ]
        started = time.perf_counter()
        for first in range(0, len(values), WINDOW):
            with self._client.pipeline(transaction=False) as pipe:
                for place, value in enumerate(values[first : first + WINDOW], first):
                    pipe.set(str(place), value)
                pipe.execute()
        put = time.perf_counter()
        read: list[bytes] = []
        for first in range(0, len(values), WINDOW):
            with self._client.pipeline(transaction=False) as pipe:
                for place in range(first, min(first + WINDOW, len(values))):
                    pipe.get(str(place))
                read += pipe.execute()
        got = time.perf_counter()
        assert sum(map(len, read)) == sum(map(len, values))
        return {"put": put - started, "get": got - put}

    def close(self) -> None:
        """Stop the server."""
        self._client.close()
        self._server.stop()
        self._folder.cleanup()


def _bytes(column: Any) -> np.ndarray[Any, Any]:
    rows = column if isinstance(column, torch.Tensor) else torch.cat([*column])
    return np.asarray(rows.contiguous().view(torch.uint8).numpy()).reshape(-1)
