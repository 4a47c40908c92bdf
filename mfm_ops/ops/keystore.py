"""`keystore_list`: which keystores lie in a directory, filtered and sorted; nothing is decrypted.

Reading the files is left to the transport `local.keystore`, the table to `keystore_text`.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.errors import ContextError, ContextFailure, MissingKey
from mfm_ops.machine.ids import ContextKey, OpId, OpPath, StateId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import (
    DependencyStrategy,
    Idempotency,
    SideEffectKind,
    StateMeta,
    Tag,
    standard_tags,
)
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.sdk.operation import OpConfig, Operation, OpIo

__all__ = ["KeystoreList", "KeystoreListConfig", "SortBy", "select", "without_addresses"]

_LISTING = ContextKey("listing")
_KEYSTORES = ContextKey("keystores")
_WARNINGS = ContextKey("warnings")
_HINT = ContextKey("hint")

# With or without its prefix, wherever it stands: a geth file's name ends with it.
_ADDRESS: Final = re.compile(r"(?:0[xX])?[0-9a-fA-F]{40}")
_WITHHELD: Final = "(address)"

SortBy = Literal["label", "created", "address"]
Entry = Mapping[str, Json]


class KeystoreListConfig(OpConfig):
    """Which directory is listed, and what of it is shown in what order."""

    # No PathOption: the manifest holds the path as it was given, the same in every checkout.
    keystore: str | None = Field(
        default=None,
        min_length=1,
        description="The directory; a relative one starts where mfm runs. Without it, "
        "$MFM_KEYSTORE or $XDG_DATA_HOME/mfm/keystore.",
        examples=["/var/lib/geth/keystore"],
    )
    filter_label: str | None = Field(
        default=None,
        max_length=1000,
        description="Only keystores in whose label this regular expression is found; those "
        "without a label are left out.",
        examples=["^prod-"],
    )
    sort_by: SortBy = Field(
        default="label", description="What to sort by; keystores that lack it come last."
    )
    show_addresses: bool = Field(
        default=True,
        description="Show addresses. Without, they are left out of file names and labels too; "
        "the recorded fact keeps them.",
    )

    @field_validator("filter_label")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            _compiled(value)
        except re.error as error:
            place = "" if error.pos is None else f" at position {error.pos}"
            reason = f"{error.msg}{place}"
        except (OverflowError, RecursionError):
            reason = "too large"
        else:
            return value
        raise PydanticCustomError(
            "keystore_filter_invalid", "not a regular expression: {reason}", {"reason": reason}
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # What a later Python may read otherwise is no concern of somebody who lists keystores.
        warnings.simplefilter("ignore")
        return re.compile(pattern)


class KeystoreList(Operation[KeystoreListConfig]):
    """Exports `keystores` (a list of objects), `warnings` about files, and a `hint` or null."""

    op_id = OpId("keystore_list")
    op_version = "1"
    summary = "List the Web3 Secret Storage v3 keystores in a directory; decrypts nothing."
    config_model = KeystoreListConfig

    def io(self) -> OpIo:
        return OpIo(exports=(_KEYSTORES, _WARNINGS, _HINT))

    def expand(
        self,
        op_path: OpPath,
        config: KeystoreListConfig,
        run_config: RunConfig,  # noqa: ARG002 - nothing of it matters here
    ) -> StateGraph:
        listing, selection = StateId(f"{op_path}.list"), StateId(f"{op_path}.select")
        return StateGraph(
            (
                StateNode(listing, _List(config.keystore)),
                StateNode(selection, _Select(config)),
            ),
            (DependencyEdge.between(listing, selection),),
        )

    def render_text(self, outputs: Mapping[str, Json], width: int) -> str | None:
        from mfm_ops.ops.keystore_text import keystore_table

        entries = outputs.get(_KEYSTORES)
        if not isinstance(entries, list):
            return None
        return keystore_table(cast("list[Entry]", entries), width)

    def text_notes(self, outputs: Mapping[str, Json]) -> Sequence[str]:
        from mfm_ops.ops.keystore_text import notes

        return notes(cast("list[Entry]", outputs.get(_WARNINGS) or []), outputs.get(_HINT))


@dataclass(frozen=True, slots=True)
class _List:
    """Asks for the directory's content. The default place is the transport's to know."""

    keystore: str | None

    def meta(self) -> StateMeta:
        return _meta(SideEffectKind.ReadOnlyIo, standard_tags.FETCH_DATA, standard_tags.IMPURE)

    async def handle(
        self,
        ctx: DynContext,
        io: IoProvider,
        rec: EventRecorder,  # noqa: ARG002 - the fact says it all
    ) -> StateOutcome:
        request: Json = {"kind": "list_keystores_v1", "dir": self.keystore}
        answer = await io.call(IoCall(namespace="local.keystore", request=request))
        ctx.write(_LISTING, answer.response)
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


@dataclass(frozen=True, slots=True)
class _Select:
    config: KeystoreListConfig

    def meta(self) -> StateMeta:
        return _meta(SideEffectKind.Pure, standard_tags.COMPUTE, standard_tags.REPORT)

    async def handle(
        self,
        ctx: DynContext,
        io: IoProvider,  # noqa: ARG002 - pure
        rec: EventRecorder,  # noqa: ARG002 - the outputs say it all
    ) -> StateOutcome:
        listing: Any = ctx.read(_LISTING)
        if listing is None:
            info = error_info("context_missing_key", "There is no listing.", key=_LISTING)
            raise ContextFailure(ContextError(MissingKey=MissingKey(key=_LISTING, info=info)))
        config = self.config
        found: list[dict[str, Json]] = listing["entries"]
        about: list[dict[str, Json]] = listing["warnings"]
        shown = select(found, config.filter_label, config.sort_by)
        hint = None if shown else _why_empty(listing.get("missing"), len(found), len(about))
        if not config.show_addresses:
            shown, about = without_addresses(shown), without_addresses(about)
        ctx.write(_KEYSTORES, cast("Json", shown))
        ctx.write(_WARNINGS, cast("Json", about))
        ctx.write(_HINT, hint)
        # The fact keeps it; every later snapshot would hold it a second time.
        ctx.delete(_LISTING)
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


def select(
    entries: Sequence[dict[str, Json]], filter_label: str | None, sort_by: SortBy
) -> list[dict[str, Json]]:
    """Those entries in whose label the pattern is found, sorted; equal ones by file name.

    Letter case matters only between texts that are otherwise equal: an address's case is its
    checksum.
    """
    if filter_label is not None:
        search = _compiled(filter_label).search
        entries = [entry for entry in entries if entry["label"] and search(str(entry["label"]))]

    def rank(entry: dict[str, Json]) -> tuple[bool, str, str, str]:
        value = entry[sort_by]
        # Without its Z a time sorts before the same time with a fraction.
        text = str(value).removesuffix("Z") if sort_by == "created" else str(value)
        return (value is None, text.casefold(), text, str(entry["file"]))

    return sorted(entries, key=rank)


def without_addresses(items: Sequence[dict[str, Json]]) -> list[dict[str, Json]]:
    """Entries or warnings without the field `address`, and without addresses in other texts."""
    return [
        {
            key: _ADDRESS.sub(_WITHHELD, value) if isinstance(value, str) else value
            for key, value in item.items()
            if key != "address"
        }
        for item in items
    ]


def _why_empty(missing: Any, found: int, warned: int) -> str:
    if missing is not None:
        name_one = "name a directory with --keystore or MFM_KEYSTORE."
        if missing["dir"] is None:
            return f"There is no default place for keystores without HOME: {name_one}"
        return f"{missing['dir']} does not exist: {name_one}"
    if found:
        return f"--filter-label is found in no label; without it there are {found} keystores."
    if warned:
        return "No file in the directory is a keystore that can be listed."
    return "The directory holds no keystores."


def _meta(effects: SideEffectKind, *tags: Tag) -> StateMeta:
    return StateMeta(
        tags=tags,
        depends_on=(),
        depends_on_strategy=DependencyStrategy.Latest,
        side_effects=effects,
        idempotency=Idempotency.none(),
    )
