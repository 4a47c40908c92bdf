"""The executable graph, and what makes one invalid (seed: plan).

Shaping a graph from ops is left to `sdk.planner`, choosing what runs next to
`runtime.scheduler`.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

from pydantic import ConfigDict, Field

from mfm_ops.machine.canonical import artifact_id_for_json
from mfm_ops.machine.ids import ArtifactId, OpId, StateId
from mfm_ops.machine.meta import Tag
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
            for end in (edge.from_, edge.to):
                if end not in ids:
                    raise PlanInvalid(PlanValidationError.of(MissingStateForEdge(missing=end)))
        cycle = find_cycle(graph)
        if cycle:
            raise PlanInvalid(PlanValidationError.of(CircularDependency(cycle=cycle)))


def find_cycle(graph: StateGraph) -> tuple[StateId, ...]:
    """The states of one cycle along its edges, or nothing when the graph is acyclic."""
    waiting: dict[StateId, int] = {node.id: 0 for node in graph.states}
    successors: dict[StateId, list[StateId]] = {node.id: [] for node in graph.states}
    predecessors: dict[StateId, list[StateId]] = {node.id: [] for node in graph.states}
    for edge in graph.edges:
        waiting[edge.to] += 1
        successors[edge.from_].append(edge.to)
        predecessors[edge.to].append(edge.from_)
    ready = [state_id for state_id, count in waiting.items() if count == 0]
    while ready:
        done = ready.pop()
        del waiting[done]
        for successor in successors[done]:
            waiting[successor] -= 1
            if waiting[successor] == 0:
                ready.append(successor)
    if not waiting:
        return ()
    # Whatever is left has a predecessor that is left too, so walking back must meet itself.
    path: list[StateId] = [next(iter(waiting))]
    seen = {path[0]: 0}
    while True:
        previous = next(p for p in predecessors[path[-1]] if p in waiting)
        if previous in seen:
            return tuple(reversed(path[seen[previous] :]))
        seen[previous] = len(path)
        path.append(previous)


def plan_digest(plan: ExecutionPlan) -> ArtifactId:
    """What a resumed run compares: the digest of op id, states with their metas, and edges.

    States count in plan order, which decides among ready ones; edges are a set. Handlers are not
    looked at: what they do is vouched for by op version and build (the contract, section 5).
    """
    return artifact_id_for_json(
        {
            "op_id": str(plan.op_id),
            "states": [
                {"id": str(node.id), "meta": node.state.meta().model_dump(mode="json")}
                for node in plan.graph.states
            ],
            "edges": [
                [str(upstream), str(downstream)]
                for upstream, downstream in sorted({(e.from_, e.to) for e in plan.graph.edges})
            ],
        }
    )
