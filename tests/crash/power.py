"""A disk that loses its power: rebuilds, from the log of a run's steps, what could be on it then.

The model is POSIX's strict one: a file's bytes are safe once the file was synced, a name once its
directory was; of everything else any part may be there or not, a write by sectors.
"""

import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.crash.door import Step

__all__ = ["Disk", "Survives", "every_second", "everything", "nothing", "read_log"]

_SECTOR = 512
# As the system calls a file that has no name, or none any more.
_NAMELESS = " (deleted)"

Survives = Callable[[], bool]
"""Asked of each sector and each name that no sync made safe: is it there after all?"""


def nothing() -> bool:
    return False


def everything() -> bool:
    return True


def every_second(chance: random.Random, share: float = 0.5) -> Survives:
    """Some of it, by chance."""
    return lambda: chance.random() < share


def read_log(path: Path) -> list[Step]:
    """The steps that a `DiskLog` wrote down."""

    def steps() -> Iterator[Step]:
        with path.open("rb") as file:
            while True:
                try:
                    yield Step(*pickle.load(file))
                except EOFError:
                    return

    return list(steps())


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    waiting: list[Step] = field(default_factory=list)

    def sync(self) -> None:
        for step in self.waiting:
            _apply(self.safe, step, everything)
        self.waiting.clear()

    def after_failure(self, survives: Survives) -> bytes:
        content = bytearray(self.safe)
        for step in self.waiting:
            _apply(content, step, survives)
        return bytes(content)


def _apply(content: bytearray, step: Step, survives: Survives) -> None:
    if step.kind == "truncate":
        if survives():
            del content[step.offset :]
            content.extend(bytes(step.offset - len(content)))
        return
    at, end = step.offset, step.offset + len(step.data)
    while at < end:
        upto = min(end, (at // _SECTOR + 1) * _SECTOR)
        if survives():
            content.extend(bytes(max(0, upto - len(content))))
            content[at:upto] = step.data[at - step.offset : upto - step.offset]
        at = upto


class _Change(NamedTuple):
    """A change of names: `node` (None for a directory) is now at `new`, and no more at `old`."""

    old: str | None
    new: str | None
    node: _File | None

    def make(self, names: dict[str, _File | None]) -> None:
        if self.old is not None:
            names.pop(self.old, None)
        if self.new is not None:
            names[self.new] = self.node

    def concerns(self, directory: str) -> bool:
        return any(path and str(Path(path).parent) == directory for path in (self.old, self.new))


class Disk:
    """What a file system below `root` holds, and what of it is safe, after some steps.

    A disk that `lies` says that it synced, and keeps nothing safe; that may be set at any time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, _File | None] = {}
        self._safe: dict[str, _File | None] = {}
        self._waiting: list[_Change] = []
        self.lies = False

    def take(self, step: Step) -> None:
        """One more step of the run; steps elsewhere change nothing."""
        if not Path(step.path).is_relative_to(self._root):
            return
        match step.kind:
            case "create" if step.path.endswith(_NAMELESS):
                self._names[step.path] = _File()
            case "create":
                self._change(_Change(None, step.path, _File()))
            case "mkdir":
                self._change(_Change(None, step.path, None))
            case "delete":
                self._change(_Change(step.path, None, None))
            case "rename":
                self._change(_Change(step.path, step.target, self._names[step.path]))
            case "link":
                self._change(_Change(None, step.target, self._names[step.path]))
            case "write" | "truncate":
                self._file(step).waiting.append(step)
            case "sync" if not self.lies:
                self._file(step).sync()
            case "sync_directory" if not self.lies:
                for change in self._waiting:
                    if change.concerns(step.path):
                        change.make(self._safe)
                self._waiting = [c for c in self._waiting if not c.concerns(step.path)]

    def image(self, directory: Path, *, content: Survives, names: Survives) -> None:
        """Build in `directory`, made anew, what is left of all files."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        found = dict(self._safe)
        for change in self._waiting:
            if not names():
                # File systems keep a journal of names: what is left of it is a beginning.
                break
            change.make(found)
        for path in sorted(found):
            target = directory / Path(path).relative_to(self._root)
            file = found[path]
            if not target.parent.is_dir():
                continue
            if file is None:
                target.mkdir(mode=0o700)
            else:
                target.write_bytes(file.after_failure(content))

    def _file(self, step: Step) -> _File:
        file = self._names[step.path]
        assert file is not None
        return file

    def _change(self, change: _Change) -> None:
        change.make(self._names)
        self._waiting.append(change)
