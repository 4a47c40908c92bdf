"""Watches a running tree and says when it is over a limit.

The way where no cgroup can hold it: samples, so a tree may be over a limit for some milliseconds.
What is sampled is `tree`'s, what follows is the caller's.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from transports.tree import memory_files, proportional_memory, socket_memory, tree_usage

__all__ = ["Watch", "WatchLimits"]

# A bomb goes off at the start or never, and a short program should leave a sample: look often at
# first, then seldom enough to cost a fraction of a percent.
_FIRST_INTERVAL_S = 0.005
_INTERVAL_S = 0.025
_FIRST_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """None is no limit. `tasks` counts processes and threads.

    `memory_places` are where the tree has file systems in memory of its own, as large as the limit.
    `own_network`: all sockets of the network that it is in are the tree's.
    """

    memory_bytes: int | None = None
    tasks: int | None = None
    memory_places: tuple[str, ...] = ()
    own_network: bool = False


class Watch:
    """Samples the tree below `root` until stopped; `on_limit` is called once, with the name.

    `peak_memory_bytes` is the largest sample, None before the first. `cpu_s` is the CPU time of
    the busiest process, in seconds. `pids` is the last sample's tree.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        root: int,
        limits: WatchLimits,
        on_limit: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._root = root
        self._limits = limits
        self._on_limit = on_limit
        self._samples = 0
        self._timer: asyncio.TimerHandle | None = None
        self.peak_memory_bytes: int | None = None
        self.cpu_s = 0.0
        self.pids: tuple[int, ...] = ()

    def start(self) -> None:
        """Sample from now on."""
        interval = _FIRST_INTERVAL_S if self._samples < _FIRST_SAMPLES else _INTERVAL_S
        self._timer = self._loop.call_later(interval, self._sample)

    def stop(self) -> None:
        """Sample no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sample(self) -> None:
        self._samples += 1
        limits = self._limits
        usage = tree_usage(self._root, limits.tasks or 1_000_000)
        self.pids = usage.pids
        files = 0
        if limits.memory_bytes is not None and limits.memory_places:
            files = memory_files(usage.pids, limits.memory_places, limits.memory_bytes)
        memory = usage.memory_bytes + files
        exceeded = None
        if limits.tasks is not None and usage.tasks > limits.tasks:
            exceeded = "processes"
        elif limits.memory_bytes is not None:
            if memory > limits.memory_bytes:
                # Processes that share pages look larger than they are.
                memory = proportional_memory(usage, files)
            # No part of the peak: it is what they can hold, not what they do.
            buffers = socket_memory(usage.pids) if limits.own_network else 0
            if memory + buffers > limits.memory_bytes:
                exceeded = "memory"
        if memory:
            self.peak_memory_bytes = max(self.peak_memory_bytes or 0, memory)
        self.cpu_s = max(self.cpu_s, usage.max_cpu_s)
        if exceeded is None:
            self.start()
        else:
            self._timer = None
            self._on_limit(exceeded)
