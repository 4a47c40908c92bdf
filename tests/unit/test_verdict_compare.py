"""`mfm_ops.runtime.verdict_compare`: the record against the replay, as pure functions."""

from typing import Any

import pytest

from mfm_ops.machine.canonical import (
    Json,
    artifact_id_for_bytes,
    artifact_id_for_json,
    canonical_json_bytes,
)
from mfm_ops.machine.errors import ErrorInfo
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import FactKey
from mfm_ops.runtime.context import Snapshot
from mfm_ops.runtime.facts import BoundFact, FactIndex
from mfm_ops.runtime.records import StateStatus
from mfm_ops.runtime.verdict_attempt import Replayed, Trouble
from mfm_ops.runtime.verdict_compare import Evidence, compare, is_unanswerable, recorded_of
from mfm_ops.runtime.verdict_model import DivergenceKind
from mfm_ops.runtime.verdict_record import RecordedAttempt
from tests.support import SOME_ID, failure, sid

BEFORE, AFTER = Snapshot.of_values({"k": 1}), Snapshot.of_values({"k": 2})
FAILED = failure().info
MISSING = Trouble("missing_fact", FactKey("x"))
EMPTY = FactIndex()


def event(name: str, payload: Json = None) -> DomainEvent:
    return DomainEvent(name=name, payload=payload)


def recorded(
    *, error: ErrorInfo | None = None, snapshot: Snapshot | None = AFTER, **fields: Any
) -> RecordedAttempt:
    return RecordedAttempt(
        sid("s"),
        3,
        5,
        SOME_ID,
        StateStatus.failed if error else StateStatus.completed,
        9,
        snapshot.artifact_id if snapshot else None,
        error,
        **fields,
    )


def replayed(
    *,
    error: ErrorInfo | None = None,
    snapshot: Snapshot | None = AFTER,
    events: tuple[DomainEvent, ...] = (),
    asked: tuple[str, ...] = (),
    troubles: tuple[Trouble, ...] = (),
) -> Replayed:
    return Replayed(snapshot, error, events, frozenset(map(FactKey, asked)), troubles)


def kinds(then: RecordedAttempt, now: Replayed, evidence: Evidence | None = None) -> list[str]:
    return [one.kind.value for one in compare(then, now, evidence or Evidence(EMPTY))]


def test_the_same_is_no_divergence() -> None:
    then = recorded(events=[event("e", 1)], facts=[FactKey("f")])
    assert kinds(then, replayed(events=(event("e", 1),), asked=("f",))) == []


def test_facts_of_other_attempts_may_be_asked_for_or_not() -> None:
    assert kinds(recorded(), replayed(asked=("another_states",))) == []


def test_a_divergence_names_state_attempt_and_both_digests() -> None:
    (found,) = compare(recorded(), replayed(snapshot=BEFORE), Evidence(EMPTY, AFTER))
    assert (found.state_id, found.attempt, found.key) == (sid("s"), 3, "k")
    assert (found.recorded, found.replayed) == (AFTER.artifact_id, BEFORE.artifact_id)
    assert found.diff == ("- /k: 2", "+ /k: 1")


def test_the_context_comes_before_events_and_those_before_unused_facts() -> None:
    then = recorded(events=[event("e")], facts=[FactKey("f")])
    now = replayed(snapshot=BEFORE)
    assert kinds(then, now, Evidence(EMPTY, AFTER)) == ["context", "event", "unused_fact"]


def test_only_the_first_event_that_differs_is_told() -> None:
    then = recorded(events=[event("a"), event("b"), event("c")])
    assert kinds(then, replayed(events=(event("b"), event("c")))) == ["event"]


def test_what_could_not_be_answered_and_made_no_difference_is_no_divergence() -> None:
    assert kinds(recorded(), replayed(troubles=(MISSING,))) == []


def test_what_could_not_be_answered_comes_before_what_it_led_to() -> None:
    now = replayed(snapshot=BEFORE, troubles=(MISSING,))
    assert kinds(recorded(), now, Evidence(EMPTY, AFTER)) == ["missing_fact", "context"]


