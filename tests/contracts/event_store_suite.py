"""The rules of EventStore, RunCatalog and their extensions, for every backend.

A backend's test module subclasses `EventStoreSuite` and says how its store is made.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import anyio
import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import canonical_json_bytes
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import (
    DomainEvent,
    Event,
    EventEnvelope,
    KernelEvent,
    RunCompleted,
    RunStarted,
    RunStatus,
)
from mfm_ops.machine.ids import ArtifactId, OpId, RunId
from mfm_ops.machine.stores import EventStore, RunCatalog, RunHead, StagingArtifactStore
from mfm_ops.storage.stream import chain

SOME_ID = ArtifactId("a" * 64)


class Store(EventStore, StagingArtifactStore, RunCatalog, Protocol):
    """What both backends offer."""

    commits: int

    async def read_raw(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[bytes]: ...

    def iter_events(
        self, run_id: RunId, from_seq: int = 1, to_seq: int | None = None
    ) -> AsyncIterator[EventEnvelope]: ...

    async def artifact_kind(self, artifact_id: ArtifactId) -> ArtifactKind: ...

    async def find_artifacts(self, prefix: str, limit: int = 2) -> list[ArtifactId]: ...

    def close(self) -> None: ...


def started(run_id: RunId, ts_millis: int | None = 7) -> EventEnvelope:
    opening = RunStarted(op_id=OpId("demo"), manifest_id=SOME_ID, initial_snapshot_id=SOME_ID)
    event = Event(Kernel=KernelEvent(RunStarted=opening))
    return EventEnvelope(run_id=run_id, seq=1, ts_millis=ts_millis, event=event)


def said(run_id: RunId, seq: int, name: str = "said", payload: Any = None) -> EventEnvelope:
    event = Event(Domain=DomainEvent(name=name, payload=payload))
    return EventEnvelope(run_id=run_id, seq=seq, event=event)


def ended(run_id: RunId, seq: int) -> EventEnvelope:
    event = Event(Kernel=KernelEvent(RunCompleted=RunCompleted(status=RunStatus.Completed)))
    return EventEnvelope(run_id=run_id, seq=seq, event=event)


def stream(run_id: RunId, count: int) -> list[EventEnvelope]:
    """A run's first `count` events."""
    return [started(run_id), *(said(run_id, seq, payload=seq) for seq in range(2, count + 1))]


