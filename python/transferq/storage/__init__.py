"""Where data is stored: storage managers, and clients of key-value stores.

A storage manager keeps the data of samples; the rest of the system does not know how.  The managers of the C
library (SimpleStorage, Redis) are selected by name in `backend.storage_backend`, and so are your own: subclass
`StorageManager`, or, for a store that keeps values by key, the smaller `StorageKVClient`, and register the class.
`backend.NAME.module` names the module that registers it; every client that allows it imports it before connecting.
"""

from .._impl.config_keys import BUILT_IN
from .backends import allowing, client_connected, manager_in_python
from .kv import StorageClientFactory, StorageKVClient, memory
from .kv_manager import KVStorageManager
from .manager import (
    C_MANAGERS,
    AsyncSimpleStorageManager,
    ManagedStorage,
    StorageManager,
    StorageManagerFactory,
    TransferQueueStorageManager,
    TransferQueueStorageManagerFactory,
    manager_of,
)

__all__ = [
    "BUILT_IN",
    "C_MANAGERS",
    "AsyncSimpleStorageManager",
    "KVStorageManager",
    "ManagedStorage",
    "StorageClientFactory",
    "StorageKVClient",
    "StorageManager",
    "StorageManagerFactory",
    "TransferQueueStorageManager",
    "TransferQueueStorageManagerFactory",
    "allowing",
    "client_connected",
    "manager_in_python",
    "manager_of",
    "memory",
]
