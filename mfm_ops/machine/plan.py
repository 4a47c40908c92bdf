"""The executable graph, and what makes one invalid (seed: plan).

Shaping a graph from ops is left to `sdk.planner`, choosing what runs next to
`runtime.scheduler`.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

from pydantic import ConfigDict, Field

from mfm_ops.machine.canonical import artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.ids import ArtifactId, OpId, StateId
from mfm_ops.machine.meta import StateMeta, Tag
from mfm_ops.machine.state import State
from mfm_ops.machine.wire import MixedVariants, Unit, Variants, Wire, variant

__all__ = [
    "CircularDependency",
    "DanglingDependencyTag",
    "DependencyEdge",
    "DuplicateStateId",
    "ExecutionPlan",
    "GraphValidator",
    "MissingStateForEdge",
    "PlanInvalid",
    "PlanValidationError",
    "PlanValidator",
    "StateGraph",
    "StateNode",
    "find_cycle",
    "plan_digest",
]


class DependencyEdge(Wire):
    """`from` must complete before `to` can run (seed: plan::DependencyEdge).

    Python has the word `from` for itself, so the attribute is `from_` and the wire's name is
    kept.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    from_: StateId = Field(alias="from")
    to: StateId

    @classmethod
    def between(cls, upstream: StateId, downstream: StateId) -> "DependencyEdge":
        """The edge `upstream -> downstream`."""
        if type(upstream) is StateId and type(downstream) is StateId:
            # Ids cannot be invalid, so there is nothing to check.
            return cls.of_valid(from_=upstream, to=downstream)
        return cls(**{"from": upstream, "to": downstream})


class StateNode(NamedTuple):
    """A planned state and what executes it (seed: plan::StateNode)."""

    id: StateId
    state: State


class StateGraph(NamedTuple):
    """States and the edges between them (seed: plan::StateGraph)."""

    states: Sequence[StateNode]
    edges: Sequence[DependencyEdge]


class ExecutionPlan(NamedTuple):
    """What the engine executes, exactly as given (seed: plan::ExecutionPlan)."""

    op_id: OpId
    graph: StateGraph


class DuplicateStateId(Wire):
    """The body of `PlanValidationError.DuplicateStateId`."""

    state_id: StateId


class MissingStateForEdge(Wire):
    """The body of `PlanValidationError.MissingStateForEdge`."""

    missing: StateId


class CircularDependency(Wire):
    """The body of `PlanValidationError.CircularDependency`: the states of one cycle, in order."""

    cycle: tuple[StateId, ...]


class DanglingDependencyTag(Wire):
    """The body of `PlanValidationError.DanglingDependencyTag`."""

    state_id: StateId
    missing_tag: Tag


# A class body sees its own fields first, so a variant cannot be annotated with its own name.
_DuplicateStateId = DuplicateStateId
_MissingStateForEdge = MissingStateForEdge
_CircularDependency = CircularDependency
_DanglingDependencyTag = DanglingDependencyTag


class _PlanValidationErrorData(Variants):
    DuplicateStateId: _DuplicateStateId = variant()
    MissingStateForEdge: _MissingStateForEdge = variant()
    CircularDependency: _CircularDependency = variant()
    DanglingDependencyTag: _DanglingDependencyTag = variant()


class PlanValidationError(MixedVariants[Literal["EmptyPlan"] | _PlanValidationErrorData]):
    """What is wrong with a plan (seed: plan::PlanValidationError)."""

    EmptyPlan: ClassVar[Unit] = Unit()

    @classmethod
    def of(
        cls,
        body: DuplicateStateId | MissingStateForEdge | CircularDependency | DanglingDependencyTag,
    ) -> "PlanValidationError":
        """The error whose variant is named like its body's class."""
        return cls(_PlanValidationErrorData.model_validate({type(body).__name__: body}))


class PlanInvalid(ValueError):
    """A plan that cannot be executed; `error` says why."""

    def __init__(self, error: PlanValidationError) -> None:
        super().__init__(error.variant)
        self.error = error


class PlanValidator(Protocol):
    """Refuses malformed plans before a run starts (seed: plan::PlanValidator)."""

    def validate(self, plan: ExecutionPlan) -> None:
        """Return when `plan` can be executed.

        Raises:
            PlanInvalid: it cannot.
        """


