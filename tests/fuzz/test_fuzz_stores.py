"""Store files and exports with damage of any kind: found and named by a code, or without effect."""

import asyncio
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.storage.memory import MemoryStore
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from mfm_ops.storage.transfer import import_bundle
from mfm_ops.storage.verify import verify_store
from tests.contracts.transfer_suite import a_run, exported
from tests.fuzz.mutations import broken_bytes, examples, outcome
from tests.run_streams import RUN

_PAGE_BYTES = 4096


async def _make(path: Path) -> None:
    async with open_sqlite_store(path) as store:
        await a_run().store_in(store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a closed store that holds one finished run; a path, for hypothesis prints it."""
    path = tmp_path_factory.mktemp("whole") / "store.sqlite"
    asyncio.run(_make(path))
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the same run."""

    async def make() -> bytes:
        store = MemoryStore()
        await a_run().store_in(store)
        return await exported(store)

    path = tmp_path_factory.mktemp("bundle") / "run.mfm"
    path.write_bytes(asyncio.run(make()))
    return path


@st.composite
def _damage(draw: st.DrawFn) -> list[tuple[float, bytes]]:
    """Places, as shares of the file, and what stands there afterwards."""
    pieces = st.one_of(
        st.binary(min_size=1, max_size=40),
        st.sampled_from(
            [b"\0" * _PAGE_BYTES, b"\xff" * 64, b"\0\0\0\1", b"\x0d", b"\x7f" + b"\xff" * 3]
        ),
    )
    places = st.floats(0, 1, exclude_max=True)
    return draw(st.lists(st.tuples(places, pieces), max_size=4))


async def _look(path: Path, *, read_only: bool) -> tuple[list[bytes], set[str]]:
    """What the run's events read as, and the codes of all that was found wrong."""
    codes: set[str] = set()
    bodies: list[bytes] = []
    try:
        store = open_sqlite_store(path, create=False, read_only=read_only)
    except StorageFailure as failure:
        return [], {str(failure.info.code)}
    async with store:
        for read in (_bodies, _heads, _artifacts):
            try:
                bodies += await read(store)
            except StorageFailure as failure:
                codes.add(str(failure.info.code))
        try:
            with store.audit() as audit:
                report = await verify_store(audit, FoldRules)
                codes |= {str(finding.code) for finding in report.findings}
        except StorageFailure as failure:
            codes.add(str(failure.info.code))
    return bodies, codes


async def _bodies(store: SqliteStore) -> list[bytes]:
    await store.read_range(RUN, 1)
    return await store.read_raw(RUN, 1)


async def _heads(store: SqliteStore) -> list[bytes]:
    await store.list_runs()
    return [(await store.head(RUN)).running_hash.encode()]


async def _artifacts(store: SqliteStore) -> list[bytes]:
    stream = a_run()
    events = stream.events
    assert events
    ids = [artifact_id_for_bytes(data) for _, data in stream.artifacts]
    return [await store.get(artifact_id) for artifact_id in ids]


# A file of no bytes at all is a store that was not made yet.
_CUTS = st.floats(0.001, 1)


@examples(60)
@given(damage=_damage(), cut=st.one_of(st.none(), _CUTS), read_only=st.booleans())
def test_damage_to_a_store_is_named_or_changes_nothing(
    tmp_path: Path,
    whole: Path,
    damage: list[tuple[float, bytes]],
    cut: float | None,
    read_only: bool,
) -> None:
    path = tmp_path / "store.sqlite"
    data = bytearray(whole.read_bytes())
    for place, piece in damage:
        at = int(place * len(data))
        data[at : at + len(piece)] = piece
    for file in tmp_path.glob("store.sqlite*"):
        file.unlink()
    path.write_bytes(data[: int(len(data) * cut)] if cut is not None else data)
    bodies, codes = asyncio.run(_look(path, read_only=read_only))
    assert codes <= CATALOGUE.keys()
    assert "internal_error" not in codes
    if not codes:
        assert bodies == _expected(whole, tmp_path)


def test_pages_out_of_order_are_not_read_round_and_round(tmp_path: Path, whole: Path) -> None:
    path, sound = tmp_path / "store.sqlite", whole.read_bytes()
    for at in range(_PAGE_BYTES, len(sound), _PAGE_BYTES // 4):
        path.write_bytes(sound[:at] + bytes(_PAGE_BYTES) + sound[at + _PAGE_BYTES :])
        _, codes = asyncio.run(_look(path, read_only=True))
        assert codes <= CATALOGUE.keys()


def _expected(whole: Path, directory: Path) -> list[bytes]:
    path = directory / "expected.sqlite"
    path.write_bytes(whole.read_bytes())
    bodies, codes = asyncio.run(_look(path, read_only=True))
    assert codes == set()
    return bodies


@examples(100)
@given(data=st.data())
def test_a_broken_export_is_refused_by_a_code_and_leaves_nothing(
    bundle: Path, data: st.DataObject
) -> None:
    sound = bundle.read_bytes()
    broken = data.draw(broken_bytes(sound))

    store = MemoryStore()
    imported = outcome(
        lambda: asyncio.run(import_bundle(store, io.BytesIO(broken), FoldRules)), StorageFailure
    )
    if isinstance(imported, StorageFailure):
        assert imported.info.code in CATALOGUE
        assert asyncio.run(store.list_runs()) == []
    else:
        assert broken == sound
