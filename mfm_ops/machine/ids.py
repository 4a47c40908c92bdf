"""Identifiers that manifests, plans, events and stored records share (seed: ids).

Each is a `str` subclass that cannot exist in an invalid form, so whoever holds one need not
check it again. Deriving run ids from keys is left to `sdk.launcher`.
"""

import re
import uuid
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = [
    "ArtifactId",
    "ContextKey",
    "ErrorCode",
    "FactKey",
    "IdValidationError",
    "Identifier",
    "OpId",
    "OpPath",
    "RunId",
    "StateId",
    "is_valid_id_segment",
    "validate_op_path",
    "validate_state_id",
]

_SEGMENT = r"[a-z][a-z0-9_]{0,62}"
_SEGMENT_RE = re.compile(_SEGMENT)
_OP_PATH_RE = re.compile(rf"{_SEGMENT}\.{_SEGMENT}")
_STATE_ID_RE = re.compile(rf"{_SEGMENT}\.{_SEGMENT}\.{_SEGMENT}")
_UUID_RE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SIMPLE_UUID_RE = re.compile(r"[0-9a-f]{32}")


class IdValidationError(ValueError):
    """A text that is no identifier of its `kind` (seed: ids::IdValidationError)."""

    def __init__(self, kind: str, value: str) -> None:
        super().__init__(f"invalid {kind}: {value}")
        self.kind = kind
        self.value = value


def is_valid_id_segment(segment: str) -> bool:
    """Whether the whole of `segment` matches `^[a-z][a-z0-9_]{0,62}$`."""
    return _SEGMENT_RE.fullmatch(segment) is not None


def validate_op_path(value: str) -> bool:
    """Whether `value` has the form `<machine_id>.<step_id>`."""
    return _OP_PATH_RE.fullmatch(value) is not None


def validate_state_id(value: str) -> bool:
    """Whether `value` has the form `<machine_id>.<step_id>.<state_local_id>`."""
    return _STATE_ID_RE.fullmatch(value) is not None


class Identifier(str):
    """A validated text. Subclasses name their `kind` and the `pattern` of the whole value."""

    __slots__ = ()

    kind: ClassVar[str] = "identifier"
    pattern: ClassVar[re.Pattern[str] | None] = None

    def __new__(cls, value: str) -> Self:
        if cls.pattern is not None and cls.pattern.fullmatch(value) is None:
            raise IdValidationError(cls.kind, value)
        return str.__new__(cls, value)

    @classmethod
    def new(cls, value: str) -> Self:
        """Create one, or raise `IdValidationError`.

        >>> OpId.new("keystore_list").as_str()
        'keystore_list'
        >>> StateId.new("portfolio_snapshot.fetch_balances.read_eth").as_str()
        'portfolio_snapshot.fetch_balances.read_eth'
        """
        return cls(value)

    @classmethod
    def must_new(cls, value: str) -> Self:
        """Create one from a literal that is known to be valid.

        The seed panics where `new` returns an error; Python has one way to fail, so both raise.
        """
        return cls(value)

    def as_str(self) -> str:
        """The plain text."""
        return str(self)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        text = core_schema.str_schema(
            strict=True, pattern=f"^(?:{cls.pattern.pattern})$" if cls.pattern else None
        )
        # The pattern was matched by pydantic-core already, so `__new__`'s check is not repeated.
        make = str.__new__
        return core_schema.no_info_after_validator_function(
            lambda value: make(cls, value),
            text,
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )


class OpId(Identifier):
    """A stable, human-meaningful operation name; never random (seed: ids::OpId)."""

    __slots__ = ()
    kind = "op_id"
    pattern = _SEGMENT_RE


class OpPath(Identifier):
    """`<machine_id>.<step_id>` (seed: ids::OpPath)."""

    __slots__ = ()
    kind = "op_path"
    pattern = _OP_PATH_RE


class StateId(Identifier):
    """`<machine_id>.<step_id>.<state_local_id>` (seed: ids::StateId)."""

    __slots__ = ()
    kind = "state_id"
    pattern = _STATE_ID_RE

    @property
    def op_path(self) -> OpPath:
        """The path of the op that owns this state."""
        return OpPath(self.rpartition(".")[0])


class ArtifactId(Identifier):
    """The SHA-256 of an artifact's bytes, 64 lowercase hex digits (seed: ids::ArtifactId)."""

    __slots__ = ()
    kind = "artifact_id"
    pattern = re.compile(r"[0-9a-f]{64}")


class FactKey(Identifier):
    """Names a recorded external input within one run (seed: ids::FactKey)."""

    __slots__ = ()
    kind = "fact_key"


class ContextKey(Identifier):
    """Names a context entry, `<op_path>.<key>` by the SDK's convention (seed: ids::ContextKey)."""

    __slots__ = ()
    kind = "context_key"


class ErrorCode(Identifier):
    """A stable machine-readable error code (seed: ids::ErrorCode)."""

    __slots__ = ()
    kind = "error_code"


class RunId(Identifier):
    """A run's UUID in its lowercase hyphenated form (seed: ids::RunId).

    Read in the forms that the seed's `uuid` crate reads: hyphenated, simple, braced and URN, with
    digits in any case.

    >>> RunId("6BA7B8109DAD11D180B400C04FD430C8")
    '6ba7b810-9dad-11d1-80b4-00c04fd430c8'
    """

    __slots__ = ()
    kind = "run_id"

    def __new__(cls, value: str) -> Self:
        return str.__new__(cls, _normal_uuid(value))

    @classmethod
    def random(cls) -> Self:
        """A fresh random id (UUID version 4)."""
        return str.__new__(cls, str(uuid.uuid4()))

    @property
    def uuid(self) -> uuid.UUID:
        """The id as the standard library's type."""
        return uuid.UUID(self)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def parse(value: str) -> RunId:
            try:
                return cls(value)
            except IdValidationError:
                raise PydanticCustomError("run_id", "not a UUID") from None

        return core_schema.no_info_after_validator_function(
            parse,
            core_schema.str_schema(strict=True),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )


def _normal_uuid(value: str) -> str:
    if _UUID_RE.fullmatch(value):
        return value
    text = value.lower()
    if value.startswith("urn:uuid:"):
        text = text[len("urn:uuid:") :]
    elif text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    elif _SIMPLE_UUID_RE.fullmatch(text):
        return str(uuid.UUID(text))
    if _UUID_RE.fullmatch(text):
        return text
    raise IdValidationError("run_id", value)
