"""The rules of TransferStore, of exports and of verify, for every backend.

A backend's test module subclasses `TransferSuite`; `store` and `other` are its fixtures, two stores
that have nothing to do with each other.
"""

import io
import tarfile
from hashlib import sha256
from typing import Any, Protocol

import pytest

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import EventEnvelope, RunStatus
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import Adoption, EventStore, TransferStore
from mfm_ops.storage.findings import Verified
from mfm_ops.storage.transfer import Imported, export_run, import_bundle
from mfm_ops.storage.verify import verify_run, verify_store
from tests.run_streams import RUN, Stream, state_of
from tests.support import CANARY, SOME_ID

CHILD = RunId("00000000-0000-4000-8000-000000000001")
FORK = RunId("ffffffff-0000-4000-8000-000000000002")


class Store(TransferStore, EventStore, Protocol):
    """What both backends offer."""

    @property
    def commits(self) -> int: ...

    async def artifact_kind(self, artifact_id: ArtifactId) -> ArtifactKind: ...


def a_run(run_id: RunId = RUN) -> Stream:
    """A run of two states and a fact, over."""
    stream = Stream(run_id)
    stream.start()
    stream.say("mfm.driver", {"driver_id": "d", "policy_digest": None})
    stream.enter(state_of(0), 0)
    stream.fact("k", b"[1]", {"transport": "exec"})
    stream.complete(state_of(0), b'{"a":1}')
    stream.enter(state_of(1), 0)
    stream.complete(state_of(1), b"x" * 70_000)
    stream.end(RunStatus.Completed)
    return stream


async def exported(store: TransferStore, run_id: RunId = RUN) -> bytes:
    sink = io.BytesIO()
    done = await export_run(store, run_id, sink, FoldRules)
    data = sink.getvalue()
    assert (done.size_bytes, done.sha256) == (len(data), sha256(data).hexdigest())
    return data


async def imported(store: TransferStore, data: bytes) -> Imported:
    return await import_bundle(store, io.BytesIO(data), FoldRules)


async def refusal(store: TransferStore, data: bytes) -> Any:
    """The record of a refused import; nothing of it may be stored."""
    with pytest.raises(StorageFailure) as failure:
        await imported(store, data)
    assert await store.list_runs() == []
    return failure.value.info


async def whole(store: TransferStore) -> Verified:
    with store.audit() as audit:
        return await verify_store(audit, FoldRules)


