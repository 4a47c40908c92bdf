"""Small real ops for the SDK's tests: each has one rule that a test can see through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import Field

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import BuildProvenance, RunConfig, RunManifest
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.ids import ContextKey, OpId, OpPath, StateId
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.sdk.launcher import default_run_config
from mfm_ops.sdk.operation import AnyOperation, OpConfig, Operation, OpIo
from mfm_ops.sdk.pipeline import MachineId, Pipeline, PipelineStep, StepId
from mfm_ops.sdk.planner import input_params

PURE = StateMeta(
    tags=(),
    depends_on=(),
    depends_on_strategy=DependencyStrategy.Latest,
    side_effects=SideEffectKind.Pure,
    idempotency=Idempotency.none(),
)


class DictContext:
    """The smallest `DynContext`: a dict."""

    def __init__(self, values: Mapping[ContextKey, Json]) -> None:
        self.values = dict(values)

    def read(self, key: ContextKey) -> Json:
        return self.values.get(key)

    def write(self, key: ContextKey, value: Json) -> None:
        self.values[key] = value

    def delete(self, key: ContextKey) -> None:
        self.values.pop(key, None)

    def dump(self) -> dict[str, Json]:
        return {str(key): value for key, value in self.values.items()}


@dataclass(frozen=True)
class DoState:
    """A pure state that does `act` to its context."""

    act: Callable[[DynContext], None]

    def meta(self) -> StateMeta:
        return PURE

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        self.act(ctx)
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


def nothing(ctx: DynContext) -> None:
    """What most states of these tests do."""


class SayConfig(OpConfig):
    text: str = Field(default="hello", description="what to say")
    times: int = Field(default=1, ge=1)


class Say(Operation[SayConfig]):
    """One state that exports `said`."""

    op_id = OpId("say")
    op_version = "1"
    summary = "Says a text."
    config_model = SayConfig

    def io(self) -> OpIo:
        return OpIo(exports=("said",))

    def expand(self, op_path: OpPath, config: SayConfig, run_config: RunConfig) -> StateGraph:
        def act(ctx: DynContext) -> None:
            ctx.write(ContextKey("said"), config.text * config.times)

        return StateGraph((StateNode(StateId(f"{op_path}.say"), DoState(act)),), ())


class Shout(Operation[OpConfig]):
    """Two states in parallel and one that joins them; imports `said`, exports `shouted`."""

    op_id = OpId("shout")
    op_version = "1"
    summary = "Shouts what was said."
    config_model = OpConfig

    def io(self) -> OpIo:
        return OpIo(imports=("said",), exports=("shouted",))

    def expand(self, op_path: OpPath, config: OpConfig, run_config: RunConfig) -> StateGraph:
        def act(ctx: DynContext) -> None:
            ctx.write(ContextKey("shouted"), str(ctx.read(ContextKey("said"))).upper())

        left, right, join = (StateId(f"{op_path}.{name}") for name in ("left", "right", "join"))
        return StateGraph(
            (
                StateNode(left, DoState(nothing)),
                StateNode(right, DoState(nothing)),
                StateNode(join, DoState(act)),
            ),
            (DependencyEdge.between(left, join), DependencyEdge.between(right, join)),
        )


@dataclass(frozen=True)
class Expands(Operation[OpConfig]):
    """An op that expands to whatever the test wants, and has the ports that the test wants."""

    graph: Callable[[OpPath], StateGraph]
    ports: OpIo = OpIo()  # noqa: RUF009 - frozen

    op_id = OpId("expands")
    op_version = "1"
    summary = "A test's op."
    config_model = OpConfig

    def io(self) -> OpIo:
        return self.ports

    def expand(self, op_path: OpPath, config: OpConfig, run_config: RunConfig) -> StateGraph:
        return self.graph(op_path)


def one_state(act: Callable[[DynContext], None]) -> Callable[[OpPath], StateGraph]:
    return lambda op_path: StateGraph((StateNode(StateId(f"{op_path}.only"), DoState(act)),), ())


def step(name: str, op: AnyOperation, config: Json = None) -> PipelineStep:
    return PipelineStep(
        step_id=StepId(name),
        op_id=op.op_id,
        op_version=op.op_version,
        op_config={} if config is None else config,
    )


def pipeline(*steps: PipelineStep) -> Pipeline:
    return Pipeline(machine_id=MachineId("m"), pipeline_version="1", steps=steps)


def manifest_of(plan: Pipeline, given: Mapping[str, Json] | None = None) -> RunManifest:
    return RunManifest(
        op_id=OpId(plan.machine_id),
        op_version=plan.pipeline_version,
        input_params=input_params(plan, given or {}),
        run_config=default_run_config(),
        build=BuildProvenance(env_allowlist=()),
    )
