"""The rules of the house: who may import whom, and what a module may hold and do when imported.

The tables below are the architecture; a new package under mfm_ops needs a row in `ROOMS`.
Imports are read from the source, so that lazy ones and those for the type checker count too.
"""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = ("mfm_ops", "transports")
MAX_LINES = 350


@dataclass(frozen=True)
class Room:
    """A package or module: its floor, and the rooms that it may import beside itself."""

    floor: int
    may_import: tuple[str, ...]
    # Third-party import names; None for whatever pyproject.toml declares.
    libraries: frozenset[str] | None = None


CONTRACT = ("mfm_ops.machine",)
ROOMS = {
    # Imported with every module below it: it can afford nothing.
    "mfm_ops": Room(0, (), frozenset()),
    "mfm_ops.machine": Room(0, (), frozenset({"orjson", "pydantic", "pydantic_core", "rfc8785"})),
    "mfm_ops.runtime": Room(1, CONTRACT),
    "mfm_ops.storage": Room(1, CONTRACT),
    "transports": Room(1, CONTRACT),
    "mfm_ops.sdk": Room(2, (*CONTRACT, "mfm_ops.runtime.persist")),
    "mfm_ops.settings": Room(2, (*CONTRACT, "transports")),
    "mfm_ops.ops": Room(3, (*CONTRACT, "mfm_ops.sdk")),
    "mfm_ops.app": Room(
        4,
        (
            *CONTRACT,
            "mfm_ops.runtime",
            "mfm_ops.storage",
            "transports",
            "mfm_ops.sdk",
            "mfm_ops.settings",
            "mfm_ops.ops",
        ),
    ),
    "mfm_ops.cli": Room(
        5,
        (*CONTRACT, "mfm_ops.sdk", "mfm_ops.settings", "mfm_ops.ops", "mfm_ops.app"),
    ),
}

# Module: why it may be longer. A row here is a debt.
LONG_MODULES: dict[str, str] = {}

MUTABLE_CALLS = {
    "Counter",
    "OrderedDict",
    "WeakKeyDictionary",
    "WeakSet",
    "WeakValueDictionary",
    "bytearray",
    "count",
    "cycle",
    "defaultdict",
    "deque",
    "dict",
    "list",
    "set",
}
# The type checker refuses writes through these, whatever stands behind them.
READ_ONLY_TYPES = {"AbstractSet", "Mapping", "Sequence", "Set"}


