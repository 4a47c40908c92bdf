"""What became of a run, in the contract's words: error codes for those who called it.

Pure: results in, failures and responses out. Running is `process_exec`'s, deciding what to run is
`runner`'s.
"""

import errno
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from mfm_ops.machine.canonical import CanonicalError, Json, parse_strict
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from transports.bubblewrap import explain_refusal, read_complaint
from transports.child import MAX_STREAM_BYTES, ChildResult
from transports.descriptors import is_shortage
from transports.policy import ExecPolicy

__all__ = [
    "exceeded_limit",
    "failure",
    "limit_mechanisms",
    "masked_pointer",
    "not_started",
    "parse_response",
    "refused_by_system",
    "require_success",
    "sandbox_unavailable",
    "spawn_failure",
    "too_slow",
    "was_set_up",
]

_SPAWN_REASONS: Final = MappingProxyType(
    {
        errno.ENOENT: "not_found",
        errno.ENOEXEC: "exec_format",
        errno.E2BIG: "too_long",
        errno.EACCES: "permission",
    }
)
# As many as the elements that a mebibyte can hold.
_MAX_INDEX_DIGITS: Final = 8
_NOT_JSON: Final = frozenset({"json_bom", "json_not_finite", "json_not_utf8", "json_syntax"})


def failure(code: str, message: str, **details: Json) -> TransportFailure:
    """The exception for `code`, with a fixed message and small safe details."""
    return TransportFailure(error_info(code, message, **details))


def spawn_failure(reason: str, where: Mapping[str, Json]) -> TransportFailure:
    """exec_spawn_failed, with what can be done about `reason`."""
    messages = {
        "not_found": (
            "the program could not be started: its interpreter or loader is not visible to it; "
            "name the directories that it needs in read_only_paths"
        ),
        "too_long": "the program's arguments or environment are too long",
        "resources": (
            "mfm has no open file, process or memory left to start it with: raise the limits that "
            "it runs under (ulimit -n, ulimit -u), or run fewer programs at once"
        ),
    }
    message = messages.get(reason, "the system could not start the program")
    return failure("exec_spawn_failed", message, reason=reason, **where)


def refused_by_system(exc: OSError, where: Mapping[str, Json]) -> TransportFailure:
    """exec_spawn_failed, for what the system refused us before the program started."""
    return spawn_failure("resources" if is_shortage(exc) else "spawn", where)


def sandbox_unavailable(reason: str, message: str | None = None) -> TransportFailure:
    """exec_sandbox_unavailable, with what can be done about `reason`."""
    texts = {
        "missing": "bubblewrap is not installed: install the package `bubblewrap`",
        "limits": "the limits of the policy could not be set on the program",
        "setup_failed": (
            "bubblewrap could not set the sandbox up: check the policy's paths, and that it leaves "
            "bubblewrap itself some 16 open files"
        ),
    }
    return failure("exec_sandbox_unavailable", message or texts[reason], reason=reason)


def too_slow(timeout_ms: int, where: Mapping[str, Json]) -> TransportFailure:
    """exec_timeout, for a call that did not end in time."""
    return failure(
        "exec_timeout", "the program did not end in time", timeout_ms=timeout_ms, **where
    )


def was_set_up(result: ChildResult) -> bool:
    """Whether the sandbox stood, or was refused: its set-up is not what failed."""
    return result.exec_errno is not None or read_complaint(result.stderr).trouble != "setup"


def not_started(result: ChildResult, where: Mapping[str, Json]) -> TransportFailure:
    """Why the launcher did not get as far as the program."""
    if result.exec_errno is not None:
        return spawn_failure(_SPAWN_REASONS.get(result.exec_errno, "exec"), where)
    if not result.stderr:
        return sandbox_unavailable("limits" if result.reported else "setup_failed")
    complaint = read_complaint(result.stderr)
    if complaint.trouble == "exec":
        return spawn_failure(complaint.reason, where)
    if complaint.trouble == "refused":
        return sandbox_unavailable(*explain_refusal())
    return sandbox_unavailable("setup_failed")


