"""Sources that are read twice: a file as it is, a pipe or device through a temporary file.

What the bytes mean is left to whoever reads them; only their beginning is looked at here.
"""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from contextlib import contextmanager
from os import fstat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["STANDARD_STREAM", "seekable"]

STANDARD_STREAM: Final = "-"


@contextmanager
def seekable(source: str, begins_with: bytes) -> Iterator[BinaryIO]:
    """The bytes of `source` as a file that can be read twice; `-` is standard input.

    What comes through a pipe and does not begin with `begins_with` is cut off there: it may have
    no end, and the beginning tells the reader enough to refuse it.

    Raises:
        OSError: the source cannot be read, or there is no room for it.
    """
    if source == STANDARD_STREAM:
        with _spooled(sys.stdin.buffer, begins_with) as spool:
            yield spool
        return
    with Path(source).open("rb") as file:
        if stat.S_ISREG(fstat(file.fileno()).st_mode):
            yield file
            return
        with _spooled(file, begins_with) as spool:
            yield spool


@contextmanager
def _spooled(stream: BinaryIO, begins_with: bytes) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as spool:
        beginning = stream.read(len(begins_with))
        spool.write(beginning)
        if beginning == begins_with:
            shutil.copyfileobj(stream, spool)
        spool.seek(0)
        yield cast(BinaryIO, spool)
