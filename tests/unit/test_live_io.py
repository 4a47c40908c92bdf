"""`mfm_ops.runtime.live_io`: each answer of the world is recorded once, before anybody sees it."""

from typing import Any

import anyio
import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import MAX_DEPTH, Json, artifact_id_for_json, parse_canonical
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import IoFailure, StorageFailure, TransportFailure
from mfm_ops.machine.events import EVENT_CANCEL_REQUESTED, EVENT_IO_INTENT, EVENT_IO_REFUSED
from mfm_ops.machine.ids import ArtifactId, FactKey
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from mfm_ops.runtime.live_io import EffectInDoubt
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.writer import CancelRequested
from mfm_ops.storage.memory import MemoryStore
from tests.support import CANARY, FaultyStore, IoBench, ScriptedFactory, ask, domain

pytestmark = pytest.mark.anyio

EFFECT = SideEffectKind.ApplySideEffect
PURE = SideEffectKind.Pure
KEY = FactKey("k")


@pytest.fixture
def bench() -> IoBench:
    return IoBench(MemoryStore())


def answering(response: Any, meta: dict[str, Any] | None = None) -> ScriptedFactory:
    async def answer(call: IoCall, env: LiveIoEnv) -> TransportReply:
        return TransportReply(response, meta or {})

    return ScriptedFactory(answer)


def raising(error: Exception) -> ScriptedFactory:
    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        raise error

    return ScriptedFactory(answer)


def far_side_failed(*, retryable: bool = True) -> TransportFailure:
    info = error_info("exec_failed", "the program failed")
    return TransportFailure(info.model_copy(update={"retryable": retryable}))


async def code_of(awaited: Any) -> str:
    with pytest.raises(IoFailure) as refused:
        await awaited
    return str(refused.value.info.code)


async def payload(bench: IoBench, number: int) -> dict[str, Any]:
    envelopes = await bench.store.read_range(bench.run_id, number, number)
    found: dict[str, Any] = envelopes[0].event.Domain.payload
    return found


# Recording


async def test_an_answer_is_durable_before_the_handler_sees_it(bench: IoBench) -> None:
    result = await bench.io().call(ask({"q": 1}, "k"))
    assert result.response == {"q": 1}
    assert result.recorded_payload_id == artifact_id_for_json({"q": 1})
    assert await bench.names() == ["fact_recorded"]
    recorded = await payload(bench, 1)
    assert recorded["key"] == "k"
    assert recorded["payload_id"] == result.recorded_payload_id
    assert await bench.store.get(ArtifactId(recorded["payload_id"])) == b'{"q":1}'


async def test_the_request_is_an_artifact_that_the_fact_names(bench: IoBench) -> None:
    await bench.io().call(ask({"q": 1}))
    request_id = (await payload(bench, 1))["meta"]["request_id"]
    stored = parse_canonical(await bench.store.get(ArtifactId(request_id)))
    assert stored == {"namespace": "test", "request": {"q": 1}}


async def test_a_facts_meta_names_transport_request_and_policy(bench: IoBench) -> None:
    policy = ArtifactId("c" * 64)
    world = answering(1, {"duration_ms": 5, "transport": "a lie", "request_id": "a lie"})
    bench = IoBench(MemoryStore(), world, policy_id=policy)
    await bench.io().call(ask("?", namespace="test.sub"))
    assert (await payload(bench, 1))["meta"] == {
        "duration_ms": 5,
        "transport": "test.sub",
        "request_id": artifact_id_for_json({"namespace": "test.sub", "request": "?"}),
        "policy_digest": policy,
    }


async def test_events_of_a_call_say_whose_attempt_it_was(bench: IoBench) -> None:
    io = bench.io(EFFECT, attempt=4, name="s")
    await io.call(ask())
    for envelope in await bench.store.read_range(bench.run_id, 1):
        assert (envelope.state_id, envelope.attempt) == ("demo.main.s", 4)


async def test_the_handler_sees_an_answer_as_a_replay_would() -> None:
    bench = IoBench(MemoryStore(), answering({"b": 1, "a": {"d": 2, "c": 3}}))
    first = await bench.io().call(ask())
    again = await bench.io().call(ask())
    assert repr(first.response) == repr(again.response) == "{'a': {'c': 3, 'd': 2}, 'b': 1}"


async def test_an_answer_that_its_transport_changes_later_stays_as_recorded() -> None:
    answer: list[Json] = [1]
    bench = IoBench(MemoryStore(), answering(answer))
    result = await bench.io().call(ask())
    answer.append(2)
    assert result.response == [1]


