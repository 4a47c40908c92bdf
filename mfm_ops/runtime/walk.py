"""The walk through a run's states: contexts, retries, orphans, unknown effects.

What a single attempt does is left to `attempt`, which context a state starts from is decided in
`scheduler`; how the run as a whole begins and ends is left to `drive`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import anyio

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import IoMode, RunConfig
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import ContextFailure, StateError
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
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.driver import DriverIdentity
from mfm_ops.runtime.history import ORPHANED, RunHistory, StateRecord, StateStatus
from mfm_ops.runtime.live_io import LiveIo, OutcomeUnrecordable, RunIo
from mfm_ops.runtime.redact import safe_error
from mfm_ops.runtime.replay_io import ReplayIo
from mfm_ops.runtime.router import Router, TransportRegistry
from mfm_ops.runtime.scheduler import Schedule, merge

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
    replay_source: RunHistory | None = None


class Walk:
    """One pass through the states that are left, in execution order."""

    def __init__(self, env: DriveEnv) -> None:
        self._env = env
        self._persister = env.io.persister
        self._schedule = Schedule(env.plan.graph)
        self._nodes = {node.id: node for node in env.plan.graph.states}
        self._records = dict(env.history.states) if env.history else {}
        self._keeps_deltas = self._schedule.needs_deltas
        self._deltas: dict[StateId, Delta] = {}
        # Snapshots of states whose successors may still need them; others are loaded on demand.
        self._snapshots: dict[StateId, Snapshot] = {}
        completed = [r for r in self._records.values() if r.status is StateStatus.completed]
        newest = max(completed, key=lambda record: record.ended_seq, default=None)
        self._checkpoint = newest.snapshot_id if newest else None
        # Attempts that have begun and not ended, an earlier driver's among them.
        self._open = [r.state_id for r in self._records.values() if r.status is StateStatus.running]

    @property
    def last_checkpoint(self) -> ArtifactId | None:
        """The snapshot of the state that completed last; None when none has."""
        return self._checkpoint

    def remaining(self) -> Iterator[StateNode]:
        """The states that have not completed, in execution order."""
        for state_id in self._schedule.order:
            record = self._records.get(state_id)
            if record is None or record.status is not StateStatus.completed:
                yield self._nodes[state_id]

    async def execute(self, node: StateNode) -> None:
        """Run `node` until it completes.

        Raises:
            StateFailedForGood: its attempts are used up, or the failure is not retryable.
            RunParked: it began an effect whose outcome is unknown.
        """
        record = self._records.get(node.id)
        meta = node.state.meta()
        attempt = record.attempts if record else 0
        charged = record.charged if record else 0
        if record is not None and record.status is StateStatus.failed:
            self._give_up_or_go_on(record.error, charged)
        if record is not None and record.status is StateStatus.running:
            await self._close_orphan(record, meta)
            self._open.remove(node.id)
            charged -= 1
        base = await self._base_or_failure(node.id, attempt)
        if any(tag in self._env.config.skip_tags for tag in meta.tags):
            outcome = await skip_state(node, attempt, base, self._env.io.writer)
            self._completed(node.id, base, outcome.snapshot)
            return
        while True:
            io = self._provider(node.id, attempt, meta)
            self._open.append(node.id)
            try:
                ended = await run_attempt(
                    node,
                    attempt,
                    base,
                    io=io,
                    writer=self._env.io.writer,
                    persister=self._persister,
                    profile=self._env.config.event_profile,
                )
            except OutcomeUnrecordable as unknown:
                await self._park(node.id, attempt, unknown.key, unknown.request_id)
                raise RunParked from None
            self._open.remove(node.id)
            if isinstance(ended, Completed):
                self._completed(node.id, base, ended.snapshot)
                return
            attempt, charged = attempt + 1, charged + 1
            self._give_up_or_go_on(ended.error, charged)
            await self._env.io.writer.flush()
            await anyio.sleep(self._env.config.retry_policy.backoff.delay_seconds(attempt - 1))

    def close_open_attempts(self) -> None:
        """End what a request to cancel cut short; the ends go out with the run's."""
        for state_id in self._open:
            info = error_info("run_cancelled", "the run was cancelled during this attempt")
            self._fail(state_id, StateError(state_id=state_id, info=info))
        self._open.clear()

    async def final_snapshot(self) -> ArtifactId:
        """The merged context of all states, stored.

        Raises:
            ContextFailure: writes of states that nothing joins are in conflict.
        """
        last = self._schedule.only_sink()
        if last is not None:
            record = self._records.get(last)
            if last in self._snapshots:
                return self._snapshots[last].artifact_id
            if record is not None and record.snapshot_id is not None:
                return record.snapshot_id
        return (await self._merged(self._schedule.order)).artifact_id

    def _completed(self, state_id: StateId, base: Snapshot, snapshot: Snapshot) -> None:
        if self._keeps_deltas:
            self._deltas[state_id] = base.delta_to(snapshot)
        else:
            # In a chain nobody looks further back than one state.
            self._snapshots.clear()
        self._snapshots[state_id] = snapshot
        self._checkpoint = snapshot.artifact_id

    async def _base_or_failure(self, state_id: StateId, attempt: int) -> Snapshot:
        """The context to start from; contexts in conflict fail the state that joins them."""
        try:
            return await self._base_of(state_id)
        except ContextFailure as conflict:
            # There is no merged base to name, so the attempt is said to start from the initial one.
            writer = self._env.io.writer
            writer.add_kernel(
                KernelEvent(
                    StateEntered=StateEntered(
                        state_id=state_id,
                        attempt=attempt,
                        base_snapshot_id=self._env.initial.artifact_id,
                    )
                )
            )
            self._fail(state_id, safe_error(StateError(state_id=state_id, info=conflict.info)))
            raise StateFailedForGood from None

    async def _base_of(self, state_id: StateId) -> Snapshot:
        parents = self._schedule.parents(state_id)
        if not parents:
            return self._env.initial
        if len(parents) == 1:
            return await self._snapshot_of(parents[0])
        ancestors = self._schedule.ancestors(state_id)
        return await self._merged(ancestors)

    async def _merged(self, states: tuple[StateId, ...]) -> Snapshot:
        """The merge of what `states` wrote: a context that no state has stored yet."""
        await self._load_deltas(states)
        merged = merge(self._schedule, self._env.initial, states, self._deltas)
        await self._persister.trusted(ArtifactKind.ContextSnapshot, merged.canonical_bytes())
        return merged

    async def _snapshot_of(self, state_id: StateId) -> Snapshot:
        if state_id not in self._snapshots:
            snapshot_id = self._records[state_id].snapshot_id
            assert snapshot_id is not None, "only completed states have successors that run"
            data = await self._persister.load_bytes(snapshot_id)
            self._snapshots[state_id] = Snapshot.of_bytes(data)
        return self._snapshots[state_id]

    async def _load_deltas(self, states: tuple[StateId, ...]) -> None:
        """Deltas of states that an earlier driver completed, from their two snapshots."""
        for state_id in states:
            if state_id not in self._deltas:
                base_id = self._records[state_id].base_snapshot_id
                base = Snapshot.of_bytes(await self._persister.load_bytes(base_id))
                self._deltas[state_id] = base.delta_to(await self._snapshot_of(state_id))

    def _give_up_or_go_on(self, error: StateError | None, charged: int) -> None:
        allowed = max(1, self._env.config.retry_policy.max_attempts)
        retryable = error is None or error.info.retryable
        if not retryable or charged >= allowed:
            raise StateFailedForGood

    async def _close_orphan(self, record: StateRecord, meta: StateMeta) -> None:
        """End the attempt of a driver that died; the end goes out with the next opening.

        An effect that was announced and not recorded may have happened: without a key that makes
        repeating it safe, the run is parked instead.
        """
        history = self._env.history
        assert history is not None, "an orphan comes from a history"
        if meta.idempotency.variant == "None":
            if any(i.state_id == record.state_id for i in history.unknown_effects.values()):
                raise RunParked
            for intent in history.open_intents.values():
                if intent.state_id == record.state_id:
                    await self._park(
                        record.state_id, record.attempts - 1, intent.key, intent.request_id
                    )
                    raise RunParked
        error = StateError(
            state_id=record.state_id,
            info=error_info(ORPHANED, "the driver died during this attempt"),
        )
        self._fail(record.state_id, error)

    def _fail(self, state_id: StateId, error: StateError) -> None:
        self._env.io.writer.add_kernel(
            KernelEvent(StateFailed=StateFailed(state_id=state_id, error=error))
        )

    async def _park(
        self, state_id: StateId, attempt: int, key: FactKey, request_id: ArtifactId
    ) -> None:
        """Say durably that an effect's outcome is unknown."""
        payload: dict[str, Json] = {"key": str(key), "request_id": str(request_id)}
        event = DomainEvent(name=EVENT_EFFECT_UNKNOWN, payload=payload)
        self._env.io.writer.add_domain(event, state_id, attempt)
        await self._env.io.writer.flush()

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
