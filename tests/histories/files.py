"""A recorded run as two readable files: its events as they were stored, and its artifacts.

`events.jsonl` has the stored bytes of each event, one a line; `artifacts.jsonl` an artifact a line,
as `json` where it is canonical JSON, else as `base64`.
"""

import base64
from pathlib import Path

import orjson

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import (
    CanonicalError,
    artifact_id_for_bytes,
    canonical_json_bytes,
    parse_canonical,
)
from mfm_ops.machine.config import RunManifest
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import RunId
from mfm_ops.runtime.verdict import ReplayEnv, replay
from mfm_ops.runtime.verdict_model import ReplayVerdict
from mfm_ops.runtime.verdict_record import RecordingBuilder
from mfm_ops.sdk.planner import OpRegistry, build_plan
from mfm_ops.storage.memory import MemoryStore

# The format of the events; a new one gets a directory of its own, beside this.
FOLDER = Path(__file__).parent / "1"
DIGESTS = Path(__file__).parent / "SHA256SUMS"
EVENTS, ARTIFACTS = "events.jsonl", "artifacts.jsonl"


async def save(store: MemoryStore, bodies: list[bytes], folder: Path) -> None:
    """Write a run's events and all artifacts of the store that it alone is in.

    Raises:
        FileExistsError: the folder is there: what was recorded is never written again.
    """
    artifacts = []
    for artifact_id in await store.find_artifacts("", limit=10_000):
        data = await store.get(artifact_id)
        kind = await store.artifact_kind(artifact_id)
        described = {"id": str(artifact_id), "kind": kind.model_dump(mode="json")}
        try:
            artifacts.append(canonical_json_bytes({**described, "json": parse_canonical(data)}))
        except CanonicalError:
            text = base64.b64encode(data).decode()
            artifacts.append(canonical_json_bytes({**described, "base64": text}))
    _write(folder, bodies, artifacts)


def _write(folder: Path, bodies: list[bytes], artifacts: list[bytes]) -> None:
    folder.mkdir(parents=True)
    (folder / EVENTS).write_bytes(b"".join(body + b"\n" for body in bodies))
    (folder / ARTIFACTS).write_bytes(b"".join(line + b"\n" for line in artifacts))


def events_of(folder: Path) -> list[bytes]:
    """The recorded events, each as it was stored."""
    return (folder / EVENTS).read_bytes().splitlines()


async def load(folder: Path) -> tuple[MemoryStore, RunId]:
    """A store that holds the recorded run."""
    store = MemoryStore()
    for line in (folder / ARTIFACTS).read_bytes().splitlines():
        entry = orjson.loads(line)
        data = (
            canonical_json_bytes(entry["json"])
            if "json" in entry
            else base64.b64decode(entry["base64"])
        )
        assert artifact_id_for_bytes(data) == entry["id"]
        await store.put(ArtifactKind.model_validate_json(orjson.dumps(entry["kind"])), data)
    events = [EventEnvelope.model_validate_json(body) for body in events_of(folder)]
    run_id = events[0].run_id
    await store.append(run_id, 0, events)
    return store, run_id


async def verdict_on(folder: Path, ops: OpRegistry) -> ReplayVerdict:
    """Replay a recorded run with `ops`."""
    store, run_id = await load(folder)
    builder = RecordingBuilder(run_id)
    for envelope in await store.read_range(run_id, 1):
        builder.feed(envelope)
    recording = builder.done()
    data = await store.get(recording.history.manifest_id)
    manifest = RunManifest.model_validate_json(data)
    plan = build_plan(manifest, ops)
    return await replay(recording, ReplayEnv(Stores(store, store), plan, manifest.run_config))


def digests() -> dict[str, str]:
    """Each recorded file's SHA-256, by its path below `tests/histories`."""
    pairs = [line.split("  ", 1) for line in DIGESTS.read_text().splitlines()]
    return {path: digest for digest, path in pairs}


def files() -> dict[str, str]:
    """The same, of the files that are there."""
    found = sorted(path for path in FOLDER.parent.glob("*/*/*.jsonl"))
    return {
        str(path.relative_to(FOLDER.parent)): artifact_id_for_bytes(path.read_bytes())
        for path in found
    }
