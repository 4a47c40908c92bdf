"""A SQLite store as it lies there, at one moment, for those who verify it: nothing is checked here.

Has connections of its own. What is right and what is damaged is decided in `verify`.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import StoredArtifact, StoredRun
from mfm_ops.storage.blobs import Blobs
from mfm_ops.storage.sqlite_errors import from_sqlite
from mfm_ops.storage.stream import Row

__all__ = ["SqliteAudit"]

_ROWS: Final = 512
_ARTIFACT_ROWS: Final = 256
_CHUNK_BYTES: Final = 1 << 20
_MOST_FAULTS: Final = 100
_EVENTS: Final = (
    "SELECT seq, CAST(body AS BLOB), running_hash FROM events "
    "WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"
)
# Whether the indexes agree with the tables is for SQLite's own check to say.
_COUNTS: Final = (
    "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM events), "
    "(SELECT count(*) FROM artifacts)"
)
_ARTIFACT: Final = "SELECT artifact, id, kind, size, body FROM artifacts"


class SqliteAudit:
    """The `StoreAudit` of a file; see there. One read transaction holds it still."""

    def __init__(self, name: str, connect: Callable[[], apsw.Connection], blobs: Blobs) -> None:
        self._name = name
        self._connect = connect
        self._blobs = blobs
        self._connection = connect()
        self._connection.execute("BEGIN")
        # The moment is that of the first look.
        self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()

    def close(self) -> None:
        """Let go of the moment."""
        self._connection.close()

    def counts(self) -> tuple[int, int, int]:
        counts: tuple[int, int, int] = self._rows(_COUNTS)[0]
        return counts

    def find_run(self, run_id: RunId) -> StoredRun | None:
        rows = self._rows("SELECT run, run_id FROM runs WHERE run_id = ?", run_id)
        return StoredRun(*rows[0]) if rows else None

    def runs(self) -> Iterator[StoredRun]:
        last = -1
        while rows := self._rows(
            "SELECT run, run_id FROM runs WHERE run > ? ORDER BY run LIMIT ?", last, _ROWS
        ):
            for key, run_id in rows:
                yield StoredRun(key, run_id)
            last = self._beyond(last, rows)

    def events(self, run: StoredRun, after_seq: int) -> list[Row]:
        rows: list[Row] = self._some(_EVENTS, run.key, after_seq, limit=_ROWS)
        self._beyond(after_seq, rows)
        return rows

    def artifacts(self, after: int) -> tuple[int, list[StoredArtifact]]:
        statement = f"{_ARTIFACT} WHERE artifact > ? ORDER BY artifact LIMIT ?"
        rows = self._some(statement, after, limit=_ARTIFACT_ROWS)
        after = self._beyond(after, rows)
        found = [
            StoredArtifact(digest.hex(), kind, size, body)
            if type(digest) is type(body) is bytes
            else self._artifact((row, digest, kind, size, body))
            for row, digest, kind, size, body in rows
        ]
        return after, found

    def artifact(self, artifact_id: ArtifactId) -> StoredArtifact | None:
        rows = self._rows(f"{_ARTIFACT} WHERE id = ?", bytes.fromhex(artifact_id))
        return self._artifact(rows[0]) if rows else None

    def strays(self, known: Iterable[str]) -> list[str]:
        wanted = frozenset(known)
        found = []
        for place, folders, files in os.walk(self._blobs.root):
            if "tmp" in folders and Path(place) == self._blobs.root:
                folders.remove("tmp")
            for name in files:
                path = Path(place) / name
                if name not in wanted or path != self._blobs.path(ArtifactId(name)):
                    found.append(str(path.relative_to(self._blobs.root)))
        return sorted(found)

    def damage(self) -> list[str]:
        try:
            connection = self._connect()
            try:
                rows = connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})").fetchall()
            finally:
                connection.close()
        except apsw.Error as error:
            details = from_sqlite(error, self._name).info.details
            return [str(details.get("reason") if isinstance(details, dict) else details)]
        return [str(text) for (text,) in rows if text != "ok"]

    def _artifact(self, row: tuple[Any, ...]) -> StoredArtifact:
        _, digest, kind, size, body = row
        artifact_id = digest.hex() if type(digest) is bytes else str(digest)
        if body is None:
            body = self._file(artifact_id, size if type(size) is int else 0)
        elif type(body) is not bytes:
            body = str(body).encode()
        return StoredArtifact(artifact_id, kind, size, body)

    def _file(self, artifact_id: str, size: int) -> Iterator[bytes]:
        with self._blobs.open(ArtifactId(artifact_id)) as file:
            # What is beyond its size makes it no better, and may be terabytes of a sparse file.
            while size >= 0 and (chunk := file.read(_CHUNK_BYTES)):
                size -= len(chunk)
                yield chunk

    def _beyond(self, after: int, rows: list[Any]) -> int:
        """The place of the last row, which a sound table has beyond `after`.

        Pages that are out of order would be read round and round.
        """
        if not rows:
            return after
        last = rows[-1][0]
        if type(last) is not int or last <= after:
            raise from_sqlite(apsw.CorruptError("order"), self._name)
        return last

    # Rows of a statement are whatever it selects.
    def _some(self, statement: str, *values: int, limit: int) -> list[Any]:
        """The next rows; near a page that cannot be read, one at a time."""
        try:
            return self._connection.execute(statement, (*values, limit)).fetchall()
        except (apsw.Error, UnicodeDecodeError):
            return self._rows(statement, *values, 1)

    def _rows(self, statement: str, *values: str | bytes | int) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except apsw.Error as error:
            raise from_sqlite(error, self._name) from None
        except UnicodeDecodeError:
            raise from_sqlite(apsw.CorruptError("text"), self._name) from None
