"""Event streams of any kind: a history, or a refusal that says so; never another exception."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine import events as ev
from mfm_ops.machine.canonical import CanonicalError, canonical_json_bytes
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import RunId
from mfm_ops.runtime.history import Folding, fold
from mfm_ops.storage.reading import read_event
from mfm_ops.storage.stream import encode
from tests.fuzz.mutations import JSON, examples, outcome, varied
from tests.support import OP, SOME_ID

_RUN = RunId("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
_STATES = ("demo.main.a", "demo.main.b", "demo.main.c")
_ERROR = {
    "code": "flaky",
    "category": "Unknown",
    "retryable": True,
    "message": "m",
    "details": None,
}
_KERNEL: list[Any] = [
    {"RunStarted": {"op_id": OP, "manifest_id": SOME_ID, "initial_snapshot_id": SOME_ID}},
    *(
        {"StateEntered": {"state_id": state, "attempt": attempt, "base_snapshot_id": SOME_ID}}
        for state in _STATES
        for attempt in (0, 1)
    ),
    *({"StateCompleted": {"state_id": state, "context_snapshot_id": SOME_ID}} for state in _STATES),
    *(
        {
            "StateFailed": {
                "state_id": state,
                "error": {"state_id": state, "info": {**_ERROR, "code": code}},
                "failure_snapshot_id": None,
            }
        }
        for state in _STATES
        for code in ("flaky", "attempt_orphaned")
    ),
    {"RunCompleted": {"status": "Completed", "final_snapshot_id": SOME_ID}},
    {"RunCompleted": {"status": "Failed", "final_snapshot_id": None}},
]
_NAMES = sorted(
    value
    for name, value in vars(ev).items()
    if name.startswith(("EVENT_", "DOMAIN_")) and isinstance(value, str)
) or ["fact_recorded"]
_PAYLOADS: list[Any] = [
    None,
    {"key": "k", "payload_id": SOME_ID, "meta": None},
    {"key": "k", "request_id": SOME_ID},
    {"driver_id": "d", "pid": 7, "plan_id": SOME_ID, "build_id": SOME_ID, "policy_id": SOME_ID},
    {"child_run_id": str(_RUN), "key": "k"},
    {"run_id": str(_RUN), "state_id": _STATES[0], "who": "w", "why": "y", "retry": None},
    {"state_id": _STATES[0], "resolution": "retry", "who": "w", "why": "y"},
]


@st.composite
def _event(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        event: Any = {"Kernel": draw(st.sampled_from(_KERNEL))}
    else:
        payload = draw(st.one_of(st.sampled_from(_PAYLOADS), JSON))
        name = draw(st.sampled_from([*_NAMES, "app.said", "mfm.unknown"]))
        event = {"Domain": {"name": name, "payload": payload}}
    return draw(varied(event)) if draw(st.integers(0, 4)) == 0 else event


def _envelope(draw: st.DrawFn, seq: int, event: Any) -> EventEnvelope | None:
    body: dict[str, Any] = {"run_id": str(_RUN), "seq": seq, "ts_millis": None, "event": event}
    if draw(st.booleans()):
        body |= {"state_id": draw(st.sampled_from(_STATES)), "attempt": draw(st.integers(0, 2))}
    try:
        return EventEnvelope.model_validate_json(canonical_json_bytes(body))
    except (ValidationError, CanonicalError):
        return None


def _folds(envelopes: list[EventEnvelope]) -> bool:
    try:
        fold(_RUN, envelopes)
    except StorageFailure:
        return False
    return True


def _envelopes(draw: st.DrawFn) -> list[EventEnvelope]:
    """A stream that breaks few rules, so that it goes deep before it breaks one."""
    made: list[EventEnvelope] = []
    for step in range(draw(st.integers(0, 16))):
        event = {"Kernel": _KERNEL[0]} if step == 0 and draw(st.integers(0, 19)) else draw(_event())
        seq = len(made) + 1 if draw(st.integers(0, 49)) else draw(st.integers(1, 20))
        envelope = _envelope(draw, seq, event)
        if envelope and (_folds([*made, envelope]) or draw(st.integers(0, 19)) == 0):
            made.append(envelope)
    return made


@examples(200)
@given(st.composite(_envelopes)())
def test_any_stream_folds_or_is_refused_as_one(envelopes: list[EventEnvelope]) -> None:
    history = outcome(lambda: fold(_RUN, envelopes), StorageFailure)
    if isinstance(history, StorageFailure):
        assert history.info.code in {"history_invalid", "unsupported_format", "run_not_found"}
        return
    assert history.head_seq == len(envelopes)
    folding = Folding(_RUN)
    for envelope in envelopes:
        in_pieces = folding.go_on([envelope])
    assert in_pieces == history


@examples(150)
@given(st.composite(_envelopes)())
def test_the_fast_rules_accept_nothing_that_the_fold_refuses(
    envelopes: list[EventEnvelope],
) -> None:
    envelopes = [
        envelope.model_copy(update={"seq": seq}) for seq, envelope in enumerate(envelopes, 1)
    ]
    told = outcome(lambda: fold(_RUN, envelopes), StorageFailure)
    rules = FoldRules(_RUN)
    bodies = encode(_RUN, 0, envelopes)
    readings = [read_event(body, _RUN, seq) for seq, body in enumerate(bodies, 1)]
    accepted = rules.accepts(readings)
    if isinstance(told, StorageFailure) and envelopes:
        assert not accepted
        assert FoldRules(_RUN).explain(bodies) is not None
    elif not accepted and envelopes:
        assert FoldRules(_RUN).explain(bodies) is None
