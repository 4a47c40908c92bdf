"""How the contract's types stand in JSON: serde's external tagging on frozen, strict models.

`Wire` is a struct, `Variants` an enum whose variants hold data, `MixedVariants` one that has unit
variants as well. Which fields there are is left to the seed's modules.
"""

from functools import cache
from typing import Annotated, Any, Final, Generic, Self, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, model_validator

__all__ = [
    "JsonValue",
    "MAX_SAFE_INTEGER",
    "MixedVariants",
    "U32",
    "U64",
    "Unit",
    "Variants",
    "Wire",
    "is_none",
    "optional_extension",
    "variant",
]

MAX_SAFE_INTEGER = 2**53 - 1

U32 = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
# A u64 past 2^53-1 has no canonical form (the contract, section 3), so it is refused here too.
U64 = Annotated[int, Field(strict=True, ge=0, le=MAX_SAFE_INTEGER)]


# A `StrEnum` is a `str`, an `IntEnum` an `int`.
_BASES: Final[tuple[type, ...]] = (dict, list, int, str, float)


def _checked(value: Any) -> Any:
    """Refuse what has no canonical form, whoever built the model.

    Stored bytes passed the strict parser already; this is for values made in Python. As for the
    encoder, instances of subclasses count as their base value.
    """
    pending = [value]
    # Containers are looked into once: a list that holds itself is left to the encoder's bound.
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind not in _BASES:
            kind = next((base for base in _BASES if issubclass(kind, base)), kind)
        if kind is dict or kind is list:
            if id(item) in seen:
                continue
            seen.add(id(item))
        if kind is dict:
            if not all(isinstance(key, str) for key in item):
                raise ValueError("json_key_type")
            pending.extend(item.values())
        elif kind is list:
            pending.extend(item)
        elif kind is int:
            if not -MAX_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER:
                raise ValueError("json_integer_range")
        elif kind is float:
            raise ValueError("json_float")
        elif kind is not str:
            raise ValueError("json_unsupported_type")
    return value


# `Any` and one check of our own: pydantic's JsonValue allows floats and is slower.
JsonValue = Annotated[Any, AfterValidator(_checked)]


def is_none(value: object) -> bool:
    """For `exclude_if`: an extension of ours that is unset is not written."""
    return value is None


def optional_extension() -> Any:
    """A field that the seed does not have: optional, and omitted while unset.

    A document that the Rust implementation wrote keeps its bytes, and so its id.
    """
    return Field(default=None, exclude_if=is_none)


def variant() -> Any:
    """A variant of a `Variants` model: absent unless it is the one; never null."""
    return Field(default=None, exclude_if=is_none)


class Wire(BaseModel):
    """A struct: unknown fields refused, absent options written as null, never changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        # Building sixty validators costs more than the rest of a short command; each is built
        # when it is first used.
        defer_build=True,
        # Field names are the wire's: `schema` and the like are fine.
        protected_namespaces=(),
    )

    @classmethod
    def of_valid(cls, **fields: Any) -> Self:
        """An instance of `fields` that are known to be valid, which is not checked again.

        For what is made of checked parts alone, many times a second: about a quarter less time than
        with the check, half of `model_construct`'s. Never for what comes from outside.
        Callers wrap it in a function that types the fields.
        """
        model = cls.__new__(cls)
        set_slot = object.__setattr__
        set_slot(model, "__dict__", _unset(cls) | fields)
        set_slot(model, "__pydantic_fields_set__", set(fields))
        set_slot(model, "__pydantic_extra__", None)
        set_slot(model, "__pydantic_private__", None)
        return model


@cache
def _unset(model: type[Wire]) -> dict[str, Any]:
    """What the optional fields of `model` hold while they are unset."""
    fields = model.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


class Variants(Wire):
    """An enum whose variants all hold data: `{"Variant": value}`, exactly one."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.__pydantic_fields_set__) != 1:
            raise ValueError("exactly one variant is expected")
        return self

    @property
    def variant(self) -> str:
        """The name of the variant that is present."""
        # Not `model_fields_set`, a property: this is asked several times for each event.
        (name,) = self.__pydantic_fields_set__
        return name

    @property
    def value(self) -> Any:
        """What the present variant holds."""
        return getattr(self, self.variant)


M = TypeVar("M", bound="MixedVariants[Any]")
R = TypeVar("R")


class MixedVariants(RootModel[R], Generic[R]):
    """An enum with unit variants (`"Name"`) beside ones that hold data (`{"Name": value}`)."""

    model_config = ConfigDict(frozen=True, strict=True, defer_build=True)

    @property
    def variant(self) -> str:
        """The name of the variant."""
        root: Any = self.root
        return root if isinstance(root, str) else cast(Variants, root).variant

    @property
    def value(self) -> Any:
        """What the variant holds; None for a unit variant."""
        root: Any = self.root
        return None if isinstance(root, str) else cast(Variants, root).value


class Unit:
    """A unit variant as an attribute of its class: `ExecutionMode.Sequential`.

    A descriptor, so that importing a module of the contract builds no validator.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type[M]) -> M:
        return cast(M, _unit(owner, self.name))


@cache
def _unit(owner: type[M], name: str) -> M:
    return cast(M, owner.model_construct(name))
