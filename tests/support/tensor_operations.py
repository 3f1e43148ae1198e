"""Operations that users run on tensors that they read: functions of a `Batch`, by name.

Each gets its own batch, so it may change it.  If torch refuses an operation for a form, it must
refuse it for a read of that form too.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as fn
from torch import nested, nn

from .tensor_forms import Batch

Operation = Callable[[Batch], Any]


def _backward(loss: Callable[[Any], Any], column: str = "x") -> Operation:
    """The gradient of a loss with respect to a column that is a leaf."""

    def run(b: Batch) -> Any:
        leaf = getattr(b, column).requires_grad_()
        loss(leaf).sum().backward()
        return leaf.grad

    return run


def _attention(b: Batch) -> Any:
    query = b.deep.transpose(1, 2)
    return fn.scaled_dot_product_attention(query, query, query)


def _attention_grad(b: Batch) -> Any:
    leaf = b.deep.requires_grad_()
    query = leaf.transpose(1, 2)
    fn.scaled_dot_product_attention(query, query, query).sum().backward()
    return leaf.grad


def _encoder(b: Batch) -> Any:
    layer = nn.TransformerEncoderLayer(b.width, 2, 8, dropout=0.0, batch_first=True)
    return layer(b.x)


def _saved(value: Any, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **options)


def _policy_loss(b: Batch) -> Any:
    """Clipped surrogate loss on log probabilities, as in PPO."""
    leaf = b.f.requires_grad_()
    ratio = (leaf - b.f.detach() * 0.5).exp()
    loss = -torch.minimum(ratio * 0.3, ratio.clamp(0.8, 1.2) * 0.3) * b.flag
    loss.values().sum().backward()
    return leaf.grad


def _log_probs(b: Batch) -> Any:
    head = nn.Linear(b.width, 7)
    logits = head(b.x)
    picked = logits.values().log_softmax(-1).gather(-1, b.ids.values().unsqueeze(-1))
    return nested.nested_tensor_from_jagged(picked.squeeze(-1), b.ids.offsets())


def _masked_mean(b: Batch) -> Any:
    lengths = b.f.offsets().diff()
    sums = torch.segment_reduce(b.f.values(), "sum", lengths=lengths)
    return sums / lengths


def _unpadded(b: Batch) -> Any:
    """Padded, and cut to length again."""
    full = nested.to_padded_tensor(b.x, 0.0)
    keep = torch.arange(full.shape[1]) < b.x.offsets().diff()[:, None]
    return full[keep], nested.narrow(
        full, 1, torch.zeros(len(full), dtype=torch.int64), keep.sum(1), layout=torch.jagged
    )


def _inference(of: Operation) -> Operation:
    def run(b: Batch) -> Any:
        with torch.inference_mode():
            return of(b)

    return run


def _put_into(b: Batch) -> Any:
    b.x.values()[1:2] = -1.0
    return b.x.values()


def _default(b: Batch) -> Any:
    torch.set_default_dtype(torch.float64)
    try:
        return b.x * 2.5, torch.ones(2), nested.to_padded_tensor(b.x, 0.0)
    finally:
        torch.set_default_dtype(torch.float32)


def _autocast(b: Batch) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return nn.Linear(b.width, 3)(b.x)


def _vmap(b: Batch) -> Any:
    return torch.func.vmap(lambda row: row * 2 + 1)(b.x)


def _swapped(b: Batch) -> Any:
    other = b.x.clone() + 1
    torch.utils.swap_tensors(b.x, other)
    return b.x


PADDING: dict[str, Operation] = {
    "to_padded_tensor": lambda b: nested.to_padded_tensor(b.x, 0.0),
    "to_padded_tensor of integers": lambda b: nested.to_padded_tensor(b.ids, 9),
    "to_padded_tensor of booleans": lambda b: nested.to_padded_tensor(b.flag, 0),
    "to_padded_tensor of 4 dims": lambda b: nested.to_padded_tensor(b.deep, -1.0),
    "to_padded_tensor with a size": lambda b: b.f.to_padded_tensor(0.5, (len(b.one), 20000)),
    "to_padded_tensor too small": lambda b: nested.to_padded_tensor(b.f, 0.5, (len(b.one), 1)),
    "to_padded_tensor after +": lambda b: nested.to_padded_tensor(b.x + 1, 0.0),
    "to_padded_tensor after clone": lambda b: nested.to_padded_tensor(b.x.clone(), 0.0),
    "to_padded_tensor, gradient": _backward(lambda x: nested.to_padded_tensor(x, 0.0) ** 2),
    "padded and cut": _unpadded,
    "pad_sequence of rows": lambda b: nn.utils.rnn.pad_sequence(list(b.x.unbind()), batch_first=True),
    "pad": lambda b: fn.pad(b.x, (0, 1)),
}  # fmt: skip

ATTENTION: dict[str, Operation] = {
    "attention": _attention,
    "attention, gradient": _attention_grad,
    "attention of single heads": lambda b: fn.scaled_dot_product_attention(
        *(t.unsqueeze(2).transpose(1, 2) for t in (b.x, b.y, b.x))
    ),
    "causal attention": lambda b: fn.scaled_dot_product_attention(
        *(t.unsqueeze(2).transpose(1, 2) for t in (b.x, b.y, b.x)), is_causal=True
    ),
    "encoder layer": _encoder,
    "encoder layer in eval": lambda b: nn.TransformerEncoderLayer(
        b.width, 2, 8, batch_first=True
    ).eval()(b.x),
    "multihead attention": lambda b: nn.MultiheadAttention(b.width, 2, batch_first=True)(b.x, b.x, b.x),
}  # fmt: skip

PARTS: dict[str, Operation] = {
    "x[0]": lambda b: b.x[0],
    "x[-1]": lambda b: b.x[-1],
    "x[7]": lambda b: b.x[7],
    "x[0:2]": lambda b: b.x[0:2],
    "x[:, 0]": lambda b: b.x[:, 0],
    "x[:, 1:]": lambda b: b.x[:, 1:],
    "x[..., 1]": lambda b: b.x[..., 1],
    "x[..., 1:3]": lambda b: b.x[..., 1:3],
    "x[None]": lambda b: b.x[None],
    "x[:, None]": lambda b: b.x[:, None],
    "x[tensor]": lambda b: b.x[torch.tensor([0])],
    "x[[0]]": lambda b: b.x[[0]],
    "x[rows by mask]": lambda b: b.x[b.one > 1],
    "x[elements by mask]": lambda b: b.x[b.x > 0],
    "f[flag]": lambda b: b.f[b.flag],
    "x[0] = 1": lambda b: b.x.__setitem__(0, 1.0),
    "x[x > 0] = 1": lambda b: b.x.__setitem__(b.x > 0, 1.0),
    "values()[1] = -1": _put_into,
    "len": lambda b: len(b.x),
    "iteration": lambda b: list(b.x),
    "unbind": lambda b: b.x.unbind(),
    "unbind of ragged": lambda b: b.x.unbind(1),
    "chunk": lambda b: b.x.chunk(2),
    "chunk of the last dim": lambda b: b.x.chunk(2, -1),
    "split": lambda b: b.x.split(2),
    "split of the last dim": lambda b: b.x.split([1, 3], -1),
    "tensor_split": lambda b: b.x.tensor_split(2),
    "narrow": lambda b: b.x.narrow(-1, 1, 2),
    "nested.narrow": lambda b: nested.narrow(
        b.x, 1, torch.zeros(len(b.one), dtype=torch.int64), torch.ones(len(b.one), dtype=torch.int64),
        layout=torch.jagged,
    ),
    "select": lambda b: b.x.select(-1, 1),
    "index_select": lambda b: b.x.index_select(0, torch.tensor([0])),
    "masked_select": lambda b: b.x.masked_select(b.x > 0),
    "take_along_dim": lambda b: b.x.take_along_dim(b.x.long() * 0, -1),
    "gather": lambda b: b.x.gather(-1, b.x.long() * 0),
    "cat": lambda b: torch.cat([b.x, b.y], -1),
    "cat of rows": lambda b: torch.cat([b.x, b.y], 0),
    "cat of ragged": lambda b: torch.cat([b.x, b.y], 1),
    "stack": lambda b: torch.stack([b.x, b.y]),
    "values": lambda b: b.x.values(),
    "offsets": lambda b: b.x.offsets(),
    "lengths": lambda b: (b.x.lengths(), b.x.offsets().diff()),
    "as_nested_tensor of rows": lambda b: nested.as_nested_tensor(
        list(b.x.unbind()), layout=torch.jagged
    ),
    "as_nested_tensor": lambda b: nested.as_nested_tensor(b.x, layout=torch.jagged),
    "nested_tensor_from_jagged": lambda b: nested.nested_tensor_from_jagged(
        b.x.values() * 2, b.x.offsets()
    ),
}  # fmt: skip

SHAPES: dict[str, Operation] = {
    "transpose": lambda b: b.x.transpose(1, 2),
    "transpose twice": lambda b: b.x.transpose(1, 2).transpose(1, 2),
    "transpose of rows": lambda b: b.x.transpose(0, 1),
    "permute": lambda b: b.deep.permute(0, 2, 1, 3),
    "movedim": lambda b: b.deep.movedim(-1, 1),
    "unsqueeze": lambda b: b.x.unsqueeze(-1),
    "squeeze": lambda b: b.x.unsqueeze(-1).squeeze(-1),
    "flatten": lambda b: b.deep.flatten(2),
    "flatten all": lambda b: b.x.flatten(),
    "unflatten": lambda b: b.x.unflatten(-1, (2, 2)),
    "view": lambda b: b.x.view(b.x.size(0), b.x.size(1), 2, 2),
    "view(-1)": lambda b: b.x.view(-1),
    "reshape": lambda b: b.x.reshape(b.x.size(0), b.x.size(1), 2, -1),
    "reshape_as": lambda b: b.x.reshape_as(b.y),
    "expand": lambda b: b.x.unsqueeze(-1).expand(*b.x.shape, 2),
    "expand_as": lambda b: b.one[:, None, None].expand_as(b.x),
    "repeat": lambda b: b.x.repeat(1, 1, 2),
    "repeat_interleave": lambda b: b.x.repeat_interleave(2, 0),
    "view_as_complex": lambda b: torch.view_as_complex(b.x.unflatten(-1, (2, 2))),
    "view(dtype)": lambda b: b.x.view(torch.int32),
    "t": lambda b: b.f.t(),
    "mT": lambda b: b.x.mT,
    "shapes": lambda b: (b.x.dim(), b.x.ndim, b.x.numel(), b.x.nbytes, b.x.element_size(),
                         b.x.shape[0] == b.y.shape[0], b.x.shape == b.y.shape, b.x.shape[0]),
    "is_contiguous": lambda b: (b.x.is_contiguous(), b.x.stride()[-1], b.x.storage_offset()),
}  # fmt: skip

ARITHMETIC: dict[str, Operation] = {
    "x + y": lambda b: b.x + b.y,
    "x * 2 - 1": lambda b: b.x * 2 - 1,
    "2 / x": lambda b: 2 / b.x,
    "x + other offsets": lambda b: b.x + nested.nested_tensor_from_jagged(
        b.x.values(), b.x.offsets().clone()
    ),
    "x * one": lambda b: b.x * b.one[:, None, None],
    "x + vector": lambda b: b.x + torch.ones(b.width),
    "f * flag": lambda b: b.f * b.flag,
    "x * f": lambda b: b.x * b.f.unsqueeze(-1),
    "x ** 2": lambda b: b.x**2,
    "-x": lambda b: -b.x,
    "~flag": lambda b: ~b.flag,
    "flag & flag": lambda b: b.flag & (b.f > 0.5),
    "ids % 3": lambda b: b.ids % 3,
    "ids // 2": lambda b: b.ids // 2,
    "x @ matrix": lambda b: b.x @ torch.ones(b.width, 2),
    "bmm": lambda b: torch.bmm(b.x, torch.ones(len(b.one), b.width, 2)),
    "x @ x.mT": lambda b: b.x @ b.x.transpose(1, 2),
    "einsum": lambda b: torch.einsum("bld,de->ble", b.x, torch.ones(b.width, 2)),
    "x == y": lambda b: b.x == b.y,
    "x > 0": lambda b: b.x > 0,
    "x <= y": lambda b: b.x <= b.y,
    "equal": lambda b: torch.equal(b.x, b.x),
    "allclose": lambda b: torch.allclose(b.x, b.x),
    "isclose": lambda b: torch.isclose(b.x, b.y),
    "isin": lambda b: torch.isin(b.ids, torch.tensor([1, 2])),
    "where": lambda b: torch.where(b.x > 0, b.x, b.y),
    "where with a number": lambda b: torch.where(b.flag, b.f, 0.0),
    "masked_fill": lambda b: b.f.masked_fill(b.flag, -1.0),
    "clamp": lambda b: b.x.clamp(-0.5, 0.5),
    "lerp": lambda b: torch.lerp(b.x, b.y, 0.25),
    "addcmul": lambda b: torch.addcmul(b.x, b.x, b.y),
    "nan_to_num": lambda b: (b.x / 0).nan_to_num(),
    "cumsum": lambda b: b.x.cumsum(-1),
    "cumsum of ragged": lambda b: b.x.cumsum(1),
    "sum": lambda b: b.x.sum(),
    "sum of ragged": lambda b: b.x.sum(1),
    "sum of the last": lambda b: b.x.sum(-1),
    "sum of rows": lambda b: b.x.sum(0),
    "mean": lambda b: (b.x.mean(-1), b.x.mean()),
    "mean of ragged": lambda b: b.x.mean(1),
    "masked mean": _masked_mean,
    "max": lambda b: (b.x.max(), b.x.amax(-1)),
    "max of ragged": lambda b: b.x.max(1),
    "argmax": lambda b: b.x.argmax(-1),
    "any, all": lambda b: (b.flag.any(), b.flag.all()),
    "std": lambda b: b.x.std(-1),
    "norm": lambda b: torch.linalg.vector_norm(b.x, dim=-1),
    "sort": lambda b: b.x.sort(-1),
    "topk": lambda b: b.x.topk(2, -1),
    "unique": lambda b: b.ids.unique(),
    "bincount": lambda b: torch.bincount(b.ids.values()),
    "softmax": lambda b: b.x.softmax(-1),
    "softmax of ragged": lambda b: b.x.softmax(1),
    "softmax of ragged, 2 dims": lambda b: b.f.softmax(1),
    "log_softmax": lambda b: b.x.log_softmax(-1),
    "dropout": lambda b: fn.dropout(b.x, 0.5),
    "like": lambda b: (torch.zeros_like(b.x), torch.ones_like(b.x), torch.full_like(b.x, 3.0)),
    "random like": lambda b: (torch.randn_like(b.x), torch.rand_like(b.x)),
    "new": lambda b: (b.x.new_zeros(2), b.x.new_tensor([1.0]), b.x.new_ones(1, dtype=torch.int8)),
}  # fmt: skip

LAYERS: dict[str, Operation] = {
    "linear": lambda b: nn.Linear(b.width, 3)(b.x),
    "layer_norm": lambda b: nn.LayerNorm(b.width)(b.x),
    "rms_norm": lambda b: nn.RMSNorm(b.width)(b.x),
    "embedding": lambda b: nn.Embedding(7, 3)(b.ids),
    "one_hot": lambda b: fn.one_hot(b.ids, 7),
    "gelu, silu, relu": lambda b: (fn.gelu(b.x), fn.silu(b.x), fn.relu(b.x)),
    "sequence of layers": lambda b: nn.Sequential(nn.Linear(b.width, 8), nn.GELU(), nn.Linear(8, 1))(b.x),
    "cross_entropy": lambda b: fn.cross_entropy(nn.Linear(b.width, 7)(b.x.values()), b.ids.values()),
    "mse_loss": lambda b: fn.mse_loss(b.x, b.y),
    "binary cross entropy": lambda b: fn.binary_cross_entropy_with_logits(b.f, b.flag.float()),
    "log probabilities of tokens": _log_probs,
    "autocast": _autocast,
}  # fmt: skip

GRADIENTS: dict[str, Operation] = {
    "gradient of sin": _backward(lambda x: x.sin()),
    "gradient through values": _backward(lambda x: x.values() ** 2),
    "gradient through rows": _backward(lambda x: torch.cat([row.flatten() for row in x.unbind()]) ** 2),
    "gradient of softmax": _backward(lambda x: x.softmax(-1)[..., 0]),
    "gradient of matmul": _backward(lambda x: x @ torch.ones(x.shape[-1], 2)),
    "gradient of linear": _backward(lambda x: nn.Linear(x.shape[-1], 2)(x)),
    "gradient of sum of ragged": _backward(lambda x: x.sum(1) ** 2),
    "gradient of transpose": _backward(lambda x: x.transpose(1, 2) * 2),
    "gradient of where": _backward(lambda x: torch.where(x > 0, x, x * 2)),
    "gradient with a scale": lambda b: torch.autograd.grad(
        (b.x.requires_grad_() * b.y).sum(), b.x
    ),
    "gradient of integers": _backward(lambda x: x, "ids"),
    "gradient twice": lambda b: torch.autograd.grad(
        torch.autograd.grad((b.x.requires_grad_() ** 3).sum(), b.x, create_graph=True)[0].sum(), b.x
    ),
    "policy loss": _policy_loss,
    "in place on a leaf": lambda b: b.x.requires_grad_().add_(1),
    "in place on its values": lambda b: b.x.requires_grad_().values().add_(1),
    "detach": lambda b: b.x.requires_grad_().detach(),
    "no_grad": torch.no_grad()(lambda b: b.x.requires_grad_() * 2),
    "inference_mode": _inference(lambda b: (b.x * 2, b.x.values(), b.x + b.y)),
    "inference_mode, in place": _inference(lambda b: b.x.add_(1)),
    "hook": lambda b: b.x.requires_grad_().register_hook(lambda grad: grad * 2) is not None,
    "func.grad": lambda b: torch.func.grad(lambda x: (x * x).sum())(b.x),
    "func.jvp": lambda b: torch.func.jvp(lambda x: x * x, (b.x,), (b.y,)),
    "func.vmap": _vmap,
    "checkpoint": lambda b: torch.utils.checkpoint.checkpoint(
        torch.sin, b.x.requires_grad_(), use_reentrant=False
    ),
}  # fmt: skip

IN_PLACE: dict[str, Operation] = {
    "add_": lambda b: b.x.add_(1),
    "mul_ by a column": lambda b: b.x.mul_(b.y),
    "zero_": lambda b: b.x.zero_(),
    "fill_": lambda b: b.x.fill_(2.0),
    "copy_": lambda b: b.x.copy_(b.y),
    "clamp_": lambda b: b.x.clamp_(0, 1),
    "masked_fill_": lambda b: b.f.masked_fill_(b.flag, 0.0),
    "normal_": lambda b: b.x.normal_(),
    "apply_": lambda b: b.ids.apply_(lambda n: n + 1),
    "versions": lambda b: (b.x._version, b.x.add_(1)._version, b.x.values().mul_(2)._version, b.x._version),
    "+=": lambda b: b.x.__iadd__(b.y),
    "out=": lambda b: torch.add(b.x, b.y, out=b.x),
    "data": lambda b: setattr(b.x, "data", b.x.data * 2),
    "set_": lambda b: b.x.set_(),
    "resize_ to less": lambda b: b.one.resize_(1),
    "swap_tensors": _swapped,
    "unsqueeze_": lambda b: b.x.unsqueeze_(0),
}  # fmt: skip

COPIES: dict[str, Operation] = {
    "clone": lambda b: b.x.clone(),
    "contiguous": lambda b: b.x.contiguous(),
    "copy": lambda b: copy.copy(b.x),
    "deepcopy": lambda b: copy.deepcopy(b.x),
    "deepcopy of a leaf": lambda b: copy.deepcopy(b.x.requires_grad_()),
    "pickle": lambda b: pickle.loads(pickle.dumps(b.x)),
    "pickle of a leaf": lambda b: pickle.loads(pickle.dumps(b.x.requires_grad_())),
    "pickle of a row": lambda b: pickle.loads(pickle.dumps(b.x[0])),
    "save": lambda b: _saved(b.x, weights_only=False),
    "save, only weights": lambda b: _saved(b.x, weights_only=True),
    "save, mapped": lambda b: _saved(b.x, map_location="cpu", weights_only=False),
    "to(float64)": lambda b: b.x.to(torch.float64),
    "to(bfloat16)": lambda b: b.x.bfloat16(),
    "to(cpu)": lambda b: b.x.to("cpu"),
    "to(meta)": lambda b: b.x.to("meta"),
    "to, copied": lambda b: b.x.to("cpu", torch.float32, copy=True),
    "to(other)": lambda b: b.ids.to(b.x),
    "type": lambda b: (b.x.half(), b.x.double(), b.x.int(), b.flag.long()),
    "numpy": lambda b: b.x.numpy(),
    "numpy of values": lambda b: torch.from_numpy(b.x.values().numpy()),
    "writable numpy": lambda b: b.x.numpy().flags.writeable,
    "numpy of scalars": lambda b: b.one.numpy().tolist(),
    "tolist": lambda b: b.f.tolist(),
    "item": lambda b: b.x.sum().item(),
    "dlpack": lambda b: torch.from_dlpack(b.x),
    "share_memory_": lambda b: (b.x.share_memory_().is_shared(), b.x.is_shared(), b.x),
    "is_pinned": lambda b: b.x.is_pinned(),
    "pin_memory": lambda b: b.x.pin_memory(),
    "storage": lambda b: (b.x.untyped_storage().nbytes(), b.x.is_shared()),
    "traits": lambda b: (b.x.grad, b.x.grad_fn, b.x.is_nested, b.x.is_sparse, b.x.is_quantized,
                         b.x.is_conj(), b.x.is_neg(), b.x.is_complex(), b.x.is_cpu, b.x.output_nr),
    "attributes": lambda b: setattr(b.x, "note", 1) or b.x.note,
    "repr": lambda b: (repr(b.x.shape), repr(b.ids), str(b.one)),
    "default dtype": _default,
    "parameter": lambda b: nn.Parameter(b.x),
    "buffer": lambda b: _with_buffer(b.x).state_dict(),
    "tree": lambda b: torch.utils._pytree.tree_map(lambda leaf: leaf * 2, {"a": [b.x, (b.y,)]}),
    "collate": lambda b: torch.utils.data.default_collate([{"x": row} for row in b.x.unbind()]),
    "collate of scalars": lambda b: torch.utils.data.default_collate(list(b.one)),
    "assert_close": lambda b: torch.testing.assert_close(b.x, b.x.clone()),
}  # fmt: skip


def _with_buffer(value: Any) -> nn.Module:
    module = nn.Module()
    module.register_buffer("value", value)
    return module


OPERATIONS: dict[str, Operation] = {
    **PADDING, **ATTENTION, **PARTS, **SHAPES, **ARITHMETIC, **LAYERS, **GRADIENTS, **IN_PLACE,
    **COPIES,
}  # fmt: skip


# --- running an operation -------------------------------------------------------------------------


def _of_column(change: Callable[[Any], Any]) -> Callable[[Batch], Batch]:
    """A batch whose ragged columns were all changed together, so that they still fit each other."""

    def run(b: Batch) -> Batch:
        return Batch(**change(b._asdict()))

    return run


CONDITIONS: dict[str, Callable[[Batch], Batch]] = {
    "as it was read": lambda b: b,
    "pickled": _of_column(lambda columns: pickle.loads(pickle.dumps(columns))),
    "cloned": _of_column(lambda columns: {name: each.clone() for name, each in columns.items()}),
    "detached": _of_column(lambda columns: {name: each.detach() for name, each in columns.items()}),
    "shared": _of_column(lambda columns: {name: each.share_memory_() for name, each in columns.items()}),
}  # fmt: skip
