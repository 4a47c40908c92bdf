"""Judges one state of a recorded run: base, handler, and what the record holds against both.

The run as a whole is left to `verdict`, executing a handler to `verdict_attempt`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.config import BuildProvenance, RunConfig
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import ContextFailure
from mfm_ops.machine.ids import ArtifactId, StateId
from mfm_ops.machine.plan import ExecutionPlan, StateNode
from mfm_ops.machine.stores import ArtifactStore
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.contexts import RunContexts
from mfm_ops.runtime.facts import FactIndex
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.records import RunHistory, StateStatus
from mfm_ops.runtime.scheduler import Schedule
from mfm_ops.runtime.verdict_attempt import (
    AttemptFacts,
    AttemptIo,
    Replayed,
    replay_attempt,
)
from mfm_ops.runtime.verdict_compare import (
    Evidence,
    compare,
    context_divergence,
    is_unanswerable,
    recorded_of,
)
from mfm_ops.runtime.verdict_model import Divergence, DivergenceKind, StateResult
from mfm_ops.runtime.verdict_record import RecordedAttempt, Recording

__all__ = ["CONFLICT", "FROM_OUTSIDE", "ReplayEnv", "StateJudge", "key_of"]

# Ends that somebody or something else brought about: no handler comes to them by itself.
FROM_OUTSIDE = frozenset(
    {
        "attempt_orphaned",
        "effect_failed",
        "effect_unknown",
        "run_cancelled",
        "run_deadline_exceeded",
        "state_cancelled",
        "state_deadline_exceeded",
    }
)
CONFLICT = "context_write_conflict"
SWALLOWED = "{state_id} asked for facts that were not recorded, and came to the same without them"


class ReplayEnv(NamedTuple):
    """What a replay goes by. `stores` are read and never written.

    `source` is the run whose facts a run in `IoMode.Replay` reads; `build` is the present one;
    `on_state` is told of each state before its handler runs.
    """

    stores: Stores
    plan: ExecutionPlan
    config: RunConfig
    build: BuildProvenance | None = None
    source: RunHistory | None = None
    on_state: Callable[[StateId], None] | None = None


class Unwritten:
    """The artifacts of a store, for reading; what is put is only given its id."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self.get = store.get
        self.exists = store.exists
        self.latest = b""

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:  # noqa: ARG002
        self.latest = data
        return artifact_id_for_bytes(data)


