"""The names under which answers are recorded: what a request is, and which fact key it has."""

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import IoError, IoFailure
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.persist import Refused, scanned_aside, scanned_canonical_bytes

__all__ = [
    "ambient_key",
    "default_key",
    "moved_key",
    "one_at_a_time",
    "refuse_key",
    "request_bytes",
    "request_bytes_aside",
]


def default_key(namespace: str, env: LiveIoEnv, request_id: ArtifactId) -> FactKey:
    """The key of a call without one: state and request, never the order of calls in time."""
    return FactKey(f"mfm:{namespace}|state:{env.state_id}|req:{request_id}")


def ambient_key(kind: str, run_id: str, state_id: str, attempt: int, ordinal: int) -> FactKey:
    """The key of the clock's or the random source's `ordinal`-th answer in an attempt."""
    return FactKey(f"mfm:{kind}|run:{run_id}|state:{state_id}|attempt:{attempt}|ord:{ordinal}")


def moved_key(key: str, source: RunId, target: RunId) -> str:
    """The key of a fact that a run takes over from another: only `ambient_key` names the run."""
    return key.replace(f"|run:{source}|", f"|run:{target}|", 1) if key.startswith("mfm:") else key


def request_bytes(call: IoCall) -> bytes:
    """The canonical bytes of a request, whose hash is its id.

    Raises:
        IoFailure: `io_request_invalid` or `secrets_detected`.
    """
    try:
        return scanned_canonical_bytes(_identity(call), "io_request_invalid")
    except Refused as refused:
        raise IoFailure(IoError(Other=refused.info)) from None


async def request_bytes_aside(call: IoCall) -> bytes:
    """`request_bytes`, scanned in a worker thread where it would hold up the event loop."""
    try:
        return await scanned_aside(_identity(call), "io_request_invalid")
    except Refused as refused:
        raise IoFailure(IoError(Other=refused.info)) from None


def _identity(call: IoCall) -> Json:
    return {"namespace": call.namespace, "request": call.request}


def refuse_key(key: FactKey) -> None:
    """A fact's key stands in events as it is: it must have a canonical form and hold no secret."""
    if not isinstance(key, str):
        # Recorded as its text, it would not be found again under itself.
        info = error_info("io_request_invalid", "a fact key is text", reason="json_key_type")
        raise IoFailure(IoError(Other=info))
    try:
        scanned_canonical_bytes(str(key), "io_request_invalid")
    except Refused as refused:
        raise IoFailure(IoError(Other=refused.info)) from None


class one_at_a_time:  # noqa: N801 - a context manager, read as a phrase
    """Lets one task at a time work on a fact key; the others wait and then find it bound."""

    def __init__(self, in_flight: dict[FactKey, anyio.Event | None], key: FactKey) -> None:
        self._in_flight = in_flight
        self._key = key

    async def __aenter__(self) -> None:
        while self._key in self._in_flight:
            busy = self._in_flight[self._key] or anyio.Event()
            self._in_flight[self._key] = busy
            await busy.wait()
        # Hardly ever does anybody wait, so an event is made by who does.
        self._in_flight[self._key] = None

    async def __aexit__(self, *exc_info: object) -> None:
        busy = self._in_flight.pop(self._key)
        if busy is not None:
            busy.set()
