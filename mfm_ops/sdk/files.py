"""Careful reads of files that somebody else may have put there, and the search for programs.

What the bytes mean is left to `git`, `locks` and `installation`.
"""

import os
import stat
from pathlib import Path

__all__ = ["find_program", "read_regular", "written_path"]


def find_program(name: str, search_path: str) -> str | None:
    """The first executable `name` in the absolute directories of `search_path`.

    A relative entry would let the working directory bring a program of its own.
    """
    for directory in search_path.split(os.pathsep):
        if directory.startswith("/"):
            program = f"{directory}/{name}"
            # A directory is executable as well.
            if os.access(program, os.X_OK) and Path(program).is_file():
                return program
    return None


def read_regular(path: Path, max_bytes: int) -> bytes | None:
    """The bytes of a regular file of at most `max_bytes`; None for anything else.

    A pipe, a device or an unreadable file is None too, and none of them blocks.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return data if len(data) <= max_bytes else None


def written_path(relative: Path) -> str:
    """`relative` as it can stand in a manifest: with slashes; bytes that are no text escaped."""
    return os.fsencode(relative.as_posix()).decode("utf-8", "backslashreplace")
