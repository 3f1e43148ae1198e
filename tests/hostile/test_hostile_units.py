"""What a client with the token could do to storage units, to their owners at the controller, and to waiting claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from holder import Holder, data, fields, number

from support.daemons import System

SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
GRANT_BLOCKS, REGISTER_OWNER, LIST_OWNERS, REPORT_LOST, COMPACT_MOVE, UNIT_RESERVE = (
    28,
    30,
    33,
    34,
    35,
    65,
)
ESTALE = -20
MIB = 1 << 20
ROWS = {"value": torch.arange(60, dtype=torch.float32).reshape(60, 1)}


def grant_ids(holder: Holder, count: int) -> dict[int, list[int | bytes]]:
    """A grant of the unit's block ids."""
    answer = holder.call(GRANT_BLOCKS, data(1, "unit-0") + number(3, count))
    assert not answer.failed
    found: dict[int, list[int | bytes]] = fields(answer.body)
    return found


def values(data: Mapping[str, Any]) -> list[float]:
    """The values read, in ascending order."""
    return sorted(row.item() for row in data["value"].unbind())


def test_ids_that_were_not_granted_take_no_memory_and_stop_no_put(system: System) -> None:
    system.start(settings=SMALL)
    client = system.client()
    with (
        Holder(system.address.split(",")[0], system.token_file) as controller,
        Holder(f"unix:{system.runtime}/unit-0.sock", system.token_file) as unit,
    ):
        ahead = int(grant_ids(controller, 1)[1][0])
        for block in range(ahead, ahead + 2000):
            answer = unit.call(UNIT_RESERVE, number(1, block) + number(2, MIB) + number(3, 1))
            assert answer.code == ESTALE
            assert "was not granted to this session" in answer.message
        for row in range(60):
            client.put({"value": ROWS["value"][row : row + 1]}, partition_id="p")
        meta = client.get_meta(["value"], 60, "p", task_name="t")
        assert values(client.get_data(meta)) == ROWS["value"].flatten().tolist()


def test_a_grant_is_worth_nothing_to_another_session(system: System) -> None:
    system.start(settings=SMALL)
    with (
        Holder(system.address.split(",")[0], system.token_file) as controller,
        Holder(f"unix:{system.runtime}/unit-0.sock", system.token_file) as unit,
    ):
        mine = grant_ids(controller, 8)
        first = int(mine[1][0])
        grant = number(1, first) + number(2, 8) + data(3, bytes(mine[4][0]))
        wanted = number(1, first) + number(2, 100) + data(7, grant)
        assert unit.session != controller.session
        assert unit.call(UNIT_RESERVE, wanted).code == ESTALE


def test_only_the_unit_speaks_for_its_blocks(system: System) -> None:
    system.start(settings=SMALL)
    client = system.client()
    meta = client.put(ROWS, partition_id="p")
    with Holder(system.address.split(",")[0], system.token_file) as holder:
        (unit,) = fields(holder.call(LIST_OWNERS).body)[1]
        found = fields(bytes(unit))
        incarnation = int(found[2][0])
        for claimed in (incarnation, incarnation ^ 1):
            place = data(1, "unit-0") + number(2, claimed) + data(3, "SimpleStorage")
            answer = holder.call(REGISTER_OWNER, place + data(7, b"k" * 32))
            assert answer.failed
            assert "unit-0" in answer.message
        mine = int(grant_ids(holder, 1)[1][0])
        owner = data(1, "unit-0") + number(2, incarnation)
        to = number(1, mine) + number(3, 240) + data(4, b"\x01" * 12)
        answer = holder.call(COMPACT_MOVE, data(1, owner) + number(2, 1) + data(3, to))
        assert answer.failed
        # Every possible id is reported; the unit, when asked, has them.
        lost = b"".join(number(1, block) for block in range(1, mine))
        assert not holder.call(REPORT_LOST, lost).failed
    for _ in range(3):
        client.put(ROWS, partition_id="others")
    assert values(client.get_data(meta)) == ROWS["value"].flatten().tolist()
    assert bool(client.check_production_status(["value"], "p"))


@pytest.mark.parametrize("sampler", ["GRPOGroupNSampler", "RankAwareSampler"])
def test_the_configuration_of_a_claim_is_bounded(system: System, sampler: str) -> None:
    system.start(settings=SMALL)
    client = system.client()
    with pytest.raises(ValueError, match=r"sampling_config of [0-9]+ bytes: it may have at most"):
        client.get_meta(
            ["value"],
            8,
            "p",
            task_name="t",
            sampling_config={"sampler": sampler, "dp_rank": 0, "notes": "x" * (20 * MIB)},
        )
    assert client.get_partition_list() == []
