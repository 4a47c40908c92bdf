"""An export that was changed, forged or made up is refused by name, wherever the fault lies."""

import asyncio
import io
import json
import random
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine.canonical import artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.storage import bundle
from mfm_ops.storage.memory import MemoryStore
from mfm_ops.storage.transfer import import_bundle
from tests.contracts.transfer_suite import a_run, exported, imported, members, refusal
from tests.run_streams import RUN, state_of

pytestmark = pytest.mark.anyio

EVENTS = f"runs/{RUN}/events.jsonl"
REFUSED = {"export_corrupt", "export_not_mfm", "unsupported_format"}


@pytest.fixture
async def whole() -> bytes:
    store = MemoryStore()
    await a_run().store_in(store)
    return await exported(store)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class Forger:
    """Takes an export apart, and puts it together again with right digests."""

    def __init__(self, data: bytes) -> None:
        self.members = members(data)
        del self.members[bundle.DIGEST]

    def put_together(self, order: Callable[[list[str]], list[str]] = list) -> bytes:
        writer = bundle.BundleWriter(sink := io.BytesIO())
        for name in order(list(self.members)):
            writer._member(name, self.members[name])
        writer.close()
        return sink.getvalue()

    def header(self, **changes: Any) -> bytes:
        document = {**json.loads(self.members[bundle.HEADER]), **changes}
        self.members[bundle.HEADER] = canonical_json_bytes(document) + b"\n"
        return self.put_together()

    def events(self, change: Callable[[list[bytes]], None]) -> bytes:
        """Change the bodies; running hashes and all else are made anew."""
        lines = self.members[EVENTS].splitlines()
        bodies = [line[len(b'{"event":') : line.rindex(b',"running_hash"')] for line in lines]
        change(bodies)
        running, made = b"", []
        for body in bodies:
            running = bundle.next_hash(running, body)
            made.append(bundle.event_line(body, running))
        self.members[EVENTS] = b"".join(made)
        return self.header(events=len(bodies), running_hash=running.hex())


# The form


async def test_any_tar_reader_reads_an_export(whole: bytes) -> None:
    found = members(whole)
    first, *_, run, digest = found
    assert (first, run, digest) == ("mfm-export.json", EVENTS, "sha256")
    blobs = {data for _, data in a_run().artifacts}
    assert {data for name, data in found.items() if name.startswith("artifacts/")} == blobs
    assert [line[9:-84] for line in found[EVENTS].splitlines(keepends=True)] == a_run().bodies
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in archive} == {(0, 0, 0, 0o644)}


@given(st.integers(0, 2**60))
def test_a_header_of_any_size_is_what_tar_readers_expect(size: int) -> None:
    info = tarfile.TarInfo.frombuf(bundle.member_header("a", size), "utf-8", "strict")
    assert (info.name, info.size, info.isreg()) == ("a", size, True)


async def test_what_is_put_together_as_it_was_is_accepted(whole: bytes, store: MemoryStore) -> None:
    assert Forger(whole).put_together() == whole
    assert Forger(whole).events(lambda _: None) == whole
    await imported(store, whole)


# Damage


async def test_a_flipped_byte_anywhere_is_found_and_named(whole: bytes, long_form: bool) -> None:
    choose = random.Random(3)
    store = MemoryStore()
    # The large artifact is most of the file, and one byte of it is as good as another.
    start = whole.index(b"x" * 1000)
    places = [*range(start), *range(start + 70_000, len(whole))]
    sample = places if long_form else choose.sample(places, 1200)
    for at in [*sample, start + 5, start + 69_999]:
        flipped = bytes([whole[at] ^ 1 << choose.randrange(8)])
        info = await refusal(store, whole[:at] + flipped + whole[at + 1 :])
        assert info.code in REFUSED, at
        if info.code == "export_corrupt":
            assert info.details["offset"] <= at
            assert at < info.details["offset"] + 71_000


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 700, 2048, -1025, -1024, -1])
async def test_a_file_that_was_cut_off_is_refused(
    whole: bytes, store: MemoryStore, cut: int
) -> None:
    assert (await refusal(store, whole[:cut])).code in REFUSED


