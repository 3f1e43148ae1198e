"""Faults that C programmers met when they built against the installed libraries: nothing installed, and all in one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

import transferq
from support.daemons import System

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("TQ_TEST_BUILD", ROOT / "build" / "test"))
MESON = shutil.which("meson")
HELLO = ROOT / "examples" / "hello.c"
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
STANDARDS = {
    "c99": ("cc", "-std=c99", "-xc"),
    "c++17": ("c++", "-std=c++17", "-xc++"),
}
# What a program needs that runs a daemon, and one that is only a client does not.
OF_THE_DAEMON = ("libmicrohttpd", "libyaml", "libroaring")

# Brings a sampler of its own, and is tqd otherwise.
HOST = r"""
#include <stdio.h>
#include <tq/daemon.h>
#include <tq/sampler.h>

static uint32_t need(const tq_pick_request *request)
{
    return request->batch_size;
}

static int pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *out, tq_error *err)
{
    (void)err;
    for (uint32_t i = 0; i < request->batch_size; i++) {
        tq_pick_add(out, tq_view_count(view) - 1 - i, true);
    }
    return TQ_OK;
}

static const tq_sampler last = {.abi = TQ_SAMPLER_ABI, .name = "last", .need = need, .pick = pick};

int main(int argc, char **argv)
{
    tq_error err = {0};
    if (tq_sampler_register(&last, &err) != TQ_OK) {
        return fprintf(stderr, "%s\n", err.message);
    }
    return tq_daemon_run(argc, argv, NULL);
}
"""

CMAKE = """
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(tq @VERSION@ REQUIRED COMPONENTS tqd)
foreach(kind "" _static)
    add_executable(hello${kind} hello.c)
    target_link_libraries(hello${kind} PRIVATE tq::tq${kind})
    add_executable(host${kind} host.c)
    target_link_libraries(host${kind} PRIVATE tq::tqd${kind})
endforeach()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MESON is None, reason="meson is not on the PATH"),
]


def run(*words: str | Path, status: int = 0, **environment: str) -> str:
    """The output of a command that ends with this status."""
    done = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


