"""What an op takes and gives, for `mfm ops show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfm_ops.machine.errors import MfmFailure
from mfm_ops.machine.ids import OpPath

if TYPE_CHECKING:
    from mfm_ops.machine.canonical import Json
    from mfm_ops.sdk.operation import AnyOperation

__all__ = ["describe_op"]


def describe_op(op: AnyOperation, origin: str) -> dict[str, Json]:
    """Identity, config as JSON Schema, ports, and states as far as they are known.

    States depend on the config. They are those of the config that fills in a placeholder for what
    has no default; `states` is null where the op cannot be expanded so.

    Raises:
        RunFailure: `InvalidPlan` where its ports are none.
    """
    from mfm_ops.sdk.expansion import ports_of

    ports = ports_of(op)
    return {
        "op_id": str(op.op_id),
        "op_version": op.op_version,
        "summary": op.summary,
        "from": origin,
        "config_schema": op.config_model.model_json_schema(),
        "imports": [str(port) for port in ports.imports],
        "exports": [str(port) for port in ports.exports],
        "states": _states(op),
    }


def _states(op: AnyOperation) -> list[Json] | None:
    from mfm_ops.sdk.expansion import as_its_authors_mistake, graph_of
    from mfm_ops.sdk.launcher import default_run_config

    try:
        with as_its_authors_mistake(op, "the placeholders are no config of its own"):
            config = op.config_model.model_validate(_placeholders(op))
        graph = graph_of(op, OpPath(f"{op.op_id}.main"), config, default_run_config())
    except MfmFailure:
        return None
    after: dict[str, list[Json]] = {node.id: [] for node in graph.states}
    for edge in graph.edges:
        after[edge.to].append(str(edge.from_))
    return [
        {
            "state_id": str(node.id),
            "after": after[node.id],
            "side_effects": node.state.meta().side_effects.value,
            "tags": [str(tag) for tag in node.state.meta().tags],
        }
        for node in graph.states
    ]


def _placeholders(op: AnyOperation) -> dict[str, Any]:
    """An example, or a text that looks like a path, for each required field."""
    return {
        info.alias or name: info.examples[0] if info.examples else f"/{name}"
        for name, info in op.config_model.model_fields.items()
        if info.is_required()
    }
