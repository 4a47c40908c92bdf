"""`mfm run cancel`, `mfm run resolve` and `mfm run fork`: what a person does to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mfm_ops.app import Interrupted, Requirements
from mfm_ops.cli.arguments import complete_doubtful_states, complete_states, run_argument
from mfm_ops.cli.errors import CommandFailure, ExitCode, usage
from mfm_ops.cli.numbers import Seconds
from mfm_ops.cli.op import finish, interrupted
from mfm_ops.cli.options import read_json
from mfm_ops.cli.run_options import requirement_options, watch_options, watching
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmCommand
from mfm_ops.machine.codes import error_info

if TYPE_CHECKING:
    from mfm_ops.machine.canonical import Json

__all__ = ["cancel", "fork", "resolve"]


def _cancel(session: Session, *, run: str, why: str, force: bool, wait: float) -> int:
    from mfm_ops.app.controls import cancel_run

    try:
        with watching(False, False) as watch:
            done = cancel_run(session.app, run, why=why, force=force, wait_s=wait, watch=watch)
    except Interrupted as stopped:
        raise interrupted(stopped) from None
    run_id = str(done.run_id)
    if not done.ended:
        driver = {name: (done.driver or {}).get(name) for name in ("driver_id", "pid", "host")}
        info = error_info("run_busy", "the run's driver has not ended it yet", **driver)
        hint = (
            "The request stays, and the driver obeys it when it can; `mfm run cancel --force` "
            "ends the run without it."
        )
        raise CommandFailure(info, ExitCode.STORE, hint=hint, run_id=run_id)
    session.show({"run_id": run_id, "phase": "Cancelled"}, f"cancelled {run_id}")
    return ExitCode.DONE


cancel = MfmCommand(
    "cancel",
    callback=click.pass_obj(_cancel),
    params=[
        run_argument(),
        click.Option(["--why"], default="", metavar="TEXT", help="Recorded with the request."),
        click.Option(
            ["--wait"],
            type=Seconds(),
            default=30.0,
            metavar="SECONDS",
            help="How long to wait for the driver to end the run.  [default: 30]",
        ),
        click.Option(
            ["--force"],
            is_flag=True,
            help="Do not wait: end the run, and fence its driver should it wake up.",
        ),
    ],
    help="End a run for good, from any process.\n\n"
    "Its driver stops the programs and ends the run; where no driver lives, this command does. "
    "An effect that was under way is recorded as one of unknown outcome. To stop a run so that "
    "it can be resumed, interrupt its driver with Ctrl-C instead.",
)


def _resolve(
    session: Session,
    *,
    run: str,
    state: str,
    resolution: str,
    result: str | None,
    key: str | None,
    why: str,
) -> int:
    from mfm_ops.app.controls import resolve_state

    if resolution == "completed" and result is None:
        raise usage("--as completed needs --result: what the effect answered, as JSON.")
    if resolution != "completed" and result is not None:
        raise usage("--result is what a completed effect answered: it needs --as completed.")
    value: Json = None if result is None else read_json("--result", result)
    history = resolve_state(
        session.app, run, state, resolution=resolution, result=value, key=key, why=why
    )
    run_id, waits = str(history.run_id), [str(k) for k in history.unknown_effects]
    session.show(
        {"run_id": run_id, "state_id": state, "as": resolution, "waits_for": list(waits)},
        f"resolved as {resolution}",
    )
    if not session.as_json:
        session.note(
            f"still unknown: {', '.join(waits)}" if waits else f"hint: mfm run resume {run_id}"
        )
    return ExitCode.DONE


resolve = MfmCommand(
    "resolve",
    callback=click.pass_obj(_resolve),
    params=[
        run_argument(),
        click.Argument(["state"], metavar="STATE", shell_complete=complete_doubtful_states),
        click.Option(
            ["--as", "resolution"],
            type=click.Choice(["completed", "failed", "retry"]),
            required=True,
            help="completed: it happened, and answered --result. failed: it happened wrongly; "
            "the state fails. retry: it did not happen; make it again.",
        ),
        click.Option(
            ["--result"],
            metavar="JSON|@FILE|-",
            help="What the call answered; recorded as its fact.",
        ),
        click.Option(["--key"], metavar="KEY", help="Which effect, where a state has several."),
        click.Option(
            ["--why"], required=True, metavar="TEXT", help="How you know; recorded with your name."
        ),
    ],
    help="Say what became of an effect whose outcome is unknown.\n\n"
    "`mfm run status RUN` shows which effects wait and what was sent. Afterwards `mfm run resume` "
    "goes on. STATE is a state's id or its last part.\n\n"
    "Example: mfm run resolve last pay --as completed --result '{\"receipt\": 7}' "
    '--why "seen in the ledger"',
)


def _fork(
    session: Session,
    *,
    run: str,
    state: str | None,
    changes: tuple[str, ...],
    require_clean: bool,
    require_locked: bool,
    progress: bool | None,
    show_stderr: bool | None,
) -> int:
    from mfm_ops.app.controls import fork_and_run

    overrides: dict[str, Json] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            raise usage("--set takes KEY=JSON, such as demo.main.limit=5.")
        if name in overrides:
            raise usage(f"--set gives {name} twice.")
        overrides[name] = read_json("--set", text)
    try:
        with watching(progress, show_stderr) as watch:
            outcome = fork_and_run(
                session.app,
                run,
                state,
                overrides,
                watch=watch,
                requires=Requirements(clean=require_clean, locked=require_locked),
            )
    except Interrupted as stopped:
        raise interrupted(stopped) from None
    return finish(session, outcome)


fork = MfmCommand(
    "fork",
    callback=click.pass_obj(_fork),
    params=[
        run_argument(),
        click.Option(
            ["--from", "state"],
            metavar="STATE",
            shell_complete=complete_states,
            help="The first state to execute again.  [default: the one that failed]",
        ),
        click.Option(
            ["--set", "changes"],
            multiple=True,
            metavar="KEY=JSON",
            help="Another value for a context key, as STATE sees it; repeatable.",
        ),
        *requirement_options(),
        *watch_options(),
    ],
    help="Go on from a run in a new one.\n\n"
    "The new run keeps every completed state but STATE and those after it, with what they learnt, "
    "and executes the rest with the op as it is installed now. The old run stays as it is. STATE "
    "is a state's id or its last part.\n\n"
    "Example: mfm run fork last --from fetch --set report.main.limit=5",
)