@dataclass(frozen=True)
class Module:
    """One source file of the project."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def is_public(self) -> bool:
        return not any(part.startswith("_") for part in self.name.split("."))

    @property
    def room(self) -> str:
        """The longest row of `ROOMS` that this module belongs to."""
        rows = [row for row in ROOMS if self.name == row or self.name.startswith(row + ".")]
        return max(rows, key=len)

    @property
    def tree(self) -> ast.Module:
        return parsed(self.path)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for top in PROJECT:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path))
    return tuple(found)


@cache
def module_names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def imported_names(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that `module` imports, by statement or by a name in a string."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                # `from package import module` names the module.
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in module_names() else node.module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # importlib.import_module("mfm_ops.x"), or an entry point's "mfm_ops.x:name".
            name = node.value.partition(":")[0]
            if "." in name and name in module_names():
                yield node.lineno, name


def project_imports(module: Module) -> Iterator[tuple[int, str]]:
    for line, name in imported_names(module):
        # The root holds the version, and is imported with any of its rooms anyway.
        if name.partition(".")[0] in PROJECT and name != "mfm_ops":
            yield line, name


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def public_definitions(
    module: Module,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    exported = declared_all(module)
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            node.name in exported if exported is not None else not node.name.startswith("_")
        ):
            yield node


def declared_all(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                assert node.value is not None
                return list(ast.literal_eval(node.value))
    return None


def test_every_module_has_a_room() -> None:
    homeless = sorted(
        module.name for module in modules() if module.room == "mfm_ops" != module.name
    )
    assert homeless == [], "give each a row in ROOMS"


def test_the_table_lets_a_floor_see_only_floors_below() -> None:
    for name, room in ROOMS.items():
        for other in room.may_import:
            owner = Module(other, ROOT).room
            assert ROOMS[owner].floor < room.floor, f"{name} may not import {other}"


def test_a_room_imports_only_the_rooms_below_it() -> None:
    trespasses = [
        f"{module.name}:{line} imports {name}"
        for module in modules()
        for line, name in project_imports(module)
        if not within(name, (*ROOMS[module.room].may_import, module.room))
    ]
    assert trespasses == [], "\n".join(trespasses)


def test_nobody_takes_the_scan_for_secrets_apart() -> None:
    scan = "mfm_ops.machine.secrets"
    trespasses = [
        f"{module.name}:{line} imports {name}"
        for module in modules()
        if not within(module.name, (scan,))
        for line, name in project_imports(module)
        if name.startswith(scan + ".")
    ]
    assert trespasses == [], "\n".join(trespasses)


def test_the_packages_root_imports_none_of_its_rooms() -> None:
    (root,) = (module for module in modules() if module.name == "mfm_ops")
    assert list(project_imports(root)) == []


def test_a_room_imports_only_the_libraries_that_are_declared_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-")
        for line in project["dependencies"]
    }
    # pydantic pins it exactly, and it is where pydantic's own errors and schemas live.
    declared.add("pydantic-core")
    distributions = importlib.metadata.packages_distributions()
    strangers = []
    for module in modules():
        allowed = ROOMS[module.room].libraries
        for line, name in imported_names(module):
            top = name.partition(".")[0]
            if top in PROJECT or top in sys.stdlib_module_names:
                continue
            owners = {owner.lower().replace("_", "-") for owner in distributions.get(top, [])}
            if not owners & declared or (allowed is not None and top not in allowed):
                strangers.append(f"{module.name}:{line} imports {top}")
    assert strangers == [], "\n".join(strangers)


def test_no_module_is_longer_than_one_job() -> None:
    tops = [*PROJECT, "benchmarks", "examples", "docs"]
    sources = sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))
    long = {
        name: lines
        for name, lines in (
            (str(path.relative_to(ROOT)), len(path.read_bytes().splitlines())) for path in sources
        )
        if lines > MAX_LINES and name not in LONG_MODULES
    }
    assert long == {}, "\n".join(f"{name}: {lines} lines" for name, lines in long.items())


def test_every_module_says_its_job() -> None:
    silent = [
        module.name
        for module in modules()
        if module.tree.body and ast.get_docstring(module.tree) is None
    ]
    assert silent == [], "\n".join(silent)


def test_public_names_are_written_down_sorted_and_exist() -> None:
    faults = []
    for module in modules():
        bound = bound_names(module.tree)
        if not module.is_public or all(name.startswith("__") for name in bound - {"__all__"}):
            continue
        names = declared_all(module)
        if names is None:
            faults.append(f"{module.name} has no __all__")
            continue
        if names != sorted(set(names)):
            faults.append(f"{module.name}.__all__ is not sorted: {sorted(set(names))}")
        if "__getattr__" not in bound:
            faults += [f"{module.name}.__all__ names {n}" for n in names if n not in bound]
    assert faults == [], "\n".join(faults)


def bound_names(tree: ast.Module) -> set[str]:
    """What the module's own statements bind, those under an `if` or `try` included."""
    bound: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.If | ast.Try):
            pending += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]
        else:
            bound |= {
                child.id
                for child in ast.walk(node)
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)
            }
    return bound


def test_what_is_public_has_a_docstring() -> None:
    silent = []
    for module in modules():
        for node in public_definitions(module):
            if ast.get_docstring(node) is None:
                silent.append(f"{module.name}:{node.lineno} {node.name}")
            if isinstance(node, ast.ClassDef) and any(
                "Protocol" in ast.unparse(base) for base in node.bases
            ):
                # The contract speaks: its implementations have nothing to repeat.
                silent += [
                    f"{module.name}:{method.lineno} {node.name}.{method.name}"
                    for method in node.body
                    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not method.name.startswith("_")
                    and ast.get_docstring(method) is None
                ]
    assert silent == [], "\n".join(silent)


def mutable_value(value: ast.expr) -> bool:
    match value:
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in MUTABLE_CALLS
    return False


