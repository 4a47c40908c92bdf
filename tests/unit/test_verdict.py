"""`mfm_ops.runtime.verdict`: a recorded run is reproduced, or the first divergence is named."""

import itertools
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import BuildProvenance, EventProfile, ExecutionMode, IoMode, RunConfig
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, RunResult
from mfm_ops.machine.errors import IoFailure, RunFailure, TransportFailure
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import ContextKey, FactKey, RunId, StateId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.control import Requester, resolve_effect
from mfm_ops.runtime.fork import ForkRun, fork_run
from mfm_ops.runtime.history import fold
from mfm_ops.runtime.records import Resolution
from mfm_ops.runtime.verdict import ANOTHER_BUILD, OPEN_RUN, ReplayEnv, replay
from mfm_ops.runtime.verdict_model import (
    Divergence,
    DivergenceKind,
    ReplayVerdict,
    StateResult,
)
from mfm_ops.runtime.verdict_record import RecordingBuilder
from mfm_ops.storage.memory import MemoryStore
from tests.support import (
    BUILD,
    CANARY,
    Bench,
    FunctionState,
    ask,
    chain_of,
    config,
    effect,
    failure,
    manifest_of,
    plan_of,
    reads,
    sid,
    state,
    unordered,
    writes,
)

pytestmark = pytest.mark.anyio

KEY = ContextKey("k")


@dataclass
class Scene:
    """Records a run of one plan, and replays it, perhaps with another plan of the same form."""

    bench: Bench = field(default_factory=lambda: Bench(MemoryStore()))
    run_config: RunConfig = field(default_factory=config)
    run_id: RunId = field(default_factory=RunId.random)
    plan: ExecutionPlan | None = None

    async def record(
        self, plan: ExecutionPlan, *, initial: Mapping[str, Json] | None = None, **options: Any
    ) -> RunResult:
        self.plan, self.run_config = plan, config(**options)
        return await self.bench.start(plan, self.run_config, initial=initial, run_id=self.run_id)

    async def replay(
        self, plan: ExecutionPlan | None = None, *, build: BuildProvenance = BUILD
    ) -> ReplayVerdict:
        builder = RecordingBuilder(self.run_id)
        for envelope in await self.bench.events(self.run_id):
            builder.feed(envelope)
        chosen = plan or self.plan
        assert chosen is not None
        source = self.run_config.replay_of
        return await replay(
            builder.done(),
            ReplayEnv(
                self.bench.stores,
                chosen,
                self.run_config,
                build=build,
                source=None if source is None else fold(source, await self.bench.events(source)),
            ),
        )

    async def divergence(self, plan: ExecutionPlan | None = None) -> Divergence:
        """The first divergence of a replay that must diverge."""
        verdict = await self.replay(plan)
        assert verdict.verdict == "diverged"
        return verdict.divergences[0]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def results(verdict: ReplayVerdict) -> dict[str, str]:
    return {one.state_id.rpartition(".")[2]: one.result.value for one in verdict.states}


def calling(request: Json = "?", key: str | None = None, *, into: str = "k") -> FunctionState:
    """A state that writes the answer of one call."""

    async def call(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey(into), (await io.call(ask(request, key))).response)

    return reads(call)


def emitting(*events: tuple[str, Json]) -> FunctionState:
    async def emit(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for name, payload in events:
            await rec.emit(DomainEvent(name=name, payload=payload))

    return state(emit)


def failing(code: str = "flaky", message: str = "it failed", **options: Any) -> FunctionState:
    async def fail(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        raise failure(code, message, **options)

    return state(fail)


# What is reproduced


async def test_a_chain_is_reproduced(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1), writes(b=[2]), writes(a=3)))
    verdict = await scene.replay()
    assert (verdict.verdict, verdict.up_to, verdict.divergences) == ("reproduced", None, ())
    assert verdict.phase is RunPhase.Completed
    assert results(verdict) == {"s0": "reproduced", "s1": "reproduced", "s2": "reproduced"}


async def test_contexts_that_join_are_reproduced(scene: Scene) -> None:
    plan = plan_of(
        {"a": writes(k=0), "b": writes(x=1), "c": writes(y=2), "d": writes(z=3)},
        "a>b>d",
        "a>c>d",
    )
    await scene.record(plan)
    assert (await scene.replay()).verdict == "reproduced"


