"""Executes one handler again on what its recorded attempt could see; nothing is written.

What differs from the record is found in `verdict_compare`.
"""

from collections import Counter
from typing import NamedTuple

from mfm_ops.machine.canonical import artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import EventProfile
from mfm_ops.machine.errors import (
    CODE_MISSING_FACT_KEY,
    ErrorInfo,
    IoFailure,
    StateError,
    StateFailure,
    StorageFailure,
)
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId, StateId
from mfm_ops.machine.io import IoCall, IoResult
from mfm_ops.machine.plan import StateNode
from mfm_ops.machine.state import StateOutcome
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.machine.wire import JsonValue
from mfm_ops.runtime.context import Delta, Snapshot, StagedContext
from mfm_ops.runtime.fact_keys import default_key, request_bytes
from mfm_ops.runtime.facts import BoundFact, FactIndex
from mfm_ops.runtime.handler_failures import causes_of, info_of
from mfm_ops.runtime.interrupted import Outside
from mfm_ops.runtime.persist import (
    Persister,
    Refused,
    refuse_secrets,
    scanned_canonical_bytes,
)
from mfm_ops.runtime.recorder import AttemptRecorder
from mfm_ops.runtime.redact import safe_info
from mfm_ops.runtime.replay_io import ReplayIo

__all__ = [
    "AttemptFacts",
    "AttemptIo",
    "Replayed",
    "Trouble",
    "replay_attempt",
]


_MISSING = frozenset({"missing_fact", CODE_MISSING_FACT_KEY})
_OTHER = frozenset({"fact_request_mismatch", "fact_payload_conflict"})


class Trouble(NamedTuple):
    """Something that was asked and that the record does not answer.

    `offered` is the new request or value in canonical JSON, scanned; None where there is none to
    show. `default_prefix` is what default keys of the same state and namespace begin with.
    """

    code: str
    key: FactKey
    offered: bytes | None = None
    default_prefix: str | None = None

    @property
    def is_missing(self) -> bool:
        """Whether the record has nothing under the key, rather than something else."""
        return self.code in _MISSING


class Replayed(NamedTuple):
    """What a handler did this time: a snapshot, or the error that it raised and what it left."""

    snapshot: Snapshot | None
    error: ErrorInfo | None
    events: tuple[DomainEvent, ...]
    asked: frozenset[FactKey]
    troubles: tuple[Trouble, ...]


class AttemptFacts:
    """The run's facts as the recorded attempt could see them.

    A fact that was bound after the attempt's end answers nobody. `seen` knows how far the attempt
    has come: where it bound a fact itself, it has come so far.
    """

    def __init__(
        self, facts: FactIndex, seqs: dict[FactKey, int], entered_seq: int, ended_seq: int
    ) -> None:
        self._facts = facts
        self._seqs = seqs
        self._reached = entered_seq
        self._ended_seq = ended_seq
        self._asked: Counter[FactKey] = Counter()

    def get(self, key: FactKey) -> BoundFact | None:
        """See `RecordedFacts.get`."""
        seq = self._seqs.get(key, 0)
        fact = self._facts.get(key)
        if fact is None or seq > self._ended_seq:
            return None
        self._asked[key] += 1
        self._reached = max(self._reached, seq)
        return fact

    def gave_none(self, key: FactKey) -> None:
        """What was asked for under `key` last was not what is recorded there."""
        self._asked[key] -= 1

    @property
    def asked(self) -> frozenset[FactKey]:
        """The facts that answered, though something else may have been asked for as well."""
        return frozenset(key for key, times in self._asked.items() if times > 0)

    def seen(self, key: FactKey) -> BoundFact | None:
        """The fact under `key` if it was bound by now."""
        return self._facts.get(key) if self._seqs.get(key, 0) <= self._reached else None


