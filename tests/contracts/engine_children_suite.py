"""Child runs, for every store: spawned, awaited, cancelled, lost and found again.

How they stand in `mfm run status` is in `tests/integration/test_cli_children.py`.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.child_runs import (
    NAMESPACE_SPAWN,
    ChildRunConfig,
    ChildRunOutcome,
    child_run_id,
)
from mfm_ops.machine.config import (
    BackoffPolicy,
    Duration,
    EventProfile,
    Fixed,
    IoMode,
    RetryPolicy,
    RunConfig,
    RunManifest,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, RunResult
from mfm_ops.machine.errors import IoFailure, MfmFailure, RunFailure, StateFailure
from mfm_ops.machine.events import (
    EVENT_CHILD_OF,
    EVENT_DRIVER,
    EVENT_DRIVER_STOPPED,
    EVENT_IO_INTENT,
    EventEnvelope,
    RunStatus,
)
from mfm_ops.machine.ids import ContextKey, FactKey, RunId, StateId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.child_transport import MAX_DEPTH
from mfm_ops.runtime.control import resolve_effect
from mfm_ops.runtime.records import Resolution
from mfm_ops.sdk.child_runs import await_child, child_outputs, spawn_op
from tests.contracts.clock import LONG_MS, Clock
from tests.contracts.engine_control_suite import Hold
from tests.contracts.engine_parallel_suite import parallel
from tests.contracts.family import NOBODY, Family, MemberConfig, MortalStore, member, single
from tests.support import (
    CANARY,
    FaultyStore,
    FunctionState,
    Handler,
    ScriptedFactory,
    Store,
    ask,
    config,
    effect,
    failure,
    name_of,
    reads,
    state,
    writes,
)

ANSWER = ContextKey("answer")


def spawning(*children: str, then: Handler | None = None, key: str | None = None) -> Handler:
    """Spawns the ops named, and goes on."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for name in children:
            ctx.write(ContextKey(name), str(await spawn_op(io, name, key=key)))
        if then is not None:
            await then(ctx, io, rec)

    return handle


def awaiting(*children: str) -> Handler:
    """Takes what the spawned ops named answer."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        answers: dict[str, Json] = {}
        for name in children:
            child = RunId(str(ctx.read(ContextKey(name))))
            answers[name] = (await child_outputs(io, child))["answer"]
        ctx.write(ANSWER, answers)

    return handle


def telling(*children: str) -> Handler:
    """Waits for the ops named, and writes how they ended."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        outcomes: list[Json] = []
        for name in children:
            outcome = await await_child(io, RunId(str(ctx.read(ContextKey(name)))))
            outcomes.append(outcome.model_dump(mode="json"))
        ctx.write(ANSWER, outcomes)

    return handle


def parent_of(*children: str, and_then: Handler | None = None) -> Any:
    """An op that spawns in one state and awaits in the next."""
    return member(
        "parent",
        lambda config: {
            "spawn": reads(spawning(*children)),
            "await": reads(and_then or awaiting(*children)),
        },
    )


