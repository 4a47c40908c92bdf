"""Runs the real `mfm` in a process of its own, as an operator does."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.sqlite import open_sqlite_store

COMMAND = (sys.executable, "-m", "mfm_ops.cli.main")
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120


def busybox() -> Path:
    """A static program that is echo, cat, sleep and more, by its first argument."""
    found = shutil.which("busybox")
    assert found is not None
    return Path(found).resolve()


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output, which must be exactly one JSON document."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def data(self) -> Any:
        assert self.document["status"] == "success", self
        return self.document["data"]

    @property
    def error(self) -> dict[str, Any]:
        document = self.document
        assert document["status"] == "error", self
        assert self.err == ""
        found = document["error"]
        assert isinstance(found, dict)
        assert found.keys() - {"details"} == {"code", "message", "hint"}
        return found


class Mfm:
    """`mfm` in one directory, with one store, and busybox as the only program that may run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store.sqlite"
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MFM_STORE": str(self.store),
            "MFM_EXEC_ALLOW_PREFIXES": str(busybox().parent),
        }

    def __call__(
        self,
        *arguments: str | Path,
        environ: Mapping[str, str | None] | None = None,
        stdin: bytes = b"",
    ) -> Result:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=self._with(environ),
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def program(self, *argv: str) -> tuple[str, ...]:
        """The arguments that run busybox with `argv`."""
        words = [word for arg in argv for word in ("--argv", arg)]
        return ("op", "run_program", "--program-path", str(busybox()), *words)

    @contextmanager
    def started(
        self, *arguments: str, environ: Mapping[str, str | None] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """A command that is still running; killed at the end if it still is."""
        with subprocess.Popen(
            [*COMMAND, *arguments],
            env=self._with(environ),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _with(self, environ: Mapping[str, str | None] | None) -> dict[str, str]:
        merged: dict[str, str | None] = {**self.environ, **(environ or {})}
        return {name: value for name, value in merged.items() if value is not None}


def on_terminal(mfm: Mfm, *arguments: str, columns: int = 80, **environ: str) -> str:
    """What `mfm` shows on a terminal of `columns` columns."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env={**mfm.environ, "COLUMNS": str(columns), **environ},
        cwd=mfm.directory,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                # Linux's way to say that no one has the other end any more.
                break
            if not piece:
                break
            shown += piece
        process.wait()
    os.close(master)
    return shown.decode()


async def wait_for(mfm: Mfm, seen: Callable[[list[dict[str, Any]]], bool]) -> RunId:
    """The one run of the store, once its durable events are as wanted."""
    with anyio.fail_after(120):
        while True:
            # It fails as long as the store is not there, or only half made.
            with contextlib.suppress(StorageFailure):
                async with open_sqlite_store(mfm.store, read_only=True) as store:
                    for run in await store.list_runs():
                        bodies = await store.read_raw(run.run_id, 1)
                        if seen([json.loads(body)["event"] for body in bodies]):
                            return run.run_id
            await anyio.sleep(0.02)


def entered(events: list[dict[str, Any]]) -> bool:
    return any("StateEntered" in event.get("Kernel", {}) for event in events)


def a_long_time() -> str:
    """Seconds to sleep, in figures that no other process of this host has as an argument."""
    return f"4000.{uuid.uuid4().int % 10**9:09}"


def processes_with(marker: str) -> list[str]:
    """Processes whose command line holds `marker` as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if marker.encode() in arguments:
            found.append(str(path))
    return found
