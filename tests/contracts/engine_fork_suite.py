"""What others than a run's driver do to it, for every store: cancel, resolve, fork.

Drivers among themselves are in `engine_control_suite`.
"""

import contextlib
from collections.abc import Mapping

import anyio
import anyio.lowlevel
import pytest

from mfm_ops.machine.canonical import Json, parse_canonical
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.errors import MfmFailure, RunFailure
from mfm_ops.machine.events import (
    EVENT_CANCEL_REQUESTED,
    EVENT_EFFECT_RESOLVED,
    EVENT_EFFECT_UNKNOWN,
    EVENT_FORKED_FROM,
    RunStatus,
)
from mfm_ops.machine.ids import ContextKey, FactKey, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.control import Requester, close_cancelled, request_cancel, resolve_effect
from mfm_ops.runtime.fork import ForkRun, fork_run
from mfm_ops.runtime.records import Resolution
from tests.support import (
    CANARY,
    Bench,
    Handler,
    ScriptedFactory,
    Store,
    ask,
    chain_of,
    config,
    effect,
    failure,
    manifest_of,
    name_of,
    plan_of,
    reads,
    scripted_sources,
    sid,
    state,
    writes,
)

ASKS = Requester("somebody@host", "a test", lambda: 7)


def asking(request: Json, key: str | None = None, then: Handler | None = None) -> Handler:
    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        answer = await io.call(ask(request, key))
        ctx.write(ContextKey("answer"), answer.response)
        if then is not None:
            await then(ctx, io, rec)

    return handle


async def code_of(work: object) -> str:
    with pytest.raises(MfmFailure) as refused:
        await work  # type: ignore[misc]
    return str(refused.value.info.code)


async def values(bench: Bench, run_id: RunId) -> dict[str, Json]:
    history = await bench.history(run_id)
    assert history.final_snapshot_id is not None
    value = parse_canonical(await bench.store.get(history.final_snapshot_id))
    assert isinstance(value, dict)
    return value


async def parked(store: Store, then: Handler | None = None) -> tuple[Bench, RunId, list[IoCall]]:
    """A run whose effect `pay` happened, and whose answer could not be recorded."""
    answers: list[Json] = [1.5, "paid again"]  # type: ignore[list-item]

    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        return answers.pop(0)

    bench = Bench(store, world=ScriptedFactory(answer), sources=scripted_sources())
    result = await bench.start(chain_of(effect(asking("pay", "pay", then)), writes(after=1)))
    assert result.phase is RunPhase.Running
    return bench, result.run_id, bench.world.calls


