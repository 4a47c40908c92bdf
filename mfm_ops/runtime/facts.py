"""Which facts a run has: key to recorded payload, and what is remarked about it."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.ids import ArtifactId, FactKey
from mfm_ops.machine.transport import TransportReply
from mfm_ops.runtime.persist import DEPTH_OF_META, Refused, scanned_canonical_bytes

__all__ = ["BoundFact", "FactIndex", "remarks_of"]


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


def remarks_of(reply: TransportReply) -> dict[str, Json]:
    """The transport's own remarks as they may be stored; left out whole where they may not.

    By now the call has happened, so its answer must not be lost for the sake of a remark.
    """
    try:
        data = scanned_canonical_bytes(dict(reply.meta), "io_response_invalid", depth=DEPTH_OF_META)
    except Refused as refused:
        return {"meta_refused": str(refused.info.code)}
    except (TypeError, ValueError):
        return {"meta_refused": "io_response_invalid"}
    # As scanned: its transport may still hold the original.
    meta: dict[str, Json] = orjson.loads(data)
    # An artifact, named by the engine alone.
    meta.pop("policy_digest", None)
    return meta
