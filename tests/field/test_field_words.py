"""Errors of the package use the names that the user knows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from transferq import errors
from transferq._impl.system import system_name


def test_a_call_is_named_as_it_is_called(client: Any, pid: str) -> None:
    with pytest.raises(TypeError, match=r"^put\(\) got an unexpected keyword argument 'timeout'"):
        client.put({"x": np.arange(2)}, partition_id=pid, timeout=7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a/b", "'/' is not allowed in a system's name"),
        (".a", "does not begin with a dot"),
        ("a" * 65, "at most 64 bytes, this one 65"),
    ],
)
def test_a_bad_name_of_a_system_says_what_is_bad(
    monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv("TQ_SYSTEM", name)
    with pytest.raises(errors.NameLengthError, match=re.escape(words)):
        system_name()


def test_a_timeout_names_the_system_once(client: Any, pid: str) -> None:
    client.put({"x": np.arange(2)}, partition_id=pid)
    with pytest.raises(errors.TimedOutError) as caught:
        client.get_meta(["x"], 3, pid, task_name="t", timeout=0.1)
    assert str(caught.value).count("asked the system") == 1


def test_one_sample_is_a_sample(client: Any, pid: str) -> None:
    batch = client.put({"x": np.arange(2)}, partition_id=pid)
    client.put({"y": np.arange(1)}, metadata=batch[:1])
    both = client.get_meta(["x", "y"], 1, pid, mode="force_fetch")
    with pytest.raises(errors.NotReadyError, match=r"field 'y' of sample \d+:"):
        client.get_data(both)
