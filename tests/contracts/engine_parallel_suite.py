"""What the engine does with `FanOutJoin`, for every store: any schedule, one outcome.

Sequential runs are in `engine_suite`, drivers and effects in `engine_control_suite`.
"""

import random
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mfm_ops.machine.canonical import Json, parse_canonical
from mfm_ops.machine.config import (
    BackoffPolicy,
    Duration,
    ExecutionMode,
    Fixed,
    OnStateFailure,
    RunConfig,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, RunResult
from mfm_ops.machine.errors import MfmFailure
from mfm_ops.machine.events import (
    EVENT_DEADLINE_EXCEEDED,
    EVENT_EFFECT_UNKNOWN,
    EVENT_IO_INTENT,
    DomainEvent,
)
from mfm_ops.machine.ids import ContextKey, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.control import Requester, resolve_effect
from mfm_ops.runtime.history import StateStatus
from mfm_ops.runtime.persist import refuse_secrets
from mfm_ops.runtime.records import Resolution
from tests.support import (
    Bench,
    FunctionState,
    Handler,
    ScriptedFactory,
    Store,
    ask,
    config,
    effect,
    failure,
    name_of,
    plan_of,
    reads,
    scripted_sources,
    sid,
    state,
    unordered,
)


def parallel(at_once: int = 8, base: RunConfig | None = None, **changes: Any) -> RunConfig:
    changes["execution_mode"] = ExecutionMode.fan_out_join(at_once)
    return (base or config()).model_copy(update=changes)


class Dice:
    """Delays by a seeded die: each look lets other tasks go first, or not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def __call__(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 2, 5))):
            await checkpoint()


def calling(name: str, dice: Dice) -> Handler:
    """Asks the world, looks at everything that it may see, and writes what it saw."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        await dice()
        answer = (await io.call(ask({"from": name}))).response
        await dice()
        seen = sorted(ctx.dump())
        ctx.write(ContextKey(name), {"answer": answer, "seen": [*seen]})
        ctx.write(ContextKey("shared"), "the same for all")
        await dice()

    return handle


def web(dice: Dice) -> ExecutionPlan:
    """Two diamonds in a row, with a shortcut, a loose end and a lone state."""
    names = ["root", "a", "b", "c", "join", "d", "e", "end", "loose", "lone"]
    states: Mapping[str, FunctionState] = {name: reads(calling(name, dice)) for name in names}
    arrows = ("root>a>join", "root>b>join", "root>c>join", "join>d>end", "join>e>end",
              "a>end", "b>loose")  # fmt: skip
    return plan_of(states, *arrows)


def waves(count: int, width: int, shape: str) -> ExecutionPlan:
    """Waves of pure states: each of one before all of the next, or joined by one, or in lanes."""
    lanes = range(width)
    states = {f"w{wave}_{lane}": state() for wave in range(count) for lane in lanes}
    arrows: list[str] = []
    for wave in range(count - 1):
        if shape == "lanes":
            arrows += [f"w{wave}_{lane}>w{wave + 1}_{lane}" for lane in lanes]
        elif shape == "barriers":
            states[f"b{wave}"] = state()
            arrows += [f"w{wave}_{lane}>b{wave}>w{wave + 1}_{lane}" for lane in lanes]
        else:
            arrows += [f"w{wave}_{one}>w{wave + 1}_{two}" for one in lanes for two in lanes]
    return plan_of(states, *arrows)


async def outcome(bench: Bench, result: RunResult) -> tuple[object, ...]:
    """What must not depend on the schedule."""
    return (
        result.phase,
        result.final_snapshot_id,
        sorted((await bench.fact_map(result.run_id)).items()),
    )


def a_bench(store: Store, **changes: Any) -> Bench:
    return Bench(store, sources=scripted_sources(), **changes)


class EngineParallelSuite:
    """One rule a test; `store` is the subclass's fixture."""

    async def test_any_schedule_ends_as_the_sequential_run_does(self, store: Store) -> None:
        bench = a_bench(store)
        expected = await outcome(bench, await bench.start(web(Dice(0)), config()))
        for seed in range(self.schedules):
            dice = Dice(seed)

            async def answer(call: IoCall, env: LiveIoEnv, dice: Dice = dice) -> Json:
                await dice()
                return call.request  # type: ignore[no-any-return]

            bench = a_bench(store, world=ScriptedFactory(answer))
            at_once = random.Random(seed).randint(1, 10)
            result = await bench.start(web(dice), parallel(at_once))
            assert await outcome(bench, result) == expected, f"seed {seed}"

    schedules = 25

    async def test_every_schedule_finds_the_same_conflict(self, store: Store) -> None:
        errors = set()
        for seed in range(20):
            dice = Dice(seed)

            def late(value: int, dice: Dice = dice) -> FunctionState:
                async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
                    await dice()
                    ctx.write(ContextKey("x"), value)

                return state(handle)

            bench = a_bench(store)
            plan = plan_of({"a": late(1), "b": late(2), "c": late(1), "join": state()},
                           "a>join", "b>join", "c>join")  # fmt: skip
            result = await bench.start(plan, parallel() if seed else config())
            assert result.phase is RunPhase.Failed
            found = (await bench.history(result.run_id)).failure
            assert found is not None
            errors.add(found.model_dump_json())
        assert len(errors) == 1
        assert "context_write_conflict" in errors.pop()

    async def test_no_more_states_run_at_once_than_the_run_config_allows(
        self, store: Store
    ) -> None:
        now, most = [0], [0]

        async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            now[0] += 1
            most[0] = max(most[0], now[0])
            for _ in range(5):
                await checkpoint()
            now[0] -= 1

        names = {f"s{index}": state(handle) for index in range(20)}
        plan = plan_of(names, "s0>s1")
        for at_once, expected in ((3, 3), (0, 1), (100, 19)):
            most[0] = 0
            result = await a_bench(store).start(plan, parallel(at_once))
            assert result.phase is RunPhase.Completed
            assert most[0] == expected

    @pytest.mark.parametrize("shape", ["all_to_all", "barriers", "lanes"])
    async def test_a_thousand_pure_states_in_waves_share_their_commits(
        self, store: Store, shape: str
    ) -> None:
        plan = waves(20, 50, shape)
        before = store.commits
        result = await a_bench(store).start(plan, parallel(50))
        assert result.phase is RunPhase.Completed
        assert store.commits - before <= 100

    async def test_domain_events_say_whose_they_are(self, store: Store) -> None:
        bench = a_bench(store)
        plan = unordered(a=reads(calling("a", Dice(1))), b=reads(calling("b", Dice(2))))
        result = await bench.start(plan, parallel())
        facts = [e for e in await bench.events(result.run_id) if name_of(e) == "fact_recorded"]
        assert {(e.state_id, e.attempt) for e in facts} == {(sid("a"), 0), (sid("b"), 0)}

    async def test_a_state_that_fails_leaves_no_other_running(self, store: Store) -> None:
        stopped: list[str] = []
        began = anyio.Event()

        async def wait(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            began.set()
            try:
                await anyio.sleep_forever()
            finally:
                stopped.append("wait")

        async def fail(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await began.wait()
            await failing(ctx, io, rec)

        bench = a_bench(store)
        plan = plan_of({"bad": state(fail), "slow": state(wait), "after": state()}, "slow>after")
        result = await bench.start(plan, parallel(base=config(max_attempts=3)))
        assert result.phase is RunPhase.Failed
        assert stopped == ["wait"]
        history = await bench.history(result.run_id)
        assert history.failure is not None
        assert history.failure.info.code == "broken"
        slow = history.states[sid("slow")]
        assert slow.error is not None
        assert (slow.error.info.code, slow.attempts) == ("state_cancelled", 1)
        assert slow.error.info.details == {"failed": "demo.main.bad"}
        assert sid("after") not in history.states

    async def test_a_waiting_retry_is_given_up_when_another_state_fails(self, store: Store) -> None:
        async def flaky(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            raise failure()

        async def fail_late(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            for _ in range(20):
                await checkpoint()
            await failing(ctx, io, rec)

        long = BackoffPolicy(Fixed=Fixed(delay=Duration.from_millis(3_600_000)))
        plan = unordered(flaky=state(flaky), bad=state(fail_late))
        bench = a_bench(store)
        result = await bench.start(plan, parallel(base=config(max_attempts=3, backoff=long)))
        assert result.phase is RunPhase.Failed
        assert (await bench.history(result.run_id)).states[sid("flaky")].attempts == 1

    async def test_running_states_may_be_left_to_finish(self, store: Store) -> None:
        release = anyio.Event()

        async def slow(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await release.wait()
            ctx.write(ContextKey("slow"), "done")

        async def bad(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            release.set()
            await failing(ctx, io, rec)

        bench = a_bench(store)
        plan = plan_of({"slow": state(slow), "bad": state(bad), "after": state()}, "slow>after")
        policy = OnStateFailure.FinishRunning
        result = await bench.start(plan, parallel(on_state_failure=policy))
        assert result.phase is RunPhase.Failed
        history = await bench.history(result.run_id)
        assert history.states[sid("slow")].status is StateStatus.completed
        assert sid("after") not in history.states
        assert result.final_snapshot_id is not None
        data = await bench.store.get(result.final_snapshot_id)
        assert parse_canonical(data) == {"slow": "done"}

    async def test_an_effect_in_flight_ends_before_its_state_is_stopped(self, store: Store) -> None:
        began = anyio.Event()

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            began.set()
            for _ in range(50):
                await checkpoint()
            return "done"

        async def apply(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await io.call(ask("pay", "pay"))
            await anyio.sleep_forever()

        async def bad(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await began.wait()
            await failing(ctx, io, rec)

        bench = a_bench(store, world=ScriptedFactory(answer))
        plan = unordered(pay=effect(apply), bad=state(bad))
        result = await bench.start(plan, parallel())
        assert result.phase is RunPhase.Failed
        assert list(await bench.fact_map(result.run_id)) == ["pay"]
        assert EVENT_EFFECT_UNKNOWN not in await bench.names(result.run_id)

    async def test_resume_goes_on_with_every_open_attempt(self, store: Store) -> None:
        bench = a_bench(store)
        plan = plan_of({"a": reads(calling("a", Dice(1))), "b": reads(calling("b", Dice(2))),
                        "join": state()}, "a>join", "b>join")  # fmt: skip
        whole = await bench.start(plan, parallel())
        hold = [True]
        asked: list[str] = []
        both = anyio.Event()

        async def wait(name: str) -> None:
            asked.append(name)
            if len(asked) == 2:
                both.set()
            if hold[0]:
                await anyio.sleep_forever()

        async def waiting(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await calling("a", Dice(1))(ctx, io, rec)
            await wait("a")

        async def waiting_too(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await calling("b", Dice(1))(ctx, io, rec)
            await wait("b")

        slow = plan_of({"a": reads(waiting), "b": reads(waiting_too), "join": state()},
                       "a>join", "b>join")  # fmt: skip
        bench = a_bench(store)
        run_id = RunId.random()
        async with anyio.create_task_group() as tasks:

            async def drive() -> None:
                await bench.start(slow, parallel(), run_id=run_id)

            tasks.start_soon(drive)
            await both.wait()
            tasks.cancel_scope.cancel()
        history = await bench.history(run_id)
        assert {r.status for r in history.states.values()} == {StateStatus.running}
        assert len(bench.world.calls) == 2
        hold[0] = False
        resumed = await bench.resume(run_id)
        assert resumed.final_snapshot_id == whole.final_snapshot_id
        assert len(bench.world.calls) == 2
        after = await bench.history(run_id)
        assert {str(i): (r.attempts, r.charged) for i, r in after.states.items()} == {
            "demo.main.a": (2, 1),
            "demo.main.b": (2, 1),
            "demo.main.join": (1, 1),
        }

    async def test_an_effect_in_doubt_parks_the_run_once_the_others_have_ended(
        self, store: Store
    ) -> None:
        parked = anyio.Event()

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            return 1.5  # type: ignore[return-value]

        async def apply(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            parked.set()
            await io.call(ask("pay", "pay"))

        async def slow(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await parked.wait()
            while EVENT_EFFECT_UNKNOWN not in await bench.names(run_id):
                await checkpoint()
            for _ in range(50):
                await checkpoint()

        run_id = RunId.random()
        bench = a_bench(store, world=ScriptedFactory(answer))
        plan = plan_of({"pay": effect(apply), "slow": state(slow), "after": state()}, "slow>after")
        result = await bench.start(plan, parallel(), run_id=run_id)
        assert result.phase is RunPhase.Running
        history = await bench.history(result.run_id)
        assert history.parked
        assert [str(i.key) for i in history.in_doubt(sid("pay"))] == ["pay"]
        assert history.states[sid("slow")].status is StateStatus.completed
        assert sid("after") not in history.states
        # Nothing runs again until somebody says what became of the effect.
        assert (await bench.resume(result.run_id)).phase is RunPhase.Running
        assert len(bench.world.calls) == 1

    @pytest.mark.parametrize(
        ("resolution", "code", "message"),
        [
            (Resolution.failed, "effect_failed", "somebody found that the effect failed"),
            (Resolution.retry, "state_cancelled", "the run failed in another state"),
        ],
    )
    async def test_an_attempt_that_was_parked_ends_with_its_run_and_says_truly_why(
        self, store: Store, resolution: Resolution, code: str, message: str
    ) -> None:
        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            return 1.5  # type: ignore[return-value]

        async def apply(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await io.call(ask("pay", "pay"))

        async def fail_later(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            while EVENT_EFFECT_UNKNOWN not in await bench.names(run_id):
                await checkpoint()
            raise failure()

        run_id = RunId.random()
        bench = a_bench(store, world=ScriptedFactory(answer))
        plan = unordered(pay=effect(apply), other=state(fail_later))
        run_config = parallel(base=config(max_attempts=1))
        parked = await bench.start(plan, run_config, run_id=run_id)
        assert parked.phase is RunPhase.Running
        asks = Requester("somebody", "", lambda: 1)
        await resolve_effect(bench.stores, run_id, sid("pay"), resolution, asks)
        assert (await bench.resume(run_id)).phase is RunPhase.Failed
        closed = (await bench.history(run_id)).states[sid("pay")]
        assert closed.status is StateStatus.failed
        assert closed.error is not None
        assert (closed.error.info.code, closed.error.info.message) == (code, message)

    # Deadlines, in either mode

    @pytest.mark.parametrize("mode", ["Sequential", "FanOutJoin"])
    async def test_an_attempt_past_its_deadline_is_tried_again(
        self, store: Store, mode: str
    ) -> None:
        tries: list[int] = []

        async def slow_once(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            tries.append(1)
            if len(tries) == 1:
                await anyio.sleep_forever()

        run_config = config(max_attempts=2).model_copy(update={"state_deadline_ms": 1})
        if mode == "FanOutJoin":
            run_config = parallel(base=run_config)
        bench = a_bench(store)
        result = await bench.start(unordered(s=state(slow_once)), run_config)
        assert result.phase is RunPhase.Completed
        assert len(tries) == 2

    @pytest.mark.parametrize("mode", ["Sequential", "FanOutJoin"])
    async def test_a_run_past_its_deadline_fails_and_says_so(self, store: Store, mode: str) -> None:
        async def slow(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await anyio.sleep_forever()

        run_config = config(max_attempts=2).model_copy(update={"run_deadline_ms": 1})
        if mode == "FanOutJoin":
            run_config = parallel(base=run_config)
        bench = a_bench(store)
        result = await bench.start(unordered(s=state(slow)), run_config)
        assert result.phase is RunPhase.Failed
        assert (await bench.names(result.run_id))[-2:] == [EVENT_DEADLINE_EXCEEDED, "RunCompleted"]
        history = await bench.history(result.run_id)
        assert history.failure is not None
        assert history.failure.info.code == "run_deadline_exceeded"
        assert history.failure.info.details == {"deadline_ms": 1}

    async def test_what_outlives_its_handler_can_record_nothing(self, store: Store) -> None:
        refused: list[str] = []

        async def leak(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            async def later() -> None:
                await go.wait()
                for each in (io.call(ask("late")), io.now_millis(), io.random_bytes(1)):
                    try:
                        await each
                    except Exception as error:  # noqa: BLE001 - whatever refuses it
                        refused.append(code_of(error))
                done.set()

            tasks.start_soon(later)

        go, done = anyio.Event(), anyio.Event()
        bench = a_bench(store)

        async def after(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            go.set()
            await done.wait()

        async with anyio.create_task_group() as tasks:
            result = await bench.start(plan_of({"s": reads(leak), "t": state(after)}, "s>t"))
        assert result.phase is RunPhase.Completed
        assert refused == ["io_attempt_over"] * 3
        assert await bench.fact_map(result.run_id) == {}

    async def test_an_effect_that_outlives_its_handler_does_not_begin(self, store: Store) -> None:
        refused: list[str] = []

        async def leak(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            async def later() -> None:
                try:
                    # So large that it is scanned while the handler returns.
                    await io.call(ask("pay " * 50_000))
                except Exception as error:  # noqa: BLE001 - whatever refuses it
                    refused.append(code_of(error))

            tasks.start_soon(later)
            await checkpoint()

        bench = a_bench(store)
        async with anyio.create_task_group() as tasks:
            result = await bench.start(unordered(s=effect(leak)))
        assert result.phase is RunPhase.Completed
        assert refused == ["io_attempt_over"]
        assert bench.world.calls == []
        assert EVENT_IO_INTENT not in await bench.names(result.run_id)

    async def test_what_is_large_is_scanned_beside_the_event_loop(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aside: list[Any] = []
        run_sync = anyio.to_thread.run_sync

        async def seen(work: Any, *arguments: Any) -> Any:
            aside.append(work)
            return await run_sync(work, *arguments)

        monkeypatch.setattr("mfm_ops.runtime.persist.anyio.to_thread.run_sync", seen)
        large = "zzz " * 20_000

        async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ContextKey("large"), large)
            await rec.emit(DomainEvent(name="large", payload=large))
            await io.call(ask(large))

        assert (await a_bench(store).start(unordered(s=reads(handle)))).phase is RunPhase.Completed
        # The value, the event, the request and the answer.
        assert aside.count(refuse_secrets) == 4


def code_of(error: Exception) -> str:
    return str(error.info.code) if isinstance(error, MfmFailure) else repr(error)


async def failing(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    raise failure("broken", retryable=False)
