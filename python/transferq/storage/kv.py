"""Clients of key-value stores written in Python.

A client has one of two forms.  In the pointer form (`put_from`, `get_into`, `remove`) no byte becomes a Python
object: the C library's KV manager cuts batches into values of about 256 KiB and passes addresses, and the
store's own library moves the bytes.  In the value form (`put`, `get`, `clear`, as in TransferQueue) every cell
is a separate value, a tensor or another object, and the metadata that the client returns for it is kept at the
controller (see kv_manager).
"""

from __future__ import annotations

import atexit
import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .. import _core
from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from .._impl.system import ControllerInfo

POINTER_FORM = ("put_from", "get_into", "remove")
VALUE_FORM = ("put", "get", "clear")


def memory(pointer: int, size: int) -> memoryview:
    """View `size` bytes at an address; valid during the call that was given the address."""
    return memoryview((ctypes.c_char * size).from_address(pointer)).cast("B")


class StorageKVClient:
    """Base of clients of a key-value store; implement the three methods of one form.

    Methods are called from several threads at once, and may be called again after an error.  The error may be any
    exception; `StorageFullError` makes puts wait.  In the pointer form a key is never put again with other content.
    In the value form, a method that blocks for longer than `client.timeout` is abandoned: its thread goes on.
    """

    value_max: ClassVar[int] = 0
    """The store's largest value in bytes, 0 for no limit; larger values are cut (pointer form)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Connect; `config` is the section of the backend in the configuration."""
        self.config = config

    @property
    def name(self) -> str:
        """Name of the store: the same in all processes that use it (pointer form)."""
        return type(self).__name__

    def close(self) -> None:
        """Disconnect."""

    # --- around the system ------------------------------------------------------------------------

    @classmethod
    def manager_type(cls, section: Mapping[str, Any]) -> str | None:
        """A registered storage manager that serves this configuration better than the general one."""
        return None

    @classmethod
    def starting(
        cls, section: Mapping[str, Any], detached: bool
    ) -> tuple[Mapping[str, Any], Callable[[], None]]:
        """Called in the process that starts a system, before the start: set up what the store needs beside its servers.

        Returns the section to run the system with, and a function to call after the system has ended.  `detached`:
        the system outlives the process.
        """
        return section, do_nothing

    @classmethod
    def connected(cls, info: ControllerInfo, epoch: int, section: Mapping[str, Any]) -> None:
        """Called when a client has connected to a system on this store."""

    # --- pointer form -----------------------------------------------------------------------------

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        """Put values; the bytes of each are in one or more pieces of memory."""
        raise NotImplementedError

    def get_into(self, keys: list[str], pointers: list[int], sizes: list[int]) -> Sequence[bool]:
        """Read whole values of these sizes into memory; False for a key that does not exist."""
        raise NotImplementedError

    def remove(self, keys: list[str]) -> Sequence[bool]:
        """Remove keys; False for one that did not exist."""
        raise NotImplementedError

    # --- value form -------------------------------------------------------------------------------

    def put(self, keys: list[str], values: list[Any]) -> list[Any] | None:
        """Put values; the result, one object per key or None, is later passed to `get` and `clear`."""
        raise NotImplementedError

    def get(
        self,
        keys: list[str],
        shapes: list[Any] | None = None,
        dtypes: list[Any] | None = None,
        custom_backend_meta: list[Any] | None = None,
    ) -> list[Any]:
        """Get values; None for a key that does not exist.  Shape and dtype are None for objects."""
        raise NotImplementedError

    def clear(self, keys: list[str], custom_backend_meta: list[Any] | None = None) -> None:
        """Remove keys; a missing key is not an error."""
        raise NotImplementedError


def do_nothing() -> None:
    """Do nothing."""


KVClient = TypeVar("KVClient", bound=type[Any])


def has_form(client: type[Any], form: Sequence[str]) -> bool:
    """Whether a class defines all methods of a form."""
    return all(
        getattr(client, method, None) not in (None, getattr(StorageKVClient, method))
        for method in form
    )


class StorageClientFactory:
    """Clients of key-value stores by name."""

    _registry: ClassVar[dict[str, type[Any]]] = {}

    @classmethod
    def register(cls, client_type: str) -> Callable[[KVClient], KVClient]:
        """Register the decorated class; `backend.storage_backend` may then name it."""

        def decorator(client: KVClient) -> KVClient:
            if has_form(client, POINTER_FORM):
                known = cls._registry.get(client_type)
                if known is None or not has_form(known, POINTER_FORM):
                    _core.kv_register(client_type, cls._maker(client_type), client.value_max)
            elif not has_form(client, VALUE_FORM):
                raise TypeError(
                    f"{client!r} must define {', '.join(POINTER_FORM)}, or {', '.join(VALUE_FORM)}"
                )
            cls._registry[client_type] = client
            return client

        return decorator

    @classmethod
    def _maker(cls, client_type: str) -> Callable[[str], Any]:
        """The factory that the C library calls for a client: it uses the class registered under the name at that time."""
        return lambda config: cls._registry[client_type](json.loads(config))

    @classmethod
    def create(cls, client_type: str, config: Mapping[str, Any]) -> Any:
        """Make a client of a registered type."""
        if client_type not in cls._registry:
            known = ", ".join(sorted(cls._registry)) or "none"
            raise InvalidArgumentError(
                f"no client of a key-value store is registered as {client_type!r}; known: {known}"
            )
        return cls._registry[client_type](config)

    @classmethod
    def known(cls, client_type: str) -> type[StorageKVClient] | None:
        """The class of a registered type, if it derives from StorageKVClient."""
        client = cls._registry.get(client_type)
        return client if client is not None and issubclass(client, StorageKVClient) else None

    @classmethod
    def needs_manager(cls, client_type: str) -> bool:
        """Whether it is a client of the value form, which needs `KVStorageManager`."""
        client = cls._registry.get(client_type)
        return client is not None and not has_form(client, POINTER_FORM)


# Runs after close(), which does not wait for long: a thread that returned to a finalized interpreter would crash.
atexit.register(_core.kv_wait)
