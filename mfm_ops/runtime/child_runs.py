"""The child runs of one drive: started, gone on with, waited for, cancelled (contract, section 8).

The parent's stream says which children there are; each child's own stream says how it stands. What
a request means is left to `child_plan`, who may drive a child to `child_lineage`, answering states
to `child_transport`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import anyio
from anyio.abc import TaskGroup

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunManifest
from mfm_ops.machine.engine import RunPhase, RunResult, StartRun, Stores
from mfm_ops.machine.errors import RunFailure, SettingsFailure, StorageFailure, TransportFailure
from mfm_ops.machine.events import (
    DOMAIN_EVENT_CHILD_RUN_COMPLETED,
    ChildOf,
    ChildRunCompleted,
    DomainEvent,
    RunStatus,
)
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.transport import LiveIoEnv, LiveIoTransport
from mfm_ops.runtime.child_lineage import Lineage, spawn_keys
from mfm_ops.runtime.child_plan import ChildPlanner, start_of
from mfm_ops.runtime.control import Requester, close_cancelled, request_cancel
from mfm_ops.runtime.follow import follow
from mfm_ops.runtime.history import Folding
from mfm_ops.runtime.live_io import EffectInDoubt
from mfm_ops.runtime.manifests import load_manifest
from mfm_ops.runtime.records import ChildRecord
from mfm_ops.runtime.walk import DriveEnv

__all__ = ["ChildEngine", "ChildRuns"]

# Children of one run that are driven at once; the others wait for their turn.
MAX_AT_WORK: Final = 16
# How soon it is noticed that somebody else has left a child, or brought it to its end.
LOOK_INTERVAL_S: Final = 0.25
# How long a run that ends waits for whoever else drives a child to obey.
PATIENCE_S: Final = 2.0


class ChildEngine(NamedTuple):
    """The engine, as far as children need it; `start` and `resume` raise as the engine's do."""

    planner: ChildPlanner
    build_plan: Callable[[RunManifest], ExecutionPlan]
    start: Callable[[Stores, StartRun, Lineage], Awaitable[RunResult]]
    resume: Callable[[Stores, RunId, Lineage], Awaitable[RunResult]]


@dataclass(slots=True, eq=False)
class _Child:
    """`result` is set with `settled`: over, or parked (its phase is `Running` then)."""

    run_id: RunId
    manifest_id: ArtifactId
    told: bool = False
    begun: bool = False
    elsewhere: bool = False
    result: RunResult | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)

    def settle(self, result: RunResult) -> None:
        self.result = result
        self.settled.set()

    def begin_again(self) -> None:
        self.result, self.settled = None, anyio.Event()

    @property
    def parked(self) -> bool:
        return self.result is not None and self.result.phase is RunPhase.Running