async def test_a_request_that_its_caller_changes_meanwhile_is_asked_as_recorded() -> None:
    request: dict[str, Json] = {"q": 1}
    asked: list[Json] = []

    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        request["q"] = 2
        asked.append(call.request)
        return None

    bench = IoBench(MemoryStore(), ScriptedFactory(answer))
    await bench.io().call(ask(request))
    assert asked == [{"q": 1}]


# Keys


async def test_a_bound_key_returns_the_recorded_answer_without_a_call(bench: IoBench) -> None:
    await bench.io().call(ask("q", "k"))
    again = await bench.io(attempt=1).call(ask("q", "k"))
    assert again.response == "q"
    assert len(bench.world.calls) == 1
    assert await bench.names() == ["fact_recorded"]


async def test_a_bound_key_with_another_request_is_a_mismatch(bench: IoBench) -> None:
    await bench.io().call(ask("q", "k"))
    assert await code_of(bench.io().call(ask("r", "k"))) == "fact_request_mismatch"
    other_namespace = ask("q", "k", namespace="test.other")
    assert await code_of(bench.io().call(other_namespace)) == "fact_request_mismatch"
    assert len(bench.world.calls) == 1


async def test_a_key_bound_to_a_value_answers_no_call(bench: IoBench) -> None:
    await bench.io().record_value(KEY, "q")
    assert await code_of(bench.io().call(ask("q", "k"))) == "fact_request_mismatch"


async def test_without_a_key_the_same_question_has_the_same_answer_whatever_came_between(
    bench: IoBench,
) -> None:
    await bench.io().call(ask("q"))
    await bench.io().call(ask("r"))
    await bench.io(attempt=1).call(ask("q"))
    assert [call.request for call in bench.world.calls] == ["q", "r"]


async def test_without_a_key_two_states_ask_for_themselves(bench: IoBench) -> None:
    await bench.io(name="a").call(ask("q"))
    await bench.io(name="b").call(ask("q"))
    assert len(bench.world.calls) == 2


async def test_a_key_that_holds_a_secret_is_refused_before_the_call(bench: IoBench) -> None:
    assert await code_of(bench.io().call(ask("q", CANARY))) == "secrets_detected"
    assert await code_of(bench.io().record_value(FactKey(CANARY), 1)) == "secrets_detected"
    assert bench.world.calls == []


async def test_a_key_without_canonical_form_is_refused(bench: IoBench) -> None:
    refused = bench.io().record_value(FactKey("\ud800"), 1)
    assert await code_of(refused) == "io_request_invalid"
    await bench.io().record_value(KEY, 1)


async def test_a_key_that_is_no_text_is_refused(bench: IoBench) -> None:
    number: Any = 5
    assert await code_of(bench.io().record_value(number, 1)) == "io_request_invalid"


async def test_concurrent_calls_with_one_key_run_once() -> None:
    begun, go = anyio.Event(), anyio.Event()

    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        begun.set()
        await go.wait()
        return "a"

    bench = IoBench(MemoryStore(), ScriptedFactory(answer))
    answers: list[Json] = []

    async def call() -> None:
        answers.append((await bench.io().call(ask("q", "k"))).response)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(call)
        await begun.wait()
        go.set()
    assert answers == ["a"] * 5
    assert len(bench.world.calls) == 1


async def test_when_the_first_of_concurrent_calls_fails_the_next_one_asks() -> None:
    begun, go = anyio.Event(), anyio.Event()
    failures = [far_side_failed()]

    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        begun.set()
        await go.wait()
        if failures:
            raise failures.pop()
        return "a"

    bench = IoBench(MemoryStore(), ScriptedFactory(answer))
    outcomes: list[Json] = []

    async def call() -> None:
        try:
            outcomes.append((await bench.io().call(ask("q", "k"))).response)
        except IoFailure as failure:
            outcomes.append(str(failure.info.code))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(call)
        await begun.wait()
        go.set()
    assert outcomes == ["exec_failed", "a", "a"]


# Before a call


async def test_a_pure_state_reaches_no_transport(bench: IoBench) -> None:
    assert await code_of(bench.io(PURE).call(ask())) == "io_pure_state"
    assert bench.world.made == 0


async def test_a_request_with_a_secret_never_reaches_the_transport(bench: IoBench) -> None:
    with pytest.raises(IoFailure) as refused:
        await bench.io(EFFECT).call(ask({"header": f"Bearer {CANARY}"}))
    assert refused.value.info.code == "secrets_detected"
    assert refused.value.info.details["pointer"] == "/request/header"
    assert bench.world.calls == []
    assert await bench.names() == []
    assert CANARY not in str(refused.value.info)


