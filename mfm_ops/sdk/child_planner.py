"""What the engine must be told about ops to run children: their manifests, inputs and exports.

The engine is handed this by the application; limits and lineage are the engine's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunConfig, RunManifest
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.machine.ids import OpId
from mfm_ops.sdk.operation import AnyOperation
from mfm_ops.sdk.pipeline import (
    Pipeline,
    complete_pipeline,
    parse_config,
    parse_pipeline,
    single_op_pipeline,
)
from mfm_ops.sdk.planner import exports, initial_values, input_params

if TYPE_CHECKING:
    # Its models would be made at every start.
    from mfm_ops.machine.child_runs import SpawnChildRun

__all__ = ["ChildRunPlanner"]


class ChildRunPlanner:
    """The `ChildPlanner` of the runtime, over the ops that are installed."""

    def __init__(self, registry: Mapping[OpId, AnyOperation]) -> None:
        self._registry = registry

    def manifest(
        self, spawn: SpawnChildRun, run_config: RunConfig, parent: RunManifest
    ) -> RunManifest:
        """The child's manifest: its own op and input, the parent's build and workspace.

        Raises:
            SettingsFailure: `op_unknown`, `op_config_invalid`, `pipeline_invalid`.
            RunFailure: `plan_changed` for an op of another version than the pipeline names.
        """
        pipeline = complete_pipeline(self._pipeline(spawn), self._registry)
        return RunManifest(
            op_id=OpId(pipeline.machine_id),
            op_version=pipeline.pipeline_version,
            input_params=input_params(pipeline, spawn.input or {}),
            run_config=run_config,
            build=parent.build,
            workspace=parent.workspace,
        )

    def initial_values(self, manifest: RunManifest) -> dict[str, Json]:
        """The context that a run of `manifest` begins with; raises as `planner.initial_values`."""
        return {str(key): value for key, value in initial_values(manifest).items()}

    def outputs(self, manifest: RunManifest, snapshot: Mapping[str, Json]) -> dict[str, Json]:
        """The exports of a completed run, by port; raises as `planner.exports`."""
        return exports(manifest, self._registry, snapshot)

    def _pipeline(self, spawn: SpawnChildRun) -> Pipeline:
        if spawn.op_id is None:
            return parse_pipeline(spawn.pipeline)
        op = self._registry.get(spawn.op_id)
        if op is None:
            raise SettingsFailure(
                error_info("op_unknown", "no op of this name is installed", op_id=spawn.op_id)
            )
        config = {} if spawn.op_config is None else spawn.op_config
        return single_op_pipeline(op, parse_config(op, config))
