"""The store's tables, what marks a file as ours, and how older formats become the present one.

Works on a connection that `sqlite_open` made. The meaning of body and running hash is in `stream`.
"""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Final

import apsw

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import StorageError, StorageFailure
from mfm_ops.storage.sqlite_errors import refused

__all__ = ["APPLICATION_ID", "FORMAT", "create", "file_format", "migrate"]

APPLICATION_ID: Final = 0x6D666D31
"""`mfm1` in the file's header: this file is an mfm store."""

FORMAT: Final = 1
"""The format that this version reads and writes; stands in the file as `user_version`."""

_RUNS = """
CREATE TABLE runs (
  run INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL UNIQUE
) STRICT
"""
# That an append goes on from the head is a constraint: a stale sequence number breaks the unique
# key, a gap the reference to the event before. Measured, this costs nothing; a trigger costs 6%.
_EVENTS = """
CREATE TABLE events (
  event INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES runs (run),
  seq INTEGER NOT NULL CHECK (seq >= 1),
  body TEXT NOT NULL,
  running_hash BLOB NOT NULL CHECK (length(running_hash) = 32),
  previous_seq INTEGER GENERATED ALWAYS AS (nullif(seq - 1, 0)) VIRTUAL,
  UNIQUE (run, seq),
  FOREIGN KEY (run, previous_seq) REFERENCES events (run, seq)
) STRICT
"""
# A rowid table: its rows are appended, and only the index of digests is written at random.
_ARTIFACTS = """
CREATE TABLE artifacts (
  artifact INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
  kind TEXT NOT NULL,
  size INTEGER NOT NULL CHECK (size >= 0),
  body BLOB CHECK (length(body) = size)
) STRICT
"""
_TABLES: Final[Mapping[str, str]] = {"runs": _RUNS, "events": _EVENTS, "artifacts": _ARTIFACTS}


_MARKS = """
SELECT (SELECT application_id FROM pragma_application_id),
       (SELECT count(*) FROM sqlite_schema),
       (SELECT user_version FROM pragma_user_version)
"""


def file_format(connection: apsw.Connection, path: str) -> int | None:
    """The format of the file, or None for an empty one.

    Raises:
        StorageFailure: `store_not_mfm` for another application's database,
            `unsupported_format` for what a newer version wrote.
    """
    # One statement sees one state of the file, also while another process makes the tables.
    application_id, tables, found = connection.execute(_MARKS).get
    if application_id == 0 and tables == 0:
        return None
    if application_id != APPLICATION_ID:
        raise refused("store_not_mfm", path)
    if found > FORMAT:
        info = error_info(
            "unsupported_format",
            "the store was written by a newer version",
            found=found,
            supported=FORMAT,
        )
        raise StorageFailure(StorageError(Other=info))
    return int(found)


def create(connection: apsw.Connection) -> None:
    """Make the tables; inside a transaction of the caller's."""
    for table, statement in _TABLES.items():
        connection.execute(statement)
        _forbid_changes(connection, table)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def migrate(connection: apsw.Connection, found: int) -> None:
    """Bring format `found` to `FORMAT`, step by step; inside a transaction of the caller's."""
    for version in range(found, FORMAT):
        _STEPS[version](connection)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _forbid_changes(connection: apsw.Connection, table: str) -> None:
    for verb in ("UPDATE", "DELETE"):
        connection.execute(
            f"CREATE TRIGGER {table}_refuse_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are never changed'); END"
        )


def _add_running_hashes(connection: apsw.Connection) -> None:
    """0 to 1: events got their running hash."""

    def rows() -> Iterator[tuple[int, int, bytes, bytes]]:
        current, previous = None, b""
        for run, seq, body in connection.execute(
            "SELECT run, seq, CAST(body AS BLOB) FROM events_format_0 ORDER BY run, seq"
        ):
            previous = sha256((previous if run == current else b"") + body).digest()
            current = run
            yield run, seq, body, previous

    connection.execute("ALTER TABLE events RENAME TO events_format_0")
    connection.execute(_EVENTS)
    connection.executemany(
        "INSERT INTO events (run, seq, body, running_hash) VALUES (?, ?, CAST(? AS TEXT), ?)",
        rows(),
    )
    connection.execute("DROP TABLE events_format_0")
    _forbid_changes(connection, "events")


_STEPS: Final[Mapping[int, Callable[[apsw.Connection], None]]] = {0: _add_running_hashes}
