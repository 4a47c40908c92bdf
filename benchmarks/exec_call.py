"""One sandboxed `exec` call, warm, against `subprocess.run` of the very same bubblewrap command.

usage: exec_call.py [--rounds N] [PROGRAM [ARGV ...]]

Prints JSON; times in microseconds, ratios of medians, all sides interleaved in one process. `fact`
is the call with its fact recorded, durably, in a SQLite store; `exec` is the transport alone.
Measured twice: in a process that has recorded enough for the store's log to be written over, and
(`new_log`) while the log still grows, which makes each commit dearer.

Without a PROGRAM it is busybox as `cat`, linked statically: the least that can be run, and so the
most that mfm can add. A PROGRAM gets `{"name": "mfm"}` and sees /usr/lib, /lib and /lib64, as in
the README: `exec_call.py /usr/bin/jq .name`.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import (
    BackoffPolicy,
    ContextCheckpointing,
    Duration,
    EventProfile,
    ExecutionMode,
    Fixed,
    IoMode,
    RetryPolicy,
    RunConfig,
)
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId, StateId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.facts import FactIndex
from mfm_ops.runtime.live_io import LiveIo, RunIo
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.router import Router, TransportRegistry
from mfm_ops.runtime.sources import Sources
from mfm_ops.runtime.writer import RunWriter
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from transports.bubblewrap import Bubblewrap, find_bubblewrap
from transports.exec import ExecFactory
from transports.launch import sandboxed_command
from transports.leash import Leash
from transports.policy import ExecPolicy
from transports.program import pin_program
from transports.runner import ProgramCall
from transports.view import Neighbours

WARM_UP = 5
# A log is written over from its beginning once it has reached a thousand pages.
FILLING = 1500

CONFIG = RunConfig(
    io_mode=IoMode.Live,
    retry_policy=RetryPolicy(
        max_attempts=1, backoff=BackoffPolicy(Fixed=Fixed(delay=Duration.from_millis(0)))
    ),
    event_profile=EventProfile.Normal,
    execution_mode=ExecutionMode.Sequential,
    context_checkpointing=ContextCheckpointing.AfterEveryState,
    replay_missing_fact_retryable=False,
    skip_tags=(),
)


@dataclass(frozen=True)
class Subject:
    """What is run, and what it may see."""

    program: str
    argv: tuple[str, ...]
    stdin: Json
    policy: ExecPolicy


def least(directory: Path) -> Subject:
    """A program that does next to nothing, in a directory of the usual shape.

    What lies beside a program's directory is linked as well.
    """
    program = directory / "bin" / "cat"
    program.parent.mkdir()
    shutil.copy(shutil.which("busybox") or "", program)
    return Subject(str(program), (), 1, ExecPolicy(allow_prefixes=(str(directory),)))


def installed(program: str, argv: list[str]) -> Subject:
    """A program of the system's, with the libraries of the system's."""
    path = str(Path(program).resolve())
    policy = ExecPolicy(allow_prefixes=(path,), read_only_paths=("/usr/lib", "/lib", "/lib64"))
    return Subject(path, tuple(argv), {"name": "mfm"}, policy)


def plain(bubblewrap: Bubblewrap, subject: Subject, leash: Leash) -> float:
    """The same command run by the standard library, its gate open from the beginning; seconds."""
    policy = subject.policy
    with (
        pin_program(subject.program, policy) as pinned,
        sandboxed_command(
            bubblewrap, policy, pinned, subject.argv, {}, neighbours=Neighbours(), leash=leash
        ) as make,
    ):
        status_read, status = os.pipe()
        gate, gate_write = os.pipe()
        os.write(gate_write, b"\n")
        command = make(status, gate)
        began = time.perf_counter()
        subprocess.run(
            command.argv,
            input=json.dumps(subject.stdin).encode(),
            capture_output=True,
            pass_fds=(*command.pass_fds, status, gate),
            env={},
            check=True,
        )
        took = time.perf_counter() - began
        for fd in (status_read, status, gate, gate_write):
            os.close(fd)
    return took


def live_io(store: SqliteStore, factory: ExecFactory) -> LiveIo:
    """The IO of one state of a run in `store`."""
    run_id = RunId.random()
    env = LiveIoEnv(
        stores=Stores(events=store, artifacts=store),
        run_id=run_id,
        state_id=StateId("bench.main.run"),
        attempt=0,
        side_effects=SideEffectKind.ReadOnlyIo,
        run_config=CONFIG,
        manifest_id=ArtifactId("a" * 64),
    )
    sources = Sources()
    run = RunIo(
        facts=FactIndex(),
        persister=Persister(store),
        writer=RunWriter(store, run_id, 0, now_millis=sources.now_millis),
        sources=sources,
        policy_id=ArtifactId("a" * 64),
    )
    return LiveIo(run, Router(TransportRegistry([factory]), env), env)


async def measure(
    directory: Path, command: list[str], rounds: int, *, filling: int = 0
) -> dict[str, list[float]]:
    """Seconds of each round, after `filling` values have been recorded."""
    bubblewrap = find_bubblewrap()
    assert bubblewrap is not None
    leash = Leash()
    subject = installed(command[0], command[1:]) if command else least(directory)
    factory = ExecFactory(subject.policy, "a" * 64)
    call = ProgramCall(subject.program, argv=subject.argv, stdin_json=subject.stdin)
    request: dict[str, Json] = {
        "kind": "run_program_v1",
        "program_path": subject.program,
        "argv": list(subject.argv),
        "stdin_json": subject.stdin,
    }
    times: dict[str, list[float]] = {"fact": [], "exec": [], "subprocess_run": []}
    async with open_sqlite_store(directory / "store.sqlite") as store:
        io = live_io(store, factory)
        for number in range(filling):
            await io.record_value(FactKey(f"value-{number}"), {"number": number})
        for number in range(WARM_UP + rounds):
            began = time.perf_counter()
            await io.call(
                IoCall(namespace="exec", request=request, fact_key=FactKey(f"call-{number}"))
            )
            times["fact"].append(time.perf_counter() - began)
            began = time.perf_counter()
            await factory.runner.run(call, side_effects=SideEffectKind.ReadOnlyIo)
            times["exec"].append(time.perf_counter() - began)
            times["subprocess_run"].append(plain(bubblewrap, subject, leash))
    return {name: all_[WARM_UP:] for name, all_ in times.items()}


def medians_of(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(all_) for name, all_ in times.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description="One exec call against its bubblewrap command.")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGV ...]")
    options = parser.parse_args()
    command, rounds = options.command, options.rounds
    with tempfile.TemporaryDirectory() as directory:
        new = medians_of(await measure(Path(directory), command, rounds))
    with tempfile.TemporaryDirectory() as directory:
        medians = medians_of(await measure(Path(directory), command, rounds, filling=FILLING))
    base = medians["subprocess_run"]
    print(
        json.dumps(
            {
                "benchmark": "exec_call",
                "program": command[0] if command else "busybox cat",
                "rounds": rounds,
                "median_us": {name: round(value * 1e6) for name, value in medians.items()},
                "ratio": round(medians["fact"] / base, 3),
                "ratio_without_fact": round(medians["exec"] / base, 3),
                "ratio_new_log": round(new["fact"] / new["subprocess_run"], 3),
                "python": platform.python_version(),
                "kernel": platform.release(),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
