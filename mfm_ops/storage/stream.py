"""What a stored event is: its bytes, its running hash, and how both are checked; pure.

Every backend stores what `encode` makes and hands out what `verify` let through. Where the rows
lie, and that an append is atomic, is left to the backend.

The running hash of event n is `SHA-256(h || body)`: `h` is the 32 raw bytes of event n-1's running
hash (empty for the first event), `body` the canonical JSON of the envelope as stored. In text it
is 64 lowercase hex digits. The head's running hash thus vouches for the whole history.
"""

import gc
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import orjson
from pydantic import ValidationError

from mfm_ops.machine.canonical import (
    MAX_INTEGER,
    CanonicalError,
    Json,
    canonical_json_bytes,
    parse_canonical,
)
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import OpId, RunId
from mfm_ops.machine.stores import RunListing
from mfm_ops.storage.failures import append_invalid, event_corrupt, unsupported_event

__all__ = [
    "Row",
    "UNREADABLE",
    "chain",
    "collector_paused",
    "decode",
    "encode",
    "listing",
    "verify",
]

Row = tuple[int, bytes, bytes]
"""`(seq, body, running_hash)` as stored."""

UNREADABLE = "event_corrupt"
"""What a listing shows as the last event of a run whose ends do not verify."""

# What pydantic calls content that is well formed but not in this version's vocabulary.
_UNKNOWN_CONTENT = frozenset({"extra_forbidden", "enum", "literal_error"})

# What `_state_event` writes, of numbers that fit whatever their digits: canonical as it stands,
# and seen to be so in a third of the time that parsing it takes.
_STATE_EVENT = re.compile(
    rb'\{"event":\{"Kernel":\{"State(?:Entered":\{"attempt":(?:0|[1-9][0-9]{0,8}),'
    rb'"base_snapshot_id":"[0-9a-f]{64}"|Completed":\{"context_snapshot_id":"[0-9a-f]{64}"),'
    rb'"state_id":"[a-z0-9_.]+"\}\}\},"run_id":"([0-9a-f-]{36})",'
    rb'"seq":([1-9][0-9]{0,14}),"ts_millis":(?:0|[1-9][0-9]{0,14})\}'
)


def encode(run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]) -> list[bytes]:
    """The bodies of `events`, which must be `run_id`'s and go on from `expected_seq`.

    Raises:
        StorageFailure: `append_invalid`, with the reason.
    """
    if expected_seq < 0:
        raise append_invalid(run_id, "expected_seq is negative")
    if expected_seq > MAX_INTEGER:
        raise append_invalid(run_id, "expected_seq is beyond every sequence number")
    bodies = []
    for seq, event in enumerate(events, expected_seq + 1):
        if event.run_id != run_id:
            raise append_invalid(run_id, "an event is another run's")
        if event.seq != seq:
            raise append_invalid(run_id, "an event's seq does not follow")
        body = _state_event(event)
        if body is None:
            try:
                body = canonical_json_bytes(_plain(event))
            except CanonicalError as error:
                raise append_invalid(run_id, error.code) from None
        bodies.append(body)
    return bodies


def _plain(envelope: EventEnvelope) -> dict[str, Json]:
    """The envelope as JSON; a domain event's payload as it is, which a model would copy first."""
    if envelope.event.variant != "Domain":
        return envelope.model_dump(mode="json")
    domain = envelope.event.Domain
    plain: dict[str, Json] = {
        "event": {
            "Domain": {
                "name": domain.name,
                "payload": domain.payload,
                "payload_ref": None if domain.payload_ref is None else str(domain.payload_ref),
            }
        },
        # Plain strings: what else there is, the encoder looks at closely.
        "run_id": str(envelope.run_id),
        "seq": envelope.seq,
        "ts_millis": envelope.ts_millis,
    }
    if envelope.state_id is not None:
        plain["state_id"] = str(envelope.state_id)
    if envelope.attempt is not None:
        plain["attempt"] = envelope.attempt
    return plain


def _state_event(envelope: EventEnvelope) -> bytes | None:
    """The canonical bytes of the two events that each state has, if these are such a one's.

    Written out, since all in them is ids, which need no escapes, and integers: a quarter
    of the time that the model and the encoder take. That they are the same bytes is a property
    test.
    """
    ts = envelope.ts_millis
    if ts is None or not (envelope.state_id is None and envelope.attempt is None):
        return None
    if envelope.event.variant != "Kernel":
        return None
    kernel = envelope.event.Kernel
    if kernel.variant == "StateEntered":
        entered = kernel.StateEntered
        event = (
            f'{{"StateEntered":{{"attempt":{entered.attempt},"base_snapshot_id":'
            f'"{entered.base_snapshot_id}","state_id":"{entered.state_id}"}}}}'
        )
    elif kernel.variant == "StateCompleted":
        completed = kernel.StateCompleted
        event = (
            f'{{"StateCompleted":{{"context_snapshot_id":"{completed.context_snapshot_id}",'
            f'"state_id":"{completed.state_id}"}}}}'
        )
    else:
        return None
    return (
        f'{{"event":{{"Kernel":{event}}},"run_id":"{envelope.run_id}",'
        f'"seq":{envelope.seq},"ts_millis":{ts}}}'
    ).encode()


