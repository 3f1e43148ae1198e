"""The table of the configuration (keys.toml), read and checked: sections with their keys, and storage backends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where meson-python needs it as well
    try:
        import tomli as tomllib  # type: ignore[no-redef]
    except ModuleNotFoundError:
        raise SystemExit(
            "config/table.py: Python 3.10 has no reader of TOML: install tomli (pip install tomli)"
        ) from None

QUANTITIES = ("number", "count", "seconds", "bytes")
KINDS = {
    *QUANTITIES,
    *("text", "choice", "bool", "texts", "map", "any"),
    "layout",
    "padding",
    "upstream",
}
READERS = {"controller", "storage", "client", "init", "backend"}
SCOPES = {"system", "process", "search"}
INHERITED = {"read_by": [], "scope": "system", "since": "0.2.0"}
REQUIRED = {"name", "kind", "help"}
ALLOWED = (
    REQUIRED
    | {*INHERITED, *("default", "if_null", "example", "min", "max", "choices")}
    | {
        *("unit", "more", "expects", "hidden", "counts_below"),
    }
)
QUANTITY = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")


class TableError(Exception):
    """The table has a mistake."""


@dataclass
class Key:
    """One key."""

    section: Section
    entry: dict[str, Any]
    units: dict[str, dict[str, float]]

    @property
    def path(self) -> str:
        """`section.name`."""
        return f"{self.section.name}.{self['name']}".lstrip(".")

    def __getitem__(self, name: str) -> Any:
        """The value of the entry, or of its section, or None."""
        own = self.entry.get(name)
        return self.section.entry.get(name, INHERITED.get(name)) if own is None else own

    def number(self, value: Any) -> float | int:
        """A limit or a default, as a plain number of seconds or bytes."""
        if not isinstance(value, str):
            return value
        match = QUANTITY.fullmatch(value)
        factor = match and self.units.get(self["kind"], {}).get(match[2])
        if not factor:
            raise TableError(f"{self.path}: {value!r} is no quantity of kind {self['kind']}")
        number = float(match[1]) * factor
        return int(number) if number == int(number) else number

    @property
    def range(self) -> str:
        """The limits in words: "1 to 256 units", "at least 1MiB"; empty if there are none."""
        low, high, unit = self["min"], self["max"], self["unit"]
        if low is None:
            return ""
        text = f"at least {low}" if high is None else f"{low} to {high}"
        return f"{text} {unit}" if unit else text

    @property
    def choices(self) -> str:
        """The values of a choice in words: "error, warn, info or debug"."""
        *first, last = self["choices"]
        return f"{', '.join(first)} or {last}"

    @property
    def expects(self) -> str:
        """Description of a valid value, for use after "expected ..."."""
        limits = "" if not self.range else f", {self.range}"
        if self["max"] is not None:
            limits = f" from {self.range}"
        offers_null = self.takes_null and not self.section.optional
        texts = {
            "number": f"a number{limits}",
            "count": f"a number{limits.removesuffix(' ' + (self['unit'] or ''))}",
            "seconds": f'a number of seconds{limits}, or a time such as "250ms" or "10s"',
            "bytes": f'a size such as "8GiB", "25%" or a number of bytes{limits}',
            "bool": "true, false or null" if offers_null else "true or false",
            "text": "a text",
            "map": "a map",
        }
        if self["kind"] == "choice":
            return self.choices
        return str(self["expects"] or texts.get(self["kind"], ""))

    @property
    def takes_null(self) -> bool:
        """Whether null is allowed: where it is the default, or the default is decided elsewhere."""
        return (
            self.section.optional
            or self["default"] is None
            or self["kind"] in ("layout", "padding")
        )

    @property
    def shown_default(self) -> str:
        """The default, for display."""
        value = self["if_null"] if self["default"] is None else self["default"]
        return yaml_value(value) if value is not None else "-"


class Section:
    """One section, with its keys."""

    def __init__(self, entry: dict[str, Any], units: dict[str, dict[str, float]]) -> None:
        """Read the section, and check its keys."""
        self.entry = entry
        self.name: str = entry["name"]
        self.optional = bool(entry.get("optional"))
        self.keys = [Key(self, each, units) for each in entry.get("key", [])]
        for key in self.keys:
            check(key)

    @property
    def title(self) -> str:
        """The name, for display."""
        return self.name or "Without a section"


def check(key: Key) -> None:
    """Refuse an entry from which no output could be generated."""
    entry, where = key.entry, key.path if "name" in key.entry else f"a key of {key.section.name}"
    missing, strange = REQUIRED - set(entry), set(entry) - ALLOWED
    if missing or strange:
        raise TableError(f"{where}: lacks {sorted(missing)}, has unknown {sorted(strange)}")
    if key["kind"] not in KINDS:
        raise TableError(f"{where}: kind {key['kind']!r} is none of {', '.join(sorted(KINDS))}")
    if set(key["read_by"]) - READERS or key["scope"] not in SCOPES:
        raise TableError(f"{where}: read_by or scope says what is not explained at the top")
    if (key["kind"] == "choice") != ("choices" in entry) or ("unit" in entry) != (
        key["kind"] == "count"
    ):
        raise TableError(f"{where}: choices go with kind choice, unit with kind count")
    if ("min" in entry) != (key["kind"] in QUANTITIES) or ("max" in entry and "min" not in entry):
        raise TableError(f"{where}: min is needed for {', '.join(QUANTITIES)}, and only for these")
    if key["kind"] in QUANTITIES and key["default"] is not None:
        low, high, value = (
            None if each is None else key.number(each)
            for each in (key["min"], key["max"], key["default"])
        )
        if value < low or (high is not None and value > high):
            raise TableError(f"{where}: the default {key['default']} is not {key.range}")


class Table:
    """The whole table."""

    def __init__(self, path: Path) -> None:
        """Read and check it."""
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        self.units: dict[str, dict[str, float]] = {
            kind: {"": 1, **units} for kind, units in read["units"].items()
        }
        self.sections = [Section(entry, self.units) for entry in read["section"]]
        self.backends: list[dict[str, str]] = read["backend"]
        paths = [key.path for key in self.keys]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise TableError(f"twice in the table: {', '.join(twice)}")

    @property
    def keys(self) -> list[Key]:
        """All keys, in the order of the table."""
        return [key for section in self.sections for key in section.keys]

    def of_daemon(self) -> list[Key]:
        """The keys that tqd checks; other keys of a backend are passed on to it."""
        return [
            key
            for key in self.keys
            if set(key["read_by"]) & {"controller", "storage", "client"}
            or ("backend" in key["read_by"] and key["kind"] in QUANTITIES)
        ]

    def of_init(self) -> list[Key]:
        """The keys that tqd accepts but does not keep: only init() reads them, and no section passes them on."""
        return [
            key
            for key in self.keys
            if set(key["read_by"]) == {"init"} and "others" not in key.section.entry
        ]


def yaml_value(value: Any) -> str:
    """A value as YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value == "":
        return '""'
    return str(value)
