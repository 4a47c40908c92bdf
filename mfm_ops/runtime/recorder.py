"""How a state's domain events get into the stream: checked, filtered by profile, buffered."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import orjson

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import EventProfile
from mfm_ops.machine.errors import RunError, RunFailure
from mfm_ops.machine.events import (
    DOMAIN_EVENT_ARTIFACT_WRITTEN,
    ArtifactWritten,
    DomainEvent,
    is_engine_owned,
)
from mfm_ops.machine.ids import ArtifactId, StateId
from mfm_ops.runtime.persist import (
    DEPTH_OF_PAYLOAD,
    Refused,
    scanned_aside,
    scanned_canonical_bytes,
)
from mfm_ops.runtime.profile import keeps

__all__ = ["AttemptRecorder", "DomainSink"]


class DomainSink(Protocol):
    """Where an attempt's domain events go: the run's writer, or a replay's list."""

    def add_domain(
        self, event: DomainEvent, state_id: StateId | None = None, attempt: int | None = None
    ) -> None:
        """Take an event that was checked."""


class AttemptRecorder:
    """The `EventRecorder` of one attempt.

    Events become durable with the attempt's next append, at the latest with its end. `exists` says
    which artifacts they may name.
    """

    def __init__(
        self,
        writer: DomainSink,
        profile: EventProfile,
        state_id: StateId,
        attempt: int,
        exists: Callable[[ArtifactId], Awaitable[bool]],
    ) -> None:
        self._writer = writer
        self._exists = exists
        self._profile = profile
        self._state_id = state_id
        self._attempt = attempt
        self._over = False

    def close(self) -> None:
        """The attempt is over: what its handler left running may add no more events."""
        self._over = True

    async def emit(self, event: DomainEvent) -> None:
        """See `EventRecorder.emit`."""
        await self.emit_many([event])

    async def emit_many(self, events: Sequence[DomainEvent]) -> None:
        """See `EventRecorder.emit_many`."""
        self._refuse_when_over()
        checked = [await _checked(event) for event in events]
        for event in checked:
            await self._refuse_strays(event)
        self._refuse_when_over()
        for event in checked:
            if keeps(self._profile, event.name):
                self._writer.add_domain(event, self._state_id, self._attempt)

    def _refuse_when_over(self) -> None:
        if self._over:
            info = error_info("io_attempt_over", "the attempt that this belongs to has ended")
            raise RunFailure(RunError(Other=info))

    async def _refuse_strays(self, event: DomainEvent) -> None:
        """An event never names an artifact that is not there: verify would call it lost."""
        for artifact_id in _named(event):
            if not await self._exists(artifact_id):
                raise _invalid("the event names an artifact that is not stored", "unknown_artifact")


async def _checked(event: DomainEvent) -> DomainEvent:
    """The event as it was checked: its emitter may still change the payload that it gave."""
    if is_engine_owned(event.name):
        raise RunFailure(
            RunError(
                Other=error_info(
                    "event_name_reserved", "the event's name is the engine's own", name=event.name
                )
            )
        )
    try:
        data = await scanned_aside(event.payload, "event_invalid", depth=DEPTH_OF_PAYLOAD)
        scanned_canonical_bytes(event.name, "event_invalid")
    except Refused as refused:
        raise RunFailure(RunError(Other=refused.info)) from None
    try:
        # Made anew: a copy that was changed may hold anything, and must stay readable when stored.
        return DomainEvent(
            name=event.name, payload=orjson.loads(data), payload_ref=event.payload_ref
        )
    except ValueError:
        raise _invalid("the event has a field of a wrong type", "field_type") from None


def _named(event: DomainEvent) -> list[ArtifactId]:
    named = [] if event.payload_ref is None else [event.payload_ref]
    if event.name == DOMAIN_EVENT_ARTIFACT_WRITTEN:
        with contextlib.suppress(ValueError):
            # Another payload than the contract's names nothing, as far as anybody can tell.
            named.append(
                ArtifactWritten.model_validate_json(orjson.dumps(event.payload)).artifact_id
            )
    return named


def _invalid(message: str, reason: str) -> RunFailure:
    return RunFailure(RunError(Other=error_info("event_invalid", message, reason=reason)))
