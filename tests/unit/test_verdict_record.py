"""`mfm_ops.runtime.verdict_record`: whose event is whose, and which attempt counts."""

from typing import Any

import pytest

from mfm_ops.machine.errors import StateError, StorageFailure
from mfm_ops.machine.events import (
    EventEnvelope,
    RunStarted,
    StateCompleted,
    StateEntered,
    StateFailed,
)
from mfm_ops.machine.ids import RunId
from mfm_ops.runtime.records import StateStatus
from mfm_ops.runtime.verdict_record import Recording, RecordingBuilder
from tests.support import OP, SOME_ID, domain, failure, kernel, sid

RUN = RunId("00000000-0000-4000-8000-000000000000")
STARTED = RunStarted(op_id=OP, manifest_id=SOME_ID, initial_snapshot_id=SOME_ID)


def entered(name: str, attempt: int = 0) -> StateEntered:
    return StateEntered(state_id=sid(name), attempt=attempt, base_snapshot_id=SOME_ID)


def completed(name: str) -> StateCompleted:
    return StateCompleted(state_id=sid(name), context_snapshot_id=SOME_ID)


def failed(name: str) -> StateFailed:
    return StateFailed(state_id=sid(name), error=StateError(info=failure().info))


def said(name: str, of: str | None = None, attempt: int | None = None) -> dict[str, Any]:
    return {"name": name, "state_id": of and sid(of), "attempt": attempt}


def fact(key: str, of: str | None = None, attempt: int | None = None) -> dict[str, Any]:
    payload = {"key": key, "payload_id": str(SOME_ID), "meta": {}}
    return {**said("fact_recorded", of, attempt), "payload": payload}


def recording(*events: Any) -> Recording:
    builder = RecordingBuilder(RUN)
    for seq, event in enumerate((STARTED, *events), 1):
        envelope: EventEnvelope = (
            domain(RUN, seq, **event) if isinstance(event, dict) else kernel(RUN, seq, event)
        )
        builder.feed(envelope)
    return builder.done()


def test_the_last_attempt_counts_with_its_own_events_and_facts() -> None:
    found = recording(
        entered("a"),
        said("early", "a", 0),
        fact("one", "a", 0),
        failed("a"),
        entered("a", 1),
        said("late", "a", 1),
        fact("two", "a", 1),
        completed("a"),
    )
    (attempt,) = found.attempts
    assert (attempt.number, attempt.status) == (1, StateStatus.completed)
    assert [event.name for event in attempt.events] == ["late"]
    assert attempt.facts == ["two"]
    assert (attempt.entered_seq, attempt.ended_seq) == (6, 9)
    assert found.fact_seqs == {"one": 4, "two": 8}


def test_events_of_states_that_run_at_once_are_told_apart_by_their_envelopes() -> None:
    found = recording(
        entered("a"), entered("b"), said("of b", "b", 0), said("of a", "a", 0), said("whose")
    )
    events = {str(one.state_id): [event.name for event in one.events] for one in found.attempts}
    assert events == {sid("a"): ["of a"], sid("b"): ["of b"]}


def test_an_event_without_an_owner_is_that_of_the_only_open_attempt() -> None:
    found = recording(entered("a"), completed("a"), entered("b"), said("mine"), fact("one"))
    assert [event.name for event in found.attempts[1].events] == ["mine"]
    assert found.attempts[1].facts == ["one"]


def test_an_event_of_an_attempt_that_has_ended_is_nobodys() -> None:
    found = recording(entered("a"), failed("a"), entered("a", 1), said("late", "a", 0))
    assert found.attempts[0].events == []


def test_events_of_the_engine_are_no_states() -> None:
    found = recording(entered("a"), said("mfm.driver_stopped", "a", 0))
    assert found.attempts[0].events == []


def test_attempts_are_in_the_order_in_which_the_last_ones_began() -> None:
    found = recording(entered("a"), failed("a"), entered("b"), entered("a", 1))
    assert [str(one.state_id) for one in found.attempts] == [sid("b"), sid("a")]


def test_an_attempt_without_an_end_stays_open() -> None:
    (attempt,) = recording(entered("a")).attempts
    assert (attempt.status, attempt.ended_seq) == (StateStatus.running, None)


def test_a_stream_that_breaks_its_rules_is_refused() -> None:
    with pytest.raises(StorageFailure):
        recording(completed("a"))


def test_a_run_without_events_is_none() -> None:
    with pytest.raises(StorageFailure):
        RecordingBuilder(RUN).done()
