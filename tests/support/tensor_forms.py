"""Batches of tensors in the forms that reads return, and torch's own tensors of the same rows.

A `Form` puts the columns of a `Batch` once and reads them as often as requested; `own` makes the same batch with only
torch's public functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict

ROWS = {"rows of no tokens": [0, 0, 0], "one row": [4], "many rows": [3, 0, 5, 1, 2]}
EQUAL = {"rows of no tokens": [0, 0, 0], "one row": [4], "many rows": [3, 3, 3, 3, 3]}
LARGE = {"one row": [64], "many rows": [12, 0, 40, 4, 8]}
LARGE_EQUAL = {"one row": [64], "many rows": [16, 16, 16, 16, 16]}
WIDE = 256
"""With this many elements per token `x`, `y` and `deep` reach the 64 KiB from which on a read does not copy."""


class Batch(NamedTuple):
    """Columns of one batch: `x`, `y`, `f`, `ids`, `flag` and `deep` have the same lengths."""

    x: Any
    """(rows, length, inner), or (rows, inner, length)"""
    y: Any
    """like x"""
    deep: Any
    """like x, with another dim of 3 at the end"""
    f: Any
    """(rows, length)"""
    ids: Any
    """(rows, length), integers from 0 to 6"""
    flag: Any
    """(rows, length), booleans"""
    one: Any
    """(rows,)"""

    @property
    def width(self) -> int:
        """Size of the rows' dim that never varies."""
        return [size for size in self.x.shape[1:] if isinstance(size, int)][-1]

    @property
    def td(self) -> Any:
        """The whole batch as a TensorDict, with the field names of a read."""
        columns = dict(sorted(self._asdict().items()))
        return TensorDict(columns, batch_size=[len(self.one)])


class Rows(NamedTuple):
    """The rows of one column, and the varying dim of the batch."""

    rows: list[Any]
    ragged: int


def rows_of(lengths: list[int], ragged: int, inner: int) -> dict[str, Rows]:
    """Rows of all ragged columns of a batch."""
    random = torch.Generator().manual_seed(len(lengths))

    def of(ragged: int, *dims: int) -> Rows:
        before, behind = dims[: ragged - 1], dims[ragged - 1 :]
        rows = [torch.randn(*before, n, *behind, generator=random) for n in lengths]
        return Rows(rows, ragged)

    made = {"x": of(ragged, inner), "y": of(ragged, inner), "deep": of(ragged, inner, 3)}
    made["f"] = of(1)
    made["ids"] = Rows([(row.abs() * 3).long().clamp(0, 6) for row in made["f"].rows], 1)
    made["flag"] = Rows([row > 0 for row in made["f"].rows], 1)
    return made


def jagged(lengths: list[int], ragged: int, inner: int) -> Batch:
    """Nested tensors made by torch; their columns share the offsets."""
    columns = {name: list(each.rows) for name, each in rows_of(lengths, ragged, inner).items()}
    offsets = torch.tensor([0, *lengths]).cumsum(0)

    def made(name: str, ragged: int) -> Any:
        return torch.nested.nested_tensor_from_jagged(
            torch.cat(columns[name], ragged - 1),
            offsets,
            jagged_dim=ragged,
            min_seqlen=min(lengths),
            max_seqlen=max(lengths),
        )

    with torch.no_grad():  # as torch.nested.nested_tensor does
        return Batch(
            *(made(name, ragged) for name in ("x", "y", "deep")),
            *(made(name, 1) for name in ("f", "ids", "flag")),
            one=_one(lengths),
        )


def dense(lengths: list[int], ragged: int, inner: int) -> Batch:
    """Stacked rows."""
    columns = rows_of(lengths, ragged, inner).items()
    return Batch(**{name: torch.stack(each.rows) for name, each in columns}, one=_one(lengths))


def padded(lengths: list[int], ragged: int, inner: int) -> Batch:
    """Rows padded with zeros."""
    pad = torch.nn.utils.rnn.pad_sequence
    columns = rows_of(lengths, ragged, inner).items()
    return Batch(
        **{name: pad(each.rows, batch_first=True) for name, each in columns}, one=_one(lengths)
    )


def _one(lengths: list[int]) -> Any:
    return torch.arange(1.0, 1 + len(lengths))


class Form(NamedTuple):
    """One of the forms that reads return."""

    name: str
    own: Callable[[list[int], int, int], Batch]
    read: Callable[[Any, list[str], str], Any]
    """Called with the package, keys and a partition."""
    lengths: dict[str, list[int]]
    ragged: int = 1
    inner: int = 4

    @property
    def is_jagged(self) -> bool:
        """Whether its ragged columns are nested tensors."""
        return self.own is jagged

    def put(self, tq: Any, count: str, pid: str) -> list[str]:
        """Put the rows; returns their keys."""
        keys = [f"k{row}" for row in range(len(self.lengths[count]))]
        made = dense if self.own is dense else jagged
        tq.kv_batch_put(keys, pid, made(self.lengths[count], self.ragged, self.inner).td)
        return keys

    def get(self, tq: Any, keys: list[str], pid: str) -> Batch:
        """Read them."""
        read = self.read(tq, keys, pid)
        return Batch(**{name: read[name] for name in Batch._fields})

    def make(self, count: str) -> Batch:
        """Torch's own tensors of the same rows."""
        return self.own(self.lengths[count], self.ragged, self.inner)


def by_metadata(**options: Any) -> Callable[[Any, list[str], str], Any]:
    """Read by BatchMeta."""

    def read(tq: Any, keys: list[str], pid: str) -> Any:
        client = tq.get_client()
        return client.get_data(client.kv_retrieve_meta(keys, pid), **options)

    return read


def by_key(tq: Any, keys: list[str], pid: str) -> Any:
    """Read by key."""
    return tq.kv_batch_get(keys, pid)


def by_key_metadata(tq: Any, keys: list[str], pid: str) -> Any:
    """Read by KVBatchMeta."""
    meta = tq.KVBatchMeta(
        keys=keys, partition_id=pid, fields=list(Batch._fields), tags=[{}] * len(keys)
    )
    return tq.kv_batch_get_by_meta(meta)


FORMS = [
    Form("jagged", jagged, by_metadata(), ROWS),
    Form("jagged, ragged dim 2", jagged, by_metadata(), ROWS, ragged=2),
    Form("jagged, by key", jagged, by_key, ROWS),
    Form("jagged, by key metadata", jagged, by_key_metadata, ROWS),
    Form("jagged, zero-copy", jagged, by_metadata(zero_copy=True), LARGE, inner=WIDE),
    Form("dense", dense, by_metadata(layout="dense"), EQUAL),
    Form(
        "dense, zero-copy",
        dense,
        by_metadata(layout="dense", zero_copy=True),
        LARGE_EQUAL,
        inner=WIDE,
    ),
    Form("padded", padded, by_metadata(layout="padded"), ROWS),
]
