"""Where runs keep links that protect what they resolved from Nix's garbage collector.

`<store>.d/nix-roots/<run id>/`, next to the store whose runs they are. The links are made by Nix
for `transports.nix_resolver`; they go when the run is over, and not while it can be resumed. A run
that shared another's resolution holds that one's root by a link to it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mfm_ops.machine.events import EventEnvelope, KernelEvent, RunCompleted
from mfm_ops.machine.ids import IdValidationError, RunId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mfm_ops.machine.stores import EventStore

__all__ = ["release_ended", "roots_beside"]


def roots_beside(store_path: Path) -> Path:
    """The directory of the roots of one store's runs."""
    return store_path.with_name(store_path.name + ".d") / "nix-roots"


async def release_ended(store: EventStore, store_path: Path) -> None:
    """Remove the roots of all runs of `store`, which lies at `store_path`, that are over.

    Of all, since a run can also end by the word of another process. What cannot be removed now
    is tried again after the next run.
    """
    roots = roots_beside(store_path)
    over: list[Path] = []
    held: set[Path] = set()
    for directory in _entries(roots):
        if await _is_over(store, directory.name):
            over.append(directory)
        else:
            held.update(_targets(directory))
    for directory in over:
        for link in _entries(directory):
            if not _is_held(link, held):
                with suppress(OSError):
                    link.unlink()
        with suppress(OSError):
            directory.rmdir()


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _targets(directory: Path) -> Iterator[Path]:
    for link in _entries(directory):
        with suppress(OSError):
            yield link.readlink()


def _is_held(link: Path, held: set[Path]) -> bool:
    """Whether another run needs `link`; the root of a second output is named after the first's."""
    return any(
        link.parent == root.parent and f"{link.name}-".startswith(f"{root.name}-") for root in held
    )


async def _is_over(store: EventStore, name: str) -> bool:
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