async def call_out(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    ctx.write(ANSWER, (await io.call(ask("?"))).response)


async def fail(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    raise failure("broken", retryable=False)


def refused(code: str, spawn: Callable[[IoProvider], Awaitable[object]]) -> Handler:
    """A handler to which the engine refuses what `spawn` asks for."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        with pytest.raises(IoFailure) as caught:
            await spawn(io)
        assert caught.value.info.code == code, caught.value.info
        ctx.write(ANSWER, caught.value.info.details)

    return handle


@contextlib.asynccontextmanager
async def at_work(
    family: Family, hold: Hold, run_config: RunConfig | None = None
) -> AsyncIterator[tuple[RunId, TaskGroup, list[RunResult]]]:
    """The run of the op `parent` under way, a child of it at the hold: its id, how it ended."""
    ended: list[RunResult] = []

    async def run() -> None:
        ended.append(await family.start("parent", run_config))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await hold.reached.wait()
        yield family.id_of("parent", run_config), tasks, ended


async def interrupted(family: Family, hold: Hold) -> tuple[RunId, RunId]:
    """A parent and its only child, both interrupted while the child was at the hold."""
    async with at_work(family, hold) as (parent, tasks, _):
        child = await family.child(parent)
        await family.until(parent, "child_run_spawned")
        tasks.cancel_scope.cancel()
    return parent, child


class EngineChildrenSuite:
    """One rule a test; `store` is the subclass's fixture."""

    # Spawning and awaiting

    async def test_a_childs_exports_reach_its_parent(self, store: Store) -> None:
        family = Family(store)
        family.add(single("child", reads(call_out)), parent_of("child"))
        result = await family.start("parent")
        assert result.phase is RunPhase.Completed
        context = await family.context(result)
        assert context["parent.main.answer"] == {"child": "?"}

    async def test_a_childs_id_follows_from_its_parents_and_the_facts_key(
        self, store: Store
    ) -> None:
        family = Family(store)
        family.add(
            single("child", reads(call_out)),
            single("parent", reads(spawning("child", key="a key"))),
        )
        result = await family.start("parent")
        child = await family.child(result.run_id)
        assert child == str(uuid.uuid5(result.run_id.uuid, "a key"))
        assert child == child_run_id(result.run_id, FactKey("a key"))

    async def test_linkage_events_are_durable_with_their_facts(self, store: Store) -> None:
        appended: list[list[str]] = []

        async def watch(events: Sequence[EventEnvelope]) -> None:
            appended.append([name_of(envelope) for envelope in events])

        faulty = FaultyStore(store)
        faulty.before_append = watch
        family = Family(faulty)
        family.add(single("child", reads(call_out)), parent_of("child"))
        await family.start("parent")
        for name in ("child_run_spawned", "child_run_completed"):
            (together,) = [names for names in appended if name in names]
            assert together[together.index(name) - 1] == "fact_recorded"

    async def test_a_childs_stream_names_its_parent_at_once(self, store: Store) -> None:
        family = Family(store)
        family.add(single("child", reads(call_out)), parent_of("child"))
        parent = (await family.start("parent")).run_id
        child = await family.child(parent)
        assert (await family.names(child))[:3] == ["RunStarted", EVENT_CHILD_OF, EVENT_DRIVER]
        origin = (await family.history(child)).child_of
        assert origin is not None
        assert (origin.parent_run_id, origin.depth) == (parent, 1)
        assert child_run_id(parent, origin.fact_key) == child

    async def test_the_parents_stream_says_how_each_child_ended(self, store: Store) -> None:
        family = Family(store)
        family.add(
            single("good", reads(call_out)),
            single("bad", state(fail)),
            parent_of("good", "bad", and_then=telling("good", "bad")),
        )
        result = await family.start("parent")
        assert result.phase is RunPhase.Completed
        good, bad = await family.children(result.run_id)
        assert (good.status, bad.status) == (RunStatus.Completed, RunStatus.Failed)
        ended = await family.history(good.run_id)
        assert good.final_snapshot_id == ended.final_snapshot_id is not None

    async def test_several_children_are_at_work_while_the_parent_goes_on(
        self, store: Store
    ) -> None:
        met = [anyio.Event() for _ in range(3)]

        def meets(index: int) -> Handler:
            async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
                met[index].set()
                for each in met:
                    await each.wait()
                ctx.write(ANSWER, index)

            return handle

        family = Family(store)
        family.add(
            single("one", state(meets(0))),
            single("two", state(meets(1))),
            member(
                "parent",
                lambda config: {
                    "spawn": reads(spawning("one", "two")),
                    "meet": state(meets(2)),
                    "await": reads(awaiting("one", "two")),
                },
            ),
        )
        with anyio.fail_after(120):
            result = await family.start("parent")
        assert (await family.context(result))["parent.main.answer"] == {"one": 0, "two": 1}

    async def test_more_children_than_may_work_at_once_all_get_their_turn(
        self, store: Store
    ) -> None:
        async def many(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            spawned = [await spawn_op(io, "child", key=f"child {i}") for i in range(40)]
            ctx.write(ANSWER, [(await child_outputs(io, each))["answer"] for each in spawned])

        family = Family(store)
        family.add(single("child", reads(call_out)), single("parent", reads(many)))
        result = await family.start("parent")
        assert (await family.context(result))["parent.main.answer"] == ["?"] * 40
        assert len(family.world.calls) == 40

    async def test_the_same_asked_twice_in_a_state_is_one_child(self, store: Store) -> None:
        async def twice(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            first, again = [await spawn_op(io, "child") for _ in range(2)]
            other = await spawn_op(io, "child", {"n": 1})
            assert first == again != other

        family = Family(store)
        family.add(single("child", reads(call_out)), single("parent", reads(twice)))
        result = await family.start("parent")
        assert result.phase is RunPhase.Completed
        assert len(await family.children(result.run_id)) == 2

    async def test_a_retry_of_the_spawning_state_finds_the_same_child(self, store: Store) -> None:
        attempts = count()

        async def late(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            if next(attempts) == 0:
                raise failure()

        family = Family(store)
        family.add(
            single("child", reads(call_out)),
            single("parent", reads(spawning("child", then=late)), exports=()),
        )
        result = await family.start("parent", config(max_attempts=2))
        assert result.phase is RunPhase.Completed
        await family.child(result.run_id)
        assert len(family.world.calls) == 1

    async def test_what_children_answer_does_not_depend_on_how_many_states_run_at_once(
        self, store: Store
    ) -> None:
        names = [f"child{index}" for index in range(4)]

        async def number(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ANSWER, (await io.call(ask("?"))).response)

        def asking(name: str) -> Handler:
            async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
                child = await spawn_op(io, name)
                ctx.write(ContextKey(f"from_{name}"), await child_outputs(io, child))

            return handle

        finals = set()
        for run_config in (config(), parallel(4)):
            family = Family(store)
            family.add(
                *(single(name, reads(number)) for name in names),
                member(
                    "parent",
                    lambda config: {name: reads(asking(name)) for name in names},
                    at_once=True,
                    exports=(),
                ),
            )
            result = await family.start("parent", run_config)
            finals.add(result.final_snapshot_id)
            assert len(await family.children(result.run_id)) == 4
        assert len(finals) == 1

    async def test_children_have_children(self, store: Store) -> None:
        family = Family(store)
        family.add(
            single("grandchild", reads(call_out)),
            member(
                "child",
                lambda config: {
                    "spawn": reads(spawning("grandchild")),
                    "await": reads(awaiting("grandchild")),
                },
            ),
            parent_of("child"),
        )
        result = await family.start("parent")
        child = await family.child(result.run_id)
        grandchild = await family.child(child)
        origin = (await family.history(grandchild)).child_of
        assert origin is not None
        assert (origin.parent_run_id, origin.depth) == (child, 2)
        answer = (await family.context(result))["parent.main.answer"]
        assert answer == {"child": {"grandchild": "?"}}

    async def test_a_replay_has_no_children(self, store: Store) -> None:
        family = Family(store)
        family.add(
            single("good", reads(call_out)),
            single("bad", state(fail)),
            parent_of("good", "bad", and_then=telling("good", "bad")),
        )
        live = await family.start("parent")
        before = len(await store.list_runs())
        again = config(io_mode=IoMode.Replay, replay_of=live.run_id)
        replayed = await family.start("parent", again)
        assert replayed.final_snapshot_id == live.final_snapshot_id
        assert len(await store.list_runs()) == before + 1
        assert len(family.world.calls) == 1

    # What is refused

    async def test_a_run_cannot_be_its_own_descendant(self, store: Store) -> None:
        family = Family(store)
        family.add(
            single("child", reads(refused("child_run_cycle", lambda io: spawn_op(io, "parent")))),
            single("parent", reads(spawning("child", then=awaiting("child")))),
        )
        result = await family.start("parent")
        answer = (await family.context(result))["parent.main.answer"]["child"]
        assert answer["run_id"] == result.run_id

    async def test_runs_are_nested_only_so_deep(self, store: Store) -> None:
        def deeper(own: MemberConfig) -> dict[str, FunctionState]:
            async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
                try:
                    child = await spawn_op(io, "parent", {"n": own.n + 1})
                except IoFailure as failed:
                    ctx.write(ANSWER, {"n": own.n, "code": str(failed.info.code)})
                else:
                    ctx.write(ANSWER, (await child_outputs(io, child))["answer"])

            return {"only": reads(handle)}

        family = Family(store)
        family.add(member("parent", deeper))
        result = await family.start("parent")
        deepest = {"n": MAX_DEPTH, "code": "child_run_depth"}
        assert (await family.context(result))["parent.main.answer"] == deepest

    async def test_only_a_runs_own_children_can_be_awaited(self, store: Store) -> None:
        family = Family(store)
        stranger = (await Family(store, {"x": single("x", state())}).start("x")).run_id
        family.add(
            single(
                "parent",
                reads(refused("child_run_unknown", lambda io: await_child(io, stranger))),
            )
        )
        assert (await family.start("parent")).phase is RunPhase.Completed

    async def test_a_child_that_cannot_be_planned_is_not_recorded(self, store: Store) -> None:
        wide = ChildRunConfig(nix_flake_allowlist=("github:someone/else",))
        attempts: dict[str, Callable[[IoProvider], Awaitable[object]]] = {
            "op_unknown": lambda io: spawn_op(io, "nobody"),
            "op_config_invalid": lambda io: spawn_op(io, "child", {"n": "many"}),
            "pipeline_invalid": lambda io: spawn_op(io, "child", given={"unused": 1}),
            "wider_than_parent": lambda io: spawn_op(io, "child", run_config=wide),
            "op_or_pipeline": lambda io: io.call(
                IoCall(namespace=NAMESPACE_SPAWN, request={"kind": "spawn_child_run_v1"})
            ),
            "namespace": lambda io: io.call(ask(1, namespace="machine.child_run.adopt")),
        }
        for reason, attempt in attempts.items():
            family = Family(store)
            family.add(
                single("child", state(fail)),
                single("parent", reads(refused("child_run_invalid", attempt))),
            )
            result = await family.start("parent", key=reason)
            assert (await family.context(result))["parent.main.answer"]["reason"] == reason
            assert await family.children(result.run_id) == []

    async def test_a_secret_in_a_childs_config_is_refused_before_anything_is_stored(
        self, store: Store
    ) -> None:
        family = Family(store)
        family.add(
            member("child", lambda config: {"only": state()}, imports=("word",)),
            single(
                "parent",
                reads(
                    refused(
                        "secrets_detected", lambda io: spawn_op(io, "child", given={"word": CANARY})
                    )
                ),
            ),
        )
        result = await family.start("parent")
        assert result.phase is RunPhase.Completed
        assert await family.children(result.run_id) == []

    async def test_a_childs_run_config_is_its_parents_but_for_what_is_asked(
        self, store: Store
    ) -> None:
        retry = RetryPolicy(
            max_attempts=2, backoff=BackoffPolicy(Fixed=Fixed(delay=Duration.from_millis(0)))
        )

        async def both(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await spawn_op(io, "child", key="as it is")
            changed = ChildRunConfig(retry_policy=retry, nix_flake_allowlist=())
            await spawn_op(io, "child", key="otherwise", run_config=changed)

        family = Family(store)
        family.add(single("child", state()), single("parent", reads(both)))
        own = config(profile=EventProfile.Minimal, skip=("some_tag",))
        result = await family.start("parent", own)
        found = []
        for child in await family.children(result.run_id):
            data = await family.store.get(child.manifest_id)
            found.append(RunManifest.model_validate_json(data).run_config)
        assert found == [
            own.model_copy(update={"skip_tags": ()}),
            own.model_copy(
                update={"skip_tags": (), "retry_policy": retry, "nix_flake_allowlist": ()}
            ),
        ]

    # Failure and cancellation, downwards and upwards

    async def test_a_failed_child_fails_the_state_that_wants_its_exports(
        self, store: Store
    ) -> None:
        family = Family(store)
        family.add(single("child", state(fail)), parent_of("child"))
        result = await family.start("parent", config(max_attempts=3))
        assert result.phase is RunPhase.Failed
        error = (await family.history(result.run_id)).failure
        assert error is not None
        child = await family.child(result.run_id)
        assert error.info.code == "child_run_failed"
        assert error.info.details == {
            "child_run_id": child,
            "child_code": "broken",
            "child_state_id": "child.main.only",
        }

    async def test_a_handler_may_do_without_a_child_that_failed(self, store: Store) -> None:
        async def try_both(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            try:
                await awaiting("child")(ctx, io, rec)
            except StateFailure as failed:
                ctx.write(ANSWER, str(failed.info.code))

        family = Family(store)
        family.add(single("child", state(fail)), parent_of("child", and_then=try_both))
        result = await family.start("parent")
        assert (await family.context(result))["parent.main.answer"] == "child_run_failed"

    async def test_a_cancelled_child_is_told_to_its_parent(self, store: Store) -> None:
        hold = Hold()
        family = Family(store)
        family.add(
            single("child", state(hold.handle)), parent_of("child", and_then=telling("child"))
        )
        async with at_work(family, hold) as (parent, _, ended):
            await family.cancel(await family.child(parent))
        (outcome,) = (await family.context(ended[0]))["parent.main.answer"]
        assert ChildRunOutcome.model_validate(outcome, strict=False).status is RunStatus.Cancelled
        assert hold.cancelled

    async def test_a_failing_parent_cancels_its_children(self, store: Store) -> None:
        hold = Hold()

        async def fail_then(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await hold.reached.wait()
            raise failure("broken", retryable=False)

        family = Family(store)
        family.add(single("child", state(hold.handle)), parent_of("child", and_then=fail_then))
        result = await family.start("parent")
        assert result.phase is RunPhase.Failed
        assert hold.cancelled
        (child,) = await family.children(result.run_id)
        assert child.status is RunStatus.Cancelled
        assert (await family.history(child.run_id)).status is RunStatus.Cancelled
        assert (await family.names(result.run_id))[-2:] == ["child_run_completed", "RunCompleted"]

    async def test_a_cancelled_parent_cancels_children_and_grandchildren(
        self, store: Store
    ) -> None:
        hold = Hold()
        family = Family(store)
        family.add(
            single("grandchild", state(hold.handle)),
            single("child", reads(spawning("grandchild", then=awaiting("grandchild")))),
            parent_of("child"),
        )
        async with at_work(family, hold) as (parent, _, ended):
            child = await family.child(parent)
            grandchild = await family.child(child)
            await family.cancel(parent)
        assert ended[0].phase is RunPhase.Cancelled
        assert hold.cancelled
        for run_id in (parent, child, grandchild):
            assert (await family.history(run_id)).status is RunStatus.Cancelled

    async def test_cancelling_a_parent_that_nobody_drives_cancels_its_children(
        self, store: Store
    ) -> None:
        hold = Hold()
        family = Family(store)
        family.add(single("child", state(hold.handle)), parent_of("child"))
        parent, child = await interrupted(family, hold)
        await family.cancel(parent)
        assert (await family.resume(parent)).phase is RunPhase.Cancelled
        assert (await family.history(child)).status is RunStatus.Cancelled

    async def test_a_child_whose_op_is_gone_is_cancelled_all_the_same(self, store: Store) -> None:
        hold = Hold()
        family = Family(store)
        family.add(single("child", state(hold.handle)), parent_of("child"))
        parent, child = await interrupted(family, hold)
        del family.ops["child"]
        with pytest.raises(MfmFailure) as gone:
            await family.resume(parent)
        assert gone.value.info.code == "op_unknown"
        await family.cancel(parent)
        assert (await family.resume(parent)).phase is RunPhase.Cancelled
        assert (await family.history(child)).status is RunStatus.Cancelled

    async def test_a_child_that_never_began_is_not_begun_by_the_end_of_its_parent(
        self, store: Store
    ) -> None:
        family = Family(store)

        async def cancel(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await family.cancel(family.id_of("parent"))
            await spawn_op(io, "child")

        family.add(single("child", state(fail)), single("parent", reads(cancel)))
        result = await family.start("parent")
        assert result.phase is RunPhase.Cancelled
        (child,) = await family.children(result.run_id)
        assert child.status is RunStatus.Cancelled
        assert await family.store.head_seq(child.run_id) == 0

    async def test_a_run_ends_after_its_children(self, store: Store) -> None:
        hold = Hold()
        family = Family(store)
        family.add(single("child", state(hold.handle)), single("parent", reads(spawning("child"))))
        async with at_work(family, hold) as (parent, _, ended):
            await family.until(parent, "StateCompleted")
            assert not ended
            hold.go.set()
        assert ended[0].phase is RunPhase.Completed
        assert (await family.names(parent))[-2:] == ["child_run_completed", "RunCompleted"]

    async def test_a_runs_deadline_ends_its_wait_for_children(
        self, store: Store, clock: Clock
    ) -> None:
        hold = Hold()
        family = Family(store)

        async def hold_past_it(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await family.until(family.id_of("parent", run_config), "StateCompleted")
            clock.run_on()
            await hold.here()

        async def spawn(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            # What ends is the parent's wait, not the child by a deadline that it inherited.
            await spawn_op(io, "child", run_config=ChildRunConfig(run_deadline_ms=None))

        family.add(single("child", state(hold_past_it)), single("parent", reads(spawn)))
        run_config = config().model_copy(update={"run_deadline_ms": LONG_MS})
        result = await family.start("parent", run_config)
        assert result.phase is RunPhase.Failed
        assert hold.cancelled
        error = (await family.history(result.run_id)).failure
        assert error is not None
        assert error.info.code == "run_deadline_exceeded"

    # Interruption, resumption, other drivers

    async def test_an_interrupted_parent_leaves_children_that_resume(self, store: Store) -> None:
        hold = Hold()
        family = Family(store)
        family.add(single("child", state(hold.handle)), parent_of("child"))
        parent, child = await interrupted(family, hold)
        assert hold.cancelled
        for run_id in (parent, child):
            assert (await family.history(run_id)).phase is RunPhase.Running
            assert (await family.names(run_id))[-1] == EVENT_DRIVER_STOPPED

    async def test_a_resumed_parent_goes_on_with_its_children(self, store: Store) -> None:
        hold = Hold()

        def child(last: FunctionState) -> Any:
            return member("child", lambda config: {"first": reads(call_out), "last": last})

        family = Family(store)
        family.add(child(state(hold.handle)), parent_of("child"))
        parent, _ = await interrupted(family, hold)
        family.add(child(state()))
        result = await family.resume(parent)
        assert (await family.context(result))["parent.main.answer"] == {"child": "?"}
        assert len(family.world.calls) == 1

    async def test_a_child_goes_on_also_where_no_state_of_the_parent_is_left(
        self, store: Store
    ) -> None:
        hold = Hold()
        family = Family(store)
        family.add(single("child", state(hold.handle)), single("parent", reads(spawning("child"))))
        async with at_work(family, hold) as (parent, tasks, _):
            await family.until(parent, "StateCompleted")
            tasks.cancel_scope.cancel()
        family.add(single("child", state()))
        assert (await family.resume(parent)).phase is RunPhase.Completed
        assert (await family.history(await family.child(parent))).status is RunStatus.Completed

    async def test_who_takes_a_parent_over_takes_its_children_over(self, store: Store) -> None:
        hold = Hold()
        family = Family(store)
        family.add(single("child", state(hold.handle)), parent_of("child"))
        codes: list[str] = []

        async def first() -> None:
            try:
                await family.start("parent")
            except RunFailure as failed:
                codes.append(str(failed.info.code))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            await hold.reached.wait()
            newer = Family(store, world=family.world)
            newer.add(single("child", writes(answer="newer")), parent_of("child"))
            result = await newer.resume(family.id_of("parent"), take_over=True)
        assert codes == ["run_fenced"]
        assert hold.cancelled
        assert (await newer.context(result))["parent.main.answer"] == {"child": "newer"}
        child = await family.history(await family.child(result.run_id))
        marks = [mark["for_driver"] for mark in child.drivers]
        drivers = (await family.history(result.run_id)).drivers
        assert marks == [mark["driver_id"] for mark in drivers]

    async def test_a_child_that_somebody_else_drives_is_waited_for(self, store: Store) -> None:
        first, second = Hold(), Hold()
        family = Family(store)
        family.add(single("child", state(first.handle)), parent_of("child"))
        parent, child = await interrupted(family, first)
        other = Family(store)
        other.add(single("child", state(second.handle)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.resume, child)
            await second.reached.wait()
            family.add(single("child", state(fail)), parent_of("child", and_then=telling("child")))
            ended: list[RunResult] = []

            async def resume() -> None:
                ended.append(await family.resume(parent))

            tasks.start_soon(resume)
            await family.until(parent, EVENT_DRIVER, 2)
            second.go.set()
        (outcome,) = (await family.context(ended[0]))["parent.main.answer"]
        assert outcome["status"] == "Completed"
        assert len((await family.history(child)).drivers) == 2

    async def test_a_child_that_somebody_else_left_goes_on_with_its_parent(
        self, store: Store
    ) -> None:
        first, second = Hold(), Hold()
        family = Family(store)
        family.add(single("child", state(first.handle)), parent_of("child"))
        parent, child = await interrupted(family, first)
        other = Family(store)
        other.add(single("child", state(second.handle)))
        family.add(single("child", writes(answer="ours")))
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as theirs:
            theirs.start_soon(other.resume, child)
            await second.reached.wait()
            ended: list[RunResult] = []

            async def resume() -> None:
                ended.append(await family.resume(parent))

            tasks.start_soon(resume)
            theirs.cancel_scope.cancel()
        assert (await family.context(ended[0]))["parent.main.answer"] == {"child": "ours"}

    async def test_a_parked_child_parks_its_parent_until_its_effect_is_resolved(
        self, store: Store
    ) -> None:
        async def unrecordable(call: IoCall, env: LiveIoEnv) -> Json:
            return CANARY

        family = Family(store, world=ScriptedFactory(unrecordable))
        family.add(single("child", effect(call_out)), parent_of("child"))
        result = await family.start("parent")
        assert result.phase is RunPhase.Running
        child = await family.child(result.run_id)
        assert (await family.history(child)).parked
        assert (await family.names(result.run_id))[-1] == EVENT_DRIVER_STOPPED
        # Nothing has changed: it parks again.
        assert (await family.resume(result.run_id)).phase is RunPhase.Running
        await resolve_effect(
            family.stores,
            child,
            StateId("child.main.only"),
            Resolution.completed,
            NOBODY,
            result="by hand",
        )
        again = await family.resume(result.run_id)
        assert (await family.context(again))["parent.main.answer"] == {"child": "by hand"}
        assert len(family.world.calls) == 1

    async def test_a_handler_that_swallows_everything_parks_with_its_child_all_the_same(
        self, store: Store
    ) -> None:
        async def unrecordable(call: IoCall, env: LiveIoEnv) -> Json:
            return CANARY

        async def swallow(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            with contextlib.suppress(Exception):
                await awaiting("child")(ctx, io, rec)

        family = Family(store, world=ScriptedFactory(unrecordable))
        family.add(single("child", effect(call_out)), parent_of("child", and_then=swallow))
        result = await family.start("parent")
        assert result.phase is RunPhase.Running

    async def test_a_parked_child_that_nobody_awaits_parks_its_parent_too(
        self, store: Store
    ) -> None:
        async def unrecordable(call: IoCall, env: LiveIoEnv) -> Json:
            return CANARY

        family = Family(store, world=ScriptedFactory(unrecordable))
        family.add(single("child", effect(call_out)), single("parent", reads(spawning("child"))))
        result = await family.start("parent")
        assert result.phase is RunPhase.Running
        await family.cancel(result.run_id)
        assert (await family.resume(result.run_id)).phase is RunPhase.Cancelled
        child = await family.child(result.run_id)
        assert (await family.history(child)).status is RunStatus.Cancelled

    async def test_a_state_with_effects_announces_none_for_its_children(self, store: Store) -> None:
        hold = Hold()
        family = Family(store)
        family.add(
            single("child", state(hold.handle)),
            single("parent", effect(spawning("child", then=telling("child")))),
        )
        parent, _ = await interrupted(family, hold)
        family.add(single("child", state()))
        assert (await family.resume(parent)).phase is RunPhase.Completed
        assert EVENT_IO_INTENT not in await family.names(parent)

    # Death at every append

    async def test_wherever_a_driver_dies_no_child_is_lost_or_started_twice(
        self, store: Store
    ) -> None:
        def family_on(mortal: MortalStore) -> Family:
            family = Family(mortal)
            family.add(
                single("grandchild", reads(call_out)),
                single("one", reads(spawning("grandchild", then=awaiting("grandchild")))),
                single("two", reads(call_out)),
                single("bad", state(fail)),
                member(
                    "parent",
                    lambda config: {
                        "spawn": reads(spawning("one", "two", "bad")),
                        "await": reads(awaiting("one", "two")),
                    },
                ),
            )
            return family

        async def tree(family: Family, run_id: RunId) -> dict[str, object]:
            history = await family.history(run_id)
            names = await family.names(run_id)
            assert names.count("RunStarted") == names.count("RunCompleted") == 1
            below: list[object] = [await tree(family, each) for each in history.children]
            assert [child.status for child in history.children.values()] == [
                (await family.history(each)).status for each in history.children
            ]
            return {"op": history.op_id, "status": history.status, "children": below}

        mortal = MortalStore(store)
        family = family_on(mortal)
        whole = await family.start("parent", key="whole")
        expected = await tree(family, whole.run_id)
        context = await family.context(whole)
        shape = {"parent.main.answer": context["parent.main.answer"]}
        assert shape == {"parent.main.answer": {"one": {"grandchild": "?"}, "two": "?"}}
        appends = mortal.appends
        for dies_at in range(1, appends + 1):
            for after in (False, True):
                mortal.revive()
                key = f"{dies_at} {after}"
                mortal.appends, mortal.dies_at, mortal.after = 0, dies_at, after
                died = family_on(mortal)
                with contextlib.suppress(MfmFailure):
                    await died.start("parent", key=key)
                mortal.revive()
                run_id = died.id_of("parent", key=key)
                survivor = family_on(mortal)
                if await mortal.head_seq(run_id):
                    result = await survivor.resume(run_id, take_over=True)
                else:
                    result = await survivor.start("parent", key=key)
                assert await tree(survivor, run_id) == expected, key
                final = await survivor.context(result)
                assert final["parent.main.answer"] == context["parent.main.answer"], key
                # Each call is recorded once, and asked again only where its answer was lost.
                assert len(died.world.calls) + len(survivor.world.calls) <= 3, key
