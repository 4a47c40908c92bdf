"""Resuming a long run until its next state starts, against reading its events; prints JSON.

A chain of pure states over a constant context of 4 KiB is interrupted in its last state; with
`--width 50` waves of 50 states that are run at once and joined by their last. Resuming it goes
through `Engine.resume` and the SDK's planner, which expands the op again. It takes turns with two
readers of the same rows: `typed_read` is the store's own verified `read_range`, `bare_models` is
SQL and `EventEnvelope.model_validate_json` with nothing checked, the garbage collector paused for
both.
Run: `python -m benchmarks.resume [--states 10000] [--rounds 7] [--directory DIR]`.
"""

import argparse
import asyncio
import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import apsw

from benchmarks.engine_runs import BUILD, DONE, meta, print_report
from mfm_ops.machine.config import ExecutionMode, RunConfig
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import ContextKey, OpId, OpPath, RunId, StateId
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import StateOutcome
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.sdk.launcher import RunLauncher, default_run_config
from mfm_ops.sdk.operation import OpConfig, Operation, OpIo
from mfm_ops.sdk.pipeline import single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from mfm_ops.storage.stream import collector_paused

BLOB = ContextKey("blob")
META = meta()


class Started(BaseException):
    """The state that was waited for has started."""


class Step:
    """A pure state that counts; the `last` one raises when it starts."""

    def __init__(self, lane: int, *, first: bool, last: bool) -> None:
        self._key = ContextKey(f"counter_{lane}")
        self._first = first
        self._last = last

    def meta(self) -> StateMeta:
        """See `State.meta`."""
        return META

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        """See `State.handle`."""
        del io, rec
        if self._last:
            raise Started
        if self._first:
            ctx.write(BLOB, "x" * 4000)
        count = ctx.read(self._key)
        ctx.write(self._key, (count if isinstance(count, int) else 0) + 1)
        return DONE


class ChainConfig(OpConfig):
    """How many states come before the last one, and how many of them are side by side."""

    states: int
    width: int


class Chain(Operation[ChainConfig]):
    """States one after the other."""

    op_id = OpId("bench")
    op_version = "1"
    summary = "A chain of states."
    config_model = ChainConfig

    def io(self) -> OpIo:
        """See `Operation.io`."""
        return OpIo()

    def expand(self, op_path: OpPath, config: ChainConfig, run_config: RunConfig) -> StateGraph:
        """See `Operation.expand`."""
        del run_config
        count, width = config.states, config.width
        ids = [StateId(f"{op_path}.s{index}") for index in range(count + 1)]
        # Each wave ends with a state that joins the others; in a chain it is the wave.
        joins = [ids[end] for end in range(width - 1, count + 1, width)]
        edges = [DependencyEdge.between(one, other) for one, other in pairwise(joins)]
        for index, state_id in enumerate(ids):
            wave, lane = divmod(index, width)
            if lane < width - 1 and wave:
                edges.append(DependencyEdge.between(joins[wave - 1], state_id))
            if lane < width - 1 and wave < len(joins):
                edges.append(DependencyEdge.between(state_id, joins[wave]))
        return StateGraph(
            [
                StateNode(state_id, Step(index % width, first=index == 0, last=index == count))
                for index, state_id in enumerate(ids)
            ],
            edges,
        )


class Contest:
    """One run, interrupted before its last state, in the store at `path`."""

    def __init__(self, path: Path, states: int, width: int) -> None:
        registry = OpRegistry([Chain()])
        self._path = path
        self._config = ChainConfig(states=states, width=width)
        self._registry = registry
        self._engine = Engine(
            registry=TransportRegistry(),
            build_plan=lambda manifest: build_plan(manifest, registry),
            build=BUILD,
        )

    async def begin(self) -> RunId:
        """Run all states but the last."""
        async with open_sqlite_store(self._path) as store:
            launcher = RunLauncher(
                registry=self._registry,
                engine=self._engine,
                stores=Stores(store, store),
                make_context=JsonContext,
                build=BUILD,
            )
            width = self._config.width
            mode = ExecutionMode.fan_out_join(width) if width > 1 else ExecutionMode.Sequential
            prepared = launcher.prepare(
                single_op_pipeline(self._registry[OpId("bench")], self._config),
                default_run_config().model_copy(update={"execution_mode": mode}),
            )
            with contextlib.suppress(Started):
                await launcher.launch(prepared)
            (run,) = await store.list_runs()
            return run.run_id

    async def resume(self, store: SqliteStore, run_id: RunId) -> None:
        """Go on until the last state starts."""
        try:
            await self._engine.resume(Stores(store, store), run_id)
        except Started:
            return
        raise SystemExit("the last state was not reached")


def bare_models(connection: apsw.Connection, run_id: RunId) -> int:
    """The same rows as models, nothing checked; how many."""
    rows: list[Any] = connection.execute(
        "SELECT body FROM events JOIN runs USING (run) WHERE run_id = ? ORDER BY seq", (run_id,)
    ).fetchall()
    parse = EventEnvelope.model_validate_json
    return len([parse(body) for (body,) in rows])


async def measure(states: int, width: int, rounds: int, directory: Path) -> dict[str, object]:
    """All rounds; each contestant opens the file anew, outside its time."""
    path = directory / "store.sqlite"
    contest = Contest(path, states, width)
    run_id = await contest.begin()
    times: dict[str, list[float]] = {"resume": [], "typed_read": [], "bare_models": []}
    events = 0
    for _ in range(rounds + 1):
        for name, taken in times.items():
            async with open_sqlite_store(path) as store:
                connection = apsw.Connection(str(path))
                gc.collect()
                began = time.perf_counter()
                if name == "resume":
                    await contest.resume(store, run_id)
                elif name == "typed_read":
                    events = len(await store.read_range(run_id, 1))
                else:
                    with collector_paused():
                        bare_models(connection, run_id)
                taken.append(time.perf_counter() - began)
                connection.close()
            await anyio.lowlevel.checkpoint()
    times = {name: taken[1:] for name, taken in times.items()}
    return {
        "states": states,
        "width": width,
        "events": events,
        "milliseconds_lowest": {name: round(min(t) * 1e3, 1) for name, t in times.items()},
        "ratio_of_lowest": _ratio(min(times["resume"]), min(times["typed_read"])),
        "ratio_of_lowest_to_bare": _ratio(min(times["resume"]), min(times["bare_models"])),
        "ratio_median": _median_ratio(times["resume"], times["typed_read"]),
        "ratio_median_to_bare": _median_ratio(times["resume"], times["bare_models"]),
    }


def _ratio(one: float, other: float) -> float:
    return round(one / other, 2)


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    options = parser.parse_args(argv)
    # As the command line does.
    gc.set_threshold(100_000)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        found = asyncio.run(measure(options.states, options.width, options.rounds, Path(scratch)))
    print_report("resume", **found)


if __name__ == "__main__":
    main()
