"""`mfm artifact get`: stored bytes, verified against their id."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

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
    click.Option(["-o", "--output"], metavar="FILE", help="Write the bytes to FILE."),
)
def get(session: Session, artifact_id: str, output: str | None) -> None:
    """Print an artifact, named by its id or a unique prefix of it.

    The bytes go to standard output as they are stored; with --json they stand in a document, as
    `json` or, where they are no JSON, as `base64`.
    """
    described, data = session.app.artifact(artifact_id)
    if output is not None:
        _save(Path(output), data)
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


def _save(path: Path, data: bytes) -> None:
    """Whole or not at all: a reader of `path` never sees half of it."""
    temporary: str | None = None
    try:
        if path.exists() and not path.is_file():
            # A device or a pipe is written to, not replaced.
            path.write_bytes(data)
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".mfm-", delete=False) as file:
            temporary = file.name
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise usage(f"The file cannot be written: {error.strerror}.") from None
