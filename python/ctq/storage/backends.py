"""Backends by name: what the section of a configuration asks for is imported, started and told of clients."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._config_keys import BUILT_IN
from ..errors import ConfigError
from .kv import StorageClientFactory, nothing
from .kv_manager import KVStorageManager
from .manager import StorageManager, StorageManagerFactory

if TYPE_CHECKING:
    from ..system import ControllerInfo


def import_backend(name: str, section: Mapping[str, Any]) -> None:
    """Import what registers a backend: its module here, and the one that its section names."""
    for module in (BUILT_IN.get(name), section.get("module")):
        if module is not None:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ConfigError(
                    f"backend.{name}.module: {module!r} cannot be imported: {error}"
                ) from error


def manager_in_python(
    name: str, controller_info: ControllerInfo, section: Mapping[str, Any]
) -> StorageManager | None:
    """Make the storage manager of a backend, if it is one written in Python.

    The module that the backend's section names is imported first, and may be what registers it.
    """
    import_backend(name, section)
    client = StorageClientFactory.known(name)
    manager_type = None if client is None else client.manager_type(section)
    if manager_type is not None or StorageManagerFactory.knows(name):
        return StorageManagerFactory.create(manager_type or name, controller_info, section)
    if StorageClientFactory.needs_manager(name):
        return KVStorageManager(controller_info, {**section, "client_name": name})
    return None


def starting(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Callable[[], None]]:
    """What the backend of a configuration needs before a system starts.

    Returns the configuration to start it with, and what to call when it has ended.
    """
    backend = given.get("backend") or {}
    name = str(backend.get("storage_backend") or "")
    section = backend.get(name) or {}
    if name in BUILT_IN or name in StorageClientFactory._registry:
        import_backend(name, section)
    client = StorageClientFactory.known(name)
    if client is None:
        return given, nothing
    detached = (given.get("ray") or {}).get("lifetime") == "detached"
    changed, ended = client.starting(section, detached)
    return {**given, "backend": {**backend, name: changed}}, ended


def client_connected(
    info: ControllerInfo, epoch: int, name: str, section: Mapping[str, Any]
) -> None:
    """Tell the class of the store's clients that one has connected."""
    client = StorageClientFactory.known(name)
    if client is not None:
        client.connected(info, epoch, section)
