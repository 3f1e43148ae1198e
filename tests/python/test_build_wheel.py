"""tools/build_wheel.py puts the licences of what a wheel carries into it, or refuses."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from build_wheel import add_licences  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="not a Debian system")


def unpacked(folder: Path, library: str) -> Path:
    """A wheel with one library, as auditwheel names it, of the system's own file."""
    info = folder / "transferq-1.dist-info"
    (info / "licenses").mkdir(parents=True)
    (info / "licenses" / "LICENSE").write_text("ours", "utf-8")
    (info / "METADATA").write_text("Name: transferq\nLicense-File: LICENSE\n\nText\n", "utf-8")
    (folder / "transferq.libs").mkdir()
    (folder / "transferq.libs" / library).touch()
    return info


def test_licences_come_from_the_package_of_each_library(tmp_path: Path) -> None:
    (system,) = Path("/usr/lib").glob("*/libmicrohttpd.so.*.*")
    info = unpacked(tmp_path, system.name.replace(".so", "-0123abcd.so"))
    (library,) = add_licences(tmp_path)
    assert library.package.startswith("libmicrohttpd")
    assert library.source.startswith("libmicrohttpd ")
    licences = info / "licenses"
    text = (licences / "bundled" / library.package / "copyright").read_text("utf-8")
    assert "LGPL" in text
    assert list((licences / "bundled" / "common-licenses").glob("LGPL*"))
    assert f"| {library.file} | {library.package} |" in (licences / "THIRD_PARTY.md").read_text(
        "utf-8"
    )

    head, _, body = (info / "METADATA").read_text("utf-8").partition("\n\n")
    named = {
        line.partition(": ")[2] for line in head.splitlines() if line.startswith("License-File")
    }
    files = {str(path.relative_to(licences)) for path in licences.rglob("*") if path.is_file()}
    assert named == files
    assert body == "Text\n"


def test_a_library_of_no_package_is_refused(tmp_path: Path) -> None:
    unpacked(tmp_path, "libnobodys-0123abcd.so.1")
    with pytest.raises(SystemExit, match=r"libnobodys\.so\.1 belongs to no Debian package"):
        add_licences(tmp_path)
