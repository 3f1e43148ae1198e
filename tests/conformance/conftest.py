"""Fixtures of the suite, its options, and the table of what passed."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import transferq

from . import capabilities
from .backend import EXAMPLES, TESTS, Backend
from .backends import BACKENDS, libraries

NEEDS = {
    "restart",
    "pause",
    "fill",
    "delay",
    "share",
    "collect",
    "atomic",
    "transport",
    "kv",
    "in c",
    "by pointer",
    "by value",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption(
        "--backends-full", action="store_true", help="also the slow and the large cases"
    )
    group.addoption(
        "--backend", action="append", default=[], help="only this one (conformance/backends.py)"
    )


def is_full(config: pytest.Config) -> bool:
    """Whether to run the slow and the large cases too."""
    return bool(config.getoption("backends_full", default=False))


def chosen(config: pytest.Config, needs: set[str]) -> list[str]:
    """Names of the backends with these abilities."""
    assert needs <= NEEDS, needs
    only = config.getoption("backend", default=[]) or list(BACKENDS)
    return [name for name in BACKENDS if name in only and needs <= BACKENDS[name].can]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    needs = {str(what) for mark in metafunc.definition.iter_markers("needs") for what in mark.args}
    for fixture, scope in (("backend", "package"), ("fresh", "function"), ("opened", "function")):
        if fixture in metafunc.fixturenames:
            names = chosen(metafunc.config, needs)
            metafunc.parametrize(fixture, names, indirect=True, scope=scope)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not is_full(config):
        large = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=large)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


# --- fixtures ---------------------------------------------------------------------------------------


@pytest.fixture(scope="package", autouse=True)
def alone() -> Iterator[None]:
    """Hides other systems, and makes the stores of the tests and of the examples importable."""
    with tempfile.TemporaryDirectory(prefix="tqc-") as path, pytest.MonkeyPatch.context() as patch:
        for name in ("TQ_ADDRESS", "TQ_TOKEN_FILE", "TQ_SYSTEM"):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_RUNTIME_DIR", path)
        paths = [str(TESTS), str(EXAMPLES)]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        # Clients with a given address load a library, or import a module, only if it is listed here.
        code = [*libraries(), "file_store", "conformance.stores"]
        patch.setenv("TQ_LIBRARIES", ":".join(code))
        patch.setattr(sys, "path", [*sys.path, *paths])
        yield


@pytest.fixture(scope="package")
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend shared by all tests that do not change it; `transferq` is attached to its system."""
    with tempfile.TemporaryDirectory(prefix="tqc-") as path:
        made = BACKENDS[request.param](Path(path))
        made.start()
        try:
            transferq.init(
                {
                    "address": made.reach.address,
                    "token_file": made.reach.token_file,
                    "client": {"timeout": 30},
                }
            )
            yield made
        finally:
            transferq.close()
            made.close()


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A backend for one test, which starts it with `launch` and may do anything to it."""
    made: list[Backend] = []
    with tempfile.TemporaryDirectory(prefix="tqc-") as path:

        def launch(room: int = 0, delayed: bool = False, patience: int = 60) -> Any:
            made.append(BACKENDS[request.param](Path(path), room, patience))
            if delayed:
                made[0].open_store()
                relay = made[0].delayed()
                made[0].open_system()
                return made[0], relay
            made[0].start()
            return made[0]

        try:
            yield launch
        finally:
            for one in made:
                one.close()


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A store without a system."""
    with tempfile.TemporaryDirectory(prefix="tqc-") as path:
        made = BACKENDS[request.param](Path(path))
        try:
            made.open_store()
            yield made
        finally:
            made.close()


@pytest.fixture
def pid(request: pytest.FixtureRequest, backend: Backend) -> Iterator[str]:
    """A partition for this test, cleared afterwards."""
    name = request.node.name[:200]
    yield name
    transferq.get_client().clear_partition(name)


# --- the table --------------------------------------------------------------------------------------

RESULTS: dict[str, dict[str, int]] = {}
MEASURED: dict[str, capabilities.Row] = {}
"""Results of test_capabilities, by title of the backend."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_full(session.config) and MEASURED:
        known = {**capabilities.read(), **MEASURED}
        titles = [made.title for made in BACKENDS.values()]
        capabilities.write({title: known[title] for title in titles if title in known})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    params = getattr(item, "callspec", None)
    known = ("backend", "fresh", "opened")
    name = params and next((params.params[one] for one in known if one in params.params), None)
    if name and (report.when == "call" or report.failed):
        counts = RESULTS.setdefault(name, {"passed": 0, "failed": 0})
        counts["failed" if report.failed else "passed"] += 1
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not RESULTS:
        return
    terminalreporter.section("conformance: backend x passed / failed")
    width = max(len(BACKENDS[name].title) for name in RESULTS)
    for name in sorted(RESULTS, key=list(BACKENDS).index):
        counts = RESULTS[name]
        terminalreporter.write_line(
            f"{BACKENDS[name].title:{width}}  {counts['passed']:4} passed  {counts['failed']:3} failed"
        )
