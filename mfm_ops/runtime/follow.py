"""Reads a run's stream into its history, a piece at a time, so that no long list of it is made.

What the events mean is decided in `history`, that their bytes are whole by the store.
"""

from anyio.lowlevel import checkpoint

from mfm_ops.machine.stores import EventStore
from mfm_ops.runtime.history import Folding, RunHistory

__all__ = ["follow"]

PIECE_EVENTS = 500


async def follow(events: EventStore, folding: Folding) -> RunHistory:
    """The history up to the head as it is now; what `folding` has seen is not read again.

    Raises:
        StorageFailure: as `history.fold`, and as `EventStore.read_range`.
    """
    head = await events.head_seq(folding.run_id)
    while folding.seq < head:
        upto = min(folding.seq + PIECE_EVENTS, head)
        piece = await events.read_range(folding.run_id, folding.seq + 1, upto)
        if not piece:
            break
        folding.go_on(piece)
        await checkpoint()
    return folding.go_on(())
