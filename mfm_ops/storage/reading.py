"""What one stored event says to those who move or verify runs: rules, references, links; pure.

The usual events are recognised by one pattern, many at once, at a tenth of the cost of models.
Which order of events is right is left to the `Rules` that the caller brings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import orjson

from mfm_ops.machine import events as ev
from mfm_ops.machine.canonical import MAX_DEPTH, CanonicalError, Json, parse_canonical
from mfm_ops.machine.ids import ArtifactId, IdValidationError, RunId
from mfm_ops.machine.json_rules import holds_only_json
from mfm_ops.storage.failures import event_corrupt
from mfm_ops.storage.stream import decode

__all__ = ["Reading", "Rules", "read_event", "read_usual"]

MANIFEST: Final = '"Manifest"'
SNAPSHOT: Final = '"ContextSnapshot"'
PAYLOAD: Final = '"FactPayload"'
REQUEST: Final = '{"Other":"IoRequest"}'
POLICY: Final = '{"Other":"Policy"}'
OTHER: Final = '{"Other":"EventPayload"}'

_NONE: Final[tuple[str, ...]] = ()
_SNAPSHOTS: Final = (SNAPSHOT,)
_FACT_KINDS: Final[tuple[str, ...]] = (PAYLOAD,)
_ASKED_KINDS: Final[tuple[str, ...]] = (PAYLOAD, REQUEST)
# The groups of a line that is not recognised.
_NOTHING: Final = ("",) * 12
# Half the time of calling the class.
_new: Final = tuple.__new__
_HEX_DIGITS: Final = "0123456789abcdef"

# The members of an engine's own event that name an artifact, by the kind of what they name. Other
# members that end in `_id` and hold 64 hexadecimal digits do so as well.
_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "child_manifest_id": MANIFEST,
        "final_snapshot_id": SNAPSHOT,
        "payload_id": PAYLOAD,
        "policy_digest": POLICY,
        "request_id": REQUEST,
    }
)

_SEGMENT = r"[a-z][a-z0-9_]{0,62}"
_STATE = rf"{_SEGMENT}\.{_SEGMENT}\.{_SEGMENT}"
_NUMBER = r"0|[1-9][0-9]{0,8}"
_TEXT = r"[ !#-\[\]-~]*"
# Canonical JSON has one spelling, and no line breaks, so one pattern can recognise the events of
# a text that has one in each line. Of what may stand in `meta` and `payload` it says nothing.
_USUAL: Final = re.compile(
    rf'^(?:\{{(?:"attempt":(?:{_NUMBER}),)?"event":\{{(?:'
    r'"Kernel":\{"State(?:'
    rf'Entered":\{{"attempt":({_NUMBER}),"base_snapshot_id":"([0-9a-f]{{64}})"'
    r'|Completed":\{"context_snapshot_id":"([0-9a-f]{64})"'
    rf'),"state_id":"({_STATE})"\}}\}}'
    r'|"Domain":\{"name":"(?:fact_recorded","payload":'
    rf'\{{"key":"({_TEXT})","meta":(\{{[ -z|~]*\}}),"payload_id":"([0-9a-f]{{64}})"\}},'
    rf'"payload_ref":null|({_TEXT})","payload":(.*),"payload_ref":(?:null|"([0-9a-f]{{64}})"))\}}'
    r')\},"run_id":"([0-9a-f-]{36})","seq":([1-9][0-9]{0,14})'
    rf'(?:,"state_id":"{_STATE}")?,"ts_millis":(?:null|0|[1-9][0-9]{{0,14}})\}}|.*)$',
    re.MULTILINE,
)
_FLAT: Final = frozenset({type(None), bool, int, str})
_CANONICAL: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_DEPTH_OF_PAYLOAD: Final = 3


class Reading(NamedTuple):
    """One event: its `name` (a kernel variant, or a domain event's), and what it speaks of.

    `state_id` and `attempt` are those of a kernel event. A fact that is whole has `key` and
    `payload_id`, an intent that is whole its `key`.
    `artifacts` are the ids that the event names, `kinds` their kinds as canonical JSON, and
    `links` the runs that belong to this one.
    """

    kernel: bool
    name: str
    state_id: str | None = None
    attempt: int = 0
    key: str | None = None
    payload_id: str | None = None
    artifacts: tuple[str, ...] = _NONE
    kinds: tuple[str, ...] = _NONE
    links: tuple[str, ...] = _NONE


class Rules(Protocol):
    """Checks one run's events against the rules of their kind, in order."""

    def accepts(self, readings: Iterable[Reading]) -> bool:
        """Whether the next events are surely right; after a False only `explain` knows."""

    def explain(self, bodies: Iterable[bytes]) -> tuple[int, str] | None:
        """The first event that breaks a rule, and the reason; None if all are right.

        `bodies` are all of the run's verified events.
        """


def read_usual(rows: Sequence[tuple[int, bytes, bytes]], run_id: RunId) -> list[Reading | None]:
    """What the events `rows` say, each None that takes a closer look; of `(seq, body, …)`.

    A reading is the one that `read_event` gives.
    """
    try:
        text = b"\n".join([body for _, body, _ in rows]).decode()
    except (TypeError, UnicodeDecodeError):
        return [None] * len(rows)
    lines = _USUAL.findall(text)
    if len(lines) != len(rows):
        # A line break that is no event's.
        return [None] * len(rows)
    columns = list(zip(*lines, strict=True)) or [()] * 12
    metas = _plain_metas([meta for meta in columns[5] if meta])
    # Checked for all at once, at a fifth of what it costs to check each.
    if set(columns[10]) != {str(run_id)} or columns[11] != tuple([str(seq) for seq, _, _ in rows]):
        lines = [
            line if line[10:] == (run_id, str(seq)) else _NOTHING
            for line, (seq, _, _) in zip(lines, rows, strict=True)
        ]
        metas = _plain_metas([line[5] for line in lines if line[5]])
    readings: list[Reading | None] = []
    # fmt: off
    for (attempt, base, snapshot, state_id,
         key, meta, payload_id, name, raw, payload_ref, run, _) in lines:
        if base:
            readings.append(_new(Reading, (True, "StateEntered", state_id, int(attempt), None, None,
                                           (base,), _SNAPSHOTS, _NONE)))
        elif snapshot:
            readings.append(_new(Reading, (True, "StateCompleted", state_id, 0, None, None,
                                           (snapshot,), _SNAPSHOTS, _NONE)))
        elif meta:
            plain = next(metas)
            readings.append(None if plain is None else _fact(key, payload_id, plain))
        else:
            payload = _plain(raw) if run else None
            readings.append(
                None if payload is None else _domain(name, payload, payload_ref or None, run_id))
    # fmt: on
    return readings


def _plain_metas(texts: list[str]) -> Iterator[dict[str, Json] | None]:
    """For each text, which has braces at its ends and nowhere else, what `_plain` says of it."""
    joined = f"[{','.join(texts)}]".encode()
    try:
        values = orjson.loads(joined)
        same = orjson.dumps(values, option=_CANONICAL) == joined
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        same = False
    # As many objects as there are pairs of braces, so each text is one of them.
    if same and len(values) == len(texts) and set(map(type, values)) <= {dict}:
        members = chain.from_iterable(map(dict.values, values))
        if _FLAT.issuperset(map(type, members)):
            return iter(values)
    return map(_plain, texts)


def read_event(body: bytes, run_id: RunId, seq: int) -> Reading:
    """What the stored event `body` says, which must be the canonical event `seq` of `run_id`.

    Raises:
        StorageFailure: `event_corrupt` with the reason, or `unsupported_format`.
    """
    try:
        value = parse_canonical(body)
    except CanonicalError as error:
        raise event_corrupt(run_id, seq, error.code) from None
    if not isinstance(value, dict) or value.get("run_id") != run_id or value.get("seq") != seq:
        raise event_corrupt(run_id, seq, "envelope")
    (envelope,) = decode(run_id, seq, [body])
    event = envelope.event
    if event.variant == "Domain":
        payload = event.Domain.payload
        return _domain(event.Domain.name, payload, event.Domain.payload_ref, run_id)
    kernel = event.Kernel.value
    state_id, attempt = getattr(kernel, "state_id", None), getattr(kernel, "attempt", 0)
    named = [
        (str(getattr(kernel, field)), MANIFEST if field == "manifest_id" else SNAPSHOT)
        for field in type(kernel).model_fields
        if field.endswith(("snapshot_id", "manifest_id")) and getattr(kernel, field) is not None
    ]
    ids, kinds = tuple(one for one, _ in named), tuple(kind for _, kind in named)
    return Reading(True, event.Kernel.variant, state_id, attempt, None, None, ids, kinds)


def _plain(text: str) -> dict[str, Json] | None:
    """The members of the value whose canonical form `text` is; None takes a closer look."""
    raw = text.encode()
    if len(raw) != len(text):
        # Beyond ASCII the order of keys may be another one.
        return None
    try:
        value = orjson.loads(raw)
        if orjson.dumps(value, option=_CANONICAL) != raw:
            return None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    # Equal bytes leave a float, or too great a depth.
    members = value if type(value) is dict else {}
    if members and _FLAT.issuperset(map(type, members.values())):
        return members
    return members if holds_only_json(value, MAX_DEPTH - _DEPTH_OF_PAYLOAD) else None


def _fact(key: str, payload_id: str, meta: Any) -> Reading:
    artifacts: tuple[str, ...] = (payload_id,)
    kinds = _FACT_KINDS
    if type(meta) is dict:
        # What a transport calls an id otherwise need not be an artifact's.
        request_id, policy_id = meta.get("request_id"), meta.get("policy_digest")
        if request_id is not None and _is_id(request_id):
            artifacts, kinds = (payload_id, request_id), _ASKED_KINDS
        if policy_id is not None and _is_id(policy_id):
            artifacts, kinds = (*artifacts, policy_id), (*kinds, POLICY)
    fields = (False, "fact_recorded", None, 0, key, payload_id, artifacts, kinds, _NONE)
    return _new(Reading, fields)


def _domain(name: str, payload: Any, payload_ref: str | None, run_id: RunId) -> Reading:
    members: dict[str, Any] = payload if isinstance(payload, dict) else {}
    if name == ev.DOMAIN_EVENT_FACT_RECORDED and payload_ref is None and _is_fact(members):
        return _fact(members["key"], members["payload_id"], members["meta"])
    named: list[tuple[str, str]] = []
    links: tuple[str, ...] = _NONE
    if ev.is_engine_owned(name):
        for word, value in members.items():
            if word.endswith("run_id"):
                links += _link(value, run_id)
            elif (word.endswith("_id") or word in _KINDS) and _is_id(value):
                named.append((value, _KINDS.get(word, OTHER)))
    elif name == ev.DOMAIN_EVENT_ARTIFACT_WRITTEN:
        named += _written(payload)
    if payload_ref is not None:
        named.append((str(payload_ref), OTHER))
    key = members.get("key") if name == ev.EVENT_IO_INTENT else None
    return Reading(
        False,
        name,
        key=key if isinstance(key, str) and _is_id(members.get("request_id")) else None,
        artifacts=tuple([one for one, _ in named]),
        kinds=tuple([kind for _, kind in named]),
        links=links,
    )


def _is_fact(members: dict[str, Any]) -> bool:
    return (
        members.keys() == {"key", "payload_id", "meta"}
        and type(members["key"]) is str
        and _is_id(members["payload_id"])
    )


def _is_id(value: object) -> bool:
    return type(value) is str and len(value) == 64 and not value.strip(_HEX_DIGITS)


def _link(value: object, run_id: RunId) -> tuple[str, ...]:
    try:
        other = RunId(value) if isinstance(value, str) else run_id
    except IdValidationError:
        return _NONE
    return _NONE if other == run_id else (str(other),)


def _written(payload: Any) -> list[tuple[str, str]]:
    """The artifact of an op's `artifact_written`, if it is one by the contract's words."""
    try:
        written = ev.ArtifactWritten.model_validate_json(orjson.dumps(payload))
    except ValueError:
        return []
    kind = orjson.dumps(written.kind.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return [(str(ArtifactId(written.artifact_id)), kind.decode())]
