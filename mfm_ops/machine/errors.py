"""Structured errors as they are persisted, and the exceptions that carry them (seed: errors).

The wire models bear the seed's names; each `…Failure` is the exception that carries exactly one
of them. What a code means is in `codes`; what of an error may be persisted, in `secrets`.
"""

from enum import StrEnum

from mfm_ops.machine.ids import ContextKey, ErrorCode, FactKey, StateId
from mfm_ops.machine.wire import JsonValue, Variants, Wire, variant

__all__ = [
    "CODE_MISSING_FACT_KEY",
    "ContextError",
    "ContextFailure",
    "ErrorCategory",
    "ErrorInfo",
    "IoError",
    "IoFailure",
    "MfmFailure",
    "MissingFact",
    "MissingKey",
    "RunError",
    "RunFailure",
    "SettingsFailure",
    "StateError",
    "StateFailure",
    "StorageError",
    "StorageFailure",
    "TransportFailure",
]

CODE_MISSING_FACT_KEY = "missing_fact_key"


class ErrorCategory(StrEnum):
    """Where in the system a failure belongs (seed: errors::ErrorCategory)."""

    ParsingInput = "ParsingInput"
    OnChain = "OnChain"
    OffChain = "OffChain"
    Rpc = "Rpc"
    Storage = "Storage"
    Context = "Context"
    Unknown = "Unknown"


class ErrorInfo(Wire):
    """One failure: code, category, whether to retry, a message without secrets (seed: ErrorInfo).

    `details` is a JSON value or None.
    """

    code: ErrorCode
    category: ErrorCategory
    retryable: bool
    message: str
    details: JsonValue = None


class StateError(Wire):
    """A state handler's failure (seed: errors::StateError)."""

    state_id: StateId | None = None
    info: ErrorInfo


class _InfoVariants(Variants):
    @property
    def info(self) -> ErrorInfo:
        """The record inside the variant, however deep it lies."""
        value = self.value
        while not isinstance(value, ErrorInfo):
            value = value.value if isinstance(value, Variants) else value.info
        return value


class MissingFact(Wire):
    """The body of `IoError.MissingFact`."""

    key: FactKey
    info: ErrorInfo


# A class body sees its own fields first, so a variant cannot be annotated with its own name.
_MissingFact = MissingFact


class IoError(_InfoVariants):
    """A failed IO call, live or replayed (seed: errors::IoError)."""

    MissingFactKey: ErrorInfo = variant()
    MissingFact: _MissingFact = variant()
    Transport: ErrorInfo = variant()
    RateLimited: ErrorInfo = variant()
    Other: ErrorInfo = variant()


class MissingKey(Wire):
    """The body of `ContextError.MissingKey`."""

    key: ContextKey
    info: ErrorInfo


_MissingKey = MissingKey


class ContextError(_InfoVariants):
    """A failed read, write or snapshot of the context (seed: errors::ContextError)."""

    MissingKey: _MissingKey = variant()
    Serialization: ErrorInfo = variant()
    Other: ErrorInfo = variant()


class StorageError(_InfoVariants):
    """A failed event or artifact store (seed: errors::StorageError)."""

    Concurrency: ErrorInfo = variant()
    NotFound: ErrorInfo = variant()
    Corruption: ErrorInfo = variant()
    Other: ErrorInfo = variant()


class RunError(_InfoVariants):
    """Why the engine could not go on (seed: errors::RunError)."""

    InvalidPlan: ErrorInfo = variant()
    Storage: StorageError = variant()
    Context: ContextError = variant()
    Io: IoError = variant()
    State: StateError = variant()
    Other: ErrorInfo = variant()


class MfmFailure(Exception):
    """The base of all failures that carry a record."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(f"{info.code}: {info.message}")
        self.info = info


class TransportFailure(MfmFailure):
    """The far side of an IO call failed; what a transport raises.

    With `rate_limited` it is `IoError.RateLimited` to the handler, otherwise `Transport`.
    """

    def __init__(self, info: ErrorInfo, *, rate_limited: bool = False) -> None:
        super().__init__(info)
        self.rate_limited = rate_limited


class SettingsFailure(MfmFailure):
    """The configuration or the command line asks for something that cannot be."""


class IoFailure(MfmFailure):
    """An IO provider's call failed; handlers may catch it."""

    def __init__(self, error: IoError) -> None:
        super().__init__(error.info)
        self.error = error


class StateFailure(MfmFailure):
    """A state handler gives up."""

    def __init__(self, error: StateError) -> None:
        super().__init__(error.info)
        self.error = error


class ContextFailure(MfmFailure):
    """The context refused an operation."""

    def __init__(self, error: ContextError) -> None:
        super().__init__(error.info)
        self.error = error


class StorageFailure(MfmFailure):
    """A store refused or failed an operation."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(error.info)
        self.error = error


class RunFailure(MfmFailure):
    """The engine could not start, resume or go on."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.info)
        self.error = error