class EngineForkSuite:
    """One rule a test; `store` and `bench` are the subclass's fixtures."""

    # Cancelling

    async def test_a_cancelled_call_ends_though_its_driver_had_nothing_to_append(
        self, store: Store
    ) -> None:
        began, stopped = anyio.Event(), []
        run_id = RunId.random()

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            began.set()
            try:
                await anyio.sleep_forever()
            finally:
                stopped.append("program")
            return None

        bench = Bench(store, world=ScriptedFactory(answer))
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await began.wait()
                await request_cancel(bench.stores, run_id, ASKS)

            tasks.start_soon(cancel)
            result = await bench.start(
                chain_of(writes(a=1), reads(asking("?")), state()), run_id=run_id
            )
        assert result.phase is RunPhase.Cancelled
        assert stopped == ["program"]
        assert await values(bench, run_id) == {"a": 1}
        history = await bench.history(run_id)
        error = history.states[sid("s1")].error
        assert error is not None
        assert error.info.code == "run_cancelled"

    async def test_cancelling_an_effect_in_flight_says_that_its_outcome_is_unknown(
        self, store: Store
    ) -> None:
        began, run_id = anyio.Event(), RunId.random()

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            began.set()
            await anyio.sleep_forever()
            return None

        bench = Bench(store, world=ScriptedFactory(answer))
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await began.wait()
                await request_cancel(bench.stores, run_id, ASKS)

            tasks.start_soon(cancel)
            result = await bench.start(chain_of(effect(asking("pay", "pay"))), run_id=run_id)
        assert result.phase is RunPhase.Cancelled
        assert (await bench.names(run_id))[-3:] == [
            EVENT_EFFECT_UNKNOWN,
            "StateFailed",
            "RunCompleted",
        ]
        assert list((await bench.history(run_id)).unknown_effects) == [FactKey("pay")]

    async def test_a_run_without_a_driver_is_cancelled_by_resuming_it(self, store: Store) -> None:
        bench, run_id, calls = await parked(store)
        await request_cancel(bench.stores, run_id, ASKS)
        assert (await bench.resume(run_id)).phase is RunPhase.Cancelled
        assert len(calls) == 1

    async def test_a_run_whose_plan_is_gone_can_be_closed(self, store: Store) -> None:
        bench, run_id, _ = await parked(store)
        await request_cancel(bench.stores, run_id, ASKS)
        history = await close_cancelled(bench.stores, run_id, ASKS)
        assert history.status is RunStatus.Cancelled
        assert (await bench.resume(run_id)).phase is RunPhase.Cancelled
        names = await bench.names(run_id)
        assert names.count(EVENT_EFFECT_UNKNOWN) == 1
        assert names[-2:] == ["StateFailed", "RunCompleted"]

    async def test_cancelling_twice_asks_once(self, store: Store) -> None:
        bench, run_id, _ = await parked(store)
        for _ in range(2):
            await request_cancel(bench.stores, run_id, ASKS)
        assert (await bench.names(run_id)).count(EVENT_CANCEL_REQUESTED) == 1
        await bench.resume(run_id)
        assert (await request_cancel(bench.stores, run_id, ASKS)).status is RunStatus.Cancelled

    async def test_what_is_over_is_neither_cancelled_nor_resolved(self, bench: Bench) -> None:
        run_id = (await bench.start(chain_of(state()))).run_id
        before = await bench.store.head_seq(run_id)
        assert await code_of(request_cancel(bench.stores, run_id, ASKS)) == "run_over"
        resolving = resolve_effect(bench.stores, run_id, sid("s0"), Resolution.retry, ASKS)
        assert await code_of(resolving) == "run_over"
        assert await bench.store.head_seq(run_id) == before

    async def test_a_reason_that_holds_a_secret_is_not_stored(self, store: Store) -> None:
        bench, run_id, _ = await parked(store)
        before = await bench.store.head_seq(run_id)
        asks = ASKS._replace(why=CANARY)
        assert await code_of(request_cancel(bench.stores, run_id, asks)) == "secrets_detected"
        assert await bench.store.head_seq(run_id) == before

    # Resolving

    async def test_a_resolved_effect_is_a_fact_and_is_not_made_again(self, store: Store) -> None:
        bench, run_id, calls = await parked(store)
        await resolve_effect(
            bench.stores, run_id, sid("s0"), Resolution.completed, ASKS, result={"paid": 1}
        )
        assert (await bench.resume(run_id)).phase is RunPhase.Completed
        assert await values(bench, run_id) == {"answer": {"paid": 1}, "after": 1}
        assert len(calls) == 1
        said = [e for e in await bench.events(run_id) if name_of(e) == EVENT_EFFECT_RESOLVED]
        payload = said[0].event.Domain.payload
        assert isinstance(payload, dict)
        assert (payload["as"], payload["who"], payload["why"]) == (
            "completed", "somebody@host", "a test",
        )  # fmt: skip
        fact = (await bench.history(run_id)).facts[FactKey("pay")]
        assert isinstance(fact.meta, dict)
        assert (fact.meta["source"], fact.meta["transport"]) == ("resolved", "test")

    async def test_an_effect_that_failed_fails_its_state(self, store: Store) -> None:
        bench, run_id, calls = await parked(store)
        await resolve_effect(bench.stores, run_id, sid("s0"), Resolution.failed, ASKS)
        assert (await bench.resume(run_id)).phase is RunPhase.Failed
        failed = (await bench.history(run_id)).failure
        assert failed is not None
        assert (failed.info.code, failed.info.details) == ("effect_failed", {"key": "pay"})
        assert len(calls) == 1

    async def test_an_effect_that_did_not_happen_is_made_again(self, store: Store) -> None:
        bench, run_id, calls = await parked(store)
        await resolve_effect(bench.stores, run_id, sid("s0"), Resolution.retry, ASKS)
        assert (await bench.resume(run_id)).phase is RunPhase.Completed
        assert (await values(bench, run_id))["answer"] == "paid again"
        assert len(calls) == 2

    async def test_only_an_effect_in_doubt_is_resolved_and_only_once(self, store: Store) -> None:
        bench, run_id, _ = await parked(store)

        async def resolve(name: str, key: str | None = None) -> None:
            await resolve_effect(
                bench.stores,
                run_id,
                sid(name),
                Resolution.retry,
                ASKS,
                key=None if key is None else FactKey(key),
            )

        assert await code_of(resolve("s1")) == "effect_not_unknown"
        assert await code_of(resolve("s0", "another")) == "effect_not_unknown"
        await resolve("s0", "pay")
        assert await code_of(resolve("s0")) == "effect_not_unknown"

    async def test_of_several_effects_one_is_named_by_its_key(self, store: Store) -> None:
        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            await anyio.lowlevel.checkpoint()
            return 1.5  # type: ignore[return-value]

        async def both(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            for key in ("one", "two"):
                # A handler that swallows what it should not.
                with contextlib.suppress(Exception):
                    await io.call(ask(key, key))

        bench = Bench(store, world=ScriptedFactory(answer))
        run_id = (await bench.start(chain_of(effect(both)))).run_id
        assert [str(k) for k in (await bench.history(run_id)).unknown_effects] == ["one", "two"]
        resolve = resolve_effect(bench.stores, run_id, sid("s0"), Resolution.failed, ASKS)
        assert await code_of(resolve) == "effect_not_unknown"
        for key in ("one", "two"):
            await resolve_effect(
                bench.stores, run_id, sid("s0"), Resolution.completed, ASKS,
                result=None, key=FactKey(key),
            )  # fmt: skip
        assert (await bench.resume(run_id)).phase is RunPhase.Completed

    async def test_while_a_driver_lives_nothing_is_resolved(self, store: Store) -> None:
        began, run_id = anyio.Event(), RunId.random()

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            began.set()
            await anyio.sleep_forever()
            return None

        bench = Bench(store, world=ScriptedFactory(answer))
        async with anyio.create_task_group() as tasks:

            async def drive() -> None:
                await bench.start(chain_of(effect(asking("pay"))), run_id=run_id)

            tasks.start_soon(drive)
            await began.wait()
            resolve = resolve_effect(bench.stores, run_id, sid("s0"), Resolution.retry, ASKS)
            assert await code_of(resolve) == "run_busy"
            tasks.cancel_scope.cancel()

    # Forking

    async def test_a_fork_keeps_what_came_before_and_does_the_rest_again(
        self, bench: Bench
    ) -> None:
        fails = [True]

        async def flaky(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            if fails[0]:
                raise failure("down", retryable=False)

        states = {
            "fetch": reads(ambient),
            "use": reads(asking("use", then=flaky)),
            "end": writes(end=1),
        }
        source = await bench.start(plan_of(states))
        assert source.phase is RunPhase.Failed
        fails[0] = False
        run_id, kept = await self.fork(bench, source.run_id, "use")
        assert kept == 1
        asked = len(bench.world.calls)
        result = await bench.resume(run_id)
        assert result.phase is RunPhase.Completed
        assert len(bench.world.calls) == asked + 1
        before, after = await bench.history(source.run_id), await bench.history(run_id)
        assert after.states[sid("fetch")].snapshot_id == before.states[sid("fetch")].snapshot_id
        assert after.states[sid("use")].attempts == 1
        assert after.forked_from is not None
        assert (after.forked_from.run_id, after.forked_from.state_id) == (
            source.run_id, sid("use"),
        )  # fmt: skip
        # The kept state's facts came along, under the new run's id where keys hold one.
        clock = [str(key) for key in after.facts if str(key).startswith("mfm:now_millis")]
        assert clock == [f"mfm:now_millis|run:{run_id}|state:demo.main.fetch|attempt:0|ord:0"]
        assert (await bench.names(run_id))[1] == EVENT_FORKED_FROM
        assert (await bench.history(source.run_id)).status is RunStatus.Failed

    async def test_a_fork_from_a_side_branch_keeps_the_other_one(self, bench: Bench) -> None:
        names = ("root", "a", "b", "join")
        states = {name: reads(own(name)) for name in names}
        source = await bench.start(plan_of(states, "root>a>join", "root>b>join"))
        run_id, kept = await self.fork(bench, source.run_id, "a")
        assert kept == 2
        asked = len(bench.world.calls)
        assert (await bench.resume(run_id)).final_snapshot_id == source.final_snapshot_id
        assert [call.request for call in bench.world.calls[asked:]] == ["a", "join"]

    async def test_a_changed_value_is_seen_from_the_state_on(self, bench: Bench) -> None:
        plan = plan_of(
            {"a": writes(x=1, y=1), "b": state(double), "c": writes(z=1), "d": state(double)},
            "a>b>d", "a>c>d",
        )  # fmt: skip
        source = await bench.start(plan)
        assert await values(bench, source.run_id) == {"x": 4, "y": 1, "z": 1}
        run_id, _ = await self.fork(bench, source.run_id, "b", {"x": 10, "y": 7})
        await bench.resume(run_id)
        assert await values(bench, run_id) == {"x": 40, "y": 7, "z": 1}
        # A fork of the fork goes on from what the first one changed.
        again, kept = await self.fork(bench, run_id, "d")
        assert kept == 3
        await bench.resume(again)
        assert await values(bench, again) == {"x": 40, "y": 7, "z": 1}
        third, _ = await self.fork(bench, again, "b", {"y": 8})
        await bench.resume(third)
        assert await values(bench, third) == {"x": 40, "y": 8, "z": 1}

    async def test_a_fork_that_was_interrupted_goes_on_with_its_changed_values(
        self, bench: Bench
    ) -> None:
        hold = [True]

        async def wait(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            if hold[0]:
                began.set()
                await anyio.sleep_forever()

        plan = plan_of({"a": writes(x=1), "b": state(double), "wait": state(wait), "c": state()},
                       "a>b>wait", "a>c", "b>c")  # fmt: skip
        hold[0] = False
        source = await bench.start(plan)
        hold[0] = True
        run_id, _ = await self.fork(bench, source.run_id, "b", {"x": 5})
        began = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def drive() -> None:
                await bench.resume(run_id)

            tasks.start_soon(drive)
            await began.wait()
            tasks.cancel_scope.cancel()
        hold[0] = False
        await bench.resume(run_id)
        assert await values(bench, run_id) == {"x": 10}

    async def test_a_changed_plan_keeps_only_what_would_start_the_same(self, bench: Bench) -> None:
        source = await bench.start(plan_of({"a": writes(a=1), "b": writes(b=1), "c": writes(c=1)}))
        bench.plan = plan_of(
            {"a": writes(a=1), "new": writes(n=1), "b": writes(b=1), "c": writes(c=1)}
        )
        run_id, kept = await self.fork(bench, source.run_id, "c")
        assert kept == 1
        assert (await bench.resume(run_id)).phase is RunPhase.Completed
        assert await values(bench, run_id) == {"a": 1, "n": 1, "b": 1, "c": 1}
        # Without its ancestor's writes a state would have started from another context.
        bench.plan = plan_of({"b": writes(b=1), "c": writes(c=1)})
        _, kept = await self.fork(bench, source.run_id, "c")
        assert kept == 0

    @pytest.mark.parametrize(
        ("name", "changed", "reason"),
        [("nowhere", {}, "unknown_state"), ("b", {"typo": 1}, "unknown_key")],
    )
    async def test_a_fork_that_makes_no_sense_stores_nothing(
        self, bench: Bench, name: str, changed: Mapping[str, Json], reason: str
    ) -> None:
        source = await bench.start(plan_of({"a": writes(a=1), "b": state()}))
        with pytest.raises(RunFailure) as refused:
            await self.fork(bench, source.run_id, name, changed)
        assert refused.value.info.code == "fork_invalid"
        assert isinstance(refused.value.info.details, dict)
        assert refused.value.info.details["reason"] == reason
        assert [run.run_id for run in await bench.store.list_runs()] == [source.run_id]

    async def test_a_secret_cannot_be_set(self, bench: Bench) -> None:
        source = await bench.start(plan_of({"a": writes(a=1), "b": state()}))
        forking = self.fork(bench, source.run_id, "b", {"a": CANARY})
        assert await code_of(forking) == "secrets_detected"

    async def fork(
        self, bench: Bench, source: RunId, name: str, changed: Mapping[str, Json] | None = None
    ) -> tuple[RunId, int]:
        assert bench.plan is not None
        run_id = RunId.random()
        fork = ForkRun(source, sid(name), changed or {}, manifest_of(config()), bench.plan, run_id)
        return run_id, (await fork_run(bench.stores, fork, bench.sources)).kept


async def ambient(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    ctx.write(ContextKey("fetched"), [await io.now_millis(), (await io.call(ask("f"))).response])


def own(name: str) -> Handler:
    """Asks for its own name and writes the answer under it."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey(name), (await io.call(ask(name))).response)

    return handle


async def double(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    value = ctx.read(ContextKey("x"))
    assert isinstance(value, int)
    ctx.write(ContextKey("x"), value * 2)
