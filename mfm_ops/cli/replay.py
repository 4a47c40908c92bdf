"""`mfm run replay`: is this what the run's code does with what the run learnt?"""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from mfm_ops.cli.arguments import run_argument
from mfm_ops.cli.errors import CommandFailure, ExitCode
from mfm_ops.cli.gauge import gauge, gauge_option
from mfm_ops.cli.numbers import Seconds
from mfm_ops.cli.output import Painter, escape, screen_width, table
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmCommand
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import ErrorInfo, RunFailure

__all__ = ["replay"]

_SHOWN_STATES: Final = 40
_SHOWN_DIVERGENCES: Final = 5
_COLUMNS: Final = ("state_id", "attempt", "recorded", "result")
_FINE: Final = frozenset({"reproduced", "skipped"})
_DIVERGED: Final = "the replay came to something else than the record"
# The replay came to an end, but not to the record's.
_NOT_REPRODUCED: Final = frozenset({"plan_changed", "replay_timeout"})


def _replay(session: Session, run: str, timeout: float | None, progress: bool | None) -> int:
    from mfm_ops.app.replays import replay_run

    try:
        with gauge(progress) as tell:
            verdict = replay_run(session.app, run, timeout_s=timeout, tell=tell)
    except RunFailure as failure:
        if failure.info.code in _NOT_REPRODUCED:
            raise CommandFailure(failure.info, ExitCode.DIVERGED) from None
        raise
    if session.as_json:
        if verdict["divergences"]:
            raise CommandFailure(_diverged(verdict), ExitCode.DIVERGED)
        session.show(verdict, "")
        return ExitCode.DONE
    session.show(None, "\n".join(_lines(verdict)))
    for note in verdict["notes"]:
        session.note(f"note: {note}")
    if verdict["divergences"]:
        info = error_info("replay_diverged", _DIVERGED)
        raise CommandFailure(info, ExitCode.DIVERGED, run_id=verdict["run_id"])
    return ExitCode.DONE


def _diverged(verdict: dict[str, Any]) -> ErrorInfo:
    """The first divergence field by field, and the whole verdict."""
    first = verdict["divergences"][0]
    return error_info(
        "replay_diverged", _DIVERGED, run_id=verdict["run_id"], **first, verdict=verdict
    )


def _lines(verdict: dict[str, Any]) -> list[str]:
    states, divergences = verdict["states"], verdict["divergences"]
    rows = [
        [*(str(state[name]) for name in _COLUMNS), state["reason"] or ""]
        for state in states
        if len(states) <= _SHOWN_STATES or state["result"] not in _FINE
    ]
    headers = ["STATE", "ATTEMPT", "RECORDED", "REPLAY", "REASON"]
    lines = [*table(headers, rows, width=screen_width(sys.stdout)), ""] if rows else []
    count = f"{sum(state['result'] in _FINE for state in states)} of {len(states)} states"
    paint = Painter(sys.stdout)
    if not divergences:
        words = "reproduced"
        if verdict["verdict"] == "reproduced_up_to":
            words += f" up to {verdict['up_to']}" if verdict["up_to"] else ": no state has begun"
        return [*lines, f"{paint.good(words)} ({count})"]
    for number, divergence in enumerate(divergences[:_SHOWN_DIVERGENCES]):
        title = paint.bad("divergence" if number else "first divergence")
        lines += [*_divergence_lines(divergence, title), ""]
    more = len(divergences) - _SHOWN_DIVERGENCES
    if more > 0:
        lines += [f"and {more} more; --json has them all", ""]
    return [*lines, f"{paint.bad('diverged')} ({count} reproduced)"]


def _divergence_lines(divergence: dict[str, Any], title: str) -> list[str]:
    what = [divergence[name] for name in ("kind", "key", "index") if divergence[name] is not None]
    lines = [
        f"{title} at {divergence['state_id'] or 'the end'}: {escape(' '.join(map(str, what)))}"
    ]
    lines += [
        f"  {name}  {divergence[name]}"
        for name in ("recorded", "replayed")
        if divergence[name] is not None
    ]
    return lines + [f"  {escape(line)}" for line in divergence["diff"]]


replay = MfmCommand(
    "replay",
    callback=click.pass_obj(_replay),
    params=[
        run_argument(),
        click.Option(
            ["--timeout"],
            type=Seconds(above_zero=True),
            metavar="SECONDS",
            help="End a replay that takes longer, and name the state that it was at.",
        ),
        gauge_option(),
    ],
    help="Execute a run's handlers again on what it recorded, and compare.\n\n"
    "Needs neither network nor programs, and changes nothing. Exits with 0 when the run is "
    "reproduced, as far as it came, and with 4 at a divergence.",
)
