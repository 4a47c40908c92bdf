"""The only caller of `EventStore.append` for a run.

It holds the expected sequence number, buffers events until they must be durable, and is where a
driver learns that others have written: control events are obeyed, a newer driver fences it.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import RunError, RunFailure, StorageError, StorageFailure
from mfm_ops.machine.events import (
    EVENT_CANCEL_REQUESTED,
    EVENT_DRIVER,
    EVENT_EFFECT_RESOLVED,
    DomainEvent,
    Event,
    EventEnvelope,
    KernelEvent,
)
from mfm_ops.machine.ids import RunId, StateId
from mfm_ops.machine.stores import EventStore
from mfm_ops.runtime.redact import log_unexpected

__all__ = ["CancelRequested", "RunWriter"]

log = logging.getLogger(__name__)

CONTROL_EVENTS = frozenset({EVENT_CANCEL_REQUESTED, EVENT_EFFECT_RESOLVED})


class CancelRequested(Exception):
    """Somebody asked for the run to be cancelled; what was to be written is written."""


class RunWriter:
    """Appends one run's events, in order, on behalf of one driver.

    `add` buffers; `flush` makes all that is buffered durable in one append. A task that dies in
    between loses only what nothing depends on yet.
    """

    def __init__(
        self,
        store: EventStore,
        run_id: RunId,
        head_seq: int,
        *,
        now_millis: Callable[[], int],
        observer: Callable[[EventEnvelope], None] | None = None,
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._head = head_seq
        self._now_millis = now_millis
        self._observer = observer
        self._pending: list[EventEnvelope] = []
        self._in_flight: list[EventEnvelope] = []
        # How many events were ever buffered.
        self._added = 0
        self._lock = anyio.Lock(fast_acquire=True)
        self._broken: StorageFailure | RunFailure | None = None
        self.cancel_requested = False
        # Several states are at work: an append waits for what they are just about to add.
        self.gathers = False
        self._gathering: anyio.Event | None = None

    @property
    def head_seq(self) -> int:
        """The last sequence number that is known to be durable."""
        return self._head

    @property
    def has_pending(self) -> bool:
        """Whether there are events that are not durable yet."""
        return bool(self._pending)

    def add_kernel(self, event: KernelEvent) -> None:
        """Buffer a kernel event."""
        self._add(Event.of_valid(Kernel=event), None, None)

    def add_domain(
        self, event: DomainEvent, state_id: StateId | None = None, attempt: int | None = None
    ) -> None:
        """Buffer a domain event of an attempt, or of the run."""
        self._add(Event.of_valid(Domain=event), state_id, attempt)

    def _add(self, event: Event, state_id: StateId | None, attempt: int | None) -> None:
        seq = self._head + len(self._in_flight) + len(self._pending) + 1
        envelope = EventEnvelope.now(
            self._run_id, seq, self._now_millis(), event, state_id=state_id, attempt=attempt
        )
        self._added += 1
        self._pending.append(envelope)

    def drop_pending(self) -> None:
        """Forget what is not durable: an interrupted attempt leaves no half of itself.

        A failure is forgotten with the events that it concerned.
        """
        self._pending.clear()
        self._broken = None

    def break_off(self, failure: StorageFailure) -> None:
        """Let nothing more be written: something that had to be stored could not be."""
        self._broken = failure

    async def flush(self) -> None:
        """Make all that is buffered now durable.

        Raises:
            RunFailure: `run_fenced` when another driver took the run over.
            StorageFailure: the store failed; the events are still buffered, nothing was written.
                It stays so: a handler that swallows the failure must not go on as if what it
                did were recorded.
            CancelRequested: they are written, and the run should end.
        """
        upto = self._added
        if self.gathers:
            await self._flush_together(upto)
        else:
            await self._alone(partial(self._append_all, upto))
        if self.cancel_requested:
            raise CancelRequested

    async def _flush_together(self, upto: int) -> None:
        """As `flush`: of those who wait one appends for all, after a turn of the others."""
        while self._durable < upto and self._broken is None:
            if self._gathering is not None:
                await self._gathering.wait()
                continue
            gathering = self._gathering = anyio.Event()
            try:
                await checkpoint()
                await self._alone(partial(self._append_all, upto))
            finally:
                self._gathering = None
                gathering.set()
        if self._broken is not None:
            raise self._broken

    @property
    def _durable(self) -> int:
        """How many of the events that were ever buffered need no append any more."""
        return self._added - len(self._pending) - len(self._in_flight)

    async def look(self) -> None:
        """Learn what others have appended meanwhile; raises as `flush`."""
        await self._alone(self._look)
        if self.cancel_requested:
            raise CancelRequested

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` while nobody else appends; what fails stays so."""
        try:
            # Waiting looks for a cancellation first, which the store does as well.
            self._lock.acquire_nowait()
        except anyio.WouldBlock:
            await self._lock.acquire()
        try:
            if self._broken is None:
                await work()
        except (StorageFailure, RunFailure) as failure:
            self._broken = failure
        finally:
            self._lock.release()
        if self._broken is not None:
            raise self._broken

    async def _append_all(self, upto: int) -> None:
        # What others added meanwhile is theirs to flush, all at once rather than one by one.
        while self._durable < upto and self._broken is None:
            await self._append_pending()

    async def _look(self) -> None:
        if await self._store.head_seq(self._run_id) != self._head:
            await self._catch_up()

    async def _append_pending(self) -> None:
        # What other tasks add during the append goes on from what is in flight.
        self._in_flight, self._pending = self._pending, []
        stale = False
        try:
            self._head = await self._store.append(self._run_id, self._head, self._in_flight)
        except BaseException as error:
            self._pending = self._in_flight + self._pending
            self._in_flight = []
            stale = isinstance(error, StorageFailure) and error.error.variant == "Concurrency"
            if not stale:
                raise
        if stale:
            await self._catch_up()
            return
        written, self._in_flight = self._in_flight, []
        self._show(written)

    def _show(self, written: list[EventEnvelope]) -> None:
        try:
            for envelope in written:
                if self._observer is not None:
                    self._observer(envelope)
        except Exception as error:  # noqa: BLE001 - an observer is the application's code
            # The events are durable: whoever cannot watch any more must not end the run.
            log_unexpected(log, "an observer of events failed and is left out", error)
            self._observer = None

    async def _catch_up(self) -> None:
        """Read what others appended: obey control events, or learn that this driver is fenced."""
        tail = await self._store.read_range(self._run_id, self._head + 1)
        names = [e.event.Domain.name if e.event.variant == "Domain" else "" for e in tail]
        if not CONTROL_EVENTS.issuperset(names):
            raise self._fenced(tail, names)
        if EVENT_CANCEL_REQUESTED in names:
            self.cancel_requested = True
        if not tail:
            raise StorageFailure(
                StorageError(
                    Corruption=error_info(
                        "history_invalid",
                        "the store refused an append that goes on from its own head",
                        run_id=self._run_id,
                        seq=self._head,
                        reason="head_mismatch",
                    )
                )
            )
        self._head = tail[-1].seq
        self._pending = [
            envelope.model_copy(update={"seq": self._head + offset})
            for offset, envelope in enumerate(self._pending, start=1)
        ]

    def _fenced(self, tail: list[EventEnvelope], names: list[str]) -> RunFailure:
        """Says who won: the newest driver."""
        marks = [
            e.event.Domain.payload for e, n in zip(tail, names, strict=True) if n == EVENT_DRIVER
        ]
        winner = marks[-1] if marks and isinstance(marks[-1], dict) else {}
        who = {key: winner[key] for key in ("driver_id", "pid", "host") if key in winner}
        return RunFailure(
            RunError(
                Other=error_info(
                    "run_fenced",
                    "another driver took the run over",
                    run_id=self._run_id,
                    **who,
                )
            )
        )