async def test_a_request_without_canonical_form_is_refused(bench: IoBench) -> None:
    request: dict[str, Any] = {"a": 1}
    call = ask(request)
    request["a"] = 1.5
    assert await code_of(bench.io().call(call)) == "io_request_invalid"


async def test_an_unknown_namespace_is_refused(bench: IoBench) -> None:
    unknown = bench.io().call(ask(namespace="elsewhere"))
    assert await code_of(unknown) == "io_unknown_namespace"


async def test_an_effect_is_announced_durably_before_it_happens() -> None:
    seen: list[list[str]] = []

    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        seen.append(await desk.names())
        return None

    desk = IoBench(MemoryStore(), ScriptedFactory(answer))
    await desk.io(EFFECT).call(ask("q", "k"))
    assert seen == [[EVENT_IO_INTENT]]
    assert await desk.names() == [EVENT_IO_INTENT, "fact_recorded"]
    announced, recorded = await payload(desk, 1), await payload(desk, 2)
    assert announced == {"key": "k", "request_id": recorded["meta"]["request_id"]}


async def test_an_effect_that_cannot_be_announced_does_not_happen() -> None:
    store = FaultyStore(MemoryStore())
    store.failing = True
    bench = IoBench(store)
    with pytest.raises(StorageFailure):
        await bench.io(EFFECT).call(ask())
    assert bench.world.calls == []


async def test_a_read_needs_no_announcement(bench: IoBench) -> None:
    await bench.io().call(ask())
    assert await bench.names() == ["fact_recorded"]


async def test_an_effects_transport_is_told_the_idempotency_key(bench: IoBench) -> None:
    await bench.io(EFFECT, idempotency_key="i-7").call(ask())
    assert bench.world.envs[0].idempotency_key == "i-7"


# Failed calls


@pytest.mark.parametrize("side_effects", [SideEffectKind.ReadOnlyIo, EFFECT])
async def test_a_transport_failure_is_no_fact_and_the_next_call_asks_again(
    side_effects: SideEffectKind,
) -> None:
    bench = IoBench(MemoryStore(), raising(far_side_failed()))
    io = bench.io(side_effects)
    with pytest.raises(IoFailure) as failed:
        await io.call(ask("q", "k"))
    assert failed.value.error.variant == "Transport"
    assert failed.value.info.code == "exec_failed"
    assert await io.get_recorded_fact(KEY) is None
    assert "fact_recorded" not in await bench.names()
    bench.world.answer = answering("a").answer
    assert (await io.call(ask("q", "k"))).response == "a"


@pytest.mark.parametrize(("limited", "variant"), [(True, "RateLimited"), (False, "Transport")])
async def test_a_far_side_that_wants_to_be_asked_less_often_is_told_apart(
    limited: bool, variant: str
) -> None:
    info = far_side_failed().info
    bench = IoBench(MemoryStore(), raising(TransportFailure(info, rate_limited=limited)))
    with pytest.raises(IoFailure) as failed:
        await bench.io().call(ask())
    assert (failed.value.error.variant, failed.value.info) == (variant, info)


async def test_a_failed_effect_without_a_key_is_not_tried_again() -> None:
    bench = IoBench(MemoryStore(), raising(far_side_failed(retryable=True)))
    with pytest.raises(IoFailure) as failed:
        await bench.io(EFFECT).call(ask())
    assert not failed.value.info.retryable
    with pytest.raises(IoFailure) as keyed:
        await bench.io(EFFECT, idempotency_key="i").call(ask())
    assert keyed.value.info.retryable


async def test_a_transport_that_crashes_fails_the_call_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = IoBench(MemoryStore(), raising(ValueError(CANARY)))
    with pytest.raises(IoFailure) as failed:
        await bench.io().call(ask())
    assert failed.value.info.code == "io_transport_crashed"
    assert failed.value.info.details == {"exception": "ValueError"}
    assert "unexpected exception" in caplog.text
    assert CANARY not in caplog.text + str(failed.value.info)


async def test_a_transport_that_returns_no_reply_has_crashed() -> None:
    class Mute(ScriptedFactory):
        def make(self, env: LiveIoEnv) -> Any:
            return self

        async def call(self, call: IoCall) -> None:
            """Returns nothing."""

    bench = IoBench(MemoryStore(), Mute())
    assert await code_of(bench.io().call(ask())) == "io_transport_crashed"


