"""Install the wheel of dist/ into a bare Debian, and use it: `make test-wheel`.

A new Debian, in a temporary folder, gets Python and none of the packages that the build needs. In it, in a virtual
environment: the wheel is installed, README's first example runs, and so do tq, tqd and the extensions. No library of the
package may be loaded from the system but the C library. Needs root, debootstrap and a Debian mirror; nothing stays.

Usage: test_wheel.py [--mirror URL] [WHEEL]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The Debian whose python3 is of a version.
SUITES = {"cp311": "bookworm", "cp313": "trixie"}
# Libraries that a bare Debian does not have; the others may be there for Python or apt.
ABSENT = (
    "uv",
    "protobuf-c",
    "roaring",
    "microhttpd",
    "hiredis",
    "uriparser",
    "jansson",
    "msgpackc",
    "yaml-0",
)
# From the system, as every manylinux wheel: the C library.
OF_THE_SYSTEM = r"(linux-vdso|ld-linux-x86-64|libc|libm|libdl|libpthread|librt)\.so[.\d]*"
USE = """
import importlib.metadata, pathlib, subprocess, sys, sysconfig
import ctq, transferq, transferq._core, transferq._host
assert ctq.init is transferq.init
version = importlib.metadata.version("transferq")
scripts = pathlib.Path(sysconfig.get_path("scripts"))
for program in ("tq", "tqd"):
    told = subprocess.run([scripts / program, "--version"], capture_output=True, text=True, check=True).stdout
    assert told.split()[-1] == version, told
usage = subprocess.run([scripts / "tqd", "--help"], capture_output=True, text=True, check=True).stdout
assert "all-in-one" in usage, usage
licences = importlib.metadata.metadata("transferq").get_all("License-File")
files = {str(path) for path in importlib.metadata.files("transferq")}
missing = [name for name in licences if f"transferq-{version}.dist-info/licenses/{name}" not in files]
assert "LICENSE" in licences and "THIRD_PARTY.md" in licences and not missing, (licences, missing)
"""
# A sampler in Python makes init() start the daemon inside a Python process: transferq._host.
SAMPLER = """
import transferq as tq

class Last(tq.BaseSampler):
    def sample(self, ready_indexes, batch_size, *args, **kwargs):
        return ready_indexes[-batch_size:], ready_indexes[-batch_size:]
"""
HOSTED = """
import numpy as np
import transferq as tq
from last_sampler import Last

tq.init({"controller": {"sampler": Last()}})
client = tq.get_client()
client.put({"x": np.arange(4)}, partition_id="p")
assert client.get_data(client.get_meta(["x"], 1, "p", task_name="t"))["x"].tolist() == [3]
tq.close()
"""


def run(*words: str | Path, **options: str) -> str:
    """The output of a command; the end, with its output, if it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\ntest_wheel: failed: {' '.join(map(str, words))[:500]}")
    return str(done.stdout)


def inside(root: Path, *words: str, text: str = "") -> str:
    """The output of a command in the bare system; everything mounted for it, and every process, ends with it."""
    mounts = 'mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/dev/shm" && mount -t tmpfs tmpfs "$0/tmp"'
    enter = 'exec chroot "$0" env -i PATH=/venv/bin:/usr/bin:/bin HOME=/tmp LC_ALL=C.UTF-8 "$@"'
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    return run(*unshare, "sh", "-c", f"{mounts} && {enter}", root, *words, input=text)


def bare_system(root: Path, suite: str, *mirror: str) -> None:
    """Make a Debian with Python, and see that it has no library of the wheel."""
    run("debootstrap", "--variant=minbase", "--include=python3,python3-venv", suite, root, *mirror)
    there = [path.name for path in root.glob("usr/lib/*/lib*.so*")]
    found = [name for name in there if re.match(rf"lib({'|'.join(ABSENT)})\.so", name)]
    if found:
        sys.exit(f"test_wheel: the bare system has {', '.join(found)}")


def install(root: Path, wheel: Path) -> None:
    """Install the wheel; what it requires is fetched outside, so that the bare system needs no network."""
    wheels = root / "wheels"
    pip = (sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check")
    run(
        *pip,
        "-c",
        ROOT / "requirements/constraints.txt",
        "--only-binary=:all:",
        "-d",
        wheels,
        wheel,
    )
    inside(root, "python3", "-m", "venv", "/venv")
    inside(root, "pip", "install", "-q", "--no-index", "--find-links", "/wheels", "transferq")


def check_libraries(root: Path) -> int:
    """Check where each library of the package would be loaded from; their number."""
    (site,) = root.glob("venv/lib/python3*/site-packages")
    binaries = [*site.glob("transferq/*.so"), *site.glob("transferq.scripts/*")]
    seen = set()
    for binary in binaries:
        for line in inside(root, "ldd", f"/{binary.relative_to(root)}").splitlines():
            name, _, path = line.strip().partition(" => ")
            name = Path(name.split()[0]).name
            if "/transferq.libs/" in path:
                seen.add(name)
            elif not re.fullmatch(OF_THE_SYSTEM, name):
                sys.exit(f"test_wheel: {binary.name} loads {line.strip()}")
    carried = {path.name for path in site.glob("transferq.libs/*")}
    if len(binaries) != 4 or seen != carried:
        sys.exit(f"test_wheel: {len(binaries)} binaries, which use {seen} of {carried}")
    return len(seen)


def use(root: Path) -> None:
    """Run the programs, README's first example, and a daemon inside a Python process."""
    inside(root, "python", "-", text=USE)
    (example,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    told = inside(root, "python", "-", text=example)
    if told.split() != ["[3.", "0.", "6.", "0.]"]:
        sys.exit(f"test_wheel: README's example printed {told!r}")
    (root / "last_sampler.py").write_text(SAMPLER, "utf-8")
    (root / "hosted.py").write_text(HOSTED, "utf-8")
    inside(root, "python", "/hosted.py")


def main() -> int:
    """Check the wheel; anything wrong ends the run with a message."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mirror", help="of Debian; debootstrap's own unless given")
    parser.add_argument(
        "wheel", nargs="?", type=Path, help="the one in dist/ for this Python unless given"
    )
    args = parser.parse_args()
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheel = args.wheel or next(iter(ROOT.glob(f"dist/transferq-*-{tag}-*.whl")), None)
    if wheel is None:
        sys.exit("test_wheel: no wheel for this Python in dist/: run `make wheel`")
    suite = SUITES.get(wheel.name.split("-")[2])
    if suite is None:
        sys.exit(
            f"test_wheel: no Debian has the Python of {wheel.name}; there are {', '.join(SUITES)}"
        )
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("test_wheel: needs root and debootstrap (packages/wheel.txt)")
    with tempfile.TemporaryDirectory(prefix="tq-bare-") as folder:
        root = Path(folder) / "root"
        bare_system(root, suite, *([args.mirror] if args.mirror else []))
        install(root, wheel.resolve())
        count = check_libraries(root)
        use(root)
    size = wheel.stat().st_size / 1e6
    print(
        f"test_wheel: {wheel.name}, {size:.1f} MB, {count} libraries inside: works in a bare {suite}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
