"""The ops whose runs are recorded here. What a version of them does is never changed.

A recorded run is replayed by these handlers for as long as the project lives: a new behaviour is a
new op, or a new version beside the old one.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.errors import ErrorCategory, ErrorInfo, StateError, StateFailure
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import ContextKey, ErrorCode, FactKey, OpId, OpPath, StateId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta, Tag
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.sdk.operation import AnyOperation, OpConfig, Operation
from mfm_ops.sdk.planner import OpRegistry

Handler = Callable[[DynContext, IoProvider, EventRecorder], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """A state: its handler, and what it declares."""

    handler: Handler
    effects: SideEffectKind = SideEffectKind.Pure
    tags: tuple[str, ...] = ()
    idempotency: str | None = None

    def meta(self) -> StateMeta:
        return StateMeta(
            tags=tuple(map(Tag, self.tags)),
            depends_on=(),
            depends_on_strategy=DependencyStrategy.Latest,
            side_effects=self.effects,
            idempotency=Idempotency.key(self.idempotency)
            if self.idempotency
            else Idempotency.none(),
        )

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        await self.handler(ctx, io, rec)
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


class Recorded(Operation[OpConfig]):
    """An op of named steps; without arrows they form a chain."""

    op_version = "1"
    summary = "An op of the recorded histories."
    config_model = OpConfig

    def __init__(self, name: str, steps: Mapping[str, Step], *arrows: str) -> None:
        # Each instance is an op of its own.
        self.op_id = OpId(name)  # type: ignore[misc]
        self.steps = steps
        self.arrows = arrows or (">".join(steps),)

    def expand(self, op_path: OpPath, config: OpConfig, run_config: RunConfig) -> StateGraph:
        ids = {name: StateId(f"{op_path}.{name}") for name in self.steps}
        edges = [
            DependencyEdge.between(ids[one], ids[other])
            for arrow in self.arrows
            for one, other in pairwise(arrow.split(">"))
        ]
        nodes = [StateNode(ids[name], step) for name, step in self.steps.items()]
        return StateGraph(tuple(nodes), tuple(edges))


def sets(**values: Json) -> Step:
    """A pure state that writes constants."""

    async def write(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for key, value in values.items():
            ctx.write(ContextKey(key), value)

    return Step(write)


async def total(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Reads what came before, writes a sum, deletes, and overwrites."""
    numbers = ctx.read(ContextKey("numbers"))
    assert isinstance(numbers, list)
    ctx.write(ContextKey("total"), sum(n for n in numbers if isinstance(n, int)))
    ctx.delete(ContextKey("scratch"))
    ctx.write(ContextKey("text"), "ünïcode \U0001f600 \u2028")


