"""`machine.child_run.spawn` and `.await`, answered by the engine itself (contract, section 8).

Recording the answer is left to `live_io`, the children's own lives to `child_runs`.
"""

from typing import Final, cast

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.machine.child_runs import (
    NAMESPACE_AWAIT,
    NAMESPACE_SPAWN,
    AwaitChildRun,
    ChildFailure,
    ChildRunOutcome,
    SpawnChildRun,
    SpawnedChildRun,
    child_run_id,
)
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.errors import RunFailure, SettingsFailure, TransportFailure
from mfm_ops.machine.events import (
    DOMAIN_EVENT_CHILD_RUN_SPAWNED,
    ChildRunSpawned,
    DomainEvent,
    RunStatus,
)
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.child_lineage import ancestors
from mfm_ops.runtime.child_plan import not_plannable, parse_request, plan_child
from mfm_ops.runtime.child_runs import ChildRuns
from mfm_ops.runtime.follow import follow
from mfm_ops.runtime.history import Folding
from mfm_ops.runtime.linked import EngineTransport, LinkedReply

__all__ = ["ChildRunTransport"]

# How deep runs may be nested; a run that is nobody's child has depth 0.
MAX_DEPTH: Final = 16


class ChildRunTransport(EngineTransport):
    """Spawns and awaits the children of one run."""

    def __init__(self, children: ChildRuns, env: LiveIoEnv) -> None:
        self._children = children
        self._env = env

    async def call(self, call: IoCall) -> LinkedReply:
        """See `LiveIoTransport.call`; the answer brings the linkage event along."""
        if call.namespace == NAMESPACE_SPAWN:
            return await self._spawn(call)
        if call.namespace == NAMESPACE_AWAIT:
            return await self._await(parse_request(AwaitChildRun, call.request))
        raise TransportFailure(
            error_info("child_run_invalid", "there is no such call", pointer="", reason="namespace")
        )

    async def _spawn(self, call: IoCall) -> LinkedReply:
        request = parse_request(SpawnChildRun, call.request)
        children, parent = self._children, self._env.run_id
        depth = children.depth + 1
        if depth > MAX_DEPTH:
            info = error_info(
                "child_run_depth", "runs are nested too deep", depth=depth, limit=MAX_DEPTH
            )
            raise TransportFailure(info)
        key = call.fact_key
        assert key is not None, "live IO names the key of every call"
        child = child_run_id(parent, key)
        run = plan_child(
            children.engine.planner,
            children.engine.build_plan,
            request,
            await children.manifest(self._env.manifest_id),
            child,
        )
        manifest_id = run.manifest_id
        await self._refuse_cycle(manifest_id)
        manifest = canonical_json_bytes(run.manifest.model_dump(mode="json"))
        await children.env.io.persister.trusted(ArtifactKind.Manifest, manifest)
        spawned = ChildRunSpawned(
            parent_run_id=parent, child_run_id=child, child_manifest_id=manifest_id
        )
        event = DomainEvent(
            name=DOMAIN_EVENT_CHILD_RUN_SPAWNED, payload=spawned.model_dump(mode="json")
        )
        answer = SpawnedChildRun(child_run_id=child, child_manifest_id=manifest_id)
        return LinkedReply.of(
            answer.model_dump(mode="json"),
            event=lambda: event,
            # Only what is recorded is begun: the parent's stream is what a crash leaves to go by.
            recorded=lambda: children.spawned(child, key, manifest_id),
        )

    async def _refuse_cycle(self, manifest_id: ArtifactId) -> None:
        env = self._children.env
        above = await ancestors(env.stores.events, self._children.child_of)
        for run_id, theirs in [(env.run_id, env.manifest_id), *above]:
            if theirs == manifest_id:
                info = error_info(
                    "child_run_cycle",
                    "the run would be its own descendant",
                    run_id=str(run_id),
                    manifest_id=str(manifest_id),
                )
                raise TransportFailure(info)

    async def _await(self, request: AwaitChildRun) -> LinkedReply:
        children, child = self._children, request.child_run_id
        result, manifest_id = await children.result_of(child)
        outputs: dict[str, Json] | None = None
        failure: ChildFailure | None = None
        if result.phase is RunPhase.Completed and result.final_snapshot_id is not None:
            manifest = await children.manifest(manifest_id)
            snapshot = await children.env.io.persister.load_json(result.final_snapshot_id)
            try:
                outputs = children.engine.planner.outputs(manifest, cast(dict[str, Json], snapshot))
            except (SettingsFailure, RunFailure) as failed:
                raise not_plannable(failed) from None
        elif result.phase is RunPhase.Failed:
            failure = await self._failure(child)
        outcome = ChildRunOutcome(
            child_run_id=child,
            status=RunStatus(result.phase.value),
            final_snapshot_id=result.final_snapshot_id,
            outputs=outputs,
            failure=failure,
        )
        return LinkedReply.of(
            outcome.model_dump(mode="json"),
            event=lambda: children.completed_event(child),
        )

    async def _failure(self, child: RunId) -> ChildFailure | None:
        history = await follow(self._children.env.stores.events, Folding(child))
        error = history.failure
        return ChildFailure(code=error.info.code, state_id=error.state_id) if error else None
