"""`mfm_ops.runtime.writer`: obeys control events and yields to a newer driver."""

from collections.abc import Sequence

import anyio
import pytest
from pydantic import ValidationError

from mfm_ops.machine import events as ev
from mfm_ops.machine.errors import RunFailure, StorageFailure
from mfm_ops.machine.events import DomainEvent, EventEnvelope, KernelEvent
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.runtime.writer import CancelRequested, RunWriter
from mfm_ops.storage.memory import MemoryStore
from tests.support import CANARY, FaultyStore, domain, name_of, sid

pytestmark = pytest.mark.anyio

RUN = RunId("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


def said(name: str) -> DomainEvent:
    return DomainEvent(name=name, payload=None)


class Desk:
    """A writer on a store that can fail, and another hand that writes to the same run."""

    def __init__(self) -> None:
        self.store = FaultyStore(MemoryStore())
        self.seen: list[str] = []
        self.writer = RunWriter(
            self.store,
            RUN,
            0,
            now_millis=lambda: 7,
            observer=lambda e: self.seen.append(name_of(e)),
        )

    def add(self, *names: str) -> None:
        for name in names:
            self.writer.add_domain(said(name))

    async def others(self, *events: tuple[str, dict[str, str | int] | None]) -> None:
        head = await self.store.head_seq(RUN)
        envelopes = [
            domain(RUN, seq, name, dict(payload) if payload else None)
            for seq, (name, payload) in enumerate(events, head + 1)
        ]
        await self.store.inner.append(RUN, head, envelopes)

    async def stored(self) -> list[str]:
        return [name_of(envelope) for envelope in await self.store.read_range(RUN, 1)]


async def test_what_is_added_waits_for_the_flush_and_shares_one_append() -> None:
    desk = Desk()
    desk.add("a", "b")
    assert await desk.stored() == []
    assert desk.writer.has_pending
    await desk.writer.flush()
    assert await desk.stored() == ["a", "b"]
    assert desk.store.commits == 1
    assert desk.writer.head_seq == 2
    assert not desk.writer.has_pending


async def test_a_flush_of_nothing_appends_nothing() -> None:
    desk = Desk()
    await desk.writer.flush()
    assert desk.store.commits == 0


async def test_an_event_of_an_attempt_says_whose_it_is() -> None:
    desk = Desk()
    desk.writer.add_domain(said("a"), sid("s"), 3)
    await desk.writer.flush()
    (envelope,) = await desk.store.read_range(RUN, 1)
    assert (envelope.state_id, envelope.attempt, envelope.ts_millis) == (sid("s"), 3, 7)


@pytest.mark.parametrize("now", [-1, 2**53])
async def test_an_event_with_a_time_that_nobody_could_read_is_not_stored(now: int) -> None:
    store = MemoryStore()
    writer = RunWriter(store, RUN, 0, now_millis=lambda: now)
    with pytest.raises(ValidationError):
        writer.add_kernel(KernelEvent.completed(sid("one"), ArtifactId("a" * 64)))
    await writer.flush()
    assert await store.head_seq(RUN) == 0


async def test_an_observer_sees_events_when_they_are_durable() -> None:
    desk = Desk()
    desk.add("a")
    assert desk.seen == []
    await desk.writer.flush()
    assert desk.seen == ["a"]


async def test_an_observer_that_fails_is_left_out_and_the_events_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk()

    def broken(envelope: EventEnvelope) -> None:
        raise BrokenPipeError(CANARY)

    desk.writer = RunWriter(desk.store, RUN, 0, now_millis=lambda: 7, observer=broken)
    for name in ("a", "b"):
        desk.add(name)
        await desk.writer.flush()
    assert await desk.stored() == ["a", "b"]
    assert len(caplog.records) == 1
    assert CANARY not in caplog.text


async def test_adds_during_an_append_go_on_after_it() -> None:
    desk = Desk()
    reached, go = anyio.Event(), anyio.Event()

    async def hold(events: Sequence[EventEnvelope]) -> None:
        reached.set()
        await go.wait()

    desk.store.before_append = hold
    desk.add("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.writer.flush)
        await reached.wait()
        desk.add("b", "c")
        tasks.start_soon(desk.writer.flush)
        go.set()
    assert await desk.stored() == ["a", "b", "c"]
    assert [e.seq for e in await desk.store.read_range(RUN, 1)] == [1, 2, 3]


async def test_a_flush_whose_events_another_one_wrote_appends_nothing() -> None:
    desk = Desk()
    in_append, go_on = anyio.Event(), anyio.Event()

    async def hold(events: Sequence[EventEnvelope]) -> None:
        in_append.set()
        await go_on.wait()

    async def wait_for_it() -> None:
        await desk.writer.flush()
        desk.add("next")

    async with anyio.create_task_group() as tasks:
        desk.store.before_append = hold
        desk.add("a", "b")
        for _ in range(2):
            tasks.start_soon(wait_for_it)
        await in_append.wait()
        desk.store.before_append = None
        go_on.set()
    assert desk.store.commits == 1
    await desk.writer.flush()
    assert await desk.stored() == ["a", "b", "next", "next"]
    assert desk.store.commits == 2


async def test_a_request_to_cancel_is_absorbed_and_the_events_are_numbered_after_it() -> None:
    desk = Desk()
    desk.add("a", "b")
    await desk.others((ev.EVENT_CANCEL_REQUESTED, None))
    with pytest.raises(CancelRequested):
        await desk.writer.flush()
    assert await desk.stored() == [ev.EVENT_CANCEL_REQUESTED, "a", "b"]
    assert [e.seq for e in await desk.store.read_range(RUN, 1)] == [1, 2, 3]
    assert desk.seen == ["a", "b"]


async def test_a_request_to_cancel_is_told_at_every_flush() -> None:
    desk = Desk()
    await desk.others((ev.EVENT_CANCEL_REQUESTED, None))
    for name in ("a", "b"):
        desk.add(name)
        with pytest.raises(CancelRequested):
            await desk.writer.flush()
    assert await desk.stored() == [ev.EVENT_CANCEL_REQUESTED, "a", "b"]


async def test_a_resolved_effect_is_absorbed_and_the_run_goes_on() -> None:
    desk = Desk()
    desk.add("a")
    await desk.others((ev.EVENT_EFFECT_RESOLVED, {"key": "k"}))
    await desk.writer.flush()
    assert await desk.stored() == [ev.EVENT_EFFECT_RESOLVED, "a"]


async def test_adds_while_the_tail_is_read_are_numbered_too() -> None:
    desk = Desk()
    await desk.others((ev.EVENT_EFFECT_RESOLVED, {"key": "k"}))

    async def add_more(events: Sequence[EventEnvelope]) -> None:
        desk.store.before_append = None
        desk.add("b")

    desk.store.before_append = add_more
    desk.add("a")
    await desk.writer.flush()
    assert await desk.stored() == [ev.EVENT_EFFECT_RESOLVED, "a", "b"]


async def test_a_newer_driver_fences_and_is_named() -> None:
    desk = Desk()
    desk.add("a")
    await desk.others(
        (ev.EVENT_DRIVER, {"driver_id": "second", "pid": 2, "host": "h", "build": "x"}),
        (ev.EVENT_DRIVER, {"driver_id": "third", "pid": 3, "host": "h"}),
        ("other", None),
    )
    for _ in range(2):
        with pytest.raises(RunFailure) as fenced:
            await desk.writer.flush()
        assert fenced.value.info.code == "run_fenced"
        assert fenced.value.info.details == {
            "run_id": RUN,
            "driver_id": "third",
            "pid": 3,
            "host": "h",
        }
    assert "a" not in await desk.stored()


async def test_any_event_that_is_no_control_event_fences() -> None:
    desk = Desk()
    desk.add("a")
    await desk.others((ev.EVENT_CANCEL_REQUESTED, None), ("surprise", None))
    with pytest.raises(RunFailure) as fenced:
        await desk.writer.flush()
    assert fenced.value.info.code == "run_fenced"


async def test_a_failed_append_keeps_the_events_and_nothing_is_stored() -> None:
    desk = Desk()
    desk.add("a")
    desk.store.failing = True
    with pytest.raises(StorageFailure):
        await desk.writer.flush()
    assert desk.writer.has_pending
    assert await desk.stored() == []


async def test_after_a_failed_append_nothing_more_is_written_though_the_store_recovers() -> None:
    desk = Desk()
    desk.add("a")
    desk.store.failing = True
    with pytest.raises(StorageFailure):
        await desk.writer.flush()
    desk.store.failing = False
    desk.add("b")
    with pytest.raises(StorageFailure):
        await desk.writer.flush()
    assert await desk.stored() == []


async def test_dropping_what_is_pending_lets_a_farewell_through() -> None:
    desk = Desk()
    desk.add("a")
    desk.store.failing = True
    with pytest.raises(StorageFailure):
        await desk.writer.flush()
    desk.store.failing = False
    desk.writer.drop_pending()
    desk.add("farewell")
    await desk.writer.flush()
    assert await desk.stored() == ["farewell"]


async def test_a_cancelled_flush_keeps_the_events_for_the_next() -> None:
    desk = Desk()
    reached = anyio.Event()

    async def hold(events: Sequence[EventEnvelope]) -> None:
        reached.set()
        await anyio.sleep_forever()

    desk.store.before_append = hold
    desk.add("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.writer.flush)
        await reached.wait()
        desk.add("b")
        tasks.cancel_scope.cancel()
    desk.store.before_append = None
    await desk.writer.flush()
    assert await desk.stored() == ["a", "b"]


async def test_a_store_that_refuses_without_a_reason_is_called_corrupt() -> None:
    desk = Desk()
    writer = RunWriter(desk.store, RUN, 5, now_millis=lambda: 7)
    writer.add_domain(said("a"))
    with pytest.raises(StorageFailure) as refused:
        await writer.flush()
    assert refused.value.error.variant == "Corruption"
    assert refused.value.info.code == "history_invalid"
