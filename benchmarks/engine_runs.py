"""What the benchmarks of the engine share: plans, their starts, and how a report is printed."""

import json
import platform
import resource
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise

import apsw

from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.config import BuildProvenance, ExecutionMode, RunConfig, RunManifest
from mfm_ops.machine.engine import StartRun
from mfm_ops.machine.ids import OpId, RunId, StateId
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import DependencyEdge, ExecutionPlan, StateGraph, StateNode
from mfm_ops.machine.state import SnapshotPolicy, State, StateOutcome
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.sdk.launcher import default_run_config

__all__ = [
    "BUILD",
    "DONE",
    "chain",
    "engine_for",
    "meta",
    "print_report",
    "run_config",
    "start_run",
]

BUILD = BuildProvenance(env_allowlist=())
DONE = StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


def meta(side_effects: SideEffectKind = SideEffectKind.Pure) -> StateMeta:
    """The meta of a state that says nothing else."""
    return StateMeta(
        tags=(),
        depends_on=(),
        depends_on_strategy=DependencyStrategy.Latest,
        side_effects=side_effects,
        idempotency=Idempotency.none(),
    )


def run_config(mode: ExecutionMode = ExecutionMode.Sequential) -> RunConfig:
    """The command line's, in another mode."""
    return default_run_config().model_copy(update={"execution_mode": mode})


def chain(step: State, states: int) -> ExecutionPlan:
    """`step`, so many times one after the other."""
    ids = [StateId(f"bench.main.s{index}") for index in range(states)]
    edges = [DependencyEdge.between(one, other) for one, other in pairwise(ids)]
    return ExecutionPlan(OpId("bench"), StateGraph([StateNode(name, step) for name in ids], edges))


def engine_for(plan: ExecutionPlan, registry: TransportRegistry | None = None) -> Engine:
    """An engine that knows one plan."""
    return Engine(registry=registry or TransportRegistry(), build_plan=lambda _: plan, build=BUILD)


def start_run(
    plan: ExecutionPlan,
    context: Mapping[str, Json],
    mode: ExecutionMode = ExecutionMode.Sequential,
    run_id: RunId | None = None,
) -> StartRun:
    """The start of a run of `plan`."""
    config = run_config(mode)
    manifest = RunManifest(
        op_id=plan.op_id, op_version="1", input_params={}, run_config=config, build=BUILD
    )
    return StartRun(
        manifest=manifest,
        manifest_id=artifact_id_for_json(manifest.model_dump(mode="json")),
        plan=plan,
        run_config=config,
        initial_context=JsonContext(dict(context)),
        run_id=run_id,
    )


def print_report(benchmark: str, **found: object) -> None:
    """Print one JSON object: what was measured, and by which versions."""
    report = {
        "benchmark": benchmark,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "apsw": version("apsw"),
        "sqlite": apsw.sqlite_lib_version(),
        **found,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(report, indent=2))
