"""Values other than tensors, as bytes: strings, numbers, lists, maps, arrays, objects.

A value is encoded as MessagePack.  Arrays, tensors, images and a few Python types are sent as extension types.
Objects of any other type are pickled (functions with cloudpickle if it is installed) unless
`serialization.allow_pickle` is off; in a tag they are refused.  Daemons never decode values.

Large memory inside values (tensors, arrays, bytes, texts, images, buffers of pickled objects) is put from where
it is: a column is a list of slices, and only the bytes between them are copied by the encoder.  On the way out,
tensors and arrays are made over the memory that was read into.  docs/values.md describes the layout.

Some types come back as simpler ones: tuples and sets as lists, named tuples and dataclasses as lists
and maps, enum members as their values, dates without time zone, UUIDs and Decimals as strings,
bytearrays and memoryviews as bytes.

A tag may be nested up to `MAX_TAG_DEPTH` levels deep, a value up to 500 levels.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .._core import pack_rows, unpack_rows
from ..errors import SerializationError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .._core import Left
    from .column import Slice

TENSOR, NDARRAY, SCALAR, PICKLE, CLOUDPICKLE, TENSORDICT, INTEGER, COMPLEX, DATETIME, NESTED = (
    range(1, 11)
)
"""Extension types."""

BUFFER, OUT_OF_BAND, IMAGE, RAW = range(11, 15)
"""More of them, since 0.3: large memory with its description; a pickle with its buffers beside it; images; a buffer."""

OUT_OF_BAND_LEAST = 4096
"""Smallest buffer of a pickled object that is sent beside the pickle, in bytes."""

MAX_TAG_DEPTH = 64
"""Deepest nesting of lists and maps in a tag, which samplers and people read too."""

_MAX_REENTRIES = 64
"""How deeply extension types may be nested beyond the levels that unpack.c handles: each takes 40 KB of stack in msgpack."""

_NOT_CONVERTED = object()
"""Marks a value that has no simpler form."""


class Encoder:
    """Encodes values as bytes."""

    _not_pickled = "which serialization.allow_pickle forbids: put plain values, tensors and arrays, or allow it"

    def __init__(self, allow_pickle: bool = True) -> None:
        self._allow_pickle = allow_pickle

    def encode(self, value: object) -> bytes:
        """Encode one value."""
        try:
            return bytes(pack_rows([value], self._convert)[0])
        except (RecursionError, OverflowError) as error:
            raise _refused(error) from None

    def encode_rows(self, field: str, rows: Iterable[object]) -> list[bytes]:
        """Encode the rows of a field; an error names the field."""
        try:
            return [self.encode(row) for row in rows]
        except SerializationError as error:
            raise SerializationError(f"field {field!r}: {error}") from error.__cause__

    def encode_column(self, field: str, rows: list[Any]) -> tuple[Buffer, memoryview]:
        """Encode the rows of a field end to end; returns the size of each too.  An error names the field."""
        try:
            encoded, sizes = pack_rows(rows, self._convert)
        except (RecursionError, OverflowError, SerializationError) as error:
            raise _refused(error, field) from error.__cause__
        return encoded, memoryview(sizes).cast("Q")

    def encode_slices(
        self, field: str, rows: list[Any], keep: list[Any]
    ) -> tuple[list[Slice], memoryview]:
        """Like encode_column, but as slices that use the rows' own large memory; its owners are added to `keep`."""
        try:
            slices, sizes = pack_rows(rows, self._convert, keep)
        except (RecursionError, OverflowError, SerializationError) as error:
            raise _refused(error, field) from error.__cause__
        return slices, memoryview(sizes).cast("Q")

    def _convert(self, value: Any) -> object:
        """A simpler value, or a tuple that pack.c makes an extension type; so a simpler value is never a tuple."""
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if torch is not None and isinstance(value, torch.Tensor):
            return self._tensor(torch, value)
        if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
            return self._array(numpy, value)
        import enum

        if isinstance(value, enum.Enum):
            return _no_tuple(value.value)
        if isinstance(value, (list, tuple, set, frozenset)):
            return list(value)
        if isinstance(value, dict):
            return dict(value)
        if type(value) is int:
            return INTEGER, str(value).encode()
        if type(value) is complex:
            return COMPLEX, [value.real, value.imag]
        if type(value) is _Raw:
            return RAW, [], value.memory, value
        if sys.modules.get("tensordict") is not None:
            from tensordict import NonTensorData, NonTensorStack, TensorDictBase

            if isinstance(value, NonTensorStack):
                return list(value.tolist())
            if isinstance(value, NonTensorData):
                return _no_tuple(value.data)
            if isinstance(value, TensorDictBase):
                items = {name: _plain(item) for name, item in value.items()}
                return TENSORDICT, [list(value.batch_size), items]
        simple = _as_simple(value)
        if simple is not None:
            return simple
        if _is_aware_datetime(value):
            return DATETIME, value.isoformat().encode()
        return self._object(value)

    def _tensor(self, torch: Any, value: Any) -> object:
        if value.is_nested:
            return NESTED, _nested_parts(torch, value)
        from .tensors import tensor_memory

        described = tensor_memory(value)
        return self._object(value) if described is None else (TENSOR, *described)

    def _array(self, numpy: Any, value: Any) -> object:
        if value.dtype.hasobject or value.dtype.names:
            return self._object(value)
        if isinstance(value, numpy.generic):
            return SCALAR, [value.dtype.str, value.tobytes()]
        if type(value) is not numpy.ndarray:
            return self._object(value)
        ready = numpy.ascontiguousarray(value)
        address = ready.__array_interface__["data"][0]
        return NDARRAY, [value.dtype.str, list(value.shape)], (address, ready.nbytes), ready

    def _object(self, value: object) -> object:
        import pickle

        if sys.modules.get("PIL.Image") is not None:
            from .images import image_memory

            image = image_memory(value, self._pickled)
            if image is not None:
                return IMAGE, *image
        self._check_pickle(value)
        if callable(value):
            try:
                import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]
            except ImportError:
                pass
            else:
                with _naming(value):
                    return CLOUDPICKLE, cloudpickle.dumps(value)
        buffers: list[_Raw] = []

        def stays(buffer: pickle.PickleBuffer) -> bool:
            try:
                memory = buffer.raw()
            except BufferError:  # not contiguous
                return True
            if memory.nbytes < OUT_OF_BAND_LEAST:
                return True
            buffers.append(_Raw(memory))
            return False

        with _naming(value):
            pickled = pickle.dumps(value, protocol=5, buffer_callback=stays)
        return (OUT_OF_BAND, [pickled, buffers]) if buffers else (PICKLE, pickled)

    def _pickled(self, value: object) -> bytes:
        import pickle

        self._check_pickle(value)
        with _naming(value):
            return pickle.dumps(value, protocol=5)

    def _check_pickle(self, value: object) -> None:
        if not self._allow_pickle:
            raise SerializationError(
                f"a value of type {_kind(value)} can only be stored by pickling it, {self._not_pickled}"
            )


