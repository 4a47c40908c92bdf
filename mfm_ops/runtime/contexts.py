"""The contexts of one run: from which snapshot a state starts, and what the run ends with.

How snapshots merge is decided in `scheduler`; this keeps what completed states left, and loads
what an earlier driver stored. A forked run's overrides count as writes of the state it forked at.
"""

from collections.abc import Collection, Mapping

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import ContextFailure
from mfm_ops.machine.ids import ArtifactId, StateId
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.history import StateRecord, StateStatus
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.scheduler import Schedule, merge

__all__ = ["RunContexts"]


class RunContexts:
    """What each state sees and leaves.

    `records` are the states that earlier drivers worked on; `overrides` the writes that a fork
    makes in the name of a state, before its handler runs.
    """

    def __init__(
        self,
        schedule: Schedule,
        initial: Snapshot,
        persister: Persister,
        records: Mapping[StateId, StateRecord],
        overrides: Mapping[StateId, Delta],
    ) -> None:
        self.initial = initial
        self._schedule = schedule
        self._persister = persister
        self._records = records
        self._overrides = overrides
        self._keeps_deltas = schedule.needs_deltas
        self._deltas: dict[StateId, Delta] = {}
        # Snapshots of states whose successors may still need them; others are loaded on demand.
        self._snapshots: dict[StateId, Snapshot] = {}
        # The siblings of a wave start from one merge.
        self._bases: dict[tuple[StateId, ...], Snapshot] = {}
        self._completed: dict[StateId, ArtifactId] = {
            record.state_id: record.snapshot_id
            for record in sorted(records.values(), key=lambda record: record.ended_seq)
            if record.status is StateStatus.completed and record.snapshot_id is not None
        }

    @property
    def completed_states(self) -> Collection[StateId]:
        """The states that have completed, the latest last."""
        return self._completed.keys()

    async def base_of(self, state_id: StateId) -> Snapshot:
        """The stored context that `state_id` starts from.

        Raises:
            ContextFailure: `context_write_conflict` among its ancestors.
        """
        base = await self._joined(self._schedule.parents(state_id), state_id)
        overrides = self._overrides.get(state_id)
        if not overrides:
            return base
        changed = base.apply(overrides)
        await self._store(changed)
        return changed

    async def base_id_of(self, state_id: StateId) -> ArtifactId:
        """The id of `base_of(state_id)`, loaded and merged only where it must be."""
        parents = self._schedule.parents(state_id)
        if len(parents) == 1 and state_id not in self._overrides:
            return self._completed[parents[0]]
        return (await self.base_of(state_id)).artifact_id

    def completed(self, state_id: StateId, base: Snapshot, snapshot: Snapshot) -> None:
        """Keep what a state left."""
        if self._keeps_deltas:
            self._deltas[state_id] = self._delta(state_id, base, snapshot)
        else:
            # In a chain nobody looks further back than one state.
            self._snapshots.clear()
        self._snapshots[state_id] = snapshot
        self._completed[state_id] = snapshot.artifact_id

    async def checkpoint(self) -> ArtifactId | None:
        """The merge of what has completed, stored; None where nothing has, or it is in conflict."""
        if not self._completed:
            return None
        if not self._keeps_deltas:
            return next(reversed(self._completed.values()))
        done = tuple(state for state in self._schedule.order if state in self._completed)
        try:
            return (await self._merged(done)).artifact_id
        except ContextFailure:
            return None

    async def final(self) -> ArtifactId:
        """The merged context of all states, stored.

        Raises:
            ContextFailure: writes of states that nothing joins are in conflict.
        """
        last = self._schedule.only_sink()
        if last is not None:
            return self._completed[last]
        return (await self._merged(self._schedule.order)).artifact_id

    async def _joined(self, parents: tuple[StateId, ...], state_id: StateId) -> Snapshot:
        if not parents:
            return self.initial
        if len(parents) == 1:
            return await self._snapshot_of(parents[0])
        if parents not in self._bases:
            ancestors = self._schedule.ancestors(state_id)
            self._bases[parents] = await self._merged(ancestors)
        return self._bases[parents]

    async def _merged(self, states: tuple[StateId, ...]) -> Snapshot:
        """The merge of what `states` wrote: a context that no state has stored yet."""
        for state_id in states:
            if state_id not in self._deltas:
                base_id = self._records[state_id].base_snapshot_id
                base = Snapshot.of_bytes(await self._persister.load_bytes(base_id))
                snapshot = await self._snapshot_of(state_id)
                self._deltas[state_id] = self._delta(state_id, base, snapshot)
        merged = merge(self._schedule, self.initial, states, self._deltas)
        await self._store(merged)
        return merged

    def _delta(self, state_id: StateId, base: Snapshot, snapshot: Snapshot) -> Delta:
        """What a state changed, an override of its base included."""
        delta = base.delta_to(snapshot)
        overrides = self._overrides.get(state_id)
        return {**overrides, **delta} if overrides else delta

    async def _snapshot_of(self, state_id: StateId) -> Snapshot:
        if state_id not in self._snapshots:
            data = await self._persister.load_bytes(self._completed[state_id])
            self._snapshots[state_id] = Snapshot.of_bytes(data)
        return self._snapshots[state_id]

    async def _store(self, snapshot: Snapshot) -> None:
        await self._persister.trusted(ArtifactKind.ContextSnapshot, snapshot.canonical_bytes())
