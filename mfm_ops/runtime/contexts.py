"""The contexts of one run: from which snapshot a state starts, and what the run ends with.

A state sees the initial context plus what its ancestors wrote (the contract, section 5). With one
parent that is the parent's own snapshot; only joins merge, as `merging` decides. This keeps what
completed states left, and loads what an earlier driver stored. A forked run's overrides count as
writes of the state it forked at.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import anyio

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json
from mfm_ops.machine.errors import ContextFailure
from mfm_ops.machine.ids import ArtifactId, StateId
from mfm_ops.runtime.context import Delta, Snapshot, stored_delta, stored_values
from mfm_ops.runtime.history import StateRecord, StateStatus
from mfm_ops.runtime.merging import Merging
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.scheduler import Schedule

__all__ = ["RunContexts"]


class RunContexts:
    """What each state sees and leaves.

    `records` are the states that earlier drivers worked on; `overrides` the writes that a fork
    makes in the name of a state, before its handler runs. With `goes_on` nobody asks for the
    context of a state that has completed, so not all of the past need be read.
    """

    def __init__(
        self,
        schedule: Schedule,
        initial: Snapshot,
        persister: Persister,
        records: Mapping[StateId, StateRecord],
        overrides: Mapping[StateId, Delta],
        *,
        goes_on: bool = False,
    ) -> None:
        self.initial = initial
        # What merged writes are applied to.
        self._origin = initial
        self._goes_on = goes_on
        # Without a turn of the loop where it is free: siblings must not start one by one.
        self._merges = anyio.Lock(fast_acquire=True)
        self._schedule = schedule
        self._persister = persister
        self._records = records
        self._overrides = overrides
        self._keeps_deltas = schedule.needs_deltas
        self._deltas: dict[StateId, Delta] = {}
        # Snapshots of states whose successors may still need them; others are loaded on demand.
        self._snapshots: dict[StateId, Snapshot] = {}
        self._merging = Merging(schedule)
        # The siblings of a wave start from one merge: by the first of their parents, by all.
        self._bases: dict[StateId, dict[tuple[StateId, ...], Snapshot]] = {}
        self._last_base: tuple[ArtifactId | None, Mapping[str, Json]] = None, {}
        self._completed: dict[StateId, ArtifactId] = {
            record.state_id: record.snapshot_id
            for record in sorted(records.values(), key=lambda record: record.ended_seq)
            if record.status is StateStatus.completed and record.snapshot_id is not None
        }
        # Siblings are counted together, since a wave may have as many parents as states: how many
        # with the same parents have not completed, and for how many such groups a parent is kept.
        left = (state for state in schedule.order if state not in self._completed)
        self._waiting = Counter(map(schedule.parents, left if self._keeps_deltas else ()))
        self._waiting_groups = Counter(parent for group in self._waiting for parent in group)

    @property
    def completed_states(self) -> Collection[StateId]:
        """The states that have completed, the latest last."""
        return self._completed.keys()

    async def base_of(self, state_id: StateId) -> Snapshot:
        """The stored context that `state_id` starts from.

        Raises:
            ContextFailure: `context_write_conflict` among its ancestors.
        """
        base = await self._joined(self._schedule.parents(state_id))
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
        """Keep what a state left, and let go of what only it still needed."""
        if self._keeps_deltas:
            self._deltas[state_id] = self._with_overrides(state_id, base.delta_to(snapshot))
            if state_id not in self._completed:
                self._release_parents(state_id)
        else:
            # In a chain nobody looks further back than one state.
            self._snapshots.clear()
        if self._schedule.has_children(state_id):
            self._snapshots[state_id] = snapshot
        self._completed[state_id] = snapshot.artifact_id

    def _release_parents(self, state_id: StateId) -> None:
        siblings = self._schedule.parents(state_id)
        self._waiting[siblings] -= 1
        if self._waiting[siblings]:
            return
        for parent in siblings:
            self._waiting_groups[parent] -= 1
            if not self._waiting_groups[parent]:
                self._snapshots.pop(parent, None)
                self._bases.pop(parent, None)

    async def checkpoint(self) -> ArtifactId | None:
        """The merge of what has completed, stored; None where nothing has, or it is in conflict."""
        if not self._completed:
            return None
        if not self._keeps_deltas:
            return next(reversed(self._completed.values()))
        try:
            return (await self._merged(self._schedule.ends(self._completed))).artifact_id
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
        return (await self._merged(self._schedule.ends(self._schedule.order))).artifact_id

    async def _joined(self, parents: tuple[StateId, ...]) -> Snapshot:
        if not parents:
            return self.initial
        if len(parents) == 1:
            return await self._snapshot_of(parents[0])
        bases = self._bases.setdefault(parents[0], {})
        if parents not in bases:
            bases[parents] = await self._merged(parents)
        return bases[parents]

    async def _merged(self, ends: Sequence[StateId]) -> Snapshot:
        """The merge of what `ends` and all before them wrote: a context that none has stored."""
        # One at a time: what is loaded for one is there for the next.
        async with self._merges:
            if self._goes_on:
                self._goes_on = False
                await self._skip_the_past()
            for state_id in self._merging.missing(ends):
                if state_id not in self._deltas:
                    self._deltas[state_id] = await self._recorded_delta(state_id)
                self._merging.add(state_id, self._deltas[state_id])
            merged = self._origin.apply(self._merging.merged(ends))
        await self._store(merged)
        return merged

    async def _skip_the_past(self) -> None:
        """Begin with a context that an earlier driver merged, if one sums up all before it."""
        for state_id in self._schedule.narrows() if self._records else ():
            record = self._records.get(state_id)
            # An override is a write of the state itself, which others must not see.
            if (
                record is not None
                and record.status is StateStatus.completed
                and state_id not in self._overrides
            ):
                self._origin = await self._load(record.base_snapshot_id)
                self._merging.begin_at(state_id)
                return

    async def _recorded_delta(self, state_id: StateId) -> Delta:
        base_id, end_id = self._records[state_id].base_snapshot_id, self._completed[state_id]
        if base_id == end_id:
            return self._overrides.get(state_id, {})
        last_id, base = self._last_base
        if last_id != base_id:
            # The siblings of a wave come one after the other, and share it.
            base = stored_values(await self._persister.load_bytes(base_id))
            self._last_base = base_id, base
        end = stored_values(await self._persister.load_bytes(end_id))
        return self._with_overrides(state_id, stored_delta(base, end))

    def _with_overrides(self, state_id: StateId, delta: Delta) -> Delta:
        """What a state changed, an override of its base included."""
        overrides = self._overrides.get(state_id)
        return {**overrides, **delta} if overrides else delta

    async def _snapshot_of(self, state_id: StateId) -> Snapshot:
        if state_id not in self._snapshots:
            self._snapshots[state_id] = await self._load(self._completed[state_id])
        return self._snapshots[state_id]

    async def _load(self, artifact_id: ArtifactId) -> Snapshot:
        snapshot = Snapshot.of_bytes(await self._persister.load_bytes(artifact_id))
        snapshot.stored_as(artifact_id)
        return snapshot

    async def _store(self, snapshot: Snapshot) -> None:
        await self._persister.trusted(ArtifactKind.ContextSnapshot, snapshot.canonical_bytes())
