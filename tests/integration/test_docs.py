"""What the documents say is tried: commands run, examples work, tables agree with the code."""

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from mfm_ops.machine import events as ev
from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.wire import Wire
from mfm_ops.settings import load_settings
from mfm_ops.storage.sqlite import open_sqlite_store
from tests.integration.mfm_process import COMMAND
from transports.exec import RunProgramV1
from transports.policy import ExecPolicy

TOP = Path(__file__).parents[2]
DOCUMENTS = sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("*.md"), TOP / "examples/README.md"])
BLOCK = re.compile(r"^```(\w*)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TICKED = re.compile(r"`([^`]+)`")


def text_of(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [body for kind, _, body in BLOCK.findall(text_of(name)) if kind == language]


def named_blocks(name: str) -> dict[str, str]:
    return {file: body for _, file, body in BLOCK.findall(text_of(name)) if file}


def section(name: str, heading: str) -> str:
    """The text under `heading`, up to the next heading of any level."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text_of(name), re.DOTALL | re.MULTILINE
    )
    assert found, heading
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in `text`, heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


class Shell:
    """A shell in which `mfm` and `python` are those under test."""

    def __init__(self, directory: Path) -> None:
        commands = directory / "commands"
        commands.mkdir()
        for name, words in {"mfm": COMMAND, "python": COMMAND[:1]}.items():
            path = commands / name
            path.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
            path.chmod(0o755)
        self.environ = {
            **os.environ,
            "PATH": os.pathsep.join((str(commands), os.environ["PATH"])),
            "PYTHONPATH": str(TOP),
        }

    def __call__(self, script: str, cwd: Path, *, code: int = 0) -> str:
        done = subprocess.run(
            ["sh", "-euc", script],
            env=self.environ,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    text = BLOCK.sub("", document.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), link


@pytest.mark.parametrize("document", ["README.md", "docs/exec.md", "docs/configuration.md"])
def test_every_configuration_in_a_document_is_one(document: str, tmp_path: Path) -> None:
    found = blocks(document, "toml")
    assert found
    for body in found:
        path = tmp_path / "given.toml"
        path.write_text(body)
        settings = load_settings({"HOME": str(tmp_path)}, tmp_path, {"config": str(path)})
        assert settings.exec_policy.sandbox == "bubblewrap"


def test_the_commands_of_the_tour_work(shell: Shell, tmp_path: Path) -> None:
    (tour, *_) = [body for body in blocks("README.md", "sh") if "run list" in body]
    lines = [line.partition("#")[0].strip() for line in tour.splitlines()]
    assert len(lines) > 8
    for line in lines:
        command = line.replace("RUN", "last").replace("run.mfm", str(tmp_path / "run.mfm"))
        if "ID" in command:
            status = json.loads(shell("mfm --json run status last", TOP))
            command = command.replace("ID", status["data"]["manifest_id"])
        assert shell(command, TOP), command


def test_the_commands_for_runs_in_trouble_take_what_the_tour_gives_them(shell: Shell) -> None:
    (tour,) = [body for body in blocks("README.md", "sh") if "run cancel" in body]
    for line in tour.splitlines():
        words = line.partition("#")[0].split()
        described = shell(f"{' '.join(words[:3])} --help", TOP)
        for word in words[3:]:
            assert word in described or word == "TEXT", line


def test_the_commands_beside_the_examples_work(shell: Shell) -> None:
    (script,) = blocks("examples/README.md", "sh")
    output = shell(script, TOP)
    assert "treasury" in output
    assert "(address)" not in output


# docs/exec.md


def test_the_request_is_described_as_it_is_checked() -> None:
    described = {row[0].strip("`"): row[2] for row in rows(section("docs/exec.md", "The request"))}
    assert described.keys() == RunProgramV1.model_fields.keys()
    for name, field in RunProgramV1.model_fields.items():
        if not field.is_required():
            assert json.loads(described[name].strip("`")) == field.get_default(), name


def test_the_policy_that_the_guide_gives_is_the_default() -> None:
    document: dict[str, Any] = tomllib.loads(blocks("docs/exec.md", "toml")[0])["exec"]
    limits: dict[str, Any] = document.pop("limits")
    default = ExecPolicy()
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in (document | limits).items()
    }
    assert ExecPolicy(**fields) == default
    assert fields.keys() == default.to_json().keys()


def test_every_exec_code_is_described_with_its_details() -> None:
    described = {
        row[0].strip("`"): set(TICKED.findall(row[1]))
        for row in rows(section("docs/exec.md", "Error codes"))
    }
    assert described == {
        code: set(row.safe_details) for code, row in CATALOGUE.items() if code.startswith("exec_")
    }


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """The guide's files, with the directory and the Python of this machine in them."""
    directory = tmp_path / "recipes"
    python = Path(sys.executable).resolve()
    replacements = {
        '"/usr/bin/python3", "/usr/bin/python3.11"': f'"{Path(sys.base_prefix).resolve()}"',
        "#!/usr/bin/python3\n": f"#!{python}\n",
        "/srv": str(directory),
    }
    for name, body in named_blocks("docs/exec.md").items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = body
        for old, new in replacements.items():
            text = text.replace(old, new)
        path.write_text(text)
        path.chmod(0o755)
    return directory


