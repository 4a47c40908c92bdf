"""What the engine's own transports may do that others may not: tell the run of their doing.

How a call is recorded is left to `live_io`; the one such group is that of `child_transport`.
"""

from collections.abc import Callable

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.transport import TransportReply

__all__ = ["EngineTransport", "LinkedReply"]


class LinkedReply(TransportReply):
    """An answer with an event of the engine's, durable in the append of the fact or not at all.

    `event` is called when the fact is bound, `recorded` once it is durable.
    """

    event: Callable[[], DomainEvent | None]
    recorded: Callable[[], None]

    @classmethod
    def of(
        cls,
        response: Json,
        event: Callable[[], DomainEvent | None],
        recorded: Callable[[], None] = lambda: None,
    ) -> "LinkedReply":
        """A reply to be linked."""
        reply = cls(response)
        reply.event, reply.recorded = event, recorded
        return reply


class EngineTransport:
    """The base of transports whose calls change nothing but event streams, and can be repeated.

    No such call is announced as an effect: there is no outcome that could be unknown.
    """
