"""Pure states in waves, run at once, against the same number one after the other; prints JSON.

All run on the SQLite store, over a constant context of 4 KiB; each state writes a small key of its
own. The waves come in three forms: every state of a wave before every state of the next
(`all_to_all`), a state between two waves that joins them (`barriers`), and lanes that nothing
joins before the end (`lanes`). A run is timed from `Engine.start` to its result, its validation
included. The contestants take turns in one process.
Run: `python -m benchmarks.parallel_states [--states 1000] [--width 50] [--rounds 5]`.
"""

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path

from benchmarks.engine_runs import DONE, engine_for, meta, print_report, start_run
from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.machine.config import (
    ExecutionMode,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, Stores
from mfm_ops.machine.ids import ContextKey, OpId, StateId
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.plan import DependencyEdge, ExecutionPlan, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import StateOutcome
from mfm_ops.storage.sqlite import open_sqlite_store

BLOB = ContextKey("bench.main.blob")
LANES = 50
"""As many keys; a state of a wave writes that of its lane, so that the context stays small."""

CONTEXT: dict[str, Json] = {
    str(BLOB): "x" * 2900,
    **{f"bench.main.lane_{lane}": 0 for lane in range(LANES)},
}
"""4 KiB, which the run only changes."""

META = meta()
Names = list[tuple[str, int]]


class Step:
    """A pure state that counts in the key of its lane."""

    def __init__(self, lane: int) -> None:
        self._key = ContextKey(f"bench.main.lane_{lane}")

    def meta(self) -> StateMeta:
        """See `State.meta`."""
        return META

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        """See `State.handle`."""
        del io, rec
        count = ctx.read(self._key)
        ctx.write(self._key, (count if isinstance(count, int) else 0) + 1)
        return DONE


def state_id(name: str) -> StateId:
    """The id of a state of this benchmark."""
    return StateId(f"bench.main.{name}")


def plan_of(names: Names, arrows: Iterator[tuple[str, str]]) -> ExecutionPlan:
    """The plan of named states, each of a lane."""
    nodes = [StateNode(state_id(name), Step(lane)) for name, lane in names]
    edges = [DependencyEdge.between(state_id(one), state_id(other)) for one, other in arrows]
    return ExecutionPlan(OpId("bench"), StateGraph(nodes, edges))


def chain(states: int) -> ExecutionPlan:
    """One after the other."""
    names = [(f"s{index}", index % LANES) for index in range(states)]
    return plan_of(names, pairwise([name for name, _ in names]))


def all_to_all(states: int, width: int) -> ExecutionPlan:
    """Waves, each state of which waits for the whole wave before."""
    waves = range(states // width)
    names = [(f"w{wave}_{lane}", lane % LANES) for wave in waves for lane in range(width)]
    arrows = (
        (f"w{wave - 1}_{one}", f"w{wave}_{other}")
        for wave in waves[1:]
        for one, other in product(range(width), range(width))
    )
    return plan_of(names, arrows)


def barriers(states: int, width: int) -> ExecutionPlan:
    """Waves with a state between them."""
    waves = range(states // width)
    names: Names = []
    for wave in waves:
        names += [(f"w{wave}_{lane}", lane % LANES) for lane in range(width)]
        names.append((f"b{wave}", 0))

    def arrows() -> Iterator[tuple[str, str]]:
        for wave, lane in product(waves, range(width)):
            yield f"w{wave}_{lane}", f"b{wave}"
            if wave:
                yield f"b{wave - 1}", f"w{wave}_{lane}"

    return plan_of(names, arrows())


def lanes(states: int, width: int) -> ExecutionPlan:
    """Chains that nothing joins."""
    names = [(f"w{wave}_{lane}", lane) for wave in range(states // width) for lane in range(width)]
    arrows = (
        (f"w{wave - 1}_{lane}", f"w{wave}_{lane}")
        for wave in range(1, states // width)
        for lane in range(width)
    )
    return plan_of(names, arrows)


async def run(plan: ExecutionPlan, mode: ExecutionMode, path: Path) -> tuple[float, int]:
    """Seconds a state, and commits, of one run on a new store."""
    engine, start = engine_for(plan), start_run(plan, CONTEXT, mode)
    async with open_sqlite_store(path) as store:
        gc.collect()
        began = time.perf_counter()
        result = await engine.start(Stores(store, store), start)
        took = time.perf_counter() - began
        assert result.phase is RunPhase.Completed
        return took / len(plan.graph.states), store.commits


async def measure(states: int, width: int, rounds: int, directory: Path) -> dict[str, object]:
    """All rounds."""
    at_once = ExecutionMode.fan_out_join(width)
    contestants = {
        "sequential": (chain(states), ExecutionMode.Sequential),
        "all_to_all": (all_to_all(states, width), at_once),
        "barriers": (barriers(states, width), at_once),
        "lanes": (lanes(states, width), at_once),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    commits: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, (plan, mode) in contestants.items():
            path = directory / f"{name}-{number}.sqlite"
            taken, commits[name] = await run(plan, mode, path)
            seconds[name].append(taken)
    # The first round warms up.
    seconds = {name: taken[1:] for name, taken in seconds.items()}
    base = seconds.pop("sequential")
    return {
        "states": states,
        "width": width,
        "sequential_us_a_state_median": round(statistics.median(base) * 1e6),
        "waves": {
            name: {
                "us_a_state_median": round(statistics.median(taken) * 1e6),
                "rate_over_sequential_median": round(
                    statistics.median(b / t for b, t in zip(base, taken, strict=True)), 2
                ),
                "rate_over_sequential_of_lowest": round(min(base) / min(taken), 2),
                "commits": commits[name],
            }
            for name, taken in seconds.items()
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    options = parser.parse_args(argv)
    # As the command line does.
    gc.set_threshold(100_000)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        found = asyncio.run(measure(options.states, options.width, options.rounds, Path(scratch)))
    print_report("parallel_states", context_bytes=len(canonical_json_bytes(CONTEXT)), **found)


if __name__ == "__main__":
    main()
