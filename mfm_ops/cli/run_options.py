"""The options of commands that start or drive a run, and what they come to."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from mfm_ops.app import Requirements, RunOptions, Watch
from mfm_ops.cli.numbers import Whole
from mfm_ops.cli.output import is_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "RESERVED",
    "requirement_options",
    "run_options",
    "run_options_from",
    "watch_options",
    "watching",
]


def watch_options() -> list[click.Parameter]:
    """What a command that drives a run offers for those who look on."""
    return [
        click.Option(
            ["--progress/--no-progress"],
            default=None,
            help="A line on standard error for each state.  [default: on a terminal]",
        ),
        click.Option(
            ["--show-stderr/--no-show-stderr"],
            default=None,
            help="Pass the programs' standard error through.  [default: on a terminal]",
        ),
    ]


def requirement_options() -> list[click.Parameter]:
    """What a command that starts a run offers to those who want to know from what."""
    return [
        click.Option(
            ["--require-clean"],
            is_flag=True,
            help="Refuse to start unless the workspace is a clean commit.",
        ),
        click.Option(
            ["--require-locked"],
            is_flag=True,
            help="Refuse to start unless the workspace's lock files are committed and complete.",
        ),
    ]


def run_options() -> list[click.Parameter]:
    """What a command that starts a run offers for its run config."""
    return [
        click.Option(
            ["--run-key"],
            metavar="KEY",
            help="Start at most one run with this key and config; again, return that run.",
        ),
        click.Option(
            ["--event-profile"],
            type=click.Choice(["minimal", "normal", "verbose"]),
            help="Which of the op's own events to keep.  [default: normal]",
        ),
        click.Option(
            ["--max-attempts"],
            type=Whole(1),
            metavar="N",
            help="How often a state may be tried.  [default: 3]",
        ),
        click.Option(
            ["--skip-tag"],
            multiple=True,
            metavar="TAG",
            help="Complete states with this tag without running them; repeatable.",
        ),
        click.Option(
            ["--allow-flake", "allow_flakes"],
            multiple=True,
            metavar="REF",
            help="Let the run resolve apps of this flake too, as its manifest says; repeatable.",
        ),
        click.Option(
            ["--parallel"],
            type=Whole(1),
            metavar="N",
            help="Run up to N ready states at once.  [default: one after the other]",
        ),
        click.Option(
            ["--finish-running"],
            is_flag=True,
            help="When a state fails, let those that run at the same time finish.",
        ),
        click.Option(
            ["--deadline-ms", "run_deadline_ms"],
            type=Whole(1),
            metavar="N",
            help="Fail the run when it is driven for longer; counts anew on a resume.",
        ),
        click.Option(
            ["--state-deadline-ms"],
            type=Whole(1),
            metavar="N",
            help="Stop an attempt of a state that takes longer; it may be tried again.",
        ),
        *requirement_options(),
    ]


RESERVED: Final = frozenset(
    {
        "--help",
        *(
            name
            for option in (*run_options(), *watch_options())
            for name in (*option.opts, *option.secondary_opts)
        ),
    }
)
"""Names that no op's own option may have."""


def run_options_from(values: dict[str, Any]) -> RunOptions:
    """Take what `run_options` declare out of a command's values."""
    profile = values.pop("event_profile")
    return RunOptions(
        event_profile=None if profile is None else profile.capitalize(),
        requires=Requirements(
            clean=values.pop("require_clean"), locked=values.pop("require_locked")
        ),
        skip_tags=values.pop("skip_tag"),
        **{
            name: values.pop(name)
            for name in (
                "run_key",
                "max_attempts",
                "allow_flakes",
                "parallel",
                "finish_running",
                "run_deadline_ms",
                "state_deadline_ms",
            )
        },
    )


@contextmanager
def watching(progress: bool | None, show_stderr: bool | None) -> Iterator[Watch]:
    """Who looks on: by default a person at the terminal, who was told all at the end of this."""
    on_terminal = is_terminal(sys.stderr)
    from mfm_ops.cli import progress as lines

    teller = lines.Teller()
    events = on_terminal if progress is None else progress
    stderr = on_terminal if show_stderr is None else show_stderr
    try:
        yield Watch(
            on_event=lines.progress(teller.say) if events else None,
            on_stderr=lines.pass_through(teller.say) if stderr else None,
        )
    finally:
        teller.close()