@pytest.mark.parametrize("tail", [b"\0", bytes(512), b"more"])
async def test_nothing_may_follow_the_end(whole: bytes, store: MemoryStore, tail: bytes) -> None:
    assert (await refusal(store, whole + tail)).details["reason"] == "end"


async def test_a_changed_event_is_named(whole: bytes, store: MemoryStore) -> None:
    info = await refusal(store, whole.replace(b'"ts_millis":9', b'"ts_millis":8', 1))
    assert info.code == "export_corrupt"
    assert (info.details["place"], info.details["seq"]) == (EVENTS, 5)


# Forgeries: every digest is right


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
async def test_another_version_is_unsupported(
    whole: bytes, store: MemoryStore, version: object
) -> None:
    info = await refusal(store, Forger(whole).header(version=version))
    assert (info.code, info.details["supported"]) == ("unsupported_format", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "another"},
        {"run_id": "no run"},
        {"run_id": str(RUN).upper()},
        {"artifacts": 3},
        {"artifacts": -1},
        {"runs": 2},
        {"run_id": "00000000-0000-4000-8000-000000000009"},
        {"more": 1},
        {"running_hash": 7},
    ],
)
async def test_a_header_that_lies_is_refused(
    whole: bytes, store: MemoryStore, changes: dict[str, Any]
) -> None:
    assert (await refusal(store, Forger(whole).header(**changes))).code in REFUSED


async def test_a_header_that_lies_about_the_runs_head_is_refused(
    whole: bytes, store: MemoryStore
) -> None:
    for lie in ({"events": 7}, {"running_hash": "0" * 64}):
        assert (await refusal(store, Forger(whole).header(**lie))).details["reason"] == "head"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        f"artifacts/../../{'a' * 58}",
        f"artifacts/{'A' * 64}",
        "artifacts/short",
        f"runs/../{RUN}/events.jsonl",
        f"runs/{RUN}",
        "runs/x/events.jsonl",
        "zebra",
    ],
)
async def test_a_member_of_another_name_is_refused(
    whole: bytes, store: MemoryStore, name: str
) -> None:
    forger = Forger(whole)
    forger.members[name] = b"hello"
    for order in (list, lambda names: [names[0], *sorted(names[1:])]):
        assert (await refusal(store, forger.put_together(order))).code == "export_corrupt"


async def test_members_out_of_order_or_twice_are_refused(whole: bytes, store: MemoryStore) -> None:
    forger = Forger(whole)
    swapped = forger.put_together(lambda names: [names[0], names[2], names[1], *names[3:]])
    assert (await refusal(store, swapped)).details["reason"] == "member_unexpected"
    for doubled in (
        forger.put_together(lambda names: [names[0], names[1], *names[1:]]),
        forger.put_together(lambda names: [*names, names[-1]]),
    ):
        assert (await refusal(store, doubled)).details["reason"] == "member_unexpected"


async def test_a_link_or_a_directory_is_refused(whole: bytes, store: MemoryStore) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"artifacts/{'0' * 64}")
        info.type, info.linkname = kind, "/etc/passwd"
        at = whole.index(b"artifacts/")
        forged = whole[:at] + info.tobuf(tarfile.USTAR_FORMAT) + whole[at:]
        assert (await refusal(store, forged)).details["reason"] == "member_header"


@pytest.mark.parametrize("size", [2**33, 2**80, bundle.MAX_ARTIFACT_BYTES + 1])
async def test_a_length_that_nothing_can_have_costs_no_memory(
    whole: bytes, store: MemoryStore, size: int
) -> None:
    at = whole.index(b"artifacts/")
    header = bundle.member_header(f"artifacts/{'0' * 64}", size)
    info = await refusal(store, whole[:at] + header + whole[at:])
    assert info.details["reason"] == "too_large"
    header = bundle.member_header(bundle.HEADER, size)
    assert (await refusal(store, header + whole)).code == "export_not_mfm"
    at = whole.index(b"runs/")
    info = await refusal(store, whole[:at] + bundle.member_header(EVENTS, size) + whole[at + 512 :])
    assert info.code == "export_corrupt"


