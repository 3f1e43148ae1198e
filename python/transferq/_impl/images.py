"""Pillow images inside values: the pixels as they are in memory, and everything else that makes up an image.

The pixels are put straight from the image's own memory if Pillow exposes it (through Arrow, since 11.2) in the layout of
one of its raw modes; otherwise `tobytes` copies them.  An image that was read uses the memory of the read, like a tensor,
and modifying it writes there: Pillow can make an image over a given buffer (`Image.frombuffer`), for RGB too, though not
through a public function.  Whether this Pillow can is checked once; if not, images are copied.

Images of Pillow's own classes are not pickled.  Images of other classes are treated like any other object.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

from ..errors import SerializationError

_RAW_MODES = {
    "L": ("L", 1),
    "P": ("P", 1),
    "RGB": ("RGBX", 4),
    "RGBX": ("RGBX", 4),
    "RGBA": ("RGBA", 4),
    "CMYK": ("CMYK", 4),
    "F": ("F", 4),
    "I": ("I", 4),
}
"""Modes whose pixels are in memory exactly as a raw mode writes them: that raw mode, and the bytes of a pixel."""

_PLAIN = frozenset((type(None), bool, int, float, str, bytes))

PLAIN, TUPLE, LIST, PICKLED = range(4)
"""How metadata of an image is stored: as [one of these, the item]; the items of a tuple or list have the same form."""

Described = tuple[list[Any], "tuple[int, int] | bytes", Any]


def image_memory(value: Any, pickled: Callable[[object], bytes]) -> Described | None:
    """The description of an image, where its pixels are, and their owner; None for anything but a Pillow image."""
    image = sys.modules["PIL.Image"].Image
    kind = type(value)
    if not isinstance(value, image) or not kind.__module__.startswith("PIL."):
        return None
    value.load()
    memory = _pixels(value)
    raw = "" if memory is None else _RAW_MODES[value.mode][0]
    palette = value.palette
    parts = [
        f"{kind.__module__}:{kind.__qualname__}",
        value.mode,
        list(value.size),
        raw,
        None if palette is None else [value.im.getpalettemode(), _palette(value)],
        [[name, _kept(item, pickled)] for name, item in value.info.items()],
        [_kept(item, pickled) for item in _more_state(value)],
    ]
    if memory is None:
        data = value.tobytes()
        return parts, data, data
    address, size, owner = memory
    return parts, (address, size), owner


def _palette(value: Any) -> bytes:
    mode = value.im.getpalettemode()
    return bytes(value.im.getpalette(mode, mode))


def _more_state(value: Any) -> list[Any]:
    """State that a Pillow class pickles besides pixels and info, such as a file name or the layers of a JPEG."""
    # Pillow's own method would copy the pixels.
    kind: Any = type(value)
    same = kind.__new__(kind)
    same.__dict__.update(value.__dict__, tobytes=bytes)
    state: list[Any] = same.__getstate__()
    return state[5:]


def _kept(item: Any, pickled: Callable[[object], bytes]) -> list[Any]:
    if type(item) in _PLAIN:
        return [PLAIN, item]
    if type(item) in (tuple, list):
        return [
            TUPLE if type(item) is tuple else LIST,
            [_kept(each, pickled) for each in item],
        ]
    return [PICKLED, pickled(item)]


def _back(kept: list[Any], unpickle: Callable[[bytes], Any]) -> Any:
    how, item = kept
    if how == PICKLED:
        return unpickle(item)
    if how in (TUPLE, LIST):
        items = [_back(each, unpickle) for each in item]
        return tuple(items) if how == TUPLE else items
    return item


def image_of(parts: list[Any], memory: Any, unpickle: Callable[[bytes], Any]) -> Any:
    """The inverse of `image_memory`."""
    try:
        from PIL import Image
    except ImportError:
        raise SerializationError("the value is an image, and Pillow is not installed") from None
    kind, mode, (width, height), raw, palette, info, more = parts
    _check_size(mode, width, height, raw, memory)
    made: Any = _class_of(kind, Image.Image)
    result = made.__new__(made)
    more = [_back(each, unpickle) for each in more]
    if raw:
        result.__setstate__([{}, mode, (0, 0), None, b"", *more])
        result._size = (width, height)
        if width and height and _maps():
            result.im = _mapped(mode, (width, height), memory)
        else:
            result.im = Image.new(mode, (width, height), None).im  # type: ignore[arg-type,unused-ignore]
            _fill(result, memory, raw)
    else:
        result.__setstate__([{}, mode, (width, height), None, bytes(memory), *more])
    if palette is not None:
        result.im.putpalette(palette[0], palette[0], palette[1])
        result.palette = _palette_of(palette)
    result.info = {name: _back(each, unpickle) for name, each in info}
    return result


def _mapped(mode: str, size: tuple[int, int], memory: Any) -> Any:
    """Pillow's inner image over memory; not marked read-only, unlike `frombuffer`, because the image owns the memory."""
    from PIL import Image

    module: Any = Image
    return module.core.map_buffer(memory, size, "raw", 0, (mode, 0, 1))


