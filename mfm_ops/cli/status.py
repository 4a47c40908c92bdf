"""How `mfm run status` reads: the run, its states, its children, what is in doubt, what to do.

What there is to tell is decided in `app.status`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mfm_ops.cli.output import Painter, escape, json_document, screen_width, table, time_text

__all__ = ["standing", "status_lines"]

_SHOWN_REQUEST: Final = 200
_ACTIVITIES: Final[Mapping[str, str]] = {
    "parked": "Parked",
    "interrupted": "Interrupted",
    "unknown": "Running?",
}


def status_lines(report: dict[str, Any]) -> list[str]:
    """What `app.status` tells of a run, for a terminal or a pipe."""
    paint = Painter(sys.stdout)
    phase = standing(report)
    mark = {"Completed": paint.good, "Failed": paint.bad}.get(phase, paint.warn)
    lines = [
        f"run       {report['run_id']}",
        f"op        {report['op_id']}",
        f"phase     {mark(phase)}",
        f"started   {time_text(report['started_ts_millis'])}",
    ]
    if report["forked_from"]:
        fork = report["forked_from"]
        lines.append(f"forked    from {fork['run_id']} at {fork['state_id']}")
    if report["child_of"]:
        lines.append(f"child     of {report['child_of']['run_id']}")
    if report["ended_ts_millis"] is not None:
        lines.append(
            f"ended     {time_text(report['ended_ts_millis'])} ({report['duration_ms']} ms)"
        )
    lines += [f"events    {report['head_seq']}", f"facts     {report['facts']}"]
    lines.append(f"manifest  {report['manifest_id']}")
    lines += _driver_lines(report)
    rows = [
        [
            state["state_id"],
            _state_standing(state),
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


def standing(run: dict[str, Any]) -> str:
    """The phase for a person, who wants to know whether anybody is at work on the run."""
    return str(_ACTIVITIES.get(run["activity"] or "", run["phase"] or "not begun"))


def _state_standing(state: dict[str, Any]) -> str:
    return str(_ACTIVITIES.get(state["activity"] or "", state["status"])).lower()


def _child_lines(report: dict[str, Any]) -> list[str]:
    rows = list(_child_rows(report["children"], 0))
    if not rows:
        return []
    headers = ["CHILD RUN", "OP", "PHASE", "SPAWNED BY"]
    lines = ["", *table(headers, rows, width=screen_width(sys.stdout), whole=0)]
    return lines + [
        f"hint: {run_id} waits for somebody; look: mfm run status {run_id}"
        for run_id in report["parked_children"]
    ]


def _child_rows(children: list[dict[str, Any]], depth: int) -> Iterator[list[str]]:
    for child in children:
        yield [
            "  " * depth + child["run_id"],
            child["op_id"] or "?",
            standing(child),
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
    driver, activity = report["driver"], report["activity"]
    if activity is None or activity == "parked":
        return []
    # A child is gone on with by whoever goes on with its parent.
    run_id = report["child_of"]["run_id"] if report["child_of"] else report["run_id"]
    on = f"hint: mfm run {'cancel' if report['cancel_requested'] else 'resume'} {run_id}"
    if driver is None:
        return ["driver    none", on]
    where = f"pid {_plain(driver['pid'])} on {_plain(driver['host'])}"
    if activity == "unknown":
        return [
            f"driver    {where}, where this host cannot look",
            f"hint: if it is no longer at work there: mfm run resume {run_id} --take-over",
        ]
    return [f"driver    {where}, alive"] if driver["alive"] else [f"driver    {where}, gone", on]


def _plain(value: Any) -> str:
    return escape(value) if isinstance(value, str) else json_document(value, indent=False)
