"""The one connection that reads: rows of events and artifacts, and lists of them.

Blocks briefly; long reads are cut into pieces by `sqlite`. What a row must be is left to `stream`.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import apsw

from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import RunHead, RunListing
from mfm_ops.storage.failures import artifact_corrupt, event_corrupt
from mfm_ops.storage.sqlite_errors import from_sqlite, refused
from mfm_ops.storage.stream import Row, listing, verify

__all__ = ["ArtifactRow", "Reader"]

_HEAD: Final = (
    "SELECT seq, running_hash FROM events WHERE run = (SELECT run FROM runs WHERE run_id = ?) "
    "ORDER BY seq DESC LIMIT 1"
)
_ROWS: Final = (
    "SELECT seq, CAST(body AS BLOB), running_hash FROM events "
    "WHERE run = (SELECT run FROM runs WHERE run_id = ?) AND seq BETWEEN ? AND ? ORDER BY seq"
)
_RUNS: Final = (
    "SELECT run, run_id FROM runs WHERE run_id >= ? AND run_id < ? ORDER BY run DESC LIMIT ?"
)
_FIRST: Final = (
    "SELECT seq, CAST(body AS BLOB), running_hash FROM events WHERE run = ? ORDER BY seq LIMIT 1"
)
_LAST_TWO: Final = (
    "SELECT seq, CAST(body AS BLOB), running_hash FROM events WHERE run = ? "
    "ORDER BY seq DESC LIMIT 2"
)
_ARTIFACT: Final = "SELECT kind, size, body FROM artifacts WHERE id = ?"
_ARTIFACT_KIND: Final = (
    "SELECT kind, size, CASE WHEN body IS NULL THEN NULL ELSE x'' END FROM artifacts WHERE id = ?"
)
_ARTIFACT_IDS: Final = (
    "SELECT lower(hex(id)) FROM artifacts WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?"
)
_NAMING: Final = (
    "SELECT DISTINCT run_id FROM events JOIN runs USING (run) WHERE instr(body, ?) ORDER BY run"
)
# Follows every character of an id: hexadecimal digits and hyphens.
_AFTER: Final = "g"


class ArtifactRow(NamedTuple):
    """What the table says of an artifact; `body` is None when it lies in a file."""

    kind: str
    size: int
    body: bytes | None


class Reader:
    """Reads committed rows; every `apsw.Error` leaves as a storage failure."""

    def __init__(self, name: str, connect: Callable[[], apsw.Connection]) -> None:
        self.name = name
        self.connect = connect
        self.connection: apsw.Connection | None = None

    def head(self, run_id: RunId) -> RunHead:
        """The run's last event."""
        rows = self._all(_HEAD, (run_id,))
        return RunHead(rows[0][0], bytes(rows[0][1]).hex()) if rows else RunHead(0, "")

    def verified(
        self, run_id: RunId, from_seq: int, to_seq: int, previous: bytes | None
    ) -> tuple[list[bytes], bytes]:
        """The bodies of events that must be there, and the last one's running hash.

        `previous` is the running hash of event `from_seq - 1`, or None to read it.
        """
        first = from_seq - 1 if previous is None else from_seq
        rows: list[Row] = self._all(_ROWS, (run_id, first, to_seq))
        if previous is None:
            previous = b""
            if from_seq > 1:
                if not rows or rows[0][0] != from_seq - 1:
                    raise event_corrupt(run_id, from_seq - 1, "missing")
                previous = rows.pop(0)[2]
                if not isinstance(previous, bytes):
                    raise event_corrupt(run_id, from_seq - 1, "running_hash")
        bodies = verify(run_id, from_seq, previous, rows)
        if len(bodies) != to_seq - from_seq + 1:
            raise event_corrupt(run_id, from_seq + len(bodies), "missing")
        return bodies, rows[-1][2]

    def listings(self, limit: int | None, prefix: str) -> list[RunListing]:
        """Runs whose id starts with `prefix`, the newest insertion first."""
        most = -1 if limit is None else max(limit, 0)
        lines = []
        for run, text in self._all(_RUNS, (prefix, prefix + _AFTER, most)):
            first = self._all(_FIRST, (run,))
            last = self._all(_LAST_TWO, (run,))
            try:
                run_id = RunId(text)
            except ValueError:
                raise refused("store_corrupt", self.name, "run_id") from None
            if first and last:
                before = last[1][2] if len(last) > 1 else b""
                lines.append(listing(run_id, first[0], before, last[0]))
        return lines

    def runs_naming_child(self, child: RunId) -> list[RunId]:
        """Runs with an event that has `child` as its `child_run_id`, the oldest first."""
        # Canonical JSON has one spelling of it. This looks at every event of the store.
        rows = self._all(_NAMING, (f'"child_run_id":"{child}"',))
        return [RunId(run_id) for (run_id,) in rows]

    def artifact(self, artifact_id: ArtifactId, *, with_body: bool = True) -> ArtifactRow | None:
        """The artifact's row, if there is one; without its body, that is empty or None."""
        statement = _ARTIFACT if with_body else _ARTIFACT_KIND
        rows = self._all(statement, (bytes.fromhex(artifact_id),))
        if not rows:
            return None
        kind, size, body = rows[0]
        # A damaged file can hold a value of any type.
        if not (isinstance(kind, str) and isinstance(size, int) and isinstance(body, bytes | None)):
            raise artifact_corrupt(artifact_id)
        return ArtifactRow(kind, size, body)

    def artifact_ids(self, prefix: str, limit: int) -> list[ArtifactId]:
        """Up to `limit` ids that start with the hexadecimal `prefix`, in their order."""
        low, high = bytes.fromhex(prefix.ljust(64, "0")), bytes.fromhex(prefix.ljust(64, "f"))
        return [ArtifactId(text) for (text,) in self._all(_ARTIFACT_IDS, (low, high, limit))]

    def close(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            with contextlib.suppress(apsw.Error):
                self.connection.close()
            self.connection = None

    # Rows of a statement are whatever it selects: the callers know.
    def _all(self, statement: str, values: tuple[str | bytes | int, ...]) -> list[Any]:
        try:
            self.connection = self.connection or self.connect()
            return self.connection.execute(statement, values).fetchall()
        except apsw.Error as error:
            raise from_sqlite(error, self.name) from None
        except UnicodeDecodeError:
            raise refused("store_corrupt", self.name, "text") from None
