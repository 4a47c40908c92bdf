"""`run_program`: one program through the `exec` transport, its answer recorded as a fact."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.ids import OpId, OpPath, StateId
from mfm_ops.machine.plan import StateGraph, StateNode
from mfm_ops.ops.program_state import RESULT, ProgramConfig, RunState, result_as_text
from mfm_ops.sdk.operation import Operation, OpIo, PathOption

__all__ = ["RunProgram", "RunProgramConfig"]


class RunProgramConfig(ProgramConfig):
    """Which program, and how it is run."""

    program_path: Annotated[str, PathOption()] = Field(
        description="The program's absolute path; the policy must allow it.",
        examples=["/nix/store/…-hello-2.12/bin/hello"],
    )

    @field_validator("program_path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not PurePosixPath(value).is_absolute():
            raise PydanticCustomError("path_not_absolute", "the path must be absolute")
        return value


class RunProgram(Operation[RunProgramConfig]):
    """Runs one program and exports what it printed: `result`, a JSON value."""

    op_id = OpId("run_program")
    op_version = "1"
    summary = "Run one program in the sandbox and record the JSON that it prints."
    config_model = RunProgramConfig

    def io(self) -> OpIo:
        return OpIo(exports=(RESULT,))

    def expand(
        self,
        op_path: OpPath,
        config: RunProgramConfig,
        run_config: RunConfig,  # noqa: ARG002 - nothing of it matters here
    ) -> StateGraph:
        run = RunState(config, lambda _: config.program_path)
        return StateGraph((StateNode(StateId(f"{op_path}.run"), run),), ())

    def render_text(
        self,
        outputs: Mapping[str, Json],
        width: int,  # noqa: ARG002 - JSON is not folded
    ) -> str | None:
        return result_as_text(outputs)
