"""Decides which appends share a commit, and whether the event loop or a thread performs it.

What a commit does is left to `sqlite_writer`. Works on asyncio's loop, which it imports only when
appends have to wait for each other.

A lone append commits at once in the loop's own thread: a hop to another costs as much as the
commit. Where another run appended last, others are likely to be ready too, so the commit waits
until the tasks that are ready now have run. Many appends, a slow disk or another process's lock
make it a thread's work, and whoever comes meanwhile shares the next commit.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

from mfm_ops.machine.errors import StorageFailure
from mfm_ops.storage.failures import store_closed
from mfm_ops.storage.sqlite_writer import Append, NewArtifact, Writer

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    import anyio

    from mfm_ops.machine.ids import ArtifactId

__all__ = ["CommitQueue"]

_MANY_APPENDS: Final = 8
_SLOW_COMMIT_S: Final = 0.002
# After so many commits in the loop by one run the others have had their chance to join; from then
# on the loop gets its turn once in so many.
_EAGER_TURNS: Final = 2
_COMMITS_A_TURN: Final = 8
# A context that does not change is staged for each state: it need not go to the disk each time.
_STORED_KEPT: Final = 1024


@dataclass(slots=True, eq=False)
class _Ticket:
    """A caller that waits for its append; `begun` once it can no longer be withdrawn."""

    append: Append | None
    done: asyncio.Future[None]
    scope: anyio.CancelScope
    begun: bool = False


class CommitQueue:
    """Commits appends and staged artifacts through one writer, for one event loop."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._staged: dict[ArtifactId, NewArtifact] = {}
        self._flying: dict[ArtifactId, NewArtifact] = {}
        self._stored: set[ArtifactId] = set()
        self._waiting: list[_Ticket] = []
        self._active = False
        # The batch in a thread: done when it is.
        self._landed: asyncio.Future[None] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._last: str | None = None
        self._in_a_row = 0
        self._commit_s = 0.0
        self._closed = False

    # Staged artifacts

    def stage(self, new: NewArtifact) -> None:
        """Take `new` into the next commit, unless it is stored or on its way already."""
        if new.artifact_id not in self._flying and new.artifact_id not in self._stored:
            self._staged.setdefault(new.artifact_id, new)

    def staged(self, artifact_id: ArtifactId) -> NewArtifact | None:
        """An artifact that is not durable yet."""
        return self._staged.get(artifact_id) or self._flying.get(artifact_id)

    @property
    def has_staged(self) -> bool:
        """Whether some artifact is not durable yet."""
        return bool(self._staged or self._flying)

    def staged_ids(self) -> list[ArtifactId]:
        """All artifacts that are not durable yet."""
        return [*self._staged, *self._flying]

    # Commits

    async def commit(self, append: Append | None) -> None:
        """Return when `append` (if any) and all that is staged now are durable.

        A caller that is cancelled while it waits is withdrawn, and nothing of its append is
        stored. Once its commit has begun it is shielded to the end.

        Raises:
            StorageFailure: `append` was refused, or the commit failed and stored nothing of it.
        """
        from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

        await checkpoint_if_cancelled()
        if self._closed:
            raise store_closed(self.writer.name)
        who = "" if append is None else str(append.run_id)
        alone = not self._active and self._last in {None, who}
        self._in_a_row = self._in_a_row + 1 if self._last == who else 1
        self._last = who
        if alone and self._commit_s < _SLOW_COMMIT_S:
            appends = [] if append is None else [append]
            if self._commit_here(appends):
                # Other runs, timers and signals need the loop. A turn costs a sixth of a commit,
                # so a run that goes on alone gives one less often.
                if self._in_a_row <= _EAGER_TURNS or self._in_a_row % _COMMITS_A_TURN == 0:
                    await cancel_shielded_checkpoint()
                _raise_failure(append)
                return
        await self._wait(append)

    def close(self) -> None:
        """Make durable what is staged; wait for the batch in flight; refuse what comes later.

        Raises:
            StorageFailure: the last commit failed.
        """
        if self._closed:
            return
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        # A flight's landing has not been seen yet; what it stored is not stored twice.
        staged = [*self._flying.values(), *self._staged.values()]
        if staged:
            self.writer.commit([], staged, wait=True)
            self._staged.clear()

    async def _wait(self, append: Append | None) -> None:
        import asyncio

        import anyio

        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            ticket = _Ticket(append, loop.create_future(), scope)
            self._waiting.append(ticket)
            if not self._active:
                self._active = True
                loop.call_soon(self._start_batch, loop)
            try:
                # A cancelled wait cancels the future at once, and so withdraws the ticket.
                await ticket.done
            except asyncio.CancelledError:
                await self._land(ticket)
                raise
        _raise_failure(append)

    async def _land(self, ticket: _Ticket) -> None:
        """Wait for the batch of a ticket that was cancelled too late, past all shields."""
        import asyncio

        import anyio

        flight = self._landed
        if not ticket.begun or flight is None:
            return
        with anyio.CancelScope(shield=True):
            while not flight.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(flight)

    def _start_batch(self, loop: asyncio.AbstractEventLoop) -> None:
        tickets = [ticket for ticket in self._waiting if not ticket.done.cancelled()]
        self._waiting.clear()
        for ticket in tickets:
            ticket.begun = True
            ticket.scope.shield = True
        appends = [ticket.append for ticket in tickets if ticket.append is not None]
        in_thread = len(tickets) >= _MANY_APPENDS or self._commit_s >= _SLOW_COMMIT_S
        error: BaseException | None = None
        try:
            if self._closed:
                raise store_closed(self.writer.name)
            if tickets and (in_thread or not self._commit_here(appends)):
                if self._commit_in_thread(loop, tickets, appends):
                    return
                self._commit_here(appends, wait=True)
        except BaseException as raised:  # noqa: BLE001 - it is handed to those who wait
            error = raised
        self._finish(loop, tickets, error)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, tickets: list[_Ticket], error: BaseException | None
    ) -> None:
        for ticket in tickets:
            refused = ticket.append is not None and ticket.append.failure is not None
            if ticket.done.done():
                continue
            if error is None or refused:
                ticket.done.set_result(None)
            elif isinstance(error, StorageFailure):
                # Each its own: tasks that raise one exception would mix their tracebacks.
                ticket.done.set_exception(StorageFailure(error.error))
            else:
                ticket.done.set_exception(error)
        # Those who wake now run before the next batch starts, and may join it.
        self._active = bool(self._waiting)
        if self._waiting:
            loop.call_soon(self._start_batch, loop)

    def _commit_here(self, appends: list[Append], *, wait: bool = False) -> bool:
        """Commit in this thread; False if another process has the lock and we do not `wait`."""
        if not appends and not self._staged:
            return True
        start = perf_counter()
        self._take_off()
        done = False
        try:
            done = self.writer.commit(appends, list(self._flying.values()), wait=wait)
        finally:
            self._touch_down(stored=done and _any_stored(appends))
        if done:
            self._note_duration(perf_counter() - start)
        return done

    def _commit_in_thread(
        self, loop: asyncio.AbstractEventLoop, tickets: list[_Ticket], appends: list[Append]
    ) -> bool:
        """Start a commit in a thread; False if the system gives us none."""
        from concurrent.futures import ThreadPoolExecutor

        self._take_off()
        artifacts = list(self._flying.values())

        def work() -> float:
            start = perf_counter()
            if appends or artifacts:
                self.writer.commit(appends, artifacts, wait=True)
            return perf_counter() - start

        def landed(future: asyncio.Future[float]) -> None:
            error = future.exception()
            self._touch_down(stored=error is None and _any_stored(appends))
            self._landed = None
            flight.set_result(None)
            if error is None and len(tickets) < _MANY_APPENDS:
                self._note_duration(future.result())
            self._finish(loop, tickets, error)

        executor = self._executor or ThreadPoolExecutor(1, thread_name_prefix="mfm-commit")
        try:
            future = loop.run_in_executor(executor, work)
        except RuntimeError:
            # The executor still holds the work and would do it later: it must go.
            self._executor = None
            self._touch_down(stored=False)
            return False
        self._executor = executor
        flight = self._landed = loop.create_future()
        future.add_done_callback(landed)
        return True

    def _note_duration(self, seconds: float) -> None:
        self._commit_s += (seconds - self._commit_s) / 8

    def _take_off(self) -> None:
        self._flying, self._staged = self._staged, {}

    def _touch_down(self, *, stored: bool) -> None:
        if not stored:
            self._staged = self._flying | self._staged
        else:
            if len(self._stored) > _STORED_KEPT:
                self._stored.clear()
            self._stored.update(self._flying)
        self._flying = {}


def _any_stored(appends: list[Append]) -> bool:
    for append in appends:
        if append.failure is None:
            return True
    return not appends


def _raise_failure(append: Append | None) -> None:
    if append is not None and append.failure is not None:
        raise append.failure
