"""Holds one program's tree to its memory and number of tasks by a delegated cgroup, version 2.

Used where the site gave us a cgroup of our own (`systemd-run --scope -p Delegate=yes`); everywhere
else `watch` does it. Speaks the file protocol only, below a directory that it is given.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path

__all__ = ["CallGroup", "Domain", "find_domain"]

_NEEDED = frozenset({"memory", "pids"})

# Where we ourselves stand: a cgroup that hands out controllers may hold no processes.
_DRIVER = "mfm.driver"


class CallGroup:
    """The cgroup of one call. Close it when the tree is dead."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, pid: int) -> None:
        """Put `pid`, and all that it will start, under the group's limits."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def peak_memory_bytes(self) -> int | None:
        """The largest memory use so far; None where the kernel does not tell (before 5.19)."""
        with suppress(OSError, ValueError):
            return int((self._path / "memory.peak").read_text())
        return None

    def exceeded(self) -> str | None:
        """The limit that the tree ran into: `memory`, `processes` or None."""
        if _event(self._path / "memory.events", "oom_kill"):
            return "memory"
        return "processes" if _event(self._path / "pids.events", "max") else None

    def close(self) -> None:
        """Kill what should be dead already, and remove the group."""
        with suppress(OSError):
            (self._path / "cgroup.kill").write_text("1")
        # A tree that the kernel is still burying keeps its group; an empty group costs nothing.
        with suppress(OSError):
            self._path.rmdir()


class Domain:
    """A cgroup directory below which groups for calls can be made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, memory_bytes: int | None, tasks: int | None) -> CallGroup:
        """A new group with these limits; None is no limit.

        Raises:
            OSError: the kernel refused; nothing is left behind.
        """
        path = self.path / f"mfm.call.{uuid.uuid4().hex}"
        path.mkdir()
        group = CallGroup(path)
        try:
            if memory_bytes is not None:
                (path / "memory.max").write_text(str(memory_bytes))
                (path / "memory.oom.group").write_text("1")
                with suppress(FileNotFoundError):
                    (path / "memory.swap.max").write_text("0")
            if tasks is not None:
                # The tree's init counts as well, and is not the program's.
                (path / "pids.max").write_text(str(tasks + 1))
        except OSError:
            group.close()
            raise
        return group


def find_domain(proc: Path = Path("/proc")) -> Domain | None:
    """The delegated cgroup that this process is in, made ready; None where there is none.

    `proc` is where the process's own `self/cgroup` and `self/mountinfo` are read.
    """
    path = _own_cgroup(proc)
    if path is None:
        return None
    if path.name == _DRIVER:
        path = path.parent
    try:
        if not _has_controllers(path / "cgroup.controllers"):
            return None
        if not os.access(path, os.W_OK) or not os.access(path / "cgroup.subtree_control", os.W_OK):
            return None
        if not _has_controllers(path / "cgroup.subtree_control"):
            _hand_down(path)
    except OSError:
        return None
    return Domain(path)


def _has_controllers(path: Path) -> bool:
    return set(path.read_text().split()) >= _NEEDED


def _hand_down(path: Path) -> None:
    if (path / "cgroup.procs").read_text().split() != [str(os.getpid())]:
        raise OSError("the cgroup holds processes that are not ours to move")
    driver = path / _DRIVER
    driver.mkdir(exist_ok=True)
    (driver / "cgroup.procs").write_text(str(os.getpid()))
    (path / "cgroup.subtree_control").write_text("+memory +pids")


def _own_cgroup(proc: Path) -> Path | None:
    try:
        groups = (proc / "self/cgroup").read_text().splitlines()
        mounts = (proc / "self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    own = next((line[3:] for line in groups if line.startswith("0::")), None)
    for line in mounts:
        head, _, tail = line.partition(" - ")
        if own is None or not tail.startswith("cgroup2 "):
            continue
        root, point = head.split()[3:5]
        if own == root or own.startswith(root.rstrip("/") + "/"):
            return Path(point) / own[len(root.rstrip("/")) :].lstrip("/")
    return None


def _event(path: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, count = line.partition(" ")
            if key == name:
                return int(count)
    return 0
