"""IO from recorded facts alone: no transport is ever made (the contract, section 6)."""

from typing import Protocol, cast

from mfm_ops.machine.canonical import Json, artifact_id_for_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import CODE_MISSING_FACT_KEY, IoError, IoFailure, MissingFact
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId
from mfm_ops.machine.io import IoCall, IoResult
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.fact_keys import ambient_key, default_key, request_bytes
from mfm_ops.runtime.facts import BoundFact
from mfm_ops.runtime.live_io import MAX_RANDOM_BYTES
from mfm_ops.runtime.persist import Persister, Refused, scanned_canonical_bytes

__all__ = ["RecordedFacts", "ReplayIo"]


class RecordedFacts(Protocol):
    """Where the recorded answers are: a run's `FactIndex`, or what one attempt could see of it."""

    def get(self, key: FactKey) -> BoundFact | None:
        """The fact that answers whoever asks under `key`, if there is one."""


class ReplayIo:
    """The `IoProvider` of one attempt of a replay.

    `source_run_id` and `source_attempt` say whose clock and randomness are replayed: those that
    the recorded run's completed attempt saw.
    """

    def __init__(
        self,
        facts: RecordedFacts,
        persister: Persister,
        env: LiveIoEnv,
        *,
        source_run_id: RunId,
        source_attempt: int,
    ) -> None:
        self._facts = facts
        self._persister = persister
        self._env = env
        self._source_run_id = source_run_id
        self._source_attempt = source_attempt
        self._ordinals = {"now_millis": 0, "random_bytes": 0}

    async def call(self, call: IoCall) -> IoResult:
        """The recorded answer; see `IoProvider.call`."""
        if self._env.side_effects is SideEffectKind.Pure:
            raise IoFailure(IoError(Other=error_info("io_pure_state", "a pure state called out")))
        request_id = artifact_id_for_bytes(request_bytes(call))
        key = call.fact_key
        if not key:
            # A live run gives such a call a key of its own; what it recorded there counts.
            key = default_key(call.namespace, self._env, request_id)
            if self._facts.get(key) is None:
                info = error_info(CODE_MISSING_FACT_KEY, "missing fact key")
                raise IoFailure(IoError(MissingFactKey=info))
        bound = self._bound(key)
        if bound.request_id != request_id:
            raise IoFailure(
                IoError(
                    Other=error_info(
                        "fact_request_mismatch",
                        "the recorded run asked something else under this key",
                        key=str(key),
                    )
                )
            )
        response = await self._persister.load_json(bound.payload_id)
        return IoResult(response=response, recorded_payload_id=bound.payload_id)

    async def record_value(self, key: FactKey, value: Json) -> ArtifactId:
        """The recorded value must be the same; nothing is written."""
        try:
            payload_id = artifact_id_for_bytes(
                scanned_canonical_bytes(value, "io_response_invalid")
            )
        except Refused as refused:
            raise IoFailure(IoError(Other=refused.info)) from None
        if self._bound(key).payload_id != payload_id:
            raise IoFailure(
                IoError(
                    Other=error_info(
                        "fact_payload_conflict",
                        "the recorded run has another value under this key",
                        key=str(key),
                    )
                )
            )
        return payload_id

    async def get_recorded_fact(self, key: FactKey) -> ArtifactId | None:
        """See `IoProvider.get_recorded_fact`."""
        bound = self._facts.get(key)
        return None if bound is None else bound.payload_id

    async def now_millis(self) -> int:
        """The time that the recorded attempt saw."""
        bound = self._bound(self._next_key("now_millis"))
        return cast(int, await self._persister.load_json(bound.payload_id))

    async def random_bytes(self, n: int) -> bytes:
        """The bytes that the recorded attempt got."""
        # Refused before it is counted, as it was live: what comes after keeps its ordinal.
        if not 0 <= n <= MAX_RANDOM_BYTES:
            raise IoFailure(IoError(Other=error_info("io_size_invalid", "not a size to ask for")))
        key = self._next_key("random_bytes")
        data = await self._persister.load_bytes(self._bound(key).payload_id)
        if len(data) != n:
            raise IoFailure(
                IoError(
                    Other=error_info(
                        "fact_request_mismatch",
                        "the recorded attempt asked for another number of bytes",
                        key=str(key),
                    )
                )
            )
        return data

    def _next_key(self, kind: str) -> FactKey:
        ordinal = self._ordinals[kind]
        self._ordinals[kind] = ordinal + 1
        return ambient_key(
            kind, self._source_run_id, self._env.state_id, self._source_attempt, ordinal
        )

    def _bound(self, key: FactKey) -> BoundFact:
        bound = self._facts.get(key)
        if bound is None:
            try:
                # What could not be a key when it was recorded is refused for that again.
                scanned_canonical_bytes(str(key), "io_request_invalid")
            except Refused as refused:
                raise IoFailure(IoError(Other=refused.info)) from None
            info = error_info("missing_fact", "the fact was never recorded", key=str(key))
            if self._env.run_config.replay_missing_fact_retryable:
                info = info.model_copy(update={"retryable": True})
            raise IoFailure(IoError(MissingFact=MissingFact(key=key, info=info)))
        return bound
