"""From what a state asks to a child run that could start: manifest, plan, initial context.

Pure but for the planner's own work, which is handed in: which ops there are is the SDK's to know.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from pydantic import ValidationError

from mfm_ops.machine.canonical import (
    CanonicalError,
    Json,
    artifact_id_for_json,
    canonical_json_bytes,
    json_pointer,
)
from mfm_ops.machine.child_runs import ChildRunConfig, SpawnChildRun
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunConfig, RunManifest
from mfm_ops.machine.engine import StartRun
from mfm_ops.machine.errors import (
    ContextFailure,
    MfmFailure,
    RunFailure,
    SettingsFailure,
    TransportFailure,
)
from mfm_ops.machine.ids import RunId
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.wire import Wire
from mfm_ops.runtime.context import JsonContext, Snapshot
from mfm_ops.runtime.persist import Refused, refuse_secrets

__all__ = [
    "ChildPlanner",
    "child_config",
    "not_plannable",
    "parse_request",
    "plan_child",
    "start_of",
]

W = TypeVar("W", bound=Wire)


class ChildPlanner(Protocol):
    """What the engine must be told about ops to run children; pure."""

    def manifest(
        self, spawn: SpawnChildRun, run_config: RunConfig, parent: RunManifest
    ) -> RunManifest:
        """The child's manifest: its own op and input, the parent's build and workspace.

        Raises:
            SettingsFailure, RunFailure: the op is not there, or not so.
        """

    def initial_values(self, manifest: RunManifest) -> Mapping[str, Json]:
        """The context that a run of `manifest` begins with."""

    def outputs(self, manifest: RunManifest, snapshot: Mapping[str, Json]) -> dict[str, Json]:
        """What a completed run of `manifest` exports of its final context, by port."""


def parse_request(model: type[W], request: Json) -> W:
    """The request as it is meant.

    Raises:
        TransportFailure: `child_run_invalid` with the place.
    """
    try:
        return model.model_validate_json(canonical_json_bytes(request))
    except CanonicalError as refused:
        place, reason = refused.pointer, refused.code
    except ValidationError as refused:
        # pydantic's name for the fault, never its sentence: that may quote the input.
        fault = refused.errors(include_url=False, include_context=False, include_input=False)[0]
        place, reason = json_pointer(fault["loc"]), fault["type"]
    raise _invalid(place, reason)


def child_config(parent: RunConfig, asked: ChildRunConfig | None) -> RunConfig:
    """The child's run config: the parent's, but for what was asked.

    Raises:
        TransportFailure: `child_run_invalid` for a flake that the parent may not use.
    """
    changes: dict[str, object] = {"skip_tags": (), "replay_of": None}
    if asked is not None:
        changes |= {name: getattr(asked, name) for name in asked.model_fields_set}
        for index, entry in enumerate(asked.nix_flake_allowlist or ()):
            if entry not in parent.nix_flake_allowlist:
                raise _invalid(f"/run_config/nix_flake_allowlist/{index}", "wider_than_parent")
    for name in ("event_profile", "execution_mode", "retry_policy", "nix_flake_allowlist"):
        if changes.get(name, "") is None:
            raise _invalid(f"/run_config/{name}", "none_not_allowed")
    return parent.model_copy(update=changes)


def plan_child(
    planner: ChildPlanner,
    build_plan: Callable[[RunManifest], ExecutionPlan],
    spawn: SpawnChildRun,
    parent: RunManifest,
    run_id: RunId,
) -> StartRun:
    """All that the child needs to start; nothing is stored.

    Raises:
        TransportFailure: `child_run_invalid`, or `secrets_detected`.
    """
    config = child_config(parent.run_config, spawn.run_config)
    try:
        manifest = planner.manifest(spawn, config, parent)
        run = start_of(planner, build_plan, manifest, run_id)
        # What a start would refuse must be refused before the child is recorded.
        refuse_secrets(Snapshot.of_values(run.initial_context.dump()).canonical_bytes())
        refuse_secrets(canonical_json_bytes(manifest.model_dump(mode="json")))
    except Refused as refused:
        raise TransportFailure(refused.info) from None
    except (SettingsFailure, RunFailure, ContextFailure) as failure:
        raise not_plannable(failure) from None
    return run


def start_of(
    planner: ChildPlanner,
    build_plan: Callable[[RunManifest], ExecutionPlan],
    manifest: RunManifest,
    run_id: RunId,
) -> StartRun:
    """The start of the run that `manifest` describes; raises as the planner."""
    return StartRun(
        manifest=manifest,
        manifest_id=artifact_id_for_json(manifest.model_dump(mode="json")),
        plan=build_plan(manifest),
        run_config=manifest.run_config,
        initial_context=JsonContext(planner.initial_values(manifest)),
        run_id=run_id,
    )


def not_plannable(failure: MfmFailure) -> TransportFailure:
    """What the planner refused, as a transport says it: `child_run_invalid`."""
    details = failure.info.details if isinstance(failure.info.details, dict) else {}
    about = {name: details[name] for name in ("pointer", "op_id") if name in details}
    info = error_info(
        "child_run_invalid",
        "the child run cannot be planned",
        reason=str(failure.info.code),
        **about,
    )
    return TransportFailure(info)


def _invalid(pointer: str, reason: str) -> TransportFailure:
    return TransportFailure(
        error_info(
            "child_run_invalid",
            "the request is not one for a child",
            pointer=pointer,
            reason=reason,
        )
    )
