"""The layers: a module imports only from lower ones, and the core neither does I/O nor reads a clock."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "asyncruns"

# In the order of imports: a module imports from rooms before its own, and from its own.
ROOMS = (
    "_version", "_private", "errors", "wire", "http", "sse", "limits", "cadence", "lifecycle", "abc", "user_code",
    "_loop", "transport", "dialects", "schemas", "tools", "streams", "journal", "timeline", "watch", "resources",
    "fleet", "client", "otel", "temporal", "testing", "cli", "__main__",
)  # fmt: skip
PURE = ("lifecycle", "cadence", "http", "sse", "errors", "wire")
IMPURE = {"asyncio", "anyio", "aiohttp", "time", "random", "socket", "threading", "tenacity"}
AIOHTTP = {
    "transport/aiohttp.py",
    "transport/aiohttp_upload.py",
    "transport/aiohttp_sessions.py",
    "transport/unreachable.py",
    "testing/",
}
ONLY_AT = {
    "aiohttp": AIOHTTP,
    "temporalio": {"temporal/"},
    "tenacity": {"transport/retry.py"},
    "httptools": {"transport/httptools_connection.py"},
}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(path: Path, *, of_types: bool = False) -> set[str]:
    """Return every module that a file imports; those that only the type checker sees if `of_types` says so."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not of_types
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            module = node.module or ""
            folder = PACKAGE.parent.joinpath(*module.split("."))
            found |= {
                f"{module}.{alias.name}" if (folder / f"{alias.name}.py").exists() else module for alias in node.names
            }
    return found


def test_every_room_has_its_place() -> None:
    assert {room(path) for path in MODULES} <= set(ROOMS)


def test_the_table_of_contributing_has_the_rooms_in_their_order() -> None:
    text = (PACKAGE.parent / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", text.partition("## Layers")[2], re.MULTILINE)
    assert rows == [name for name in ROOMS if name not in ("_version", "__main__")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_before_its_own(path: Path) -> None:
    mine = ROOMS.index(room(path))
    for name in imports(path, of_types=True):
        if not name.startswith("asyncruns"):
            continue
        parts = name.split(".")
        if len(parts) == 1:
            assert mine >= ROOMS.index("cli"), f"{path}: import from the module where it lives"
            continue
        assert ROOMS.index(parts[1]) <= mine, f"{room(path)} imports {name}, whose room comes after it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {_dotted(path): imports(path, of_types=True) - {_dotted(path)} for path in MODULES}
    TopologicalSorter(graph).prepare()  # raises a CycleError, which names them


def test_no_two_things_share_a_name() -> None:
    """Two classes, public functions or constants of one name would have to be told apart at each reading."""
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for name in _defined(ast.parse(path.read_text(encoding="utf-8"))):
            homes.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the classes, public functions and constants of a module, but for a logger and `main`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and "TypeVar(" not in ast.unparse(node):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from {name for name in names if not name.startswith("_") and name not in ("log", "main")}


@pytest.mark.parametrize("path", [p for p in MODULES if room(p) in PURE], ids=lambda path: path.name)
def test_the_core_does_no_io_and_reads_no_clock(path: Path) -> None:
    assert imports(path).isdisjoint(IMPURE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_that_may_be_replaced_is_known_in_one_place(path: Path) -> None:
    where = path.relative_to(PACKAGE).as_posix()
    for library, homes in ONLY_AT.items():
        if any(name.split(".")[0] == library for name in imports(path)):
            assert any(where == home or (home.endswith("/") and where.startswith(home)) for home in homes)


def test_the_prose_of_servers_is_known_to_the_dialects_alone() -> None:
    prose = re.compile(
        r"not accept tool outputs|cannot cancel run|has an active run|is active\.|exceeded your", re.IGNORECASE
    )
    assert [text for text in _texts_outside(("dialects", "testing")) if prose.search(text)] == []


def test_the_words_of_the_wires_are_known_to_few() -> None:
    words = re.compile(
        r"^(queued|in_progress|requires_action|required_action|submit_tool_\w+|tool_outputs|tool_approvals|thread\.run"
        r"|response|call_id|previous_response_id|function_call\w*|custom_tool_call\w*|mcp_\w+|background\w*"
        r"|continuation_id|completion_window|conversation_locked)$|^/?(threads|runs|responses)/"
    )
    known = ("dialects", "wire", "resources", "testing")
    assert {text for text in _texts_outside(known) if words.search(text)} == set()


def _texts_outside(rooms: tuple[str, ...]) -> list[str]:
    """Return every text in the code of other rooms, but for documentation."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES if room(path) not in rooms]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in docs]
    return [text for text in texts if isinstance(text, str)]


def test_the_lifecycle_alone_brings_no_http_along() -> None:
    code = (
        "import sys, asyncruns.lifecycle, asyncruns.cadence, asyncruns.wire\n"
        "from asyncruns import RunLifecycle\n"
        "loaded = {'aiohttp', 'anyio', 'asyncio', 'tenacity'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_root_name_is_there_and_sorted() -> None:
    code = (
        "import asyncruns\n"
        "assert asyncruns.__all__ == sorted(asyncruns.__all__)\n"
        "assert all(getattr(asyncruns, name) is not None for name in asyncruns.__all__)\n"
        "assert set(asyncruns.__all__) <= set(dir(asyncruns))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_modules_are_there_after_importing_the_root() -> None:
    parts = "asyncruns.testing.Emulator, asyncruns.wire.decode, asyncruns.errors.APIError, asyncruns.sse.Decoder"
    code = f"import asyncruns\n{parts}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_root_name_that_is_not_there_is_an_attribute_error() -> None:
    import asyncruns

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(asyncruns, "Nothing")  # noqa: B009 - as a user would
