"""Starts and resumes runs: settings in, stores and engine composed, outcome out.

Looking at runs is left to `reports`, this host's fitness to `checkup`, what is installed to
`installed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mfm_ops.app.installed import InstalledOps, InstalledTransports, built_in_factories
from mfm_ops.app.nix_roots import release_ended
from mfm_ops.app.outcome import Outcome, outcome_of
from mfm_ops.app.signals import Interrupted, Seen, until_signalled
from mfm_ops.app.workspace import Requirements, begin_look, build_to_resume
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfm_ops.app.workspace import Provenance
    from mfm_ops.machine.canonical import Json
    from mfm_ops.machine.config import BuildProvenance
    from mfm_ops.machine.events import EventEnvelope
    from mfm_ops.machine.plan import ExecutionPlan
    from mfm_ops.runtime.executor import Engine
    from mfm_ops.sdk.operation import AnyOperation, OpConfig
    from mfm_ops.storage.memory import MemoryStore
    from mfm_ops.storage.sqlite import SqliteStore
    from transports.nix_resolver import NixSite

__all__ = ["App", "Interrupted", "Outcome", "RunOptions", "Watch"]

T = TypeVar("T")


class RunOptions(NamedTuple):
    """What a caller may choose about a run; None leaves it to the default run config.

    `parallel` is how many states may run at once, `finish_running` lets those that run finish
    when another one fails. `requires` is no part of the run: it says where it may not be started.
    """

    run_key: str | None = None
    event_profile: str | None = None
    max_attempts: int | None = None
    skip_tags: tuple[str, ...] = ()
    allow_flakes: tuple[str, ...] = ()
    parallel: int | None = None
    finish_running: bool = False
    run_deadline_ms: int | None = None
    state_deadline_ms: int | None = None
    requires: Requirements = Requirements()


class Watch(NamedTuple):
    """Who is told while a run goes on: of durable events, and of programs' standard error."""

    on_event: Callable[[EventEnvelope], None] | None = None
    on_stderr: Callable[[bytes], None] | None = None


