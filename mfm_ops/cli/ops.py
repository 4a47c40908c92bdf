"""`mfm ops list` and `mfm ops show`: what is installed, and how each op is configured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mfm_ops.cli.errors import CommandFailure, ExitCode, did_you_mean
from mfm_ops.cli.output import json_document, screen_width, table
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmGroup, command
from mfm_ops.machine.codes import error_info

if TYPE_CHECKING:
    from mfm_ops.machine.canonical import Json

__all__ = ["ops"]

ops = MfmGroup(name="ops", help="List and describe the ops that are installed.")


@command(ops, "list")
def list_ops(session: Session) -> None:
    """List every op with one line about it."""
    ops = session.ops
    found = [ops[op_id] for op_id in ops]
    data: list[Json] = [
        {
            "op_id": str(op.op_id),
            "op_version": op.op_version,
            "summary": op.summary,
            "from": ops.origin(op.op_id),
        }
        for op in found
    ]
    rows = [[str(op.op_id), op.op_version, op.summary] for op in found]
    lines = table(["OP", "VERSION", "SUMMARY"], rows, width=screen_width(sys.stdout))
    session.show(data, "\n".join(lines))


@command(ops, "show", click.Argument(["op_id"], metavar="OP"))
def show_op(session: Session, op_id: str) -> None:
    """Describe one op: its config as JSON Schema, its states, its imports and exports."""
    found = session.app.describe_op(op_id)
    if found is None:
        info = error_info(
            "op_unknown",
            f"No op of this name is installed{did_you_mean(op_id, map(str, session.ops))}",
            op_id=op_id,
        )
        raise CommandFailure(info, ExitCode.USAGE)
    session.show(found, "" if session.as_json else json_document(found, indent=True))
