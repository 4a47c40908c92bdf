"""How states end that do not end by themselves, for every store: nothing is lost, nothing is said
that is not so.

Where handlers meet deadlines, cancellations, failing siblings and people that resolve effects.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import BackoffPolicy, Duration, Fixed, OnStateFailure, RunConfig
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.errors import IoFailure, TransportFailure
from mfm_ops.machine.events import (
    EVENT_CANCEL_REQUESTED,
    EVENT_DEADLINE_EXCEEDED,
    EVENT_DRIVER,
    EVENT_EFFECT_UNKNOWN,
    EventEnvelope,
    RunStatus,
)
from mfm_ops.machine.ids import RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.control import Requester, resolve_effect
from mfm_ops.runtime.history import StateStatus
from mfm_ops.runtime.records import Resolution
from tests.contracts.clock import LONG_MS, Clock
from tests.contracts.engine_fork_suite import asking, parked
from tests.contracts.engine_parallel_suite import parallel
from tests.support import (
    Bench,
    FaultyStore,
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
    sid,
    state,
    unordered,
)

ASKS = Requester("somebody@host", "a test", lambda: 7)
WANTS_CANCEL: Json = {"who": "somebody", "why": "a test"}


def run_config(mode: str, **changes: object) -> RunConfig:
    base = config().model_copy(update=changes)
    return parallel(4, base) if mode == "parallel" else base


def converting(entered: anyio.Event) -> Handler:
    """Makes a failure of its own out of whatever interrupts it."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        entered.set()
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001 - that is what the tests are about
            raise failure() from None

    return handle


