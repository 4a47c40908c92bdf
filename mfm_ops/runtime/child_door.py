"""Lets a run have children, at no cost for the many that have none.

All the work is left to `child_runs`, which is imported when the first child is spoken of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfm_ops.machine.transport import (
    CHILD_RUN_GROUP,
    LiveIoEnv,
    LiveIoTransport,
    LiveIoTransportFactory,
)
from mfm_ops.runtime.router import TransportRegistry, longest_group

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mfm_ops.runtime.child_runs import ChildRuns
    from mfm_ops.runtime.walk import DriveEnv

__all__ = ["ChildDoor", "WithChildren"]


class ChildDoor:
    """The children of the run that one driver drives, and the transports' factory for them."""

    namespace_group = CHILD_RUN_GROUP

    def __init__(self, env: DriveEnv, *engine: Any) -> None:
        """`engine` are the parts of a `ChildEngine`."""
        self._env = env
        self._engine = engine
        self._tasks: TaskGroup | None = None
        self._runs: ChildRuns | None = None

    def open(self, tasks: TaskGroup) -> None:
        """Children run in `tasks` from now on."""
        self._tasks = tasks

    def go_on(self) -> None:
        """Drive the children that earlier drivers left, unless that was begun already."""
        if self._left:
            self._children().go_on()

    def make(self, env: LiveIoEnv) -> LiveIoTransport:
        """See `LiveIoTransportFactory.make`."""
        return self._children().transport(env)

    async def settled(self) -> bool:
        """Wait until every child is over or parked; whether one is parked."""
        return self._runs is not None and await self._runs.settled()

    async def cancel_all(self) -> None:
        """Cancel what is not over, and wait for its end."""
        if self._runs is not None or self._left:
            await self._children().cancel_all()

    def tell_rest(self) -> None:
        """Buffer an event for each child that is over and that nobody awaited."""
        if self._runs is not None:
            self._runs.tell_rest()

    @property
    def _left(self) -> bool:
        """Whether earlier drivers left children that are not over."""
        return self._env.history is not None and bool(self._env.history.open_children)

    def _children(self) -> ChildRuns:
        if self._runs is None:
            from mfm_ops.runtime.child_runs import ChildEngine, ChildRuns

            assert self._tasks is not None, "a run's children live as long as its drive"
            self._runs = ChildRuns(ChildEngine(*self._engine), self._env, self._tasks)
        return self._runs


class WithChildren(TransportRegistry):
    """The transports of an application, and the engine's own for children."""

    def __init__(self, others: TransportRegistry, children: ChildDoor) -> None:
        super().__init__()
        self._others = others
        self._children = children

    @property
    def groups(self) -> tuple[str, ...]:
        """See `TransportRegistry.groups`."""
        return tuple(sorted({CHILD_RUN_GROUP, *self._others.groups}))

    def factory_for(self, namespace: str) -> LiveIoTransportFactory | None:
        """See `TransportRegistry.factory_for`."""
        if longest_group(namespace, [CHILD_RUN_GROUP]) is None:
            return self._others.factory_for(namespace)
        return self._children
