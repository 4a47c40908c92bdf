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
        self._facts: dict[str, str] = {}

    def accepts(self, reading: Reading) -> bool:
        """See `Rules.accepts`."""
        kernel, name, state_id, attempt, key, payload_id, _, _, _ = reading
        if not kernel:
            return self._started and self._accepts_domain(name, key, payload_id)
        if name == "RunStarted":
            first, self._started = not self._started, True
            return first
        if not self._started or self._ended:
            return False
        if state_id is None:
            self._ended = True
            return True
        states = self._states
        if name == "StateCompleted":
            stands = states.get(state_id)
            states[state_id] = _COMPLETED
            return stands == _OPEN
        if name == "StateEntered":
            stands = states.get(state_id, 0)
            states[state_id] = _OPEN
            if attempt:
                self._attempts[state_id] = attempt
            return stands == attempt
        stands = states.get(state_id)
        states[state_id] = self._attempts.get(state_id, 0) + 1
        return stands == _OPEN

    def _accepts_domain(self, name: str, key: str | None, payload_id: str | None) -> bool:
        if name == ev.DOMAIN_EVENT_FACT_RECORDED:
            if key is None or payload_id is None:
                return False
            return self._facts.setdefault(key, payload_id) == payload_id
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
