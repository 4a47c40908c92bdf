"""What a transport's author implements: environment in, reply out (the contract, section 7).

The seed keeps these in its unstable runtime; they stand in the contract here because they are
what others build on.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.ids import ArtifactId, RunId, StateId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import SideEffectKind

__all__ = [
    "CHILD_RUN_GROUP",
    "LiveIoEnv",
    "LiveIoTransport",
    "LiveIoTransportFactory",
    "TransportReply",
]


# The one group that the engine itself serves; what is asked of it stands in `child_runs`.
CHILD_RUN_GROUP = "machine.child_run"


class LiveIoEnv(NamedTuple):
    """On whose behalf a transport works: one attempt of one state of one run.

    `idempotency_key` is set when the state declares one; a transport hands it to the far side.
    `manifest_id` names the run's manifest, `run_config` is its run policy.
    """

    stores: Stores
    run_id: RunId
    state_id: StateId
    attempt: int
    side_effects: SideEffectKind
    run_config: RunConfig
    manifest_id: ArtifactId
    idempotency_key: str | None = None


class TransportReply(NamedTuple):
    """What came back: the response that becomes the fact, and what is worth knowing about it.

    `meta` is persisted with the fact and takes no part in its identity: durations are welcome,
    secrets and floats are refused.
    """

    response: Json
    meta: Mapping[str, Json] = MappingProxyType({})


class LiveIoTransport(Protocol):
    """Performs calls of one namespace group for one attempt."""

    async def call(self, call: IoCall) -> TransportReply:
        """Perform `call` once, for real.

        A cancelled call leaves no child process behind.

        Raises:
            TransportFailure: the far side failed; `info.code` says how, `rate_limited` that it
                wants to be asked less often. Neither the request nor any output appears in the
                message.
        """


class LiveIoTransportFactory(Protocol):
    """Makes the transports of one namespace group."""

    @property
    def namespace_group(self) -> str:
        """The namespace that the factory serves, with all namespaces below it."""

    def make(self, env: LiveIoEnv) -> LiveIoTransport:
        """A transport for one attempt; does no IO."""