class EventStoreSuite:
    """One rule a test; `store` is the subclass's fixture."""

    async def test_a_run_that_is_unknown_has_head_zero(self, store: Store) -> None:
        run = RunId.random()
        assert await store.head_seq(run) == 0
        assert await store.head(run) == RunHead(0, "")
        assert await store.read_range(run, 1) == []
        assert await store.list_runs() == []

    async def test_append_returns_the_new_head(self, store: Store) -> None:
        run = RunId.random()
        assert await store.append(run, 0, stream(run, 2)) == 2
        assert await store.append(run, 2, [said(run, 3)]) == 3
        assert await store.head_seq(run) == 3

    async def test_what_was_appended_is_read_back_equal(self, store: Store) -> None:
        run = RunId.random()
        events = [*stream(run, 3), ended(run, 4)]
        await store.append(run, 0, events[:1])
        await store.append(run, 1, events[1:])
        assert await store.read_range(run, 1) == events

    async def test_a_payload_of_any_json_survives(self, store: Store) -> None:
        run = RunId.random()
        payload: dict[str, Any] = {
            "é😀\ufffd": [None, True, -(2**53 - 1), "\u0000\n", {}, []],
            "a": {"b": "c"},
        }
        await store.append(run, 0, [said(run, 1, payload=payload)])
        (event,) = await store.read_range(run, 1)
        assert event == said(run, 1, payload=payload)

    async def test_streams_of_different_runs_are_apart(self, store: Store) -> None:
        one, other = RunId.random(), RunId.random()
        await store.append(one, 0, stream(one, 3))
        await store.append(other, 0, stream(other, 1))
        assert await store.head_seq(one) == 3
        assert await store.read_range(other, 1) == stream(other, 1)

    @pytest.mark.parametrize(
        ("from_seq", "to_seq", "seqs"),
        [
            (1, None, [1, 2, 3, 4, 5]),
            (2, 4, [2, 3, 4]),
            (3, 3, [3]),
            (5, None, [5]),
            (6, None, []),
            (9, 12, []),
            (4, 99, [4, 5]),
            (4, 3, []),
            (0, 2, [1, 2]),
            (-3, 1, [1]),
            (1, 0, []),
            (1, -1, []),
            (2**70, None, []),
            (1, 2**70, [1, 2, 3, 4, 5]),
        ],
    )
    async def test_a_range_includes_both_its_ends_and_is_empty_outside(
        self, store: Store, from_seq: int, to_seq: int | None, seqs: list[int]
    ) -> None:
        run = RunId.random()
        await store.append(run, 0, stream(run, 5))
        assert [e.seq for e in await store.read_range(run, from_seq, to_seq)] == seqs
        assert len(await store.read_raw(run, from_seq, to_seq)) == len(seqs)
        assert [e.seq async for e in store.iter_events(run, from_seq, to_seq)] == seqs

    async def test_raw_bodies_are_the_canonical_bytes(self, store: Store) -> None:
        run = RunId.random()
        events = stream(run, 3)
        await store.append(run, 0, events)
        expected = [canonical_json_bytes(event.model_dump(mode="json")) for event in events]
        assert await store.read_raw(run, 1) == expected

    async def test_the_head_carries_the_running_hash_over_all_events(self, store: Store) -> None:
        run = RunId.random()
        await store.append(run, 0, stream(run, 3))
        await store.append(run, 3, [ended(run, 4)])
        hashes = chain(b"", await store.read_raw(run, 1))
        assert await store.head(run) == RunHead(4, hashes[-1].hex())

    async def test_many_events_in_one_append_are_all_kept(self, store: Store) -> None:
        run = RunId.random()
        events = stream(run, 2500)
        assert await store.append(run, 0, events) == 2500
        assert await store.read_range(run, 1) == events
        assert [e async for e in store.iter_events(run)] == events

    @pytest.mark.parametrize("expected_seq", [0, 1, 2, 4, 9])
    async def test_an_expected_seq_that_is_not_the_head_is_concurrency(
        self, store: Store, expected_seq: int
    ) -> None:
        run = RunId.random()
        await store.append(run, 0, stream(run, 3))
        with pytest.raises(StorageFailure) as failure:
            await store.append(run, expected_seq, [said(run, expected_seq + 1)])
        assert failure.value.error.variant == "Concurrency"
        assert failure.value.info.details == {
            "run_id": run,
            "expected_seq": expected_seq,
            "head_seq": 3,
        }
        assert await store.read_range(run, 1) == stream(run, 3)

    async def test_a_gap_in_a_run_that_does_not_exist_is_concurrency(self, store: Store) -> None:
        run = RunId.random()
        with pytest.raises(StorageFailure) as failure:
            await store.append(run, 1, [said(run, 2)])
        assert failure.value.error.variant == "Concurrency"
        assert await store.list_runs() == []

    async def test_a_refused_append_of_many_leaves_none_of_them(self, store: Store) -> None:
        run = RunId.random()
        await store.append(run, 0, stream(run, 3))
        with pytest.raises(StorageFailure):
            await store.append(run, 2, [said(run, seq, name="late") for seq in range(3, 203)])
        assert await store.read_range(run, 1) == stream(run, 3)

    async def test_the_head_is_usable_after_concurrency(self, store: Store) -> None:
        run = RunId.random()
        await store.append(run, 0, stream(run, 3))
        with pytest.raises(StorageFailure):
            await store.append(run, 1, [said(run, 2)])
        assert await store.append(run, 3, [ended(run, 4)]) == 4

    async def test_an_empty_append_changes_nothing(self, store: Store) -> None:
        run = RunId.random()
        assert await store.append(run, 0, []) == 0
        assert await store.list_runs() == []
        await store.append(run, 0, stream(run, 2))
        assert await store.append(run, 2, []) == 2
        assert await store.head_seq(run) == 2

    async def test_an_empty_append_checks_the_head_too(self, store: Store) -> None:
        with pytest.raises(StorageFailure) as failure:
            await store.append(RunId.random(), 5, [])
        assert failure.value.error.variant == "Concurrency"

    async def test_an_event_of_another_run_is_refused(self, store: Store) -> None:
        run = RunId.random()
        with pytest.raises(StorageFailure) as failure:
            await store.append(run, 0, [started(RunId.random())])
        assert failure.value.info.code == "append_invalid"
        assert await store.head_seq(run) == 0

    @pytest.mark.parametrize("seqs", [[2], [1, 3], [1, 1], [0]])
    async def test_events_that_do_not_go_on_from_expected_seq_are_refused(
        self, store: Store, seqs: list[int]
    ) -> None:
        run = RunId.random()
        with pytest.raises(StorageFailure) as failure:
            await store.append(run, 0, [said(run, seq) for seq in seqs])
        assert failure.value.info.code == "append_invalid"
        assert await store.head_seq(run) == 0

    @pytest.mark.parametrize("expected_seq", [-1, 2**53, 2**64])
    async def test_an_expected_seq_that_cannot_be_is_refused(
        self, store: Store, expected_seq: int
    ) -> None:
        with pytest.raises(StorageFailure) as failure:
            await store.append(RunId.random(), expected_seq, [])
        assert failure.value.info.code == "append_invalid"

    async def test_an_event_without_canonical_form_is_refused(self, store: Store) -> None:
        run = RunId.random()
        payload: list[Any] = [1]
        event = said(run, 1, payload=payload)
        payload[0] = 1.5
        with pytest.raises(StorageFailure) as failure:
            await store.append(run, 0, [event])
        assert failure.value.info.code == "append_invalid"
        assert await store.head_seq(run) == 0

    async def test_of_two_writers_at_one_place_one_wins(self, store: Store) -> None:
        run = RunId.random()
        await store.append(run, 0, stream(run, 1))
        results: list[str] = []

        async def write(name: str) -> None:
            try:
                await store.append(run, 1, [said(run, 2, name)])
                results.append(name)
            except StorageFailure as failure:
                results.append(failure.error.variant)

        async with anyio.create_task_group() as group:
            for name in ("one", "two", "three"):
                group.start_soon(write, name)
        (winner,) = (result for result in results if result != "Concurrency")
        assert len(results) == 3
        assert (await store.read_range(run, 2)) == [said(run, 2, winner)]

    async def test_appends_at_the_same_time_do_not_hurt_each_other(self, store: Store) -> None:
        runs = [RunId.random() for _ in range(40)]
        stale = runs[::4]
        for run in stale:
            await store.append(run, 0, stream(run, 1))
        refused: list[tuple[RunId, str]] = []

        async def write(run: RunId) -> None:
            try:
                await store.append(run, 0, stream(run, 3))
                await store.append(run, 3, [ended(run, 4)])
            except StorageFailure as failure:
                refused.append((run, failure.error.variant))

        async with anyio.create_task_group() as group:
            for run in runs:
                group.start_soon(write, run)
        assert sorted(refused) == sorted((run, "Concurrency") for run in stale)
        for run in runs:
            expected = stream(run, 1) if run in stale else [*stream(run, 3), ended(run, 4)]
            assert await store.read_range(run, 1) == expected

    async def test_one_append_is_one_commit(self, store: Store) -> None:
        run = RunId.random()
        before = store.commits
        await store.append(run, 0, stream(run, 3))
        await store.append(run, 3, [ended(run, 4)])
        assert store.commits == before + 2

    async def test_an_append_in_a_cancelled_scope_appends_nothing(self, store: Store) -> None:
        run = RunId.random()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.append(run, 0, stream(run, 2))
        assert scope.cancelled_caught
        assert await store.head_seq(run) == 0

    async def test_runs_are_listed_newest_first(self, store: Store) -> None:
        runs = [RunId.random() for _ in range(5)]
        for run in runs:
            await store.append(run, 0, stream(run, 2))
        await store.append(runs[0], 2, [ended(runs[0], 3)])
        listed = await store.list_runs()
        assert [line.run_id for line in listed] == runs[::-1]
        assert [line.run_id for line in await store.list_runs(limit=2)] == [runs[4], runs[3]]
        assert await store.list_runs(limit=0) == []

    async def test_a_listing_says_how_the_run_began_and_what_came_last(self, store: Store) -> None:
        run, odd = RunId.random(), RunId.random()
        await store.append(run, 0, [started(run, ts_millis=1234), ended(run, 2)])
        await store.append(odd, 0, [said(odd, 1, "mfm.driver")])
        without_op, line = await store.list_runs()
        assert (line.op_id, line.head_seq, line.started_ts_millis, line.last_event) == (
            "demo",
            2,
            1234,
            "RunCompleted",
        )
        assert (without_op.op_id, without_op.started_ts_millis) == (None, None)
        assert without_op.last_event == "mfm.driver"

    async def test_runs_are_found_by_prefix(self, store: Store) -> None:
        one = RunId("0a000000-0000-4000-8000-000000000000")
        two = RunId("0af00000-0000-4000-8000-000000000000")
        other = RunId("f0000000-0000-4000-8000-000000000000")
        for run in (one, two, other):
            await store.append(run, 0, stream(run, 1))
        assert [line.run_id for line in await store.list_runs(prefix="0a")] == [two, one]
        assert [line.run_id for line in await store.list_runs(prefix=other)] == [other]
        assert await store.list_runs(prefix="%") == []
        assert await store.list_runs(prefix="0_") == []

    async def test_a_closed_store_refuses(self, store: Store) -> None:
        run = RunId.random()
        store.close()
        store.close()
        with pytest.raises(StorageFailure) as failure:
            await store.append(run, 0, stream(run, 1))
        assert failure.value.info.code == "store_unavailable"
        with pytest.raises(StorageFailure):
            await store.head_seq(run)
