"""Moves runs between stores: an export is read from one, verified, and adopted by another.

The form of the file is in `bundle`, strict reading in `bundle_reader`, what belongs to a run in
`survey`. What may follow what in a
run is left to the `Rules` that the caller brings, where the file lies to `app`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final, NamedTuple

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.secrets import find_secret_in_canonical, text_has_secret
from mfm_ops.machine.stores import Adoption, RunHead, TransferStore
from mfm_ops.storage import bundle
from mfm_ops.storage.bundle_reader import BundleReader, Member
from mfm_ops.storage.failures import import_conflict, secret_refused
from mfm_ops.storage.progress import Progress, silent
from mfm_ops.storage.reading import Rules, read_event
from mfm_ops.storage.survey import EVENTS_AT_ONCE, RulesFor, Survey, family

__all__ = ["Exported", "Imported", "ImportedRun", "export_run", "import_bundle"]

_STAGED_BYTES: Final = 4 << 20


class Exported(NamedTuple):
    """What an export holds. `complete` says whether the run had ended; else it is a prefix."""

    run_id: RunId
    head: RunHead
    complete: bool
    runs: tuple[RunId, ...]
    artifacts: int
    size_bytes: int
    sha256: str


class ImportedRun(NamedTuple):
    """What became of one run: it had `before` events here, and has `after` now.

    `complete` says whether it had ended when it was exported.
    """

    run_id: RunId
    before: int
    after: int
    complete: bool


class Imported(NamedTuple):
    """What an import did. `run_id` is the run that was exported; the others belong to it."""

    run_id: RunId
    runs: tuple[ImportedRun, ...]
    artifacts: int
    new_artifacts: int


# Export


async def export_run(
    store: TransferStore,
    run_id: RunId,
    sink: BinaryIO,
    rules_for: RulesFor,
    progress: Progress = silent,
) -> Exported:
    """Write `run_id` as it stands, and all that belongs to it, to `sink`.

    To it belong its parents, children and the runs that it was made from, and every artifact that
    one of their events names. All of it is verified first, so nothing is written for a run that
    is damaged.

    Raises:
        StorageFailure: `run_not_found`, what reading raises, `history_invalid`, or
            `export_too_large`.
    """
    surveys = await family(store, run_id, rules_for, progress)
    artifacts = sorted({one for survey in surveys.values() for one in survey.kinds})
    for artifact_id in artifacts:
        if not await store.exists(ArtifactId(artifact_id)):
            # The store's own words for what is not there.
            await store.get(ArtifactId(artifact_id))
    writer = bundle.BundleWriter(sink)
    root = surveys[run_id]
    head = RunHead(root.seq, root.running_hash.hex())
    writer.header(run_id, head, runs=len(surveys), artifacts=len(artifacts))
    for number, artifact_id in enumerate(artifacts, 1):
        writer.artifact(ArtifactId(artifact_id), await store.get(ArtifactId(artifact_id)))
        progress("artifacts written", number, len(artifacts))
    written, events = 0, sum(survey.seq for survey in surveys.values())
    for other, survey in sorted(surveys.items()):
        writer.open_run(other, survey.size)
        running, seq = b"", 0
        while seq < survey.seq:
            upto = min(seq + EVENTS_AT_ONCE, survey.seq)
            lines = []
            for body in await store.read_raw(other, seq + 1, upto):
                running = bundle.next_hash(running, body)
                lines.append(bundle.event_line(body, running))
            writer.lines(b"".join(lines))
            written, seq = written + len(lines), upto
            progress("events written", written, events)
        writer.close_run()
    digest = writer.close()
    return Exported(
        run_id, head, root.complete, tuple(sorted(surveys)), len(artifacts), writer.size, digest
    )


# Import


@dataclass(slots=True)
class _Plan:
    """What an import will do, once all of the file was verified."""

    root: RunId
    artifacts: dict[str, Member] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    # Each with its member, and how many events it has there, up to which running hash.
    runs: list[tuple[ImportedRun, Member, int, str]] = field(default_factory=list)


async def import_bundle(
    store: TransferStore, source: BinaryIO, rules_for: RulesFor, progress: Progress = silent
) -> Imported:
    """Add the runs of an export to `store`: all of them, or none where anything is wrong.

    The whole file is read and verified before anything is stored; `source` can be sought. A run
    that is here already and is the same so far is extended where the file knows more of it.
    Artifacts become durable before the events, and the events of all runs in one commit.

    Raises:
        StorageFailure: `export_not_mfm`, `export_corrupt`, `unsupported_format` or
            `secrets_detected` for a file that is refused, `import_conflict` for a run whose
            history here is another one, and what the store raises.
    """
    reader = BundleReader(source, progress)
    plan = await _check(store, reader, rules_for)
    missing = [one for one in plan.artifacts if not await store.exists(ArtifactId(one))]
    staged = 0
    for index, artifact_id in enumerate(missing, 1):
        data = reader.data(plan.artifacts[artifact_id])
        if artifact_id_for_bytes(data) != artifact_id:
            raise reader.fault("changed_meanwhile", artifact_id=artifact_id)
        kind = ArtifactKind.model_validate_json(plan.kinds[artifact_id])
        staged += len(data)
        # A put makes durable what was staged before it, in one commit.
        if len(data) > store.stage_limit_bytes or staged > _STAGED_BYTES or index == len(missing):
            await store.put(kind, data)
            staged = 0
        else:
            store.stage(kind, data)
        progress("artifacts stored", index, len(missing))
    new = [(run, member, hashed) for run, member, _, hashed in plan.runs if run.after > run.before]
    if new:
        count = _Count(progress, sum(run.after - run.before for run, _, _ in new))
        await store.adopt(
            [
                Adoption(
                    run.run_id, run.before, count.following(reader, member, run.before), hashed
                )
                # The one that was asked for last: it is the newest of them.
                for run, member, hashed in sorted(new, key=lambda one: one[0].run_id == plan.root)
            ]
        )
    runs = tuple(run for run, *_ in plan.runs)
    return Imported(plan.root, runs, len(plan.artifacts), len(missing))


class _Count:
    """Hands out the events that are to be stored, and says how many were taken."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def following(self, reader: BundleReader, member: Member, before: int) -> Iterator[bytes]:
        """The events of a run after the first `before`."""
        for seq, body in enumerate(reader.again(member), 1):
            if seq > before:
                yield body
                self._done += 1
                if self._done % EVENTS_AT_ONCE == 0 or self._done == self._total:
                    self._progress("events stored", self._done, self._total)