async def test_an_append_that_fails_leaves_the_key_free() -> None:
    store = FaultyStore(MemoryStore())
    bench = IoBench(store)
    store.failing = True
    io = bench.io()
    with pytest.raises(StorageFailure):
        await io.call(ask("q", "k"))
    assert await io.get_recorded_fact(KEY) is None


async def test_a_fact_that_is_written_as_the_run_is_cancelled_stays_bound(bench: IoBench) -> None:
    control = domain(bench.run_id, 1, EVENT_CANCEL_REQUESTED)
    await bench.store.append(bench.run_id, 0, [control])
    io = bench.io()
    with pytest.raises(CancelRequested):
        await io.call(ask("q", "k"))
    assert await bench.names() == [EVENT_CANCEL_REQUESTED, "fact_recorded"]
    assert await io.get_recorded_fact(KEY) is not None
    await io.call(ask("q", "k"))
    assert len(bench.world.calls) == 1


async def test_an_answer_that_came_is_recorded_though_its_caller_is_cancelled() -> None:
    scope = anyio.CancelScope()

    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        scope.cancel()
        return "a"

    bench = IoBench(MemoryStore(), ScriptedFactory(answer))
    with scope:
        await bench.io(EFFECT).call(ask("q", "k"))
    assert await bench.names() == [EVENT_IO_INTENT, "fact_recorded"]
    assert (await bench.io(EFFECT).call(ask("q", "k"))).response == "a"
    assert len(bench.world.calls) == 1


async def test_a_cancelled_call_leaves_its_key_to_others() -> None:
    begun = anyio.Event()

    async def answer(call: IoCall, env: LiveIoEnv) -> None:
        begun.set()
        await anyio.sleep_forever()

    bench = IoBench(MemoryStore(), ScriptedFactory(answer))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.io().call, ask("q", "k"))
        await begun.wait()
        tasks.cancel_scope.cancel()
    bench.world.answer = answering("a").answer
    assert (await bench.io().call(ask("q", "k"))).response == "a"


