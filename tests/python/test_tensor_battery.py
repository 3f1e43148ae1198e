"""Tensors that were read, compared with torch's own of the same layout and rows: operations have the same outcome.

Compared are the results (elements, shape, dtype, layout, gradients, state of the operand) or the class of the error.
The operations are those of `support.tensor_operations`, and torch's own list for nested tensors.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from support.tensor_forms import FORMS, Batch, Form, jagged
from support.tensor_operations import CONDITIONS, OPERATIONS
from support.tensor_outcomes import TALLY, Outcome, difference, outcome

pytestmark = pytest.mark.filterwarnings("ignore")

CASES = [(form, count) for form in FORMS for count in form.lengths]
PAIRS = [(case, case) for case in CASES]
NAMES = [f"{form.name}-{count}" for form, count in CASES]
BY_NAME = {form.name: form for form in FORMS}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are small, so threads would only add cost."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def read(tq: Any, pid: str, request: pytest.FixtureRequest) -> Any:
    """A function that reads the batch of a form and count again; the batch is put once."""
    form, count = request.param
    keys = form.put(tq, count, pid)
    return functools.partial(form.get, tq, keys, pid)


@functools.cache
def expected(name: str, count: str) -> dict[str, Outcome]:
    """Outcomes of the operations on torch's own tensors, shared by forms that read the same tensors."""
    form = BY_NAME[name]
    for other in FORMS[: FORMS.index(form)]:
        alike = (other.own, other.lengths, other.ragged, other.inner)
        if alike == (form.own, form.lengths, form.ragged, form.inner):
            return expected(other.name, count)
    return {each: outcome(operation, form.make(count)) for each, operation in OPERATIONS.items()}


def check(form: str, found: dict[str, str | None]) -> None:
    """Count the comparisons, and name the first differences."""
    TALLY.add(form, found)
    differing = [f"{name}: {why}" for name, why in found.items() if why is not None]
    assert not differing, f"{len(differing)} of {len(found)} differ:\n" + "\n".join(differing[:20])


@pytest.mark.slow
@pytest.mark.parametrize(("read", "case"), PAIRS, ids=NAMES, indirect=["read"])
def test_operations(read: Any, case: tuple[Form, str]) -> None:
    form, count = case
    wanted = expected(form.name, count)
    check(form.name, {name: difference(wanted[name], outcome(operation, read()))
                      for name, operation in OPERATIONS.items()})  # fmt: skip


LISTED = [case for case in CASES if case[0] is FORMS[0]]
"""Forms to run torch's list on: half a minute each, so `make test` runs one, and `make test-full` all."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "case"),
    [
        pytest.param(case, case, marks=() if case[1] == "many rows" else pytest.mark.full)
        for case in LISTED
    ],
    ids=[f"{form.name}-{count}" for form, count in LISTED],
    indirect=["read"],
)
def test_torchs_own_list(read: Any, case: tuple[Form, str]) -> None:
    pytest.importorskip("expecttest")
    from support import tensor_samples

    form, count = case
    template = jagged(form.lengths[count], form.ragged, form.inner)
    most = 3 if count == "many rows" else 1
    found: dict[str, str | None] = {}
    for operation in tensor_samples.operations():
        for sample in tensor_samples.samples(template, operation, most):
            backward = form.is_jagged and tensor_samples.has_gradients(template, sample)
            run = tensor_samples.run(template, sample, backward)
            differs = difference(outcome(run, form.make(count)), outcome(run, read()))
            found[sample.name] = differs
    assert len(found) > 200, "torch's list has become empty"
    check(form.name, found)


# --- conditions and modes -------------------------------------------------------------------------

MANY = [(BY_NAME[name], "many rows") for name in ("jagged", "jagged, ragged dim 2", "dense")]
CHANGED = [(case, name) for case in MANY for name in CONDITIONS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "case", "condition"),
    [(case, case, name) for case, name in CHANGED],
    ids=[f"{case[0].name}-{name}" for case, name in CHANGED],
    indirect=["read"],
)
def test_operations_after_a_change(read: Any, case: tuple[Form, str], condition: str) -> None:
    """On copies of the tensors: pickled, cloned, moved to shared memory."""
    form, count = case
    change = CONDITIONS[condition]
    check(f"{form.name}, {condition}", {
        name: difference(outcome(operation, change(form.make(count))), outcome(operation, change(read())))
        for name, operation in OPERATIONS.items()
    })  # fmt: skip


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Any] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "default device": lambda: torch.device("meta"),
    "default dtype": default_dtype,
}
AS_A_CLONE = {("no_grad", "in place on its values")}
"""Allowed by torch on its own nested tensors while they are views of their values, but not on clones of them."""
IN_MODES = [(case, name) for case in MANY for name in MODES]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "case", "mode"),
    [(case, case, name) for case, name in IN_MODES],
    ids=[f"{case[0].name}-{name}" for case, name in IN_MODES],
    indirect=["read"],
)
def test_operations_in_a_mode(read: Any, case: tuple[Form, str], mode: str) -> None:
    """Read in the mode, and used in the mode."""
    form, count = case
    enter = MODES[mode]
    # Defaults apply where tensors are made, not where they are read: torch's own are made without them.
    makes_own = mode in ("inference_mode", "no_grad")

    def own() -> Batch:
        with enter() if makes_own else contextlib.nullcontext():
            return form.make(count)

    # An operation that makes an index on the meta device returns uninitialised elements.
    elements = mode != "default device"
    found: dict[str, str | None] = {}
    for name, operation in OPERATIONS.items():
        made = own() if (mode, name) not in AS_A_CLONE else CONDITIONS["cloned"](own())
        with enter():
            wanted = outcome(operation, made, elements)
            actual = outcome(operation, read(), elements)
        found[name] = difference(wanted, actual)
    check(f"{form.name}, {mode}", found)


@pytest.mark.slow
@pytest.mark.parametrize("read", [MANY[0]], ids=["jagged"], indirect=True)
def test_read_in_inference_mode_and_used_outside(read: Any) -> None:
    form, count = MANY[0]

    def outside(make: Any) -> Batch:
        with torch.inference_mode():
            batch: Batch = make()
        return batch

    check("jagged, inference_mode before", {
        name: difference(outcome(operation, outside(functools.partial(form.make, count))),
                         outcome(operation, outside(read)))
        for name, operation in OPERATIONS.items()
    })  # fmt: skip


def test_an_empty_selection_has_no_columns(tq: Any, client: Any, pid: str) -> None:
    """Without rows the dtype is unknown: a batch of no rows, as in TransferQueue."""
    FORMS[0].put(tq, "many rows", pid)
    meta = client.kv_retrieve_meta(["k0"], pid)
    reads = [client.get_data(meta.select_samples([])), client.get_data(tq.BatchMeta.empty())]
    for empty in reads:
        assert empty.batch_size == (0,)
        assert list(empty.keys()) == []
        assert copy.deepcopy(empty).batch_size == empty.clone().batch_size == (0,)
        assert torch.cat([empty, empty]).batch_size == (0,)
