"""`mfm run …`: look at stored runs, and go on with them."""

from __future__ import annotations

import sys
from typing import Any

import click

from mfm_ops.app import Interrupted
from mfm_ops.cli.arguments import run_argument
from mfm_ops.cli.numbers import Whole
from mfm_ops.cli.op import finish, interrupted
from mfm_ops.cli.output import (
    escape,
    has_reader,
    json_document,
    screen_width,
    table,
    time_text,
    write,
)
from mfm_ops.cli.run_options import watch_options, watching
from mfm_ops.cli.session import Session
from mfm_ops.cli.status import standing, status_lines
from mfm_ops.cli.tree import MfmGroup, command

__all__ = ["run_group"]

run_group = MfmGroup(
    name="run",
    help="Look at runs, and go on with them.\n\n"
    "RUN is a run's id, a unique prefix of it, or `last` for the newest run.",
    lazy={
        "replay": (
            "mfm_ops.cli.replay:replay",
            "Execute a run's handlers again on what it recorded, and compare.",
        ),
        "cancel": ("mfm_ops.cli.control:cancel", "End a run for good, from any process."),
        "resolve": (
            "mfm_ops.cli.control:resolve",
            "Say what became of an effect whose outcome is unknown.",
        ),
        "fork": ("mfm_ops.cli.control:fork", "Go on from a run in a new one."),
        "export": ("mfm_ops.cli.transfer:export_command", "Write a run to one file."),
        "import": ("mfm_ops.cli.transfer:import_command", "Add the runs of an export."),
    },
)
_SHOWN_BY_DEFAULT = 20
_MOST_SHOWN = 2**31 - 1
_WIDE = 96
_PREFIX = len("12345678-1234")


@command(
    run_group,
    "list",
    click.Option(
        ["--limit"],
        type=Whole(0, _MOST_SHOWN),
        default=_SHOWN_BY_DEFAULT,
        metavar="N",
        help=f"How many to show, 0 for all.  [default: {_SHOWN_BY_DEFAULT}]",
    ),
)
def list_runs(session: Session, limit: int) -> None:
    """List runs, the newest first."""
    runs = session.app.run_list(limit or None)
    width = screen_width(sys.stdout)
    # Whole ids leave no room for the rest; a prefix can be copied, and names a run in any command.
    length = None if width is None or width >= _WIDE else _PREFIX
    rows = [
        [
            run["run_id"][:length],
            run["op_id"] or "?",
            time_text(run["started_ts_millis"]),
            str(run["head_seq"]),
            standing(run) if run["phase"] else run["last_event"],
        ]
        for run in runs
    ]
    if not rows and not session.as_json:
        session.note(f"no runs in {session.settings.store_path}")
    headers = ["RUN", "OP", "STARTED (UTC)", "EVENTS", "PHASE"]
    lines = table(headers, rows, width=width, whole=0) if rows else []
    session.show(list(runs), "\n".join(lines))
    if any(run["activity"] == "interrupted" for run in runs) and not session.as_json:
        session.note("hint: what is interrupted goes on with: mfm run resume RUN")


@command(run_group, "status", run_argument())
def status(session: Session, run: str) -> None:
    """Show where a run stands: its phase, its states, and why it failed."""
    report = session.app.run_status(run)
    session.show(report, "" if session.as_json else "\n".join(status_lines(report)))


@command(
    run_group,
    "events",
    run_argument(),
    click.Option(
        ["--follow", "-f"],
        is_flag=True,
        help="Go on until the run is over; with --json one event a line (NDJSON).",
    ),
)
def events(session: Session, run: str, follow: bool) -> None:
    """Show a run's events in their order."""
    if follow:
        try:
            session.app.follow_events(
                run, lambda body: _show_event(session, body), lambda: has_reader(sys.stdout)
            )
        except KeyboardInterrupt:
            # Who follows decides when it is enough.
            sys.stdout.flush()
        return
    bodies = session.app.run_events(run)
    if not session.as_json:
        for body in bodies:
            _show_event(session, body)
        return
    # Written in pieces, since the document can be long; all of it was verified before.
    out = sys.stdout
    out.write('{"status":"success","data":[')
    for index, body in enumerate(bodies):
        out.write("," if index else "")
        out.write(_ndjson(body))
    out.write("]}\n")


def _show_event(session: Session, body: bytes) -> None:
    if session.as_json:
        write(_ndjson(body))
    else:
        write(_event_line(body))
    sys.stdout.flush()


def _ndjson(body: bytes) -> str:
    import orjson

    return json_document(orjson.loads(body), indent=False)


def _event_line(body: bytes) -> str:
    import orjson

    envelope = orjson.loads(body)
    event = envelope["event"]
    if "Kernel" in event:
        ((name, about),) = event["Kernel"].items()
        shown = _kernel_text(name, about)
    else:
        name, payload = event["Domain"]["name"], event["Domain"]["payload"]
        shown = "" if payload is None else json_document(payload, indent=False)
    line = f"{envelope['seq']:>6}  {time_text(envelope['ts_millis'])}  {escape(name)}  {shown}"
    width = screen_width(sys.stdout)
    line = line.rstrip()
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def _kernel_text(name: str, about: dict[str, Any]) -> str:
    if name == "RunStarted":
        return f"{about['op_id']} manifest {about['manifest_id'][:12]}"
    if name == "StateEntered":
        return f"{about['state_id']} attempt {about['attempt']}"
    if name == "StateCompleted":
        return f"{about['state_id']} snapshot {about['context_snapshot_id'][:12]}"
    if name == "StateFailed":
        return f"{about['state_id']} {escape(about['error']['info']['code'])}"
    return str(about["status"])


@command(run_group, "facts", run_argument())
def facts(session: Session, run: str) -> None:
    """List what a run learnt from outside; `mfm artifact get` prints a fact's payload."""
    report = session.app.run_facts(run)
    rows = []
    for fact in report["facts"]:
        meta = fact["meta"] if isinstance(fact["meta"], dict) else {}
        took = meta.get("duration_ms")
        rows.append(
            [
                fact["payload_id"][:16],
                str(meta.get("transport", "")),
                "" if took is None else f"{took} ms",
                fact["key"],
            ]
        )
    headers = ["PAYLOAD", "TRANSPORT", "TOOK", "KEY"]
    lines = table(headers, rows, width=screen_width(sys.stdout)) if rows else []
    if not rows and not session.as_json:
        session.note("no facts")
    session.show(report, "\n".join(lines))


@command(run_group, "manifest", run_argument())
def manifest(session: Session, run: str) -> None:
    """Print what a run was started with: op, input, run config, build, workspace."""
    report = session.app.run_manifest(run)
    session.show(report, "" if session.as_json else json_document(report["manifest"], indent=True))


@command(
    run_group,
    "resume",
    run_argument(),
    click.Option(
        ["--take-over"],
        is_flag=True,
        help="Even if another process still drives the run: it is fenced and stops.",
    ),
    *watch_options(),
)
def resume(
    session: Session, run: str, take_over: bool, progress: bool | None, show_stderr: bool | None
) -> int:
    """Go on with a run that was interrupted; a finished one returns its result."""
    try:
        with watching(progress, show_stderr) as watch:
            outcome = session.app.resume(run, take_over=take_over, watch=watch)
    except Interrupted as stopped:
        raise interrupted(stopped) from None
    return finish(session, outcome)