class TagEncoder(Encoder):
    """Encodes tags.  Clients that list samples read the tags of others, whom they need not trust, so no tag is a pickle."""

    _not_pickled = "which tags never are: give a tag a plain value, and put the object into a field"

    def __init__(self) -> None:
        super().__init__(allow_pickle=False)


def _nested_parts(torch: Any, value: Any) -> list[Any]:
    """The layout and rows of a nested tensor, and what they leave open: the ragged dim, or an empty tensor's shape."""
    from .ragged import ragged_dim_of, rows_of

    jagged = value.layout == torch.jagged
    parts: list[Any] = ["jagged" if jagged else "strided", rows_of(value)]
    named = ragged_dim_of(value)
    if not parts[1]:
        values = value.values()
        axis = int(value._ragged_idx) - 1 if jagged else 0
        return [*parts, axis + 1, values.narrow(axis, 0, 0)]
    return [*parts, named] if named else parts


class _Raw:
    """A buffer of a pickled object."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


@contextlib.contextmanager
def _naming(value: object) -> Iterator[None]:
    """Convert an error from a class's own __reduce__ to an error that names the class."""
    try:
        yield
    except (RecursionError, MemoryError):
        raise
    except Exception as error:
        raise SerializationError(
            f"a value of type {_kind(value)} cannot be pickled: {error}"
        ) from error


def _refused(error: Exception, field: str | None = None) -> SerializationError:
    """The error for a value that cannot be encoded, with its field's name."""
    where = "" if field is None else f"field {field!r}: "
    if isinstance(error, RecursionError):
        return SerializationError(f"{where}a value is nested too deep to be stored")
    return SerializationError(f"{where}{error}")


def _no_tuple(value: Any) -> Any:
    return list(value) if type(value) is tuple else value


class _Refusal:
    """Whether this process refuses all pickles: a global, because notes are decoded without a client."""

    pickles = False


def refuse_pickles() -> None:
    """From now on no Decoder of this process unpickles anything."""
    _Refusal.pickles = True


