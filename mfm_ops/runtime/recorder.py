"""How a state's domain events get into the stream: checked, filtered by profile, buffered."""

from collections.abc import Sequence
from typing import Protocol

import orjson

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import EventProfile
from mfm_ops.machine.errors import RunError, RunFailure
from mfm_ops.machine.events import DomainEvent, is_engine_owned
from mfm_ops.machine.ids import StateId
from mfm_ops.runtime.persist import DEPTH_OF_PAYLOAD, Refused, scanned_canonical_bytes
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

    Events become durable with the attempt's next append, at the latest with its end.
    """

    def __init__(
        self, writer: DomainSink, profile: EventProfile, state_id: StateId, attempt: int
    ) -> None:
        self._writer = writer
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
        if self._over:
            info = error_info("io_attempt_over", "the attempt that this belongs to has ended")
            raise RunFailure(RunError(Other=info))
        for event in [_checked(event) for event in events]:
            if keeps(self._profile, event.name):
                self._writer.add_domain(event, self._state_id, self._attempt)


def _checked(event: DomainEvent) -> DomainEvent:
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
        data = scanned_canonical_bytes(event.payload, "event_invalid", depth=DEPTH_OF_PAYLOAD)
        scanned_canonical_bytes(event.name, "event_invalid")
    except Refused as refused:
        raise RunFailure(RunError(Other=refused.info)) from None
    return event.model_copy(update={"payload": orjson.loads(data)})
