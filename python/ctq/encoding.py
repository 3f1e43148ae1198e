"""Values that are no tensors, as bytes: strings, numbers, lists, maps, arrays, objects.

A value is MessagePack.  Arrays, tensors and a few Python types travel as extension types; what has no
type of its own here is pickled by itself (functions with cloudpickle when it is installed) unless
`serialization.allow_pickle` is off.  Daemons never look inside.

Some types come back as simpler ones: tuples and sets as lists, named tuples and dataclasses as lists
and maps, enum members as their values, dates without time zone, UUIDs and Decimals as strings.

A tag is nested at most `MAX_TAG_DEPTH` levels deep; a value as deep as MessagePack's readers go.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._core import pack_rows, unpack_rows
from .errors import SerializationError

if TYPE_CHECKING:
    import msgpack
    from typing_extensions import Buffer

TENSOR, NDARRAY, SCALAR, PICKLE, CLOUDPICKLE, TENSORDICT, INTEGER, COMPLEX, DATETIME, NESTED = (
    range(1, 11)
)
"""Extension types."""

MAX_TAG_DEPTH = 64
"""Deepest nesting of lists and maps in a tag, which samplers and people read, too."""

_NOT_CONVERTED = object()
"""A value for which there is no simpler one."""


class Encoder:
    """Turns values into bytes; one per batch and thread."""

    def __init__(self, allow_pickle: bool = True) -> None:
        self._allow_pickle = allow_pickle
        self._packer: msgpack.Packer | None = None

    def _make_packer(self) -> msgpack.Packer:
        """Made when the first value needs it: its buffer of a MiB costs more than all else of a small put."""
        import msgpack

        self._packer = msgpack.Packer(
            default=self._default, strict_types=True, unicode_errors="surrogatepass"
        )
        return self._packer

    def encode(self, value: object) -> bytes:
        """One value."""
        packer = self._packer or self._make_packer()
        try:
            packed: bytes = packer.pack(value)
            return packed
        except (ValueError, RecursionError) as error:
            packer.reset()
            if isinstance(error, SerializationError) or "recursion" not in str(error):
                raise
            raise SerializationError("a value is nested too deep to be stored") from None
        except BaseException:
            packer.reset()
            raise

    def encode_rows(self, field: str, rows: Iterable[object]) -> list[bytes]:
        """The rows of a field; an error names the field."""
        try:
            return [self.encode(row) for row in rows]
        except SerializationError as error:
            raise SerializationError(f"field {field!r}: {error}") from error.__cause__

    def encode_column(self, field: str, rows: list[Any]) -> tuple[Buffer, memoryview]:
        """The rows of a field end to end, and the size of each; an error names the field."""
        try:
            encoded, sizes = pack_rows(rows, self.encode)
        except SerializationError as error:
            raise SerializationError(f"field {field!r}: {error}") from error.__cause__
        return encoded, memoryview(sizes).cast("Q")

    # A nested value gets a packer of its own: one in use cannot be entered again.
    def _nested(self, value: object) -> bytes:
        return Encoder(self._allow_pickle).encode(value)

    def _default(self, value: Any) -> object:
        import enum

        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, (list, tuple, set, frozenset)):
            return list(value)
        if isinstance(value, dict):
            return dict(value)
        if type(value) is int:
            return self._extension(INTEGER, str(int(value)).encode())
        if isinstance(value, complex) and type(value) is complex:
            return self._extension(COMPLEX, self._nested([value.real, value.imag]))
        for module, convert in (("torch", self._torch), ("numpy", self._numpy)):
            if sys.modules.get(module) is not None:
                converted = convert(sys.modules[module], value)
                if converted is not _NOT_CONVERTED:
                    return converted
        simple = _as_simple(value)
        if simple is not None:
            return simple
        if _is_aware_datetime(value):
            return self._extension(DATETIME, value.isoformat().encode())
        return self._object(value)

    def _extension(self, code: int, payload: bytes) -> object:
        import msgpack

        return msgpack.ExtType(code, payload)

    def _torch(self, torch: Any, value: Any) -> object:
        if isinstance(value, torch.Tensor):
            if value.is_nested:
                layout = "jagged" if value.layout == torch.jagged else "strided"
                return self._extension(NESTED, self._nested([layout, list(value.unbind())]))
            from .tensors import tensor_bytes

            described = tensor_bytes(value)
            if described is None:
                return _NOT_CONVERTED
            return self._extension(TENSOR, self._nested(described))
        if sys.modules.get("tensordict") is None:
            return _NOT_CONVERTED
        from tensordict import NonTensorData, NonTensorStack, TensorDictBase

        if isinstance(value, NonTensorStack):
            return list(value.tolist())
        if isinstance(value, NonTensorData):
            return value.data
        if isinstance(value, TensorDictBase):
            items = {name: _plain(item) for name, item in value.items()}
            return self._extension(TENSORDICT, self._nested([list(value.batch_size), items]))
        return _NOT_CONVERTED

    def _numpy(self, numpy: Any, value: Any) -> object:
        if isinstance(value, numpy.ndarray):
            if value.dtype.hasobject or value.dtype.names or type(value) is not numpy.ndarray:
                return _NOT_CONVERTED
            described = [value.dtype.str, list(value.shape), value.tobytes()]
            return self._extension(NDARRAY, self._nested(described))
        if isinstance(value, numpy.generic) and not value.dtype.hasobject and not value.dtype.names:
            return self._extension(SCALAR, self._nested([value.dtype.str, value.tobytes()]))
        return _NOT_CONVERTED

    def _object(self, value: object) -> object:
        import pickle

        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if not self._allow_pickle:
            raise SerializationError(
                f"a value of type {kind} can only be stored by pickling it, which serialization.allow_pickle forbids"
            )
        try:
            if callable(value):
                try:
                    import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]
                except ImportError:
                    pass
                else:
                    return self._extension(CLOUDPICKLE, cloudpickle.dumps(value))
            return self._extension(PICKLE, pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
        except (RecursionError, MemoryError):
            raise
        except Exception as error:  # whatever a class's own __reduce__ raises
            raise SerializationError(
                f"a value of type {kind} cannot be pickled: {error}"
            ) from error


class _Refusal:
    """Whether this process unpickles nothing: tags and notes are decoded when they are looked at, without a client."""

    pickles = False


def refuse_pickles() -> None:
    """From now on no Decoder of this process unpickles anything."""
    _Refusal.pickles = True


class Decoder:
    """Turns bytes into values."""

    def __init__(self, allow_pickle: bool = True) -> None:
        self._allow_pickle = allow_pickle and not _Refusal.pickles

    def decode(self, encoded: bytes | memoryview) -> Any:
        """One value."""
        import msgpack

        try:
            return msgpack.unpackb(
                encoded,
                ext_hook=self._extension,
                strict_map_key=False,
                unicode_errors="surrogatepass",
            )
        except TypeError:
            # A map with lists, once tuples, as keys.
            return msgpack.unpackb(
                encoded,
                ext_hook=self._extension,
                strict_map_key=False,
                unicode_errors="surrogatepass",
                object_pairs_hook=_pairs,
            )

    def decode_rows(self, field: str, encoded: Buffer, offsets: Buffer) -> list[Any]:
        """The rows of a field, given the offset of each and the end; an error names the field."""
        try:
            return unpack_rows(encoded, offsets, self.decode)
        except SerializationError as error:
            raise SerializationError(f"field {field!r}: {error}") from None

    def _extension(self, code: int, payload: bytes) -> Any:
        if code in (PICKLE, CLOUDPICKLE):
            return self._unpickle(payload)
        if code == INTEGER:
            return int(payload)
        if code == DATETIME:
            import datetime

            return datetime.datetime.fromisoformat(payload.decode())
        if code not in _BUILDERS:
            raise SerializationError(f"values of extension type {code} are of a newer version")
        return _BUILDERS[code](self.decode(payload))

    def _unpickle(self, payload: bytes) -> Any:
        import pickle

        if not self._allow_pickle:
            raise SerializationError(
                "the value is pickled, and serialization.allow_pickle forbids to unpickle it"
            )
        # Only clients that know the system's secret can have written it.
        return pickle.loads(payload)  # noqa: S301


# --- kinds of values ------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """What a non-tensor entry of a TensorDict holds."""
    from tensordict import NonTensorData, NonTensorStack

    if isinstance(value, NonTensorStack):
        return list(value.tolist())
    return value.data if isinstance(value, NonTensorData) else value


def _as_simple(value: Any) -> object | None:
    """The simpler type that a value comes back as, or None."""
    import datetime
    import decimal
    import uuid

    if hasattr(type(value), "__dataclass_fields__"):
        return {name: getattr(value, name) for name in type(value).__dataclass_fields__}
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat() if value.tzinfo is None else None
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    return None


def _is_aware_datetime(value: Any) -> bool:
    import datetime

    return isinstance(value, datetime.datetime)


def _duration(value: Any) -> str:
    """A time span as ISO 8601 writes it."""
    if not value:
        return "P0D"
    sign = "-" if value.total_seconds() < 0 else ""
    span = abs(value)
    seconds = f"{span.seconds}"
    if span.microseconds:
        seconds += f".{span.microseconds:06d}".rstrip("0")
    days = f"{span.days}D" if span.days else ""
    clock = f"T{seconds}S" if seconds != "0" or not days else ""
    return f"{sign}P{days}{clock}"


def check_depth(value: object, limit: int) -> bool:
    """Whether lists and maps in a value are nested at most `limit` levels deep."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            item
            for holder in level
            if isinstance(holder, (list, tuple, dict))
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
        if not level:
            return True
    return False


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_hashable(key): value for key, value in pairs}


