"""`mfm_ops.runtime.scheduler`: the order of states."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.ids import StateId
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.runtime.scheduler import Frontier, Schedule
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
        ancestors = schedule.ids_in(schedule.ancestor_mask(node.id))
        assert set(ancestors) == paths_to(found, node.id)
        assert ancestors == sorted(ancestors, key=schedule.position)


@given(graphs(), st.data())
def test_places_are_told_in_execution_order(found: StateGraph, data: st.DataObject) -> None:
    schedule = Schedule(found)
    some = data.draw(st.sets(st.integers(0, len(found.states) - 1)))
    told = schedule.in_order(some)
    assert {schedule.position(state_id) for state_id in told} == some
    assert told == [state_id for state_id in schedule.order if state_id in told]


@given(graphs(), st.data())
def test_the_ends_of_some_states_are_those_without_a_child_among_them(
    found: StateGraph, data: st.DataObject
) -> None:
    schedule = Schedule(found)
    some = data.draw(st.sets(st.sampled_from([node.id for node in found.states])))
    inner = {edge.from_ for edge in found.edges if edge.to in some}
    assert set(schedule.ends(some)) == some - inner
    for node in found.states:
        children = {edge.to for edge in found.edges if edge.from_ == node.id}
        assert schedule.has_children(node.id) == bool(children)


@given(graphs(), st.data())
def test_a_frontier_goes_on_from_what_has_completed(found: StateGraph, data: st.DataObject) -> None:
    schedule = Schedule(found)
    done = list(schedule.order[: data.draw(st.integers(0, len(found.states)))])
    frontier = Frontier(schedule, [*done, sid("unknown")])
    rest = []
    while frontier:
        rest.append(frontier.pop())
        frontier.completed(rest[-1])
    assert (*done, *rest) == schedule.order


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
