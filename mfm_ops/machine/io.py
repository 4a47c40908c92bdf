"""The only way from a state to the world: calls, results, and the provider (seed: io).

How a call is recorded or replayed is left to `runtime.live_io` and `runtime.replay_io`.
"""

from typing import Protocol

from mfm_ops.machine.ids import ArtifactId, FactKey
from mfm_ops.machine.wire import JsonValue, Wire

__all__ = ["IoCall", "IoProvider", "IoResult"]


class IoCall(Wire):
    """One request to the outside (seed: io::IoCall).

    Without a `fact_key`, or with an empty one, the provider derives one from the state and the
    request, so asking the same thing twice in a run yields the same recorded answer; whoever wants
    a fresh answer each time names a key with a discriminator in it.
    """

    namespace: str
    request: JsonValue
    fact_key: FactKey | None = None


class IoResult(Wire):
    """The answer, and the artifact that holds it when it was recorded (seed: io::IoResult)."""

    response: JsonValue
    recorded_payload_id: ArtifactId | None = None


class IoProvider(Protocol):
    """What a state handler may do to the world (seed: io::IoProvider; the contract, section 6).

    Every method raises `IoFailure`. Cancelling a call leaves nothing behind: no process, no
    half-recorded fact.
    """

    async def call(self, call: IoCall) -> IoResult:
        """Perform the call, or return the recorded answer when its key is bound already.

        Raises:
            IoFailure: `Transport` or `RateLimited` as the far side failed; `MissingFactKey` and
                `MissingFact` in replay; `Other` for `fact_request_mismatch`,
                `fact_payload_conflict`, `secrets_detected`, `io_pure_state`.
        """

    async def record_value(self, key: FactKey, value: JsonValue) -> ArtifactId:
        """Record `value` as a fact under `key`; the same again is fine, another is a conflict."""

    async def get_recorded_fact(self, key: FactKey) -> ArtifactId | None:
        """The payload recorded under `key`, if any."""

    async def now_millis(self) -> int:
        """Milliseconds since the epoch, recorded as a fact."""

    async def random_bytes(self, n: int) -> bytes:
        """`n` random bytes, recorded as a raw fact."""
