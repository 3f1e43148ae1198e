"""The errors that users meet most often name the thing, the value, the limit and the remedy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.error_cases import CASES, Case
from support.provoked import Scene
from support.runtime import own_runtime


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Systems for this module; the process itself is attached to none."""
    with own_runtime():
        made = Scene(tmp_path_factory.mktemp("scene"))
        yield made
        made.close()


def test_there_are_forty_and_more() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=case.name.replace(" ", "-"),
            marks=[pytest.mark.slow] if case.slow else [],
        )
        for case in CASES
    ],
)
def test_an_error_names_thing_value_limit_and_remedy(scene: Scene, case: Case) -> None:
    if case.kind is None:
        text = str(case.provoke(scene))
    else:
        with pytest.raises(case.kind) as raised:
            case.provoke(scene)
        assert type(raised.value) is case.kind
        text = str(raised.value)
    assert case.misses(text) == [], text
