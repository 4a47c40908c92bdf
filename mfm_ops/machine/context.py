"""The data that states hand on: the dynamic interface and typed access to it (seed: context)."""

from typing import Any, Protocol, TypeVar

import orjson
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import ContextError, ContextFailure
from mfm_ops.machine.ids import ContextKey

__all__ = ["DynContext", "TypedContextExt", "read_typed", "write_typed"]

T = TypeVar("T")


class DynContext(Protocol):
    """Key-value data in JSON (seed: context::DynContext).

    Values go in and come out by copy: changing one in place changes nothing in the context.
    """

    def read(self, key: ContextKey) -> Json:
        """The value under `key`; None when there is none (or when null was written)."""

    def write(self, key: ContextKey, value: Json) -> None:
        """Set `key`.

        Raises:
            ContextFailure: `Serialization` when `value` has no canonical JSON form.
        """

    def delete(self, key: ContextKey) -> None:
        """Remove `key` if it is there."""

    def dump(self) -> dict[str, Json]:
        """A full snapshot, `{key: value}`."""


def read_typed(ctx: DynContext, key: ContextKey, as_type: type[T]) -> T | None:
    """Read `key` as `as_type`, any type that pydantic knows; None when it is absent.

    Strict, as the seed's is: `"5"` and `true` are no `int`.

    Raises:
        ContextFailure: `Serialization`, code `context_deserialize_failed`.
    """
    value = ctx.read(key)
    if value is None:
        return None
    try:
        # By way of bytes: only where it reads JSON does pydantic both refuse what is another type
        # and take what stands for one that JSON lacks, such as a date or a tuple.
        return TypeAdapter(as_type).validate_json(orjson.dumps(value), strict=True)
    except ValidationError:
        # The cause prints the offending input, so it is not chained.
        raise ContextFailure(
            ContextError(
                Serialization=error_info(
                    "context_deserialize_failed", "context value deserialization failed"
                )
            )
        ) from None


def write_typed(ctx: DynContext, key: ContextKey, value: Any) -> None:
    """Write any value that pydantic can turn into JSON.

    Raises:
        ContextFailure: `Serialization`, code `context_serialize_failed`.
    """
    try:
        plain = TypeAdapter(type(value)).dump_python(value, mode="json")
    except (ValueError, TypeError, PydanticUserError):
        raise ContextFailure(
            ContextError(
                Serialization=error_info(
                    "context_serialize_failed", "context value serialization failed"
                )
            )
        ) from None
    ctx.write(key, plain)


class TypedContextExt:
    """Typed reads and writes as methods, for contexts that inherit it (seed: TypedContextExt)."""

    def read_typed(self: DynContext, key: ContextKey, as_type: type[T]) -> T | None:
        """See the function `read_typed`."""
        return read_typed(self, key, as_type)

    def write_typed(self: DynContext, key: ContextKey, value: Any) -> None:
        """See the function `write_typed`."""
        write_typed(self, key, value)
