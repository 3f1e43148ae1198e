"""NonTensorStacks: tensordict's form of columns of values, with one small TensorDict per row.

tensordict builds these row by row in Python code.  A column of plain values (texts, numbers) is built faster here, by
copying a member made by tensordict, as long as members look as in versions 0.10 to 0.15; otherwise tensordict does it.
"""

from __future__ import annotations

import functools
from typing import Any

from .._core import pause, stamp

_PLAIN = frozenset((str, bytes, int, float, bool, dict, list))
"""Types of values that a member stores unchanged."""
_AT_ONCE = 256
"""Rows added to a stack before other threads get a turn."""


def stacked_values(column: Any) -> list[Any]:
    """The rows of a NonTensorStack."""
    if len(column) <= _AT_ONCE or column.stack_dim:
        return list(column.tolist())
    values: list[Any] = []
    members = column.tensordicts
    for start in range(0, len(members), _AT_ONCE):
        values += [each.tolist() for each in members[start : start + _AT_ONCE]]
        pause()
    return values


def stack_of_objects(rows: list[Any]) -> Any:
    """Rows that are not all tensors: a stack of TensorDicts if all are TensorDicts, otherwise of values."""
    from tensordict import NonTensorData, NonTensorStack, TensorDict, TensorDictBase

    kinds = set(map(type, rows))
    if rows and kinds <= _PLAIN:
        member = _pattern()
        if member is not None:
            return _stack(stamp(member, rows, len(rows) > _AT_ONCE))
    maps = [issubclass(kind, TensorDictBase) for kind in kinds]
    if maps and all(maps):
        return TensorDict.maybe_dense_stack(rows, 0)
    if any(maps):
        rows = [NonTensorData(data=row) for row in rows]
    if len(rows) <= _AT_ONCE:
        return NonTensorStack(*rows)
    members: list[Any] = []
    for start in range(0, len(rows), _AT_ONCE):
        members += NonTensorStack(*rows[start : start + _AT_ONCE]).tensordicts
        pause()
    return NonTensorStack(*members)


@functools.cache
def _pattern() -> Any:
    """A template member for stacks of plain values; None if this tensordict builds different ones than expected."""
    import torch
    from tensordict import NonTensorStack, TensorDict

    values: list[Any] = ["", b"bytes", 7, 0.5, True, {"key": [1]}, ["item", {}]]
    stacks = [NonTensorStack(value, value) for value in values]
    members = [stack.tensordicts[0] for stack in stacks]
    for value, member in zip(values, members, strict=True):
        outer = dict(getattr(member, "__dict__", {}))
        inner, held = outer.pop("_tensordict", None), outer.pop("_non_tensordict", None)
        if type(inner) is not TensorDict or type(member) is not type(members[0]):
            return None
        parts = dict(inner.__dict__)
        empty, size = parts.pop("_tensordict", None), parts.pop("_batch_size", None)
        expected: Any = {"data": value, "_metadata": None, "_is_non_tensor": True}
        if held != expected or held["data"] is not value or outer != {"_is_initialized": True}:
            return None
        if type(empty) is not dict or empty or size != torch.Size([]) or _holds_more(parts):
            return None
    return members[0]


@functools.cache
def _is_simple() -> bool:
    """Whether a stack consists of just its list of members and their number."""
    import torch
    from tensordict import NonTensorStack

    stack = NonTensorStack("one", "two")
    parts = dict(stack.__dict__)
    members, size = parts.pop("tensordicts", None), parts.pop("_batch_size", None)
    if type(members) is not list or len(members) != 2 or parts.pop("stack_dim", None) != 0:
        return False
    return type(size) is torch.Size and size == torch.Size([2]) and not _holds_more(parts)


def _holds_more(parts: dict[str, Any]) -> bool:
    """Whether any part is not empty."""
    return any(value is not None and value is not False for value in parts.values())


def _stack(members: list[Any]) -> Any:
    """A stack of uniform members; tensordict would inspect each of them."""
    import torch
    from tensordict import NonTensorStack

    if not _is_simple():
        return NonTensorStack(*members)
    stack = NonTensorStack(members[0])
    stack.__dict__.update(tensordicts=members, _batch_size=torch.Size([len(members)]))
    return stack
