"""From a pipeline to a started run: plan, manifest, run id, engine.

Planning is left to `planner`, scanning and storing to `runtime.persist`, running to the engine.
"""

import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import (
    BackoffPolicy,
    BuildProvenance,
    ContextCheckpointing,
    Duration,
    EventProfile,
    ExecutionMode,
    Exponential,
    IoMode,
    RetryPolicy,
    RunConfig,
    RunManifest,
    WorkspaceProvenance,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import ExecutionEngine, RunResult, StartRun, Stores
from mfm_ops.machine.errors import RunError, RunFailure, SettingsFailure
from mfm_ops.machine.ids import ArtifactId, OpId, RunId
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.runtime.persist import Persister, Refused
from mfm_ops.sdk.operation import AnyOperation
from mfm_ops.sdk.pipeline import Pipeline, complete_pipeline
from mfm_ops.sdk.planner import PipelineInput, build_plan, initial_values, input_params

__all__ = [
    "PreparedRun",
    "RunLauncher",
    "default_run_config",
    "run_id_for_key",
]

# Never changed: a run key finds its run again only under the same namespace.
_RUN_KEY_NAMESPACE: Final = uuid.UUID("6d8e1f0c-7a53-5c0e-9f5b-2a4b7d1c3e90")


def run_id_for_key(manifest_id: ArtifactId, run_key: str) -> RunId:
    """The id of the run that `run_key` names among those of one manifest (the contract, 11).

    Raises:
        SettingsFailure: `usage` for an empty key, or one that is no Unicode text.

    >>> run_id_for_key(ArtifactId("0" * 64), "nightly-2024-05-01")
    '3bd14a17-2e21-5bef-9cb2-ac1985b0eb18'
    """
    if not run_key:
        raise SettingsFailure(error_info("usage", "a run key must not be empty"))
    try:
        run_key.encode()
    except UnicodeEncodeError:
        raise SettingsFailure(error_info("usage", "a run key must be Unicode text")) from None
    return RunId(str(uuid.uuid5(_RUN_KEY_NAMESPACE, f"{manifest_id}:{run_key}")))


def default_run_config() -> RunConfig:
    """Live, one state after the other, and three attempts: after 200 ms, then 400 ms."""
    return RunConfig(
        io_mode=IoMode.Live,
        retry_policy=RetryPolicy(
            max_attempts=3,
            backoff=BackoffPolicy(
                Exponential=Exponential(
                    base_delay=Duration.from_millis(200), max_delay=Duration.from_millis(10_000)
                )
            ),
        ),
        event_profile=EventProfile.Normal,
        execution_mode=ExecutionMode.Sequential,
        context_checkpointing=ContextCheckpointing.AfterEveryState,
        replay_missing_fact_retryable=False,
        skip_tags=(),
    )


class PreparedRun(NamedTuple):
    """A run that could start: its manifest, the manifest's id, and its plan."""

    manifest: RunManifest
    manifest_id: ArtifactId
    plan: ExecutionPlan


class RunLauncher:
    """Prepares and starts runs in one place: one store, one engine, one build, one workspace."""

    def __init__(
        self,
        *,
        registry: Mapping[OpId, AnyOperation],
        engine: ExecutionEngine,
        stores: Stores,
        make_context: Callable[[Mapping[str, Json]], DynContext],
        build: BuildProvenance,
        workspace: WorkspaceProvenance | None = None,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._stores = stores
        self._make_context = make_context
        self._build = build
        self._workspace = workspace

    def prepare(
        self,
        pipeline: Pipeline,
        run_config: RunConfig | None = None,
        given: PipelineInput = MappingProxyType({}),
    ) -> PreparedRun:
        """Plan a run, without IO; the same arguments give the same manifest id.

        `given` is the pipeline's input, by import port.

        Raises:
            SettingsFailure, RunFailure: as `planner.build_plan`.
        """
        complete = complete_pipeline(pipeline, self._registry)
        manifest = RunManifest(
            op_id=OpId(complete.machine_id),
            op_version=complete.pipeline_version,
            input_params=input_params(complete, given),
            run_config=run_config or default_run_config(),
            build=self._build,
            workspace=self._workspace,
        )
        return PreparedRun(
            manifest=manifest,
            manifest_id=artifact_id_for_json(manifest.model_dump(mode="json")),
            plan=build_plan(manifest, self._registry),
        )

    async def launch(self, prepared: PreparedRun, *, run_key: str | None = None) -> RunResult:
        """Store the manifest and drive the run to its end.

        With a run key, launching twice returns the one run: finished, or gone on with.

        Raises:
            SettingsFailure: `usage` for an unusable run key.
            RunFailure: `secrets_detected` when the manifest holds a secret, and then nothing is
                stored; as `ExecutionEngine.start`.
            StorageFailure: the manifest could not be stored.
        """
        run_id = (
            RunId.random() if run_key is None else run_id_for_key(prepared.manifest_id, run_key)
        )
        manifest = prepared.manifest
        try:
            stored = await Persister(self._stores.artifacts).json(
                ArtifactKind.Manifest, manifest.model_dump(mode="json")
            )
        except Refused as refused:
            raise RunFailure(RunError(Other=refused.info)) from None
        if stored != prepared.manifest_id:
            raise RunFailure(
                RunError(
                    Other=error_info(
                        "manifest_mismatch",
                        "the manifest is not the one that was prepared",
                        field="manifest_id",
                    )
                )
            )
        run = StartRun(
            manifest=manifest,
            manifest_id=prepared.manifest_id,
            plan=prepared.plan,
            run_config=manifest.run_config,
            initial_context=self._make_context(
                {str(key): value for key, value in initial_values(manifest).items()}
            ),
            run_id=run_id,
        )
        return await self._engine.start(self._stores, run)
