"""Pipelines: which ops run, in what order, with what configuration.

Reading and checking them lives here; what they expand to is left to `planner`.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, Self

from pydantic import ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mfm_ops.machine.canonical import (
    CanonicalError,
    Json,
    artifact_id_for_json,
    canonical_json_bytes,
    json_pointer,
)
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import RunError, RunFailure, SettingsFailure
from mfm_ops.machine.ids import Identifier, OpId, OpPath
from mfm_ops.machine.wire import JsonValue, Wire
from mfm_ops.sdk.expansion import as_its_authors_mistake
from mfm_ops.sdk.operation import AnyOperation, OpConfig

__all__ = [
    "INPUT_STEP_ID",
    "MAIN_STEP_ID",
    "MachineId",
    "Pipeline",
    "PipelineStep",
    "StepId",
    "complete_pipeline",
    "find_operation",
    "parse_config",
    "parse_pipeline",
    "single_op_pipeline",
]


class MachineId(Identifier):
    """The first segment of a plan's state ids; a pipeline's name."""

    __slots__ = ()
    kind = "machine_id"
    pattern = OpId.pattern


class StepId(Identifier):
    """The second segment of a state id: a step's name within its pipeline."""

    __slots__ = ()
    kind = "step_id"
    pattern = OpId.pattern


MAIN_STEP_ID: Final = StepId("main")
"""The only step of an op that runs alone."""

INPUT_STEP_ID: Final = StepId("input")
"""Reserved: a pipeline's input stands in the context under `<machine_id>.input.<key>`."""


class PipelineStep(Wire):
    """One op of a pipeline. `op_config` is what the op's config model reads."""

    step_id: StepId
    op_id: OpId
    op_version: str
    op_config: JsonValue


class Pipeline(Wire):
    """Ops that run one after the other (the contract, section 11)."""

    max_steps: ClassVar[int] = 1000

    machine_id: MachineId
    pipeline_version: str
    steps: tuple[PipelineStep, ...]

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if not self.steps:
            raise PydanticCustomError("no_steps", "a pipeline has at least one step")
        if len(self.steps) > self.max_steps:
            raise PydanticCustomError("too_many_steps", "a pipeline has at most 1000 steps")
        seen: set[StepId] = set()
        for step in self.steps:
            if step.step_id == INPUT_STEP_ID:
                raise PydanticCustomError(
                    "reserved_step_id", "the step id `input` is reserved for the pipeline's input"
                )
            if step.step_id in seen:
                raise PydanticCustomError(
                    "duplicate_step_id", "two steps have the same id; ids are unique in a pipeline"
                )
            seen.add(step.step_id)
        return self

    def op_path(self, step: PipelineStep) -> OpPath:
        """The path under which `step`'s states and context keys lie."""
        return OpPath(f"{self.machine_id}.{step.step_id}")


def parse_pipeline(value: Json) -> Pipeline:
    """The pipeline that a JSON value describes.

    Raises:
        SettingsFailure: `pipeline_invalid` with the place.
    """
    try:
        return Pipeline.model_validate_json(canonical_json_bytes(value))
    except CanonicalError as refused:
        place, reason = refused.pointer, str(refused)
    except ValidationError as refused:
        place, reason = _first_fault(refused)
    raise SettingsFailure(
        error_info("pipeline_invalid", "the pipeline is invalid", pointer=place, reason=reason)
    )


def parse_config(op: AnyOperation, value: Json) -> OpConfig:
    """The configuration of `op` that a JSON value describes, with defaults filled in.

    Raises:
        SettingsFailure: `op_config_invalid` with op, place and reason.
        RunFailure: `InvalidPlan` where the model itself fails.
    """
    with as_its_authors_mistake(op, "its config model raised an exception"):
        try:
            return op.config_model.model_validate(value)
        except ValidationError as refused:
            place, reason = _first_fault(refused)
    raise _config_invalid(op.op_id, place, reason)


def single_op_pipeline(op: AnyOperation, config: OpConfig) -> Pipeline:
    """The pipeline of `op` alone: one step `main`, and the op's id as machine id.

    Raises:
        SettingsFailure: `op_config_invalid` when the config has no canonical JSON form.
    """
    step = PipelineStep(
        step_id=MAIN_STEP_ID,
        op_id=op.op_id,
        op_version=op.op_version,
        op_config=_config_json(op, config),
    )
    return Pipeline(machine_id=MachineId(op.op_id), pipeline_version=op.op_version, steps=(step,))


def find_operation(registry: Mapping[OpId, AnyOperation], step: PipelineStep) -> AnyOperation:
    """The op of `step`, in the very version that the step names.

    Raises:
        SettingsFailure: `op_unknown`.
        RunFailure: `plan_changed` when the installed op has another version.
    """
    op = registry.get(step.op_id)
    if op is None:
        raise SettingsFailure(
            error_info("op_unknown", "no op of this name is installed", op_id=step.op_id)
        )
    if op.op_version != step.op_version:
        raise RunFailure(
            RunError(
                Other=error_info(
                    "plan_changed",
                    "the installed op has another version than the pipeline names",
                    field="op_version",
                    op_id=step.op_id,
                    expected=step.op_version,
                    found=op.op_version,
                )
            )
        )
    return op


def complete_pipeline(pipeline: Pipeline, registry: Mapping[OpId, AnyOperation]) -> Pipeline:
    """`pipeline` with every config's defaults written out.

    So the manifest says all that ran, and a default that is spelt out changes no id.

    Raises:
        SettingsFailure, RunFailure: as `find_operation` and `parse_config`.
    """
    steps = []
    for step in pipeline.steps:
        op = find_operation(registry, step)
        config = _config_json(op, parse_config(op, step.op_config))
        steps.append(step.model_copy(update={"op_config": config}))
    return pipeline.model_copy(update={"steps": tuple(steps)})


def _config_json(op: AnyOperation, config: OpConfig) -> Json:
    with as_its_authors_mistake(op, "its configuration cannot be written as JSON"):
        plain: Json = config.model_dump(mode="json", by_alias=True)
    try:
        artifact_id_for_json(plain)
    except CanonicalError as refused:
        raise _config_invalid(op.op_id, refused.pointer, str(refused)) from None
    return plain


def _config_invalid(op_id: OpId, pointer: str, reason: str) -> SettingsFailure:
    return SettingsFailure(
        error_info(
            "op_config_invalid",
            "the op's configuration is invalid",
            op_id=op_id,
            pointer=pointer,
            reason=reason,
        )
    )


def _first_fault(refused: ValidationError) -> tuple[str, str]:
    # pydantic's sentence, never its `input`: that is what must not be shown.
    fault = refused.errors(include_url=False, include_context=False, include_input=False)[0]
    return json_pointer(fault["loc"]), fault["msg"].removeprefix("Value error, ")
