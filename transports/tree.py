"""What a tree of processes uses now: tasks, memory, CPU time, read from /proc.

Read directly and not through psutil, which looks at every process of the host for one tree; psutil
serves where the kernel does not list children. What follows from the figures is the caller's.
"""

# Plain calls of os: pathlib knows no descriptors, and costs where this is called often.
# ruff: noqa: PTH110, PTH123, PTH208

import os
from dataclasses import dataclass

__all__ = ["TreeUsage", "descendants", "proportional_memory", "tree_usage"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """One sample. `tasks` counts processes and threads; `max_cpu_s` is the busiest process's.

    `memory_bytes` sums resident sets, so that pages which processes share count more than once.
    """

    pids: tuple[int, ...]
    tasks: int
    memory_bytes: int
    max_cpu_s: float


def descendants(root: int, limit: int = 1_000_000) -> list[int]:
    """The process ids below `root`, without it; stops looking once there are more than `limit`."""
    found: list[int] = []
    pending = [root]
    while pending and len(found) <= limit:
        children = _children(pending.pop())
        found += children
        pending += children
    return found


def tree_usage(root: int, limit: int = 1_000_000) -> TreeUsage:
    """What the processes below `root` use; those that end meanwhile are left out."""
    pids = descendants(root, limit)
    tasks = rss_pages = max_ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The command's name may hold anything; what follows its last ")" is regular.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        tasks += int(fields[17])
        rss_pages += int(fields[21])
        max_ticks = max(max_ticks, int(fields[11]) + int(fields[12]))
    return TreeUsage(tuple(pids), tasks, rss_pages * _PAGE_BYTES, max_ticks / _TICKS_PER_S)


def proportional_memory(usage: TreeUsage) -> int:
    """The same memory with each shared page counted once, in bytes.

    Dearer to read than the resident sets, so it is asked only when those are over a limit. A
    process that may not be looked into counts with nothing less than the whole sample.
    """
    total_kb = 0
    for pid in usage.pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                for line in file:
                    if line.startswith(b"Pss:"):
                        total_kb += int(line.split()[1])
                        break
        except PermissionError:
            return usage.memory_bytes
        except OSError:
            continue
    return total_kb * 1024


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
