"""Forks the processes that drive runs and die; a server of its own, so that a fork is cheap.

    python -m tests.crash.driver

Reads one JSON job a line, and answers with one JSON line once no process of it is left: how the
job's process ended, and what had to be killed because it outlived it. Every orphan comes to this
process, which has imported all that a driver needs and started nothing.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import anyio

# What a command imports only when it needs it is imported here, once for all forks.
import mfm_ops.app.reports
import mfm_ops.cli.op
import mfm_ops.cli.session
import mfm_ops.ops.keystore
import mfm_ops.runtime.child_transport
import mfm_ops.sdk.launcher
import mfm_ops.sdk.planner
import mfm_ops.sdk.provenance  # noqa: F401
from mfm_ops.cli import main
from mfm_ops.machine.engine import RunPhase, RunResult, Stores
from mfm_ops.machine.errors import MfmFailure
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.crash.door import Watcher, install
from tests.crash.plans import RUN, Place, World, mixed_config, mixed_plan, sources
from tests.crash.scenes import act
from tests.crash.watchers import DiskLog, Executioner, FaultyDisk
from tests.support import BUILD, start_of

_PR_SET_CHILD_SUBREAPER = 36
# How long what a dead driver left may take to die; nothing waits for it to pass.
_BURIAL_S = 20.0


def drive(place: Place, watcher: Watcher, *, resume: bool) -> RunResult:
    """Start the run, or go on with it when it is there, as a start with a run key does."""
    place.mount.mkdir(exist_ok=True)
    install(watcher)
    plan, run_config = mixed_plan(place), mixed_config(wave=place.wave)
    engine = Engine(
        registry=TransportRegistry(World(place, watcher).factories()),
        build_plan=lambda manifest: plan,
        build=BUILD,
        policy={"policy": "of the crash suite"},
        sources=sources(),
    )

    async def work(store: SqliteStore) -> RunResult:
        stores = Stores(events=store, artifacts=store)
        if resume and await store.head_seq(RUN):
            return await engine.resume(stores, RUN)
        return await engine.start(stores, start_of(plan, run_config, run_id=RUN))

    store = open_sqlite_store(place.store)
    try:
        return anyio.run(work, store)
    finally:
        store.close()


def play(place: Place, watcher: Watcher, job: list[Any]) -> str:
    """One act of a scene; as `perform` tells it."""
    install(watcher)

    async def work(store: SqliteStore) -> str:
        return await act(store, place, watcher, job)

    store = open_sqlite_store(place.store)
    try:
        phase = anyio.run(work, store)
    finally:
        store.close()
    return "" if phase == RunPhase.Completed.value else phase


def command(place: Place, watcher: Watcher, arguments: list[str]) -> int:
    """Be the command line: its standard output goes to a file; the exit code."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(place.directory / "home")}
    os.environ.clear()
    os.environ.update(environ, MFM_STORE=str(place.store), LC_ALL="C.UTF-8")
    os.chdir(place.directory)
    out = os.open(place.directory / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(out, 1)
    os.close(out)
    install(watcher)
    sys.argv = ["mfm", *arguments]
    try:
        main.main()
    except SystemExit as exit_:
        sys.stdout.flush()
        return int(exit_.code or 0)
    return 0


def perform(job: dict[str, Any]) -> str:
    """Do a job in this process; "" for a completed run, else how it ended: a phase or a code.

    A command tells its exit code, an act that drives no run nothing.
    """
    directory, programs, world = (Path(job[n]) for n in ("directory", "programs", "world"))
    place = Place(directory, programs, world, job["wave"])
    watcher: Watcher
    match job["watch"]:
        case ["kill", at]:
            watcher = Executioner(place.trace, at)
        case ["log"]:
            watcher = DiskLog(place.log)
        case [fault, at]:
            watcher = FaultyDisk(fault, at)
        case other:
            raise ValueError(other)
    try:
        if job["command"]:
            return str(command(place, watcher, job["command"]))
        if job["act"]:
            return play(place, watcher, job["act"])
        result = drive(place, watcher, resume=job["resume"])
    except MfmFailure as failure:
        return str(failure.info.code)
    return "" if result.phase is RunPhase.Completed else result.phase.value


def serve() -> None:
    """One job after the other, until nobody asks any more."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    # The backend is imported by the first loop, the sockets' part by the first connection.
    anyio.run(anyio.sleep, 0)
    # What is here stays: no fork's collector touches its pages, which would copy them.
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _live(job, writing)
        os.close(writing)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(reading) as said:
            end = said.read()
        answer = {"status": os.waitstatus_to_exitcode(status), "end": end, "left": _bury()}
        print(json.dumps(answer), flush=True)  # noqa: T201 - its parent reads this


def _live(job: dict[str, Any], writing: int) -> NoReturn:
    """The forked process's life."""
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.write(writing, perform(job).encode())
        status = 0
    except BaseException:  # noqa: BLE001 - the other process shows it
        traceback.print_exc()
    finally:
        os._exit(status)


def _bury() -> list[str]:
    """Wait until all that the dead left has died too; what does not is named and killed."""
    deadline = time.monotonic() + _BURIAL_S
    left: list[str] = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return left
        if pid:
            continue
        rest = deadline - time.monotonic()
        if rest > 0:
            signal.sigtimedwait({signal.SIGCHLD}, rest)
            continue
        for child in _children():
            with contextlib.suppress(OSError):
                left.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
            os.kill(child, signal.SIGKILL)
        os.waitpid(-1, 0)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


if __name__ == "__main__":
    serve()
