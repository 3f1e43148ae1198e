"""Keys of tag maps, and the names under which the library stores them.

In the library a tag name is non-empty text without a zero byte.  Any other key (a number, None, bytes, a
tuple of these, text that UTF-8 cannot encode) is stored under a name made of the byte 0x1f and JSON; C
programs and `tq ls` see that name unchanged.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ArgumentTypeError

MARK = "\x1f"


def tag_name(key: object) -> str:
    """The name under which the library stores the tag with this key."""
    if isinstance(key, str):
        # Text such as "version": nearly all keys take this path.
        if key.isascii() and key.isprintable() and key:
            return key
        if key and key[0] != MARK and "\0" not in key and _is_unicode(key):
            return key
        key = str(key)
    return MARK + json.dumps(_plain(key))


def tag_key(name: str) -> Any:
    """The key of a tag whose stored name begins with the mark."""
    try:
        return _key(json.loads(name[len(MARK) :]))
    except (ValueError, TypeError, KeyError):
        return name  # written by a C program


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(key: object) -> object:
    """The key in a form that JSON can represent."""
    if key is None or isinstance(key, (str, bool)):
        return key
    if isinstance(key, int):
        return int(key)
    if isinstance(key, float):
        return float(key)
    if isinstance(key, bytes):
        return {"bytes": key.hex()}
    if isinstance(key, tuple):
        return [_plain(each) for each in key]
    item = getattr(key, "item", None)
    if getattr(key, "shape", None) == () and callable(item):  # a scalar of NumPy or torch
        return _plain(item())
    raise ArgumentTypeError(
        f"tag: the key {key!r} is of type {type(key).__name__}; a str, number, bool, None, bytes or a "
        "tuple of these is expected"
    )


def _key(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(map(_key, plain))
    return bytes.fromhex(plain["bytes"]) if isinstance(plain, dict) else plain
