"""`mfm_ops.runtime.scheduler`: the order of states, and the merge of their contexts."""

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.machine.errors import ContextFailure
from mfm_ops.machine.ids import StateId
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.scheduler import Schedule, merge
from tests.support import edges, sid, state

STATE = state()


def graph(names: str, *arrows: str) -> StateGraph:
    """A graph of states that have one letter for a name."""
    return StateGraph([StateNode(sid(name), STATE) for name in names], edges(*arrows))


def letters(ids: tuple[StateId, ...]) -> str:
    return "".join(state_id.rpartition(".")[2] for state_id in ids)


@st.composite
def graphs(draw: st.DrawFn) -> StateGraph:
    """An acyclic graph, listed in an order that has nothing to do with its edges."""
    count = draw(st.integers(1, 8))
    names = [chr(ord("a") + index) for index in range(count)]
    topological = draw(st.permutations(names))
    pairs = [pair for pair in itertools.combinations(topological, 2) if draw(st.booleans())]
    drawn = tuple(DependencyEdge.between(sid(one), sid(two)) for one, two in pairs)
    return StateGraph([StateNode(sid(name), STATE) for name in names], drawn)


def paths_to(found: StateGraph, target: StateId) -> set[StateId]:
    """The ancestors, by looking for paths."""
    seen: set[StateId] = set()
    todo = [target]
    while todo:
        here = todo.pop()
        for edge in found.edges:
            if edge.to == here and edge.from_ not in seen:
                seen.add(edge.from_)
                todo.append(edge.from_)
    return seen


@given(graphs())
def test_every_state_comes_after_those_it_depends_on(found: StateGraph) -> None:
    order = Schedule(found).order
    assert sorted(order) == sorted(node.id for node in found.states)
    for edge in found.edges:
        assert order.index(edge.from_) < order.index(edge.to)


@given(graphs())
def test_of_the_ready_states_the_first_in_the_plan_is_next(found: StateGraph) -> None:
    done: list[StateId] = []
    for state_id in Schedule(found).order:
        ready = [
            node.id
            for node in found.states
            if node.id not in done
            and all(edge.from_ in done for edge in found.edges if edge.to == node.id)
        ]
        assert state_id == ready[0]
        done.append(state_id)


@given(graphs())
def test_ancestors_are_the_states_with_a_path_here(found: StateGraph) -> None:
    schedule = Schedule(found)
    for node in found.states:
        expected = paths_to(found, node.id)
        ancestors = schedule.ancestors(node.id)
        assert set(ancestors) == expected
        assert list(ancestors) == [each for each in schedule.order if each in expected]
        for other in found.states:
            bit = 1 << schedule.position(other.id)
            assert bool(schedule.ancestor_mask(node.id) & bit) == (other.id in expected)


@given(graphs())
def test_the_only_sink_is_the_state_that_nothing_follows(found: StateGraph) -> None:
    followed = {edge.from_ for edge in found.edges}
    ends = [node.id for node in found.states if node.id not in followed]
    assert Schedule(found).only_sink() == (ends[0] if len(ends) == 1 else None)


@given(graphs())
def test_deltas_are_needed_where_some_context_is_a_merge(found: StateGraph) -> None:
    schedule = Schedule(found)
    joined = any(len(schedule.parents(node.id)) > 1 for node in found.states)
    assert schedule.needs_deltas == (joined or schedule.only_sink() is None)


def test_an_edge_that_is_said_twice_counts_once() -> None:
    schedule = Schedule(graph("ab", "a>b", "a>b"))
    assert letters(schedule.order) == "ab"
    assert letters(schedule.parents(sid("b"))) == "a"
    assert not schedule.needs_deltas


def test_parents_are_told_in_plan_order() -> None:
    assert letters(Schedule(graph("abcd", "c>d", "a>d", "b>d")).parents(sid("d"))) == "abc"


def test_a_chain_of_ten_thousand_states_is_ordered_without_recursion() -> None:
    nodes = [StateNode(sid(f"s{index}"), STATE) for index in range(10_000)]
    drawn = [
        DependencyEdge.between(one.id, two.id) for one, two in itertools.pairwise(reversed(nodes))
    ]
    assert Schedule(StateGraph(nodes, drawn)).order[0] == nodes[-1].id


# Merging


