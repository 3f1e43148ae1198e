"""Generate files for the programs, the package and the reader from config/keys.toml.

Without options: writes python/transferq/config.yaml and docs/configuration.md, which are kept in git.
--check: reports whether these two files are up to date; the lint runs this.
--built DIR: writes the files that the build compiles and installs: config_table.c, config_keys.h, config_backends.h,
config_table.py.

Usage: generate.py [--table FILE] [--root DIR] [--check | --built DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from table import QUANTITIES, Key, Section, Table, TableError, yaml_value

HERE = Path(__file__).resolve().parent
WIDTH = 124
NOTICE = "Made from config/keys.toml by config/generate.py: change it there."

C_TYPES = {
    **dict.fromkeys(("text", "choice"), "TQD_STRING"),
    **dict.fromkeys(("number", "count"), "TQD_INT"),
    "bool": "TQD_BOOL",
    "seconds": "TQD_SECONDS",
    "bytes": "TQD_BYTES",
    "texts": "TQD_STRINGS",
}
"""Types of src/daemon/config.h; values of other types are passed on unread."""
SHOWN_TYPES = {"text": "text", "choice": "text", "bool": "true/false", "number": "number"} | {
    "count": "number",
    "seconds": "time",
    "bytes": "size",
    "texts": "list",
}


# --- C ----------------------------------------------------------------------------------------


def c_text(text: str | None) -> str:
    """A C string literal."""
    return "NULL" if text is None else json.dumps(text, ensure_ascii=True)


def config_table(table: Table) -> str:
    """The table of tqd, with the text of --help-config."""
    rows = []
    for key in table.of_daemon():
        ours = set(key["read_by"]) & {"controller", "storage"}
        enters = ours and key["kind"] in C_TYPES and key.shown_default != "-"
        fields = [
            c_text(key.path),
            C_TYPES.get(key["kind"], "TQD_FREE"),
            # Settings missing from a backend's section are left to the backend.
            c_text(key.shown_default if enters and not key.section.optional else None),
            *(repr(float(key.number(key[limit] or 0))) for limit in ("min", "max")),
            c_text(key.range or None),
            c_text(",".join(key["choices"]) if key["kind"] == "choice" else None),
            c_text(key.choices if key["kind"] == "choice" else None),
        ]
        rows.append(f"    {{{', '.join(fields)}}},")
    for key in table.of_init():
        rows.append(f"    {{{c_text(key.path)}, TQD_INIT, NULL, 0, 0, NULL, NULL, NULL}},")
    for section in table.sections:
        if "others" in section.entry:
            path = c_text(f"{section.name}.*")
            rows.append(f"    {{{path}, TQD_FREE, NULL, 0, 0, NULL, NULL, NULL}},")
    units = [
        f"const tqd_unit tqd_{kind}_units[] = {{\n"
        + "".join(f"    {{{c_text(name)}, {factor!r}}},\n" for name, factor in units.items())
        + "    {NULL, 0},\n};"
        for kind, units in table.units.items()
    ]
    help_lines = "\n".join(f"    {c_text(line)}" for line in help_text(table).splitlines(True))
    return "\n".join(
        [
            f"/* {NOTICE} */",
            '#include "daemon/config.h"\n',
            "const tqd_key tqd_keys[] = {",
            *rows,
            "};\n",
            "const size_t tqd_n_keys = sizeof(tqd_keys) / sizeof(tqd_keys[0]);\n",
            *units,
            "\nconst char tqd_config_help[] =",
            f"{help_lines};\n",
        ]
    )


def help_text(table: Table) -> str:
    """The output of --help-config: key, type, default and description."""
    lines = []

    def line(path: str, kind: str, default: str, text: str) -> None:
        lines.append(f"{path:<46} {kind:<10} {default:<14} {text}\n")

    for section in table.sections:
        for key in section.keys:
            # Leaves out keys that are not settings of a system, or exist only for other programs.
            if section.name and not (key["hidden"] and not set(key["read_by"]) - {"backend"}):
                limits = f" ({key.range})" if key.range else ""
                kind = SHOWN_TYPES.get(key["kind"], "any")
                line(key.path, kind, key.shown_default, key["help"] + limits)
        if "others" in section.entry:
            line(f"{section.name}.*", "any", "-", section.entry["others"])
    return "".join(lines)


def config_keys(table: Table) -> str:
    """Defaults and limits as constants of libtq, and the keys of backends that libtq reads."""
    lines = [f"/* {NOTICE} */", "#ifndef TQI_CONFIG_KEYS_H", "#define TQI_CONFIG_KEYS_H\n"]
    for key in table.keys:
        name = "TQI_CONFIG_" + key.path.replace(".", "_").upper()
        for limit, suffix in (("default", "DEFAULT"), ("min", "MIN"), ("max", "MAX")):
            if key["kind"] in QUANTITIES and key[limit] is not None:
                lines.append(f"#define {name}_{suffix} {key.number(key[limit])}")
    for section in table.sections:
        if section.optional:
            name = "TQI_CONFIG_" + section.name.replace(".", "_").upper()
            names = [key["name"] for key in section.keys if not key["hidden"]]
            lines.append(f"/* The keys of {section.name}: by name, and in words. */")
            lines.append(f"#define {name}_KEYS {', '.join(map(c_text, names))}")
            lines.append(f"#define {name}_WORDS {c_text(', '.join(names))}")
    return "\n".join([*lines, "\n#endif\n"])


def config_backends(table: Table) -> str:
    """The project's own storage managers, for the registry of libtq."""
    lines = [f"/* {NOTICE} */", "#ifndef TQI_CONFIG_BACKENDS_H", "#define TQI_CONFIG_BACKENDS_H\n"]
    built, elsewhere = [], []
    for backend in table.backends:
        name = "TQI_BACKEND_" + backend["name"].upper()
        lines.append(f"#define {name} {c_text(backend['name'])}")
        absent = f"#define {name}_ABSENT(X) X({name}, {c_text(backend.get('absent'))})"
        if "manager" in backend:
            built.append(f"{name}_BUILT(X)")
            lines += [
                f"#ifdef {backend['macro']}",
                f"#define {name}_BUILT(X) X({backend['manager']})",
                f"#define {name}_ABSENT(X)",
                "#else",
                f"#define {name}_BUILT(X)",
                absent,
                "#endif",
            ]
        elif "absent" in backend:
            lines.append(absent)
        if "absent" in backend:
            elsewhere.append(f"{name}_ABSENT(X)")
    lines.append(
        "\n/* X(table) of each manager in this library; X(name, why) of each that is not. */"
    )
    lines.append(f"#define TQI_BACKENDS_BUILT(X) {' '.join(built)}")
    lines.append(f"#define TQI_BACKENDS_ABSENT(X) {' '.join(elsewhere)}")
    return "\n".join([*lines, "\n#endif\n"])


