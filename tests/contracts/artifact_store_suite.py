"""The rules of StagingArtifactStore, for every backend.

A backend's test module subclasses `ArtifactStoreSuite` and says how its store is made.
"""

import hashlib

import anyio
import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.machine.stores import RunCatalog, StagingArtifactStore
from tests.contracts.event_store_suite import Store, stream

MEBIBYTE = 1024 * 1024


class ArtifactStoreSuite:
    """One rule a test; `store` is the subclass's fixture."""

    async def test_the_store_keeps_the_protocols(self, store: Store) -> None:
        assert isinstance(store, StagingArtifactStore)
        assert isinstance(store, RunCatalog)

    @pytest.mark.parametrize("size", [0, 1, 4096, 65_535, 65_536, 65_537, MEBIBYTE])
    async def test_put_returns_the_digest_and_get_the_bytes(self, store: Store, size: int) -> None:
        data = bytes(i * 31 % 256 for i in range(min(size, 4096))) * (size // 4096 + 1)
        data = data[:size]
        artifact = await store.put(ArtifactKind.Output, data)
        assert artifact == hashlib.sha256(data).hexdigest()
        assert await store.get(artifact) == data
        assert await store.exists(artifact)

    async def test_what_was_never_put_is_not_found(self, store: Store) -> None:
        artifact = artifact_id_for_bytes(b"never")
        assert not await store.exists(artifact)
        for look in (store.get, store.artifact_kind):
            with pytest.raises(StorageFailure) as failure:
                await look(artifact)
            assert failure.value.error.variant == "NotFound"
            assert failure.value.info.code == "artifact_not_found"

    @pytest.mark.parametrize("size", [10, 100_000])
    async def test_the_kind_of_the_first_put_stays(self, store: Store, size: int) -> None:
        first = await store.put(ArtifactKind.Manifest, b"x" * size)
        assert await store.put(ArtifactKind.other("late"), b"x" * size) == first
        assert await store.artifact_kind(first) == ArtifactKind.Manifest

    async def test_a_kind_of_ones_own_is_kept(self, store: Store) -> None:
        kind = ArtifactKind.other("trade é log")
        artifact = await store.put(kind, b"x")
        assert await store.artifact_kind(artifact) == kind

    async def test_a_staged_artifact_is_readable_at_once(self, store: Store) -> None:
        artifact = store.stage(ArtifactKind.FactPayload, b"staged")
        assert artifact == artifact_id_for_bytes(b"staged")
        assert await store.get(artifact) == b"staged"
        assert await store.exists(artifact)
        assert await store.artifact_kind(artifact) == ArtifactKind.FactPayload
        assert await store.find_artifacts(artifact) == [artifact]

    async def test_a_staged_artifact_costs_no_commit_of_its_own(self, store: Store) -> None:
        run = RunId.random()
        before = store.commits
        artifact = store.stage(ArtifactKind.Output, b"staged")
        assert store.commits == before
        await store.append(run, 0, stream(run, 1))
        assert store.commits == before + 1
        assert await store.get(artifact) == b"staged"

    async def test_an_empty_append_makes_what_is_staged_durable(self, store: Store) -> None:
        run = RunId.random()
        store.stage(ArtifactKind.Output, b"staged")
        before = store.commits
        await store.append(run, 0, [])
        assert store.commits == before + 1
        await store.append(run, 0, [])
        assert store.commits == before + 1

    async def test_staging_what_is_there_changes_nothing(self, store: Store) -> None:
        artifact = await store.put(ArtifactKind.Manifest, b"once")
        assert store.stage(ArtifactKind.Output, b"once") == artifact
        assert store.stage(ArtifactKind.SecretPayload, b"once") == artifact
        assert await store.artifact_kind(artifact) == ArtifactKind.Manifest

    async def test_the_kind_of_the_first_stage_stays(self, store: Store) -> None:
        artifact = store.stage(ArtifactKind.Manifest, b"once")
        await store.put(ArtifactKind.Output, b"once")
        assert await store.artifact_kind(artifact) == ArtifactKind.Manifest

    async def test_putting_known_bytes_again_costs_no_commit(self, store: Store) -> None:
        for data in (b"small", b"large" * 50_000):
            await store.put(ArtifactKind.Output, data)
            before = store.commits
            await store.put(ArtifactKind.Output, data)
            assert store.commits == before

    async def test_a_large_staged_artifact_costs_no_commit_of_its_own(self, store: Store) -> None:
        run, data, before = RunId.random(), b"l" * (store.stage_limit_bytes + 1), store.commits
        artifact = await store.stage_large(ArtifactKind.Output, data)
        assert await store.stage_large(ArtifactKind.Manifest, data) == artifact
        assert await store.get(artifact) == data
        assert await store.exists(artifact)
        assert store.commits == before
        await store.append(run, 0, stream(run, 1))
        assert store.commits == before + 1
        assert await store.put(ArtifactKind.Output, data) == artifact
        assert store.commits == before + 1
        assert await store.artifact_kind(artifact) == ArtifactKind.Output

    async def test_stage_takes_up_to_its_limit(self, store: Store) -> None:
        limit = store.stage_limit_bytes
        artifact = store.stage(ArtifactKind.Output, b"x" * limit)
        assert len(await store.get(artifact)) == limit
        with pytest.raises(ValueError, match="stage_limit_bytes"):
            store.stage(ArtifactKind.Output, b"x" * (limit + 1))

    async def test_puts_at_the_same_time_all_arrive(self, store: Store) -> None:
        blobs = [bytes([i]) * size for i in range(20) for size in (10, 70_000)]

        async def put(data: bytes) -> None:
            await store.put(ArtifactKind.Output, data)

        async with anyio.create_task_group() as group:
            for data in [*blobs, *blobs]:
                group.start_soon(put, data)
        for data in blobs:
            assert await store.get(artifact_id_for_bytes(data)) == data

    async def test_artifacts_are_found_by_prefix(self, store: Store) -> None:
        ids = sorted([await store.put(ArtifactKind.Output, bytes([i])) for i in range(40)])
        assert await store.find_artifacts("", limit=100) == ids
        assert await store.find_artifacts(ids[7]) == [ids[7]]
        shared = [found for found in ids if found.startswith(ids[7][0])]
        assert await store.find_artifacts(ids[7][0], limit=100) == shared
        assert await store.find_artifacts("", limit=3) == ids[:3]
        assert await store.find_artifacts("%", limit=3) == []
        assert await store.find_artifacts(ids[7] + "0") == []

    async def test_staging_again_what_a_commit_stored_keeps_it_readable(self, store: Store) -> None:
        run = RunId.random()
        for seq in range(3):
            artifact = store.stage(ArtifactKind.ContextSnapshot, b"constant")
            await store.append(run, seq, stream(run, 3)[seq : seq + 1])
            assert await store.get(artifact) == b"constant"
        assert store.commits == 3
