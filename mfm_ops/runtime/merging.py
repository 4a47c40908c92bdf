"""Merges what states wrote: for each key, what those wrote that no other writer comes after. Pure.

So the outcome does not depend on the order in which unordered states happened to run (the
contract, section 5). Which snapshots the writes come from is left to `contexts`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import ContextError, ContextFailure
from mfm_ops.machine.ids import StateId
from mfm_ops.runtime.context import Delta
from mfm_ops.runtime.scheduler import Schedule

__all__ = ["Merging"]


class _Written(NamedTuple):
    """The last writes of one key: by whom, who came before one of them, and the value.

    Sets of states are integers, one bit each at its place in the plan: a join of two such sets
    costs the same few operations however many states are in them.
    """

    writers: int
    before: int
    value: bytes | None


_View = Mapping[str, _Written]
"""The last writes of every key that was written, as one state leaves them."""


class Merging:
    """What the states that were added wrote, as those that come after them see it.

    A state is added after its parents. A view is kept while a child of its state is missing;
    `missing` says what has to be added (again) before something can be merged.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._views: dict[int, _View] = {}
        # The siblings of a wave start from one merge: by the first of their parents, by all.
        self._joins: dict[int, dict[tuple[int, ...], _View]] = {}
        # Siblings are counted together: how many with the same parents were not added, and for
        # how many such groups a parent's view is kept.
        groups = [tuple(parents) for parents in schedule.parent_positions]
        self._waiting = Counter(groups)
        self._waiting_groups = Counter(parent for group in self._waiting for parent in group)
        self._added: set[int] = set()
        self._keeps_all = False

    def begin_at(self, state_id: StateId) -> None:
        """Take what comes before a state as part of the context that everything starts from.

        To be called first, if at all, with one of `Schedule.narrows`.
        """
        before = self._schedule.ids_in(self._schedule.ancestor_mask(state_id))
        self._views = {index: {} for index in self._schedule.positions_of(before)}
        self._added = set(self._views)

    def missing(self, states: Iterable[StateId]) -> list[StateId]:
        """What must be added, in this order, before `states` can be merged: themselves, parents."""
        schedule = self._schedule
        found: set[int] = set()
        todo = schedule.positions_of(states)
        while todo:
            index = todo.pop()
            if index not in self._views and index not in found:
                found.add(index)
                todo += schedule.parent_positions[index]
        if not found.isdisjoint(self._added):
            # Somebody looks back again, so nothing tells any more when a view has served.
            self._keeps_all = True
        return schedule.in_order(found)

    def add(self, state_id: StateId, delta: Delta) -> None:
        """A state has completed, and changed `delta` of its base.

        Raises:
            ContextFailure: as `merged`, for what the state itself sees.
        """
        index = self._schedule.position(state_id)
        parents = tuple(self._schedule.parent_positions[index])
        view = self._join(parents)
        if delta:
            bit, before = 1 << index, self._schedule.ancestor_mask(state_id)
            own = {key: _Written(bit, before, value) for key, value in delta.items()}
            view = {**view, **own}
        self._views[index] = view
        self._added.add(index)
        if self._keeps_all:
            return
        self._waiting[parents] -= 1
        if self._waiting[parents]:
            return
        for parent in parents:
            self._waiting_groups[parent] -= 1
            if not self._waiting_groups[parent]:
                self._views.pop(parent, None)
                self._joins.pop(parent, None)

    def merged(self, states: Iterable[StateId]) -> Delta:
        """What the context after all of `states`, which were added, changes of the initial one.

        Raises:
            ContextFailure: `context_write_conflict`, naming the key and the states: unequal
                writes by states that no path orders.
        """
        view = self._join(tuple(self._schedule.positions_of(states)))
        return {key: written.value for key, written in view.items()}

    def _join(self, parents: tuple[int, ...]) -> _View:
        if not parents:
            return {}
        if len(parents) == 1:
            return self._views[parents[0]]
        joins = self._joins.setdefault(parents[0], {})
        if parents not in joins:
            joins[parents] = self._joined([self._views[parent] for parent in parents])
        return joins[parents]

    def _joined(self, views: list[_View]) -> _View:
        joined = dict(views[0])
        contended: dict[str, list[_Written]] = {}
        for view in views[1:]:
            for key, written in view.items():
                known = joined.setdefault(key, written)
                if known is not written:
                    contended.setdefault(key, [known]).append(written)
        for key in sorted(contended):
            joined[key] = self._settled(key, contended[key])
        return joined

    def _settled(self, key: str, contenders: list[_Written]) -> _Written:
        writers = before = 0
        for written in contenders:
            writers |= written.writers
            before |= written.before
        writers &= ~before
        values = {written.value for written in contenders if written.writers & writers}
        if len(values) > 1:
            states = sorted(self._schedule.ids_in(writers))
            raise ContextFailure(
                ContextError(
                    Other=error_info(
                        "context_write_conflict",
                        "states that no path orders wrote different values",
                        key=key,
                        states=[str(state_id) for state_id in states],
                    )
                )
            )
        (value,) = values
        return _Written(writers, before, value)
