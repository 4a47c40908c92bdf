"""Whose child a run is, and who may drive it: decided from the log alone.

What is asked of the engine about children is left to `child_plan`, driving them to `child_runs`.
"""

from typing import NamedTuple

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.child_runs import NAMESPACE_SPAWN, child_run_id
from mfm_ops.machine.events import EVENT_CHILD_OF, ChildOf, DomainEvent
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId
from mfm_ops.machine.stores import EventStore
from mfm_ops.runtime.driver import is_alive
from mfm_ops.runtime.history import fold
from mfm_ops.runtime.records import RunHistory

__all__ = ["Lineage", "ancestors", "spawn_keys"]


class Lineage(NamedTuple):
    """On whose behalf a child is driven: `driver_id` drives the parent now.

    `earlier_drivers` drove the parent before, and are fenced there. `depth` is the child's.
    """

    parent_run_id: RunId
    fact_key: FactKey
    depth: int
    driver_id: str
    earlier_drivers: frozenset[str]

    @property
    def child_of(self) -> ChildOf:
        """What the child's stream says of its parent."""
        return ChildOf(parent_run_id=self.parent_run_id, fact_key=self.fact_key, depth=self.depth)

    def event(self) -> DomainEvent:
        """The event that says it."""
        return DomainEvent(name=EVENT_CHILD_OF, payload=self.child_of.model_dump(mode="json"))

    def supersedes(self, driver: dict[str, Json] | None) -> bool:
        """Whether a child's driver worked for one whom this parent's driver has replaced.

        Who has fenced the parent's driver may fence those that worked for it, dead or alive. It
        never goes the other way: an old driver does not know of newer ones.
        """
        return driver is not None and driver.get("for_driver") in self.earlier_drivers

    def leaves_to(self, driver: dict[str, Json] | None) -> bool:
        """Whether a child is somebody else's to drive for now."""
        return driver is not None and not self.supersedes(driver) and is_alive(driver)


async def ancestors(events: EventStore, child_of: ChildOf | None) -> list[tuple[RunId, ArtifactId]]:
    """The runs above a child, its parent first, each with its manifest."""
    found: list[tuple[RunId, ArtifactId]] = []
    while child_of is not None:
        parent = child_of.parent_run_id
        # A run's first two events say which manifest it has and whose child it is.
        opening = await events.read_range(parent, 1, 2)
        if not opening:
            # A child can be moved to another store without its parent.
            break
        history = fold(parent, opening)
        found.append((parent, history.manifest_id))
        child_of = history.child_of
    return found


def spawn_keys(history: RunHistory) -> dict[RunId, FactKey]:
    """Under which fact key each child of a run was spawned."""
    return {
        child_run_id(history.run_id, fact.key): fact.key
        for fact in history.facts.values()
        if isinstance(fact.meta, dict) and fact.meta.get("transport") == NAMESPACE_SPAWN
    }
