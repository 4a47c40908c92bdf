"""How runs are interrupted, resumed, taken over, cancelled, parked and replayed, on any store."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import BuildProvenance, IoMode
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, RunResult, Stores
from mfm_ops.machine.errors import RunFailure
from mfm_ops.machine.events import (
    EVENT_CANCEL_REQUESTED,
    EVENT_DRIVER,
    EVENT_DRIVER_STOPPED,
    EVENT_EFFECT_UNKNOWN,
    EVENT_IO_INTENT,
    EVENT_IO_REFUSED,
    DomainEvent,
    Event,
    EventEnvelope,
)
from mfm_ops.machine.ids import ContextKey, FactKey, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.driver import this_process
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from tests.support import (
    BUILD,
    CANARY,
    Bench,
    FaultyStore,
    FunctionState,
    Handler,
    ScriptedFactory,
    Store,
    ask,
    chain_of,
    config,
    effect,
    failure,
    name_of,
    plan_of,
    reads,
    scripted_sources,
    sid,
    start_of,
    state,
    writes,
)


class Hold:
    """A place in a handler or a transport where the test waits, and then interrupts or lets go."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.go = anyio.Event()
        self.cancelled = False

    async def here(self) -> None:
        self.reached.set()
        try:
            await self.go.wait()
        except BaseException:
            self.cancelled = True
            raise

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        await self.here()

    async def answer(self, call: IoCall, env: LiveIoEnv) -> Json:
        await self.here()
        return "held"


