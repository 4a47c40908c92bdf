"""What the engine refuses before anything is stored, and how it says so.

Pure: a start's parts, or a stream's last driver, in; the contract's errors out.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mfm_ops.machine.canonical import Json, artifact_id_for_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import IoMode
from mfm_ops.machine.engine import StartRun
from mfm_ops.machine.errors import ContextFailure, RunError, RunFailure, StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.machine.plan import ExecutionPlan, GraphValidator, PlanInvalid
from mfm_ops.runtime.driver import is_alive
from mfm_ops.runtime.persist import Refused, refuse_secrets, scanned_canonical_bytes
from mfm_ops.runtime.records import RunHistory

__all__ = [
    "as_run_failures",
    "busy",
    "refuse_busy",
    "run_failure",
    "validate_plan",
    "validate_start",
]


def validate_start(run: StartRun, policy: bytes | None) -> bytes:
    """All that a start checks before anything is stored; the manifest's bytes.

    Raises:
        RunFailure: `invalid_plan`, `secrets_detected`, `manifest_mismatch`, `config_unsupported`.
    """
    validate_plan(run.plan)
    try:
        if policy is not None:
            refuse_secrets(policy)
        manifest = scanned_canonical_bytes(
            run.manifest.model_dump(mode="json"), "manifest_mismatch"
        )
    except Refused as refused:
        raise RunFailure(RunError(Other=refused.info)) from None
    for field, same in (
        ("manifest_id", artifact_id_for_bytes(manifest) == run.manifest_id),
        ("op_id", run.manifest.op_id == run.plan.op_id),
        ("run_config", run.manifest.run_config == run.run_config),
    ):
        if not same:
            raise run_failure(
                "manifest_mismatch", "manifest, plan and run config disagree", field=field
            )
    config = run.run_config
    if config.context_checkpointing.variant != "AfterEveryState":
        raise run_failure("config_unsupported", "not supported yet", field="context_checkpointing")
    if config.io_mode is IoMode.Replay and config.replay_of is None:
        raise run_failure(
            "config_unsupported",
            "a replay names the run whose facts it reads",
            field="replay_of",
        )
    return manifest


def validate_plan(plan: ExecutionPlan) -> None:
    """Raise `invalid_plan` when the plan cannot be executed."""
    try:
        GraphValidator().validate(plan)
    except PlanInvalid as invalid:
        body = invalid.error.value
        found = body.model_dump(mode="json") if body is not None else {}
        info = error_info(
            "invalid_plan", "the plan cannot be executed", reason=invalid.error.variant, **found
        )
        raise RunFailure(RunError(InvalidPlan=info)) from None


@contextmanager
def as_run_failures() -> Iterator[None]:
    """What stores and contexts raise, as the engine's own failure with the same record."""
    try:
        yield
    except StorageFailure as failure:
        raise RunFailure(RunError(Storage=failure.error)) from failure
    except ContextFailure as failure:
        raise RunFailure(RunError(Context=failure.error)) from failure


def refuse_busy(history: RunHistory, take_over: bool, but: str = "") -> None:
    """Raise `run_busy` when a driver is at work, other than `but`, and is not to be taken over."""
    driver = history.driver
    if driver and not take_over and driver.get("driver_id") != but and is_alive(driver):
        raise busy(history.run_id, driver)


def busy(run_id: RunId, driver: dict[str, Json]) -> RunFailure:
    """`run_busy`, with what its mark says of `driver`."""
    who = {key: driver[key] for key in ("driver_id", "pid", "host") if key in driver}
    return run_failure("run_busy", "another process drives this run", run_id=run_id, **who)


def run_failure(code: str, message: str, **details: Json) -> RunFailure:
    """A failure of the run itself."""
    return RunFailure(RunError(Other=error_info(code, message, **details)))
