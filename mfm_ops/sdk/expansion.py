"""What an op says of itself, its ports and its graph, and how it is refused where that cannot be.

An op is somebody else's code: whatever it raises or gives is told as its author's mistake. How the
graphs of a pipeline are joined is left to `planner`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.errors import MfmFailure, RunError, RunFailure
from mfm_ops.machine.ids import OpPath, StateId, is_valid_id_segment
from mfm_ops.machine.plan import (
    DependencyEdge,
    ExecutionPlan,
    GraphValidator,
    PlanInvalid,
    StateGraph,
    StateNode,
)
from mfm_ops.sdk.operation import AnyOperation, OpConfig, OpIo

__all__ = ["as_its_authors_mistake", "graph_of", "ports_of"]


def ports_of(op: AnyOperation) -> OpIo:
    """The op's ports.

    Raises:
        RunFailure: `InvalidPlan` where they cannot be wired.
    """
    with as_its_authors_mistake(op, "its io() gives no OpIo of tuples of port keys"):
        ports = OpIo(*map(_port_keys, op.io()))
    names = [*ports.imports, *ports.exports]
    # One bare key cannot mean both another step's value and the op's own.
    if len(set(names)) != len(names) or not all(map(is_valid_id_segment, names)):
        raise _invalid_plan("port keys must be id segments, each used once", op_id=op.op_id)
    return ports


def graph_of(
    op: AnyOperation, op_path: OpPath, config: OpConfig, run_config: RunConfig
) -> StateGraph:
    """The graph that the op expands to: valid by itself, with all states under `op_path`.

    Raises:
        RunFailure: `InvalidPlan`.
    """
    with as_its_authors_mistake(op, "expanding raised an exception"):
        expanded = op.expand(op_path, config, run_config)
    with as_its_authors_mistake(op, "expanding gave no StateGraph of nodes and edges"):
        # A generator's content is there but once.
        graph = StateGraph(
            tuple(map(_with_state_id, expanded.states)), tuple(map(_as_edge, expanded.edges))
        )
    below = f"{op_path}."
    for node in graph.states:
        if not node.id.startswith(below):
            raise _invalid_plan(
                "a state's id must lie under its op's path", op_id=op.op_id, state_id=node.id
            )
    try:
        GraphValidator().validate(ExecutionPlan(op.op_id, graph))
    except PlanInvalid as invalid:
        body = invalid.error.value
        details = body.model_dump(mode="json") if body is not None else {}
        raise _invalid_plan(invalid.error.variant, op_id=op.op_id, **details) from None
    return graph


@contextmanager
def as_its_authors_mistake(op: AnyOperation, reason: str) -> Iterator[None]:
    """What the op's code raises here, as `InvalidPlan`; failures of the contract's pass."""
    try:
        yield
    except MfmFailure:
        raise
    except (Exception, SystemExit) as error:
        # Not one of mfm's; the message could hold what the config held.
        raise _invalid_plan(reason, op_id=op.op_id, exception=type(error).__name__) from error


def _port_keys(keys: Sequence[str]) -> tuple[str, ...]:
    # One text would be read as a port for each of its letters.
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        raise TypeError("port keys are a tuple of texts")
    return tuple(keys)


def _with_state_id(node: StateNode) -> StateNode:
    # What is no state id must not get into a run's events, which nobody could read again.
    return node if type(node.id) is StateId else StateNode(StateId(node.id), node.state)


def _as_edge(edge: DependencyEdge) -> DependencyEdge:
    if type(edge) is DependencyEdge:
        return edge
    return DependencyEdge.between(edge.from_, edge.to)


def _invalid_plan(reason: str, **details: Json) -> RunFailure:
    return RunFailure(
        RunError(
            InvalidPlan=error_info(
                "invalid_plan", "the op expands to an invalid plan", reason=reason, **details
            )
        )
    )
