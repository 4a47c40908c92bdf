"""What a state says of itself: its tags, its effects, its idempotency (seed: meta)."""

from enum import StrEnum
from typing import Final, Literal

from mfm_ops.machine.ids import Identifier
from mfm_ops.machine.wire import MixedVariants, Variants, Wire, variant

__all__ = [
    "DependencyStrategy",
    "Idempotency",
    "SideEffectKind",
    "StateMeta",
    "Tag",
    "standard_tags",
]


class Tag(Identifier):
    """Classifies states for filters and policy; any text, lowercase by custom (seed: meta::Tag)."""

    __slots__ = ()
    kind = "tag"


class standard_tags:  # noqa: N801 - the seed's module of constants
    """The shared classification vocabulary (seed: meta::standard_tags)."""

    CONFIG: Final = Tag("config")
    FETCH_DATA: Final = Tag("fetch_data")
    COMPUTE: Final = Tag("compute")
    EXECUTE: Final = Tag("execute")
    REPORT: Final = Tag("report")
    APPLY_SIDE_EFFECT: Final = Tag("apply_side_effect")
    IMPURE: Final = Tag("impure")


class SideEffectKind(StrEnum):
    """What a state may do to the world; decides replay and retry (seed: meta::SideEffectKind)."""

    Pure = "Pure"
    ReadOnlyIo = "ReadOnlyIo"
    ApplySideEffect = "ApplySideEffect"


class _IdempotencyData(Variants):
    Key: str = variant()


class Idempotency(MixedVariants[Literal["None"] | _IdempotencyData]):
    """`"None"`, or `{"Key": k}`: a stable key that dedupes the effect (seed: meta::Idempotency).

    >>> Idempotency.key("intent-7").model_dump_json()
    '{"Key":"intent-7"}'
    """

    @classmethod
    def none(cls) -> "Idempotency":
        """No key is declared (the wire's `"None"`, which Python cannot name as an attribute)."""
        return cls.model_construct("None")

    @classmethod
    def key(cls, key: str) -> "Idempotency":
        """Declare the key that dedupes this state's effect."""
        return cls(_IdempotencyData(Key=key))


class DependencyStrategy(StrEnum):
    """Which of several recovery points to take (seed: meta::DependencyStrategy)."""

    Latest = "Latest"
    Earliest = "Earliest"
    LatestSuccessful = "LatestSuccessful"


class StateMeta(Wire):
    """A state's declaration. `depends_on` is a planner's hint; edges govern (seed: StateMeta)."""

    tags: tuple[Tag, ...]
    depends_on: tuple[Tag, ...]
    depends_on_strategy: DependencyStrategy
    side_effects: SideEffectKind
    idempotency: Idempotency
