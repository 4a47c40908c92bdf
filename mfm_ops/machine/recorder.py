"""How a state handler emits its domain events (seed: recorder)."""

from collections.abc import Sequence
from typing import Protocol

from mfm_ops.machine.events import DomainEvent

__all__ = ["EventRecorder"]


class EventRecorder(Protocol):
    """Records domain events of the current attempt (seed: recorder::EventRecorder).

    Names that the engine owns are refused with `event_name_reserved`, payloads that hold a
    secret with `secrets_detected`. What the event profile drops is checked all the same.
    """

    async def emit(self, event: DomainEvent) -> None:
        """Emit one event.

        Raises:
            RunFailure: the event may not be recorded, or the store failed.
        """

    async def emit_many(self, events: Sequence[DomainEvent]) -> None:
        """Emit events in order, all or none."""
