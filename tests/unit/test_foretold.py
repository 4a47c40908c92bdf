"""Answers told beforehand: nothing is stored but what came true, and nothing unscanned."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import IoFailure, StorageFailure, TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import ForetellingTransport, LiveIoEnv, TransportReply
from mfm_ops.runtime.live_io import LiveIo
from mfm_ops.runtime.router import Router, TransportRegistry
from mfm_ops.storage.memory import MemoryStore
from tests.support import CANARY, IoBench, ask

pytestmark = pytest.mark.anyio

Foretell = Callable[[TransportReply], None]
Act = Callable[[Foretell], Awaitable[TransportReply]]


@dataclass
class Seer(ForetellingTransport):
    """A transport that does as it is told, with the means to foretell."""

    act: Act

    @property
    def namespace_group(self) -> str:
        return "test"

    def make(self, env: LiveIoEnv) -> "Seer":
        return self

    async def call(self, call: IoCall) -> TransportReply:
        raise AssertionError("it can foretell, so it is asked to")

    async def call_foretelling(self, call: IoCall, foretell: Foretell) -> TransportReply:
        return await self.act(foretell)


@pytest.fixture
def bench() -> IoBench:
    return IoBench(MemoryStore())


def seen_by(bench: IoBench, act: Act) -> LiveIo:
    env = bench.env(SideEffectKind.ReadOnlyIo)
    return LiveIo(bench.run, Router(TransportRegistry([Seer(act)]), env), env)


def telling(first: TransportReply, then: TransportReply | Exception) -> Act:
    async def act(foretell: Foretell) -> TransportReply:
        foretell(first)
        if isinstance(then, Exception):
            raise then
        return then

    return act


async def recorded_meta(bench: IoBench) -> dict[str, Any]:
    (fact,) = bench.run.facts
    assert isinstance(fact.meta, dict)
    return fact.meta


async def test_what_comes_true_is_recorded_as_if_it_had_not_been_foretold(bench: IoBench) -> None:
    answer: Json = {"b": [1], "a": "x"}
    told = TransportReply(answer, {"program": "/p"})
    io = seen_by(bench, telling(told, TransportReply(answer, {**told.meta, "duration_ms": 3})))
    result = await io.call(ask())
    assert (result.response, result.recorded_payload_id) == (answer, artifact_id_for_json(answer))
    meta = await recorded_meta(bench)
    assert (meta["program"], meta["duration_ms"]) == ("/p", 3)


async def test_another_answer_than_the_foretold_one_is_what_is_recorded(bench: IoBench) -> None:
    told = TransportReply([1], {"program": "/p", "size": 1})
    io = seen_by(bench, telling(told, TransportReply([1, 2], {"size": 2})))
    result = await io.call(ask())
    assert result.response == [1, 2]
    meta = await recorded_meta(bench)
    assert meta["size"] == 2
    assert "program" not in meta


async def test_nothing_is_stored_before_the_call_has_returned(bench: IoBench) -> None:
    async def act(foretell: Foretell) -> TransportReply:
        reply = TransportReply(["early"])
        foretell(reply)
        assert not await bench.store.exists(artifact_id_for_json(["early"]))
        assert len(bench.run.facts) == 0
        assert await bench.store.head_seq(bench.run_id) == 0
        return reply

    assert (await seen_by(bench, act).call(ask())).response == ["early"]


async def test_of_a_call_that_fails_nothing_foretold_is_stored(bench: IoBench) -> None:
    failed = TransportFailure(error_info("exec_failed", "the program failed"))
    io = seen_by(bench, telling(TransportReply(["early"]), failed))
    with pytest.raises(IoFailure):
        await io.call(ask())
    with pytest.raises(StorageFailure):
        await bench.store.get(artifact_id_for_json(["early"]))
    assert len(bench.run.facts) == 0


async def test_what_is_changed_after_it_was_foretold_is_recorded_as_it_was_scanned(
    bench: IoBench,
) -> None:
    answer: list[Json] = ["clean"]
    limits: dict[str, Json] = {"cpu": "none"}

    async def act(foretell: Foretell) -> TransportReply:
        reply = TransportReply(answer, {"limits": limits})
        foretell(reply)
        answer.append(CANARY)
        limits["cpu"] = CANARY
        return reply

    assert (await seen_by(bench, act).call(ask())).response == ["clean"]
    assert (await recorded_meta(bench))["limits"] == {"cpu": "none"}


async def test_a_secret_is_refused_when_it_is_the_answer_and_not_before(bench: IoBench) -> None:
    secret = TransportReply({"password": CANARY})
    io = seen_by(bench, telling(secret, TransportReply(["clean"])))
    assert (await io.call(ask(key="a"))).response == ["clean"]
    with pytest.raises(IoFailure) as refused:
        await seen_by(bench, telling(secret, secret)).call(ask(key="b"))
    assert refused.value.info.code == "secrets_detected"


async def test_a_late_remark_that_may_not_be_stored_takes_all_remarks_along(bench: IoBench) -> None:
    told = TransportReply([1], {"program": "/p"})
    io = seen_by(bench, telling(told, TransportReply([1], {**told.meta, "password": CANARY})))
    await io.call(ask())
    meta = await recorded_meta(bench)
    assert meta["meta_refused"] == "secrets_detected"
    assert "program" not in meta


async def test_the_last_of_several_foretold_answers_counts(bench: IoBench) -> None:
    async def act(foretell: Foretell) -> TransportReply:
        foretell(TransportReply(1))
        last = TransportReply(12)
        foretell(last)
        return last

    assert (await seen_by(bench, act).call(ask())).response == 12


async def test_a_long_answer_is_recorded_though_it_is_not_scanned_early(bench: IoBench) -> None:
    reply = TransportReply("x" * 200_000)
    assert (await seen_by(bench, telling(reply, reply)).call(ask())).response == reply.response
