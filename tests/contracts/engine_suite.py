"""What the engine does with a plan, for every store: order, contexts, attempts, events, commits.

Drivers, cancellation, effects and replays are in `engine_control_suite`.
"""

import os
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from mfm_ops.machine.canonical import Json, canonical_json_bytes, parse_canonical
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import (
    BackoffPolicy,
    ContextCheckpointing,
    Duration,
    EventProfile,
    Exponential,
    IoMode,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, RunResult, StartRun, Stores
from mfm_ops.machine.errors import ErrorInfo, IoFailure, RunFailure, TransportFailure
from mfm_ops.machine.events import (
    EVENT_CONTEXT_CONFLICT,
    EVENT_DRIVER,
    DomainEvent,
    EventEnvelope,
    StateFailed,
)
from mfm_ops.machine.ids import ArtifactId, ContextKey, OpId, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.plan import ExecutionPlan, StateGraph, StateNode, plan_digest
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.redact import WITHHELD_MESSAGE
from tests.support import (
    CANARY,
    DONE,
    SOME_ID,
    Bench,
    FaultyStore,
    FunctionState,
    Handler,
    Store,
    ask,
    chain_of,
    config,
    edges,
    effect,
    failure,
    meta,
    name_of,
    nothing,
    plan_of,
    reads,
    scripted_sources,
    sid,
    start_of,
    state,
    writes,
)


def raising(error: Exception, **written: Json) -> Handler:
    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for key, value in written.items():
            ctx.write(ContextKey(key), value)
        raise error

    return handle


def failing_first(times: int, seen: list[int] | None = None) -> Handler:
    """Fails so many times, each time after a write that only failed attempts make."""
    attempts: list[int] = seen if seen is not None else []

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        assert ctx.read(ContextKey("half")) is None, "a failed attempt's writes were kept"
        attempts.append(len(attempts))
        if len(attempts) <= times:
            ctx.write(ContextKey("half"), len(attempts))
            raise failure()
        ctx.write(ContextKey("tries"), len(attempts))

    return handle


async def call_out(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """One call, whose key has a discriminator so that each state asks for itself."""
    await io.call(ask())


async def final(bench: Bench, result: RunResult) -> dict[str, Json]:
    assert result.final_snapshot_id is not None
    value = parse_canonical(await bench.store.get(result.final_snapshot_id))
    assert isinstance(value, dict)
    return value


async def failures(bench: Bench, run_id: RunId) -> list[StateFailed]:
    return [
        envelope.event.Kernel.StateFailed
        for envelope in await bench.events(run_id)
        if name_of(envelope) == "StateFailed"
    ]


NO_SEQUENCE: Any = StateGraph(iter(()), ())  # type: ignore[arg-type]
NO_ID: Any = StateGraph((StateNode("No Id", state()),), ())  # type: ignore[arg-type]
CIRCLE = ExecutionPlan(
    OpId("demo"), StateGraph(chain_of(state(), state()).graph.states, edges("s0>s1>s0"))
)


class EngineSuite:
    """One rule a test; `store` is the subclass's fixture."""

    # A run from start to end

    async def test_a_chain_runs_to_its_end_and_each_state_sees_what_came_before(
        self, bench: Bench
    ) -> None:
        async def add(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            so_far = ctx.read(ContextKey("n"))
            assert isinstance(so_far, int)
            ctx.write(ContextKey("n"), so_far + 1)

        result = await bench.start(chain_of(*[state(add)] * 3), initial={"n": 0, "kept": "é"})
        assert result.phase is RunPhase.Completed
        assert result.final_snapshot_id is not None
        data = await bench.store.get(result.final_snapshot_id)
        assert data == canonical_json_bytes({"n": 3, "kept": "é"})

    async def test_the_stream_of_a_run_tells_its_states_in_order(self, bench: Bench) -> None:
        result = await bench.start(chain_of(writes(a=1), writes(b=2)))
        assert await bench.names(result.run_id) == [
            "RunStarted",
            "mfm.driver",
            "StateEntered",
            "StateCompleted",
            "StateEntered",
            "StateCompleted",
            "RunCompleted",
        ]

    async def test_the_drivers_mark_names_process_plan_build_and_policy(self, bench: Bench) -> None:
        bench.policy = {"sandbox": "off"}
        plan = chain_of(state())
        result = await bench.start(plan)
        mark = (await bench.history(result.run_id)).drivers[0]
        assert mark["plan_digest"] == plan_digest(plan)
        assert mark["policy_digest"] == bench.engine().policy_id
        assert {"driver_id", "host", "pid", "started", "boot_id", "pid_ns", "build"} <= set(mark)
        policy_id = ArtifactId(str(mark["policy_digest"]))
        assert await bench.store.get(policy_id) == b'{"sandbox":"off"}'

    async def test_manifest_and_initial_context_are_stored(self, bench: Bench) -> None:
        run = start_of(chain_of(state()), initial={"k": 1})
        result = await bench.start(run.plan, initial={"k": 1})
        history = await bench.history(result.run_id)
        manifest = await bench.store.get(history.manifest_id)
        assert manifest == canonical_json_bytes(run.manifest.model_dump(mode="json"))
        assert await bench.store.get(history.initial_snapshot_id) == b'{"k":1}'

    async def test_every_event_reaches_the_observer_in_order(self, bench: Bench) -> None:
        seen: list[str] = []
        bench.observer = lambda envelope: seen.append(name_of(envelope))
        result = await bench.start(chain_of(state(), state()))
        assert seen == await bench.names(result.run_id)

    # Commits

    @pytest.mark.parametrize(("kind", "commits"), [("pure", 1), ("reads", 2), ("effect", 3)])
    async def test_a_state_costs_as_many_commits_as_the_contract_says(
        self, bench: Bench, kind: str, commits: int
    ) -> None:
        made: dict[str, FunctionState] = {
            "pure": writes(a=1),
            "reads": reads(call_out),
            "effect": effect(call_out),
        }
        costs: list[int] = []
        for count in (3, 4):
            before = bench.store.commits
            await bench.start(chain_of(*[made[kind]] * count))
            costs.append(bench.store.commits - before)
        assert costs[1] - costs[0] == commits

    @pytest.mark.parametrize(("kind", "commits"), [("pure", 1), ("reads", 2), ("effect", 3)])
    async def test_a_state_with_much_data_costs_no_more_commits(
        self, bench: Bench, kind: str, commits: int
    ) -> None:
        much, said = "x" * 100_000, [0]

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            said[0] += 1
            return f"{said[0]}{much}"

        async def write(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            said[0] += 1
            ctx.write(ContextKey("much"), f"{said[0]}{much}")

        async def call_and_write(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ContextKey("much"), (await io.call(ask())).response)

        bench.world.answer = answer
        made: dict[str, FunctionState] = {
            "pure": state(write),
            "reads": reads(call_and_write),
            "effect": effect(call_and_write),
        }

        async def cost(count: int) -> int:
            before = bench.store.commits
            await bench.start(chain_of(*[made[kind]] * count))
            return bench.store.commits - before

        # A disk that takes its time makes a state a long one, whose beginning is told at once.
        costs = [min([await cost(count) for _ in range(4)]) for count in (1, 2)]
        assert costs[1] - costs[0] == commits

    async def test_a_long_state_is_seen_by_others_while_it_runs(self, bench: Bench) -> None:
        run_id = RunId.random()
        written = anyio.Event()

        def watch(envelope: EventEnvelope) -> None:
            if name_of(envelope) == "begun":
                written.set()

        async def wait_until_seen(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await rec.emit(DomainEvent(name="begun", payload=None))
            await written.wait()
            assert (await bench.names(run_id))[-2:] == ["StateEntered", "begun"]

        bench.observer = watch
        result = await bench.start(chain_of(state(wait_until_seen)), run_id=run_id)
        assert result.phase is RunPhase.Completed

    # Retries

    async def test_a_retryable_failure_is_tried_again_from_the_same_base(
        self, bench: Bench
    ) -> None:
        plan = chain_of(writes(base=1), state(failing_first(2)))
        result = await bench.start(plan, config(max_attempts=3))
        assert await final(bench, result) == {"base": 1, "tries": 3}
        record = (await bench.history(result.run_id)).states[sid("s1")]
        assert (record.attempts, record.charged) == (3, 3)
        entered = [
            envelope.event.Kernel.StateEntered
            for envelope in await bench.events(result.run_id)
            if name_of(envelope) == "StateEntered"
        ][1:]
        assert [e.attempt for e in entered] == [0, 1, 2]
        assert len({e.base_snapshot_id for e in entered}) == 1

    @pytest.mark.parametrize(("allowed", "tries"), [(0, 1), (1, 1), (2, 2), (3, 3)])
    async def test_no_more_attempts_are_made_than_allowed(
        self, bench: Bench, allowed: int, tries: int
    ) -> None:
        seen: list[int] = []
        plan = chain_of(writes(a=1), state(failing_first(9, seen)), writes(never=1))
        result = await bench.start(plan, config(max_attempts=allowed))
        assert result.phase is RunPhase.Failed
        assert len(seen) == tries
        assert sid("s2") not in (await bench.history(result.run_id)).states
        assert await final(bench, result) == {"a": 1}

    async def test_a_failure_that_is_not_retryable_ends_the_run(self, bench: Bench) -> None:
        plan = chain_of(state(raising(failure(retryable=False))))
        result = await bench.start(plan, config(max_attempts=5))
        assert result.phase is RunPhase.Failed
        assert result.final_snapshot_id is None
        assert (await bench.names(result.run_id))[-2:] == ["StateFailed", "RunCompleted"]

    async def test_a_backoff_is_waited_for_and_grows_to_its_cap(self, bench: Bench) -> None:
        backoff = BackoffPolicy(
            Exponential=Exponential(
                base_delay=Duration.from_millis(1), max_delay=Duration.from_millis(3)
            )
        )
        assert [backoff.delay_seconds(n) for n in range(4)] == [0.001, 0.002, 0.003, 0.003]
        plan = chain_of(state(failing_first(3)))
        result = await bench.start(plan, config(max_attempts=4, backoff=backoff))
        assert result.phase is RunPhase.Completed

    async def test_facts_of_a_failed_attempt_are_kept(self, bench: Bench) -> None:
        tries: list[Json] = []

        async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            answer = await io.call(ask({"try": 1}, "k"))
            tries.append(answer.response)
            if len(tries) == 1:
                raise failure()

        result = await bench.start(chain_of(reads(handle)), config(max_attempts=2))
        assert result.phase is RunPhase.Completed
        assert tries == [{"try": 1}] * 2
        assert len(bench.world.calls) == 1

    async def test_a_retryable_transport_failure_is_asked_again(self, bench: Bench) -> None:
        answers: list[Json] = []
        info = error_info("exec_failed", "failed").model_copy(update={"retryable": True})

        async def answer(call: IoCall, env: LiveIoEnv) -> Json:
            answers.append(env.attempt)
            if env.attempt == 0:
                raise TransportFailure(info)
            return None

        bench.world.answer = answer
        result = await bench.start(chain_of(reads(call_out)), config(max_attempts=2))
        assert result.phase is RunPhase.Completed
        assert answers == [0, 1]

    # Skipping and profiles

    async def test_a_state_with_a_skip_tag_completes_without_its_handler(
        self, bench: Bench
    ) -> None:
        skipped = state(raising(AssertionError("called")), tags=("report", "slow"))
        result = await bench.start(chain_of(writes(a=1), skipped), config(skip=("slow",)))
        assert result.phase is RunPhase.Completed
        assert await final(bench, result) == {"a": 1}
        record = (await bench.history(result.run_id)).states[sid("s1")]
        assert record.snapshot_id == record.base_snapshot_id

    @pytest.mark.parametrize(
        ("profile", "kept"), [(EventProfile.Minimal, False), (EventProfile.Normal, True)]
    )
    async def test_the_minimal_profile_keeps_only_the_engines_events(
        self, bench: Bench, profile: EventProfile, *, kept: bool
    ) -> None:
        async def emit(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await rec.emit(DomainEvent(name="saved", payload=None))
            await io.now_millis()

        result = await bench.start(chain_of(state(emit)), config(profile=profile))
        names = await bench.names(result.run_id)
        assert ("saved" in names) == kept
        assert {EVENT_DRIVER, "fact_recorded"} <= set(names)

    async def test_a_state_that_emits_an_engines_event_fails(self, bench: Bench) -> None:
        async def emit(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            await rec.emit(DomainEvent(name=EVENT_DRIVER, payload={"driver_id": "x"}))

        result = await bench.start(chain_of(state(emit)))
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.code == "event_name_reserved"
        assert len((await bench.history(result.run_id)).drivers) == 1

    # What a failure leaves

    async def test_a_failure_snapshot_shows_the_context_at_the_failure(self, bench: Bench) -> None:
        result = await bench.start(chain_of(state(raising(failure(), half=1))), initial={"k": 1})
        (failed,) = await failures(bench, result.run_id)
        assert failed.failure_snapshot_id is not None
        data = await bench.store.get(failed.failure_snapshot_id)
        assert parse_canonical(data) == {"half": 1, "k": 1}

    async def test_a_failure_snapshot_with_a_secret_is_null(self, bench: Bench) -> None:
        result = await bench.start(chain_of(state(raising(failure(), token=CANARY))))
        (failed,) = await failures(bench, result.run_id)
        assert failed.failure_snapshot_id is None

    async def test_a_secret_in_the_context_fails_the_state_with_its_place(
        self, bench: Bench
    ) -> None:
        result = await bench.start(chain_of(writes(note={"text": CANARY})))
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.code == "secrets_detected"
        assert failed.error.info.details["pointer"] == "/note/text"
        assert failed.failure_snapshot_id is None

    async def test_an_error_is_stored_without_its_secrets(self, bench: Bench) -> None:
        error = failure(
            "exec_failed",
            f"refused {CANARY}",
            details={"program_path": CANARY, "stderr": CANARY, "exit_code": 3},
        )
        result = await bench.start(chain_of(state(raising(error))))
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.message == WITHHELD_MESSAGE
        assert failed.error.info.details == {"exit_code": 3}
        assert CANARY not in str(await bench.events(result.run_id))

    async def test_an_error_about_a_file_whose_name_is_no_text_is_stored(
        self, bench: Bench
    ) -> None:
        name = os.fsdecode(b"/etc/\xff")
        result = await bench.start(chain_of(state(raising(failure(message=f"no file {name}")))))
        assert result.phase is RunPhase.Failed
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.message == "no file /etc/\\udcff"

    @pytest.mark.parametrize(
        "changes", [{"message": 5}, {"retryable": "yes"}, {"category": "None"}, {"code": None}]
    )
    async def test_a_failure_whose_record_is_none_is_a_panic(
        self, bench: Bench, changes: dict[str, Any]
    ) -> None:
        broken = failure()
        broken.info = broken.info.model_copy(update=changes)
        result = await bench.start(chain_of(state(raising(broken))))
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.code == "state_panicked"
        assert failed.error.info.details == {"exception": "StateFailure"}

    async def test_an_unexpected_exception_is_a_panic_without_its_text(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        result = await bench.start(
            chain_of(state(raising(ZeroDivisionError(CANARY)))), config(max_attempts=3)
        )
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.code == "state_panicked"
        assert failed.error.info.details == {"exception": "ZeroDivisionError"}
        assert CANARY not in str(await bench.events(result.run_id)) + caplog.text

    async def test_a_handler_without_an_outcome_fails(self, bench: Bench) -> None:
        class Silent(FunctionState):
            async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> Any:
                return None

        result = await bench.start(chain_of(Silent(state().function, state().declared)))
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.code == "state_outcome_invalid"

    async def test_a_value_that_the_context_refuses_fails_the_state(self, bench: Bench) -> None:
        async def write(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            odd: Any = 1.5
            ctx.write(ContextKey("k"), odd)

        result = await bench.start(chain_of(state(write)))
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.code == "context_serialize_failed"

    async def test_a_key_that_the_context_refuses_fails_the_state(self, bench: Bench) -> None:
        async def write(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ContextKey("\ud800"), 1)

        result = await bench.start(chain_of(state(write)))
        (failed,) = await failures(bench, result.run_id)
        assert failed.error.info.code == "context_serialize_failed"

    # Handlers with tasks of their own

    async def test_a_handler_may_call_from_tasks_of_its_own(self, bench: Bench) -> None:
        async def fan_out(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            async def one(number: int) -> None:
                answer = await io.call(ask(number))
                ctx.write(ContextKey(f"k{number}"), answer.response)
                await rec.emit(DomainEvent(name="done", payload=number))

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(one, number)

        result = await bench.start(chain_of(reads(fan_out)))
        assert await final(bench, result) == {f"k{number}": number for number in range(20)}
        assert (await bench.names(result.run_id)).count("fact_recorded") == 20

    @pytest.mark.parametrize(
        ("errors", "code", "retryable"),
        [
            ([failure("one")], "one", True),
            ([failure("one"), failure("two", retryable=False)], "two", False),
            ([failure("one"), ValueError("x")], "state_panicked", False),
        ],
    )
    async def test_failures_of_a_handlers_tasks_are_told_as_its_own(
        self, bench: Bench, errors: Sequence[Exception], code: str, *, retryable: bool
    ) -> None:
        group = ExceptionGroup("tasks", [ExceptionGroup("inner", list(errors))])
        result = await bench.start(chain_of(state(raising(group))))
        (failed,) = await failures(bench, result.run_id)
        assert (failed.error.info.code, failed.error.info.retryable) == (code, retryable)

    # Contexts of graphs

    async def test_a_state_sees_only_what_its_ancestors_wrote(self, bench: Bench) -> None:
        seen: dict[str, list[str]] = {}

        def look(name: str) -> FunctionState:
            async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
                seen[name] = sorted(ctx.dump())
                ctx.write(ContextKey(name), 1)

            return state(handle)

        plan = plan_of({name: look(name) for name in "abcd"}, "a>b>d", "a>c>d")
        result = await bench.start(plan, initial={"i": 1})
        assert seen == {
            "a": ["i"],
            "b": ["a", "i"],
            "c": ["a", "i"],
            "d": ["a", "b", "c", "i"],
        }
        assert sorted(await final(bench, result)) == ["a", "b", "c", "d", "i"]

    async def test_the_final_snapshot_merges_all_ends(self, bench: Bench) -> None:
        plan = plan_of({"a": writes(a=1), "b": writes(b=1), "c": writes(c=1)}, "a>b", "a>c")
        assert await final(bench, await bench.start(plan)) == {"a": 1, "b": 1, "c": 1}

    async def test_a_conflict_fails_the_state_that_joins_it(self, bench: Bench) -> None:
        plan = plan_of({"a": writes(x=1), "b": writes(x=2), "c": writes(never=1)}, "a>c", "b>c")
        result = await bench.start(plan, config(max_attempts=3))
        assert result.phase is RunPhase.Failed
        (failed,) = await failures(bench, result.run_id)
        assert failed.state_id == sid("c")
        assert failed.error.info.code == "context_write_conflict"
        assert failed.error.info.details == {"key": "x", "states": [sid("a"), sid("b")]}

    async def test_a_conflict_that_nothing_joins_fails_the_run_at_its_end(
        self, bench: Bench
    ) -> None:
        plan = ExecutionPlan(
            OpId("demo"), StateGraph(plan_of({"a": writes(x=1), "b": writes(x=2)}).graph.states, ())
        )
        result = await bench.start(plan)
        assert result.phase is RunPhase.Failed
        names = await bench.names(result.run_id)
        assert names[-2:] == [EVENT_CONTEXT_CONFLICT, "RunCompleted"]
        failure = (await bench.history(result.run_id)).failure
        assert failure is not None
        assert (failure.info.code, failure.state_id) == ("context_write_conflict", None)

    # What a start refuses

    @pytest.mark.parametrize(
        ("broken", "code", "details"),
        [
            ({"plan": ExecutionPlan(OpId("demo"), StateGraph((), ()))}, "invalid_plan",
             {"reason": "EmptyPlan"}),
            ({"plan": CIRCLE}, "invalid_plan", None),
            ({"plan": ExecutionPlan(OpId("demo"), NO_SEQUENCE)}, "invalid_plan",
             {"reason": "states and edges are sequences"}),
            ({"plan": ExecutionPlan(OpId("demo"), NO_ID)}, "invalid_plan",
             {"reason": "a state's id is no StateId", "state_id": "No Id"}),
            ({"manifest_id": SOME_ID}, "manifest_mismatch", {"field": "manifest_id"}),
            ({"run_config": config(max_attempts=7)}, "manifest_mismatch", {"field": "run_config"}),
        ],
    )  # fmt: skip
    async def test_a_start_that_contradicts_itself_stores_nothing(
        self, bench: Bench, broken: dict[str, Any], code: str, details: Json
    ) -> None:
        good = start_of(chain_of(state()), run_id=RunId.random())
        info = await refused(bench, good._replace(**broken))
        assert info.code == code
        if details is not None:
            assert info.details == details

    @pytest.mark.parametrize(
        ("declared", "raised"),
        [
            (ValueError("no declaration"), "ValueError"),
            (SystemExit(0), "SystemExit"),
            (None, "AttributeError"),
            (meta(idempotency=os.fsdecode(b"\xff")), "CanonicalError"),
        ],
    )
    async def test_a_state_without_a_declaration_is_refused_by_its_id(
        self, bench: Bench, declared: Any, raised: str
    ) -> None:
        class Undeclared(FunctionState):
            def meta(self) -> StateMeta:
                if isinstance(declared, BaseException):
                    raise declared
                return declared  # type: ignore[no-any-return]

        plan = chain_of(state(), Undeclared(nothing, meta()))
        info = await refused(bench, start_of(plan, run_id=RunId.random()))
        assert info.code == "invalid_plan"
        assert isinstance(info.details, dict)
        assert (info.details["state_id"], info.details["exception"]) == (sid("s1"), raised)

    async def test_a_manifest_of_another_op_is_refused(self, bench: Bench) -> None:
        good = start_of(chain_of(state()))
        plan = ExecutionPlan(OpId("another"), good.plan.graph)
        run = StartRun(good.manifest, good.manifest_id, plan, good.run_config, good.initial_context)
        info = await refused(bench, run)
        assert (info.code, info.details) == ("manifest_mismatch", {"field": "op_id"})

    @pytest.mark.parametrize(
        ("run_config", "field"),
        [
            (config(checkpointing=ContextCheckpointing.custom("x")), "context_checkpointing"),
            (config(io_mode=IoMode.Replay), "replay_of"),
        ],
    )
    async def test_a_config_that_is_not_supported_is_refused(
        self, bench: Bench, run_config: Any, field: str
    ) -> None:
        info = await refused(bench, start_of(chain_of(state()), run_config))
        assert (info.code, info.details) == ("config_unsupported", {"field": field})

    async def test_a_secret_in_manifest_context_or_policy_is_refused(self, bench: Bench) -> None:
        plan = chain_of(state())
        for run in (start_of(plan, params={"a": CANARY}), start_of(plan, initial={"a": CANARY})):
            assert (await refused(bench, run)).code == "secrets_detected"
        bench.policy = {"note": CANARY}
        assert (await refused(bench, start_of(plan))).code == "secrets_detected"

    async def test_an_initial_context_without_canonical_form_is_the_engines_failure(
        self, bench: Bench
    ) -> None:
        class Odd:
            def dump(self) -> dict[str, Any]:
                return {"k": 1.5}

            read = write = delete = dump

        good = start_of(chain_of(state()))
        odd: Any = Odd()
        run = StartRun(good.manifest, good.manifest_id, good.plan, good.run_config, odd)
        with pytest.raises(RunFailure) as failed:
            await bench.engine().start(bench.stores, run)
        assert failed.value.error.variant == "Context"
        assert await bench.store.list_runs() == []

    # Run ids

    async def test_the_same_run_id_and_manifest_return_the_finished_run(self, bench: Bench) -> None:
        run_id = RunId.random()
        plan = chain_of(reads(call_out))
        first = await bench.start(plan, run_id=run_id)
        commits = bench.store.commits
        assert await bench.start(plan, run_id=run_id) == first
        assert bench.store.commits == commits
        assert len(bench.world.calls) == 1

    @pytest.mark.parametrize("same", [True, False])
    async def test_a_run_that_somebody_else_begins_meanwhile_is_that_run(
        self, bench: Bench, same: bool
    ) -> None:
        faulty, run_id = FaultyStore(bench.store), RunId.random()
        stores = Stores(events=faulty, artifacts=bench.store)

        async def begin_before(events: Sequence[EventEnvelope]) -> None:
            faulty.before_append = None
            await bench.start(chain_of(writes(a=1)), run_id=run_id)

        faulty.before_append = begin_before
        params: Json = None if same else "another"
        late = start_of(chain_of(writes(a=1)), run_id=run_id, params=params)
        if same:
            result = await bench.engine().start(stores, late)
            assert result == (await bench.history(run_id)).result
            return
        with pytest.raises(RunFailure) as failed:
            await bench.engine().start(stores, late)
        assert failed.value.info.code == "run_exists"

    async def test_the_same_run_id_and_another_manifest_is_refused(self, bench: Bench) -> None:
        run_id = RunId.random()
        plan = chain_of(state())
        await bench.start(plan, run_id=run_id)
        with pytest.raises(RunFailure) as failed:
            await bench.start(plan, run_id=run_id, params={"other": 1})
        assert failed.value.info.code == "run_exists"

    # The world

    async def test_injected_sources_make_two_runs_the_same(self, store: Store) -> None:
        async def look(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
            ctx.write(ContextKey("now"), await io.now_millis())
            ctx.write(ContextKey("random"), (await io.random_bytes(4)).hex())

        ends: set[ArtifactId | None] = set()
        for _ in range(2):
            bench = Bench(store, sources=scripted_sources())
            ends.add((await bench.start(chain_of(state(look)))).final_snapshot_id)
        assert len(ends) == 1

    async def test_a_handler_may_catch_what_a_call_raises_and_go_on(self, bench: Bench) -> None:
        async def careful(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> Any:
            try:
                await io.call(ask(namespace="elsewhere"))
            except IoFailure as failed:
                ctx.write(ContextKey("code"), str(failed.info.code))
            return DONE

        result = await bench.start(chain_of(reads(careful)))
        assert await final(bench, result) == {"code": "io_unknown_namespace"}


async def refused(bench: Bench, run: StartRun) -> ErrorInfo:
    """What the engine says of a start that it refuses, with nothing stored."""
    commits = bench.store.commits
    with pytest.raises(RunFailure) as failed:
        await bench.engine().start(bench.stores, run)
    assert await bench.store.list_runs() == []
    assert bench.store.commits == commits
    assert not await bench.store.exists(run.manifest_id)
    return failed.value.info
