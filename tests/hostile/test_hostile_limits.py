"""Each key of the section `limits`: what exceeds it, what the error and its remedy say, that it counts, and what continues.

A new key needs a case here.  The growth that limits prevent is measured in test_hostile_holders.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from holder import ESTALE, data, fields, number
from limits import (
    ABANDON_BLOCKS,
    ACK,
    CLAIM,
    COLLECT_DEAD,
    GRANT_BLOCKS,
    LIST_PARTITIONS,
    PUBLISH,
    REGISTER_OWNER,
    RESERVE,
    RESTORE_DROP,
    RESTORE_PART,
    SNAPSHOT,
    SNAPSHOT_CLOSE,
    SNAPSHOT_READ,
    UNIT_MAP,
    UNIT_PIN,
    UNIT_RESERVE,
    UNIT_UNPIN,
    Place,
    claim,
    force_fetch,
    name_of,
    reserve,
    told,
    wait_line,
)

from support.daemons import System
from transferq._impl.config_keys import TABLE
from transferq.errors import TransferQueueError, UnreachableError

KIB, MIB = 1 << 10, 1 << 20


class Case(NamedTuple):
    """A limit: the settings, and a function that reaches it."""

    settings: tuple[str, ...]
    run: Callable[[Place], None]


CASES: dict[str, Case] = {}


def limit(value: str | int, *more: str) -> Callable[[Callable[[Place], None]], None]:
    """Makes a function the case for the limit of the same name."""

    def add(run: Callable[[Place], None]) -> None:
        CASES[run.__name__] = Case((f"limits.{run.__name__}={value}", *more), run)

    return add


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system for a test to start."""
    made = System(tmp_path)
    try:
        yield made
    finally:
        made.close()


# --- connections and sessions -------------------------------------------------------------------------


@limit(8)
def greeting(place: Place) -> None:
    """Silent connections over the network, possibly a stranger's: the oldest is closed, and the log says why."""
    host, _, port = place.tcp.removeprefix("tcp:").rpartition(":")
    strangers = []
    for _ in range(80):
        strangers.append(socket.create_connection((host, int(port)), 20))
        place.holders.enter_context(strangers[-1])
    while strangers[0].recv(4096):
        pass
    wait_line(place.daemon.log, "it did not authenticate, and others came (limits.greeting)")
    assert strangers[-1].recv(4096)


@limit(16)
def sessions(place: Place) -> None:
    """All are connected: no more are accepted.  One that has lost its connection makes room, although it could come back."""
    held = [place.holder() for _ in range(14)]  # beside the watcher and the unit
    with pytest.raises(ConnectionRefusedError) as refused:
        place.holder()
    said = str(refused.value)
    assert "16 sessions, which is its most (limits.sessions): close clients that are not" in said
    with pytest.raises(UnreachableError, match=r"limits\.sessions"):
        place.system.client("late", client={"timeout": 2})
    assert not held[-1].call(LIST_PARTITIONS).failed
    before = place.state()["sessions"]
    assert len(before) == 16
    held[0].raw.close()
    place.system.client("late").close()
    held[1].raw.close()


# --- waiting replies and requests -----------------------------------------------------------------


@limit("1MiB")
def queued_replies(place: Place) -> None:
    """The server stops reading from a client that does not read its replies, until it does; nothing is lost."""
    deaf = place.holder()
    for index in range(100):
        assert not deaf.call(RESERVE, reserve(name_of(index))).failed
    for _ in range(40):
        deaf.send(LIST_PARTITIONS)
    wait_line(place.daemon.log, "it is not read from until it does (limits.queued_replies)")
    place.goes_on()
    for _ in range(40):
        assert len(deaf.receive().body) > 100_000
    assert not deaf.call(LIST_PARTITIONS).failed


@limit("1MiB")
def all_queued_replies(place: Place) -> None:
    """The same if many clients have a few each."""
    several = [place.holder() for _ in range(8)]
    for index in range(100):
        assert not several[0].call(RESERVE, reserve(name_of(index))).failed
    for deaf in several:
        for _ in range(10):
            deaf.send(LIST_PARTITIONS)
    wait_line(place.daemon.log, "it is not read from until it does (limits.all_queued_replies)")
    place.goes_on()
    for deaf in several:
        for _ in range(10):
            assert len(deaf.receive().body) > 100_000
        assert not deaf.call(LIST_PARTITIONS).failed


