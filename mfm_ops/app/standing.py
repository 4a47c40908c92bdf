"""Whether anybody is at work on a run: `Running` in a phase says only that it has not ended.

Judged by what the run's own events tell and by what this host knows of its driver.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mfm_ops.runtime.records import RunHistory, StateRecord

__all__ = ["Activity", "activity_of_run", "activity_of_state"]


class Activity(StrEnum):
    """What goes on in a run, or in a state, that has not ended.

    `interrupted`: its driver is gone, and resuming goes on. `parked`: it waits for somebody to
    resolve an effect. `unknown`: its driver is where this host cannot look.
    """

    running = "running"
    parked = "parked"
    interrupted = "interrupted"
    unknown = "unknown"


def activity_of_run(history: RunHistory) -> Activity | None:
    """What goes on in a run by its own events; None when it is over."""
    from mfm_ops.runtime.driver import Liveness, liveness

    if history.status is not None:
        return None
    driver = liveness(history.driver) if history.driver is not None else Liveness.gone
    if driver is Liveness.gone:
        return Activity.parked if history.parked else Activity.interrupted
    return Activity.running if driver is Liveness.alive else Activity.unknown


def activity_of_state(
    state: StateRecord, history: RunHistory, run: Activity | None
) -> Activity | None:
    """What goes on in a state's open attempt, where `run` goes on in its run; None without one."""
    from mfm_ops.runtime.records import StateStatus

    if state.status is not StateStatus.running or run is None:
        return None
    if history.in_doubt(state.state_id):
        return Activity.parked
    # Its run may wait for another state's effect; nobody is at work on this one.
    return Activity.interrupted if run is Activity.parked else run
