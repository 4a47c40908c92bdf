"""What the runtime's tests are made of: scripted transports, function states, small plans.

Everything here implements the contract's Protocols for real, so the type checker notices when one
of them changes. Which rule is tested is left to the tests.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.codes import error_info
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
from mfm_ops.machine.engine import RunResult, StartRun, Stores
from mfm_ops.machine.errors import (
    ErrorCategory,
    ErrorInfo,
    StateError,
    StateFailure,
    StorageError,
    StorageFailure,
)
from mfm_ops.machine.events import DomainEvent, Event, EventEnvelope, KernelEvent
from mfm_ops.machine.ids import (
    ArtifactId,
    ContextKey,
    ErrorCode,
    FactKey,
    OpId,
    RunId,
    StateId,
)
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta, Tag
from mfm_ops.machine.plan import DependencyEdge, ExecutionPlan, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.machine.stores import EventStore, RunCatalog, StagingArtifactStore
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.facts import FactIndex
from mfm_ops.runtime.history import RunHistory, fold
from mfm_ops.runtime.live_io import LiveIo, RunIo
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.router import Router, TransportRegistry
from mfm_ops.runtime.sources import Sources
from mfm_ops.runtime.writer import RunWriter

OP = OpId("demo")
BUILD = BuildProvenance(env_allowlist=())
DONE = StateOutcome(snapshot=SnapshotPolicy.OnSuccess)
SOME_ID = ArtifactId("a" * 64)
CANARY = "ghp_" + "wR4tZ8kQ1nB6vX3mL0sD7fG2hJ5pC9yT4uEa"
"""Has the shape of a GitHub token and is none."""

Handler = Callable[[DynContext, IoProvider, EventRecorder], Awaitable[StateOutcome | None]]
Answer = Callable[[IoCall, LiveIoEnv], Awaitable[Any]]
"""Answers a call with JSON or a whole `TransportReply`."""


class Store(EventStore, StagingArtifactStore, RunCatalog, Protocol):
    """What both stores offer."""

    @property
    def commits(self) -> int: ...

    def close(self) -> None: ...


# States


def meta(
    side_effects: SideEffectKind = SideEffectKind.Pure,
    *,
    tags: Sequence[str] = (),
    idempotency: str | None = None,
) -> StateMeta:
    return StateMeta(
        tags=tuple(Tag(tag) for tag in tags),
        depends_on=(),
        depends_on_strategy=DependencyStrategy.Latest,
        side_effects=side_effects,
        idempotency=Idempotency.none() if idempotency is None else Idempotency.key(idempotency),
    )


@dataclass(frozen=True)
class FunctionState:
    """A state whose handler is a function; what that returns, if anything, is the outcome."""

    function: Handler
    declared: StateMeta

    def meta(self) -> StateMeta:
        return self.declared

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        return await self.function(ctx, io, rec) or DONE


async def nothing(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """The handler of a state that does nothing."""


def state(
    function: Handler = nothing,
    side_effects: SideEffectKind = SideEffectKind.Pure,
    *,
    tags: Sequence[str] = (),
    idempotency: str | None = None,
) -> FunctionState:
    return FunctionState(function, meta(side_effects, tags=tags, idempotency=idempotency))


def reads(function: Handler) -> FunctionState:
    return state(function, SideEffectKind.ReadOnlyIo)


def effect(function: Handler, idempotency: str | None = None) -> FunctionState:
    return state(function, SideEffectKind.ApplySideEffect, idempotency=idempotency)


def writes(**values: Json) -> FunctionState:
    """A pure state that writes `values`."""

    async def write(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for key, value in values.items():
            ctx.write(ContextKey(key), value)

    return state(write)


def failure(
    code: str = "flaky", message: str = "it failed", *, retryable: bool = True, details: Json = None
) -> StateFailure:
    """A failure that a handler raises; by default one that may be retried."""
    info = ErrorInfo(
        code=ErrorCode(code),
        category=ErrorCategory.OffChain,
        retryable=retryable,
        message=message,
        details=details,
    )
    return StateFailure(StateError(info=info))


# Plans


def sid(name: str) -> StateId:
    return StateId(f"demo.main.{name}")


def edges(*arrows: str) -> tuple[DependencyEdge, ...]:
    """Edges as they are drawn: `edges("a>b>c", "a>c")`."""
    pairs = [pair for arrow in arrows for path in [arrow.split(">")] for pair in pairwise(path)]
    return tuple(DependencyEdge.between(sid(one), sid(two)) for one, two in pairs)


def plan_of(states: Mapping[str, FunctionState], *arrows: str) -> ExecutionPlan:
    """The plan of named states; without arrows they form a chain."""
    names = list(states)
    drawn = edges(*arrows) if arrows else edges(">".join(names))
    nodes = tuple(StateNode(sid(name), states[name]) for name in names)
    return ExecutionPlan(OP, StateGraph(nodes, drawn))


def unordered(**states: FunctionState) -> ExecutionPlan:
    """The plan of named states that may run in any order."""
    nodes = tuple(StateNode(sid(name), each) for name, each in states.items())
    return ExecutionPlan(OP, StateGraph(nodes, ()))


def chain_of(*states: FunctionState) -> ExecutionPlan:
    return plan_of({f"s{index}": each for index, each in enumerate(states)})


def config(
    *,
    io_mode: IoMode = IoMode.Live,
    max_attempts: int = 1,
    backoff: BackoffPolicy | None = None,
    profile: EventProfile = EventProfile.Normal,
    skip: Sequence[str] = (),
    replay_of: RunId | None = None,
    missing_retryable: bool = False,
    checkpointing: ContextCheckpointing = ContextCheckpointing.AfterEveryState,
) -> RunConfig:
    return RunConfig(
        io_mode=io_mode,
        retry_policy=RetryPolicy(
            max_attempts=max_attempts,
            backoff=backoff or BackoffPolicy(Fixed=Fixed(delay=Duration.from_millis(0))),
        ),
        event_profile=profile,
        execution_mode=ExecutionMode.Sequential,
        context_checkpointing=checkpointing,
        replay_missing_fact_retryable=missing_retryable,
        skip_tags=tuple(Tag(tag) for tag in skip),
        replay_of=replay_of,
    )


def manifest_of(run_config: RunConfig, params: Json = None, op_id: OpId = OP) -> RunManifest:
    return RunManifest(
        op_id=op_id,
        op_version="1",
        input_params=params,
        run_config=run_config,
        build=BUILD,
    )


def start_of(
    plan: ExecutionPlan,
    run_config: RunConfig | None = None,
    *,
    initial: Mapping[str, Json] | None = None,
    run_id: RunId | None = None,
    params: Json = None,
) -> StartRun:
    run_config = run_config or config()
    manifest = manifest_of(run_config, params)
    return StartRun(
        manifest=manifest,
        manifest_id=artifact_id_for_json(manifest.model_dump(mode="json")),
        plan=plan,
        run_config=run_config,
        initial_context=JsonContext(initial or {}),
        run_id=run_id,
    )


# The world


async def echo(call: IoCall, env: LiveIoEnv) -> Json:
    """The default answer: the request."""
    request: Json = call.request
    return request


@dataclass
class ScriptedTransport:
    """A transport that answers as it is told and remembers what it was asked."""

    factory: "ScriptedFactory"
    env: LiveIoEnv

    async def call(self, call: IoCall) -> TransportReply:
        self.factory.calls.append(call)
        self.factory.envs.append(self.env)
        answer = await self.factory.answer(call, self.env)
        return answer if isinstance(answer, TransportReply) else TransportReply(answer)


@dataclass
class ScriptedFactory:
    """Makes scripted transports of one group; `calls` and `envs` are those of all of them."""

    answer: Answer = echo
    group: str = "test"
    calls: list[IoCall] = field(default_factory=list)
    envs: list[LiveIoEnv] = field(default_factory=list)
    made: int = 0

    @property
    def namespace_group(self) -> str:
        return self.group

    def make(self, env: LiveIoEnv) -> ScriptedTransport:
        self.made += 1
        return ScriptedTransport(self, env)


def scripted_sources() -> Sources:
    """A clock that ticks a millisecond a look, and random bytes that count up."""
    looks, draws = [1_000_000], [0]

    def now() -> int:
        looks[0] += 1
        return looks[0]

    def random(n: int) -> bytes:
        draws[0] += 1
        return bytes((draws[0] + index) % 256 for index in range(n))

    return Sources(now, random)


def ask(request: Json = "?", key: str | None = None, namespace: str = "test") -> IoCall:
    return IoCall(
        namespace=namespace, request=request, fact_key=None if key is None else FactKey(key)
    )


# Engines and runs


@dataclass
class Bench:
    """An engine over one store and one scripted transport, for plans that the test gives it."""

    store: Store
    world: ScriptedFactory = field(default_factory=ScriptedFactory)
    sources: Sources = field(default_factory=scripted_sources)
    policy: Json = None
    observer: Callable[[EventEnvelope], None] | None = None
    plan: ExecutionPlan | None = None

    @property
    def stores(self) -> Stores:
        return Stores(events=self.store, artifacts=self.store)

    def engine(self) -> Engine:
        return Engine(
            registry=TransportRegistry([self.world]),
            build_plan=self._rebuilt,
            build=BUILD,
            policy=self.policy,
            observer=self.observer,
            sources=self.sources,
        )

    def _rebuilt(self, manifest: RunManifest) -> ExecutionPlan:
        assert self.plan is not None, "the test resumes a run whose plan it has not named"
        return self.plan

    async def start(
        self,
        plan: ExecutionPlan,
        run_config: RunConfig | None = None,
        *,
        initial: Mapping[str, Json] | None = None,
        run_id: RunId | None = None,
        params: Json = None,
    ) -> RunResult:
        self.plan = plan
        run = start_of(plan, run_config, initial=initial, run_id=run_id, params=params)
        return await self.engine().start(self.stores, run)

    async def resume(self, run_id: RunId, *, take_over: bool = False) -> RunResult:
        return await self.engine().resume(self.stores, run_id, take_over=take_over)

    async def events(self, run_id: RunId) -> list[EventEnvelope]:
        return await self.store.read_range(run_id, 1)

    async def names(self, run_id: RunId) -> list[str]:
        """The run's events by name: variants of kernel events, names of domain events."""
        return [name_of(envelope) for envelope in await self.events(run_id)]

    async def history(self, run_id: RunId) -> RunHistory:
        return fold(run_id, await self.events(run_id))

    async def fact_map(self, run_id: RunId) -> dict[str, str]:
        history = await self.history(run_id)
        return {str(key): str(fact.payload_id) for key, fact in history.facts.items()}

    async def say(self, run_id: RunId, name: str, payload: Json = None) -> None:
        """Append an event as another process would."""
        head = await self.store.head_seq(run_id)
        await self.store.append(run_id, head, [domain(run_id, head + 1, name, payload)])


