"""What belongs together when a run is moved: its relatives, found and verified by reading them.

Reads only. What is done with them is left to `transfer`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mfm_ops.machine.canonical import parse_strict
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import TransferStore
from mfm_ops.storage import bundle
from mfm_ops.storage.failures import export_too_large, history_broken, run_missing
from mfm_ops.storage.progress import Progress
from mfm_ops.storage.reading import MANIFEST, Reading, Rules, read_event, read_usual

__all__ = ["EVENTS_AT_ONCE", "RulesFor", "Survey", "family"]

EVENTS_AT_ONCE: Final = 512

RulesFor = Callable[[RunId], Rules]


@dataclass(slots=True)
class Survey:
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
        """Whether the run has ended."""
        return self.last == "RunCompleted"

    def take(self, reading: Reading) -> None:
        """Note what the next event says."""
        if not self.doubtful and not self.rules.accepts([reading]):
            self.doubtful = True
        for artifact_id, kind in zip(reading.artifacts, reading.kinds, strict=True):
            self.kinds.setdefault(artifact_id, kind)
        self.links.update(reading.links)
        self.last = reading.name


async def family(
    store: TransferStore, run_id: RunId, rules_for: RulesFor, progress: Progress
) -> dict[RunId, Survey]:
    """`run_id` and all runs that belong to it, each read and verified; raises as `export_run`."""
    read = 0
    surveys: dict[RunId, Survey] = {}
    pending = [run_id]
    while pending:
        one = pending.pop()
        if one in surveys:
            continue
        head = await store.head(one)
        if head.seq:
            survey = Survey(one, rules_for(one))

            def tell(seq: int, before: int = read, upto: int = read + head.seq) -> None:
                progress("events read", before + seq, upto)

            await _read(store, survey, head.seq, tell)
            surveys[one] = survey
            read += head.seq
            pending += [RunId(other) for other in sorted(survey.links)]
            pending += await store.runs_naming_child(one)
        elif one == run_id:
            raise run_missing(run_id)
    return surveys


async def _read(
    store: TransferStore, survey: Survey, head_seq: int, tell: Callable[[int], None]
) -> None:
    run_id = survey.run_id
    while survey.seq < head_seq:
        upto = min(survey.seq + EVENTS_AT_ONCE, head_seq)
        bodies = await store.read_raw(run_id, survey.seq + 1, upto)
        rows = [(seq, body, b"") for seq, body in enumerate(bodies, survey.seq + 1)]
        for (seq, body, _), usual in zip(rows, read_usual(rows, run_id), strict=True):
            if len(body) > bundle.MAX_EVENT_BYTES:
                raise export_too_large(f"event {seq} of run {run_id}", bundle.MAX_EVENT_BYTES)
            survey.take(usual or read_event(body, run_id, seq))
            survey.running_hash = bundle.next_hash(survey.running_hash, body)
            survey.size += len(body) + bundle.line_overhead()
        survey.seq = upto
        tell(upto)
    if survey.doubtful:
        broken = survey.rules.explain(await store.read_raw(run_id, 1, head_seq))
        if broken is not None:
            raise history_broken(run_id, *broken)
    for artifact_id, kind in survey.kinds.items():
        if kind == MANIFEST:
            survey.links |= _replayed(await store.get(ArtifactId(artifact_id)), run_id)


def _replayed(manifest: bytes, run_id: RunId) -> set[str]:
    """The run whose facts a replay reads, out of its manifest."""
    try:
        config = parse_strict(manifest)
        config = config.get("run_config") if isinstance(config, dict) else None
        named = config.get("replay_of") if isinstance(config, dict) else None
        return {str(RunId(named))} - {run_id} if isinstance(named, str) else set()
    except ValueError:
        return set()