@limit("128MiB")
def request_bytes(place: Place) -> None:
    """A request that is small on the wire and large in memory is refused; one with as many bytes of data is accepted."""
    holder = place.holder()
    nothing = data(1, data(1, "p") + b"\x3a\x00" * 3_000_000)
    said = "take more than 134217728 bytes of memory (limits.request_bytes): use smaller batches"
    place.refuses(holder, PUBLISH, nothing, said)
    assert not holder.call(RESERVE, reserve("p") + data(100, bytes(100 * MIB))).failed
    place.client.clear_partition("p")


@limit("1MiB")
def incoming_bytes(place: Place) -> None:
    """Slow requests: the one that began first is dropped with its connection, and the others succeed."""
    stuck = [place.holder() for _ in range(4)]
    body = reserve("p") + data(100, bytes(700 * KIB))
    for holder in stuck:
        holder.begin(RESERVE, body, 600 * KIB)
    wait_line(place.daemon.log, "(limits.incoming_bytes), and this one began first")
    with pytest.raises(ConnectionError):
        stuck[0].receive()
    place.goes_on()
    keys = [f"{index:06}" + "k" * 1000 for index in range(1000)]
    place.client.kv_batch_put(keys, "large", {"x": np.arange(1000)})
    assert len(place.client.kv_list("large")["large"]) == 1000
    # A single request may be larger than the limit for all.
    for holder in stuck:
        holder.raw.close()
    assert not place.holder().call(RESERVE, reserve("p") + data(100, bytes(4 * MIB))).failed
    place.client.clear_partition("large")


KEPT = "(limits.kept_replies, limits.kept_reply_bytes): acknowledge them"


@limit(32768)
def kept_replies(place: Place) -> None:
    """A client that acknowledges nothing can change nothing more, until it does."""
    holder = place.holder()
    for _ in range(64):
        for _ in range(512):
            holder.send(RESERVE, reserve("p"))
        for _ in range(512):
            assert not holder.receive().failed
    place.refuses(holder, RESERVE, reserve("p"), "32768 replies", KEPT)
    assert not holder.call(LIST_PARTITIONS).failed
    holder.frame(ACK, 0, b"", holder.requests + 1)
    assert not holder.call(RESERVE, reserve("p")).failed