class Decoder:
    """Decodes values from bytes."""

    _not_unpickled = "the value is pickled, and serialization.allow_pickle forbids unpickling it"

    def __init__(self, allow_pickle: bool = True) -> None:
        self._allow_pickle = allow_pickle and not _Refusal.pickles

    def decode(self, encoded: Buffer) -> Any:
        """Decode one value; its tensors and arrays may refer to `encoded`, if that is writable."""
        return self._decode(encoded, self._decode_other)

    def _decode(self, encoded: Buffer, other: Callable[[memoryview], Any]) -> Any:
        size = memoryview(encoded).nbytes
        return unpack_rows(encoded, array("Q", (0, size)), self._build, other)[0]

    def decode_rows(self, field: str, encoded: Buffer, offsets: Buffer) -> list[Any]:
        """Decode the rows of a field, given the offset of each and of the end; an error names the field."""
        try:
            return unpack_rows(encoded, offsets, self._build, self._decode_other)
        except SerializationError as error:
            where = f"field {field!r}{self._which(encoded, offsets)}"
            raise SerializationError(f"{where}: {error}") from error.__cause__

    def decode_left(self, left: Left, offsets: Buffer) -> list[Any] | None:
        """Decode the rows of a field that a read left in the store; None if they have gone, or cannot be decoded."""
        try:
            return unpack_rows(left, offsets, self._build, self._decode_other)
        except SerializationError:
            return None  # the caller reads them again as bytes, and can say which row it is

    def _which(self, encoded: Buffer, offsets: Buffer) -> str:
        """The first row that cannot be decoded, for a message."""
        rows, bounds = memoryview(encoded).cast("B"), memoryview(offsets).cast("B").cast("Q")
        for row in range(len(bounds) - 1):
            try:
                self.decode(bytes(rows[bounds[row] : bounds[row + 1]]))
            except SerializationError:
                return f", row {row}"
        return ""

    def _decode_other(self, encoded: memoryview, level: int = 0) -> Any:
        """Decode a row that unpack.c did not: deeply nested, or malformed; `level` counts the enclosing extension types."""
        import msgpack

        if level > _MAX_REENTRIES:
            raise SerializationError("a value is nested too deep to be read")
        hook = functools.partial(self._extension, level=level + 1)
        try:
            return msgpack.unpackb(
                encoded,
                ext_hook=hook,
                strict_map_key=False,
                unicode_errors="surrogatepass",
            )
        except SerializationError:
            raise
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            start = " ".join(str(byte) for byte in bytes(encoded[:8]))
            raise SerializationError(
                f"not an encoded value ({encoded.nbytes} bytes: {start}{' ...' * (encoded.nbytes > 8)}): expected"
                f" one MessagePack value, see docs/values.md; C programs make such values with tq/value.h ({error})"
            ) from error

    def _extension(self, code: int, payload: bytes, level: int) -> Any:
        """Decode an extension type in a deeply nested row."""
        if code == BUFFER:
            import msgpack

            if level > _MAX_REENTRIES:
                raise SerializationError("a value is nested too deep to be read")
            hook = functools.partial(self._extension, level=level + 1)
            head = msgpack.Unpacker(strict_map_key=False, ext_hook=hook)
            head.feed(payload)
            inner, parts, size, lead = head.unpack()
            start = head.tell() + lead
            return self._build(inner, parts, bytearray(payload[start : start + size]))
        other = functools.partial(self._decode_other, level=level)
        raw = code in (PICKLE, CLOUDPICKLE, INTEGER, DATETIME)
        return self._build(code, payload if raw else self._decode(payload, other))

    def _build(self, code: int, value: Any, memory: Any = None) -> Any:
        """The object that an extension type stands for; `memory` belongs to the reader, and is writable."""
        if code in (PICKLE, CLOUDPICKLE) and memory is None:
            return self._unpickle(value)
        if code not in _BUILDERS and code not in (PICKLE, CLOUDPICKLE, OUT_OF_BAND, IMAGE):
            raise SerializationError(f"values of extension type {code} are of a newer version")
        try:
            if memory is None and code in _WITH_MEMORY:
                *value, payload = value
                memory = _copied(payload)
            elif memory is not None and code not in _WITH_MEMORY:
                raise ValueError("it cannot have memory of its own")
            if code == OUT_OF_BAND:
                pickled, buffers = value
            elif code == IMAGE:
                from .images import image_of

                return image_of(value, memory, self._unpickle)
            else:
                return _BUILDERS[code](value, memory)
        except SerializationError:
            raise
        except (
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            RuntimeError,
            AttributeError,
            SyntaxError,  # raised by NumPy for an invalid dtype
        ) as error:
            raise SerializationError(
                f"a value of extension type {code} is malformed: {error}"
            ) from error
        return self._unpickle(pickled, buffers)

    def _unpickle(self, payload: bytes, buffers: Iterable[Any] = ()) -> Any:
        import pickle

        if not self._allow_pickle:
            raise SerializationError(self._not_unpickled)
        try:
            # Only clients that know the system's secret can have written it.
            return pickle.loads(payload, buffers=buffers)  # noqa: S301
        except (SerializationError, MemoryError):
            raise
        except Exception as error:  # an unknown class, or an error of its own code
            raise SerializationError(
                f"a pickled value cannot be unpickled here: {type(error).__name__}: {error}"
            ) from error


