"""`mfm run cancel`, `resolve` and `fork`: what a person does to a run that is there.

What is appended is decided in `runtime.control` and `runtime.fork`; here stands who asks, and what
follows: ending a run that nobody drives, driving a fork.
"""

from __future__ import annotations

import getpass
import platform
from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Final, NamedTuple

from mfm_ops.app.outcome import Outcome, outcome_of
from mfm_ops.app.workspace import Requirements
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import RunError, RunFailure, SettingsFailure
from mfm_ops.machine.events import RunStatus
from mfm_ops.machine.ids import FactKey, IdValidationError, RunId, StateId

if TYPE_CHECKING:
    from mfm_ops.app.core import App, Watch
    from mfm_ops.app.signals import Seen
    from mfm_ops.machine.canonical import Json
    from mfm_ops.runtime.control import Requester
    from mfm_ops.runtime.records import RunHistory
    from mfm_ops.storage.sqlite import SqliteStore

__all__ = ["Cancelled", "cancel_run", "fork_and_run", "resolve_state"]

_POLL_S: Final = 0.1


class Cancelled(NamedTuple):
    """How a cancelled run stands; `waited` is false where its driver has not ended it yet."""

    run_id: RunId
    ended: bool
    driver: dict[str, Json] | None


def cancel_run(
    app: App, reference: str, *, why: str, force: bool, wait_s: float, watch: Watch
) -> Cancelled:
    """Ask for a run's end, and wait for its driver to bring it; nobody's run is ended here.

    With `force` a driver that does not answer is taken over: it is fenced when it wakes up.

    Raises:
        RunFailure: `run_over`, `secrets_detected`.
        StorageFailure, SettingsFailure: as `reports.resolve_run`; the store failed.
        Interrupted: a signal came first; the request stays.
    """

    async def work(store: SqliteStore, seen: Seen) -> Cancelled:
        import anyio

        from mfm_ops.app.reports import resolve_run
        from mfm_ops.runtime.control import close_cancelled, request_cancel
        from mfm_ops.runtime.driver import is_alive

        stores = Stores(events=store, artifacts=store)
        run_id = await resolve_run(store, reference)
        asks = _requester(why)
        history = await request_cancel(stores, run_id, asks)
        with anyio.move_on_after(wait_s):
            while history.status is None and _driven(history) and not force:
                await anyio.sleep(_POLL_S)
                history = await request_cancel(stores, run_id, asks)
        if history.status is None and (force or not _driven(history)):
            seen.run_id = run_id
            engine = app.engine(app.build(), watch, seen)
            try:
                await engine.resume(stores, run_id, take_over=force)
            except (RunFailure, SettingsFailure) as failure:
                if failure.info.code not in _NOT_PLANNED:
                    raise
                await close_cancelled(stores, run_id, asks)
            history = await request_cancel(stores, run_id, asks)
        driver = history.driver if history.driver and is_alive(history.driver) else None
        return Cancelled(run_id, history.status is RunStatus.Cancelled, driver)

    return app.drive(work)


# The op is gone, or expands to something else: its run can be ended all the same.
_NOT_PLANNED: Final = frozenset(
    {
        "import_unresolved",
        "invalid_plan",
        "manifest_mismatch",
        "op_config_invalid",
        "op_unknown",
        "pipeline_invalid",
        "plan_changed",
        "unsupported_format",
    }
)


def _driven(history: RunHistory) -> bool:
    from mfm_ops.runtime.driver import is_alive

    return history.driver is not None and is_alive(history.driver)


def resolve_state(
    app: App,
    reference: str,
    state: str,
    *,
    resolution: str,
    result: Json,
    key: str | None,
    why: str,
) -> RunHistory:
    """Say what became of a state's effect; raises as `control.resolve_effect`."""

    async def work(store: SqliteStore, _: Seen) -> RunHistory:
        from mfm_ops.app.reports import read_history, resolve_run
        from mfm_ops.runtime.control import resolve_effect
        from mfm_ops.runtime.records import Resolution

        run_id = await resolve_run(store, reference)
        history = await read_history(store, run_id)
        return await resolve_effect(
            Stores(events=store, artifacts=store),
            run_id,
            _state_named(history, state),
            Resolution(resolution),
            _requester(why),
            result=result,
            key=None if key is None else FactKey(key),
        )

    return app.drive(work)


def fork_and_run(
    app: App,
    reference: str,
    state: str | None,
    overrides: Mapping[str, Json],
    *,
    watch: Watch,
    requires: Requirements,
) -> Outcome:
    """Fork a run and drive the fork to its end; without `state`, from the one that failed.

    Raises:
        Interrupted: a signal came; the fork resumes.
        RunFailure: `fork_invalid`, `secrets_detected`; as `Engine.resume`.
        SettingsFailure: the op is not installed, or the workspace is not what is required.
        StorageFailure: as `reports.resolve_run`; the store failed.
    """

    async def work(store: SqliteStore, seen: Seen) -> Outcome:
        from mfm_ops.app.reports import load_manifest, read_history, resolve_run
        from mfm_ops.runtime.fork import ForkRun, fork_run
        from mfm_ops.runtime.sources import Sources
        from mfm_ops.sdk.planner import build_plan, read_input_params, renewed

        source = await resolve_run(store, reference)
        manifest, _ = await load_manifest(store, source)
        history = await read_history(store, source)
        manifest = renewed(manifest, app.ops)
        pipeline, _ = read_input_params(manifest)
        uses_nix = any(app.ops[step.op_id].uses_nix for step in pipeline.steps)
        build, workspace = app.begin_look(requires, uses_nix=uses_nix)()
        manifest = manifest.model_copy(update={"build": build, "workspace": workspace})
        stores = Stores(events=store, artifacts=store)
        fork = ForkRun(
            source=source,
            state_id=_failed_state(history) if state is None else _state_named(history, state),
            overrides=overrides,
            manifest=manifest,
            plan=build_plan(manifest, app.ops),
            run_id=RunId.random(),
        )
        forked = await fork_run(stores, fork, Sources())
        seen.run_id = fork.run_id
        result = await app.engine(build, watch, seen).resume(stores, fork.run_id)
        return await outcome_of(store, result, manifest, forked.manifest_id, app.ops)

    return app.drive(work)


def _failed_state(history: RunHistory) -> StateId:
    failure = history.failure
    if failure is None or failure.state_id is None:
        info = error_info(
            "fork_invalid",
            "no state of this run failed; name the one to fork from",
            run_id=history.run_id,
            reason="no_failed_state",
        )
        raise RunFailure(RunError(Other=info))
    return failure.state_id


def _state_named(history: RunHistory, name: str) -> StateId:
    """The state of that id, or the only one whose id ends so: `main.pay`, or `pay`."""
    if name.count(".") == 2:
        try:
            return StateId(name)
        except IdValidationError:
            pass
    found = [state for state in history.states if str(state).endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    info = error_info(
        "usage",
        f"the run has {'several states' if found else 'no state'} of that name; give its whole id",
    )
    raise SettingsFailure(info)


def _requester(why: str) -> Requester:
    from mfm_ops.runtime.control import Requester

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return Requester(f"{user}@{platform.node()}", why, lambda: time_ns() // 1_000_000)
