"""The one door to disk: scan for secrets, make canonical bytes, put.

Nothing structured reaches an artifact store but through here. Turning a refusal into the error
of its place is left to the callers.
"""

import anyio
import anyio.to_thread

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import (
    CanonicalError,
    Json,
    canonical_json_bytes,
    parse_canonical,
)
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import MfmFailure, StorageError, StorageFailure
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.machine.secrets import find_secret_in_canonical, text_has_secret
from mfm_ops.machine.stores import ArtifactStore, StagingArtifactStore

__all__ = [
    "DEPTH_OF_META",
    "DEPTH_OF_PAYLOAD",
    "Persister",
    "Refused",
    "refuse_secrets",
    "refuse_secrets_aside",
    "scanned_aside",
    "scanned_canonical_bytes",
]


class Refused(MfmFailure):
    """A value may not be stored: `secrets_detected`, or it has no canonical form."""

    @property
    def pointer(self) -> str:
        """Where in the value the trouble is (RFC 6901)."""
        details = self.info.details
        return str(details.get("pointer", "")) if isinstance(details, dict) else ""


# A scan costs about 10 ms for this much ordinary text; a thread hop costs 0.2 ms.
SCANNED_IN_LOOP_BYTES = 1 << 16


# The containers around an event's payload, and around a fact's meta, in a stored envelope.
DEPTH_OF_PAYLOAD = 3
DEPTH_OF_META = 4


def scanned_canonical_bytes(value: Json, invalid_code: str, *, depth: int = 0) -> bytes:
    """The canonical bytes of `value`, which holds no secret.

    `depth` is how many containers will stand around it: what is accepted here must not turn out
    too deep when it is stored.

    Raises:
        Refused: `secrets_detected` with pointer and rule, or `invalid_code` with pointer and
            reason when there is no canonical form.
    """
    data = _canonical_bytes(value, invalid_code, depth)
    refuse_secrets(data)
    return data


def refuse_secrets(data: bytes) -> None:
    """Raise `Refused` when canonical JSON `data` holds a secret."""
    finding = find_secret_in_canonical(data)
    if finding is not None:
        raise Refused(
            error_info(
                "secrets_detected",
                "a value that looks like a secret was not stored",
                pointer=finding.pointer,
                rule=finding.rule,
            )
        )


async def refuse_secrets_aside(data: bytes) -> None:
    """`refuse_secrets`, in a worker thread where it would hold up the event loop."""
    if len(data) <= SCANNED_IN_LOOP_BYTES:
        refuse_secrets(data)
    else:
        await anyio.to_thread.run_sync(refuse_secrets, data)


async def scanned_aside(value: Json, invalid_code: str, *, depth: int = 0) -> bytes:
    """`scanned_canonical_bytes`, scanned as by `refuse_secrets_aside`.

    The bytes are those of `value` as it is when this is called.
    """
    data = _canonical_bytes(value, invalid_code, depth)
    await refuse_secrets_aside(data)
    return data


def _canonical_bytes(value: Json, invalid_code: str, depth: int = 0) -> bytes:
    nested = value
    for _ in range(depth):
        nested = [nested]
    try:
        data = canonical_json_bytes(nested)
    except CanonicalError as error:
        pointer = error.pointer.removeprefix("/0" * depth)
        # Nothing was scanned yet, so a key on the way may be a secret itself.
        pointer = "" if text_has_secret(pointer) else pointer
        raise Refused(
            error_info(
                invalid_code,
                "a value has no canonical JSON form",
                pointer=pointer,
                reason=error.code,
            )
        ) from None
    return data[depth : len(data) - depth]


class Persister:
    """Writes and reads artifacts for the runtime and the SDK."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._staging = artifacts if isinstance(artifacts, StagingArtifactStore) else None
        self._stage_limit = self._staging.stage_limit_bytes if self._staging else 0

    async def scanned(self, value: Json, invalid_code: str) -> bytes:
        """See `scanned_aside`."""
        return await scanned_aside(value, invalid_code)

    async def json(
        self, kind: ArtifactKind, value: Json, *, invalid_code: str = "io_request_invalid"
    ) -> ArtifactId:
        """Store a JSON value; see `scanned_canonical_bytes` for what is refused.

        Durable no later than the next append that returns.
        """
        return await self.trusted(kind, await self.scanned(value, invalid_code))

    async def trusted(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        """Store bytes that were scanned already, or that are no JSON (random bytes)."""
        if self._staging is None:
            return await self._artifacts.put(kind, data)
        if len(data) <= self._stage_limit:
            return self._staging.stage(kind, data)
        return await self._staging.stage_large(kind, data)

    async def load_json(self, artifact_id: ArtifactId) -> Json:
        """The value of a stored JSON artifact.

        Raises:
            StorageFailure: as the store's `get`; `Corruption` when the bytes are not canonical.
        """
        data = await self._artifacts.get(artifact_id)
        try:
            return parse_canonical(data)
        except CanonicalError:
            raise StorageFailure(
                StorageError(
                    Corruption=error_info(
                        "artifact_corrupt",
                        "a stored artifact is not canonical JSON",
                        artifact_id=artifact_id,
                    )
                )
            ) from None

    async def exists(self, artifact_id: ArtifactId) -> bool:
        """Whether an artifact is stored, or will be with the next append."""
        return await self._artifacts.exists(artifact_id)

    async def load_bytes(self, artifact_id: ArtifactId) -> bytes:
        """The bytes of a stored artifact."""
        return await self._artifacts.get(artifact_id)