def read_only(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(
        (isinstance(node, ast.Name) and node.id in READ_ONLY_TYPES)
        or (isinstance(node, ast.Attribute) and node.attr in READ_ONLY_TYPES)
        for node in ast.walk(annotation)
    )


def test_no_module_keeps_state() -> None:
    found = []
    for module in modules():
        found += [
            f"{module.name}:{node.lineno} global {', '.join(node.names)}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Global)
        ]
        for statement in module.tree.body:
            if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
                continue
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            annotation = statement.annotation if isinstance(statement, ast.AnnAssign) else None
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                continue
            if mutable_value(statement.value) and not read_only(annotation):
                found.append(f"{module.name}:{statement.lineno} {ast.unparse(targets[0])}")
    advice = "make it a tuple, a frozenset or a MappingProxyType, or annotate it as a Mapping"
    assert found == [], "\n".join([advice, *found])


def fresh_interpreter(script: str, argument: object) -> Any:
    """Run `script` in an interpreter that has imported nothing; what it prints, as JSON."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(argument)],
        cwd=ROOT,
        # Looking for pydantic's plugins reads the metadata of every package that is installed.
        env={**environment, "PYDANTIC_DISABLE_PLUGINS": "__all__"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# What others wrote is imported once, before the forks: whether it can be is not the question here.
IMPORT_ALONE = """
import importlib, json, os, sys, traceback
import anyio, apsw, click, orjson, psutil, pydantic, rfc8785, structlog

def begin(name):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
        os._exit(0)
    os.close(writing)
    return name, pid, reading

def end(name, pid, reading):
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return {name: text} if text else {}

failures, running = {}, []
for name in json.loads(sys.argv[1]):
    if len(running) == (os.cpu_count() or 1):
        failures |= end(*running.pop(0))
    running.append(begin(name))
for each in running:
    failures |= end(*each)
print(json.dumps(failures))
"""


def test_every_module_imports_alone() -> None:
    failures = fresh_interpreter(IMPORT_ALONE, sorted(module_names()))
    assert failures == {}, "\n".join(failures.values())


@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_modules_import_in_any_order(order: int) -> None:
    names = sorted(module_names())[::order]
    script = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print('null')"
    )
    assert fresh_interpreter(script, names) is None


# An event is a module's own doing when one of the project's frames is met before a frame of the
# import system (which opens sources, and runs what other packages do when they are imported).
# pydantic reads its own settings whenever a model is built: not the model's doing.
IMPORT_WATCHED = """
import importlib, json, os, sys

found = []
WATCHED = ("open", "socket.", "subprocess.", "os.", "shutil.", "tempfile.", "sqlite3.", "glob.",
           "pathlib.", "urllib.", "http.", "fcntl.", "signal.")

def culprit():
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        filename = frame.f_code.co_filename
        if filename.startswith("<frozen importlib.") or name.partition(".")[0] == "pydantic":
            return None
        if name.startswith(("mfm_ops", "transports")):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None

def watch(event, arguments):
    if event.startswith(WATCHED):
        where = culprit()
        if where is not None:
            found.append(f"{where} {event}")
    elif event == "ctypes.dlopen" and arguments[0] is not None:
        where = culprit()
        if where is not None:
            found.append(f"{where} {event}")

def watched(method):
    def read(self, *arguments):
        where = culprit()
        if where is not None:
            found.append(f"{where} reads the environment")
        return method(self, *arguments)
    return read

for method in ("__getitem__", "__iter__", "copy"):
    setattr(os._Environ, method, watched(getattr(os._Environ, method)))
sys.addaudithook(watch)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(found))
"""


def test_an_import_does_no_io_and_reads_no_environment() -> None:
    found = fresh_interpreter(IMPORT_WATCHED, sorted(module_names()))
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os\nHOME = os.environ.get('HOME')\n", "reads the environment"),
        ("import os\nHOME = os.getenv('HOME')\n", "reads the environment"),
        ("from pathlib import Path\nTEXT = Path('/etc/passwd').read_text()\n", "open"),
        ("import subprocess\nsubprocess.run(['true'])\n", "subprocess.Popen"),
        ("import socket\nsocket.socket().close()\n", "socket."),
    ],
)
def test_the_watch_notices_a_module_that_does_io(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "mfm_ops_probe.py").write_text(source, encoding="utf-8")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + IMPORT_WATCHED
    found = fresh_interpreter(script, ["mfm_ops_probe"])
    assert any(said in line for line in found), found
