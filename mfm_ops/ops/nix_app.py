"""`nix_app`: a flake's app, resolved and run as two recorded calls.

Two states, so that a resume asks Nix nothing that it was asked before, and runs nothing that ran.
Which flakes a run may name is its manifest's word; which programs may run is the site's.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.context import DynContext, read_typed
from mfm_ops.machine.ids import ContextKey, FactKey, OpId, OpPath, StateId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import (
    DependencyStrategy,
    Idempotency,
    SideEffectKind,
    StateMeta,
    standard_tags,
)
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.ops.program_state import RESULT, ProgramConfig, RunState, result_as_text
from mfm_ops.sdk.operation import Operation, OpIo

__all__ = ["NixApp", "NixAppConfig"]

_PROGRAM: Final = ContextKey("program_path")
_STORE: Final = "/nix/store/"
_NAMESPACE: Final = "nix.exec"


class NixAppConfig(ProgramConfig):
    """Which app, or which program of the store, and how it is run (the contract, section 8)."""

    app: str | None = Field(
        default=None,
        min_length=1,
        description="The app as FLAKE#NAME; the flake needs its scheme, and the run must allow it.",
        examples=["github:willyrgf/mfm#tool"],
    )
    program_path: str | None = Field(
        default=None,
        description="Instead of an app: a program of the Nix store, which is not resolved.",
        examples=["/nix/store/…-hello-2.12/bin/hello"],
    )
    timeout_ms: int = Field(
        default=300_000,
        ge=1,
        le=86_400_000,
        description="Milliseconds for resolving, and as much again for running; at most a day.",
        examples=[60_000],
    )
    write_result_to: str | None = Field(
        default=None,
        pattern="^[a-z][a-z0-9_]{0,62}$",
        description="A key of the op's context that gets the result as well.",
        examples=["price"],
    )

    @field_validator("program_path")
    @classmethod
    def _in_the_store(cls, value: str | None) -> str | None:
        if value is not None and (
            not value.startswith(_STORE) or posixpath.normpath(value) != value
        ):
            raise PydanticCustomError(
                "not_in_store", "the path must lie below /nix/store/, without '.', '..' or '//'"
            )
        return value

    @field_validator("write_result_to")
    @classmethod
    def _not_our_own(cls, value: str | None) -> str | None:
        if value == _PROGRAM:
            raise PydanticCustomError("key_taken", "the op keeps the program's path under this key")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.app is None) == (self.program_path is None):
            raise PydanticCustomError(
                "one_of_two", "give either an app (--app) or a program (--program-path)"
            )
        return self


class NixApp(Operation[NixAppConfig]):
    """Runs an app of a flake and exports what it printed: `result`, a JSON value."""

    op_id = OpId("nix_app")
    op_version = "1"
    summary = "Resolve an app of a flake, run it in the sandbox and record the JSON that it prints."
    config_model = NixAppConfig
    uses_nix = True

    def io(self) -> OpIo:
        return OpIo(exports=(RESULT,))

    def expand(
        self,
        op_path: OpPath,
        config: NixAppConfig,
        run_config: RunConfig,  # noqa: ARG002 - the transport asks the manifest itself
    ) -> StateGraph:
        run = StateNode(StateId(f"{op_path}.run"), _run_state(config))
        if config.app is None:
            return StateGraph((run,), ())
        resolve_id = StateId(f"{op_path}.resolve")
        resolve = StateNode(resolve_id, _Resolve(resolve_id, config.app, config.timeout_ms))
        return StateGraph((resolve, run), (DependencyEdge.between(resolve.id, run.id),))

    def render_text(
        self,
        outputs: Mapping[str, Json],
        width: int,  # noqa: ARG002 - JSON is not folded
    ) -> str | None:
        return result_as_text(outputs)


@dataclass(frozen=True, slots=True)
class _Resolve:
    """Realises the app into the store: doing that again changes nothing, so it is no effect."""

    state_id: StateId
    app: str
    timeout_ms: int

    def meta(self) -> StateMeta:
        return StateMeta(
            tags=(standard_tags.FETCH_DATA, standard_tags.IMPURE),
            depends_on=(),
            depends_on_strategy=DependencyStrategy.Latest,
            side_effects=SideEffectKind.ReadOnlyIo,
            idempotency=Idempotency.none(),
        )

    async def handle(
        self,
        ctx: DynContext,
        io: IoProvider,
        rec: EventRecorder,  # noqa: ARG002 - the fact says it all
    ) -> StateOutcome:
        request: dict[str, Json] = {
            "kind": "resolve_flake_app_v1",
            "app": self.app,
            "timeout_ms": self.timeout_ms,
        }
        digest = artifact_id_for_json({"namespace": _NAMESPACE, "request": request})
        key = FactKey(f"mfm:nix:preflight|state:{self.state_id}|req:{digest}")
        answer = await io.call(IoCall(namespace=_NAMESPACE, request=request, fact_key=key))
        ctx.write(_PROGRAM, answer.response["program_path"])
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


def _run_state(config: NixAppConfig) -> RunState:
    def program_path(ctx: DynContext) -> str | None:
        return config.program_path or read_typed(ctx, _PROGRAM, str)

    keys = [RESULT]
    if config.write_result_to is not None:
        keys.append(ContextKey(config.write_result_to))
    return RunState(config, program_path, tuple(keys))
