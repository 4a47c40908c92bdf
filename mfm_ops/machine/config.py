"""What shapes a run, and the manifest that says so (seed: config).

Fields that the seed does not have are optional and omitted while unset.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from mfm_ops.machine.ids import OpId, RunId
from mfm_ops.machine.meta import Tag
from mfm_ops.machine.wire import (
    U32,
    U64,
    JsonValue,
    MixedVariants,
    Unit,
    Variants,
    Wire,
    optional_extension,
    variant,
)

__all__ = [
    "BackoffPolicy",
    "BuildProvenance",
    "ContextCheckpointing",
    "Duration",
    "EventProfile",
    "ExecutionMode",
    "Exponential",
    "FanOutJoin",
    "Fixed",
    "FlakeProvenance",
    "IoMode",
    "LockState",
    "OnStateFailure",
    "RetryPolicy",
    "RunConfig",
    "RunManifest",
    "RunsFrom",
    "WorkspaceProvenance",
    "default_nix_flake_allowlist",
]


class IoMode(StrEnum):
    """Live IO, or recorded facts only (seed: config::IoMode)."""

    Live = "Live"
    Replay = "Replay"


class _CustomData(Variants):
    Custom: str = variant()


class EventProfile(MixedVariants[Literal["Minimal", "Normal", "Verbose"] | _CustomData]):
    """How many of an op's domain events are kept (seed: config::EventProfile)."""

    Minimal: ClassVar[Unit] = Unit()
    Normal: ClassVar[Unit] = Unit()
    Verbose: ClassVar[Unit] = Unit()

    @classmethod
    def custom(cls, name: str) -> Self:
        """A profile that the operation itself defines."""
        return cls(_CustomData(Custom=name))


