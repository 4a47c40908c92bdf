"""What the engine refuses before anything is stored, and how it says so.

Pure: a start's parts, or a stream's last driver, in; the contract's errors out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mfm_ops.machine.canonical import Json, artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import IoMode
from mfm_ops.machine.engine import StartRun
from mfm_ops.machine.errors import ContextFailure, RunError, RunFailure, StorageFailure
from mfm_ops.machine.ids import ArtifactId, RunId, StateId
from mfm_ops.machine.plan import (
    ExecutionPlan,
    GraphValidator,
    PlanInvalid,
    StateNode,
    plan_digest,
)
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


def validate_start(run: StartRun, policy: bytes | None) -> tuple[bytes, ArtifactId]:
    """All that a start checks before anything is stored; the manifest's bytes, the plan's digest.

    Raises:
        RunFailure: `invalid_plan`, `secrets_detected`, `manifest_mismatch`, `config_unsupported`.
    """
    digest = validate_plan(run.plan)
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
    return manifest, digest


def validate_plan(plan: ExecutionPlan) -> ArtifactId:
    """The digest of a plan that can be executed; raises `invalid_plan` for another."""
    if not all(isinstance(part, Sequence) for part in plan.graph):
        # A generator's content is there but once.
        raise _invalid_plan("states and edges are sequences")
    # What is no state id must not get into the events, which nobody could read again.
    wrong = next((node for node in plan.graph.states if type(node.id) is not StateId), None)
    if wrong is not None:
        raise _invalid_plan("a state's id is no StateId", state_id=str(wrong.id))
    try:
        GraphValidator().validate(plan)
    except PlanInvalid as invalid:
        body = invalid.error.value
        found = body.model_dump(mode="json") if body is not None else {}
        raise _invalid_plan(invalid.error.variant, **found) from None
    try:
        return plan_digest(plan)
    except (Exception, SystemExit) as error:
        # Of all that a digest is made of only the states' declarations are an op's own code.
        undeclared = next((node.id for node in plan.graph.states if not _declares(node)), None)
        raise _invalid_plan(
            "a state's meta() gives no StateMeta that can be written down",
            state_id=undeclared,
            exception=type(error).__name__,
        ) from error


def _declares(node: StateNode) -> bool:
    try:
        canonical_json_bytes(node.state.meta().model_dump(mode="json"))
    except (Exception, SystemExit):  # noqa: BLE001 - it is somebody else's code
        return False
    return True


def _invalid_plan(reason: str, **found: Json) -> RunFailure:
    info = error_info("invalid_plan", "the plan cannot be executed", reason=reason, **found)
    return RunFailure(RunError(InvalidPlan=info))


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