class TransferSuite:
    """One rule a test; `store` and `other` are the subclass's fixtures."""

    # Adopting

    async def test_adopted_bytes_are_stored_as_they_are(self, store: Store) -> None:
        stream = a_run()
        # An absent option, as the Rust implementation writes it.
        bodies = [body.replace(b',"ts_millis":null', b"") for body in stream.bodies]
        running = b""
        for body in bodies:
            running = sha256(running + body).digest()
        await store.adopt([Adoption(RUN, 0, iter(bodies), running.hex())])
        assert await store.read_raw(RUN, 1) == bodies
        assert (await store.head(RUN)).running_hash == running.hex()

    async def test_adoption_is_all_or_nothing(self, store: Store) -> None:
        one, two = a_run(), a_run(CHILD)
        right = sha256(one.bodies[0]).hexdigest()
        with pytest.raises(StorageFailure) as failure:
            await store.adopt(
                [
                    Adoption(RUN, 0, one.bodies[:1], right),
                    Adoption(CHILD, 0, two.bodies[:1], right),
                ]
            )
        assert failure.value.error.variant == "Corruption"
        assert await store.list_runs() == []

    async def test_adoption_goes_on_from_the_head_or_not_at_all(self, store: Store) -> None:
        stream = a_run()
        await stream.store_in(store, 3)
        with pytest.raises(StorageFailure) as failure:
            await store.adopt([Adoption(RUN, 2, stream.bodies[2:], "0" * 64)])
        assert failure.value.error.variant == "Concurrency"
        assert await store.head_seq(RUN) == 3

    async def test_events_whose_source_breaks_off_are_not_stored(self, store: Store) -> None:
        def broken() -> Any:
            yield a_run().bodies[0]
            raise OSError

        with pytest.raises(OSError):  # noqa: PT011 - it is the source's own
            await store.adopt([Adoption(RUN, 0, broken(), "0" * 64)])
        assert await store.list_runs() == []

    async def test_adopting_makes_durable_what_was_staged(self, store: Store) -> None:
        artifact_id = store.stage(ArtifactKind.Output, b"staged")
        body = a_run().bodies[0]
        await store.adopt([Adoption(RUN, 0, [body], sha256(body).hexdigest())])
        with store.audit() as audit:
            assert audit.artifact(artifact_id) is not None

    async def test_a_parent_is_found_by_its_child(self, store: Store) -> None:
        stream = a_run()
        stream.events.pop()
        stream.say("child_run_completed", {"child_run_id": str(CHILD), "status": "Completed"})
        await stream.store_in(store)
        await a_run(FORK).store_in(store)
        assert await store.runs_naming_child(CHILD) == [RUN]
        assert await store.runs_naming_child(RUN) == []

    # Export and import

    async def test_what_is_imported_is_the_run(self, store: Store, other: Store) -> None:
        stream = a_run()
        await stream.store_in(store)
        done = await imported(other, await exported(store))
        assert [(run.run_id, run.before, run.after) for run in done.runs] == [(RUN, 0, 8)]
        assert await other.head(RUN) == await store.head(RUN)
        assert await other.read_range(RUN, 1) == stream.events
        with store.audit() as one, other.audit() as two:
            assert one.counts() == two.counts()
        assert (await whole(other)).findings == []

    async def test_an_export_is_the_same_from_both_stores(self, store: Store, other: Store) -> None:
        await a_run().store_in(store)
        data = await exported(store)
        await a_run(FORK).store_in(other)
        await imported(other, data)
        assert await exported(other) == data

    async def test_an_artifacts_kind_is_found_again(self, store: Store, other: Store) -> None:
        stream = a_run()
        stream.events.pop()
        stream.intent("k2")
        await stream.store_in(store)
        await imported(other, await exported(store))
        for kind, data in stream.artifacts:
            assert await other.artifact_kind(ArtifactId(sha256(data).hexdigest())) == kind

    async def test_a_second_import_changes_nothing(self, store: Store, other: Store) -> None:
        await a_run().store_in(store)
        data = await exported(store)
        await imported(other, data)
        commits = other.commits
        done = await imported(other, data)
        assert (done.runs[0].before, done.runs[0].after, done.new_artifacts) == (8, 8, 0)
        assert other.commits == commits

    async def test_a_run_that_is_shorter_here_is_extended(self, store: Store, other: Store) -> None:
        stream = a_run()
        await stream.store_in(store)
        await stream.store_in(other, 3)
        (run,) = (await imported(other, await exported(store))).runs
        assert (run.before, run.after) == (3, 8)
        assert await other.head(RUN) == await store.head(RUN)

    async def test_a_run_that_is_longer_here_stays(self, store: Store, other: Store) -> None:
        stream = a_run()
        await stream.store_in(store, 3)
        await stream.store_in(other)
        (run,) = (await imported(other, await exported(store))).runs
        assert (run.before, run.after) == (8, 8)

    @pytest.mark.parametrize("length", [3, 6, 8])
    async def test_another_history_of_the_run_is_refused(
        self, store: Store, other: Store, length: int
    ) -> None:
        stream = a_run()
        await stream.store_in(store)
        second: EventEnvelope = stream.events[1]
        stream.events[1] = second.model_copy(update={"ts_millis": 99})
        await stream.store_in(other, length)
        head = await other.head(RUN)
        with pytest.raises(StorageFailure) as failure:
            await imported(other, await exported(store))
        assert failure.value.info.code == "import_conflict"
        assert failure.value.info.details == {"run_id": RUN, "seq": 2}
        assert await other.head(RUN) == head

    async def test_a_run_that_goes_on_is_exported_as_far_as_it_is(
        self, store: Store, other: Store
    ) -> None:
        stream = a_run()
        await stream.store_in(store, 5)
        sink = io.BytesIO()
        done = await export_run(store, RUN, sink, FoldRules)
        assert (done.complete, done.head.seq) == (False, 5)
        await imported(other, sink.getvalue())
        await other.append(RUN, 5, stream.events[5:])
        assert await other.head_seq(RUN) == 8

    async def test_children_parents_and_sources_go_along(self, store: Store, other: Store) -> None:
        parent, child, fork = a_run(), a_run(CHILD), a_run(FORK)
        parent.events.pop()
        manifest_id = sha256(b'{"a":"manifest"}').hexdigest()
        spawned = {"child_run_id": CHILD, "child_manifest_id": manifest_id, "parent_run_id": RUN}
        parent.say("child_run_spawned", spawned)
        fork.events.pop()
        fork.say("mfm.forked_from", {"run_id": str(CHILD), "state_id": "demo.main.s0"})
        for stream in (parent, child, fork):
            await stream.store_in(store)
        for one, runs in ((RUN, [CHILD, RUN]), (CHILD, [CHILD, RUN]), (FORK, [CHILD, RUN, FORK])):
            done = await export_run(store, one, io.BytesIO(), FoldRules)
            assert list(done.runs) == runs
        await imported(other, await exported(store, FORK))
        assert (await other.list_runs(limit=1))[0].run_id == FORK
        assert await exported(other, RUN) == await exported(store, RUN)

    async def test_an_unknown_run_is_not_exported(self, store: Store) -> None:
        with pytest.raises(StorageFailure) as failure:
            await exported(store)
        assert failure.value.info.code == "run_not_found"

    async def test_a_run_whose_artifact_is_missing_is_not_exported(self, store: Store) -> None:
        stream = a_run()
        stream.artifacts = [one for one in stream.artifacts if len(one[1]) < 70_000]
        await stream.store_in(store)
        sink = io.BytesIO()
        with pytest.raises(StorageFailure) as failure:
            await export_run(store, RUN, sink, FoldRules)
        assert failure.value.info.code == "artifact_not_found"
        assert sink.getvalue() == b""

    async def test_a_run_that_breaks_the_rules_is_not_exported(self, store: Store) -> None:
        stream = a_run()
        stream.complete(state_of(0), b"{}")
        await stream.store_in(store)
        with pytest.raises(StorageFailure) as failure:
            await exported(store)
        assert failure.value.info.code == "history_invalid"

    async def test_a_secret_in_an_export_is_not_stored(self, store: Store, other: Store) -> None:
        for where in ("event", "artifact"):
            stream = a_run(RunId.random())
            stream.events.pop()
            if where == "event":
                stream.say("said", {"token": CANARY})
            else:
                stream.fact("k2", b'"%b"' % CANARY.encode(), {})
            await stream.store_in(store)
            info = await refusal(other, await exported(store, stream.run_id))
            assert info.code == "secrets_detected"
            assert CANARY not in info.model_dump_json()

    # Verify

    async def test_an_empty_store_is_whole(self, store: Store) -> None:
        assert await whole(store) == Verified()

    async def test_a_whole_store_has_no_findings_and_is_counted(self, store: Store) -> None:
        await a_run().store_in(store)
        await a_run(CHILD).store_in(store)
        report = await whole(store)
        assert (report.runs, report.events, report.found) == (2, 16, 0)
        bodies = [*a_run().bodies, *a_run(CHILD).bodies]
        blobs = {data for _, data in a_run().artifacts}
        assert report.artifacts == len(blobs)
        assert report.size_bytes == sum(map(len, bodies)) + sum(map(len, blobs))

    async def test_a_missing_artifact_is_named_once(self, store: Store) -> None:
        stream = a_run()
        stream.artifacts = [one for one in stream.artifacts if one[1] != b"{}"]
        await stream.store_in(store)
        report = await whole(store)
        missing = sha256(b"{}").hexdigest()
        assert [tuple(finding) for finding in report.findings] == [
            ("artifact_not_found", RUN, 1, missing, None)
        ]

    async def test_a_broken_rule_is_named_with_its_place(self, store: Store) -> None:
        stream = a_run()
        stream.complete(state_of(0), b"{}")
        await stream.store_in(store)
        report = await whole(store)
        assert [tuple(finding) for finding in report.findings] == [
            ("history_invalid", RUN, 9, None, "event_after_end")
        ]

    async def test_one_run_is_verified_with_its_artifacts_alone(self, store: Store) -> None:
        broken = a_run(CHILD)
        broken.complete(state_of(0), b"{}")
        await broken.store_in(store)
        await a_run().store_in(store)
        await store.put(ArtifactKind.Output, b"nobody's")
        with store.audit() as audit:
            run = audit.find_run(RUN)
            assert run is not None
            report = await verify_run(audit, run, FoldRules)
        assert (report.runs, report.events, report.found) == (1, 8, 0)
        assert report.artifacts == len({data for _, data in a_run().artifacts})
        assert report.running_hash == (await store.head(RUN)).running_hash

    async def test_more_findings_than_are_named_are_counted(self, store: Store) -> None:
        stream = Stream()
        stream.start()
        for number in range(1200):
            payload_id = sha256(str(number).encode()).hexdigest()
            meta = {"request_id": SOME_ID}
            fact = {"key": f"k{number}", "payload_id": payload_id, "meta": meta}
            stream.say("fact_recorded", fact)
        await stream.store_in(store)
        report = await whole(store)
        assert (report.found, len(report.findings)) == (1201, 1000)

    async def test_progress_is_told_up_to_the_end(self, store: Store) -> None:
        await a_run().store_in(store)
        told: list[tuple[str, int, int]] = []
        with store.audit() as audit:
            await verify_store(audit, FoldRules, lambda *step: told.append(step))
        count = len({data for _, data in a_run().artifacts})
        assert told == [("artifacts", count, count), ("events", 8, 8)]


def members(data: bytes) -> dict[str, bytes]:
    """An export as any tar reader sees it."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
        return found
