"""`mfm_ops.runtime.merging`: what a state sees of what those before it wrote."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.machine.errors import ContextFailure
from mfm_ops.machine.ids import StateId
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.runtime.context import Delta
from mfm_ops.runtime.merging import Merging
from mfm_ops.runtime.scheduler import Schedule
from tests.support import sid, state
from tests.unit.test_scheduler import graph, graphs, paths_to

DELTAS: st.SearchStrategy[dict[str, Json]] = st.dictionaries(
    st.sampled_from("xyz"), st.sampled_from([1, 2, None]), min_size=0, max_size=3
)
# Fewer values, and so fewer conflicts: what comes after joins is looked at too.
AGREEING: st.SearchStrategy[dict[str, Json]] = st.dictionaries(
    st.sampled_from("xyz"), st.sampled_from([1, 1, 1, None]), min_size=0, max_size=2
)

Seen = Delta | tuple[str, frozenset[str]]
"""The writes that a state sees, or the key and the states of their first conflict."""


def delta_of(changes: Mapping[str, Json]) -> Delta:
    return {
        key: None if value is None else canonical_json_bytes(value)
        for key, value in changes.items()
    }


def by_definition(
    found: StateGraph, states: Iterable[StateId], deltas: Mapping[StateId, Delta]
) -> Seen:
    """For each key the value of the last writers among `states`, or the first conflict."""
    merged: dict[str, bytes | None] = {}
    within = {state_id: deltas[state_id] for state_id in states}
    for key in sorted({key for delta in within.values() for key in delta}):
        writers = {state_id for state_id, delta in within.items() if key in delta}
        last = {
            one for one in writers if not any(one in paths_to(found, other) for other in writers)
        }
        values = {within[one][key] for one in last}
        if len(values) > 1:
            return key, frozenset(last)
        (merged[key],) = values
    return merged


def merge(merging: Merging, ends: Sequence[StateId], deltas: Mapping[StateId, Delta]) -> Seen:
    try:
        for state_id in merging.missing(ends):
            merging.add(state_id, deltas[state_id])
        return merging.merged(ends)
    except ContextFailure as conflict:
        details = conflict.info.details
        assert isinstance(details, dict)
        assert details["states"] == sorted(details["states"])
        return details["key"], frozenset(details["states"])


def execute(
    found: StateGraph, deltas: Mapping[StateId, Delta], order: Iterable[StateId]
) -> dict[StateId | None, Seen]:
    """What each state sees that may start, and what all that completed leave."""
    schedule = Schedule(found)
    merging = Merging(schedule)
    completed: set[StateId] = set()
    seen: dict[StateId | None, Seen] = {}
    for state_id in order:
        parents = schedule.parents(state_id)
        if completed.issuperset(parents):
            seen[state_id] = merge(merging, parents, deltas)
            if not isinstance(seen[state_id], tuple):
                completed.add(state_id)
    seen[None] = merge(merging, schedule.ends(completed), deltas)
    return seen


def orders(found: StateGraph, seed: int) -> list[StateId]:
    """Some topological order that a parallel run might have taken."""
    chance = random.Random(seed)
    waiting = [node.id for node in found.states]
    done: list[StateId] = []
    while waiting:
        ready = [s for s in waiting if all(e.from_ in done for e in found.edges if e.to == s)]
        done.append(chance.choice(ready))
        waiting.remove(done[-1])
    return done


@pytest.mark.parametrize("kind", [DELTAS, AGREEING], ids=["many conflicts", "few conflicts"])
@settings(max_examples=200, deadline=None)
@given(found=graphs(), data=st.data(), seed=st.integers(0, 9))
def test_in_every_order_each_state_sees_what_the_definition_says(
    kind: st.SearchStrategy[dict[str, Json]], found: StateGraph, data: st.DataObject, seed: int
) -> None:
    deltas = {node.id: delta_of(data.draw(kind)) for node in found.states}
    seen = execute(found, deltas, orders(found, seed))
    assert seen == execute(found, deltas, Schedule(found).order)
    completed = {s for s, what in seen.items() if s is not None and not isinstance(what, tuple)}
    for state_id, what in seen.items():
        before = completed if state_id is None else paths_to(found, state_id)
        assert what == by_definition(found, before, deltas)


@settings(max_examples=100, deadline=None)
@given(found=graphs(), data=st.data())
def test_whoever_looks_back_sees_the_same_again(found: StateGraph, data: st.DataObject) -> None:
    deltas = {node.id: delta_of(data.draw(AGREEING)) for node in found.states}
    schedule = Schedule(found)
    seen = execute(found, deltas, schedule.order)
    merging = Merging(schedule)
    known = [s for s in seen if s is not None]
    for state_id in data.draw(st.lists(st.sampled_from(known), max_size=12)):
        assert merge(merging, schedule.parents(state_id), deltas) == seen[state_id]


def test_a_conflict_names_the_key_and_the_states() -> None:
    merging = Merging(Schedule(graph("abc", "a>c", "b>c")))
    merging.add(sid("a"), delta_of({"x": 1}))
    merging.add(sid("b"), delta_of({"x": 2}))
    with pytest.raises(ContextFailure, match=re.escape("context_write_conflict")) as conflict:
        merging.merged([sid("a"), sid("b")])
    assert conflict.value.info.details == {"key": "x", "states": [sid("a"), sid("b")]}


def test_equal_writes_by_unordered_states_are_no_conflict() -> None:
    deltas = {sid(name): delta_of({"x": 1}) for name in "ab"}
    assert execute(graph("ab"), deltas, deltas)[None] == delta_of({"x": 1})


def test_a_write_and_a_delete_by_unordered_states_are_a_conflict() -> None:
    deltas = {sid("a"): delta_of({"x": 1}), sid("b"): delta_of({"x": None})}
    assert execute(graph("ab"), deltas, deltas)[None] == ("x", frozenset(map(str, deltas)))


def test_a_later_write_on_the_path_wins() -> None:
    deltas = {sid("a"): delta_of({"x": 1}), sid("b"): delta_of({"x": 2})}
    assert execute(graph("ab", "a>b"), deltas, deltas)[None] == delta_of({"x": 2})


class Counted(Merging):
    """Counts the states that were added, and the views that are kept."""

    added = most = 0

    def add(self, state_id: StateId, delta: Delta) -> None:
        super().add(state_id, delta)
        self.added += 1
        self.most = max(self.most, len(self._views))


def ladder(rungs: int) -> StateGraph:
    """A diamond after the other."""
    names = [f"{place}{rung}" for rung in range(rungs) for place in "abcd"]
    pairs = [(f"{one}{rung}", f"{two}{rung}") for rung in range(rungs)
             for one, two in ("ab", "ac", "bd", "cd")]  # fmt: skip
    pairs += [(f"d{rung - 1}", f"a{rung}") for rung in range(1, rungs)]
    drawn = [DependencyEdge.between(sid(one), sid(two)) for one, two in pairs]
    return StateGraph([StateNode(sid(name), state()) for name in names], drawn)


def test_a_state_is_looked_at_once_however_many_joins_come_after_it() -> None:
    found = ladder(200)
    schedule = Schedule(found)
    merging = Counted(schedule)
    deltas = {node.id: delta_of({str(node.id): 1}) for node in found.states}
    for state_id in schedule.order:
        merge(merging, schedule.parents(state_id), deltas)
    merge(merging, schedule.ends(schedule.order), deltas)
    assert merging.added == len(found.states)
    # What nobody waits for any more is let go.
    assert merging.most <= 5