class Prefix:
    """An installation of the libraries."""

    def __init__(self, root: Path) -> None:
        """The installation below this folder; its pkg-config files get its path as their prefix."""
        (pc,) = root.glob("**/tq.pc")
        (header,) = root.glob("**/include/tq/tq.h")
        self.lib = pc.parent.parent
        self.top = header.parents[2]
        for file in pc.parent.glob("*.pc"):
            text = file.read_text("utf-8")
            text = re.sub(r"^prefix=.*", f"prefix={self.top}", text, flags=re.MULTILINE)
            file.write_text(text, "utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """What finds the libraries, at build time and at run time."""
        return {
            "PKG_CONFIG_PATH": str(self.lib / "pkgconfig"),
            "CMAKE_PREFIX_PATH": str(self.lib / "cmake"),
            "LD_LIBRARY_PATH": str(self.lib),
        }

    def flags(self, *options: str) -> list[str]:
        """The answer of pkg-config."""
        return run("pkg-config", "--cflags", "--libs", *options, **self.environment).split()

    def libraries(self, binary: Path) -> str:
        """What a program or library loads."""
        return run("ldd", binary, **self.environment)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Prefix:
    """The tests' build, installed."""
    root = tmp_path_factory.mktemp("installed")
    install = (str(MESON), "install", "-C", BUILD, "--no-rebuild", "--quiet")
    run(*install, "--tags", "runtime,devel,man", DESTDIR=str(root))
    return Prefix(root)


@pytest.fixture(scope="module")
def archives(installed: Prefix, tmp_path_factory: pytest.TempPathFactory) -> Prefix:
    """The same without the shared libraries."""
    root = tmp_path_factory.mktemp("archives") / "prefix"
    shared = shutil.ignore_patterns("*.so", "*.so.*")
    shutil.copytree(installed.top, root, symlinks=True, ignore=shared)
    return Prefix(root)


@pytest.fixture
def environment(system: System) -> Mapping[str, str]:
    """What leads a client to a running system."""
    system.start(settings=["backend.SimpleStorage.total_storage_size=64MiB"])
    return system.environment()


def greets(program: Path, environment: Mapping[str, str], prefix: Prefix) -> None:
    """Checks that examples/hello.c does what it says."""
    told = run(program, **{**environment, **prefix.environment})
    assert told == "1 2 3\n"


def test_everything_is_installed(installed: Prefix) -> None:
    headers = {path.name for path in (ROOT / "include" / "tq").glob("*.h")}
    assert {path.name for path in (installed.top / "include" / "tq").iterdir()} == headers
    major, minor, _ = transferq.__version__.split(".")
    soversion = f"0.{minor}" if major == "0" else major
    for name in ("libtq", "libtqd"):
        assert (installed.lib / f"{name}.a").read_bytes().startswith(b"!<arch>\n")
        assert (installed.lib / f"{name}.so").resolve().name == f"{name}.so.{transferq.__version__}"
        dynamic = run("readelf", "-d", installed.lib / f"{name}.so")
        assert f"Library soname: [{name}.so.{soversion}]" in dynamic
    for program in ("tq", "tqd"):
        assert os.access(installed.top / "bin" / program, os.X_OK)
        assert list(installed.top.glob(f"share/man/man1/{program}.1*"))


@pytest.mark.parametrize("standard", STANDARDS)
@pytest.mark.parametrize("sanitized", [False, True], ids=["plain", "sanitized"])
def test_a_program_is_built_with_pkg_config(
    standard: str,
    sanitized: bool,
    installed: Prefix,
    environment: Mapping[str, str],
    tmp_path: Path,
) -> None:
    program = tmp_path / "hello"
    compiler, *options = STANDARDS[standard]
    options += ["-Wall", "-Wextra", "-Wpedantic", "-Werror", *(SANITIZED if sanitized else ())]
    run(compiler, *options, HELLO, "-xnone", "-o", program, *installed.flags("tq"))
    greets(program, environment, installed)
    libraries = installed.libraries(program)
    assert re.search(rf"libtq\.so\.\S+ => {installed.lib}", libraries)
    assert not [name for name in OF_THE_DAEMON if name in libraries]


def test_a_program_is_built_with_the_static_library(
    archives: Prefix, environment: Mapping[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "hello"
    run("cc", HELLO, "-o", program, *archives.flags("--static", "tq"))
    greets(program, environment, archives)
    libraries = archives.libraries(program)
    assert not [name for name in ("libtq", *OF_THE_DAEMON) if name in libraries]


def test_the_static_library_is_linked_where_both_are_installed_as_the_readme_says(
    installed: Prefix, environment: Mapping[str, str], tmp_path: Path
) -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    (flags,) = re.findall(r"`(\$\(pkg-config --static [^`]*)`", page)
    program = tmp_path / "hello"
    run("sh", "-ec", f"cc {HELLO} -o {program} {flags}", **installed.environment)
    assert "libtq" not in installed.libraries(program)
    assert run(program, **environment) == "1 2 3\n"


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_a_daemon_with_a_sampler_of_its_own_is_built_with_pkg_config(
    kind: str, installed: Prefix, archives: Prefix, tmp_path: Path
) -> None:
    prefix = installed if kind == "shared" else archives
    source = tmp_path / "host.c"
    source.write_text(HOST, "utf-8")
    program = tmp_path / "host"
    options = ["--static"] if kind == "static" else []
    run("cc", source, "-o", program, *prefix.flags(*options, "tqd"))
    assert re.fullmatch(r"tqd \d+\.\d+\.\d+\n", run(program, "--version", **prefix.environment))
    libraries = prefix.libraries(program)
    assert ("libtqd.so" in libraries) == (kind == "shared")
    assert [name for name in OF_THE_DAEMON if name not in libraries] == []


def test_a_process_may_use_both_libraries(installed: Prefix, tmp_path: Path) -> None:
    source = tmp_path / "both.c"
    text = HOST.replace("#include <stdio.h>", "#include <stdio.h>\n#include <tq/tq.h>")
    text = text.replace(
        "    return tq_daemon_run", "    puts(tq_version());\n    return tq_daemon_run"
    )
    source.write_text(text, "utf-8")
    program = tmp_path / "both"
    run("cc", source, "-o", program, *installed.flags("tq", "tqd"))
    first, second = run(program, "--version", **installed.environment).splitlines()
    assert second == f"tqd {first}"
    assert "libtq.so" in installed.libraries(program)


def test_programs_are_built_with_cmake(
    installed: Prefix, environment: Mapping[str, str], tmp_path: Path
) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed (packages/test.txt)")
    shutil.copyfile(HELLO, tmp_path / "hello.c")
    (tmp_path / "host.c").write_text(HOST, "utf-8")
    lists = tmp_path / "CMakeLists.txt"
    major, minor, _ = transferq.__version__.split(".")
    lists.write_text(CMAKE.replace("@VERSION@", f"{major}.{minor}"), "utf-8")
    build = tmp_path / "build"
    configure = (cmake, "-S", tmp_path, "-B", build)
    run(*configure, **installed.environment)
    run(cmake, "--build", build, **installed.environment)
    for program in ("hello", "hello_static"):
        greets(build / program, environment, installed)
        assert ("libtq.so" in installed.libraries(build / program)) == (program == "hello")
    for program in ("host", "host_static"):
        told = run(build / program, "--version", **installed.environment)
        assert re.fullmatch(r"tqd \d+\.\d+\.\d+\n", told)
        assert ("libtqd.so" in installed.libraries(build / program)) == (program == "host")

    # A program written for another minor version is refused: until 1.0 its ABI is another one.
    lists.write_text(CMAKE.replace("@VERSION@", f"{major}.{int(minor) + 1}"), "utf-8")
    told = run(*configure, "--fresh", status=1, **installed.environment)
    assert f"tqConfig.cmake, version: {transferq.__version__}" in told


def test_cmake_names_what_is_missing(archives: Prefix, tmp_path: Path) -> None:
    """Without the shared libraries, what the static ones need must be there."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed (packages/test.txt)")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(user C)\nfind_package(tq REQUIRED)\n",
        "utf-8",
    )
    environment = {**archives.environment, "PKG_CONFIG_PATH": "", "PKG_CONFIG_LIBDIR": "/nowhere"}
    told = run(cmake, "-S", tmp_path, "-B", tmp_path / "build", status=1, **environment)
    assert "no library for tq::tq" in told
    assert "libprotobuf-c" in told


def test_an_installation_of_archives_alone_needs_no_option(tmp_path: Path) -> None:
    """Where there is no shared library, pkg-config names all libraries without --static."""
    setup = (str(MESON), "setup", "-Dpython=false", "-Ddefault_library=static")
    run(*setup, tmp_path / "build", ROOT)
    told = run(
        "pkg-config", "--libs", "tqd", PKG_CONFIG_PATH=str(tmp_path / "build" / "meson-private")
    ).split()
    for name in ("tqd", "tq", "uv", "crypto", "roaring", "microhttpd", "yaml"):
        assert f"-l{name}" in told
