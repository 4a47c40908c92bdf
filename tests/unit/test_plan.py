"""`mfm_ops.machine.plan`: what makes a plan invalid, and what its digest is made of."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import artifact_id_for_json
from mfm_ops.machine.ids import StateId
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.plan import (
    DependencyEdge,
    ExecutionPlan,
    GraphValidator,
    PlanInvalid,
    StateGraph,
    StateNode,
    find_cycle,
    plan_digest,
)
from tests.support import OP, FunctionState, sid, state

STATES = [
    state(),
    state(),
    state(tags=["münchen", 'a "quoted" one']),
    state(idempotency="key-\u2028"),
]
NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,3}", fullmatch=True), min_size=1, unique=True)


@st.composite
def plans(draw: st.DrawFn) -> ExecutionPlan:
    """Some plan, cyclic or not; edges may be said twice."""
    ids = [sid(name) for name in draw(NAMES)]
    nodes = [StateNode(state_id, draw(st.sampled_from(STATES))) for state_id in ids]
    ends = st.sampled_from(ids)
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=20))
    edges = [DependencyEdge.between(one, other) for one, other in pairs]
    return ExecutionPlan(OP, StateGraph(nodes, edges))


def plan_as_json(plan: ExecutionPlan) -> object:
    """What the digest is said to be of."""
    return {
        "op_id": plan.op_id,
        "states": [
            {"id": node.id, "meta": node.state.meta().model_dump(mode="json")}
            for node in plan.graph.states
        ],
        "edges": [list(pair) for pair in sorted({(e.from_, e.to) for e in plan.graph.edges})],
    }


@settings(deadline=None)
@given(plans())
def test_the_digest_is_that_of_the_plan_as_canonical_json(plan: ExecutionPlan) -> None:
    assert plan_digest(plan) == artifact_id_for_json(plan_as_json(plan))


class Fresh(FunctionState):
    """A state that makes its meta anew whenever it is asked."""

    def meta(self) -> StateMeta:
        return self.declared.model_copy()


def test_metas_that_are_made_anew_count_as_what_they_say() -> None:
    one, other = state(tags=["one"]), state(tags=["other"])
    nodes = [(sid(f"s{index}"), (one, other)[index % 3 == 0]) for index in range(50)]
    kept = StateGraph([StateNode(name, each) for name, each in nodes], ())
    fresh = [StateNode(name, Fresh(each.function, each.declared)) for name, each in nodes]
    made = StateGraph(fresh, ())
    assert plan_digest(ExecutionPlan(OP, made)) == plan_digest(ExecutionPlan(OP, kept))


@settings(deadline=None)
@given(plans())
def test_a_cycle_is_one_of_the_graph_and_none_is_missed(plan: ExecutionPlan) -> None:
    arrows = {(edge.from_, edge.to) for edge in plan.graph.edges}
    cycle = find_cycle(plan.graph)
    if cycle:
        assert len(set(cycle)) == len(cycle)
        assert set(zip(cycle, (*cycle[1:], cycle[0]), strict=True)) <= arrows
        return
    order: list[StateId] = []
    while len(order) < len(plan.graph.states):
        ready = [
            node.id
            for node in plan.graph.states
            if node.id not in order and all(a in order for a, b in arrows if b == node.id)
        ]
        assert ready, "there is a cycle"
        order += ready


def test_an_edge_is_checked_at_both_of_its_ends() -> None:
    nodes = [StateNode(sid("a"), STATES[0])]
    for pair in (("a", "x"), ("x", "a")):
        edge = DependencyEdge.between(*map(sid, pair))
        with pytest.raises(PlanInvalid) as invalid:
            GraphValidator().validate(ExecutionPlan(OP, StateGraph(nodes, [edge])))
        assert invalid.value.error.value.missing == sid("x")


def test_an_edge_that_is_made_unchecked_is_the_checked_one() -> None:
    made = DependencyEdge.between(sid("a"), sid("b"))
    checked = DependencyEdge.model_validate({"from": sid("a"), "to": sid("b")})
    assert made == checked
    assert hash(made) == hash(checked)
    assert (
        made.model_dump_json()
        == checked.model_dump_json()
        == ('{"from":"demo.main.a","to":"demo.main.b"}')
    )


def test_an_edge_of_plain_text_is_checked() -> None:
    made = DependencyEdge.between("demo.main.a", "demo.main.b")  # type: ignore[arg-type]
    assert type(made.to) is StateId
    with pytest.raises(ValueError, match="to"):
        DependencyEdge.between(sid("a"), "no id")  # type: ignore[arg-type]


def test_a_plan_of_many_states_and_edges_is_checked_without_recursion() -> None:
    nodes = [StateNode(sid(f"s{index}"), STATES[0]) for index in range(5_000)]
    edges = [DependencyEdge.between(a.id, b.id) for a, b in itertools.pairwise(nodes)]
    back = DependencyEdge.between(nodes[-1].id, nodes[0].id)
    assert find_cycle(StateGraph(nodes, edges)) == ()
    assert len(find_cycle(StateGraph(nodes, [*edges, back]))) == 5_000
