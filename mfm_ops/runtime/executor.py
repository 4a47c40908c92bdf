"""The engine: starts and resumes runs (the contract, section 5).

It marks who drives and puts together what a driver needs. What is refused before anything is stored
is left to `refusals`, driving the states to `drive`, one attempt to `attempt`.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json, artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.config import BuildProvenance, IoMode, RunConfig, RunManifest
from mfm_ops.machine.engine import RunResult, StartRun, Stores
from mfm_ops.machine.errors import RunError, RunFailure
from mfm_ops.machine.events import EVENT_DRIVER, DomainEvent, EventEnvelope, KernelEvent, RunStarted
from mfm_ops.machine.ids import ArtifactId, RunId, StateId
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.runtime.child_door import ChildDoor, WithChildren
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.drive import drive
from mfm_ops.runtime.driver import this_process
from mfm_ops.runtime.facts import FactIndex
from mfm_ops.runtime.follow import follow
from mfm_ops.runtime.history import Folding, RunHistory
from mfm_ops.runtime.live_io import RunIo
from mfm_ops.runtime.manifests import load_manifest
from mfm_ops.runtime.persist import Persister, Refused, refuse_secrets
from mfm_ops.runtime.refusals import (
    as_run_failures,
    busy,
    refuse_busy,
    run_failure,
    validate_plan,
    validate_start,
)
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.runtime.sources import Sources
from mfm_ops.runtime.walk import DriveEnv
from mfm_ops.runtime.writer import CancelRequested, RunWriter

if TYPE_CHECKING:
    from mfm_ops.runtime.child_lineage import Lineage
    from mfm_ops.runtime.child_plan import ChildPlanner

__all__ = ["Engine"]

log = logging.getLogger(__name__)

# Between reading a stream and marking it there are milliseconds; a driver may write in each.
TAKE_OVER_TRIES = 1000

POLICY_KIND = ArtifactKind.other("Policy")


class Engine:
    """The `ExecutionEngine` of the seed.

    `build_plan` makes a manifest's plan again on resume; `policy` is the site's policy as JSON,
    stored with every run; `observer` is called with each event, of children too, once it is
    durable. Without a `child_planner` runs have no children.
    """

    def __init__(
        self,
        *,
        registry: TransportRegistry,
        build_plan: Callable[[RunManifest], ExecutionPlan],
        build: BuildProvenance,
        policy: Json = None,
        observer: Callable[[EventEnvelope], None] | None = None,
        sources: Sources | None = None,
        child_planner: "ChildPlanner | None" = None,
    ) -> None:
        self._registry = registry
        self._build_plan = build_plan
        self._build = build
        self._policy = None if policy is None else canonical_json_bytes(policy)
        self._observer = observer
        self._sources = sources or Sources()
        self._child_planner = child_planner

    @property
    def policy_id(self) -> ArtifactId | None:
        """The id of the policy artifact, which stands in every fact."""
        return None if self._policy is None else artifact_id_for_bytes(self._policy)

    async def start(self, stores: Stores, run: StartRun) -> RunResult:
        """See `ExecutionEngine.start`."""
        with as_run_failures():
            return await self._start(stores, run)

    async def resume(self, stores: Stores, run_id: RunId, *, take_over: bool = False) -> RunResult:
        """See `ExecutionEngine.resume`; `take_over` goes past a driver that still lives."""
        with as_run_failures():
            return await self._resume(stores, run_id, take_over=take_over)

    async def _start(
        self, stores: Stores, run: StartRun, lineage: "Lineage | None" = None
    ) -> RunResult:
        manifest, digest = validate_start(run, self._policy)
        run_id = run.run_id or RunId.random()
        if await stores.events.head_seq(run_id):
            return await self._start_again(stores, run, run_id, lineage)
        initial = Snapshot.of_values(run.initial_context.dump())
        try:
            refuse_secrets(initial.canonical_bytes())
        except Refused as refused:
            raise RunFailure(RunError(Other=refused.info)) from None
        env = await self._env(
            stores,
            run_id,
            run.plan,
            run.run_config,
            run.manifest_id,
            initial=initial,
            lineage=lineage,
        )
        await env.io.persister.trusted(ArtifactKind.ContextSnapshot, initial.canonical_bytes())
        await env.io.persister.trusted(ArtifactKind.Manifest, manifest)
        env.io.writer.add_kernel(
            KernelEvent(
                RunStarted=RunStarted(
                    op_id=run.plan.op_id,
                    manifest_id=run.manifest_id,
                    initial_snapshot_id=initial.artifact_id,
                )
            )
        )
        if lineage is not None:
            env.io.writer.add_domain(lineage.event())
        try:
            await self._mark(env, digest)
        except RunFailure as failure:
            if failure.info.code != "run_busy":
                raise
            # Somebody began the same run at the same moment, and may have ended it.
            return await self._start_again(stores, run, run_id, lineage)
        return await drive(env)

    async def _resume(
        self,
        stores: Stores,
        run_id: RunId,
        lineage: "Lineage | None" = None,
        *,
        take_over: bool = False,
    ) -> RunResult:
        folding = Folding(run_id)
        history = await follow(stores.events, folding)
        if history.status is not None:
            return history.result
        take_over = take_over or (lineage is not None and lineage.supersedes(history.driver))
        refuse_busy(history, take_over)
        persister = Persister(stores.artifacts)
        manifest = await load_manifest(persister, history.manifest_id)
        plan = self._build_plan(manifest)
        digest = validate_plan(plan)
        recorded = history.drivers[0].get("plan_digest") if history.drivers else None
        if recorded is not None and recorded != digest:
            raise run_failure(
                "plan_changed", "the op expands to another plan now", run_id=run_id, field="plan"
            )
        initial = Snapshot.of_bytes(await persister.load_bytes(history.initial_snapshot_id))
        self._warn_of_another_build(history)
        for tries_left in reversed(range(TAKE_OVER_TRIES)):
            env = await self._env(
                stores,
                run_id,
                plan,
                manifest.run_config,
                history.manifest_id,
                initial=initial,
                history=history,
                lineage=lineage,
            )
            try:
                await self._mark(env, digest)
                if env.io.writer.head_seq == history.head_seq + 1:
                    break
            except RunFailure as failure:
                if not tries_left or failure.info.code != "run_busy":
                    raise
            # In between wrote an old driver, which the mark is to fence, or who resolved an effect.
            history = await follow(stores.events, folding)
            if history.status is not None:
                return history.result
            refuse_busy(history, take_over, but=env.driver.driver_id)
        return await drive(env)

    def _warn_of_another_build(self, history: RunHistory) -> None:
        last = history.drivers[-1].get("build") if history.drivers else None
        if last is not None and last != self._build.model_dump(mode="json"):
            log.warning("run %s goes on with another build of mfm", history.run_id)

    async def _start_again(
        self, stores: Stores, run: StartRun, run_id: RunId, lineage: "Lineage | None"
    ) -> RunResult:
        """A run key names a run that is there already: the same manifest makes it the same run."""
        first = await stores.events.read_range(run_id, 1, 1)
        event = first[0].event
        started = event.Kernel.RunStarted if event.variant == "Kernel" else None
        if started is None or started.manifest_id != run.manifest_id:
            raise run_failure("run_exists", "a run with this id exists already", run_id=run_id)
        return await self._resume(stores, run_id, lineage)

    async def _env(
        self,
        stores: Stores,
        run_id: RunId,
        plan: ExecutionPlan,
        config: RunConfig,
        manifest_id: ArtifactId,
        *,
        initial: Snapshot,
        history: RunHistory | None = None,
        lineage: "Lineage | None" = None,
    ) -> DriveEnv:
        source = None
        if config.replay_of is not None:
            source = await follow(stores.events, Folding(config.replay_of))
        # What a replay is told, its source was told; a live run remembers what it was told itself.
        told = source if config.io_mode is IoMode.Replay else history
        persister = Persister(stores.artifacts)
        writer = RunWriter(
            stores.events,
            run_id,
            history.head_seq if history else 0,
            now_millis=self._sources.now_millis,
            observer=self._observer,
        )
        io = RunIo(
            facts=FactIndex(told.facts.values() if told else ()),
            persister=persister,
            writer=writer,
            sources=self._sources,
            policy_id=self.policy_id,
        )
        env = DriveEnv(
            stores=stores,
            run_id=run_id,
            manifest_id=manifest_id,
            config=config,
            plan=plan,
            initial=initial,
            history=history,
            io=io,
            registry=self._registry,
            driver=this_process(),
            overrides=await _overrides(persister, history),
            replay_source=source,
            lineage=lineage,
        )
        if self._child_planner is None:
            return env
        door = ChildDoor(env, self._child_planner, self._build_plan, self._start, self._resume)
        return env._replace(children=door, registry=WithChildren(self._registry, door))

    async def _mark(self, env: DriveEnv, digest: ArtifactId) -> None:
        """Say who drives now, which fences all others.

        Raises:
            RunFailure: `run_busy` when somebody else was first; nothing of this driver is stored.
        """
        policy_id = self.policy_id
        if self._policy is not None:
            await env.io.persister.trusted(POLICY_KIND, self._policy)
        mark: dict[str, Json] = {
            **env.driver.to_json(),
            "plan_digest": str(digest),
            "build": self._build.model_dump(mode="json"),
            "policy_digest": None if policy_id is None else str(policy_id),
        }
        if env.lineage is not None:
            mark["for_driver"] = env.lineage.driver_id
        env.io.writer.add_domain(DomainEvent(name=EVENT_DRIVER, payload=mark))
        try:
            await env.io.writer.flush()
        except RunFailure as failure:
            if failure.info.code != "run_fenced":
                raise
            winner = failure.info.details if isinstance(failure.info.details, dict) else {}
            raise busy(env.run_id, winner) from None
        except CancelRequested:
            # The walk meets the same request before its first state.
            pass


async def _overrides(persister: Persister, history: RunHistory | None) -> Mapping[StateId, Delta]:
    if history is None or history.forked_from is None:
        return {}
    # Here and not above: few runs are forks, and the others start sooner without.
    from mfm_ops.runtime.fork import load_overrides

    return await load_overrides(persister, history.forked_from)
