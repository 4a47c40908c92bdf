"""Whether a run's events keep the rules of their kind, fast: the fold's own verdict at less cost.

The rules stand in `runtime.history`. This takes the usual events past them without making models;
whatever it is not sure of, the fold decides.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from mfm_ops.machine import events as ev
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import RunId
from mfm_ops.runtime.history import Folding
from mfm_ops.storage.reading import Reading
from mfm_ops.storage.stream import decode

__all__ = ["FoldRules"]

# How a state stands, beside the number of its attempts that have failed.
_OPEN: Final = -1
_COMPLETED: Final = -2
# Events of the engine's that are never wrong by what came before them.
_ALWAYS: Final = frozenset({ev.EVENT_DRIVER, ev.EVENT_DRIVER_STOPPED, ev.EVENT_CANCEL_REQUESTED})


class FoldRules:
    """The `Rules` of one run."""

    def __init__(self, run_id: RunId) -> None:
        self._run_id = run_id
        self._started = False
        self._ended = False
        self._states: dict[str, int] = {}
        self._attempts: dict[str, int] = {}
        self._facts: dict[str, str | None] = {}

    def accepts(self, readings: Iterable[Reading]) -> bool:
        """See `Rules.accepts`."""
        states, facts = self._states, self._facts
        for kernel, name, state_id, attempt, key, payload_id, _, _, _ in readings:
            if not kernel:
                if name == ev.DOMAIN_EVENT_FACT_RECORDED and key is not None:
                    right = self._started and facts.setdefault(key, payload_id) == payload_id
                else:
                    right = self._started and self._accepts_domain(name, key)
            elif not self._started or self._ended or state_id is None:
                right = self._accepts_end(name)
            elif name == "StateCompleted":
                right = states.get(state_id) == _OPEN
                states[state_id] = _COMPLETED
            elif name == "StateEntered":
                right = states.get(state_id, 0) == attempt
                states[state_id] = _OPEN
                if attempt:
                    self._attempts[state_id] = attempt
            else:
                right = states.get(state_id) == _OPEN
                states[state_id] = self._attempts.get(state_id, 0) + 1
            if not right:
                return False
        return True

    def _accepts_end(self, name: str) -> bool:
        """Whether a kernel event may begin or end the run, or stand outside of it."""
        if name == "RunStarted":
            right, self._started = not self._started, True
        else:
            right = self._started and not self._ended and name == "RunCompleted"
            self._ended = True
        return right

    def _accepts_domain(self, name: str, key: str | None) -> bool:
        if name == ev.EVENT_IO_INTENT:
            return key is not None
        return name in _ALWAYS or not ev.is_engine_owned(name)

    def explain(self, bodies: Iterable[bytes]) -> tuple[int, str] | None:
        """See `Rules.explain`."""
        folding = Folding(self._run_id)
        try:
            folding.go_on(self._typed(bodies))
        except StorageFailure as failure:
            details = failure.info.details
            if failure.info.code != "history_invalid" or not isinstance(details, dict):
                raise
            return int(details["seq"]), str(details["reason"])
        return None

    def _typed(self, bodies: Iterable[bytes]) -> Iterator[EventEnvelope]:
        for seq, body in enumerate(bodies, 1):
            yield from decode(self._run_id, seq, [body])
