"""Events of the hot path: made without a second check, and stored as their models would be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import canonical_json_bytes, parse_canonical
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import (
    DomainEvent,
    Event,
    EventEnvelope,
    KernelEvent,
    StateCompleted,
    StateEntered,
)
from mfm_ops.machine.ids import ArtifactId, RunId, StateId
from mfm_ops.machine.wire import MAX_SAFE_INTEGER
from mfm_ops.storage.stream import _STATE_EVENT, chain, encode, verify

STATES = st.from_regex(StateId.pattern, fullmatch=True).map(StateId)
DIGESTS = st.binary(min_size=32, max_size=32).map(lambda data: ArtifactId(data.hex()))
NUMBERS = st.integers(0, MAX_SAFE_INTEGER)
ATTEMPTS = st.integers(0, 2**32 - 1)

ENTERED = st.builds(
    lambda state_id, attempt, base: KernelEvent(
        StateEntered=StateEntered(state_id=state_id, attempt=attempt, base_snapshot_id=base)
    ),
    STATES,
    ATTEMPTS,
    DIGESTS,
)
COMPLETED = st.builds(
    lambda state_id, snapshot: KernelEvent(
        StateCompleted=StateCompleted(state_id=state_id, context_snapshot_id=snapshot)
    ),
    STATES,
    DIGESTS,
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | STATES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
DOMAIN = st.builds(
    lambda name, payload, ref: DomainEvent(name=name, payload=payload, payload_ref=ref),
    st.text(max_size=8),
    JSON,
    st.none() | DIGESTS,
)
EVENTS = st.one_of(
    (ENTERED | COMPLETED).map(lambda kernel: Event(Kernel=kernel)),
    DOMAIN.map(lambda domain: Event(Domain=domain)),
)


@st.composite
def envelopes(draw: st.DrawFn) -> EventEnvelope:
    return EventEnvelope(
        run_id=RunId(str(draw(st.uuids()))),
        seq=draw(st.integers(1, MAX_SAFE_INTEGER)),
        ts_millis=draw(st.none() | NUMBERS),
        event=draw(EVENTS),
        state_id=draw(st.none() | STATES),
        attempt=draw(st.none() | ATTEMPTS),
    )


@settings(deadline=None, max_examples=200)
@given(envelopes())
def test_an_event_is_stored_as_the_canonical_bytes_of_its_model(
    envelope: EventEnvelope,
) -> None:
    (body,) = encode(envelope.run_id, envelope.seq - 1, [envelope])
    assert body == canonical_json_bytes(envelope.model_dump(mode="json"))
    assert EventEnvelope.model_validate_json(body) == envelope
    (running_hash,) = chain(b"", [body])
    rows = [(envelope.seq, body, running_hash)]
    assert verify(envelope.run_id, envelope.seq, b"", rows) == [body]


@settings(deadline=None, max_examples=200)
@given(st.from_regex(_STATE_EVENT, fullmatch=True), st.data())
def test_what_is_read_without_parsing_is_canonical(body: bytes, data: st.DataObject) -> None:
    value = parse_canonical(body)
    assert isinstance(value, dict)
    run_id, seq = RunId(str(data.draw(st.uuids()))), data.draw(st.integers(1, 99))
    stored = canonical_json_bytes(value | {"run_id": str(run_id), "seq": seq})
    rows = [(seq, stored, hashes[0]) for hashes in [chain(b"", [stored])]]
    assert verify(run_id, seq, b"", rows) == [stored]
    for other in (value | {"run_id": str(run_id)}, value | {"seq": seq}):
        wrong = canonical_json_bytes(other)
        if wrong != stored:
            with pytest.raises(StorageFailure, match="event_corrupt"):
                verify(run_id, seq, b"", [(seq, wrong, chain(b"", [wrong])[0])])


@settings(deadline=None, max_examples=50)
@given(STATES, ATTEMPTS, DIGESTS)
def test_an_event_that_is_made_unchecked_is_the_checked_one(
    state_id: StateId, attempt: int, digest: ArtifactId
) -> None:
    entered = StateEntered(state_id=state_id, attempt=attempt, base_snapshot_id=digest)
    completed = StateCompleted(state_id=state_id, context_snapshot_id=digest)
    for made, checked in (
        (KernelEvent.entered(state_id, attempt, digest), KernelEvent(StateEntered=entered)),
        (KernelEvent.completed(state_id, digest), KernelEvent(StateCompleted=completed)),
    ):
        assert made == checked
        assert repr(made) == repr(checked)
        assert hash(made) == hash(checked)
        assert made.variant == checked.variant
        assert made.model_dump_json() == checked.model_dump_json()
        assert made.model_copy(deep=True) == checked


def test_an_unchecked_model_has_the_defaults_of_what_is_left_out() -> None:
    envelope = EventEnvelope.of_valid(  # the defaults are what is looked at
        run_id=RunId("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), seq=1, event=Event.of_valid()
    )
    assert envelope.ts_millis is None
    assert envelope.state_id is None
    assert vars(envelope.event)["Domain"] is None


def test_an_unchecked_model_cannot_be_changed_either() -> None:
    made = KernelEvent.completed(StateId("a.b.c"), ArtifactId("a" * 64))
    with pytest.raises(ValueError, match="frozen"):
        setattr(made, "StateEntered", made.StateCompleted)  # noqa: B010 - mypy forbids it too