class ChildRuns:
    """What one driver knows and does about the children of its run."""

    def __init__(self, engine: ChildEngine, env: DriveEnv, tasks: TaskGroup) -> None:
        self.engine = engine
        self.env = env
        self._tasks = tasks
        self._slots = anyio.Semaphore(MAX_AT_WORK)
        self._ending = False
        history = env.history
        known = history.children.values() if history else ()
        self._own = {
            child.run_id: _known(child) for child in known if child.parent_run_id == env.run_id
        }
        # Kept by a fork: another run's children, which are over or none of our business.
        self._others = {child.run_id: child for child in known if child.run_id not in self._own}
        self._keys = spawn_keys(history) if history and history.open_children else {}
        drivers = history.drivers if history else []
        self._earlier = frozenset(str(driver.get("driver_id")) for driver in drivers)

    @property
    def depth(self) -> int:
        """How deep the run lies whose children these are; 0 for one that is nobody's child."""
        return self.child_of.depth if self.child_of else 0

    @property
    def child_of(self) -> ChildOf | None:
        """Whose child the run is whose children these are."""
        if self.env.lineage is not None:
            return self.env.lineage.child_of
        return self.env.history.child_of if self.env.history else None

    def transport(self, env: LiveIoEnv) -> LiveIoTransport:
        """What answers the calls of one attempt."""
        from mfm_ops.runtime.child_transport import ChildRunTransport

        return ChildRunTransport(self, env)

    def go_on(self) -> None:
        """Drive the children that earlier drivers left, unless that was begun already."""
        for child in self._own.values():
            if child.result is None and not child.begun:
                self._begin(child)

    def spawned(self, run_id: RunId, key: FactKey, manifest_id: ArtifactId) -> None:
        """A child is recorded: drive it."""
        child = self._own[run_id] = _Child(run_id, manifest_id)
        self._keys[run_id] = key
        if self._ending or self.env.io.writer.cancel_requested:
            child.settle(RunResult(run_id=run_id, phase=RunPhase.Cancelled))
        else:
            self._begin(child)

    async def result_of(self, run_id: RunId) -> tuple[RunResult, ArtifactId]:
        """How a child ended, once it has, and its manifest.

        Raises:
            TransportFailure: `child_run_unknown`.
            EffectInDoubt: the child is parked.
        """
        child = self._own.get(run_id)
        if child is None:
            return await self._result_of_other(run_id)
        await child.settled.wait()
        assert child.result is not None, "it is settled"
        if child.parked:
            raise EffectInDoubt
        return child.result, child.manifest_id

    async def settled(self) -> bool:
        """Wait until every child is over or parked; whether one is parked."""
        while waiting := [child for child in self._own.values() if not child.settled.is_set()]:
            await waiting[0].settled.wait()
        return any(child.parked for child in self._own.values())

    async def cancel_all(self) -> None:
        """Cancel what is not over, and wait for its end; other drivers get a little time for it."""
        self._ending = True
        for child in self._own.values():
            if child.result is None or child.parked:
                await self._ask_to_end(child)
        # What nobody had begun to drive does no more than obey.
        self.go_on()
        for child in self._own.values():
            with anyio.move_on_after(PATIENCE_S if child.elsewhere else None):
                await child.settled.wait()
                # Parked before it was asked, or just then: it obeys when it is resumed.
                while child.parked:
                    child.begin_again()
                    self._begin(child)
                    await child.settled.wait()

    def completed_event(self, run_id: RunId) -> DomainEvent | None:
        """The event that says how a child ended, unless the parent's stream says so already."""
        child = self._own.get(run_id)
        if child is None or child.told or child.result is None or child.parked:
            return None
        child.told = True
        completed = ChildRunCompleted(
            child_run_id=run_id,
            status=RunStatus(child.result.phase.value),
            final_snapshot_id=child.result.final_snapshot_id,
        )
        return DomainEvent(
            name=DOMAIN_EVENT_CHILD_RUN_COMPLETED, payload=completed.model_dump(mode="json")
        )

    def tell_rest(self) -> None:
        """Buffer an event for each child that is over and that nobody awaited."""
        for run_id in self._own:
            event = self.completed_event(run_id)
            if event is not None:
                self.env.io.writer.add_domain(event)

    def _begin(self, child: _Child) -> None:
        child.begun = True
        self._tasks.start_soon(self._go, child)

    async def _go(self, child: _Child) -> None:
        while True:
            async with self._slots:
                result = await self._drive(child)
            if result is None:
                child.elsewhere = True
                result = await self._until_left(child)
                child.elsewhere = False
            if result is not None:
                child.settle(result)
                return

    async def _drive(self, child: _Child) -> RunResult | None:
        """Drive a child to its end or park; None where somebody else does."""
        lineage, stores = self._lineage(child), self.env.stores
        try:
            if await stores.events.head_seq(child.run_id):
                return await self.engine.resume(stores, child.run_id, lineage)
            if self._ending:
                # Recorded and never begun.
                return RunResult(run_id=child.run_id, phase=RunPhase.Cancelled)
            manifest = await self.manifest(child.manifest_id)
            run = start_of(self.engine.planner, self.engine.build_plan, manifest, child.run_id)
            return await self.engine.start(stores, run, lineage)
        except RunFailure as failure:
            if failure.info.code in ("run_busy", "run_fenced"):
                return None
            return await self._close_or_raise(child, failure)
        except SettingsFailure as failure:
            return await self._close_or_raise(child, failure)

    async def _close_or_raise(
        self, child: _Child, failure: RunFailure | SettingsFailure
    ) -> RunResult:
        """A child whose op is gone can be ended all the same, and not be gone on with."""
        if not self._ending:
            raise failure
        history = await close_cancelled(self.env.stores, child.run_id, self._requester())
        return history.result

    async def _until_left(self, child: _Child) -> RunResult | None:
        """Watch a child that somebody else drives: its end, or None once it is ours again."""
        folding = Folding(child.run_id)
        lineage = self._lineage(child)
        while True:
            await anyio.sleep(LOOK_INTERVAL_S)
            history = await follow(self.env.stores.events, folding)
            if history.status is not None:
                return history.result
            if not lineage.leaves_to(history.driver):
                return None

    async def _result_of_other(self, run_id: RunId) -> tuple[RunResult, ArtifactId]:
        kept = self._others.get(run_id)
        if kept is not None:
            try:
                result = (await follow(self.env.stores.events, Folding(run_id))).result
            except StorageFailure as failure:
                if failure.error.variant != "NotFound":
                    raise
            else:
                if result.phase is not RunPhase.Running:
                    return result, kept.manifest_id
        raise TransportFailure(
            error_info(
                "child_run_unknown",
                "the run has spawned no such child",
                child_run_id=str(run_id),
            )
        )

    async def _ask_to_end(self, child: _Child) -> None:
        if not await self.env.stores.events.head_seq(child.run_id):
            return
        try:
            await request_cancel(self.env.stores, child.run_id, self._requester())
        except RunFailure as failure:
            # It ended meanwhile, in its own way.
            if failure.info.code != "run_over":
                raise

    def _requester(self) -> Requester:
        return Requester(
            f"run {self.env.run_id}",
            "the run that spawned it ended",
            self.env.io.sources.now_millis,
        )

    async def manifest(self, manifest_id: ArtifactId) -> RunManifest:
        """A stored manifest: the parent's, or a child's."""
        return await load_manifest(self.env.io.persister, manifest_id)

    def _lineage(self, child: _Child) -> Lineage:
        return Lineage(
            parent_run_id=self.env.run_id,
            fact_key=self._keys[child.run_id],
            depth=self.depth + 1,
            driver_id=self.env.driver.driver_id,
            earlier_drivers=self._earlier,
        )


def _known(record: ChildRecord) -> _Child:
    child = _Child(record.run_id, record.manifest_id)
    if record.status is not None:
        child.told = True
        child.settle(
            RunResult(
                run_id=record.run_id,
                phase=RunPhase(record.status.value),
                final_snapshot_id=record.final_snapshot_id,
            )
        )
    return child