async def merges(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Writes all that it sees."""
    ctx.write(ContextKey("seen"), ctx.dump())


async def asks(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Two calls without keys, one of them twice, and one with a key."""
    one = await io.call(IoCall(namespace="history", request={"name": "one"}))
    again = await io.call(IoCall(namespace="history", request={"name": "one"}))
    two = await io.call(IoCall(namespace="history", request={"name": "two"}))
    keyed = await io.call(
        IoCall(namespace="history", request={"name": "three"}, fact_key=FactKey("three"))
    )
    ctx.write(ContextKey("same"), one == again)
    ctx.write(ContextKey("answers"), [one.response, two.response, keyed.response])


async def asks_program(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """What a program in the sandbox printed."""
    request: dict[str, Json] = {
        "kind": "run_program_v1",
        "program_path": "/usr/bin/busybox",
        "argv": ["echo", '{"answer": [42]}'],
        "stdin_json": None,
        "timeout_ms": 60_000,
        "env": {},
    }
    answer = await io.call(IoCall(namespace="exec", request=request))
    ctx.write(ContextKey("answer"), answer.response)


async def asks_until_answered(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Fails as long as the call does; clock and randomness differ by attempt."""
    ctx.write(ContextKey("tried_at"), await io.now_millis())
    ctx.write(ContextKey("nonce"), (await io.random_bytes(8)).hex())
    answer = await io.call(IoCall(namespace="history.flaky", request={"name": "flaky"}))
    ctx.write(ContextKey("answer"), answer.response)


async def pays(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """An effect."""
    answer = await io.call(IoCall(namespace="history", request={"name": "pay", "amount": "12.50"}))
    ctx.write(ContextKey("receipt"), answer.response)


async def ambient(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Everything that IO offers beside calls."""
    before = await io.get_recorded_fact(FactKey("value"))
    payload_id = await io.record_value(FactKey("value"), {"kept": True})
    after = await io.get_recorded_fact(FactKey("value"))
    times = [await io.now_millis(), await io.now_millis()]
    drawn = [(await io.random_bytes(n)).hex() for n in (4, 0, 32)]
    ctx.write(ContextKey("value"), [before, str(payload_id), after])
    ctx.write(ContextKey("times"), [*times])
    ctx.write(ContextKey("drawn"), [*drawn])


async def talks(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Emits domain events, one of them about what it learnt."""
    await rec.emit(DomainEvent(name="began", payload=None))
    now = await io.now_millis()
    await rec.emit_many(
        [
            DomainEvent(name="looked", payload={"at": now, "items": [1, {"deep": [True]}]}),
            DomainEvent(name="artifact_written", payload={"artifact_id": "0" * 64}),
        ]
    )
    ctx.write(ContextKey("now"), now)


async def gives_up(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Fails for good after it has written and said something."""
    ctx.write(ContextKey("half"), "done")
    await rec.emit(DomainEvent(name="giving_up", payload={"why": "limit"}))
    raise StateFailure(
        StateError(
            info=ErrorInfo(
                code=ErrorCode("limit_reached"),
                category=ErrorCategory.OnChain,
                retryable=False,
                message="the limit is reached",
                details={"limit": 3},
            )
        )
    )


async def refused(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """A call that the far side refuses for good."""
    await io.call(IoCall(namespace="history.refusing", request={"name": "refused"}))


async def waits(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Never ends by itself."""
    await anyio.sleep_forever()


READS = SideEffectKind.ReadOnlyIo
EFFECT = SideEffectKind.ApplySideEffect


class Scenario(NamedTuple):
    """One recorded run: of which op, with which run options, and the verdict on it for ever.

    `results` are the states' in the order of execution, where they are not all `reproduced`.
    `then` is what is done after the first drive: `resume`, `resolve` an effect and resume, or
    `fork` at a state whose contexts are changed, and resume that.
    """

    op: AnyOperation
    profile: str = "Normal"
    skip_tags: tuple[str, ...] = ()
    interrupted_at: str | None = None
    then: str | None = None
    at_once: int = 1
    verdict: str = "reproduced"
    up_to: str | None = None
    results: tuple[str, ...] = ()


CHAIN = {
    "first": sets(numbers=[1, 2, 3], scratch="x", text="plain"),
    "second": Step(total),
    "third": sets(nested={"b": [], "a": {"z": None, "y": [[-1]]}}),
}
JOIN = "above>left>below", "above>right>below"

SCENARIOS: Mapping[str, Scenario] = {
    "chain": Scenario(Recorded("chain", CHAIN)),
    "diamond": Scenario(
        Recorded(
            "diamond",
            {
                "above": sets(shared=0),
                "left": sets(left=1),
                "right": sets(right=[2], shared=1),
                "below": Step(merges),
            },
            *JOIN,
        )
    ),
    "conflict": Scenario(
        Recorded(
            "conflict",
            {
                "above": sets(shared=0),
                "left": sets(shared=1),
                "right": sets(shared=2),
                "below": Step(merges),
            },
            *JOIN,
        ),
        verdict="reproduced_up_to",
        up_to="conflict.main.below",
    ),
    "calls": Scenario(Recorded("calls", {"ask": Step(asks, READS), "after": sets(done=True)})),
    "program": Scenario(Recorded("program", {"ask": Step(asks_program, READS)})),
    "retries": Scenario(Recorded("retries", {"ask": Step(asks_until_answered, READS)})),
    "effect": Scenario(Recorded("effect", {"pay": Step(pays, EFFECT, idempotency="invoice-7")})),
    "effect_without_key": Scenario(Recorded("effect_without_key", {"pay": Step(pays, EFFECT)})),
    "ambient": Scenario(
        Recorded("ambient", {"look": Step(ambient), "again": Step(ambient, READS)})
    ),
    "events_minimal": Scenario(Recorded("events_minimal", {"talk": Step(talks)}), "Minimal"),
    "events_verbose": Scenario(Recorded("events_verbose", {"talk": Step(talks)}), "Verbose"),
    "skipped": Scenario(
        Recorded("skipped", {"first": sets(a=1), "slow": Step(refused, READS, ("slow",))}),
        skip_tags=("slow",),
        results=("reproduced", "skipped"),
    ),
    "failed": Scenario(
        Recorded("failed", {"first": sets(a=1), "limit": Step(gives_up), "never": sets(b=1)}),
        verdict="reproduced_up_to",
        up_to="failed.main.limit",
    ),
    "refused": Scenario(
        Recorded("refused", {"first": sets(a=1), "ask": Step(refused, READS)}),
        verdict="reproduced_up_to",
        up_to="refused.main.ask",
        results=("reproduced", "not_replayed"),
    ),
    "resumed": Scenario(
        Recorded("resumed", {"first": sets(a=1), "ask": Step(asks, READS), "last": sets(b=1)}),
        interrupted_at="two",
        then="resume",
    ),
    "interrupted": Scenario(
        Recorded("interrupted", {"first": sets(a=1), "ask": Step(asks, READS)}),
        interrupted_at="two",
        verdict="reproduced_up_to",
        up_to="interrupted.main.ask",
        results=("reproduced", "not_replayed"),
    ),
    "resolved": Scenario(
        Recorded("resolved", {"pay": Step(pays, EFFECT), "after": Step(merges)}),
        interrupted_at="pay",
        then="resolve",
    ),
    "parked": Scenario(
        Recorded("parked", {"first": sets(a=1), "pay": Step(pays, EFFECT)}),
        interrupted_at="pay",
        then="resume",
        verdict="reproduced_up_to",
        up_to="parked.main.pay",
        results=("reproduced", "not_replayed"),
    ),
    "forked": Scenario(
        Recorded(
            "forked",
            {
                "above": Step(ambient),
                "left": Step(talks),
                "right": sets(c=1),
                "below": Step(merges),
            },
            *JOIN,
        ),
        then="fork",
    ),
    "parallel": Scenario(
        Recorded(
            "parallel",
            {
                "above": sets(shared=0),
                "left": Step(asks, READS),
                "middle": Step(talks),
                "right": Step(ambient),
                "alone": sets(shared=0),
                "below": Step(merges),
            },
            "above>left>below",
            "above>middle>below",
            "above>right>below",
        ),
        at_once=4,
        results=("reproduced",) * 6,
    ),
    "parallel_failed": Scenario(
        Recorded(
            "parallel_failed",
            {
                "limit": Step(gives_up),
                "slow": Step(waits),
                "below": Step(merges),
            },
            "limit>below",
            "slow>below",
        ),
        at_once=2,
        verdict="reproduced_up_to",
        up_to="parallel_failed.main.limit",
        results=("reproduced",),
    ),
    "parallel_stopped": Scenario(
        Recorded(
            "parallel_stopped",
            {"slow": Step(waits), "limit": Step(gives_up), "below": Step(merges)},
            "slow>below",
            "limit>below",
        ),
        at_once=2,
        verdict="reproduced_up_to",
        up_to="parallel_stopped.main.limit",
        results=("not_replayed", "reproduced"),
    ),
}

OPS = OpRegistry([scenario.op for scenario in SCENARIOS.values()])
