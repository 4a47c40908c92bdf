"""`mfm_ops.runtime.history`: a stream tells where its run stands, or is refused with a reason."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine import events as ev
from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.errors import StateError, StorageFailure
from mfm_ops.machine.events import EventEnvelope, RunStatus
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId
from mfm_ops.runtime.history import Folding, RunHistory, StateStatus, fold
from mfm_ops.runtime.records import ORPHANED
from tests.support import OP, SOME_ID, domain, failure, kernel, sid

RUN = RunId("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
OTHER_ID = ArtifactId("b" * 64)
A, B = sid("a"), sid("b")
KEY = "k"

Make = Callable[[int], EventEnvelope]


def started() -> Make:
    body = ev.RunStarted(op_id=OP, manifest_id=SOME_ID, initial_snapshot_id=SOME_ID)
    return lambda seq: kernel(RUN, seq, body)


def entered(state: str = "a", attempt: int = 0) -> Make:
    body = ev.StateEntered(state_id=sid(state), attempt=attempt, base_snapshot_id=SOME_ID)
    return lambda seq: kernel(RUN, seq, body)


def completed(state: str = "a", snapshot: ArtifactId = OTHER_ID) -> Make:
    body = ev.StateCompleted(state_id=sid(state), context_snapshot_id=snapshot)
    return lambda seq: kernel(RUN, seq, body)


def failed(state: str = "a", code: str = "flaky", *, retryable: bool = True) -> Make:
    info = (
        error_info(ORPHANED, "it died")
        if code == ORPHANED
        else failure(code, retryable=retryable).info
    )
    error = StateError(state_id=sid(state), info=info)
    body = ev.StateFailed(state_id=sid(state), error=error, failure_snapshot_id=None)
    return lambda seq: kernel(RUN, seq, body)


def over(status: RunStatus = RunStatus.Completed) -> Make:
    return lambda seq: kernel(RUN, seq, ev.RunCompleted(status=status, final_snapshot_id=OTHER_ID))


def said(name: str, payload: Json = None, state: str | None = None) -> Make:
    state_id = None if state is None else sid(state)
    return lambda seq: domain(RUN, seq, name, payload, state_id=state_id)


def fact(key: str = KEY, payload_id: ArtifactId = SOME_ID, meta: Json = None) -> Make:
    payload: dict[str, Json] = {"key": key, "payload_id": str(payload_id), "meta": meta}
    return said("fact_recorded", payload, "a")


def effect_event(name: str, key: str = KEY, state: str = "a") -> Make:
    return said(name, {"key": key, "request_id": str(SOME_ID)}, state)


def driver(name: str) -> Make:
    return said(ev.EVENT_DRIVER, {"driver_id": name, "pid": 7})


def stream(*makes: Make) -> list[EventEnvelope]:
    return [make(seq) for seq, make in enumerate(makes, 1)]


def told(*makes: Make) -> RunHistory:
    return fold(RUN, stream(*makes))


def refusal(envelopes: list[EventEnvelope]) -> dict[str, Any]:
    with pytest.raises(StorageFailure) as refused:
        fold(RUN, envelopes)
    assert refused.value.error.variant == "Corruption"
    assert refused.value.info.code == "history_invalid"
    details: dict[str, Any] = refused.value.info.details
    assert details["run_id"] == RUN
    return details


# What is refused


@pytest.mark.parametrize(
    ("makes", "reason"),
    [
        ((driver("d"),), "not_started"),
        ((entered(),), "not_started"),
        ((over(),), "not_started"),
        ((started(), started()), "started_twice"),
        ((started(), completed()), "no_open_attempt"),
        ((started(), failed()), "no_open_attempt"),
        ((started(), entered(), completed(), completed()), "no_open_attempt"),
        ((started(), entered(), failed(), failed()), "no_open_attempt"),
        ((started(), entered(), completed("b")), "no_open_attempt"),
        ((started(), entered(), entered(attempt=1)), "attempt_overlaps"),
        ((started(), entered(), completed(), entered(attempt=1)), "attempt_overlaps"),
        ((started(), entered(attempt=1)), "attempt_number"),
        ((started(), entered(), failed(), entered(attempt=0)), "attempt_number"),
        ((started(), entered(), failed(), entered(attempt=2)), "attempt_number"),
        ((started(), over(), entered()), "event_after_end"),
        ((started(), over(), over()), "event_after_end"),
        ((started(), entered(), over(), completed()), "event_after_end"),
        ((started(), fact(), fact(payload_id=OTHER_ID)), "fact_conflict"),
        ((started(), said("fact_recorded", {"key": KEY})), "fact_payload"),
        ((started(), said("fact_recorded", "x")), "fact_payload"),
        ((started(), said(ev.EVENT_IO_INTENT, {})), "intent_payload"),
        ((started(), said(ev.EVENT_IO_INTENT, {"key": KEY, "request_id": "x"})), "intent_payload"),
        ((started(), said(ev.EVENT_EFFECT_UNKNOWN, None)), "intent_payload"),
    ],
)
def test_a_stream_that_breaks_a_rule_is_refused_with_its_place_and_reason(
    makes: tuple[Make, ...], reason: str
) -> None:
    details = refusal(stream(*makes))
    assert details["reason"] == reason
    assert details["seq"] == len(makes)


@pytest.mark.parametrize("seqs", [[2], [0], [1, 3], [1, 1]])
def test_a_gap_or_a_repeat_in_the_sequence_is_refused(seqs: list[int]) -> None:
    makes = [started(), driver("d")]
    details = refusal([make(seq) for make, seq in zip(makes, seqs, strict=False)])
    assert details["reason"] == "sequence_gap"


def test_another_runs_event_is_refused() -> None:
    envelopes = [*stream(started()), domain(RunId.random(), 2, "said")]
    assert refusal(envelopes)["reason"] == "another_run"


def test_an_empty_stream_is_a_run_that_does_not_exist() -> None:
    with pytest.raises(StorageFailure) as refused:
        fold(RUN, [])
    assert refused.value.error.variant == "NotFound"
    assert refused.value.info.code == "run_not_found"


# Where a run stands


def test_a_run_that_has_only_begun_is_running() -> None:
    history = told(started())
    assert history.phase is RunPhase.Running
    assert history.head_seq == 1
    assert history.states == {}
    assert history.result.final_snapshot_id is None


@pytest.mark.parametrize("status", list(RunStatus))
def test_a_finished_run_tells_its_status_and_snapshot(status: RunStatus) -> None:
    history = told(started(), over(status))
    assert history.phase.value == status.value
    assert history.result.final_snapshot_id == OTHER_ID


def test_a_completed_state_tells_its_snapshot_and_forgets_its_failures() -> None:
    state = told(
        started(), entered(), failed(), entered(attempt=1), completed(snapshot=SOME_ID)
    ).states[A]
    assert state.status is StateStatus.completed
    assert (state.attempts, state.charged) == (2, 2)
    assert state.snapshot_id == SOME_ID
    assert state.error is None


def test_states_stand_in_the_order_in_which_they_were_entered() -> None:
    history = told(started(), entered("b"), entered("a"), completed("a"), completed("b"))
    assert list(history.states) == [B, A]


def test_an_orphan_is_an_attempt_and_is_not_charged() -> None:
    state = told(started(), entered(), failed(code=ORPHANED), entered(attempt=1), failed()).states[
        A
    ]
    assert (state.attempts, state.charged) == (2, 1)


def test_an_attempt_without_an_end_is_running_and_charged_so_far() -> None:
    state = told(started(), entered()).states[A]
    assert state.status is StateStatus.running
    assert (state.attempts, state.charged) == (1, 1)


def test_the_failure_that_counts_is_the_last_in_the_stream_whatever_the_clock_said() -> None:
    envelopes = stream(started(), entered("a"), entered("b"), failed("a"), failed("b"))
    envelopes[3] = envelopes[3].model_copy(update={"ts_millis": 9})
    envelopes[4] = envelopes[4].model_copy(update={"ts_millis": 1})
    last = fold(RUN, envelopes).failure
    assert last is not None
    assert last.state_id == B


@pytest.mark.parametrize("final", [failed("a", retryable=False), failed("a")])
def test_a_failure_that_ended_the_run_tells_more_than_one_that_awaited_its_next_attempt(
    final: Make,
) -> None:
    first = (entered("a"), failed("a"), entered("a", attempt=1), entered("b"))
    last = told(started(), *first, final, failed("b"), over(RunStatus.Failed)).failure
    assert last is not None
    assert last.state_id == A


# Drivers and control


def test_the_driver_is_the_newest_mark() -> None:
    history = told(started(), driver("one"), driver("two"))
    assert history.driver is not None
    assert history.driver["driver_id"] == "two"


def test_a_driver_that_said_that_it_stopped_drives_no_more() -> None:
    stop = said(ev.EVENT_DRIVER_STOPPED, {"driver_id": "one"})
    assert told(started(), driver("one"), stop).driver is None


def test_an_older_drivers_farewell_does_not_stop_the_newer_one() -> None:
    stop = said(ev.EVENT_DRIVER_STOPPED, {"driver_id": "one"})
    history = told(started(), driver("one"), driver("two"), stop)
    assert history.driver is not None
    assert history.driver["driver_id"] == "two"


def test_a_request_to_cancel_is_told() -> None:
    assert told(started(), said(ev.EVENT_CANCEL_REQUESTED)).cancel_requested


def test_events_of_ops_decide_nothing() -> None:
    assert told(started(), said("saved", {"driver_id": "x"})).drivers == []


# Facts and effects


def test_facts_are_told_by_key_with_request_and_meta() -> None:
    meta: Json = {"request_id": "r", "transport": "exec"}
    bound = told(started(), fact(meta=meta)).facts[FactKey(KEY)]
    assert (bound.payload_id, bound.request_id, bound.meta) == (SOME_ID, "r", meta)


def test_a_fact_recorded_again_with_its_payload_is_the_first_one() -> None:
    history = told(started(), fact(meta={"request_id": "r"}), fact(meta={"request_id": "s"}))
    assert history.facts[FactKey(KEY)].request_id == "r"


def test_an_intent_is_open_until_its_fact_or_the_end_of_its_attempt() -> None:
    begun = (started(), entered(), effect_event(ev.EVENT_IO_INTENT))
    assert FactKey(KEY) in told(*begun).open_intents
    for end in (fact(), failed(), completed()):
        assert told(*begun, end).open_intents == {}


def test_the_end_of_another_states_attempt_leaves_an_intent_open() -> None:
    history = told(
        started(), entered("a"), entered("b"), effect_event(ev.EVENT_IO_INTENT), completed("b")
    )
    assert FactKey(KEY) in history.open_intents


def test_a_run_with_an_effect_of_unknown_outcome_is_parked_until_that_is_settled() -> None:
    parked = (started(), entered(), effect_event(ev.EVENT_EFFECT_UNKNOWN))
    assert told(*parked).parked
    assert told(*parked).phase is RunPhase.Running
    for end in (
        effect_event(ev.EVENT_EFFECT_RESOLVED),
        fact(),
        failed(code=ORPHANED),
        over(RunStatus.Cancelled),
    ):
        assert not told(*parked, end).parked


# Any prefix folds


@st.composite
def valid_streams(draw: st.DrawFn) -> list[EventEnvelope]:
    """Streams that keep the rules, states in parallel and drivers that come and go."""
    makes: list[Make] = [started(), driver("d0")]
    attempts = dict.fromkeys("abc", 0)
    running: set[str] = set()
    done: set[str] = set()
    for step in range(draw(st.integers(0, 20))):
        can_enter = sorted(set(attempts) - running - done)
        choices = ["driver", "fact", *(["enter"] if can_enter else []), *(["end"] * bool(running))]
        match draw(st.sampled_from(choices)):
            case "driver":
                makes.append(driver(f"d{step}"))
            case "fact":
                makes.append(fact(f"k{step}"))
            case "enter":
                name = draw(st.sampled_from(can_enter))
                makes.append(entered(name, attempts[name]))
                attempts[name] += 1
                running.add(name)
            case _:
                name = draw(st.sampled_from(sorted(running)))
                running.discard(name)
                end = draw(st.sampled_from(["completed", "flaky", ORPHANED]))
                makes.append(completed(name) if end == "completed" else failed(name, end))
                if end == "completed":
                    done.add(name)
    if draw(st.booleans()):
        makes.append(over())
    return stream(*makes)


@given(valid_streams())
def test_every_prefix_of_a_valid_stream_folds(envelopes: list[EventEnvelope]) -> None:
    for length in range(1, len(envelopes) + 1):
        history = fold(RUN, envelopes[:length])
        assert history.head_seq == length
        for record in history.states.values():
            assert record.attempts >= record.charged >= 0
            assert (record.snapshot_id is not None) == (record.status is StateStatus.completed)


@given(valid_streams(), st.data())
def test_a_fold_in_pieces_is_the_fold_of_the_whole(
    envelopes: list[EventEnvelope], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(envelopes)))
    folding = Folding(RUN)
    folding.go_on(envelopes[:cut])
    assert folding.go_on(envelopes[cut:]) == fold(RUN, envelopes)