class NoRoomForArtifacts(FaultyStore):
    """Takes requests, and fails to store answers."""

    def stage(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        if kind.variant == "FactPayload":
            raise StorageFailure(self.full())
        return super().stage(kind, data)


async def test_an_effect_whose_answer_found_no_room_happens_no_second_time() -> None:
    bench = IoBench(NoRoomForArtifacts(MemoryStore()))
    io = bench.io(EFFECT)
    for _ in range(2):
        with pytest.raises(StorageFailure):
            await io.call(ask("q", "k"))
    assert len(bench.world.calls) == 1


# Answers that cannot be recorded


@pytest.mark.parametrize(
    ("response", "code", "pointer"),
    [
        ({"a": {"b": 1.5}}, "io_response_invalid", "/a/b"),
        ({"a": [0, 2**60]}, "io_response_invalid", "/a/1"),
        ({"note": ["x", CANARY]}, "secrets_detected", "/note/1"),
        ({CANARY: 1.5}, "io_response_invalid", ""),
    ],
)
async def test_an_answer_that_cannot_be_recorded_is_refused_with_its_place(
    response: Json, code: str, pointer: str
) -> None:
    bench = IoBench(MemoryStore(), answering(response))
    io = bench.io()
    with pytest.raises(IoFailure) as refused:
        await io.call(ask("q", "k"))
    assert refused.value.info.code == code
    assert not refused.value.info.retryable
    assert await bench.names() == [EVENT_IO_REFUSED]
    said = await payload(bench, 1)
    assert (said["key"], said["pointer"], said["code"]) == ("k", pointer, code)
    assert said["request_id"] == artifact_id_for_json({"namespace": "test", "request": "q"})
    assert await io.get_recorded_fact(KEY) is None
    assert CANARY not in str(said) + str(refused.value.info)


async def test_an_effect_whose_answer_cannot_be_recorded_is_in_doubt() -> None:
    bench = IoBench(MemoryStore(), answering({"a": CANARY}))
    io = bench.io(EFFECT)
    with pytest.raises(EffectInDoubt):
        await io.call(ask("q", "k"))
    assert list(io.in_doubt) == [KEY]
    assert await bench.names() == [EVENT_IO_INTENT, EVENT_IO_REFUSED]


@pytest.mark.parametrize("meta", [{"token": CANARY}, {"seconds": 1.5}, {1: 2}, None, "remark"])
async def test_a_remark_that_cannot_be_recorded_is_dropped_and_the_fact_is_kept(meta: Any) -> None:
    async def answer(call: IoCall, env: LiveIoEnv) -> TransportReply:
        return TransportReply("a", meta)

    bench = IoBench(MemoryStore(), ScriptedFactory(answer))
    assert (await bench.io().call(ask())).response == "a"
    recorded = (await payload(bench, 1))["meta"]
    assert recorded["meta_refused"] in {"secrets_detected", "io_response_invalid"}
    assert set(recorded) == {"meta_refused", "transport", "request_id"}


async def test_a_remark_names_no_policy() -> None:
    bench = IoBench(MemoryStore(), answering("a", {"policy_digest": "0" * 64, "took_ms": 1}))
    await bench.io().call(ask())
    recorded = (await payload(bench, 1))["meta"]
    assert set(recorded) == {"took_ms", "transport", "request_id"}


@pytest.mark.parametrize("depth", range(MAX_DEPTH - 8, MAX_DEPTH + 2))
async def test_a_remark_of_any_depth_keeps_the_fact(depth: int) -> None:
    deep: Json = 0
    for _ in range(depth):
        deep = [deep]
    bench = IoBench(MemoryStore(), answering("a", {"deep": deep}))
    assert (await bench.io().call(ask())).response == "a"
    assert await bench.names() == ["fact_recorded"]


# Values, time and randomness


async def test_a_recorded_value_is_a_fact(bench: IoBench) -> None:
    recorded = await bench.io(PURE).record_value(KEY, {"a": 1})
    assert recorded == artifact_id_for_json({"a": 1})
    assert await bench.io().get_recorded_fact(KEY) == recorded
    assert (await payload(bench, 1))["meta"] == {"source": "record_value"}


async def test_the_same_value_again_is_fine_and_another_is_a_conflict(bench: IoBench) -> None:
    io = bench.io()
    assert await io.record_value(KEY, 1) == await io.record_value(KEY, 1)
    assert await code_of(io.record_value(KEY, 2)) == "fact_payload_conflict"
    assert await bench.names() == ["fact_recorded"]


@pytest.mark.parametrize(
    ("value", "code"), [(1.5, "io_response_invalid"), (CANARY, "secrets_detected")]
)
async def test_a_value_that_cannot_be_recorded_is_refused(
    bench: IoBench, value: Any, code: str
) -> None:
    assert await code_of(bench.io().record_value(KEY, value)) == code
    assert await bench.names() == []


async def test_a_key_that_nobody_bound_has_no_fact(bench: IoBench) -> None:
    assert await bench.io().get_recorded_fact(KEY) is None


async def test_clock_and_randomness_are_facts_by_attempt_and_ordinal(bench: IoBench) -> None:
    io = bench.io(PURE, attempt=2, name="s")
    times = [await io.now_millis(), await io.now_millis()]
    data = await io.random_bytes(5)
    assert times[0] < times[1]
    place = f"run:{bench.run_id}|state:demo.main.s|attempt:2"
    keys = [(await payload(bench, number))["key"] for number in (1, 2, 3)]
    assert keys == [
        f"mfm:now_millis|{place}|ord:0",
        f"mfm:now_millis|{place}|ord:1",
        f"mfm:random_bytes|{place}|ord:0",
    ]
    persister = Persister(bench.store)
    assert (
        await persister.load_json(ArtifactId((await payload(bench, 1))["payload_id"])) == times[0]
    )
    assert await persister.load_bytes(ArtifactId((await payload(bench, 3))["payload_id"])) == data


async def test_the_same_ordinal_of_the_same_attempt_tells_the_same(bench: IoBench) -> None:
    first, again = bench.io(), bench.io()
    assert await first.now_millis() == await again.now_millis()
    assert await first.random_bytes(4) == await again.random_bytes(4)
    assert len(await bench.names()) == 2


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
async def test_random_bytes_are_as_many_as_were_asked_for(bench: IoBench, size: int) -> None:
    assert len(await bench.io().random_bytes(size)) == size


@pytest.mark.parametrize("size", [-1, (1 << 20) + 1])
async def test_a_size_out_of_bounds_is_refused(bench: IoBench, size: int) -> None:
    assert await code_of(bench.io().random_bytes(size)) == "io_size_invalid"


async def test_a_tasks_cancellation_between_calls_leaves_no_half_bound_clock() -> None:
    store = FaultyStore(MemoryStore())
    bench = IoBench(store)
    io = bench.io()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await io.now_millis()
    assert await bench.names() == ["fact_recorded"]
    assert len(bench.run.facts) == 1
