"""Sequential pure states per second against raw durable one-row commits; prints one JSON object.

A chain of pure states over a context of 4 KiB runs on the SQLite store: once over a constant one,
once where each state rewrites a counter in it, and so the whole snapshot. The raw contestant
commits one row at a time with the same apsw, WAL, synchronous=FULL. They take turns in slices of
one process, so that the ratio holds on a busy machine.
Run: `python benchmarks/sequential_states.py [--states 1000 10000] [--directory DIR]`.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import anyio
import apsw

from mfm_ops.machine.canonical import artifact_id_for_json
from mfm_ops.machine.config import (
    BackoffPolicy,
    BuildProvenance,
    ContextCheckpointing,
    Duration,
    EventProfile,
    ExecutionMode,
    Fixed,
    IoMode,
    RetryPolicy,
    RunConfig,
    RunManifest,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import StartRun, Stores
from mfm_ops.machine.ids import ContextKey, OpId, StateId
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import DependencyEdge, ExecutionPlan, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.storage.sqlite import open_sqlite_store

SLICE = 50
"""States, and then raw commits, in one turn."""

COUNTER = ContextKey("bench.main.counter")
BLOB = ContextKey("bench.main.blob")
META = StateMeta(
    tags=(),
    depends_on=(),
    depends_on_strategy=DependencyStrategy.Latest,
    side_effects=SideEffectKind.Pure,
    idempotency=Idempotency.none(),
)
CONFIG = RunConfig(
    io_mode=IoMode.Live,
    retry_policy=RetryPolicy(
        max_attempts=1, backoff=BackoffPolicy(Fixed=Fixed(delay=Duration(secs=0, nanos=0)))
    ),
    event_profile=EventProfile.Normal,
    execution_mode=ExecutionMode.Sequential,
    context_checkpointing=ContextCheckpointing.AfterEveryState,
    replay_missing_fact_retryable=False,
    skip_tags=(),
)


class Raw:
    """Durable one-row commits, and the time that they took."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.pragma("journal_mode", "wal")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
        self._row = b"x" * 300

    def slice_seconds(self) -> float:
        """One turn of `SLICE` commits."""
        before = time.perf_counter()
        for _ in range(SLICE):
            self._connection.execute("INSERT INTO rows (body) VALUES (?)", (self._row,))
        return time.perf_counter() - before


class Step:
    """A pure state that reads, or counts; every `SLICE`-th gives the raw contestant its turn."""

    def __init__(self, raw: Raw, *, rewrites: bool) -> None:
        self._raw = raw
        self._rewrites = rewrites
        self._done = 0
        self._since = time.perf_counter()
        self.ratios: list[float] = []
        self.state_seconds: list[float] = []

    def meta(self) -> StateMeta:
        """See `State.meta`."""
        return META

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        """See `State.handle`."""
        del io, rec
        self._done += 1
        if self._done % SLICE == 0:
            ours = time.perf_counter() - self._since
            theirs = self._raw.slice_seconds()
            self.ratios.append(theirs / ours)
            self.state_seconds.append(ours / SLICE)
            self._since = time.perf_counter()
        count = ctx.read(COUNTER)
        if self._rewrites:
            ctx.write(COUNTER, (count if isinstance(count, int) else 0) + 1)
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


async def measure(states: int, directory: Path, *, rewrites: bool = True) -> dict[str, object]:
    """One run of `states` states."""
    step = Step(Raw(directory / "raw.sqlite"), rewrites=rewrites)
    ids = [StateId(f"bench.main.s{index}") for index in range(states)]
    edges = [DependencyEdge.between(one, other) for one, other in pairwise(ids)]
    plan = ExecutionPlan(
        OpId("bench"), StateGraph([StateNode(state_id, step) for state_id in ids], edges)
    )
    build = BuildProvenance(env_allowlist=())
    manifest = RunManifest(
        op_id=OpId("bench"), op_version="1", input_params={}, run_config=CONFIG, build=build
    )
    engine = Engine(registry=TransportRegistry(), build_plan=lambda _: plan, build=build)
    run = StartRun(
        manifest=manifest,
        manifest_id=artifact_id_for_json(manifest.model_dump(mode="json")),
        plan=plan,
        run_config=CONFIG,
        initial_context=JsonContext({str(BLOB): "x" * 4000, str(COUNTER): 0}),
    )
    async with open_sqlite_store(directory / "store.sqlite") as store:
        await engine.start(Stores(store, store), run)
        commits = store.commits
    # The first slice holds the planning and the start of the run.
    ratios, seconds = step.ratios[1:], step.state_seconds[1:]
    return {
        "states": states,
        "context": "rewritten" if rewrites else "constant",
        "commits": commits,
        "states_per_second_median": round(1 / statistics.median(seconds)),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    options = parser.parse_args(argv)
    runs = []
    for states in options.states:
        for rewrites in (False, True):
            with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
                measured = partial(measure, states, Path(scratch), rewrites=rewrites)
                runs.append(anyio.run(measured))
    print(
        json.dumps(
            {
                "benchmark": "sequential_states",
                "python": platform.python_version(),
                "apsw": version("apsw"),
                "sqlite": apsw.sqlite_lib_version(),
                "context_bytes": 4096,
                "runs": runs,
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
