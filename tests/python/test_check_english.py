"""The lint of English: sentences that it must catch, and sentences that it must let pass."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

CAUGHT = [
    "Who waits looks for the end before it sleeps.",
    "The rest is handed to who asks next.",
    "A watcher for the end of a process; embedded in who does.",
    "It ends; who attaches gets the configuration.",
    "So many samples are missing.",
    "Whether so much is queued that nothing is read.",
    "It shall be freed.",
    "A link in the place of the directory.",
    "The second is freed likewise.",
    "Likewise of the other one.",
    "A table of one's own descriptors.",
    "The store stands still for a minute.",
    "It names those that wait when it says goodbye.",
    "It gets SIGKILL when the daemon dies, whatever of.",
    "The answer of a server that is none.",
    "What is live of a block moves.",
    "The client is told which blocks are lost.",
    "Nobody was told.",
    "It waits for the end, and returns whether it came.",
    "The client learns of the end.",
    "That a name is had once decides a race.",
    "The blocks wherein it lies.",
]

PASSED = [
    "Users, who switch with one changed import.",
    "Who is who: the table of the parts.",
    "Who may read this? The owner of the socket.",
    "So many that the first ones have left the cache.",
    "It is so much faster that nothing else matters.",
    "Programs that wait look for a system.",
    "They run until they are told to stop.",
    "Handlers that do the same are told apart by their case.",
    "It waits for the end of the process.",
    "The picture and the numbers at the end.",
    "A file in place of the directory.",
    "Reads what is left, if there are none.",
    "A sentence with `who waits` and `so many` as code.",
    "It prints \"who waits\", as the message says.",
]  # fmt: skip


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        spec = importlib.util.spec_from_file_location(
            "check_english", ROOT / "tools/check_english.py"
        )
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("sentence", CAUGHT)
def test_it_catches(tool: ModuleType, sentence: str) -> None:
    assert tool.check("page.md", f"# A page\n\nA first one. {sentence}\n")


@pytest.mark.parametrize("sentence", PASSED)
def test_it_lets_pass(tool: ModuleType, sentence: str) -> None:
    assert tool.check("page.md", f"# A page\n\nA first one. {sentence}\n") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "# A page\n\nIt\nshall end.\n"),
        ("page.md", "- an item\n- another that\n  shall end\n"),
        ("page.md", "| cell | it shall end |\n"),
        ("a.c", "int n;\n/* It\n * shall end. */\n"),
        ("a.h", "int n; /**< it shall end */\n"),
        ("a.c", 'PyDoc_STRVAR(a_doc, "a()\\n--\\n\\n"\n    "It "\n    "shall end.");\n'),
        ("a.c", 'static const char usage_text[] = "tq a\\n"\n    "It shall end.\\n";\n'),
        ("a.py", '"""A module.\n\nIt\nshall end.\n"""\n'),
        ("a.py", "# It\n# shall end.\nn = 1\n"),
        ("a.py", 'parser.add_argument("--a", help="it shall end")\n'),
        ("a.py", 'N = 1\n"""It shall end."""\n'),
        ("a.pyi", "n: int  # it shall end\n"),
        ("Makefile", "# It shall end.\nall:\n"),
        ("meson.build", "# It shall end.\n"),
        ("a.proto", "  bool b = 1;  // it shall end\n"),
        ("config/keys.toml", 'help = "It shall end."\n'),
    ],
)
def test_it_looks_at_all_that_people_read(tool: ModuleType, name: str, text: str) -> None:
    [problem] = tool.check(name, text)
    assert "'shall': must" in problem
    line = text[: text.index("shall")].count("\n") + 1
    assert problem.startswith(f"{name}:{line}: ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "```\nit shall end\n```\n"),
        ("a.c", 'int n = set(err, "it shall end");\n'),
        ("a.py", 'raise ValueError("it shall end")\n'),
        ("a.py", "shall = 1\n"),
        ("data.bin", "it shall end"),
    ],
)
def test_it_does_not_look_at_messages_and_code(tool: ModuleType, name: str, text: str) -> None:
    assert tool.check(name, text) == []