class App:
    """mfm over one set of settings. `environ` and `cwd` are what provenance may look at."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        cwd: Path,
        ops: InstalledOps | None = None,
    ) -> None:
        self.settings = settings
        self.ops = InstalledOps() if ops is None else ops
        self._environ = environ
        self._cwd = cwd

    def transports(self, watch: Watch | None = None) -> InstalledTransports:
        """Every transport that is installed, under the settings' policy."""
        policy = self.settings.exec_policy
        sink = watch.on_stderr if watch else None
        return InstalledTransports(
            built_in_factories(
                replace(policy, pass_stderr=sink is not None),
                sink,
                site_policy=self.settings.site_policy(),
                nix_site=self._nix_site,
                keystore_dir=self.settings.keystore_dir,
                keystore_named=self.settings.keystore_named,
            )
        )

    def build(self) -> BuildProvenance:
        """Which build of mfm this is."""
        from mfm_ops.sdk.provenance import collect_build

        return collect_build(self.settings.env_allowlist, self._environ)

    @contextmanager
    def store(self) -> Iterator[SqliteStore]:
        """The settings' store, made if it is missing."""
        from mfm_ops.storage.sqlite import open_sqlite_store

        opened = open_sqlite_store(self.settings.require_store_path())
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def store_to_read(self) -> Iterator[SqliteStore | MemoryStore]:
        """The settings' store, which is not changed.

        A default store that nothing was written to yet is an empty one, not an error.
        """
        path = self.settings.require_store_path()
        chosen = next(o.source for o in self.settings.origins if o.key == "store.path")
        if chosen == "default" and not path.exists():
            from mfm_ops.storage.memory import MemoryStore

            yield MemoryStore()
            return
        from mfm_ops.storage.sqlite import open_sqlite_store

        opened = open_sqlite_store(path, create=False, read_only=True)
        try:
            yield opened
        finally:
            opened.close()

    def start_op(
        self, op: AnyOperation, config: OpConfig, options: RunOptions, watch: Watch
    ) -> Outcome:
        """Run one op to its end, to a park, or until a signal.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP came; programs are dead, the stream resumes.
            SettingsFailure, RunFailure, StorageFailure: as `RunLauncher` and `begin_look`.
        """
        look = self.begin_look(options.requires, uses_nix=op.uses_nix)
        # All that the run needs, so that git answers meanwhile.
        import mfm_ops.runtime.executor
        import mfm_ops.storage.sqlite  # noqa: F401
        from mfm_ops.app.run_config import run_config_for
        from mfm_ops.runtime.context import JsonContext
        from mfm_ops.sdk.launcher import RunLauncher
        from mfm_ops.sdk.pipeline import single_op_pipeline

        # Before the store is opened: what cannot run leaves no file behind.
        pipeline = single_op_pipeline(op, config)
        run_config = run_config_for(options)
        build, workspace = look()

        async def work(store: SqliteStore, seen: Seen) -> Outcome:
            stores = Stores(events=store, artifacts=store)
            launcher = RunLauncher(
                registry=self.ops,
                engine=self.engine(build, watch, seen),
                stores=stores,
                make_context=lambda values: JsonContext({**values}),
                build=build,
                workspace=workspace,
            )
            prepared = launcher.prepare(pipeline, run_config)
            _require_tags(prepared.plan, options.skip_tags)
            result = await launcher.launch(prepared, run_key=options.run_key)
            return await outcome_of(
                store, result, prepared.manifest, prepared.manifest_id, self.ops
            )

        return self.drive(work)

    def begin_look(self, requires: Requirements, *, uses_nix: bool) -> Callable[[], Provenance]:
        """See `workspace.begin_look`: what is built of what, where the caller stands."""
        return begin_look(
            self._cwd, self.settings.env_allowlist, self._environ, requires, uses_nix=uses_nix
        )

    def resume(self, reference: str, *, take_over: bool, watch: Watch) -> Outcome:
        """Go on with a run, named as in `reports.resolve_run`; raises as `start_op`."""
        from mfm_ops.app.reports import resolve_run

        build = self.build()

        async def work(store: SqliteStore, seen: Seen) -> Outcome:
            from mfm_ops.app.reports import load_manifest

            run_id = await resolve_run(store, reference)
            manifest, manifest_id = await load_manifest(store, run_id)
            seen.run_id = run_id
            stores = Stores(events=store, artifacts=store)
            engine = self.engine(build_to_resume(build, manifest.build), watch, seen)
            result = await engine.resume(stores, run_id, take_over=take_over)
            return await outcome_of(store, result, manifest, manifest_id, self.ops)

        return self.drive(work)

    def run_list(self, limit: int | None) -> list[dict[str, Any]]:
        """See `listing.run_list`."""
        from mfm_ops.app import listing

        return self.ask(lambda store: listing.run_list(store, limit))

    def run_status(self, reference: str) -> dict[str, Json]:
        """See `status.run_status`."""
        from mfm_ops.app import status

        return self.ask(lambda store: status.run_status(store, reference))

    def run_events(self, reference: str) -> list[bytes]:
        """The canonical bytes of all of a run's events."""
        from mfm_ops.app import reports

        return self.ask(lambda store: reports.run_events(store, reference))

    def follow_events(
        self, reference: str, show: Callable[[bytes], None], watched: Callable[[], bool]
    ) -> None:
        """Call `show` with each event's canonical bytes until the run is over, or not `watched`."""
        from mfm_ops.app import reports

        self.ask(lambda store: reports.follow_events(store, reference, show, watched))

    def run_facts(self, reference: str) -> dict[str, Any]:
        """See `reports.run_facts`."""
        from mfm_ops.app import reports

        return self.ask(lambda store: reports.run_facts(store, reference))

    def run_manifest(self, reference: str) -> dict[str, Json]:
        """See `reports.run_manifest`."""
        from mfm_ops.app import reports

        return self.ask(lambda store: reports.run_manifest(store, reference))

    def artifact(self, reference: str) -> tuple[dict[str, Json], bytes]:
        """See `reports.artifact`."""
        from mfm_ops.app import reports

        return self.ask(lambda store: reports.artifact(store, reference))

    def describe_op(self, op_id: str) -> dict[str, Json] | None:
        """What an op takes and gives; None when it is not installed."""
        from mfm_ops.app.describe import describe_op

        found = self.ops.find(op_id)
        return None if found is None else describe_op(found, self.ops.origin(op_id))

    def check_up(self) -> dict[str, Json]:
        """See `checkup.check_up`."""
        from mfm_ops.app.checkup import check_up

        return check_up(self)

    def ask(self, question: Callable[[SqliteStore | MemoryStore], Coroutine[Any, Any, T]]) -> T:
        import asyncio

        with self.store_to_read() as store:
            return asyncio.run(question(store))

    def drive(self, work: Callable[[SqliteStore, Seen], Awaitable[T]]) -> T:
        """Do what writes to the store; a signal ends it.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP came.
        """
        seen = Seen()
        with self.store() as store:

            async def whole() -> T:
                outcome = await work(store, seen)
                await release_ended(store, self.settings.require_store_path())
                return outcome

            return until_signalled(whole, seen)

    def _nix_site(self) -> NixSite:
        from mfm_ops.app.nix_site import nix_site

        return nix_site(self.settings, self._environ, self._cwd)

    def engine(self, build: Any, watch: Watch, seen: Seen) -> Engine:
        """An engine under the settings' policy; `seen` learns which run it drives."""
        from mfm_ops.runtime.executor import Engine
        from mfm_ops.sdk.child_planner import ChildRunPlanner
        from mfm_ops.sdk.planner import build_plan

        def observe(envelope: EventEnvelope) -> None:
            # The first one that is heard of: the others are its children.
            seen.run_id = seen.run_id or envelope.run_id
            if watch.on_event:
                watch.on_event(envelope)

        return Engine(
            registry=self.transports(watch),
            build_plan=lambda manifest: build_plan(manifest, self.ops),
            build=build,
            policy=self.settings.site_policy(),
            observer=observe,
            child_planner=ChildRunPlanner(self.ops),
        )


def _require_tags(plan: ExecutionPlan, tags: tuple[str, ...]) -> None:
    """A misspelt tag would skip nothing, and what should have been skipped would run."""
    known = {str(tag) for node in plan.graph.states for tag in node.state.meta().tags}
    for tag in tags:
        if tag not in known:
            info = error_info("usage", "--skip-tag: no state of the op has the tag.")
            raise SettingsFailure(info)
