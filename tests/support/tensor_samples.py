"""torch's own list of operations on nested tensors, with its own samples, run on tensors that were read.

torch makes a sample of random nested tensors.  Here it gets the tensors of a batch, and its sample is a template:
each tensor of the batch in it is replaced by one that was just read, or just made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.testing._internal.opinfo.definitions import nested as definitions
from torch.utils._pytree import tree_map

from .tensor_forms import Batch

COLUMNS = {2: "f", 3: "x", 4: "deep"}
"""The column of a batch by its number of dims."""


class Sample(NamedTuple):
    """One call of one of torch's operations."""

    name: str
    operation: Any
    input: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def operations() -> list[Any]:
    """Those torch operations that have samples of nested tensors."""
    return [each for each in definitions.njt_op_db if each.supports_njt]


def samples(batch: Batch, operation: Any, most: int) -> list[Sample]:
    """The first samples of an operation on a batch of nested tensors."""

    def njts(
        device: str, dtype: Any, requires_grad: bool = False, dims: Any = None
    ) -> Iterator[Any]:
        wanted = dims if isinstance(dims, (list, tuple)) else [dims] if dims else list(COLUMNS)
        for dim in wanted:
            if dim in COLUMNS:
                yield getattr(batch, COLUMNS[dim]).clone()

    made = []
    torch.manual_seed(7)
    with mock.patch.object(definitions, "_sample_njts", njts):
        try:
            for sample in operation.sample_inputs("cpu", torch.float32, False):
                leaves = (sample.input, tuple(sample.args), dict(sample.kwargs))
                if any(_column_of(batch, leaf) for leaf in _leaves(leaves)):
                    made.append(Sample(f"{operation.full_name} {sample.name}", operation, *leaves))
                if len(made) == most:
                    break
        except (RuntimeError, TypeError, ValueError, IndexError):
            pass  # torch's samples do not fit nested tensors of such rows: use those made so far
    return made


def has_gradients(template: Batch, sample: Sample) -> bool:
    """Whether to compare gradients of the sample: some, of torch's views and of no tokens, crash the process."""
    operation = sample.operation
    return bool(
        operation.supports_autograd
        and not operation._extra_op_data.is_view
        and template.f.values().numel()
    )


def run(template: Batch, sample: Sample, backward: bool = False) -> Callable[[Batch], Any]:
    """The sample as an operation on another batch of the same rows, with the gradients with respect to its tensors."""

    def call(b: Batch) -> Any:
        leaves: list[Any] = []

        def replace(leaf: Any) -> Any:
            made = _replaced(template, b, leaf)
            if backward and isinstance(made, torch.Tensor) and made.is_floating_point():
                made = made.requires_grad_() if made.is_leaf else made
                leaves.append(made)
            return made

        parts = tree_map(replace, (sample.input, sample.args, sample.kwargs))
        result = sample.operation.op(parts[0], *parts[1], **parts[2])
        if not backward:
            return result
        outputs = [each for each in _leaves(result) if each.requires_grad]
        for each in outputs:
            (each.values() if each.is_nested else each).real.sum().backward(retain_graph=True)
        return result, [leaf.grad for leaf in leaves]

    return call


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, torch.Tensor) else None, value)
    return found


def _column_of(template: Batch, leaf: Any) -> str | None:
    """The column of which a tensor in a sample is a copy."""
    if not isinstance(leaf, torch.Tensor) or not leaf.is_nested:
        return None
    for name in COLUMNS.values():
        column = getattr(template, name)
        if leaf.dim() == column.dim() and leaf._offsets is column._offsets:
            same = leaf.dtype == column.dtype and torch.equal(leaf._values, column._values)
            return name if same else f"like {name}"
    return None


def _replaced(template: Batch, batch: Batch, leaf: Any) -> Any:
    """The batch's tensor in place of the template's; copies of everything else."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    column = _column_of(template, leaf)
    if column is None:
        return leaf.detach().clone()
    if not column.startswith("like "):
        return getattr(batch, column)
    # A tensor that torch made in the form of the column: different elements in the same layout.
    other = getattr(batch, column.removeprefix("like "))
    if not other.is_nested:
        return torch.rand(other.shape, generator=torch.Generator().manual_seed(1)).to(leaf.dtype)
    return torch.nested.nested_tensor_from_jagged(
        leaf._values.clone(), other.offsets(), jagged_dim=leaf._ragged_idx,
        min_seqlen=other._maybe_min_seqlen, max_seqlen=other._maybe_max_seqlen,
    )  # fmt: skip