@limit("32MiB")
def kept_reply_bytes(place: Place) -> None:
    """The same if replies are few and large."""
    holder = place.holder()
    assert not holder.call(RESERVE, reserve("p", 200_000)).failed
    answer = holder.call(CLAIM, force_fetch("p"))
    size = len(answer.body)
    for _ in range(32 * MIB // size):
        answer = holder.call(CLAIM, force_fetch("p"))
    place.refuses(holder, CLAIM, force_fetch("p"), KEPT)
    holder.frame(ACK, 0, b"", holder.requests + 1)
    assert not holder.call(CLAIM, force_fetch("p")).failed


WAITING = "(limits.waiting, limits.waiting_bytes): let some end first"


@limit(16)
def waiting(place: Place) -> None:
    """As many requests as allowed wait; one more is refused, until some have ended."""
    holder = place.holder()
    for task in range(16):
        holder.send(CLAIM, claim("p", f"t{task}"))
    place.until_waiting(16)
    place.refuses(holder, CLAIM, claim("p", "late"), "16 requests", WAITING)
    place.client.put({"x": [1]}, partition_id="p")
    for _ in range(16):
        assert not holder.receive().failed
    assert not holder.call(CLAIM, claim("p", "late")).failed


@limit("1MiB")
def waiting_bytes(place: Place) -> None:
    """The same if requests are few and large."""
    holder = place.holder()
    large = data(100, bytes(300 * KIB))  # of a newer version: kept with the message
    for task in range(4):
        holder.send(CLAIM, claim("p", f"t{task}") + large)
    place.until_waiting(4)
    place.refuses(holder, CLAIM, claim("p", "late"), "4 requests", WAITING)
    place.client.put({"x": [1]}, partition_id="p")
    for _ in range(4):
        assert not holder.receive().failed
    assert not holder.call(CLAIM, claim("p", "late") + large).failed


@limit("1MiB")
def all_waiting_bytes(place: Place) -> None:
    """The same for all clients together: one with few waiting bytes can continue."""
    holders = [place.holder() for _ in range(4)]
    large = data(100, bytes(300 * KIB))
    for task, holder in enumerate(holders):
        holder.send(CLAIM, claim("p", f"t{task}") + large)
    place.until_waiting(4)
    said = "which is more than 1048576 (limits.all_waiting_bytes): let some end first"
    place.refuses(holders[0], CLAIM, claim("p", "late"), said)
    little = place.holder()
    for task in range(10):
        little.send(CLAIM, claim("p", f"l{task}"))
    place.client.put({"x": [1]}, partition_id="p")
    for holder in [*holders, *[little] * 10]:
        assert not holder.receive().failed
    assert not holders[0].call(CLAIM, claim("p", "late") + large).failed


# --- the table ---------------------------------------------------------------------------------------


@limit(3)
def partitions(place: Place) -> None:
    """Cleared ones make room."""
    holder = place.holder()
    for index in range(3):
        assert not holder.call(RESERVE, reserve(f"p{index}")).failed
    said = "partition 'more': there are 3 partitions, which is the most (limits.partitions): clear"
    place.refuses(holder, RESERVE, reserve("more"), said)
    place.refuses(holder, CLAIM, claim("more", "t", poll=True), said)
    with pytest.raises(TransferQueueError, match=r"limits\.partitions"):
        place.client.put({"x": [1]}, partition_id="more")
    place.client.clear_partition("p0")
    assert not holder.call(RESERVE, reserve("more")).failed
    place.client.clear_partition("more")


@limit(4)
def fields_(place: Place) -> None:
    """A claim may not name more, and a put not add them; existing ones stay."""
    holder = place.holder()
    place.client.put({f"f{column}": [1] for column in range(3)}, partition_id="p")
    wide = [f"f{column}" for column in range(5)]
    said = "it has 4 fields, which is the most (limits.fields): use several partitions"
    place.refuses(holder, CLAIM, claim("p", "t", wide, poll=True), said)
    before = place.state()
    with pytest.raises(TransferQueueError, match=r"limits\.fields"):
        place.client.put({column: [1] for column in wide}, partition_id="p")
    assert place.state()["partitions"] == before["partitions"]
    assert not holder.call(CLAIM, claim("p", "t", wide[:3])).failed
    place.client.put({column: [1] for column in wide[:4]}, partition_id="p")


CASES["fields"] = Case(("limits.fields=4",), CASES.pop("fields_").run)


@limit(3)
def tasks(place: Place) -> None:
    """Existing ones continue, and others have room in another partition."""
    holder = place.holder()
    for task in range(3):
        holder.send(CLAIM, claim("p", f"t{task}"))
    place.until_waiting(3)
    said = "task 'late': it has 3 tasks, which is the most (limits.tasks): use fewer"
    place.refuses(holder, CLAIM, claim("p", "late", poll=True), said)
    place.client.put({"x": [1]}, partition_id="p")
    place.client.put({"x": [1]}, partition_id="q")
    for _ in range(3):
        assert not holder.receive().failed
    assert not holder.call(CLAIM, claim("q", "late")).failed


@limit(16)
def grants(place: Place) -> None:
    """Abandoned ones make room."""
    holder = place.holder()
    firsts = [told(holder.call(GRANT_BLOCKS, data(1, "unit-0") + number(3, 2))) for _ in range(16)]
    said = "16 grants of block ids that it has not used, which is the most (limits.grants): publish"
    place.refuses(holder, GRANT_BLOCKS, data(1, "unit-0") + number(3, 1), said)
    place.goes_on()  # of others
    ids = b"".join(number(1, firsts[0] + index) for index in range(2))
    assert not holder.call(ABANDON_BLOCKS, ids).failed
    assert not holder.call(GRANT_BLOCKS, data(1, "unit-0") + number(3, 1)).failed


@limit(4)
def owners(place: Place) -> None:
    """Known ones may return."""
    holder = place.holder()
    bodies = [data(1, f"o{index}") + number(2, 5) + data(3, "m") for index in range(4)]
    for body in bodies[:3]:
        assert not holder.call(REGISTER_OWNER, body).failed
    said = "owner 'o3': there are 4 owners, which is the most (limits.owners): start the system"
    place.refuses(holder, REGISTER_OWNER, bodies[3], said)
    assert not holder.call(REGISTER_OWNER, bodies[0]).failed


@limit(2)
def late_ranges(place: Place) -> None:
    """The oldest is removed for the last time early; the others still wait."""
    holder = place.holder()
    store = data(1, "store")
    assert not holder.call(
        REGISTER_OWNER, store + number(2, 5) + data(3, "m") + number(5, 1)
    ).failed
    notice, ids = 0, []

    def collect() -> tuple[int, bool]:
        """Confirms the last notice; returns the block of the next one, and whether its writer has finished."""
        nonlocal notice
        answer = holder.call(COLLECT_DEAD, store + number(2, notice))
        notice = told(answer)
        first, finished = fields(answer.body)[2][0], fields(answer.body)[4][0]
        assert isinstance(first, bytes)
        [block] = fields(b"\x08" + first)[1]
        return int(block), finished == b"\1"

    for _ in range(3):
        ids.append(told(holder.call(GRANT_BLOCKS, store + number(3, 1))))
        assert not holder.call(ABANDON_BLOCKS, number(1, ids[-1]) + number(2, 1)).failed
        assert collect() == (ids[-1], False)
    assert collect() == (ids[0], True)


@limit("64KiB")
def event_bytes(place: Place) -> None:
    """The oldest events are dropped; a gap in the numbers shows it."""
    holder = place.holder()
    for index in range(200):
        assert not holder.call(RESERVE, reserve(name_of(index))).failed
    events = place.client.get_events()
    assert 40 < len(events) < 70
    assert events[0]["seq"] > 100
    assert events[-1]["partition"] == name_of(199)
    numbers = [each["seq"] for each in events]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


# --- checkpoints -------------------------------------------------------------------------------------


@limit(8)
def snapshots(place: Place) -> None:
    """One client may have a quarter; others can still save, and so can it after closing one."""
    holder = place.holder()
    marks = [told(holder.call(SNAPSHOT)) for _ in range(2)]
    said = "8 may be open, 2 of one session (limits.snapshots): wait until one is saved"
    place.refuses(holder, SNAPSHOT, b"", said)
    place.client.save_checkpoint(place.system.folder / "saved")
    assert not holder.call(SNAPSHOT_CLOSE, number(1, marks[0])).failed
    told(holder.call(SNAPSHOT))


@limit("300ms")
def snapshot_idle(place: Place) -> None:
    """One that is not read is closed; its reader learns why, and may begin again."""
    holder = place.holder()
    place.client.put({"x": [1]}, partition_id="p")
    mark = told(holder.call(SNAPSHOT))
    wait_line(place.daemon.log, "of 'holder' was not read for")
    said = "when it is not read for 0.3 s (limits.snapshot_idle): save again"
    place.refuses(holder, SNAPSHOT_READ, number(1, mark), said, code=ESTALE)
    # On a busy machine the next one may also be closed before it is read.
    assert any(
        not holder.call(SNAPSHOT_READ, number(1, told(holder.call(SNAPSHOT)))).failed
        for _ in range(50)
    )


@limit(8)
def restores(place: Place) -> None:
    """One client may have a quarter; others can still load, and so can it after dropping one."""
    holder = place.holder()
    part = data(2, b"part")
    marks = [told(holder.call(RESTORE_PART, part)) for _ in range(2)]
    said = "8 may be open, 2 of one session (limits.restores): wait until one is loaded"
    place.refuses(holder, RESTORE_PART, part, said)
    place.client.put({"x": [1]}, partition_id="p")
    place.client.save_checkpoint(place.system.folder / "saved")
    place.client.load_checkpoint(place.system.folder / "saved")
    assert not holder.call(RESTORE_DROP, number(1, marks[0])).failed
    told(holder.call(RESTORE_PART, part))


@limit("1MiB")
def restore_bytes(place: Place) -> None:
    """Parts are refused; the client learns it before it moves data, and was warned when it saved."""
    holder = place.holder()
    part = data(2, bytes(600 * KIB))
    mark = told(holder.call(RESTORE_PART, part))
    said = "start the system with limits.restore_bytes of at least 1228800"
    place.refuses(holder, RESTORE_PART, number(1, mark) + part, said)
    place.refuses(place.holder(), RESTORE_PART, part, said)
    assert not holder.call(RESTORE_DROP, number(1, mark)).failed
    saved = place.system.folder / "saved"
    tags = [{"t": "v" * 1500} for _ in range(1000)]
    keys = [f"k{index}" for index in range(1000)]
    place.client.kv_batch_put(keys, "p", {"x": np.arange(1000)}, tags)
    place.client.save_checkpoint(saved)
    warned = wait_line(place.daemon.log, "the table that 'watcher' saves has")
    assert "a system that is to load it needs limits.restore_bytes of at least" in warned
    before = place.state()
    with pytest.raises(TransferQueueError, match=r"limits\.restore_bytes of at least"):
        place.client.load_checkpoint(saved)
    assert place.state() == before
    place.client.clear_partition("p")
    place.client.save_checkpoint(saved)
    place.client.load_checkpoint(saved)


@limit("300ms")
def restore_idle(place: Place) -> None:
    """One that receives nothing is dropped; its client learns why, and may begin again."""
    holder = place.holder()
    mark = told(holder.call(RESTORE_PART, data(2, b"part")))
    wait_line(place.daemon.log, f"restore {mark} of 'holder' got nothing for")
    said = "gets nothing for 0.3 s (limits.restore_idle): load again"
    place.refuses(holder, RESTORE_PART, number(1, mark) + data(2, b"more"), said, code=ESTALE)
    told(holder.call(RESTORE_PART, data(2, b"part")))


# --- reads in place ----------------------------------------------------------------------------------

PINS = "(limits.pins, limits.pinned_blocks): read a copy"


class Pinner:
    """A holder with blocks in a unit whose memory it has mapped."""

    def __init__(self, place: Place, blocks: int) -> None:
        """Reserve the blocks."""
        controller = place.holder()
        granted = controller.call(GRANT_BLOCKS, data(1, "unit-0") + number(3, blocks))
        self.first, incarnation = told(granted), told(granted, 3)
        proof = fields(granted.body)[4][0]
        assert isinstance(proof, bytes)
        grant = number(1, self.first) + number(2, blocks) + data(3, proof)
        address = f"unix:{place.system.runtime}/unit-0.sock"
        self.unit = place.holder(address, controller.session)
        assert not self.unit.call(UNIT_MAP).failed
        ids = b"".join(number(1, self.first + each) for each in range(blocks))
        sizes = b"".join(number(2, 4096) for _ in range(blocks))
        reserved = self.unit.call(
            UNIT_RESERVE, ids + sizes + number(6, incarnation) + data(7, grant)
        )
        assert not reserved.failed, reserved.message
        slots = fields(reserved.body)[2][0]
        assert isinstance(slots, bytes)
        self.slots = list(
            fields(b"".join(b"\x08" + slots[at : at + 1] for at in range(len(slots))))[1]
        )

    def body(self, pin: int, blocks: list[int]) -> bytes:
        """A UnitPin of some of the blocks."""
        ids = b"".join(number(2, self.first + block) for block in blocks)
        slots = b"".join(number(3, int(self.slots[block])) for block in blocks)
        return number(1, pin) + ids + slots


def reads_go_on(place: Place, name: str, held: int) -> None:
    """A client of ours that may pin no more gets copies; nothing is refused."""
    rows = np.arange(64 * KIB, dtype=np.uint8)[None]
    before = place.counts()[name]
    read = []
    for index in range(held + 2):
        meta = place.client.put({"x": rows + index}, partition_id=f"q{index}")
        read.append(place.client.get_data(meta, zero_copy=True))
    assert place.counts()[name] == before + 2
    for index, batch in enumerate(read):
        assert (np.asarray(batch["x"][0]) == rows[0] + index).all()


@limit(2)
def pins(place: Place) -> None:
    """One read in place ends, and then there is room; a client of ours copies instead."""
    pinner = Pinner(place, 4)
    for pin in (1, 2):
        assert not pinner.unit.call(UNIT_PIN, pinner.body(pin, [pin])).failed
    said = "has 2 pins of 2 blocks in unit 'unit-0', with one of 1 it would have more than 2, or"
    place.refuses(pinner.unit, UNIT_PIN, pinner.body(3, [3]), said, PINS)
    assert not pinner.unit.call(UNIT_UNPIN, number(1, 1)).failed
    assert not pinner.unit.call(UNIT_PIN, pinner.body(3, [3])).failed
    assert not pinner.unit.call(UNIT_UNPIN, number(1, 2) + number(1, 3)).failed
    reads_go_on(place, "pins", 2)


@limit(3)
def pinned_blocks(place: Place) -> None:
    """The same if few pins have many blocks."""
    pinner = Pinner(place, 4)
    assert not pinner.unit.call(UNIT_PIN, pinner.body(1, [0, 1])).failed
    said = "has 1 pin of 2 blocks in unit 'unit-0', with one of 2 it would have more than"
    place.refuses(pinner.unit, UNIT_PIN, pinner.body(2, [2, 3]), said, PINS)
    assert not pinner.unit.call(UNIT_PIN, pinner.body(2, [2])).failed
    assert not pinner.unit.call(UNIT_UNPIN, number(1, 1) + number(1, 2)).failed
    reads_go_on(place, "pinned_blocks", 3)


# --- all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_beyond_a_limit_is_refused_and_counted_and_all_else_goes_on(
    system: System, name: str
) -> None:
    place = Place(system, CASES[name].settings)
    before = place.counts()
    assert not any(before.values())
    with place.holders:
        CASES[name].run(place)
        after = place.counts()
        assert {limit for limit, times in after.items() if times} == {name}
        place.goes_on()


def test_each_limit_has_its_case() -> None:
    """The cases are the limits in the configuration's table."""
    keys = {path.removeprefix("limits.") for path in TABLE if path.startswith("limits.")}
    assert keys == set(CASES)
