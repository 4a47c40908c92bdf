"""What of a run's context one op may see and change (the contract, section 11).

A state of an op works with bare keys; which full keys they stand for is decided by `planner`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.context import DynContext, TypedContextExt
from mfm_ops.machine.errors import ContextError, ContextFailure
from mfm_ops.machine.ids import ContextKey, OpPath
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import State, StateOutcome

__all__ = ["Scope", "ScopedContext", "ScopedState"]


class Scope(NamedTuple):
    """An op's own keys lie under `op_path`; `imports` maps its import ports to full keys."""

    op_path: OpPath
    imports: Mapping[str, ContextKey]

    def readable(self, key: str) -> ContextKey:
        """The full key behind `key`.

        Raises:
            ContextFailure: `Other`, `context_key_forbidden`.
        """
        return self.imports.get(key) or self._own(key)

    def writable(self, key: str) -> ContextKey:
        """The full key behind `key`, which must not be an import.

        Raises:
            ContextFailure: `Other`, `context_key_forbidden`.
        """
        if key in self.imports:
            raise _forbidden("an import belongs to the step that exports it; it is only read", key)
        return self._own(key)

    def _own(self, key: str) -> ContextKey:
        if not key or "." in key:
            raise _forbidden("a state names its op's own keys and imports, without dots", key)
        return ContextKey(f"{self.op_path}.{key}")


class ScopedContext(TypedContextExt):
    """A `DynContext` that shows one op's keys and imports, under their bare names."""

    __slots__ = ("_inner", "_scope")

    def __init__(self, inner: DynContext, scope: Scope) -> None:
        self._inner = inner
        self._scope = scope

    def read(self, key: ContextKey) -> Json:
        return self._inner.read(self._scope.readable(key))

    def write(self, key: ContextKey, value: Json) -> None:
        self._inner.write(self._scope.writable(key), value)

    def delete(self, key: ContextKey) -> None:
        self._inner.delete(self._scope.writable(key))

    def dump(self) -> dict[str, Json]:
        """The op's own view: its keys and those of its imports that are there."""
        whole = self._inner.dump()
        prefix = f"{self._scope.op_path}."
        view = {
            key.removeprefix(prefix): value
            for key, value in whole.items()
            if key.startswith(prefix)
        }
        for port, key in self._scope.imports.items():
            if key in whole:
                view[port] = whole[key]
        return view


@dataclass(frozen=True, slots=True)
class ScopedState:
    """A `State` that hands its context to `inner` through `scope`."""

    inner: State
    scope: Scope

    def meta(self) -> StateMeta:
        return self.inner.meta()

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        return await self.inner.handle(ScopedContext(ctx, self.scope), io, rec)


def _forbidden(message: str, key: str) -> ContextFailure:
    return ContextFailure(ContextError(Other=error_info("context_key_forbidden", message, key=key)))
