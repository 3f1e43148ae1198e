"""Build a wheel that carries the libraries it uses: `make wheel`.

The plain wheel needs libuv, protobuf-c and others from the system. auditwheel copies them into transferq.libs and puts
small scripts in place of the programs tq and tqd, which start them from inside the package; the result runs wherever
glibc is as new as here. Its `.dist-info/licenses/bundled/` has the licences of what auditwheel copied, from the Debian
packages that the libraries came from, and THIRD_PARTY.md lists them with the versions of their sources.

Usage: build_wheel.py [--jobs N] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "wheel"
COMMON = Path("/usr/share/common-licenses")
# auditwheel names a copy after its content: libuv-c85c14db.so.1.0.0.
HASH = re.compile(r"-[0-9a-f]{8}(?=\.so)")
HEAD = """\
# Libraries in this wheel

transferq itself is under the Apache License 2.0. The folder `transferq.libs` has unmodified builds of other projects'
libraries from Debian, except that the paths by which they find each other were changed. Their licences are in the folder
`bundled`, one folder for each Debian package, with the texts that these refer to in `bundled/common-licenses`. Each is a
shared library that you may replace by another build of it. Their sources are at https://snapshot.debian.org, under the
name and version in the last column.

| library | Debian package | source |
| --- | --- | --- |
"""


class Bundled(NamedTuple):
    """A library that auditwheel copied into the wheel."""

    file: str
    package: str
    source: str


def run(*words: str | Path) -> None:
    """Run a command, showing its output only if it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nbuild_wheel: failed: {' '.join(map(str, words))}")


def query(*words: str) -> str:
    """The output of a query to Debian's package database, "" if nothing there matches."""
    return subprocess.run(
        ["dpkg-query", *words], capture_output=True, text=True, check=False
    ).stdout


def only(folder: Path, pattern: str) -> Path:
    """The one path that matches."""
    (found,) = folder.glob(pattern)
    return found


def plain_wheel(jobs: int) -> Path:
    """Build the wheel that needs the system's libraries."""
    run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"),
        *("--no-build-isolation", "--no-deps", "-w", WORK / "plain"),
        *(f"-Cbuild-dir={WORK / 'meson'}", f"-Ccompile-args=-j{jobs}", "."),
    )
    return only(WORK / "plain", "*.whl")


def package_of(library: str) -> tuple[str, str]:
    """The Debian package that has a library, as it is named there, and its source with its version."""
    lines = query("-S", f"*/{library}").splitlines()
    owners = {line.rsplit(": ", 1)[0] for line in lines if line.endswith(f"/{library}")}
    if len(owners) != 1:
        sys.exit(f"build_wheel: {library} belongs to {sorted(owners) or 'no Debian package'}")
    (owner,) = owners
    source = query("-W", "-f", "${source:Package} ${source:Version}", owner)
    return owner.split(":")[0], source


def bundled(unpacked: Path) -> list[Bundled]:
    """What auditwheel copied into the wheel."""
    files = sorted(path.name for path in (unpacked / "transferq.libs").iterdir())
    return [Bundled(name, *package_of(HASH.sub("", name))) for name in files]


def add_licences(unpacked: Path) -> list[Bundled]:
    """Put the licences of the bundled libraries beside the project's own, and name them in the metadata."""
    info = only(unpacked, "*.dist-info")
    licences = info / "licenses"
    libraries = bundled(unpacked)
    common = set()
    for package in sorted({library.package for library in libraries}):
        text = Path("/usr/share/doc", package, "copyright").read_text("utf-8")
        target = licences / "bundled" / package / "copyright"
        target.parent.mkdir(parents=True)
        target.write_text(text, "utf-8")
        common |= set(re.findall(rf"{COMMON}/([A-Za-z]+(?:-[0-9]+(?:\.[0-9]+)*)?)", text))
    (licences / "bundled/common-licenses").mkdir()
    for name in sorted(common):
        shutil.copyfile(COMMON / name, licences / "bundled/common-licenses" / name)
    rows = [f"| {row.file} | {row.package} | {row.source} |\n" for row in libraries]
    (licences / "THIRD_PARTY.md").write_text(HEAD + "".join(rows), "utf-8")

    metadata = info / "METADATA"
    own = "License-File: LICENSE\n"
    text = metadata.read_text("utf-8")
    added = [path for path in sorted(licences.rglob("*")) if path.is_file()]
    lines = [f"License-File: {path.relative_to(licences)}\n" for path in added]
    if text.count(own) != 1 or own not in lines:
        sys.exit("build_wheel: the metadata of the wheel does not name LICENSE")
    metadata.write_text(text.replace(own, "".join(lines)), "utf-8")
    return libraries


def main() -> int:
    """Build the wheel and report its size and what it carries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="compilers at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the wheel goes")
    args = parser.parse_args()
    if shutil.which("dpkg-query") is None:
        sys.exit("build_wheel: needs a Debian system, whose packages name the licences")
    for folder in ("plain", "repaired", "unpacked"):
        shutil.rmtree(WORK / folder, ignore_errors=True)

    plain = plain_wheel(args.jobs)
    run(sys.executable, "-m", "auditwheel", "repair", "-w", WORK / "repaired", plain)
    repaired = only(WORK / "repaired", "*.whl")
    run(sys.executable, "-m", "wheel", "unpack", "-d", WORK / "unpacked", repaired)
    unpacked = only(WORK / "unpacked", "*")
    libraries = add_licences(unpacked)
    args.out.mkdir(parents=True, exist_ok=True)
    # An older wheel for this Python would be installed by the same pattern.
    for old in args.out.glob(f"transferq-*-{repaired.name.split('-')[2]}-*.whl"):
        old.unlink()
    run(sys.executable, "-m", "wheel", "pack", "-d", args.out, unpacked)

    wheel = args.out / repaired.name
    packages = sorted({library.package for library in libraries})
    print(f"bundled: {len(libraries)} libraries of the Debian packages {', '.join(packages)}")
    print(f"wheel: {os.path.relpath(wheel)}, {wheel.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
