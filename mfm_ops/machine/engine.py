"""What starts and resumes runs (seed: engine). The engine itself is `runtime.executor`."""

from enum import StrEnum
from typing import NamedTuple, Protocol

from mfm_ops.machine.config import RunConfig, RunManifest
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.stores import ArtifactStore, EventStore
from mfm_ops.machine.wire import Wire

__all__ = ["ExecutionEngine", "RunPhase", "RunResult", "StartRun", "Stores"]


class RunPhase(StrEnum):
    """Where a run stands (seed: engine::RunPhase)."""

    Running = "Running"
    Completed = "Completed"
    Failed = "Failed"
    Cancelled = "Cancelled"


class RunResult(Wire):
    """The engine's answer to a start or a resume (seed: engine::RunResult)."""

    run_id: RunId
    phase: RunPhase
    final_snapshot_id: ArtifactId | None = None


class StartRun(NamedTuple):
    """All that a new run needs (seed: engine::StartRun).

    `run_id` is ours: a caller with a run key derives it; None takes a random one.
    """

    manifest: RunManifest
    manifest_id: ArtifactId
    plan: ExecutionPlan
    run_config: RunConfig
    initial_context: DynContext
    run_id: RunId | None = None


class Stores(NamedTuple):
    """The stores that a run lives in (seed: engine::Stores)."""

    events: EventStore
    artifacts: ArtifactStore


class ExecutionEngine(Protocol):
    """Executes plans durably (seed: engine::ExecutionEngine; the contract, section 5)."""

    async def start(self, stores: Stores, run: StartRun) -> RunResult:
        """Start a run and drive it to its end.

        Starting a run id that exists already resumes that run if the manifest is the same.

        Raises:
            RunFailure: `InvalidPlan` or `Other` before anything is stored; `Storage` when the
                store fails. A state's failure is no exception: the phase says `Failed`.
        """

    async def resume(self, stores: Stores, run_id: RunId) -> RunResult:
        """Go on with a run from its stored events; a finished run returns its result.

        Raises:
            RunFailure: `Storage.NotFound`; `Other` with `run_busy`, `plan_changed`,
                `run_fenced`, `unsupported_format`.
        """
