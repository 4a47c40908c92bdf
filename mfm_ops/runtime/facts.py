"""Which facts a run has: key to recorded payload."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.ids import ArtifactId, FactKey

__all__ = ["BoundFact", "FactIndex"]


class BoundFact(NamedTuple):
    """A recorded fact; `request_id` is None for values that no transport returned."""

    key: FactKey
    payload_id: ArtifactId
    request_id: str | None
    meta: Json


class FactIndex:
    """The facts of one run, bound once each, in the order of their recording."""

    def __init__(self, facts: Iterable[BoundFact] = ()) -> None:
        self._facts = {fact.key: fact for fact in facts}

    def get(self, key: FactKey) -> BoundFact | None:
        """The fact under `key`, if it is bound."""
        return self._facts.get(key)

    def bind(self, fact: BoundFact) -> None:
        """Bind a key that is free."""
        if fact.key in self._facts:
            raise ValueError("the key is bound already")
        self._facts[fact.key] = fact

    def unbind(self, key: FactKey) -> None:
        """Take back a binding whose event could not be appended."""
        del self._facts[key]

    def __iter__(self) -> Iterator[BoundFact]:
        return iter(self._facts.values())

    def __len__(self) -> int:
        return len(self._facts)
