"""Who drives a run: the identity of this process, and whether another one still lives.

Nothing is locked: a driver's mark is an event, and a dead process needs no unlocking.
"""

import os
import platform
import uuid
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from mfm_ops.machine.canonical import Json

__all__ = ["DriverIdentity", "Liveness", "is_alive", "liveness", "this_process"]


class DriverIdentity(NamedTuple):
    """One drive of one run by one process.

    `started` (clock ticks since boot, or seconds where there is no /proc), `boot_id` and `pid_ns`
    tell a process from a later one with the same pid.
    """

    driver_id: str
    host: str
    pid: int
    started: int
    boot_id: str
    pid_ns: str

    def to_json(self) -> dict[str, Json]:
        """As it stands in `mfm.driver`."""
        return self._asdict()


def this_process() -> DriverIdentity:
    """A fresh identity for a drive by this process."""
    pid = os.getpid()
    return DriverIdentity(
        driver_id=str(uuid.uuid4()),
        host=platform.node(),
        pid=pid,
        started=_start_time(pid) or 0,
        boot_id=_boot_id(),
        pid_ns=_pid_namespace(),
    )


class Liveness(StrEnum):
    """What this host knows of a driver's process."""

    alive = "alive"
    gone = "gone"
    unknown = "unknown"


def liveness(driver: Json) -> Liveness:
    """Whether the process that an `mfm.driver` payload describes is at work.

    One of an earlier boot is gone; on another host, in another PID namespace, or where /proc hides
    the processes of others, it is unknown.
    """
    if not isinstance(driver, dict):
        return Liveness.gone
    here = this_process()
    if driver.get("host") != here.host:
        return Liveness.unknown
    if driver.get("boot_id") != here.boot_id:
        return Liveness.gone
    if driver.get("pid_ns") != here.pid_ns:
        return Liveness.unknown
    pid, started = driver.get("pid"), driver.get("started")
    if not isinstance(pid, int):
        return Liveness.gone
    began = _start_time(pid)
    if began is None and _is_hidden(pid):
        return Liveness.unknown
    return Liveness.alive if began == started else Liveness.gone


def is_alive(driver: Json) -> bool:
    """Whether the process that an `mfm.driver` payload describes may still be at work.

    What this host cannot know counts as alive; only taking over by request goes past it.
    """
    return liveness(driver) is not Liveness.gone


def _start_time(pid: int) -> int | None:
    """When process `pid` began, or None when there is no such process (a zombie is none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        return _start_time_without_proc(pid)
    except OSError:
        return None
    # The command name may hold spaces and brackets; the fields go on after the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _is_hidden(pid: int) -> bool:
    """Whether there is a process that /proc does not show us (`hidepid`): somebody else's."""
    try:
        # Signal 0 is sent to nobody; 0 and below would mean whole groups.
        os.kill(max(pid, 1), 0)
    except PermissionError:
        return pid > 0
    except (OSError, OverflowError):
        return False
    return False


def _start_time_without_proc(pid: int) -> int | None:
    # Only needed where there is no /proc, and slow to import.
    import psutil

    try:
        return int(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
