"""One invocation of mfm: its global options, its settings and its app, each made when needed.

Commands get it as their first argument and print through it. Parsing is left to `tree`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mfm_ops.app import App
    from mfm_ops.app.installed import InstalledOps
    from mfm_ops.machine.canonical import Json
    from mfm_ops.settings import Settings

__all__ = ["Session", "working_directory"]

_KEYS: Final[Mapping[str, str]] = {
    "store": "store.path",
    "config": "config",
    "output_format": "output.format",
    "log_level": "log.level",
    "log_format": "log.format",
}


class Session:
    """What the commands share.

    `options` are the global ones as far as they were parsed, `command_path` the command's words;
    `begin` is called when they are parsed, and the command is about to do something.
    """

    def __init__(self, begin: Callable[[], None] = lambda: None) -> None:
        self.begin = begin
        self.options: dict[str, str] = {}
        self.command_path = "mfm"
        self._settings: Settings | None = None
        self._ops: InstalledOps | None = None
        self._app: App | None = None

    @property
    def settings(self) -> Settings:
        """All layers, read once.

        Raises:
            SettingsFailure: a layer is wrong.
        """
        if self._settings is None:
            from mfm_ops.settings import load_settings

            options = {_KEYS[name]: value for name, value in self.options.items()}
            self._settings = load_settings(os.environ, _standing_in(), options)
            from mfm_ops.cli.logs import configure

            configure(self._settings.log_level, self._settings.log_format)
        return self._settings

    @property
    def ops(self) -> InstalledOps:
        """The ops that are installed.

        Which options there are depends on them, so they cannot depend on any setting.
        """
        if self._ops is None:
            from mfm_ops.app.installed import InstalledOps

            self._ops = InstalledOps()
        return self._ops

    @property
    def app(self) -> App:
        """The application over these settings."""
        if self._app is None:
            settings = self.settings
            from mfm_ops.app import App

            self._app = App(settings, os.environ, working_directory(), self.ops)
        return self._app

    @property
    def as_json(self) -> bool:
        """Whether the caller wants one JSON document."""
        chosen = self.options.get("output_format")
        return (chosen or self.settings.output_format) == "json"

    def wants_json(self, arguments: Sequence[str]) -> bool:
        """As `as_json`, for a failure that may have come before the options were parsed."""
        if "output_format" in self.options:
            return self.options["output_format"] == "json"
        if self._settings is not None:
            return self._settings.output_format == "json"
        for before, argument in zip(("", *arguments), arguments, strict=False):
            if argument == "--":
                break
            # The value of another option may look like ours.
            if argument == "--json" and before not in ("--argv", "--env"):
                return True
            if argument == "--output-format=json" or (
                argument == "json" and before == "--output-format"
            ):
                return True
        return os.environ.get("MFM_OUTPUT_FORMAT") == "json"

    def show(self, data: Json, text: str) -> None:
        """Print a result: `data` in its envelope where JSON is wanted, else `text`."""
        from mfm_ops.cli.output import json_document, write

        if self.as_json:
            document: Json = {"status": "success", "data": data}
            write(json_document(document, indent=sys.stdout.isatty()))
        elif text:
            write(text)

    def note(self, text: str) -> None:
        """Tell a person something beside the data, on standard error."""
        from mfm_ops.cli.output import escape_lines, write

        write(escape_lines(text), sys.stderr)


def working_directory() -> Path:
    """Where relative paths start; a directory that was removed has nothing at this name."""
    return _standing_in() or Path("/proc/self/cwd")


def _standing_in() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
