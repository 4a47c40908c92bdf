"""The context as states see it: an immutable snapshot, and writes staged over it.

Values are held as canonical bytes. So a handler can change nothing in place, a snapshot is joined
rather than encoded again, and a delta is a comparison of bytes. Who may see which keys is left to
the planner's scopes, whose snapshot a state starts from to `contexts`.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import cast

import orjson

from mfm_ops.machine.canonical import (
    CanonicalError,
    Json,
    artifact_id_for_bytes,
    canonical_json_bytes,
)
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.context import TypedContextExt
from mfm_ops.machine.errors import ContextError, ContextFailure, StorageError, StorageFailure
from mfm_ops.machine.ids import ArtifactId, ContextKey
from mfm_ops.machine.strict_json import parse_strict

__all__ = ["Delta", "JsonContext", "Snapshot", "StagedContext", "member_prefix"]

Delta = Mapping[str, bytes | None]
"""What an attempt changed against its base: key to canonical value bytes, None for a delete."""


@lru_cache(maxsize=4096)
def member_prefix(key: str) -> bytes:
    """The canonical bytes that stand before the value of `key` in a snapshot."""
    return canonical_json_bytes(key) + b":"


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")


class Snapshot:
    """An immutable context: every key's value as canonical bytes."""

    __slots__ = ("_data", "_id", "fragments")

    def __init__(self, fragments: Mapping[str, bytes]) -> None:
        self.fragments = fragments
        self._data: bytes | None = None
        self._id: ArtifactId | None = None

    @classmethod
    def of_values(cls, values: Mapping[str, Json]) -> "Snapshot":
        """The snapshot of plain values.

        Raises:
            ContextFailure: `Serialization` when a value has no canonical form.
        """
        return cls({key: _encoded(key, value) for key, value in values.items()})

    @classmethod
    def of_bytes(cls, data: bytes) -> "Snapshot":
        """The snapshot whose canonical bytes are `data`.

        Raises:
            StorageFailure: `Corruption` when they are no JSON object.
        """
        values = stored_values(data)
        return cls({key: _parsed_fragment(value) for key, value in values.items()})

    def canonical_bytes(self) -> bytes:
        """The artifact: the canonical JSON object of all entries."""
        if self._data is None:
            keys = list(self.fragments)
            keys.sort(key=None if all(map(str.isascii, keys)) else _utf16)
            members = [member_prefix(key) + self.fragments[key] for key in keys]
            self._data = b"{" + b",".join(members) + b"}"
        return self._data

    @property
    def artifact_id(self) -> ArtifactId:
        """The id of `canonical_bytes()`."""
        if self._id is None:
            self._id = artifact_id_for_bytes(self.canonical_bytes())
        return self._id

    def stored_as(self, artifact_id: ArtifactId) -> None:
        """Take the id that a store computed from `canonical_bytes()`, rather than hash twice."""
        self._id = artifact_id

    def apply(self, delta: Delta) -> "Snapshot":
        """This snapshot with `delta` over it; itself when the delta is empty."""
        if not delta:
            return self
        fragments = dict(self.fragments)
        for key, fragment in delta.items():
            if fragment is None:
                fragments.pop(key, None)
            else:
                fragments[key] = fragment
        return Snapshot(fragments)

    def delta_to(self, later: "Snapshot") -> Delta:
        """What changed from this snapshot to `later`."""
        changed: dict[str, bytes | None] = {
            key: fragment
            for key, fragment in later.fragments.items()
            if self.fragments.get(key) != fragment
        }
        changed.update((key, None) for key in self.fragments if key not in later.fragments)
        return changed

    def values(self) -> dict[str, Json]:
        """Plain values, fresh copies."""
        return {key: orjson.loads(fragment) for key, fragment in self.fragments.items()}


EMPTY = Snapshot({})


class StagedContext(TypedContextExt):
    """A base snapshot with an attempt's own writes over it (seed: context::DynContext)."""

    def __init__(self, base: Snapshot = EMPTY) -> None:
        self._base = base
        self._staged: dict[str, bytes | None] = {}

    def read(self, key: ContextKey) -> Json:
        """See `DynContext.read`."""
        fragment = self._staged.get(key, b"")
        if fragment == b"":
            fragment = self._base.fragments.get(key)
        return None if fragment is None else cast(Json, orjson.loads(fragment))

    def write(self, key: ContextKey, value: Json) -> None:
        """See `DynContext.write`."""
        self._staged[str(key)] = _encoded(key, value)

    def delete(self, key: ContextKey) -> None:
        """See `DynContext.delete`."""
        self._staged[str(key)] = None

    def dump(self) -> dict[str, Json]:
        """See `DynContext.dump`."""
        return self._base.apply(self.delta()).values()

    def delta(self) -> Delta:
        """What the staged writes change; a write of the value that was there is no change."""
        before = self._base.fragments
        return {
            key: fragment for key, fragment in self._staged.items() if before.get(key) != fragment
        }


class JsonContext(StagedContext):
    """A context made of plain values, such as a run's initial one."""

    def __init__(self, values: Mapping[str, Json] | None = None) -> None:
        super().__init__(Snapshot.of_values(values) if values else EMPTY)


def stored_values(data: bytes) -> dict[str, Json]:
    """The values of a stored snapshot, by key; raises as `Snapshot.of_bytes`."""
    try:
        values = parse_strict(data)
    except CanonicalError:
        values = None
    if not isinstance(values, dict):
        raise StorageFailure(
            StorageError(
                Corruption=error_info(
                    "artifact_corrupt",
                    "a context snapshot is not a JSON object",
                    artifact_id=artifact_id_for_bytes(data),
                )
            )
        )
    return values


def stored_delta(before: Mapping[str, Json], after: Mapping[str, Json]) -> Delta:
    """As `Snapshot.delta_to`, from `stored_values`: only what changed is encoded again."""
    changed: dict[str, bytes | None] = {
        key: _parsed_fragment(value)
        for key, value in after.items()
        if key not in before or not _same(before[key], value)
    }
    changed.update((key, None) for key in before if key not in after)
    return changed


def _same(one: Json, other: Json) -> bool:
    # To Python, `1` equals `True`, and so do lists of them.
    if type(one) is not type(other):
        return False
    if isinstance(one, dict | list):
        return canonical_json_bytes(one) == canonical_json_bytes(other)
    return one == other


def _parsed_fragment(value: Json) -> bytes:
    """The canonical bytes of what the strict parser let through: scalars need no further look."""
    if isinstance(value, dict | list):
        return canonical_json_bytes(value)
    return orjson.dumps(value)


def _encoded(key: str, value: Json) -> bytes:
    """The value's canonical bytes, where key and value can stand in a snapshot."""
    try:
        member_prefix(str(key))
        # In an object, as it will stand: the snapshot must not turn out too deep to be read.
        return canonical_json_bytes({"": value})[4:-1]
    except CanonicalError as error:
        raise ContextFailure(
            ContextError(
                Serialization=error_info(
                    "context_serialize_failed",
                    "a context value has no canonical JSON form",
                    key=str(key),
                    pointer=error.pointer.removeprefix("/"),
                    reason=error.code,
                )
            )
        ) from None
