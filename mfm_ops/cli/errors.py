"""What a failure looks like to the caller: code, message, hint, and the exit code.

The catalogue in `machine.codes` decides what a code means; this module only lays it out.
"""

import errno
import logging
import sys
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final

import click

from mfm_ops.cli.output import Painter, escape, json_document, write
from mfm_ops.cli.session import Session
from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import CATALOGUE, error_info, hint_for
from mfm_ops.machine.errors import ErrorCategory, ErrorInfo, MfmFailure, SettingsFailure

__all__ = [
    "CommandFailure",
    "ExitCode",
    "did_you_mean",
    "exit_code_for",
    "interruption",
    "report",
    "translate",
    "usage",
]

_OUTPUT_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EBADF})


class ExitCode(IntEnum):
    """How `mfm` ends (`mfm --help` lists them)."""

    DONE = 0
    RUN_FAILED = 1
    USAGE = 2
    STORE = 3
    DIVERGED = 4
    PARKED = 5
    CANCELLED = 6
    INTERRUPTED = 130
    TERMINATED = 143


class CommandFailure(Exception):
    """A command ends in failure: the record, the exit code, and the run that it is about."""

    def __init__(
        self, info: ErrorInfo, exit_code: int, *, hint: str | None = None, **where: str
    ) -> None:
        super().__init__(info.message)
        self.info = info
        self.exit_code = exit_code
        self.hint = hint or hint_for(info.code)
        self.where = where


def usage(message: str, *, hint: str | None = None) -> CommandFailure:
    """The command line itself is wrong."""
    return CommandFailure(error_info("usage", message), ExitCode.USAGE, hint=hint)


def interruption() -> CommandFailure:
    """Ctrl-C ended a command that drives no run."""
    info = error_info("interrupted", "interrupted", signal="SIGINT")
    return CommandFailure(info, ExitCode.INTERRUPTED, hint="Nothing is half done; type it again.")


def exit_code_for(failure: MfmFailure) -> int:
    """The exit code of a failure that is not a run's own."""
    if isinstance(failure, SettingsFailure):
        return ExitCode.USAGE
    code = failure.info.code
    if code == "run_cancelled":
        return ExitCode.CANCELLED
    if failure.info.category is ErrorCategory.Storage:
        return ExitCode.STORE
    if failure.info.category is ErrorCategory.ParsingInput:
        return ExitCode.USAGE
    return ExitCode.RUN_FAILED


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def translate(error: BaseException, session: Session) -> CommandFailure:
    """Whatever ended a command, as the record that is reported."""
    help_hint = f"`{session.command_path} --help` tells more."
    if isinstance(error, CommandFailure):
        if error.info.code == "usage" and error.hint == hint_for("usage"):
            error.hint = help_hint
        return error
    if isinstance(error, MfmFailure):
        hint = help_hint if error.info.code == "usage" else None
        return CommandFailure(error.info, exit_code_for(error), hint=hint)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return usage("A command is missing.", hint=help_hint)
    if isinstance(error, click.ClickException):
        # Click lists choices in lines of their own.
        return usage(" ".join(error.format_message().split()), hint=help_hint)
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return translate(error.exceptions[0], session)
    if isinstance(error, OSError) and error.errno in _OUTPUT_ERRNOS and error.filename is None:
        return usage(
            "The output cannot be written.", hint="Is the disk full, or standard output closed?"
        )
    logging.getLogger(__name__).debug("unexpected exception", exc_info=error)
    info = error_info(
        "internal_error", "mfm met an unexpected exception.", exception=type(error).__name__
    )
    return CommandFailure(info, ExitCode.RUN_FAILED)


def report(failure: CommandFailure, *, as_json: bool) -> None:
    """Tell the caller: one JSON document on stdout, or a few lines on stderr."""
    # What the caller typed may be quoted here, and outputs end up in the logs of other programs.
    from mfm_ops.machine.secrets import redact_text

    info = failure.info
    message = redact_text(info.message)
    hint = None if failure.hint is None else redact_text(failure.hint)
    details = _without_secrets(_shown_details(info))
    where = _without_secrets(dict(failure.where))
    if as_json:
        error: dict[str, Json] = {"code": str(info.code), "message": message, "hint": hint}
        extra: dict[str, Json] = {**details, **where}
        if extra:
            error["details"] = extra
        document: Json = {"status": "error", "error": error}
        write(json_document(document, indent=sys.stdout.isatty()))
        return
    paint = Painter(sys.stderr)
    lines = [f"{paint.bad(f'error[{info.code}]')}: {escape(message)}"]
    lines += [f"  {name}: {_one_line(value)}" for name, value in (where | details).items()]
    if hint:
        lines.append(f"{paint.warn('hint')}: {escape(hint)}")
    for line in lines:
        write(line, sys.stderr)


def _shown_details(info: ErrorInfo) -> dict[str, Any]:
    """Only what the code's row declares safe: an error may be shown where its cause may not."""
    row = CATALOGUE.get(info.code)
    if row is None or not isinstance(info.details, dict):
        return {}
    return {name: value for name, value in info.details.items() if name in row.safe_details}


def _without_secrets(details: dict[str, Any]) -> dict[str, Any]:
    from mfm_ops.machine.secrets import find_secret

    return {
        name: value if find_secret({name: value}) is None else "[withheld]"
        for name, value in details.items()
    }


def _one_line(value: Json) -> str:
    return escape(value) if isinstance(value, str) else json_document(value, indent=False)
