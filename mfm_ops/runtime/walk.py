"""The walk through a run's states: retries, orphans, unknown effects.

What a single attempt does is left to `attempt`, which context a state starts from to `contexts`;
how many states run at once to `fan_out`, how the run as a whole begins and ends to `drive`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import IoMode, RunConfig
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import ContextFailure, ErrorInfo, StateError
from mfm_ops.machine.events import (
    EVENT_EFFECT_UNKNOWN,
    DomainEvent,
    KernelEvent,
    StateEntered,
    StateFailed,
)
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId, StateId
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.plan import ExecutionPlan, StateNode
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.attempt import Completed, run_attempt, skip_state
from mfm_ops.runtime.child_door import ChildDoor
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.contexts import RunContexts
from mfm_ops.runtime.driver import DriverIdentity
from mfm_ops.runtime.live_io import EffectInDoubt, LiveIo, RunIo
from mfm_ops.runtime.records import ORPHANED, RunHistory, StateRecord, StateStatus
from mfm_ops.runtime.redact import safe_error
from mfm_ops.runtime.router import Router, TransportRegistry
from mfm_ops.runtime.running import RunningState
from mfm_ops.runtime.scheduler import Frontier, Schedule
from mfm_ops.runtime.writer import CancelRequested

if TYPE_CHECKING:
    from mfm_ops.runtime.child_lineage import Lineage

__all__ = ["DriveEnv", "RunParked", "StateFailedForGood", "Walk"]


class RunParked(Exception):
    """The run waits for somebody to resolve an effect of unknown outcome."""


class StateFailedForGood(Exception):
    """A state failed and will not be tried again; its end is buffered or durable."""


class DriveEnv(NamedTuple):
    """Everything that one driver's work on one run needs; `history` is None for a new run."""

    stores: Stores
    run_id: RunId
    manifest_id: ArtifactId
    config: RunConfig
    plan: ExecutionPlan
    initial: Snapshot
    history: RunHistory | None
    io: RunIo
    registry: TransportRegistry
    driver: DriverIdentity
    overrides: Mapping[StateId, Delta] = MappingProxyType({})
    replay_source: RunHistory | None = None
    lineage: "Lineage | None" = None
    children: ChildDoor | None = None


