"""`mfm op OP`: one command for each op, its options made from the op's config model.

Also prints how a driven run ended, for `mfm run resume` too.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mfm_ops.app import Interrupted, Outcome
from mfm_ops.cli.errors import CommandFailure, ExitCode, did_you_mean
from mfm_ops.cli.options import config_from_options, options_for
from mfm_ops.cli.output import PIPE_WIDTH, escape_lines, json_document, screen_width
from mfm_ops.cli.run_options import (
    RESERVED,
    run_options,
    run_options_from,
    watch_options,
    watching,
)
from mfm_ops.cli.session import Session, working_directory
from mfm_ops.cli.tree import MfmCommand, MfmGroup
from mfm_ops.machine.codes import error_info, hint_for
from mfm_ops.machine.engine import RunPhase

if TYPE_CHECKING:
    from mfm_ops.machine.canonical import Json
    from mfm_ops.sdk.operation import AnyOperation

__all__ = ["finish", "interrupted", "op"]


class _OpGroup(MfmGroup):
    """The ops that are installed, each as a command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [str(op_id) for op_id in ctx.ensure_object(Session).ops]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = ctx.ensure_object(Session).ops.find(cmd_name)
        return None if found is None else _command(found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        found = self.get_command(ctx, name)
        if found is None:
            info = error_info(
                "op_unknown",
                f"No op of this name is installed{did_you_mean(name, self.list_commands(ctx))}",
                op_id=name,
            )
            raise CommandFailure(info, ExitCode.USAGE)
        return name, found, args[1:]


op = _OpGroup(
    name="op",
    help="Run one op. `mfm op OP --help` shows its options.",
    subcommand_metavar="OP [OPTIONS]",
)


def _command(found: AnyOperation) -> MfmCommand:
    return MfmCommand(
        str(found.op_id),
        callback=click.pass_obj(partial(_run, found)),
        params=[*options_for(found, RESERVED), *run_options(), *watch_options()],
        help=found.summary,
    )


def _run(
    found: AnyOperation,
    session: Session,
    *,
    progress: bool | None,
    show_stderr: bool | None,
    **values: Any,
) -> int:
    options = run_options_from(values)
    config = config_from_options(found, values, working_directory(), RESERVED)
    try:
        with watching(progress, show_stderr) as watch:
            outcome = session.app.start_op(found, config, options, watch)
    except Interrupted as stopped:
        raise interrupted(stopped) from None
    return finish(session, outcome)


def interrupted(stopped: Interrupted) -> CommandFailure:
    """A signal ended the command; how to go on stands in the hint."""
    name = str(stopped)
    code = 128 + stopped.signal_number
    if stopped.run_id is None:
        info = error_info("interrupted", "interrupted before the run began", signal=name)
        return CommandFailure(info, code, hint="Nothing was stored; start it again.")
    info = error_info(
        "interrupted", "interrupted; the run can be resumed", signal=name, run_id=stopped.run_id
    )
    return CommandFailure(info, code, hint=f"resume with: mfm run resume {stopped.run_id}")


def finish(session: Session, outcome: Outcome) -> int:
    """Print what a driven run came to; the exit code of its phase.

    Raises:
        CommandFailure: it failed, was cancelled, or waits for somebody.
    """
    result = outcome.result
    run_id = str(result.run_id)
    if result.phase is RunPhase.Completed:
        data: dict[str, Json] = {
            "run_id": run_id,
            "op_id": str(outcome.manifest.op_id),
            "phase": result.phase.value,
            "manifest_id": str(outcome.manifest_id),
            "final_snapshot_id": None
            if result.final_snapshot_id is None
            else str(result.final_snapshot_id),
            "outputs": dict(outcome.outputs),
        }
        as_json = session.as_json
        session.show(data, "" if as_json else _text(outcome))
        if not as_json:
            for note in _notes(outcome):
                session.note(note)
        return ExitCode.DONE
    look = f"Look: mfm run status {run_id}"
    # A run that is over stays as it is.
    on = f"{look}; go on in a new run: mfm run fork {run_id}"
    if outcome.failure is not None and result.phase is RunPhase.Failed:
        info = outcome.failure.info
        where = {"run_id": run_id}
        if outcome.failure.state_id is not None:
            where["state_id"] = str(outcome.failure.state_id)
        hint = " ".join(part for part in (hint_for(info.code), on) if part)
        raise CommandFailure(info, ExitCode.RUN_FAILED, hint=hint, **where)
    if result.phase is RunPhase.Cancelled:
        info = error_info("run_cancelled", "the run was cancelled", run_id=run_id)
        raise CommandFailure(info, ExitCode.CANCELLED, hint=on)
    if result.phase is RunPhase.Running:
        info = error_info(
            "effect_unknown",
            "the run is parked: the outcome of a side effect is unknown",
            key=", ".join(outcome.waits_for),
        )
        hint = f"Find out what happened, then resolve it. {look}"
        raise CommandFailure(info, ExitCode.PARKED, hint=hint, run_id=run_id)
    info = error_info("invalid_plan", "the run failed without a failed state", reason="")
    raise CommandFailure(info, ExitCode.RUN_FAILED, hint=look, run_id=run_id)


def _text(outcome: Outcome) -> str:
    """The outputs for a person: as the op lays them out, else as JSON."""
    width = screen_width(sys.stdout) or PIPE_WIDTH
    shown = outcome.op.render_text(outcome.outputs, width) if outcome.op else None
    if shown is not None:
        return escape_lines(shown.rstrip("\n"))
    return json_document(outcome.outputs, indent=True) if outcome.outputs else ""


def _notes(outcome: Outcome) -> list[str]:
    if outcome.op is None:
        return []
    return list(outcome.op.text_notes(outcome.outputs))
