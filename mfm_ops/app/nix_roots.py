"""Where runs keep links that protect what they resolved from Nix's garbage collector.

`<store>.d/nix-roots/<run id>/`, next to the store whose runs they are. The links are made by Nix
for `transports.nix_resolver`; they go when the run is over, and not while it can be resumed.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from mfm_ops.machine.events import EventEnvelope, KernelEvent, RunCompleted
from mfm_ops.machine.ids import IdValidationError, RunId

if TYPE_CHECKING:
    from pathlib import Path

    from mfm_ops.storage.sqlite import SqliteStore

__all__ = ["release_ended", "roots_beside"]


def roots_beside(store_path: Path) -> Path:
    """The directory of the roots of one store's runs."""
    return store_path.with_name(store_path.name + ".d") / "nix-roots"


async def release_ended(store: SqliteStore, store_path: Path) -> None:
    """Remove the roots of all runs of `store`, which lies at `store_path`, that are over.

    Of all, since a run can also end by the word of another process. What cannot be removed now
    is tried again after the next run.
    """
    roots = roots_beside(store_path)
    for directory in list(roots.iterdir()) if roots.is_dir() else ():
        if await _is_over(store, directory.name):
            shutil.rmtree(directory, ignore_errors=True)


async def _is_over(store: SqliteStore, name: str) -> bool:
    try:
        run_id = RunId(name)
    except IdValidationError:
        return False
    head = await store.head_seq(run_id)
    events = await store.read_range(run_id, head, head)
    # A run that was never begun needs nothing; one that is over ends with the event that says so.
    return not events or _ends(events[0])


def _ends(envelope: EventEnvelope) -> bool:
    kernel = envelope.event.value
    return isinstance(kernel, KernelEvent) and isinstance(kernel.value, RunCompleted)