def chain(previous: bytes, bodies: Iterable[bytes]) -> list[bytes]:
    """The running hashes of `bodies` after an event whose running hash is `previous`."""
    hashes = []
    for body in bodies:
        previous = sha256(previous + body).digest()
        hashes.append(previous)
    return hashes


def verify(run_id: RunId, from_seq: int, previous: bytes, rows: Iterable[Row]) -> list[bytes]:
    """The bodies of `rows`, which must be the events from `from_seq` on, each after the other.

    `previous` is the running hash of event `from_seq - 1`.

    Raises:
        StorageFailure: `event_corrupt`: an event is missing, its running hash is wrong, its bytes
            are not canonical JSON, or they speak of another run or place.
    """
    bodies = []
    whose = run_id.encode()
    for expected, (seq, body, running_hash) in enumerate(rows, from_seq):
        if seq != expected:
            raise event_corrupt(run_id, expected, "missing")
        # A damaged file can hold a value of any type.
        if not isinstance(body, bytes):
            raise event_corrupt(run_id, seq, "body")
        previous = sha256(previous + body).digest()
        if running_hash != previous:
            raise event_corrupt(run_id, seq, "running_hash")
        usual = _STATE_EVENT.fullmatch(body)
        if usual is None or usual[1] != whose or int(usual[2]) != seq:
            _check_envelope(run_id, seq, body)
        bodies.append(body)
    return bodies


def _check_envelope(run_id: RunId, seq: int, body: bytes) -> None:
    try:
        value = parse_canonical(body)
    except CanonicalError as error:
        raise event_corrupt(run_id, seq, error.code) from None
    if not isinstance(value, dict) or value.get("run_id") != run_id or value.get("seq") != seq:
        raise event_corrupt(run_id, seq, "envelope")


def decode(run_id: RunId, from_seq: int, bodies: Iterable[bytes]) -> list[EventEnvelope]:
    """Typed events of verified bodies.

    Raises:
        StorageFailure: `unsupported_format` for a field or variant that this version does not
            know, `event_corrupt` for content that no version wrote.
    """
    parse = EventEnvelope.model_validate_json
    events: list[EventEnvelope] = []
    try:
        # Not a comprehension: its length tells which event failed.
        for body in bodies:
            events.append(parse(body))  # noqa: PERF401
    except ValidationError as error:
        seq = from_seq + len(events)
        if any(fault["type"] in _UNKNOWN_CONTENT for fault in error.errors()):
            raise unsupported_event(seq) from None
        raise event_corrupt(run_id, seq, "content") from None
    return events


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection while a long list of events is made.

    Models hold no cycles, and a collection after each few hundred of a list that grows looks at
    all of them again and again: 100,000 events took 3.8 s instead of 0.9.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def listing(run_id: RunId, first: Row, before_last: bytes, last: Row) -> RunListing:
    """One line of a run list, from the run's ends.

    `before_last` is the running hash of the last event's predecessor. A run whose ends do not
    verify is still listed, as `UNREADABLE`: one damaged run must not hide the others.
    """
    whole = (
        first[0] == 1
        and all(isinstance(part, bytes) for part in (first[1], before_last, last[1]))
        and chain(b"", [first[1]]) == [first[2]]
        and chain(before_last, [last[1]]) == [last[2]]
    )
    op_id: OpId | None = None
    started: int | None = None
    name = UNREADABLE
    if whole:
        try:
            opening, closing = orjson.loads(first[1]), orjson.loads(last[1])
            name = _event_name(closing["event"])
            started = opening["ts_millis"]
            op_id = OpId(opening["event"]["Kernel"]["RunStarted"]["op_id"])
        except (ValueError, KeyError, TypeError):
            # A stream that begins otherwise has no op; what was read of it stays.
            pass
    return RunListing(
        run_id=run_id, op_id=op_id, head_seq=last[0], started_ts_millis=started, last_event=name
    )


def _event_name(event: dict[str, dict[str, str]]) -> str:
    if "Domain" in event:
        return event["Domain"]["name"]
    (name,) = event["Kernel"]
    return name
