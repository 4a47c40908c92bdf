"""What an op's author implements: identity, configuration, ports, and expansion to states.

Namespacing of context keys, wiring of ports and edges between steps are left to `planner`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.ids import OpId, OpPath
from mfm_ops.machine.plan import StateGraph

__all__ = [
    "AnyOperation",
    "ConfigT",
    "JsonOption",
    "OpConfig",
    "OpIo",
    "Operation",
    "PathOption",
]


class OpConfig(BaseModel):
    """The base of an op's configuration: frozen, unknown fields refused.

    Every field becomes a command-line option: `Field(description=…)` is its help text,
    `Field(examples=…)` its example. No field may hold a secret; name a reference instead. Use
    tuples, not sets: a set has no order of its own, and so no stable place in the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True, slots=True)
class JsonOption:
    """Marks a config field whose option takes `JSON`, `@FILE` or `-` (standard input).

    `payload: Annotated[JsonValue, JsonOption()] = None`
    """


@dataclass(frozen=True, slots=True)
class PathOption:
    """Marks a config field, a `str`, that names a file or directory.

    The command line makes a relative one absolute before it enters the config, since a run may
    be resumed from elsewhere.
    """


ConfigT = TypeVar("ConfigT", bound=OpConfig)


class OpIo(NamedTuple):
    """An op's ports: the keys that it takes from earlier steps, and the ones that it offers.

    Port keys are id segments. A state reads an import and writes an export under the bare port
    key; the planner sees to it that keys of different steps never meet by accident.
    """

    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()


class Operation(Generic[ConfigT]):
    """A reusable operation (the contract, section 11). Subclass it.

    `op_version` changes whenever the expansion or the meaning of a state changes: a run is only
    resumed by the version that began it.
    """

    op_id: ClassVar[OpId]
    op_version: ClassVar[str]
    summary: ClassVar[str]
    """One line for `mfm ops list`."""
    config_model: ClassVar[type[OpConfig]]
    uses_nix: ClassVar[bool] = False
    """Whether its states call `nix.exec`: the manifest then names the Nix that answers."""

    def io(self) -> OpIo:
        """The op's ports; none by default."""
        return OpIo()

    def expand(self, op_path: OpPath, config: ConfigT, run_config: RunConfig) -> StateGraph:
        """The states and edges for `config`: deterministic, without IO.

        Every state id is `<op_path>.<local id>`.
        """
        raise NotImplementedError

    def render_text(
        self,
        outputs: Mapping[str, Json],  # noqa: ARG002 - for subclasses
        width: int,  # noqa: ARG002 - for subclasses
    ) -> str | None:
        """The exports as a person would rather read them, at most `width` columns wide.

        None leaves it to the command line, which prints JSON.
        """
        return None

    def text_notes(
        self,
        outputs: Mapping[str, Json],  # noqa: ARG002 - for subclasses
    ) -> Sequence[str]:
        """Warnings and hints about the exports, for a person: they go to standard error."""
        return ()


AnyOperation = Operation[Any]
