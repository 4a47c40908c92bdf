"""Reads the manifests that runs were started with."""

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunManifest
from mfm_ops.machine.errors import RunError, RunFailure, StorageError
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.runtime.persist import Persister

__all__ = ["load_manifest"]


async def load_manifest(persister: Persister, manifest_id: ArtifactId) -> RunManifest:
    """A stored manifest.

    Raises:
        RunFailure: `unsupported_format` for one that a newer version wrote.
        StorageFailure: as the store's `get`.
    """
    data = await persister.load_bytes(manifest_id)
    try:
        return RunManifest.model_validate_json(data)
    except ValueError:
        info = error_info("unsupported_format", "the manifest was written by a newer version")
        raise RunFailure(RunError(Storage=StorageError(Other=info))) from None
