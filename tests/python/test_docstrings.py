"""The examples in docstrings run as printed."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

import transferq

torch = pytest.importorskip("torch")
pytest.importorskip("tensordict")


def example(function: Callable[..., Any]) -> str:
    """The block at the end of a docstring that is indented further than its text."""
    lines = (inspect.getdoc(function) or "").splitlines()
    block = [line for line in lines if line.startswith("    ")]
    assert block
    return textwrap.dedent("\n".join(block))


def test_put_and_get_data(client: transferq.TransferQueueClient) -> None:
    prompts = torch.nested.nested_tensor([torch.arange(2), torch.arange(3)], layout=torch.jagged)
    names: dict[str, Any] = {"client": client, "prompts": prompts, "rewards": torch.ones(2)}
    exec(example(transferq.TransferQueueClient.put), names)
    assert names["meta"].field_names == ["prompt", "reward"]
    exec(example(transferq.TransferQueueClient.get_data), names)
    assert names["data"]["prompt"].tolist() == [[0, 1, -1], [0, 1, 2]]


def test_init(client: transferq.TransferQueueClient) -> None:
    names: dict[str, Any] = {"transferq": transferq}
    exec(example(transferq.init), names)
    assert names["config"].address == client.config.address