def exceeded_limit(result: ChildResult, held: str | None, policy: ExecPolicy) -> str | None:
    """The limit that ended the program, as far as it can be known; `held` is its cgroup's word."""
    if result.limit is not None:
        return result.limit
    if result.ending != "exited" or result.exit_code == 0:
        return None
    # Without such a limit it is a program that returned 128 + n by itself, or the host's own limit.
    if result.signal == signal.SIGXFSZ and policy.file_size_mb:
        return "file_size"
    # A program can also return 128 + n by itself, or send itself the signal: it has used up at
    # least half of its time by the last sample if the kernel ended it. One that ignores SIGXCPU is
    # killed at the hard limit, a second later.
    if result.signal in (signal.SIGXCPU, signal.SIGKILL) and policy.cpu_s:
        return "cpu" if result.cpu_s >= policy.cpu_s / 2 else held
    return held


def require_success(
    result: ChildResult,
    exceeded: str | None,
    held: str,
    timeout_ms: int,
    where: Mapping[str, Json],
) -> None:
    """Return if the program ended well, raise what became of it otherwise."""
    ending = result.ending
    if not result.clean:
        raise failure(
            "exec_timeout",
            "the program was killed, and a part of it is stuck in the kernel",
            timeout_ms=timeout_ms,
            **where,
        )
    if exceeded is not None:
        mechanism = held if exceeded in ("memory", "processes") else "rlimit"
        raise failure(
            "exec_limit_exceeded",
            "the program exceeded a limit of the policy",
            limit=exceeded,
            mechanism=mechanism,
            **where,
        )
    if ending == "timeout":
        raise too_slow(timeout_ms, where)
    if ending in ("stdout_too_large", "stderr_too_large"):
        stream = "output" if ending == "stdout_too_large" else "error"
        raise failure(
            f"exec_{ending}",
            f"the program wrote too much to standard {stream}",
            limit_bytes=MAX_STREAM_BYTES,
            **where,
        )
    if ending == "stdin_failed":
        raise failure(
            "exec_stdin_write_failed", "the program's standard input could not be written", **where
        )
    if result.exit_code != 0:
        raise failure(
            "exec_failed",
            "the program failed",
            exit_code=result.exit_code,
            signal=result.signal,
            **where,
        )


def parse_response(
    stdout: bytes, numbers: Literal["reject", "string"], where: Mapping[str, Json]
) -> Json:
    """The one JSON value on standard output; raises exec_stdout_* otherwise."""
    try:
        return parse_strict(stdout, numbers=numbers)
    except CanonicalError as exc:
        if exc.code in _NOT_JSON:
            raise failure(
                "exec_stdout_invalid_json", "the program did not print one JSON value", **where
            ) from None
        raise failure(
            "exec_stdout_not_canonical",
            "the program printed JSON that has no canonical form",
            reason=exc.code,
            pointer=masked_pointer(exc.pointer),
            **where,
        ) from None


def masked_pointer(pointer: str) -> str:
    """`pointer` with its indices alone: an object's keys are text of whoever wrote the document.

    >>> masked_pointer("/prices/3/eur")
    '/*/3/*'
    """
    return "".join(
        f"/{part}" if part.isascii() and part.isdigit() and len(part) < _MAX_INDEX_DIGITS else "/*"
        for part in pointer.split("/")[1:]
    )


def limit_mechanisms(policy: ExecPolicy, held: str) -> dict[str, Json]:
    """Which mechanism held each limit of the policy."""

    def by(mechanism: str, limit: int | None) -> str:
        return "none" if limit is None else mechanism

    return {
        "memory": by(held, policy.memory_mb),
        "processes": by(held, policy.processes),
        "cpu": by("rlimit", policy.cpu_s),
        "open_files": by("rlimit", policy.open_files),
        "file_size": by("rlimit", policy.file_size_mb),
    }
