"""Logs on standard error, through structlog, which is imported at the first record that is shown.

Everybody logs with the standard library's `logging`. What looks like a secret is withheld here, as
the last door before the terminal.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = ["configure"]


def configure(level: str, log_format: str) -> None:
    """Send records of at least `level` to standard error as `text` or `json`."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Deferred):
            root.removeHandler(handler)
    root.addHandler(_Deferred(log_format))
    # Others' chatter (asyncio's debug lines) is not the operator's business.
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    for ours in ("mfm_ops", "transports"):
        logging.getLogger(ours).setLevel(level.upper())


class _Deferred(logging.Handler):
    """Builds the formatter, and so imports structlog, with the first record."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._format = log_format

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.formatter is None:
                self.formatter = _formatter(self._format)
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - a log line must not end a run
            self.handleError(record)


def _formatter(log_format: str) -> logging.Formatter:
    import structlog

    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _withhold_secrets,
    ]
    renderer: Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(sort_keys=True)
    else:
        before.append(_escape_controls)
        renderer = structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _withhold_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    from mfm_ops.machine.secrets import find_secret, redact_text

    for name, value in event.items():
        if name.startswith("_"):
            continue
        if isinstance(value, str):
            # A traceback is judged line by line: one line withheld leaves the rest of use.
            event[name] = "\n".join(redact_text(line) for line in value.split("\n"))
        text = event[name]
        if not isinstance(text, bool | int | None):
            event[name] = "[withheld]" if find_secret({name: str(text)}) else str(text)
    return event


def _escape_controls(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    from mfm_ops.cli.output import escape, escape_lines

    for name, value in event.items():
        if isinstance(value, str):
            event[name] = escape_lines(value) if name == "exception" else escape(value)
    return event
