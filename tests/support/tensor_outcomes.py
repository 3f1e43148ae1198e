"""Outcomes of operations on tensors, in a form that can be compared."""

from __future__ import annotations

import dataclasses
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase


@dataclasses.dataclass
class Outcome:
    """Words that must be the same, and tensors that must be equal."""

    words: list[str] = dataclasses.field(default_factory=list)
    tensors: list[Any] = dataclasses.field(default_factory=list)

    def note(self, value: Any, elements: bool = True) -> None:
        """Add a result; `elements`: whether the elements of tensors must be equal too."""
        if isinstance(value, torch.Tensor):
            self._note_tensor(value, elements)
        elif isinstance(value, TensorDictBase):
            self.words.append(f"{type(value).__name__} {tuple(value.batch_size)} {value.device}")
            for name in sorted(value.keys()):
                self.words.append(name)
                self.note(value.get(name), elements)
        elif isinstance(value, Mapping):
            self.words.append(f"{type(value).__name__} {list(value)}")
            for item in value.values():
                self.note(item, elements)
        elif isinstance(value, (list, tuple)):
            self.words.append(f"{type(value).__name__} of {len(value)}")
            for item in value:
                self.note(item, elements)
        elif isinstance(value, numbers.Number) and not isinstance(value, bool):
            self.words.append(type(value).__name__)
            if elements:
                self.tensors.append(torch.tensor(value, device="cpu"))
        else:
            self.words.append(_plain(repr(value)))

    def _note_tensor(self, tensor: Any, elements: bool) -> None:
        traits = (
            f"{type(tensor).__name__} {tensor.layout} {tensor.dtype} {tensor.device}"
            f" grad {tensor.requires_grad} leaf {tensor.is_leaf} inference {tensor.is_inference()}"
        )
        if tensor.layout == torch.jagged:
            self.words.append(
                f"{traits} ragged {tensor._ragged_idx} of {tensor.dim()}, contiguous"
                f" {tensor.is_contiguous()}, {tensor._maybe_min_seqlen} to {tensor._maybe_max_seqlen}"
            )
            for part in (tensor._values, tensor._offsets, tensor._lengths):
                self.note(part, elements)
        elif tensor.is_nested:
            self.words.append(traits)
            for row in tensor.unbind():
                self.note(row, elements)
        else:
            is_strided = tensor.layout == torch.strided
            where = f" {tensor.stride()} {tensor.storage_offset()}" if is_strided else ""
            self.words.append(f"{traits} {tuple(tensor.shape)}{where} view {tensor._is_view()}")
            if elements and tensor.device.type != "meta":
                self.tensors.append(tensor.detach())


def outcome(operation: Callable[[Any], Any], batch: Any, elements: bool = True) -> Outcome:
    """What an operation on a batch returned or raised, and the state of the batch afterwards."""
    made = Outcome()
    torch.manual_seed(7)
    try:
        made.note(operation(batch), elements)
    except Exception as error:  # noqa: BLE001  torch must raise the same for both
        made = Outcome([f"raised {type(error).__name__}"])
    made.note(batch if isinstance(batch, TensorDictBase) else batch.x)
    return made


def difference(expected: Outcome, actual: Outcome) -> str | None:
    """How two outcomes differ; None if they do not."""
    if expected.words != actual.words:
        pairs = zip([*expected.words, None], [*actual.words, None], strict=False)
        one, other = next(pair for pair in pairs if pair[0] != pair[1])
        return f"expected {one}, got {other}"
    for one, other in zip(expected.tensors, actual.tensors, strict=True):
        if not _equal(one, other):
            return f"expected {one}, got {other}"
    return None


def _plain(text: str) -> str:
    """Text without parts that vary: numbers of ragged sizes, and addresses."""
    return re.sub(r"\bj\d+\b", "j", re.sub(r"0x[0-9a-f]+", "0x", text))


def _equal(one: Any, other: Any) -> bool:
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    if one.is_floating_point() or one.is_complex():
        if one.element_size() == 1:
            return bool(torch.equal(one.view(torch.uint8), other.view(torch.uint8)))
        return bool(torch.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True))
    return bool(torch.equal(one, other))


class Tally:
    """How many operations on how many forms were compared, and how many had equal outcomes."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], bool] = {}
        self._cases = 0

    def add(self, form: str, found: Mapping[str, str | None]) -> None:
        """Count the cases of a form: each operation, and how its outcomes differ."""
        self._cases += len(found)
        for name, differs in found.items():
            pair = (form, name)
            self._pairs[pair] = self._pairs.get(pair, True) and differs is None

    def line(self) -> str | None:
        """The summary; None if nothing was compared."""
        if not self._pairs:
            return None
        equal, forms = sum(self._pairs.values()), {form for form, _ in self._pairs}
        return (
            f"tensor battery: {equal} of {len(self._pairs)} operations x forms equal"
            f" ({self._cases} cases, {len(forms)} forms and modes)"
        )


TALLY = Tally()