# --- Python -----------------------------------------------------------------------------------


def config_module(table: Table) -> str:
    """The table rows for transferq.config."""
    lines = [f'"""The table of the configuration. {NOTICE}"""\n']
    lines.append(f"UNITS = {table.units!r}\n")
    lines.append("BACKENDS = {")
    for backend in table.backends:
        lines.append(f"    {backend['name']!r}: {backend.get('module')!r},")
    lines.append("}\n")
    optional = tuple(section.name for section in table.sections if section.optional)
    lines.append(f"OPTIONAL = {optional!r}\n")
    lines.append("KEYS = (")
    for key in table.keys:
        row = {
            "path": key.path,
            "kind": key["kind"],
            "default": key["default"],
            "expects": key.expects,
            "null": key.takes_null,
            "scope": key["scope"],
            "read_by": tuple(key["read_by"]),
            "hidden": bool(key["hidden"]),
            "choices": tuple(key["choices"] or ()),
            "minimum": None if key["min"] is None else key.number(key["min"]),
            "maximum": None if key["max"] is None else key.number(key["max"]),
            "counts_below": key["counts_below"] or 0,
        }
        lines.append(f"    {row!r},")
    return "\n".join([*lines, ")\n"])


# --- kept in git ------------------------------------------------------------------------------


def paragraph(key: Key) -> list[str]:
    """The description of a key, in lines: running text is one line, indented lines stay as they are."""
    return running(f"{key['help']} {key['more'] or ''}".replace(" \n", " "))


