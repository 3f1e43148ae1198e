"""Imports of the package's modules under its former name, `ctq`, give the very same module objects.

Without this, `import ctq.errors` would load the file of `transferq.errors` a second time, as another module with other
classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]

MOVED = {
    "by_key": "client.by_key",
    "checkpoint": "client.checkpoint",
    "ray_actor": "ray.actor",
    "ray_cluster": "ray.cluster",
    "ray_daemons": "ray.daemons",
    "storage.ray_columns": "storage.ray.columns",
    "storage.ray_holder": "storage.ray.holder",
    "storage.ray_records": "storage.ray.records",
    "storage.ray_store": "storage.ray.store",
    "storage.ray_tensors": "storage.ray.tensors",
}
"""Where modules of the former name are now; all others that are not where they were are in `_impl`."""


def _find(name: str) -> ModuleSpec | None:
    """The spec of the module that had a name, below the package, when the package had its former name."""
    for where in (name, MOVED.get(name) or f"_impl.{name.removeprefix('_')}"):
        found = importlib.util.find_spec(f"{PACKAGE}.{where}")
        if found is not None:
            return found
    return None


class _SameModule(Loader):
    """Loads a module by importing another one, which takes its place in `sys.modules`."""

    def __init__(self, target: str) -> None:
        self._target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the import system: `exec_module` replaces the module that it makes."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Import the target; the import system returns what it finds in `sys.modules` afterwards."""
        sys.modules[module.__name__] = importlib.import_module(self._target)

    def get_code(self, fullname: str) -> CodeType | None:
        """The target's code, which `python -m` runs."""
        spec = importlib.util.find_spec(self._target)
        loader = spec and spec.loader
        return loader.get_code(self._target) if isinstance(loader, InspectLoader) else None


class _FormerName(MetaPathFinder):
    """Finds the modules of this package under the package's former name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> ModuleSpec | None:
        """The spec of a module under the former name; None for a module that is not one of ours."""
        package, _, rest = fullname.partition(".")
        if package != self.name or not rest:
            return None
        found = _find(rest)
        if found is None:
            return None
        return ModuleSpec(
            fullname,
            _SameModule(found.name),
            origin=found.origin,
            is_package=found.submodule_search_locations is not None,
        )


def install(name: str) -> None:
    """Find the modules of this package under `name`, too; before all other finders, so that none loads them twice."""
    if not any(isinstance(finder, _FormerName) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _FormerName(name))
