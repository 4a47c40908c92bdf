"""Runs that spawn runs, for the tests: ops whose states are functions, and an engine over them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio

from mfm_ops.machine.canonical import parse_canonical
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.engine import RunResult, Stores
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import OpId, OpPath, RunId, StateId
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.control import Requester, request_cancel
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.history import RunHistory, fold
from mfm_ops.runtime.records import ChildRecord
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.runtime.sources import Sources
from mfm_ops.sdk.child_planner import ChildRunPlanner
from mfm_ops.sdk.launcher import PreparedRun, RunLauncher, run_id_for_key
from mfm_ops.sdk.operation import AnyOperation, OpConfig, Operation, OpIo
from mfm_ops.sdk.pipeline import single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan
from tests.support import (
    BUILD,
    FaultyStore,
    FunctionState,
    ScriptedFactory,
    Store,
    config,
    name_of,
    scripted_sources,
)

NOBODY = Requester("somebody", "", lambda: 7)


class MemberConfig(OpConfig):
    """Tells runs of one op apart."""

    n: int = 0


States = Callable[[MemberConfig], Mapping[str, FunctionState]]


def member(
    name: str,
    states: States,
    *,
    at_once: bool = False,
    exports: Sequence[str] = ("answer",),
    imports: Sequence[str] = (),
    version: str = "1",
) -> AnyOperation:
    """An op whose states form a chain, or may run at once."""

    class Member(Operation[MemberConfig]):
        op_id = OpId(name)
        op_version = version
        summary = "A test's op."
        config_model = MemberConfig

        def io(self) -> OpIo:
            return OpIo(imports=tuple(imports), exports=tuple(exports))

        def expand(
            self, op_path: OpPath, config: MemberConfig, run_config: RunConfig
        ) -> StateGraph:
            nodes = tuple(
                StateNode(StateId(f"{op_path}.{local}"), each)
                for local, each in states(config).items()
            )
            pairs = () if at_once else pairwise(node.id for node in nodes)
            return StateGraph(nodes, tuple(DependencyEdge.between(*pair) for pair in pairs))

    return Member()


def single(
    name: str, state: FunctionState, *, exports: Sequence[str] = ("answer",)
) -> AnyOperation:
    """An op of the one state `only`."""
    return member(name, lambda config: {"only": state}, exports=exports)


@dataclass
class Family:
    """An engine over one store, one scripted transport, and ops that the test gives it."""

    store: Store | FaultyStore
    ops: dict[str, AnyOperation] = field(default_factory=dict)
    world: ScriptedFactory = field(default_factory=ScriptedFactory)
    sources: Sources = field(default_factory=scripted_sources)
    _changed: anyio.Event = field(default_factory=anyio.Event)

    def add(self, *ops: AnyOperation) -> None:
        self.ops |= {str(op.op_id): op for op in ops}

    @property
    def stores(self) -> Stores:
        return Stores(events=self.store, artifacts=self.store)

    def engine(self) -> Engine:
        registry = OpRegistry(self.ops.values())
        return Engine(
            registry=TransportRegistry([self.world]),
            build_plan=lambda manifest: build_plan(manifest, registry),
            build=BUILD,
            observer=self._observe,
            sources=self.sources,
            child_planner=ChildRunPlanner(registry),
        )

    async def start(
        self, name: str, run_config: RunConfig | None = None, *, key: str = "k"
    ) -> RunResult:
        """Start the run that a run key names: started twice it is one run."""
        launcher, prepared = self._prepared(name, run_config)
        return await launcher.launch(prepared, run_key=key)

    def id_of(self, name: str, run_config: RunConfig | None = None, *, key: str = "k") -> RunId:
        """The id of the run that `start` starts."""
        return run_id_for_key(self._prepared(name, run_config)[1].manifest_id, key)

    def _prepared(self, name: str, run_config: RunConfig | None) -> tuple[RunLauncher, PreparedRun]:
        launcher = RunLauncher(
            registry=OpRegistry(self.ops.values()),
            engine=self.engine(),
            stores=self.stores,
            make_context=JsonContext,
            build=BUILD,
        )
        pipeline = single_op_pipeline(self.ops[name], MemberConfig())
        return launcher, launcher.prepare(pipeline, run_config or config())

    async def resume(self, run_id: RunId, *, take_over: bool = False) -> RunResult:
        return await self.engine().resume(self.stores, run_id, take_over=take_over)

    async def cancel(self, run_id: RunId) -> None:
        """As `mfm run cancel` does it, for a run with a driver."""
        await request_cancel(self.stores, run_id, NOBODY)

    async def until(self, run_id: RunId, name: str, times: int = 1) -> None:
        """Wait until a run's stream has so many events of that name."""
        while True:
            changed = self._changed
            if (await self.names(run_id)).count(name) >= times:
                return
            await changed.wait()

    def _observe(self, envelope: EventEnvelope) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def events(self, run_id: RunId) -> list[EventEnvelope]:
        return await self.store.read_range(run_id, 1)

    async def names(self, run_id: RunId) -> list[str]:
        return [name_of(envelope) for envelope in await self.events(run_id)]

    async def history(self, run_id: RunId) -> RunHistory:
        return fold(run_id, await self.events(run_id))

    async def children(self, run_id: RunId) -> list[ChildRecord]:
        return list((await self.history(run_id)).children.values())

    async def child(self, run_id: RunId) -> RunId:
        """The only child of a run."""
        (only,) = await self.children(run_id)
        return only.run_id

    async def context(self, result: RunResult) -> dict[str, Any]:
        """The final context of a run."""
        assert result.final_snapshot_id is not None, result
        snapshot = parse_canonical(await self.store.get(result.final_snapshot_id))
        assert isinstance(snapshot, dict)
        return snapshot


class MortalStore(FaultyStore):
    """A store whose process dies at its `dies_at`-th append, before or after it is durable.

    From then on nothing can be appended, as if nobody were there; `revive` is a new process.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.appends = 0
        self.dies_at: int | None = None
        self.after = False
        self.dead = False

    def revive(self) -> None:
        self.dead, self.dies_at = False, None

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]
    ) -> int:
        if self.dead:
            raise StorageFailure(self.full())
        self.appends += 1
        if self.appends == self.dies_at:
            self.dead = True
            if self.after:
                await self.inner.append(run_id, expected_seq, events)
            raise StorageFailure(self.full())
        return await self.inner.append(run_id, expected_seq, events)