@functools.cache
def _maps() -> bool:
    """Whether this Pillow can make writable images of all the raw modes over given memory."""
    from PIL import Image

    try:
        for mode, (_, pixel) in _RAW_MODES.items():
            memory = bytearray(range(6 * pixel))
            made: Any = Image.new(mode, (0, 0))
            made.im = _mapped(mode, (3, 2), memory)
            made._size = (3, 2)
            copied: Any = Image.new(mode, (3, 2))
            _fill(copied, memory, _RAW_MODES[mode][0])
            same = made.mode == mode and made.tobytes() == copied.tobytes()
            made.putpixel((2, 1), made.getpixel((0, 0)))
            shown = max(1, pixel - 1)  # RGB does not use its last byte
            if not same or memory[-pixel:][:shown] != memory[:shown]:
                return False
    except Exception:  # noqa: BLE001 - another version of Pillow may raise anything
        return False
    return True


def _check_size(mode: str, width: int, height: int, raw: str, memory: Any) -> None:
    """Check before Pillow allocates an image: a size without its pixels must not take memory."""
    if raw:
        fits = len(memory) == width * height * _RAW_MODES[mode][1]
    else:
        # The smallest pixel is one bit; Pillow itself compares exactly.
        fits = width * height <= 8 * len(memory)
    if not fits or width < 0 or height < 0:
        raise ValueError(f"{len(memory)} bytes of pixels for a size of {width} x {height}")


def _fill(image: Any, memory: Any, raw: str) -> None:
    """Copy pixels in the layout of a raw mode into a new image."""
    place = _pixels(image)
    if place is None:
        image.frombytes(bytes(memory), "raw", raw)
        return
    address, size, _owner = place
    ctypes.memmove(address, (ctypes.c_char * size).from_buffer(memory), size)  # without the GIL


def _palette_of(palette: list[Any]) -> Any:
    from PIL import ImagePalette

    made = ImagePalette.ImagePalette(palette[0], palette[1])
    made.rawmode = None
    made.dirty = 0
    return made


def _class_of(name: str, base: type) -> type:
    """A Pillow class by name.  Only Pillow's own list of formats decides what is imported, never the stored value."""
    from PIL import Image

    module, _, kind = name.partition(":")
    if module.startswith("PIL."):
        # Like Image.open: the common formats first.
        for load in (lambda: None, Image.preinit, Image.init):
            load()
            found = getattr(sys.modules.get(module), kind, None)
            if isinstance(found, type) and issubclass(found, base):
                return found
    raise SerializationError(
        f"the value is an image of class {name!r}, which is of none of the formats of this Pillow: import its module "
        "before the value is read"
    )


# --- Pillow's memory, through Arrow ---------------------------------------------------------------


class _Array(ctypes.Structure):
    """ArrowArray of Arrow's C data interface."""


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def _pixels(image: Any) -> tuple[int, int, Any] | None:
    """An image's pixels, if contiguous: address, number of bytes, and their owner; None if Pillow does not expose them."""
    known = _RAW_MODES.get(image.mode)
    if known is None or not hasattr(image, "__arrow_c_array__") or not all(image.size):
        return None
    try:
        capsules = image.__arrow_c_array__()
    except ValueError:  # a large image in several blocks
        return None
    array = _Array.from_address(_pointer(capsules[1], b"arrow_array"))
    flat = array.children[0].contents if array.n_children else array
    width, height = image.size
    pixels = width * height
    # Bands are in a child list; modes with one number per pixel have no child.
    if flat.length != (4 * pixels if array.n_children else pixels) or flat.offset:
        return None
    return int(flat.buffers[1]), pixels * known[1], capsules
