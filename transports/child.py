"""What `process_exec` is asked to run, and what it says became of it.

Types only; whoever builds a command or judges a result needs no more than these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from transports.watch import WatchLimits

__all__ = ["ChildResult", "ChildSpec", "Command", "Ending", "MAX_STREAM_BYTES"]

MAX_STREAM_BYTES: Final = 1024 * 1024

Ending = Literal[
    "exited",
    "limit",
    "not_started",
    "stderr_too_large",
    "stdin_failed",
    "stdout_too_large",
    "timeout",
]


@dataclass(frozen=True, slots=True)
class Command:
    """What is spawned. `kill_by` says what ends the tree: killing its init, or closing the gate."""

    argv: tuple[str, ...]
    pass_fds: tuple[int, ...]
    kill_by: Literal["init", "gate"]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One run. `command` is given the numbers of the status and gate descriptors.

    `deadline` is in the event loop's time. Before anything runs, `rlimits` (resource, soft, hard)
    are set on the tree's init and `attach` is called with its process id; both must succeed.
    Without `watch` the tree is not sampled. `stderr_sink` gets each chunk as it comes.
    """

    command: Callable[[int, int], Command]
    stdin: bytes
    deadline: float
    max_stdout_bytes: int = MAX_STREAM_BYTES
    max_stderr_bytes: int = MAX_STREAM_BYTES
    rlimits: tuple[tuple[int, int, int], ...] = ()
    watch: WatchLimits | None = None
    attach: Callable[[int], None] | None = None
    stderr_sink: Callable[[bytes], None] | None = None


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How a run ended.

    `exit_code` and `signal` belong to `exited`; both are set where the launcher tells a signal as
    128 + n, which a program can also return by itself. For `not_started`, `stderr` is the
    launcher's own and `exec_errno` the kernel's reason where it is known. `limit` names what was
    exceeded (`processes`, `memory`). `cpu_s` is the busiest process's CPU time as last seen.
    `clean` is False when the kernel did not let the tree die in time. `reported`: the launcher told
    of a child.
    """

    ending: Ending
    exit_code: int | None
    signal: int | None
    exec_errno: int | None
    limit: str | None
    stdout: bytes
    stderr: bytes
    cpu_s: float
    peak_memory_bytes: int | None
    duration_ms: int
    clean: bool
    reported: bool = True