async def pass_by(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """What stands in the place of a hold after it was interrupted."""


async def call_out(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    answer = await io.call(ask())
    ctx.write(ContextKey("answer"), answer.response)


async def fail(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    raise failure(retryable=False)


async def interrupt(
    bench: Bench, plan: ExecutionPlan, hold: Hold, *, max_attempts: int = 1
) -> RunId:
    """Start a run, and cancel the task that drives it where it holds, its opening durable."""
    run_id = RunId.random()
    seen = anyio.Event()

    def watch(envelope: EventEnvelope) -> None:
        if name_of(envelope) == "StateEntered" and hold.reached.is_set():
            seen.set()

    bench.observer = watch
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: bench.start(plan, config(max_attempts=max_attempts), run_id=run_id)
        )
        await hold.reached.wait()
        if not holds_durably(await bench.names(run_id)):
            await seen.wait()
        tasks.cancel_scope.cancel()
    bench.observer = None
    return run_id


def holds_durably(names: list[str]) -> bool:
    """Whether the newest attempt's opening is in the stream: an effect announced itself with it."""
    return names[-1] == EVENT_IO_INTENT or names[-2:] == [EVENT_IO_INTENT, "fact_recorded"]


async def as_if_killed(bench: Bench, run_id: RunId) -> RunId:
    """The run in a stream that ends as a driver leaves it that was killed with its machine."""
    killed = RunId.random()
    envelopes: list[EventEnvelope] = []
    for envelope in await bench.events(run_id):
        if name_of(envelope) == EVENT_DRIVER_STOPPED:
            continue
        changes: dict[str, Any] = {"run_id": killed, "seq": len(envelopes) + 1}
        if name_of(envelope) == EVENT_DRIVER:
            mark = {**envelope.event.Domain.payload, "boot_id": "an earlier one"}
            changes["event"] = Event(Domain=DomainEvent(name=EVENT_DRIVER, payload=mark))
        envelopes.append(envelope.model_copy(update=changes))
    await bench.store.append(killed, 0, envelopes)
    return killed


async def code_of(awaited: Awaitable[RunResult]) -> str:
    with pytest.raises(RunFailure) as failed:
        await awaited
    return str(failed.value.info.code)


def swallowing(*keys: str, then: Callable[[], Awaitable[None]] | None = None) -> Handler:
    """Calls out once for each key, and takes no notice of what is raised."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for key in keys:
            with contextlib.suppress(Exception):
                await io.call(ask("q", key))
        if then is not None:
            await then()

    return handle


class EngineControlSuite:
    """One rule a test; `bench` is the subclass's fixture."""

    # Interruption and resumption

    async def test_an_interrupted_run_says_that_its_driver_stopped(self, bench: Bench) -> None:
        hold = Hold()
        run_id = await interrupt(bench, chain_of(writes(a=1), state(hold.handle)), hold)
        assert hold.cancelled
        history = await bench.history(run_id)
        assert history.phase is RunPhase.Running
        assert history.driver is None
        assert (await bench.names(run_id))[-1] == EVENT_DRIVER_STOPPED

    async def test_a_resumed_run_ends_like_one_that_was_never_interrupted(
        self, bench: Bench
    ) -> None:
        async def look(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ContextKey("answer"), (await io.call(ask())).response)
            await io.record_value(FactKey("value"), 7)

        def plan(middle: Handler) -> ExecutionPlan:
            return chain_of(writes(a=1), reads(look), state(middle), reads(look), writes(b=2))

        whole = await bench.start(plan(pass_by))
        hold = Hold()
        run_id = await interrupt(bench, plan(hold.handle), hold)
        bench.plan = plan(pass_by)
        resumed = await bench.resume(run_id)
        assert resumed.phase is RunPhase.Completed
        assert resumed.final_snapshot_id == whole.final_snapshot_id
        assert await bench.fact_map(run_id) == await bench.fact_map(whole.run_id)
        # Two states in each of two runs: what was recorded before the interruption ran once.
        assert len(bench.world.calls) == 4

    async def test_clock_and_randomness_of_completed_states_are_kept(self, store: Store) -> None:
        async def look(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ContextKey("now"), await io.now_millis())
            ctx.write(ContextKey("random"), (await io.random_bytes(4)).hex())

        bench = Bench(store)
        hold = Hold()
        run_id = await interrupt(bench, chain_of(state(look), state(hold.handle)), hold)
        before = await bench.history(run_id)
        bench.sources = scripted_sources()
        bench.plan = chain_of(state(look), state())
        resumed = await bench.resume(run_id)
        assert resumed.final_snapshot_id == before.states[sid("s0")].snapshot_id

    async def test_an_orphan_is_closed_as_the_next_attempt_opens_and_is_not_charged(
        self, bench: Bench
    ) -> None:
        hold = Hold()
        run_id = await interrupt(bench, chain_of(writes(a=1), state(hold.handle)), hold)
        head = await bench.store.head_seq(run_id)
        bench.plan = chain_of(writes(a=1), state())
        before = bench.store.commits
        assert (await bench.resume(run_id)).phase is RunPhase.Completed
        tail = await bench.store.read_range(run_id, head + 1)
        assert [name_of(envelope) for envelope in tail] == [
            EVENT_DRIVER,
            "StateFailed",
            "StateEntered",
            "StateCompleted",
            "RunCompleted",
        ]
        assert bench.store.commits - before == 3
        closed = tail[1].event.Kernel.StateFailed.error.info
        assert closed.code == "attempt_orphaned"
        assert closed.message == "the driver left during this attempt"
        assert tail[2].event.Kernel.StateEntered.attempt == 1
        record = (await bench.history(run_id)).states[sid("s1")]
        assert (record.attempts, record.charged) == (2, 1)

    async def test_attempts_of_an_earlier_driver_count(self, bench: Bench) -> None:
        hold = Hold()
        tries: list[int] = []

        async def fail_then_hold(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            tries.append(1)
            if len(tries) > 1:
                await hold.here()
            raise failure()

        async def fail_again(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            tries.append(1)
            raise failure()

        plan = chain_of(state(fail_then_hold))
        run_id = await interrupt(bench, plan, hold, max_attempts=3)
        bench.plan = chain_of(state(fail_again))
        assert (await bench.resume(run_id)).phase is RunPhase.Failed
        # One failed, one was interrupted, and two of three were left.
        assert len(tries) == 4

    async def test_a_resumed_graph_merges_what_earlier_drivers_wrote(self, bench: Bench) -> None:
        def plan(last: Handler) -> ExecutionPlan:
            made = {"a": writes(a=1), "b": writes(b=1), "c": writes(c=1), "d": state(last)}
            return plan_of(made, "a>b>d", "a>c>d")

        async def look(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ContextKey("seen"), ",".join(sorted(ctx.dump())))

        whole = await bench.start(plan(look))
        hold = Hold()
        run_id = await interrupt(bench, plan(hold.handle), hold)
        bench.plan = plan(look)
        assert (await bench.resume(run_id)).final_snapshot_id == whole.final_snapshot_id

    async def test_a_run_that_nobody_started_cannot_be_resumed(self, bench: Bench) -> None:
        with pytest.raises(RunFailure) as failed:
            await bench.resume(RunId.random())
        assert failed.value.error.variant == "Storage"
        assert failed.value.info.code == "run_not_found"

    async def test_a_finished_run_returns_its_result_unchanged(self, bench: Bench) -> None:
        for plan in (chain_of(writes(a=1)), chain_of(state(fail))):
            result = await bench.start(plan)
            commits = bench.store.commits
            assert await bench.resume(result.run_id) == result
            assert bench.store.commits == commits

    async def test_a_plan_that_changed_is_refused(self, bench: Bench) -> None:
        hold = Hold()
        run_id = await interrupt(bench, chain_of(state(hold.handle)), hold)
        bench.plan = chain_of(state(), state())
        names = await bench.names(run_id)
        assert await code_of(bench.resume(run_id)) == "plan_changed"
        assert await bench.names(run_id) == names

    async def test_another_build_goes_on_and_is_recorded_and_warned_of(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        hold = Hold()
        run_id = await interrupt(bench, chain_of(state(hold.handle)), hold)
        build = BuildProvenance(env_allowlist=(), git_commit="c" * 40)
        plan = chain_of(state())
        engine = Engine(registry=TransportRegistry(), build_plan=lambda _: plan, build=build)
        assert (await engine.resume(bench.stores, run_id)).phase is RunPhase.Completed
        drivers = (await bench.history(run_id)).drivers
        assert [driver["build"] for driver in drivers] == [
            each.model_dump(mode="json") for each in (BUILD, build)
        ]
        assert "another build" in caplog.text

    # Drivers

    async def test_a_run_that_somebody_drives_is_busy(self, bench: Bench) -> None:
        hold, run_id = Hold(), RunId.random()
        plan = chain_of(state(hold.handle))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: bench.start(plan, run_id=run_id))
            await hold.reached.wait()
            with pytest.raises(RunFailure) as failed:
                await bench.resume(run_id)
            assert await code_of(bench.start(plan, run_id=run_id)) == "run_busy"
            hold.go.set()
        assert failed.value.info.code == "run_busy"
        assert failed.value.info.details["pid"] == this_process().pid
        assert (await bench.history(run_id)).phase is RunPhase.Completed

    async def test_a_killed_drivers_run_can_be_resumed(self, bench: Bench) -> None:
        hold = Hold()
        run_id = await as_if_killed(
            bench, await interrupt(bench, chain_of(state(hold.handle)), hold)
        )
        assert (await bench.history(run_id)).driver is not None
        bench.plan = chain_of(state())
        assert (await bench.resume(run_id)).phase is RunPhase.Completed

    async def test_taking_over_fences_the_old_driver_and_stops_its_handler(
        self, bench: Bench
    ) -> None:
        hold, run_id = Hold(), RunId.random()
        fenced: list[RunFailure] = []

        async def hold_and_speak(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            hold.reached.set()
            # The watcher meets the new driver when it looks, or when it appends what is said here.
            try:
                await hold.go.wait()
                await rec.emit(DomainEvent(name="too_late", payload=None))
                await anyio.sleep_forever()
            except BaseException:
                hold.cancelled = True
                raise

        async def old_driver() -> None:
            try:
                await bench.start(chain_of(state(hold_and_speak)), run_id=run_id)
            except RunFailure as failed:
                fenced.append(failed)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(old_driver)
            await hold.reached.wait()
            bench.plan = chain_of(state())
            result = await bench.resume(run_id, take_over=True)
            hold.go.set()
        assert result.phase is RunPhase.Completed
        assert hold.cancelled
        (failed,) = fenced
        assert failed.info.code == "run_fenced"
        winner = (await bench.history(run_id)).drivers[-1]
        assert failed.info.details["driver_id"] == winner["driver_id"]
        names = await bench.names(run_id)
        assert "too_late" not in names
        assert EVENT_DRIVER_STOPPED not in names

    async def test_a_driver_that_writes_all_the_time_can_be_taken_over(self, bench: Bench) -> None:
        hold, run_id = Hold(), RunId.random()
        store = FaultyStore(bench.store)
        late = [3]

        async def race(events: Sequence[EventEnvelope]) -> None:
            # The old driver is quicker than each of the first marks.
            if name_of(events[0]) == EVENT_DRIVER and late[0]:
                late[0] -= 1
                await bench.say(run_id, "chatter")

        async def old_driver() -> None:
            with contextlib.suppress(RunFailure):
                await bench.start(chain_of(state(hold.handle)), run_id=run_id)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(old_driver)
            await hold.reached.wait()
            bench.plan = chain_of(state())
            store.before_append = race
            stores = Stores(events=store, artifacts=bench.store)
            result = await bench.engine().resume(stores, run_id, take_over=True)
            hold.go.set()
        assert result.phase is RunPhase.Completed
        assert late == [0]

    # Cancelling

    async def test_a_request_to_cancel_ends_the_run_at_its_next_append(self, bench: Bench) -> None:
        run_id = RunId.random()

        async def be_cancelled(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await bench.say(run_id, EVENT_CANCEL_REQUESTED)

        plan = chain_of(writes(a=1), state(be_cancelled), state(fail))
        result = await bench.start(plan, run_id=run_id)
        assert result.phase is RunPhase.Cancelled
        history = await bench.history(run_id)
        # What had run to its end by then counts.
        assert history.states[sid("s1")].snapshot_id == result.final_snapshot_id
        assert sid("s2") not in history.states
        assert await bench.resume(run_id) == result

    async def test_a_request_to_cancel_during_a_call_keeps_its_answer_and_ends_the_attempt(
        self, bench: Bench
    ) -> None:
        run_id = RunId.random()

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            await bench.say(run_id, EVENT_CANCEL_REQUESTED)
            return "a"

        bench.world.answer = answer
        result = await bench.start(chain_of(reads(call_out)), run_id=run_id)
        assert result.phase is RunPhase.Cancelled
        names = await bench.names(run_id)
        assert names[-4:] == ["StateEntered", "fact_recorded", "StateFailed", "RunCompleted"]

    async def test_a_handler_that_swallows_the_cancellation_ends_all_the_same(
        self, bench: Bench
    ) -> None:
        run_id = RunId.random()

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            if len(bench.world.calls) == 1:
                await bench.say(run_id, EVENT_CANCEL_REQUESTED)
            return len(bench.world.calls)

        bench.world.answer = answer
        plan = chain_of(reads(swallowing("k", "k", "other")), state(fail))
        result = await bench.start(plan, run_id=run_id)
        assert result.phase is RunPhase.Cancelled
        # One call for each key, and a stream that still folds.
        assert len(bench.world.calls) == 2
        assert len((await bench.history(run_id)).facts) == 2

    async def test_a_request_to_cancel_between_the_last_state_and_the_end_comes_too_late(
        self, bench: Bench
    ) -> None:
        run_id = RunId.random()
        store = FaultyStore(bench.store)

        async def race(events: Sequence[EventEnvelope]) -> None:
            if name_of(events[-1]) == "RunCompleted":
                store.before_append = None
                await bench.say(run_id, EVENT_CANCEL_REQUESTED)

        store.before_append = race
        plan = chain_of(writes(a=1))
        bench.plan = plan
        stores = Stores(events=store, artifacts=bench.store)
        result = await bench.engine().start(stores, start_of(plan, run_id=run_id))
        assert result.phase is RunPhase.Completed
        assert (await bench.names(run_id))[-1] == "RunCompleted"

    async def test_a_run_that_was_asked_to_cancel_while_nobody_drove_it_is_cancelled(
        self, bench: Bench
    ) -> None:
        hold = Hold()
        run_id = await interrupt(bench, chain_of(writes(a=1), state(hold.handle)), hold)
        await bench.say(run_id, EVENT_CANCEL_REQUESTED)
        bench.plan = chain_of(writes(a=1), state())
        result = await bench.resume(run_id)
        assert result.phase is RunPhase.Cancelled
        history = await bench.history(run_id)
        assert result.final_snapshot_id == history.states[sid("s0")].snapshot_id
        assert all(record.status != "running" for record in history.states.values())

    # Stores that fail

    async def test_a_store_that_fails_fails_the_run_and_leaves_a_stream_that_resumes(
        self, bench: Bench
    ) -> None:
        run_id = RunId.random()
        store = FaultyStore(bench.store)

        async def break_store(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            store.failing = True

        bench.plan = chain_of(writes(a=1), state(break_store))
        stores = Stores(events=store, artifacts=bench.store)
        with pytest.raises(RunFailure) as failed:
            await bench.engine().start(stores, start_of(bench.plan, run_id=run_id))
        assert failed.value.error.variant == "Storage"
        assert failed.value.info.code == "store_full"
        store.failing = False
        bench.plan = chain_of(writes(a=1), state())
        result = await bench.resume(run_id, take_over=True)
        assert result.phase is RunPhase.Completed

    async def test_a_store_that_fails_the_watcher_ends_the_run_and_cancels_the_handler(
        self, bench: Bench
    ) -> None:
        run_id, hold = RunId.random(), Hold()
        store = FaultyStore(bench.store)

        async def break_store(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            store.failing = True
            await hold.here()

        bench.plan = chain_of(state(break_store))
        stores = Stores(events=store, artifacts=bench.store)
        with pytest.raises(RunFailure) as failed:
            await bench.engine().start(stores, start_of(bench.plan, run_id=run_id))
        assert failed.value.info.code == "store_full"
        assert hold.cancelled

    @pytest.mark.parametrize("made", [reads, effect])
    async def test_a_handler_that_swallows_a_stores_failure_does_not_complete(
        self, bench: Bench, made: Callable[[Handler], FunctionState]
    ) -> None:
        run_id = RunId.random()
        store = FaultyStore(bench.store)

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            store.failing = True
            return len(bench.world.calls)

        async def heal() -> None:
            store.failing = False

        bench.world.answer = answer
        bench.plan = chain_of(made(swallowing("k", "k", then=heal)))
        stores = Stores(events=store, artifacts=bench.store)
        with pytest.raises(RunFailure) as failed:
            await bench.engine().start(stores, start_of(bench.plan, run_id=run_id))
        assert failed.value.info.code == "store_full"
        history = await bench.history(run_id)
        assert history.facts == {}
        assert history.driver is None
        if made is effect:
            assert len(bench.world.calls) == 1

    @pytest.mark.parametrize("tasks", [1, 3])
    async def test_a_stores_failure_in_a_handlers_own_tasks_is_no_failure_of_the_state(
        self, bench: Bench, tasks: int
    ) -> None:
        store = FaultyStore(bench.store)

        async def fan_out(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            store.failing = True
            async with anyio.create_task_group() as group:
                for number in range(tasks):
                    group.start_soon(io.call, ask(number))

        plan = chain_of(reads(fan_out))
        bench.plan = plan
        run = start_of(plan, run_id=RunId.random())
        stores = Stores(events=store, artifacts=bench.store)
        with pytest.raises(RunFailure) as failed:
            await bench.engine().start(stores, run)
        assert failed.value.info.code == "store_full"
        assert run.run_id is not None
        assert "StateFailed" not in await bench.names(run.run_id)

    async def test_an_observer_that_fails_does_not_end_the_run(self, bench: Bench) -> None:
        def broken(envelope: EventEnvelope) -> None:
            raise BrokenPipeError

        bench.observer = broken
        result = await bench.start(chain_of(reads(call_out), writes(a=1)))
        assert result.phase is RunPhase.Completed

    # Effects

    async def test_an_effect_of_unknown_outcome_parks_the_run_and_is_told_once(
        self, bench: Bench
    ) -> None:
        hold = Hold()
        bench.world.answer = hold.answer
        run_id = await interrupt(bench, chain_of(writes(a=1), effect(call_out)), hold)
        run_id = await as_if_killed(bench, run_id)
        assert (await bench.names(run_id))[-1] == EVENT_IO_INTENT
        bench.world.calls.clear()
        for _ in range(3):
            result = await bench.resume(run_id)
            assert result.phase is RunPhase.Running
            assert (await bench.history(run_id)).parked
        names = await bench.names(run_id)
        assert names.count(EVENT_EFFECT_UNKNOWN) == 1
        assert names[-1] == EVENT_DRIVER_STOPPED
        assert bench.world.calls == []

    async def test_an_effect_of_unknown_outcome_with_a_key_is_tried_again_with_it(
        self, bench: Bench
    ) -> None:
        hold = Hold()
        bench.world.answer = hold.answer
        run_id = await interrupt(bench, chain_of(effect(call_out, "intent-7")), hold)
        run_id = await as_if_killed(bench, run_id)
        bench.world.answer = ScriptedFactory().answer
        result = await bench.resume(run_id)
        assert result.phase is RunPhase.Completed
        assert [env.idempotency_key for env in bench.world.envs] == ["intent-7"] * 2
        assert [env.attempt for env in bench.world.envs] == [0, 1]
        assert bench.world.calls[0] == bench.world.calls[1]
        assert EVENT_EFFECT_UNKNOWN not in await bench.names(run_id)

    async def test_an_effect_that_was_recorded_is_not_repeated(self, bench: Bench) -> None:
        hold = Hold()

        def plan(last: Callable[[], Awaitable[None]]) -> ExecutionPlan:
            return chain_of(effect(swallowing("k", then=last)))

        async def done() -> None:
            pass

        run_id = await interrupt(bench, plan(hold.here), hold)
        run_id = await as_if_killed(bench, run_id)
        bench.plan = plan(done)
        assert (await bench.resume(run_id)).phase is RunPhase.Completed
        assert len(bench.world.calls) == 1

    @pytest.mark.parametrize("swallowed", [False, True])
    async def test_an_effect_whose_answer_cannot_be_recorded_parks_the_run(
        self, bench: Bench, *, swallowed: bool
    ) -> None:
        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            return {"token": CANARY}

        bench.world.answer = answer
        made = effect(swallowing("k") if swallowed else call_out)
        result = await bench.start(chain_of(made, writes(never=1)))
        assert result.phase is RunPhase.Running
        names = await bench.names(result.run_id)
        assert names[-5:] == [
            "StateEntered",
            EVENT_IO_INTENT,
            EVENT_IO_REFUSED,
            EVENT_EFFECT_UNKNOWN,
            EVENT_DRIVER_STOPPED,
        ]
        assert CANARY not in str(await bench.events(result.run_id))
        assert (await bench.resume(result.run_id)).phase is RunPhase.Running
        assert (await bench.history(result.run_id)).parked

    async def test_an_effect_with_a_key_parks_again_when_it_is_refused_again(
        self, bench: Bench
    ) -> None:
        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            return {"token": CANARY}

        bench.world.answer = answer
        result = await bench.start(chain_of(effect(call_out, "i")))
        assert (await bench.history(result.run_id)).parked
        assert (await bench.resume(result.run_id)).phase is RunPhase.Running
        assert (await bench.history(result.run_id)).parked

    async def test_a_read_whose_answer_cannot_be_recorded_fails_for_good(
        self, bench: Bench
    ) -> None:
        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            return {"token": CANARY}

        bench.world.answer = answer
        result = await bench.start(chain_of(reads(call_out)), config(max_attempts=3))
        assert result.phase is RunPhase.Failed
        assert len(bench.world.calls) == 1
        assert EVENT_IO_REFUSED in await bench.names(result.run_id)

    # Replay

    async def test_a_replay_ends_like_the_run_it_replays_without_a_transport(
        self, store: Store
    ) -> None:
        flaky: list[int] = []

        async def busy(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            answer = await io.call(ask({"b": 1, "a": 2}))
            ctx.write(ContextKey("keys"), list(answer.response))
            ctx.write(ContextKey("now"), await io.now_millis())
            ctx.write(ContextKey("random"), (await io.random_bytes(4)).hex())
            await io.record_value(FactKey("v"), [1])
            if not flaky:
                flaky.append(1)
                raise failure()

        plan = chain_of(writes(a=1), reads(busy), effect(call_out))
        live = Bench(store)
        recorded = await live.start(plan, config(max_attempts=2))
        assert recorded.phase is RunPhase.Completed
        replay = Bench(store)
        run_config = config(io_mode=IoMode.Replay, replay_of=recorded.run_id, max_attempts=2)
        again = await replay.start(plan, run_config)
        assert again.phase is RunPhase.Completed
        assert again.run_id != recorded.run_id
        assert again.final_snapshot_id == recorded.final_snapshot_id
        assert replay.world.made == 0
        assert await replay.fact_map(again.run_id) == {}

    async def test_a_replay_of_another_question_fails_the_state(self, bench: Bench) -> None:
        recorded = await bench.start(chain_of(reads(call_out)))

        async def ask_another(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await io.call(ask("something else"))

        run_config = config(io_mode=IoMode.Replay, replay_of=recorded.run_id)
        again = await bench.start(chain_of(reads(ask_another)), run_config)
        assert again.phase is RunPhase.Failed
        failed = (await bench.history(again.run_id)).failure
        assert failed is not None
        assert failed.info.code == "missing_fact_key"

    async def test_a_replay_of_a_run_that_is_not_there_is_refused_and_nothing_is_stored(
        self, bench: Bench
    ) -> None:
        run_config = config(io_mode=IoMode.Replay, replay_of=RunId.random())
        assert await code_of(bench.start(chain_of(state()), run_config)) == "run_not_found"
        assert await bench.store.list_runs() == []
