"""`exec`: checks a request's form and hands the program to the runner (the contract, section 8).

Whether it may run, how, and what its output is worth is decided in `runner` and below.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mfm_ops.machine.canonical import CanonicalError, Json, json_pointer
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from transports.outcome import masked_pointer
from transports.policy import ExecPolicy
from transports.runner import IDEMPOTENCY_VARIABLE, ProgramCall, ProgramRunner

__all__ = ["ExecFactory", "ExecTransport", "MAX_TIMEOUT_MS", "RunProgramV1", "parse_request"]

MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000

_MAX_POINTER_CHARS = 200


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("nul")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("surrogate") from None
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("relative_path")
    return value


def _variable(value: str) -> str:
    if not value or "=" in value:
        raise ValueError("variable_name")
    if value == IDEMPOTENCY_VARIABLE:
        raise ValueError("reserved_variable")
    return value


Text = Annotated[str, AfterValidator(_text)]
ProgramPath = Annotated[Text, AfterValidator(_absolute)]
VariableName = Annotated[Text, AfterValidator(_variable)]


class RunProgramV1(BaseModel):
    """The request `run_program_v1`: one program, its arguments, input, environment and deadline.

    `numbers: "string"` turns floats and integers past 2^53 in the output into strings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["run_program_v1"]
    program_path: ProgramPath
    argv: list[Text] = []
    stdin_json: Any = None
    timeout_ms: int = Field(default=300_000, ge=1, le=MAX_TIMEOUT_MS)
    env: dict[VariableName, Text] = {}
    numbers: Literal["reject", "string"] = "reject"


def parse_request(request: Json) -> RunProgramV1:
    """The request, checked.

    Raises:
        TransportFailure: exec_request_invalid; details.pointer names the place, details.reason
            says what is wrong with it.
    """
    try:
        return RunProgramV1.model_validate(request)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_context=True, include_input=False)[0]
        # pydantic marks a key of a mapping by a last part of its own.
        parts = [part for part in error["loc"] if part != "[key]"]
        reason = error["type"]
        if reason == "value_error":
            reason = str(error["ctx"]["error"])
        raise _invalid(json_pointer(parts), reason) from None


def _invalid(pointer: str, reason: str) -> TransportFailure:
    # Names that are not the form's own were made by the caller, and errors quote no request.
    field, *inner = pointer[1:].split("/", 1)
    known = field if field in RunProgramV1.model_fields else "*"
    place = f"/{known}" + (masked_pointer(f"/{inner[0]}") if inner else "") if pointer else ""
    return TransportFailure(
        error_info(
            "exec_request_invalid",
            "the request is not a valid run_program_v1",
            pointer=place[:_MAX_POINTER_CHARS],
            reason=reason,
        )
    )


class ExecTransport:
    """Runs the programs that one attempt of a state asks for."""

    def __init__(self, runner: ProgramRunner, env: LiveIoEnv) -> None:
        self._runner = runner
        self._env = env

    async def call(self, call: IoCall) -> TransportReply:
        """Run one program to its end (the contract, section 8).

        Raises:
            TransportFailure: an `exec_*` code; see the catalogue of errors.
        """
        request = parse_request(call.request)
        program = ProgramCall(
            program_path=request.program_path,
            argv=tuple(request.argv),
            stdin_json=request.stdin_json,
            timeout_ms=request.timeout_ms,
            env=request.env,
            numbers=request.numbers,
        )
        try:
            return await self._runner.run(
                program,
                side_effects=self._env.side_effects,
                idempotency_key=self._env.idempotency_key,
            )
        except CanonicalError as exc:
            raise _invalid(f"/stdin_json{exc.pointer}", exc.code) from None


class ExecFactory:
    """Makes `exec` transports under one policy; looks at the host at the first call, not before."""

    def __init__(
        self,
        policy: ExecPolicy,
        policy_digest: str,
        *,
        stderr_sink: Callable[[bytes], None] | None = None,
    ) -> None:
        self.runner = ProgramRunner(policy, policy_digest, stderr_sink=stderr_sink)

    @property
    def namespace_group(self) -> str:
        """`exec`."""
        return "exec"

    def make(self, env: LiveIoEnv) -> ExecTransport:
        """A transport for one attempt."""
        return ExecTransport(self.runner, env)
