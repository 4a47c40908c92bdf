"""Replays a recorded run and says whether it came to the same (the contract, sections 4 to 6).

Every handler runs again on its recorded base and facts, under the original run id and attempt. No
transport is made and nothing is written. Each state is judged in `verdict_judge`.
"""

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import IoMode
from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.errors import ContextFailure, ErrorInfo, RunError, RunFailure
from mfm_ops.machine.ids import StateId
from mfm_ops.machine.plan import ExecutionPlan, plan_digest
from mfm_ops.runtime.context import Snapshot
from mfm_ops.runtime.fork import load_overrides
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.records import StateStatus
from mfm_ops.runtime.redact import safe_info
from mfm_ops.runtime.verdict_compare import context_divergence
from mfm_ops.runtime.verdict_judge import CONFLICT, FROM_OUTSIDE, ReplayEnv, StateJudge, key_of
from mfm_ops.runtime.verdict_model import Divergence, DivergenceKind, ReplayVerdict, StateVerdict
from mfm_ops.runtime.verdict_record import Recording

__all__ = ["ReplayEnv", "replay"]

# What of a build says which code ran; the rest says where.
BUILD_FIELDS = (
    "cargo_lock_hash",
    "dirty",
    "flake",
    "flake_lock_hash",
    "git_commit",
    "lock_hashes",
    "mfm_version",
    "python_version",
)
UNFINISHED = "unfinished"

ANOTHER_BUILD = "the run was recorded by another build of mfm: {fields} differ"
OPEN_RUN = "the run is not over: this is a verdict on what is recorded so far"


async def replay(recording: Recording, env: ReplayEnv) -> ReplayVerdict:
    """The verdict on a recorded run.

    Each state starts from its recorded base, so one divergence brings about no others.

    Raises:
        RunFailure: `plan_changed`; `config_unsupported` (`replay_of`) for a run that is a replay
            itself and whose source is not given.
        StorageFailure: something that the run recorded is missing or damaged.
    """
    _check_plan(recording, env.plan)
    if env.config.io_mode is IoMode.Replay and env.source is None:
        info = error_info(
            "config_unsupported", "the run whose facts it read is not here", field="replay_of"
        )
        raise RunFailure(RunError(Other=info))
    history = recording.history
    initial = Snapshot.of_bytes(await env.stores.artifacts.get(history.initial_snapshot_id))
    overrides = await load_overrides(Persister(env.stores.artifacts), history.forked_from)
    judge = StateJudge(recording, env, initial, overrides)
    return await _Replay(recording, env, judge).verdict()


def _check_plan(recording: Recording, plan: ExecutionPlan) -> None:
    """The plan must be the one that was executed (the contract, section 5)."""
    history = recording.history
    digest = history.drivers[0].get("plan_digest") if history.drivers else None
    known = {node.id for node in plan.graph.states}
    another = digest is not None and digest != plan_digest(plan)
    incomplete = history.phase is RunPhase.Completed and known != history.states.keys()
    if another or incomplete or not known.issuperset(history.states):
        info = error_info(
            "plan_changed",
            "the op expands to another plan now",
            run_id=history.run_id,
            field="plan",
        )
        raise RunFailure(RunError(Other=info))


class _Replay:
    def __init__(self, recording: Recording, env: ReplayEnv, judge: StateJudge) -> None:
        self._recording = recording
        self._history = recording.history
        self._env = env
        self._judge = judge
        self._divergences = judge.divergences
        self._notes = judge.notes
        self._states: list[StateVerdict] = []

    async def verdict(self) -> ReplayVerdict:
        for attempt in self._recording.attempts:
            result = await self._judge.judge(attempt)
            code = attempt.error.code if attempt.error else None
            reason = UNFINISHED if attempt.status is StateStatus.running else code
            self._states.append(
                StateVerdict(
                    state_id=attempt.state_id,
                    attempt=attempt.number,
                    recorded=attempt.status,
                    result=result,
                    reason=None if reason is None else str(reason),
                )
            )
        if not self._divergences:
            await self._end()
        self._note_another_build()
        phase = self._history.phase
        if phase is RunPhase.Running:
            self._notes.append(OPEN_RUN)
        whole = phase is RunPhase.Completed or self._conflict() is not None
        return ReplayVerdict(
            run_id=self._history.run_id,
            op_id=self._history.op_id,
            phase=phase,
            verdict="diverged"
            if self._divergences
            else "reproduced"
            if whole
            else "reproduced_up_to",
            up_to=None if whole else self._up_to(),
            states=tuple(self._states),
            divergences=tuple(self._divergences),
            notes=tuple(self._notes),
        )

    def _note_another_build(self) -> None:
        if self._env.build is None:
            return
        ours = self._env.build.model_dump(mode="json")
        differ = {
            name
            for driver in self._history.drivers
            if isinstance(theirs := driver.get("build"), dict)
            for name in BUILD_FIELDS
            if theirs.get(name) != ours.get(name)
        }
        if differ:
            self._notes.append(ANOTHER_BUILD.format(fields=", ".join(sorted(differ))))

    def _up_to(self) -> StateId | None:
        """The state that ended the run, else the first unfinished one, else the last completed."""
        attempts = self._recording.attempts
        ends = [a for a in attempts if a.error and a.error.code not in FROM_OUTSIDE]
        unfinished = [a for a in attempts if a.status is not StateStatus.completed]
        named = next(iter((*ends, *unfinished, *attempts[-1:])), None)
        return named.state_id if named else None

    def _conflict(self) -> ErrorInfo | None:
        """Why the run failed though every state completed: writes that no state joins."""
        error = self._history.run_error
        return error if error is not None and error.code == CONFLICT else None

    async def _end(self) -> None:
        """What the states merge to at the end, where the run says what that was."""
        history, recorded_conflict = self._history, self._conflict()
        if history.phase is not RunPhase.Completed and recorded_conflict is None:
            return
        try:
            final_id = await self._judge.contexts.final()
        except ContextFailure as failure:
            if recorded_conflict and safe_info(failure.info).details == recorded_conflict.details:
                return
            self._divergences.append(
                Divergence(
                    state_id=None,
                    attempt=None,
                    kind=DivergenceKind.final_context,
                    key=key_of(failure),
                    recorded=history.final_snapshot_id,
                    diff=(f"+ failed: {CONFLICT}: {failure.info.message}",),
                )
            )
            return
        recorded_id = history.final_snapshot_id
        if final_id == recorded_id:
            return
        replayed = Snapshot.of_bytes(self._judge.artifacts.latest or b"{}")
        if recorded_id is None or replayed.artifact_id != final_id:
            # A last state whose snapshot is not the run's: both are recorded.
            found = Divergence(
                state_id=None,
                attempt=None,
                kind=DivergenceKind.final_context,
                recorded=recorded_id,
                replayed=final_id,
            )
        else:
            recorded = Snapshot.of_bytes(await self._env.stores.artifacts.get(recorded_id))
            found = context_divergence(None, recorded, replayed, DivergenceKind.final_context)
        self._divergences.append(found)
