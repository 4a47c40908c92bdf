"""Stores to open, damage and look into; what the SQLite tests share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import apsw
import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.sqlite import open_sqlite_store
from tests.contracts.event_store_suite import stream

LARGE = b"large" * 50_000
ROOT = Path(__file__).parents[2]


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(StorageFailure) as failure:
        action()
    return str(failure.value.info.code)


def change(path: Path, *statements: str) -> None:
    """Do to a closed store what its triggers refuse."""
    with apsw.Connection(str(path)) as connection:
        names = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        for (name,) in connection.execute(names).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


async def fill(path: Path, count: int = 5) -> RunId:
    """A store with one run of `count` events and two artifacts."""
    run = RunId.random()
    async with open_sqlite_store(path) as store:
        await store.append(run, 0, stream(run, count))
        await store.put(ArtifactKind.Output, b"small")
        await store.put(ArtifactKind.Output, LARGE)
    return run


def python(script: str, *prefix: str) -> str:
    command = [*prefix, sys.executable, "-c", dedent(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