class StateJudge:
    """Judges the states of one run, one after the other, in the order of their execution.

    `overrides` are the context values that a fork changed, by the state that it changed them for.
    """

    def __init__(
        self,
        recording: Recording,
        env: ReplayEnv,
        initial: Snapshot,
        overrides: Mapping[StateId, Delta],
    ) -> None:
        self._history = recording.history
        self._env = env
        self._nodes: Mapping[StateId, StateNode] = {n.id: n for n in env.plan.graph.states}
        self.artifacts = Unwritten(env.stores.artifacts)
        self._persister = Persister(self.artifacts)
        self.contexts = RunContexts(
            Schedule(env.plan.graph), initial, self._persister, self._history.states, overrides
        )
        told = env.source or self._history
        self._facts = FactIndex(told.facts.values())
        # A source's facts were all there before this run began.
        self._fact_seqs = {} if env.source else recording.fact_seqs
        self.divergences: list[Divergence] = []
        self.notes: list[str] = []

    async def judge(self, attempt: RecordedAttempt) -> StateResult:
        """Replay one state; what differs is added to `divergences`."""
        if attempt.status is StateStatus.running or (
            attempt.error is not None and attempt.error.code in FROM_OUTSIDE
        ):
            return StateResult.not_replayed
        node = self._nodes[attempt.state_id]
        before = len(self.divergences)
        base = await self._base(attempt)
        if base is None:
            return StateResult.reproduced
        meta = node.state.meta()
        if any(tag in self._env.config.skip_tags for tag in meta.tags):
            # Nothing ran, so all that can differ is the end.
            replayed = Replayed(base, None, (), frozenset(), ())
            result = StateResult.skipped
        else:
            if self._env.on_state is not None:
                self._env.on_state(attempt.state_id)
            replayed = await replay_attempt(
                node,
                attempt.number,
                base,
                io=self._io(attempt, node),
                profile=self._env.config.event_profile,
                recorded_id=attempt.snapshot_id,
            )
            if is_unanswerable(attempt, replayed):
                return StateResult.not_replayed
            result = StateResult.reproduced
        self.divergences += compare(attempt, replayed, await self._evidence(attempt, replayed))
        if len(self.divergences) > before:
            return StateResult.diverged
        if replayed.troubles:
            self.notes.append(SWALLOWED.format(state_id=attempt.state_id))
        if attempt.status is StateStatus.completed and replayed.snapshot is not None:
            # Those that follow need not load it. A divergence is loaded as it was recorded.
            self.contexts.completed(attempt.state_id, base, replayed.snapshot)
        return result

    async def _base(self, attempt: RecordedAttempt) -> Snapshot | None:
        """The recorded base, held against the merge; None where the merge fails as it did then."""
        recorded_conflict = attempt.error is not None and attempt.error.code == CONFLICT
        conflict: ContextFailure | None = None
        try:
            base = await self.contexts.base_of(attempt.state_id)
            if base.artifact_id == attempt.base_id:
                return base
        except ContextFailure as failure:
            if recorded_conflict:
                return None
            conflict = failure
        recorded = Snapshot.of_bytes(await self._persister.load_bytes(attempt.base_id))
        if conflict is None:
            divergence = context_divergence(attempt, recorded, base, DivergenceKind.base)
        else:
            divergence = Divergence(
                state_id=attempt.state_id,
                attempt=attempt.number,
                kind=DivergenceKind.base,
                key=key_of(conflict),
                recorded=attempt.base_id,
                diff=(f"+ failed: {CONFLICT}: {conflict.info.message}",),
            )
        self.divergences.append(divergence)
        return recorded

    def _io(self, attempt: RecordedAttempt, node: StateNode) -> AttemptIo:
        env, source = self._env, self._env.source
        assert attempt.ended_seq is not None, "open attempts are not replayed"
        meta = node.state.meta()
        told = source.states.get(attempt.state_id) if source else None
        return AttemptIo(
            AttemptFacts(self._facts, self._fact_seqs, attempt.entered_seq, attempt.ended_seq),
            self._persister,
            LiveIoEnv(
                stores=env.stores,
                run_id=self._history.run_id,
                state_id=attempt.state_id,
                attempt=attempt.number,
                side_effects=meta.side_effects,
                run_config=env.config,
                manifest_id=self._history.manifest_id,
                idempotency_key=meta.idempotency.value,
            ),
            source_run_id=source.run_id if source else self._history.run_id,
            source_attempt=told.attempts - 1 if told else attempt.number,
        )

    async def _evidence(self, attempt: RecordedAttempt, replayed: Replayed) -> Evidence:
        """What the record has where the replay has something else."""
        snapshot = None
        if (
            attempt.snapshot_id is not None
            and replayed.snapshot is not None
            and replayed.snapshot.artifact_id != attempt.snapshot_id
        ):
            snapshot = Snapshot.of_bytes(await self._persister.load_bytes(attempt.snapshot_id))
        payloads: dict[ArtifactId, bytes] = {}
        for trouble in replayed.troubles:
            wanted = recorded_of(trouble, attempt, replayed, self._facts)
            if wanted is not None and wanted not in payloads:
                payloads[wanted] = await self._persister.load_bytes(wanted)
        return Evidence(self._facts, snapshot, payloads)


def key_of(conflict: ContextFailure) -> str | None:
    """The context key that writes are in conflict about."""
    details = conflict.info.details
    return str(details["key"]) if isinstance(details, dict) and "key" in details else None