def _hashable(key: Any) -> Any:
    return tuple(_hashable(item) for item in key) if isinstance(key, list) else key


def _build_tensor(parts: list[Any]) -> Any:
    from .tensors import tensor_from_bytes

    code, bits, shape, payload = parts
    return tensor_from_bytes((code, bits), shape, payload)


def _build_array(parts: list[Any]) -> Any:
    import numpy as np

    dtype, shape, payload = parts
    return np.frombuffer(bytearray(payload), dtype=np.dtype(dtype)).reshape(shape)


def _build_scalar(parts: list[Any]) -> Any:
    import numpy as np

    described, payload = parts
    dtype = np.dtype(described)
    return np.frombuffer(payload, dtype=dtype)[0] if dtype.itemsize else dtype.type()


def _build_tensordict(parts: list[Any]) -> Any:
    from .tensors import have_torch, tensordict_of

    batch_size, items = parts
    return tensordict_of(items, batch_size) if have_torch() else items


def _build_nested(parts: list[Any]) -> Any:
    from .tensors import have_torch

    layout, rows = parts
    if not have_torch():
        return rows
    import torch

    return torch.nested.as_nested_tensor(rows, layout=getattr(torch, layout))


_BUILDERS: dict[int, Callable[[list[Any]], Any]] = {
    TENSOR: _build_tensor,
    NDARRAY: _build_array,
    SCALAR: _build_scalar,
    COMPLEX: lambda parts: complex(*parts),
    TENSORDICT: _build_tensordict,
    NESTED: _build_nested,
}