DELTAS: st.SearchStrategy[dict[str, Json]] = st.dictionaries(
    st.sampled_from("xyz"), st.sampled_from([1, 2, None]), min_size=0, max_size=3
)


def delta_of(changes: dict[str, Json]) -> Delta:
    return {
        key: None if value is None else canonical_json_bytes(value)
        for key, value in changes.items()
    }


def brute_force(
    found: StateGraph, deltas: dict[StateId, Delta]
) -> dict[str, bytes | None] | dict[str, set[StateId]]:
    """For each key the value of the last writers, or those writers where they disagree."""
    merged: dict[str, bytes | None] = {}
    conflicts: dict[str, set[StateId]] = {}
    for key in {key for delta in deltas.values() for key in delta}:
        writers = {state_id for state_id, delta in deltas.items() if key in delta}
        last = {
            one
            for one in writers
            if not any(one in paths_to(found, other) for other in writers if other != one)
        }
        values = {deltas[one][key] for one in last}
        if len(values) > 1:
            conflicts[key] = last
        else:
            (merged[key],) = values
    return conflicts or merged


@settings(max_examples=200)
@given(graphs(), st.data())
def test_a_merge_equals_the_brute_force_one(found: StateGraph, data: st.DataObject) -> None:
    schedule = Schedule(found)
    deltas = {node.id: delta_of(data.draw(DELTAS)) for node in found.states}
    initial = Snapshot.of_values({"x": 0, "w": 9})
    expected = brute_force(found, deltas)
    try:
        merged = merge(schedule, initial, schedule.order, deltas)
    except ContextFailure as conflict:
        details = conflict.info.details
        assert isinstance(details, dict)
        assert details["key"] == min(expected)
        assert set(details["states"]) == expected[details["key"]]
        assert details["states"] == sorted(details["states"])
    else:
        wanted = {key: value for key, value in expected.items() if not isinstance(value, set)}
        assert merged.values() == initial.apply(wanted).values()


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


def outcome(found: StateGraph, order: list[StateId], deltas: dict[StateId, Delta]) -> str:
    try:
        return merge(Schedule(found), Snapshot({}), order, deltas).artifact_id
    except ContextFailure as conflict:
        return repr(conflict.info)


@settings(max_examples=200)
@given(graphs(), st.data(), st.integers(0, 9))
def test_every_order_of_execution_merges_to_the_same_or_names_the_same_conflict(
    found: StateGraph, data: st.DataObject, seed: int
) -> None:
    deltas = {node.id: delta_of(data.draw(DELTAS)) for node in found.states}
    plan_order = list(Schedule(found).order)
    assert outcome(found, orders(found, seed), deltas) == outcome(found, plan_order, deltas)


def test_a_conflict_names_the_key_and_the_states() -> None:
    found = graph("abc", "a>c", "b>c")
    deltas = {sid("a"): delta_of({"x": 1}), sid("b"): delta_of({"x": 2})}
    schedule = Schedule(found)
    with pytest.raises(ContextFailure, match=re.escape("context_write_conflict")) as conflict:
        merge(schedule, Snapshot({}), schedule.ancestors(sid("c")), deltas)
    assert conflict.value.info.details == {"key": "x", "states": [sid("a"), sid("b")]}


def test_equal_writes_by_unordered_states_are_no_conflict() -> None:
    found = graph("ab")
    deltas = {sid("a"): delta_of({"x": 1}), sid("b"): delta_of({"x": 1})}
    schedule = Schedule(found)
    assert merge(schedule, Snapshot({}), schedule.order, deltas).values() == {"x": 1}


def test_a_write_and_a_delete_by_unordered_states_are_a_conflict() -> None:
    schedule = Schedule(graph("ab"))
    deltas = {sid("a"): delta_of({"x": 1}), sid("b"): delta_of({"x": None})}
    with pytest.raises(ContextFailure):
        merge(schedule, Snapshot.of_values({"x": 0}), schedule.order, deltas)


def test_a_later_write_on_the_path_wins() -> None:
    schedule = Schedule(graph("ab", "a>b"))
    deltas = {sid("a"): delta_of({"x": 1}), sid("b"): delta_of({"x": 2})}
    assert merge(schedule, Snapshot({}), schedule.order, deltas).values() == {"x": 2}
