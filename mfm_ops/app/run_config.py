"""The run config that a caller's options come to: the default one, where they say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import EventProfile, ExecutionMode, OnStateFailure, RunConfig
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.machine.meta import Tag
from mfm_ops.sdk.launcher import default_run_config

if TYPE_CHECKING:
    from mfm_ops.app.core import RunOptions

__all__ = ["run_config_for"]


def run_config_for(options: RunOptions) -> RunConfig:
    """The config; `allow_flakes` are added to the flakes that are allowed by default.

    Raises:
        SettingsFailure: `usage`, for a flake that no app could ever be of.
    """
    config = default_run_config()
    update: dict[str, object] = {}
    if options.event_profile is not None:
        update["event_profile"] = EventProfile(options.event_profile)  # type: ignore[arg-type]
    if options.max_attempts is not None:
        update["retry_policy"] = config.retry_policy.model_copy(
            update={"max_attempts": options.max_attempts}
        )
    if options.skip_tags:
        update["skip_tags"] = tuple(Tag(tag) for tag in options.skip_tags)
    if options.parallel is not None:
        update["execution_mode"] = ExecutionMode.fan_out_join(options.parallel)
    if options.finish_running:
        update["on_state_failure"] = OnStateFailure.FinishRunning
    for name in ("run_deadline_ms", "state_deadline_ms"):
        deadline_ms = getattr(options, name)
        if deadline_ms is not None:
            update[name] = deadline_ms
    allow_flakes = options.allow_flakes
    if allow_flakes:
        _require_plausible(allow_flakes)
        allowed = (*config.nix_flake_allowlist, *allow_flakes)
        update["nix_flake_allowlist"] = tuple(dict.fromkeys(allowed))
    return config.model_copy(update=update)


def _require_plausible(flakes: tuple[str, ...]) -> None:
    from transports.nix_refs import is_plausible_entry

    for flake in flakes:
        if not is_plausible_entry(flake):
            raise SettingsFailure(
                error_info(
                    "usage",
                    "--allow-flake takes a flake ref with its scheme, such as github:OWNER/REPO, "
                    "git+file:///DIRECTORY or path:.",
                )
            )
