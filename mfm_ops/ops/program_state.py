"""What an op has in common that runs one program through `exec`: options, declaration, state.

Where the program's path comes from is each op's own. Which programs may run, and what they may
see, is left to the site's policy and the transport.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import orjson
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.ids import ContextKey
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import (
    DependencyStrategy,
    Idempotency,
    SideEffectKind,
    StateMeta,
    standard_tags,
)
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.machine.wire import JsonValue
from mfm_ops.sdk.operation import JsonOption, OpConfig

__all__ = ["ProgramConfig", "RESULT", "RunState", "result_as_text"]

RESULT: Final = ContextKey("result")
"""What the program printed, a JSON value."""


class ProgramConfig(OpConfig):
    """How a program is run (the contract, section 8), and whether it has effects."""

    argv: tuple[str, ...] = Field(
        default=(),
        description="An argument for the program; repeat the option for more, in order.",
        examples=["--verbose"],
    )
    stdin_json: Annotated[JsonValue, JsonOption()] = Field(
        default=None,
        description="The JSON value that the program reads on its standard input.",
        examples=['{"block": "latest"}'],
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        description="A variable of the program's environment, which is empty otherwise.",
        examples=["LANG=C.UTF-8"],
    )
    timeout_ms: int = Field(
        default=300_000,
        ge=1,
        le=86_400_000,
        description="Milliseconds for writing input, running and reading output; at most a day.",
        examples=[60_000],
    )
    numbers: Literal["reject", "string"] = Field(
        default="reject",
        description="What becomes of floats and huge integers in the output: refuse it, or "
        "keep each number as a string of its own text.",
    )
    effect: bool = Field(
        default=False,
        description="Declare that the program changes the world: needed where the policy gives "
        "it network, writable paths or no sandbox.",
    )
    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        description="A key by which the program itself dedupes its effect; it gets it as "
        "MFM_IDEMPOTENCY_KEY, and an interrupted call is tried again with it.",
        examples=["payout-2024-05-01"],
    )

    @field_validator("idempotency_key")
    @classmethod
    def _only_for_effects(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not info.data.get("effect"):
            raise PydanticCustomError(
                "key_without_effect", "an idempotency key is for a declared effect: set `effect`"
            )
        return value

    def request(self, program_path: str | None) -> dict[str, Json]:
        """The `run_program_v1` request; our optional field only where it says something."""
        request: dict[str, Json] = {
            "kind": "run_program_v1",
            "program_path": program_path,
            "argv": list(self.argv),
            "stdin_json": self.stdin_json,
            "timeout_ms": self.timeout_ms,
            "env": dict(self.env),
        }
        if self.numbers != "reject":
            request["numbers"] = self.numbers
        return request


@dataclass(frozen=True, slots=True)
class RunState:
    """Runs the program at `path_in` the context, and writes what it printed under `results`."""

    config: ProgramConfig
    path_in: Callable[[DynContext], str | None]
    results: tuple[ContextKey, ...] = (RESULT,)

    def meta(self) -> StateMeta:
        tags = [standard_tags.EXECUTE, standard_tags.IMPURE]
        effects, idempotency = SideEffectKind.ReadOnlyIo, Idempotency.none()
        if self.config.effect:
            tags.append(standard_tags.APPLY_SIDE_EFFECT)
            effects = SideEffectKind.ApplySideEffect
        if self.config.idempotency_key is not None:
            idempotency = Idempotency.key(self.config.idempotency_key)
        return StateMeta(
            tags=tuple(tags),
            depends_on=(),
            depends_on_strategy=DependencyStrategy.Latest,
            side_effects=effects,
            idempotency=idempotency,
        )

    async def handle(
        self,
        ctx: DynContext,
        io: IoProvider,
        rec: EventRecorder,  # noqa: ARG002 - the fact says it all
    ) -> StateOutcome:
        request = self.config.request(self.path_in(ctx))
        # No fact key: the default one holds state and request, so a resume finds the answer.
        answer = await io.call(IoCall(namespace="exec", request=request))
        for key in self.results:
            ctx.write(key, answer.response)
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


def result_as_text(outputs: Mapping[str, Json]) -> str | None:
    """The result as indented JSON, if there is one."""
    if RESULT not in outputs:
        return None
    return orjson.dumps(outputs[RESULT], option=orjson.OPT_INDENT_2).decode()