async def test_an_artifact_that_is_missing_is_named(whole: bytes, store: MemoryStore) -> None:
    forger = Forger(whole)
    name = next(name for name in forger.members if name.startswith("artifacts/"))
    del forger.members[name]
    info = await refusal(store, forger.header(artifacts=4))
    assert info.details["reason"] == "artifact_missing"
    assert f"artifacts/{info.details['artifact_id']}" == name


async def test_an_artifact_that_nothing_names_is_refused(whole: bytes, store: MemoryStore) -> None:
    forger = Forger(whole)
    data = b"a stowaway"
    stowaway: ArtifactId = artifact_id_for_bytes(data)
    forger.members[f"artifacts/{stowaway}"] = data
    forger.header(artifacts=6)
    forged = forger.put_together(
        lambda names: [names[0], *sorted(n for n in names[1:] if n[0] == "a"), EVENTS]
    )
    info = await refusal(store, forged)
    assert (info.details["reason"], info.details["artifact_id"]) == ("artifact_unnamed", stowaway)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda bodies: bodies.pop(2), "envelope"),
        (lambda bodies: bodies.clear(), "no_events"),
        (lambda bodies: bodies.insert(1, b"[]"), "envelope"),
        (lambda bodies: bodies.insert(1, b"{"), "json_syntax"),
        (lambda bodies: bodies.insert(1, b"[" * 100_000 + b"]" * 100_000), "json_too_deep"),
        (lambda bodies: bodies.insert(1, b'{"a":0.5}'), "json_float"),
        (lambda bodies: bodies.insert(1, b'{"b":1,"a":2}'), "json_not_canonical"),
        (
            lambda bodies: bodies.append(bodies[-1].replace(b'"seq":8', b'"seq":9')),
            "event_after_end",
        ),
    ],
)
async def test_events_that_are_not_a_runs_are_refused(
    whole: bytes, store: MemoryStore, change: Callable[[list[bytes]], None], reason: str
) -> None:
    info = await refusal(store, Forger(whole).events(change))
    assert (info.code, info.details["reason"]) == ("export_corrupt", reason)


async def test_an_event_of_a_newer_version_is_unsupported(whole: bytes, store: MemoryStore) -> None:
    def newer(bodies: list[bytes]) -> None:
        bodies[-1] = bodies[-1].replace(b'"RunCompleted"', b'"RunPaused"')

    assert (await refusal(store, Forger(whole).events(newer))).code == "unsupported_format"


async def test_a_rule_that_is_broken_is_named(store: MemoryStore) -> None:
    good = a_run()
    good.events.pop()
    source = MemoryStore()
    await good.store_in(source)
    forger = Forger(await exported(source))
    good.complete(state_of(1), b"{}")
    info = await refusal(store, forger.events(lambda bodies: bodies.append(good.bodies[-1])))
    assert (info.details["seq"], info.details["reason"]) == (8, "no_open_attempt")


@given(st.binary(max_size=3000))
@settings(max_examples=150)
def test_any_bytes_are_refused_with_a_code(data: bytes) -> None:
    assert asyncio.run(refusal(MemoryStore(), data)).code in REFUSED


async def test_a_file_that_changes_while_it_is_read_stores_nothing(
    whole: bytes, store: MemoryStore
) -> None:
    class Changing(io.BytesIO):
        """Other bytes than before, the second time."""

        def seek(self, offset: int, whence: int = 0) -> int:
            place = super().seek(offset, whence)
            changed = bytearray(self.getvalue())
            changed[-3000:-1600] = changed[-3000:-1600].replace(b'"ts_millis":9', b'"ts_millis":8')
            view = self.getbuffer()
            view[:] = changed
            view.release()
            return place

    with pytest.raises(StorageFailure) as failure:
        await import_bundle(store, Changing(whole), FoldRules)
    assert failure.value.error.variant == "Corruption"
    assert await store.list_runs() == []
