"""The one connection that writes: turns a batch of appends and artifacts into one durable commit.

Blocks, and must be called by one thread at a time. Which appends share a batch, and which thread
commits it, is left to `sqlite_commit`.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

import apsw

from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.storage.failures import concurrency
from mfm_ops.storage.sqlite_errors import from_sqlite, is_busy
from mfm_ops.storage.sqlite_open import BUSY_TIMEOUT_MS
from mfm_ops.storage.stream import chain

__all__ = ["Append", "NewArtifact", "Writer"]

_INSERT_ARTIFACT: Final = (
    "INSERT INTO artifacts (id, kind, size, body) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
_PREDECESSOR: Final = (
    "SELECT run, running_hash FROM runs JOIN events USING (run) WHERE run_id = ? AND seq = ?"
)
_HEAD_SEQ: Final = "SELECT max(seq) FROM events WHERE run = (SELECT run FROM runs WHERE run_id = ?)"
_ROWS_A_STATEMENT: Final = 32
_VALUES_A_ROW: Final = 4
_HEADS_KEPT: Final = 4096

# After these SQLite's view of the file may differ from the disk's: a page whose sync failed can
# look clean to the next sync, which then succeeds without having written it.
_DISTRUST: Final = (apsw.IOError, apsw.CorruptError, apsw.FullError, apsw.NoMemError)


@dataclass(slots=True)
class Append:
    """One append and, after a commit, what became of it.

    No bodies ask only whether the head is `expected_seq`.
    """

    run_id: RunId
    expected_seq: int
    bodies: list[bytes]
    failure: StorageFailure | None = None


class NewArtifact(NamedTuple):
    """An artifact to be named by a row; `body` is None when it lies in a file."""

    artifact_id: ArtifactId
    kind: str
    size: int
    body: bytes | None


class _Head(NamedTuple):
    run: int
    seq: int
    running_hash: bytes


class Writer:
    """Commits batches. `commits` counts those that reached the disk."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], apsw.Connection],
        check: Callable[[], None],
    ) -> None:
        self.name = name
        self.connect = connect
        self.check = check
        self.connection: apsw.Connection | None = None
        self.commits = 0
        self._heads: dict[RunId, _Head] = {}

    def commit(
        self, appends: Sequence[Append], artifacts: Sequence[NewArtifact], *, wait: bool
    ) -> bool:
        """Make `artifacts` and all `appends` that go on from their head durable, in one commit.

        An append whose `expected_seq` is not the head gets its `failure` and hurts no other.
        Where all of them fail, nothing is written. False: without `wait`, another process has
        the write lock, and nothing happened.

        Raises:
            StorageFailure: the whole batch failed, nothing of it is stored.
        """
        # Here, where each commit passes: it costs two microseconds.
        self.check()
        try:
            connection = self.connection = self.connection or self.connect()
            connection.set_busy_timeout(BUSY_TIMEOUT_MS if wait else 0)
            if len(appends) == 1 and not artifacts and self._commit_alone(connection, appends[0]):
                return True
            connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            if is_busy(error) and not wait:
                return False
            self._heads.clear()
            failure = from_sqlite(error, self.name, self.connection)
            self._distrust(error)
            raise failure from None
        try:
            self._write(connection, appends, artifacts)
        except BaseException as error:
            self._heads.clear()
            if isinstance(error, apsw.Error):
                failure = from_sqlite(error, self.name, connection)
            with contextlib.suppress(apsw.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if isinstance(error, apsw.Error):
                self._distrust(error)
                raise failure from None
            raise
        return True

    def close(self) -> None:
        """Close the connection; the last one of all processes empties the log."""
        if self.connection is not None:
            with contextlib.suppress(apsw.Error):
                self.connection.close()
            self.connection = None

    def _commit_alone(self, connection: apsw.Connection, append: Append) -> bool:
        """Commit one append to a known head as one statement, which is a transaction of its own.

        False: it is not such a one, or the table refuses it, and nothing happened.
        """
        known = self._heads.get(append.run_id)
        if known is None or known.seq != append.expected_seq:
            return False
        if not 0 < len(append.bodies) <= _ROWS_A_STATEMENT:
            return False
        head, values = _following(known, append.bodies)
        try:
            _insert(connection, values)
        except apsw.ConstraintError:
            return False
        self.commits += 1
        self._heads[append.run_id] = head
        return True

    def _write(
        self,
        connection: apsw.Connection,
        appends: Sequence[Append],
        artifacts: Sequence[NewArtifact],
    ) -> None:
        heads: dict[RunId, _Head] = {}
        stored = not appends
        for append in appends:
            stored |= self._append(connection, append, heads)
        if not stored:
            connection.execute("ROLLBACK")
            return
        for new in artifacts:
            row = (bytes.fromhex(new.artifact_id), new.kind, new.size, new.body)
            connection.execute(_INSERT_ARTIFACT, row)
        connection.execute("COMMIT")
        self.commits += 1
        if len(self._heads) > _HEADS_KEPT:
            self._heads.clear()
        self._heads.update(heads)

    def _append(
        self, connection: apsw.Connection, append: Append, heads: dict[RunId, _Head]
    ) -> bool:
        """Insert the events and note the new head, or set `append.failure`; whether it was well."""
        if append.bodies:
            before = self._predecessor(connection, append)
            if before is not None:
                head, values = _following(before, append.bodies)
                try:
                    _insert(connection, values)
                except apsw.ConstraintError:
                    pass
                else:
                    heads[append.run_id] = head
                    return True
        found = connection.execute(_HEAD_SEQ, (append.run_id,)).get or 0
        if append.bodies or found != append.expected_seq:
            self._heads.pop(append.run_id, None)
            append.failure = concurrency(append.run_id, append.expected_seq, found)
        return append.failure is None

    def _predecessor(self, connection: apsw.Connection, append: Append) -> _Head | None:
        """The event that `append` wants to follow; whether it is the head, the table decides."""
        run_id, seq = append.run_id, append.expected_seq
        known = self._heads.get(run_id)
        if known is not None and known.seq == seq:
            return known
        if seq == 0:
            connection.execute(
                "INSERT INTO runs (run_id) VALUES (?) ON CONFLICT DO NOTHING", (run_id,)
            )
            run = connection.execute("SELECT run FROM runs WHERE run_id = ?", (run_id,)).get
            return _Head(run, 0, b"")
        row = connection.execute(_PREDECESSOR, (run_id, seq)).fetchone()
        return None if row is None else _Head(row[0], seq, row[1])

    def _distrust(self, error: apsw.Error) -> None:
        """Go on with a connection of its own after an `error` that leaves this one in doubt.

        The new one comes first: were the file closed for a moment, its next opening would recover
        the log, and find there the very commit that was reported as failed.
        """
        if not isinstance(error, _DISTRUST):
            return
        doubtful, self.connection = self.connection, None
        with contextlib.suppress(apsw.Error, StorageFailure):
            self.connection = self.connect()
        if doubtful is not None:
            with contextlib.suppress(apsw.Error):
                doubtful.close()


def _following(before: _Head, bodies: list[bytes]) -> tuple[_Head, list[int | bytes]]:
    """The head after `bodies`, and the values of their rows, one row's after the other's."""
    run, seq = before.run, before.seq
    hashes = chain(before.running_hash, bodies)
    values: list[int | bytes] = []
    for body, running_hash in zip(bodies, hashes, strict=True):
        seq += 1
        values += (run, seq, body, running_hash)
    return _Head(run, seq, hashes[-1]), values


def _insert(connection: apsw.Connection, values: list[int | bytes]) -> None:
    most = _ROWS_A_STATEMENT * _VALUES_A_ROW
    if len(values) <= most:
        # A statement is atomic: when the table refuses it, the transaction goes on without it.
        connection.execute(_insert_statement(len(values) // _VALUES_A_ROW), values)
        return
    with connection:
        for start in range(0, len(values), most):
            _insert(connection, values[start : start + most])


@cache
def _insert_statement(count: int) -> str:
    values = ", ".join(["(?, ?, CAST(? AS TEXT), ?)"] * count)
    # Nothing but placeholders is put together here.
    return f"INSERT INTO events (run, seq, body, running_hash) VALUES {values}"  # noqa: S608
