"""`mfm store verify`, `mfm run export` and `mfm run import`: integrity, and runs as files."""

from __future__ import annotations

import sys
from typing import Any

import click

from mfm_ops.cli.arguments import complete_runs, run_argument
from mfm_ops.cli.errors import CommandFailure, ExitCode, usage
from mfm_ops.cli.gauge import gauge, gauge_option
from mfm_ops.cli.output import escape, is_terminal, screen_width, table, write
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmCommand, MfmGroup, command
from mfm_ops.machine.codes import error_info

__all__ = ["export_command", "import_command", "store"]

store = MfmGroup(name="store", help="Look after the store itself.")


@command(
    store,
    "verify",
    click.Option(
        ["--run"],
        metavar="RUN",
        shell_complete=complete_runs,
        help="Only this run, and the artifacts that it names.",
    ),
    gauge_option(),
)
def verify(session: Session, run: str | None, progress: bool | None) -> None:
    """Verify every event, running hash, artifact, rule and reference of the store.

    All that is wrong is named, and ends with exit code 3. Nothing is changed.
    """
    from mfm_ops.app import transfers

    with gauge(progress) as tell:
        report: dict[str, Any] = transfers.verify(session.app, run, tell)
    strays = len(report["strays"])
    counted = [_count(report[f"{name}s"], name) for name in ("run", "event", "artifact", "byte")]
    summary = f"{', '.join(counted)} verified"
    notes = [f"strays, which do no harm: {strays}"] if strays else []
    if not report["found"]:
        heads = [f"running hash {report['running_hash']}"] if "running_hash" in report else []
        session.show(report, "\n".join([summary, *heads, *notes]))
        return
    if not session.as_json:
        for line in _finding_lines(report):
            write(line)
    details = {"path": report["store"], "found": report["found"]}
    if session.as_json:
        keys = ("runs", "events", "artifacts", "bytes", "findings", "strays")
        details |= {key: report[key] for key in keys}
    info = error_info("verify_failed", "something in the store is damaged", **details)
    raise CommandFailure(info, ExitCode.STORE)


def _finding_lines(report: dict[str, Any]) -> list[str]:
    columns = ("code", "run_id", "seq", "artifact_id", "reason")
    rows = [[_cell(finding.get(name)) for name in columns] for finding in report["findings"]]
    headers = ["CODE", "RUN", "SEQ", "ARTIFACT", "REASON"]
    lines = table(headers, rows, width=screen_width(sys.stdout), whole=1)
    rest = report["found"] - len(rows)
    return [*lines, f"and {rest} more"] if rest else lines


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _export(session: Session, run: str, output: str, force: bool, progress: bool | None) -> None:
    from mfm_ops.app import transfers

    if output == "-" and is_terminal(sys.stdout):
        raise usage("Standard output is a terminal.", hint="Write to a file with -o FILE.")
    if not output:
        raise usage("-o takes the name of a file, or - for standard output.")
    try:
        with gauge(progress) as tell:
            done: dict[str, Any] = transfers.export_file(
                session.app, run, output, tell, force=force
            )
    except FileExistsError:
        raise usage("The file is there already.", hint="--force replaces it.") from None
    except IsADirectoryError:
        raise usage("That is a directory; -o takes the name of a file in it.") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise usage(f"The file cannot be written: {error.strerror}.") from None
    others = _count(len(done["runs"]) - 1, "run")
    lines = [
        f"run       {done['run_id']}",
        f"events    {done['events']}, running hash {done['running_hash']}",
        f"with it   {others}, {_count(done['artifacts'], 'artifact')}",
        f"file      {escape(output)}, {done['bytes']} bytes, sha256 {done['sha256']}",
    ]
    if not done["complete"]:
        lines.append("The run has not ended: this is what it has done so far.")
    if output == "-":
        session.note("\n".join(lines))
    else:
        session.show(done, "\n".join(lines))


def _import(session: Session, file: str, progress: bool | None) -> None:
    from mfm_ops.app import transfers

    if not file:
        raise usage("FILE is the name of an export, or - for standard input.")
    try:
        with gauge(progress) as tell:
            done: dict[str, Any] = transfers.import_file(session.app, file, tell)
    except OSError as error:
        raise usage(f"The file cannot be read: {error.strerror}.") from None
    rows = [
        [run["run_id"], run["outcome"], str(run["events"]), str(run["new_events"])]
        for run in done["runs"]
    ]
    headers = ["RUN", "OUTCOME", "EVENTS", "NEW"]
    lines = table(headers, rows, width=screen_width(sys.stdout), whole=0)
    lines.append(f"{done['new_artifacts']} of {done['artifacts']} artifacts are new")
    session.show(done, "\n".join(lines))


def _files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
    """Names of files; the shell finds them. Making a `click.Path` would read the environment."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


export_command = MfmCommand(
    "export",
    callback=click.pass_obj(_export),
    params=[
        run_argument(),
        click.Option(
            ["-o", "--output"],
            metavar="FILE",
            shell_complete=_files,
            required=True,
            help="The file; - is stdout.",
        ),
        click.Option(["--force"], is_flag=True, help="Replace a file that is there already."),
        gauge_option(),
    ],
    help="Write a run, and all that belongs to it, to one file.\n\n"
    "Its parents, children and sources go along, with every artifact that they name. A run that "
    "has not ended is written as far as it is.",
)

import_command = MfmCommand(
    "import",
    callback=click.pass_obj(_import),
    params=[
        click.Argument(["file"], metavar="FILE", shell_complete=_files),
        gauge_option(),
    ],
    help="Add the runs of an export to the store; - is standard input.\n\n"
    "The whole file is verified before anything is stored. A run that is here already stays as it "
    "is, or is extended where the file knows more of it.",
)
