"""Which state is next, and what comes before it. Pure.

What a state sees of the context is left to `merging` and `contexts`.
"""

from collections.abc import Collection, Iterable, Iterator
from heapq import heappop, heappush

from mfm_ops.machine.ids import StateId
from mfm_ops.machine.plan import StateGraph

__all__ = ["Frontier", "Schedule"]


class Schedule:
    """The order of a valid graph: topological, and plan order among the states that are ready."""

    def __init__(self, graph: StateGraph) -> None:
        ids = [node.id for node in graph.states]
        self._position = position = {state_id: index for index, state_id in enumerate(ids)}
        arrows: list[list[int]] = [[] for _ in ids]
        for edge in graph.edges:
            arrows[position[edge.from_]].append(position[edge.to])
        # A repeated edge says nothing new. Parents come in plan order.
        self.child_positions = [list(dict.fromkeys(children)) for children in arrows]
        self.parent_positions: list[list[int]] = [[] for _ in ids]
        for upstream, children in enumerate(self.child_positions):
            for downstream in children:
                self.parent_positions[downstream].append(upstream)
        self._ids = ids
        self._sinks = [index for index in range(len(ids)) if not self.child_positions[index]]
        self._ancestors: list[int] | None = None
        self._ranks: list[int] | None = None
        self._parents: dict[tuple[int, ...], tuple[StateId, ...]] = {}
        self._order: list[int] = []
        frontier = Frontier(self, ())
        while frontier:
            index = frontier.pop_position()
            self._order.append(index)
            frontier.completed_position(index)

    @property
    def order(self) -> tuple[StateId, ...]:
        """All states in the order in which a sequential run executes them."""
        return tuple(self._ids[index] for index in self._order)

    @property
    def needs_deltas(self) -> bool:
        """Whether some context is a merge, so that every state's delta must be kept."""
        joins = any(len(parents) > 1 for parents in self.parent_positions)
        return joins or len(self._sinks) > 1

    def parents(self, state_id: StateId) -> tuple[StateId, ...]:
        """The direct predecessors, in plan order."""
        positions = tuple(self.parent_positions[self._position[state_id]])
        # Siblings share theirs: a wave may have as many parents as states.
        if positions not in self._parents:
            self._parents[positions] = tuple(self._ids[index] for index in positions)
        return self._parents[positions]

    def has_children(self, state_id: StateId) -> bool:
        """Whether any state waits for this one."""
        return bool(self.child_positions[self._position[state_id]])

    def only_sink(self) -> StateId | None:
        """The state that all others lead to, when there is just one end."""
        return self._ids[self._sinks[0]] if len(self._sinks) == 1 else None

    def in_order(self, positions: Collection[int]) -> list[StateId]:
        """The states at places in the plan, in execution order."""
        if self._ranks is None:
            self._ranks = [0] * len(self._ids)
            for rank, index in enumerate(self._order):
                self._ranks[index] = rank
        return [self._ids[index] for index in sorted(positions, key=self._ranks.__getitem__)]

    def ends(self, states: Collection[StateId]) -> list[StateId]:
        """Those of `states` of which no child is among them, in plan order."""
        within = set(self.positions_of(states))
        return [
            self._ids[index]
            for index in sorted(within)
            if within.isdisjoint(self.child_positions[index])
        ]

    def narrows(self) -> Iterator[StateId]:
        """States that start from all that went before, as all that does not go before does too.

        The last one first, and of several that start alike the first. Whoever knows what such a
        state started from need not know who before it wrote what: no state that is still to come
        is unordered with any of them.
        """
        masks = self._ancestor_masks()
        before = seen_by_rest = (1 << len(self._ids)) - 1
        for index in reversed(self._order):
            before ^= 1 << index
            seen_by_rest &= masks[index]
            if before and before & seen_by_rest == before:
                yield self._ids[index]

    def position(self, state_id: StateId) -> int:
        """A state's place in the plan."""
        return self._position[state_id]

    def positions_of(self, state_ids: Iterable[StateId]) -> list[int]:
        """The places of those that are in the plan."""
        known = self._position
        return [known[state_id] for state_id in state_ids if state_id in known]

    def id_at(self, position: int) -> StateId:
        """The state at a place in the plan."""
        return self._ids[position]

    def ids_in(self, mask: int) -> list[StateId]:
        """The states whose bits are set, in plan order."""
        found = []
        while mask:
            lowest = mask & -mask
            found.append(self._ids[lowest.bit_length() - 1])
            mask ^= lowest
        return found

    def ancestor_mask(self, state_id: StateId) -> int:
        """The states with a path to `state_id`, one bit each at its place in the plan."""
        return self._ancestor_masks()[self._position[state_id]]

    def _ancestor_masks(self) -> list[int]:
        # One bit a state: a set of ten thousand ancestors is an integer of 1.2 KiB.
        if self._ancestors is None:
            masks = [0] * len(self._ids)
            with_self = [0] * len(self._ids)
            # Siblings share theirs, in memory too.
            known: dict[tuple[int, ...], int] = {}
            for index in self._order:
                parents = tuple(self.parent_positions[index])
                if parents not in known:
                    mask = 0
                    for parent in parents:
                        mask |= with_self[parent]
                    known[parents] = mask
                masks[index] = known[parents]
                with_self[index] = masks[index] | 1 << index
            self._ancestors = masks
        return self._ancestors


class Frontier:
    """Which states may start now; plan order among those that are ready."""

    def __init__(self, schedule: Schedule, completed: Iterable[StateId]) -> None:
        self._schedule = schedule
        self._waiting = [len(parents) for parents in schedule.parent_positions]
        done = schedule.positions_of(completed)
        for index in done:
            for child in schedule.child_positions[index]:
                self._waiting[child] -= 1
        self._ready = [index for index, count in enumerate(self._waiting) if count == 0]
        if done:
            self._ready = sorted(set(self._ready).difference(done))

    def __bool__(self) -> bool:
        return bool(self._ready)

    def pop(self) -> StateId:
        """The first ready state, which is no longer ready."""
        return self._schedule.id_at(self.pop_position())

    def pop_position(self) -> int:
        """As `pop`: its place in the plan."""
        return heappop(self._ready)

    def completed(self, state_id: StateId) -> None:
        """What waited for this state only is ready now."""
        self.completed_position(self._schedule.position(state_id))

    def completed_position(self, index: int) -> None:
        """As `completed`, of the state at a place in the plan."""
        waiting = self._waiting
        for child in self._schedule.child_positions[index]:
            waiting[child] -= 1
            if waiting[child] == 0:
                heappush(self._ready, child)
