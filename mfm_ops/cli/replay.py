"""`mfm run replay`: is this what the run's code does with what the run learnt?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from mfm_ops.cli.errors import CommandFailure, ExitCode
from mfm_ops.cli.output import Painter, escape, screen_width, table
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmCommand
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import ErrorInfo, RunFailure

if TYPE_CHECKING:
    from mfm_ops.runtime.verdict_model import Divergence, ReplayVerdict

__all__ = ["replay"]

_SHOWN_STATES: Final = 40
_SHOWN_DIVERGENCES: Final = 5
# The replay came to an end, but not to the record's.
_NOT_REPRODUCED: Final = frozenset({"plan_changed", "replay_timeout"})


def _replay(session: Session, run: str, timeout: float | None) -> int:
    from mfm_ops.app.replays import replay_run

    try:
        verdict = replay_run(session.app, run, timeout_s=timeout)
    except RunFailure as failure:
        if failure.info.code in _NOT_REPRODUCED:
            raise CommandFailure(failure.info, ExitCode.DIVERGED) from None
        raise
    if session.as_json:
        if verdict.divergences:
            raise CommandFailure(_diverged(verdict), ExitCode.DIVERGED)
        session.show(verdict.model_dump(mode="json"), "")
        return ExitCode.DONE
    session.show(None, "\n".join(_lines(verdict)))
    for note in verdict.notes:
        session.note(f"note: {note}")
    if verdict.divergences:
        message = "the replay came to something else than the record"
        info = error_info("replay_diverged", message)
        raise CommandFailure(info, ExitCode.DIVERGED, run_id=str(verdict.run_id))
    return ExitCode.DONE


def _diverged(verdict: ReplayVerdict) -> ErrorInfo:
    """The first divergence field by field, and the whole verdict."""
    return error_info(
        "replay_diverged",
        "the replay came to something else than the record",
        run_id=str(verdict.run_id),
        **verdict.divergences[0].model_dump(mode="json"),
        verdict=verdict.model_dump(mode="json"),
    )


def _lines(verdict: ReplayVerdict) -> list[str]:
    fine = ("reproduced", "skipped")
    shown = [
        one
        for one in verdict.states
        if len(verdict.states) <= _SHOWN_STATES or one.result.value not in fine
    ]
    rows = [
        [one.state_id, str(one.attempt), one.recorded.value, one.result.value, one.reason or ""]
        for one in shown
    ]
    headers = ["STATE", "ATTEMPT", "RECORDED", "REPLAY", "REASON"]
    lines = table(headers, rows, width=screen_width(sys.stdout)) if rows else []
    reproduced = sum(one.result.value in fine for one in verdict.states)
    count = f"{reproduced} of {len(verdict.states)} states"
    paint = Painter(sys.stdout)
    if not verdict.divergences:
        words = "reproduced"
        if verdict.verdict == "reproduced_up_to":
            words += f" up to {verdict.up_to}" if verdict.up_to else ": no state has begun"
        return [*lines, "", f"{paint.good(words)} ({count})"]
    for number, one in enumerate(verdict.divergences[:_SHOWN_DIVERGENCES]):
        lines.append("")
        lines += _divergence_lines(one, first=number == 0, paint=paint)
    more = len(verdict.divergences) - _SHOWN_DIVERGENCES
    if more > 0:
        lines += ["", f"and {more} more; --json has them all"]
    return [*lines, "", f"{paint.bad('diverged')} ({count} reproduced)"]


def _divergence_lines(one: Divergence, *, first: bool, paint: Painter) -> list[str]:
    where = one.state_id or "the run's end"
    what = [one.kind.value]
    if one.key is not None:
        what.append(escape(one.key))
    if one.index is not None:
        what.append(str(one.index))
    title = "first divergence" if first else "divergence"
    lines = [f"{paint.bad(title)} at {where}: {' '.join(what)}"]
    lines += [
        f"  {name}  {digest}"
        for name, digest in (("recorded", one.recorded), ("replayed", one.replayed))
        if digest is not None
    ]
    return lines + [f"  {escape(line)}" for line in one.diff]


replay = MfmCommand(
    "replay",
    callback=click.pass_obj(_replay),
    params=[
        click.Argument(["run"], metavar="RUN"),
        click.Option(
            ["--timeout"],
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="End a replay that takes longer, and name the state that it was at.",
        ),
    ],
    help="Execute a run's handlers again on what it recorded, and compare.\n\n"
    "Needs neither network nor programs, and changes nothing. Exits with 0 when the run is "
    "reproduced, as far as it came, and with 4 at a divergence.",
)
