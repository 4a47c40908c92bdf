"""What a tree of processes uses now: tasks, memory, CPU time, read from /proc.

Read directly and not through psutil, which looks at every process of the host for one tree; psutil
serves where the kernel does not list children. What follows from the figures is the caller's.
"""

# Plain calls of os: pathlib knows no descriptors, and costs where this is called often.
# ruff: noqa: PTH110, PTH123, PTH208

import os
import signal
from contextlib import suppress
from dataclasses import dataclass

from transports.descriptors import is_shortage

__all__ = [
    "TreeUsage",
    "descendants",
    "hunt",
    "kill_below",
    "memory_files",
    "proportional_memory",
    "socket_memory",
    "tree_usage",
]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_DEAD = (b"Z", b"X")
_HUNT_ROUNDS = 100
# How much the kernel keeps for a file in memory, however empty.
_INODE_BYTES = 1024
# An init may keep itself to itself, its program hardly can.
_LOOKED_INTO = 3
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Page tables take a 512th of what is mapped at most, and are asked for only where that is much.
_MUCH_MAPPED_BYTES = 1024**3
# Hardly a program has more sockets than these, and nobody counts their buffers.
_FREE_SOCKETS = 64
_SOCKET_BYTES_FILE = "/proc/sys/net/core/wmem_default"
# The kernel's own choice, for where it is not told: in a container, on older kernels.
_SOCKET_BYTES = 212_992


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """One sample. `tasks` counts processes and threads; `max_cpu_s` is the busiest process's.

    `memory_bytes` sums resident sets, so that pages which processes share count more than once,
    and `table_bytes`: page tables, as far as they are worth asking for.
    """

    pids: tuple[int, ...]
    tasks: int
    memory_bytes: int
    max_cpu_s: float
    table_bytes: int = 0


def descendants(root: int, limit: int = 1_000_000) -> list[int]:
    """The process ids below `root`, without it; stops looking once there are more than `limit`."""
    found: list[int] = []
    pending = [root]
    while pending and len(found) <= limit:
        children = _children(pending.pop())
        found += children
        pending += children
    return found


def kill_below(root: int, *, itself: bool = True) -> None:
    """Kill what is below `root` now, and `root`; or let it go on, though it may be stopped."""
    # Stopped, it starts no other meanwhile.
    _signal(root, signal.SIGSTOP)
    for pid in descendants(root):
        _signal(pid, signal.SIGKILL)
    _signal(root, signal.SIGKILL if itself else signal.SIGCONT)


def hunt(pids: set[int]) -> None:
    """Kill what is left of a tree whose root is gone: `pids`, their sessions, what is below.

    For want of a root this cannot be sure to find all: a process that nobody saw, in a session of
    its own, is not found.
    """
    sessions = set(pids)
    for _ in range(_HUNT_ROUNDS):
        found = set()
        for name in os.listdir("/proc"):
            fields = _stat(int(name)) if name.isdigit() else None
            if fields is None or fields[0] in _DEAD:
                continue
            pid, parent, session = int(name), int(fields[1]), int(fields[3])
            if pid in pids or session in sessions or parent in found:
                found.add(pid)
                sessions.add(session)
        if not found:
            return
        for pid in found:
            _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def tree_usage(root: int, limit: int = 1_000_000) -> TreeUsage:
    """What the processes below `root` use; those that end meanwhile are left out."""
    pids = descendants(root, limit)
    tasks = rss_pages = max_ticks = table_bytes = 0
    for pid in pids:
        fields = _stat(pid)
        if fields is None:
            continue
        tasks += int(fields[17])
        rss_pages += int(fields[21])
        if int(fields[20]) > _MUCH_MAPPED_BYTES:
            table_bytes += _page_tables(pid)
        max_ticks = max(max_ticks, int(fields[11]) + int(fields[12]))
    memory_bytes = rss_pages * _PAGE_BYTES + table_bytes
    return TreeUsage(tuple(pids), tasks, memory_bytes, max_ticks / _TICKS_PER_S, table_bytes)


def _page_tables(pid: int) -> int:
    """Memory of a process that is in no resident set: a page read of nothing needs a table."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next((int(ln.split()[1]) * 1024 for ln in file if ln.startswith(b"VmPTE:")), 0)
    except OSError:
        return 0


def proportional_memory(usage: TreeUsage, files_bytes: int = 0) -> int:
    """The same memory with each shared page counted once, in bytes.

    `files_bytes` are those of the tree's own files in memory, which are counted once too where
    they are mapped. Dearer to read than the resident sets, so it is asked only when those are over
    a limit. A process that may not be looked into counts with nothing less than the whole sample.
    """
    total_kb = mapped_kb = 0
    for pid in usage.pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                for line in file:
                    if line.startswith(b"Pss:"):
                        total_kb += int(line.split()[1])
                    elif line.startswith(b"Pss_Shmem:"):
                        mapped_kb += int(line.split()[1])
        except OSError as exc:
            if isinstance(exc, PermissionError) or is_shortage(exc):
                return usage.memory_bytes + files_bytes
    return total_kb * 1024 + usage.table_bytes + max(0, files_bytes - mapped_kb * 1024)


def memory_files(pids: tuple[int, ...], places: tuple[str, ...], size: int) -> int:
    """What the files below `places` take, as the tree sees them: file systems of `size` bytes.

    Any other file system that is seen there instead is not the tree's own.
    """
    for pid in pids[:_LOOKED_INTO]:
        try:
            found = [os.statvfs(f"/proc/{pid}/root{place}") for place in places]
        except OSError:
            continue
        return sum(
            (fs.f_blocks - fs.f_bfree) * fs.f_frsize + (fs.f_files - fs.f_ffree) * _INODE_BYTES
            for fs in found
            if fs.f_blocks * fs.f_frsize == size
        )
    return 0


def socket_memory(pids: tuple[int, ...]) -> int:
    """What the buffers of all sockets may hold in the network that `pids` have to themselves.

    The kernel tells how many there are and not what is in them, so this is the most that they can
    hold at their default size.
    """
    for pid in pids[:_LOOKED_INTO]:
        try:
            with open(f"/proc/{pid}/net/sockstat", "rb") as file:
                sockets = int(file.readline().split()[2])
            if sockets <= _FREE_SOCKETS:
                return 0
            return (sockets - _FREE_SOCKETS) * _socket_bytes()
        except (OSError, ValueError, IndexError):
            continue
    return 0


def _socket_bytes() -> int:
    try:
        with open(_SOCKET_BYTES_FILE, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return _SOCKET_BYTES


def _stat(pid: int) -> list[bytes] | None:
    """The fields of a process from its state on; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name may hold anything; what follows its last ")" is regular.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        # Each thread lists the children that it made.
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
    except FileNotFoundError:
        own = os.getpid()
        if not os.path.exists(f"/proc/{own}/task/{own}/children"):
            return _children_by_psutil(pid)
    except OSError:
        pass
    return found


def _children_by_psutil(pid: int) -> list[int]:
    import psutil  # slow to import, and hardly ever needed

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []
