"""The two requests of `nix.exec`, checked (the contract, section 8); pure.

Whether the app is allowed, and what it comes to, is left to `nix_exec` and `nix_resolver`.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mfm_ops.machine.canonical import Json, json_pointer
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from transports.exec import MAX_TIMEOUT_MS, Text, VariableName
from transports.nix_refs import RefError, parse_app_ref
from transports.outcome import masked_pointer

__all__ = ["ResolveFlakeAppV1", "RunFlakeAppV1", "invalid_request", "parse_request"]

_MAX_POINTER_CHARS = 200


def _app(value: str) -> str:
    try:
        parse_app_ref(value)
    except RefError as refused:
        raise ValueError(refused.reason) from None
    return value


AppText = Annotated[str, AfterValidator(_app)]


class ResolveFlakeAppV1(BaseModel):
    """Resolve one app; `app` is `<flake>#<name>` with an explicit scheme."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["resolve_flake_app_v1"]
    app: AppText
    timeout_ms: int = Field(default=300_000, ge=1, le=MAX_TIMEOUT_MS)


class RunFlakeAppV1(BaseModel):
    """Resolve one app and run it, with one deadline for both.

    `host_env_bindings` maps variables of the program to those of the host whose values they get:
    the request, which is recorded, holds the names alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["run_flake_app_v1"]
    app: AppText
    argv: list[Text] = []
    stdin_json: Any = None
    timeout_ms: int = Field(default=300_000, ge=1, le=MAX_TIMEOUT_MS)
    env: dict[VariableName, Text] = {}
    host_env_bindings: dict[VariableName, VariableName] = {}
    numbers: Literal["reject", "string"] = "reject"


def parse_request(request: Json) -> ResolveFlakeAppV1 | RunFlakeAppV1:
    """The request, checked.

    Raises:
        TransportFailure: nix_request_invalid; details.pointer names the place, details.reason
            says what is wrong with it.
    """
    kind = request.get("kind") if isinstance(request, dict) else None
    model: type[ResolveFlakeAppV1 | RunFlakeAppV1] = ResolveFlakeAppV1
    if kind == "run_flake_app_v1":
        model = RunFlakeAppV1
    try:
        parsed = model.model_validate(request)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_context=True, include_input=False)[0]
        # pydantic marks a key of a mapping by a last part of its own.
        parts = [part for part in error["loc"] if part != "[key]"]
        reason = error["type"]
        if reason == "value_error":
            reason = str(error["ctx"]["error"])
        raise invalid_request(json_pointer(parts), reason, model) from None
    if isinstance(parsed, RunFlakeAppV1) and parsed.env.keys() & parsed.host_env_bindings.keys():
        raise invalid_request("/host_env_bindings", "duplicate_variable", model)
    return parsed


def invalid_request(pointer: str, reason: str, model: type[BaseModel]) -> TransportFailure:
    """nix_request_invalid at `pointer`, which is shown as far as it is the form's own."""
    # Names that are not the form's own were made by the caller, and errors quote no request.
    field, *inner = pointer[1:].split("/", 1)
    known = field if field in model.model_fields else "*"
    place = f"/{known}" + (masked_pointer(f"/{inner[0]}") if inner else "") if pointer else ""
    return TransportFailure(
        error_info(
            "nix_request_invalid",
            "the request is no valid request of nix.exec",
            pointer=place[:_MAX_POINTER_CHARS],
            reason=reason,
        )
    )
