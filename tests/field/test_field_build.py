"""Faults that users met in the build: anything missing is reported at once, with the command that installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MESON = shutil.which("meson")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MESON is None, reason="meson is not on the PATH"),
]


def configure(folder: Path, *options: str, **environment: str) -> str:
    """The output of a failing `meson setup`."""
    done = subprocess.run(
        [str(MESON), "setup", str(folder / "build"), str(ROOT), *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    return done.stdout


def test_missing_packages_are_listed_at_once_with_the_command(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    told = configure(
        tmp_path,
        "-Dpython=false",
        "-Dtests=true",
        PKG_CONFIG_LIBDIR=str(empty),
        PKG_CONFIG_PATH="",
        CMAKE_PREFIX_PATH=str(empty),
    )
    found = re.search(r"ERROR:.* missing: (.*)\n.*apt-get install (.*)\n(.*)", told)
    assert found, told
    listed = found[1].split(", ")
    assert found[2].split() == listed
    assert "make deps" in found[3]
    expected = {"libuv1-dev", "libprotobuf-c-dev", "libjansson-dev", "libxxhash-dev"}
    expected |= {"libmsgpack-dev", "libyaml-dev", "libmicrohttpd-dev", "libhiredis-dev"}
    # CMake may know where OpenSSL and cmocka are.
    expected |= {"liburiparser-dev"}
    assert expected <= set(listed)
    # Each of them is a package that make installs.
    lists = [ROOT / "packages/build.txt", ROOT / "packages/test.txt"]
    packages = {line.strip() for path in lists for line in path.read_text().splitlines()}
    assert set(listed) <= packages


def test_an_old_python_is_named(tmp_path: Path) -> None:
    """A Python of a different version, as Meson asks for it, with the packages of the build installed."""
    real = shutil.which("python3")
    fake = tmp_path / "python3.9"
    fake.write_text(
        f"#!/bin/sh\nexec {real} -c '\nimport sys\ncode = open(sys.argv[1]).read()\nimport sysconfig\n"
        'sysconfig.get_python_version = lambda: "3.9"\nsys.argv = sys.argv[1:]\nexec(code)\n\' "$@"\n'
    )
    fake.chmod(0o755)
    native = tmp_path / "native.ini"
    native.write_text(f"[binaries]\npython = '{fake}'\n")
    told = configure(tmp_path, "-Dpython=true", "--native-file", str(native))
    assert re.search(r"transferq needs Python 3\.10 or newer, and \S*python3\.9 is 3\.9", told), (
        told
    )


def test_every_package_of_the_build_is_checked() -> None:
    """The build file names each library listed in packages/build.txt."""
    text = (ROOT / "meson.build").read_text()
    lines = (ROOT / "packages/build.txt").read_text().splitlines()
    packages = [line for line in lines if line.strip() and not line.startswith("#")]
    tools = {"build-essential", "pkgconf", "python3-venv"}
    assert len(packages) > 10
    assert [name for name in packages if name not in tools and f"'{name}'" not in text] == []
