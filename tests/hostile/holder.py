"""A client with the token that builds frames by hand, so it can send what no library would."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
from pathlib import Path
from typing import Self

HEADER = struct.Struct("<4sHHQQIIQ")
VERSION = 2
CHALLENGE, HELLO, WELCOME, FAILED = 1, 2, 3, 4
EINVAL = -1
ESTALE = -20
EAGAIN = -24


def varint(value: int) -> bytes:
    """A number in protobuf's varint encoding."""
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A field with a number."""
    return varint(field << 3) + varint(value)


def data(field: int, value: bytes | str) -> bytes:
    """A field containing bytes, a text, or a message."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def fields(body: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a message."""
    found: dict[int, list[int | bytes]] = {}
    at = 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(body):
        tag = read()
        value: int | bytes = read()
        if tag & 7 == 2:
            size = int(value)
            value = body[at : at + size]
            at += size
        found.setdefault(tag >> 3, []).append(value)
    return found


class Answer:
    """A reply: its request, kind and body."""

    def __init__(self, request: int, kind: int, body: bytes) -> None:
        """As received."""
        self.request, self.kind, self.body = request, kind, body

    @property
    def failed(self) -> bool:
        """Whether it is an error."""
        return self.kind == FAILED

    @property
    def code(self) -> int:
        """The code of an error; 0 for any other answer."""
        raw = int(fields(self.body)[1][0]) if self.failed else 0
        return (raw >> 1) ^ -(raw & 1)

    @property
    def message(self) -> str:
        """The text of an error."""
        text = fields(self.body).get(2, [b""])[0] if self.failed else b""
        return bytes(text).decode() if isinstance(text, bytes) else ""


class Holder:
    """One connection of a session."""

    def __init__(
        self, address: str, token_file: str, seconds: float = 30.0, session: bytes = b""
    ) -> None:
        """Connect to an endpoint and authenticate, with this session, or by default with a new one."""
        self.token = Path(token_file).read_bytes().rstrip()
        self.session = session or os.urandom(16)
        self.requests = 0
        kind, _, place = address.partition(":")
        if kind == "unix":
            self.raw = socket.socket(socket.AF_UNIX)
            self.raw.settimeout(seconds)
            self.raw.connect(place)
        else:
            host, _, port = place.rpartition(":")
            self.raw = socket.create_connection((host, int(port)), seconds)
        self.greet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def greet(self) -> None:
        """Perform the handshake."""
        challenge = self.receive()
        assert challenge.kind == CHALLENGE
        theirs = fields(challenge.body)[1][0]
        assert isinstance(theirs, bytes)
        mine = os.urandom(32)
        text = b"tq-client" + theirs + mine + self.session
        proof = hmac.new(self.token, text, hashlib.sha256).digest()
        hello = data(1, mine) + data(2, proof) + data(3, self.session) + data(5, "holder")
        self.frame(HELLO, 0, hello)
        answer = self.receive()
        if answer.failed:
            self.raw.close()
            raise ConnectionRefusedError(answer.message)
        assert answer.kind == WELCOME

    def frame(self, kind: int, request: int, body: bytes, ack: int = 0) -> None:
        """Sends a frame."""
        header = HEADER.pack(b"TQQ1", VERSION, kind, request, ack, len(body), 0, 0)
        self.raw.sendall(header + body)

    def begin(self, kind: int, body: bytes, size: int) -> None:
        """Send only the first bytes of a request."""
        self.requests += 1
        header = HEADER.pack(b"TQQ1", VERSION, kind, self.requests, 0, len(body), 0, 0)
        self.raw.sendall(header + body[:size])

    def exactly(self, size: int) -> bytes:
        """Receive exactly this many bytes."""
        got = bytearray()
        while len(got) < size:
            chunk = self.raw.recv(min(size - len(got), 1 << 20))
            if not chunk:
                raise ConnectionError("the server closed the connection")
            got += chunk
        return bytes(got)

    def receive(self) -> Answer:
        """The next frame."""
        magic, _, kind, request, _, size, _, payload = HEADER.unpack(self.exactly(HEADER.size))
        assert magic == b"TQQ1"
        body = self.exactly(size)
        self.exactly(payload)
        return Answer(request, kind, body)

    def send(self, kind: int, body: bytes = b"", ack: int = 0) -> int:
        """Send a request; returns its number."""
        self.requests += 1
        self.frame(kind, self.requests, body, ack)
        return self.requests

    def call(self, kind: int, body: bytes = b"") -> Answer:
        """Sends a request and waits for its answer."""
        sent = self.send(kind, body)
        while True:
            answer = self.receive()
            if answer.request == sent:
                return answer


def memory(pid: int, what: str = "VmRSS") -> int:
    """Memory of a process in bytes: VmRSS is the current, VmHWM the peak size."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {what} of process {pid}")