async def _check(store: TransferStore, reader: BundleReader, rules_for: RulesFor) -> _Plan:
    header = reader.header()
    plan = _Plan(header.run_id)
    for artifact_id, member, data in reader.artifacts():
        _refuse_secret(data, f"{bundle.ARTIFACTS}{artifact_id}")
        plan.artifacts[artifact_id] = member
    if len(plan.artifacts) != header.artifacts:
        raise reader.contradiction("artifact_count")
    for run_id, member in reader.runs():
        await _check_run(store, reader, run_id, member, rules=rules_for(run_id), plan=plan)
    named = {run.run_id: (events, hashed) for run, _, events, hashed in plan.runs}
    if len(named) != header.runs:
        raise reader.contradiction("run_count")
    if header.run_id not in named:
        raise reader.contradiction("run_missing", run_id=header.run_id)
    if named[header.run_id] != (header.events, header.running_hash):
        raise reader.contradiction("head", run_id=header.run_id)
    if len(plan.kinds) != len(plan.artifacts):
        raise reader.fault("artifact_unnamed", artifact_id=min(plan.artifacts.keys() - plan.kinds))
    reader.close()
    return plan


async def _check_run(
    store: TransferStore,
    reader: BundleReader,
    run_id: RunId,
    member: Member,
    *,
    rules: Rules,
    plan: _Plan,
) -> None:
    survey = Survey(run_id, rules)
    here = (await store.head(run_id)).seq
    known: list[bytes] = []
    for body, running_hash in reader.events(member):
        survey.seq += 1
        if survey.seq <= here:
            if not known:
                upto = survey.seq + EVENTS_AT_ONCE - 1
                known = await store.read_raw(run_id, survey.seq, min(upto, here))
            if known.pop(0) != body:
                raise import_conflict(run_id, survey.seq)
        try:
            reading = read_event(body, run_id, survey.seq)
        except StorageFailure as failure:
            if failure.info.code != "event_corrupt":
                raise
            details = failure.info.details
            reason = str(details.get("reason")) if isinstance(details, dict) else "content"
            raise reader.fault(reason, run_id=run_id, seq=survey.seq) from None
        _refuse_secret(body, f"event {survey.seq} of run {run_id}")
        for artifact_id in reading.artifacts:
            if artifact_id not in plan.artifacts:
                raise reader.fault(
                    "artifact_missing", run_id=run_id, seq=survey.seq, artifact_id=artifact_id
                )
        survey.take(reading)
        survey.running_hash = running_hash
    if survey.seq == 0:
        raise reader.fault("no_events", run_id=run_id)
    if survey.doubtful:
        broken = rules.explain(reader.again(member))
        reader.back()
        if broken is not None:
            raise reader.fault(broken[1], run_id=run_id, seq=broken[0])
    for artifact_id, kind in survey.kinds.items():
        plan.kinds.setdefault(artifact_id, kind)
    done = ImportedRun(run_id, here, max(here, survey.seq), survey.complete)
    plan.runs.append((done, member, survey.seq, survey.running_hash.hex()))


def _refuse_secret(data: bytes, place: str) -> None:
    """Nothing that looks like a secret is stored, wherever it comes from."""
    try:
        finding = find_secret_in_canonical(data)
        rule, pointer = (finding.rule, finding.pointer) if finding else (None, "")
    except ValueError:
        rule, pointer = text_has_secret(data.decode("utf-8", "replace")), ""
    if rule is not None:
        raise secret_refused(place, pointer, rule)
