"""What a state says to spawn and await child runs, and what it is told (the contract, section 8).

The seed reserves the linkage events for this; the requests are ours. Planning, driving and the
limits are left to `runtime.child_runs`, a friendlier form of the calls to `sdk.child_runs`.
"""

import uuid
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from mfm_ops.machine.config import EventProfile, ExecutionMode, OnStateFailure, RetryPolicy
from mfm_ops.machine.events import RunStatus
from mfm_ops.machine.ids import ArtifactId, ErrorCode, FactKey, OpId, RunId, StateId
from mfm_ops.machine.meta import Tag
from mfm_ops.machine.transport import CHILD_RUN_GROUP
from mfm_ops.machine.wire import U32, JsonValue, Wire, optional_extension

__all__ = [
    "AwaitChildRun",
    "ChildFailure",
    "ChildRunConfig",
    "ChildRunOutcome",
    "NAMESPACE_AWAIT",
    "NAMESPACE_SPAWN",
    "SpawnChildRun",
    "SpawnedChildRun",
    "child_run_id",
]

NAMESPACE_SPAWN = f"{CHILD_RUN_GROUP}.spawn"
NAMESPACE_AWAIT = f"{CHILD_RUN_GROUP}.await"


def child_run_id(parent: RunId, key: FactKey) -> RunId:
    """The id of the child that `parent` spawns under a fact key (the contract, section 8).

    >>> child_run_id(RunId("00000000-0000-4000-8000-000000000000"), FactKey("k"))
    'a4172ebe-4685-58b1-9ee6-8f9debbf1d3c'
    """
    return RunId(str(uuid.uuid5(parent.uuid, str(key))))


class ChildRunConfig(Wire):
    """What a child's run config may have otherwise than its parent's; the rest is inherited.

    A field that is left out is the parent's, but that `skip_tags` begin empty. The flake
    allowlist can only be narrowed: each entry must be one of the parent's.
    """

    event_profile: EventProfile | None = optional_extension()
    execution_mode: ExecutionMode | None = optional_extension()
    nix_flake_allowlist: tuple[str, ...] | None = optional_extension()
    on_state_failure: OnStateFailure | None = optional_extension()
    retry_policy: RetryPolicy | None = optional_extension()
    run_deadline_ms: Annotated[U32, Field(gt=0)] | None = optional_extension()
    skip_tags: tuple[Tag, ...] | None = optional_extension()
    state_deadline_ms: Annotated[U32, Field(gt=0)] | None = optional_extension()


class SpawnChildRun(Wire):
    """Start a run of one op (`op_id`, `op_config`) or of a `pipeline`.

    `input` is what the pipeline, or the op, imports; by port.
    """

    kind: Literal["spawn_child_run_v1"] = "spawn_child_run_v1"
    op_id: OpId | None = optional_extension()
    op_config: JsonValue = optional_extension()
    pipeline: JsonValue = optional_extension()
    input: dict[str, JsonValue] | None = optional_extension()
    run_config: ChildRunConfig | None = optional_extension()

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.op_id is None) == (self.pipeline is None):
            raise PydanticCustomError("op_or_pipeline", "name an op, or a pipeline")
        if self.op_id is None and self.op_config is not None:
            raise PydanticCustomError("op_or_pipeline", "a pipeline holds its ops' configs")
        return self


class SpawnedChildRun(Wire):
    """The answer to `SpawnChildRun`: the child is recorded, and being driven."""

    child_run_id: RunId
    child_manifest_id: ArtifactId


class AwaitChildRun(Wire):
    """Wait until a child of this run is over."""

    kind: Literal["await_child_run_v1"] = "await_child_run_v1"
    child_run_id: RunId


class ChildFailure(Wire):
    """Why a child failed: the code, and the child's state where it was one's."""

    code: ErrorCode
    state_id: StateId | None = None


class ChildRunOutcome(Wire):
    """The answer to `AwaitChildRun`; `outputs`, by port, only of a child that completed."""

    child_run_id: RunId
    status: RunStatus
    final_snapshot_id: ArtifactId | None = None
    outputs: dict[str, JsonValue] | None = optional_extension()
    failure: ChildFailure | None = optional_extension()
