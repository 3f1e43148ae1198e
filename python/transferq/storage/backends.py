"""Backends by name: import what a configuration section asks for, prepare the store, report connected clients."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .._impl.config_keys import BUILT_IN
from .._impl.system import ControllerInfo, describe
from ..errors import ConfigError
from .kv import StorageClientFactory, do_nothing
from .kv_manager import KVStorageManager
from .manager import StorageManager, StorageManagerFactory


def _module(name: str, section: Mapping[str, Any]) -> str | None:
    """Return the module named by a backend's section, or None."""
    module = section.get("module")
    if module is None or module == "":
        return None
    if not isinstance(module, str) or module.startswith("."):
        raise ConfigError(f"backend.{name}.module: expected the name of a module, got {module!r}")
    return module


def _code(name: str, section: Mapping[str, Any]) -> list[str]:
    """Return the code that a backend's section runs in each client: a library, a module."""
    library = section.get("library") or ""
    try:
        return [os.fsdecode(library), _module(name, section) or ""]
    except TypeError:
        raise ConfigError(f"backend.{name}.library: expected a path, got {library!r}") from None


def allowing(info: ControllerInfo, given: Mapping[str, Any]) -> ControllerInfo:
    """Add the code that this process allows to `info`: from the handle, the environment, its own configuration."""
    sections = (given.get("backend") or {}).items()
    own = [
        code for name, part in sections if isinstance(part, Mapping) for code in _code(name, part)
    ]
    listed = (info.allowed or "").split(":") + os.environ.get("TQ_LIBRARIES", "").split(":")
    return info._replace(allowed=":".join(dict.fromkeys(filter(None, listed + own))))


def _is_allowed(module: str, info: ControllerInfo) -> bool:
    """Whether this process may import a module named by the system.

    Importing runs the module's code, and whoever runs the system we were led to can name any module.  A module that
    is already imported runs no more code.
    """
    return module in sys.modules or module in (info.allowed or "").split(":")


def _import(name: str, module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"backend.{name}.module: {module!r} cannot be imported: {error}"
        ) from error


def _is_registered(name: str) -> bool:
    return StorageManagerFactory.knows(name) or name in StorageClientFactory._registry


def import_backend(
    name: str, section: Mapping[str, Any], info: ControllerInfo | None = None
) -> None:
    """Import the code that registers a backend: its built-in module, and the module named by its section.

    With `info` the section is that of the system there, and the module must be allowed; otherwise it is our own.
    """
    built_in, module = BUILT_IN.get(name), _module(name, section)
    if built_in is not None:
        _import(name, built_in)
    if module is None:
        return
    if info is None or _is_allowed(module, info):
        _import(name, module)
    elif built_in is not None or not _is_registered(name):
        raise ConfigError(
            f"the system's configuration names the module {module!r} for backend {name}, which this process has not "
            f"allowed: importing it would run its code. It is {describe(info)}. If you trust it, set "
            f"TQ_LIBRARIES={module} (a list of libraries and modules, joined by colons), or name it in this process's "
            f"own configuration, backend.{name}.module"
        )


def manager_in_python(
    name: str, controller_info: ControllerInfo, section: Mapping[str, Any]
) -> StorageManager | None:
    """Make the storage manager of a backend if it is written in Python.

    The module named by the backend's section, if allowed, is imported first, because it may register the manager.
    """
    import_backend(name, section, controller_info)
    client = StorageClientFactory.known(name)
    manager_type = None if client is None else client.manager_type(section)
    if manager_type is not None or StorageManagerFactory.knows(name):
        return StorageManagerFactory.create(manager_type or name, controller_info, section)
    if StorageClientFactory.needs_manager(name):
        return KVStorageManager(controller_info, {**section, "client_name": name})
    return None


def starting(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Callable[[], None]]:
    """Prepare what the backend of a configuration needs before a system starts.

    Returns the configuration to start the system with, and a function to call after the system has ended.
    """
    backend = given.get("backend") or {}
    name = str(backend.get("storage_backend") or "")
    section = backend.get(name) or {}
    if name in BUILT_IN or name in StorageClientFactory._registry:
        import_backend(name, section)
    client = StorageClientFactory.known(name)
    if client is None:
        return given, do_nothing
    detached = (given.get("ray") or {}).get("lifetime") == "detached"
    changed, ended = client.starting(section, detached)
    return {**given, "backend": {**backend, name: changed}}, ended


def client_connected(
    info: ControllerInfo, epoch: int, name: str, section: Mapping[str, Any]
) -> None:
    """Tell the class of the store's clients that a client has connected."""
    client = StorageClientFactory.known(name)
    if client is not None:
        client.connected(info, epoch, section)
