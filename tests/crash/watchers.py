"""What can happen at a step: a kill, a fault of the disk, or a record of it for later.

A boundary is a moment at which a process may die: the middle of a step or its end. The moment
before a step is the end of the one before it, so it is not counted again.
"""

import errno
import itertools
import os
import pickle
import signal
from pathlib import Path

from tests.crash.door import Step, raw_write

__all__ = ["FAULTS", "DiskLog", "Executioner", "FaultyDisk", "role"]


def role(path: str) -> str:
    """What a file is to the store, whatever its name."""
    if path.startswith("/memfd:"):
        return "memory"
    name = Path(path).name
    parts = Path(path).parts
    if name.endswith((".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal")):
        return name.rpartition(".sqlite")[2].removeprefix("-") or "store"
    if name.endswith(".sqlite.d"):
        return "blobs"
    if not any(part.endswith(".sqlite.d") for part in parts):
        return "directory"
    if name == "tmp" or len(name) == 2:
        return "blobs/" + ("tmp" if name == "tmp" else "??")
    return "blobs/tmp/*" if "tmp" in parts else "blobs/??/*"


class Executioner:
    """Counts boundaries, names each in the file `trace`, and dies at one of them.

    `dies_at` is its number, from 1, or the name of which the first is meant.
    """

    def __init__(self, trace: Path, dies_at: int | str | None) -> None:
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._dies_at = dies_at
        # One next() at a time, also where a commit in a thread passes boundaries meanwhile.
        self._numbers = itertools.count(1)

    def before(self, step: Step) -> None:
        """No boundary of its own."""

    def within(self, step: Step) -> None:
        self._pass("within", step)

    def after(self, step: Step) -> None:
        self._pass("after", step)

    def _pass(self, moment: str, step: Step) -> None:
        number = next(self._numbers)
        name = f"{moment} {step.kind} {role(step.path) if step.path else ''}".rstrip()
        raw_write(self._trace, f"{name}\n".encode())
        if self._dies_at in (number, name):
            os.kill(os.getpid(), signal.SIGKILL)


_CHANGES = frozenset({"create", "write", "truncate", "mkdir", "rename", "link"})
FAULTS = {
    "full": (errno.ENOSPC, _CHANGES),
    "read_only": (errno.EROFS, _CHANGES | {"delete"}),
    "io_error": (errno.EIO, frozenset({"sync", "sync_directory"})),
}


class FaultyDisk:
    """From change number `begins_at` (from 1) on, every change of the disk fails with `fault`.

    `full` and `read_only` concern whatever changes a file or directory, `io_error` the syncs.
    """

    def __init__(self, fault: str, begins_at: int) -> None:
        self._errno, self._changes = FAULTS[fault]
        self._left = begins_at

    def before(self, step: Step) -> None:
        if step.kind in self._changes and role(step.path) != "memory":
            self._left -= 1
            if self._left <= 0:
                raise OSError(self._errno, os.strerror(self._errno))

    def within(self, step: Step) -> None:
        """Faults come before a step."""

    def after(self, step: Step) -> None:
        """Faults come before a step."""


class DiskLog:
    """Writes down each step that was taken, in order, for `power` to replay."""

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def before(self, step: Step) -> None:
        """A write may be on its way to the disk from here on."""
        if step.kind in {"write", "truncate", "call"}:
            self._note(step)

    def within(self, step: Step) -> None:
        """A write is torn by `power`, where it likes."""

    def after(self, step: Step) -> None:
        if step.kind not in {"write", "truncate", "call"}:
            self._note(step)

    def _note(self, step: Step) -> None:
        raw_write(self._log, pickle.dumps(tuple(step)))
