"""Verifies a whole store, or one run of it, and names all that is wrong instead of the first of it.

Reads each byte once, holds no more than a few hundred events and the ids of the artifacts. What a
run's events may say after each other is left to the `Rules` that the caller brings.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import chain as joined
from typing import Final

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import ErrorInfo, StorageFailure
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import StoreAudit, StoredArtifact, StoredRun
from mfm_ops.storage.findings import Finding, RunSoFar, Verified
from mfm_ops.storage.progress import Progress, silent
from mfm_ops.storage.reading import Rules, read_event, read_usual
from mfm_ops.storage.stream import chain, collector_paused

__all__ = ["verify_run", "verify_store"]

_GIVE_UP: Final = 1024
"""After so many places in a row that cannot be read, what follows is given up."""

RulesFor = Callable[[RunId], Rules]


async def verify_store(
    audit: StoreAudit, rules_for: RulesFor, progress: Progress = silent
) -> Verified:
    """Verify all that `audit` holds: the backend's own check, artifacts, events, references."""
    report = Verified()
    # Nothing here is a cycle, and a collection looks at hundreds of readings each time.
    with collector_paused():
        await _everything(audit, rules_for, report, progress)
    return report


async def _everything(
    audit: StoreAudit, rules_for: RulesFor, report: Verified, progress: Progress
) -> None:
    async with anyio.create_task_group() as tasks:
        # SQLite works without the interpreter's lock.
        tasks.start_soon(_own_check, audit, report)
        verifier = _Verifier(audit, rules_for, report, progress)
        await verifier.everything()


async def verify_run(
    audit: StoreAudit,
    run: StoredRun,
    rules_for: RulesFor,
    progress: Progress = silent,
    *,
    expected: int = 0,
) -> Verified:
    """Verify one run's events, and the artifacts that they name.

    `expected` is how many events there should be, for `progress` alone.
    """
    report = Verified()
    await _Verifier(audit, rules_for, report, progress, alone=True).one(run, expected)
    return report


async def _own_check(audit: StoreAudit, report: Verified) -> None:
    for text in await anyio.to_thread.run_sync(audit.damage):
        report.add(Finding("store_corrupt", reason=text))


