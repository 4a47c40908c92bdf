"""`mfm doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import sys
from typing import Any

import click

from mfm_ops.cli.errors import ExitCode
from mfm_ops.cli.output import Painter, escape, screen_width, table
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmCommand

__all__ = ["doctor"]


def _doctor(session: Session) -> int:
    report = session.app.check_up()
    session.show(report, "" if session.as_json else "\n".join(_lines(report)))
    return ExitCode.DONE if report["healthy"] else ExitCode.USAGE


def _lines(report: dict[str, Any]) -> list[str]:
    paint = Painter(sys.stdout)
    marks = {
        "ok": paint.good("ok     "),
        "warning": paint.warn("warning"),
        "failed": paint.bad("FAILED "),
        "absent": paint.dim("absent "),
    }
    lines = []
    for check in report["checks"]:
        lines.append(
            f"{marks[check['grade']]}  {escape(check['name'])}: {escape(check['summary'])}"
        )
        lines += [f"         {escape(detail)}" for detail in check["details"]]
        if check["hint"]:
            lines.append(f"         hint: {escape(check['hint'])}")
    width = screen_width(sys.stdout)
    lines += ["", *_section("VERSION", report["versions"].items(), width)]
    rows = [[s["key"], _value(s["value"]), s["source"]] for s in report["settings"]]
    lines += ["", *table(["SETTING", "VALUE", "FROM"], rows, width=width)]
    ops = ", ".join(escape(op["op_id"]) for op in report["ops"])
    transports = ", ".join(map(escape, report["transports"]))
    lines += ["", f"transports: {transports}", f"ops: {ops}", ""]
    lines.append("all is well" if report["healthy"] else "something essential does not work")
    return lines


def _section(title: str, items: Any, width: int | None) -> list[str]:
    rows = [[name, "not installed" if value is None else str(value)] for name, value in items]
    return table([title, ""], rows, width=width)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ":".join(value) if value else "(none)"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


doctor = MfmCommand(
    "doctor",
    callback=click.pass_obj(_doctor),
    help="Say what works here, what does not, and what to do about it.\n\n"
    "Exits with 0 when all that every run needs works, else with 2.",
)
