"""Compares what an attempt recorded with what its handler did again. Pure.

Loading what a readable difference needs is left to `verdict`.
"""

from collections.abc import Mapping
from itertools import zip_longest
from types import MappingProxyType
from typing import NamedTuple

import orjson

from mfm_ops.machine.canonical import Json, artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import ErrorInfo
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import ArtifactId, FactKey
from mfm_ops.runtime.context import Snapshot
from mfm_ops.runtime.facts import FactIndex
from mfm_ops.runtime.records import StateStatus
from mfm_ops.runtime.verdict_attempt import Replayed, Trouble
from mfm_ops.runtime.verdict_diff import brief, difference
from mfm_ops.runtime.verdict_model import Divergence, DivergenceKind
from mfm_ops.runtime.verdict_record import RecordedAttempt

__all__ = ["Evidence", "compare", "context_divergence", "is_unanswerable", "recorded_of"]


class Evidence(NamedTuple):
    """What the record holds beside the attempt itself.

    `snapshot` is the recorded one where it differs; `payloads` are recorded requests and values
    by id, as far as somebody was asked for another one.
    """

    facts: FactIndex
    snapshot: Snapshot | None = None
    payloads: Mapping[ArtifactId, bytes] = MappingProxyType({})


def compare(
    recorded: RecordedAttempt, replayed: Replayed, evidence: Evidence
) -> tuple[Divergence, ...]:
    """All differences, causes first: what was asked, how it ended, context, events, facts unused.

    What could not be answered counts only where the attempt came to something else by it: a
    failed call leaves no fact, and a handler may have caught that failure then as it did now.
    """
    found: list[Divergence] = []
    if not _same_end(recorded, replayed):
        found.append(_outcome(recorded, replayed))
    else:
        if evidence.snapshot is not None and replayed.snapshot is not None:
            found.append(context_divergence(recorded, evidence.snapshot, replayed.snapshot))
        found += _events(recorded, replayed)
        found += _unused(recorded, replayed)
    if not found:
        return ()
    causes = [_cause(recorded, replayed, trouble, evidence) for trouble in replayed.troubles]
    explained = {cause.key for cause in causes}
    wanting = {trouble.code for trouble in replayed.troubles}
    if replayed.error is not None and replayed.error.code in wanting:
        # It failed for want of an answer: that it failed is no second finding.
        found = [one for one in found if one.kind is not DivergenceKind.outcome]
    found = [
        one
        for one in found
        if one.kind is not DivergenceKind.unused_fact or one.key not in explained
    ]
    return (*dict.fromkeys(causes), *found)


def is_unanswerable(recorded: RecordedAttempt, replayed: Replayed) -> bool:
    """Whether a recorded failure cannot be judged: it may be that of a call, which is no fact."""
    return (
        recorded.status is StateStatus.failed
        and not _same_end(recorded, replayed)
        and any(trouble.is_missing for trouble in replayed.troubles)
        and all(trouble.is_missing for trouble in replayed.troubles)
    )


def recorded_of(
    trouble: Trouble, recorded: RecordedAttempt, replayed: Replayed, facts: FactIndex
) -> ArtifactId | None:
    """The recorded request or value to hold against what was offered, if there is one.

    For a default key, which changes with its request: that of a call to the same namespace which
    the recorded attempt made and the replay did not.
    """
    key: FactKey | None = trouble.key
    if trouble.default_prefix is not None:
        key = next(
            (
                mine
                for mine in recorded.facts
                if mine not in replayed.asked and mine.startswith(trouble.default_prefix)
            ),
            None,
        )
    fact = None if key is None else facts.get(key)
    if fact is None:
        return None
    if trouble.code == "fact_payload_conflict":
        return fact.payload_id
    return None if fact.request_id is None else ArtifactId(fact.request_id)