def running(text: str) -> list[str]:
    """Join lines that are not indented."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        if line.startswith("  ") or not lines or lines[-1].startswith("  "):
            lines.append(line)
        else:
            lines[-1] += f" {line}"
    return [line.rstrip() for line in lines]


def comment(lines: list[str], indent: str) -> list[str]:
    """Lines of a YAML comment."""
    width = WIDTH - len(indent)
    return [
        f"{indent}# {wrapped}"
        for line in lines
        for wrapped in ([line] if line.startswith("  ") else textwrap.wrap(line, width - 2))
    ]


def config_yaml(table: Table) -> str:
    """The commented default configuration."""
    lines = [
        "# The default configuration of transferq. Give init() a map, a YAML file or an OmegaConf with the keys that should differ.",
        f"# {NOTICE}",
    ]
    for section in table.sections:
        *outer, name = section.name.split(".")
        indent, off = "  " * len(outer), "# " if section.optional else ""
        lines.append("")
        lines += comment(running(section.entry.get("help", "")), indent)
        if name:
            lines.append(f"{indent}{off}{name}:")
            indent += "  "
        for key in section.keys:
            if key["hidden"]:
                continue
            body = comment(paragraph(key), "")
            if not name:
                body = body if key is section.keys[0] else [*body]
            body.append(f"{key['name']}: {yaml_value(key['example'] or key['default'])}")
            lines += [
                f"{indent[2:] if off else indent}{off}{'  ' if off else ''}{line}" for line in body
            ]
    return "\n".join(lines) + "\n"


def page(table: Table) -> str:
    """The reference page."""
    lines = [
        "# Configuration\n",
        "`init()` takes a map, the path of a YAML file or an OmegaConf; `tqd` and `tq serve` take files (`--config`) and single",
        "values (`--set controller.events=1000`). An unknown key, or a value of the wrong kind or out of its range, is an error",
        "that names the key, the value and what was expected. `tqd --help-config` prints a short form of this list, and",
        "[config.yaml](../python/transferq/config.yaml) is a file to copy from.\n",
        "Times are numbers of seconds or texts such as `250ms`, `10s`, `5min`, `24h`; sizes are numbers of bytes or texts such as",
        "`512MiB`, `8GiB` or `25%` of the machine's memory. No key can be changed in a running system. Keys marked _fixed with",
        "the system_ are set where its daemons start, for all processes; keys marked _of each process_ may differ in every process",
        "that attaches; keys marked _for the search_ say where a process looks for a system.\n",
        f"{NOTICE}\n".replace("Made", "This page is made"),
    ]
    for section in table.sections:
        lines.append(f"## {section.title}\n")
        lines += [f"{line}\n" for line in running(section.entry.get("help", ""))]
        for key in section.keys:
            if not key["hidden"]:
                lines += entry(section, key)
    return "\n".join(lines)


def entry(section: Section, key: Key) -> list[str]:
    """One key on the page."""
    scopes = {
        "system": "fixed with the system",
        "process": "of each process",
        "search": "for the search",
    }
    kinds = {"texts": "list of texts", "seconds": "time", "bytes": "size", "bool": "true or false"}
    kind = key.choices if key["kind"] == "choice" else kinds.get(key["kind"], key["kind"])
    default = f"`{key.shown_default}`" if key.shown_default != "-" else "none"
    readers = ", ".join(key["read_by"])
    facts = [kind + (f", {key.range}" if key.range else ""), f"default: {default}"]
    facts += [f"read by: {readers}", scopes[key["scope"]], f"since {key['since']}"]
    text = paragraph(key)
    kept = [line[2:] for line in text if line.startswith("  ")]
    body = " ".join(line for line in text if not line.startswith("  "))
    lines = [f"### `{key.path}`\n", f"{'; '.join(facts)}.\n", f"{body}\n"]
    return lines + (["```", *kept, "```\n"] if kept else [])


COMMITTED = {"python/transferq/config.yaml": config_yaml, "docs/configuration.md": page}
BUILT = {
    "config_table.c": config_table,
    "config_keys.h": config_keys,
    "config_backends.h": config_backends,
    "config_table.py": config_module,
}


def main() -> int:
    """Write the files, or check them; 1 if one is outdated or the table is wrong."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--table", type=Path, default=HERE / "keys.toml")
    parser.add_argument("--root", type=Path, default=HERE.parent)
    parser.add_argument("--built", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    try:
        table = Table(args.table)
    except TableError as error:
        print(f"{args.table}: {error}", file=sys.stderr)
        return 1
    wrong = []
    for name, make in (BUILT if args.built else COMMITTED).items():
        path = (args.built or args.root) / name
        if args.check and path.read_text(encoding="utf-8") != make(table):
            wrong.append(name)
        elif not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(table), encoding="utf-8")
    for name in wrong:
        print(f"{name} is out of step with config/keys.toml: run config/generate.py")
    if args.check and not wrong:
        print(f"config: {len(table.keys)} keys")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
