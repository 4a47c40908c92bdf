"""`mfm artifact get`: stored bytes, verified against their id."""

from __future__ import annotations

import sys

import click

from mfm_ops.cli.arguments import complete_artifacts
from mfm_ops.cli.errors import usage
from mfm_ops.cli.output import escape_lines, is_terminal, write
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmGroup, command

__all__ = ["artifact"]

artifact = MfmGroup(name="artifact", help="Read what the store holds.")


@command(
    artifact,
    "get",
    click.Argument(["artifact_id"], metavar="ID", shell_complete=complete_artifacts),
    click.Option(
        ["-o", "--output"],
        metavar="FILE",
        help="Write the bytes to FILE, or to standard output (-).",
    ),
)
def get(session: Session, artifact_id: str, output: str | None) -> None:
    """Print an artifact, named by its id or a unique prefix of it.

    The bytes go to standard output as they are stored; with --json they stand in a document, as
    `json` or, where they are no JSON, as `base64`.
    """
    described, data = session.app.artifact(artifact_id)
    if output not in (None, "-"):
        _save(output, data)
        del described["json" if "json" in described else "base64"]
        saved = f"{len(data)} bytes written to {output}"
        if session.as_json:
            session.show({**described, "file": output}, "")
        else:
            session.note(saved)
        return
    if session.as_json:
        session.show(described, "")
    elif is_terminal(sys.stdout):
        try:
            write(escape_lines(data.decode()))
        except UnicodeDecodeError:
            raise usage(
                "The artifact is not text, and standard output is a terminal.",
                hint="Write it to a file with -o FILE.",
            ) from None
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def _save(target: str, data: bytes) -> None:
    from mfm_ops.app.whole_file import written

    try:
        with written(target, force=True) as file:
            file.write(data)
    except OSError as error:
        raise usage(f"The file cannot be written: {error.strerror}.") from None