class Walk:
    """One pass through the states that are left."""

    def __init__(self, env: DriveEnv) -> None:
        self._env = env
        self._writer = env.io.writer
        self._schedule = Schedule(env.plan.graph)
        self._nodes = {node.id: node for node in env.plan.graph.states}
        self._records = env.history.states if env.history else {}
        # Attempts of a driver that died: they have begun and not ended.
        self._orphans = {
            record.state_id: record
            for record in self._records.values()
            if record.status is StateStatus.running
        }
        self.contexts = RunContexts(
            self._schedule,
            env.initial,
            env.io.persister,
            self._records,
            env.overrides,
            goes_on=True,
        )
        self._running: dict[StateId, RunningState] = {}
        self._state_deadline_ms = env.config.state_deadline_ms
        # Only what may have to be stopped pays for the handle to do so.
        self._stoppable = (
            env.config.execution_mode.variant == "FanOutJoin"
            or env.config.run_deadline_ms is not None
            or self._state_deadline_ms is not None
        )
        self.stopped: ErrorInfo | None = None
        # What waits for other things than states ends early when the run is stopped.
        self.waiting: anyio.CancelScope | None = None

    @property
    def running(self) -> list[RunningState]:
        """The states that are under way."""
        return list(self._running.values())

    def remaining(self) -> Iterator[StateNode]:
        """The states that have not completed, in the order of a sequential run."""
        completed = self.contexts.completed_states
        for state_id in self._schedule.order:
            if state_id not in completed:
                yield self._nodes[state_id]

    def frontier(self) -> Frontier:
        """Which states may start now."""
        return Frontier(self._schedule, self.contexts.completed_states)

    def node(self, state_id: StateId) -> StateNode:
        """The state of an id."""
        return self._nodes[state_id]

    async def settle(self) -> None:
        """Before anything runs: what earlier drivers left undecided or decided for good.

        Raises:
            RunParked: an effect was begun whose outcome nobody knows.
            StateFailedForGood: a state has no attempts left.
        """
        history = self._env.history
        if history is None:
            return
        in_doubt = False
        for record in self._orphans.values():
            if self._nodes[record.state_id].state.meta().idempotency.variant != "None":
                # Its key makes it safe to repeat.
                continue
            for key, request_id in self._announced_by(record):
                in_doubt = True
                if key not in history.unknown_effects:
                    self._say_unknown(record.state_id, record.attempts - 1, key, request_id)
        if in_doubt:
            raise RunParked
        for record in self._records.values():
            if record.status is StateStatus.failed:
                self._give_up_or_go_on(record.error, record.charged)

    async def execute(self, node: StateNode) -> None:
        """Run `node` until it completes.

        Raises:
            StateFailedForGood: its attempts are used up, or the failure is not retryable.
            RunParked: it began an effect whose outcome is unknown.
            CancelRequested: the run is to end, so nothing more begins.
        """
        if self._writer.cancel_requested:
            raise CancelRequested
        running = self._running[node.id] = RunningState(node.id)
        if self.stopped is not None:
            running.stop(self.stopped)
        await self._execute(node, running)
        # Not in a `finally`: what was interrupted is looked at by `close_open_attempts`.
        del self._running[node.id]

    async def _execute(self, node: StateNode, running: RunningState) -> None:
        record = self._records.get(node.id)
        meta = node.state.meta()
        attempt = record.attempts if record else 0
        charged = record.charged if record else 0
        if node.id in self._orphans:
            self._close_orphan(self._orphans.pop(node.id))
            charged -= 1
        base = await self._base_or_failure(node.id, attempt)
        if any(tag in self._env.config.skip_tags for tag in meta.tags):
            outcome = await skip_state(node, attempt, base, self._writer)
            self.contexts.completed(node.id, base, outcome.snapshot)
            return
        while True:
            if running.reason is not None:
                raise StateFailedForGood
            io = self._provider(node.id, attempt, meta)
            running.begin(attempt, io, self._attempt_deadline())
            try:
                ended = await run_attempt(
                    node,
                    attempt,
                    base,
                    io=io,
                    writer=self._writer,
                    persister=self._env.io.persister,
                    profile=self._env.config.event_profile,
                    running=running if self._stoppable else None,
                )
            except EffectInDoubt:
                for key, request_id in running.in_doubt:
                    self._say_unknown(node.id, attempt, key, request_id)
                running.told()
                await self._writer.flush()
                raise RunParked from None
            running.end()
            if isinstance(ended, Completed):
                self.contexts.completed(node.id, base, ended.snapshot)
                return
            attempt, charged = attempt + 1, charged + 1
            self._give_up_or_go_on(ended.error, charged)
            await self._writer.flush()
            with running.stoppable():
                await anyio.sleep(self._env.config.retry_policy.backoff.delay_seconds(attempt - 1))

    def stop(self, reason: ErrorInfo) -> None:
        """Let nothing more begin, and stop what runs; effects in flight end first."""
        self.stopped = self.stopped or reason
        for running in self.running:
            running.stop(reason)
        if self.waiting is not None:
            self.waiting.cancel()

    def close_open_attempts(self, code: str, message: str) -> None:
        """End what was cut short, saying which effects are in doubt; durable with what follows."""
        history = self._env.history
        for record in self._orphans.values():
            for key, request_id in self._announced_by(record):
                if history is None or key not in history.unknown_effects:
                    self._say_unknown(record.state_id, record.attempts - 1, key, request_id)
            self._fail(
                record.state_id, self._effect_that_failed(record) or error_info(code, message)
            )
        for running in self.running:
            for key, request_id in running.in_doubt:
                self._say_unknown(running.state_id, running.attempt, key, request_id)
            if running.open:
                self._fail(running.state_id, error_info(code, message))
        self._orphans.clear()
        self._running.clear()

    async def _base_or_failure(self, state_id: StateId, attempt: int) -> Snapshot:
        """The context to start from; contexts in conflict fail the state that joins them."""
        try:
            return await self.contexts.base_of(state_id)
        except ContextFailure as conflict:
            # There is no merged base to name, so the attempt is said to start from the initial one.
            self._writer.add_kernel(
                KernelEvent(
                    StateEntered=StateEntered(
                        state_id=state_id,
                        attempt=attempt,
                        base_snapshot_id=self._env.initial.artifact_id,
                    )
                )
            )
            self._fail(state_id, conflict.info)
            raise StateFailedForGood from None

    def _attempt_deadline(self) -> float | None:
        if self._state_deadline_ms is None:
            return None
        return anyio.current_time() + self._state_deadline_ms / 1000

    def _give_up_or_go_on(self, error: StateError | None, charged: int) -> None:
        allowed = max(1, self._env.config.retry_policy.max_attempts)
        retryable = error is None or error.info.retryable
        if not retryable or charged >= allowed:
            raise StateFailedForGood

    def _close_orphan(self, record: StateRecord) -> None:
        """End the attempt of a driver that died; the end goes out with the next opening.

        Raises:
            StateFailedForGood: somebody found that its effect failed.
        """
        failed = self._effect_that_failed(record)
        if failed is not None:
            self._fail(record.state_id, failed)
            raise StateFailedForGood
        # It was killed, was interrupted, or parked the run.
        self._fail(record.state_id, error_info(ORPHANED, "the driver left during this attempt"))

    def _effect_that_failed(self, record: StateRecord) -> ErrorInfo | None:
        """Why an orphaned attempt failed, where somebody has said that its effect did."""
        history = self._env.history
        key = history.failed_effects.get(record.state_id) if history else None
        if key is None:
            return None
        return error_info("effect_failed", "somebody found that the effect failed", key=key)

    def _announced_by(self, record: StateRecord) -> list[tuple[FactKey, ArtifactId]]:
        """The effects that an orphaned attempt announced and did not settle."""
        history = self._env.history
        if history is None:
            return []
        announced = {**history.open_intents, **history.unknown_effects}
        return [(i.key, i.request_id) for i in announced.values() if i.state_id == record.state_id]

    def _fail(self, state_id: StateId, info: ErrorInfo) -> None:
        error = safe_error(StateError(state_id=state_id, info=info))
        self._writer.add_kernel(
            KernelEvent(StateFailed=StateFailed(state_id=state_id, error=error))
        )

    def _say_unknown(
        self, state_id: StateId, attempt: int, key: FactKey, request_id: ArtifactId
    ) -> None:
        payload: dict[str, Json] = {"key": str(key), "request_id": str(request_id)}
        event = DomainEvent(name=EVENT_EFFECT_UNKNOWN, payload=payload)
        self._writer.add_domain(event, state_id, attempt)

    def _provider(self, state_id: StateId, attempt: int, meta: StateMeta) -> IoProvider:
        env = self._env
        live_env = LiveIoEnv(
            stores=env.stores,
            run_id=env.run_id,
            state_id=state_id,
            attempt=attempt,
            side_effects=meta.side_effects,
            run_config=env.config,
            manifest_id=env.manifest_id,
            idempotency_key=meta.idempotency.value,
        )
        if env.config.io_mode is IoMode.Live:
            return LiveIo(env.io, Router(env.registry, live_env), live_env)
        from mfm_ops.runtime.replay_io import ReplayIo

        source = env.replay_source
        assert source is not None, "the engine refuses a replay without a source"
        recorded = source.states.get(state_id)
        return ReplayIo(
            env.io.facts,
            env.io.persister,
            live_env,
            source_run_id=source.run_id,
            source_attempt=recorded.attempts - 1 if recorded else attempt,
        )
