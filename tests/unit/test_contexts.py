"""`mfm_ops.runtime.contexts`: what a resumed run's states start from, and how little is read."""

from collections.abc import Iterable, Mapping

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import ContextFailure
from mfm_ops.machine.ids import ArtifactId, StateId
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.contexts import RunContexts
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.records import StateRecord, StateStatus
from mfm_ops.runtime.scheduler import Schedule
from mfm_ops.storage.memory import MemoryStore
from tests.support import sid, state
from tests.unit.test_merging import AGREEING, DELTAS, delta_of
from tests.unit.test_scheduler import graphs, paths_to

pytestmark = pytest.mark.anyio

INITIAL = Snapshot.of_values({"x": 0, "w": 9})


class CountingStore(MemoryStore):
    """Counts the artifacts that are read."""

    gets = 0

    async def get(self, artifact_id: ArtifactId) -> bytes:
        self.gets += 1
        return await super().get(artifact_id)


class Execution:
    """States that write what they are told, by drivers that come one after the other."""

    def __init__(
        self,
        found: StateGraph,
        deltas: Mapping[StateId, Delta],
        overrides: Mapping[StateId, Delta] | None = None,
    ) -> None:
        self.schedule = Schedule(found)
        self.store = CountingStore()
        self.records: dict[StateId, StateRecord] = {}
        self.began_from: dict[StateId | None, str] = {}
        self._deltas = deltas
        self._overrides = overrides or {}

    async def drive(self, order: Iterable[StateId], *, to_the_end: bool = False) -> None:
        """One driver's part of the run."""
        persister = Persister(self.store)
        await persister.trusted(ArtifactKind.ContextSnapshot, INITIAL.canonical_bytes())
        contexts = RunContexts(
            self.schedule, INITIAL, persister, dict(self.records), self._overrides, goes_on=True
        )
        for state_id in order:
            if all(parent in self.records for parent in self.schedule.parents(state_id)):
                await self._execute(state_id, contexts, persister)
        if to_the_end:
            final_id = await contexts.checkpoint()
            self.began_from[None] = str(final_id)

    async def _execute(
        self, state_id: StateId, contexts: RunContexts, persister: Persister
    ) -> None:
        try:
            base = await contexts.base_of(state_id)
        except ContextFailure as conflict:
            self.began_from[state_id] = repr(conflict.info)
            return
        end = base.apply(self._deltas[state_id])
        await persister.trusted(ArtifactKind.ContextSnapshot, end.canonical_bytes())
        self.began_from[state_id] = base.artifact_id
        contexts.completed(state_id, base, end)
        self.records[state_id] = StateRecord(
            state_id,
            StateStatus.completed,
            base.artifact_id,
            snapshot_id=end.artifact_id,
            ended_seq=len(self.records) + 1,
        )


@pytest.mark.parametrize("kind", [DELTAS, AGREEING], ids=["many conflicts", "few conflicts"])
@settings(max_examples=150, deadline=None)
@given(found=graphs(), data=st.data(), overridden=st.booleans())
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    kind: st.SearchStrategy[dict[str, int | None]],
    found: StateGraph,
    data: st.DataObject,
    overridden: bool,
) -> None:
    deltas = {node.id: delta_of(data.draw(kind)) for node in found.states}
    order = Schedule(found).order
    overrides = {data.draw(st.sampled_from(order)): delta_of({"x": 7})} if overridden else {}
    at = data.draw(st.integers(0, len(order)))

    async def check() -> None:
        whole, parts = (Execution(found, deltas, overrides) for _ in range(2))
        await whole.drive(order, to_the_end=True)
        await parts.drive(order[:at])
        await parts.drive(order[at:], to_the_end=True)
        assert parts.began_from == whole.began_from

    anyio.run(check)


@given(graphs())
def test_a_run_narrows_where_every_state_comes_before_or_starts_from_all_of_those(
    found: StateGraph,
) -> None:
    ids = {node.id for node in found.states}
    first_of: dict[frozenset[StateId], StateId] = {}
    for state_id in Schedule(found).order:
        before = frozenset(paths_to(found, state_id))
        if before and all(before <= paths_to(found, other) for other in ids - before):
            first_of.setdefault(before, state_id)
    assert list(Schedule(found).narrows()) == list(reversed(first_of.values()))


async def test_a_resumed_run_of_waves_reads_the_last_of_them_only() -> None:
    waves, width = 30, 4
    ids = [[sid(f"w{wave}_{lane}") for lane in range(width)] for wave in range(waves)]
    edges = [
        DependencyEdge.between(one, other)
        for wave in range(1, waves)
        for one in ids[wave - 1]
        for other in ids[wave]
    ]
    nodes = [StateNode(state_id, state()) for wave in ids for state_id in wave]
    found = StateGraph(nodes, edges)
    deltas = {node.id: delta_of({f"k{index % width}": index}) for index, node in enumerate(nodes)}
    execution = Execution(found, deltas)
    order = execution.schedule.order
    await execution.drive(order[:-width])
    execution.store.gets = 0
    await execution.drive(order[-width:], to_the_end=True)
    assert execution.store.gets <= 3 * width