async def awaits_a_cancelled_task(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    task = asyncio.ensure_future(anyio.sleep_forever())
    await asyncio.sleep(0)
    task.cancel()
    await task


class Panic(BaseException):
    """As extension modules in Rust raise it: no `Exception`."""


def raises(error: BaseException) -> Handler:
    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        raise error

    return handle


MODES = pytest.mark.parametrize("mode", ["sequential", "parallel"])


class EngineStopsSuite:
    """One rule a test; `store` and `bench` are the subclass's fixtures."""

    @MODES
    @pytest.mark.parametrize(
        ("handler", "raised"),
        [
            (awaits_a_cancelled_task, "CancelledError"),
            (raises(SystemExit(0)), "SystemExit"),
            (raises(GeneratorExit()), "GeneratorExit"),
            (raises(Panic()), "Panic"),
        ],
    )
    async def test_what_a_handler_does_to_itself_fails_its_state_and_nothing_else(
        self, bench: Bench, mode: str, handler: Handler, raised: str
    ) -> None:
        finishing = run_config(mode, on_state_failure=OnStateFailure.FinishRunning)
        result = await bench.start(unordered(other=state(), own=state(handler)), finishing)
        history = await bench.history(result.run_id)
        assert history.status is RunStatus.Failed
        assert history.states[sid("other")].status is StateStatus.completed
        error = history.states[sid("own")].error
        assert error is not None
        assert (error.info.code, error.info.details) == ("state_panicked", {"exception": raised})

    @MODES
    async def test_a_handler_cannot_turn_a_cancellation_into_a_failure(
        self, bench: Bench, mode: str
    ) -> None:
        entered, run_id = anyio.Event(), RunId.random()
        plan = chain_of(state(converting(entered)), state())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: bench.start(plan, run_config(mode), run_id=run_id))
            await entered.wait()
            await bench.say(run_id, EVENT_CANCEL_REQUESTED, WANTS_CANCEL)
        history = await bench.history(run_id)
        assert history.status is RunStatus.Cancelled
        error = history.states[sid("s0")].error
        assert error is not None
        assert error.info.code == "run_cancelled"

    @MODES
    @pytest.mark.parametrize("max_attempts", [1, 2])
    async def test_a_handler_cannot_turn_an_interruption_into_a_failure(
        self, bench: Bench, mode: str, max_attempts: int
    ) -> None:
        entered, run_id = anyio.Event(), RunId.random()
        base = config(max_attempts=max_attempts)
        plan = chain_of(state(converting(entered)), state())
        async with anyio.create_task_group() as tasks:
            chosen = parallel(4, base) if mode == "parallel" else base
            tasks.start_soon(lambda: bench.start(plan, chosen, run_id=run_id))
            await entered.wait()
            tasks.cancel_scope.cancel()
        history = await bench.history(run_id)
        assert history.status is None
        assert all(each.status is StateStatus.running for each in history.states.values())

    @MODES
    async def test_a_handler_cannot_turn_asyncios_own_cancellation_into_a_failure(
        self, bench: Bench, mode: str
    ) -> None:
        entered, run_id = anyio.Event(), RunId.random()
        plan = chain_of(state(converting(entered)), state())
        drive = asyncio.ensure_future(bench.start(plan, run_config(mode), run_id=run_id))
        await entered.wait()
        drive.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drive
        history = await bench.history(run_id)
        assert history.status is None
        assert all(each.status is StateStatus.running for each in history.states.values())

    @MODES
    async def test_a_handler_that_cancels_its_own_task_interrupts_the_run(
        self, bench: Bench, mode: str
    ) -> None:
        async def cancel_itself(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep_forever()

        run_id = RunId.random()
        plan = unordered(own=state(cancel_itself))
        drive = asyncio.ensure_future(bench.start(plan, run_config(mode), run_id=run_id))
        with pytest.raises(asyncio.CancelledError):
            await drive
        assert (await bench.history(run_id)).status is None

    @MODES
    async def test_a_handler_that_swallows_a_time_limit_of_its_own_goes_on(
        self, bench: Bench, mode: str
    ) -> None:
        async def go_on(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            with anyio.move_on_after(0), contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep_forever()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await anyio.sleep_forever()

        async def fail(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await go_on(ctx, io, rec)
            raise failure()

        plan = chain_of(state(go_on), state(fail))
        result = await bench.start(plan, run_config(mode))
        assert result.phase is RunPhase.Failed
        error = (await bench.history(result.run_id)).states[sid("s1")].error
        assert error is not None
        assert error.info.code == failure().info.code

    @MODES
    async def test_a_handler_that_swallows_its_deadline_does_not_complete(
        self, bench: Bench, clock: Clock, mode: str
    ) -> None:
        async def swallow(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            clock.run_on()
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep_forever()

        late = run_config(mode, state_deadline_ms=LONG_MS)
        result = await bench.start(chain_of(state(swallow)), late)
        assert result.phase is RunPhase.Failed
        error = (await bench.history(result.run_id)).states[sid("s0")].error
        assert error is not None
        assert error.info.code == "state_deadline_exceeded"

    @MODES
    async def test_no_state_begins_once_a_request_to_cancel_was_met(
        self, bench: Bench, mode: str
    ) -> None:
        run_id = RunId.random()

        async def ask_for_the_end(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await bench.say(run_id, EVENT_CANCEL_REQUESTED, WANTS_CANCEL)

        plan = chain_of(state(ask_for_the_end), state(), state())
        result = await bench.start(plan, run_config(mode), run_id=run_id)
        assert result.phase is RunPhase.Cancelled
        assert list((await bench.history(run_id)).states) == [sid("s0")]

    async def test_an_effect_whose_answer_is_recorded_is_not_said_to_be_unknown(
        self, store: Store
    ) -> None:
        run_id = RunId.random()

        async def answer(call: IoCall, env: LiveIoEnv) -> int:
            await bench.say(run_id, EVENT_CANCEL_REQUESTED, WANTS_CANCEL)
            return 1

        bench = Bench(store, world=ScriptedFactory(answer))
        result = await bench.start(chain_of(effect(asking("pay")), state()), run_id=run_id)
        assert result.phase is RunPhase.Cancelled
        assert len(await bench.fact_map(run_id)) == 1
        assert EVENT_EFFECT_UNKNOWN not in await bench.names(run_id)

    async def test_an_effect_of_unknown_outcome_is_told_once_though_a_cancellation_follows(
        self, store: Store
    ) -> None:
        run_id = RunId.random()

        async def answer(call: IoCall, env: LiveIoEnv) -> float:
            return 1.5

        async def slow(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            while EVENT_EFFECT_UNKNOWN not in await bench.names(run_id):
                await checkpoint()
            await bench.say(run_id, EVENT_CANCEL_REQUESTED, WANTS_CANCEL)
            await anyio.sleep_forever()

        bench = Bench(store, world=ScriptedFactory(answer))
        plan = unordered(pay=effect(asking("pay")), slow=state(slow))
        result = await bench.start(plan, parallel(4), run_id=run_id)
        assert result.phase is RunPhase.Cancelled
        assert (await bench.names(run_id)).count(EVENT_EFFECT_UNKNOWN) == 1

    @MODES
    async def test_a_run_past_its_deadline_fails_though_its_last_handler_ended_well(
        self, store: Store, clock: Clock, mode: str
    ) -> None:
        async def answer(call: IoCall, env: LiveIoEnv) -> int:
            clock.run_on()
            await clock.stopped["run_deadline_exceeded"].wait()
            return 1

        async def pay(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await io.call(ask("pay"))

        bench = Bench(store, world=ScriptedFactory(answer))
        plan = plan_of({"pay": effect(pay), "one": state(), "two": state()}, "pay>one", "pay>two")
        result = await bench.start(plan, run_config(mode, run_deadline_ms=LONG_MS))
        assert result.phase is RunPhase.Failed
        history = await bench.history(result.run_id)
        assert list(history.states) == [sid("pay")]
        assert history.states[sid("pay")].status is StateStatus.completed
        assert EVENT_DEADLINE_EXCEEDED in await bench.names(result.run_id)

    async def test_a_state_past_its_deadline_is_not_tried_again_once_another_has_failed(
        self, store: Store, clock: Clock
    ) -> None:
        """Its effect in flight ends first, and takes longer than both."""
        begun = anyio.Event()

        async def answer(call: IoCall, env: LiveIoEnv) -> int:
            begun.set()
            await clock.stopped["state_cancelled"].wait()
            return 1

        async def pay(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await io.call(ask("pay"))
            await anyio.sleep_forever()

        async def fail(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            if not clock.stopped["state_deadline_exceeded"].is_set():
                await begun.wait()
                clock.run_on()
                await anyio.sleep_forever()
            raise failure(retryable=False)

        bench = Bench(store, world=ScriptedFactory(answer))
        base = config(max_attempts=5).model_copy(update={"state_deadline_ms": LONG_MS})
        result = await bench.start(unordered(a=effect(pay), z=state(fail)), parallel(4, base))
        history = await bench.history(result.run_id)
        assert history.status is RunStatus.Failed
        assert (history.states[sid("a")].attempts, history.states[sid("z")].attempts) == (1, 2)
        error = history.states[sid("a")].error
        assert error is not None
        assert error.info.code == "state_cancelled"

    async def test_a_backoff_is_waited_for_after_a_deadline_too(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        sleep = anyio.sleep

        async def remembered(delay: float) -> None:
            await sleep(0.001 if delay == 70 else delay)
            if delay == 70:
                waited.append(delay)

        async def hang(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await anyio.sleep_forever()

        monkeypatch.setattr(anyio, "sleep", remembered)
        backoff = BackoffPolicy(Fixed=Fixed(delay=Duration.from_millis(70_000)))
        late = config(max_attempts=3, backoff=backoff).model_copy(update={"state_deadline_ms": 1})
        result = await bench.start(chain_of(state(hang)), late)
        assert result.phase is RunPhase.Failed
        assert waited == [70, 70]

    @pytest.mark.parametrize("how", ["deadline", "an error of its own"])
    @pytest.mark.parametrize(("key", "times"), [(None, 1), ("k", 2)])
    async def test_an_effect_that_failed_is_not_repeated_without_its_key(
        self, store: Store, clock: Clock, how: str, key: str | None, times: int
    ) -> None:
        async def answer(call: IoCall, env: LiveIoEnv) -> None:
            raise TransportFailure(error_info("exec_timeout", "half of it was done"))

        async def pay(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            try:
                await io.call(ask("pay"))
            except IoFailure:
                if how == "deadline":
                    clock.run_on()
                    await anyio.sleep_forever()
                raise failure(retryable=True) from None

        bench = Bench(store, world=ScriptedFactory(answer))
        twice = config(max_attempts=2).model_copy(update={"state_deadline_ms": LONG_MS})
        result = await bench.start(chain_of(effect(pay, key)), twice)
        assert result.phase is RunPhase.Failed
        assert len(bench.world.calls) == times

    @pytest.mark.parametrize(
        ("found", "phase", "calls"),
        [
            (Resolution.completed, RunPhase.Completed, 1),
            (Resolution.failed, RunPhase.Failed, 1),
            (Resolution.retry, RunPhase.Completed, 2),
        ],
    )
    async def test_a_resume_obeys_what_is_resolved_while_it_begins(
        self, store: Store, found: Resolution, phase: RunPhase, calls: int
    ) -> None:
        bench, run_id, made = await parked(store)
        between = FaultyStore(store)

        async def resolve(events: Sequence[EventEnvelope]) -> None:
            if name_of(events[0]) == EVENT_DRIVER:
                between.before_append = None
                await resolve_effect(bench.stores, run_id, sid("s0"), found, ASKS, result="paid")

        between.before_append = resolve
        resuming = Bench(between, world=bench.world, plan=bench.plan)  # type: ignore[arg-type]
        assert (await resuming.resume(run_id)).phase is phase
        assert len(made) == calls