class GraphValidator:
    """The rules of the contract, section 5: not empty, unique ids, known edges, no cycle."""

    def validate(self, plan: ExecutionPlan) -> None:
        """See `PlanValidator.validate`. Linear in states and edges."""
        graph = plan.graph
        if not graph.states:
            raise PlanInvalid(PlanValidationError.EmptyPlan)
        ids: set[StateId] = set()
        for node in graph.states:
            if node.id in ids:
                raise PlanInvalid(PlanValidationError.of(DuplicateStateId(state_id=node.id)))
            ids.add(node.id)
        for edge in graph.edges:
            if edge.from_ not in ids or edge.to not in ids:
                missing = edge.to if edge.from_ in ids else edge.from_
                raise PlanInvalid(PlanValidationError.of(MissingStateForEdge(missing=missing)))
        cycle = find_cycle(graph)
        if cycle:
            raise PlanInvalid(PlanValidationError.of(CircularDependency(cycle=cycle)))


def find_cycle(graph: StateGraph) -> tuple[StateId, ...]:
    """The states of one cycle along its edges, or nothing when the graph is acyclic."""
    position = {node.id: index for index, node in enumerate(graph.states)}
    waiting = [0] * len(position)
    successors: list[list[int]] = [[] for _ in position]
    for edge in graph.edges:
        after = position[edge.to]
        waiting[after] += 1
        successors[position[edge.from_]].append(after)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    for done in ready:
        for successor in successors[done]:
            waiting[successor] -= 1
            if waiting[successor] == 0:
                ready.append(successor)
    if len(ready) == len(position):
        return ()
    stuck = {node.id for node, count in zip(graph.states, waiting, strict=True) if count}
    return _cycle_among(stuck, graph.edges)


def _cycle_among(stuck: set[StateId], edges: Sequence[DependencyEdge]) -> tuple[StateId, ...]:
    """A cycle of states each of which has a predecessor that is one of them."""
    before = {edge.to: edge.from_ for edge in edges if edge.from_ in stuck and edge.to in stuck}
    # Walking back from anywhere must meet itself.
    path = [min(stuck)]
    seen = {path[0]: 0}
    while True:
        previous = before[path[-1]]
        if previous in seen:
            return tuple(reversed(path[seen[previous] :]))
        seen[previous] = len(path)
        path.append(previous)


def plan_digest(plan: ExecutionPlan) -> ArtifactId:
    """What a resumed run compares: the digest of op id, states with their metas, and edges.

    It is that of the canonical JSON of `{"op_id", "states": [{"id", "meta"}], "edges": [[from,
    to]]}`. States count in plan order, which decides among ready ones; edges are a set. Handlers
    are not looked at: what they do is vouched for by op version and build (the contract,
    section 5).
    """
    # Joined by hand: ids need no escapes, no character of theirs sorts before a quotation mark,
    # and most states share a few metas.
    edges = ",".join(_edges_as_json(plan.graph.edges))
    states = ",".join(_states_as_json(plan.graph.states))
    text = f'{{"edges":[{edges}],"op_id":"{plan.op_id}","states":[{states}]}}'
    return artifact_id_for_bytes(text.encode())


def _edges_as_json(edges: Sequence[DependencyEdge]) -> Iterator[str]:
    # A wave has as many edges as the product of two: what one state leads to is written at once.
    downstream: defaultdict[StateId, set[StateId]] = defaultdict(set)
    for edge in edges:
        downstream[edge.from_].add(edge.to)
    for upstream in sorted(downstream):
        start = f'["{upstream}","'
        yield start + f'"],{start}'.join(sorted(downstream[upstream])) + '"]'


def _states_as_json(states: Sequence[StateNode]) -> Iterator[str]:
    # By identity: comparing two metas costs as much as writing one. What is kept keeps its id.
    known: dict[int, tuple[StateMeta, str]] = {}
    for node in states:
        meta = node.state.meta()
        found = known.get(id(meta))
        if found is None:
            text = canonical_json_bytes(meta.model_dump(mode="json")).decode()
            found = known[id(meta)] = (meta, text)
        yield f'{{"id":"{node.id}","meta":{found[1]}}}'
