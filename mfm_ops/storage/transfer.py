"""Moves runs between stores: an export is read from one, verified, and adopted by another.

The form of the file is in `bundle`, strict reading in `bundle_reader`. What may follow what in a
run is left to the `Rules` that the caller brings, where the file lies to `app`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final, NamedTuple

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes, parse_strict
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.secrets import find_secret_in_canonical, text_has_secret
from mfm_ops.machine.stores import Adoption, RunHead, TransferStore
from mfm_ops.storage import bundle
from mfm_ops.storage.bundle_reader import BundleReader, Member
from mfm_ops.storage.failures import (
    export_too_large,
    history_broken,
    import_conflict,
    run_missing,
    secret_refused,
)
from mfm_ops.storage.reading import MANIFEST, Reading, Rules, read_event, read_usual

__all__ = ["Exported", "Imported", "ImportedRun", "export_run", "import_bundle"]

_EVENTS_AT_ONCE: Final = 512
_STAGED_BYTES: Final = 4 << 20

RulesFor = Callable[[RunId], Rules]


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


@dataclass(slots=True)
class _Survey:
    """What is known of one run when all of its events were read."""

    run_id: RunId
    rules: Rules
    running_hash: bytes = b""
    seq: int = 0
    size: int = 0
    doubtful: bool = False
    last: str = ""
    kinds: dict[str, str] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        return self.last == "RunCompleted"

    def take(self, reading: Reading) -> None:
        """Note what the next event says."""
        if not self.doubtful and not self.rules.accepts([reading]):
            self.doubtful = True
        for artifact_id, kind in zip(reading.artifacts, reading.kinds, strict=True):
            self.kinds.setdefault(artifact_id, kind)
        self.links.update(reading.links)
        self.last = reading.name


# Export


async def export_run(
    store: TransferStore, run_id: RunId, sink: BinaryIO, rules_for: RulesFor
) -> Exported:
    """Write `run_id` as it stands, and all that belongs to it, to `sink`.

    To it belong its parents, children and the runs that it was made from, and every artifact that
    one of their events names. All of it is verified first, so nothing is written for a run that
    is damaged.

    Raises:
        StorageFailure: `run_not_found`, what reading raises, `history_invalid`, or
            `export_too_large`.
    """
    surveys = await _family(store, run_id, rules_for)
    artifacts = sorted({one for survey in surveys.values() for one in survey.kinds})
    for artifact_id in artifacts:
        if not await store.exists(ArtifactId(artifact_id)):
            # The store's own words for what is not there.
            await store.get(ArtifactId(artifact_id))
    writer = bundle.BundleWriter(sink)
    root = surveys[run_id]
    head = RunHead(root.seq, root.running_hash.hex())
    writer.header(run_id, head, runs=len(surveys), artifacts=len(artifacts))
    for artifact_id in artifacts:
        writer.artifact(ArtifactId(artifact_id), await store.get(ArtifactId(artifact_id)))
    for other, survey in sorted(surveys.items()):
        writer.open_run(other, survey.size)
        running, seq = b"", 0
        while seq < survey.seq:
            upto = min(seq + _EVENTS_AT_ONCE, survey.seq)
            lines = []
            for body in await store.read_raw(other, seq + 1, upto):
                running = bundle.next_hash(running, body)
                lines.append(bundle.event_line(body, running))
            writer.lines(b"".join(lines))
            seq = upto
        writer.close_run()
    digest = writer.close()
    return Exported(
        run_id, head, root.complete, tuple(sorted(surveys)), len(artifacts), writer.size, digest
    )


async def _family(store: TransferStore, run_id: RunId, rules_for: RulesFor) -> dict[RunId, _Survey]:
    surveys: dict[RunId, _Survey] = {}
    pending = [run_id]
    while pending:
        one = pending.pop()
        if one in surveys:
            continue
        head = await store.head(one)
        if head.seq:
            surveys[one] = survey = await _survey(store, one, head.seq, rules_for(one))
            pending += [RunId(other) for other in sorted(survey.links)]
            pending += await store.runs_naming_child(one)
        elif one == run_id:
            raise run_missing(run_id)
    return surveys


async def _survey(store: TransferStore, run_id: RunId, head_seq: int, rules: Rules) -> _Survey:
    survey = _Survey(run_id, rules)
    while survey.seq < head_seq:
        upto = min(survey.seq + _EVENTS_AT_ONCE, head_seq)
        bodies = await store.read_raw(run_id, survey.seq + 1, upto)
        rows = [(seq, body, b"") for seq, body in enumerate(bodies, survey.seq + 1)]
        for (seq, body, _), usual in zip(rows, read_usual(rows, run_id), strict=True):
            if len(body) > bundle.MAX_EVENT_BYTES:
                raise export_too_large(f"event {seq} of run {run_id}", bundle.MAX_EVENT_BYTES)
            survey.take(usual or read_event(body, run_id, seq))
            survey.running_hash = bundle.next_hash(survey.running_hash, body)
            survey.size += len(body) + bundle.line_overhead()
        survey.seq = upto
    if survey.doubtful:
        broken = rules.explain(await store.read_raw(run_id, 1, head_seq))
        if broken is not None:
            raise history_broken(run_id, *broken)
    for artifact_id, kind in survey.kinds.items():
        if kind == MANIFEST:
            survey.links |= _replayed(await store.get(ArtifactId(artifact_id)), run_id)
    return survey


def _replayed(manifest: bytes, run_id: RunId) -> set[str]:
    """The run whose facts a replay reads, out of its manifest."""
    try:
        config = parse_strict(manifest)
        config = config.get("run_config") if isinstance(config, dict) else None
        named = config.get("replay_of") if isinstance(config, dict) else None
        return {str(RunId(named))} - {run_id} if isinstance(named, str) else set()
    except ValueError:
        return set()


# Import


@dataclass(slots=True)
class _Plan:
    """What an import will do, once all of the file was verified."""

    root: RunId
    artifacts: dict[str, Member] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    # Each with its member, and how many events it has there, up to which running hash.
    runs: list[tuple[ImportedRun, Member, int, str]] = field(default_factory=list)


async def import_bundle(store: TransferStore, source: BinaryIO, rules_for: RulesFor) -> Imported:
    """Add the runs of an export to `store`: all of them, or none where anything is wrong.

    The whole file is read and verified before anything is stored; `source` can be sought. A run
    that is here already and is the same so far is extended where the file knows more of it.
    Artifacts become durable before the events, and the events of all runs in one commit.

    Raises:
        StorageFailure: `export_not_mfm`, `export_corrupt`, `unsupported_format` or
            `secrets_detected` for a file that is refused, `import_conflict` for a run whose
            history here is another one, and what the store raises.
    """
    reader = BundleReader(source)
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
    new = [(run, member, hashed) for run, member, _, hashed in plan.runs if run.after > run.before]
    if new:
        await store.adopt(
            [
                Adoption(run.run_id, run.before, _following(reader, member, run.before), hashed)
                # The one that was asked for last: it is the newest of them.
                for run, member, hashed in sorted(new, key=lambda one: one[0].run_id == plan.root)
            ]
        )
    runs = tuple(run for run, *_ in plan.runs)
    return Imported(plan.root, runs, len(plan.artifacts), len(missing))


def _following(reader: BundleReader, member: Member, before: int) -> Iterator[bytes]:
    for seq, body in enumerate(reader.again(member), 1):
        if seq > before:
            yield body


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
    survey = _Survey(run_id, rules)
    here = (await store.head(run_id)).seq
    known: list[bytes] = []
    for body, running_hash in reader.events(member):
        survey.seq += 1
        if survey.seq <= here:
            if not known:
                upto = survey.seq + _EVENTS_AT_ONCE - 1
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