def test_a_failure_for_want_of_an_answer_is_told_once() -> None:
    want = FAILED.model_copy(update={"code": "missing_fact"})
    assert kinds(recorded(), replayed(error=want, troubles=(MISSING,))) == ["missing_fact"]


def test_a_failure_of_the_handlers_own_is_told_beside_what_was_missing() -> None:
    now = replayed(error=FAILED, troubles=(MISSING,))
    assert kinds(recorded(), now) == ["missing_fact", "outcome"]


def test_asking_the_same_again_is_told_once() -> None:
    now = replayed(snapshot=BEFORE, troubles=(MISSING, MISSING))
    assert kinds(recorded(), now, Evidence(EMPTY, AFTER)) == ["missing_fact", "context"]


def test_a_failure_that_may_be_a_calls_is_not_judged() -> None:
    assert is_unanswerable(recorded(error=FAILED), replayed(troubles=(MISSING,)))


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (recorded(), replayed(error=FAILED, troubles=(MISSING,))),
        (recorded(error=FAILED), replayed(error=FAILED, troubles=(MISSING,))),
        (recorded(error=FAILED), replayed()),
        (
            recorded(error=FAILED),
            replayed(troubles=(MISSING, Trouble("fact_request_mismatch", FactKey("x")))),
        ),
    ],
    ids=["completed", "the same failure", "nothing was missing", "another question"],
)
def test_everything_else_is_judged(then: RecordedAttempt, now: Replayed) -> None:
    assert not is_unanswerable(then, now)


def test_of_a_code_of_ours_the_details_count_and_not_the_words() -> None:
    one = FAILED.model_copy(update={"code": "state_panicked", "details": {"exception": "A"}})
    reworded = one.model_copy(update={"message": "in other words"})
    other = one.model_copy(update={"details": {"exception": "B"}})
    assert kinds(recorded(error=one), replayed(error=reworded)) == []
    assert kinds(recorded(error=one), replayed(error=other)) == ["outcome"]


def test_the_recorded_side_of_another_value_is_the_value() -> None:
    value = canonical_json_bytes({"n": 1})
    fact = BoundFact(FactKey("f"), artifact_id_for_bytes(value), None, {})
    trouble = Trouble("fact_payload_conflict", fact.key, canonical_json_bytes({"n": 2}))
    facts = FactIndex([fact])
    then, now = recorded(facts=[fact.key]), replayed(troubles=(trouble,))
    assert recorded_of(trouble, then, now, facts) == fact.payload_id
    (found,) = compare(then, now, Evidence(facts, None, {fact.payload_id: value}))
    assert found.kind is DivergenceKind.fact_value
    assert (found.recorded, found.replayed) == (fact.payload_id, artifact_id_for_json({"n": 2}))
    assert found.diff == ("- /n: 1", "+ /n: 2")


def test_a_question_without_a_key_is_held_against_one_that_nobody_asks_any_more() -> None:
    prefix = "mfm:test|state:demo.main.s|req:"
    asked, unasked, other = (FactKey(text) for text in (prefix + "a", prefix + "b", "mfm:else|b"))
    ids = {key: artifact_id_for_json(str(key)) for key in (asked, unasked, other)}
    facts = FactIndex(BoundFact(key, SOME_ID, ids[key], {}) for key in ids)
    trouble = Trouble("missing_fact_key", FactKey(prefix + "c"), b"1", prefix)
    then = recorded(facts=[other, asked, unasked])
    assert recorded_of(trouble, then, replayed(asked=(asked,)), facts) == ids[unasked]


def test_what_nobody_recorded_has_no_recorded_side() -> None:
    (found,) = compare(
        recorded(), replayed(snapshot=BEFORE, troubles=(MISSING,)), Evidence(EMPTY, AFTER)
    )[:1]
    assert (found.recorded, found.replayed, found.diff) == (None, None, ())
