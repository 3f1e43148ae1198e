"""A client's connection: it finds the system, opens the storage manager that the system names, and closes both."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .._core import Client, Op
from .._impl import log
from .._impl.calls import run
from .._impl.encoding import Decoder, Encoder, refuse_pickles
from .._impl.in_force import in_force
from .._impl.named import named
from .._impl.system import ControllerInfo, node
from ..config import Config, config_of_map
from ..config import read as read_config
from ..errors import InvalidArgumentError, TransferQueueError, UnknownManagerError
from ..storage import (
    BUILT_IN,
    C_MANAGERS,
    ManagedStorage,
    StorageManager,
    StorageManagerFactory,
    allowing,
    client_connected,
    manager_in_python,
    manager_of,
)

logger = logging.getLogger("transferq")


class Connection:
    """The part of a client that its calls share: the connection, the storage manager and the settings in force."""

    def __init__(
        self,
        client_id: str | None,
        controller_info: ControllerInfo | Sequence[str | None] | str | None,
        config: Mapping[str, Any] | None,
    ) -> None:
        log.forward()
        self.client_id = client_id or f"transferq-{os.getpid()}"
        self._given = read_config(config)
        self._info = allowing(_as_info(controller_info), self._given)
        self._managed: ManagedStorage | None = None
        self._given_up: dict[Op, tuple[Any, ...]] = {}
        self._core = self._connect()
        try:
            name, section = manager_of(self._core.config)
            client_connected(self._info, self._core.epoch, name, section)
        except BaseException:
            self.close()
            raise
        self.config: Config = self._final_config()
        if not self.config["serialization"]["allow_pickle"]:
            refuse_pickles()

    def _connect(self) -> Client:
        """Connect with the storage manager named by the system."""
        if StorageManagerFactory.is_empty():
            try:
                return self._open(None)
            except UnknownManagerError:
                pass  # the storage manager may be written in Python
        core = self._open("")
        try:
            name, section = manager_of(core.config)
            manager = manager_in_python(name, self._info, section)
        except BaseException:
            core.close()
            raise
        if manager is not None:
            self._managed = ManagedStorage(core, manager, name, self._timeout(core))
            _recover(self._managed)
            return core
        core.close()
        return self._open(None)

    def _own_timeout(self) -> float:
        """The `client.timeout` given to this client; 0 to use the system's."""
        return float((self._given.get("client") or {}).get("timeout") or 0.0)

    def _timeout(self, core: Client) -> float:
        """The time limit of calls that are given no timeout."""
        return float(self._in_force(core)["client"]["timeout"])

    def _notice(self) -> float:
        """How long a call waits before it logs that it is waiting, in the core's form: 0 for the system's setting."""
        given = self._given.get("client", {}).get("wait_notice")
        return 0.0 if given is None else float(given) or -1.0

    def _open(self, manager: str | None, manager_config: str | None = None) -> Client:
        try:
            return Client(
                self._info.address,
                token=self._info.token,
                token_file=self._info.token_file,
                name=self.client_id,
                manager=manager,
                manager_config=manager_config,
                timeout=self._own_timeout(),
                node=node(),
                notice=self._notice(),
                libraries=self._info.allowed,
            )
        except UnknownManagerError as error:
            raise UnknownManagerError(_unknown_backend(str(error), manager is None)) from None

    @property
    def system_config(self) -> Config:
        """The system's own configuration, regardless of what this client was given."""
        return _of_system(self._core)

    def _in_force(self, core: Client) -> Config:
        return in_force(_of_system(core), self._given)

    def _final_config(self) -> Config:
        """The settings in force for this client, and where the system is."""
        final = self._in_force(self._core)
        final["address"] = self._info.address
        final["token_file"] = self._info.token_file
        final["controller"]["zmq_info"] = self._info
        return final

    @named
    def initialize_storage_manager(
        self, manager_type: str, config: Mapping[str, Any] | None = None
    ) -> None:
        """Use a different storage manager than the one named by the system."""
        if StorageManagerFactory.knows(manager_type):
            manager = StorageManagerFactory.create(manager_type, self._info, config or {})
            core = self._open("")
            managed: ManagedStorage | None = ManagedStorage(
                core, manager, manager_type, self._timeout(core)
            )
        else:
            name = C_MANAGERS.get(manager_type, manager_type)
            core = self._open(name, json.dumps(dict(config)) if config else None)
            managed = None
        self.close()
        self._core, self._managed = core, managed

    @property
    def storage_manager(self) -> StorageManager | None:
        """The storage manager, if it is written in Python."""
        return self._managed.manager if self._managed is not None else None

    def close(self) -> None:
        """End all calls with ClosedError and leave the system.  May be called repeatedly."""
        self._given_up.clear()
        managed, self._managed = self._managed, None
        if managed is not None:
            managed.manager.close()
        self._core.close()

    def _encoder(self) -> Encoder:
        return Encoder(self.config["serialization"]["allow_pickle"])

    def _decoder(self) -> Decoder:
        return Decoder(self.config["serialization"]["allow_pickle"])


def _recover(managed: ManagedStorage) -> None:
    """Finish clears that other clients of the same storage began and left behind."""
    try:
        run(managed.recover())
    except TransferQueueError as error:
        logger.warning("removing what others have cleared: %s", error)


def _unknown_backend(why: str, configured: bool) -> str:
    """The error message for a storage manager that the C library does not know."""
    missing = [name for name in BUILT_IN if name not in why]
    if "known are" in why and missing:
        why = ", ".join((why, *missing))
    return (
        f"{'backend.storage_backend: ' if configured else ''}{why}; one written in Python must be registered "
        "before init, or by the module that backend.NAME.module names"
    )


def _of_system(core: Client) -> Config:
    """The configuration of a running system."""
    system: Config = config_of_map(json.loads(core.config or "{}"))
    return system


def _as_info(given: ControllerInfo | Sequence[str | None] | str | None) -> ControllerInfo:
    """How to reach a system, from any form that a user may have."""
    if isinstance(given, ControllerInfo):
        return given
    if isinstance(given, str):
        return ControllerInfo(given, os.environ.get("TQ_TOKEN_FILE"))
    # A ControllerInfo that went through an OmegaConf or JSON.
    if (
        isinstance(given, Sequence)
        and 1 <= len(given) <= len(ControllerInfo._fields)
        and isinstance(given[0], str)
    ):
        return ControllerInfo(given[0], *given[1:])
    raise InvalidArgumentError(
        f"controller_info: expected the address of a controller, got {given!r}"
    )
