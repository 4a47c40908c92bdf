"""The command tree's root, and the one place where every failure of a command ends.

Which words a failure gets is left to `errors`, what the commands do to their own modules.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

import click

from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmGroup

__all__ = ["root", "run"]

COMPLETE_VARIABLE = "_MFM_COMPLETE"

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the run failed
  2    usage or configuration
  3    store or integrity
  4    divergence on replay or verify
  5    the run is parked until somebody resolves an effect
  6    the run was cancelled
  130  interrupted by Ctrl-C (129 SIGHUP, 143 SIGTERM); the run can be resumed"""


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from mfm_ops import __version__

        session = ctx.ensure_object(Session)
        session.show({"version": __version__}, f"mfm {__version__}")
        ctx.exit()


root = MfmGroup(
    name="mfm",
    help="Run operations that are recorded, sandboxed and replayable.",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            callback=_version,
            help="Print the version.",
        )
    ],
    lazy={
        "op": ("mfm_ops.cli.op:op", "Run one op."),
        "run": ("mfm_ops.cli.run:run_group", "Look at runs, and go on with them."),
        "ops": ("mfm_ops.cli.ops:ops", "List and describe the ops that are installed."),
        "artifact": ("mfm_ops.cli.artifact:artifact", "Read what the store holds."),
        "store": ("mfm_ops.cli.transfer:store", "Verify all that is stored."),
        "doctor": ("mfm_ops.cli.doctor:doctor", "Say what works here, and what to do."),
        "completion": ("mfm_ops.cli.completion:completion", "Print a shell's completion script."),
    },
)


def run(arguments: Sequence[str], begin: Callable[[], None] = lambda: None) -> int:
    """Run one command line and return its exit code; `begin` is called before the command is."""
    session = Session(begin)
    try:
        code = _run(arguments, session)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has had enough, as `head` has: no failure.
        _discard(sys.stdout)
        return 0
    except OSError as error:
        return _fail(error, session, as_json=False)
    return code


def _fail(error: BaseException, session: Session, *, as_json: bool) -> int:
    """Report a failure as far as anybody can be told; its exit code."""
    from mfm_ops.cli import errors

    failure = errors.translate(error, session)
    if not as_json:
        # Text goes to standard error; what is left for standard output has just failed, or is of
        # a command that failed.
        _flush_or_discard(sys.stdout)
    try:
        errors.report(failure, as_json=as_json)
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)
        # Where standard output takes no document, standard error may take a line.
        try:
            errors.report(failure, as_json=False)
        except OSError:
            _discard(sys.stderr)
    return failure.exit_code


def _flush_or_discard(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        _discard(stream)


def _discard(stream: TextIO) -> None:
    """Drop what cannot be written, so that Python's own last flush does not complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _complete(session: Session) -> int:
    """Answer a shell that asks what the next word may be; it never hears of what went wrong."""
    from click.shell_completion import shell_complete

    instruction = os.environ[COMPLETE_VARIABLE]
    try:
        return shell_complete(root, {"obj": session}, "mfm", COMPLETE_VARIABLE, instruction)
    except Exception:  # noqa: BLE001 - a prompt is no place for it; the command will say it
        return 1


def _run(arguments: Sequence[str], session: Session) -> int:
    try:
        if COMPLETE_VARIABLE in os.environ:
            return _complete(session)
        # Not `root.main`: it would end the process with 1 where a reader has had enough.
        with root.make_context("mfm", list(arguments), obj=session) as ctx:
            result = root.invoke(ctx)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        from mfm_ops.cli import errors

        return _fail(errors.interruption(), session, as_json=session.wants_json(arguments))
    except BrokenPipeError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets one record of it
        from mfm_ops.cli import errors

        as_json = session.wants_json(arguments)
        if isinstance(error, click.exceptions.NoArgsIsHelpError) and not as_json:
            print(error.format_message(), file=sys.stderr)
            return errors.ExitCode.USAGE
        return _fail(error, session, as_json=as_json)
    return result if isinstance(result, int) else 0