async def test_ends_that_nothing_joins_are_reproduced(scene: Scene) -> None:
    plan = plan_of({"a": writes(k=0), "b": writes(x=1), "c": writes(y=2)}, "a>b", "a>c")
    await scene.record(plan)
    assert (await scene.replay()).verdict == "reproduced"


async def test_recorded_answers_clock_and_randomness_are_those_of_the_completed_attempt(
    scene: Scene,
) -> None:
    tries = itertools.count()

    async def flaky(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(KEY, [await io.now_millis(), (await io.random_bytes(4)).hex()])
        await io.call(ask("q"))
        if next(tries) == 0:
            raise failure()

    await scene.record(chain_of(reads(flaky)), max_attempts=2)
    verdict = await scene.replay()
    assert verdict.verdict == "reproduced"
    assert verdict.states[0].attempt == 1


async def test_a_replay_makes_no_transport_and_writes_nothing(scene: Scene) -> None:
    await scene.record(chain_of(calling("q"), writes(a=1)))
    commits, made = scene.bench.store.commits, scene.bench.world.made
    await scene.replay()
    assert (scene.bench.store.commits, scene.bench.world.made) == (commits, made)


async def test_an_effect_is_not_done_again(scene: Scene) -> None:
    async def act(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(KEY, (await io.call(ask("pay"))).response)

    await scene.record(chain_of(effect(act)))
    assert (await scene.replay()).verdict == "reproduced"
    assert len(scene.bench.world.calls) == 1


async def test_a_skipped_state_is_not_executed_then_or_now(scene: Scene) -> None:
    plan = chain_of(writes(a=1), state(failing().function, tags=("slow",)))
    await scene.record(plan, skip=["slow"])
    verdict = await scene.replay()
    assert verdict.verdict == "reproduced"
    assert results(verdict) == {"s0": "reproduced", "s1": "skipped"}


@pytest.mark.parametrize("profile", [EventProfile.Minimal, EventProfile.Verbose])
async def test_events_count_as_far_as_the_profile_kept_them(
    scene: Scene, profile: EventProfile
) -> None:
    await scene.record(chain_of(emitting(("seen", {"n": 1}))), profile=profile)
    verdict = await scene.replay(chain_of(emitting(("seen", {"n": 2}))))
    kept = profile is not EventProfile.Minimal
    assert verdict.verdict == ("diverged" if kept else "reproduced")


async def test_a_look_for_a_fact_finds_what_it_found_then(scene: Scene) -> None:
    async def once(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        before = await io.get_recorded_fact(FactKey("mine"))
        await io.record_value(FactKey("mine"), 1)
        after = await io.get_recorded_fact(FactKey("mine"))
        later = await io.get_recorded_fact(FactKey("later"))
        ctx.write(ContextKey(f"looks{await io.now_millis()}"), [before, after, later])

    async def late(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        found = await io.get_recorded_fact(FactKey("mine"))
        await io.record_value(FactKey("later"), 2)
        ctx.write(KEY, found)

    await scene.record(chain_of(state(once), state(late)))
    assert (await scene.replay()).verdict == "reproduced"


async def test_a_failure_that_a_handler_caught_is_caught_again(scene: Scene) -> None:
    async def refuse(call: IoCall, env: LiveIoEnv) -> Json:
        raise TransportFailure(error_info("exec_timeout", "too slow"))

    async def cope(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        try:
            await io.call(ask("q"))
        except IoFailure:
            ctx.write(KEY, "unknown")

    scene.bench.world.answer = refuse
    await scene.record(chain_of(reads(cope)))
    verdict = await scene.replay()
    assert verdict.verdict == "reproduced"
    assert len(verdict.notes) == 1
    assert "facts that were not recorded" in verdict.notes[0]


@pytest.mark.parametrize("second", ["value", "call"])
async def test_a_conflict_that_a_handler_caught_is_no_divergence(scene: Scene, second: str) -> None:
    async def first_wins(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        await io.record_value(FactKey("k"), 1)
        try:
            if second == "value":
                await io.record_value(FactKey("k"), 2)
            else:
                await io.call(ask("q", "k"))
        except IoFailure as failure:
            ctx.write(ContextKey("code"), str(failure.info.code))

    await scene.record(chain_of(reads(first_wins)))
    assert (await scene.replay()).verdict == "reproduced"


async def test_a_run_that_was_a_replay_itself_is_reproduced_from_its_source(scene: Scene) -> None:
    tries = itertools.count()

    async def flaky(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(KEY, [await io.now_millis(), (await io.call(ask("q"))).response])
        if next(tries) == 0:
            raise failure()

    await scene.record(chain_of(reads(flaky)), max_attempts=2)
    second = Scene(scene.bench)
    assert scene.plan is not None
    await second.record(scene.plan, io_mode=IoMode.Replay, replay_of=scene.run_id)
    assert (await second.replay()).verdict == "reproduced"


async def test_a_forked_run_is_reproduced_with_what_it_took_over_and_what_it_changed(
    scene: Scene,
) -> None:
    async def clock(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(KEY, await io.now_millis())

    async def copies(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("copy"), [ctx.read(KEY), (await io.random_bytes(4)).hex()])

    plan = plan_of(
        {"a": state(clock), "b": calling("q", into="b"), "c": state(copies), "d": writes(d=1)},
        "a>b>d",
        "a>c>d",
    )
    await scene.record(plan)
    forked = Scene(scene.bench, scene.run_config, plan=plan)
    fork = ForkRun(
        source=scene.run_id,
        state_id=sid("c"),
        overrides={"k": 7},
        manifest=manifest_of(scene.run_config, "forked"),
        plan=plan,
        run_id=forked.run_id,
    )
    await fork_run(scene.bench.stores, fork, scene.bench.sources)
    assert (await scene.bench.resume(forked.run_id)).phase is RunPhase.Completed
    verdict = await forked.replay()
    assert (verdict.verdict, len(verdict.states)) == ("reproduced", 4)


async def test_an_effect_that_somebody_found_out_about_is_reproduced_from_what_they_said(
    scene: Scene,
) -> None:
    async def lose(call: IoCall, env: LiveIoEnv) -> Json:
        scope.cancel()
        await anyio.sleep_forever()
        return None

    async def pay(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(KEY, (await io.call(ask("pay"))).response)

    scene.bench.world.answer = lose
    with anyio.CancelScope() as scope:
        await scene.record(chain_of(effect(pay)))
    asks = Requester("somebody", "looked it up", scene.bench.sources.now_millis)
    stores = scene.bench.stores
    await resolve_effect(
        stores, scene.run_id, sid("s0"), Resolution.completed, asks, result={"paid": True}
    )
    assert (await scene.bench.resume(scene.run_id)).phase is RunPhase.Completed
    verdict = await scene.replay()
    assert (verdict.verdict, verdict.states[0].attempt) == ("reproduced", 1)


@settings(max_examples=60)
@given(st.data())
def test_runs_of_any_plan_and_schedule_are_reproduced(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 7), "states")
    arrows = [
        f"n{one}>n{other}"
        for other in range(size)
        for one in data.draw(st.sets(st.integers(0, max(other - 1, 0)), max_size=3), "parents")
        if one < other
    ]
    at_once = data.draw(st.integers(0, 4), "at once")
    dice = data.draw(st.randoms(use_true_random=False), "delays")

    def handler(number: int) -> FunctionState:
        async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            for look in range(2):
                for _ in range(dice.choice((0, 1, 3))):
                    await checkpoint()
                await io.call(ask([number, look]))
                await rec.emit(DomainEvent(name="looked", payload=await io.now_millis()))
            if number % 3 == 2:
                await io.record_value(FactKey("shared"), "the same of all")
            ctx.write(ContextKey(f"k{number % 4}"), number // 4)
            ctx.write(ContextKey(f"n{number}"), [*sorted(ctx.dump())])

        return reads(handle)

    async def check() -> None:
        scene = Scene()
        nodes = {f"n{number}": handler(number) for number in range(size)}
        plan = plan_of(nodes, *arrows) if arrows else unordered(**nodes)
        base = config()
        if at_once:
            mode = ExecutionMode.fan_out_join(at_once)
            base = base.model_copy(update={"execution_mode": mode})
        scene.plan, scene.run_config = plan, base
        result = await scene.bench.start(plan, base, run_id=scene.run_id)
        verdict = await scene.replay()
        assert verdict.divergences == ()
        # Unequal writes of `k0` fail the state that joins them, which stops those beside it.
        if result.phase is RunPhase.Completed:
            assert StateResult.not_replayed not in {one.result for one in verdict.states}

    anyio.run(check)


# How far a run is reproduced that did not complete


async def test_a_run_is_reproduced_up_to_the_state_that_failed(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1), failing(retryable=False), writes(b=1)))
    verdict = await scene.replay()
    assert (verdict.verdict, verdict.up_to) == ("reproduced_up_to", sid("s1"))
    assert results(verdict) == {"s0": "reproduced", "s1": "reproduced"}
    assert verdict.states[1].reason == "flaky"


async def test_a_panic_is_reproduced(scene: Scene) -> None:
    async def panic(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        raise ValueError

    await scene.record(chain_of(state(panic)))
    assert results(await scene.replay()) == {"s0": "reproduced"}


async def test_a_handler_that_ended_itself_does_so_again(scene: Scene) -> None:
    async def end(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        raise SystemExit(0)

    await scene.record(chain_of(writes(k=1), state(end)))
    verdict = await scene.replay()
    assert results(verdict) == {"s0": "reproduced", "s1": "reproduced"}


async def test_a_call_that_failed_left_no_fact_so_its_state_is_not_judged(scene: Scene) -> None:
    async def refuse(call: IoCall, env: LiveIoEnv) -> Json:
        raise TransportFailure(error_info("exec_failed", "it failed"))

    scene.bench.world.answer = refuse
    await scene.record(chain_of(writes(a=1), calling("q")))
    verdict = await scene.replay()
    assert (verdict.verdict, verdict.up_to) == ("reproduced_up_to", sid("s1"))
    assert results(verdict) == {"s0": "reproduced", "s1": "not_replayed"}
    assert verdict.states[1].reason == "exec_failed"


async def test_writes_in_conflict_fail_their_join_again(scene: Scene) -> None:
    plan = plan_of({"a": writes(k=1), "b": writes(k=2), "c": writes(z=3)}, "a>c", "b>c")
    await scene.record(plan)
    verdict = await scene.replay()
    assert (verdict.verdict, verdict.up_to) == ("reproduced_up_to", sid("c"))
    assert results(verdict)["c"] == "reproduced"


async def test_writes_in_conflict_at_the_end_fail_the_run_again(scene: Scene) -> None:
    plan = plan_of({"a": writes(k=1), "b": writes(k=2), "z": writes(z=0)}, "z>a", "z>b")
    result = await scene.record(plan)
    assert result.phase is RunPhase.Failed
    assert (await scene.replay()).verdict == "reproduced"


async def test_a_run_that_was_interrupted_is_reproduced_as_far_as_it_came(scene: Scene) -> None:
    async def hang(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        await io.call(ask("q"))
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await scene.record(chain_of(writes(a=1), reads(hang), writes(b=1)))
    verdict = await scene.replay()
    assert (verdict.verdict, verdict.up_to) == ("reproduced_up_to", sid("s1"))
    assert results(verdict) == {"s0": "reproduced", "s1": "not_replayed"}
    assert verdict.states[1].reason == "unfinished"
    assert OPEN_RUN in verdict.notes


# What diverges


async def test_a_clock_that_is_not_the_runs_is_named_by_state_and_key(scene: Scene) -> None:
    async def tells_time(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("made_at"), time.time_ns() // 1000)

    await scene.record(chain_of(writes(a=1), state(tells_time), writes(b=1)))
    found = await scene.divergence()
    assert (found.state_id, found.attempt) == (sid("s1"), 0)
    assert (found.kind, found.key) == (DivergenceKind.context, "made_at")
    history = await scene.bench.history(scene.run_id)
    assert found.recorded == history.states[sid("s1")].snapshot_id
    assert found.replayed not in (None, found.recorded)
    assert [line.partition(": ")[0] for line in found.diff] == ["- /made_at", "+ /made_at"]


async def test_a_counter_of_the_process_is_named_by_state_and_key(scene: Scene) -> None:
    counter = itertools.count(1)

    async def count(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("serial"), next(counter))

    await scene.record(chain_of(state(count)))
    found = await scene.divergence()
    assert found.key == "serial"
    assert found.diff == ("- /serial: 1", "+ /serial: 2")


async def test_an_order_that_is_not_the_same_is_said_to_be_one(scene: Scene) -> None:
    names = [f"n{index}" for index in range(6)]

    async def collect(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        names.append(names.pop(0))
        ctx.write(ContextKey("names"), list(names))

    await scene.record(chain_of(state(collect)))
    found = await scene.divergence()
    assert found.diff[-1] == "  /names: the same 6 elements in another order"


async def test_one_divergence_brings_about_no_others(scene: Scene) -> None:
    async def drift(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("drift"), random.getrandbits(40))

    async def follow(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("follows"), ctx.read(ContextKey("drift")))

    await scene.record(chain_of(state(drift), state(follow)))
    verdict = await scene.replay()
    assert results(verdict) == {"s0": "diverged", "s1": "reproduced"}
    assert len(verdict.divergences) == 1


async def test_the_first_divergence_in_the_order_of_execution_comes_first(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1), writes(b=1), writes(c=1)))
    verdict = await scene.replay(chain_of(writes(a=1), writes(b=2), writes(c=2)))
    assert [one.state_id for one in verdict.divergences] == [sid("s1"), sid("s2")]


async def test_a_key_that_is_no_longer_written_is_named(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1, b=2)))
    found = await scene.divergence(chain_of(writes(a=1)))
    assert (found.key, found.diff) == ("b", ("- /b: 2",))


async def test_true_is_not_one(scene: Scene) -> None:
    await scene.record(chain_of(emitting(("e", {"n": 1}))))
    found = await scene.divergence(chain_of(emitting(("e", {"n": True}))))
    assert found.diff == ("- /payload/n: 1", "+ /payload/n: true")


async def test_another_event_is_named_by_its_index(scene: Scene) -> None:
    await scene.record(chain_of(emitting(("a", 1), ("b", 1))))
    found = await scene.divergence(chain_of(emitting(("a", 1), ("b", 2))))
    assert (found.kind, found.index) == (DivergenceKind.event, 1)
    assert found.diff == ("- /payload: 1", "+ /payload: 2")
    assert found.recorded == artifact_id_for_json({"name": "b", "payload": 1, "payload_ref": None})


@pytest.mark.parametrize(
    ("then", "now", "sign"),
    [(("a", "b"), ("a",), "-"), (("a",), ("a", "b"), "+")],
    ids=["missing", "new"],
)
async def test_an_event_too_few_or_too_many_is_named(
    scene: Scene, then: tuple[str, ...], now: tuple[str, ...], sign: str
) -> None:
    await scene.record(chain_of(emitting(*((name, 1) for name in then))))
    found = await scene.divergence(chain_of(emitting(*((name, 1) for name in now))))
    assert (found.kind, found.index) == (DivergenceKind.event, 1)
    assert found.diff == (f'{sign} {{"name":"b","payload":1,"payload_ref":null}}',)


async def test_events_in_another_order_diverge(scene: Scene) -> None:
    await scene.record(chain_of(emitting(("a", 1), ("b", 1))))
    found = await scene.divergence(chain_of(emitting(("b", 1), ("a", 1))))
    assert (found.kind, found.index) == (DivergenceKind.event, 0)


async def test_a_question_that_was_never_asked_is_a_missing_fact(scene: Scene) -> None:
    await scene.record(chain_of(calling("q", "one")))
    found = await scene.divergence(chain_of(calling("q", "two")))
    assert (found.kind, found.key) == (DivergenceKind.missing_fact, "two")


async def test_another_question_without_a_key_is_held_against_the_recorded_one(
    scene: Scene,
) -> None:
    await scene.record(chain_of(calling({"block": 1})))
    found = await scene.divergence(chain_of(calling({"block": 2})))
    assert found.kind is DivergenceKind.missing_fact
    assert found.diff == ("- /request/block: 1", "+ /request/block: 2")
    assert found.recorded != found.replayed
    assert None not in (found.recorded, found.replayed)


async def test_another_question_under_a_recorded_key_is_named_with_both(scene: Scene) -> None:
    await scene.record(chain_of(calling("q", "one")))
    found = await scene.divergence(chain_of(calling("r", "one")))
    assert (found.kind, found.key) == (DivergenceKind.fact_request, "one")
    assert found.diff == ('- /request: "q"', '+ /request: "r"')


async def test_another_value_under_a_recorded_key_is_named_with_both(scene: Scene) -> None:
    def recording(value: Json) -> ExecutionPlan:
        async def record(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await io.record_value(FactKey("v"), value)

        return chain_of(state(record))

    await scene.record(recording({"n": 1}))
    found = await scene.divergence(recording({"n": 2}))
    assert (found.kind, found.key) == (DivergenceKind.fact_value, "v")
    assert found.diff == ("- /n: 1", "+ /n: 2")
    assert found.recorded == artifact_id_for_json({"n": 1})


async def test_a_question_that_is_no_longer_asked_is_an_unused_fact(scene: Scene) -> None:
    async def ask_twice(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        await io.call(ask("q", "one"))
        await io.call(ask("q", "two"))

    async def ask_once(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        await io.call(ask("q", "one"))

    await scene.record(chain_of(reads(ask_twice)))
    found = await scene.divergence(chain_of(reads(ask_once)))
    assert (found.kind, found.key) == (DivergenceKind.unused_fact, "two")


async def test_one_more_look_at_the_clock_is_a_missing_fact(scene: Scene) -> None:
    def looks(times: int) -> ExecutionPlan:
        async def look(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            for _ in range(times):
                await io.now_millis()

        return chain_of(state(look))

    await scene.record(looks(1))
    found = await scene.divergence(looks(2))
    assert found.kind is DivergenceKind.missing_fact
    assert found.key is not None
    assert found.key.endswith("|ord:1")


async def test_a_later_states_fact_answers_no_earlier_state(scene: Scene) -> None:
    await scene.record(chain_of(reads(writes(a=1).function), calling("q", "later")))
    found = await scene.divergence(chain_of(calling("q", "later"), calling("q", "later")))
    assert (found.state_id, found.kind) == (sid("s0"), DivergenceKind.missing_fact)


async def test_a_failure_where_the_record_completed_is_a_divergence(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1)))
    found = await scene.divergence(chain_of(failing()))
    assert found.kind is DivergenceKind.outcome
    assert found.diff == ("- completed", "+ failed: flaky: it failed")


async def test_a_success_where_the_record_failed_is_a_divergence(scene: Scene) -> None:
    await scene.record(chain_of(failing()))
    found = await scene.divergence(chain_of(writes(a=1)))
    assert found.diff == ("- failed: flaky: it failed", "+ completed")


@pytest.mark.parametrize(("code", "message"), [("other", "it failed"), ("flaky", "otherwise")])
async def test_another_failure_is_a_divergence(scene: Scene, code: str, message: str) -> None:
    await scene.record(chain_of(failing()))
    found = await scene.divergence(chain_of(failing(code, message)))
    assert found.kind is DivergenceKind.outcome


async def test_what_a_failed_attempt_had_written_counts_too(scene: Scene) -> None:
    def failing_with(value: int) -> ExecutionPlan:
        async def fail(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(KEY, value)
            raise failure()

        return chain_of(state(fail))

    await scene.record(failing_with(1))
    found = await scene.divergence(failing_with(2))
    assert (found.kind, found.key) == (DivergenceKind.context, "k")


async def test_a_new_secret_is_never_shown(scene: Scene) -> None:
    await scene.record(chain_of(writes(note="harmless")))
    verdict = await scene.replay(chain_of(writes(note=CANARY)))
    (found,) = verdict.divergences
    assert found.kind is DivergenceKind.outcome
    assert "secrets_detected" in found.diff[1]
    assert CANARY not in verdict.model_dump_json()


async def test_a_secret_in_a_new_error_is_never_shown(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1)))
    verdict = await scene.replay(chain_of(failing("flaky", f"refused {CANARY}")))
    assert verdict.verdict == "diverged"
    assert CANARY not in verdict.model_dump_json()


async def test_a_secret_in_a_new_request_is_never_shown(scene: Scene) -> None:
    await scene.record(chain_of(calling("q", "one")))
    verdict = await scene.replay(chain_of(calling(CANARY, "one")))
    assert verdict.verdict == "diverged"
    assert CANARY not in verdict.model_dump_json()


# Plan and build


async def test_another_plan_is_refused(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1)))
    with pytest.raises(RunFailure) as refused:
        await scene.replay(chain_of(writes(a=1), writes(b=1)))
    assert refused.value.info.code == "plan_changed"


async def test_another_build_is_noted(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1)))
    verdict = await scene.replay(build=BUILD.model_copy(update={"mfm_version": "9"}))
    assert verdict.verdict == "reproduced"
    assert verdict.notes == (ANOTHER_BUILD.format(fields="mfm_version"),)


async def test_each_state_is_announced_before_its_handler_runs(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1), writes(b=1)))
    told: list[StateId] = []
    builder = RecordingBuilder(scene.run_id)
    for envelope in await scene.bench.events(scene.run_id):
        builder.feed(envelope)
    assert scene.plan is not None
    env = ReplayEnv(scene.bench.stores, scene.plan, scene.run_config, on_state=told.append)
    await replay(builder.done(), env)
    assert told == [sid("s0"), sid("s1")]


async def test_a_verdict_is_json_and_back(scene: Scene) -> None:
    await scene.record(chain_of(writes(a=1)))
    verdict = await scene.replay(chain_of(writes(a=2)))
    assert ReplayVerdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert verdict.states[0].result is StateResult.diverged
