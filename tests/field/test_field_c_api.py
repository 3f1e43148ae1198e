"""Faults that users met in the C library: the obvious code is safe, NULL is refused by name, others can read values."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support.daemons import System
from transferq._impl.calls import run
from transferq.errors import SerializationError, TransferQueueError

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = os.environ["TQ_TEST_BUILD"]


def c_api(system: System, step: str) -> list[str]:
    """The output lines of a step of the program; the allocator overwrites freed memory."""
    done = subprocess.run(
        [str(Path(BUILD) / "tests" / "field" / "field_c_api"), step],
        env={**system.environment(), "MALLOC_PERTURB_": "165"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_was_claimed_is_read_with_the_same_op(running: System) -> None:
    running.client().put({"x": np.arange(4)}, partition_id="p")
    assert c_api(running, "chain") == ["0 1", "2 cleared"]


def test_the_meta_of_a_failed_claim_is_refused_by_name(running: System) -> None:
    running.client().put({"x": np.arange(4)}, partition_id="p")
    assert c_api(running, "failed") == ["1", "TQ_EINVAL", "meta to read is NULL"]


def test_every_public_function_is_tried_with_null() -> None:
    """tests/c/client/null_test.c tries them all; no header is missing there."""
    tried = (ROOT / "tests/c/client/null_test.c").read_text()
    declared: set[str] = set()
    for header in sorted((ROOT / "include/tq").glob("*.h")):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        declared |= set(re.findall(r"TQ_API[^;(]*?\b(tq_\w+)\(", text))
    assert len(declared) > 100
    assert [name for name in sorted(declared) if not re.search(rf"\b{name}\(", tried)] == []


def test_raw_text_in_place_of_a_value_is_named_by_its_readers(running: System) -> None:
    c_api(running, "raw")
    client = running.client()
    meta = client.get_meta(["text"], 2, "v", mode="force_fetch")
    with pytest.raises(SerializationError) as raised:
        client.get_data(meta)["text"].tolist()
    assert isinstance(raised.value, TransferQueueError)
    for words in ("field 'text', row 1", "104 101 108 108 111", "MessagePack", "docs/values.md"):
        assert words in str(raised.value)
    printed = running.tq("get", "v")
    assert "not encoded (104 101 108 108 111)" in printed
    assert '"ok!"' in printed


def test_values_and_tags_of_c_are_those_of_python(running: System) -> None:
    c_api(running, "values")
    client = running.client()
    meta = client.get_meta(["value"], 4, "v", mode="force_fetch")
    values = client.get_data(meta)["value"]
    assert (values.tolist() if hasattr(values, "tolist") else list(values)) == [
        "héllo", -5, {"a": [1.5, None, True], "b": b"\0\xff"}, 2**64 - 1,
    ]  # fmt: skip
    assert meta.custom_meta == [{"step": 100 * i} for i in range(4)]


def test_values_of_python_are_read_in_c(running: System) -> None:
    client = running.client()
    for key, value in enumerate(["é", 7, -1.5, [1, 2, 3], {"a": 1}, None, 2**80]):
        run(client._kv_put(str(key), "v", {"value": value}, None, None, group=None))
    assert c_api(running, "look") == [
        "5 é 0 0", "2  7 0", "4  -1.5 0", "7  0 3", "8  0 1", "0  0 0", "9  0 0",
    ]  # fmt: skip