def context_divergence(
    attempt: RecordedAttempt | None,
    recorded: Snapshot,
    replayed: Snapshot,
    kind: DivergenceKind = DivergenceKind.context,
) -> Divergence:
    """Two contexts that differ: the first key in canonical order, and all of them in the diff."""
    keys = sorted(
        key
        for key in {*recorded.fragments, *replayed.fragments}
        if recorded.fragments.get(key) != replayed.fragments.get(key)
    )
    return Divergence(
        state_id=attempt.state_id if attempt else None,
        attempt=attempt.number if attempt else None,
        kind=kind,
        key=keys[0],
        recorded=recorded.artifact_id,
        replayed=replayed.artifact_id,
        diff=difference(_part(recorded, keys), _part(replayed, keys)),
    )


def _part(snapshot: Snapshot, keys: list[str]) -> dict[str, Json]:
    fragments = snapshot.fragments
    return {key: orjson.loads(fragments[key]) for key in keys if key in fragments}


def _same_end(recorded: RecordedAttempt, replayed: Replayed) -> bool:
    one, other = recorded.error, replayed.error
    if one is None or other is None:
        return one is other
    if one.code != other.code:
        return False
    # Of our own codes the details are the substance, of others' the message: they keep no details.
    return one.details == other.details if one.code in CATALOGUE else one.message == other.message


def _outcome(recorded: RecordedAttempt, replayed: Replayed) -> Divergence:
    return Divergence(
        state_id=recorded.state_id,
        attempt=recorded.number,
        kind=DivergenceKind.outcome,
        recorded=_digest(_error_json(recorded.error)) if recorded.error else recorded.snapshot_id,
        replayed=_digest(_error_json(replayed.error))
        if replayed.error
        else replayed.snapshot.artifact_id
        if replayed.snapshot
        else None,
        diff=(f"- {_ended(recorded.error)}", f"+ {_ended(replayed.error)}"),
    )


def _ended(error: ErrorInfo | None) -> str:
    if error is None:
        return "completed"
    details = f" {canonical_json_bytes(error.details).decode()}" if error.details else ""
    return f"failed: {error.code}: {error.message}{details}"


def _error_json(error: ErrorInfo) -> Json:
    whole: Json = error.model_dump(mode="json")
    return whole


def _digest(value: Json) -> str:
    return artifact_id_for_bytes(canonical_json_bytes(value))


def _events(recorded: RecordedAttempt, replayed: Replayed) -> list[Divergence]:
    """The first event that is not the same; those after it say little."""
    for index, (old, new) in enumerate(zip_longest(recorded.events, replayed.events)):
        one, other = _event_json(old), _event_json(new)
        if canonical_json_bytes(one) != canonical_json_bytes(other):
            return [
                Divergence(
                    state_id=recorded.state_id,
                    attempt=recorded.number,
                    kind=DivergenceKind.event,
                    index=index,
                    recorded=None if one is None else _digest(one),
                    replayed=None if other is None else _digest(other),
                    diff=difference(one, other)
                    if one is not None and other is not None
                    else (f"- {brief(one)}" if other is None else f"+ {brief(other)}",),
                )
            ]
    return []


def _event_json(event: DomainEvent | None) -> dict[str, Json] | None:
    return None if event is None else event.model_dump(mode="json")


def _unused(recorded: RecordedAttempt, replayed: Replayed) -> list[Divergence]:
    return [
        Divergence(
            state_id=recorded.state_id,
            attempt=recorded.number,
            kind=DivergenceKind.unused_fact,
            key=str(key),
        )
        for key in recorded.facts
        if key not in replayed.asked
    ]


def _cause(
    recorded: RecordedAttempt, replayed: Replayed, trouble: Trouble, evidence: Evidence
) -> Divergence:
    kind = (
        DivergenceKind.missing_fact
        if trouble.is_missing
        else DivergenceKind.fact_value
        if trouble.code == "fact_payload_conflict"
        else DivergenceKind.fact_request
    )
    before = recorded_of(trouble, recorded, replayed, evidence.facts)
    old = evidence.payloads.get(before) if before is not None else None
    new = trouble.offered
    diff: tuple[str, ...] = ()
    if old is not None and new is not None:
        diff = difference(orjson.loads(old), orjson.loads(new))
    return Divergence(
        state_id=recorded.state_id,
        attempt=recorded.number,
        kind=kind,
        key=str(trouble.key),
        recorded=before,
        replayed=None if new is None else artifact_id_for_bytes(new),
        diff=diff,
    )