def name_of(envelope: EventEnvelope) -> str:
    event = envelope.event
    return event.Domain.name if event.variant == "Domain" else event.Kernel.variant


def domain(
    run_id: RunId,
    seq: int,
    name: str,
    payload: Json = None,
    *,
    state_id: StateId | None = None,
    attempt: int | None = None,
) -> EventEnvelope:
    event = Event(Domain=DomainEvent(name=name, payload=payload))
    return EventEnvelope(run_id=run_id, seq=seq, event=event, state_id=state_id, attempt=attempt)


def kernel(run_id: RunId, seq: int, body: Any) -> EventEnvelope:
    """The envelope of a kernel event's body."""
    event = KernelEvent.model_validate({type(body).__name__: body})
    return EventEnvelope(run_id=run_id, seq=seq, event=Event(Kernel=event))


# Stores that fail when the test says so


class FaultyStore:
    """A real store whose appends fail while `failing` is set."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.failing = False
        self.before_append: Callable[[Sequence[EventEnvelope]], Awaitable[None]] | None = None

    @staticmethod
    def full() -> StorageError:
        return StorageError(Other=error_info("store_full", "the test's disk is full"))

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]
    ) -> int:
        if self.before_append is not None:
            await self.before_append(events)
        if self.failing:
            raise StorageFailure(self.full())
        return await self.inner.append(run_id, expected_seq, events)

    @property
    def commits(self) -> int:
        return self.inner.commits

    @property
    def stage_limit_bytes(self) -> int:
        return self.inner.stage_limit_bytes

    def stage(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        return self.inner.stage(kind, data)

    async def stage_large(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        return await self.inner.stage_large(kind, data)

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        return await self.inner.put(kind, data)

    async def get(self, artifact_id: ArtifactId) -> bytes:
        return await self.inner.get(artifact_id)

    async def exists(self, artifact_id: ArtifactId) -> bool:
        return await self.inner.exists(artifact_id)

    async def head_seq(self, run_id: RunId) -> int:
        return await self.inner.head_seq(run_id)

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        return await self.inner.read_range(run_id, from_seq, to_seq)


# One attempt's IO without an engine


@dataclass
class IoBench:
    """The live IO of states of one run, straight on a store."""

    store: Store | FaultyStore
    world: ScriptedFactory = field(default_factory=ScriptedFactory)
    run_id: RunId = field(default_factory=RunId.random)
    policy_id: ArtifactId | None = None

    def __post_init__(self) -> None:
        self.run = RunIo(
            facts=FactIndex(),
            persister=Persister(self.store),
            writer=RunWriter(self.store, self.run_id, 0, now_millis=lambda: 7),
            sources=scripted_sources(),
            policy_id=self.policy_id,
        )

    def env(
        self,
        side_effects: SideEffectKind,
        *,
        attempt: int = 0,
        name: str = "only",
        run_config: RunConfig | None = None,
        idempotency_key: str | None = None,
    ) -> LiveIoEnv:
        return LiveIoEnv(
            stores=Stores(events=self.store, artifacts=self.store),
            run_id=self.run_id,
            state_id=sid(name),
            attempt=attempt,
            side_effects=side_effects,
            run_config=run_config or config(),
            manifest_id=SOME_ID,
            idempotency_key=idempotency_key,
        )

    def io(
        self,
        side_effects: SideEffectKind = SideEffectKind.ReadOnlyIo,
        *,
        attempt: int = 0,
        name: str = "only",
        idempotency_key: str | None = None,
    ) -> LiveIo:
        env = self.env(side_effects, attempt=attempt, name=name, idempotency_key=idempotency_key)
        return LiveIo(self.run, Router(TransportRegistry([self.world]), env), env)

    async def names(self) -> list[str]:
        return [name_of(envelope) for envelope in await self.store.read_range(self.run_id, 1)]


def stored_bytes(directory: Path) -> bytes:
    """All that lies in a store's files, to look for what must not be there."""
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())
