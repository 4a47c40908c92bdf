"""Appends events that were stored elsewhere, as they are, in one transaction; blocks.

Has a connection of its own, so that a long one holds up nobody's but by SQLite's lock. Whether the
events are right is left to the caller.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final

import apsw

from mfm_ops.machine.stores import Adoption
from mfm_ops.storage.failures import concurrency, event_corrupt
from mfm_ops.storage.sqlite_errors import from_sqlite

__all__ = ["adopt"]

_FIND: Final = "SELECT run FROM runs WHERE run_id = ?"
_HEAD: Final = "SELECT seq, running_hash FROM events WHERE run = ? ORDER BY seq DESC LIMIT 1"
_INSERT: Final = (
    "INSERT INTO events (run, seq, body, running_hash) VALUES (?, ?, CAST(? AS TEXT), ?)"
)


def adopt(name: str, connect: Callable[[], apsw.Connection], runs: Sequence[Adoption]) -> None:
    """See `TransferStore.adopt`; `name` is what errors call the store."""
    try:
        connection = connect()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for adoption in runs:
                    _append(connection, adoption)
                connection.execute("COMMIT")
            except apsw.Error as error:
                failure = from_sqlite(error, name, connection)
                _roll_back(connection)
                raise failure from None
            except BaseException:
                _roll_back(connection)
                raise
        finally:
            connection.close()
    except apsw.Error as error:
        raise from_sqlite(error, name) from None


def _roll_back(connection: apsw.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _append(connection: apsw.Connection, adoption: Adoption) -> None:
    run_id, expected_seq = adoption.run_id, adoption.expected_seq
    connection.execute("INSERT INTO runs (run_id) VALUES (?) ON CONFLICT DO NOTHING", (run_id,))
    run: int = connection.execute(_FIND, (run_id,)).get
    head, running = connection.execute(_HEAD, (run,)).fetchone() or (0, b"")
    if head != expected_seq:
        raise concurrency(run_id, expected_seq, head)

    def rows() -> Iterator[tuple[int, int, bytes, bytes]]:
        nonlocal head, running
        for body in adoption.bodies:
            head, running = head + 1, sha256(running + body).digest()
            yield run, head, body, running

    connection.executemany(_INSERT, rows())
    if running.hex() != adoption.running_hash:
        raise event_corrupt(run_id, head, "running_hash")
