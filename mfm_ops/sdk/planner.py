"""From a manifest to the plan that it stands for: expansion, edges between steps, wired ports.

All of it is a pure function of manifest and installed ops, so a resumed run gets its plan again.
How an op's states see the context is left to `scope`, running the plan to the engine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from types import MappingProxyType
from typing import NamedTuple

from mfm_ops.machine.canonical import (
    CanonicalError,
    Json,
    canonical_json_bytes,
    json_pointer,
)
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunManifest
from mfm_ops.machine.errors import RunError, RunFailure, SettingsFailure
from mfm_ops.machine.ids import ContextKey, OpId, OpPath, StateId
from mfm_ops.machine.plan import (
    DependencyEdge,
    ExecutionPlan,
    StateGraph,
    StateNode,
)
from mfm_ops.sdk.expansion import graph_of, ports_of
from mfm_ops.sdk.operation import AnyOperation, OpIo
from mfm_ops.sdk.pipeline import (
    INPUT_STEP_ID,
    Pipeline,
    PipelineStep,
    complete_pipeline,
    find_operation,
    parse_config,
    parse_pipeline,
)
from mfm_ops.sdk.scope import Scope, ScopedState

__all__ = [
    "OpRegistry",
    "PipelineInput",
    "build_plan",
    "exports",
    "initial_values",
    "input_params",
    "output_operation",
    "read_input_params",
    "renewed",
]

PipelineInput = Mapping[str, Json]
"""What a pipeline is given from outside, by import port."""


class OpRegistry(Mapping[OpId, AnyOperation]):
    """The ops that can be planned, by id; never changed once made.

    Raises:
        ValueError: two ops have one id.
    """

    def __init__(self, ops: Iterable[AnyOperation]) -> None:
        by_id: dict[OpId, AnyOperation] = {}
        for op in ops:
            if op.op_id in by_id:
                raise ValueError(f"two ops are called {op.op_id}")
            by_id[op.op_id] = op
        self._ops = MappingProxyType(by_id)

    def __getitem__(self, op_id: OpId) -> AnyOperation:
        return self._ops[op_id]

    def __iter__(self) -> Iterator[OpId]:
        return iter(self._ops)

    def __len__(self) -> int:
        return len(self._ops)


class _Step(NamedTuple):
    spec: PipelineStep
    op_path: OpPath
    op: AnyOperation
    ports: OpIo


def input_params(pipeline: Pipeline, given: PipelineInput) -> dict[str, Json]:
    """The manifest's `input_params` for a pipeline (the contract, section 10).

    Raises:
        SettingsFailure: `pipeline_invalid` when `given` has no canonical JSON form.
    """
    values = dict(given)
    try:
        canonical_json_bytes(values)
    except CanonicalError as refused:
        raise _pipeline_invalid(f"/input{refused.pointer}", str(refused)) from None
    return {"pipeline": pipeline.model_dump(mode="json"), "input": values}


def read_input_params(manifest: RunManifest) -> tuple[Pipeline, dict[str, Json]]:
    """The pipeline and its input out of a manifest that `input_params` filled.

    Raises:
        SettingsFailure: `pipeline_invalid`.
        RunFailure: `manifest_mismatch` when manifest and pipeline name different ops.
    """
    params = manifest.input_params
    if not isinstance(params, dict) or params.keys() != {"pipeline", "input"}:
        raise _pipeline_invalid("", "a run's input is an object of `pipeline` and `input`")
    pipeline, given = parse_pipeline(params["pipeline"]), params["input"]
    if not isinstance(given, dict):
        raise _pipeline_invalid("/input", "a pipeline's input is an object")
    for field, in_manifest, in_pipeline in (
        ("op_id", manifest.op_id, pipeline.machine_id),
        ("op_version", manifest.op_version, pipeline.pipeline_version),
    ):
        if in_manifest != in_pipeline:
            raise RunFailure(
                RunError(
                    Other=error_info(
                        "manifest_mismatch",
                        "the manifest and its pipeline describe different runs",
                        field=field,
                    )
                )
            )
    return pipeline, given


def renewed(manifest: RunManifest, registry: Mapping[OpId, AnyOperation]) -> RunManifest:
    """The manifest with the versions of the ops that are installed now, for a run that forks.

    Raises:
        SettingsFailure: `pipeline_invalid`, `op_unknown`, `op_config_invalid`.
        RunFailure: `manifest_mismatch`.
    """
    pipeline, given = read_input_params(manifest)
    alone = str(pipeline.machine_id) == str(pipeline.steps[0].op_id) and len(pipeline.steps) == 1
    steps = [
        step.model_copy(update={"op_version": registry[step.op_id].op_version})
        if step.op_id in registry
        else step
        for step in pipeline.steps
    ]
    version = steps[0].op_version if alone else pipeline.pipeline_version
    updated = pipeline.model_copy(update={"steps": tuple(steps), "pipeline_version": version})
    complete = complete_pipeline(updated, registry)
    return manifest.model_copy(
        update={"op_version": version, "input_params": input_params(complete, given)}
    )


def build_plan(manifest: RunManifest, registry: Mapping[OpId, AnyOperation]) -> ExecutionPlan:
    """The plan of `manifest`: each step's states, and every step before the next one.

    Raises:
        SettingsFailure: `pipeline_invalid`, `op_unknown`, `op_config_invalid`,
            `import_unresolved`.
        RunFailure: `manifest_mismatch`, `plan_changed`; `InvalidPlan` for an op that expands to
            what cannot be executed.
    """
    pipeline, given = read_input_params(manifest)
    steps = [_resolve(pipeline, spec, registry) for spec in pipeline.steps]
    states: list[StateNode] = []
    edges: list[DependencyEdge] = []
    graphs: list[StateGraph] = []
    for step, imports in zip(steps, _wire(pipeline, steps, given), strict=True):
        config = parse_config(step.op, step.spec.op_config)
        graph = graph_of(step.op, step.op_path, config, manifest.run_config)
        scope = Scope(step.op_path, imports)
        states += (StateNode(node.id, ScopedState(node.state, scope)) for node in graph.states)
        edges += graph.edges
        graphs.append(graph)
    for earlier, later in pairwise(graphs):
        edges += (
            DependencyEdge.between(sink, root)
            for sink, root in product(_sinks(earlier), _roots(later))
        )
    return ExecutionPlan(manifest.op_id, StateGraph(tuple(states), tuple(edges)))


def initial_values(manifest: RunManifest) -> dict[ContextKey, Json]:
    """The context that a run begins with: the pipeline's input under its full keys.

    Raises:
        SettingsFailure, RunFailure: as `read_input_params`.
    """
    pipeline, given = read_input_params(manifest)
    return {_input_key(pipeline, port): value for port, value in given.items()}


def exports(
    manifest: RunManifest,
    registry: Mapping[OpId, AnyOperation],
    snapshot: Mapping[str, Json],
) -> dict[str, Json]:
    """A run's outputs, by port: what the last step that has exports wrote of them.

    `snapshot` is a dumped context. Ports that were never written are left out.

    Raises:
        SettingsFailure, RunFailure: as `read_input_params`; `op_unknown`, `plan_changed`.
    """
    step = _output_step(manifest, registry)
    if step is None:
        return {}
    keys = {str(port): f"{step.op_path}.{port}" for port in step.ports.exports}
    return {port: snapshot[key] for port, key in keys.items() if key in snapshot}


def output_operation(
    manifest: RunManifest, registry: Mapping[OpId, AnyOperation]
) -> AnyOperation | None:
    """The op whose exports `exports` returns, and whose `render_text` shows them; None if none.

    Raises:
        SettingsFailure, RunFailure: as `exports`.
    """
    step = _output_step(manifest, registry)
    return step.op if step else None


def _output_step(manifest: RunManifest, registry: Mapping[OpId, AnyOperation]) -> _Step | None:
    pipeline, _ = read_input_params(manifest)
    steps = (_resolve(pipeline, spec, registry) for spec in reversed(pipeline.steps))
    return next((step for step in steps if step.ports.exports), None)


def _resolve(
    pipeline: Pipeline, spec: PipelineStep, registry: Mapping[OpId, AnyOperation]
) -> _Step:
    op = find_operation(registry, spec)
    return _Step(spec, pipeline.op_path(spec), op, ports_of(op))


def _wire(
    pipeline: Pipeline, steps: Sequence[_Step], given: PipelineInput
) -> list[dict[str, ContextKey]]:
    """For each step, the full key behind each of its imports."""
    providers = {port: _input_key(pipeline, port) for port in given}
    unused = set(given)
    wired: list[dict[str, ContextKey]] = []
    for step in steps:
        for port in step.ports.imports:
            if port not in providers:
                raise SettingsFailure(
                    error_info(
                        "import_unresolved",
                        "nothing provides a key that a step imports",
                        op_id=step.op.op_id,
                        step_id=step.spec.step_id,
                        key=port,
                    )
                )
        imports = {port: providers[port] for port in step.ports.imports}
        unused -= {port for port, key in imports.items() if key == _input_key(pipeline, port)}
        wired.append(imports)
        # Later steps see the newest provider; a step never sees its own exports as imports.
        for port in step.ports.exports:
            providers[port] = ContextKey(f"{step.op_path}.{port}")
    if unused:
        raise _pipeline_invalid(
            json_pointer(("input", min(unused))), "no step takes this key from the input"
        )
    return wired


def _input_key(pipeline: Pipeline, port: str) -> ContextKey:
    return ContextKey(f"{pipeline.machine_id}.{INPUT_STEP_ID}.{port}")


def _sinks(graph: StateGraph) -> list[StateId]:
    upstream = {edge.from_ for edge in graph.edges}
    return [node.id for node in graph.states if node.id not in upstream]


def _roots(graph: StateGraph) -> list[StateId]:
    downstream = {edge.to for edge in graph.edges}
    return [node.id for node in graph.states if node.id not in downstream]


def _pipeline_invalid(pointer: str, reason: str) -> SettingsFailure:
    return SettingsFailure(
        error_info("pipeline_invalid", "the pipeline is invalid", pointer=pointer, reason=reason)
    )
