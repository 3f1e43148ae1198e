"""The Ray holder's table of tensors: overwrites, even concurrent ones, clears, and what is dropped when."""

from __future__ import annotations

from typing import Any

import pytest

from transferq.storage.ray.records import Column, Records

SAMPLES = [(7, 1), (8, 1), (9, 2)]


class Known:
    """Records, and the groups they have dropped."""

    def __init__(self) -> None:
        self.forgotten: list[Any] = []
        self.records = Records(self.forgotten.extend)

    def add(self, name: str, *fields: str, samples: list[tuple[int, int]] = SAMPLES) -> None:
        """Add a record whose groups are named after it, with two rows each."""
        groups = [f"{name}0", f"{name}1"][: (len(samples) + 1) // 2]
        starts = list(range(0, len(samples), 2))
        self.records.add_record(
            name,
            samples,
            {field: Column({}, starts, [g + field for g in groups]) for field in fields},
        )

    def find(self, field: str, name: str | None, *indexes: int) -> list[Any]:
        """Group of each sample, None for a lost cell."""
        parts, refs, lost = self.records.locate(list(indexes), {field: [name] * len(indexes)})
        found: list[Any] = [None] * len(indexes)
        for part in parts:
            for position, group in zip(part.positions, part.groups_of_rows(), strict=True):
                found[position] = refs[part.groups[group]]
        assert sorted(position for _, position in lost) == [
            i for i, x in enumerate(found) if x is None
        ]
        return found


@pytest.fixture
def known() -> Known:
    """No records yet."""
    return Known()


def test_rows_lie_in_groups(known: Known) -> None:
    """In any order, some of them, and one that does not exist."""
    known.add("a", "x", "y")
    known.records.publish_record("a")
    assert known.find("x", "a", 9, 7, 8) == ["a1x", "a0x", "a0x"]
    assert known.find("y", "a", 8, 10) == ["a0y", None]
    assert known.find("z", "a", 8) == [None]


def test_an_overwrite_forgets_what_it_replaces(known: Known) -> None:
    """Only once it is published; an older note finds the new one."""
    known.add("a", "x", "y")
    known.records.publish_record("a")
    known.add("b", "x")
    assert known.find("x", "a", 7) == ["a0x"]
    assert known.forgotten == []
    known.records.publish_record("b")
    assert known.find("x", "a", 7, 9) == ["b0x", "b1x"]
    assert known.find("y", "a", 7) == ["a0y"]
    assert known.forgotten == ["a0x", "a1x"]


def test_a_part_is_overwritten(known: Known) -> None:
    """A column is dropped with its last cell."""
    known.add("a", "x")
    known.records.publish_record("a")
    for name, sample in (("b", (7, 1)), ("c", (8, 1))):
        known.add(name, "x", samples=[sample])
        known.records.publish_record(name)
    assert known.find("x", "a", 7, 8, 9) == ["b0x", "c0x", "a1x"]
    assert known.forgotten == []
    known.add("d", "x", samples=[(9, 2)])
    known.records.publish_record("d")
    assert known.forgotten == ["a0x", "a1x"]
    assert known.records.records() == 3


def test_overwrites_at_once_both_stay(known: Known) -> None:
    """The controller may have received them in either order."""
    known.add("a", "x")
    known.records.publish_record("a")
    known.add("b", "x")
    known.add("c", "x")
    known.records.publish_record("c")
    known.records.publish_record("b")
    assert known.find("x", "b", 7) == ["b0x"]
    assert known.find("x", "c", 7) == ["c0x"]
    assert known.forgotten == ["a0x", "a1x"]
    known.records.clear_samples(SAMPLES)
    assert known.records.records() == 0
    assert sorted(known.forgotten[2:]) == ["b0x", "b1x", "c0x", "c1x"]


def test_a_put_that_failed(known: Known) -> None:
    """It is dropped, and earlier data stays; both calls may be repeated."""
    known.add("a", "x")
    known.records.publish_record("a")
    known.add("b", "x")
    known.records.drop_record("b")
    known.records.drop_record("b")
    assert known.forgotten == ["b0x", "b1x"]
    assert known.find("x", "a", 8) == ["a0x"]


def test_clear_goes_by_incarnation(known: Known) -> None:
    """Metadata of a sample whose index was reused since clears nothing; 0 is any incarnation."""
    known.add("a", "x")
    known.records.publish_record("a")
    known.records.clear_samples([(9, 1), (7, 1), (8, 0)])
    assert known.find("x", "a", 7, 8, 9) == [None, None, "a1x"]
    assert known.forgotten == []
    known.records.clear_samples([(9, 2)])
    known.records.clear_samples([(9, 2)])
    assert known.forgotten == ["a0x", "a1x"]
    assert known.records.records() == 0
