"""Sandboxed programs that sleep, 16 at a time, against `xargs -P 16` of the very same commands.

A run of 64 states, each with one `exec` call whose fact is recorded in a SQLite store, takes turns
with `xargs`, which starts the bubblewrap commands that the transport would start. A run is timed
from `Engine.start` to its result. Prints JSON.
Run: `python -m benchmarks.parallel_programs [--programs 64] [--at-once 16] [--sleep-ms 100]`.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine_runs import DONE, engine_for, meta, print_report, start_run
from mfm_ops.machine.config import (
    ExecutionMode,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, Stores
from mfm_ops.machine.ids import ContextKey, OpId, StateId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import SideEffectKind, StateMeta
from mfm_ops.machine.plan import ExecutionPlan, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import StateOutcome
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.storage.sqlite import open_sqlite_store
from transports.bubblewrap import Bubblewrap, find_bubblewrap
from transports.exec import ExecFactory
from transports.launch import sandboxed_command
from transports.leash import Leash
from transports.policy import ExecPolicy
from transports.program import pin_program
from transports.view import Neighbours


class Step:
    """A state that runs the program and keeps its answer."""

    def __init__(self, number: int, request: dict[str, object]) -> None:
        self._key = ContextKey(f"bench.main.answer_{number}")
        self._request = request

    def meta(self) -> StateMeta:
        """See `State.meta`."""
        return meta(SideEffectKind.ReadOnlyIo)

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        """See `State.handle`."""
        del rec
        answer = await io.call(IoCall(namespace="exec", request=self._request))
        ctx.write(self._key, answer.response)
        return DONE


async def run(
    factory: ExecFactory, argv: list[str], programs: int, at_once: int, path: Path
) -> float:
    """The seconds of one run, on a new store."""
    request: dict[str, object] = {
        "kind": "run_program_v1",
        "program_path": argv[0],
        "argv": argv[1:],
    }
    nodes = [
        StateNode(StateId(f"bench.main.s{number}"), Step(number, request))
        for number in range(programs)
    ]
    plan = ExecutionPlan(OpId("bench"), StateGraph(nodes, ()))
    engine = engine_for(plan, TransportRegistry([factory]))
    start = start_run(plan, {}, ExecutionMode.fan_out_join(at_once))
    async with open_sqlite_store(path) as store:
        gc.collect()
        began = time.perf_counter()
        result = await engine.start(Stores(store, store), start)
        took = time.perf_counter() - began
    assert result.phase is RunPhase.Completed
    return took


def xargs(
    bubblewrap: Bubblewrap, policy: ExecPolicy, argv: list[str], *, programs: int, at_once: int
) -> float:
    """The seconds of `xargs` with the same commands.

    Only the system call filter is read to its end and so is each command's own; of the other
    descriptors one is enough, since each that is inherited costs every process.
    """
    leash = Leash()
    with contextlib.ExitStack() as stack:
        pinned = stack.enter_context(pin_program(argv[0], policy))
        status_read, status = os.pipe()
        gate, gate_write = os.pipe()
        for fd in (status_read, status, gate, gate_write):
            stack.callback(os.close, fd)
        # The gates are open from the beginning.
        os.write(gate_write, b"\n" * programs)
        lines: list[str] = []
        inherited = {status, gate}
        for _ in range(programs):
            command = stack.enter_context(
                sandboxed_command(
                    bubblewrap, policy, pinned, argv[1:], {}, neighbours=Neighbours(), leash=leash
                )
            )(status, gate)
            option, number, *others = command.argv[1:]
            assert option == "--args"
            listed = os.pread(int(number), 1 << 16, 0).decode().rstrip("\0").split("\0")
            inherited.update(set(command.pass_fds) - {int(number)})
            lines.append(" ".join(f"'{word}'" for word in (*listed, *others)))
        began = time.perf_counter()
        subprocess.run(
            ["xargs", "-P", f"{at_once}", "-L", "1", bubblewrap.path],
            input="\n".join(lines) + "\n",
            text=True,
            stdout=subprocess.DEVNULL,
            pass_fds=tuple(inherited),
            env={"PATH": os.environ["PATH"]},
            check=True,
        )
        return time.perf_counter() - began


async def measure(
    directory: Path, rounds: int, programs: int, at_once: int, sleep_ms: int
) -> dict[str, list[float]]:
    """All rounds."""
    bubblewrap = find_bubblewrap()
    assert bubblewrap is not None
    busybox = directory / "bin" / "busybox"
    busybox.parent.mkdir()
    shutil.copy(shutil.which("busybox") or "", busybox)
    argv = [str(busybox), "sh", "-c", f"sleep {sleep_ms / 1000}; echo 1"]
    policy = ExecPolicy(allow_prefixes=(str(directory),))
    factory = ExecFactory(policy, "a" * 64)
    times: dict[str, list[float]] = {"run": [], "xargs": []}
    for number in range(rounds + 1):
        path = directory / f"store-{number}.sqlite"
        times["run"].append(await run(factory, argv, programs, at_once, path))
        times["xargs"].append(xargs(bubblewrap, policy, argv, programs=programs, at_once=at_once))
    # The first round warms up.
    return {name: taken[1:] for name, taken in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=64)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--sleep-ms", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    # As the command line does.
    gc.set_threshold(100_000)
    with tempfile.TemporaryDirectory() as scratch:
        times = asyncio.run(
            measure(
                Path(scratch),
                options.rounds,
                options.programs,
                options.at_once,
                options.sleep_ms,
            )
        )
    ratios = [ours / theirs for ours, theirs in zip(times["run"], times["xargs"], strict=True)]
    print_report(
        "parallel_programs",
        programs=options.programs,
        at_once=options.at_once,
        sleep_ms=options.sleep_ms,
        rounds=options.rounds,
        milliseconds_lowest={name: round(min(taken) * 1e3) for name, taken in times.items()},
        ratio_median=round(statistics.median(ratios), 3),
        ratio_of_lowest=round(min(times["run"]) / min(times["xargs"]), 3),
    )


if __name__ == "__main__":
    main()
