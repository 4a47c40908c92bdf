"""Which state is next, and from which context it starts. Pure.

A state sees the initial context plus what its ancestors wrote (the contract, section 5). With one
parent that is the parent's own snapshot; only joins merge.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import ContextError, ContextFailure
from mfm_ops.machine.ids import StateId
from mfm_ops.machine.plan import StateGraph
from mfm_ops.runtime.context import Delta, Snapshot

__all__ = ["Schedule", "merge"]


class Schedule:
    """The order of a valid graph: topological, and plan order among the states that are ready."""

    def __init__(self, graph: StateGraph) -> None:
        ids = [node.id for node in graph.states]
        self._position = {state_id: index for index, state_id in enumerate(ids)}
        self._parents: list[list[int]] = [[] for _ in ids]
        children: list[list[int]] = [[] for _ in ids]
        # A repeated edge says nothing new.
        for start, end in dict.fromkeys((edge.from_, edge.to) for edge in graph.edges):
            upstream, downstream = self._position[start], self._position[end]
            self._parents[downstream].append(upstream)
            children[upstream].append(downstream)
        self._ids = ids
        waiting = [len(parents) for parents in self._parents]
        ready = [index for index, count in enumerate(waiting) if count == 0]
        heapify(ready)
        order: list[int] = []
        while ready:
            index = heappop(ready)
            order.append(index)
            for child in children[index]:
                waiting[child] -= 1
                if waiting[child] == 0:
                    heappush(ready, child)
        self._order = order
        self._sinks = [index for index in range(len(ids)) if not children[index]]
        self._ancestors: list[int] | None = None

    @property
    def order(self) -> tuple[StateId, ...]:
        """All states in the order in which a sequential run executes them."""
        return tuple(self._ids[index] for index in self._order)

    @property
    def needs_deltas(self) -> bool:
        """Whether some context is a merge, so that every state's delta must be kept."""
        return len(self._sinks) > 1 or any(len(parents) > 1 for parents in self._parents)

    def parents(self, state_id: StateId) -> tuple[StateId, ...]:
        """The direct predecessors, in plan order."""
        return tuple(self._ids[index] for index in sorted(self._parents[self._position[state_id]]))

    def only_sink(self) -> StateId | None:
        """The state that all others lead to, when there is just one end."""
        return self._ids[self._sinks[0]] if len(self._sinks) == 1 else None

    def ancestors(self, state_id: StateId) -> tuple[StateId, ...]:
        """All states with a path to `state_id`, in execution order."""
        mask = self._ancestor_masks()[self._position[state_id]]
        return tuple(self._ids[index] for index in self._order if mask >> index & 1)

    def is_ancestor(self, earlier: StateId, later: StateId) -> bool:
        """Whether a path leads from `earlier` to `later`."""
        mask = self._ancestor_masks()[self._position[later]]
        return bool(mask >> self._position[earlier] & 1)

    def _ancestor_masks(self) -> list[int]:
        # One bit a state: a set of ten thousand ancestors is an integer of 1.2 KiB.
        if self._ancestors is None:
            masks = [0] * len(self._ids)
            for index in self._order:
                for parent in self._parents[index]:
                    masks[index] |= masks[parent] | (1 << parent)
            self._ancestors = masks
        return self._ancestors


def merge(
    schedule: Schedule,
    initial: Snapshot,
    states: Iterable[StateId],
    deltas: Mapping[StateId, Delta],
) -> Snapshot:
    """The initial context with the writes of `states`, given in execution order.

    For each key the writers that no other writer comes after must agree, so the outcome does not
    depend on the order in which unordered states happened to run.

    Raises:
        ContextFailure: `context_write_conflict`, naming the key and the states.
    """
    last_writers: dict[str, list[StateId]] = {}
    for state_id in states:
        for key in deltas.get(state_id, {}):
            writers = last_writers.setdefault(key, [])
            writers[:] = [w for w in writers if not schedule.is_ancestor(w, state_id)]
            writers.append(state_id)
    merged: dict[str, bytes | None] = {}
    for key in sorted(last_writers):
        writers = last_writers[key]
        values = {deltas[writer][key] for writer in writers}
        if len(values) > 1:
            raise ContextFailure(
                ContextError(
                    Other=error_info(
                        "context_write_conflict",
                        "states that no path orders wrote different values",
                        key=key,
                        states=[str(writer) for writer in sorted(writers)],
                    )
                )
            )
        (merged[key],) = values
    return initial.apply(merged)
