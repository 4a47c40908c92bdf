"""Verifies the store, and exports and imports runs as files, for the command line to lay out.

What an export holds and how damage is found is left to `storage`; here are the files, and the rules
of the event stream that `storage` asks for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from mfm_ops.app.reports import resolve_run
from mfm_ops.app.rules import FoldRules
from mfm_ops.app.spool import seekable
from mfm_ops.app.whole_file import written
from mfm_ops.machine.errors import StorageFailure

if TYPE_CHECKING:
    from mfm_ops.app import App
    from mfm_ops.machine.canonical import Json
    from mfm_ops.storage.findings import Verified
    from mfm_ops.storage.memory import MemoryStore
    from mfm_ops.storage.progress import Progress
    from mfm_ops.storage.sqlite import SqliteStore
    from mfm_ops.storage.transfer import ImportedRun

__all__ = ["export_file", "import_file", "verify"]

# How often an import looks again where somebody else stores the same runs at the same moment.
_LOOKS: Final = 5


def verify(app: App, reference: str | None, tell: Progress | None) -> dict[str, Json]:
    """Verify the store, or the one run that `reference` names, and say all that is wrong.

    `found` is the number of findings; the first thousand stand in `findings`, each with its `code`
    and its place.
    """
    from mfm_ops.storage.progress import silent
    from mfm_ops.storage.verify import verify_run, verify_store

    progress = tell or silent

    async def work(store: SqliteStore | MemoryStore) -> dict[str, Json]:
        run_id = None if reference is None else await resolve_run(store, reference)
        with store.audit() as audit:
            if run_id is None:
                found = await verify_store(audit, FoldRules, progress)
                return _verified(app, found)
            run = audit.find_run(run_id)
            assert run is not None, "a run that was resolved is there, since nothing goes away"
            head = 0
            with suppress(StorageFailure):
                # A damaged one is what verifying tells of.
                head = await store.head_seq(run_id)
            found = await verify_run(audit, run, FoldRules, progress, expected=head)
            return {"run_id": str(run_id), **_verified(app, found)}

    with app.store_to_read() as store:
        return asyncio.run(work(store))


def _verified(app: App, found: Verified) -> dict[str, Json]:
    findings = [
        cast("dict[str, Json]", {k: v for k, v in one._asdict().items() if v is not None})
        for one in found.findings
    ]
    shown: dict[str, Json] = {
        "store": str(app.settings.store_path),
        "runs": found.runs,
        "events": found.events,
        "artifacts": found.artifacts,
        "bytes": found.size_bytes,
        "found": found.found,
        "findings": list(findings),
        "strays": list(found.strays),
    }
    if found.running_hash is not None:
        shown["running_hash"] = found.running_hash
    return shown


def export_file(
    app: App, reference: str, target: str, tell: Progress | None = None, *, force: bool
) -> dict[str, Json]:
    """Write the run that `reference` names, and all that belongs to it, to the file `target`.

    `-` is standard output. The file appears whole or not at all; one that is there already is
    replaced only with `force`.

    Raises:
        OSError: the file cannot be written, or is there already (`EEXIST`).
        StorageFailure: as `transfer.export_run`.
    """
    from mfm_ops.storage.progress import silent
    from mfm_ops.storage.transfer import export_run

    async def work(store: SqliteStore | MemoryStore) -> dict[str, Json]:
        run_id = await resolve_run(store, reference)
        with written(target, force=force) as sink:
            done = await export_run(store, run_id, sink, FoldRules, tell or silent)
        return {
            "run_id": str(done.run_id),
            "file": target,
            "events": done.head.seq,
            "running_hash": done.head.running_hash,
            "complete": done.complete,
            "runs": [str(one) for one in done.runs],
            "artifacts": done.artifacts,
            "bytes": done.size_bytes,
            "sha256": done.sha256,
        }

    with app.store_to_read() as store:
        return asyncio.run(work(store))


def import_file(app: App, source: str, tell: Progress | None = None) -> dict[str, Json]:
    """Add the runs of the export `source` to the store; `-` is standard input.

    Raises:
        OSError: the file cannot be read.
        StorageFailure: as `transfer.import_bundle`.
    """
    from mfm_ops.storage.bundle import HEADER
    from mfm_ops.storage.progress import silent
    from mfm_ops.storage.transfer import import_bundle

    # Before the store is opened: a file that is not there makes no store.
    with seekable(source, HEADER.encode() + b"\0") as file, app.store() as store:
        for looks_left in reversed(range(_LOOKS)):
            try:
                done = asyncio.run(import_bundle(store, file, FoldRules, tell or silent))
                break
            except StorageFailure as failure:
                if failure.info.code != "concurrency" or not looks_left:
                    raise
    return {
        "run_id": str(done.run_id),
        "runs": [_imported(run) for run in done.runs],
        "artifacts": done.artifacts,
        "new_artifacts": done.new_artifacts,
    }


def _imported(run: ImportedRun) -> dict[str, Json]:
    added = run.after - run.before
    outcome = "unchanged" if not added else "extended" if run.before else "imported"
    return {
        "run_id": str(run.run_id),
        "outcome": outcome,
        "events": run.after,
        "new_events": added,
        "complete": run.complete,
    }
