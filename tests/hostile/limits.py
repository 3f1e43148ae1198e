"""Shared by the tests of limits: a system with counters, and a check that a refusal changed nothing."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from holder import EINVAL, Answer, Holder, data, fields, number

from support.daemons import System
from support.waiting import wait_status

ACK, PUBLISH, RESERVE, CLAIM, LIST_PARTITIONS = 5, 16, 17, 18, 25
GRANT_BLOCKS, ABANDON_BLOCKS = 28, 29
REGISTER_OWNER, COLLECT_DEAD, EVENTS, SNAPSHOT, SNAPSHOT_READ, SNAPSHOT_CLOSE = (
    30,
    32,
    37,
    39,
    40,
    41,
)
RESTORE_PART, RESTORE_DROP, UNIT_MAP, UNIT_RESERVE, UNIT_PIN, UNIT_UNPIN = 42, 44, 64, 65, 69, 70

SMALL = (
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
)
METRICS = ("metrics.enabled=true", "metrics.port=0", "metrics.listen='127.0.0.1'")


def name_of(index: int) -> str:
    """A name of a thousand bytes."""
    return f"{index:06}" + "n" * 994


def reserve(partition: str | bytes, samples: int = 1) -> bytes:
    """A Reserve."""
    return data(1, partition) + number(2, samples)


def claim(
    partition: str, task: str, columns: Sequence[str] = ("x",), *, poll: bool = False
) -> bytes:
    """A Claim of one sample."""
    named = b"".join(data(2, column) for column in columns)
    return data(1, partition) + named + number(3, 2) + data(4, task) + number(8, poll)


def force_fetch(partition: str) -> bytes:
    """A Claim of all samples, which changes nothing, but whose reply is kept."""
    return data(1, partition) + data(2, "x") + data(4, "t") + number(5, 1)


def told(answer: Answer, field: int = 1) -> int:
    """A number from an answer."""
    assert not answer.failed, answer.message
    value = fields(answer.body)[field][0]
    assert isinstance(value, int)
    return value


def wait_line(log: Path, text: str, seconds: float = 60) -> str:
    """Wait until a daemon has logged the text; returns the line."""
    with subprocess.Popen(
        ["tail", "-n", "+1", "-f", log], stdout=subprocess.PIPE, text=True
    ) as lines:
        assert lines.stdout
        late = threading.Timer(seconds, lines.kill)
        late.start()
        found = next((line for line in lines.stdout if text in line), None)
        late.cancel()
        lines.kill()
    assert found, f"{text!r} is not in {log} after {seconds} s"
    return found


class Place:
    """A system with small limits, a client that observes it, and holders."""

    def __init__(self, system: System, settings: Sequence[str]) -> None:
        """Start the system."""
        self.system = system
        self.daemon = system.start(
            "--listen", "tcp:127.0.0.1:0", settings=[*SMALL, *METRICS, *settings]
        )
        addresses = system.address.split(",")
        self.address = next(one for one in addresses if one.startswith("unix:"))
        self.tcp = next(one for one in addresses if one.startswith("tcp:"))
        self.client = system.client("watcher", client={"timeout": 20})
        self.holders = ExitStack()

    def holder(self, address: str = "", session: bytes = b"") -> Holder:
        """Add a holder; closed when the test ends."""
        made = Holder(address or self.address, self.system.token_file, session=session)
        return self.holders.enter_context(made)

    def counts(self) -> dict[str, int]:
        """How often each limit was reached."""
        endpoint = self.client.system_config["metrics"]["endpoint"]
        with urlopen(f"http://{endpoint}/metrics", timeout=20) as page:
            text = page.read().decode()
        found = re.findall(r'^tq_limits_reached_total\{limit="(\w+)"\} (\d+)$', text, re.MULTILINE)
        return {name: int(times) for name, times in found}

    def state(self) -> dict[str, Any]:
        """The state that others would see changed."""
        status = self.client.status()
        owners = [(each["name"], each["blocks"]) for each in status["owners"]]
        sessions = sorted(each["name"] for each in status["sessions"])
        waits = len(status["waits"])
        return {
            "partitions": status["partitions"],
            "owners": owners,
            "sessions": sessions,
            "waits": waits,
        }

    def until_waiting(self, claims: int) -> None:
        """Wait until all of them are waiting: requests of other connections may not have been read yet."""
        wait_status(self.client, lambda status: len(status["waits"]) == claims)

    def refuses(
        self, holder: Holder, kind: int, body: bytes, *says: str, code: int = EINVAL
    ) -> None:
        """Send a request beyond a limit: the error says so, and nothing changes."""
        before = self.state()
        answer = holder.call(kind, body)
        assert answer.code == code, answer.message
        for words in says:
            assert words in answer.message
        assert self.state() == before

    def goes_on(self) -> None:
        """Check that everyone is still served."""
        meta = self.client.put({"after": [1, 2]}, partition_id="after")
        assert self.client.get_data(meta)["after"].tolist() == [1, 2]
        self.client.clear_partition("after")
        with Holder(self.address, self.system.token_file) as other:
            assert not other.call(LIST_PARTITIONS).failed