class AttemptIo(ReplayIo):
    """`ReplayIo` that keeps what could not be answered, handlers that catch it or not."""

    def __init__(
        self,
        facts: AttemptFacts,
        persister: Persister,
        env: LiveIoEnv,
        *,
        source_run_id: RunId,
        source_attempt: int,
    ) -> None:
        super().__init__(
            facts, persister, env, source_run_id=source_run_id, source_attempt=source_attempt
        )
        self.seen_facts = facts
        self.troubles: list[Trouble] = []

    async def call(self, call: IoCall) -> IoResult:
        try:
            return await super().call(call)
        except IoFailure as failure:
            if failure.info.code in _MISSING | _OTHER:
                # The request passed the scan, or the failure would be another.
                request = request_bytes(call)
                request_id = artifact_id_for_bytes(request)
                default = default_key(call.namespace, self._env, request_id)
                prefix = None if call.fact_key else default.removesuffix(request_id)
                self._note(failure, call.fact_key or default, request, prefix)
            raise

    async def record_value(self, key: FactKey, value: JsonValue) -> ArtifactId:
        try:
            return await super().record_value(key, value)
        except IoFailure as failure:
            if failure.info.code in _MISSING | _OTHER:
                self._note(failure, key, scanned_canonical_bytes(value, "io_response_invalid"))
            raise

    async def exists(self, artifact_id: ArtifactId) -> bool:
        """Whether the store holds an artifact."""
        return await self._persister.exists(artifact_id)

    async def get_recorded_fact(self, key: FactKey) -> ArtifactId | None:
        bound = self.seen_facts.seen(key)
        return None if bound is None else bound.payload_id

    async def now_millis(self) -> int:
        try:
            return await super().now_millis()
        except IoFailure as failure:
            self._note_keyed(failure)
            raise

    async def random_bytes(self, n: int) -> bytes:
        try:
            return await super().random_bytes(n)
        except IoFailure as failure:
            self._note_keyed(failure)
            raise

    def _note_keyed(self, failure: IoFailure) -> None:
        details = failure.info.details
        if failure.info.code in _MISSING | _OTHER and isinstance(details, dict):
            self._note(failure, FactKey(details["key"]))

    def _note(
        self,
        failure: IoFailure,
        key: FactKey,
        offered: bytes | None = None,
        default_prefix: str | None = None,
    ) -> None:
        self.seen_facts.gave_none(key)
        self.troubles.append(Trouble(str(failure.info.code), key, offered, default_prefix))


class _Collected:
    """Where the events of a replay go."""

    def __init__(self) -> None:
        self.events: list[DomainEvent] = []

    def add_domain(
        self,
        event: DomainEvent,
        state_id: StateId | None = None,  # noqa: ARG002 - it is one attempt's list
        attempt: int | None = None,  # noqa: ARG002
    ) -> None:
        self.events.append(event)


async def replay_attempt(
    node: StateNode,
    attempt: int,
    base: Snapshot,
    *,
    io: AttemptIo,
    profile: EventProfile,
    recorded_id: ArtifactId | None,
) -> Replayed:
    """Run the handler once over `base`.

    New content is scanned as it was live; a snapshot with the id `recorded_id` was scanned then.

    Raises:
        StorageFailure: something that was recorded cannot be read.
    """
    staged = StagedContext(base)
    collected = _Collected()
    error: ErrorInfo | None = None
    snapshot: Snapshot | None
    outside = Outside()
    try:
        outcome = await node.state.handle(
            staged, io, AttemptRecorder(collected, profile, node.id, attempt, io.exists)
        )
        if not isinstance(outcome, StateOutcome):
            raise StateFailure(
                StateError(
                    info=error_info("state_outcome_invalid", "the handler returned no StateOutcome")
                )
            )
        snapshot = _scanned(base, staged.delta(), recorded_id)
    except BaseException as raised:  # noqa: BLE001 - whatever a handler raises is a failed attempt
        await outside.raise_if_it_ended(raised)
        error = safe_info(_info_of(raised))
        try:
            snapshot = _scanned(base, staged.delta(), recorded_id)
        except Refused:
            snapshot = None
    return Replayed(
        snapshot,
        error,
        tuple(collected.events),
        io.seen_facts.asked,
        tuple(io.troubles),
    )


def _scanned(base: Snapshot, delta: Delta, recorded_id: ArtifactId | None) -> Snapshot:
    snapshot = base.apply(delta)
    if snapshot.artifact_id != recorded_id:
        for key, fragment in delta.items():
            if fragment is not None:
                # Key and value together: a key such as `api_key` makes its value a secret.
                refuse_secrets(b"{" + canonical_json_bytes(key) + b":" + fragment + b"}")
    return snapshot


def _info_of(error: BaseException) -> ErrorInfo:
    """The record of a failed handler, as `attempt` makes it for a live one."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, StorageFailure):
            raise cause
    return info_of(error, causes)