def recipe(name: str, recipes: Path) -> str:
    (command,) = [body for body in blocks("docs/exec.md", "sh") if name in body]
    return command.replace("/srv", str(recipes))


def test_the_recipe_for_a_script_works_and_its_fact_is_described(
    recipes: Path, shell: Shell
) -> None:
    assert json.loads(shell(recipe("python.toml", recipes), recipes)) == {"count": 3, "total": 6}
    (fact,) = json.loads(shell("mfm --json run facts last", recipes))["data"]["facts"]
    described = [
        key for row in rows(section("docs/exec.md", "The answer")) for key in TICKED.findall(row[0])
    ]
    assert sorted(described) == sorted(fact["meta"])


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_the_recipe_for_the_network_works(recipes: Path, shell: Shell, port: int) -> None:
    command = recipe("network.toml", recipes).replace(":8000", f":{port}")
    assert json.loads(shell(command, recipes)) == {"bytes": 5, "status": 200}
    without = command.replace("--effect", "--no-effect")
    assert "exec_effect_undeclared" in shell(f"{without.strip()} --json", recipes, code=1)


# docs/store.md


@pytest.fixture
def store(tmp_path: Path, shell: Shell) -> Path:
    """A store with two runs and a large artifact, beside the guide's script."""
    directory = tmp_path / "store"
    directory.mkdir()
    for name, body in named_blocks("docs/store.md").items():
        (directory / name).write_text(body)
    path = directory / "mfm.sqlite"
    for _ in range(2):
        shell(f"mfm --store {path} op keystore_list --keystore {TOP}/examples/keystore", TOP)

    async def put() -> None:
        async with open_sqlite_store(path) as opened:
            await opened.put(ArtifactKind.Output, b"x" * 100_000)

    anyio.run(put)
    return path


def test_the_script_of_the_guide_verifies_a_store(store: Path, shell: Shell) -> None:
    heads = {}
    for line in shell(f"python check_store.py {store}", store.parent).splitlines():
        run_id, seq, running_hash = line.split()
        heads[run_id] = int(seq), running_hash

    async def expected() -> dict[str, tuple[int, str]]:
        async with open_sqlite_store(store, read_only=True) as opened:
            runs = [run.run_id for run in await opened.list_runs()]
            found = [(run_id, await opened.head(run_id)) for run_id in runs]
            return {str(run_id): (head.seq, head.running_hash) for run_id, head in found}

    assert heads == anyio.run(expected)
    assert len(heads) == 2


def test_the_script_of_the_guide_finds_a_changed_event_and_a_changed_artifact(
    store: Path, shell: Shell
) -> None:
    data = store.read_bytes()
    for needle, found in ((b'"RunStarted"', "event 1"), (b"treasury", "artifact")):
        assert needle in data
        store.write_bytes(data.replace(needle, needle[::-1]))
        script = f"python check_store.py {store} 2>&1"
        assert found in shell(script, store.parent, code=1)
    store.write_bytes(data)
    (large,) = [path for path in Path(f"{store}.d").rglob("*") if path.is_file()]
    large.write_bytes(b"y" * 100_000)
    assert large.name in shell(f"python check_store.py {store} 2>&1", store.parent, code=1)


def test_the_backup_of_the_guide_is_a_whole_store(store: Path, shell: Shell) -> None:
    (script,) = blocks("docs/store.md", "sh")
    output = shell(script, store.parent)
    assert output.count("keystore_list") == 2
    assert (store.parent / "backup.sqlite.d").is_dir()


# docs/engine.md and docs/benchmarks.md


def test_every_event_of_the_engine_is_described() -> None:
    described = {row[0].strip("`"): row[1] for row in rows(section("docs/engine.md", "Events"))}
    kernel = {name: field.annotation for name, field in ev.KernelEvent.model_fields.items()}
    named = {getattr(ev, name) for name in ev.__all__ if "EVENT_" in name}
    own = {name for name in named if isinstance(name, str) and ev.is_engine_owned(name)}
    assert described.keys() == {*kernel, *own - {ev.ENGINE_EVENT_PREFIX}}
    for name, model in kernel.items():
        assert isinstance(model, type)
        assert issubclass(model, Wire)
        assert TICKED.findall(described[name]) == list(model.model_fields)


def test_every_benchmark_is_described() -> None:
    described = {row[0].strip("`") for row in rows(text_of("docs/benchmarks.md"))}
    scripts = {path for path in (TOP / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert described == {path.name for path in scripts}
