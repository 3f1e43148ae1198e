"""A relay in front of a socket that cuts a connection after an exact number of bytes, or delays its data.

It runs in a thread of the test. One cut can be armed at a time: the next connection that has carried this many bytes
in this direction (counted from the moment of arming) is closed on both sides, in the middle of whatever it carried.
Connections made after the cut are not affected. While `delay` is set, each piece of data waits for that many seconds, and
the connection carries nothing else in that direction meanwhile. Passed descriptors are not relayed. With `version` set, the
first frame in each direction of a connection claims that protocol version. `cut` closes all connections. With
`answers` set, a connection carries that many pieces of data from the server, and drops the rest.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import threading
import time
from pathlib import Path

CHUNK = 1 << 16

Place = Path | tuple[str, int]
"""A unix socket, or host and port."""


def _socket(place: Place) -> tuple[socket.socket, str | tuple[str, int]]:
    """An unconnected socket for a place, and the place's address."""
    if isinstance(place, Path):
        return socket.socket(socket.AF_UNIX), str(place)
    return socket.socket(), place


class Relay:
    """Listens on `path` and relays everything to the socket at `target`, and back; `port` 0 is any free one."""

    def __init__(self, path: Place, target: Place) -> None:
        self.path = path
        self.target = target
        self.delay = 0.0
        self.version: int | None = None
        self.answers: int | None = None
        self._answered: dict[socket.socket, int] = {}
        self.cuts = 0
        self.connections = 0
        self._lock = threading.Lock()
        self._left: dict[str, int | None] = {"up": None, "down": None}
        self._passed = {"up": 0, "down": 0}
        self._selector = selectors.DefaultSelector()
        self._late: list[tuple[float, int, socket.socket, socket.socket, str, bytes]] = []
        self._listener, address = _socket(path)
        self._listener.bind(address)
        self._listener.listen()
        self.address = self._listener.getsockname()
        self._wake_out, self._wake_in = socket.socketpair()
        self._fresh: set[socket.socket] = set()
        self._pairs: set[frozenset[socket.socket]] = set()
        self._selector.register(self._listener, selectors.EVENT_READ, ("accept", None, None))
        self._selector.register(self._wake_in, selectors.EVENT_READ, ("stop", None, None))
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def arm(self, direction: str, after: int) -> None:
        """Cuts after `after` more bytes towards the server ("up") or the client ("down")."""
        with self._lock:
            self._left = {"up": None, "down": None, direction: after}
            self._passed = {"up": 0, "down": 0}

    def disarm(self) -> None:
        """Cancels the armed cut."""
        with self._lock:
            self._left = {"up": None, "down": None}

    def passed(self) -> dict[str, int]:
        """Bytes relayed in each direction since the last arm (or `arm` with a number that is never reached)."""
        with self._lock:
            return dict(self._passed)

    def cut(self) -> None:
        """Cuts every connection at once."""
        self._wake_out.send(b"c")

    def close(self) -> None:
        """Ends the thread and every connection."""
        self._wake_out.send(b"x")
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._pass_late()
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for key, _ in self._selector.select(wait):
                what, other, direction = key.data
                if what == "stop":
                    if self._wake_in.recv(1) == b"x":
                        self._shutdown()
                        return
                    for pair in list(self._pairs):
                        self._drop(*pair)
                        self.cuts += 1
                    break
                if what == "accept":
                    self._accept()
                elif key.fileobj.fileno() >= 0:  # not closed earlier in this round
                    self._pass(key.fileobj, other, direction)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server, address = _socket(self.target)
        try:
            server.connect(address)
        except OSError:
            client.close()
            server.close()
            return
        self.connections += 1
        self._pairs.add(frozenset((client, server)))
        self._fresh |= {client, server}
        self._selector.register(client, selectors.EVENT_READ, ("pass", server, "up"))
        self._selector.register(server, selectors.EVENT_READ, ("pass", client, "down"))

    def _pass(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        if self.delay > 0 and data:
            # Read nothing more from there until this was sent, so that the order stays the same.
            self._selector.unregister(source)
            due = time.monotonic() + self.delay
            heapq.heappush(self._late, (due, id(source), source, target, direction, data))
        else:
            self._carry(source, target, direction, data)

    def _pass_late(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, source, target, direction, data = heapq.heappop(self._late)
            if source.fileno() >= 0:  # not closed together with its other side
                self._selector.register(source, selectors.EVENT_READ, ("pass", target, direction))
                self._carry(source, target, direction, data)

    def _carry(
        self, source: socket.socket, target: socket.socket, direction: str, data: bytes
    ) -> None:
        cut = False
        if direction == "down" and data and self.answers is not None:
            self._answered[source] = self._answered.get(source, 0) + 1
            if self._answered[source] > self.answers:
                return
        if source in self._fresh and data:
            self._fresh.discard(source)
            if self.version is not None:
                assert data[:4] == b"TQQ1"
                data = data[:4] + self.version.to_bytes(2, "little") + data[6:]
        with self._lock:
            left = self._left[direction]
            if left is not None and len(data) >= left:
                data, cut = data[:left], True
                self._left[direction] = None
            elif left is not None:
                self._left[direction] = left - len(data)
            self._passed[direction] += len(data)
        try:
            if data:
                target.sendall(data)
        except OSError:
            cut = True
        if cut or not data:
            self.cuts += cut
            self._drop(source, target)

    def _drop(self, *pair: socket.socket) -> None:
        for one in pair:
            self._fresh.discard(one)
            self._answered.pop(one, None)
            if one in self._selector.get_map():
                self._selector.unregister(one)
            one.close()
        self._pairs.discard(frozenset(pair))

    def _shutdown(self) -> None:
        for pair in list(self._pairs):
            self._drop(*pair)
        self._listener.close()
        self._wake_in.close()
        self._wake_out.close()
        self._selector.close()
        if isinstance(self.path, Path):
            self.path.unlink(missing_ok=True)
