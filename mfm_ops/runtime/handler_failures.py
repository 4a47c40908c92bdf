"""What the exceptions of a handler come to as an error record, for live attempts and replays alike.

Which of them are no fault of the state's is left to those who call the handler.
"""

import logging
from collections.abc import Iterator, Sequence

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import (
    ContextFailure,
    ErrorInfo,
    IoFailure,
    RunFailure,
    StateFailure,
    TransportFailure,
)
from mfm_ops.runtime.persist import Refused
from mfm_ops.runtime.redact import log_unexpected

__all__ = ["causes_of", "info_of"]

log = logging.getLogger(__name__)

# What a handler raises of its own, or passes on from what it was handed.
OWN_FAILURES = (StateFailure, IoFailure, ContextFailure, TransportFailure, RunFailure, Refused)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The exceptions themselves: a handler's own task group wraps what its tasks raise."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from causes_of(part)
    else:
        yield error


def info_of(error: BaseException, causes: Sequence[BaseException]) -> ErrorInfo:
    """The record of a failed handler that raised `error`, which its `causes` brought about."""
    infos: list[ErrorInfo] = []
    for cause in causes:
        if not (isinstance(cause, OWN_FAILURES) and _is_valid(cause.info)):
            log_unexpected(log, "a state raised an unexpected exception", error)
            return error_info(
                "state_panicked",
                "the state raised an unexpected exception",
                exception=type(cause).__name__,
            )
        infos.append(cause.info)
    # Where one of several failures is final, trying again is of no use.
    return next((info for info in infos if not info.retryable), infos[0])


def _is_valid(info: object) -> bool:
    """Whether a failure carries a record: one that was copied with changes may hold anything.

    Its details are looked at when they are stored.
    """
    if not isinstance(info, ErrorInfo):
        return False
    try:
        ErrorInfo.model_validate({**dict(info), "details": None})
    except ValueError:
        return False
    return True