class TagDecoder(Decoder):
    """Decodes tags."""

    _not_unpickled = (
        "the tag is pickled, and tags are never unpickled: it was not put by this version of transferq; put it again with a plain "
        "value, or clear the sample"
    )

    def __init__(self) -> None:
        super().__init__(allow_pickle=False)


# --- kinds of values ------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """The value of a non-tensor entry of a TensorDict."""
    from tensordict import NonTensorData, NonTensorStack

    if isinstance(value, NonTensorStack):
        return list(value.tolist())
    return value.data if isinstance(value, NonTensorData) else value


def _as_simple(value: Any) -> object | None:
    """The simpler type that a value is stored as, or None."""
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
    """A time span in ISO 8601 form."""
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


def _copied(payload: Any) -> bytearray:
    """A copy of the payload.  Checked first, because bytearray(number) would make that many zeros."""
    if not isinstance(payload, bytes):
        raise TypeError(f"its memory is of type {type(payload).__name__}, not bytes")
    return bytearray(payload)


def _build_tensor(parts: list[Any], memory: Any) -> Any:
    from .tensors import tensor_from_bytes

    code, bits, shape = parts
    return tensor_from_bytes((code, bits), shape, memory)


def _build_array(parts: list[Any], memory: Any) -> Any:
    import numpy as np

    described, shape = parts
    dtype = np.dtype(described)
    if not dtype.itemsize:
        return np.empty(shape, dtype)
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


def _build_scalar(parts: list[Any], _: Any) -> Any:
    import numpy as np

    described, payload = parts
    dtype = np.dtype(described)
    return np.frombuffer(payload, dtype=dtype)[0] if dtype.itemsize else dtype.type()


def _build_tensordict(parts: list[Any], _: Any) -> Any:
    from .dtypes import have_torch
    from .tensors import tensordict_of

    batch_size, items = parts
    return tensordict_of(items, batch_size) if have_torch() else items


def _build_nested(parts: list[Any], _: Any) -> Any:
    from .dtypes import have_torch

    layout, rows, *more = parts
    if not have_torch():
        return rows
    import torch

    if layout not in ("jagged", "strided"):
        raise ValueError(f"unknown layout {layout!r}")
    if more:
        return _build_named(layout, rows, *more)
    return torch.nested.as_nested_tensor(rows, layout=getattr(torch, layout))


def _build_named(layout: str, rows: list[Any], ragged: int, values: Any = None) -> Any:
    """A nested tensor whose rows alone do not determine it."""
    import torch

    from .ragged import side_by_side, without_rows

    if type(ragged) is not int or not 1 <= ragged <= 64:
        raise ValueError(f"ragged dim {ragged!r}")
    if values is None:
        made = side_by_side(rows, ragged) if layout == "jagged" else None
        if made is None:
            raise ValueError(f"the rows are not ragged in dim {ragged} alone")
        return made
    if rows or not isinstance(values, torch.Tensor) or values.ndim < ragged:
        raise ValueError("rows, and what lies in no rows")
    if layout == "strided":
        return torch.nested.nested_tensor([], dtype=values.dtype)
    if values.shape[ragged - 1]:
        raise ValueError(f"{values.shape[ragged - 1]} elements in no rows")
    return without_rows(values, ragged)


def _build_datetime(payload: bytes, _: Any) -> Any:
    import datetime

    return datetime.datetime.fromisoformat(payload.decode())


_BUILDERS: dict[int, Callable[[Any, Any], Any]] = {
    TENSOR: _build_tensor,
    NDARRAY: _build_array,
    SCALAR: _build_scalar,
    INTEGER: lambda payload, _: int(payload),
    COMPLEX: lambda parts, _: complex(*parts),
    DATETIME: _build_datetime,
    TENSORDICT: _build_tensordict,
    NESTED: _build_nested,
    RAW: lambda parts, memory: memory,
}
_WITH_MEMORY = frozenset((TENSOR, NDARRAY, IMAGE, RAW))
"""Types that describe memory; if the memory is small, it is the last of their parts."""