class Duration(Wire):
    """A span of time as serde writes it: whole seconds and nanoseconds (seed: std Duration)."""

    secs: U64
    nanos: int = Field(strict=True, ge=0, lt=1_000_000_000)

    @classmethod
    def from_millis(cls, millis: int) -> Self:
        """The duration of `millis` milliseconds."""
        return cls(secs=millis // 1000, nanos=millis % 1000 * 1_000_000)

    @property
    def total_nanos(self) -> int:
        """The whole span in nanoseconds."""
        return self.secs * 1_000_000_000 + self.nanos


class Fixed(Wire):
    """The body of `BackoffPolicy.Fixed`."""

    delay: Duration


class Exponential(Wire):
    """The body of `BackoffPolicy.Exponential`: `base_delay * 2^attempt`, at most `max_delay`."""

    base_delay: Duration
    max_delay: Duration


# A class body sees its own fields first, so a variant cannot be annotated with its own name.
_Fixed = Fixed
_Exponential = Exponential


class BackoffPolicy(Variants):
    """How long to wait before a retry (seed: config::BackoffPolicy)."""

    Fixed: _Fixed = variant()
    Exponential: _Exponential = variant()

    def delay_seconds(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 0."""
        policy = self.value
        if isinstance(policy, _Fixed):
            return policy.delay.total_nanos / 1e9
        # Past 2^64 the cap has long been reached; unbounded shifts would only cost memory.
        grown = policy.base_delay.total_nanos << min(attempt, 64)
        return float(min(grown, policy.max_delay.total_nanos) / 1e9)


class RetryPolicy(Wire):
    """How often and how fast retryable errors are tried again (seed: config::RetryPolicy).

    `max_attempts` counts the first execution; 0 is read as 1.
    """

    max_attempts: U32
    backoff: BackoffPolicy


class FanOutJoin(Wire):
    """The body of `ExecutionMode.FanOutJoin`."""

    max_concurrency: U32


_FanOutJoin = FanOutJoin


class _ExecutionModeData(Variants):
    FanOutJoin: _FanOutJoin = variant()


class ExecutionMode(MixedVariants[Literal["Sequential"] | _ExecutionModeData]):
    """One state at a time, or ready states at once (seed: config::ExecutionMode)."""

    Sequential: ClassVar[Unit] = Unit()

    @classmethod
    def fan_out_join(cls, max_concurrency: int) -> Self:
        """Run up to `max_concurrency` ready states at once."""
        return cls(_ExecutionModeData(FanOutJoin=FanOutJoin(max_concurrency=max_concurrency)))


class ContextCheckpointing(MixedVariants[Literal["AfterEveryState"] | _CustomData]):
    """When the context is checkpointed (seed: config::ContextCheckpointing)."""

    AfterEveryState: ClassVar[Unit] = Unit()

    @classmethod
    def custom(cls, name: str) -> Self:
        """Reserved by the seed for later policies; the engine refuses it."""
        return cls(_CustomData(Custom=name))


def default_nix_flake_allowlist() -> tuple[str, ...]:
    """The flake refs that `nix.exec` may resolve by default (seed: config)."""
    return ("github:willyrgf/mfm",)


class OnStateFailure(StrEnum):
    """What happens to states that run while another one fails for good; ours.

    An effect that has begun may finish in either case: stopping it would leave it in doubt.
    """

    CancelRunning = "CancelRunning"
    FinishRunning = "FinishRunning"


class RunConfig(Wire):
    """How a run is executed (seed: config::RunConfig, then ours).

    `run_deadline_ms` bounds each driver's work on the run, `state_deadline_ms` each attempt; both
    are measured by the driver's own clock, never by stored timestamps. Unset, `on_state_failure`
    is `CancelRunning`.
    """

    io_mode: IoMode
    retry_policy: RetryPolicy
    event_profile: EventProfile
    execution_mode: ExecutionMode
    context_checkpointing: ContextCheckpointing
    replay_missing_fact_retryable: bool
    skip_tags: tuple[Tag, ...]
    nix_flake_allowlist: tuple[str, ...] = Field(default_factory=default_nix_flake_allowlist)
    replay_of: RunId | None = optional_extension()
    on_state_failure: OnStateFailure | None = optional_extension()
    run_deadline_ms: Annotated[U32, Field(gt=0)] | None = optional_extension()
    state_deadline_ms: Annotated[U32, Field(gt=0)] | None = optional_extension()


class LockState(StrEnum):
    """How far a lock file can be relied on; ours.

    - `committed`: the commit holds it as it is; of a build: its inputs were those of the lock
    - `staged`: newer than the commit, which holds another one or none; git's index has it
    - `modified`: not as git has it
    - `untracked`: git does not have it
    - `missing`: there is none
    - `overridden`: the inputs of the build were not those of the lock
    - `unknown`: git could not be asked, or was told not to look
    """

    committed = "committed"
    missing = "missing"
    modified = "modified"
    overridden = "overridden"
    staged = "staged"
    unknown = "unknown"
    untracked = "untracked"


class RunsFrom(StrEnum):
    """Where the mfm that runs lies; ours: a checkout, the Nix store, or installed elsewhere."""

    checkout = "checkout"
    installed = "installed"
    nix_store = "nix_store"


class FlakeProvenance(Wire):
    """Which flake something was built from or lies in, and how its flake.lock stands; ours.

    `url` is a directory relative to the repository's top (`.`, `./deploy`), or names a store path.
    `rev` is that of a clean commit only.
    """

    url: str | None = optional_extension()
    rev: str | None = optional_extension()
    nar_hash: str | None = optional_extension()
    lock: LockState | None = optional_extension()


class BuildProvenance(Wire):
    """Which build of mfm ran (seed: config::BuildProvenance, then ours).

    `cargo_lock_hash` and `rustc_version` are null in a Python build. `env_allowlist` holds names.
    """

    git_commit: str | None = None
    cargo_lock_hash: str | None = None
    flake_lock_hash: str | None = None
    rustc_version: str | None = None
    target_triple: str | None = None
    env_allowlist: tuple[str, ...]
    dirty: bool | None = optional_extension()
    python_version: str | None = optional_extension()
    mfm_version: str | None = optional_extension()
    nix_version: str | None = optional_extension()
    nix_system: str | None = optional_extension()
    runs_from: RunsFrom | None = optional_extension()
    flake: FlakeProvenance | None = optional_extension()
    lock_hashes: dict[str, str] | None = optional_extension()


class WorkspaceProvenance(Wire):
    """The operator's repository at the start of a run; ours.

    `lock_hashes` maps each lock file's name to the SHA-256 of its bytes; `env` each allowlisted
    environment variable to its value.
    """

    git_commit: str | None = optional_extension()
    dirty: bool | None = optional_extension()
    lock_hashes: dict[str, str] | None = optional_extension()
    flake: FlakeProvenance | None = optional_extension()
    env: dict[str, str] | None = optional_extension()


class RunManifest(Wire):
    """What a run is: op, input, policy, build; its id is the hash of it (seed: RunManifest)."""

    op_id: OpId
    op_version: str
    input_params: JsonValue
    run_config: RunConfig
    build: BuildProvenance
    workspace: WorkspaceProvenance | None = optional_extension()