class _Verifier:
    def __init__(
        self,
        audit: StoreAudit,
        rules_for: RulesFor,
        report: Verified,
        progress: Progress,
        *,
        alone: bool = False,
    ) -> None:
        self._audit = audit
        self._rules_for = rules_for
        self._report = report
        self._progress = progress
        self._alone = alone
        self._kinds: set[str] = set()
        self._known: set[str] = set()
        self._missing: set[str] = set()

    async def everything(self) -> None:
        try:
            runs, events, artifacts = self._audit.counts()
        except StorageFailure as failure:
            # Its own check says more. What can be read is read all the same.
            self._fault(failure.info)
            runs = events = artifacts = 0
        await self._all_artifacts(artifacts)
        try:
            for run in self._audit.runs():
                await self._run(run, events)
        except StorageFailure as failure:
            self._fault(failure.info)
        seen = self._report
        if (seen.runs, seen.events, seen.artifacts) != (runs, events, artifacts) and not seen.found:
            self._report.add(Finding("store_corrupt", reason="rows_out_of_reach"))
        self._report.strays = self._audit.strays(self._known)

    async def one(self, run: StoredRun, expected: int) -> None:
        await self._run(run, expected)

    # Artifacts

    async def _all_artifacts(self, total: int) -> None:
        after, unreadable = 0, 0
        while unreadable < _GIVE_UP:
            try:
                after, found = self._audit.artifacts(after)
            except StorageFailure as failure:
                if not unreadable:
                    self._fault(failure.info)
                after, unreadable = after + 1, unreadable + 1
                continue
            if not found:
                return
            unreadable = 0
            self._inline(found)
            await self._tell("artifacts", self._report.artifacts, total)

    def _inline(self, found: list[StoredArtifact]) -> None:
        """The other loop that counts: most artifacts are small, and right."""
        known, kinds, size, right = self._known, self._kinds, 0, 0
        for artifact in found:
            artifact_id, kind, said, data = artifact
            if (
                type(data) is bytes
                and sha256(data).hexdigest() == artifact_id
                and len(data) == said
                and kind in kinds
            ):
                known.add(artifact_id)
                size += said
                right += 1
            else:
                self._artifact(artifact)
        self._report.size_bytes += size
        self._report.artifacts += right

    def _artifact(self, artifact: StoredArtifact) -> None:
        artifact_id, kind, said, data = artifact
        self._report.artifacts += 1
        self._known.add(artifact_id)
        digest, size = sha256(), 0
        reason: str | None = None
        try:
            for chunk in (data,) if isinstance(data, bytes) else data:
                digest.update(chunk)
                size += len(chunk)
            if digest.hexdigest() != artifact_id:
                reason = "bytes"
            elif size != said:
                reason = "size"
        except FileNotFoundError:
            reason = "file_missing"
        except (OSError, ValueError):
            reason = "file_unreadable"
        self._report.size_bytes += size
        if reason is None and not self._is_kind(kind):
            reason = "kind"
        if reason is not None:
            self._report.add(Finding("artifact_corrupt", artifact_id=artifact_id, reason=reason))

    def _is_kind(self, text: str) -> bool:
        if text not in self._kinds:
            try:
                ArtifactKind.model_validate_json(text)
            except ValueError:
                return False
            self._kinds.add(text)
        return True

    def _refer(self, run_id: RunId, seq: int, artifact_id: str) -> None:
        """Meet an id that is not known yet: it is missing, or, where one run is read, new."""
        if artifact_id in self._missing:
            return
        if self._alone:
            artifact = self._audit.artifact(ArtifactId(artifact_id))
            if artifact is not None:
                self._artifact(artifact)
                return
        self._missing.add(artifact_id)
        finding = Finding("artifact_not_found", run_id, seq, artifact_id)
        self._report.add(finding)

    # Events

    async def _run(self, run: StoredRun, total: int) -> None:
        self._report.runs += 1
        try:
            run_id = RunId(run.run_id)
        except (ValueError, TypeError, AttributeError):
            self._report.add(Finding("store_corrupt", str(run.run_id), reason="run_id"))
            return
        stream = RunSoFar(run_id, self._rules_for(run_id))
        after, unreadable = 0, 0
        while unreadable < _GIVE_UP:
            try:
                rows = self._audit.events(run, after)
            except StorageFailure as failure:
                if not unreadable:
                    self._fault(failure.info, run_id, after + 1)
                stream.lose_track()
                after, unreadable = after + 1, unreadable + 1
                continue
            if not rows:
                break
            unreadable = 0
            self._rows(stream, rows)
            after = max(after + 1, rows[-1][0])
            self._report.events += len(rows)
            await self._tell("events", self._report.events, total)
        self._end(run, stream)
        self._report.running_hash = stream.running.hex() if self._alone else None

    def _rows(self, stream: RunSoFar, rows: list[tuple[int, bytes, bytes]]) -> None:
        """All rows at once where all are right, as nearly always; else one by one."""
        if not (stream.in_order and self._all_right(stream, rows)):
            self._each(stream, rows)

    def _all_right(self, stream: RunSoFar, rows: list[tuple[int, bytes, bytes]]) -> bool:
        """Whether nothing is to be said of `rows`; nothing has happened if there is."""
        seqs, bodies, hashes = zip(*rows, strict=True)
        if seqs != tuple(range(stream.seq + 1, stream.seq + 1 + len(rows))):
            return False
        try:
            if tuple(chain(stream.running, bodies)) != hashes:
                return False
            readings = [
                reading or read_event(body, stream.run_id, seq)
                for reading, seq, body in zip(
                    read_usual(rows, stream.run_id), seqs, bodies, strict=True
                )
            ]
        except (StorageFailure, TypeError):
            return False
        if not self._known.issuperset(
            joined.from_iterable([reading.artifacts for reading in readings])
        ):
            return False
        if not stream.doubtful:
            stream.doubtful = not stream.rules.accepts(readings)
        self._report.size_bytes += sum(map(len, bodies))
        stream.seq, stream.running = seqs[-1], hashes[-1]
        return True

    def _each(self, stream: RunSoFar, rows: list[tuple[int, bytes, bytes]]) -> None:
        run_id, rules, known, report = stream.run_id, stream.rules, self._known, self._report
        expected, previous = stream.seq + 1, stream.running
        in_order, size = stream.in_order, 0
        for seq, body, stored in rows:
            if seq != expected:
                in_order = False
                if not stream.lost:
                    report.add(Finding("event_corrupt", run_id, expected, None, "missing"))
                stream.lost, expected = True, seq
            try:
                running = sha256(previous + body).digest()
                if running != stored and not stream.forgives(body, stored):
                    in_order = False
                    report.add(Finding("event_corrupt", run_id, seq, None, "running_hash"))
                    stream.other = running
                else:
                    reading = read_event(body, run_id, seq)
                    for artifact_id in reading.artifacts:
                        if artifact_id not in known:
                            self._refer(run_id, seq, artifact_id)
                    if in_order and not stream.doubtful:
                        stream.doubtful = not rules.accepts([reading])
                size += len(body)
            except StorageFailure as failure:
                in_order = False
                self._fault(failure.info, run_id, seq)
            except TypeError:
                # A damaged file can hold a value of any type.
                in_order = False
                report.add(Finding("event_corrupt", run_id, seq, None, "body"))
            previous = stored if type(stored) is bytes else b""
            expected = seq + 1
        report.size_bytes += size
        stream.seq, stream.running, stream.in_order = expected - 1, previous, in_order

    def _end(self, run: StoredRun, stream: RunSoFar) -> None:
        """The rules of a run whose bytes are right; for others every rule could seem broken."""
        if stream.in_order and stream.seq == 0:
            self._report.add(Finding("history_invalid", stream.run_id, 0, None, "no_events"))
        elif stream.in_order and stream.doubtful:
            try:
                seq, reason = stream.rules.explain(self._bodies(run)) or (0, None)
            except StorageFailure as failure:
                self._fault(failure.info, stream.run_id)
                return
            if reason is not None:
                self._report.add(Finding("history_invalid", stream.run_id, seq, None, reason))

    def _bodies(self, run: StoredRun) -> Iterator[bytes]:
        after = 0
        while rows := self._audit.events(run, after):
            for _, body, _ in rows:
                yield body
            after = rows[-1][0]

    def _fault(self, info: ErrorInfo, run_id: str | None = None, seq: int | None = None) -> None:
        details = info.details if isinstance(info.details, dict) else {}
        reason = details.get("reason")
        text = reason if isinstance(reason, str) else None
        self._report.add(Finding(str(info.code), run_id, seq, None, text))

    async def _tell(self, what: str, done: int, total: int) -> None:
        await checkpoint()
        self._progress(what, done, max(done, total))
