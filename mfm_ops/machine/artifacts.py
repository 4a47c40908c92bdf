"""What kinds of artifact there are.

The seed has this type in `stores`, which exports it; it stands alone here because an event names
a kind and a store names events.
"""

from typing import ClassVar, Literal, Self

from mfm_ops.machine.wire import MixedVariants, Unit, Variants, variant

__all__ = ["ArtifactKind"]


class _OtherData(Variants):
    Other: str = variant()


class ArtifactKind(
    MixedVariants[
        Literal["Manifest", "ContextSnapshot", "FactPayload", "SecretPayload", "Output"]
        | _OtherData
    ]
):
    """What an artifact is for: retention and display (seed: stores::ArtifactKind)."""

    Manifest: ClassVar[Unit] = Unit()
    ContextSnapshot: ClassVar[Unit] = Unit()
    FactPayload: ClassVar[Unit] = Unit()
    SecretPayload: ClassVar[Unit] = Unit()
    Output: ClassVar[Unit] = Unit()

    @classmethod
    def other(cls, name: str) -> Self:
        """A kind that an operation or a backend defines."""
        return cls(_OtherData(Other=name))
