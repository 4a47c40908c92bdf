"""`mfm run …`: look at stored runs, and go on with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from mfm_ops.app import Interrupted
from mfm_ops.cli.numbers import Whole
from mfm_ops.cli.op import finish, interrupted
from mfm_ops.cli.output import Painter, escape, json_document, screen_width, table, write
from mfm_ops.cli.run_options import watch_options, watching
from mfm_ops.cli.session import Session
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
_SHOWN_REQUEST = 200


def _run_argument() -> click.Argument:
    return click.Argument(["run"], metavar="RUN")


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
    rows = [
        [
            run["run_id"],
            run["op_id"] or "?",
            _time(run["started_ts_millis"]),
            str(run["head_seq"]),
            run["last_event"],
        ]
        for run in runs
    ]
    if not rows and not session.as_json:
        session.note(f"no runs in {session.settings.store_path}")
    headers = ["RUN", "OP", "STARTED (UTC)", "EVENTS", "LAST EVENT"]
    lines = table(headers, rows, width=screen_width(sys.stdout)) if rows else []
    session.show(list(runs), "\n".join(lines))


@command(run_group, "status", _run_argument())
def status(session: Session, run: str) -> None:
    """Show where a run stands: its phase, its states, and why it failed."""
    report = session.app.run_status(run)
    session.show(report, "" if session.as_json else "\n".join(_status_lines(report)))


def _status_lines(report: dict[str, Any]) -> list[str]:
    paint = Painter(sys.stdout)
    phase = _phase(report["phase"], parked=report["parked"] or _waits_below(report))
    mark = {"Completed": paint.good, "Failed": paint.bad}.get(phase, paint.warn)
    lines = [
        f"run       {report['run_id']}",
        f"op        {report['op_id']}",
        f"phase     {mark(phase)}",
        f"started   {_time(report['started_ts_millis'])}",
    ]
    if report["forked_from"]:
        fork = report["forked_from"]
        lines.append(f"forked    from {fork['run_id']} at {fork['state_id']}")
    if report["child_of"]:
        lines.append(f"child     of {report['child_of']['run_id']}")
    if report["ended_ts_millis"] is not None:
        lines.append(f"ended     {_time(report['ended_ts_millis'])} ({report['duration_ms']} ms)")
    lines += [f"events    {report['head_seq']}", f"facts     {report['facts']}"]
    lines.append(f"manifest  {report['manifest_id']}")
    lines += _driver_lines(report)
    rows = [
        [
            state["state_id"],
            state["status"],
            str(state["attempts"]),
            "" if state["duration_ms"] is None else f"{state['duration_ms']} ms",
            state["error"]["code"] if state["error"] else "",
        ]
        for state in report["states"]
    ]
    if rows:
        headers = ["STATE", "STATUS", "ATTEMPTS", "TOOK", "ERROR"]
        lines += ["", *table(headers, rows, width=screen_width(sys.stdout))]
    lines += _child_lines(report) + _effect_lines(report)
    failure = report["failure"]
    if failure:
        lines += [
            "",
            f"{paint.bad('error[' + failure['code'] + ']')}: {escape(failure['message'])}",
        ]
        lines.append(f"  state: {failure['state_id']}")
        details = failure["details"] if isinstance(failure["details"], dict) else {}
        lines += [f"  {name}: {_plain(value)}" for name, value in details.items()]
        if failure["hint"]:
            lines.append(f"hint: {failure['hint']}")
    if report["phase"] in ("Failed", "Cancelled"):
        lines.append(f"hint: go on in a new run: mfm run fork {report['run_id']}")
    return lines


def _phase(phase: str | None, *, parked: bool) -> str:
    return "Parked" if parked else phase or "not begun"


def _waits_below(report: dict[str, Any]) -> bool:
    """Whether a run stands still because a child of it waits for somebody."""
    at_work = report["driver"] is not None and report["driver"]["alive"]
    return report["phase"] == "Running" and bool(report["parked_children"]) and not at_work


def _child_lines(report: dict[str, Any]) -> list[str]:
    rows = list(_child_rows(report["children"], 0))
    if not rows:
        return []
    headers = ["CHILD RUN", "OP", "PHASE", "SPAWNED BY"]
    lines = ["", *table(headers, rows, width=screen_width(sys.stdout))]
    return lines + [
        f"hint: {run_id} waits for somebody; look: mfm run status {run_id}"
        for run_id in report["parked_children"]
    ]


def _child_rows(children: list[dict[str, Any]], depth: int) -> Iterator[list[str]]:
    for child in children:
        yield [
            "  " * depth + child["run_id"],
            child["op_id"] or "?",
            _phase(child["phase"], parked=child["parked"]),
            child["state_id"] or "",
        ]
        yield from _child_rows(child["children"], depth + 1)


def _effect_lines(report: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for effect in report["unknown_effects"]:
        request = json_document(effect["request"], indent=False)
        sent = request if len(request) <= _SHOWN_REQUEST else f"{request[:_SHOWN_REQUEST]}…"
        lines += [
            "",
            f"unknown   the effect {escape(effect['key'])} of {effect['state_id']}",
            f"  sent    {escape(str(effect['namespace']))} {escape(sent)}",
            f"  whole   mfm artifact get {effect['request_id']}",
        ]
    if report["parked"]:
        lines.append(
            "hint: find out whether it happened, then: mfm run resolve "
            f"{report['run_id']} STATE --as completed|failed|retry --why TEXT"
        )
    return lines


def _driver_lines(report: dict[str, Any]) -> list[str]:
    driver = report["driver"]
    if report["phase"] != "Running":
        return []
    if report["parked"]:
        return []
    resume = f"hint: mfm run resume {report['run_id']}"
    if driver is None:
        return ["driver    none", resume]
    where = f"pid {_plain(driver['pid'])} on {_plain(driver['host'])}"
    if driver["alive"]:
        return [f"driver    {where}, alive"]
    return [f"driver    {where}, dead", resume]


@command(
    run_group,
    "events",
    _run_argument(),
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
            session.app.follow_events(run, lambda body: _show_event(session, body))
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
    line = f"{envelope['seq']:>6}  {_time(envelope['ts_millis'])}  {escape(name)}  {shown}"
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


@command(run_group, "facts", _run_argument())
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


@command(run_group, "manifest", _run_argument())
def manifest(session: Session, run: str) -> None:
    """Print what a run was started with: op, input, run config, build, workspace."""
    report = session.app.run_manifest(run)
    session.show(report, "" if session.as_json else json_document(report["manifest"], indent=True))


@command(
    run_group,
    "resume",
    _run_argument(),
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
        outcome = session.app.resume(
            run, take_over=take_over, watch=watching(progress, show_stderr)
        )
    except Interrupted as stopped:
        raise interrupted(stopped) from None
    return finish(session, outcome)


def _time(millis: int | None) -> str:
    if millis is None:
        return "-"
    try:
        when = datetime.fromtimestamp(millis / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(millis)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def _plain(value: Any) -> str:
    return escape(value) if isinstance(value, str) else json_document(value, indent=False)
